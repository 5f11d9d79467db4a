"""Uploads with their verdict, and the pictures among them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

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
_KEY = """
select 'assets/' || workspace_id || '/' || id || '/' || final_attempt as key, content_type as type
from asset where id = :id and status = 'ready'
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


def picture(stack: Settings, bucket: str, asset_id: str) -> tuple[bytes, str] | None:
    """Return the bytes and the type of a ready image; None when there is nothing to show."""
    with sources.database(stack) as reader:
        found = reader.rows(_KEY, id=asset_id)
    if not found or found[0]["type"] not in _PICTURES:
        return None
    key, kind = found[0]["key"], found[0]["type"]
    if stack.environ.get("STORAGE_PROVIDER") == "local":
        file = Path(stack.assets, key)
        if not file.is_file() or file.stat().st_size > _LARGEST:
            return None
        return file.read_bytes(), kind
    with sources.asking_emulator():
        answer = sources.aws("s3", stack.gateway_port).get_object(Bucket=bucket, Key=key)
        if answer["ContentLength"] > _LARGEST:
            return None
        return answer["Body"].read(), kind
