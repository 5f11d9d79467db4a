"""`sam local` on the running stack. It needs Docker; what it would give a function does not."""

import json
import shutil
import subprocess
import sys
import warnings
from contextlib import suppress
from pathlib import Path

import pytest
from samcli.commands.local.lib.local_lambda import LocalLambdaRunner
from samcli.lib.providers.sam_function_provider import SamFunctionProvider
from samcli.lib.providers.sam_stack_provider import SamLocalStackProvider

from local import settings, template
from tests.e2e.conftest import Stack, free_port, request, wait

FUNCTIONS = sorted(template.functions(template.read()))


@pytest.fixture(scope="module")
def runner(shared: Stack) -> LocalLambdaRunner:
    """What `sam local invoke -t … --env-vars …` makes of the files before it asks for Docker."""
    with warnings.catch_warnings(action="ignore"):  # SAM's own, about itself
        stacks, _ = SamLocalStackProvider.get_stacks(str(shared.home / "sam-template.json"))
        provider = SamFunctionProvider(stacks)
    return LocalLambdaRunner(
        local_runtime=None,
        function_provider=provider,
        cwd=str(shared.checkout),
        real_path=str(shared.checkout),
        aws_profile=None,
        aws_region=None,
        env_vars_values=json.loads((shared.home / "sam-env.json").read_text()),
        debug_context=None,
    )


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_gets_the_variables_it_is_deployed_with(
    stack: Stack, runner: LocalLambdaRunner, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")  # no credentials of its own: none asked
    function = runner.provider.get(name)
    given = runner._make_env_vars(function).resolve()
    wanted = json.loads((stack.home / "sam-env.json").read_text())[name]
    assert {key: given.get(key) for key in wanted} == wanted
    assert given["AWS_ENDPOINT_URL"] == stack.env["AWS_ENDPOINT_URL"]
    assert function.architectures == [settings.architecture()]
    for folder in (function.codeuri, *(layer.codeuri for layer in function.layers)):
        assert folder.startswith(str(stack.checkout / ".aws-sam" / "build"))


# ---- in containers, where there are any


@pytest.fixture
def sam_local(shared: Stack) -> list[str]:
    """What every command gets. Skips, with the reason, where no function could run."""
    engine = shutil.which("docker")
    if engine is None:
        pytest.skip("no container engine is installed")
    image = f"public.ecr.aws/lambda/python:3.13-{settings.architecture()}"
    found = subprocess.run([engine, "image", "inspect", image], capture_output=True, check=False)
    if b"Cannot connect" in found.stderr:
        pytest.skip("the container engine does not run")
    if found.returncode:
        pytest.skip(f"{image} is not here, and a test pulls nothing")
    files = ("--template", f"{shared.home}/sam-template.json")
    variables = ("--env-vars", f"{shared.home}/sam-env.json")
    return [*files, *variables, "--docker-network", "host", "--skip-pull-image"]


def test_sam_local_invoke_runs_a_function(stack: Stack, sam_local: list[str]) -> None:
    event = str(stack.checkout / "events" / "check_health.json")
    done = subprocess.run(
        [_sam(), "local", "invoke", "CheckHealthFunction", "-e", event, *sam_local],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["statusCode"] == 200


def test_sam_local_start_api_serves_a_route(stack: Stack, sam_local: list[str]) -> None:
    port = free_port()
    serving = subprocess.Popen(
        [_sam(), "local", "start-api", "--port", str(port), *sam_local],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        address = f"http://127.0.0.1:{port}/v1/health"
        wait(lambda: _status(address) == 200, 120)
        assert _status(address) == 200
    finally:
        serving.terminate()
        serving.wait(30)


def _status(address: str) -> int:
    with suppress(OSError):
        return request("GET", address).status
    return 0


def _sam() -> str:
    return str(Path(sys.executable).with_name("sam"))
