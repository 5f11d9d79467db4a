"""The rows of a set of variants: the keys of its objects, and what clients see of it."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kyora import config
from kyora.assets import asset_row
from kyora.assets.models import Variant
from kyora.postgres import Transaction

NAMES = ("small", "medium", "large")
# The file extension and the content type of each format.
FORMATS: Mapping[str, tuple[str, str]] = {
    "webp": ("webp", "image/webp"),
    "jpeg": ("jpg", "image/jpeg"),
}


def folder(row: Mapping[str, Any], token: str) -> str:
    """Return the prefix under which the holder of this lease writes; `row` is the asset's.

    What is public has a prefix of its own, so that a CDN can be given that and nothing else.
    """
    prefix = "public" if row["public"] else "variants"
    return f"{prefix}/{row['workspace_id']}/{row['id']}/{token}"


def key(row: Mapping[str, Any], token: str, name: str, kind: str) -> str:
    """Return the key of one variant."""
    return f"{folder(row, token)}/{name}.{FORMATS[kind][0]}"


def keys(row: Mapping[str, Any], tokens: Iterable[str]) -> list[str]:
    """Return every key that the holders of these leases may have written."""
    return [key(row, token, name, kind) for token in tokens for name in NAMES for kind in FORMATS]


def published(tx: Transaction, row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the published variants of an asset, the smallest first, with their `attempt`.

    Empty unless the asset is ready.
    """
    if row["status"] != "ready" or not row["variants"]:
        return []
    return tx.rows(
        "SELECT v.name, v.format, v.width, v.height, v.size, s.final_attempt AS attempt"
        " FROM variant_set s JOIN asset_variant v USING (asset_id)"
        " WHERE s.asset_id = :id AND s.workspace_id = :workspace_id AND s.final_attempt IS NOT NULL"
        " ORDER BY v.width, v.height, v.format DESC",
        id=row["id"],
        workspace_id=row["workspace_id"],
    )


def view(row: Mapping[str, Any], found: Sequence[Mapping[str, Any]]) -> list[Variant] | None:
    """Return the variants as clients see them, or None if there are none."""
    shown = [
        Variant(
            name=item["name"],
            format=item["format"],
            width=item["width"],
            height=item["height"],
            size=item["size"],
            url=public_url(row, item) or _signed_url(row, item),
        )
        for item in found
    ]
    return shown or None


def public_url(row: Mapping[str, Any], item: Mapping[str, Any]) -> str | None:
    """Return a public variant's address, which never changes; None if it has none.

    `item` has the `attempt`, `name` and `format`.
    """
    base = config.public_base_url()
    if not row["public"] or not base:
        return None
    return f"{base}/{key(row, item['attempt'], item['name'], item['format'])}"


def _signed_url(row: Mapping[str, Any], item: Mapping[str, Any]) -> str:
    suffix, content_type = FORMATS[item["format"]]
    stem = row["filename"].rpartition(".")[0]
    return asset_row.signed_url(
        row,
        key(row, item["attempt"], item["name"], item["format"]),
        f"{stem}-{item['name']}.{suffix}",
        content_type,
    )
