"""The OpenAPI document says what the code does: no more, no less."""

import json
import re
import subprocess
import sys
from typing import Any

import openapi_spec_validator
import pytest
from jsonschema import Draft202012Validator

from local import template
from local.settings import ROOT
from local.tools.openapi import document as openapi
from local.tools.openapi import problems
from tests.contract import refusals
from tests.contract.documented import DOCUMENT, OPERATIONS, resolve

PAGE = (ROOT / "local" / "web" / "static" / "docs.html").read_text()


def test_the_committed_document_is_what_the_code_makes() -> None:
    assert openapi.DOCUMENT.read_text() == openapi.text(), "run `make openapi`"


def test_check_reports_a_stale_document(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stale = ROOT / ".local" / "stale-openapi.json"
    stale.parent.mkdir(exist_ok=True)
    stale.write_text(openapi.text().replace("mug.png", "cup.png"))
    monkeypatch.setattr(openapi, "DOCUMENT", stale)
    monkeypatch.setattr(sys, "argv", ["openapi", "--check"])
    try:
        assert openapi.main() == 1
    finally:
        stale.unlink()
    said = capsys.readouterr().out
    assert "mug.png" in said
    assert "run `make openapi`" in said


def test_it_is_made_the_same_in_another_process() -> None:
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-m", "local.tools.openapi", "--check"],
            cwd=ROOT,
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_it_is_valid_openapi() -> None:
    openapi_spec_validator.validate(DOCUMENT)
    assert DOCUMENT["openapi"].startswith("3.1.")


def test_client_generators_can_read_it() -> None:
    """openapi-python-client drops a part that narrows a field of Problem to another kind of schema.

    openapi-typescript makes a field with a default required.
    """
    assert '"default": null' not in json.dumps(DOCUMENT["components"]["schemas"])
    assert '"const"' not in json.dumps([DOCUMENT["paths"], DOCUMENT["components"]["responses"]])


def test_it_has_the_routes_of_the_template_and_only_these() -> None:
    deployed = {}
    for name, resource in template.read()["Resources"].items():
        for event in resource.get("Properties", {}).get("Events", {}).values():
            given = event["Properties"]
            if event["Type"] == "HttpApi" and given["Path"] != "$default":
                public = given.get("Auth", {}).get("Authorizer") == "NONE"
                route = f"{given['Method']} {given['Path']}"
                deployed[route] = (template.folder(name), public)
    documented = {
        route: (made["x-function"], made["security"] == []) for route, made in OPERATIONS.values()
    }
    assert documented == deployed


def test_every_code_is_documented_with_the_class_that_carries_it() -> None:
    documented = {
        code: {known.error.__name__}
        for code, known in (problems.PROBLEMS | problems.STORE_PROBLEMS).items()
    }
    edge = documented.pop("service.throttled")  # the local front's, for the gateway's own answer
    assert edge == {"TooMany"}
    assert '"service.throttled"' in (ROOT / "local" / "web" / "front.py").read_text()
    assert documented == refusals.raised()


def test_the_front_answers_with_documented_codes() -> None:
    front = (ROOT / "local" / "web" / "front.py").read_text()
    used = set(re.findall(r'"((?:auth|request|service)\.[a-z_]+)"', front))
    assert used
    assert used <= DOCUMENT["x-problems"].keys()


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_example_is_what_its_schema_says(operation: str) -> None:
    _, made = OPERATIONS[operation]
    bodies = [made.get("requestBody", {"content": {}})]
    bodies += [resolve(answer) for answer in made["responses"].values()]
    checked = 0
    for body in bodies:
        for media in body.get("content", {}).values():
            validator = Draft202012Validator(
                media["schema"] | {"components": DOCUMENT["components"]},
                format_checker=Draft202012Validator.FORMAT_CHECKER,
            )
            examples = [item["value"] for item in media.get("examples", {}).values()]
            for example in [*examples, *([media["example"]] if "example" in media else [])]:
                validator.validate(example)
                checked += 1
    assert checked


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_answer_says_what_a_client_must_know(operation: str) -> None:
    _, made = OPERATIONS[operation]
    for status, given in made["responses"].items():
        answer = resolve(given)
        assert answer["description"]
        assert "X-Request-Id" in answer["headers"]
        if status in {"202", "503"}:
            assert "Retry-After" in answer["headers"]
        if status >= "400":
            assert "application/problem+json" in answer["content"]
    if made["security"]:
        bare = resolve(made["responses"]["401"])["content"]["application/json"]
        assert bare["example"] == {"message": "Unauthorized"}


def test_a_file_of_a_batch_is_described_like_a_single_one() -> None:
    files = DOCUMENT["components"]["schemas"]["UploadsRequest"]["properties"]["files"]
    assert files["items"] == {"$ref": "#/components/schemas/UploadRequest"}
    assert files["maxItems"] == 50


def test_every_reference_of_the_document_leads_somewhere() -> None:
    text = openapi.DOCUMENT.read_text()
    for reference in set(re.findall(r'"\$ref": "#/([^"]+)"', text)):
        node: Any = DOCUMENT
        for part in reference.split("/"):
            node = node[part]
        assert node


def test_the_page_needs_nothing_from_elsewhere() -> None:
    assert not re.search(r"""(?:src|href)=["']?https?:|@import|url\(\s*["']?https?:""", PAGE)
    assert "innerHTML" not in PAGE  # the document's text is shown as text
    assert "prefers-color-scheme: dark" in PAGE
