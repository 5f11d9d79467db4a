"""End sets of variants and leases, and delete the objects that no set needs."""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from kyora.assets import ledger
from kyora.assets.deletion import deleted
from kyora.assets.variants import variant_row
from kyora.postgres import Transaction, transaction
from kyora.storage.provider import provider

_BATCH = 100
# Objects of a token that leaves the set are deleted soon: by the sweep, or earlier.
_STALE = (
    " stale = stale || lease_token, clean_after = coalesce(clean_after, now()),"
    " lease_token = NULL, lease_until = NULL, reserved_bytes = 0"
)


def published_bytes(tx: Transaction, asset: Mapping[str, Any]) -> int:
    """Return the bytes of the published variants of an asset."""
    found = tx.value(
        int,
        "SELECT coalesce(sum(size), 0)::bigint FROM asset_variant"
        " WHERE asset_id = :id AND workspace_id = :workspace_id",
        id=asset["id"],
        workspace_id=asset["workspace_id"],
    )
    return found or 0


def end_lease(tx: Transaction, found: Mapping[str, Any]) -> None:
    """End the lease of a worker that is gone; `found` is the locked row of its set."""
    if found["status"] != "making":
        return
    tx.run(
        f"UPDATE variant_set SET status = 'waiting',{_STALE}"
        " WHERE asset_id = :id AND workspace_id = :workspace_id",
        id=found["asset_id"],
        workspace_id=found["workspace_id"],
    )
    ledger.move(tx, found["workspace_id"], reserved=-found["reserved_bytes"])


def release(
    tx: Transaction, asset: Mapping[str, Any], token: str, *, reason: str | None = None
) -> bool:
    """End a lease that its own worker gives up; False if it had lost it.

    With a `reason` the set has failed; without one it waits, and the claim does not count.
    """
    ended = tx.row(
        "WITH old AS (SELECT asset_id, reserved_bytes FROM variant_set WHERE asset_id = :id"
        " AND workspace_id = :workspace_id AND lease_token = :token FOR UPDATE)"
        " UPDATE variant_set s SET"
        " status = CASE WHEN CAST(:reason AS text) IS NULL THEN 'waiting' ELSE 'failed' END,"
        " reason = :reason,"
        " claims = CASE WHEN CAST(:reason AS text) IS NULL THEN s.claims - 1 ELSE 0 END,"
        " stale = s.stale || s.lease_token, clean_after = coalesce(s.clean_after, now()),"
        " lease_token = NULL, lease_until = NULL, reserved_bytes = 0"
        " FROM old WHERE s.asset_id = old.asset_id RETURNING old.reserved_bytes",
        id=asset["id"],
        workspace_id=asset["workspace_id"],
        token=token,
        reason=reason,
    )
    if ended is not None:
        ledger.move(tx, asset["workspace_id"], reserved=-int(str(ended["reserved_bytes"])))
    return ended is not None


def withdraw(tx: Transaction, asset: Mapping[str, Any]) -> None:
    """End the set of an asset that goes, whatever its state, and free its bytes.

    A worker that still makes variants publishes none. `clean` deletes the objects.
    """
    whose = {"id": asset["id"], "workspace_id": asset["workspace_id"]}
    ended = tx.row(
        "WITH old AS (SELECT asset_id, reserved_bytes FROM variant_set"
        "   WHERE asset_id = :id AND workspace_id = :workspace_id FOR UPDATE)"
        " UPDATE variant_set s SET status = 'deleted', reason = NULL, reserved_bytes = 0,"
        " stale = s.stale || array_remove(ARRAY[s.final_attempt, s.lease_token], NULL),"
        # A worker that holds the lease may write until it is over.
        " clean_after = CASE WHEN cardinality(s.stale) > 0 OR s.final_attempt IS NOT NULL"
        "   OR s.lease_token IS NOT NULL THEN greatest(now(), s.lease_until) END,"
        " final_attempt = NULL, lease_token = NULL, lease_until = NULL"
        " FROM old WHERE s.asset_id = old.asset_id RETURNING old.reserved_bytes",
        **whose,
    )
    if ended is None:
        return
    used = published_bytes(tx, asset)
    tx.run(
        "DELETE FROM asset_variant WHERE asset_id = :id AND workspace_id = :workspace_id", **whose
    )
    ledger.move(
        tx,
        asset["workspace_id"],
        used=-used,
        reserved=-int(str(ended["reserved_bytes"])),
    )


def lapse(batch: int = _BATCH) -> int:
    """End up to `batch` leases of workers that are gone, of any workspace; return how many.

    Frees what they reserved. The queue delivers their events again.
    """
    with transaction() as tx:
        lapsed = tx.value(
            int,
            "WITH due AS (SELECT asset_id, reserved_bytes FROM variant_set"
            "   WHERE status = 'making' AND lease_until < now()"
            "   ORDER BY lease_until LIMIT :batch FOR UPDATE SKIP LOCKED),"
            f" lapsed AS (UPDATE variant_set SET status = 'waiting',{_STALE}"
            "   WHERE asset_id = ANY(ARRAY(SELECT asset_id FROM due))"
            "   RETURNING asset_id, workspace_id),"
            " freed AS (UPDATE storage_usage u SET reserved_bytes = u.reserved_bytes - g.bytes"
            "   FROM (SELECT workspace_id, sum(due.reserved_bytes)::bigint AS bytes"
            "     FROM lapsed JOIN due USING (asset_id) GROUP BY 1) g"
            "   WHERE u.workspace_id = g.workspace_id RETURNING 1)"
            " SELECT count(*) FROM lapsed",
            batch=batch,
        )
    return lapsed or 0


def sweep(remaining: Callable[[], float] = lambda: math.inf) -> int:
    """Delete objects that no set needs, of any workspace; return how many sets are done."""
    with transaction() as tx:
        left = tx.rows(
            "SELECT a.id, a.workspace_id, a.public, s.stale, true AS due"
            " FROM variant_set s JOIN asset a ON a.id = s.asset_id"
            " WHERE s.clean_after < now() ORDER BY s.clean_after LIMIT :batch",
            batch=_BATCH,
        )
    return clean(left, remaining)


def clean_one(workspace_id: str, asset_id: str) -> None:
    """Delete the objects that one asset's set does not need. Raises Unavailable.

    If a worker may still write some, the sweep deletes them once more later.
    """
    with transaction() as tx:
        row = tx.row(
            "SELECT a.id, a.workspace_id, a.public, s.stale, s.clean_after <= now() AS due"
            " FROM variant_set s JOIN asset a ON a.id = s.asset_id"
            " WHERE a.id = :id AND a.workspace_id = :workspace_id AND s.clean_after IS NOT NULL",
            id=asset_id,
            workspace_id=workspace_id,
        )
    if row is not None:
        clean([row])


def clean(
    rows: Iterable[Mapping[str, Any]], remaining: Callable[[], float] = lambda: math.inf
) -> int:
    """Delete the objects of stale attempts, each set committed on its own; return how many."""
    done = deleted(rows, remaining, _delete, _put_back)
    return sum(_note_cleaned(row) for row in done if row["due"])


def _delete(row: Mapping[str, Any]) -> None:
    provider().delete(variant_row.keys(row, row["stale"]))


def _note_cleaned(row: Mapping[str, Any]) -> int:
    """Forget the attempts whose objects are gone; others may have become stale meanwhile."""
    with transaction() as tx:
        return tx.run(
            "UPDATE variant_set SET stale = ARRAY(SELECT token FROM unnest(stale) AS token"
            "   WHERE token <> ALL(CAST(:gone AS text[]))),"
            " clean_after = CASE WHEN NOT stale <@ CAST(:gone AS text[]) THEN clean_after END"
            " WHERE asset_id = :id AND workspace_id = :workspace_id",
            id=row["id"],
            workspace_id=row["workspace_id"],
            gone=row["stale"],
        )


def _put_back(row: Mapping[str, Any]) -> None:
    with transaction() as tx:
        tx.run(
            "UPDATE variant_set SET clean_after = now() + interval '15 minutes'"
            " WHERE asset_id = :id AND workspace_id = :workspace_id AND clean_after IS NOT NULL",
            id=row["id"],
            workspace_id=row["workspace_id"],
        )
