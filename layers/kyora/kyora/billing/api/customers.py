"""A workspace's customer at Stripe: created once, before anything else, and stored here first."""

import hashlib
import json

from kyora.billing.events import resync
from kyora.postgres import transaction

_OWNER = """
SELECT c.id, c.default_payment_method_id, w.name AS workspace, u.email, u.name,
    (SELECT count(*) FROM billing_customer d
        WHERE d.workspace_id = w.id AND d.deleted_at IS NOT NULL) AS deleted
FROM workspace w
LEFT JOIN app_user u ON u.id = w.owner_id AND u.workspace_id = w.id AND u.deleted_at IS NULL
LEFT JOIN billing_customer c ON c.workspace_id = w.id AND c.deleted_at IS NULL AND NOT c.beside
WHERE w.id = :workspace_id
"""

_SAVED = """
SELECT coalesce((SELECT m.id FROM payment_method m
        WHERE m.id = c.default_payment_method_id AND NOT m.detached),
    (SELECT m.id FROM payment_method m WHERE m.customer_id = c.id AND NOT m.detached
        ORDER BY m.as_of DESC, m.id DESC LIMIT 1)) AS id
FROM billing_customer c WHERE c.id = :id
"""


def find(workspace_id: str) -> str | None:
    """Return the workspace's customer, if it has one."""
    with transaction() as tx:
        row = tx.row(
            "SELECT id FROM billing_customer"
            " WHERE workspace_id = :workspace_id AND deleted_at IS NULL AND NOT beside",
            workspace_id=workspace_id,
        )
    return str(row["id"]) if row else None


def ensure(workspace_id: str) -> str:
    """Return the workspace's customer, created if need be. Raises as `stripe_client.call` does.

    Concurrent requests use one idempotency key and so get one customer. The row is committed before
    anything is subscribed; a webhook that arrives earlier finds the workspace by its metadata.
    """
    from kyora.billing import stripe_client

    with transaction() as tx:
        row = tx.row(_OWNER, workspace_id=workspace_id) or {}
    if row.get("id"):
        return str(row["id"])
    asked = {
        "name": row.get("name") or row.get("workspace"),
        "email": row.get("email"),
        "metadata": {"workspaceId": workspace_id},
    }
    given = {name: value for name, value in asked.items() if value}
    # Stripe refuses a key with other parameters, so the current owner is part of it.
    digest = hashlib.sha256(json.dumps(given, sort_keys=True).encode()).hexdigest()[:16]
    key = f"cus:{workspace_id}:{row.get('deleted', 0)}:{digest}"
    made = str(stripe_client.call("post", "customers", idempotency_key=key, **given).object["id"])
    resync.adopt(made, workspace_id)
    return find(workspace_id) or made  # if two were created, the one that was linked first


def saved_method(customer_id: str) -> str | None:
    """Return the payment method to charge: the default one, else the latest."""
    with transaction() as tx:
        row = tx.row(_SAVED, id=customer_id)
    return str(row["id"]) if row and row["id"] else None
