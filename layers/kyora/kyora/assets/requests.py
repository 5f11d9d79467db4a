"""Asking for an upload: the file is judged, its bytes are reserved, and a ticket says where to PUT.

What is decided here is decided under the lock of the workspace's ledger.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from kyora import config, idempotency, limits, storage
from kyora.assets import CONFIRM_SECONDS, MAX_OPEN, URL_SECONDS, incoming_key, rules
from kyora.assets.tickets import (
    RefusedUpload,
    UploadRequest,
    UploadsRequest,
    UploadTicket,
    UploadTickets,
)
from kyora.auth import Principal
from kyora.errors import Invalid, KyoraError, TooMany, field_errors
from kyora.ids import new_id
from kyora.postgres import Transaction, transaction
from kyora.storage import Storage


def request_one(who: Principal, file: UploadRequest, idempotency_key: str = "") -> UploadTicket:
    """Reserve storage for a file and return where to PUT it.

    Raises UnsupportedType, TooLarge, Forbidden `billing.limit_reached`, TooMany and what
    `idempotency.once` raises.
    """

    def produce() -> dict[str, Any]:
        (result,) = _request(tx, who, [file])
        if isinstance(result, KyoraError):
            raise result
        return result.model_dump(mode="json", by_alias=True, exclude_none=True)

    with transaction() as tx:
        body = file.model_dump(mode="json", by_alias=True)
        answer = idempotency.once(
            tx, who.workspace_id, "request_upload", idempotency_key, body, produce
        )
    return UploadTicket.model_validate(answer)


def request_many(who: Principal, files: UploadsRequest, idempotency_key: str = "") -> UploadTickets:
    """Do as `request_one` for up to 50 files; a refused one does not stop the others."""

    def produce() -> dict[str, Any]:
        judged = [_parse(file) for file in files.files]
        good = [file for file in judged if isinstance(file, UploadRequest)]
        granted = iter(_request(tx, who, good))
        results = [next(granted) if isinstance(f, UploadRequest) else f for f in judged]
        uploads = [
            RefusedUpload(error=result.document()) if isinstance(result, KyoraError) else result
            for result in results
        ]
        return UploadTickets(uploads=uploads).model_dump(
            mode="json", by_alias=True, exclude_none=True
        )

    with transaction() as tx:
        body = files.model_dump(mode="json", by_alias=True)
        answer = idempotency.once(
            tx, who.workspace_id, "request_uploads", idempotency_key, body, produce
        )
    return UploadTickets.model_validate(answer)


def _parse(file: dict[str, object]) -> UploadRequest | KyoraError:
    try:
        return UploadRequest.model_validate(file)
    except ValidationError as error:
        return Invalid("Some fields are not valid.", errors=field_errors(error.errors()))


def _request(
    tx: Transaction, who: Principal, files: Sequence[UploadRequest]
) -> list[UploadTicket | KyoraError]:
    """Reserve storage for files and return a ticket, or the refusal, for each in its place."""
    found = config.settings("storage")
    results: list[UploadTicket | KyoraError | None] = [None] * len(files)
    accepted: dict[int, rules.Accepted] = {}
    for index, file in enumerate(files):
        try:
            accepted[index] = rules.accept(
                file.filename,
                file.content_type,
                file.size,
                allowed=found.allowed,
                max_bytes=found.max_bytes,
            )
        except KyoraError as refusal:
            results[index] = refusal
    granted = []
    usage = _lock_usage(tx, who.workspace_id) if accepted else {}
    for index in accepted:
        results[index] = _reserve(usage, files[index].size)
        if results[index] is None:
            granted.append(index)
    if granted:
        rows = _insert(tx, who, [(files[i], accepted[i]) for i in granted])
        store = storage.provider()
        for index, row in zip(granted, rows, strict=True):
            results[index] = _ticket(store, row)
    return [result for result in results if result is not None]


def _lock_usage(tx: Transaction, workspace_id: str) -> dict[str, int]:
    """Lock the workspace's plan and its ledger: what is decided from them is true to the commit."""
    allowed = limits.lock(tx, workspace_id).get("maxStorageBytes", 0)
    tx.run(
        "INSERT INTO storage_usage (workspace_id) VALUES (:workspace_id) ON CONFLICT DO NOTHING",
        workspace_id=workspace_id,
    )
    row = tx.row(
        "SELECT used_bytes, reserved_bytes FROM storage_usage"
        " WHERE workspace_id = :workspace_id FOR UPDATE",
        workspace_id=workspace_id,
    )
    waiting = tx.row(
        "SELECT count(*) AS waiting FROM asset"
        " WHERE workspace_id = :workspace_id AND status IN ('pending', 'verifying')",
        workspace_id=workspace_id,
    )
    found = {**(row or {}), **(waiting or {}), "limit_bytes": allowed}
    return {name: int(str(value)) for name, value in found.items()}


def _reserve(usage: dict[str, int], size: int) -> KyoraError | None:
    """Take `size` bytes from what is left of the ledger, or return why not."""
    if usage["waiting"] >= MAX_OPEN:
        return TooMany(
            "Confirm or delete earlier uploads first.",
            code="asset.too_many_pending",
            retry_after=60,
        )
    taken, limit = usage["used_bytes"] + usage["reserved_bytes"], usage["limit_bytes"]
    if limits.exceeds(limit, taken + size):
        return limits.refusal("maxStorageBytes", limit, taken)
    usage["reserved_bytes"] += size
    usage["waiting"] += 1
    return None


def _insert(
    tx: Transaction, who: Principal, files: Sequence[tuple[UploadRequest, rules.Accepted]]
) -> list[dict[str, object]]:
    """Insert the assets and their reservation in one statement; return the rows in order."""
    ids = [new_id("ast") for _ in files]
    rows = tx.rows(
        "WITH reserved AS (UPDATE storage_usage SET reserved_bytes = reserved_bytes + :total"
        "   WHERE workspace_id = :workspace_id)"
        " INSERT INTO asset (id, workspace_id, created_by, purpose, filename, content_type, size,"
        "   declared_sha256, url_expires_at, confirm_deadline)"
        " SELECT f.id, :workspace_id, :user_id, f.purpose, f.filename, f.content_type, f.size,"
        "   f.sha256, now() + :url * interval '1 second', now() + :confirm * interval '1 second'"
        " FROM unnest(CAST(:ids AS text[]), CAST(:purposes AS text[]), CAST(:names AS text[]),"
        "   CAST(:media AS text[]), CAST(:sizes AS bigint[]), CAST(:digests AS text[]))"
        "   AS f (id, purpose, filename, content_type, size, sha256)"
        " RETURNING *",
        workspace_id=who.workspace_id,
        user_id=who.user_id,
        total=sum(file.size for file, _ in files),
        url=URL_SECONDS,
        confirm=CONFIRM_SECONDS,
        ids=ids,
        purposes=[file.purpose for file, _ in files],
        names=[accepted.filename for _, accepted in files],
        media=[accepted.content_type for _, accepted in files],
        sizes=[file.size for file, _ in files],
        digests=[file.sha256 for file, _ in files],
    )
    by_id = {row["id"]: row for row in rows}
    return [by_id[asset_id] for asset_id in ids]


def _ticket(store: Storage, row: Mapping[str, Any]) -> UploadTicket:
    upload = store.presign_put(
        incoming_key(row), row["content_type"], row["size"], row["declared_sha256"], URL_SECONDS
    )
    return UploadTicket(
        asset_id=row["id"],
        upload_url=upload.url,
        headers=upload.headers,
        expires_at=row["url_expires_at"],
    )
