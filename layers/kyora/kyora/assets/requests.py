"""Request an upload: check the file, reserve its bytes, return a ticket that says where to PUT it.

All of it runs under the lock of the workspace's ledger.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from kyora import config, idempotency, trace
from kyora.assets import ledger, renewals, rules
from kyora.assets.renewals import CONFIRM_SECONDS, URL_SECONDS
from kyora.assets.upload_models import UploadRequest, UploadsRequest, UploadTicket, UploadTickets
from kyora.auth import Principal
from kyora.errors import Invalid, KyoraError, field_errors
from kyora.ids import new_id
from kyora.observability import correlation_id
from kyora.postgres import Transaction, transaction

_PARTS_SECONDS = 86_400  # how long an upload in parts may take


def request_one(who: Principal, file: UploadRequest, idempotency_key: str = "") -> UploadTicket:
    """Reserve storage for a file and return where to PUT it.

    A repeated Idempotency-Key always gets a working ticket: a URL about to expire is renewed, and
    an asset that was rejected, expired or deleted is replaced. Raises UnsupportedType, TooLarge,
    Forbidden `billing.limit_reached`, TooMany, and what `idempotency.recall` raises.
    """
    name, body = "request_upload", _asked(who, file)
    with transaction() as tx:
        kept = idempotency.recall(tx, who.workspace_id, name, idempotency_key, body)
        (result,) = _tickets(tx, who, [file], [kept])
        if isinstance(result, KyoraError):
            raise result
        answer = _document(result)
        if answer != kept:
            answer = idempotency.keep(tx, who.workspace_id, name, idempotency_key, body, answer)
    return UploadTicket.model_validate(answer)


def request_many(who: Principal, files: UploadsRequest, idempotency_key: str = "") -> UploadTickets:
    """Do the same for up to 50 files. A refused file does not affect the others."""
    name, body = "request_uploads", _asked(who, files)
    with transaction() as tx:
        kept = idempotency.recall(tx, who.workspace_id, name, idempotency_key, body)
        before: list[dict[str, Any]] = kept["uploads"] if kept else [{}] * len(files.files)
        refused = [index for index, item in enumerate(before) if "error" in item]
        rest = [index for index in range(len(before)) if index not in refused]
        found = _tickets(
            tx,
            who,
            [_parse(files.files[index]) for index in rest],
            [before[index] or None for index in rest],
        )
        answer, to_keep = list(before), list(before)
        for index, result in zip(rest, found, strict=True):
            answer[index] = _document(result)
            # Keep the first answer: that it cannot be renewed now is no answer to repeat.
            if not isinstance(result, KyoraError) or not before[index]:
                to_keep[index] = answer[index]
        if to_keep != before:
            idempotency.keep(
                tx, who.workspace_id, name, idempotency_key, body, {"uploads": to_keep}
            )
    return UploadTickets.model_validate(idempotency.ordered({"uploads": answer}))


def _asked(who: Principal, wanted: UploadRequest | UploadsRequest) -> dict[str, Any]:
    body = wanted.model_dump(mode="json", by_alias=True)
    # Left out when false: a key from before there were variants still fits its request.
    body = {k: v for k, v in body.items() if v is not False or k not in ("variants", "public")}
    return idempotency.asked(who.user_id, body)


def _document(result: UploadTicket | KyoraError) -> dict[str, Any]:
    if isinstance(result, KyoraError):
        return {"error": result.document()}
    return result.model_dump(mode="json", by_alias=True, exclude_none=True)


def _tickets(
    tx: Transaction,
    who: Principal,
    files: Sequence[UploadRequest | KyoraError],
    kept: Sequence[Mapping[str, Any] | None],
) -> list[UploadTicket | KyoraError]:
    """Return a ticket or a refusal for each file. `kept` are the tickets of the first request."""
    known = renewals.revive(tx, who.workspace_id, kept) if any(kept) else [None] * len(files)
    judged = [before or file for before, file in zip(known, files, strict=True)]
    wanted = [file for file in judged if isinstance(file, UploadRequest)]
    granted = (
        row if isinstance(row, KyoraError) else renewals.ticket(row)
        for row in reserve(tx, who, wanted)
    )
    return [next(granted) if isinstance(found, UploadRequest) else found for found in judged]


def _parse(file: dict[str, object]) -> UploadRequest | KyoraError:
    try:
        return UploadRequest.model_validate(file)
    except ValidationError as error:
        return Invalid("Some fields are not valid.", errors=field_errors(error.errors()))


def reserve(
    tx: Transaction,
    who: Principal,
    files: Sequence[UploadRequest],
    *,
    part_size: int | None = None,
) -> list[dict[str, Any] | KyoraError]:
    """Reserve storage for new files. Return the new row or a refusal for each, in order.

    With `part_size` a file is uploaded in parts of so many bytes, within a day.
    """
    allowed, max_bytes = config.uploads().allowed, config.storage().max_bytes
    results: list[dict[str, Any] | KyoraError | None] = [None] * len(files)
    accepted: dict[int, rules.Accepted] = {}
    for index, file in enumerate(files):
        try:
            accepted[index] = rules.accept(
                file.filename,
                file.content_type,
                file.size,
                allowed=allowed,
                max_bytes=max_bytes,
            )
            _check_variants(file, accepted[index].content_type)
        except KyoraError as refusal:
            accepted.pop(index, None)
            results[index] = refusal
    granted = []
    usage = ledger.lock(tx, who.workspace_id) if accepted else {}
    for index in accepted:
        results[index] = ledger.take(usage, files[index].size)
        if results[index] is None:
            granted.append(index)
    if granted:
        ledger.write(tx, who.workspace_id, usage)
        rows = _insert(tx, who, [(files[i], accepted[i]) for i in granted], part_size)
        for index, row in zip(granted, rows, strict=True):
            results[index] = row
    return [result for result in results if result is not None]


def _check_variants(file: UploadRequest, content_type: str) -> None:
    """Raise Invalid for variants of what is no image, or addresses that there cannot be."""
    if file.variants and not content_type.startswith("image/"):
        raise _unfit("variants", "only images have variants")
    if file.public and not file.variants:
        raise _unfit("public", "only variants can be public: ask for `variants` as well")
    if file.public and not config.public_base_url():
        raise _unfit("public", "this service has no public address for files")


def _unfit(field: str, message: str) -> Invalid:
    return Invalid(
        "The variants cannot be made as asked.", errors=[{"field": field, "message": message}]
    )


def _insert(
    tx: Transaction,
    who: Principal,
    files: Sequence[tuple[UploadRequest, rules.Accepted]],
    part_size: int | None,
) -> list[dict[str, Any]]:
    """Insert the assets of a reservation in one statement; return the rows in order."""
    ids = [new_id("ast") for _ in files]
    rows = tx.rows(
        "INSERT INTO asset (id, workspace_id, created_by, purpose, filename, content_type, size,"
        "   declared_sha256, variants, public, part_size, url_expires_at, confirm_deadline,"
        "   correlation_id, traceparent)"
        " SELECT f.id, :workspace_id, :user_id, f.purpose, f.filename, f.content_type, f.size,"
        "   f.sha256, f.variants, f.public, CAST(:part_size AS bigint),"
        "   now() + :url * interval '1 second', now() + :confirm * interval '1 second',"
        "   :correlation, :traceparent"
        " FROM unnest(CAST(:ids AS text[]), CAST(:purposes AS text[]), CAST(:names AS text[]),"
        "   CAST(:media AS text[]), CAST(:sizes AS bigint[]), CAST(:digests AS text[]),"
        "   CAST(:variants AS boolean[]), CAST(:public AS boolean[]))"
        "   AS f (id, purpose, filename, content_type, size, sha256, variants, public)"
        " RETURNING *",
        workspace_id=who.workspace_id,
        user_id=who.user_id,
        url=URL_SECONDS,
        part_size=part_size,
        confirm=_PARTS_SECONDS if part_size else CONFIRM_SECONDS,
        correlation=correlation_id.get() or None,
        traceparent=trace.current() or None,
        ids=ids,
        purposes=[file.purpose for file, _ in files],
        names=[accepted.filename for _, accepted in files],
        media=[accepted.content_type for _, accepted in files],
        sizes=[file.size for file, _ in files],
        digests=[file.sha256 for file, _ in files],
        variants=[file.variants for file, _ in files],
        public=[file.public for file, _ in files],
    )
    by_id = {row["id"]: row for row in rows}
    return [by_id[asset_id] for asset_id in ids]
