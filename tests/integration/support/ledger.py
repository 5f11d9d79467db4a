"""Events of orders and customers, and what accounting and analytics have made of them."""

import itertools
import random
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from kyora import postgres
from kyora.accounting.record import record
from kyora.analytics import count, rebuild
from kyora.bus.events import Event, parse

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
_numbers = itertools.count(1)

type Row = dict[str, Any]


def detail(
    data: Row, at: datetime = NOON, event_id: str = "", workspace: str | None = "ws_demo"
) -> Row:
    """Return an envelope."""
    found = {
        "id": event_id or f"evt_{next(_numbers):026}",
        "occurredAt": at.isoformat(),
        "version": 1,
        "correlationId": "request-0123456789",
        "data": {"businessId": "biz_demo"} | data,
    }
    return found | ({"workspaceId": workspace} if workspace else {})


def payment(total: str = "54.99", currency: str = "USD", **changed: Any) -> Event[Any]:
    envelope = {k: changed.pop(k) for k in ("at", "event_id", "workspace") if k in changed}
    data = {
        "orderId": "ord_1",
        "paymentMethod": "credit_card",
        "total": total,
        "currency": currency,
        "paidAt": NOON.isoformat(),
    }
    return parse("OrderPaymentSucceeded", detail(data | changed, **envelope))


def order(
    order_id: str, total: str = "54.99", currency: str = "USD", **envelope: Any
) -> Event[Any]:
    business = {"businessId": envelope.pop("business", "biz_demo")}
    data = {"orderId": order_id, "total": total, "currency": currency}
    return parse("OrderCreated", detail(data | business, **envelope))


def customer(customer_id: str, source: str | None = None, **envelope: Any) -> Event[Any]:
    business = {"businessId": envelope.pop("business", "biz_demo")}
    data = {"customerId": customer_id} | ({"source": source} if source is not None else {})
    return parse("CustomerCreated", detail(data | business, **envelope))


def begin() -> None:
    """Forget the test before; two workspaces, the first one with two businesses."""
    with postgres.transaction(owner=True) as tx:
        tx.run(
            "TRUNCATE workspace, business, payment_method_fee, order_payment, transaction_fee,"
            " analytics_event, analytics_count, inbox CASCADE"
        )
        tx.run("INSERT INTO workspace (id, name) VALUES ('ws_demo', 'Demo'), ('ws_other', 'Other')")
        tx.run(
            "INSERT INTO business (id, workspace_id, name, currency) VALUES"
            " ('biz_demo', 'ws_demo', 'Demo', 'USD'), ('biz_second', 'ws_demo', 'Second', 'KWD'),"
            " ('biz_other', 'ws_other', 'Other', 'USD')"
        )


def agree(
    method: str, percent: str = "0", fixed: str = "0", *, enabled: bool = True, **whose: str
) -> None:
    """Write what the business pays for a method."""
    with postgres.transaction() as tx:
        tx.run(
            "INSERT INTO payment_method_fee"
            " (workspace_id, business_id, method, enabled, percent, fixed) VALUES (:workspace_id,"
            " :business_id, :method, :enabled, CAST(:percent AS numeric), CAST(:fixed AS numeric))"
            " ON CONFLICT (business_id, method) DO UPDATE SET enabled = excluded.enabled,"
            " percent = excluded.percent, fixed = excluded.fixed",
            workspace_id=whose.get("workspace", "ws_demo"),
            business_id=whose.get("business", "biz_demo"),
            method=method,
            enabled=enabled,
            percent=percent,
            fixed=fixed,
        )


def fees() -> dict[str, tuple[int, str]]:
    """Return amount and currency of each fee by its order."""
    with postgres.transaction() as tx:
        rows: list[Row] = tx.rows("SELECT order_id, amount, currency FROM transaction_fee")
    return {row["order_id"]: (int(row["amount"]), row["currency"]) for row in rows}


def counts() -> dict[tuple[str, str, str, str], tuple[int, int]]:
    """Return count and amount by business, day, kind and label, as the view shows them."""
    with postgres.transaction() as tx:
        rows: list[Row] = tx.rows(
            "SELECT business_id, day, kind, label, count, amount FROM analytics_day"
        )
    return {
        (row["business_id"], row["day"].isoformat(), row["kind"], row["label"]): (
            row["count"],
            int(row["amount"]),
        )
        for row in rows
    }


def empty(*tables: str) -> None:
    with postgres.transaction() as tx:
        for table in tables:
            tx.run(f"DELETE FROM {table}")


def recounted() -> Row:
    """Do what `make rebuild-analytics` asks of the function."""
    return rebuild.by_hand({}, lambda: 120_000)


# ---- what worker processes do, all at once


def update_all(events: Sequence[Event[Any]], seed: int) -> None:
    """Handle events in an order of one's own, each until it has worked."""
    for event in _shuffled(events, seed):
        count.update(event)
    postgres.close()


def record_all(events: Sequence[Event[Any]], seed: int) -> None:
    for event in _shuffled(events, seed):
        record(event)
    postgres.close()


def rebuild_often(times: int) -> None:
    for _ in range(times):
        recounted()
    postgres.close()


def do(work: Callable[..., None], *given: Any) -> None:
    """Do what this worker is asked for; the others may do something else."""
    work(*given)


def _shuffled(events: Iterable[Event[Any]], seed: int) -> list[Event[Any]]:
    found = list(events)
    random.Random(seed).shuffle(found)
    return found
