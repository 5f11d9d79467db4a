"""Addresses that get no mail: they bounced permanently, complained, or bounce too often.

Resend keeps a suppression list of its own. Its changes arrive by webhook, in any order, and are
mirrored here by the time at which they happened; once a day both lists are compared.
"""

import json
import time
from datetime import UTC, datetime
from typing import Any

from kyora import clock
from kyora.email.address import key, key_of, mask
from kyora.email.provider import configured
from kyora.postgres import Transaction, transaction

# Whether the suppression `s` is active.
ACTIVE = "s.lifted_at IS NULL AND (s.until IS NULL OR s.until > now())"
_BOUNCES, _DAYS = 3, 7
# Resend's origins in our words; another one is `suppressed`.
_REASONS = {"bounce": "bounced", "complaint": "complained"}


def suppress(tx: Transaction, recipient_norm: str, reason: str, source_event: str) -> None:
    """Send nothing more to the address, until a person lifts the suppression."""
    _add(tx, recipient_norm, reason, source_event, None)


def count_bounces(tx: Transaction, recipient_norm: str, source_event: str) -> None:
    """Suppress an address for a week when it has bounced three times within one.

    Bounces from before its last suppression was lifted do not count again.
    """
    # Bounces that arrive together must see each other: one at a time until the commit.
    tx.rows(
        "SELECT pg_advisory_xact_lock(hashtextextended(:key, 0))", key=f"bounce {recipient_norm}"
    )
    bounces = tx.value(
        int,
        "SELECT count(*) FROM email_event"
        " WHERE temporary AND recipient_norm = :recipient"
        f" AND received_at > greatest(now() - interval '{_DAYS} days', (SELECT s.lifted_at"
        "  FROM email_suppression s WHERE s.recipient_norm = :recipient))",
        recipient=recipient_norm,
    )
    if (bounces or 0) >= _BOUNCES:
        _add(tx, recipient_norm, "bouncing", source_event, _DAYS)


def lift(tx: Transaction, recipient: str) -> bool:
    """Let mail go to the address again; False when it was not suppressed."""
    return bool(
        tx.run(
            "UPDATE email_suppression s SET lifted_at = now()"
            f" WHERE s.recipient_norm = :recipient AND {ACTIVE}",
            recipient=key_of(recipient),
        )
    )


def mirror(
    tx: Transaction, recipient_norm: str, origin: str, at: datetime, source: str, *, held: bool
) -> None:
    """Record that Resend suppressed an address at a time, or with `held` false lifted it.

    Ignored when it is older than what Resend reported before, or than our own lifting.
    """
    reason = _REASONS.get(origin, "suppressed")
    if held:
        tx.run(
            "INSERT INTO email_suppression AS s (recipient_norm, reason, source_event, told_at)"
            " VALUES (:recipient, :reason, :source, :at)"
            " ON CONFLICT (recipient_norm) DO UPDATE SET told_at = excluded.told_at,"
            f" reason = CASE WHEN {ACTIVE} AND s.until IS NULL THEN s.reason"
            "  ELSE excluded.reason END, until = NULL, lifted_at = NULL"
            " WHERE coalesce(s.told_at, '-infinity') < excluded.told_at"
            " AND coalesce(s.lifted_at, '-infinity') < excluded.told_at",
            recipient=recipient_norm,
            reason=reason,
            source=source,
            at=at,
        )
        return
    # The row stays, so that an older report that arrives later is recognised. A suppression with an
    # end (a week's) is ours, not Resend's, and is not lifted.
    tx.run(
        "INSERT INTO email_suppression AS s (recipient_norm, reason, source_event, told_at,"
        " lifted_at) VALUES (:recipient, :reason, :source, :at, :at)"
        " ON CONFLICT (recipient_norm) DO UPDATE SET told_at = excluded.told_at,"
        f" lifted_at = CASE WHEN {ACTIVE} AND s.until IS NULL THEN excluded.told_at"
        "  ELSE s.lifted_at END"
        " WHERE coalesce(s.told_at, '-infinity') < excluded.told_at",
        recipient=recipient_norm,
        reason=reason,
        source=source,
        at=at,
    )


def compare(seconds: float) -> dict[str, Any]:
    """Add suppressions that only Resend has; record what differs, for `make status`.

    Reading stops after `seconds`. A suppression that only we have stays: if it is right, mail would
    do harm; if it is wrong, a person can lift it.
    """
    found = configured().suppressed(time.monotonic() + seconds)
    result: dict[str, Any] = {"theirs": len(found.addresses), "whole": found.whole}
    if found.refused:
        result["refused"] = found.refused
    theirs = {key(address): entry for address, entry in found.addresses.items()}
    with transaction() as tx:
        rows = tx.rows(
            f"SELECT s.recipient_norm, s.until, s.lifted_at, {ACTIVE} AS active"
            " FROM email_suppression s"
        )
        known = {str(row["recipient_norm"]): row for row in rows}
        lifted = [a for a in theirs if a in known and known[a]["lifted_at"] is not None]
        for address, (origin, since) in theirs.items():
            mirror(tx, address, origin, moment(since), "compared", held=True)
        ours = [a for a, row in known.items() if row["active"] and row["until"] is None]
        still = tx.value(
            int,
            "SELECT count(*) FROM email_suppression WHERE lifted_at IS NOT NULL"
            " AND recipient_norm = ANY(CAST(:lifted AS text[]))",
            lifted=lifted,
        )
        result["added"] = len(theirs.keys() - known.keys())
        result["onlyThere"] = still or 0
        result["onlyHere"] = len(set(ours) - theirs.keys()) if found.whole else 0
        tx.run(
            "INSERT INTO email_check (name, at, result)"
            " VALUES ('suppressions', now(), CAST(:result AS jsonb))"
            " ON CONFLICT (name) DO UPDATE SET at = excluded.at, result = excluded.result",
            result=json.dumps(result),
        )
    return result


def moment(text: object) -> datetime:
    """Parse a time as Resend writes it; an invalid one is now."""
    try:
        found = datetime.fromisoformat(str(text))
    except ValueError:
        return clock.now()
    return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)


def active(tx: Transaction, limit: int = 1000) -> list[dict[str, object]]:
    """Return the active suppressions, newest first."""
    return tx.rows(
        "SELECT s.recipient_norm, s.reason, s.source_event, s.created_at, s.until"
        f" FROM email_suppression s WHERE {ACTIVE} ORDER BY s.created_at DESC LIMIT :limit",
        limit=limit,
    )


def by_hand(asked: dict[str, Any]) -> dict[str, Any]:
    """List active suppressions, or lift one: `{}`, `{"show": true}` unmasked, `{"lift": …}`.

    `there` is what lifting did at the provider, as its `lift` returns it.
    """
    if given := str(asked.get("lift") or ""):
        with transaction() as tx:
            lifted = lift(tx, given)
        return {"lifted": lifted, "there": configured().lift(key_of(given))}
    with transaction() as tx:
        rows = active(tx)
    shown = str if asked.get("show") else mask
    return {
        "suppressions": [
            {
                "address": shown(str(row["recipient_norm"])),
                "reason": row["reason"],
                "since": _day(row["created_at"]),
                "until": _day(row["until"]),
            }
            for row in rows
        ]
    }


def _day(moment: Any) -> str | None:
    return moment.isoformat(timespec="minutes") if moment else None


def _add(
    tx: Transaction, recipient_norm: str, reason: str, source_event: str, days: int | None
) -> None:
    tx.run(
        "INSERT INTO email_suppression AS s (recipient_norm, reason, source_event, until)"
        " VALUES (:recipient, :reason, :source, now() + CAST(:days AS integer) * interval '1 day')"
        " ON CONFLICT (recipient_norm) DO UPDATE SET reason = excluded.reason,"
        " source_event = excluded.source_event, created_at = now(), until = excluded.until,"
        " lifted_at = NULL"
        # A complaint outranks a bounce, and a permanent suppression outranks a week's.
        f" WHERE NOT ({ACTIVE}) OR (s.until IS NOT NULL AND s.reason <> 'complained')"
        " OR (excluded.until IS NULL AND excluded.reason = 'complained')",
        recipient=recipient_norm,
        reason=reason,
        source=source_event,
        days=days,
    )
