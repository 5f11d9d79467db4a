"""The template with its options on: translated, and held against CloudFormation's own schemas.

cfn-lint carries the schema of every resource type. It looks at what SAM makes, not at what we
wrote, and at every branch of every condition.
"""

import functools
import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from local import template
from tests.infra import rules
from tests.infra.rules import RULES, Stack, named, of

if TYPE_CHECKING:
    from cfnlint.match import Match

ARN = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:kyora/x/{}-AbC123"
SECRETS = {
    name: ARN.format(name.lower())
    for name in (
        *("DatabaseUrlArn", "DatabaseOwnerUrlArn", "AuthJwtSecretArn", "EmailResendApiKeyArn"),
        *("EmailResendWebhookSecretArn", "BillingStripeApiKeyArn"),
        "BillingStripeWebhookSecretArn",
    )
}
MAIL = {"EmailFromEmail": "hello@example.com", "EmailSupportEmail": "help@example.com"}
SETS: dict[str, dict[str, str]] = {
    "dev": {
        "Stage": "dev",
        "EmailProvider": "mock",
        "DatabaseUrlArn": SECRETS["DatabaseUrlArn"],
        "ScheduleMinutes": "15",
    },
    "prod with every option": {
        **SECRETS,
        **MAIL,
        "Stage": "prod",
        "SnapStart": "PublishedVersions",
        "GradualDeploys": "true",
        "HttpReservedConcurrency": "50",
        "JobReservedConcurrency": "2",
        "WebhookReservedConcurrency": "20",
        "VpcSubnetIds": "subnet-0123456789abcdef0,subnet-0123456789abcdef1",
        "VpcSecurityGroupIds": "sg-0123456789abcdef0",
        "AlarmTopicArn": "arn:aws:sns:eu-west-1:123456789012:alarms",
        "SecretsKeyArn": "arn:aws:kms:eu-west-1:123456789012:key/0a1b2c3d-0000-4000-8000-0000",
        "ApiRouteMetrics": "true",
        "CacheProvider": "memcached",
        "CacheMemcachedServers": "cache.example.com:11211",
        "CacheMemcachedTls": "true",
        "StorageS3Bucket": "files-of-before",
        "UploadsScanning": "guardduty",
        "BillingStripeEventBus": "aws.partner/stripe.com/acct_1/bus",
    },
    "no browser, no archive": {
        **SECRETS,
        **MAIL,
        "Stage": "staging",
        "CorsOrigins": "",
        "EventArchiveDays": "0",
        "ScheduleMinutes": "60",
    },
    "another store, another issuer": {
        **SECRETS,
        **MAIL,
        "Stage": "prod",
        "AuthJwtSecretArn": "",
        "AuthJwksUrl": "https://issuer.example.com/jwks.json",
        "StorageS3Bucket": "files",
        "StorageS3Endpoint": "https://s3.example.com",
        "StorageS3AddressingStyle": "path",
        "StorageS3AccessKeyId": "key",
        "StorageS3SecretAccessKeyArn": ARN.format("storage"),
    },
    "this machine": {
        "Stage": "local",
        "StorageProvider": "local",
        "Architecture": "x86_64",
        "UploadsScanning": "local",
        "DatabaseUrlArn": SECRETS["DatabaseUrlArn"],
        "AuthJwtSecretArn": SECRETS["AuthJwtSecretArn"],
    },
}


WIDEST = "prod with every option"  # its template says nearly all that the others say


def given(name: str) -> Stack:
    """What CloudFormation gets of a set, whose values are the parameters' defaults in it."""
    found: Stack = json.loads(_translated(name))
    return found


@functools.cache
def _translated(name: str) -> str:
    found = template.translated(SETS[name])
    for parameter, value in SETS[name].items():
        found["Parameters"][parameter]["Default"] = value
    return json.dumps(found)


def less(stack: Stack) -> Stack:
    """A template without what the widest one says as well; what it refers to is there, and bare."""
    whole = given(WIDEST)
    assert part_of(stack.pop("Outputs"), whole["Outputs"])
    known = {_plain(name): found for name, found in whole["Resources"].items()}
    resources = stack["Resources"]
    shared = {n: resources[n] for n in resources if part_of(resources[n], known.get(_plain(n)))}
    alone = {n: found for n, found in resources.items() if n not in shared}
    said = json.dumps(alone)
    named = {n: {"Type": found["Type"]} for n, found in shared.items() if n in said}
    return stack | {"Resources": {"Any": {"Type": "AWS::SQS::Queue"}, **named, **alone}}


def part_of(one: Any, other: Any) -> bool:
    """Whether a resource says nothing that another does not say. A layer's id differs by set."""
    if isinstance(one, dict) and isinstance(other, dict):
        return all(name in other and part_of(value, other[name]) for name, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(part_of, one, other))
    return bool(_plain(one) == _plain(other))


def _plain(value: Any) -> Any:
    return re.sub("Layer[0-9a-f]{10}", "Layer", value) if isinstance(value, str) else value


def wrong(stack: Stack) -> "list[Match]":
    """What is an error in a region that has everything."""
    from cfnlint.api import lint  # a second, also in workers that only collect

    found = lint(json.dumps(stack), regions=["eu-west-1"])
    return [match for match in found if match.rule.id.startswith("E")]


@pytest.mark.parametrize("name", SETS)
def test_every_resource_is_what_its_schema_says(name: str) -> None:
    """A whole template takes ten seconds, so of the others only what the widest does not say."""
    stack = given(name) if name == WIDEST else less(given(name))
    bare = {n for n, found in stack["Resources"].items() if found.keys() == {"Type"}}
    found = [match for match in wrong(stack) if not bare & {*match.path[1:2]}]
    assert [f"{m.rule.id} {m.path}: {m.message}" for m in found] == []


def test_a_resource_that_is_not_is_noticed() -> None:
    queue = of(given("dev"), "AWS::SQS::Queue")["EmailQueue"] | {"VisibilityTimeout": "long"}
    alone = {"Resources": {"Queue": {"Type": "AWS::SQS::Queue", "Properties": queue}}}
    assert "VisibilityTimeout" in {match.path[-1] for match in wrong(alone) if match.path}


@pytest.mark.parametrize("name", SETS)
def test_the_rules_hold_under_it(name: str) -> None:
    stack = given(name)
    assert {rule.__name__: rule(stack) for rule in RULES if rule(stack)} == {}


@pytest.mark.parametrize("name", SETS)
def test_what_it_says_fits_the_parameters(name: str, source: dict[str, Any]) -> None:
    for parameter, value in SETS[name].items():
        found = source["Parameters"][parameter]
        assert re.fullmatch(found.get("AllowedPattern", ".*"), value), parameter
        assert value in found.get("AllowedValues", [value]), parameter


# ---- gradual deploys


def policies(stack: Stack) -> dict[str, Any]:
    """Alias → what CodeDeploy does with it."""
    return {
        name: resource["UpdatePolicy"]["CodeDeployLambdaAliasUpdate"]
        for name, resource in stack["Resources"].items()
        if "UpdatePolicy" in resource
    }


def test_deploys_are_all_at_once_unless_a_parameter_says_so() -> None:
    stack = given("dev")
    assert policies(stack) == {}
    assert of(stack, "AWS::CodeDeploy::DeploymentGroup") == {}


def test_a_gradual_deploy_goes_back_when_an_alarm_rings() -> None:
    stack = given("prod with every option")
    assert set(policies(stack)) == set(of(stack, "AWS::Lambda::Alias"))
    for group in of(stack, "AWS::CodeDeploy::DeploymentGroup").values():
        alarms = {named(alarm["Name"]) for alarm in group["AlarmConfiguration"]["Alarms"]}
        assert alarms <= set(of(stack, "AWS::CloudWatch::Alarm"))
        assert "UnexpectedErrorsAlarm" in alarms
        assert "DEPLOYMENT_STOP_ON_ALARM" in group["AutoRollbackConfiguration"]["Events"]


@pytest.mark.parametrize("name", SETS)
def test_nothing_waits_for_itself(name: str) -> None:
    """CloudFormation refuses a circle of references: an alarm of an alias that waits for it."""
    resources = given(name)["Resources"]
    waits = {
        n: rules.mentioned(resource) & resources.keys() - {n} for n, resource in resources.items()
    }
    for name_, resource in resources.items():
        depends = resource.get("DependsOn", [])
        waits[name_] |= {depends} if isinstance(depends, str) else set(depends)
    done: set[str] = set()
    while ready := {n for n, others in waits.items() if n not in done and others <= done}:
        done |= ready
    assert set(resources) - done == set()
