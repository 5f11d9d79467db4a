"""Fees and days of the running stack: what a person emits, and what comes of it."""

import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.commands import bury, client, emit, query, run, waiting
from tests.e2e.conftest import Stack, request, wait

_FEE = "select amount, currency from transaction_fee where order_id = :order"


def file(folder: Path, **fields: str) -> Path:
    found = folder / "event.json"
    found.write_text(json.dumps(fields))
    return found


def unique(prefix: str) -> str:
    return f"{prefix}_{time.time_ns()}"


def day(stack: Stack, business: str) -> dict[str, Any]:
    """Return what the API says of a business in the one day that has something, or nothing."""
    today = datetime.now(UTC).date()  # by the time of a look, what was sent may be of yesterday
    found = request(
        "GET",
        f"{stack.env['KYORA_URL']}/v1/analytics/summary"
        f"?businessId={business}&from={today - timedelta(1)}&to={today}",
        headers={"Authorization": f"Bearer {stack.env['KYORA_MEMBER_TOKEN']}"},
    )
    assert found.status == 200, found
    with_something = [one for one in found.json["days"] if one["orders"] or one["customers"]]
    return with_something[0] if with_something else {}


@pytest.fixture
def business(stack: Stack) -> str:
    """A new business of the demo workspace."""
    found = unique("biz")
    query(
        stack,
        "insert into business (id, workspace_id, name, currency)"
        " values (:id, 'ws_demo', 'Olive', 'USD')",
        id=found,
    )
    return found


def test_a_paid_order_has_its_fee_and_a_later_event_corrects_it(
    stack: Stack, tmp_path: Path
) -> None:
    order = unique("ord")
    emit(stack, "OrderPaymentSucceeded", file(tmp_path, orderId=order))
    wait(lambda: query(stack, _FEE, order=order), 120)
    assert [[int(a), c] for a, c in query(stack, _FEE, order=order)] == [[189, "USD"]]
    yen = file(tmp_path, orderId=order, total="5000", currency="JPY")
    emit(stack, "OrderPaymentSucceeded", yen)
    yen_fee = [[145, "JPY"]]
    wait(lambda: [[int(a), c] for a, c in query(stack, _FEE, order=order)] == yen_fee, 120, "a fee")


def test_orders_and_customers_are_counted_and_read_through_the_api(
    stack: Stack, business: str, tmp_path: Path
) -> None:
    order = unique("ord")
    for _ in range(2):  # two events, one order
        emit(stack, "OrderCreated", file(tmp_path, businessId=business, orderId=order))
    emit(stack, "CustomerCreated", file(tmp_path, businessId=business))
    expected = {"orders": 1, "revenue": {"USD": "54.99"}, "customers": {"instagram": 1}}
    wait(
        lambda: day(stack, business).items() >= expected.items(),
        120,
        "the orders and customers counted",
    )


def test_a_thousand_copies_of_an_event_count_once(stack: Stack, business: str) -> None:
    detail = {
        "id": unique("evt"),
        "occurredAt": datetime.now(UTC).isoformat(),
        "version": 1,
        "workspaceId": "ws_demo",
        "correlationId": "request-e2e",
        "data": {"orderId": "ord_1", "businessId": business, "total": "1.10", "currency": "KWD"},
    }
    entry = {
        "EventBusName": "kyora-local",
        "Source": "kyora.orders",
        "DetailType": "OrderCreated",
        "Detail": json.dumps(detail),
    }
    events = client(stack, "events")
    for _ in range(100):
        assert events.put_events(Entries=[entry] * 10)["FailedEntryCount"] == 0
    wait(lambda: waiting(stack, "analytics") == 0, 240, "an empty queue of analytics")
    assert day(stack, business)["orders"] == 1
    assert day(stack, business)["revenue"] == {"KWD": "1.100"}


@pytest.mark.parametrize(
    ("queue", "name", "table"),
    [
        ("fees", "OrderPaymentSucceeded", "transaction_fee"),
        ("analytics", "CustomerCreated", "analytics_event"),
    ],
)
def test_an_event_of_an_unknown_business_waits_for_a_person_who_redrives_it(
    queue: str, name: str, table: str, stack: Stack, tmp_path: Path
) -> None:
    business = unique("biz")
    bury(stack)
    emit(stack, name, file(tmp_path, businessId=business))
    wait(lambda: waiting(stack, f"{queue}-dead") == 1, 120, f"a dead letter of {queue}")
    query(
        stack,
        "with b as (insert into business (id, workspace_id, name, currency)"
        " values (:id, 'ws_demo', 'Late', 'USD'))"
        " insert into payment_method_fee (workspace_id, business_id, method, percent)"
        " values ('ws_demo', :id, 'credit_card', 0.1)",
        id=business,
    )
    assert "1 of 1 messages are back" in run(stack, "redrive", queue).stdout
    found = f"select 1 from {table} where business_id = :id"
    wait(lambda: query(stack, found, id=business) == [[1]], 120, "the redriven event handled")


def test_a_rebuild_by_command_mends_a_wrong_count(
    stack: Stack, business: str, tmp_path: Path
) -> None:
    emit(stack, "OrderCreated", file(tmp_path, businessId=business))
    wait(lambda: day(stack, business).get("orders") == 1, 120, "an order counted")
    query(stack, "update analytics_count set count = 5 where business_id = :id", id=business)
    assert day(stack, business)["orders"] == 5
    done = run(stack, "rebuild-analytics", "--business", business)
    assert done.stdout.strip() == "Recounted; businesses: 1, wrong before: 1."
    assert day(stack, business)["orders"] == 1
    unknown = run(stack, "rebuild-analytics", "--business", "biz_nowhere")
    assert (unknown.returncode, "no business 'biz_nowhere'" in unknown.stderr) == (1, True)
