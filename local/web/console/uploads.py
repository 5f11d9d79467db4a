"""Uploads with their verdict, the pictures among them, and the variants of each."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from kyora.assets.variants import variant_row
from local.settings import Settings
from local.web.console import sources

_ASSETS = """
select id, workspace_id as workspace, created_by as "createdBy", purpose, status, filename,
       content_type as type, size, width, height, reject_reason as reason, created_at as at,
       url_expires_at as "urlExpires", confirm_deadline as deadline, ready_at as ready,
       ended_at as ended
from asset
where (cast(:status as text) is null or status = :status)
  and (cast(:text as text) is null or :text in (id, workspace_id) or strpos(filename, :text) > 0)
order by created_at desc, id desc limit 100
"""
_ONE = """
select id, workspace_id as workspace, created_by as "createdBy", purpose, status, filename,
       content_type as type, size, width, height, duration_ms as "durationMs", sha256,
       reject_reason as reason, created_at as at, confirm_deadline as deadline, ready_at as ready,
       ended_at as ended, variants as "wantsVariants", public
from asset where id = :id
"""
_SET = """
select status, reason, claims, lease_until as "leaseUntil", final_attempt as attempt
from variant_set where asset_id = :id
"""
_VARIANTS = """
select name, format, width, height, size from asset_variant where asset_id = :id
order by width, height, format desc
"""
_KEY = """
select a.id, a.workspace_id, a.public, a.content_type, a.final_attempt, s.final_attempt as shown
from asset a left join variant_set s on s.asset_id = a.id where a.id = :id and a.status = 'ready'
"""
# What a browser shows as an image; SVG and HTML are never accepted as uploads.
_PICTURES = {"image/jpeg", "image/png", "image/webp", "image/gif", "image/avif"}
_LARGEST = 256 * 1024 * 1024  # bytes: the most that a request verifies


def listed(stack: Settings, asked: Mapping[str, str]) -> dict[str, Any]:
    """Return the newest uploads: of a `status`, about a `text` (an id or a part of the name)."""
    with sources.database(stack) as reader:
        status, text = asked.get("status") or None, asked.get("text") or None
        found = reader.rows(_ASSETS, status=status, text=text)
        counts = reader.rows("select status, count(*) as count from asset group by 1 order by 1")
        usage = reader.rows(
            "select workspace_id as workspace, used_bytes as used, reserved_bytes as reserved"
            " from storage_usage order by 2 desc limit 20"
        )
    for asset in found:
        asset["picture"] = asset["status"] == "ready" and asset["type"] in _PICTURES
    return {
        "assets": found,
        "counts": {row["status"]: row["count"] for row in counts},
        "usage": usage,
    }


def one(stack: Settings, asset_id: str) -> dict[str, Any] | None:
    """Return an upload with its variants; None when there is none."""
    with sources.database(stack) as reader:
        found = reader.rows(_ONE, id=asset_id)
        made = reader.rows(_SET, id=asset_id)
        variants = reader.rows(_VARIANTS, id=asset_id)
    if not found:
        return None
    [asset] = found
    whose = {"id": asset_id, "workspace_id": asset["workspace"], "public": asset["public"]}
    attempt = str(made[0].pop("attempt") or "") if made else ""
    address = f"/_console/uploads/{quote(asset_id)}/picture"
    for item in variants if attempt else ():
        item["picture"] = f"{address}?variant={item['name']}.{item['format']}&of={attempt}"
        if asset["public"] and (base := _public_address(stack)):
            key = variant_row.key(whose, attempt, item["name"], item["format"])
            item["publicUrl"] = f"{base}/{key}"
    asset["picture"] = asset["status"] == "ready" and asset["type"] in _PICTURES
    return asset | {"set": made[0] if made else None, "variants": variants}


def _public_address(stack: Settings) -> str:
    """Return where public variants are served, as `deploy` configures the functions."""
    given = stack.environ.get("STORAGE_PUBLIC_BASE_URL", "")
    return given or ("" if stack.environ.get("STORAGE_S3_ENDPOINT") else stack.url)


def picture(
    stack: Settings, bucket: str, asset_id: str, variant: str = ""
) -> tuple[bytes, str] | None:
    """Return the bytes and the type of a ready image, or of its `variant` such as `small.webp`.

    None when there is nothing to show.
    """
    with sources.database(stack) as reader:
        found = reader.rows(_KEY, id=asset_id)
    if not found:
        return None
    [row] = found
    if variant:
        name, _, form = variant.partition(".")
        if not row["shown"] or name not in variant_row.NAMES or form not in variant_row.FORMATS:
            return None
        key = variant_row.key(row, row["shown"], name, form)
        kind = variant_row.FORMATS[form][1]
    else:
        key = f"assets/{row['workspace_id']}/{row['id']}/{row['final_attempt']}"
        kind = row["content_type"]
    return (data, kind) if kind in _PICTURES and (data := _read(stack, bucket, key)) else None


def _read(stack: Settings, bucket: str, key: str) -> bytes | None:
    if stack.environ.get("STORAGE_PROVIDER") == "local":
        file = Path(stack.assets, key)
        return file.read_bytes() if file.is_file() and file.stat().st_size <= _LARGEST else None
    with sources.asking_emulator():
        answer = sources.aws("s3", stack.gateway_port).get_object(Bucket=bucket, Key=key)
        return answer["Body"].read() if answer["ContentLength"] <= _LARGEST else None
