"""Stripe's events: how each came, what became of it, and how the stand-in's deliveries went."""

from collections.abc import Mapping
from typing import Any

from local.settings import Settings
from local.web.console import sources

_EVENTS = """
select id, type, object_id as object, customer_id as customer, source, status, attempts,
       last_error as error, created, received_at as at, processed_at as processed
from stripe_event
where (cast(:status as text) is null or status = :status)
  and (cast(:text as text) is null or :text in (id, type, object_id, customer_id))
order by received_at desc, id desc limit 100
"""
_COUNTS = "select status, count(*) as count from stripe_event group by 1 order by 1"
_ONE = """
select id, type, api_version as "apiVersion", object_id as object, customer_id as customer, source,
       status, attempts, last_error as error, created, received_at as at,
       processed_at as processed, body
from stripe_event where id = :id
"""


def listed(stack: Settings, asked: Mapping[str, str]) -> dict[str, Any]:
    """Return the newest events: of a `status`, about a `text` (an id or a type)."""
    with sources.database(stack) as reader:
        status, text = asked.get("status") or None, asked.get("text") or None
        found = reader.rows(_EVENTS, status=status, text=text)
        counts = reader.rows(_COUNTS)
    deliveries, faults = _deliveries(stack)
    for event in found:
        event["deliveries"] = deliveries.get(event["id"], [])
    undelivered = {
        event
        for event, sent in deliveries.items()
        if sent and not any(one["status"] == "sent" for one in sent)
    }
    return {
        "events": found,
        "counts": {row["status"]: row["count"] for row in counts},
        "undelivered": len(undelivered),
        "dashboard": stack.stripe_url if stack.own_stripe else "",
        "faults": faults,
    }


def one(stack: Settings, event_id: str) -> dict[str, Any] | None:
    """Return an event with its body."""
    with sources.database(stack) as reader:
        found = reader.rows(_ONE, id=event_id)
    if not found:
        return None
    deliveries, faults = _deliveries(stack)
    return {**found[0], "deliveries": deliveries.get(event_id, []), "faults": faults}


def _deliveries(stack: Settings) -> tuple[dict[str, list[dict[str, Any]]], list[str]]:
    """Return the stand-in's attempts to deliver each event; nothing for Stripe itself."""
    if not stack.own_stripe:
        return {}, []
    try:
        url = f"{stack.stripe_url}/_control/events?limit=300"
        found = sources.get_json("the stand-in for Stripe", url)
    except sources.Fault as fault:
        return {}, [str(fault)]
    return {event["id"]: event["deliveries"] for event in found}, []
