"""What the storage providers exchange with their callers."""

from dataclasses import dataclass


class Changed(Exception):
    """The object is gone or is not the version that was looked at."""


@dataclass(frozen=True, slots=True)
class Stat:
    """An object's size in bytes and its version."""

    size: int
    etag: str


@dataclass(frozen=True, slots=True)
class Upload:
    """A PUT that a client may make: every header must be sent as given."""

    url: str
    headers: dict[str, str]
