"""Counts by business and day: those of a recount, whatever comes twice, late or together."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kyora import postgres
from kyora.analytics import count, rebuild
from kyora.bus.events import Event
from kyora.bus.outcomes import Permanent
from kyora.errors import Unavailable
from kyora.postgres import connection
from tests.cloud import DEAD, Cloud, batch, cloud
from tests.integration.support import ledger
from tests.integration.support.ledger import NOON, counts, customer, order, recounted
from tests.integration.support.workers import Crew
from tests.unit.functions import CONTEXT, call, captured_log, event, function

pytestmark = pytest.mark.usefixtures("ledger_database")
DAY = "2026-11-23"
ROUTE = "GET /v1/analytics/summary"
MEMBER = {
    "userId": "usr_demo_member",
    "workspaceId": "ws_demo",
    "role": "user",
    "locale": "ar",
}


@pytest.fixture
def aws(ledger_database: str, environment: pytest.MonkeyPatch) -> Iterator[Cloud]:
    with cloud() as found:
        environment.setenv("AWS_ENDPOINT_URL", found.url)
        yield found


# ---- counting


def test_an_order_counts_with_its_revenue_and_a_customer_with_its_source() -> None:
    count.update(order("ord_1", "54.99"))
    count.update(order("ord_2", "0.01"))
    count.update(order("ord_3", "500", "JPY"))
    count.update(customer("cus_1", "instagram"))
    count.update(customer("cus_2"))
    assert counts() == {
        ("biz_demo", DAY, "order", "USD"): (2, 5500),
        ("biz_demo", DAY, "order", "JPY"): (1, 500),
        ("biz_demo", DAY, "customer", "instagram"): (1, 0),
        ("biz_demo", DAY, "customer", "unknown"): (1, 0),
    }


def test_the_log_says_what_was_counted_and_what_was_nothing_new(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log = captured_log(monkeypatch)
    count.update(order("ord_1", "54.99"))
    count.update(order("ord_1", "54.99"))
    count.update(customer("cus_1"))
    said = [json.loads(line) for line in log.getvalue().splitlines()]
    assert [(line["message"], line["subject_id"]) for line in said] == [
        ("order counted", "ord_1"),
        ("nothing new", "ord_1"),
        ("customer counted", "cus_1"),
    ]


@pytest.mark.parametrize(
    ("at", "day"),
    [
        (datetime(2026, 11, 23, 23, 59, 59, 999_999, UTC), "2026-11-23"),
        (datetime(2026, 11, 24, 0, 0, tzinfo=UTC), "2026-11-24"),
        (datetime(2026, 11, 24, 2, 30, tzinfo=timezone(timedelta(hours=3))), "2026-11-23"),
        (datetime(2026, 11, 23, 20, 0, tzinfo=timezone(-timedelta(hours=5))), "2026-11-24"),
    ],
)
def test_the_day_of_an_event_is_utcs(at: datetime, day: str) -> None:
    count.update(order("ord_1", at=at))
    assert [key[1] for key in counts()] == [day]


def test_the_same_event_counts_once() -> None:
    """Also when the inbox has forgotten it: an archive may be replayed years later."""
    again = order("ord_1")
    count.update(again)
    count.update(again)
    ledger.empty("inbox")
    count.update(again)
    assert counts() == {("biz_demo", DAY, "order", "USD"): (1, 5499)}


def test_another_event_of_the_same_order_counts_no_second_time() -> None:
    count.update(order("ord_1"))
    count.update(order("ord_1", "99", at=NOON + timedelta(days=1)))
    assert counts() == {("biz_demo", DAY, "order", "USD"): (1, 5499)}


def test_an_earlier_event_that_arrives_late_takes_the_place_of_the_later() -> None:
    count.update(order("ord_1", "1.000", "KWD", at=NOON + timedelta(days=1)))
    count.update(order("ord_1"))
    assert counts() == {("biz_demo", DAY, "order", "USD"): (1, 5499)}


def test_an_order_and_a_customer_with_one_id_are_two() -> None:
    count.update(order("x_1"))
    count.update(customer("x_1", "shop"))
    assert len(counts()) == 2


@pytest.mark.parametrize(
    ("source", "label"),
    [
        ("instagram", "instagram"),
        (" word of mouth ", "word of mouth"),
        ("", "unknown"),
        (" \n\t", "unknown"),
        ("a\x07b\nc", "abc"),
        ("واتساب", "واتساب"),
        ("x" * 1000, "x" * 100),
    ],
)
def test_a_source_is_one_short_line(source: str, label: str) -> None:
    count.update(customer("cus_1", source))
    assert counts() == {("biz_demo", DAY, "customer", label): (1, 0)}


# ---- sources without end


def sources() -> dict[str, int]:
    return {key[3]: value[0] for key, value in counts().items() if key[2] == "customer"}


def test_a_day_has_a_hundred_sources_and_counts_the_rest_as_other() -> None:
    for number in range(130):
        count.update(customer(f"cus_{number}", f"source {number}"))
    found = sources()
    assert len(found) == 101
    assert found["other"] == 30
    assert sum(found.values()) == 130
    count.update(customer("cus_known", "source 7"))  # one that it has
    count.update(customer("cus_none"))  # and one that names none
    assert sources() | {"other": 30} == found | {"source 7": 2, "unknown": 1, "other": 30}


def test_another_day_and_another_business_have_a_hundred_of_their_own() -> None:
    for number in range(101):
        count.update(customer(f"cus_{number}", f"source {number}"))
    tomorrow = NOON + timedelta(days=1)
    count.update(customer("cus_later", "source 200", at=tomorrow))
    assert counts()["biz_demo", "2026-11-24", "customer", "source 200"] == (1, 0)
    assert sources()["other"] == 1


def test_a_customer_counted_as_other_is_moved_by_an_earlier_event_and_not_twice() -> None:
    for number in range(101):
        count.update(customer(f"cus_{number}", f"source {number}"))
    count.update(customer("cus_100", "source 100", at=NOON - timedelta(days=1)))
    assert counts()["biz_demo", "2026-11-22", "customer", "source 100"] == (1, 0)
    assert "other" not in sources()
    assert rebuild.business("ws_demo", "biz_demo") == 0


@pytest.mark.parametrize("days", [1, 30, 366])
def test_an_answer_stays_below_what_lambda_answers_with(days: int) -> None:
    """Whatever is in the table: 70,000 sources of one day were 7 MB."""
    with postgres.transaction() as tx:
        tx.run(
            "INSERT INTO analytics_count"
            " (workspace_id, business_id, day, kind, label, shard, count, amount)"
            " SELECT 'ws_demo', 'biz_demo', DATE '2026-01-01' + d, 'customer',"
            "  repeat('ع', 90) || n, 0, n, 0"
            " FROM generate_series(0, :days - 1) AS d, generate_series(1, :each) AS n",
            days=days,
            each=32_000 // days,
        )
    last = (datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days - 1)).date().isoformat()
    status, found = summary(**{"businessId": "biz_demo", "from": "2026-01-01", "to": last})
    assert status == 200
    assert len(json.dumps(found, ensure_ascii=False).encode()) < 5_000_000
    each = 32_000 // days
    for day in found["days"]:
        assert sum(day["customers"].values()) == each * (each + 1) // 2
        assert day["customers"]["other"] > 0
        kept = [int(name.strip("ع")) for name in day["customers"] if name != "other"]
        assert kept == sorted(kept, key=str)
        assert min(kept) == each - len(kept) + 1  # those with most customers


def test_amounts_beyond_any_integer_of_the_database_add_up() -> None:
    for number in range(12):
        count.update(order(f"ord_{number}", "999999999999999.999", "KWD"))
    assert counts() == {("biz_demo", DAY, "order", "KWD"): (12, 12 * 999_999_999_999_999_999)}


def test_the_views_tell_orders_revenue_and_customers_apart() -> None:
    count.update(order("ord_1", "54.99"))
    count.update(order("ord_2", "500", "JPY"))
    count.update(customer("cus_1", "shop"))
    with postgres.transaction() as tx:
        assert [r["orders"] for r in tx.rows("SELECT orders FROM analytics_daily_orders")] == [2]
        revenue = tx.rows(
            "SELECT currency, minor_units::text AS amount FROM analytics_daily_revenue"
            " ORDER BY currency"
        )
        assert [tuple(row.values()) for row in revenue] == [("JPY", "500"), ("USD", "5499")]
        customers = tx.rows("SELECT source, customers FROM analytics_daily_customers")
        assert [tuple(row.values()) for row in customers] == [("shop", 1)]


# ---- any history


AT = st.sampled_from([NOON + timedelta(hours=hours) for hours in (0, 1, 11, 12, 36)])
IDS = st.sampled_from([f"evt_{letter}{number}" for letter in "aBz_" for number in range(6)])
BUSINESSES = st.sampled_from(["biz_demo", "biz_second"])
ORDERS = st.builds(
    order,
    order_id=st.sampled_from(["1", "2", "3", "4"]),
    total=st.sampled_from(["0", "0.005", "10", "54.99", "123456789.123456"]),
    currency=st.sampled_from(["USD", "jpy", "KWD"]),
    at=AT,
    event_id=IDS,
    business=BUSINESSES,
)
CUSTOMERS = st.builds(
    customer,
    customer_id=st.sampled_from(["1", "2", "3"]),
    source=st.sampled_from([None, "", "instagram", "shop"]),
    at=AT,
    event_id=IDS,
    business=BUSINESSES,
)
HISTORIES = st.lists(ORDERS | CUSTOMERS, unique_by=lambda event: event.id, max_size=12)


def recount(events: list[Event[Any]]) -> dict[Any, tuple[int, int]]:
    """Count a history in one go, from nothing but its events."""
    first: dict[tuple[str, str, str], Event[Any]] = {}
    for one in sorted(events, key=lambda e: (e.occurred_at, e.id), reverse=True):
        kind = "order" if one.name == "OrderCreated" else "customer"
        subject = one.data.order_id if kind == "order" else one.data.customer_id
        first[one.data.business_id, kind, subject] = one
    number: Counter[Any] = Counter()
    amount: defaultdict[Any, int] = defaultdict(int)
    for (business, kind, _), one in first.items():
        day = one.occurred_at.date().isoformat()
        if kind == "customer":
            number[business, day, kind, one.data.source or "unknown"] += 1
            continue
        currency = one.data.currency.upper()
        places = {"USD": Decimal("0.01"), "JPY": Decimal(1), "KWD": Decimal("0.001")}[currency]
        whole = Decimal(one.data.total).quantize(places, ROUND_HALF_UP) / places
        number[business, day, kind, currency] += 1
        amount[business, day, kind, currency] += int(whole)
    return {key: (count, amount[key]) for key, count in number.items()}


@settings(
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(events=HISTORIES, data=st.data())
def test_a_history_in_any_order_is_its_recount_and_its_rebuild(
    events: list[Event[Any]], data: st.DataObject
) -> None:
    ledger.empty("analytics_count", "analytics_event", "inbox")
    for one in data.draw(st.permutations(events + events[::2])):
        count.update(one)
    expected = recount(events)
    assert counts() == expected
    assert recounted()["wrong"] == 0
    assert counts() == expected


def test_a_thousand_events_of_one_day_in_sixteen_processes_count_once_each(crew: Crew) -> None:
    """Each worker has all of the events, and while they count the counts are rebuilt."""
    events = [order(f"ord_{number}", "1.01") for number in range(70)]
    events += [customer(f"cus_{number % 5}", "shop") for number in range(10)]
    jobs = [(ledger.update_all, events, seed) for seed in range(crew.size - 1)]
    crew.each(ledger.do, [*jobs, (ledger.rebuild_often, 20)])
    assert counts() == {
        ("biz_demo", DAY, "order", "USD"): (70, 7070),
        ("biz_demo", DAY, "customer", "shop"): (5, 0),
    }
    with postgres.transaction() as tx:
        assert tx.row("SELECT count(*) AS n FROM inbox WHERE consumer = 'update_analytics'") == {
            "n": 80
        }


# ---- rebuilding the counts


def test_a_rebuild_mends_counts_that_are_wrong_missing_or_of_nothing() -> None:
    count.update(order("ord_1"))
    count.update(customer("cus_1", "shop"))
    expected = counts()
    with postgres.transaction() as tx:
        tx.run("UPDATE analytics_count SET amount = 7 WHERE kind = 'order'")
        tx.run("DELETE FROM analytics_count WHERE kind = 'customer'")
        tx.run(
            "INSERT INTO analytics_count (workspace_id, business_id, day, kind, label, shard,"
            " count, amount) VALUES ('ws_demo', 'biz_demo', '2026-01-01', 'order', 'EUR', 3, 1, 1)"
        )
    assert recounted() == {"businesses": 3, "wrong": 3, "next": None}
    assert counts() == expected
    assert recounted()["wrong"] == 0


def test_a_rebuild_waits_for_an_event_that_is_being_counted(
    ledger_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = connection.connect(ledger_database, development=True)
    other.run("BEGIN")
    other.run(
        "SELECT pg_advisory_xact_lock_shared(hashtextextended(:key, 0))",
        key=count.lock_key("biz_demo"),
    )
    with monkeypatch.context() as hurried, pytest.raises(Unavailable):
        hurried.setattr(rebuild, "_BUSINESS_SECONDS", 1.0)
        rebuild.business("ws_demo", "biz_demo")
    other.run("COMMIT")
    other.close()
    assert rebuild.business("ws_demo", "biz_demo") == 0


def test_a_rebuild_of_one_business_leaves_the_others_alone() -> None:
    count.update(order("ord_1"))
    count.update(order("ord_1", business="biz_second"))
    with postgres.transaction() as tx:
        tx.run("UPDATE analytics_count SET count = 9")
    asked = {"rebuild": {"business": "biz_second"}}
    answer = function("update_analytics").handler(asked, CONTEXT)
    assert answer == {"businesses": 1, "wrong": 1, "next": None}
    assert {key[0]: count for key, (count, _) in counts().items()} == {
        "biz_demo": 9,
        "biz_second": 1,
    }


def test_a_rebuild_that_runs_out_of_time_says_where_to_go_on() -> None:
    found = analytics_rebuild({}, iter([50_000]))
    assert found == {"businesses": 1, "wrong": 0, "next": "biz_demo"}
    found = analytics_rebuild({"after": "biz_demo"}, iter([120_000]))
    assert found == {"businesses": 2, "wrong": 0, "next": None}


def analytics_rebuild(asked: dict[str, Any], left: Iterator[int]) -> dict[str, Any]:
    """Ask for a rebuild; before each business but the first it looks at the clock."""
    return rebuild.by_hand(asked, lambda: next(left))


# ---- what a person has to look at


@pytest.mark.parametrize(
    ("given_event", "code"),
    [
        (order("o", workspace=None), "event.no_workspace"),
        (customer("c", workspace=None), "event.no_workspace"),
        (order("o", workspace="ws_other"), "business.not_found"),
        (customer("c", business="biz_other"), "business.not_found"),
        (order("o", business="biz_nobody"), "business.not_found"),
        (order("o", currency="XXX"), "money.unknown_currency"),
    ],
)
def test_an_event_that_makes_no_sense_is_given_up_and_leaves_nothing(
    given_event: Event[Any], code: str
) -> None:
    with pytest.raises(Permanent, match=f"^{code}$"):
        count.update(given_event)
    with postgres.transaction() as tx:
        for table in ("analytics_event", "analytics_count", "inbox"):
            assert tx.row(f"SELECT count(*) AS n FROM {table}") == {"n": 0}


def test_the_function_does_the_good_ones_of_a_batch_and_buries_the_others(aws: Cloud) -> None:
    good = {"orderId": "ord_1", "total": "10", "currency": "USD"}
    bodies = [
        json.dumps({"detail-type": name, "detail": ledger.detail(data)})
        for name, data in (
            ("OrderCreated", good),
            ("OrderCreated", good | {"businessId": "biz_other"}),
            ("CustomerCreated", {"customerId": "cus_1", "source": "shop"}),
        )
    ]
    answer = function("update_analytics").handler(batch(*bodies), CONTEXT)
    assert answer == {"batchItemFailures": []}
    assert {key[2] for key in counts()} == {"order", "customer"}
    [message] = aws.sent(DEAD)
    assert message["MessageAttributes"]["Reason"]["StringValue"] == "business.not_found"


# ---- reading


def summary(who: dict[str, str] = MEMBER, **query: str) -> tuple[int, dict[str, Any]]:
    request = event(ROUTE, authorizer=who) | {"queryStringParameters": query or None}
    status, body, _ = call("summarise_analytics", request)
    return status, body


def test_a_summary_has_every_day_of_its_range() -> None:
    count.update(order("ord_1", "54.99"))
    count.update(order("ord_2", "500", "JPY"))
    count.update(order("ord_3", "1.5", "KWD", at=NOON + timedelta(days=2)))
    count.update(customer("cus_1", "shop"))
    count.update(customer("cus_2", at=NOON + timedelta(days=2)))
    count.update(order("ord_4", at=NOON + timedelta(days=3)))
    count.update(order("ord_5", at=NOON - timedelta(days=1)))
    status, body = summary(businessId="biz_demo", **{"from": "2026-11-23", "to": "2026-11-25"})
    assert status == 200
    assert body == {
        "days": [
            {
                "date": "2026-11-23",
                "orders": 2,
                "revenue": {"JPY": "500", "USD": "54.99"},
                "customers": {"shop": 1},
            },
            {"date": "2026-11-24", "orders": 0, "revenue": {}, "customers": {}},
            {
                "date": "2026-11-25",
                "orders": 1,
                "revenue": {"KWD": "1.500"},
                "customers": {"unknown": 1},
            },
        ]
    }


@pytest.mark.parametrize("business", ["biz_nobody", "x" * 5000, "\0", "biz_demo'--", "' OR 1=1"])
def test_a_business_of_another_workspace_answers_like_one_that_is_none(business: str) -> None:
    count.update(order("ord_1"))
    when = {"from": DAY, "to": DAY}
    stranger = MEMBER | {"userId": "usr_other", "workspaceId": "ws_other"}
    known = summary(stranger, businessId="biz_demo", **when)
    assert known[0] == 404
    assert known == summary(stranger, businessId=business, **when)
    assert known[1]["code"] == "business.not_found"


@pytest.mark.parametrize(
    ("changed", "fields"),
    [
        ({"businessId": ""}, ["businessId"]),
        ({"from": ""}, ["from"]),
        ({"to": ""}, ["to"]),
        ({"from": "", "to": "", "businessId": ""}, ["businessId", "from", "to"]),
        ({"from": "2026-02-30"}, ["from"]),
        ({"from": "20261123"}, ["from"]),
        ({"from": "2026-W48-1"}, ["from"]),
        ({"from": "2026-11-23T00:00:00Z"}, ["from"]),
        ({"from": "٢٠٢٦-11-23"}, ["from"]),
        ({"from": "yesterday", "to": "tomorrow"}, ["from", "to"]),
        ({"from": "0000-01-01"}, ["from"]),
        ({"to": "2026-11-22"}, ["to"]),
        ({"to": "2027-11-24"}, ["to"]),  # 367 days
        ({"from": "2026-11-23\n"}, ["from"]),
    ],
    ids=str,
)
def test_what_is_wrong_with_the_range_is_named(changed: dict[str, str], fields: list[str]) -> None:
    asked = {"businessId": "biz_demo", "from": DAY, "to": DAY} | changed
    status, body = summary(**asked)
    assert (status, body["code"]) == (422, "request.validation_failed")
    assert [error["field"] for error in body["errors"]] == fields


def test_no_query_at_all_is_refused_by_name() -> None:
    status, body = summary()
    assert status == 422
    assert [error["field"] for error in body["errors"]] == ["businessId", "from", "to"]


@pytest.mark.parametrize(
    ("start", "end", "days"),
    [
        (DAY, DAY, 1),
        (DAY, "2027-11-23", 366),
        ("0001-01-01", "0001-01-02", 2),
        ("9999-12-31", "9999-12-31", 1),
    ],
)
def test_a_range_may_have_a_leap_years_days_and_begin_anywhere(
    start: str, end: str, days: int
) -> None:
    status, body = summary(businessId="biz_demo", **{"from": start, "to": end})
    assert status == 200
    assert len(body["days"]) == days
