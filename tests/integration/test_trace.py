"""The correlation id and the trace, over every hop: outbox, bus, queue, store, Stripe, Resend."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from kyora import config, otlp, trace
from kyora.observability import begin
from tests.cloud import Cloud, deliver
from tests.integration.support import api, invariants, mail_queue
from tests.integration.support.resend_webhook import receive, reported, request
from tests.integration.support.samples import PNG
from tests.integration.support.shops import Shop
from tests.integration.support.stores import Store
from tests.integration.support.subscribing import HOME, choose, pay_page, payer
from tests.integration.support.units import emit, outside
from tests.scripted import Answer, Server, scripted
from tests.unit.functions import CONTEXT, function

__all__ = ["outside", "payer"]

WRITES_ACCOUNTS = True

GIVEN = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
CALLER = {"traceparent": GIVEN, "x-request-id": "request-0815"}
rows = invariants.rows


@pytest.fixture
def collector(environment: pytest.MonkeyPatch) -> Iterator[Server]:
    with scripted(lambda _: Answer(200)) as server:
        environment.setenv("TRACE_OTLP_ENDPOINT", server.url)
        config.forget()
        otlp._paused_until.clear()
        environment.setattr(otlp, "_PATIENCE", 60)  # what is late is lost
        yield server
    while otlp._connections:
        otlp._connections.popitem()[1].close()


def spans(server: Server) -> list[dict[str, Any]]:
    return [
        span
        for sent in server.requests
        for span in json.loads(sent.body)["resourceSpans"][0]["scopeSpans"][0]["spans"]
    ]


def roots(server: Server, name: str) -> list[dict[str, Any]]:
    """The units of this name, the first one first."""
    return [span for span in spans(server) if span["name"] == name]


def context(traceparent: str) -> dict[str, str]:
    found = trace.parse(traceparent)
    assert found is not None
    return {"traceId": found.trace_id, "spanId": found.span_id}


# ---- outbox, bus, queue, consumer


def test_a_consumer_has_a_trace_of_its_own_that_links_to_what_caused_the_event(
    aws: Cloud, collector: Server
) -> None:
    begin("request-0815", parent=GIVEN)
    emit("UserWelcomed")
    [entry] = aws.entries
    caused_by = json.loads(entry["Detail"])["traceparent"]
    assert context(caused_by)["traceId"] == context(GIVEN)["traceId"]
    function("send_email").handler(deliver(entry), CONTEXT)
    [unit] = roots(collector, "process UserWelcomed")
    assert unit["links"] == [context(caused_by)]
    assert unit["traceId"] != context(caused_by)["traceId"]
    assert "parentSpanId" not in unit
    [message] = rows("SELECT correlation_id, traceparent FROM email_message")
    assert message["correlation_id"] == "request-0815"
    assert context(message["traceparent"]) == {k: unit[k] for k in ("traceId", "spanId")}


def test_each_message_of_a_batch_links_to_its_own_cause(aws: Cloud, collector: Server) -> None:
    for number in range(3):
        begin(f"request-{number}")
        emit("UserWelcomed")
    function("send_email").handler(deliver(*aws.entries), CONTEXT)
    causes = [json.loads(entry["Detail"])["traceparent"] for entry in aws.entries]
    units = roots(collector, "process UserWelcomed")
    assert [unit["links"] for unit in units] == [[context(cause)] for cause in causes]


@pytest.mark.parametrize("broken", ["", "00-zz-01", 7, None, {"a": 1}, "x" * 5000, "\0"])
def test_an_event_with_a_malformed_trace_is_handled(broken: object, aws: Cloud) -> None:
    begin("request-0815")
    emit("UserWelcomed")
    [entry] = aws.entries
    entry["Detail"] = json.dumps(json.loads(entry["Detail"]) | {"traceparent": broken})
    assert function("send_email").handler(deliver(entry), CONTEXT) == {"batchItemFailures": []}
    assert len(rows("SELECT 1 FROM email_message WHERE status = 'sent'")) == 1


def test_an_event_without_a_trace_is_handled(aws: Cloud, collector: Server) -> None:
    begin("request-0815")
    emit("UserWelcomed")
    [entry] = aws.entries
    detail = json.loads(entry["Detail"])
    del detail["traceparent"]
    function("send_email").handler(deliver(entry | {"Detail": json.dumps(detail)}), CONTEXT)
    [unit] = roots(collector, "process UserWelcomed")
    assert unit["links"] == []


def test_statements_are_spans_with_their_text_and_without_values(
    aws: Cloud, collector: Server
) -> None:
    begin("request-0815")
    emit("UserWelcomed")
    trace.end()
    [inserted] = [span for span in trace.taken() if span.name == "INSERT outbox"]
    assert ":detail" in str(inserted.attributes["db.query.text"])
    function("send_email").handler(deliver(*aws.entries), CONTEXT)
    [message] = rows("SELECT recipient FROM email_message")
    assert "INSERT email_message" in [span["name"] for span in spans(collector)]
    assert message["recipient"] not in str(spans(collector))


# ---- uploads


def test_the_stores_event_continues_the_request_for_the_upload_url(
    store: Store, collector: Server
) -> None:
    asked = api.call("POST /v1/assets/upload", body=api.wish(PNG), headers=CALLER)
    [row] = rows("SELECT id, correlation_id, traceparent FROM asset")
    assert row["correlation_id"] == "request-0815"
    api.put(asked.body, PNG.data)
    assert api.deliver(f"incoming/ws_demo/{row['id']}") == []
    [event] = rows("SELECT detail FROM outbox WHERE detail_type = 'AssetReady'")
    assert event["detail"]["correlationId"] == "request-0815"
    linked = [unit for unit in spans(collector) if context(row["traceparent"]) in unit["links"]]
    assert len(linked) == 1


def test_a_confirmation_keeps_its_own_id_and_links_to_the_request(
    store: Store, collector: Server
) -> None:
    asset_id = api.upload(PNG)
    [row] = rows("SELECT traceparent FROM asset")
    confirmed = api.call("POST /v1/assets/{assetId}/confirm", asset_id=asset_id, headers=CALLER)
    assert confirmed.status == 200
    [event] = rows("SELECT detail FROM outbox WHERE detail_type = 'AssetReady'")
    assert event["detail"]["correlationId"] == "request-0815"
    assert context(event["detail"]["traceparent"])["traceId"] == context(GIVEN)["traceId"]
    [unit] = roots(collector, "POST /v1/assets/{assetId}/confirm")
    assert unit["links"] == [context(row["traceparent"])]


# ---- Stripe


def stripe_events(kind: str) -> list[dict[str, Any]]:
    return rows(
        "SELECT id, correlation_id, traceparent, request_id FROM stripe_event"
        " WHERE type = :kind ORDER BY received_at",
        kind=kind,
    )


def test_a_change_at_stripe_comes_back_under_the_request_that_asked_for_it(payer: Shop) -> None:
    from tests.integration.support.subscribing import SUBSCRIPTION

    answer = api.call(f"POST {SUBSCRIPTION}", body={"planId": "enterprise"}, headers=CALLER)
    assert answer.status == 200, answer
    payer.deliver()
    calls = rows("SELECT * FROM stripe_call WHERE correlation_id = 'request-0815'")
    assert calls
    assert {context(call["traceparent"])["traceId"] for call in calls} == {
        context(GIVEN)["traceId"]
    }
    [*_, updated] = stripe_events("customer.subscription.updated")
    assert updated["request_id"] in {call["request_id"] for call in calls}
    assert updated["correlation_id"] == "request-0815"
    assert context(updated["traceparent"])["traceId"] == context(GIVEN)["traceId"]


def test_a_payment_on_a_page_comes_back_under_the_request_that_opened_it(shop: Shop) -> None:
    body = {"planId": "professional", "successUrl": f"{HOME}?paid=1", "cancelUrl": HOME}
    assert api.call("POST /v1/billing/checkout-session", body=body, headers=CALLER).status == 200
    pay_page(shop)
    begin("delivery-1")
    shop.deliver()
    for kind in ("checkout.session.completed", "customer.subscription.created", "invoice.paid"):
        [event] = stripe_events(kind)
        assert event["correlation_id"] == "request-0815", kind
        assert context(event["traceparent"])["traceId"] == context(GIVEN)["traceId"]
    caused = rows(
        "SELECT detail FROM outbox WHERE detail_type IN"
        " ('SubscriptionActivated', 'PaymentSucceeded')"
    )
    assert {event["detail"]["correlationId"] for event in caused} == {"request-0815"}


def test_a_renewal_has_its_own_cause(shop: Shop) -> None:
    """The subscription's metadata still names the request of its beginning."""
    test_a_payment_on_a_page_comes_back_under_the_request_that_opened_it(shop)
    shop.advance(31)
    begin("delivery-2")
    shop.deliver()
    [_, renewal] = stripe_events("invoice.paid")
    assert renewal["correlation_id"] == "delivery-2"
    assert renewal["traceparent"] is None


def test_a_call_that_cannot_be_noted_is_made_nevertheless(
    payer: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kyora.billing import calls
    from kyora.errors import Unavailable

    def fails() -> Any:
        raise Unavailable("The database cannot be reached.", code="database.unavailable")

    monkeypatch.setattr(calls, "transaction", fails)
    assert choose("enterprise").status == 200


def test_an_event_that_waits_continues_the_same_request_when_it_is_processed(
    payer: Shop, collector: Server
) -> None:
    from kyora.billing import event_store

    begin("request-0815", parent=GIVEN)
    choose("enterprise")
    payer.deliver()
    [*_, updated] = stripe_events("customer.subscription.updated")
    rows(
        "UPDATE stripe_event SET status = 'received', next_at = now() WHERE id = :id RETURNING id",
        id=updated["id"],
    )
    found = event_store.begin(updated["id"])
    assert found is not None
    assert found[0].correlation_id == updated["correlation_id"]
    assert found[0].traceparent == updated["traceparent"]


# ---- Resend


def test_a_report_on_a_mail_links_to_the_attempt_that_sent_it(
    database: str,
    environment: pytest.MonkeyPatch,
    collector: Server,
    aws: Cloud,
) -> None:
    environment.setenv("EMAIL_RESEND_WEBHOOK_SECRET", mail_queue.WEBHOOK_SECRET)
    config.forget()
    begin("request-0815")
    emit("UserWelcomed")
    function("send_email").handler(deliver(*aws.entries), CONTEXT)
    [message] = rows("SELECT id, traceparent FROM email_message")
    body = reported("email.delivered", tags={"message_id": message["id"]})
    assert receive(request(body)) == (200, "")
    [unit] = roots(collector, "POST /")
    assert unit["links"] == [context(message["traceparent"])]
    [ids] = [a["value"] for a in unit["attributes"] if a["key"] == "kyora.correlation_ids"]
    assert {"stringValue": "request-0815"} in ids["arrayValue"]["values"]
