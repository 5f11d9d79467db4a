"""Build the real template and deploy it to the emulator with the real `sam`.

Nothing is changed for this machine but parameters, and what the emulator refuses (`gaps`): what
runs here is what runs on AWS.
"""

import asyncio
import fcntl
import hashlib
import itertools
import json
import logging
import os
import re
import shutil
import signal
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from local import process, template
from local.progress import Trouble
from local.settings import ROOT, STACK, Settings, architecture
from local.stack import emulator, gaps

BUILD = ROOT / ".aws-sam" / "build"
_SOURCES = ("template.yaml", "samconfig.toml", "functions", "layers")
_SKIP = {"__pycache__", ".mypy_cache", ".ruff_cache"}
# Names the sources of a build whose layers are zipped.
_BUILT = ".built"


def sources() -> Iterator[Path]:
    """Yield every file that goes into a build."""
    for name in _SOURCES:
        top = ROOT / name
        for path in sorted(top.rglob("*")) if top.is_dir() else [top]:
            if path.is_file() and path.suffix != ".pyc" and not _SKIP & set(path.parts):
                yield path


def fingerprint() -> str:
    """Return a digest of all sources: equal digests mean equal builds."""
    digest = hashlib.sha256(architecture().encode())
    for path in sources():
        digest.update(str(path.relative_to(ROOT)).encode() + b"\0")
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def built() -> str:
    """Return the fingerprint of the sources that `.aws-sam/build` was made of."""
    try:
        return (BUILD / _BUILT).read_text()
    except OSError:
        return ""


async def build(log: Path) -> bool:
    """Run `sam build` for this machine if the sources changed; return whether it ran."""
    with _one_at_a_time():
        wanted = fingerprint()
        if built() == wanted and (BUILD / "template.yaml").exists():
            return False
        _need("make", "sam build needs `make`: install it (Debian: apt install make)")
        # sam's cache keys a layer by its own folder, without what its Makefile includes.
        recipe = hashlib.sha256((ROOT / "layers" / "packages.mk").read_bytes()).hexdigest()[:12]
        cache = BUILD.parent / f"cache-{recipe}"
        await sam(
            [
                *("build", "--cached", "--cache-dir", str(cache)),
                *("--parameter-overrides", f"Architecture={architecture()}"),
            ],
            env={**_environment(), "ARCHITECTURE": architecture()},
            log=log,
            failed="sam build failed",
        )
        await asyncio.to_thread(_pack_layers)
        (BUILD / _BUILT).write_text(wanted)
        return True


def _pack_layers() -> None:
    """Zip each built layer beside its folder: sam would at each deploy, for four seconds."""
    with ThreadPoolExecutor() as pool:
        list(pool.map(_pack, BUILD.glob("*Layer")))


def _pack(layer: Path) -> None:
    with zipfile.ZipFile(_packed(layer.name), "w") as archive:
        for file in sorted(layer.rglob("*")):
            if file.is_file():
                # Without the file's time: a layer that did not change is not deployed again.
                entry = zipfile.ZipInfo(str(file.relative_to(layer)))
                archive.writestr(entry, file.read_bytes(), zipfile.ZIP_DEFLATED)


def _packed(layer: str) -> Path:
    return BUILD / f"{layer}.zip"


def layer_sizes() -> dict[str, tuple[float, float]]:
    """Return megabytes unpacked and zipped of each built layer, by its name."""
    found = {}
    for layer in sorted(BUILD.glob("*Layer")):
        unpacked = sum(path.stat().st_size for path in layer.rglob("*") if path.is_file())
        found[layer.name] = (unpacked / 1e6, _packed(layer.name).stat().st_size / 1e6)
    return found


async def deploy(settings: Settings, parameters: Mapping[str, str], log: Path) -> None:
    """Run `sam deploy` of what was built, against the emulator."""
    overrides = [f'{key}="{_quoted(value)}"' for key, value in sorted(parameters.items())]
    try:
        await _sam_deploy(overrides, settings, log)
    except Trouble as failure:
        if why := await asyncio.to_thread(_first_failure, settings):
            raise Trouble(f"sam deploy to the emulator failed: {why} (log: {log})") from failure
        raise


async def _sam_deploy(overrides: list[str], settings: Settings, log: Path) -> None:
    await sam(
        [
            *("deploy", "--template-file", str(_for_the_emulator()), "--config-env", "local"),
            *("--stack-name", STACK, "--resolve-s3"),
            *("--capabilities", "CAPABILITY_IAM", "CAPABILITY_NAMED_IAM", "CAPABILITY_AUTO_EXPAND"),
            *("--no-confirm-changeset", "--no-fail-on-empty-changeset", "--no-progressbar"),
            "--use-json",  # sam, the emulator and `translated` parse it: YAML takes a second each
            *("--region", emulator.REGION, "--parameter-overrides", *overrides),
        ],
        # It looks every five seconds whether the stack is there: for AWS, not for this machine.
        env={
            **_environment(),
            **emulator.credentials(settings.gateway_port),
            "SAM_CLI_POLL_DELAY": "0.5",
        },
        log=log,
        failed="sam deploy to the emulator failed",
    )


def _for_the_emulator() -> Path:
    """Write what the emulator understands of the built template beside it; return the file."""
    file = BUILD / "emulator.json"
    with _one_at_a_time():
        changed = gaps.understood(template.read(BUILD / "template.yaml"))
        for name, resource in changed["Resources"].items():
            if resource["Type"] == "AWS::Serverless::LayerVersion":
                resource["Properties"]["ContentUri"] = _packed(name).name
        file.write_text(json.dumps(changed))
    return file


def _first_failure(settings: Settings) -> str:
    """Return the resource that made the deploy fail, and why."""
    client = emulator.client("cloudformation", settings.gateway_port)
    pages = client.get_paginator("describe_stack_events").paginate(StackName=STACK)
    try:
        # Newest first, a hundred a page: a rollback alone fills more than one.
        events = [event for page in pages for event in page["StackEvents"]]
    except client.exceptions.ClientError:
        return ""
    why = ""
    for event in events:
        status = event["ResourceStatus"]
        if status in {"CREATE_IN_PROGRESS", "UPDATE_IN_PROGRESS", "REVIEW_IN_PROGRESS"} and (
            event["LogicalResourceId"] == STACK
        ):
            break  # where this deploy began
        if status.endswith("_FAILED"):
            reason = " ".join(event.get("ResourceStatusReason", "").split())
            why = f"{event['LogicalResourceId']}: {reason[:400]}"
    return why


def parameters(settings: Settings) -> dict[str, str]:
    """Return every template parameter of this stack.

    A configuration key has one name as a parameter (StorageProvider) and one as a variable
    (STORAGE_PROVIDER). A variable that is set wins; a secret goes through Secrets Manager.
    None is left out: `sam deploy` would keep its value of an earlier run.
    """
    defaults = {
        "Stage": "local",
        "Architecture": architecture(),
        "AppBaseUrl": settings.url,
        "StorageLocalPath": str(settings.assets),
        "StorageS3Endpoint": emulator.endpoint(settings.gateway_port),
        "StorageS3AddressingStyle": "path",
        # The front serves public/ of its own store; another store has an address of its own.
        "StoragePublicBaseUrl": "" if settings.environ.get("STORAGE_S3_ENDPOINT") else settings.url,
        "BillingStripeBaseUrl": settings.stripe_url if settings.own_stripe else "",
        "EventArchiveDays": "0",  # see gaps.py
        "CorsOrigins": ",".join(settings.cors_origins),
        "TraceOtlpEndpoint": f"{settings.url}/_local/otlp",
    }
    names = template.read()["Parameters"]
    chosen = {name: str(known.get("Default", "")) for name, known in names.items()}
    chosen |= {name: value for name, value in defaults.items() if name in names}
    for name in names:
        variable = variable_name(name)
        if value := settings.environ.get(variable):
            chosen[name] = str(settings.assets) if name == "StorageLocalPath" else value
        elif variable.endswith("_ARN") and (secret := _secret(settings, variable[:-4])):
            chosen[name] = _put_secret(settings, variable[:-4], secret)
    return chosen


def variable_name(parameter: str) -> str:
    """Turn StorageS3AddressingStyle into STORAGE_S3_ADDRESSING_STYLE."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", parameter).upper()


def _secret(settings: Settings, name: str) -> str:
    if name == "DATABASE_URL":
        return settings.database_url
    if name == "DATABASE_OWNER_URL":
        return settings.database_owner_url
    return settings.environ.get(name) or settings.secrets.get(name, "")


def _put_secret(settings: Settings, name: str, value: str) -> str:
    client = emulator.client("secretsmanager", settings.gateway_port)
    secret_id = f"{STACK}/{name.lower().replace('_', '-')}"
    try:
        found = client.describe_secret(SecretId=secret_id)
    except client.exceptions.ResourceNotFoundException:
        return str(client.create_secret(Name=secret_id, SecretString=value)["ARN"])
    client.put_secret_value(SecretId=secret_id, SecretString=value)
    return str(found["ARN"])


def stack(settings: Settings) -> dict[str, str] | None:
    """Return the deployed stack's physical ids by logical id, or None when there is none."""
    client = emulator.client("cloudformation", settings.gateway_port)
    try:
        status = client.describe_stacks(StackName=STACK)["Stacks"][0]["StackStatus"]
    except client.exceptions.ClientError:
        return None
    if status in {"ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "CREATE_FAILED", "DELETE_FAILED"}:
        # A first deploy that failed cannot be updated; there is nothing in it to keep.
        client.delete_stack(StackName=STACK)
        client.get_waiter("stack_delete_complete").wait(
            StackName=STACK, WaiterConfig={"Delay": 1, "MaxAttempts": 60}
        )
        return None
    pages = client.get_paginator("list_stack_resources").paginate(StackName=STACK)
    return {
        row["LogicalResourceId"]: row["PhysicalResourceId"]
        for page in pages
        for row in page["StackResourceSummaries"]
    }


def translated(settings: Settings) -> dict[str, Any]:
    """Return the deployed template after SAM's transform, with its parameters' real values.

    The emulator's own transform knows their defaults only, and SAM writes values into the API.
    """
    import boto3  # with samtranslator a second: not on a start that deploys nothing

    logging.getLogger("samtranslator").setLevel(logging.CRITICAL)  # it reports its own switches
    from samtranslator.parser.parser import Parser
    from samtranslator.translator.translator import Translator

    client = emulator.client("cloudformation", settings.gateway_port)
    given = client.describe_stacks(StackName=STACK)["Stacks"][0]["Parameters"]
    # boto3 parses it: it was deployed as JSON.
    original = client.get_template(StackName=STACK, TemplateStage="Original")["TemplateBody"]
    os.environ.setdefault("AWS_DEFAULT_REGION", emulator.REGION)  # it looks nowhere else
    session = boto3.Session(region_name=emulator.REGION)
    found: dict[str, Any] = Translator({}, Parser(), boto_session=session).translate(
        original, {item["ParameterKey"]: item["ParameterValue"] for item in given}
    )
    return found


async def sam(arguments: list[str], *, env: Mapping[str, str], log: Path, failed: str) -> None:
    """Run the SAM CLI; its output goes to a log and, when it fails, the reason into Trouble.

    It leaves a temporary folder for each function that it packages: they are made in one of ours.
    """
    program = Path(sys.executable).with_name("sam")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output, tempfile.TemporaryDirectory(prefix="kyora-sam-") as scratch:
        child = await asyncio.create_subprocess_exec(
            *map(str, (program, *arguments)),
            cwd=ROOT,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=asyncio.subprocess.STDOUT,
            env={**env, "TMPDIR": scratch},
            start_new_session=True,
            preexec_fn=process.die_with_parent(signal.SIGTERM),
        )
        try:
            code = await child.wait()
        except asyncio.CancelledError:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGTERM)  # with the make and uv it has started
            await child.wait()
            raise
    if code:
        raise Trouble(f"{failed}: {reason(log)} (log: {log})")


def reason(log: Path) -> str:
    """Return why a program failed: the first error with what it names as its cause.

    The lines after it only repeat that something failed: make's "Error 2", sam's "Make Failed".
    """
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    for number, line in enumerate(lines):
        if re.match(r"error:|.* error: |.*: no such file", line, re.IGNORECASE):
            causes = itertools.takewhile(_is_cause, lines[number + 1 :])
            return " ".join([line, *causes])[:400]
    failed = [line for line in lines if re.search(r"error|failed|invalid", line, re.IGNORECASE)]
    return (failed or lines or ["it said nothing"])[-1][:400]


def _is_cause(line: str) -> bool:
    return line.startswith(("Caused by:", "├─▶", "╰─▶", "hint:", "cause:"))


def _environment() -> dict[str, str]:
    return {
        **{key: os.environ[key] for key in ("PATH", "HOME", "LANG", "TMPDIR") if key in os.environ},
        **{k: v for k, v in os.environ.items() if k.startswith(("UV_", "PIP_", "SSL_"))},
        **{k: v for k, v in os.environ.items() if k.lower().endswith("_proxy")},
        "SAM_CLI_TELEMETRY": "0",
        "AWS_DEFAULT_REGION": emulator.REGION,
    }


def _need(program: str, otherwise: str) -> None:
    if shutil.which(program) is None:
        raise Trouble(otherwise)


def _quoted(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"')


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    # Two stacks of one checkout share the build folder.
    BUILD.parent.mkdir(exist_ok=True)
    with (BUILD.parent / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
