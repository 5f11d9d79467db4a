"""What the storage providers exchange with their callers."""

from typing import NamedTuple


class Changed(Exception):
    """The object is gone or is not the version that was looked at."""


class Stat(NamedTuple):
    """An object's size in bytes and its version."""

    size: int
    etag: str


class Upload(NamedTuple):
    """A PUT that a client may make: every header must be sent as given."""

    url: str
    headers: dict[str, str]


def put_headers(content_type: str, sha256: str | None) -> dict[str, str]:
    """Return the headers of a PUT that every provider signs and every client must send."""
    headers = {"Content-Type": content_type, "If-None-Match": "*"}
    if sha256:
        headers["x-amz-checksum-sha256"] = sha256
    return headers
