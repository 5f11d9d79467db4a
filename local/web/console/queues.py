"""Queues with what waits in them, and their dead letters."""

import json
from typing import Any

from local.settings import Settings
from local.web.console import consumers, sources

_SHOWN = 50  # messages of each queue


def listed(stack: Settings) -> dict[str, Any]:
    """Return every queue with its messages and dead letters."""
    found = sources.messages(stack)
    names = sorted(name.removesuffix("-dead") for name in found if name.endswith("-dead"))
    readers = consumers.by_queue()
    return {
        "queues": [
            {
                "name": name,
                "consumer": readers.get(name, ""),
                "waiting": len(found.get(name, [])),
                "inFlight": sum(not letter["IsVisible"] for letter in found.get(name, [])),
                "dead": len(found[f"{name}-dead"]),
                "messages": [_letter(one) for one in found.get(name, [])[:_SHOWN]],
                "letters": [_letter(one) for one in found[f"{name}-dead"][:_SHOWN]],
            }
            for name in names
        ]
    }


def _letter(found: dict[str, Any]) -> dict[str, Any]:
    try:
        body = json.loads(found["Body"])
    except ValueError:
        body = found["Body"]
    known = body if isinstance(body, dict) else {}
    detail = known.get("detail") if isinstance(known.get("detail"), dict) else {}
    reason = (found.get("MessageAttributes") or {}).get("Reason") or {}
    return {
        "id": found["MessageId"],
        "sent": found["SentTimestamp"],
        "visible": found["IsVisible"],
        "visibleAt": found["VisibleAt"],
        "receives": found["ReceiveCount"],
        "type": known.get("detail-type", ""),
        "event": detail.get("id", "") if isinstance(detail, dict) else "",
        "reason": reason.get("StringValue", ""),
        "body": body,
    }
