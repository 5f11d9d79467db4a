"""Files above 8 MiB in parts: planned at the start, signed on demand, joined at the end.

    start ──sign, PUT──> parts ──complete──> one object ──confirm──> as every upload
      │                    │
      └──abort, deadline───┴──> deleted, expired

The plan is made from the file's size: every part has 8 MiB, the last what is left. A URL is signed
for a number of the plan and its size only. An upload can be continued for a day, from another page
as well: `list_parts` says what has arrived, and lost or expired URLs are signed again.

The store's own upload begins when the first parts are signed, because it has to know whether
parts have checksums: S3 accepts all parts of an upload with one, or none.
"""

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from kyora import clock, idempotency
from kyora.assets import asset_row, ledger, requests, sweep
from kyora.assets.models import Asset
from kyora.assets.multipart_models import (
    CompleteRequest,
    MultipartUpload,
    PartRequest,
    PartsRequest,
    SignedPart,
    SignedParts,
    UploadedPart,
    UploadedParts,
)
from kyora.assets.renewals import CONFIRM_SECONDS, URL_SECONDS
from kyora.assets.upload_models import UploadRequest
from kyora.auth import Principal
from kyora.errors import Conflict, Gone, Invalid, KyoraError, Unavailable
from kyora.postgres import Transaction, transaction
from kyora.storage.provider import provider
from kyora.storage.types import Changed, Part

# This much is sent again after an interruption; a file of 5 GB has 597 parts. S3 accepts up to
# 10,000 parts, and all but the last must have 5 MiB.
PART_SIZE = 8 << 20
_NAMED = 100  # part numbers that a refusal names


def start(who: Principal, file: UploadRequest, idempotency_key: str = "") -> MultipartUpload:
    """Reserve storage for a file and return its plan.

    Raises as `requests.request_one`, and Invalid for a file that fits in one part.
    """
    name = "start_multipart"
    body = idempotency.asked(who.user_id, file.model_dump(mode="json", by_alias=True))
    with transaction() as tx:
        kept = idempotency.recall(tx, who.workspace_id, name, idempotency_key, body)
        if kept and _is_alive(tx, who.workspace_id, kept["assetId"]):
            return MultipartUpload.model_validate(kept)
        if file.size <= PART_SIZE:
            raise _not_valid("size", f"must be more than {PART_SIZE}: one PUT is enough below")
        (row,) = requests.reserve(tx, who, [file], part_size=PART_SIZE)
        if isinstance(row, KyoraError):
            raise row
        plan = MultipartUpload(
            asset_id=row["id"],
            upload_id=_upload_id(row),
            part_size=row["part_size"],
            parts=_count(row),
        )
        answer = plan.model_dump(mode="json", by_alias=True)
        idempotency.keep(tx, who.workspace_id, name, idempotency_key, body, answer)
    return plan


def sign_parts(who: Principal, asset_id: str, wanted: PartsRequest) -> SignedParts:
    """Return a URL for each of these parts of the plan, and reserve the storage for longer.

    Raises NotFound, Conflict `asset.not_multipart`, `asset.not_pending` and
    `asset.upload_completed`, Gone `asset.expired`, Invalid, and Forbidden `billing.limit_reached`
    if the reservation has lapsed and the space is gone.
    """
    row = _renew(who.workspace_id, asset_id, wanted.parts)
    upload = row["store_upload"] or _begin(row)
    seconds = math.ceil((row["url_expires_at"] - clock.now()).total_seconds())
    seconds = min(max(seconds, 1), URL_SECONDS)
    key, store, signed = asset_row.incoming_key(row), provider(), []
    for part in wanted.parts:
        ticket = store.presign_part(key, upload, part.number, part.size, part.sha256, seconds)
        signed.append(
            SignedPart(
                number=part.number,
                url=ticket.url,
                headers=ticket.headers,
                expires_at=row["url_expires_at"],
            )
        )
    return SignedParts(parts=signed)


def list_parts(who: Principal, asset_id: str) -> UploadedParts:
    """Return the parts that have arrived. Raises as `sign_parts`, without Forbidden."""
    with transaction() as tx:
        row = _incomplete(tx, who.workspace_id, asset_id)
    arrived = _arrived(row)
    if arrived is None:
        _note_joined(row)
        raise _completed()
    return UploadedParts(
        asset_id=asset_id,
        upload_id=_upload_id(row),
        part_size=row["part_size"],
        parts=[
            UploadedPart(number=part.number, size=part.size, etag=part.etag) for part in arrived
        ],
    )


def complete(who: Principal, asset_id: str, wanted: CompleteRequest) -> Asset:
    """Make one object of the parts. A repeat has the same answer.

    Raises as `list_parts`, Conflict `asset.parts_missing`, and `asset.part_changed` for an ETag
    that is not the part's.
    """
    with transaction() as tx:
        row = _multipart(tx, who.workspace_id, asset_id)
        if row["joined_at"]:
            return asset_row.view(row)
        _raise_unless_open(row)
    numbers = [part.number for part in wanted.parts]
    if len(set(numbers)) != len(numbers) or max(numbers) > _count(row):
        raise _not_valid("parts", f"must be the numbers 1 to {_count(row)}, each once")
    arrived = _arrived(row)
    if arrived is not None:
        parts = _chosen(row, arrived, {part.number: part.etag for part in wanted.parts})
        try:
            provider().join_parts(asset_row.incoming_key(row), row["store_upload"], parts)
        except Changed:
            if not _is_joined(row):
                raise _changed([]) from None
    return asset_row.view(_note_joined(row))


def abort(who: Principal, asset_id: str) -> None:
    """Give the upload up: free its storage, delete it and its parts.

    Raises NotFound, Conflict `asset.not_multipart` and `asset.not_pending`.
    """
    with transaction() as tx:
        row = _multipart(tx, who.workspace_id, asset_id, lock=True)
        if row["status"] != "pending":
            raise asset_row.not_pending(row)
        (row,) = tx.rows(
            "UPDATE asset SET status = 'deleted', ended_at = now()"
            " WHERE id = :id AND workspace_id = :workspace_id RETURNING *",
            id=asset_id,
            workspace_id=who.workspace_id,
        )
        if row["reserved"]:
            ledger.free(tx, row, "reserved_bytes")
    with suppress(Unavailable):  # the row is deleted; the sweep deletes the rest
        sweep.clean([row])


def _renew(workspace_id: str, asset_id: str, parts: Sequence[PartRequest]) -> dict[str, Any]:
    """Check that parts may be signed, note their checksums and restart the URLs' time."""
    with transaction() as tx:
        row = _incomplete(tx, workspace_id, asset_id, lock=True)
        digests = _digests(row, parts)
        if not row["reserved"]:
            ledger.take_again(tx, row)
        (renewed,) = tx.rows(
            "UPDATE asset SET part_digests = coalesce(part_digests, jsonb_build_object())"
            "   || CAST(:digests AS jsonb),"
            " url_expires_at = least(now() + :url * interval '1 second', confirm_deadline)"
            " WHERE id = :id AND workspace_id = :workspace_id RETURNING *",
            digests=json.dumps(digests),
            url=URL_SECONDS,
            id=asset_id,
            workspace_id=workspace_id,
        )
        return renewed


def _is_alive(tx: Transaction, workspace_id: str, asset_id: str) -> bool:
    """Return True if a first answer can be repeated: its asset has not ended without a file."""
    return bool(
        tx.value(
            int,
            "SELECT 1 FROM asset WHERE id = :id AND workspace_id = :workspace_id"
            " AND (status IN ('verifying', 'scanning', 'ready')"
            "   OR status = 'pending' AND confirm_deadline > now())",
            id=asset_id,
            workspace_id=workspace_id,
        )
    )


def _multipart(
    tx: Transaction, workspace_id: str, asset_id: str, *, lock: bool = False
) -> dict[str, Any]:
    """Return the row of an asset that is uploaded in parts, locked until the commit if asked."""
    asset_row.well_formed(asset_id)
    if lock:
        tx.run(
            "SELECT 1 FROM asset WHERE id = :id AND workspace_id = :workspace_id FOR UPDATE",
            id=asset_id,
            workspace_id=workspace_id,
        )
    row = asset_row.find(tx, workspace_id, asset_id)
    if row["part_size"] is None:
        raise Conflict("This asset is not uploaded in parts.", code="asset.not_multipart")
    return row


def _incomplete(
    tx: Transaction, workspace_id: str, asset_id: str, *, lock: bool = False
) -> dict[str, Any]:
    """Return the row of an upload that takes parts."""
    row = _multipart(tx, workspace_id, asset_id, lock=lock)
    _raise_unless_open(row)
    return row


def _raise_unless_open(row: Mapping[str, Any]) -> None:
    asset_row.raise_when_expired(row)
    if row["status"] != "pending":
        raise asset_row.not_pending(row)
    if row["joined_at"]:
        raise _completed()


def _count(row: Mapping[str, Any]) -> int:
    return -(-int(row["size"]) // int(row["part_size"]))


def _size(row: Mapping[str, Any], number: int) -> int:
    """Return the size that the plan gives a part."""
    part_size = int(row["part_size"])
    return min(part_size, int(row["size"]) - (number - 1) * part_size)


def _upload_id(row: Mapping[str, Any]) -> str:
    """Return the upload's id: an asset has one multipart upload."""
    return f"upl_{row['id'].removeprefix('ast_')}"


def _digests(row: Mapping[str, Any], parts: Sequence[PartRequest]) -> dict[str, str]:
    """Return the checksums by number. Raises Invalid for a part that is not of the plan."""
    known = row["part_digests"]
    checked = bool(known) if known is not None else parts[0].sha256 is not None
    seen = set()
    for index, part in enumerate(parts):
        if part.number > _count(row) or part.number in seen:
            raise _not_valid(
                f"parts.{index}.number", f"must be from 1 to {_count(row)}, each number once"
            )
        seen.add(part.number)
        if part.size != _size(row, part.number):
            raise _not_valid(f"parts.{index}.size", f"must be {_size(row, part.number)}")
        if (part.sha256 is not None) != checked:
            must = "is missing: other parts have one" if checked else "other parts have none"
            raise _not_valid(f"parts.{index}.sha256", must)
    return {str(part.number): part.sha256 for part in parts if part.sha256}


def _begin(row: Mapping[str, Any]) -> str:
    """Begin the store's upload and note its id, or return that of a request that was faster.

    If the process ends in between, an upload without parts is left to the bucket's rule.
    """
    key, store = asset_row.incoming_key(row), provider()
    upload = store.begin_parts(key, row["content_type"], checked=bool(row["part_digests"]))
    with transaction() as tx:
        noted = tx.run(
            "UPDATE asset SET store_upload = :upload WHERE id = :id"
            " AND workspace_id = :workspace_id AND status = 'pending' AND store_upload IS NULL",
            upload=upload,
            id=row["id"],
            workspace_id=row["workspace_id"],
        )
    if noted:
        return upload
    with suppress(Unavailable):
        store.drop_parts(key, upload)
    with transaction() as tx:
        other = _incomplete(tx, row["workspace_id"], row["id"])
    return str(other["store_upload"])


def _arrived(row: Mapping[str, Any]) -> list[Part] | None:
    """Return the parts that the store has, None if it has joined them already.

    That is a complete which was not answered or not committed. Raises Gone.
    """
    if row["store_upload"] is None:
        return []
    try:
        return provider().list_parts(asset_row.incoming_key(row), row["store_upload"])
    except Changed:
        if _is_joined(row):
            return None
        # The bucket's rule has aborted it.
        raise Gone("The parts of this upload are gone.", code="asset.expired") from None


def _chosen(row: Mapping[str, Any], parts: Sequence[Part], etags: Mapping[int, str]) -> list[Part]:
    """Return the parts to join, all of the plan. Raises Conflict."""
    arrived = {part.number: part for part in parts}
    wanted = range(1, _count(row) + 1)
    if missing := [n for n in wanted if n not in arrived or n not in etags]:
        raise Conflict(
            "Parts are missing.",
            code="asset.parts_missing",
            missing=missing[:_NAMED],
        )
    found = [arrived[number] for number in wanted]
    if other := [
        part.number
        for part in found
        if part.size != _size(row, part.number)
        or part.etag.strip('"') != etags[part.number].strip('"')
    ]:
        raise _changed(other)
    known = row["part_digests"] or {}
    return [part._replace(sha256=part.sha256 or known.get(str(part.number), "")) for part in found]


def _is_joined(row: Mapping[str, Any]) -> bool:
    return provider().stat(asset_row.incoming_key(row)) is not None


def _note_joined(row: Mapping[str, Any]) -> dict[str, Any]:
    """Note that the object exists, and give the client time to confirm it.

    An upload that was deleted meanwhile leaves no object. Raises as `asset_row.find`.
    """
    with transaction() as tx:
        joined = tx.row(
            "UPDATE asset SET joined_at = now(),"
            " url_expires_at = greatest(url_expires_at, now() + :url * interval '1 second'),"
            " confirm_deadline ="
            "   greatest(confirm_deadline, now() + :confirm * interval '1 second')"
            " WHERE id = :id AND workspace_id = :workspace_id AND status = 'pending'"
            " AND joined_at IS NULL RETURNING *",
            url=URL_SECONDS,
            confirm=CONFIRM_SECONDS,
            id=row["id"],
            workspace_id=row["workspace_id"],
        )
        if joined is not None:
            return joined
        current = tx.row(
            "SELECT * FROM asset WHERE id = :id AND workspace_id = :workspace_id",
            id=row["id"],
            workspace_id=row["workspace_id"],
        )
    if current is None or current["status"] in ("deleted", "expired"):
        with suppress(Unavailable):  # the bucket's event deletes it as well
            provider().delete([asset_row.incoming_key(row)])
        if current is None or current["status"] == "deleted":
            raise asset_row.not_found()
        asset_row.raise_when_expired(current)
    return current


def _completed() -> Conflict:
    return Conflict("The parts are joined already: confirm.", code="asset.upload_completed")


def _changed(numbers: Sequence[int]) -> Conflict:
    return Conflict(
        "Parts are not those that were named; list them and send these again.",
        code="asset.part_changed",
        parts=list(numbers[:_NAMED]),
    )


def _not_valid(field: str, message: str) -> Invalid:
    return Invalid("Some fields are not valid.", errors=[{"field": field, "message": message}])
