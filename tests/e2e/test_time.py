"""`make time` over the whole stack: everything that reads a clock moves, and in the right order."""

from datetime import UTC, datetime, timedelta
from typing import Any

import jwt

from tests.e2e.commands import PNG, move_clock, query, run
from tests.e2e.conftest import Stack, request, wait
from tests.e2e.payer import FAILS_LATER, GOOD, card, mails, page, portal, send, subscription


def move(stack: Stack, words: str) -> None:
    done = run(stack, "time", words)
    assert done.returncode == 0, done.stdout + done.stderr


def clock(stack: Stack) -> dict[str, Any]:
    found: dict[str, Any] = request("GET", f"{stack.env['KYORA_URL']}/_local/time").json
    return found


def in_the_database(stack: Stack) -> timedelta:
    """How far PostgreSQL is ahead of this process, which nothing moves."""
    [[now]] = query(stack, "SELECT now()")
    ahead: timedelta = now - datetime.now(UTC)
    return ahead


def token(stack: Stack, seconds: int) -> str:
    claims = jwt.decode(
        stack.env["KYORA_TOKEN"], stack.env["AUTH_JWT_SECRET"], algorithms=["HS256"]
    )
    claims["exp"] = int(datetime.now(UTC).timestamp()) + seconds
    return jwt.encode(claims, stack.env["AUTH_JWT_SECRET"], algorithm="HS256")


ABOUT = timedelta(minutes=3)
UPLOAD = {"filename": "a.png", "contentType": "image/png", "size": len(PNG)}


def test_tokens_signed_urls_rows_and_schedules_move_together(moved: Stack) -> None:
    before, began = in_the_database(moved), clock(moved)["aheadSeconds"]
    short = token(moved, 3600 + began)
    assert moved.call("GET", "/v1/billing/subscription", token=short).status == 200
    ticket = moved.call("POST", "/v1/assets/upload", UPLOAD).json
    kept = moved.upload(PNG)

    move(moved, "+2h")

    assert abs(in_the_database(moved) - before - timedelta(hours=2)) < ABOUT
    assert clock(moved)["aheadSeconds"] == began + 7200
    assert moved.call("GET", "/v1/billing/subscription", token=short).status == 401
    late = request("PUT", ticket["uploadUrl"], PNG, ticket["headers"])
    assert late.status == 403, late
    gone = moved.call("POST", f"/v1/assets/{ticket['assetId']}/confirm")
    assert gone.problem == "asset.expired"
    # What is signed now is valid now: a ticket, a download, and Stripe's events.
    asset = moved.call("GET", f"/v1/assets/{kept['assetId']}").json
    assert request("GET", asset["downloadUrl"]).body == PNG
    fresh = moved.upload(PNG)
    made = datetime.fromisoformat(fresh["createdAt"]) - datetime.now(UTC)
    assert abs(made - before - timedelta(hours=2)) < ABOUT
    beats = query(moved, "SELECT name FROM heartbeat WHERE at > now() - interval '5 minutes'")
    assert {"relay_outbox", "sweep_billing", "purge_data", "report_status", "sync_plans"} <= {
        name for (name,) in beats
    }
    assert run(moved, "status").returncode == 0


def test_a_failed_renewal_becomes_a_grace_period_and_then_the_free_plan(moved: Stack) -> None:
    query(moved, "DELETE FROM mock_mailbox")
    url = moved.env["KYORA_URL"]
    checkout = page(moved, "checkout-session", planId="professional", successUrl=url, cancelUrl=url)
    assert send(checkout, email="admin@demo.example", name="Dana", **card(GOOD))[0] == 303
    wait(lambda: subscription(moved)["access"] == "full", 120, "the paid plan")
    send(f"{portal(moved)}/card", **card(FAILS_LATER))

    move_clock(moved, to="renewal", stepDays=7)
    found = subscription(moved)
    assert (found["access"], found["status"]) == ("grace", "past_due")
    [[since]] = query(moved, "SELECT access_until - interval '7 days' FROM workspace_billing")
    [[until]] = query(moved, "SELECT period_start FROM subscription")
    assert since - until == timedelta(hours=1)  # Stripe charges an hour after the period began

    move(moved, "grace-end")
    assert subscription(moved)["access"] == "free"
    assert mails(moved) == [
        "You're on Professional Plan",
        "We couldn't take your payment",
        "We couldn't take your payment",
        "Last day to keep Professional Plan",
    ]
    why = run(moved, "why", "ws_demo").stdout
    assert "its payment failed and the grace period is over" in why
    assert clock(moved)["goals"].get("grace-end") is None
    assert run(moved, "time", "grace-end").returncode == 1


def test_the_clock_comes_back_and_the_stack_goes_on(moved: Stack) -> None:
    move(moved, "+3d")
    moved.stop()
    moved.start()
    assert in_the_database(moved) > timedelta(days=2)  # a restart keeps it
    move(moved, "reset")
    assert abs(in_the_database(moved)) < ABOUT
    assert moved.upload(PNG)["status"] == "ready"
    # A schedule that last ran in the future runs again, not only when that future has come.
    query(moved, "DELETE FROM heartbeat")
    beats = "SELECT count(*) FROM heartbeat WHERE name = 'relay_outbox' AND at <= now()"
    wait(lambda: query(moved, beats) == [[1]], 180, "a schedule after the clock was set back")
