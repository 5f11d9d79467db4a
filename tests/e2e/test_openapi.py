"""schemathesis against the running stack: whatever is sent, the answers are the documented ones.

In a workspace of its own, because it leaves uploads behind by the hundred.
"""

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import jwt
import pytest

from local.stack import postgres
from local.tools.openapi import document as openapi
from tests.e2e.conftest import Stack, request

# Left out: positive_data_acceptance and unsupported_method. A well-formed file may be of a type
# that is not accepted, and GET /v1/assets/upload is the route of an asset called "upload".
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "missing_required_header",
    "ignored_auth",
    "use_after_free",
    "ensure_resource_availability",
)


BATCH = "/v1/assets/uploads"


@pytest.mark.timeout(1200)
def test_no_request_gets_an_undocumented_answer(stack: Stack, tmp_path: Path) -> None:
    token = _newcomer(stack)
    operations = [op for path in openapi.document()["paths"].values() for op in path.values()]
    said = answers(stack, tmp_path, token, CHECKS, "--exclude-path", BATCH)
    assert f"Tested: {len(operations) - 1}" in said
    # A batch answers 200 with a refusal for each file that is not valid.
    checks = tuple(check for check in CHECKS if check != "negative_data_rejection")
    alone = ("--include-path", BATCH, "--phases", "examples,coverage,fuzzing")  # no links to follow
    assert "Tested: 1" in answers(stack, tmp_path, token, checks, *alone)


def answers(stack: Stack, folder: Path, token: str, checks: Sequence[str], *chosen: str) -> str:
    """Return what schemathesis says of some operations; it must have no failure."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "run"),
            f"{stack.env['KYORA_URL']}/openapi.json",
            *("--checks", ",".join(checks), *chosen),
            *("--header", f"Authorization: Bearer {token}"),
            *("--max-examples", "40", "--request-timeout", "120"),
            "--generation-deterministic",
            *("--continue-on-failure", "--no-color", "--warnings", "off"),
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2_000:]
    return done.stdout


def test_the_page_and_the_document_are_served(stack: Stack) -> None:
    found = request("GET", stack.env["KYORA_URL"] + "/openapi.json")
    assert found.body == openapi.DOCUMENT.read_bytes()
    page = request("GET", stack.env["KYORA_URL"] + "/docs")
    assert (page.status, page.headers["content-type"]) == (200, "text/html; charset=utf-8")


def _newcomer(stack: Stack) -> str:
    """Return a token for the one user of a workspace that no other test looks at."""
    user, workspace = "usr_contract", "ws_contract"
    postgres.query(
        stack.env["DATABASE_URL"],
        "with w as (insert into workspace (id, name) values (:workspace, 'Contract')"
        " on conflict do nothing)"
        " insert into app_user (id, workspace_id, email, role, locale)"
        " values (:user, :workspace, 'contract@demo.example', 'user', 'en')"
        " on conflict do nothing",
        user=user,
        workspace=workspace,
    )
    claims = {
        "userId": user,
        "workspaceId": workspace,
        "authVersion": 1,
        "exp": int(time.time()) + 3600,
    }
    return jwt.encode(claims, stack.env["AUTH_JWT_SECRET"], algorithm="HS256")
