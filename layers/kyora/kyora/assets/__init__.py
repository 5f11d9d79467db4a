"""Uploads: a URL to write once, bytes verified where no client can write, then `ready`.

    pending ──claim──> verifying ──commit──> ready ──delete──> deleted
       │ ^                 │ └──────reject──> rejected
       │ └─release (not uploaded yet, changed, store down)
       └──deadline──> expired

Time passes for an open upload in three steps: its URL ends, its reservation lapses a few minutes
later (`ledger`), and at its deadline it expires. A fresh URL (`renewals`) starts the three again.

A claim takes a lease whose token names the only key its worker may write, so a worker that
stalled and woke up can change nothing. The token is noted before the copy begins, so that the
clean-up knows every object there may be. No transaction is open while the store is spoken to.
"""

import base64
import hashlib
import math
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from kyora import config, storage
from kyora.assets import ledger
from kyora.assets.models import Asset
from kyora.bus import outbox
from kyora.errors import (
    Conflict,
    Forbidden,
    Gone,
    Invalid,
    KyoraError,
    NotFound,
    TooMany,
    Unavailable,
)
from kyora.ids import new_id
from kyora.observability import count, logger
from kyora.postgres import Transaction, transaction
from kyora.storage import Changed, Storage

if TYPE_CHECKING:
    from kyora.assets import content

URL_SECONDS = 600
CONFIRM_SECONDS = 4200  # the URL's life and an hour: a PUT that began in time may end later
LEASE_SECONDS = 60
MAX_ATTEMPTS = 20  # copies that may be begun of one upload
MAX_CLAIMS = 60  # claims of one upload at once; one more is free for every second of its age
_DOWNLOAD_WINDOW = 600  # seconds in which the same download URL is given out
_IN_MEMORY = 16 << 20  # bytes; a larger file is read through a temporary file
_BATCH = 200
_PATIENCE = 3  # assets whose objects cannot be deleted before a clean-up leaves it for later
_KEYS = 200  # objects of one asset that are deleted before it is another one's turn
_RESERVE = 10.0  # seconds that must be left for another step of a sweep
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

    Raises NotFound, Conflict `asset.not_uploaded`, Gone `asset.expired`, Invalid `asset.rejected`,
    TooMany `asset.too_many_attempts`, Unavailable, and Forbidden `billing.limit_reached` when the
    reservation had lapsed and there is no room any more. Emits AssetReady or AssetRejected, once
    per asset.
    """
    _well_formed(asset_id)
    with transaction() as tx:
        claimed = tx.row(
            "UPDATE asset SET status = 'verifying', lease_token = :token,"
            " lease_until = now() + :lease * interval '1 second', claims = claims + 1"
            " WHERE id = :id AND workspace_id = :workspace_id AND confirm_deadline > now()"
            " AND (status = 'pending' OR status = 'verifying' AND lease_until < now())"
            " AND cardinality(attempts) < :attempts"
            " AND claims < :claims + extract(epoch FROM now() - created_at)"
            " RETURNING *",
            id=asset_id,
            workspace_id=workspace_id,
            token=new_id("try"),
            lease=LEASE_SECONDS,
            attempts=MAX_ATTEMPTS,
            claims=MAX_CLAIMS,
        )
        if claimed is None:
            return _standing(tx, workspace_id, asset_id)
        if not claimed["reserved"]:
            ledger.take_again(tx, claimed)
            claimed["reserved"] = True
    return _verify(claimed)


def get(workspace_id: str, asset_id: str) -> Asset:
    """Return an asset. Raises NotFound."""
    with transaction() as tx:
        return _view(find(tx, workspace_id, asset_id))


def delete(workspace_id: str, asset_id: str) -> None:
    """Delete an asset in any state and free its storage. Raises NotFound. Emits AssetDeleted."""
    _well_formed(asset_id)
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
            raise _not_found()
        if row["was"] == "ready":
            _free(tx, row, "used_bytes")
            outbox.add(tx, "assets", "AssetDeleted", {"assetId": asset_id}, workspace_id)
        elif row["was"] in ("pending", "verifying") and row["reserved"]:
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
    # Conflict: another worker has just given its claim back.
    except (Unavailable, Conflict, TooMany):
        return False
    except Forbidden:  # no room any more; there may be until the deadline
        return True
    except KyoraError as refusal:
        logger().info("upload not confirmed", asset_id=asset_id, reason=refusal.code)
    with suppress(KyoraError):  # the bucket's lifecycle rule finds it as well, in a day
        storage.provider().delete([key])
    return True


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
    return {"expired": expired, "cleaned": _clean(left, remaining)}


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
        if not _note_attempt(row):  # the lease was taken over meanwhile
            with transaction() as tx:
                return _standing(tx, row["workspace_id"], row["id"])
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


def _note_attempt(row: Mapping[str, Any]) -> bool:
    """Write down which object is about to be made, while the lease is ours."""
    with transaction() as tx:
        return bool(
            tx.run(
                "UPDATE asset SET attempts = attempts || lease_token"
                " WHERE id = :id AND workspace_id = :workspace_id AND lease_token = :token",
                id=row["id"],
                workspace_id=row["workspace_id"],
                token=row["lease_token"],
            )
        )


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
    _free(tx, row, "reserved_bytes")  # a claim has seen to it that they are
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
    return _outcome(find(tx, workspace_id, asset_id))


def _outcome(row: Mapping[str, Any]) -> Asset:
    """Return an asset that is ready or being verified; raise what else there is to say."""
    if row["status"] == "rejected":
        raise Invalid(
            "The file is not what was announced.",
            code="asset.rejected",
            reason=row["reject_reason"],
            **_detected(row),
        )
    raise_when_expired(row)
    if _is_free(row):
        _raise_when_capped(row)
        # Released by the worker that held it, a moment ago.
        raise Conflict("The file has not been uploaded.", code="asset.not_uploaded", retry_after=1)
    return _view(row)


def raise_when_expired(row: Mapping[str, Any]) -> None:
    """Raise Gone `asset.expired` for an upload past its deadline, swept or not."""
    if row["status"] == "expired" or (_is_free(row) and _past_deadline(row)):
        raise Gone("The upload was not confirmed in time.", code="asset.expired")


def _is_free(row: Mapping[str, Any]) -> bool:
    """Tell whether an open upload is held by no worker."""
    if row["status"] == "verifying":
        return bool(row["lease_until"] < datetime.now(UTC))
    return bool(row["status"] == "pending")


def _raise_when_capped(row: Mapping[str, Any]) -> None:
    """Raise TooMany for an upload that was tried too often, or too fast."""
    now = datetime.now(UTC)
    wait = 0.0
    if len(row["attempts"]) >= MAX_ATTEMPTS:
        wait = (row["confirm_deadline"] - now).total_seconds()
    elif row["claims"] >= MAX_CLAIMS + (now - row["created_at"]).total_seconds():
        wait = 2.0
    if wait:
        raise TooMany(
            "This upload was confirmed too often.",
            code="asset.too_many_attempts",
            retry_after=max(1, math.ceil(wait)),
        )


def _detected(row: Mapping[str, Any]) -> dict[str, Any]:
    return {"detectedType": row["detected_type"]} if row["detected_type"] else {}


def find(tx: Transaction, workspace_id: str, asset_id: str) -> dict[str, object]:
    """Return the row of an asset that is not deleted. Raises NotFound."""
    _well_formed(asset_id)
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
    expired = _is_free(row) and _past_deadline(row)
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


def _clean(
    rows: Iterable[Mapping[str, Any]], remaining: Callable[[], float] = lambda: math.inf
) -> int:
    """Delete the objects that ended assets do not need, one asset after the other.

    Each is committed alone. One that fails moves back in the queue; one with many objects gets
    another turn.
    """
    store = storage.provider()
    cleaned = failures = 0
    for row in rows:
        if failures == _PATIENCE or remaining() < _RESERVE:
            break
        keep = row["final_attempt"] if row["status"] == "ready" else None
        tokens = [token for token in row["attempts"][:_KEYS] if token != keep]
        try:
            store.delete([incoming_key(row), *(_attempt(row, token) for token in tokens)])
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
