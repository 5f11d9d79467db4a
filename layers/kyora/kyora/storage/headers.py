"""Headers that every provider signs or answers with."""

import re
from urllib.parse import quote


def put_headers(content_type: str, sha256: str | None) -> dict[str, str]:
    """Return the headers of a PUT that every provider signs and every client must send."""
    headers = {"Content-Type": content_type, "If-None-Match": "*"}
    if sha256:
        headers["x-amz-checksum-sha256"] = sha256
    return headers


def attachment(filename: str) -> str:
    """Return a Content-Disposition for a name in any script (RFC 6266, RFC 8187).

    `filename` is for clients that know nothing else: the name when it is ASCII, without what
    some of them take for an escape (RFC 6266, appendix D), or `download` with its extension.
    """
    extension = filename.rpartition(".")[2]
    plain = extension if extension.isascii() and extension.isalnum() else "bin"
    simple = re.sub(r'["\\%]', "_", filename) if filename.isascii() else f"download.{plain}"
    return f"attachment; filename=\"{simple}\"; filename*=UTF-8''{quote(filename, safe='')}"
