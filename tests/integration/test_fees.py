"""An order's transaction fee: the right sum, once, whatever comes twice, late or together."""

import itertools
import json
from collections.abc import Iterator
from datetime import timedelta
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kyora import money, postgres
from kyora.accounting.fees import DEFAULTS, Fee
from kyora.accounting.record import record
from kyora.bus.events import Event
from kyora.bus.outcomes import Permanent
from kyora.postgres.connection import StatementFailed
from tests.cloud import DEAD, Cloud, batch, cloud
from tests.integration.support import ledger
from tests.integration.support.ledger import NOON, agree, fees, payment
from tests.integration.support.workers import Crew
from tests.unit.functions import CONTEXT, function

pytestmark = pytest.mark.usefixtures("ledger_database")
TABLES = ("transaction_fee", "order_payment", "inbox")
METHODS = ("cash_on_delivery", "bank_transfer", "credit_card", "tamara", "tabby", "paypal")


@pytest.fixture
def aws(ledger_database: str, environment: pytest.MonkeyPatch) -> Iterator[Cloud]:
    with cloud() as found:
        environment.setenv("AWS_ENDPOINT_URL", found.url)
        yield found


# ---- the sum


@pytest.mark.parametrize(
    ("total", "currency", "percent", "fixed", "minor"),
    [
        ("54.99", "USD", "0.029", "0.30", 189),  # 1.89471
        ("100", "USD", "0.029", "0.30", 320),
        ("10.00", "USD", "0.0005", "0", 1),  # 0.005: half counts
        ("9.99", "USD", "0.0005", "0", 0),  # 0.004995
        ("33.33", "EUR", "0.015", "0.25", 75),  # 0.74995
        ("0.10", "EUR", "0", "0.25", 25),
        ("1000", "JPY", "0.0345", "0", 35),  # 34.5
        ("1000", "JPY", "0.0344", "0", 34),
        ("5000", "KRW", "0.03", "100", 250),
        ("10.500", "KWD", "0.0275", "0.100", 389),  # 0.38875
        ("0.001", "BHD", "0.5", "0", 1),  # 0.0005
        ("12.345", "TND", "1", "0", 12_345),
        ("7", "CLF", "0.000001", "0", 0),  # 0.000007
        ("50", "CLF", "0.000001", "0", 1),  # 0.00005
        ("999999999999999.999999", "KWD", "0.999999", "999.9999", 999_999_000_001_000_000),
        ("54.99", "usd", "0.029", "0.30", 189),
    ],
)
def test_a_fee_is_rounded_half_up_to_the_currencys_minor_unit(
    total: str, currency: str, percent: str, fixed: str, minor: int
) -> None:
    agree("credit_card", percent, fixed)
    record(payment(total, currency))
    expected = Fraction(total) * Fraction(percent) + Fraction(fixed)
    expected *= 10 ** money.DECIMALS[currency.upper()]
    assert minor == int(expected + Fraction(1, 2))  # the table itself is right
    assert fees() == ({"ord_1": (minor, currency.upper())} if minor else {})


@settings(deadline=None, max_examples=300)
@given(
    total=st.decimals(0, 10**15 - 1, places=6),
    percent=st.decimals(0, 1, places=6),
    fixed=st.decimals(0, 10**11, places=6),
    currency=st.sampled_from(sorted(money.DECIMALS)),
)
def test_no_total_percent_or_currency_makes_another_sum(
    total: Any, percent: Any, fixed: Any, currency: str
) -> None:
    exact = Fraction(total) * Fraction(percent) + Fraction(fixed)
    whole, rest = divmod(exact * 10 ** money.DECIMALS[currency], 1)
    found = Fee(enabled=True, percent=percent, fixed=fixed).of(total, currency)
    assert found == whole + (rest >= Fraction(1, 2))


# ---- whose fee


def test_every_method_of_the_defaults_can_be_agreed_on_and_no_other() -> None:
    assert tuple(DEFAULTS) == METHODS
    for method in METHODS:
        agree(method)
    with pytest.raises(StatementFailed, match="23514"):
        agree("shells")


@pytest.mark.parametrize("method", METHODS)
def test_a_business_that_has_agreed_on_nothing_pays_nothing(method: str) -> None:
    record(payment(paymentMethod=method))
    assert fees() == {}


@pytest.mark.parametrize("method", METHODS)
def test_what_a_business_has_agreed_on_wins_over_the_default(method: str) -> None:
    agree(method, "0.1")
    record(payment("50", paymentMethod=method))
    assert fees() == {"ord_1": (500, "USD")}


def test_what_another_business_has_agreed_on_does_not_count() -> None:
    agree("tabby", "0.1", business="biz_second")
    agree("tabby", "0.1", business="biz_other", workspace="ws_other")
    agree("paypal", "0.1", workspace="ws_other")  # of this business, and not its workspace's
    record(payment(paymentMethod="tabby"))
    record(payment(paymentMethod="paypal", orderId="ord_2"))
    assert fees() == {}


@pytest.mark.parametrize(
    "changed",
    [
        {"paymentMethod": "shells"},
        {"paymentMethod": "CREDIT_CARD"},
        {"paymentMethod": "tamara"},  # disabled below
        {"total": "0", "paymentMethod": "tabby"},
        {"total": "-54.99", "paymentMethod": "credit_card"},
        {"total": "0.01", "paymentMethod": "credit_card"},  # rounds to nothing
    ],
    ids=str,
)
def test_there_is_no_fee_and_no_row(changed: dict[str, str]) -> None:
    agree("credit_card", "0.029")
    agree("tabby", "0.5")
    agree("tamara", "0.5", "1", enabled=False)
    record(payment(**changed))
    assert fees() == {}


# ---- twice, late, corrected


def test_a_later_event_of_the_order_corrects_its_fee() -> None:
    agree("credit_card", "0.1")
    record(payment("10"))
    record(payment("20", "KWD", at=NOON + timedelta(microseconds=1)))
    assert fees() == {"ord_1": (2000, "KWD")}


def test_an_older_event_changes_nothing() -> None:
    agree("credit_card", "0.1")
    record(payment("20"))
    record(payment("10", at=NOON - timedelta(microseconds=1)))
    assert fees() == {"ord_1": (200, "USD")}


def test_a_later_event_without_a_fee_takes_it_away_for_good() -> None:
    agree("credit_card", "0.1")
    record(payment("20"))
    record(payment("20", paymentMethod="shells", at=NOON + timedelta(seconds=1)))
    record(payment("30", at=NOON + timedelta(microseconds=1)))
    assert fees() == {}


def test_an_event_that_comes_again_keeps_the_fee_it_had() -> None:
    """Also when the business has agreed on something else, and when the inbox has forgotten."""
    agree("credit_card", "0.1")
    event = payment("20")
    record(event)
    agree("credit_card", "0.2")
    record(event)
    ledger.empty("inbox")
    record(event)
    assert fees() == {"ord_1": (200, "USD")}


def test_orders_of_two_businesses_with_one_id_are_two() -> None:
    agree("credit_card", "0.1")
    agree("credit_card", "0.2", business="biz_second")
    record(payment("20"))
    record(payment("20", businessId="biz_second"))
    with postgres.transaction() as tx:
        rows = tx.rows("SELECT business_id, amount FROM transaction_fee ORDER BY business_id")
    assert [(row["business_id"], int(str(row["amount"]))) for row in rows] == [
        ("biz_demo", 200),
        ("biz_second", 400),
    ]


EVENTS = st.lists(
    st.builds(
        payment,
        total=st.sampled_from(["0", "0.04", "10", "54.99", "1000000"]),
        currency=st.sampled_from(["USD", "JPY", "KWD"]),
        paymentMethod=st.sampled_from(["credit_card", "tabby", "shells"]),
        orderId=st.sampled_from(["ord_1", "ord_2"]),
        at=st.sampled_from([NOON + timedelta(seconds=second) for second in range(3)]),
        event_id=st.sampled_from([f"evt_{letter}" for letter in "aBcdEf_-"]),
    ),
    unique_by=lambda event: event.id,
    max_size=6,
)


@settings(
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(events=EVENTS, data=st.data())
def test_in_any_order_and_number_the_newest_event_decides(
    events: list[Event[Any]], data: st.DataObject
) -> None:
    ledger.empty(*TABLES)
    agree("credit_card", "0.029", "0.30")
    twice = data.draw(st.permutations(events + events[::2]))
    for event in twice:
        record(event)
    newest: dict[str, Event[Any]] = {}
    for event in sorted(events, key=lambda e: (e.occurred_at, e.id)):
        newest[event.data.order_id] = event
    expected = {}
    for order_id, event in newest.items():
        if event.data.payment_method == "credit_card":
            exact = Fraction(event.data.total) * Fraction("0.029") + Fraction("0.30")
            exact *= 10 ** {"USD": 2, "JPY": 0, "KWD": 3}[event.data.currency]
            if minor := int(exact + Fraction(1, 2)):
                expected[order_id] = (minor, event.data.currency)
    assert fees() == expected


def test_sixteen_workers_with_the_same_events_write_each_fee_once(crew: Crew) -> None:
    """Thirty orders with four events each, handled 1920 times, in sixteen orders."""
    agree("credit_card", "0.1")
    events = [
        payment(f"{number}.0{step}", orderId=f"ord_{number}", at=NOON + timedelta(seconds=step))
        for number, step in itertools.product(range(1, 31), range(4))
    ]
    crew.each(ledger.record_all, [(events, seed) for seed in range(crew.size)])
    # a tenth of 7.03 is 0.703
    assert fees() == {f"ord_{n}": (n * 10, "USD") for n in range(1, 31)}
    with postgres.transaction() as tx:
        assert tx.row("SELECT count(*) AS n FROM inbox") == {"n": 120}


# ---- what a person has to look at


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"workspace": None}, "event.no_workspace"),
        ({"workspace": "ws_other"}, "business.not_found"),
        ({"workspace": "ws_nobody"}, "business.not_found"),
        ({"businessId": "biz_other"}, "business.not_found"),
        ({"businessId": "biz_nobody"}, "business.not_found"),
        ({"currency": "XXX"}, "money.unknown_currency"),
    ],
    ids=str,
)
def test_an_event_that_makes_no_sense_is_given_up_and_leaves_nothing(
    changed: dict[str, Any], code: str
) -> None:
    agree("credit_card", "0.1")
    with pytest.raises(Permanent, match=f"^{code}$"):
        record(payment(**changed))
    with postgres.transaction() as tx:
        for table in TABLES:
            assert tx.row(f"SELECT count(*) AS n FROM {table}") == {"n": 0}


def test_the_function_does_the_good_ones_of_a_batch_and_buries_the_others(aws: Cloud) -> None:
    agree("credit_card", "0.1")
    data = {"paymentMethod": "credit_card", "total": "10", "currency": "USD"}
    data |= {"paidAt": NOON.isoformat()}
    bodies = [
        json.dumps({"detail-type": "OrderPaymentSucceeded", "detail": ledger.detail(one)})
        for one in (
            data | {"orderId": "ord_1"},
            data | {"orderId": "ord_2", "businessId": "biz_other"},
            data | {"orderId": "ord_3", "total": "ten"},
            data | {"orderId": "ord_4"},
        )
    ]
    answer = function("record_transaction_fee").handler(batch(*bodies), CONTEXT)
    assert answer == {"batchItemFailures": []}
    assert fees().keys() == {"ord_1", "ord_4"}
    reasons = [m["MessageAttributes"]["Reason"]["StringValue"] for m in aws.sent(DEAD)]
    assert reasons == ["business.not_found", "event.invalid"]
