"""Events as AWS gives them to a function: an HTTP API's, a function URL's, an SQS queue's.

Each builder fills in what every such event has; a test says what its case is about.
"""

import base64
import itertools
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

ADMIN = {"userId": "usr_demo_admin", "workspaceId": "ws_demo", "role": "admin", "locale": "en"}
QUEUE_ARN = "arn:aws:sqs:eu-west-1:000000000000:kyora-test-queue"
_numbers = itertools.count(1)


def http_api(
    route: str,
    body: object = None,
    *,
    path: Mapping[str, str] | None = None,
    query: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
    authorizer: Mapping[str, str] | None = ADMIN,
    encoded: bool = False,
    request_id: str = "",
) -> dict[str, Any]:
    """Return an HTTP API's event (payload format 2.0) of a request to a route such as `GET /v1/x`.

    A body of text or bytes goes as it is (bytes, or any body with `encoded`, as base64), another
    one as JSON. `authorizer` is what authorize_request passes on; None for a public route.
    """
    method, _, pattern = route.partition(" ")
    address = pattern
    for name, value in (path or {}).items():
        address = address.replace(f"{{{name}}}", value)
    found: dict[str, Any] = {
        "version": "2.0",
        "routeKey": route,
        "rawPath": address,
        "rawQueryString": urlencode(query or {}),
        "headers": {"content-type": "application/json"} | dict(headers or {}),
        "requestContext": {
            "accountId": "000000000000",
            "apiId": "local",
            "domainName": "localhost",
            "http": {
                "method": method,
                "path": address,
                "protocol": "HTTP/1.1",
                "sourceIp": "203.0.113.9",
                "userAgent": "tests",
            },
            "requestId": request_id or f"gateway-{next(_numbers):08}",
            "routeKey": route,
            "stage": "$default",
            "time": "23/Nov/2026:08:00:00 +0000",
            "timeEpoch": 1_795_420_800_000,
        },
        "isBase64Encoded": encoded or isinstance(body, bytes),
    }
    if path:
        found["pathParameters"] = dict(path)
    if query:
        found["queryStringParameters"] = dict(query)
    if authorizer is not None:
        found["requestContext"]["authorizer"] = {"lambda": dict(authorizer)}
    if body is not None:
        raw = body if isinstance(body, bytes | str) else json.dumps(body)
        data = raw.encode(errors="surrogatepass") if isinstance(raw, str) else raw
        found["headers"]["content-length"] = str(len(data))
        found["body"] = base64.b64encode(data).decode() if found["isBase64Encoded"] else raw
    return found


def function_url(
    body: bytes | str, headers: Mapping[str, str], *, encoded: bool = False
) -> dict[str, Any]:
    """Return a function URL's event of a POST; a body of bytes must be UTF-8 unless `encoded`."""
    data = body.encode() if isinstance(body, str) else body
    return {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": "/",
        "rawQueryString": "",
        "headers": {"content-type": "application/json"} | dict(headers),
        "requestContext": {
            "http": {"method": "POST", "path": "/", "sourceIp": "203.0.113.9"},
            "requestId": f"delivery-{next(_numbers):08}",
        },
        "body": base64.b64encode(data).decode() if encoded else data.decode(),
        "isBase64Encoded": encoded,
    }


def sqs_message(
    body: str, *, id_: str = "", receives: int = 1, queue: str = QUEUE_ARN
) -> dict[str, Any]:
    """Return one record of a queue's batch; its ids are new unless given."""
    id_ = id_ or f"00000000-0000-4000-8000-{next(_numbers):012}"
    return {
        "messageId": id_,
        "receiptHandle": f"handle-{id_}",
        "body": body,
        "attributes": {"ApproximateReceiveCount": str(receives), "SentTimestamp": "1795420800000"},
        "messageAttributes": {},
        "md5OfBody": "",
        "eventSource": "aws:sqs",
        "eventSourceARN": queue,
        "awsRegion": "eu-west-1",
    }


def sqs_batch(*records: Mapping[str, Any]) -> dict[str, Any]:
    """Return a queue's event with these records."""
    return {"Records": [dict(record) for record in records]}
