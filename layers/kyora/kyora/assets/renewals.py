"""Upload URLs: signed, and renewed while the asset still waits for its bytes.

A URL lives ten minutes. A phone on the move, a suspended tab, or a retry with the same
Idempotency-Key needs another URL for the same asset. Renewal restarts the upload's deadlines, up
to a day after the request: the bucket deletes objects under incoming/ after a day.
"""

import math
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from kyora import clock
from kyora.assets import asset_row, ledger
from kyora.assets.upload_models import UploadTicket
from kyora.auth import Principal
from kyora.errors import Conflict, Gone, KyoraError
from kyora.postgres import Transaction, transaction
from kyora.storage.provider import provider

URL_SECONDS = 600
CONFIRM_SECONDS = 4200  # the URL's life and an hour: a PUT that starts in time may end later
_RENEWABLE = "interval '1 day'"  # after that a new upload has to be requested
_ENOUGH = timedelta(seconds=URL_SECONDS // 2)  # a URL that is repeated lives at least this long


def upload_url(who: Principal, asset_id: str) -> UploadTicket:
    """Return a fresh ticket for a pending asset.

    Raises NotFound, Conflict `asset.not_pending` and `asset.is_multipart`, Gone `asset.expired`,
    and Forbidden `billing.limit_reached` if the reservation has lapsed and the space is gone.
    """
    with transaction() as tx:
        row = asset_row.find(tx, who.workspace_id, asset_id)
        asset_row.raise_when_expired(row)
        if row["part_size"]:
            raise Conflict("This asset is uploaded in parts.", code="asset.is_multipart")
        pending = tx.row(
            "SELECT * FROM asset WHERE id = :id AND workspace_id = :workspace_id"
            " AND status = 'pending' AND confirm_deadline > now() FOR UPDATE",
            id=asset_id,
            workspace_id=who.workspace_id,
        )
        if pending is None:
            raise asset_row.not_pending(row)
        renewed = _renew(tx, pending)
    return ticket(renewed)


def revive(
    tx: Transaction, workspace_id: str, kept: Sequence[Mapping[str, Any] | None]
) -> list[UploadTicket | KyoraError | None]:
    """Return the tickets to repeat for an Idempotency-Key, in the order of the first answer.

    A URL about to expire is renewed. None means there is nothing to repeat: the first answer had
    no ticket, or its asset was rejected, has expired or is deleted.
    """
    tickets = [UploadTicket.model_validate(item) if item else None for item in kept]
    rows = tx.rows(
        "SELECT * FROM asset WHERE id = ANY(CAST(:ids AS text[])) AND workspace_id = :workspace_id"
        " AND status IN ('pending', 'verifying', 'scanning', 'ready') ORDER BY id FOR UPDATE",
        ids=[found.asset_id for found in tickets if found],
        workspace_id=workspace_id,
    )
    by_id = {row["id"]: row for row in rows}
    return [found and _revived(tx, found, by_id.get(found.asset_id)) for found in tickets]


def ticket(row: Mapping[str, Any]) -> UploadTicket:
    """Sign a ticket that is valid until the row's `url_expires_at`."""
    seconds = math.ceil((row["url_expires_at"] - clock.now()).total_seconds())
    upload = provider().presign_put(
        asset_row.incoming_key(row),
        row["content_type"],
        row["size"],
        row["declared_sha256"],
        min(max(seconds, 1), URL_SECONDS),
    )
    return UploadTicket(
        asset_id=row["id"],
        upload_url=upload.url,
        headers=upload.headers,
        expires_at=row["url_expires_at"],
    )


def _revived(
    tx: Transaction, found: UploadTicket, row: Mapping[str, Any] | None
) -> UploadTicket | KyoraError | None:
    if row is None:
        return None
    try:
        asset_row.raise_when_expired(row)
        if found.expires_at - clock.now() > _ENOUGH:
            return found
        if row["status"] == "pending":
            fresh = ticket(_renew(tx, row))
            # At the end of the day too little time is left: the caller requests a new asset.
            return fresh if fresh.expires_at - clock.now() > _ENOUGH else None
    except Gone:
        return None
    except KyoraError as refusal:
        return refusal
    # The bytes have arrived. Another PUT changes nothing, and confirm repeats its answer.
    later = clock.now() + timedelta(seconds=URL_SECONDS)
    return ticket({**row, "url_expires_at": later})


def _renew(tx: Transaction, row: Mapping[str, Any]) -> dict[str, object]:
    """Restart the deadlines of a pending asset that is locked. Raises Forbidden."""
    if not row["reserved"]:
        ledger.take_again(tx, row)
    (renewed,) = tx.rows(
        "WITH t AS (SELECT least(now() + :confirm * interval '1 second',"
        f"   greatest(confirm_deadline, created_at + {_RENEWABLE})) AS deadline"
        "   FROM asset WHERE id = :id AND workspace_id = :workspace_id)"
        " UPDATE asset SET confirm_deadline = t.deadline,"
        " url_expires_at = least(now() + :url * interval '1 second', t.deadline)"
        " FROM t WHERE id = :id AND workspace_id = :workspace_id RETURNING asset.*",
        id=row["id"],
        workspace_id=row["workspace_id"],
        confirm=CONFIRM_SECONDS,
        url=URL_SECONDS,
    )
    return renewed
