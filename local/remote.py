"""Functions that a command asks something: those of the running local stack, or deployed ones."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from local import emulator, template
from local.progress import Trouble
from local.settings import Settings

type Ask = Callable[[dict[str, Any]], dict[str, Any]]


def local(stack: Settings, functions: dict[str, str], folder: str) -> Ask:
    """Return how to ask a function of the running local stack; `folder` is its name in functions/.

    The returned function raises Trouble when the asked one fails.
    """

    def ask(event: dict[str, Any]) -> dict[str, Any]:
        client = emulator.client("lambda", stack.gateway_port)
        answer = client.invoke(FunctionName=functions[folder], Payload=json.dumps(event).encode())
        return _object(folder, answer["Payload"].read().decode())

    return ask


def deployed(env: str, folder: str) -> Ask:
    """Return how to ask a function of a deployed stack, with the AWS credentials at hand.

    The returned function raises Trouble when the asked one fails.
    """

    def ask(event: dict[str, Any]) -> dict[str, Any]:
        command = [
            str(Path(sys.executable).with_name("sam")),
            *("remote", "invoke", template.logical_id(folder), "--config-env", env),
            *("--event", json.dumps(event), "--output", "text"),
        ]
        done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
        if done.returncode:
            raise Trouble(f"{folder} failed in {env}; what it said stands above")
        return _object(folder, done.stdout)

    return ask


def _object(folder: str, text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict) or "errorMessage" in found:
        said = found.get("errorMessage") if isinstance(found, dict) else text[:200]
        raise Trouble(f"{folder} failed: {said}")
    return found
