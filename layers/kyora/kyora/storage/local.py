"""A folder instead of a bucket, for development and tests: same contract, same refusals.

The functions use `Local`. `receive` and `serve` are its HTTP side: the local front server mounts
them at `/_local/storage/`, so files never pass through a function.
"""

import base64
import hashlib
import hmac
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote, urlencode

from kyora import clock, config
from kyora.errors import Forbidden, Invalid, KyoraError, NotFound, Unavailable
from kyora.storage.headers import attachment, put_headers
from kyora.storage.types import Changed, Stat, Upload

PREFIX = "/_local/storage/"
_CHUNK = 1 << 20
# Keys consist of ids that we generate. No other key reaches the file system.
_KEY = re.compile(r"(incoming|assets)(/[a-z0-9_-]{1,64}){2,3}")


class PreconditionFailed(KyoraError):
    """The object exists and is not overwritten."""

    status, code, title = 412, "storage.exists", "The object exists"


class Local:
    """A folder with the layout of the bucket."""

    def __init__(self, settings: config.Storage) -> None:
        self._settings = settings

    def presign_put(
        self, key: str, content_type: str, size: int, sha256: str | None, expires: int
    ) -> Upload:
        """Sign the same headers as S3."""
        headers = put_headers(content_type, sha256)
        until = int(clock.timestamp()) + expires
        signature = _sign(self._settings, "PUT", key, until, content_type, str(size), sha256 or "")
        return Upload(self._url(key, {"expires": str(until), "signature": signature}), headers)

    def presign_get(
        self, key: str, filename: str, content_type: str, signed_at: datetime, expires: int
    ) -> str:
        """Sign type and name of the download."""
        until = int(signed_at.timestamp()) + expires
        signature = _sign(self._settings, "GET", key, until, content_type, filename)
        query = {"expires": str(until), "type": content_type, "name": filename}
        return self._url(key, query | {"signature": signature})

    def stat(self, key: str) -> Stat | None:
        """Return inode and modification time as the version."""
        try:
            found = _path(self._settings, key).lstat()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _unavailable() from error
        return Stat(found.st_size, f"{found.st_ino}-{found.st_mtime_ns}")

    def copy(self, source: str, target: str, etag: str, content_type: str) -> None:  # noqa: ARG002
        """Copy through a temporary file, so that the target is complete or absent."""
        try:
            with _open(_path(self._settings, source)) as f:
                found = os.fstat(f.fileno())
                if f"{found.st_ino}-{found.st_mtime_ns}" != etag:
                    raise Changed(source)
                path = _path(self._settings, target)
                _write(path, iter(lambda: f.read(_CHUNK), b""), replace=True)
        except FileNotFoundError as error:
            raise Changed(source) from error
        except OSError as error:
            raise _unavailable() from error

    def read(self, key: str) -> Iterator[bytes]:
        """Stream the file in chunks of 1 MiB."""
        return _read(_path(self._settings, key))

    def delete(self, keys: Iterable[str]) -> None:
        """Delete files; empty folders stay."""
        for key in keys:
            try:
                _path(self._settings, key).unlink(missing_ok=True)
            except OSError as error:
                raise _unavailable() from error

    def _url(self, key: str, query: Mapping[str, str]) -> str:
        return f"{self._settings.app_base_url}{PREFIX}{quote(key)}?{urlencode(query)}"


def receive(
    settings: config.Storage,
    key: str,
    query: Mapping[str, str],
    headers: Mapping[str, str],
    read: Callable[[int], bytes],
) -> str:
    """Handle a PUT to a URL of `Local.presign_put`; return the ETag.

    `read(n)` returns up to n bytes of the body, b"" at its end; `headers` has lower-case names.
    Raises Forbidden if anything does not match the signature, PreconditionFailed for a second PUT,
    Invalid for bytes that do not match length or checksum.
    """
    length, checksum = headers.get("content-length", ""), headers.get("x-amz-checksum-sha256", "")
    _verify(settings, "PUT", key, query, headers.get("content-type", ""), length, checksum)
    if headers.get("if-none-match") != "*" or "transfer-encoding" in headers:
        raise Forbidden("A signed header is missing.", code="storage.signature_invalid")
    expected = int(length)

    digest = hashlib.sha256()

    def chunks() -> Iterator[bytes]:
        left = expected
        while left and (chunk := read(min(left, _CHUNK))):
            digest.update(chunk)
            left -= len(chunk)
            yield chunk
        if left or read(1):
            raise Invalid("The body is not as long as signed.", code="storage.length_mismatch")
        if checksum and base64.b64encode(digest.digest()).decode() != checksum:
            raise Invalid("The bytes do not match the checksum.", code="storage.bad_digest")

    _write(_path(settings, key), chunks(), replace=False)
    return f'"{digest.hexdigest()}"'


def serve(
    settings: config.Storage, key: str, query: Mapping[str, str]
) -> tuple[dict[str, str], Iterator[bytes]]:
    """Handle a GET to a URL of `Local.presign_get`; return headers and body."""
    content_type, name = query.get("type", ""), query.get("name", "")
    _verify(settings, "GET", key, query, content_type, name)
    path = _path(settings, key)
    if not path.is_file() or path.is_symlink():
        raise NotFound("There is no such file.", code="storage.not_found")
    headers = {
        "Content-Type": content_type,
        "Content-Disposition": attachment(name),
        "Content-Length": str(path.stat().st_size),
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "sandbox; default-src 'none'",
    }
    return headers, _read(path)


def _verify(
    settings: config.Storage, method: str, key: str, query: Mapping[str, str], *bound: str
) -> None:
    until = query.get("expires", "")
    if not until.isdecimal() or not until.isascii() or len(until) > 12:
        raise Forbidden("The URL is not signed.", code="storage.signature_invalid")
    expected = _sign(settings, method, key, int(until), *bound)
    if not hmac.compare_digest(expected.encode(), query.get("signature", "").encode()):
        raise Forbidden(
            "The signature does not match the request.", code="storage.signature_invalid"
        )
    if clock.timestamp() > int(until):
        raise Forbidden("The URL has expired.", code="storage.url_expired")


def _sign(settings: config.Storage, method: str, key: str, until: int, *bound: str) -> str:
    """Return the HMAC of everything that must not change. Its key is derived from the secret."""
    secret = hmac.digest(settings.auth_jwt_secret.encode(), b"kyora local storage", "sha256")
    text = "\n".join((method, key, str(until), *(quote(part, safe="") for part in bound)))
    return hmac.digest(secret, text.encode(), "sha256").hex()


def _path(settings: config.Storage, key: str) -> Path:
    """Return the file of a key. Raises NotFound for one that would be outside the folder."""
    if not _KEY.fullmatch(key):
        raise NotFound("There is no such file.", code="storage.not_found")
    root = Path(settings.local_path).resolve()
    path = root / key
    if not path.parent.resolve().is_relative_to(root):  # a symbolic link inside the folder
        raise NotFound("There is no such file.", code="storage.not_found")
    return path


def _write(path: Path, chunks: Iterator[bytes], *, replace: bool) -> None:
    """Write a complete file or none. Without `replace`, one of two writers wins."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.writelines(chunks)
        if replace:
            temporary.replace(path)
            return
        try:
            path.hardlink_to(temporary)
        except FileExistsError as error:
            raise PreconditionFailed("There is an object already.") from error
    finally:
        temporary.unlink(missing_ok=True)


def _open(path: Path) -> BinaryIO:
    """Open a file for reading, but no symbolic link."""
    return os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb")


def _read(path: Path) -> Iterator[bytes]:
    try:
        with _open(path) as file:
            while chunk := file.read(_CHUNK):
                yield chunk
    except FileNotFoundError as error:
        raise Changed(path.name) from error
    except OSError as error:
        raise _unavailable() from error


def _unavailable() -> Unavailable:
    return Unavailable("The file store does not answer.", code="storage.unavailable")
