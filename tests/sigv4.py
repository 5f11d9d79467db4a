"""What AWS does with a request's signature, done by botocore: it is worked out a second time.

Stricter than AWS's own words where they are vague: a header that says what is asked for and is not
signed is refused too.
"""

import re
from datetime import UTC, datetime

import botocore.auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from tests.scripted import Request

_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=(?P<key>[^/]+)/(?P<day>\d{8})/(?P<region>[^/]+)/"
    r"(?P<service>[^/]+)/aws4_request, SignedHeaders=(?P<names>[a-z0-9;-]+), Signature=[0-9a-f]{64}"
)


def refusal(request: Request, key: str, secret: str) -> str:
    """Say why AWS would refuse a signed request; empty when it would not."""
    said = _AUTHORIZATION.fullmatch(request.headers.get("authorization", ""))
    if not said:
        return "the authorization header makes no sense"
    names = said["names"].split(";")
    if names != sorted(set(names)):
        return "the signed headers are not in order"
    missing = [
        name
        for name in request.headers
        if (name in ("host", "content-type") or name.startswith(("x-amz-", "x-amzn-")))
        and name not in names
    ]
    if missing:
        return f"sent and not signed: {', '.join(missing)}"
    if said["key"] != key:
        return "another key"
    if _again(request, said, secret) != request.headers["authorization"]:
        return "the signature does not match"
    return ""


def _again(request: Request, said: re.Match[str], secret: str) -> str:
    signed = {name: request.headers[name] for name in said["names"].split(";")}
    token = signed.pop("x-amz-security-token", None)
    stamp = signed.pop("x-amz-date")
    url = f"https://{signed.pop('host')}{request.path}"
    again = AWSRequest(method=request.method, url=url, data=request.body, headers=signed)
    moment = datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    clock, botocore.auth.get_current_datetime = botocore.auth.get_current_datetime, lambda: moment
    try:
        botocore.auth.SigV4Auth(
            Credentials(said["key"], secret, token), said["service"], said["region"]
        ).add_auth(again)
    finally:
        botocore.auth.get_current_datetime = clock
    return str(again.headers["Authorization"])
