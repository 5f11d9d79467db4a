"""Calling a function: of the running local stack, or of a deployed one."""

import json
import tomllib
from collections.abc import Callable
from typing import Any

from local import template
from local.progress import Trouble
from local.settings import ROOT, Settings
from local.stack import emulator

_LONGEST = 910  # seconds: a little more than Lambda's limit

type Ask = Callable[[dict[str, Any]], dict[str, Any]]


def local(
    stack: Settings, functions: dict[str, str], folder: str, *, patience: float | None = None
) -> Ask:
    """Return a caller of a local function; `folder` is its name under functions/.

    The caller raises Trouble when the function fails; `patience` is that of `emulator.client`.
    """

    def ask(event: dict[str, Any]) -> dict[str, Any]:
        client = emulator.client("lambda", stack.gateway_port, patience=patience)
        answer = client.invoke(FunctionName=functions[folder], Payload=json.dumps(event).encode())
        return _object(folder, answer["Payload"].read().decode())

    return ask


def deployed(env: str, folder: str) -> Ask:
    """Return a caller of a function of a deployed stack, with the AWS credentials of the shell.

    One attempt, for as long as a function may run: `sam remote invoke` gives up after a minute and
    calls again while the first call still runs. The caller raises Trouble when the function fails.
    """
    import boto3  # takes half a second, and local commands do not need it
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    place = samconfig(env)
    session = boto3.Session(region_name=place.get("region"), profile_name=place.get("profile"))
    patience = Config(
        connect_timeout=10,
        read_timeout=_LONGEST,
        retries={"total_max_attempts": 1},
        tcp_keepalive=True,  # a NAT drops a connection that is idle for minutes
    )

    def ask(event: dict[str, Any]) -> dict[str, Any]:
        try:
            found = session.client("cloudformation").describe_stack_resource(
                StackName=place["stack_name"], LogicalResourceId=template.logical_id(folder)
            )
            name = found["StackResourceDetail"]["PhysicalResourceId"]
            answer = session.client("lambda", config=patience).invoke(
                FunctionName=name, Payload=json.dumps(event).encode()
            )
        except (BotoCoreError, ClientError) as error:
            raise Trouble(f"{folder} of {env} could not be asked: {error}") from None
        return _object(folder, answer["Payload"].read().decode())

    return ask


def samconfig(env: str) -> dict[str, Any]:
    """Return what samconfig.toml says about a stage: stack_name, region, profile and the rest."""
    known = tomllib.loads((ROOT / "samconfig.toml").read_text())
    if env not in known:
        raise Trouble(f"samconfig.toml has no environment {env!r}")
    found: dict[str, Any] = {}
    for command in ("global", "deploy"):
        found |= known[env].get(command, {}).get("parameters", {})
    return found


def _object(folder: str, text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict) or "errorMessage" in found:
        said = found.get("errorMessage") if isinstance(found, dict) else text[:200]
        raise Trouble(f"{folder} failed: {said}")
    return found
