"""What a subscription costs and what is planned for it: its items, its schedule's next phase."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

PLANNED_FROM = "kyora_from"  # metadata of a schedule of ours: the price that it leaves

type Json = Mapping[str, Any]


class Terms(NamedTuple):
    """The terms of a subscription. `known` is False where a schedule is only named.

    `release_due`: it has left the price that our schedule was planned from, so the change has begun
    or another one has overtaken it; what the schedule still plans is not to come.
    """

    items: list[dict[str, Any]]
    schedule: str | None
    known: bool
    pending: list[dict[str, Any]] | None
    pending_at: datetime | None
    resume_at: datetime | None
    release_due: bool = False


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
    name, planned_from = (
        str(schedule.get("id")),
        _object(schedule.get("metadata")).get(PLANNED_FROM),
    )
    if planned_from and planned_from not in [item["price"] for item in items]:
        return Terms(items, name, True, None, None, None, release_due=True)
    pending, at = _next(schedule, items)
    return Terms(items, name, True, pending, at, _resumes(schedule))


def _item(found: Json) -> dict[str, Any]:
    price = _object(found.get("price")) or _object(found.get("plan"))
    recurring = _object(price.get("recurring")) or price  # a plan has them beside its id
    amount = price.get("unit_amount", price.get("amount"))
    by_quantity = recurring.get("usage_type") != "metered" and not (
        price.get("transform_quantity") or price.get("transform_usage")
    )
    return {
        "id": found.get("id"),
        "price": price.get("id") or found.get("price"),
        # None: tiers, parts of a unit, or what is charged does not follow from the quantity.
        "amount": amount if type(amount) is int and by_quantity else None,
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
