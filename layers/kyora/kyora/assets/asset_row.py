"""A row of the table `asset`: finding it, its state, the keys of its objects, its public view."""

import math
import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from kyora import clock
from kyora.assets.models import Asset, Variant
from kyora.errors import Conflict, Gone, NotFound
from kyora.postgres import Transaction
from kyora.storage.provider import provider

_DOWNLOAD_WINDOW = 600  # seconds in which every request gets the same download URL
ID = re.compile(r"ast_[0-9a-z]{26}")


def find(tx: Transaction, workspace_id: str, asset_id: str) -> dict[str, Any]:
    """Return the row of an asset that is not deleted. Raises NotFound."""
    well_formed(asset_id)
    row = tx.row(
        "SELECT * FROM asset"
        " WHERE id = :id AND workspace_id = :workspace_id AND status <> 'deleted'",
        id=asset_id,
        workspace_id=workspace_id,
    )
    if row is None:
        raise not_found()
    return row


def view(row: Mapping[str, Any], variants: list[Variant] | None = None) -> Asset:
    """Return the asset as clients see it."""
    expired = is_free(row) and _past_deadline(row)
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
        variants=variants,
    )


def _download_url(row: Mapping[str, Any]) -> str:
    key = attempt_key(row, row["final_attempt"])
    return signed_url(row, key, row["filename"], row["content_type"])


def signed_url(row: Mapping[str, Any], key: str, filename: str, content_type: str) -> str:
    """Return a URL that downloads `key`, an object of this ready asset, under a name and type.

    It is signed for the start of a time window, so that URLs repeat and caches can work. Each
    execution environment has its own credentials, so two of them return two URLs.
    """
    age = (clock.now() - row["ready_at"]).total_seconds()
    start = math.floor(age / _DOWNLOAD_WINDOW) * _DOWNLOAD_WINDOW
    signed_at = row["ready_at"] + timedelta(seconds=start)
    return provider().presign_get(key, filename, content_type, signed_at, 2 * _DOWNLOAD_WINDOW)


def raise_when_expired(row: Mapping[str, Any]) -> None:
    """Raise Gone `asset.expired` for an upload past its deadline, swept or not."""
    if row["status"] == "expired" or (is_free(row) and _past_deadline(row)):
        raise Gone("The upload was not confirmed in time.", code="asset.expired")


def is_free(row: Mapping[str, Any]) -> bool:
    """Return True for an open upload that no worker holds."""
    if row["status"] == "verifying":
        return bool(row["lease_until"] < clock.now())
    return bool(row["status"] == "pending")


def _past_deadline(row: Mapping[str, Any]) -> bool:
    return bool(row["confirm_deadline"] < clock.now())


def incoming_key(row: Mapping[str, Any]) -> str:
    """Return the key of the upload: the only one that a client can write."""
    return f"incoming/{row['workspace_id']}/{row['id']}"


def attempt_key(row: Mapping[str, Any], token: str) -> str:
    """Return the key to which the holder of this lease copies the upload."""
    return f"assets/{row['workspace_id']}/{row['id']}/{token}"


def well_formed(asset_id: str) -> None:
    """Raise NotFound for an id that we cannot have made."""
    if not ID.fullmatch(asset_id):
        raise not_found()


def not_pending(row: Mapping[str, Any]) -> Conflict:
    """Return the refusal of an upload that can no longer be changed."""
    return Conflict(
        "This asset is not pending.", code="asset.not_pending", assetStatus=row["status"]
    )


def not_found() -> NotFound:
    """Return the refusal of an id that is unknown or belongs to another workspace."""
    return NotFound("There is no such asset.", code="asset.not_found")
