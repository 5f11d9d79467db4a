"""One upload, one order and one checkout, each followed from its request to its end."""

import re
import secrets
from typing import Any

from tests.e2e.commands import PNG, query, run
from tests.e2e.conftest import Stack, request, wait
from tests.e2e.payer import GOOD, card, page, send, start_over


def line(stack: Stack, identity: str, *parts: str) -> str:
    """Return what `make trace` says of an id; soon it names these parts, in this order."""
    said = ""

    def is_whole() -> bool:
        nonlocal said
        done = run(stack, "trace", identity)
        assert done.returncode == 0, done.stderr
        said = done.stdout
        return bool(re.search(".*".join(parts), said, re.DOTALL))

    wait(is_whole, 60)
    assert re.search(".*".join(parts), said, re.DOTALL), said
    return said


def story(stack: Stack, identity: str) -> dict[str, Any]:
    """Return the spans of all that a request or an event caused."""
    answer = request("GET", f"{stack.env['KYORA_URL']}/_local/traces/{identity}")
    assert answer.status == 200, answer
    found: dict[str, Any] = answer.json
    return found


def spans(found: dict[str, Any]) -> str:
    """Return the names of a story's spans, a line each, in the order of their units."""
    return "\n".join(span["name"] for unit in found["units"] for span in unit["spans"])


def test_an_upload_is_one_line_from_its_request_to_its_event(stack: Stack) -> None:
    asset = stack.upload(PNG)["assetId"]
    said = line(
        stack, asset, "begin", "upload asked for", "verified: ready", "AssetReady.* on the bus"
    )
    [asked] = re.findall(r"under the correlation id +(\S+)\n", said)
    found = story(stack, asked)
    assert "INSERT asset" in spans(found)
    assert {"request_upload"} <= {unit["function"] for unit in found["units"]}


def test_an_order_is_one_line_from_its_event_to_its_fee(stack: Stack) -> None:
    order = f"ord_{secrets.token_hex(8)}"
    url, token = stack.env["KYORA_URL"], stack.env["KYORA_CONSOLE_TOKEN"]
    samples = request("GET", f"{url}/_console/samples").json["events"]
    [sample] = [one for one in samples if one["name"] == "OrderPaymentSucceeded"]
    given = {"event": sample["name"], "data": sample["data"] | {"orderId": order}}
    sent = request("POST", f"{url}/_console/emit", given, {"X-Kyora-Token": token})
    fee = "select 1 from transaction_fee where order_id = :id"
    wait(lambda: query(stack, fee, id=order), 120, f"the fee: {sent}")
    said = line(
        stack, order, "begin", "OrderPaymentSucceeded, on the bus", "record_transaction_fee: fee of"
    )
    assert "It waits for nothing." in said
    [asked] = re.findall(r"under the correlation id +(\S+)\n", said)
    found = story(stack, asked)
    parts = ("wait in the queue", "INSERT inbox", "INSERT transaction_fee", "COMMIT")
    assert re.search(".*".join(parts), spans(found), re.DOTALL), spans(found)


def test_a_checkout_is_one_line_from_its_request_to_its_mail(stack: Stack) -> None:
    start_over(stack)
    back = f"{stack.env['KYORA_URL']}/"
    address = page(
        stack, "checkout-session", planId="professional", successUrl=back, cancelUrl=back
    )
    assert send(address, email="admin@demo.example", name="Dana", **card(GOOD))[0] == 303
    mails = "select 1 from mock_mailbox"
    wait(lambda: query(stack, mails), 120, "the mail")
    [[subscription]] = query(stack, "select id from subscription")
    said = line(
        stack,
        subscription,
        "by webhook: processed",
        "SubscriptionActivated, on the bus",
        "send_email: mail subscription_confirmed",
        "the provider took it",
    )
    # At Stripe's time, which other tests may have moved: it stands anywhere.
    assert "subscription to professional: active; access full" in said
    [asked] = set(re.findall(r"under the correlation id +(\S+)\n", said))
    found = story(stack, asked)
    first, *caused = found["units"]
    assert first["name"] == "POST /v1/billing/checkout-session"
    assert {unit["function"] for unit in caused} >= {"stripe_webhook", "send_email"}
    # A link, not a parent: the outbox and the vendor keep what they were given for later.
    assert all(unit["links"] for unit in caused if unit["function"] != "authorize_request")
    parts = ("Stripe POST checkout", "INSERT outbox", "EventBridge PutEvents", "wait in the queue",
             "INSERT email_message", "mock send")  # fmt: skip
    assert re.search(".*".join(parts), spans(found), re.DOTALL), spans(found)
