"""Headers that are the same for every store."""

import re
from urllib.parse import quote


def cache_control(*, public: bool) -> str:
    """Return the Cache-Control of an object that is never overwritten."""
    return f"{'public' if public else 'private'}, max-age=31536000, immutable"


def put_headers(content_type: str, sha256: str | None) -> dict[str, str]:
    """Return the headers of a PUT: every store signs them, every client must send them."""
    headers = {"Content-Type": content_type, "If-None-Match": "*"}
    if sha256:
        headers["x-amz-checksum-sha256"] = sha256
    return headers


def part_headers(sha256: str | None) -> dict[str, str]:
    """Return the headers of a part's PUT. S3 has no If-None-Match for parts."""
    return {"x-amz-checksum-sha256": sha256} if sha256 else {}


def attachment(filename: str) -> str:
    """Return a Content-Disposition for a name in any script (RFC 6266, RFC 8187).

    `filename` is for clients that do not know `filename*`: the name if it is ASCII, without
    characters that some clients unescape (RFC 6266, appendix D); otherwise `download` with its
    extension.
    """
    extension = filename.rpartition(".")[2]
    plain = extension if extension.isascii() and extension.isalnum() else "bin"
    simple = re.sub(r'["\\%]', "_", filename) if filename.isascii() else f"download.{plain}"
    return f"attachment; filename=\"{simple}\"; filename*=UTF-8''{quote(filename, safe='')}"
