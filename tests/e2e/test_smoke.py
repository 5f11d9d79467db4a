"""`make smoke` on the running stack: all of it works, and what is broken is named."""

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.commands import client, query, save
from tests.e2e.conftest import Stack

BROKEN = "def handler(event, context):\n    raise RuntimeError('broken on purpose')\n"
# What a test breaks, and the one check that has to say so.
BREAKS = {
    "check_health": "health",
    "request_upload": "upload",
    "confirm_upload": "upload",
    "manage_multipart": "upload in parts",
    "update_analytics": "analytics",
    "record_transaction_fee": "fees",
    "send_email": "e-mail",
    "stripe_webhook": "Stripe webhook",
    "sync_plans": "plans",
}
NEIGHBOURS = ("health", "fees", "Stripe webhook")  # which must not be blamed


def smoke(stack: Stack, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "local", "smoke", *arguments],
        cwd=stack.checkout,
        env={"KYORA_LOCAL_DIR": str(stack.home), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def marks(said: str) -> dict[str, str]:
    """The mark of each check."""
    return {
        name.strip(): mark for mark, name in re.findall(r"^  ([✓✗]) (.{15}) ", said, re.MULTILINE)
    }


def test_everything_works_end_to_end(stack: Stack) -> None:
    done = smoke(stack)
    assert done.returncode == 0, done.stdout + done.stderr
    assert set(marks(done.stdout).values()) == {"✓"}
    assert len(marks(done.stdout)) == 9
    assert "All 9 work end to end." in done.stdout


def test_it_leaves_nothing_behind(stack: Stack) -> None:
    assert (
        smoke(stack, "--only", "upload,upload in parts,analytics,fees,Stripe webhook").returncode
        == 0
    )
    left = query(
        stack,
        "SELECT (SELECT count(*) FROM business WHERE workspace_id = 'ws_smoke'),"
        " (SELECT count(*) FROM analytics_event WHERE workspace_id = 'ws_smoke'),"
        " (SELECT count(*) FROM transaction_fee WHERE workspace_id = 'ws_smoke'),"
        " (SELECT count(*) FROM stripe_event WHERE id LIKE 'evt_smoke%'),"
        " (SELECT count(*) FROM asset WHERE workspace_id = 'ws_smoke' AND status <> 'deleted'),"
        " (SELECT count(*) FROM app_user WHERE id = 'usr_smoke' AND deleted_at IS NULL)",
    )
    assert left == [[0] * 6]


@pytest.fixture
def broken(stack: Stack) -> Iterator[Callable[[str], None]]:
    """Break a function of the running stack; it is repaired at the end."""
    kept: dict[str, str] = {}

    def source(name: str) -> Path:
        return stack.checkout / "functions" / name / "app.py"

    def break_it(name: str) -> None:
        kept[name] = source(name).read_text()
        assert f"{name} redeployed" in save(stack, source(name), BROKEN)

    yield break_it
    for name, text in kept.items():
        assert f"{name} redeployed" in save(stack, source(name), text)
    # What a broken consumer was given would be given up later, in the middle of another test.
    sqs = client(stack, "sqs")
    for queue in {"fees", "analytics", "emails"} if kept else ():
        for end in ("", "-dead"):
            url = sqs.get_queue_url(QueueName=f"kyora-local-{queue}{end}")["QueueUrl"]
            sqs.purge_queue(QueueUrl=url)


@pytest.mark.parametrize("function", BREAKS)
def test_what_is_broken_is_named_and_where_to_look(
    function: str, broken: Callable[[str], None], stack: Stack
) -> None:
    broken(function)
    others = smoke(stack, "--only", ",".join({*NEIGHBOURS} - {BREAKS[function]}))
    assert others.returncode == 0, others.stdout
    # A broken consumer is waited for in vain; its neighbours may need longer.
    done = smoke(stack, "--only", BREAKS[function], "--patience", "3")
    assert marks(done.stdout) == {BREAKS[function]: "✗"}
    assert done.returncode == 1
    assert f"{BREAKS[function]}: broken." in done.stdout
    assert f"`make logs` ({function})" in done.stdout


def test_a_check_that_does_not_exist_is_refused(stack: Stack) -> None:
    done = smoke(stack, "--only", "uploads")
    assert (done.returncode, done.stdout) == (1, "")
    assert "no check is called uploads" in done.stderr
