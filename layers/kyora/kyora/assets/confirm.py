"""Confirm an upload: claim it, copy it to where no client can write, verify the copy, commit.

A claim is a lease. Its token is part of the only key that its worker writes, so a worker that
stalled and resumes changes nothing. The token is stored before the copy starts, so that the
clean-up knows every object that may exist. No transaction is open during a call to the store.
"""

import base64
import hashlib
import math
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from kyora import clock, config, trace
from kyora.assets import asset_row, ending, ledger, scan, sweep
from kyora.assets.models import Asset
from kyora.errors import (
    Conflict,
    Forbidden,
    Invalid,
    KyoraError,
    TooMany,
    Unavailable,
)
from kyora.ids import new_id
from kyora.observability import count, follow, logger
from kyora.postgres import Transaction, transaction
from kyora.storage.provider import provider
from kyora.storage.types import MAX_COPY, Changed, Storage

if TYPE_CHECKING:
    from kyora.assets.content.source import Facts

MAX_ATTEMPTS = 20  # copies started of one upload
MAX_CLAIMS = 60  # claims of one upload, and one more for each second since it was requested
_REFUSALS = {
    "infected": "Malware was found in the file.",
    "not_scanned": "The file could not be scanned for malware.",
}
_IN_MEMORY = 16 << 20  # bytes; a larger file is read through a temporary file


class Budget(NamedTuple):
    """How large a file may be verified in one go, and how long that may take, in seconds."""

    most_bytes: int
    lease_seconds: int
    copy_seconds: float
    read_seconds: float


# confirm_upload has 29 s, the most an HTTP API waits. A larger file is left to verify_upload, which
# has five minutes: 5 GB have to be copied at 45 MB/s and read at 30 MB/s.
IN_REQUEST = Budget(256 << 20, 60, 20, 25)
IN_QUEUE = Budget(MAX_COPY, 330, 110, 170)


class _Facts(NamedTuple):
    """What the bytes say."""

    sha256: str
    shown: "Facts"


class _Rejected(Exception):
    """The bytes are not what was announced. `detected` is their real type, if known."""

    def __init__(self, reason: str, detected: str | None = None) -> None:
        super().__init__(reason)
        self.reason, self.detected = reason, detected


def confirm(workspace_id: str, asset_id: str, *, alone: bool = False) -> Asset:
    """Verify the uploaded bytes; return the asset.

    It is `verifying` if another worker has it, and `scanning` while it waits for a scanner.
    `alone`: no client asks; the work continues the request for the upload URL. A file that is too
    large for a request is verified only then, and `pending` until then, if the store sends events.

    Raises NotFound, Conflict `asset.not_uploaded`, Gone `asset.expired`, Invalid `asset.rejected`,
    TooMany `asset.too_many_attempts`, Unavailable, and Forbidden `billing.limit_reached` if the
    reservation has lapsed and the space is gone. Emits AssetReady or AssetRejected, once per asset,
    and AssetQuarantined for one in which a scanner has found malware.
    """
    asset_row.well_formed(asset_id)
    large = IN_QUEUE if alone else IN_REQUEST
    with transaction() as tx:
        claimed = tx.row(
            "UPDATE asset SET status = 'verifying', lease_token = :token,"
            " lease_until = now() + interval '1 second' * CASE WHEN size <= :most"
            "   THEN CAST(:lease AS integer) ELSE CAST(:large_lease AS integer) END,"
            " claims = claims + 1, scan_result = NULL"
            " WHERE id = :id AND workspace_id = :workspace_id AND confirm_deadline > now()"
            " AND (status = 'pending' OR status = 'verifying' AND lease_until < now())"
            " AND (size <= :most OR :may_be_large)"
            " AND cardinality(attempts) < :attempts"
            " AND claims < :claims + extract(epoch FROM now() - created_at)"
            " RETURNING *",
            id=asset_id,
            workspace_id=workspace_id,
            token=new_id("try"),
            lease=IN_REQUEST.lease_seconds,
            large_lease=large.lease_seconds,
            most=IN_REQUEST.most_bytes,
            may_be_large=alone or not config.storage().sends_events,
            attempts=MAX_ATTEMPTS,
            claims=MAX_CLAIMS,
        )
        if claimed is None:
            row = asset_row.find(tx, workspace_id, asset_id)
        elif not claimed["reserved"]:
            ledger.take_again(tx, claimed)
            claimed["reserved"] = True
    if claimed is None:
        return _unclaimed(row)
    trace.link(str(claimed["traceparent"]))
    # A client's request has a correlation id of its own, the store's event only its message's.
    with follow(str(claimed["correlation_id"] or "") if alone else ""):
        return _verify(claimed, large)


def _unclaimed(row: Mapping[str, Any]) -> Asset:
    """Answer a confirm that got no claim; a large file waits for the store's event."""
    if row["size"] <= IN_REQUEST.most_bytes or not asset_row.is_free(row):
        return _outcome(row)
    asset_row.raise_when_expired(row)
    _raise_when_capped(row)
    if provider().stat(asset_row.incoming_key(row)) is None:
        raise _not_uploaded()
    return asset_row.view(row)


def confirm_from_event(key: str) -> bool:
    """Confirm the asset whose object was created at `key`. Return False to be called again later.

    For clients that upload and never confirm. An object written after its asset has ended is
    deleted, because no quota counts it.
    """
    prefix, _, rest = key.partition("/")
    workspace_id, _, asset_id = rest.partition("/")
    if prefix != "incoming" or not workspace_id or not asset_row.ID.fullmatch(asset_id):
        return True
    try:
        if confirm(workspace_id, asset_id, alone=True).status not in ("ready", "scanning"):
            return False
    # Conflict: another worker has just released its claim.
    except (Unavailable, Conflict, TooMany):
        return False
    except Forbidden:  # no space now; there may be some before the deadline
        return True
    except KyoraError as refusal:
        logger().info("upload not confirmed", asset_id=asset_id, reason=refusal.code)
    with suppress(KyoraError):  # the bucket's lifecycle rule deletes it within a day
        provider().delete([key])
    return True


def _verify(row: Mapping[str, Any], large: Budget) -> Asset:
    """Verify a claimed upload, then end or release the claim."""
    budget = IN_REQUEST if row["size"] <= IN_REQUEST.most_bytes else large
    store = provider()
    target = asset_row.attempt_key(row, row["lease_token"])
    try:
        with trace.span("store stat"):
            found = store.stat(asset_row.incoming_key(row))
        if found is None:
            raise Changed(asset_row.incoming_key(row))
        if found.size != row["size"]:
            raise _Rejected("size_mismatch")
        if not _note_attempt(row):  # another worker has taken over the lease
            with transaction() as tx:
                return _current(tx, row["workspace_id"], row["id"])
        with trace.span("store copy"):
            store.copy(
                asset_row.incoming_key(row),
                target,
                found.etag,
                row["content_type"],
                seconds=budget.copy_seconds,
            )
        with trace.span("verify the bytes", trace.INTERNAL):
            facts = _inspect(store, target, row, budget)
    except _Rejected as rejection:
        return _end(row, rejection)
    except Changed:
        _release(row)
        raise _not_uploaded() from None
    except Unavailable:
        _release(row)
        raise
    return _end(row, facts)


def _note_attempt(row: Mapping[str, Any]) -> bool:
    """Store which object is about to be written. Return False if the lease is no longer ours."""
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


def _inspect(store: Storage, key: str, row: Mapping[str, Any], budget: Budget) -> _Facts:
    """Read the copy once: check its size, checksum and content. Raises _Rejected or Changed."""
    import tempfile

    from kyora.assets.content import verify
    from kyora.assets.content.source import Policy, Refused

    digest, count = hashlib.sha256(), 0
    with tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY) as file:
        for chunk in store.read(key, seconds=budget.read_seconds):
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
            found = config.uploads()
            policy = Policy(macros=found.macros, passwords=found.passwords)
            shown = verify.inspect(file, row["content_type"], policy)  # type: ignore[arg-type]  # IO
        except Refused as refusal:
            raise _Rejected(refusal.reason, refusal.detected) from refusal
    return _Facts(sha256, shown)


def _end(row: Mapping[str, Any], verdict: _Facts | _Rejected) -> Asset:
    """Commit the verdict with its event, then delete the objects that are no longer needed.

    A worker that has lost its lease commits nothing and returns the current state.
    """
    facts = verdict if isinstance(verdict, _Facts) else None
    refusal = verdict if isinstance(verdict, _Rejected) else None
    with transaction() as tx:
        status, reason = (
            ("rejected", refusal.reason) if refusal else scan.after_verification(tx, row)
        )
        ended = tx.row(
            "UPDATE asset SET status = :status, reject_reason = :reason,"
            " detected_type = :detected, sha256 = :sha256, width = :width, height = :height,"
            " duration_ms = :duration, final_attempt = :final,"
            " ready_at = CASE WHEN :status = 'ready' THEN now() END,"
            " ended_at = CASE WHEN :status <> 'scanning' THEN now() END,"
            " scan_deadline = CASE WHEN :status = 'scanning' THEN"
            "   now() + :minutes * interval '1 minute' END,"
            # Its object was found, even if the commit of `multipart.complete` was lost.
            " joined_at = CASE WHEN part_size IS NOT NULL THEN coalesce(joined_at, now()) END,"
            " lease_token = NULL, lease_until = NULL"
            " WHERE id = :id AND workspace_id = :workspace_id AND lease_token = :token"
            " RETURNING *",
            status=status,
            reason=reason,
            minutes=config.uploads().scan_minutes,
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
        if ended is not None and status != "scanning":
            ending.settle(tx, ended)
    if ended is None:
        with suppress(Unavailable):  # a later sweep deletes it
            provider().delete([asset_row.attempt_key(row, row["lease_token"])])
        with transaction() as tx:
            return _current(tx, row["workspace_id"], row["id"])
    if status == "scanning":
        return _outcome(ended)
    if status == "ready":
        count("UploadsReady")
    else:
        count("UploadsRejected", Reason=reason or "")
    with suppress(Unavailable):  # the verdict is committed; the sweep deletes the rest
        sweep.clean([ended])
    return _outcome(ended)


def _release(row: Mapping[str, Any]) -> None:
    """Release the claim, so that the client can upload or confirm again."""
    with transaction() as tx:
        tx.run(
            "UPDATE asset SET status = 'pending', lease_token = NULL, lease_until = NULL"
            " WHERE id = :id AND workspace_id = :workspace_id AND lease_token = :token",
            id=row["id"],
            workspace_id=row["workspace_id"],
            token=row["lease_token"],
        )


def _current(tx: Transaction, workspace_id: str, asset_id: str) -> Asset:
    """Answer a confirm that got no claim with the asset's current state."""
    return _outcome(asset_row.find(tx, workspace_id, asset_id))


def _outcome(row: Mapping[str, Any]) -> Asset:
    """Return an asset that is ready, being verified or scanned; raise for every other state."""
    if row["status"] == "rejected":
        raise Invalid(
            _REFUSALS.get(row["reject_reason"], "The file is not what was announced."),
            code="asset.rejected",
            reason=row["reject_reason"],
            **ending.detected(row),
        )
    asset_row.raise_when_expired(row)
    if asset_row.is_free(row):
        _raise_when_capped(row)
        # The worker that held it has released it a moment ago.
        raise _not_uploaded()
    return asset_row.view(row)


def _not_uploaded() -> Conflict:
    return Conflict("The file has not been uploaded.", code="asset.not_uploaded", retry_after=1)


def _raise_when_capped(row: Mapping[str, Any]) -> None:
    """Raise TooMany for an upload that was confirmed too often or too fast."""
    now = clock.now()
    wait = 0.0
    if len(row["attempts"]) >= MAX_ATTEMPTS:
        wait = (row["confirm_deadline"] - now).total_seconds()
    elif row["claims"] >= MAX_CLAIMS + (now - row["created_at"]).total_seconds():
        wait = 2.0
    if wait:
        raise TooMany(
            "Too many attempts to confirm this upload.",
            code="asset.too_many_attempts",
            retry_after=max(1, math.ceil(wait)),
        )
