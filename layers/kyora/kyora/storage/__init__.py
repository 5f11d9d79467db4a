"""Where uploaded bytes live: S3 (or any store that speaks it), or a folder in development.

A presigned URL can write `incoming/…` only. `assets/…` is written by `copy` alone, so what was
verified there cannot be changed by a client.
"""

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Protocol

from kyora import config
from kyora.storage.types import Changed, Stat, Upload

__all__ = ["BucketNotReady", "Changed", "Stat", "Storage", "Upload", "check", "provider"]


class BucketNotReady(Exception):
    """The bucket is not set up for uploads."""


class Storage(Protocol):
    """What a provider does. Every method raises Unavailable when the store does not answer."""

    def presign_put(
        self, key: str, content_type: str, size: int, sha256: str | None, expires: int
    ) -> Upload:
        """Return where and how to PUT exactly these bytes, within `expires` seconds."""

    def presign_get(
        self, key: str, filename: str, content_type: str, signed_at: datetime, expires: int
    ) -> str:
        """Return a URL that downloads `key` as an attachment."""

    def stat(self, key: str) -> Stat | None:
        """Return size and version of `key`, or None when there is no such object."""

    def copy(self, source: str, target: str, etag: str, content_type: str) -> None:
        """Copy the version `etag` of `source`. Raises Changed when it is not that any more."""

    def read(self, key: str) -> Iterator[bytes]:
        """Yield the bytes of `key`. Raises Changed when there is no such object."""

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects; one that is not there is no error."""


def provider() -> Storage:
    """Return the configured provider."""
    found = config.settings("storage")
    if found.storage_provider == "local":
        from kyora.storage import local

        return local.Local(found)
    from kyora.storage import s3

    return s3.S3(found)


def check() -> None:
    """Look at the bucket during a deploy. Raises BucketNotReady naming everything that it lacks.

    Only at AWS: other stores have other ways to be set up.
    """
    found = config.settings("storage", "cors")
    if found.storage_provider != "s3" or found.s3_endpoint or found.development:
        return
    from kyora.storage import bucket, s3

    if lacks := bucket.faults(s3.connect(found), found):
        raise BucketNotReady("; ".join(lacks))
