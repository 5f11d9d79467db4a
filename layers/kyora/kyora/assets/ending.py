"""What the end of an asset books in its workspace's ledger, and which events it emits."""

from collections.abc import Mapping
from typing import Any

from kyora.assets import ledger
from kyora.assets.variants import cleanup
from kyora.bus import outbox
from kyora.postgres import Transaction


def settle(tx: Transaction, row: Mapping[str, Any]) -> None:
    """Book the bytes of an asset that has just become ready or rejected, and emit its event.

    It held a reservation until now: every claim makes sure of that.
    """
    data = {"assetId": row["id"], "contentType": row["content_type"], "size": row["size"]}
    ledger.free(tx, row, "reserved_bytes")
    if row["status"] == "ready":
        tx.run(
            "UPDATE storage_usage SET used_bytes = used_bytes + :size"
            " WHERE workspace_id = :workspace_id",
            size=row["size"],
            workspace_id=row["workspace_id"],
        )
        # The rule of make_variants looks for it.
        wanted = {"variants": True} if row["variants"] else {}
        outbox.add(tx, "assets", "AssetReady", data | wanted, row["workspace_id"])
        return
    rejected = data | {"reason": row["reject_reason"]} | detected(row)
    outbox.add(tx, "assets", "AssetRejected", rejected, row["workspace_id"])
    if row["reject_reason"] == "infected":
        _quarantined(tx, row, was_ready=False)


def revoke(tx: Transaction, row: Mapping[str, Any]) -> None:
    """Take an asset that was ready and its variants off the ledger, and emit AssetQuarantined."""
    ledger.free(tx, row, "used_bytes")
    cleanup.withdraw(tx, row)
    _quarantined(tx, row, was_ready=True)


def detected(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the real type of a rejected file, where it is known."""
    return {"detectedType": row["detected_type"]} if row["detected_type"] else {}


def _quarantined(tx: Transaction, row: Mapping[str, Any], *, was_ready: bool) -> None:
    data = {
        "assetId": row["id"],
        "reason": row["reject_reason"],
        "filename": row["filename"],
        "wasReady": was_ready,
    }
    outbox.add(tx, "assets", "AssetQuarantined", data, row["workspace_id"])
