"""The files for `sam local invoke`. It needs Docker; what it would give a function does not."""

import json
import warnings

import pytest
from samcli.commands.local.lib.local_lambda import LocalLambdaRunner
from samcli.lib.providers.sam_function_provider import SamFunctionProvider
from samcli.lib.providers.sam_stack_provider import SamLocalStackProvider

from local import settings, template
from tests.e2e.conftest import Stack

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
