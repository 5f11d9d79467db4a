"""Tables full of rows from now back to a time long past."""

from collections.abc import Callable

from kyora import cache, idempotency, postgres
from kyora.assets import retention as uploads
from kyora.billing import calls
from kyora.billing import retention as stripe
from kyora.bus import retention as bus
from kyora.email import retention as mail

_AGE = "now() - n * interval '500 days' / :rows"
# The purge of each table, its columns, and a row's values; n counts up to the number of rows.
PURGES: dict[str, tuple[Callable[[], int], str, str]] = {
    "outbox": (
        bus.forget_published,
        "(id, source, detail_type, detail, created_at, published_at)",
        f"'evt_' || n, 's', 't', '{{}}', {_AGE}, {_AGE}",
    ),
    "inbox": (bus.forget_seen, "(consumer, event_id, received_at)", f"'c', 'evt_' || n, {_AGE}"),
    "asset": (
        uploads.forget,
        """(id, workspace_id, created_by, filename, content_type, size, status, url_expires_at,
        confirm_deadline, ended_at, cleaned_at)""",
        f"""'ast_' || n, 'ws_demo', 'u', 'a.png', 'image/png', 1,
        CASE n % 5 WHEN 0 THEN 'expired' ELSE 'deleted' END, {_AGE}, {_AGE}, {_AGE}, now()""",
    ),
    "email_message": (
        mail.forget,
        """(id, event_id, event, template, recipient, recipient_norm, correlation_id, locale,
        status, expires_at, ended_at)""",
        f"'e' || n, 'e' || n, 'e', 't', 'r', 'r', 'c', 'en', 'sent', {_AGE}, {_AGE}",
    ),
    "email_event": (
        mail.forget,
        "(id, type, payload, received_at)",
        f"'m' || n, 'email.sent', '{{}}', {_AGE}",
    ),
    "idempotency_key": (
        idempotency.forget,
        "(workspace_id, operation, key, request_hash, response, created_at)",
        f"'ws_demo', 'o', n::text, 'h', '{{}}', {_AGE}",
    ),
    "cache_entry": (
        cache.forget,
        "(key, value, expires_at)",
        f"decode(lpad(to_hex(n), 8, '0'), 'hex'), ''::bytea, {_AGE} + interval '250 days'",
    ),
    "stripe_event": (
        stripe.forget_events,
        "(id, type, created, source, status, received_at)",
        f"'evt_' || n, 't', 1, 'webhook', 'processed', {_AGE}",
    ),
    "stripe_event with its body": (
        stripe.forget_bodies,
        "(id, type, created, source, body, status, received_at)",
        f"'evt_b' || n, 't', 1, 'webhook', '{{}}', 'processed', {_AGE}",
    ),
    "stripe_call": (
        calls.forget,
        "(request_id, method, path, correlation_id, called_at)",
        f"'req_' || n, 'post', 'customers', 'c', {_AGE}",
    ),
    "billing_fact": (
        stripe.forget_facts,
        "(key, created_at)",
        f"'dunning:' || n, {_AGE}",
    ),
}


def fill(name: str, rows: int) -> str:
    """Fill a table so that about four fifths of it are past their time; return the table's name."""
    _, columns, values = PURGES[name]
    table = name.split(maxsplit=1)[0]
    with postgres.transaction() as tx:
        tx.run(
            f"INSERT INTO {table} {columns} SELECT {values}"
            " FROM generate_series(1, CAST(:rows AS integer)) AS n",
            rows=rows,
        )
    with postgres.transaction(owner=True) as tx:
        tx.run(f"ANALYZE {table}")
    return table
