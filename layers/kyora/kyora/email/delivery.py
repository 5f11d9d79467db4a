"""From an event to a message that is sent once, whatever crashes, repeats or is answered.

    event ─► row, leased ─► provider ─┬─► sent
               ▲                      ├─► accepted_unknown: the webhook will say
               └─ queued: again, ◄────┤
                  under the same key  ├─► skipped: expired, suppressed, untrue
                                      └─► dead: a person has to look

The row's id is the provider's idempotency key. A worker that dies after the send leaves a lease
that expires; the worker that takes over sends the same bytes under the same key and is answered
with the first id. The provider forgets a key after 24 hours, so nothing is repeated after 23
(kyora.email.retry).

A dead message that was certainly not accepted starts again, under another key, when its event is
delivered again. For the others, and by hand, see kyora.email.by_hand.
"""

import hashlib
import json
import math
import secrets
from datetime import datetime
from typing import Any, NamedTuple

from kyora import config, trace
from kyora.bus.events import Event
from kyora.bus.outcomes import Again, Permanent
from kyora.config import Email
from kyora.email import address, books, recipients, retry, suppressions
from kyora.email.address import InvalidAddress
from kyora.email.mails.catalogue import MAIL_OF
from kyora.email.mails.mail import Context, Mail
from kyora.email.message import Message, Refusal, payload
from kyora.email.provider import Provider, configured
from kyora.email.retry import RECHECK_AFTER, WINDOW, Do
from kyora.errors import KyoraError
from kyora.observability import count, logger
from kyora.postgres import Transaction, transaction

# Seconds: the provider's pause and deadline, and some for the database. With less time left the
# function starts no attempt, so that its time-out cuts none off.
LONGEST_ATTEMPT = 15
LEASE = 30  # seconds

# Reasons of death for which no further attempt would help.
IN_VAIN = ("invalid_recipient", "expired")

type Row = dict[str, Any]


class Verdict(NamedTuple):
    """What to do with a message: its new `status`, if any, and when to look at it again."""

    status: str = ""
    reason: str = ""
    again: float | None = None  # seconds
    permanent: bool = False  # the event belongs in the dead-letter queue, where a person looks


SEND = Verdict("sending")
DONE = Verdict()
_LOST = Verdict(again=1.0)  # the lease expired before the answer came: read the row again


def deliver(event: Event[Any], seconds: float = math.inf) -> None:
    """Send the mail that an event causes, if it causes one; `seconds` is the time left to do so.

    Raises Again while the mail has to wait, and Permanent when a person has to look.
    """
    mail = MAIL_OF.get(event.name)
    if mail is None:
        return
    if seconds < LONGEST_ATTEMPT:  # an attempt that is cut off waits for the visibility time-out
        raise Again(1, counted=False)
    settings, provider = config.email(), configured()
    lease = secrets.token_hex(8)
    with transaction() as tx:
        row = _row(tx, event, mail, provider.name, lease, settings)
        verdict = judge(row)
        if row["status"] == "dead" and verdict.status:
            begin_again(row)
        if verdict.status and not (row["fresh"] and verdict is SEND):
            attempts = row["attempts"] + (verdict is SEND)
            first = row["first_attempt_at"] or (row["now"] if verdict is SEND else None)
            write(tx, row, verdict, attempts, first, lease=lease)
    with logger().append_context_keys(message_id=row["id"], template=mail.id):
        if verdict is SEND:
            verdict = attempt(provider, row, lease, settings)
        if verdict.status:
            count("Mails", Status=verdict.status)
        _report(verdict, row)


def begin_again(row: Row) -> None:
    """Restart the attempts of a dead message, under a new key if none was accepted.

    It is not documented whether a refused request uses up its key; a new one avoids the question.
    """
    row["attempts"] = 0
    if row["first_attempt_at"] is None:
        row["begun"] += 1


def judge(row: Row) -> Verdict:  # noqa: PLR0911  # a rule a line, first come first served
    """Decide from a message's row alone whether to send it now."""
    now: datetime = row["now"]
    if row["status"] not in ("queued", "sending"):
        return _judge_ended(row, now)
    if row["status"] == "sending" and row["lease_until"] > now:
        return Verdict(again=_left(row["lease_until"], now))
    if not row["deliverable"]:
        return Verdict("dead", "invalid_recipient")
    if row["first_attempt_at"] and row["first_attempt_at"] <= now - WINDOW:
        return Verdict("dead", "ambiguous_window", permanent=True)
    if row["expires_at"] <= now:
        # More than late: an attempt may have been accepted, or its API key was never fixed.
        harmless = not row["first_attempt_at"] and not str(row["reason"]).startswith("access")
        return Verdict("skipped" if harmless else "dead", "expired")
    if row.get("untrue") and not row["first_attempt_at"]:
        return Verdict("skipped", f"untrue: {row['untrue']}")
    if row["suppressed"]:
        return Verdict("skipped", "suppressed")
    if row["open_until"]:
        opens = min(row["open_until"], row["expires_at"])
        return Verdict("queued", row["open_reason"], again=_left(opens, now))
    if row["status"] == "queued" and row["next_attempt_at"] > now:
        return Verdict(again=_left(row["next_attempt_at"], now))
    return SEND


def _judge_ended(row: Row, now: datetime) -> Verdict:
    if row["status"] == "accepted_unknown":
        if row["ended_at"] + RECHECK_AFTER > now:
            return Verdict(again=_left(row["ended_at"] + RECHECK_AFTER, now))
        return Verdict(reason="unconfirmed", permanent=True)
    if row["status"] != "dead":
        return DONE
    # Later than any copy of the event, so a person redrove it: more attempts, under the same key.
    redriven = row["reason"] == "exhausted" and row["ended_at"] + RECHECK_AFTER < now
    if redriven or (untaken(row) and row["expires_at"] > now):
        return judge(row | {"status": "queued", "next_attempt_at": now})
    return DONE


def untaken(row: Row) -> bool:
    """Return whether a dead message was certainly never accepted, and might be now."""
    return row["first_attempt_at"] is None and row["reason"] not in IN_VAIN


def _left(moment: datetime, now: datetime) -> float:
    return max(1.0, (moment - now).total_seconds())


# ---- the row

COLUMNS = f"""
    m.id, m.event_id, m.recipient, m.locale, m.template, m.data, m.status, m.reason, m.attempts,
    m.begun, m.first_attempt_at, m.next_attempt_at, m.expires_at, m.lease_until, m.ended_at,
    now() AS now,
    EXISTS (SELECT 1 FROM email_suppression s
        WHERE s.recipient_norm = m.recipient_norm AND {suppressions.ACTIVE}) AS suppressed,
    (SELECT p.open_until FROM email_provider_state p
        WHERE p.provider = :provider AND p.open_until > now()) AS open_until,
    (SELECT p.reason FROM email_provider_state p WHERE p.provider = :provider) AS open_reason
"""
# A new message is leased by the statement that creates it: no other worker can have seen it. There
# is no conflict target: the id follows from the other columns, so either key may conflict first.
_MAKE = f"""
    INSERT INTO email_message AS m (id, event_id, event, template, recipient, recipient_norm,
        workspace_id, correlation_id, locale, data, expires_at, status, attempts,
        first_attempt_at, lease_token, lease_until)
    VALUES (:id, :event_id, :event, :template, :recipient, :recipient_norm, :workspace_id,
        :correlation_id, :locale, CAST(:data AS json), :expires_at, 'sending', 1,
        now(), :lease, now() + interval '{LEASE} seconds')
    ON CONFLICT DO NOTHING RETURNING {COLUMNS}
"""
LOCK = f"SELECT {COLUMNS} FROM email_message m WHERE m.id = :id FOR UPDATE"
_WRITE = f"""
    UPDATE email_message SET
        status = :status, reason = :reason, error = :error, attempts = CAST(:attempts AS integer),
        first_attempt_at = CAST(:first AS timestamptz),
        next_attempt_at = now() + CAST(:again AS float8) * interval '1 second',
        lease_token = :lease,
        lease_until = CASE WHEN :status = 'sending' THEN now() + interval '{LEASE} seconds' END,
        data = CAST(:data AS json), begun = :begun, seen_at = NULL,
        payload_sha256 = coalesce(:digest, payload_sha256),
        provider_id = coalesce(:provider_id, provider_id),
        traceparent = :traceparent,
        sent_at = CASE WHEN :status = 'sent' THEN now() ELSE sent_at END,
        ended_at = CASE WHEN :status NOT IN ('queued', 'sending') THEN now() END
    WHERE id = :id AND (CAST(:held AS text) IS NULL OR lease_token = :held)
"""


def _row(
    tx: Transaction,
    event: Event[Any],
    mail: Mail[Any],
    provider: str,
    lease: str,
    settings: Email,
) -> Row:
    """Return the event's message as it was before this call, which creates it when it is missing.

    `fresh`: it is new, and leased already.
    """
    to, known = recipients.find(tx, event, mail.id), books.read(tx, event)
    data = mail.fill(event.data, Context(to.name, known, settings))
    untrue = mail.untrue(event.data, known)
    recipient = _recipient(to.address)
    message_id = to.known or _message_id(event.id, mail.id, recipient)
    made = None
    if to.known is None:
        made = tx.row(
            _MAKE,
            id=message_id,
            event_id=event.id,
            event=event.name,
            template=mail.id,
            recipient=recipient,
            recipient_norm=address.key(recipient),
            workspace_id=event.workspace_id,
            correlation_id=event.correlation_id,
            locale=to.locale,
            data=json.dumps(data),
            expires_at=event.occurred_at + mail.lifetime,
            lease=lease,
            provider=provider,
        )
    if made is not None:
        before = {"status": "queued", "attempts": 0, "first_attempt_at": None}
        seen = {"deliverable": deliverable(recipient), "untrue": untrue}
        return made | before | seen | {"fresh": True}
    found = tx.row(LOCK, id=message_id, provider=provider)
    if found is None:
        raise Permanent("email.message_gone")  # deleted by hand between the two statements
    # Retries repeat the first attempt's data; a message that was never accepted takes today's.
    new = found["status"] == "dead" and untaken(found) and recipient == found["recipient"]
    found["data"] = data if new else found["data"] or data
    seen = {"deliverable": deliverable(str(found["recipient"])), "untrue": untrue}
    return found | seen | {"fresh": False}


def _recipient(given: str) -> str:
    """Return the address to send to, or what was given instead, made safe to store."""
    try:
        return address.normalise(given)
    except InvalidAddress:
        # `deliverable` must not take it for an address: ascii() puts it in quotes.
        return ascii(given[:300])


def deliverable(recipient: str) -> bool:
    """Return whether a message's address can be sent to."""
    try:
        return address.normalise(recipient) == recipient
    except InvalidAddress:
        return False


def _message_id(event_id: str, template: str, recipient: str) -> str:
    unique = f"{event_id}:{template}:{recipient}"
    return f"eml_{hashlib.sha256(unique.encode()).hexdigest()[:32]}"


def write(
    tx: Transaction,
    row: Row,
    verdict: Verdict,
    attempts: int,
    first: datetime | None,
    *,
    lease: str | None = None,
    held: str | None = None,
    error: str | None = None,
    digest: str | None = None,
    provider_id: str | None = None,
) -> bool:
    """Write a verdict; with `held` only while that lease is ours. False when it no longer is."""
    # The data may hold a token: kept only while the message may still be sent.
    kept = verdict.status in ("queued", "sending", "dead", "accepted_unknown")
    return bool(
        tx.run(
            _WRITE,
            id=row["id"],
            status=verdict.status,
            reason=verdict.reason or None,
            error=error,
            attempts=attempts,
            first=first,
            again=verdict.again or 0.0,
            lease=lease if verdict is SEND else None,
            held=held,
            data=json.dumps(row["data"]) if kept and verdict.reason not in IN_VAIN else None,
            begun=row["begun"],
            digest=digest,
            provider_id=provider_id,
            traceparent=trace.current() or None,
        )
    )


# ---- one attempt


def attempt(provider: Provider, row: Row, lease: str, settings: Email) -> Verdict:
    """Send a message that is leased to us, and record how that went."""
    number, started = row["attempts"] + 1, row["first_attempt_at"] or row["now"]
    message = _message(row, settings)
    if message is None:
        verdict = Verdict("dead", "not_renderable", permanent=True)
        with transaction() as tx:
            kept = write(tx, row, verdict, number, row["first_attempt_at"], held=lease)
        return verdict if kept else _LOST
    digest = hashlib.sha256(payload(message)).hexdigest()
    try:
        with trace.span(f"{provider.name} send", kyora__message_id=row["id"]):
            sent = provider.send(message, key(row))
    except Refusal as refusal:
        # A redriven message counts from one again, but an earlier attempt may have been accepted.
        action = retry.action(refusal, max(number, 2) if row["first_attempt_at"] else number)
        verdict = _verdict(action, refusal, number)
        first = row["first_attempt_at"] if action.refused else started
        with transaction() as tx:
            kept = write(
                tx,
                row,
                verdict,
                number if action.counted else number - 1,
                first,
                held=lease,
                error=refusal.message or None,
                digest=digest,
            )
            if action.breaker:
                retry.open_breaker(tx, provider.name, action.breaker, verdict.reason)
        return verdict if kept else _LOST
    verdict = Verdict("sent")
    with transaction() as tx:
        write(tx, row, verdict, number, started, held=lease, digest=digest, provider_id=sent.id)
    return verdict


def key(row: Row) -> str:
    """Return the idempotency key of a message."""
    return f"{row['id']}.{row['begun']}" if row["begun"] else str(row["id"])


def _verdict(action: retry.Action, refusal: Refusal, number: int) -> Verdict:
    said = f"{refusal.status} {refusal.name}".strip()
    if action.do is Do.WAIT:
        return Verdict("queued", f"{action.kind}: {said}", again=action.breaker)
    if action.do is Do.ASSUME:
        return Verdict("accepted_unknown", said, again=RECHECK_AFTER.total_seconds())
    if action.do is Do.DIE:
        return Verdict("dead", "exhausted" if action.exhausted else said, permanent=True)
    return Verdict("queued", said, again=retry.backoff(action, number, refusal.retry_after))


def _message(row: Row, settings: Email) -> Message | None:
    """Render the message; None when its data does not fit, which no further attempt would fix."""
    from kyora.email.render import render  # here: a message that is not sent needs no Jinja

    try:
        written = render(
            row["template"], row["locale"], row["data"], message_id=row["id"], settings=settings
        )
    except Exception as error:
        # Not the error's text: it may hold a name or a link.
        faults = [f["field"] for f in error.errors] if isinstance(error, KyoraError) else []
        logger().error("mail not written", error=type(error).__name__, fields=faults)
        return None
    return Message(
        recipient=row["recipient"],
        sender=address.sender(settings.from_name, settings.from_email),
        reply_to=settings.support_email,
        subject=written.subject,
        html=written.html,
        text=written.text,
        tags={
            "message_id": row["id"],
            "template": row["template"],
            "locale": row["locale"],
            "env": config.stage(),
        },
    )


def _report(verdict: Verdict, row: Row) -> None:
    """Log what happened, and raise what the queue has to do."""
    if verdict.permanent:
        raise Permanent(f"email.{verdict.reason.replace(' ', '_')}")
    shown = {"status": verdict.status or row["status"], "reason": verdict.reason}
    if verdict.again is None:
        logger().info("mail handled", extra=shown)
        return
    if verdict.reason.startswith(("access", "quota")):
        logger().critical("mail provider refuses us", extra=shown)
    else:
        logger().info("mail waits", extra=shown | {"seconds": round(verdict.again, 1)})
    # The row counts attempts; the queue's count is for workers that died.
    raise Again(verdict.again, counted=False)
