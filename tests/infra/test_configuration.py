"""One name for one thing: configuration key, environment variable, template parameter."""

import ast
import copy
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

from kyora import config
from local import template
from local.stack.deploy import variable_name
from tests import reach

# Not configuration of ours to give: a resource's name, the digest, and what Lambda itself sets.
_NO_PARAMETER = {"BUS_NAME", "CONFIGURATION"}
_OF_LAMBDA = {"AWS_REGION", "AWS_LAMBDA_FUNCTION_NAME", "AWS_ENDPOINT_URL"}
# Text in config.py that names a variable: words in capitals joined by underscores, or STAGE.
_VARIABLE = re.compile(r"STAGE|[A-Z][A-Z0-9]*(_[A-Z0-9]+)+")
_ARN = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:"


def secret(value: str) -> str:
    return f"{_ARN}{value}"


def read_by_the_code() -> set[str]:
    tree = ast.parse(inspect.getsource(config))
    texts = {n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) if type(n.value) is str}
    return {text for text in texts if _VARIABLE.fullmatch(text)} - _OF_LAMBDA


def given_by_the_template(source: dict[str, Any]) -> set[str]:
    return {name for p in template.functions(source).values() for name in p["Environment"]}


def sections(folder: str) -> set[str]:
    """The sections of the configuration that a function asks for."""
    tree = ast.parse((template.ROOT / "functions" / folder / "app.py").read_text())
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "config"
        if isinstance(getattr(config, node.attr), config.Section)
    }


def with_parameters(source: dict[str, Any], **values: str) -> dict[str, Any]:
    changed = copy.deepcopy(source)
    for name, value in values.items():
        changed["Parameters"][name]["Default"] = value
    return changed


SITUATIONS: dict[str, dict[str, str]] = {
    "aws": {},
    "jwks": {
        "AuthJwtSecretArn": "",
        "AuthJwksUrl": "https://issuer.example.com/jwks.json",
        "AuthIssuer": "https://issuer.example.com/",
        "AuthAudience": "kyora",
    },
    "another_store": {
        "StorageS3Bucket": "files",
        "StorageS3Endpoint": "https://s3.example.com",
        "StorageS3AddressingStyle": "path",
        "StorageS3AccessKeyId": "key",
        "StorageS3SecretAccessKeyArn": secret("storage"),
    },
    "local_store": {"Stage": "local", "StorageProvider": "local", "EmailResendApiKeyArn": ""},
    "no_mail": {
        "EmailProvider": "mock",
        "EmailResendApiKeyArn": "",
        "EmailResendWebhookSecretArn": "",
        "EmailFromEmail": "",
        "EmailSupportEmail": "",
    },
    "one_role": {"Stage": "dev", "DatabaseOwnerUrlArn": ""},
    "no_billing": {"BillingStripeApiKeyArn": "", "BillingStripeWebhookSecretArn": ""},
}
VALUES = {"database": "postgresql://db/kyora", "owner": "postgresql://owner@db/kyora"}
VALUES |= {"resend-webhook": f"whsec_{'a' * 32}"}
VALUES |= {"stripe-key": "sk_test_1234", "stripe-webhook": f"whsec_{'b' * 32}"}
FUNCTIONS = sorted(path.parent.name for path in (template.ROOT / "functions").glob("*/app.py"))


def situation(source: dict[str, Any], name: str) -> dict[str, Any]:
    common = {
        "DatabaseUrlArn": secret("database"),
        "DatabaseOwnerUrlArn": secret("owner"),
        "AuthJwtSecretArn": secret("jwt"),
        "EmailResendApiKeyArn": secret("resend-key"),
        "EmailResendWebhookSecretArn": secret("resend-webhook"),
        "EmailFromEmail": "hello@example.com",
        "EmailSupportEmail": "support@example.com",
        "BillingStripeApiKeyArn": secret("stripe-key"),
        "BillingStripeWebhookSecretArn": secret("stripe-webhook"),
    }
    return with_parameters(source, **(common | SITUATIONS[name]))


def test_the_template_gives_every_variable_that_the_code_reads(source: dict[str, Any]) -> None:
    given = given_by_the_template(source)
    assert {n for n in read_by_the_code() if n not in given and f"{n}_ARN" not in given} == set()


def test_the_code_reads_every_variable_that_the_template_gives(source: dict[str, Any]) -> None:
    read = read_by_the_code() | {"CONFIGURATION"}
    given = given_by_the_template(source)
    assert {n for n in given if n not in read and n.removesuffix("_ARN") not in read} == set()


def test_a_variable_is_the_parameter_of_the_same_name(source: dict[str, Any]) -> None:
    names = {variable_name(parameter) for parameter in source["Parameters"]}
    assert given_by_the_template(source) - _NO_PARAMETER - names == set()
    for logical, properties in template.functions(source).items():
        for variable, value in properties["Environment"].items():
            if variable not in _NO_PARAMETER:
                assert f"'{_parameter(source, variable)}'" in str(value), (logical, variable)


def _parameter(source: dict[str, Any], variable: str) -> str:
    return next(p for p in source["Parameters"] if variable_name(p) == variable)


def test_secrets_are_given_by_arn_only(source: dict[str, Any]) -> None:
    given = given_by_the_template(source)
    assert [
        n
        for n in given
        if re.search(r"SECRET|PASSWORD(?!S)|API_KEY|DATABASE_URL", n) and n[-4:] != "_ARN"
    ] == []


@pytest.mark.parametrize("name", SITUATIONS)
@pytest.mark.parametrize("folder", FUNCTIONS)
def test_a_function_has_the_configuration_it_asks_for_and_may_read_just_its_secrets(
    folder: str, name: str, source: dict[str, Any]
) -> None:
    given = situation(source, name)
    properties = template.functions(given)[template.logical_id(folder)]
    variables = {k: str(v) for k, v in template.resolve(properties["Environment"], given).items()}
    asked = set()

    def read(arn: str) -> str:
        asked.add(arn)
        return VALUES.get(arn.removeprefix(_ARN), "x" * 32)

    for section in sections(folder):
        config.load(getattr(config, section), variables | {"AWS_REGION": "eu-west-1"}, read)

    assert asked == set(_readable(properties, given))


# Read wherever: `require` always reads the stage and where spans go, and the schema's owner is one
# of two connections of kyora.postgres, which only migrate_database asks for.
_EVERYWHERE = {"stage", "trace", "database_owner_url"}


@pytest.mark.parametrize("folder", FUNCTIONS)
def test_a_function_asks_at_its_start_for_just_the_sections_that_its_code_reads(
    folder: str,
) -> None:
    used = {
        name
        for node in reach.of(folder)
        if not node.startswith(("kyora.config", "functions"))
        for name in reach.edges(node)
    }
    names = {name for name, found in vars(config).items() if isinstance(found, config.Section)}
    read = {name for name in names if f"kyora.config.{name}" in used}
    if folder == "migrate_database":  # a deploy fails on whatever is wrong for any function
        read = names
    assert sections(folder) - _EVERYWHERE == read - _EVERYWHERE


def _readable(properties: dict[str, Any], given: dict[str, Any]) -> list[str]:
    found = []
    for policy in properties.get("Policies", []):
        for statement in policy["Statement"]:
            if statement["Action"] == "secretsmanager:GetSecretValue":
                arns = template.resolve(statement["Resource"], given)
                found += arns if isinstance(arns, list) else [arns]
    return [arn for arn in found if arn.startswith(_ARN)]  # the others are AWS::NoValue


def test_every_parameter_is_used(source: dict[str, Any]) -> None:
    rest = str({k: v for k, v in source.items() if k != "Parameters"})
    unused = [n for n in source["Parameters"] if not re.search(rf"'{n}'|\${{{n}}}", rest)]
    assert unused == []


def test_every_environment_of_samconfig_gives_parameters_that_exist(
    samconfig: dict[str, Any], source: dict[str, Any]
) -> None:
    assert {"default", "local", "dev", "staging", "prod"} <= samconfig.keys()
    for name in ("local", "dev", "staging", "prod"):
        given = dict(
            p.split("=", 1) for p in samconfig[name]["deploy"]["parameters"]["parameter_overrides"]
        )
        assert given["Stage"] == name
        assert given.keys() <= source["Parameters"].keys()
        assert samconfig[name]["global"]["parameters"]["stack_name"] == f"kyora-{name}"
        for parameter, value in given.items():
            pattern = source["Parameters"][parameter].get("AllowedPattern", ".*")
            assert re.fullmatch(pattern, value)


def test_the_environments_of_samconfig_hold_no_account(samconfig: dict[str, Any]) -> None:
    text = Path(template.ROOT / "samconfig.toml").read_text()
    assert re.search(r"\d{12}|AKIA|\bprofile\b|role_arn", text) is None
