"""`make variants`: make variants again, of one image, of those that failed, or of all."""

from collections.abc import Callable
from typing import Any

from kyora.assets import asset_row
from kyora.assets.variants import make
from kyora.bus.outcomes import Again
from kyora.observability import logger
from kyora.postgres import transaction

_BATCH = 100
_SECONDS = 130.0  # for one image; make_variants has 180


def by_hand(asked: dict[str, Any], milliseconds_left: Callable[[], int]) -> dict[str, Any]:
    """Rebuild the variants of `{"asset": id}`, or of all after `{"after": id}`.

    `{"failed": true}`: only of those that failed. An asset named by its id need not have asked for
    variants. Returns how many sets were `ready`, `failed` and `busy` (another worker makes them),
    and `next`: the `after` of the next call, or None.
    """
    done = {"ready": 0, "failed": 0, "busy": 0}
    after, only = str(asked.get("after") or ""), asked.get("asset")
    if only is not None:
        _opt_in(str(only))
    while found := _images(after, only, failed=bool(asked.get("failed"))):
        for workspace_id, asset_id in found:
            if sum(done.values()) and milliseconds_left() < _SECONDS * 1000:
                return {**done, "next": after}
            done[_one(workspace_id, asset_id)] += 1
            after = asset_id
        if len(found) < _BATCH:
            break
    logger().info("variants rebuilt", extra=done)
    return {**done, "next": None}


def _one(workspace_id: str, asset_id: str) -> str:
    try:
        status = make.make_again(workspace_id, asset_id)
    except Again:
        return "busy"
    return status if status in ("ready", "failed") else "busy"


def _opt_in(asset_id: str) -> None:
    """Want variants of a ready image whose upload did not ask for them."""
    if not asset_row.ID.fullmatch(asset_id):
        return
    with transaction() as tx:
        tx.run(
            "UPDATE asset SET variants = true WHERE id = :id AND status = 'ready'"
            " AND starts_with(content_type, 'image/') AND NOT variants",
            id=asset_id,
        )


def _images(after: str, only: str | None, *, failed: bool) -> list[tuple[str, str]]:
    with transaction() as tx:
        rows = tx.rows(
            "SELECT a.workspace_id, a.id FROM asset a LEFT JOIN variant_set s ON s.asset_id = a.id"
            " WHERE a.status = 'ready' AND a.variants AND a.id > :after"
            " AND (CAST(:only AS text) IS NULL OR a.id = :only)"
            " AND (NOT :failed OR s.status = 'failed')"
            " ORDER BY a.id LIMIT :batch",
            after=after,
            only=only,
            failed=failed,
            batch=_BATCH,
        )
    return [(str(row["workspace_id"]), str(row["id"])) for row in rows]
