"""The malware gate: what a scanner's verdict makes of an upload. Off unless it is configured.

    verifying ──commit──> scanning ──clean──> ready ──threats──> rejected (infected)
                             ├──threats──> rejected (infected)
                             └──no verdict──> rejected (not_scanned), or ready: uploads.unscanned

The scanner reads the copy under assets/ as soon as it is written. Its verdict often comes before
the bytes are verified: the row keeps it, and the commit uses it. A verdict counts for one copy, the
one that is being verified or that was. Verdicts may come late, twice and in any order.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from kyora import config
from kyora.assets import asset_row, ending, sweep
from kyora.assets.variants import cleanup
from kyora.errors import Unavailable
from kyora.observability import count, follow, logger
from kyora.postgres import Transaction, transaction

# A verdict replaces one of a lower rank: a threat stays, and a failed scan says nothing of a file.
RESULTS = ("failed", "unsupported", "clean", "threats")
_RESERVE = 10.0  # seconds that must be left to end another asset

type Outcome = tuple[str, str | None]  # a status, and the reason of a rejection


def after_verification(tx: Transaction, row: Mapping[str, Any]) -> Outcome:
    """Return what a verified upload becomes. Call it in the transaction that commits that.

    `row` is the claim. Locks the asset, so that a verdict comes before or after, not between.
    """
    if config.uploads().scanning == "off":
        return "ready", None
    kept = tx.row(
        "SELECT scan_result FROM asset"
        " WHERE id = :id AND workspace_id = :workspace_id AND lease_token = :token FOR UPDATE",
        id=row["id"],
        workspace_id=row["workspace_id"],
        token=row["lease_token"],
    )
    result = str(kept["scan_result"]) if kept and kept["scan_result"] else "failed"
    return decide("scanning", result, config.uploads().unscanned) or ("scanning", None)


def decide(status: str, result: str, unscanned: str) -> Outcome | None:
    """Return what a verdict makes of an asset with this status; None when nothing changes.

    A file that the scanner does not support gets the policy `unscanned` at once. A scan that failed
    leaves the asset waiting: a repeated scan may still end before the deadline.
    """
    if status == "ready":
        return ("rejected", "infected") if result == "threats" else None
    if status != "scanning" or result == "failed":
        return None
    if result == "threats":
        return "rejected", "infected"
    return ("ready", None) if result == "clean" else without_verdict(unscanned)


def without_verdict(unscanned: str) -> Outcome:
    """Return what the policy makes of a file that no scanner has judged."""
    return ("ready", None) if unscanned == "accept" else ("rejected", "not_scanned")


def record(key: str, result: str) -> None:
    """Record the verdict, one of RESULTS, on the object at `key`, and act on it.

    A key that belongs to no asset, or to a copy that was given up, is ignored. Emits AssetReady,
    AssetRejected or AssetQuarantined, each once per asset.
    """
    parts = key.split("/")
    if len(parts) != 4 or parts[0] != "assets" or not asset_row.ID.fullmatch(parts[2]):
        logger().info("verdict on no asset")
        return
    _, workspace_id, asset_id, token = parts
    if result in ("failed", "unsupported"):
        count("ScansWithoutVerdict", Result=result)
    with transaction() as tx:
        row = tx.row(
            "SELECT * FROM asset WHERE id = :id AND workspace_id = :workspace_id"
            " AND coalesce(final_attempt, lease_token) = :token FOR UPDATE",
            id=asset_id,
            workspace_id=workspace_id,
            token=token,
        )
        if row is None or _rank(row["scan_result"]) >= _rank(result):
            return
        tx.run(
            "UPDATE asset SET scan_result = :result"
            " WHERE id = :id AND workspace_id = :workspace_id",
            result=result,
            id=asset_id,
            workspace_id=workspace_id,
        )
        outcome = decide(str(row["status"]), result, config.uploads().unscanned)
        if outcome is None:
            return
        ended = _end(tx, row, outcome)
    _finish(ended)


def end_overdue(remaining: Callable[[], float]) -> int:
    """Apply the policy to assets whose deadline for a verdict is over; return how many.

    `remaining` returns the seconds left. Each asset is committed on its own.
    """
    total = 0
    while remaining() > _RESERVE:
        with transaction() as tx:
            row = tx.row(
                "SELECT * FROM asset WHERE status = 'scanning' AND scan_deadline < now()"
                " ORDER BY scan_deadline LIMIT 1 FOR UPDATE SKIP LOCKED"
            )
            if row is None:
                break
            ended = _end(tx, row, without_verdict(config.uploads().unscanned))
        logger().warning("no verdict in time", asset_id=ended["id"], outcome=ended["status"])
        count("UploadsUnscanned")
        _finish(ended)
        total += 1
    return total


def _rank(result: object) -> int:
    return RESULTS.index(str(result)) if result else -1


def _end(tx: Transaction, row: Mapping[str, Any], outcome: Outcome) -> dict[str, Any]:
    """Give a locked asset its new status; book it and emit its events.

    No client asks: the work continues the request for the upload URL.
    """
    status, reason = outcome
    (ended,) = tx.rows(
        "UPDATE asset SET status = :status, reject_reason = :reason,"
        " ready_at = CASE WHEN :status = 'ready' THEN now() ELSE ready_at END,"
        " ended_at = now(), cleaned_at = NULL, clean_after = NULL"
        " WHERE id = :id AND workspace_id = :workspace_id RETURNING *",
        status=status,
        reason=reason,
        id=row["id"],
        workspace_id=row["workspace_id"],
    )
    with follow(str(row["correlation_id"] or ""), str(row["traceparent"] or "")):
        if row["status"] == "ready":
            ending.revoke(tx, ended)
        else:
            ending.settle(tx, ended)
    return ended


def _finish(row: Mapping[str, Any]) -> None:
    """Count an asset that has ended, and delete the objects that it does not need any more."""
    if row["status"] == "ready":
        count("UploadsReady")
    else:
        count("UploadsRejected", Reason=row["reject_reason"])
    with suppress(Unavailable):  # the verdict is committed; the sweep deletes the rest
        sweep.clean([row])
        if row["variants"]:
            cleanup.clean_one(row["workspace_id"], row["id"])
