"""Show an asset, or delete it."""

from contextlib import suppress

from kyora.assets import asset_row, ledger, sweep
from kyora.assets.models import Asset
from kyora.assets.variants import cleanup, variant_row
from kyora.bus import outbox
from kyora.errors import Unavailable
from kyora.postgres import transaction


def get(workspace_id: str, asset_id: str) -> Asset:
    """Return an asset with its variants. Raises NotFound."""
    with transaction() as tx:
        row = asset_row.find(tx, workspace_id, asset_id)
        found = variant_row.published(tx, row)
    return asset_row.view(row, variant_row.view(row, found))


def delete(workspace_id: str, asset_id: str) -> None:
    """Delete an asset in any state, with its variants, and free its quota.

    Raises NotFound. Emits AssetDeleted for an asset that was ready.
    """
    asset_row.well_formed(asset_id)
    with transaction() as tx:
        row = tx.row(
            "WITH old AS (SELECT id, status FROM asset WHERE id = :id"
            " AND workspace_id = :workspace_id AND status <> 'deleted' FOR UPDATE)"
            " UPDATE asset SET status = 'deleted', lease_token = NULL, lease_until = NULL,"
            " ended_at = now(), cleaned_at = NULL, clean_after = NULL"
            " FROM old WHERE asset.id = old.id"
            " RETURNING asset.*, old.status AS was",
            id=asset_id,
            workspace_id=workspace_id,
        )
        if row is None:
            raise asset_row.not_found()
        if row["was"] == "ready":
            ledger.free(tx, row, "used_bytes")
            cleanup.withdraw(tx, row)
            outbox.add(tx, "assets", "AssetDeleted", {"assetId": asset_id}, workspace_id)
        elif row["was"] in ("pending", "verifying", "scanning") and row["reserved"]:
            ledger.free(tx, row, "reserved_bytes")
    with suppress(Unavailable):  # the row is deleted; the sweep deletes the objects
        sweep.clean([row])
        if row["variants"]:
            cleanup.clean_one(workspace_id, asset_id)
