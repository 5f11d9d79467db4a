"""Retention of Stripe's events and of the keys of announcements: their rows would grow forever."""

from kyora.postgres import transaction

_MANY = 1000  # rows at a time

# A body is kept for replays; an orphan that old will not find its workspace.
_FORGET_BODIES = """
UPDATE stripe_event SET body = NULL,
    status = CASE WHEN status = 'orphan' THEN 'processed' ELSE status END
WHERE ctid = ANY(ARRAY(SELECT ctid FROM stripe_event WHERE body IS NOT NULL
    AND received_at < now() - interval '35 days' AND status IN ('processed', 'orphan')
    ORDER BY received_at LIMIT :limit FOR UPDATE SKIP LOCKED))
"""
_FORGET_EVENTS = """
DELETE FROM stripe_event WHERE ctid = ANY(ARRAY(SELECT ctid FROM stripe_event WHERE body IS NULL
    AND received_at < now() - interval '400 days'
    ORDER BY received_at LIMIT :limit FOR UPDATE SKIP LOCKED))
"""
# Keys of announcements that only an event triggers, and Stripe lists events for 30 days. The others
# (a subscription began or ended, an invoice was paid) follow from objects at any time: without
# their keys they would be announced again.
_FORGET_FACTS = r"""
DELETE FROM billing_fact WHERE ctid = ANY(ARRAY(SELECT ctid FROM billing_fact
    WHERE (key LIKE 'dunning:%' OR key LIKE 'trial%' OR key LIKE 'turn:%' OR key LIKE 'ahead:%')
    AND created_at < now() - interval '400 days'
    ORDER BY created_at LIMIT :limit FOR UPDATE SKIP LOCKED))
"""


def forget_bodies() -> int:
    """Delete the bodies of up to a thousand events older than 35 days; return how many."""
    with transaction() as tx:
        return tx.run(_FORGET_BODIES, limit=_MANY)


def forget_events() -> int:
    """Delete up to a thousand events older than 400 days; return how many."""
    with transaction() as tx:
        return tx.run(_FORGET_EVENTS, limit=_MANY)


def forget_facts() -> int:
    """Delete up to a thousand keys of announcements older than 400 days; return how many."""
    with transaction() as tx:
        return tx.run(_FORGET_FACTS, limit=_MANY)
