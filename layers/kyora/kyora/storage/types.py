"""What the storage providers exchange with their callers."""

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import NamedTuple, Protocol


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
