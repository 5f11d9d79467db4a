"""What a subscription costs and what is planned for it: its items, its schedule's next phase.

A webhook only names the schedule. What it plans is read from Stripe when the name is another one,
when the items are, or when the planned moment has come: `told` says whether a payload can do
without that.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from kyora.postgres import Transaction

type Json = Mapping[str, Any]


class Terms(NamedTuple):
    """The terms of a subscription. `known` is False where a schedule is only named."""

    items: list[dict[str, Any]]
    schedule: str | None
    known: bool
    pending: list[dict[str, Any]] | None
    pending_at: datetime | None
    resume_at: datetime | None


def read(found: Json) -> Terms:
    """Read the terms of Stripe's subscription."""
    items = [_item(one) for one in _listed(found.get("items"))]
    for item, one in zip(items, _listed(found.get("items")), strict=True):
        if found.get("discounts") or one.get("discounts"):
            item["discounted"] = True  # by how much, an event's payload does not say
    schedule = found.get("schedule")
    if not schedule:
        return Terms(items, None, True, None, None, None)
    if not isinstance(schedule, dict):
        return Terms(items, str(schedule), False, None, None, None)
    pending, at = _next(schedule, items)
    return Terms(items, str(schedule.get("id")), True, pending, at, _resumes(schedule))


def told(tx: Transaction, subscription_id: str, terms: Terms, period_start: object) -> bool:
    """Tell whether a payload says everything, with what we know of its schedule.

    Other items do not: what the next phase changes is known beside the items that were there.
    """
    if terms.known:
        return True
    row = tx.row(
        "SELECT t.items, t.schedule_id, t.pending_at, t.resume_at FROM subscription_terms t"
        # A payload that had to do while Stripe was away said nothing of what is planned.
        " JOIN subscription s ON s.id = t.subscription_id AND NOT s.doubtful"
        " WHERE t.subscription_id = :id",
        id=subscription_id,
    )
    if row is None or (row["schedule_id"], row["items"]) != (terms.schedule, terms.items):
        return False
    planned = [row["pending_at"], row["resume_at"]]
    begun = period_start if isinstance(period_start, datetime) else datetime.now(UTC)
    return not any(isinstance(at, datetime) and at <= begun for at in planned)


def write(tx: Transaction, subscription_id: str, terms: Terms) -> None:
    """Mirror the terms; a schedule that is only named keeps what we know of it."""
    tx.run(
        "INSERT INTO subscription_terms AS t"
        " (subscription_id, items, schedule_id, pending, pending_at, resume_at)"
        " VALUES (:id, CAST(:items AS jsonb), :schedule, CAST(:pending AS jsonb), :at, :resume)"
        " ON CONFLICT (subscription_id) DO UPDATE SET items = excluded.items,"
        " schedule_id = excluded.schedule_id,"
        " pending = CASE WHEN :kept AND t.schedule_id = excluded.schedule_id THEN t.pending"
        "  ELSE excluded.pending END,"
        " pending_at = CASE WHEN :kept AND t.schedule_id = excluded.schedule_id THEN t.pending_at"
        "  ELSE excluded.pending_at END,"
        " resume_at = CASE WHEN :kept AND t.schedule_id = excluded.schedule_id THEN t.resume_at"
        "  ELSE excluded.resume_at END"
        " WHERE (t.items, t.schedule_id, t.pending, t.pending_at, t.resume_at) IS DISTINCT FROM"
        " (excluded.items, excluded.schedule_id, excluded.pending, excluded.pending_at,"
        "  excluded.resume_at)",
        id=subscription_id,
        items=json.dumps(terms.items),
        schedule=terms.schedule,
        pending=None if terms.pending is None else json.dumps(terms.pending),
        at=terms.pending_at,
        resume=terms.resume_at,
        kept=not terms.known,
    )


def kept(tx: Transaction, ids: Sequence[str]) -> dict[str, Mapping[str, Any]]:
    """Return what is mirrored of these subscriptions, by their ids."""
    found = tx.rows(
        "SELECT * FROM subscription_terms WHERE subscription_id = ANY(CAST(:ids AS text[]))",
        ids=list(ids),
    )
    return {str(row["subscription_id"]): row for row in found}


def drift(row: Mapping[str, Any] | None, terms: Terms) -> dict[str, tuple[object, object]]:
    """Return what our row has otherwise than Stripe, by field: ours and Stripe's."""
    ours = row or {}
    theirs = {
        "items": terms.items,
        "schedule_id": terms.schedule,
        "pending": terms.pending,
        "pending_at": terms.pending_at,
        "resume_at": terms.resume_at,
    }
    if not terms.known:
        for name in ("pending", "pending_at", "resume_at"):
            del theirs[name]
    return {
        f"terms.{name}": (ours.get(name), value)
        for name, value in theirs.items()
        if ours.get(name) != value
    }


def _item(found: Json) -> dict[str, Any]:
    price = _object(found.get("price")) or _object(found.get("plan"))
    recurring = _object(price.get("recurring")) or price  # a plan has them beside its id
    amount = price.get("unit_amount", price.get("amount"))
    return {
        "id": found.get("id"),
        "price": price.get("id") or found.get("price"),
        "amount": amount if type(amount) is int else None,  # None: tiers, or parts of a unit
        "currency": price.get("currency"),
        "interval": recurring.get("interval"),
        "intervalCount": recurring.get("interval_count") or 1,
        "quantity": found.get("quantity"),
    }


def _next(
    schedule: Json, items: list[dict[str, Any]]
) -> tuple[list[dict[str, Any]] | None, datetime | None]:
    """Return the prices of the next phase and when it begins, unless it changes nothing."""
    phase = schedule.get("current_phase")
    if not isinstance(phase, dict):
        return None, None
    phases = [one for one in _listed(schedule.get("phases")) if type(one.get("start_date")) is int]
    coming = [one for one in phases if one["start_date"] >= phase.get("end_date", 0)]
    if not coming:
        return None, None
    first = min(coming, key=lambda one: int(one["start_date"]))
    wanted = [
        {"price": _id(item.get("price")), "quantity": item.get("quantity")}
        for item in _listed(first.get("items"))
    ]
    now = [(item["price"], item["quantity"]) for item in items]
    if sorted(map(str, now)) == sorted(str((i["price"], i["quantity"])) for i in wanted):
        return None, None
    return wanted, datetime.fromtimestamp(first["start_date"], UTC)


def _resumes(schedule: Json) -> datetime | None:
    for plan in _listed(schedule.get("pause_schedules")):
        back = _object(plan.get("resume"))
        at, status = back.get("resume_at"), _object(back.get("status"))
        if isinstance(at, int) and status.get("type") != "succeeded":
            return datetime.fromtimestamp(at, UTC)
    return None


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _listed(value: object) -> list[dict[str, Any]]:
    data = value.get("data") if isinstance(value, dict) else value
    return [one for one in data if isinstance(one, dict)] if isinstance(data, list) else []


def _id(value: object) -> object:
    return value.get("id") if isinstance(value, dict) else value
