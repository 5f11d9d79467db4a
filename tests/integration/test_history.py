"""`make trace`: what became of any id, what it caused, and what it waits for."""

import json
from typing import Any

import pytest

from kyora import postgres, trace
from kyora.observability import begin
from local.commands import trace as command
from local.progress import Trouble
from tests.cloud import Cloud, deliver
from tests.integration.support import api, invariants
from tests.integration.support.samples import PNG
from tests.integration.support.shops import Shop
from tests.integration.support.stores import Store
from tests.integration.support.subscribing import HOME, pay_page
from tests.integration.support.units import emit, outside
from tests.unit.functions import CONTEXT, function

__all__ = ["outside"]

WRITES_ACCOUNTS = True
REQUEST = "request-0815"
rows = invariants.rows


def ask(event: dict[str, Any]) -> dict[str, Any]:
    """Ask report_status as Lambda does: through JSON."""
    answer = function("report_status").handler(json.loads(json.dumps(event)), CONTEXT)
    found: dict[str, Any] = json.loads(json.dumps(answer))
    return found


def reported(asked: str) -> str:
    """What `make trace` prints."""
    return "\n".join(command.lines(ask({"trace": asked})))


def in_order(text: str, *parts: str) -> bool:
    """Whether the parts follow each other in the text."""
    place = 0
    for part in parts:
        place = text.find(part, place)
        if place < 0:
            return False
    return True


# ---- an upload


def test_an_upload_is_followed_from_its_request_to_its_event(store: Store) -> None:
    asked = api.call(
        "POST /v1/assets/upload", body=api.wish(PNG), headers={"x-request-id": REQUEST}
    )
    asset_id = asked.body["assetId"]
    waiting = reported(asset_id)
    assert in_order(waiting, REQUEST, "upload asked for: image/png", "Still to come", "expires")
    api.put(asked.body, PNG.data)
    api.deliver(f"incoming/ws_demo/{asset_id}")
    [event] = rows("SELECT id, detail ->> 'traceparent' AS traceparent FROM outbox")
    rows("UPDATE outbox SET published_at = now() RETURNING id")
    context = trace.parse(event["traceparent"])
    assert context is not None
    for one in (asset_id, REQUEST, event["id"], context.trace_id, event["traceparent"]):
        text = reported(one)
        assert in_order(text, REQUEST, asset_id, "verified: ready"), one
        assert in_order(text, REQUEST, "AssetReady", event["id"]), one
        assert in_order(text, "nothing consumes it", "It waits for nothing."), one


def test_a_rejected_upload_says_why(store: Store) -> None:
    ticket = api.request(PNG, sha256=None)
    api.put(ticket, b"MZ".ljust(len(PNG.data)))
    api.confirm(ticket["assetId"])
    assert "rejected (type_mismatch)" in reported(ticket["assetId"])


# ---- an order


def sell() -> None:
    """Have a shop that pays for credit cards."""
    with postgres.transaction() as tx:
        tx.run(
            "INSERT INTO business (id, workspace_id, name, currency)"
            " VALUES ('biz_demo', 'ws_demo', 'Shop', 'AED') ON CONFLICT DO NOTHING"
        )
        tx.run(
            "INSERT INTO payment_method_fee (workspace_id, business_id, method, percent)"
            " VALUES ('ws_demo', 'biz_demo', 'credit_card', 0.03) ON CONFLICT DO NOTHING"
        )


def test_an_order_is_followed_to_its_fee_and_its_count(aws: Cloud) -> None:
    sell()
    begin(REQUEST)
    paid = emit(
        "OrderPaymentSucceeded",
        orderId="ord_7",
        businessId="biz_demo",
        currency="AED",
        paymentMethod="credit_card",
    )
    made = emit("OrderCreated", orderId="ord_7", businessId="biz_demo", currency="AED")
    before = reported("ord_7")
    assert "record_transaction_fee has not handled it yet" in before
    assert "update_analytics has not handled it yet" in before
    payment, creation = aws.entries
    function("record_transaction_fee").handler(deliver(payment), CONTEXT)
    function("update_analytics").handler(deliver(creation), CONTEXT)
    for asked in ("ord_7", REQUEST, paid):
        text = reported(asked)
        assert in_order(text, "OrderPaymentSucceeded", paid, "record_transaction_fee: fee of")
        assert "AED for ord_7 (credit_card)" in text
        assert in_order(text, "OrderCreated", made, "update_analytics: counted as order on")
        assert text.endswith("It waits for nothing.")


def test_an_order_of_another_application_is_followed_as_well(aws: Cloud) -> None:
    """Its event never was in our outbox."""
    sell()
    paid = emit(
        "OrderPaymentSucceeded",
        orderId="ord_8",
        businessId="biz_demo",
        currency="AED",
        paymentMethod="credit_card",
    )
    function("record_transaction_fee").handler(deliver(*aws.entries), CONTEXT)
    rows("DELETE FROM outbox RETURNING id")
    for asked in ("ord_8", paid):
        text = reported(asked)
        assert in_order(text, "another application", paid, "record_transaction_fee: fee of")
        assert "AED for ord_8 (credit_card)" in text


# ---- a mail


def mailed(aws: Cloud) -> str:
    begin(REQUEST)
    emit("UserWelcomed")
    function("send_email").handler(deliver(*aws.entries), CONTEXT)
    return str(rows("SELECT id FROM email_message")[0]["id"])


def test_a_mail_is_followed_from_its_event_to_the_report_on_it(aws: Cloud) -> None:
    mail = mailed(aws)
    rows(
        "INSERT INTO email_event (id, message_id, type, payload) VALUES"
        " ('msg_1', :mail, 'email.delivered', '{}') RETURNING id",
        mail=mail,
    )
    [row] = rows("SELECT event_id, recipient FROM email_message")
    for asked in (mail, row["event_id"], REQUEST):
        text = reported(asked)
        assert in_order(text, "UserWelcomed", "mail welcome (en) is sent", "the provider took it")
        assert "Resend reports: delivered" in text
        assert row["recipient"] not in text


LATER = "next_attempt_at = now() + interval '1 hour', ended_at = NULL, data = '{}', attempts = 2"
STATES = {
    "queued": (f"status = 'queued', reason = '503', {LATER}", "send_email tries again, 20"),
    "dead": ("status = 'dead', reason = 'exhausted'", "`make mails RESEND="),
    "sent": ("status = 'sent'", "the provider's webhook reports whether it arrived"),
}


@pytest.mark.parametrize("state", STATES)
def test_a_mail_says_what_it_waits_for(state: str, aws: Cloud) -> None:
    mail = mailed(aws)
    change, expected = STATES[state]
    with postgres.transaction() as tx:
        tx.run(f"UPDATE email_message SET {change} WHERE id = :id", id=mail)
    assert in_order(reported(mail), "Still to come", expected)


# ---- Stripe


def test_a_checkout_is_followed_from_the_click_to_its_mail(shop: Shop, aws: Cloud) -> None:
    with postgres.transaction() as tx:
        tx.run("UPDATE workspace SET owner_id = 'usr_demo_admin' WHERE id = 'ws_demo'")
    body = {"planId": "professional", "successUrl": f"{HOME}?paid=1", "cancelUrl": HOME}
    api.call("POST /v1/billing/checkout-session", body=body, headers={"x-request-id": REQUEST})
    pay_page(shop)
    begin("delivery-1")
    shop.deliver()
    mailed_events = [e for e in aws.entries if e["DetailType"] == "SubscriptionActivated"]
    function("send_email").handler(deliver(*mailed_events), CONTEXT)
    text = reported(REQUEST)
    assert in_order(text, REQUEST, "asked Stripe: POST checkout/sessions")
    assert "Stripe's checkout.session.completed by webhook: processed" in text
    assert in_order(text, "SubscriptionActivated", "mail subscription_confirmed (en) is sent")
    [sub] = shop.all("subscription")
    assert in_order(
        reported(sub["id"]),
        "subscription to professional: active; access full",
        "Still to come",
        "the period ends",
    )
    assert "Stripe's customer.subscription.created" in reported(sub["customer"])
    [invoice] = shop.all("invoice")
    assert in_order(reported(invoice["id"]), "PaymentSucceeded")
    assert "invoice of 99.00 AED: paid" in reported(invoice["id"])
    [event] = rows("SELECT id FROM stripe_event WHERE type = 'invoice.paid'")
    assert "PaymentSucceeded" in reported(event["id"])
    [call] = rows("SELECT request_id FROM stripe_call WHERE path = 'checkout/sessions'")
    assert "SubscriptionActivated" in reported(call["request_id"])


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("received", "sweep_billing processes it"),
        ("failed", "`make replay EVENT=evt_9`"),
        ("orphan", "`make bind`"),
    ],
)
def test_an_event_of_stripes_says_what_it_waits_for(
    status: str, expected: str, database: str
) -> None:
    rows(
        "INSERT INTO stripe_event (id, type, created, source, body, status)"
        " VALUES ('evt_9', 'invoice.paid', 1, 'webhook', '{}', :status) RETURNING id",
        status=status,
    )
    assert in_order(
        reported("evt_9"), f"invoice.paid by webhook: {status}", "Still to come", expected
    )


# ---- an event that is not on the bus


@pytest.mark.parametrize(
    ("refused", "expected"),
    [(False, "relay_outbox publishes it; 3 attempts: Throttled, 20"), (True, "`make outbox`")],
)
def test_an_event_that_is_not_published_says_when_it_will_be(
    refused: bool, expected: str, aws: Cloud
) -> None:
    aws.refuse = lambda _: "Throttled"
    begin(REQUEST)
    event = emit("UserWelcomed")
    rows(
        "UPDATE outbox SET attempts = 3, refused = :refused, last_error = 'Throttled' RETURNING id",
        refused=refused,
    )
    assert in_order(reported(event), "UserWelcomed, not on the bus yet", "Still to come", expected)


# ---- any other text


UNKNOWN = (
    "nothing",
    "ast_0",
    "evt_",
    "x" * 5000,
    "' OR 1=1",
    "%",
    "\0",
    "\ud800",
    " ",
    "🙂",
    "0" * 32,
)


@pytest.mark.parametrize("asked", UNKNOWN)
def test_an_unknown_id_is_said_to_be_unknown(asked: str, aws: Cloud) -> None:
    begin(REQUEST)
    emit("UserWelcomed")
    with pytest.raises(Trouble, match="nothing is known of"):
        command.show(ask, asked)


def test_blanks_around_an_id_do_not_matter(aws: Cloud) -> None:
    begin(REQUEST)
    event = emit("UserWelcomed")
    assert event in reported(f"  {event}\n")


def test_asking_writes_nothing(aws: Cloud) -> None:
    mail = mailed(aws)

    def versions() -> list[dict[str, Any]]:
        return rows("SELECT xmin::text FROM outbox UNION ALL SELECT xmin::text FROM email_message")

    before = versions()
    reported(mail)
    assert versions() == before
