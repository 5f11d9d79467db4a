"""What must hold at any time, checked a little every minute by report_status.

    events    published = handled + waiting + given up, for each consumer
    storage   the ledger of a workspace = the sum of its files and their variants

Postgres knows what was published and what was handled; what is neither is kept in `difference`. The
queues know what waits and what was given up: alarms (template.yaml) and `make status` subtract
that, and what is left is lost. Only events of our own outbox can be counted.

That our mirror is what Stripe has is the third one: `billing.jobs.reconcile` compares all of it
once a day. Like `kyora.status` this module reads every domain's tables and belongs to none.
"""

from collections.abc import Mapping
from typing import Any

from kyora.postgres import Transaction, transaction

# Consumer → the events that its rule in template.yaml passes on. That of make_variants passes on
# an AssetReady only if its data has `variants`.
CONSUMERS: Mapping[str, tuple[str, ...]] = {
    "send_email": (
        "EmailVerificationRequested",
        "PasswordResetRequested",
        "UserWelcomed",
        "WorkspaceInvitationCreated",
        "SubscriptionActivated",
        "SubscriptionCancelled",
        "PaymentFailed",
        "TrialEnding",
        "PaymentRecovered",
        "GraceEnding",
        "PaymentMethodExpiring",
        "RenewalUpcoming",
        "AssetQuarantined",
        "SubscriptionPaused",
        "SubscriptionResumed",
    ),
    "record_transaction_fee": ("OrderPaymentSucceeded",),
    "update_analytics": ("OrderCreated", "CustomerCreated"),
    "make_variants": ("AssetReady",),
}
STORAGE = "storage"
_EVENTS, _WORKSPACES = 1000, 20  # at once
_TURNS = 20  # of a run, while more events are due
# An event has this long to arrive. It is on its way for seconds, and a commit may be late.
_PATIENCE = "10 minutes"
# A queue and its dead-letter queue keep a message for eighteen days.
_KEPT = "18 days"

# `send_email` notes what it handles in its own table, the others in `inbox`.
_HANDLED = """
(EXISTS (SELECT 1 FROM inbox WHERE consumer = d.name AND event_id = d.subject)
    OR d.name = 'send_email' AND EXISTS (SELECT 1 FROM email_message WHERE event_id = d.subject))
"""
# Of a row of `outbox`: whether its event is an AssetReady that make_variants takes.
WANTS_VARIANTS = "coalesce(detail #> '{data,variants}' = 'true', false) AS variants"
_NEW = f"""
WITH since AS (
    SELECT coalesce((SELECT position::timestamptz FROM check_position WHERE name = 'events'),
        now() - interval '1 hour') AS at),
due AS MATERIALIZED (
    SELECT id, detail_type, {WANTS_VARIANTS}, published_at FROM outbox
    WHERE published_at > (SELECT at FROM since) AND published_at < now() - interval '{_PATIENCE}'
    ORDER BY published_at LIMIT {_EVENTS}),
-- Events of one transaction have one time: all of the last one's, or they would be passed over.
whole AS (
    SELECT id, detail_type, variants, published_at FROM due
    UNION SELECT id, detail_type, {WANTS_VARIANTS}, published_at FROM outbox
    WHERE published_at = (SELECT max(published_at) FROM due)),
missing AS (
    INSERT INTO difference (name, subject, since)
    SELECT d.name, d.subject, d.since FROM (
        SELECT c.name, whole.id AS subject, whole.published_at AS since FROM whole
        JOIN unnest(CAST(:names AS text[]), CAST(:events AS text[])) AS c (name, event)
            ON c.event = whole.detail_type
        WHERE c.name <> 'make_variants' OR whole.variants) AS d
    WHERE NOT {_HANDLED}
    ON CONFLICT DO NOTHING),
moved AS (
    INSERT INTO check_position (name, position)
    SELECT 'events', max(published_at)::text FROM due HAVING count(*) > 0
    ON CONFLICT (name) DO UPDATE SET position = excluded.position)
SELECT count(*) FROM due
"""
_HANDLED_SINCE = f"""
DELETE FROM difference d WHERE name = ANY(CAST(:names AS text[]))
AND ({_HANDLED} OR since < now() - interval '{_KEPT}')
"""
# One statement, so that files and ledger are of one moment.
_LEDGERS = f"""
WITH checked AS (
    SELECT workspace_id, (used_bytes, reserved_bytes) = (
        (SELECT coalesce(sum(size), 0) FROM asset a
            WHERE a.workspace_id = u.workspace_id AND status = 'ready')
        + (SELECT coalesce(sum(size), 0) FROM asset_variant v
            WHERE v.workspace_id = u.workspace_id),
        (SELECT coalesce(sum(size), 0) FROM asset a
            WHERE a.workspace_id = u.workspace_id AND status IN ('pending', 'verifying', 'scanning')
                AND reserved)
        + (SELECT coalesce(sum(reserved_bytes), 0) FROM variant_set s
            WHERE s.workspace_id = u.workspace_id AND status = 'making')) AS good
    FROM storage_usage u
    WHERE workspace_id > coalesce((SELECT position FROM check_position WHERE name = 'storage'), '')
    ORDER BY workspace_id LIMIT {_WORKSPACES}),
bad AS (
    INSERT INTO difference (name, subject, since) SELECT 'storage', workspace_id, now()
    FROM checked WHERE NOT good ON CONFLICT DO NOTHING),
fixed AS (
    DELETE FROM difference WHERE name = 'storage'
        AND subject IN (SELECT workspace_id FROM checked WHERE good))
INSERT INTO check_position (name, position)
SELECT 'storage', CASE WHEN count(*) < {_WORKSPACES} THEN '' ELSE max(workspace_id) END FROM checked
ON CONFLICT (name) DO UPDATE SET position = excluded.position
"""
_COUNTED = """
SELECT name, count(*) AS count, min(subject) AS example,
    extract(epoch FROM now() - min(since))::float8 AS age
FROM difference GROUP BY name
"""


def check() -> dict[str, int]:
    """Check what is due; return how many differ, by what must hold. Raises Unavailable."""
    with transaction() as tx:
        pairs = [(name, event) for name, events in CONSUMERS.items() for event in events]
        names, events = (list(column) for column in zip(*pairs, strict=True))
        for _ in range(_TURNS):
            if (tx.value(int, _NEW, names=names, events=events) or 0) < _EVENTS:
                break
        tx.run(_HANDLED_SINCE, names=list(CONSUMERS))
        tx.run(_LEDGERS)
        found = read(tx)
    return {name: found[name]["count"] if name in found else 0 for name in (*CONSUMERS, STORAGE)}


def read(tx: Transaction) -> dict[str, dict[str, Any]]:
    """Return what differs: how many, one of them, and for how many seconds the oldest has."""
    return {str(row.pop("name")): row for row in tx.rows(_COUNTED)}
