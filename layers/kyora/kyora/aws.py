"""Signature Version 4, and the few small AWS calls that a request may need.

boto3 takes 250-350 ms to import: more than the rest of a function. A function that only presigns,
reads a secret or puts an event does not load it; S3 itself goes through boto3
(`kyora.storage.s3`). tests/unit/test_aws.py compares this signer with botocore's.
"""

import hashlib
import hmac
import json
import os
import re
import secrets
import time
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote, urlsplit

from kyora import clock
from kyora.errors import Unavailable

if TYPE_CHECKING:
    import http.client

    import botocore.credentials

# Seconds for one attempt and for all of them. These calls are answered in milliseconds, and the
# shortest function has ten seconds.
_ATTEMPT, _DEADLINE = 3.0, 6.0
_LONGEST_ANSWER = 1 << 20  # bytes
# As botocore sends it: the version of the JSON protocol, the prefix of the operation's name, and
# further headers.
_PROTOCOLS: dict[str, tuple[str, str, dict[str, str]]] = {
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
    """AWS answered with an error that a retry does not fix. `code` is AWS's own."""

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


def xray_trace_id(environ: Mapping[str, str] = os.environ) -> str:
    """Return the id of this invocation's X-Ray trace as W3C writes it, or ""."""
    root = environ.get("_X_AMZN_TRACE_ID", "").partition("Root=1-")[2][:33].split(";")[0]
    found = root.replace("-", "")
    return found if re.fullmatch("[0-9a-f]{32}", found) and int(found, 16) else ""


@lru_cache(maxsize=1)
def _refreshing() -> "botocore.credentials.Credentials":
    """Return the process's one credentials object, which renews the keys before they expire.

    SnapStart sets no keys in the environment, only an endpoint that botocore reads.
    """
    import botocore.session

    found = botocore.session.get_session().get_credentials()
    if found is None:
        raise Unavailable("No AWS credentials.", code="service.unavailable")
    return found


def warm(environ: Mapping[str, str] = os.environ) -> None:
    """Import what `credentials` needs under SnapStart before the snapshot is taken."""
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
    """Return `url` signed for S3; `expires` is in seconds, all of `headers` are signed."""
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
    """Return `headers` plus those that authenticate a request to `url`, which has no query.

    All of them are signed: AWS requires the host and every x-amz-* header
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
    from kyora import timed_http  # 10 ms that a function which only presigns does not need

    ends = time.monotonic() + _DEADLINE
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION", "us-east-1")
    url = endpoint(service, region)
    body = json.dumps(payload).encode()
    version, target, more = _PROTOCOLS[service]
    unsigned = {
        "content-type": f"application/x-amz-json-{version}",
        "x-amz-target": f"{target}.{operation}",
    } | more
    for attempt in range(attempts):
        if attempt:
            time.sleep(secrets.SystemRandom().uniform(0, 0.1 * 2**attempt))
        headers = sign(
            "POST",
            url,
            body,
            service=service,
            region=region,
            credentials=credentials(),
            headers=unsigned,
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
            continue  # a proxy's page: AWS did not answer
        code = _code(found or {})
        if status < 500 and "Throttl" not in code:
            raise AwsError(status, code)
    raise Unavailable(f"{service} did not answer.", code="service.unavailable")


def endpoint(service: str, region: str) -> str:
    """Return the address of a service."""
    return os.environ.get("AWS_ENDPOINT_URL") or f"https://{service}.{region}.{suffix(region)}"


def suffix(region: str) -> str:
    """Return the domain of a region's services: China's regions have their own."""
    return "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"


def secret(arn: str) -> str:
    """Return the text of a secret in Secrets Manager. Raises as `call`; AwsError also for bytes."""
    found = call("secretsmanager", "GetSecretValue", {"SecretId": arn}).get("SecretString")
    if not isinstance(found, str):
        raise AwsError(200, "NoSecretString")
    return found


def _code(answer: Mapping[str, object]) -> str:
    """Return AWS's error code: the name without its namespace and what follows a colon."""
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
    """Compute the signature, in the four steps of AWS's Signature Version 4 reference."""
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
    return (now or clock.now()).strftime("%Y%m%dT%H%M%SZ")


def _scope(stamp: str, region: str, service: str) -> str:
    return f"{stamp[:8]}/{region}/{service}/aws4_request"


def _quote(text: str) -> str:
    return quote(text, safe="-_.~")
