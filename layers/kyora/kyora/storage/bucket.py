"""The settings that the bucket needs, checked during a deploy.

template.yaml sets up the stack's own bucket. A bucket that existed before (StorageS3Bucket) lacks
them: without events, an upload is not verified if its client has left; without CORS, no browser can
upload; without a rule that aborts them, parts of abandoned uploads are paid for forever.
docs/deploy.md has the commands.
"""

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from kyora import config

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

# S3's error codes for a setting that does not exist.
_UNSET = (
    "NoSuchCORSConfiguration",
    "NoSuchLifecycleConfiguration",
    "NoSuchPublicAccessBlockConfiguration",
)
_INCOMING = "incoming/"
# What a page sends with a file or a part.
_SENT = ("content-type", "if-none-match", "x-amz-checksum-sha256")


class BucketNotReady(Exception):
    """The bucket is not set up for uploads."""


def check() -> None:
    """Check the bucket. Raises BucketNotReady with everything that it lacks.

    Only on AWS: other stores are set up in other ways.
    """
    found = config.storage()
    if found.provider != "s3" or found.s3_endpoint or config.is_development():
        return
    from kyora.storage import s3

    if lacks := faults(s3.connect(found), found.s3_bucket, config.cors_origins()):
        raise BucketNotReady("; ".join(lacks))


def faults(client: "S3Client", bucket: str, origins: Sequence[str]) -> list[str]:
    """Return what a bucket lacks to take uploads from pages of `origins`, for a person to act on.

    Raises botocore's ClientError if we may not read the bucket's settings.
    """
    found = []
    if not _asked(lambda: client.get_bucket_notification_configuration(Bucket=bucket)).keys() & {
        "EventBridgeConfiguration"
    }:
        found.append("sends no events to EventBridge")
    blocked = _asked(lambda: client.get_public_access_block(Bucket=bucket))
    if not all(blocked.get("PublicAccessBlockConfiguration", {"": False}).values()):
        found.append("does not block public access")
    rules = _asked(lambda: client.get_bucket_lifecycle_configuration(Bucket=bucket))
    if not any(_forgets(rule) for rule in rules.get("Rules", [])):
        found.append("keeps what was never confirmed: it has no lifecycle rule for incoming/")
    if not any(_aborts(rule) for rule in rules.get("Rules", [])):
        found.append(
            "keeps parts of abandoned uploads: it has no lifecycle rule with"
            " AbortIncompleteMultipartUpload for incoming/"
        )
    cors = _asked(lambda: client.get_bucket_cors(Bucket=bucket)) if origins else {}
    for origin in origins:
        # Of several rules, S3 answers by the first that fits.
        rule = next((rule for rule in cors.get("CORSRules", []) if _lets(rule, origin)), None)
        if rule is None:
            found.append(
                f"takes no upload from pages of {origin}: it has no CORS rule that allows PUT"
                f" from there with {', '.join(_SENT)}"
            )
        elif "etag" not in {name.lower() for name in rule.get("ExposeHeaders", [])}:
            found.append(
                f"takes no upload in parts from pages of {origin}: its CORS rule lacks ETag in"
                " ExposeHeaders"
            )
    return [f"bucket {bucket} {fault}" for fault in found]


def _asked(ask: Callable[[], Any]) -> dict[str, Any]:
    from botocore.exceptions import ClientError

    try:
        return dict(ask())
    except ClientError as error:
        if error.response.get("Error", {}).get("Code", "") in _UNSET:
            return {}
        raise


def _forgets(rule: dict[str, Any]) -> bool:
    return _prefix(rule) == _INCOMING and bool(rule.get("Expiration", {}).get("Days"))


def _aborts(rule: dict[str, Any]) -> bool:
    prefix, parts = _prefix(rule), rule.get("AbortIncompleteMultipartUpload", {})
    return (
        prefix is not None
        and _INCOMING.startswith(prefix)
        and bool(parts.get("DaysAfterInitiation"))
    )


def _prefix(rule: dict[str, Any]) -> str | None:
    """Return the prefix of a lifecycle rule; None of one that is off or has other conditions."""
    found = rule.get("Filter", {"Prefix": rule.get("Prefix", "")})
    if rule.get("Status") != "Enabled" or found.keys() - {"Prefix"}:
        return None
    return str(found.get("Prefix", ""))


def _lets(rule: dict[str, Any], origin: str) -> bool:
    headers = [str(name).lower() for name in rule.get("AllowedHeaders", [])]
    return (
        any(fnmatchcase(origin, allowed) for allowed in rule.get("AllowedOrigins", []))
        and "PUT" in rule.get("AllowedMethods", [])
        and all(any(fnmatchcase(sent, allowed) for allowed in headers) for sent in _SENT)
    )
