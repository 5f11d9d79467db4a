"""Uploads: a URL to write once, bytes verified where no client can write, then `ready`.

    pending ──claim──> verifying ──commit──> ready ──delete──> deleted
       │ ^                 │ └──────reject──> rejected
       │ └─release (not uploaded yet, changed, store down)
       └──deadline──> expired

A claim takes a lease whose token names the only key its worker may write, so a worker that
stalled and woke up can change nothing. No transaction is open while the store is spoken to.
"""

import base64
import hashlib
import math
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from kyora import config, storage
from kyora.assets.models import Asset
from kyora.bus import outbox
from kyora.errors import Conflict, Gone, Invalid, KyoraError, NotFound, Unavailable
from kyora.ids import new_id
from kyora.observability import count, logger
from kyora.postgres import Transaction, transaction
from kyora.storage import Changed, Storage

if TYPE_CHECKING:
    from kyora.assets import content

URL_SECONDS = 600
CONFIRM_SECONDS = 4200  # the URL's life and an hour: a PUT that began in time may end later
LEASE_SECONDS = 60
MAX_OPEN = 500  # uploads of one workspace that may wait for their bytes
_DOWNLOAD_WINDOW = 600  # seconds in which the same download URL is given out
_IN_MEMORY = 16 << 20  # bytes; a larger file is read through a temporary file
_BATCH = 200
_PATIENCE = 3  # assets whose objects cannot be deleted before a clean-up leaves it for later
_ID = re.compile(r"ast_[0-9a-z]{26}")


class _Facts(NamedTuple):
    """What was read from the bytes themselves."""

    sha256: str
    shown: "content.Facts"


class _Rejected(Exception):
    """The bytes are not what was promised. `detected` is the type they have, where it is known."""

    def __init__(self, reason: str, detected: str | None = None) -> None:
        super().__init__(reason)
        self.reason, self.detected = reason, detected


def confirm(workspace_id: str, asset_id: str) -> Asset:
    """Verify the uploaded bytes and return the asset: `ready`, or `verifying` elsewhere.

    Raises NotFound, Conflict `asset.not_uploaded`, Gone `asset.expired`, Invalid `asset.rejected`
    and Unavailable. Emits AssetReady or AssetRejected, once per asset.
    """
    _well_formed(asset_id)
    with transaction() as tx:
        claimed = tx.row(
            "UPDATE asset SET status = 'verifying', lease_token = :token,"
            " lease_until = now() + :lease * interval '1 second',"
            " attempts = attempts || CAST(:token AS text)"
            " WHERE id = :id AND workspace_id = :workspace_id"
            " AND (status = 'pending' AND confirm_deadline > now()"
            "      OR status = 'verifying' AND lease_until < now())"
            " RETURNING *",
            id=asset_id,
            workspace_id=workspace_id,
            token=new_id("try"),
            lease=LEASE_SECONDS,
        )
        if claimed is None:
            return _standing(tx, workspace_id, asset_id)
    return _verify(claimed)


def get(workspace_id: str, asset_id: str) -> Asset:
    """Return an asset. Raises NotFound."""
    _well_formed(asset_id)
    with transaction() as tx:
        return _view(_find(tx, workspace_id, asset_id))


def delete(workspace_id: str, asset_id: str) -> None:
    """Delete an asset in any state and free its storage. Raises NotFound. Emits AssetDeleted."""
    _well_formed(asset_id)
    with transaction() as tx:
        row = tx.row(
            "WITH old AS (SELECT id, status FROM asset WHERE id = :id"
            " AND workspace_id = :workspace_id AND status <> 'deleted' FOR UPDATE)"
            " UPDATE asset SET status = 'deleted', lease_token = NULL, lease_until = NULL,"
            " ended_at = now(), cleaned_at = NULL FROM old WHERE asset.id = old.id"
            " RETURNING asset.*, old.status AS was",
            id=asset_id,
            workspace_id=workspace_id,
        )
        if row is None:
            raise _not_found()
        if row["was"] == "ready":
            _free(tx, row, "used_bytes")
            outbox.add(tx, "assets", "AssetDeleted", {"assetId": asset_id}, workspace_id)
        elif row["was"] in ("pending", "verifying"):
            _free(tx, row, "reserved_bytes")
    with suppress(Unavailable):  # deleted it is; the sweep does the rest
        _clean([row])


def confirm_from_event(key: str) -> bool:
    """Confirm the asset whose object was created at `key`; False when it should be tried later.

    The safety net for a client that never came back, and for one that came back too often: what
    is written after the end of its asset is deleted, since no ledger counts it.
    """
    prefix, _, rest = key.partition("/")
    workspace_id, _, asset_id = rest.partition("/")
    if prefix != "incoming" or not workspace_id or not _ID.fullmatch(asset_id):
        return True
    try:
        if confirm(workspace_id, asset_id).status != "ready":
            return False
    except (Unavailable, Conflict):  # Conflict: another worker has just given its claim back
        return False
    except KyoraError as refusal:
        logger().info("upload not confirmed", asset_id=asset_id, reason=refusal.code)
    with suppress(KyoraError):  # the bucket's lifecycle rule finds it as well, in a day
        storage.provider().delete([key])
    return True


def sweep() -> dict[str, int]:
    """Expire uploads past their deadline and delete objects that no asset needs.

    Returns how many were `expired` and `cleaned`; a full batch means there may be more.
    """
    with transaction() as tx:
        row = tx.row(
            "WITH due AS (SELECT id FROM asset WHERE status IN ('pending', 'verifying')"
            "   AND confirm_deadline < now() AND (lease_until IS NULL OR lease_until < now())"
            "   ORDER BY confirm_deadline LIMIT :batch FOR UPDATE SKIP LOCKED),"
            " gone AS (UPDATE asset SET status = 'expired', lease_token = NULL,"
            "   lease_until = NULL, ended_at = now() FROM due WHERE asset.id = due.id"
            "   RETURNING asset.workspace_id, asset.size),"
            " freed AS (UPDATE storage_usage u SET reserved_bytes = u.reserved_bytes - g.bytes"
            "   FROM (SELECT workspace_id, sum(size)::bigint AS bytes FROM gone GROUP BY 1) g"
            "   WHERE u.workspace_id = g.workspace_id RETURNING 1)"
            " SELECT (SELECT count(*) FROM gone) AS expired, (SELECT count(*) FROM freed) AS n",
            batch=_BATCH,
        )
        # A minute's grace leaves the worker that ended the asset its own clean-up.
        left = tx.rows(
            "SELECT * FROM asset WHERE cleaned_at IS NULL"
            " AND ended_at < now() - interval '1 minute' ORDER BY ended_at LIMIT :batch",
            batch=_BATCH,
        )
    return {"expired": int(str(row["expired"])) if row else 0, "cleaned": _clean(left)}


def _verify(row: Mapping[str, Any]) -> Asset:
    """Verify what a claim holds and end the claim, one way or the other."""
    store = storage.provider()
    target = _attempt(row, row["lease_token"])
    try:
        found = store.stat(incoming_key(row))
        if found is None:
            raise Changed(incoming_key(row))
        if found.size != row["size"]:
            raise _Rejected("size_mismatch")
        store.copy(incoming_key(row), target, found.etag, row["content_type"])
        facts = _inspect(store, target, row)
    except _Rejected as rejection:
        return _end(row, rejection)
    except Changed:
        _release(row)
        raise Conflict(
            "The file has not been uploaded.", code="asset.not_uploaded", retry_after=1
        ) from None
    except Unavailable:
        _release(row)
        raise
    return _end(row, facts)


def _inspect(store: Storage, key: str, row: Mapping[str, Any]) -> _Facts:
    """Read the copy once: count, digest and look into its bytes. Raises _Rejected or Changed."""
    import tempfile

    from kyora.assets import content

    digest, count = hashlib.sha256(), 0
    with tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY) as file:
        for chunk in store.read(key):
            count += len(chunk)
            if count > row["size"]:
                break
            digest.update(chunk)
            file.write(chunk)
        if count != row["size"]:
            raise _Rejected("size_mismatch")
        sha256 = base64.b64encode(digest.digest()).decode()
        if row["declared_sha256"] not in (None, sha256):
            raise _Rejected("checksum_mismatch")
        try:
            found = config.settings("storage")
            policy = content.Policy(macros=found.macros_allowed, passwords=found.passwords_allowed)
            shown = content.inspect(file, row["content_type"], policy)  # type: ignore[arg-type]  # IO
        except content.Refused as refusal:
            raise _Rejected(refusal.reason, refusal.detected) from refusal
    return _Facts(sha256, shown)


def _end(row: Mapping[str, Any], verdict: _Facts | _Rejected) -> Asset:
    """Commit the verdict with its event, then delete what is not needed any more.

    A worker whose lease was taken over commits nothing and answers with what stands.
    """
    facts = verdict if isinstance(verdict, _Facts) else None
    refusal = verdict if isinstance(verdict, _Rejected) else None
    with transaction() as tx:
        ended = tx.row(
            "UPDATE asset SET status = :status, reject_reason = :reason,"
            " detected_type = :detected, sha256 = :sha256, width = :width, height = :height,"
            " duration_ms = :duration, final_attempt = :final,"
            " ready_at = CASE WHEN :status = 'ready' THEN now() END, ended_at = now(),"
            " lease_token = NULL, lease_until = NULL"
            " WHERE id = :id AND workspace_id = :workspace_id AND lease_token = :token"
            " RETURNING *",
            status="ready" if facts else "rejected",
            reason=refusal.reason if refusal else None,
            detected=refusal.detected if refusal else None,
            sha256=facts.sha256 if facts else None,
            width=facts.shown.width if facts else None,
            height=facts.shown.height if facts else None,
            duration=facts.shown.duration_ms if facts else None,
            final=row["lease_token"] if facts else None,
            id=row["id"],
            workspace_id=row["workspace_id"],
            token=row["lease_token"],
        )
        if ended is not None:
            _settle(tx, ended)
    if ended is None:
        with suppress(Unavailable):  # a later sweep knows this key as well
            storage.provider().delete([_attempt(row, row["lease_token"])])
        with transaction() as tx:
            return _standing(tx, row["workspace_id"], row["id"])
    stage = config.settings("database").stage
    if facts:
        count(stage, "UploadsReady")
    else:
        count(stage, "UploadsRejected", Reason=refusal.reason if refusal else "")
    with suppress(Unavailable):  # the verdict stands; the sweep does the rest
        _clean([ended])
    return _outcome(ended)


def _settle(tx: Transaction, row: Mapping[str, Any]) -> None:
    """Book the bytes of an asset that has just ended and write its event."""
    data = {"assetId": row["id"], "contentType": row["content_type"], "size": row["size"]}
    _free(tx, row, "reserved_bytes")
    if row["status"] == "ready":
        tx.run(
            "UPDATE storage_usage SET used_bytes = used_bytes + :size"
            " WHERE workspace_id = :workspace_id",
            size=row["size"],
            workspace_id=row["workspace_id"],
        )
        outbox.add(tx, "assets", "AssetReady", data, row["workspace_id"])
    else:
        rejected = data | {"reason": row["reject_reason"]} | _detected(row)
        outbox.add(tx, "assets", "AssetRejected", rejected, row["workspace_id"])


def _free(
    tx: Transaction, row: Mapping[str, Any], column: Literal["used_bytes", "reserved_bytes"]
) -> None:
    tx.run(
        f"UPDATE storage_usage SET {column} = {column} - :size WHERE workspace_id = :workspace_id",
        size=row["size"],
        workspace_id=row["workspace_id"],
    )


def _release(row: Mapping[str, Any]) -> None:
    """Give the claim back, so that the client may upload or confirm again."""
    with transaction() as tx:
        tx.run(
            "UPDATE asset SET status = 'pending', lease_token = NULL, lease_until = NULL"
            " WHERE id = :id AND workspace_id = :workspace_id AND lease_token = :token",
            id=row["id"],
            workspace_id=row["workspace_id"],
            token=row["lease_token"],
        )


def _standing(tx: Transaction, workspace_id: str, asset_id: str) -> Asset:
    """Answer a confirm that claimed nothing from what the asset is now."""
    return _outcome(_find(tx, workspace_id, asset_id))


def _outcome(row: Mapping[str, Any]) -> Asset:
    """Return an asset that is ready or being verified; raise what else there is to say."""
    if row["status"] == "rejected":
        raise Invalid(
            "The file is not what was announced.",
            code="asset.rejected",
            reason=row["reject_reason"],
            **_detected(row),
        )
    if row["status"] == "expired" or (row["status"] == "pending" and _past_deadline(row)):
        raise Gone("The upload was not confirmed in time.", code="asset.expired")
    if row["status"] == "pending":  # released by the worker that held it, a moment ago
        raise Conflict("The file has not been uploaded.", code="asset.not_uploaded", retry_after=1)
    return _view(row)


def _detected(row: Mapping[str, Any]) -> dict[str, Any]:
    return {"detectedType": row["detected_type"]} if row["detected_type"] else {}


def _find(tx: Transaction, workspace_id: str, asset_id: str) -> dict[str, object]:
    row = tx.row(
        "SELECT * FROM asset"
        " WHERE id = :id AND workspace_id = :workspace_id AND status <> 'deleted'",
        id=asset_id,
        workspace_id=workspace_id,
    )
    if row is None:
        raise _not_found()
    return row


def _view(row: Mapping[str, Any]) -> Asset:
    expired = row["status"] == "pending" and _past_deadline(row)
    return Asset(
        asset_id=row["id"],
        status="expired" if expired else row["status"],
        filename=row["filename"],
        content_type=row["content_type"],
        size=row["size"],
        sha256=row["sha256"] or row["declared_sha256"],
        width=row["width"],
        height=row["height"],
        duration_ms=row["duration_ms"],
        created_at=row["created_at"],
        download_url=_download_url(row) if row["status"] == "ready" else None,
    )


def _download_url(row: Mapping[str, Any]) -> str:
    """Sign at the start of a window: the same keys give the same URL, and caches can work.

    Each execution environment has keys of its own, so two of them give two URLs.
    """
    age = (datetime.now(UTC) - row["ready_at"]).total_seconds()
    start = math.floor(age / _DOWNLOAD_WINDOW) * _DOWNLOAD_WINDOW
    return storage.provider().presign_get(
        _attempt(row, row["final_attempt"]),
        row["filename"],
        row["content_type"],
        row["ready_at"] + timedelta(seconds=start),
        2 * _DOWNLOAD_WINDOW,
    )


def _clean(rows: Iterable[Mapping[str, Any]]) -> int:
    """Delete the objects that ended assets do not need; what fails here is swept later."""
    store = storage.provider()
    cleaned: list[Mapping[str, Any]] = []
    failures = 0
    for row in rows:
        if failures == _PATIENCE:
            break
        keep = row["final_attempt"] if row["status"] == "ready" else None
        keys = [incoming_key(row)] + [_attempt(row, t) for t in row["attempts"] if t != keep]
        try:
            store.delete(keys)
        except Unavailable:
            failures += 1
            logger().warning("objects left to the sweep", asset_id=row["id"])
        else:
            cleaned.append(row)
    if cleaned:
        with transaction() as tx:
            # A row that was deleted meanwhile has more to clean than we have seen.
            tx.run(
                "UPDATE asset SET cleaned_at = now()"
                " FROM unnest(CAST(:ids AS text[]), CAST(:workspaces AS text[]),"
                "   CAST(:statuses AS text[])) AS done (id, workspace_id, status)"
                " WHERE asset.id = done.id AND asset.workspace_id = done.workspace_id"
                " AND asset.status = done.status",
                ids=[row["id"] for row in cleaned],
                workspaces=[row["workspace_id"] for row in cleaned],
                statuses=[row["status"] for row in cleaned],
            )
    return len(cleaned)


def _well_formed(asset_id: str) -> None:
    """Answer an id that cannot be ours like one that is not."""
    if not _ID.fullmatch(asset_id):
        raise _not_found()


def _past_deadline(row: Mapping[str, Any]) -> bool:
    return bool(row["confirm_deadline"] < datetime.now(UTC))


def incoming_key(row: Mapping[str, Any]) -> str:
    """Return the only key that a client's URL can write."""
    return f"incoming/{row['workspace_id']}/{row['id']}"


def _attempt(row: Mapping[str, Any], token: str) -> str:
    return f"assets/{row['workspace_id']}/{row['id']}/{token}"


def _not_found() -> NotFound:
    return NotFound("There is no such asset.", code="asset.not_found")
