"""Expire late uploads, and delete the objects that no asset needs."""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from kyora.assets import asset_row, ledger
from kyora.assets.deletion import RESERVE, deleted
from kyora.assets.variants import cleanup
from kyora.postgres import transaction
from kyora.storage.provider import provider

_BATCH = 200
_KEYS = 200  # objects of one asset deleted in one batch


def sweep(remaining: Callable[[], float] = lambda: math.inf) -> dict[str, int]:
    """End late reservations, uploads and leases, and delete objects that no asset needs.

    `remaining` returns the seconds left. Returns how many assets were `expired`, and how many
    assets and sets of variants were `cleaned`; call again until both are 0.
    """
    for lapse in (ledger.lapse, cleanup.lapse):
        while remaining() > RESERVE and lapse(_BATCH) == _BATCH:
            pass
    with transaction() as tx:
        expired = tx.value(
            int,
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
            " SELECT count(*) FROM gone",
            batch=_BATCH,
        )
        # The worker that ended the asset cleans up itself; the sweep waits a minute for it.
        left = tx.rows(
            "SELECT id, workspace_id, status, final_attempt, store_upload, joined_at,"
            " ARRAY(SELECT unnest(attempts) LIMIT :keys) AS attempts"
            " FROM asset WHERE cleaned_at IS NULL AND ended_at IS NOT NULL"
            " AND coalesce(clean_after, ended_at) < now()"
            " AND ended_at < now() - interval '1 minute'"
            " ORDER BY coalesce(clean_after, ended_at) LIMIT :batch",
            keys=_KEYS,
            batch=_BATCH,
        )
    cleaned = clean(left, remaining) + cleanup.sweep(remaining)
    return {"expired": expired or 0, "cleaned": cleaned}


def clean(
    rows: Iterable[Mapping[str, Any]], remaining: Callable[[], float] = lambda: math.inf
) -> int:
    """Delete the objects that ended assets do not need; return how many assets are done.

    Each asset is committed on its own. One that fails is retried later; one with more than 200
    objects continues in the next sweep.
    """
    return sum(_note_cleaned(row) for row in deleted(rows, remaining, _delete, _put_back))


def _kept(row: Mapping[str, Any]) -> str | None:
    """Return the attempt whose copy is the asset's file."""
    return row["final_attempt"] if row["status"] == "ready" else None


def _delete(row: Mapping[str, Any]) -> None:
    store = provider()
    if row["store_upload"] and not row["joined_at"]:
        store.drop_parts(asset_row.incoming_key(row), row["store_upload"])
    tokens = [token for token in row["attempts"][:_KEYS] if token != _kept(row)]
    copies = [asset_row.attempt_key(row, token) for token in tokens]
    store.delete([asset_row.incoming_key(row), *copies])


def _note_cleaned(row: Mapping[str, Any]) -> bool:
    """Store what was deleted. Return True if nothing is left to delete."""
    with transaction() as tx:
        # Status: if the asset was deleted meanwhile, more has to go than we have deleted.
        noted = tx.row(
            "UPDATE asset SET attempts = CASE WHEN cardinality(attempts) <= :keys THEN attempts"
            "   ELSE ARRAY(SELECT token FROM unnest(attempts) WITH ORDINALITY AS a (token, place)"
            "     WHERE place > :keys OR token = CAST(:keep AS text) ORDER BY place) END,"
            " clean_after = CASE WHEN cardinality(attempts) > :keys THEN now() END,"
            " cleaned_at = CASE WHEN cardinality(attempts) <= :keys THEN now() END"
            " WHERE id = :id AND workspace_id = :workspace_id AND status = :status"
            " RETURNING cleaned_at IS NOT NULL AS done",
            keys=_KEYS,
            keep=_kept(row),
            id=row["id"],
            workspace_id=row["workspace_id"],
            status=row["status"],
        )
    return bool(noted and noted["done"])


def _put_back(row: Mapping[str, Any]) -> None:
    """Retry after as long as it has been failing already: five minutes to a day."""
    with transaction() as tx:
        tx.run(
            "UPDATE asset SET clean_after = now()"
            " + least(interval '1 day', greatest(interval '5 minutes', now() - ended_at))"
            " WHERE id = :id AND workspace_id = :workspace_id AND status = :status",
            id=row["id"],
            workspace_id=row["workspace_id"],
            status=row["status"],
        )
