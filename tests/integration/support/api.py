"""Handlers as API Gateway, SQS and the scheduler call them, and HTTP as a client speaks it."""

import base64
import hashlib
import http.client
import importlib.util
import itertools
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests import events
from tests.events import ADMIN
from tests.integration.support.samples import Sample

FUNCTIONS = Path(__file__).resolve().parents[3] / "functions"
MEMBER = ADMIN | {"userId": "usr_demo_member", "role": "user", "locale": "ar"}
STRANGER = ADMIN | {"userId": "usr_other", "workspaceId": "ws_other"}
UNKNOWN = "ast_00000000000000000000000000"
ROUTES = {
    "POST /v1/assets/upload": "request_upload",
    "POST /v1/assets/uploads": "request_upload",
    "POST /v1/assets/{assetId}/confirm": "confirm_upload",
    "POST /v1/assets/{assetId}/upload-url": "request_upload",
    "POST /v1/assets/multipart": "manage_multipart",
    "POST /v1/assets/{assetId}/multipart/parts": "manage_multipart",
    "GET /v1/assets/{assetId}/multipart/parts": "manage_multipart",
    "POST /v1/assets/{assetId}/multipart/complete": "manage_multipart",
    "DELETE /v1/assets/{assetId}/multipart": "manage_multipart",
    "GET /v1/assets/{assetId}": "manage_asset",
    "DELETE /v1/assets/{assetId}": "manage_asset",
    "POST /v1/businesses": "create_business",
    "GET /v1/billing/plans": "manage_billing",
    "GET /v1/billing/plans/{planId}": "manage_billing",
    "GET /v1/billing/subscription": "manage_billing",
    "POST /v1/billing/subscription": "manage_billing",
    "DELETE /v1/billing/subscription": "manage_billing",
    "POST /v1/billing/subscription/resume": "manage_billing",
    "POST /v1/billing/subscription/pause": "manage_billing",
    "DELETE /v1/billing/subscription/pending-change": "manage_billing",
    "POST /v1/billing/checkout-session": "manage_billing",
    "POST /v1/billing/portal-session": "manage_billing",
    "GET /v1/billing/invoices": "manage_billing",
}
_numbers = itertools.count(1)


class Context:
    """What Lambda passes along."""

    function_name = "kyora-test"
    memory_limit_in_mb = 512
    invoked_function_arn = "arn:aws:lambda:eu-west-1:000000000000:function:kyora-test"

    def __init__(self, *milliseconds: int) -> None:
        self.aws_request_id = f"request-{next(_numbers):08}"
        self._left = iter(milliseconds)

    def get_remaining_time_in_millis(self) -> int:
        return next(self._left, 30_000)


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    text: str

    @property
    def body(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.text)
        return found

    @property
    def code(self) -> str:
        """The stable code of a refusal."""
        return str(self.body.get("code", "")) if self.status >= 400 else ""

    def same_as(self, other: "Answer") -> bool:
        """Compare byte for byte; only the id of the request may differ."""

        def without_id(answer: Answer) -> dict[str, str]:
            return {k: v for k, v in answer.headers.items() if k.lower() != "x-request-id"}

        return (self.status, self.text, without_id(self)) == (
            other.status,
            other.text,
            without_id(other),
        )


@cache
def function(name: str) -> Any:
    """Return the handler of functions/<name>/app.py."""
    module_name = f"functions_{name}"
    spec = importlib.util.spec_from_file_location(module_name, FUNCTIONS / name / "app.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    spec.loader.exec_module(module)
    return module.handler


def event(
    route: str,
    *,
    asset_id: str = "",
    plan_id: str = "",
    query: Mapping[str, str] | None = None,
    body: object = None,
    raw: str | None = None,
    who: Mapping[str, str] | None = ADMIN,
    headers: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Build an event of an HTTP API, payload format 2.0."""
    path = {"assetId": asset_id} if asset_id else {"planId": plan_id} if plan_id else {}
    return events.http_api(
        route,
        body if raw is None else raw,
        path=path,
        query=query,
        headers={"authorization": "Bearer secret.jwt.here"} | dict(headers or {}),
        authorizer=who,
    )


def call(route: str, **options: Any) -> Answer:
    """Call the function behind a route."""
    return answer(function(ROUTES[route])(event(route, **options), Context()))


def answer(response: Mapping[str, Any]) -> Answer:
    assert not response.get("cookies")
    assert not response.get("multiValueHeaders")
    return Answer(response["statusCode"], dict(response["headers"]), response.get("body") or "")


def digest(data: bytes) -> str:
    return base64.b64encode(hashlib.sha256(data).digest()).decode()


def wish(sample: Sample, **changes: Any) -> dict[str, Any]:
    """Return the request body for a sample; a change to None leaves the field out."""
    found = {
        "filename": sample.filename,
        "contentType": sample.content_type,
        "size": len(sample.data),
        "sha256": digest(sample.data),
    } | changes
    return {name: value for name, value in found.items() if value is not None}


def request(sample: Sample, who: Mapping[str, str] = ADMIN, **changes: Any) -> dict[str, Any]:
    """Ask for an upload that must be granted; return the ticket."""
    found = call("POST /v1/assets/upload", body=wish(sample, **changes), who=who)
    assert found.status == 200, found
    return found.body


def confirm(asset_id: str, who: Mapping[str, str] = ADMIN) -> Answer:
    return call("POST /v1/assets/{assetId}/confirm", asset_id=asset_id, who=who)


def renew(asset_id: str, who: Mapping[str, str] = ADMIN) -> Answer:
    return call("POST /v1/assets/{assetId}/upload-url", asset_id=asset_id, who=who)


def get(asset_id: str, who: Mapping[str, str] = ADMIN) -> Answer:
    return call("GET /v1/assets/{assetId}", asset_id=asset_id, who=who)


def delete(asset_id: str, who: Mapping[str, str] = ADMIN) -> Answer:
    return call("DELETE /v1/assets/{assetId}", asset_id=asset_id, who=who)


def deleted(found: Answer) -> bool:
    return (found.status, found.text) == (204, "")


def deliver(*keys: str, detail: Mapping[str, Any] | None = None) -> list[str]:
    """Deliver S3 events for these keys in one SQS batch; return the keys to be tried again."""
    records = [record(key, detail=detail) for key in keys]
    found = function("verify_upload")(events.sqs_batch(*records), Context())
    failed = {item["itemIdentifier"] for item in found["batchItemFailures"]}
    return [key for key, item in zip(keys, records, strict=True) if item["messageId"] in failed]


def record(key: str, *, detail: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Build an SQS record with an S3 "Object Created" event as EventBridge writes it."""
    number = next(_numbers)
    found = {
        "version": "0",
        "id": f"17793124-05d4-b198-2fde-{number:012}",
        "detail-type": "Object Created",
        "source": "aws.s3",
        "account": "000000000000",
        "time": "2026-11-23T08:00:00Z",
        "region": "eu-west-1",
        "resources": ["arn:aws:s3:::kyora-assets"],
        "detail": {
            "version": "0",
            "bucket": {"name": "kyora-assets"},
            "object": {
                "key": key,
                "size": 5,
                "etag": "b1946ac92492d2347c6235b4d2611184",
                "sequencer": "00617F08299329D189",
            },
            "request-id": "N4N7GDK58NMKJ12R",
            "requester": "000000000000",
            "source-ip-address": "203.0.113.9",
            "reason": "PutObject",
        }
        | dict(detail or {}),
    }
    return events.sqs_message(json.dumps(found))


def scanned(*verdicts: tuple[str, str]) -> list[str]:
    """Deliver GuardDuty's results, (key, scanResultStatus), in one SQS batch.

    Returns the keys whose messages are to be delivered again.
    """
    records = [scan_result(key, status) for key, status in verdicts]
    found = function("record_scan")(events.sqs_batch(*records), Context())
    failed = {item["itemIdentifier"] for item in found["batchItemFailures"]}
    return [
        key for (key, _), item in zip(verdicts, records, strict=True) if item["messageId"] in failed
    ]


def scan_result(key: str, status: str) -> dict[str, Any]:
    """Build an SQS record with a scan result as the samples of GuardDuty's user guide show it."""
    sample = json.loads((FUNCTIONS.parent / "events" / "record_scan.json").read_text())
    found = json.loads(sample["Records"][0]["body"])
    found["detail"]["s3ObjectDetails"]["objectKey"] = key
    found["detail"]["scanResultDetails"]["scanResultStatus"] = status
    return events.sqs_message(json.dumps(found))


def sweep() -> dict[str, int]:
    found: dict[str, int] = function("sweep_uploads")({}, Context())
    return found


@dataclass(frozen=True)
class Reply:
    """What a store answered to plain HTTP."""

    status: int
    headers: dict[str, str]
    body: bytes


def http_call(
    method: str, url: str, headers: Mapping[str, str] | None = None, body: bytes | None = None
) -> Reply:
    """Speak HTTP as a browser would: nothing is added but Host and Content-Length."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=120)
    target = f"{parts.path}?{parts.query}" if parts.query else parts.path
    try:
        connection.request(method, target, body, dict(headers or {}))
        found = connection.getresponse()
        return Reply(found.status, {k.lower(): v for k, v in found.getheaders()}, found.read())
    finally:
        connection.close()


def put(ticket: Mapping[str, Any], data: bytes, **headers: str | None) -> Reply:
    """PUT to an upload URL with exactly the headers of its ticket.

    A change names a header with underscores; None leaves it out.
    """
    changes = {name.replace("_", "-").lower(): value for name, value in headers.items()}
    sent = {k.lower(): v for k, v in ticket["headers"].items()} | changes
    return http_call(
        ticket["method"],
        ticket["uploadUrl"],
        {name: value for name, value in sent.items() if value is not None},
        data,
    )


def upload(sample: Sample, who: Mapping[str, str] = ADMIN, **changes: Any) -> str:
    """Ask for an upload and PUT the bytes; return the asset's id."""
    ticket = request(sample, who, **changes)
    reply = put(ticket, sample.data)
    assert reply.status == 200, reply
    return str(ticket["assetId"])
