"""Stripe's objects, field by field: what each becomes, also when it is missing or wrong."""

from datetime import UTC, datetime
from typing import Any

import pytest

from kyora.billing import stripe_objects, stripe_terms
from kyora.billing.stripe_objects import (
    API_VERSION,
    Event,
    Item,
    StripeCustomer,
    StripeInvoice,
    StripePaymentMethod,
    StripeSubscription,
    Unreadable,
)

START = 1_790_000_000
SPAN = 2_592_000


def at(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


# ---- events


def payload(**more: Any) -> dict[str, Any]:
    return {
        "object": "event",
        "id": "evt_1",
        "type": "customer.subscription.updated",
        "created": START,
        "api_version": API_VERSION,
        "livemode": True,
        "data": {
            "object": {"object": "subscription", "id": "sub_1", "customer": "cus_1"},
            "previous_attributes": {"status": "trialing"},
        },
    } | more


def about(found: dict[str, Any], previous: object = None) -> Event:
    event = stripe_objects.event(payload(data={"object": found, "previous_attributes": previous}))
    assert event is not None
    return event


def test_an_event_is_its_envelope_and_what_it_is_about() -> None:
    assert stripe_objects.event(payload()) == Event(
        id="evt_1",
        type="customer.subscription.updated",
        created=START,
        api_version=API_VERSION,
        livemode=True,
        object={"object": "subscription", "id": "sub_1", "customer": "cus_1"},
        previous={"status": "trialing"},
        account="",
        kind="subscription",
        object_id="sub_1",
        customer_id="cus_1",
    )


NO_EVENTS: list[tuple[str, object]] = [
    ("a list", []),
    ("nothing", None),
    ("another object", payload(object="subscription")),
    ("no id", payload(id=None)),
    ("an empty id", payload(id="")),
    ("an id of another alphabet", payload(id="evt_ä")),
    ("an id with a newline", payload(id="evt_\n")),
    ("an id of 256 characters", payload(id="e" * 256)),
    ("no type", payload(type=None)),
    ("no time", payload(created=None)),
    ("half a second", payload(created=START + 0.5)),
    ("a time that is a switch", payload(created=True)),
    ("1970", payload(created=0)),
    ("the year 10000", payload(created=253_402_300_800)),
    ("no data", payload(data=None)),
    ("no object", payload(data={"object": None})),
]


@pytest.mark.parametrize("found", [row[1] for row in NO_EVENTS], ids=[row[0] for row in NO_EVENTS])
def test_this_is_no_event(found: object) -> None:
    assert stripe_objects.event(found) is None


def test_an_event_may_leave_out_what_is_not_essential() -> None:
    bare = payload(id="e" * 255, api_version=None, livemode="yes", data={"object": {}})
    found = stripe_objects.event(bare)
    assert found == Event("e" * 255, bare["type"], START, "", False, {}, {}, "", "None", None, None)


def test_an_event_of_another_account_names_it() -> None:
    def account(**more: Any) -> str:
        found = stripe_objects.event(payload(**more))
        assert found is not None
        return found.account

    assert account(account="acct_1", context="acct_2") == "acct_1"
    assert account(context="acct_2") == "acct_2"


def test_an_event_is_about_its_objects_customer() -> None:
    assert about({"object": "customer", "id": "cus_1", "customer": "cus_2"}).customer_id == "cus_1"
    assert about({"object": "invoice", "customer": {"id": "cus_1"}}).customer_id == "cus_1"
    # A card that is detached has none any more.
    card = {"object": "payment_method", "id": "pm_1", "customer": None}
    assert about(card, {"customer": "cus_1"}).customer_id == "cus_1"
    assert about(card | {"customer": "cus_3"}, {"customer": "cus_1"}).customer_id == "cus_3"
    assert about(card).customer_id is None


@pytest.mark.parametrize(
    ("version", "pinned"),
    [
        (API_VERSION, True),
        ("2027-01-01.endive", True),
        ("2026-10-28.dahlia", False),
        ("endive", True),
        ("2020-08-27", False),
        ("", False),
    ],
)
def test_a_payload_is_read_in_the_release_train_that_we_read(version: str, pinned: bool) -> None:
    found = stripe_objects.event(payload(api_version=version))
    assert found is not None
    assert found.pinned is pinned


OURS = {"correlationId": "corr_1", "traceparent": "00-1-2-01"}
CAUSED = ("corr_1", "00-1-2-01")
FIRST = {"object": "invoice", "billing_reason": "subscription_create", "created": START}
DETAILS = {"parent": {"subscription_details": {"metadata": OURS}}}
# What an event is about; which request of ours has caused it.
CAUSES: list[tuple[str, dict[str, Any], tuple[str, str]]] = [
    ("what a page made", {"metadata": OURS, "created": START}, CAUSED),
    ("within a day", {"metadata": OURS, "created": START - 86_400}, CAUSED),
    ("later", {"metadata": OURS, "created": START - 86_401}, ("", "")),
    ("nobody knows when", {"metadata": OURS}, ("", "")),
    ("without metadata", {"created": START}, ("", "")),
    ("without a trace", {"metadata": {"correlationId": "c"}, "created": START}, ("c", "")),
    (
        "with a trace alone",
        {"metadata": {"traceparent": "00-1-2-01"}, "created": START},
        ("", ""),
    ),
    ("of no name", {"metadata": {"correlationId": "c\n"}, "created": START}, ("", "")),
    ("the first invoice", FIRST | DETAILS, CAUSED),
    ("the first invoice's own", FIRST | {"metadata": OURS}, ("", "")),
    ("a renewal", FIRST | DETAILS | {"billing_reason": "subscription_cycle"}, ("", "")),
]


@pytest.mark.parametrize(
    ("found", "caused"), [row[1:] for row in CAUSES], ids=[row[0] for row in CAUSES]
)
def test_an_event_was_caused_by_a_request_of_ours(
    found: dict[str, Any], caused: tuple[str, str]
) -> None:
    event = about(found)
    assert (event.correlation_id, event.traceparent) == caused


def test_an_event_names_the_api_request_that_caused_it() -> None:
    for said, read in (({"id": "req_1"}, "req_1"), ({"id": None}, ""), (None, "")):
        event = stripe_objects.event(payload(request=said))
        assert event is not None
        assert event.request_id == read


def test_what_a_page_makes_names_our_request() -> None:
    assert stripe_objects.origin(*CAUSED) == OURS
    assert stripe_objects.origin("corr_1", "") == {"correlationId": "corr_1"}
    assert stripe_objects.origin("", "") == {}


# ---- subscriptions


def item(number: int = 1, **more: Any) -> dict[str, Any]:
    return {
        "id": f"si_{number}",
        "price": {
            "id": f"price_{number}",
            "product": f"prod_{number}",
            "currency": "usd",
            "recurring": {"interval": "month", "interval_count": 3},
        },
        "quantity": 2,
        "current_period_start": START,
        "current_period_end": START + SPAN,
    } | more


def subscription(**more: Any) -> dict[str, Any]:
    return {
        "id": "sub_1",
        "customer": "cus_1",
        "status": "active",
        "created": START - 7,
        "items": {"data": [item()], "has_more": False},
    } | more


READ = Item(
    *("si_1", "price_1", "prod_1", 2, "usd", "month", 3),
    period_start=at(START),
    period_end=at(START + SPAN),
)


def test_a_subscription_that_says_the_least() -> None:
    found = subscription()
    assert stripe_objects.subscription(found) == StripeSubscription(
        id="sub_1",
        customer="cus_1",
        status="active",
        items=(READ,),
        price="price_1",
        item="si_1",
        quantity=2,
        period_start=at(START),
        period_end=at(START + SPAN),
        trial_end=None,
        cancel_at=None,
        ended_at=None,
        default_payment_method=None,
        latest_invoice=None,
        unpaid_since=None,
        collection_paused=False,
        payment_failed=False,
        began_at=at(START - 7),
        workspace="",
        whole=True,
        terms=stripe_terms.read(found),
        paused_for=None,
    )


SAID: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("its trial", {"trial_end": START + 1}, {"trial_end": at(START + 1)}),
    ("its end", {"ended_at": START + 2}, {"ended_at": at(START + 2)}),
    ("its end to come", {"cancel_at": START + 3}, {"cancel_at": at(START + 3)}),
    ("the end of the period", {"cancel_at_period_end": True}, {"cancel_at": at(START + SPAN)}),
    ("a word for that", {"cancel_at_period_end": "true"}, {"cancel_at": None}),
    ("its card", {"default_payment_method": {"id": "pm_1"}}, {"default_payment_method": "pm_1"}),
    ("its last invoice", {"latest_invoice": "in_1"}, {"latest_invoice": "in_1"}),
    ("its workspace", {"metadata": {"workspaceId": "ws_1"}}, {"workspace": "ws_1"}),
    ("who pays, by themselves", {"client_reference_id": "ws_1"}, {"workspace": ""}),
    ("that no payment is collected", {"pause_collection": {}}, {"collection_paused": True}),
    ("that it is", {"pause_collection": None}, {"collection_paused": False}),
    ("items that are cut off", {"items": {"data": [item()], "has_more": True}}, {"whole": False}),
    (
        "no items",
        {"items": {"data": []}},
        {"whole": False, "items": (), "price": None, "item": None, "quantity": None}
        | {"period_start": None, "period_end": None},
    ),
    (
        "no items, in an old shape",
        {
            "items": None,
            "plan": {"id": "price_9"},
            "quantity": 4,
            "current_period_start": START + 5,
            "current_period_end": START + 6,
        },
        {"whole": False, "items": (), "price": "price_9", "item": None, "quantity": 4}
        | {"period_start": at(START + 5), "period_end": at(START + 6)},
    ),
    (
        "two items: the first, and the last period",
        {
            "items": {
                "data": [
                    item(current_period_end=START + SPAN + 9),
                    7,
                    item(2, current_period_start=START + 9, current_period_end=START + SPAN + 11),
                ]
            }
        },
        {
            "items": (
                READ._replace(period_end=at(START + SPAN + 9)),
                Item(
                    "si_2",
                    "price_2",
                    "prod_2",
                    2,
                    "usd",
                    "month",
                    3,
                    at(START + 9),
                    at(START + SPAN + 11),
                ),
            ),
            "period_start": at(START + 9),
            "period_end": at(START + SPAN + 11),
        },
    ),
    ("items as a plain list", {"items": [item()]}, {"items": (READ,)}),
]


@pytest.mark.parametrize(
    ("said", "fields"), [row[1:] for row in SAID], ids=[row[0] for row in SAID]
)
def test_a_subscription_says(said: dict[str, Any], fields: dict[str, Any]) -> None:
    found = stripe_objects.subscription(subscription(**said))
    plain = stripe_objects.subscription(subscription())
    assert found == plain._replace(terms=found.terms, **fields)


ITEMS: list[tuple[str, dict[str, Any], dict[str, Any], Item]] = [
    ("of today", {}, {}, READ),
    (
        "with a price that is only named",
        {"price": "price_1"},
        {},
        READ._replace(product=None, currency=None, interval=None, interval_count=None),
    ),
    (
        "with a plan of old",
        {
            "price": None,
            "plan": {
                "id": "plan_1",
                "product": {"id": "prod_9"},
                "currency": "eur",
                "interval": "year",
                "interval_count": 1,
            },
        },
        {},
        READ._replace(
            price="plan_1", product="prod_9", currency="eur", interval="year", interval_count=1
        ),
    ),
    (
        "with the subscription's plan",
        {"price": None},
        {"plan": {"id": "plan_2", "currency": "eur", "interval": "day", "interval_count": 4}},
        READ._replace(
            price="plan_2", product=None, currency="eur", interval="day", interval_count=4
        ),
    ),
    (
        "with its own plan before the subscription's",
        {"price": None, "plan": {"id": "plan_1"}},
        {"plan": {"id": "plan_2"}},
        READ._replace(
            price="plan_1", product=None, currency=None, interval=None, interval_count=None
        ),
    ),
    ("without a quantity", {"quantity": None}, {"quantity": 5}, READ._replace(quantity=None)),
    ("with half a quantity", {"quantity": 1.5}, {}, READ._replace(quantity=None)),
    (
        "with the subscription's period",
        {"current_period_start": None, "current_period_end": None},
        {"current_period_start": START + 1, "current_period_end": START + 2},
        READ._replace(period_start=at(START + 1), period_end=at(START + 2)),
    ),
    (
        "with its own period before the subscription's",
        {},
        {"current_period_start": START + 1, "current_period_end": START + 2},
        READ,
    ),
]


@pytest.mark.parametrize(
    ("more", "beside", "read"), [row[1:] for row in ITEMS], ids=[row[0] for row in ITEMS]
)
def test_an_item_is_read(more: dict[str, Any], beside: dict[str, Any], read: Item) -> None:
    found = stripe_objects.subscription(subscription(items={"data": [item(**more)]}, **beside))
    assert found.items == (read,)


def test_an_item_of_old_has_the_subscriptions_quantity() -> None:
    bare = item()
    del bare["quantity"]
    found = stripe_objects.subscription(subscription(items={"data": [bare]}, quantity=6))
    assert found.quantity == 6


@pytest.mark.parametrize("field", ["id", "customer", "status", "created"])
@pytest.mark.parametrize("bad", [None, "", 0, {}])
def test_a_subscription_without_this_is_refused(field: str, bad: object) -> None:
    with pytest.raises(Unreadable, match=f"^subscription.{field}$"):
        stripe_objects.subscription(subscription(**{field: bad}))


# Status and more; terminal, failing, entitled.
PROPERTIES: list[tuple[str, dict[str, Any], tuple[bool, bool, bool]]] = [
    ("trialing", {}, (False, False, True)),
    ("active", {}, (False, False, True)),
    ("past_due", {}, (False, True, True)),
    ("unpaid", {}, (False, False, True)),
    ("paused", {}, (False, False, False)),
    ("incomplete", {}, (False, False, False)),
    ("canceled", {}, (True, False, False)),
    ("incomplete_expired", {}, (True, False, False)),
    ("canceled", {"trial_end": START}, (True, False, True)),
    ("paused", {"trial_end": START}, (False, False, True)),
    ("incomplete", {"trial_end": START}, (False, False, False)),
]


@pytest.mark.parametrize(("status", "more", "properties"), PROPERTIES)
def test_a_status_means(status: str, more: dict[str, Any], properties: tuple[bool, ...]) -> None:
    found = stripe_objects.subscription(subscription(status=status, **more))
    assert (found.terminal, found.failing, found.entitled) == properties


@pytest.mark.parametrize(
    ("word", "failed"),
    [
        ("first_payment_failure", True),
        ("final_payment_failure", True),
        ("pause_requested", False),
        ("trial_end_without_payment_method", False),
        (None, False),
    ],
)
def test_a_pause_is_for_a_failed_payment_or_not(word: str | None, failed: bool) -> None:
    details = {"paused": {"type": "subscription", "subscription": {"type": word}}}
    found = stripe_objects.subscription(subscription(status="paused", status_details=details))
    assert (found.paused_for, found.payment_failed, found.failing) == (word, failed, failed)
    # Only while it is paused.
    found = stripe_objects.subscription(subscription(status="active", status_details=details))
    assert not found.failing


def test_every_status_of_stripes_is_known() -> None:
    known = "trialing active past_due unpaid paused incomplete canceled incomplete_expired"
    assert set(stripe_objects.STATUSES) == set(known.split())


UNPAID: list[tuple[str, object, datetime | None]] = [
    (
        "charged once final",
        {"status": "open", "status_transitions": {"finalized_at": START}},
        at(START),
    ),
    ("due on its date", {"status": "open", "due_date": START + 1}, at(START + 1)),
    (
        "due later than final",
        {"status": "open", "status_transitions": {"finalized_at": START}, "due_date": START + 1},
        at(START + 1),
    ),
    (
        "final later than due",
        {
            "status": "open",
            "status_transitions": {"finalized_at": START + 2},
            "due_date": START + 1,
        },
        at(START + 2),
    ),
    ("paid", {"status": "paid", "status_transitions": {"finalized_at": START}}, None),
    ("not final", {"status": "open", "status_transitions": {"finalized_at": None}}, None),
    ("not expanded", "in_1", None),
]


@pytest.mark.parametrize(
    ("invoice", "since"), [row[1:] for row in UNPAID], ids=[row[0] for row in UNPAID]
)
def test_a_payment_is_due_since(invoice: object, since: datetime | None) -> None:
    found = stripe_objects.subscription(subscription(latest_invoice=invoice))
    assert found.unpaid_since == since


# ---- invoices


def invoice(**more: Any) -> dict[str, Any]:
    return {
        "id": "in_1",
        "customer": "cus_1",
        "status": "open",
        "currency": "USD",
        "total": 500,
        "amount_due": 400,
        "amount_paid": 100,
        "created": START,
    } | more


BARE = StripeInvoice(
    *("in_1", "cus_1", None, None, "open", "usd", 500, 400, 100, 0, None, None, None),
    created_at=at(START),
)


def test_an_invoice_that_says_the_least_and_the_most() -> None:
    assert stripe_objects.invoice(invoice()) == BARE
    most = {
        "parent": {"subscription_details": {"subscription": "sub_1"}},
        "number": "A-1",
        "attempt_count": 2,
        "next_payment_attempt": START + 1,
        "hosted_invoice_url": "https://a",
        "invoice_pdf": "https://b",
        "billing_reason": "subscription_cycle",
    }
    assert stripe_objects.invoice(invoice(**most)) == BARE._replace(
        subscription="sub_1",
        number="A-1",
        attempt_count=2,
        next_attempt_at=at(START + 1),
        hosted_url="https://a",
        pdf_url="https://b",
        reason="subscription_cycle",
    )


@pytest.mark.parametrize(
    "field",
    ["id", "customer", "status", "currency", "total", "amount_due", "amount_paid", "created"],
)
@pytest.mark.parametrize("bad", [None, "", 0.5, {}])
def test_an_invoice_without_this_is_refused(field: str, bad: object) -> None:
    if (field, bad) == ("created", 0.5):
        return  # half a second after 1970
    with pytest.raises(Unreadable, match=f"^invoice.{field}$"):
        stripe_objects.invoice(invoice(**{field: bad}))


def test_an_invoice_of_nothing_is_one() -> None:
    free = stripe_objects.invoice(invoice(total=0, amount_due=0, amount_paid=0))
    assert (free.total, free.amount_due, free.amount_paid) == (0, 0, 0)
    with pytest.raises(Unreadable):
        stripe_objects.invoice(invoice(total=True))


def test_the_first_line_of_a_subscription_names_it() -> None:
    def of(*lines: object, **more: Any) -> str | None:
        return stripe_objects.subscription_of({"lines": {"data": [*lines]}} | more)

    one, two = ({"parent": {"subscription_item_details": {"subscription": s}}} for s in "ab")
    assert of(one, two) == "a"
    assert of({}, 7, two) == "b"
    assert of(one | {"subscription": "c"}) == "a"
    assert of({"subscription": "c"}, one) == "c"
    assert of(one, subscription="d") == "d"
    assert of(one, subscription="d", parent={"subscription_details": {"subscription": "e"}}) == "e"


# ---- payment methods and customers


def test_a_payment_method_is_its_kind_and_the_end_of_its_card() -> None:
    card = {"brand": "visa", "last4": "4242", "exp_month": 4, "exp_year": 2034}
    found = {"id": "pm_1", "type": "card", "card": card}
    read = StripePaymentMethod("pm_1", "cus_1", "card", "visa", "4242", 4, 2034)
    assert stripe_objects.payment_method(found, "cus_1") == read
    account = {"id": "pm_1", "type": "sepa_debit", "sepa_debit": {"last4": "003000"}}
    assert stripe_objects.payment_method(account, "cus_1") == StripePaymentMethod(
        "pm_1", "cus_1", "sepa_debit", None, "3000", None, None
    )
    link = stripe_objects.payment_method({"id": "pm_1", "type": "link"}, "cus_1")
    assert (link.brand, link.last4) == (None, None)
    for field in ("id", "type"):
        with pytest.raises(Unreadable, match=f"^payment_method.{field}$"):
            stripe_objects.payment_method(found | {field: None}, "cus_1")


def test_a_customer_is_its_workspace_card_and_balance() -> None:
    assert stripe_objects.customer({"id": "cus_1"}) == StripeCustomer("cus_1", "", None, 0, False)
    most = {
        "id": "cus_1",
        "metadata": {"workspaceId": "ws_1"},
        "invoice_settings": {"default_payment_method": {"id": "pm_1"}},
        "balance": -50,
        "deleted": True,
    }
    assert stripe_objects.customer(most) == StripeCustomer("cus_1", "ws_1", "pm_1", -50, True)
    assert not stripe_objects.customer({"id": "cus_1", "deleted": "true"}).deleted
    with pytest.raises(Unreadable, match=r"^customer.id$"):
        stripe_objects.customer({})


# ---- values


@pytest.mark.parametrize(
    ("seconds", "moment"),
    [
        (1, at(1)),
        (1.5, datetime(1970, 1, 1, 0, 0, 1, 500_000, tzinfo=UTC)),
        (253_402_300_799, datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)),
        (253_402_300_800, None),
        (0, None),
        (-1, None),
        (True, None),
        ("1", None),
        (float("nan"), None),
        (float("inf"), None),
        (float("-inf"), None),
    ],
)
def test_a_timestamp_is_a_time_after_1970_and_before_the_year_10000(
    seconds: object, moment: datetime | None
) -> None:
    assert stripe_objects.moment(seconds) == moment


def test_a_text_is_kept_as_postgres_can() -> None:
    assert stripe_objects.invoice(invoice(number="A\0\ud800")).number == "A?"
    assert stripe_objects.invoice(invoice(number="\0")).number is None
    assert stripe_objects.invoice(invoice(number=7)).number is None
