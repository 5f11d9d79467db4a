"""Each function has a folder, a place in the template, a handler and samples of its trigger."""

import importlib.util
import json
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from kyora import http
from local import template
from local.tools import samples
from tests.infra import rules

FOLDERS = sorted(path.parent.name for path in (template.ROOT / "functions").glob("*/app.py"))
SAMPLES = sorted((template.ROOT / "events").glob("*.json"))


def test_every_folder_is_a_function_of_the_template(source: dict[str, Any]) -> None:
    described = {template.folder(name): p for name, p in template.functions(source).items()}
    assert sorted(described) == FOLDERS
    for folder, properties in described.items():
        assert properties["CodeUri"] == f"functions/{folder}"
        assert properties["FunctionName"] == {
            "Fn::Sub": f"kyora-${{Stage}}-{folder.replace('_', '-')}"
        }


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_handler_can_be_imported(folder: str) -> None:
    file = template.ROOT / "functions" / folder / "app.py"
    spec = importlib.util.spec_from_file_location(f"handler_of_{folder}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert callable(module.handler)


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_function_has_a_sample(folder: str) -> None:
    assert (template.ROOT / "events" / f"{folder}.json").is_file()


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.stem)
def test_the_sample_is_what_its_trigger_sends(sample: Path, stack: dict[str, Any]) -> None:
    folder = sample.name.split(".")[0]
    assert folder in FOLDERS
    event = json.loads(sample.read_text())
    function = template.logical_id(folder)
    if ".lambda-url." in event.get("requestContext", {}).get("domainName", ""):
        assert event["version"] == "2.0"
        assert f"{function}Url" in stack["Resources"]
    elif "routeKey" in event and event.get("type") != "REQUEST":
        assert event["version"] == "2.0"
        assert event["requestContext"]["routeKey"] == event["routeKey"]
        operation = dict(rules.operations(stack))[event["routeKey"]]
        target = str(operation["x-amazon-apigateway-integration"]["uri"])
        assert f"{function}Alias" in target
        public = operation["security"] == [{"NONE": []}]
        assert public == ("authorizer" not in event["requestContext"])
    for record in event.get("Records", []):
        assert record["eventSource"] == "aws:sqs"
        assert set(record) >= {"messageId", "receiptHandle", "body", "attributes", "eventSourceARN"}


def test_the_samples_hold_no_secret() -> None:
    for sample in SAMPLES:
        text = sample.read_text()
        assert re.search(r"eyJ[\w-]{10}|X-Amz-Signature|sk_(live|test)_|whsec_", text) is None


def test_405_and_404_are_distinguished_by_the_routes_of_the_template(stack: dict[str, Any]) -> None:
    routes = [route.partition(" ") for route, _ in rules.operations(stack) if route != "$default"]
    for method, _, path in routes:
        concrete = re.sub(r"\{\w+\}", "ast_1", path)
        known = [
            m for m, pattern in http._ROUTES if m == method and re.fullmatch(pattern, concrete)
        ]
        assert known == [method]
    assert len(http._ROUTES) == len(routes)


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.stem)
def test_the_sample_is_written_around_the_one_moment_that_readers_move_to_now(
    sample: Path,
) -> None:
    """A day elsewhere would be moved as well, and be as far from now as it was from there."""
    for found in samples.moments(sample.read_text()):
        assert abs(found - samples.WRITTEN) <= timedelta(days=31), found
