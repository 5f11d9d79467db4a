"""`make debug F=…`: run a function from its source until an editor's breakpoint.

It waits for an editor on 127.0.0.1:5678 that speaks the Debug Adapter Protocol (debugpy);
docs/commands.md has the configuration for VS Code.
"""

import argparse
import importlib
import json
import os
import sys
import uuid
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import debugpy  # noqa: T100  # it is what this command is for

from local import template
from local.progress import Trouble, complain, say
from local.settings import HOST, ROOT
from local.stack import runtime
from local.tools import invoke

# No deadline ends the function while a person looks at it.
_PATIENCE_MILLISECONDS = 3_600_000


def main() -> int:
    """Call the handler once with its sample event, under the debugger, and print its answer."""
    parser = argparse.ArgumentParser(prog="python -m local.tools.debug", description=__doc__)
    parser.add_argument("function", help="folder under functions/, e.g. confirm_upload")
    parser.add_argument("event", nargs="?", type=Path, help="events/….json; its own by default")
    parser.add_argument("--port", type=int, default=5678, help="where the editor attaches")
    chosen = parser.parse_args()
    try:
        prepare(chosen.function)
        event = invoke.sample(chosen.function, chosen.event)
        listen(chosen.port)
    except Trouble as trouble:
        complain(str(trouble))
        return 1
    say(f"{chosen.function} waits for an editor on {HOST}:{chosen.port}; Ctrl-C gives up.")
    debugpy.wait_for_client()  # noqa: T100
    answer = importlib.import_module("app").handler(event, context(chosen.function))
    say(json.dumps(invoke.readable(answer), indent=2, ensure_ascii=False, default=str))
    return 0


def prepare(function: str) -> None:
    """Take on the variables and the import path of a function; raises Trouble when unknown."""
    described = template.read()
    properties = template.functions(described)[runtime.known(function)]
    given = invoke.environment(function)
    if not given:
        complain("no stack has run here (`make run`): the function has the template's defaults")
    os.environ.update(environment(template.resolve(properties["Environment"], described), given))
    os.environ["AWS_LAMBDA_FUNCTION_NAME"] = template.resolve(properties["FunctionName"], described)
    sys.path[:0] = [str(ROOT / "functions" / function), str(ROOT / "layers" / "kyora")]


def environment(defaults: Mapping[str, object], given: Mapping[str, str]) -> dict[str, str]:
    """Return the template's variables with those of the running stack over them."""
    return {name: str(value) for name, value in defaults.items()} | dict(given)


def listen(port: int) -> None:
    """Open the debugger's port; raises Trouble when another process has it."""
    try:
        debugpy.listen((HOST, port))  # noqa: T100
    except RuntimeError as error:
        raise Trouble(
            f"port {port} is taken, by another `make debug`? PORT={port + 1} takes another"
        ) from error


def context(function: str) -> SimpleNamespace:
    """Return what a handler reads of Lambda's context."""
    return SimpleNamespace(
        aws_request_id=str(uuid.uuid4()),
        function_name=function,
        get_remaining_time_in_millis=lambda: _PATIENCE_MILLISECONDS,
    )


if __name__ == "__main__":
    sys.exit(main())
