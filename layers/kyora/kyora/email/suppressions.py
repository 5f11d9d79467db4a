"""Addresses that get no mail: they bounced for good, complained, or bounce too often."""

from typing import Any

from kyora.email.address import key, mask
from kyora.postgres import Transaction, transaction

# Whether the suppression `s` holds at this moment.
ACTIVE = "s.lifted_at IS NULL AND (s.until IS NULL OR s.until > now())"
_BOUNCES, _DAYS = 3, 7


def suppress(tx: Transaction, recipient_norm: str, reason: str, source_event: str) -> None:
    """Send nothing more to the address. One that bounced for good stays, whatever comes later."""
    _add(tx, recipient_norm, reason, source_event, None)


def count_bounces(tx: Transaction, recipient_norm: str, source_event: str) -> None:
    """Rest an address for a week when it has bounced three times within one.

    What happened before somebody lifted its suppression does not count again.
    """
    # Bounces that arrive together must see each other: one at a time, from here to the commit.
    tx.rows(
        "SELECT pg_advisory_xact_lock(hashtextextended(:key, 0))", key=f"bounce {recipient_norm}"
    )
    row = tx.row(
        "SELECT count(*) AS bounces FROM email_event"
        " WHERE temporary AND recipient_norm = :recipient"
        f" AND received_at > greatest(now() - interval '{_DAYS} days', (SELECT s.lifted_at"
        "  FROM email_suppression s WHERE s.recipient_norm = :recipient))",
        recipient=recipient_norm,
    )
    if row is not None and int(str(row["bounces"])) >= _BOUNCES:
        _add(tx, recipient_norm, "bouncing", source_event, _DAYS)


def lift(tx: Transaction, recipient: str) -> bool:
    """Let mail go to the address again; False when nothing held it."""
    return bool(
        tx.run(
            "UPDATE email_suppression s SET lifted_at = now()"
            f" WHERE s.recipient_norm = :recipient AND {ACTIVE}",
            recipient=key(recipient),
        )
    )


def active(tx: Transaction, limit: int = 1000) -> list[dict[str, object]]:
    """Return what holds at this moment, newest first."""
    return tx.rows(
        "SELECT s.recipient_norm, s.reason, s.source_event, s.created_at, s.until"
        f" FROM email_suppression s WHERE {ACTIVE} ORDER BY s.created_at DESC LIMIT :limit",
        limit=limit,
    )


def by_hand(asked: dict[str, Any]) -> dict[str, Any]:
    """List what holds, or lift one: `{}`, `{"show": true}` for whole addresses, `{"lift": …}`."""
    with transaction() as tx:
        if asked.get("lift"):
            return {"lifted": lift(tx, str(asked["lift"]))}
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
        # A complaint is worth more than a bounce, and for good more than for a week.
        f" WHERE NOT ({ACTIVE}) OR (s.until IS NOT NULL AND s.reason <> 'complained')"
        " OR (excluded.until IS NULL AND excluded.reason = 'complained')",
        recipient=recipient_norm,
        reason=reason,
        source=source_event,
        days=days,
    )
