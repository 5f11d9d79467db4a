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
