"""Mail by hand, for `make mails` and `make redrive QUEUE=emails`: list, send again, mark as seen.

A message that the provider certainly did not accept may always be sent again. One that it may have
accepted is sent again only on request for that one message, because it may arrive twice.
"""

import secrets
from collections.abc import Sequence
from typing import Any

from kyora import config
from kyora.email import address, delivery
from kyora.email.delivery import LOCK, SEND, Row
from kyora.email.provider import configured
from kyora.email.retry import WINDOW
from kyora.observability import logger
from kyora.postgres import Transaction, transaction

LISTED = 50  # newest first
# Ended without reaching its reader, or abandoned by a worker and never taken over.
FAILED = """
(m.status IN ('dead', 'failed') OR m.status = 'accepted_unknown'
    AND m.ended_at < now() - interval '15 minutes' OR m.status = 'sending'
    AND m.lease_until < now() - interval '15 minutes')
"""


def run(asked: dict[str, Any]) -> dict[str, Any]:
    """Do one of `{"list": {…}}`, `{"resend": id}`, `{"redrive": events}`, `{"seen": events}`."""
    if "resend" in asked:
        return resend(str(asked["resend"]))
    if "redrive" in asked:
        return {"events": redrive([str(event) for event in asked["redrive"]])}
    if "seen" in asked:
        return seen([str(event) for event in asked["seen"]])
    return {"mails": listed(asked.get("list") or {})}


def listed(asked: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the newest messages: `failed` ones, those `to` an address, of an `event`'s name or id.

    Addresses are masked.
    """
    to = str(asked.get("to") or "")
    with transaction() as tx:
        rows = tx.rows(
            "SELECT m.id, m.event_id, m.event, m.template, m.recipient, m.status, m.reason,"
            f" m.created_at, m.seen_at, {FAILED} AS failed FROM email_message m"
            f" WHERE (NOT CAST(:failed AS boolean) OR {FAILED})"
            " AND (CAST(:recipient AS text) IS NULL OR m.recipient_norm = :recipient)"
            " AND (CAST(:event AS text) IS NULL OR m.event = :event OR m.event_id = :event)"
            f" ORDER BY m.created_at DESC LIMIT {LISTED}",
            failed=bool(asked.get("failed")),
            recipient=address.key_of(to) if to else None,
            event=asked.get("event") or None,
        )
    return [
        {
            "id": row["id"],
            "event": f"{row['event']} {row['event_id']}",
            "template": row["template"],
            "to": address.mask(str(row["recipient"])),
            "status": row["status"],
            "reason": row["reason"],
            "at": _text(row["created_at"]),
            "unseen": bool(row["failed"]) and row["seen_at"] is None,
        }
        for row in rows
    ]


def seen(event_ids: Sequence[str]) -> dict[str, Any]:
    """Mark every failed message as looked at; `seen` is how many were new.

    `ended` lists those of the events whose message has ended: their dead letters can be deleted.
    """
    with transaction() as tx:
        count = tx.run(
            f"UPDATE email_message m SET seen_at = now() WHERE m.seen_at IS NULL AND {FAILED}"
        )
        ended = tx.rows(
            "SELECT DISTINCT event_id FROM email_message"
            " WHERE event_id = ANY(CAST(:ids AS text[])) AND ended_at IS NOT NULL",
            ids=list(event_ids),
        )
    return {"seen": count, "ended": [row["event_id"] for row in ended]}


def resend(message_id: str) -> dict[str, Any]:
    """Send one message now; return its `status` and `reason`, or why it is not sent (`refused`).

    `event` is the id of the event that caused it.
    One that may have been accepted before is sent under a new key: it may arrive twice.
    """
    settings, provider = config.email(), configured()
    lease = secrets.token_hex(8)
    with transaction() as tx:
        row = _locked(tx, message_id, provider.name)
        if row is None:
            return {"refused": "there is no such message"}
        if refused := _refused(row):
            return {"refused": refused}
        _begin(row)
        delivery.write(tx, row, SEND, 1, row["first_attempt_at"] or row["now"], lease=lease)
    with logger().append_context_keys(message_id=message_id, template=row["template"]):
        verdict = delivery.attempt(provider, row, lease, settings)
        logger().info("mail sent by hand", status=verdict.status, reason=verdict.reason)
    if verdict.status == "queued":  # no event would send it later
        with transaction() as tx:
            _bury(tx, row, verdict.reason)
        return {"status": "dead", "reason": verdict.reason}
    return {"status": verdict.status, "reason": verdict.reason, "event": row["event_id"]}


def redrive(event_ids: Sequence[str]) -> list[dict[str, str]]:
    """Queue the messages of dead-lettered events again; return for each event what was done.

    `move` is `yes` (the event goes back to its queue), `no` (delete its dead letter) or `stay`
    (keep it: what the mail says is stored nowhere else). `why` explains.
    """
    provider = config.email().provider
    with transaction() as tx:
        rows = tx.rows(
            "SELECT id, event_id FROM email_message WHERE event_id = ANY(CAST(:ids AS text[]))"
            " ORDER BY id",
            ids=list(event_ids),
        )
    found = {event: {"event": event, "move": "yes", "why": ""} for event in event_ids}
    for known in rows:
        with transaction() as tx:
            row = _locked(tx, str(known["id"]), provider)
            if row is not None:
                found[str(known["event_id"])] |= _redriven(tx, row)
    return list(found.values())


def _redriven(tx: Transaction, row: Row) -> dict[str, str]:
    """Queue a message again, unless that could send it twice."""
    found = {"mail": str(row["id"]), "to": address.mask(str(row["recipient"]))}
    if row["status"] in ("queued", "sending"):
        return found | {"why": "was still on its way"}
    if row["status"] not in ("dead", "accepted_unknown"):
        return found | {"move": "no", "why": f"is {row['status']}: nothing is left to send"}
    why = f"died of {row['reason']}"
    if row["expires_at"] <= row["now"]:
        return found | {"move": "no", "why": f"{why}; it is too late for what it says"}
    if row["reason"] in delivery.IN_VAIN:
        return found | {"move": "no", "why": why}
    within = row["first_attempt_at"] and row["first_attempt_at"] > row["now"] - WINDOW
    if not delivery.untaken(row) and not (row["reason"] == "exhausted" and within):
        why = "may have been taken; `make mails RESEND=` sends it all the same"
        return found | {"move": "no" if row["data"] else "stay", "why": why}
    if row["data"] is not None:  # else the event brings it
        delivery.begin_again(row)
        delivery.write(
            tx, row, delivery.Verdict("queued", row["reason"]), 0, row["first_attempt_at"]
        )
    return found | {"why": f"{why}; is sent again"}


def _refused(row: Row) -> str:  # noqa: PLR0911  # a reason a line
    """Return why a message must not be sent by hand; empty when it may be."""
    status = row["status"]
    if status == "queued":
        return "it is on its way; what it waits for is its reason"
    if status == "sending" and row["lease_until"] > row["now"]:
        return "it is being sent this moment"
    if status not in ("sending", "dead", "accepted_unknown"):
        return f"it is {status}, and what it said is not kept; cause its event again"
    if row["expires_at"] <= row["now"]:
        return "it is too late for what it says: cause its event again"
    if row["data"] is None:
        return "what it said is not kept: cause its event again"
    if not row["deliverable"]:
        return "its address cannot be sent to"
    if row["suppressed"]:
        return "its address is suppressed: `make suppressions LIFT=` first"
    return ""


def _begin(row: Row) -> None:
    """Choose the idempotency key: a new one, unless the provider still honours the old one."""
    known = row["first_attempt_at"] and row["first_attempt_at"] > row["now"] - WINDOW
    if not known or row["status"] == "accepted_unknown":
        row["first_attempt_at"] = None
    row["status"] = "dead"
    delivery.begin_again(row)


def _bury(tx: Transaction, row: Row, reason: str) -> None:
    tx.run(
        "UPDATE email_message SET status = 'dead', reason = :reason, ended_at = now(),"
        " lease_token = NULL, lease_until = NULL WHERE id = :id AND status = 'queued'",
        id=row["id"],
        reason=reason,
    )


def _locked(tx: Transaction, message_id: str, provider: str) -> Row | None:
    row: Row | None = tx.row(LOCK, id=message_id, provider=provider)
    if row is not None:
        row["deliverable"] = delivery.deliverable(str(row["recipient"]))
    return row


def _text(moment: Any) -> str:
    return str(moment.isoformat(timespec="minutes"))
