"""The quota of a workspace: bytes used and reserved, pending uploads, and requests of one day.

A reservation lasts as long as its URL and five minutes more. A file whose PUT took longer is still
accepted if there is space: its bytes are reserved again.

Requests are limited per day as well, in files and in bytes. DELETE frees quota at once, so that a
seller can replace files; but the bucket keeps deleted, rejected and replaced objects for up to
eight days, and their rows are kept for the retention period. Each object needs a ticket with its
size, so the daily limit bounds all of them, and parallel requests cannot pass it. It allows filling
the whole plan and replacing every file once on the same day.

Variants of images count as well. No one requests them, so they count towards no day.

Locks are taken in one order: an asset, its set of variants, then the workspace's billing row, then
its ledger.
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Literal

from kyora import clock, limits
from kyora.errors import KyoraError, TooMany
from kyora.postgres import Transaction, transaction

RESERVED_SECONDS = 300  # after the URL has expired: most PUTs that started in time have ended
MAX_OPEN = 500  # reservations that a workspace may hold at once
DAILY_FILES = 20_000
_TURNOVER = 2  # a day's requests may sum up to this many times the plan's storage
_DAILY_FLOOR = 1 << 30  # bytes that any plan may request on one day
_LIMIT = "maxStorageBytes"
# The day of the counters, UTC. They restart on the next.
_TODAY = "(now() AT TIME ZONE 'UTC')::date"
# A reservation past its time.
_LAPSED = (
    "status = 'pending' AND reserved"
    f" AND url_expires_at < now() - {RESERVED_SECONDS} * interval '1 second'"
)


def lock(tx: Transaction, workspace_id: str) -> dict[str, int]:
    """Lock the workspace's plan and ledger until the commit.

    Returns `used_bytes`, `reserved_bytes`, `limit_bytes`, `waiting`, `asked_files`, `asked_bytes`.
    """
    allowed = limits.lock(tx, workspace_id).get(_LIMIT, 0)
    tx.run(
        "INSERT INTO storage_usage (workspace_id) VALUES (:workspace_id) ON CONFLICT DO NOTHING",
        workspace_id=workspace_id,
    )
    # A locked asset is being confirmed or deleted. Waiting for it could deadlock.
    row = tx.row(
        "WITH due AS (SELECT id FROM asset WHERE workspace_id = :workspace_id"
        f"   AND {_LAPSED} FOR UPDATE SKIP LOCKED),"
        " lapsed AS (UPDATE asset SET reserved = false FROM due WHERE asset.id = due.id"
        "   RETURNING asset.id, asset.size),"
        " usage AS (UPDATE storage_usage SET"
        "   reserved_bytes = reserved_bytes - (SELECT coalesce(sum(size), 0) FROM lapsed),"
        f"  asked_on = {_TODAY},"
        f"  asked_files = CASE WHEN asked_on = {_TODAY} THEN asked_files ELSE 0 END,"
        f"  asked_bytes = CASE WHEN asked_on = {_TODAY} THEN asked_bytes ELSE 0 END"
        "   WHERE workspace_id = :workspace_id"
        "   RETURNING used_bytes, reserved_bytes, asked_files, asked_bytes)"
        " SELECT usage.*, (SELECT count(*) FROM asset WHERE workspace_id = :workspace_id"
        "   AND status IN ('pending', 'verifying') AND reserved) - (SELECT count(*) FROM lapsed)"
        "   AS waiting FROM usage",
        workspace_id=workspace_id,
    )
    found = {**(row or {}), "limit_bytes": allowed}
    return {name: int(str(value)) for name, value in found.items()}


def take(usage: dict[str, int], size: int) -> KyoraError | None:
    """Reserve `size` bytes for a new upload in a locked ledger, or return the refusal."""
    if usage["waiting"] >= MAX_OPEN:
        return TooMany(
            "Confirm or delete earlier uploads first.",
            code="asset.too_many_pending",
            retry_after=60,
        )
    if refusal := _room(usage, size) or _today(usage, size):
        return refusal
    usage["reserved_bytes"] += size
    usage["waiting"] += 1
    usage["asked_files"] += 1
    usage["asked_bytes"] += size
    return None


def write(tx: Transaction, workspace_id: str, usage: Mapping[str, int]) -> None:
    """Write a locked ledger back."""
    tx.run(
        "UPDATE storage_usage SET reserved_bytes = :reserved_bytes, asked_files = :asked_files,"
        " asked_bytes = :asked_bytes WHERE workspace_id = :workspace_id",
        workspace_id=workspace_id,
        reserved_bytes=usage["reserved_bytes"],
        asked_files=usage["asked_files"],
        asked_bytes=usage["asked_bytes"],
    )


def take_again(tx: Transaction, row: Mapping[str, Any]) -> None:
    """Reserve the bytes of an open, locked asset again after its reservation has lapsed.

    Raises Forbidden `billing.limit_reached` if the space is gone.
    """
    usage = lock(tx, row["workspace_id"])
    if refusal := _room(usage, row["size"]):
        raise refusal
    usage["reserved_bytes"] += row["size"]
    write(tx, row["workspace_id"], usage)
    tx.run(
        "UPDATE asset SET reserved = true WHERE id = :id AND workspace_id = :workspace_id",
        id=row["id"],
        workspace_id=row["workspace_id"],
    )


def reserve(tx: Transaction, workspace_id: str, size: int, *, freed: int) -> KyoraError | None:
    """Reserve `size` bytes of what we make ourselves, or return the refusal.

    `freed` bytes in use are about to go, so they do not count here.
    """
    usage = lock(tx, workspace_id)
    if refusal := _room(usage, size - freed):
        return refusal
    move(tx, workspace_id, reserved=size)
    return None


def move(tx: Transaction, workspace_id: str, *, used: int = 0, reserved: int = 0) -> None:
    """Add to what a workspace uses and has reserved; a negative number frees."""
    tx.run(
        "UPDATE storage_usage SET used_bytes = used_bytes + :used,"
        " reserved_bytes = reserved_bytes + :reserved WHERE workspace_id = :workspace_id",
        workspace_id=workspace_id,
        used=used,
        reserved=reserved,
    )


def lapse(batch: int) -> int:
    """End up to `batch` reservations past their time, of any workspace; return how many."""
    with transaction() as tx:
        lapsed = tx.value(
            int,
            f"WITH due AS (SELECT id FROM asset WHERE {_LAPSED}"
            "   ORDER BY url_expires_at LIMIT :batch FOR UPDATE SKIP LOCKED),"
            " lapsed AS (UPDATE asset SET reserved = false FROM due WHERE asset.id = due.id"
            "   RETURNING asset.workspace_id, asset.size),"
            " freed AS (UPDATE storage_usage u SET reserved_bytes = u.reserved_bytes - g.bytes"
            "   FROM (SELECT workspace_id, sum(size)::bigint AS bytes FROM lapsed GROUP BY 1) g"
            "   WHERE u.workspace_id = g.workspace_id RETURNING 1)"
            " SELECT count(*) FROM lapsed",
            batch=batch,
        )
    return lapsed or 0


def free(
    tx: Transaction, row: Mapping[str, Any], column: Literal["used_bytes", "reserved_bytes"]
) -> None:
    """Subtract the bytes of an asset from one column of its workspace's ledger."""
    tx.run(
        f"UPDATE storage_usage SET {column} = {column} - :size WHERE workspace_id = :workspace_id",
        size=row["size"],
        workspace_id=row["workspace_id"],
    )


def _room(usage: Mapping[str, int], size: int) -> KyoraError | None:
    taken, limit = usage["used_bytes"] + usage["reserved_bytes"], usage["limit_bytes"]
    if limits.exceeds(limit, taken + size):
        return limits.refusal(_LIMIT, limit, taken)
    return None


def _today(usage: Mapping[str, int], size: int) -> KyoraError | None:
    daily_bytes = max(_TURNOVER * usage["limit_bytes"], _DAILY_FLOOR)
    if usage["limit_bytes"] == limits.UNLIMITED:
        daily_bytes = limits.UNLIMITED
    for what, used, more, allowed in (
        ("files", usage["asked_files"], 1, DAILY_FILES),
        ("bytes", usage["asked_bytes"], size, daily_bytes),
    ):
        if limits.exceeds(allowed, used + more):
            return TooMany(
                f"This workspace has requested too many {what} today.",
                code="asset.daily_limit_reached",
                retry_after=_to_midnight(),
                limit=what,
                allowed=allowed,
                used=used,
            )
    return None


def _to_midnight() -> int:
    """Return the seconds until midnight, UTC."""
    now = clock.now()
    midnight = (now + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    return int((midnight - now).total_seconds()) + 1
