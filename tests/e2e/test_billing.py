"""Billing as a person meets it: Stripe's pages, the cards, the mail, and the commands."""

from tests.e2e.commands import control, query, run
from tests.e2e.conftest import Stack, wait
from tests.e2e.payer import (
    DECLINED,
    FAILS_LATER,
    GOOD,
    card,
    mails,
    page,
    portal,
    renew,
    send,
    start_over,
    subscription,
    until,
)


def test_a_workspace_subscribes_fails_to_pay_pays_leaves_and_is_reconciled(stack: Stack) -> None:
    url = stack.env["KYORA_URL"]
    start_over(stack)
    assert subscription(stack)["access"] == "free"
    # Everything that Stripe sends comes twice, and in any order.
    control(stack, "pump", duplicate=1, copies=2, shuffle=True)
    checkout = page(
        *(stack, "checkout-session"),
        planId="professional",
        successUrl=f"{url}/?paid=1",
        cancelUrl=f"{url}/",
    )
    status, _, shown = send(checkout, email="admin@demo.example", name="Dana", **card(DECLINED))
    assert (status, "Your card was declined." in shown) == (402, True)
    assert subscription(stack)["access"] == "free"

    sent = send(checkout, email="admin@demo.example", name="Dana", **card(GOOD))
    assert sent[:2] == (303, f"{url}/?paid=1")
    found = until(stack, lambda it: it["access"] == "full")
    assert found["plan"]["id"] == "professional"
    assert found["limits"]["maxBusinesses"] == 3
    wait(lambda: mails(stack), 120)
    assert mails(stack) == ["You're on Professional Plan"]

    send(f"{portal(stack)}/card", **card(FAILS_LATER))
    renew(stack)
    found = until(stack, lambda it: it["access"] == "grace")
    assert found["status"] == "past_due"
    wait(lambda: len(mails(stack)) > 1, 120)
    assert mails(stack)[1:] == ["We couldn't take your payment"]

    send(f"{portal(stack)}/card", **card(GOOD))
    control(stack, "advance", days=3)  # Stripe tries again
    until(stack, lambda it: it["access"] == "full" and it["status"] == "active")
    wait(lambda: len(mails(stack)) > 2, 120)
    assert mails(stack)[2:] == ["Your payment went through"]

    [[name]] = query(stack, "SELECT id FROM subscription")
    assert send(f"{portal(stack)}/cancel", subscription=name)[0] == 303
    found = until(stack, lambda it: bool(it.get("cancelAt")))
    assert (found["access"], found["cancelAt"]) == ("full", found["currentPeriodEnd"])

    control(stack, "advance", days=35)
    found = until(stack, lambda it: it["access"] == "free")
    assert found["plan"]["id"] == "starter"
    wait(lambda: len(mails(stack)) > 3, 120)
    assert mails(stack)[3:] == ["Your Professional Plan subscription has ended"]
    twice = "SELECT count(*) FROM stripe_event WHERE status NOT IN ('processed', 'ignored')"
    wait(lambda: query(stack, twice) == [[0]], 60)
    assert query(stack, twice) == [[0]]
    assert len(mails(stack)) == 4

    control(stack, "pump", duplicate=0, shuffle=False)
    query(stack, "UPDATE subscription SET status = 'active'")
    done = run(stack, "reconcile")
    assert "status: active → canceled" in done.stdout, done.stdout + done.stderr
    assert "Nothing differed." in run(stack, "reconcile").stdout
    [[event_id]] = query(stack, "SELECT id FROM stripe_event WHERE status = 'processed' LIMIT 1")
    assert f"done    {event_id}" in run(stack, "replay", "--event", event_id).stdout


def test_the_commands_find_what_differs_and_mend_it(stack: Stack) -> None:
    done = run(stack, "sync-plans", "--check")
    assert done.returncode == 0, done.stdout + done.stderr
    query(stack, "UPDATE plan SET amount = 1 WHERE id = 'professional'")
    done = run(stack, "sync-plans", "--check")
    assert (done.returncode, "professional.amount" in done.stdout) == (2, True)
    assert run(stack, "sync-plans").returncode == 0
    assert run(stack, "sync-plans", "--check").returncode == 0
    done = run(stack, "push-plans", "plans.toml")
    assert "Stripe has everything already" in done.stdout, done.stdout + done.stderr
