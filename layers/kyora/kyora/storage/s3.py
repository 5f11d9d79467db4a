"""S3, and stores with its API.

URLs are signed here: that needs no boto3, which would use SigV2 in old regions. All other calls go
through boto3, imported at its first use.
"""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from kyora import aws, config
from kyora.deadline import within
from kyora.errors import Unavailable
from kyora.observability import logger
from kyora.storage.headers import attachment, cache_control, part_headers, put_headers
from kyora.storage.types import Changed, Part, Stat, Upload

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_CHUNK = 1 << 20
# Seconds for one call with its attempts, and for one that S3 may take its time with: joining many
# parts. Like the copy of a large object it is made once, without a shorter limit on its silence.
_CALL, _JOIN = 20.0, 25.0
# 403 is never a missing key for us: S3 answers 403 for one only to callers without ListBucket, and
# our functions have it. 409 is S3's answer while two writes race.
_MISSING = ("404", "NoSuchKey", "NotFound")
_REFUSED = ("403", "Forbidden", "AccessDenied")
_CHANGED = (*_MISSING, "412", "409", "PreconditionFailed", "ConditionalRequestConflict")
_NO_UPLOAD = (*_MISSING, "NoSuchUpload")
_NOT_JOINED = (*_CHANGED, "NoSuchUpload", "InvalidPart", "InvalidPartOrder", "EntityTooSmall")

_clients: dict[tuple[str, ...], "S3Client"] = {}


class S3:
    """A bucket, at AWS or at `s3_endpoint`."""

    def __init__(self, settings: config.Storage) -> None:
        self._settings = settings

    def presign_put(
        self, key: str, content_type: str, size: int, sha256: str | None, expires: int
    ) -> Upload:
        """Sign type, length, checksum and If-None-Match: no other PUT is accepted."""
        headers = put_headers(content_type, sha256)
        # The length is signed too. Every HTTP client sends it automatically.
        bound = headers | {"Content-Length": str(size)}
        return Upload(self._presign("PUT", key, expires, headers=bound), headers)

    def presign_get(
        self, key: str, filename: str, content_type: str, signed_at: datetime, expires: int
    ) -> str:
        """Sign a download: the client cannot change its type and name."""
        query = {
            "response-content-type": content_type,
            "response-content-disposition": attachment(filename),
            # If a store keeps the uploader's Content-Encoding, browsers would decompress bytes that
            # were verified as they are.
            "response-content-encoding": "identity",
        }
        return self._presign("GET", key, expires, query=query, now=signed_at)

    def stat(self, key: str) -> Stat | None:
        """Send HEAD. Its checksum is not used: some stores repeat the client's claim."""
        try:
            with _answering(key, _MISSING):
                found = self._within(
                    lambda s3: s3.head_object(Bucket=self._settings.s3_bucket, Key=key)
                )
        except Changed:
            return None
        if "ContentLength" not in found or "ETag" not in found:
            raise _unavailable()  # an incomplete answer, or one from a proxy
        return Stat(found["ContentLength"], found["ETag"])

    def copy(
        self, source: str, target: str, etag: str, content_type: str, *, seconds: float
    ) -> None:
        """Copy with new metadata, so that none of the client's is kept."""
        bucket = self._settings.s3_bucket
        with _answering(source, _CHANGED):
            self._within(
                lambda s3: s3.copy_object(
                    Bucket=bucket,
                    Key=target,
                    CopySource={"Bucket": bucket, "Key": source},
                    CopySourceIfMatch=etag,
                    MetadataDirective="REPLACE",
                    ContentType=content_type,
                    ContentDisposition="attachment",
                    CacheControl=cache_control(public=False),
                ),
                seconds,
                patient=seconds > _CALL,
            )

    def put(self, key: str, data: bytes, content_type: str, *, public: bool) -> None:
        """Write an object; what is public is shown by a browser, not downloaded."""
        with _answering(key, ()):
            self._within(
                lambda s3: s3.put_object(
                    Bucket=self._settings.s3_bucket,
                    Key=key,
                    Body=data,
                    ContentType=content_type,
                    ContentDisposition="inline" if public else "attachment",
                    CacheControl=cache_control(public=public),
                )
            )

    def read(self, key: str, *, seconds: float) -> Iterator[bytes]:
        """Stream the object in chunks of 1 MiB."""
        with _answering(key, _MISSING):
            ends = time.monotonic() + seconds
            found = self._within(lambda s3: s3.get_object(Bucket=self._settings.s3_bucket, Key=key))
            chunks = found["Body"].iter_chunks(_CHUNK)
            while chunk := self._within(lambda _: next(chunks, b""), ends - time.monotonic()):
                yield chunk

    def delete(self, keys: Iterable[str]) -> None:
        """Delete one by one: there are few, and not every store has the batch call."""
        for key in keys:
            with suppress(Changed), _answering(key, _MISSING):
                self._within(
                    lambda s3, key=key: s3.delete_object(  # type: ignore[misc]  # bound, not late
                        Bucket=self._settings.s3_bucket, Key=key
                    )
                )

    def begin_parts(self, key: str, content_type: str, *, checked: bool) -> str:
        """Create the multipart upload. S3 refuses a part's checksum of a kind not named here."""
        kind: dict[str, Any] = {"ChecksumAlgorithm": "SHA256"} if checked else {}
        with _answering(key, ()):
            found = self._within(
                lambda s3: s3.create_multipart_upload(
                    Bucket=self._settings.s3_bucket, Key=key, ContentType=content_type, **kind
                )
            )
        return found["UploadId"]

    def presign_part(
        self, key: str, upload: str, number: int, size: int, sha256: str | None, expires: int
    ) -> Upload:
        """Sign upload id, number, length and checksum: no other PUT is accepted."""
        headers = part_headers(sha256)
        url = self._presign(
            "PUT",
            key,
            expires,
            headers=headers | {"Content-Length": str(size)},
            query={"partNumber": str(number), "uploadId": upload},
        )
        return Upload(url, headers)

    def list_parts(self, key: str, upload: str) -> list[Part]:
        """Read every page: S3 lists up to a thousand parts in one.

        Some stores list a part twice that was sent twice.
        """
        parts: dict[int, tuple[datetime, Part]] = {}
        more: dict[str, Any] = {}
        with _answering(key, _NO_UPLOAD):
            while True:
                found = self._within(
                    lambda s3, more=more: s3.list_parts(  # type: ignore[misc]  # bound, not late
                        Bucket=self._settings.s3_bucket, Key=key, UploadId=upload, **more
                    )
                )
                for p in found.get("Parts", ()):
                    part = Part(p["PartNumber"], p["Size"], p["ETag"], p.get("ChecksumSHA256", ""))
                    written = (p["LastModified"], part)
                    parts[part.number] = max(parts.get(part.number, written), written)
                if not found.get("IsTruncated"):
                    return [part for _, (_, part) in sorted(parts.items())]
                more = {"PartNumberMarker": found["NextPartNumberMarker"]}

    def join_parts(self, key: str, upload: str, parts: Sequence[Part]) -> None:
        """Complete the upload. If-None-Match: the bucket's policy demands it as for a PUT."""
        named: list[Any] = [
            {"PartNumber": part.number, "ETag": part.etag}
            | ({"ChecksumSHA256": part.sha256} if part.sha256 else {})
            for part in parts
        ]
        with _answering(key, _NOT_JOINED):
            self._within(
                lambda s3: s3.complete_multipart_upload(
                    Bucket=self._settings.s3_bucket,
                    Key=key,
                    UploadId=upload,
                    MultipartUpload={"Parts": named},
                    IfNoneMatch="*",
                ),
                _JOIN,
                patient=True,
            )

    def drop_parts(self, key: str, upload: str) -> None:
        """Abort the upload. The bucket's rule deletes a part that is being written meanwhile."""
        with suppress(Changed), _answering(key, _NO_UPLOAD):
            self._within(
                lambda s3: s3.abort_multipart_upload(
                    Bucket=self._settings.s3_bucket, Key=key, UploadId=upload
                )
            )

    def _presign(
        self,
        method: str,
        key: str,
        expires: int,
        *,
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
        now: datetime | None = None,
    ) -> str:
        found = self._settings
        credentials = (
            aws.Credentials(found.s3_access_key_id, found.s3_secret_access_key)
            if found.s3_access_key_id
            else aws.credentials()
        )
        return aws.presign(
            method,
            f"{_base(found)}/{quote(key)}",
            credentials=credentials,
            region=found.s3_region,
            expires=expires,
            headers=headers,
            query=query,
            now=now,
        )

    def _within[T](
        self,
        call: Callable[["S3Client"], T],
        seconds: float | None = None,
        *,
        patient: bool = False,
    ) -> T:
        """Make a call within one deadline. Raises TimeoutError."""
        client = self._client(patient=patient)
        try:
            return within(_CALL if seconds is None else seconds, lambda: call(client))
        except TimeoutError:
            _clients.clear()  # one of its connections is still waiting
            raise

    def _client(self, *, patient: bool) -> "S3Client":
        found = self._settings
        name = (
            found.s3_endpoint,
            found.s3_region,
            found.s3_addressing_style,
            found.s3_access_key_id,
            found.s3_secret_access_key,
            "patient" if patient else "",
        )
        if name not in _clients:
            _clients[name] = connect(found, patient=patient)
        return _clients[name]


def _base(settings: config.Storage) -> str:
    if settings.s3_endpoint and settings.s3_addressing_style == "path":
        return f"{settings.s3_endpoint}/{settings.s3_bucket}"
    if settings.s3_endpoint:
        return settings.s3_endpoint.replace("://", f"://{settings.s3_bucket}.", 1)
    host = f"s3.{settings.s3_region}.{aws.suffix(settings.s3_region)}"
    if settings.s3_addressing_style == "path":
        return f"https://{host}/{settings.s3_bucket}"
    return f"https://{settings.s3_bucket}.{host}"


def connect(settings: config.Storage, *, patient: bool = False) -> "S3Client":
    """Return a client of the configured store, with time limits.

    A `patient` one waits for as long as its caller does, and never sends a request twice.
    """
    import boto3
    from botocore.config import Config

    options: dict[str, Any] = {}
    if settings.s3_access_key_id:
        options["aws_access_key_id"] = settings.s3_access_key_id
        options["aws_secret_access_key"] = settings.s3_secret_access_key
    endpoint = settings.s3_endpoint or os.environ.get("AWS_ENDPOINT_URL")
    return boto3.client(
        "s3",
        region_name=settings.s3_region,
        endpoint_url=endpoint or None,
        config=Config(
            signature_version="s3v4",
            connect_timeout=2,
            read_timeout=900 if patient else 10,
            retries={"mode": "standard", "total_max_attempts": 1 if patient else 3},
            s3={
                "addressing_style": "path" if settings.s3_addressing_style == "path" else "virtual"
            },
            # Some other stores refuse checksums that they did not ask for.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
        **options,
    )


@contextmanager
def _answering(key: str, changed: tuple[str, ...]) -> Iterator[None]:
    """Turn botocore's errors into Changed, for these codes, or Unavailable."""
    from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError

    try:
        yield
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        if code in changed:
            raise Changed(key) from error
        if code in _REFUSED:
            # Without the key, which names a workspace. ApiErrorsAlarm counts the 503.
            logger().error("the file store refuses us", operation=error.operation_name, code=code)
        raise _unavailable() from error
    except (BotoCoreError, HTTPClientError, OSError) as error:
        raise _unavailable() from error


def _unavailable() -> Unavailable:
    return Unavailable("The file store does not answer.", code="storage.unavailable")
