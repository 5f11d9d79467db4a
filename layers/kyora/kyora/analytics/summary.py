"""Read the counts of a business."""

import re
from datetime import date, timedelta
from typing import Any

from kyora import money
from kyora.analytics.models import OTHER, Day, Summary
from kyora.errors import Invalid, NotFound
from kyora.postgres import transaction
from kyora.tenants import owns_business

MAX_DAYS = 366
# Sources in one answer. With 100 characters each they take 3.4 MB; every currency on each day takes
# another 2.4 MB. Lambda's limit is 6 MB.
_MOST_SOURCES = 8000
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)


def summarise(workspace_id: str, business_id: str, start: str, end: str) -> Summary:
    """Return the days from `start` to `end`, inclusive. A day without events has zeros.

    Raises Invalid for invalid dates and for more than 366 days, and NotFound.
    """
    first, last = _range(business_id, start, end)
    with transaction() as tx:
        # Postgres refuses an id with a NUL.
        if not business_id.isprintable() or not owns_business(tx, workspace_id, business_id):
            raise NotFound("There is no such business.", code="business.not_found")
        rows: list[dict[str, Any]] = tx.rows(
            "SELECT day, kind, label, count, amount FROM analytics_day"
            " WHERE workspace_id = :workspace_id AND business_id = :business_id"
            " AND day BETWEEN :first AND :last ORDER BY day, kind, label",
            workspace_id=workspace_id,
            business_id=business_id,
            first=first,
            last=last,
        )
    days: list[dict[str, Any]] = [
        {"date": first + timedelta(number), "orders": 0, "revenue": {}, "customers": {}}
        for number in range((last - first).days + 1)
    ]
    for row in rows:
        day = days[(row["day"] - first).days]
        if row["kind"] == "order":
            day["orders"] += row["count"]
            day["revenue"][row["label"]] = money.to_text(int(row["amount"]), row["label"])
        else:
            day["customers"][row["label"]] = row["count"]
    for day in days:
        day["customers"] = _largest(day["customers"], _MOST_SOURCES // len(days))
    return Summary(days=[Day(**day) for day in days])


def _largest(customers: dict[str, int], most: int) -> dict[str, int]:
    """Return the sources with the most customers, the others summed up as `other`."""
    if len(customers) <= most:
        return customers
    named = sorted(customers.keys() - {OTHER}, key=lambda source: (-customers[source], source))
    kept = {source: customers[source] for source in sorted(named[: most - 1])}
    return kept | {OTHER: sum(customers.values()) - sum(kept.values())}


def _range(business_id: str, start: str, end: str) -> tuple[date, date]:
    faults = [] if business_id else [{"field": "businessId", "message": "is required"}]
    dates = {"from": _date(start), "to": _date(end)}
    for field, given in (("from", start), ("to", end)):
        if dates[field] is None:
            message = "must be a date such as 2026-11-23" if given else "is required"
            faults.append({"field": field, "message": message})
    first, last = dates["from"], dates["to"]
    if first and last and last < first:
        faults.append({"field": "to", "message": "must not be before `from`"})
    if first and last and (last - first).days >= MAX_DAYS:
        faults.append({"field": "to", "message": f"must be at most {MAX_DAYS} days from `from`"})
    if faults or first is None or last is None:
        raise Invalid("Some parameters are not valid.", errors=faults)
    return first, last


def _date(given: str) -> date | None:
    try:
        return date.fromisoformat(given) if _DATE.fullmatch(given) else None
    except ValueError:  # February 30
        return None
