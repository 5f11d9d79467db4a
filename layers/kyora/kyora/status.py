"""What is waiting, what is stuck and what ran last: the figures of `make status`.

It reads every domain's tables and belongs to none. local/commands/status.py shows the figures and
says what each means.
"""

from typing import Any

from kyora import config, invariants
from kyora.postgres import transaction

# Scheduled functions and the minutes between two runs, which `schedule.minutes` may lengthen.
# `make status` and SchedulesAlarm watch each of them. sync_plans, reconcile_billing and send_email
# have lines of their own there.
SCHEDULES = {
    "relay_outbox": 1,
    "sweep_billing": 1,
    "report_status": 1,
    "purge_data": 5,
    "sweep_uploads": 5,
}

# Ages are in seconds; each row is one line of the screen.
_OUTBOX = """
SELECT count(*) AS waiting, extract(epoch FROM now() - min(created_at))::float8 AS oldest,
    count(*) FILTER (WHERE refused) AS refused,
    coalesce(max(last_error) FILTER (WHERE refused), max(last_error)) AS error
FROM outbox WHERE published_at IS NULL
"""
# Paid for without access: the customer has no workspace, or the price has no plan.
UNSERVED = """
SELECT s.id, s.customer_id, c.workspace_id FROM subscription s
JOIN billing_customer c ON c.id = s.customer_id AND c.deleted_at IS NULL
LEFT JOIN plan p ON p.id = s.plan_id
WHERE s.status IN ('active', 'trialing', 'past_due') AND coalesce(p.amount, 1) > 0
    AND (c.workspace_id IS NULL AND s.plan_id IS NOT NULL
        OR c.workspace_id IS NOT NULL AND s.unplanned_since IS NOT NULL)
"""
_STRIPE = f"""
SELECT count(*) FILTER (WHERE status = 'received') AS waiting,
    extract(epoch FROM now() - min(received_at) FILTER (WHERE status = 'received'))::float8
        AS oldest,
    count(*) FILTER (WHERE status = 'failed') AS parked,
    max(last_error) AS error,
    (SELECT count(*) FROM stripe_event WHERE status = 'orphan') AS orphans,
    (SELECT count(*) FROM subscription WHERE doubtful) AS doubtful,
    (SELECT count(*) FROM ({UNSERVED}) AS unserved) AS unserved,
    (SELECT min(customer_id) FROM ({UNSERVED}) AS unserved) AS unserved_customer
FROM stripe_event WHERE status = 'received' OR status = 'failed'
"""
# Not accepted by the provider at the first attempt; `lost` needs a person.
_MAIL = """
SELECT count(*) AS waiting, extract(epoch FROM now() - min(created_at))::float8 AS oldest,
    max(reason) AS reason,
    (SELECT count(*) FROM email_message WHERE seen_at IS NULL
        AND status IN ('accepted_unknown', 'dead', 'failed')
        AND (status <> 'accepted_unknown' OR ended_at < now() - interval '15 minutes'))
    + (SELECT count(*) FROM email_message WHERE seen_at IS NULL AND status = 'sending'
        AND lease_until < now() - interval '15 minutes') AS lost,
    (SELECT extract(epoch FROM max(open_until) - now())::float8 FROM email_provider_state
        WHERE open_until > now()) AS held
FROM email_message WHERE ended_at IS NULL AND status = 'queued' AND attempts > 0
"""
_SUPPRESSIONS = """
SELECT extract(epoch FROM now() - at)::float8 AS age, result FROM email_check
WHERE name = 'suppressions'
"""
_DOMAINS = "SELECT name, status FROM email_domain ORDER BY name"
_UPLOADS = """
SELECT count(*) AS late FROM asset
WHERE status IN ('pending', 'verifying') AND confirm_deadline < now() - interval '10 minutes'
    OR status = 'scanning' AND scan_deadline < now() - interval '10 minutes'
"""
_RUNS = """
SELECT name, extract(epoch FROM now() - finished_at)::float8 AS age,
    extract(epoch FROM now() - started_at)::float8 AS begun, result
FROM billing_run
"""
_BEATS = "SELECT name, extract(epoch FROM now() - at)::float8 AS age FROM heartbeat"


def read() -> dict[str, Any]:
    """Return the figures by domain. Raises Unavailable."""
    with transaction() as tx:
        return {
            "outbox": tx.row(_OUTBOX),
            "stripe": tx.row(_STRIPE),
            "mail": tx.row(_MAIL),
            "suppressions": tx.row(_SUPPRESSIONS),
            "domains": tx.rows(_DOMAINS),
            "uploads": tx.row(_UPLOADS),
            "runs": {row["name"]: row for row in tx.rows(_RUNS)},
            "beats": {row["name"]: row["age"] for row in tx.rows(_BEATS)},
            "schedules": minutes(),
            "differences": invariants.read(tx),
        }


def minutes() -> dict[str, int]:
    """Return the minutes between two runs of each scheduled function, as deployed."""
    fewest = config.schedule_minutes()
    return {name: max(usual, fewest) for name, usual in SCHEDULES.items()}


def overdue() -> float:
    """Return for how many seconds the latest of the scheduled functions has been overdue.

    0 for one that has never run: a deploy starts them. Raises Unavailable.
    """
    expected = minutes()
    with transaction() as tx:
        late = tx.value(
            float,
            "SELECT max(extract(epoch FROM now() - at) - 60 * minutes)::float8"
            " FROM unnest(CAST(:names AS text[]), CAST(:minutes AS integer[])) AS s (name, minutes)"
            " JOIN heartbeat USING (name)",
            names=list(expected),
            minutes=list(expected.values()),
        )
    return max(0.0, late or 0.0)


def beat(name: str) -> None:
    """Record that a scheduled function has just finished."""
    with transaction() as tx:
        tx.run(
            "INSERT INTO heartbeat (name, at) VALUES (:name, now())"
            " ON CONFLICT (name) DO UPDATE SET at = excluded.at",
            name=name,
        )
