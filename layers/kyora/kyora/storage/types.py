"""The interface of a store."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import NamedTuple, Protocol

# The most that CopyObject copies in one call is 5 GB (S3 API Reference, CopyObject). A larger file
# would need another kind of copy, so no file may be larger.
MAX_COPY = 5_000_000_000


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


class Part(NamedTuple):
    """A part of a multipart upload; `sha256` is empty if its PUT had no checksum."""

    number: int
    size: int
    etag: str
    sha256: str = ""


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

    def copy(
        self, source: str, target: str, etag: str, content_type: str, *, seconds: float
    ) -> None:
        """Copy the version `etag` of `source`. Raises Changed if it is another version now.

        At most `MAX_COPY` bytes, within `seconds`.
        """

    def put(self, key: str, data: bytes, content_type: str, *, public: bool) -> None:
        """Write an object of our own making; it may be cached for a year, by anyone if `public`."""

    def read(self, key: str, *, seconds: float) -> Iterator[bytes]:
        """Yield the bytes of `key` within `seconds`. Raises Changed if there is no such object."""

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects. A missing object is no error."""

    def begin_parts(self, key: str, content_type: str, *, checked: bool) -> str:
        """Begin a multipart upload of `key` and return its id.

        `checked`: each part has a SHA-256. S3 accepts all parts of an upload with one, or none.
        """

    def presign_part(
        self, key: str, upload: str, number: int, size: int, sha256: str | None, expires: int
    ) -> Upload:
        """Sign a PUT of exactly this part, valid for `expires` seconds. A repeat replaces it."""

    def list_parts(self, key: str, upload: str) -> list[Part]:
        """Return the parts that have arrived, by number. Raises Changed if the upload is gone.

        Their `sha256` may be empty: some stores check it and do not list it.
        """

    def join_parts(self, key: str, upload: str, parts: Sequence[Part]) -> None:
        """Make the object of these parts. An object that exists is not overwritten.

        Each part of a `checked` upload must have its `sha256`.

        Raises Changed if it exists, the upload is gone, or a part is another one now. A repeat may
        return as the first call did: S3 remembers a completed upload for a while.
        """

    def drop_parts(self, key: str, upload: str) -> None:
        """Abort a multipart upload and delete its parts. One that is gone is no error."""
