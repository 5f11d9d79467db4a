"""`Idempotency-Key` on POST: the answer is stored in the transaction that has the effect.

The effect and its answer exist together or not at all, and a crashed request leaves nothing
behind. A transaction lock makes a second request with the same key answer 409 while the first is
still running.
"""

import hashlib
import json
from collections.abc import Callable
from typing import Any

from kyora.errors import Conflict, Invalid
from kyora.postgres import Transaction, transaction

_KEPT = "24 hours"


def once(
    tx: Transaction,
    workspace_id: str,
    operation: str,
    key: str,
    request: object,
    produce: Callable[[], dict[str, Any]],
) -> dict[str, Any]:
    """Return the stored answer for `key`, or produce and store it. An empty key just produces.

    Raises Conflict `idempotency.in_progress` and Invalid `idempotency.key_reused`.
    """
    if not key:
        return produce()
    kept = recall(tx, workspace_id, operation, key, request)
    return keep(tx, workspace_id, operation, key, request, produce()) if kept is None else kept


def recall(
    tx: Transaction, workspace_id: str, operation: str, key: str, request: object
) -> dict[str, Any] | None:
    """Return the stored answer for `key`, or None; locks the key until the commit.

    For work that does not fit in one transaction. An empty key has no answer. Raises as `once`.
    """
    if not key:
        return None
    if len(key) > 255 or not key.isascii() or not key.isprintable():
        raise Invalid(
            "An Idempotency-Key has 1 to 255 printable ASCII characters.",
            errors=[{"field": "Idempotency-Key", "message": "not valid"}],
        )
    locked = tx.value(
        bool,
        "SELECT pg_try_advisory_xact_lock(hashtextextended(:name, 0))",
        name=f"{workspace_id}\n{operation}\n{key}",
    )
    if not locked:
        raise in_progress()
    kept = tx.row(
        "SELECT request_hash, response FROM idempotency_key WHERE workspace_id = :workspace_id"
        f" AND operation = :operation AND key = :key AND created_at > now() - interval '{_KEPT}'",
        workspace_id=workspace_id,
        operation=operation,
        key=key,
    )
    if kept is None:
        return None
    if kept["request_hash"] != _digest(request):
        raise Invalid("This key was used with another request.", code="idempotency.key_reused")
    return ordered(kept["response"])


def keep(
    tx: Transaction,
    workspace_id: str,
    operation: str,
    key: str,
    request: object,
    response: dict[str, Any],
) -> dict[str, Any]:
    """Store an answer for `key`, unless that is empty; return it as it will be repeated."""
    response = ordered(response)
    if key:
        tx.run(
            "INSERT INTO idempotency_key (workspace_id, operation, key, request_hash, response)"
            " VALUES (:workspace_id, :operation, :key, :digest, CAST(:response AS jsonb))"
            " ON CONFLICT (workspace_id, operation, key) DO UPDATE SET created_at = now(),"
            " request_hash = excluded.request_hash, response = excluded.response",
            workspace_id=workspace_id,
            operation=operation,
            key=key,
            digest=_digest(request),
            response=json.dumps(response, ensure_ascii=False),
        )
    return response


def asked(user_id: str, body: object) -> dict[str, object]:
    """Return a request as it is compared: a key belongs to one user, not to the workspace."""
    return {"by": user_id, "body": body}


def forget() -> int:
    """Delete up to a thousand expired answers; return how many."""
    with transaction() as tx:
        return tx.run(
            "DELETE FROM idempotency_key WHERE ctid = ANY(ARRAY(SELECT ctid FROM idempotency_key"
            f" WHERE created_at < now() - interval '{_KEPT}' ORDER BY created_at LIMIT 1000"
            " FOR UPDATE SKIP LOCKED))"
        )


def in_progress() -> Conflict:
    """Return the refusal of a key whose request is still running."""
    return Conflict(
        "A request with this key is still running.",
        code="idempotency.in_progress",
        retry_after=1,
    )


def _digest(request: object) -> str:
    return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()


def ordered(response: object) -> dict[str, Any]:
    """Return the answer with its keys sorted: jsonb keeps no order, and a repeat is identical."""
    found: dict[str, Any] = json.loads(json.dumps(response, sort_keys=True))
    return found
