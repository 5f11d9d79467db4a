"""Signature Version 4 and the two small AWS calls that every request may need.

boto3 costs 250-350 ms to import: more than all the rest of a function. A function that only
presigns, reads a secret or puts an event does not load it; S3 itself goes through boto3
(`kyora.storage.s3`). tests/unit/test_aws.py holds this signer against botocore's.
"""

import hashlib
import hmac
import json
import os
import random
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote, urlsplit

from kyora.errors import Unavailable

if TYPE_CHECKING:
    import http.client

    import botocore.credentials

# Seconds for one attempt and for all of them. These calls answer in milliseconds, and the shortest
# function has ten seconds.
_ATTEMPT, _DEADLINE = 3.0, 6.0
_LONGEST_ANSWER = 1 << 20  # bytes
# What every request to a service says of itself, as botocore says it: the protocol's version, and
# the prefix of the operation's name.
_SPOKEN: dict[str, tuple[str, str, dict[str, str]]] = {
    "secretsmanager": ("1.1", "secretsmanager", {}),
    "events": ("1.1", "AWSEvents", {}),
    "sqs": ("1.0", "AmazonSQS", {"x-amzn-query-mode": "true"}),
}

_connections: dict[str, "http.client.HTTPConnection"] = {}


class Credentials(NamedTuple):
    """What a request is signed with."""

    access_key: str
    secret_key: str
    token: str = ""


class AwsError(Exception):
    """AWS answered with an error that a retry does not mend. `code` is AWS's own."""

    def __init__(self, status: int, code: str) -> None:
        super().__init__(f"{status} {code}")
        self.status, self.code = status, code


def credentials(environ: Mapping[str, str] = os.environ) -> Credentials:
    """Return the function's own credentials."""
    if "AWS_ACCESS_KEY_ID" in environ:
        return Credentials(
            environ["AWS_ACCESS_KEY_ID"],
            environ["AWS_SECRET_ACCESS_KEY"],
            environ.get("AWS_SESSION_TOKEN", ""),
        )
    frozen = _refreshing().get_frozen_credentials()
    return Credentials(frozen.access_key or "", frozen.secret_key or "", frozen.token or "")


@lru_cache(maxsize=1)
def _refreshing() -> "botocore.credentials.Credentials":
    """Return the process's one credentials object, which asks again before the keys expire.

    SnapStart gives no keys in the environment but an address that botocore knows.
    """
    import botocore.session

    found = botocore.session.get_session().get_credentials()
    if found is None:
        raise Unavailable("No AWS credentials.", code="service.unavailable")
    return found


def warm(environ: Mapping[str, str] = os.environ) -> None:
    """Import what `credentials` needs under SnapStart while the snapshot is made, not after it."""
    if environ.get("AWS_LAMBDA_INITIALIZATION_TYPE") == "snap-start":
        import botocore.session  # noqa: F401


def presign(
    method: str,
    url: str,
    *,
    credentials: Credentials,
    region: str,
    expires: int,
    headers: Mapping[str, str] | None = None,
    query: Mapping[str, str] | None = None,
    now: datetime | None = None,
) -> str:
    """Return `url` signed for S3; `expires` is in seconds, every one of `headers` is bound."""
    parts = urlsplit(url)
    stamp = _stamp(now)
    signed = {"host": parts.netloc} | {k.lower(): v.strip() for k, v in (headers or {}).items()}
    names = ";".join(sorted(signed))
    params = dict(query or {}) | {
        "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
        "X-Amz-Credential": f"{credentials.access_key}/{_scope(stamp, region, 's3')}",
        "X-Amz-Date": stamp,
        "X-Amz-Expires": str(expires),
        "X-Amz-SignedHeaders": names,
    }
    if credentials.token:
        params["X-Amz-Security-Token"] = credentials.token
    text = "&".join(f"{_quote(k)}={_quote(v)}" for k, v in sorted(params.items()))
    signature = _signature(
        method, parts.path, text, signed, "UNSIGNED-PAYLOAD", stamp, region, "s3", credentials
    )
    return f"{parts.scheme}://{parts.netloc}{parts.path}?{text}&X-Amz-Signature={signature}"


def sign(
    method: str,
    url: str,
    body: bytes,
    *,
    service: str,
    region: str,
    credentials: Credentials,
    headers: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Return `headers` with those that authenticate a request to `url`, which has no query.

    Every one of them is signed: AWS asks for the host and each x-amz-* header that is sent
    (IAM User Guide, "Create a signed AWS API request").
    """
    parts = urlsplit(url)
    stamp = _stamp(None)
    signed = {"host": parts.netloc, "x-amz-date": stamp}
    if credentials.token:
        signed["x-amz-security-token"] = credentials.token
    signed |= {name.lower(): value for name, value in (headers or {}).items()}
    digest = hashlib.sha256(body).hexdigest()
    signature = _signature(
        method, parts.path or "/", "", signed, digest, stamp, region, service, credentials
    )
    return signed | {
        "authorization": (
            f"AWS4-HMAC-SHA256 Credential={credentials.access_key}/"
            f"{_scope(stamp, region, service)}, SignedHeaders={';'.join(sorted(signed))}, "
            f"Signature={signature}"
        )
    }


def call(service: str, operation: str, payload: object, *, attempts: int = 3) -> dict[str, object]:
    """Call a JSON operation of Secrets Manager, EventBridge or SQS.

    Raises AwsError for a refusal and Unavailable when every attempt failed or the time is over.
    """
    from kyora import timed_http  # 10 ms that a function which only presigns never needs

    ends = time.monotonic() + _DEADLINE
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION", "us-east-1")
    url = endpoint(service, region)
    body = json.dumps(payload).encode()
    version, target, others = _SPOKEN[service]
    said = {
        "content-type": f"application/x-amz-json-{version}",
        "x-amz-target": f"{target}.{operation}",
    } | others
    for attempt in range(attempts):
        if attempt:
            time.sleep(random.uniform(0, 0.1 * 2**attempt))  # noqa: S311  # jitter, not a secret
        headers = sign(
            "POST",
            url,
            body,
            service=service,
            region=region,
            credentials=credentials(),
            headers=said,
        )
        now = time.monotonic()
        try:
            status, _, answer = timed_http.exchange(
                _connections,
                "POST",
                url,
                deadline=min(now + _ATTEMPT, ends),
                longest=_LONGEST_ANSWER,
                body=body,
                headers=headers,
            )
        except timed_http.NoReply:
            continue
        found = _object(answer)
        if status == 200:
            if found is not None:
                return found
            continue  # a proxy's page: AWS itself did not answer
        code = _code(found or {})
        if status < 500 and "Throttl" not in code:
            raise AwsError(status, code)
    raise Unavailable(f"{service} did not answer.", code="service.unavailable")


def endpoint(service: str, region: str) -> str:
    """Return the address of a service."""
    return os.environ.get("AWS_ENDPOINT_URL") or f"https://{service}.{region}.{suffix(region)}"


def suffix(region: str) -> str:
    """Return the domain of a region's services: China has one of its own."""
    return "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"


def secret(arn: str) -> str:
    """Return the text of a secret in Secrets Manager."""
    found = call("secretsmanager", "GetSecretValue", {"SecretId": arn}).get("SecretString")
    if not isinstance(found, str):
        raise AwsError(200, "NoSecretString")
    return found


def _code(answer: Mapping[str, object]) -> str:
    """Return AWS's code of an error: the name without its namespace or what follows a colon."""
    return str(answer.get("__type", "Unknown")).partition(":")[0].rpartition("#")[2]


def _object(answer: bytes) -> dict[str, object] | None:
    try:
        found = json.loads(answer)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _signature(
    method: str,
    path: str,
    query: str,
    headers: Mapping[str, str],
    payload_hash: str,
    stamp: str,
    region: str,
    service: str,
    credentials: Credentials,
) -> str:
    """Compute the signature of AWS's Signature Version 4 reference, four steps in order."""
    canonical_headers = "".join(f"{k}:{' '.join(v.split())}\n" for k, v in sorted(headers.items()))
    names = ";".join(sorted(headers))
    lines = (method, path, query, canonical_headers, names, payload_hash)
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    to_sign = f"AWS4-HMAC-SHA256\n{stamp}\n{_scope(stamp, region, service)}\n{digest}"
    key = f"AWS4{credentials.secret_key}".encode()
    for part in (stamp[:8], region, service, "aws4_request", to_sign):
        key = hmac.digest(key, part.encode(), "sha256")
    return key.hex()


def _stamp(now: datetime | None) -> str:
    return (now or datetime.now(UTC)).strftime("%Y%m%dT%H%M%SZ")


def _scope(stamp: str, region: str, service: str) -> str:
    return f"{stamp[:8]}/{region}/{service}/aws4_request"


def _quote(text: str) -> str:
    return quote(text, safe="-_.~")
