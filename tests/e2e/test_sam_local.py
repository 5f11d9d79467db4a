"""`sam local` on the running stack. It needs Docker; what it would give a function does not."""

import json
import subprocess
import sys
import warnings
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import docker
import pytest
import stripe

from local import settings, template
from tests.e2e.conftest import Stack, request, wait
from tests.ports import free_port

if TYPE_CHECKING:
    from samcli.commands.local.lib.local_lambda import LocalLambdaRunner

FUNCTIONS = sorted(template.functions(template.read()))


@pytest.fixture(scope="module")
def runner(shared: Stack) -> "LocalLambdaRunner":
    """What `sam local invoke -t … --env-vars …` makes of the files before it asks for Docker."""
    # A second, also in workers that only collect.
    from samcli.commands.local.lib.local_lambda import LocalLambdaRunner
    from samcli.lib.providers.sam_function_provider import SamFunctionProvider
    from samcli.lib.providers.sam_stack_provider import SamLocalStackProvider

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
    stack: Stack, runner: "LocalLambdaRunner", name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")  # no credentials of its own: none asked
    function = runner.provider.get(name)
    given = runner._make_env_vars(function).resolve()
    deployed = json.loads((stack.home / "sam-env.json").read_text())
    if name not in deployed:  # an option that is off
        assert "Condition" in template.read()["Resources"][name]
        return
    wanted = deployed[name]
    assert {key: given.get(key) for key in wanted} == wanted
    assert function.architectures == [settings.architecture()]
    for folder in (function.codeuri, *(layer.codeuri for layer in function.layers)):
        assert folder.startswith(str(stack.checkout / ".aws-sam" / "build"))


# ---- in containers, where there are any


@pytest.fixture
def engine(stack: Stack) -> None:
    """Skips, with the reason, where no function could run."""
    functions = json.loads((stack.home / "sam-env.json").read_text())
    if functions["CheckHealthFunction"]["AWS_ENDPOINT_URL"] == stack.env["AWS_ENDPOINT_URL"]:
        pytest.skip("no container engine runs")
    image = f"public.ecr.aws/lambda/python:3.13-{settings.architecture()}"
    with closing(docker.from_env()) as found:
        try:
            found.images.get(image)
        except docker.errors.ImageNotFound:
            pytest.skip(f"{image} is not here, and a test pulls nothing")


SAM = str(Path(sys.executable).with_name("sam"))


# One that asks Postgres, one that signs for S3, one that asks Stripe, one that is signed for.
@pytest.mark.parametrize("name", ["check_health", "request_upload", "sync_plans", "stripe_webhook"])
@pytest.mark.usefixtures("engine")
def test_sam_local_invoke_runs_a_sample(stack: Stack, name: str) -> None:
    sample = sample_of(stack, name)
    done = subprocess.run(
        [SAM, "local", "invoke", template.logical_id(name), "-e", "-", "--skip-pull-image"],
        cwd=stack.checkout,
        input=json.dumps(sample),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout.splitlines()[-1])
    assert answer.get("statusCode", 200) == 200, answer
    assert "errorMessage" not in answer


@pytest.mark.usefixtures("engine")
def test_sam_local_start_api_serves_a_route_and_asks_the_authorizer(stack: Stack) -> None:
    port = free_port()
    serving = subprocess.Popen(
        [SAM, "local", "start-api", "--port", str(port), "--skip-pull-image"],
        cwd=stack.checkout,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}/v1"
    try:
        wait(lambda: _answers(f"{url}/health"), 120, "an answer of sam local start-api")
        token = {"Authorization": f"Bearer {stack.env['KYORA_TOKEN']}"}
        admitted = request("GET", f"{url}/billing/subscription", headers=token)
        assert (admitted.status, "plan" in admitted.json) == (200, True), admitted
        nonsense = {"Authorization": "Bearer nonsense"}
        refused = request("GET", f"{url}/billing/subscription", headers=nonsense)
        assert (refused.status, refused.problem) == (401, "auth.token_invalid")
    finally:
        serving.terminate()
        serving.wait(60)


def test_a_sample_is_shown_with_its_token_and_a_signature_of_now(stack: Stack) -> None:
    header = sample_of(stack, "authorize_request")["headers"]["authorization"]
    assert header == f"Bearer {stack.env['KYORA_TOKEN']}"
    heard = sample_of(stack, "stripe_webhook")
    secret = stack.env["BILLING_STRIPE_WEBHOOK_SECRET"]
    signature = heard["headers"]["stripe-signature"]
    assert stripe.WebhookSignature.verify_header(heard["body"], signature, secret, 60)


def sample_of(stack: Stack, name: str) -> Any:
    """What `make event F=name` prints."""
    shown = subprocess.run(
        [sys.executable, "-m", "local.tools.invoke", "--show", name],
        cwd=stack.checkout,
        capture_output=True,
        text=True,
        timeout=240,
        check=True,
    )
    return json.loads(shown.stdout)


def _answers(address: str) -> bool:
    with suppress(OSError):
        return request("GET", address).status == 200
    return False
