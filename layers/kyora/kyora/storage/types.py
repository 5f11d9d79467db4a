"""The interface of a store."""

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import NamedTuple, Protocol


class Changed(Exception):
    """The object is gone, or is no longer the version that was read before."""


class Stat(NamedTuple):
    """An object's size in bytes and its version."""

    size: int
    etag: str


class Upload(NamedTuple):
    """A PUT that a client may make, with exactly these headers."""

    url: str
    headers: dict[str, str]


class Storage(Protocol):
    """A store. Every method raises Unavailable if the store does not answer."""

    def presign_put(
        self, key: str, content_type: str, size: int, sha256: str | None, expires: int
    ) -> Upload:
        """Sign a PUT of exactly this file, valid for `expires` seconds."""

    def presign_get(
        self, key: str, filename: str, content_type: str, signed_at: datetime, expires: int
    ) -> str:
        """Return a URL that downloads `key` as an attachment."""

    def stat(self, key: str) -> Stat | None:
        """Return size and version of `key`, or None if there is no such object."""

    def copy(self, source: str, target: str, etag: str, content_type: str) -> None:
        """Copy the version `etag` of `source`. Raises Changed if it is another version now."""

    def read(self, key: str) -> Iterator[bytes]:
        """Yield the bytes of `key`. Raises Changed if there is no such object."""

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects. A missing object is no error."""
