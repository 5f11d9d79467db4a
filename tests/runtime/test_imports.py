"""What a function loads before its first request: seconds that every cold start pays for."""

import json
import os
import subprocess
from functools import cache
from pathlib import Path

import pytest

from local import template
from local.stack import runtime

# Heavy, and not needed to answer: each is loaded where it is used, or not at all.
FORBIDDEN = (
    # Powertools imports botocore's bare package, which is nothing but a logger.
    *("boto3", "botocore.session", "botocore.client", "s3transfer", "urllib3", "requests"),
    *("httpx", "aiohttp", "asyncio", "stripe", "resend", "jinja2", "aws_xray_sdk"),
    *("pydantic_settings", "email_validator", "multiprocessing", "unittest", "pytest"),
    "aws_lambda_powertools.utilities.idempotency",
    "aws_lambda_powertools.utilities.parameters",
    "aws_lambda_powertools.utilities.feature_flags",
)
FUNCTIONS = sorted(path.parent.name for path in (template.ROOT / "functions").glob("*/app.py"))
# Without bodies to validate they load no pydantic, which is a third of the others' megabytes.
PLAIN = (
    *("authorize_request", "migrate_database", "purge_data", "reconcile_billing"),
    *("reject_unrouted", "relay_outbox", "report_status", "resend_webhook", "stripe_webhook"),
    *("sweep_billing", "sync_plans"),
)
# Modules, megabytes with those of libraries, and kilobytes of ours: a few more than today.
PLAIN_BUDGET, MODELS_BUDGET = (302, 11.8, 180), (366, 18.3, 220)
OTHER_BUDGETS = {
    "authorize_request": (360, 27.2, 140),  # PyJWT and cryptography, for its first request
    "manage_billing": (392, 18.3, 345),  # every route of the API about billing
    **dict.fromkeys(("reconcile_billing", "sweep_billing", "sync_plans"), (320, 12.0, 265)),
}
_LIST = """
import gc
before = sum(one["collections"] for one in gc.get_stats())
import app, json, os, sys
# `typing` is imported before our code, which puts an end to it.
assert sum(one["collections"] for one in gc.get_stats()) <= before + 3, "garbage was collected"
files = {name: getattr(module, "__file__", None) or "" for name, module in sys.modules.items()}
print(json.dumps({n: os.path.getsize(f) if os.path.exists(f) else 0 for n, f in files.items()}))
"""


@cache
def loaded(built: Path, function: str) -> dict[str, int]:
    """The modules that a fresh process has after importing the built handler, with their bytes."""
    parts = (template.logical_id(function), "VendorLayer/python", "KyoraLayer/python")
    done = subprocess.run(
        [runtime.interpreter(), "-s", "-c", _LIST],
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.pathsep.join(str(built / part) for part in parts),
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, int] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("function", FUNCTIONS)
def test_importing_the_handler_loads_nothing_heavy(function: str, built: Path) -> None:
    modules = set(loaded(built, function))
    assert modules & set(FORBIDDEN) == set()


@pytest.mark.parametrize("function", FUNCTIONS)
def test_only_the_authorizer_imports_what_verifies_tokens(function: str, built: Path) -> None:
    """And it does so at its start: at its first request it would have a third of a processor."""
    verifying = {"jwt", "cryptography", "kyora.tokens"} & set(loaded(built, function))
    assert len(verifying) == (3 if function == "authorize_request" else 0)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_importing_the_handler_stays_within_its_budget(function: str, built: Path) -> None:
    found = loaded(built, function)
    usual = PLAIN_BUDGET if function in PLAIN else MODELS_BUDGET
    most, megabytes, kilobytes = OTHER_BUDGETS.get(function, usual)
    assert "pydantic" not in found or function not in PLAIN
    assert len(found) <= most
    assert sum(found.values()) <= megabytes * 1e6
    ours = sum(size for name, size in found.items() if name.partition(".")[0] in ("app", "kyora"))
    assert ours <= kilobytes * 1e3


_VERIFY = """
import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
for algorithm, key in {
    "RS256": rsa.generate_private_key(65537, 2048), "ES256": ec.generate_private_key(ec.SECP256R1())
}.items():
    token = jwt.encode({"userId": algorithm}, key, algorithm=algorithm)
    print(jwt.decode(token, key.public_key(), algorithms=[algorithm])["userId"])
"""


def test_what_the_layer_leaves_out_is_not_needed_to_verify_a_token(built: Path) -> None:
    """Cryptography comes without cffi's Python half, which only builds things."""
    done = subprocess.run(
        [runtime.interpreter(), "-s", "-c", _VERIFY],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(built / "VendorLayer" / "python")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == ["RS256", "ES256"], done.stderr


def test_everything_comes_from_the_build(built: Path) -> None:
    """The virtual environment of the tests is not seen, so a layer that lacks a package fails."""
    done = subprocess.run(
        [
            runtime.interpreter(),
            "-S",
            "-s",
            "-c",
            "import importlib.util as u; print(u.find_spec('moto'))",
        ],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(built / "VendorLayer" / "python")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "None"
