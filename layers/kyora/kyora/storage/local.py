"""A folder instead of a bucket, for development and tests: same contract, same refusals.

The functions use `Local`. `receive` and `serve` are its HTTP side: the local front server mounts
them at `/_local/storage/`, so files never pass through a function.
"""

import base64
import hashlib
import hmac
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote, urlencode

from kyora import clock, config
from kyora.errors import Forbidden, Invalid, KyoraError, NotFound, Unavailable
from kyora.storage.headers import attachment, cache_control, part_headers, put_headers
from kyora.storage.types import Changed, Part, Stat, Upload

PREFIX = "/_local/storage/"
_CHUNK = 1 << 20
# Keys consist of ids that we generate. No other key reaches the file system.
_KEY = re.compile(
    r"(incoming|assets)(/[a-z0-9_-]{1,64}){2,3}"
    r"|(variants|public)(/[a-z0-9_-]{1,64}){3}/[a-z]{1,16}\.(webp|jpg)"
)
_PUBLIC = "public/"
_TYPES = {".webp": "image/webp", ".jpg": "image/jpeg"}
_UPLOAD = re.compile(r"[0-9a-f]{32}")
_PART = re.compile(r"([0-9]{5})-([0-9a-f]{64})(-checked)?")


class PreconditionFailed(KyoraError):
    """The object exists and is not overwritten."""

    status, code, title = 412, "storage.exists", "The object exists"


class Local:
    """A folder with the layout of the bucket. Parts lie beside it, as `parts/…/<upload>/<part>`."""

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

    def copy(
        self,
        source: str,
        target: str,
        etag: str,
        content_type: str,  # noqa: ARG002
        *,
        seconds: float,  # noqa: ARG002
    ) -> None:
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

    def put(self, key: str, data: bytes, content_type: str, *, public: bool) -> None:  # noqa: ARG002
        """Write a file; its name says its type."""
        try:
            _write(_path(self._settings, key), iter([data]), replace=True)
        except OSError as error:
            raise _unavailable() from error

    def read(self, key: str, *, seconds: float) -> Iterator[bytes]:  # noqa: ARG002
        """Stream the file in chunks of 1 MiB."""
        return _read(_path(self._settings, key))

    def delete(self, keys: Iterable[str]) -> None:
        """Delete files; empty folders stay."""
        for key in keys:
            try:
                _path(self._settings, key).unlink(missing_ok=True)
            except OSError as error:
                raise _unavailable() from error

    def begin_parts(self, key: str, content_type: str, *, checked: bool) -> str:  # noqa: ARG002
        """Make the folder of the parts."""
        upload = secrets.token_hex(16)
        try:
            _parts(self._settings, key, upload).mkdir(parents=True)
        except OSError as error:
            raise _unavailable() from error
        return upload

    def presign_part(
        self, key: str, upload: str, number: int, size: int, sha256: str | None, expires: int
    ) -> Upload:
        """Sign the same as S3."""
        until = int(clock.timestamp()) + expires
        bound = (upload, str(number), str(size), sha256 or "")
        query = {
            "partNumber": str(number),
            "uploadId": upload,
            "expires": str(until),
            "signature": _sign(self._settings, "PART", key, until, *bound),
        }
        return Upload(self._url(key, query), part_headers(sha256))

    def list_parts(self, key: str, upload: str) -> list[Part]:
        """Read the part's number and digest from its file's name."""
        try:
            return sorted(_listed(_parts(self._settings, key, upload)))
        except FileNotFoundError as error:
            raise Changed(key) from error
        except OSError as error:
            raise _unavailable() from error

    def join_parts(self, key: str, upload: str, parts: Sequence[Part]) -> None:
        """Write the parts one after the other, then delete them."""
        if [part for part in self.list_parts(key, upload) if part in parts] != list(parts):
            raise Changed(key)
        folder = _parts(self._settings, key, upload)

        def chunks() -> Iterator[bytes]:
            for part in parts:
                with _open(folder / _name(part.number, part.etag, checked=bool(part.sha256))) as f:
                    yield from iter(lambda: f.read(_CHUNK), b"")

        try:
            _write(_path(self._settings, key), chunks(), replace=False)
        except (FileNotFoundError, PreconditionFailed) as error:
            raise Changed(key) from error
        except OSError as error:
            raise _unavailable() from error
        self.drop_parts(key, upload)

    def drop_parts(self, key: str, upload: str) -> None:
        """Delete the folder of the parts, which disappear at once for who lists them."""
        folder = _parts(self._settings, key, upload)
        gone = folder.with_name(f"{upload}-gone")
        with suppress(OSError):  # another call has moved it
            folder.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)

    def _url(self, key: str, query: Mapping[str, str]) -> str:
        return f"{self._settings.app_base_url}{PREFIX}{quote(key)}?{urlencode(query)}"


def receive(
    settings: config.Storage,
    key: str,
    query: Mapping[str, str],
    headers: Mapping[str, str],
    read: Callable[[int], bytes],
) -> str:
    """Handle a PUT to a URL of `Local.presign_put` or `presign_part`; return the ETag.

    `read(n)` returns up to n bytes of the body, b"" at its end; `headers` has lower-case names.
    Raises Forbidden if anything does not match the signature, PreconditionFailed for a second PUT,
    Invalid for bytes that do not match length or checksum.
    """
    length, checksum = headers.get("content-length", ""), headers.get("x-amz-checksum-sha256", "")
    upload, number = query.get("uploadId", ""), query.get("partNumber", "")
    if upload:
        _verify(settings, "PART", key, query, upload, number, length, checksum)
    else:
        _verify(settings, "PUT", key, query, headers.get("content-type", ""), length, checksum)
    unconditional = not upload and headers.get("if-none-match") != "*"
    if unconditional or "transfer-encoding" in headers:
        raise Forbidden("A signed header is missing.", code="storage.signature_invalid")
    digest = hashlib.sha256()
    chunks = _body(int(length), checksum, read, digest)
    if not upload:
        _write(_path(settings, key), chunks, replace=False)
        return f'"{digest.hexdigest()}"'
    folder = _parts(settings, key, upload)
    if not folder.is_dir():
        raise NotFound("There is no such upload.", code="storage.no_upload")
    _write_part(folder, int(number), chunks, digest, checked=bool(checksum))
    return f'"{digest.hexdigest()}"'


def _body(
    expected: int, checksum: str, read: Callable[[int], bytes], digest: "hashlib._Hash"
) -> Iterator[bytes]:
    """Yield a body that must have this length and checksum; its bytes go to `digest` as well."""
    left = expected
    while left and (chunk := read(min(left, _CHUNK))):
        digest.update(chunk)
        left -= len(chunk)
        yield chunk
    if left or read(1):
        raise Invalid("The body is not as long as signed.", code="storage.length_mismatch")
    if checksum and base64.b64encode(digest.digest()).decode() != checksum:
        raise Invalid("The bytes do not match the checksum.", code="storage.bad_digest")


def _write_part(
    folder: Path, number: int, chunks: Iterator[bytes], digest: "hashlib._Hash", *, checked: bool
) -> None:
    """Write a part and replace an earlier one of its number. Raises NotFound after an abort."""
    handle, name = tempfile.mkstemp(dir=folder, prefix=".")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.writelines(chunks)
        target = folder / _name(number, f'"{digest.hexdigest()}"', checked=checked)
        temporary.replace(target)
        for old in folder.glob(f"{number:05}-*"):
            if old != target:
                old.unlink(missing_ok=True)
    except FileNotFoundError as error:
        raise NotFound("There is no such upload.", code="storage.no_upload") from error
    finally:
        temporary.unlink(missing_ok=True)


def _listed(folder: Path) -> Iterator[Part]:
    for path in folder.iterdir():
        if found := _PART.fullmatch(path.name):
            digest = found[2]
            sha256 = base64.b64encode(bytes.fromhex(digest)).decode() if found[3] else ""
            yield Part(int(found[1]), path.stat().st_size, f'"{digest}"', sha256)


def _name(number: int, etag: str, *, checked: bool) -> str:
    return f"{number:05}-{etag.strip('"')}{'-checked' if checked else ''}"


def _parts(settings: config.Storage, key: str, upload: str) -> Path:
    """Return the folder of an upload's parts. Raises NotFound for one outside our own."""
    if not _UPLOAD.fullmatch(upload):
        raise NotFound("There is no such upload.", code="storage.no_upload")
    path = _path(settings, key)
    root = Path(settings.local_path).resolve()
    return root / "parts" / path.relative_to(root / "incoming") / upload


def serve(
    settings: config.Storage, key: str, query: Mapping[str, str]
) -> tuple[dict[str, str], Iterator[bytes]]:
    """Handle a GET to a URL of `Local.presign_get`; return headers and body."""
    content_type, name = query.get("type", ""), query.get("name", "")
    _verify(settings, "GET", key, query, content_type, name)
    path = _path(settings, key)
    if not path.is_file() or path.is_symlink():
        raise missing()
    headers = {
        "Content-Type": content_type,
        "Content-Disposition": attachment(name),
        "Content-Length": str(path.stat().st_size),
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "sandbox; default-src 'none'",
    }
    return headers, _read(path)


def serve_public(settings: config.Storage, key: str) -> tuple[dict[str, str], Iterator[bytes]]:
    """Handle a GET of a public object: no signature, and a year in every cache."""
    path = _path(settings, key)
    if not key.startswith(_PUBLIC) or not path.is_file() or path.is_symlink():
        raise missing()
    headers = {
        "Content-Type": _TYPES[path.suffix],
        "Content-Disposition": "inline",
        "Content-Length": str(path.stat().st_size),
        "Cache-Control": cache_control(public=True),
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
        raise missing()
    root = Path(settings.local_path).resolve()
    path = root / key
    if not path.parent.resolve().is_relative_to(root):  # a symbolic link inside the folder
        raise missing()
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


def missing() -> NotFound:
    """Return the refusal of a key that has no file."""
    return NotFound("There is no such file.", code="storage.not_found")


def _unavailable() -> Unavailable:
    return Unavailable("The file store does not answer.", code="storage.unavailable")
