"""What runs, what needs attention, and what happened last."""

from collections.abc import Callable
from typing import Any

from local.settings import undeployed
from local.stack import emulator
from local.web.console import invocations, sources
from local.web.console.invocations import Record
from local.web.running import Front

_FIGURES = """
select (select count(*) from asset where created_at > now() - interval '1 day') as uploads,
       (select count(*) from asset where status in ('pending', 'verifying', 'scanning'))
           as "uploadsOpen",
       (select count(*) from outbox where published_at is null) as "eventsWaiting",
       (select count(*) from outbox where refused and published_at is null) as "eventsRefused",
       (select count(*) from outbox where created_at > now() - interval '1 day') as events,
       (select count(*) from stripe_event where status = 'failed') as "stripeFailed",
       (select count(*) from stripe_event where status = 'orphan') as "stripeOrphans",
       (select count(*) from email_message where status in ('dead', 'failed') and seen_at is null)
           as "mailsFailed",
       (select count(*) from mock_mailbox) as mails
"""
_SCHEDULED = {"schedule", "deploy"}


def read(front: Front, record: Record) -> dict[str, Any]:
    """Return the state of each part, the figures, and the newest invocations but schedules."""
    stack = front.stack
    figures, database = _try(lambda: _figures(front))
    queues, _ = _try(lambda: sources.messages(stack))
    emulated = emulator.healthy(stack.gateway_port)
    parts = [
        _part("API", front.api and emulated, stack.url, "" if front.api else "starting"),
        _part("PostgreSQL", not database, "", database),
        _part("AWS emulator", emulated, emulator.endpoint(stack.gateway_port), ""),
    ]
    if stack.own_stripe:
        url = f"{stack.stripe_url}/_control/state"
        _, fault = _try(lambda: sources.get_json("the stand-in for Stripe", url))
        parts.append(_part("Stripe stand-in", not fault, f"{stack.stripe_url}/", fault))
    lines = [invocations.summary(line) for line in record.read()]
    newest: dict[str, dict[str, Any]] = {}
    for line in lines:
        if line["good"] is not None:
            newest.setdefault(line["function"], line)
    broken = [line for line in newest.values() if line["good"] is False]
    dead = {
        name.removesuffix("-dead"): len(letters)
        for name, letters in (queues or {}).items()
        if name.endswith("-dead") and letters
    }
    return {
        "ready": bool(front.api),
        "parts": parts,
        "figures": figures,
        "attention": [
            *({"what": "code", "text": text} for text in [undeployed(stack.home)] if text),
            *({"what": "function", **one} for one in broken),
            *({"what": "queue", "queue": name, "dead": count} for name, count in dead.items()),
            *_attention(figures or {}),
        ],
        "latest": [one for one in lines if one["trigger"]["kind"] not in _SCHEDULED][:12],
        "functions": len(front.functions),
    }


def _part(name: str, good: object, address: str, detail: str) -> dict[str, Any]:
    return {"name": name, "up": bool(good), "address": address, "detail": detail}


def _figures(front: Front) -> dict[str, Any]:
    with sources.database(front.stack) as reader:
        return reader.rows(_FIGURES)[0]


def _attention(figures: dict[str, Any]) -> list[dict[str, Any]]:
    found = (
        ("eventsRefused", "events", "events that the bus refuses"),
        ("stripeFailed", "stripe", "events from Stripe that failed"),
        ("stripeOrphans", "stripe", "events from Stripe without a workspace"),
        ("mailsFailed", "mails", "mails that were not sent"),
    )
    return [
        {"what": page, "count": figures[name], "text": text}
        for name, page, text in found
        if figures.get(name)
    ]


def _try[T](read: Callable[[], T]) -> tuple[T | None, str]:
    try:
        return read(), ""
    except sources.Fault as fault:
        return None, str(fault)
