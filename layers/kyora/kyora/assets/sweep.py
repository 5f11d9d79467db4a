"""Ending uploads past their time, and deleting the objects that no asset needs."""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from kyora.assets import asset_row, ledger
from kyora.observability import logger
from kyora.postgres import transaction
from kyora.storage.provider import provider

_BATCH = 200
_MAX_FAILURES = 3  # assets whose objects cannot be deleted, before a clean-up stops
_KEYS = 200  # objects of one asset that are deleted before it is another one's turn
_RESERVE = 10.0  # seconds that must be left for another step of a sweep


def sweep(remaining: Callable[[], float] = lambda: math.inf) -> dict[str, int]:
    """End reservations and uploads past their time, and delete objects that no asset needs.

    `remaining` gives the seconds left to work. Returns how many were `expired` and `cleaned`; a
    full batch means there may be more.
    """
    while remaining() > _RESERVE and ledger.lapse(_BATCH) == _BATCH:
        pass
    with transaction() as tx:
        row = tx.row(
            "WITH due AS (SELECT id FROM asset WHERE status IN ('pending', 'verifying')"
            "   AND confirm_deadline < now() AND (lease_until IS NULL OR lease_until < now())"
            "   ORDER BY confirm_deadline LIMIT :batch FOR UPDATE SKIP LOCKED),"
            " gone AS (UPDATE asset SET status = 'expired', lease_token = NULL,"
            "   lease_until = NULL, ended_at = now() FROM due WHERE asset.id = due.id"
            "   RETURNING asset.workspace_id, asset.size, asset.reserved),"
            " freed AS (UPDATE storage_usage u SET reserved_bytes = u.reserved_bytes - g.bytes"
            "   FROM (SELECT workspace_id, sum(size)::bigint AS bytes FROM gone WHERE reserved"
            "     GROUP BY 1) g"
            "   WHERE u.workspace_id = g.workspace_id RETURNING 1)"
            " SELECT (SELECT count(*) FROM gone) AS expired, (SELECT count(*) FROM freed) AS n",
            batch=_BATCH,
        )
        # A minute's grace leaves the worker that ended the asset its own clean-up.
        left = tx.rows(
            "SELECT id, workspace_id, status, final_attempt,"
            " ARRAY(SELECT unnest(attempts) LIMIT :keys) AS attempts"
            " FROM asset WHERE cleaned_at IS NULL AND ended_at IS NOT NULL"
            " AND coalesce(clean_after, ended_at) < now()"
            " AND ended_at < now() - interval '1 minute'"
            " ORDER BY coalesce(clean_after, ended_at) LIMIT :batch",
            keys=_KEYS,
            batch=_BATCH,
        )
    expired = int(str(row["expired"])) if row else 0
    return {"expired": expired, "cleaned": clean(left, remaining)}


def clean(
    rows: Iterable[Mapping[str, Any]], remaining: Callable[[], float] = lambda: math.inf
) -> int:
    """Delete the objects that ended assets do not need, one asset after the other.

    Each is committed alone. One that fails moves back in the queue; one with many objects gets
    another turn.
    """
    store = provider()
    cleaned = failures = 0
    for row in rows:
        if failures == _MAX_FAILURES or remaining() < _RESERVE:
            break
        keep = row["final_attempt"] if row["status"] == "ready" else None
        tokens = [token for token in row["attempts"][:_KEYS] if token != keep]
        try:
            copies = [asset_row.attempt_key(row, token) for token in tokens]
            store.delete([asset_row.incoming_key(row), *copies])
        except Exception as error:  # whatever is wrong with it, others wait behind
            failures += 1
            logger().warning(
                "objects left to the sweep", asset_id=row["id"], error=type(error).__name__
            )
            _put_back(row)
            continue
        cleaned += _note_cleaned(row, keep)
    return cleaned


def _note_cleaned(row: Mapping[str, Any], keep: str | None) -> bool:
    """Write down what was deleted; return whether nothing is left to do."""
    with transaction() as tx:
        # A row that was deleted meanwhile has more to clean than we have seen.
        noted = tx.row(
            "UPDATE asset SET attempts = CASE WHEN cardinality(attempts) <= :keys THEN attempts"
            "   ELSE ARRAY(SELECT token FROM unnest(attempts) WITH ORDINALITY AS a (token, place)"
            "     WHERE place > :keys OR token = CAST(:keep AS text) ORDER BY place) END,"
            " clean_after = CASE WHEN cardinality(attempts) > :keys THEN now() END,"
            " cleaned_at = CASE WHEN cardinality(attempts) <= :keys THEN now() END"
            " WHERE id = :id AND workspace_id = :workspace_id AND status = :status"
            " RETURNING cleaned_at IS NOT NULL AS done",
            keys=_KEYS,
            keep=keep,
            id=row["id"],
            workspace_id=row["workspace_id"],
            status=row["status"],
        )
    return bool(noted and noted["done"])


def _put_back(row: Mapping[str, Any]) -> None:
    """Look at a row again after as long as it has failed: five minutes to a day."""
    with transaction() as tx:
        tx.run(
            "UPDATE asset SET clean_after = now()"
            " + least(interval '1 day', greatest(interval '5 minutes', now() - ended_at))"
            " WHERE id = :id AND workspace_id = :workspace_id AND status = :status",
            id=row["id"],
            workspace_id=row["workspace_id"],
            status=row["status"],
        )
