"""What a subscription costs and what is planned for it, as we know it.

A webhook only names the schedule. What it plans is read from Stripe when the name is another one,
when the items are, or when the planned moment has come: `known` says whether that is needed.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from kyora import clock
from kyora.billing.stripe_terms import Terms
from kyora.postgres import Transaction


def known(row: Mapping[str, Any], terms: Terms, period_start: object) -> bool:
    """Return whether a payload and what we know of its schedule together say everything.

    `row` is our row of the subscription, with its terms. Not with other items: we know what the
    next phase changes relative to the items that were there.
    """
    if terms.known:
        return True
    # A payload that was used while Stripe was unreachable said nothing of what is planned.
    if row["items"] is None or row["doubtful"] is not False:
        return False
    if (row["schedule_id"], row["items"]) != (terms.schedule, terms.items):
        return False
    planned = [row["pending_at"], row["resume_at"]]
    begun = period_start if isinstance(period_start, datetime) else clock.now()
    return not any(isinstance(at, datetime) and at <= begun for at in planned)


# Mirrors the terms of subscription `:id`, with `values`. A schedule that is only named keeps what
# we know of it.
WRITE = """
INSERT INTO subscription_terms AS t
    (subscription_id, items, schedule_id, pending, pending_at, resume_at, release_due)
VALUES (:id, CAST(:items AS jsonb), :schedule, CAST(:pending AS jsonb), :pending_at, :resume_at,
    :release_due)
ON CONFLICT (subscription_id) DO UPDATE SET items = excluded.items,
    schedule_id = excluded.schedule_id,
    pending = CASE WHEN :kept AND t.schedule_id = excluded.schedule_id THEN t.pending
        ELSE excluded.pending END,
    pending_at = CASE WHEN :kept AND t.schedule_id = excluded.schedule_id THEN t.pending_at
        ELSE excluded.pending_at END,
    resume_at = CASE WHEN :kept AND t.schedule_id = excluded.schedule_id THEN t.resume_at
        ELSE excluded.resume_at END,
    release_due = CASE WHEN :kept AND t.schedule_id = excluded.schedule_id THEN t.release_due
        ELSE excluded.release_due END
WHERE (t.items, t.schedule_id, t.pending, t.pending_at, t.resume_at, t.release_due)
    IS DISTINCT FROM (excluded.items, excluded.schedule_id, excluded.pending,
        excluded.pending_at, excluded.resume_at, excluded.release_due)
"""


def values(terms: Terms) -> dict[str, object]:
    """Return the values of `WRITE`, without the subscription's id."""
    return {
        "items": json.dumps(terms.items),
        "schedule": terms.schedule,
        "pending": None if terms.pending is None else json.dumps(terms.pending),
        "pending_at": terms.pending_at,
        "resume_at": terms.resume_at,
        "release_due": terms.release_due,
        "kept": not terms.known,
    }


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
