"""What a person types to deploy: refused early when it is wrong, and sent to the right region."""

import os
import re
import subprocess
from typing import Any

import pytest

from local import template

STAGES = ("dev", "staging", "prod")
SECRET = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:kyora/dev/token-key-AbC123"


def accepts(source: dict[str, Any], parameter: str, value: str) -> bool:
    """Whether CloudFormation takes a value: the pattern has to match all of it."""
    found = source["Parameters"][parameter]
    if not value and found.get("Default") == "":
        return re.fullmatch(found["AllowedPattern"], "") is not None
    return re.fullmatch(found["AllowedPattern"], value) is not None


def arns(source: dict[str, Any]) -> list[str]:
    return [name for name in source["Parameters"] if name.endswith("Arn")]


def test_every_parameter_that_is_an_arn_has_a_pattern(source: dict[str, Any]) -> None:
    assert len(arns(source)) >= 10
    assert [n for n in arns(source) if "AllowedPattern" not in source["Parameters"][n]] == []


@pytest.mark.parametrize(
    "wrong",
    [
        "sk_test_51Habcdefghijklmnopqrstuvwxyz",  # a secret where its name belongs
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        SECRET.removesuffix("-AbC123"),  # AWS reads it, an IAM policy does not
        "kyora/dev/token-key",
        SECRET.replace("123456789012", ""),
        SECRET + " ",
        SECRET + "*",
    ],
)
def test_what_is_not_a_whole_arn_of_a_secret_is_refused(wrong: str, source: dict[str, Any]) -> None:
    for name in arns(source):
        assert not accepts(source, name, wrong), name


@pytest.mark.parametrize(
    "right",
    [
        SECRET,
        SECRET.replace("arn:aws:", "arn:aws-cn:").replace("eu-west-1", "cn-north-1"),
        SECRET.replace("arn:aws:", "arn:aws-us-gov:"),
        "arn:aws:secretsmanager:us-east-1:000000000000:secret:kyora-local/database-url-x1Y2z3",
    ],
)
def test_the_arn_of_a_secret_is_accepted(right: str, source: dict[str, Any]) -> None:
    for name in set(arns(source)) - {"AlarmTopicArn", "SecretsKeyArn"}:
        assert accepts(source, name, right), name


def test_what_may_be_left_out_may_be_empty(source: dict[str, Any]) -> None:
    for name in set(arns(source)) - {"DatabaseUrlArn"}:
        assert accepts(source, name, ""), name
    assert not accepts(source, "DatabaseUrlArn", "")


@pytest.mark.parametrize(
    ("origins", "good"),
    [
        ("", True),
        ("https://app.example.com", True),
        ("http://localhost:3000,https://app.example.com", True),
        ("https://app.example.com/", False),
        ("https://app.example.com/shop", False),
        ("https://app.example.com?x", False),
        ("https://app.example.com,", False),
        ("https://*.example.com", False),
        ("app.example.com", False),
    ],
)
def test_an_origin_ends_with_its_host(origins: str, good: bool, source: dict[str, Any]) -> None:
    assert accepts(source, "CorsOrigins", origins) == good


def test_no_secret_that_we_name_looks_as_if_it_had_its_suffix() -> None:
    """AWS takes a name that ends in a hyphen and six letters for a whole ARN, and finds nothing."""
    texts = [template.ROOT / "samconfig.toml", template.ROOT / "README.md"]
    texts += sorted((template.ROOT / "docs").glob("*.md"))
    named = {
        n
        for t in texts
        for n in re.findall(r"kyora/(?:dev|staging|prod|…)/([a-z-]+[a-z])", t.read_text())
    }
    assert "database-url" in named
    assert [name for name in named if re.search(r"-[a-z]{6}$", name)] == []


def test_each_stage_names_its_region(samconfig: dict[str, Any]) -> None:
    regions = {stage: samconfig[stage]["global"]["parameters"]["region"] for stage in STAGES}
    assert all(re.fullmatch(r"[a-z]{2}-[a-z]+-\d", region) for region in regions.values())
    assert samconfig["default"]["global"]["parameters"]["region"] == regions["dev"]
    # The emulator's is given on the command line.
    assert "region" not in samconfig["local"]["global"]["parameters"]


def test_in_prod_no_flood_takes_the_account_s_whole_limit(
    samconfig: dict[str, Any], stack: dict[str, Any]
) -> None:
    """A full account has 1,000 executions at once; Lambda keeps 100 of them unreserved."""
    given = dict(
        pair.split("=", 1)
        for pair in samconfig["prod"]["deploy"]["parameters"]["parameter_overrides"]
    )
    reserved = 0
    for resource in stack["Resources"].values():
        value = resource.get("Properties", {}).get("ReservedConcurrentExecutions")
        if value and value["Fn::If"][0] in {"LimitsHttp", "LimitsWebhooks"}:
            assert int(given[value["Fn::If"][1]["Ref"]]) > 0
            reserved += int(given[value["Fn::If"][1]["Ref"]])
    assert 0 < reserved <= 500  # half of it is left for the queues and the jobs


def test_each_stage_builds_in_parallel(samconfig: dict[str, Any]) -> None:
    for stage in ("default", *STAGES):
        assert samconfig[stage]["build"]["parameters"]["parallel"] is True


TARGETS = ("deploy", "migrate", "status", "emit", "sync-plans", "suppressions", "reconcile")


@pytest.mark.parametrize("target", TARGETS)
def test_a_deployed_stage_is_looked_for_in_its_own_region(target: str) -> None:
    """A region of the Makefile's would win over the one in samconfig.toml."""
    assert _region(target, "ENV=dev") == ""


def test_what_runs_on_this_machine_has_a_region() -> None:
    assert _region("check") == "us-east-1"


def _region(target: str, *variables: str) -> str:
    """The region that a target's commands would see, in an environment that names none."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "MAKE"))}
    done = subprocess.run(
        [
            *("make", "-s", "--eval", 'seen-region: ; @echo "region=$$AWS_DEFAULT_REGION"'),
            *("seen-region", f"T={target}", *variables),
        ],
        cwd=template.ROOT,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    [found] = re.findall(r"^region=(.*)$", done.stdout, re.MULTILINE)
    return str(found)
