"""Resend's webhook: signed deliveries, and what the database says after them."""

import base64
import hashlib
import hmac
import itertools
import json
import time
from typing import Any

from tests.events import function_url
from tests.fake_resend import FakeResend
from tests.integration.support import invariants, mail_queue
from tests.unit.functions import CONTEXT, function

KEY = base64.b64decode(mail_queue.WEBHOOK_SECRET.removeprefix("whsec_"))


AT = "2026-11-23T07:36:12.000Z"


_numbers = itertools.count(1)


def sign(key: bytes, svix_id: str, stamp: str, body: bytes) -> str:
    signed = f"{svix_id}.{stamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


def reported(kind: str, *, to: str = "dana@example.com", **data: Any) -> bytes:
    about = {
        "email_id": "4ef9a417",
        "message_id": "<4ef9a417@resend.example>",
        "from": "Kyora <hello@kyora.example>",
        "to": [to],
        "subject": "Hello",
        "created_at": "2026-11-23T07:36:10.000Z",
    }
    return json.dumps({"type": kind, "created_at": AT, "data": about | data}).encode()


def bounce(kind: str = "Permanent", **more: Any) -> bytes:
    detail = {"type": kind, "subType": "General", "message": "dana@example.com does not exist"}
    return reported("email.bounced", bounce=detail, **more)


def request(
    body: bytes,
    *,
    svix_id: str = "",
    age: float = 0.0,
    keys: tuple[bytes, ...] = (KEY,),
    encoded: bool = False,
    **headers: str | None,
) -> dict[str, Any]:
    svix_id = svix_id or f"msg_{next(_numbers)}"
    stamp = str(int(time.time() - age))
    signatures = " ".join(sign(key, svix_id, stamp, body) for key in keys)
    given: dict[str, str | None] = {
        "svix-id": svix_id,
        "svix-timestamp": stamp,
        "svix-signature": signatures,
        "content-type": "application/json",
    }
    given |= {name.replace("_", "-"): value for name, value in headers.items()}
    sent = {name: value for name, value in given.items() if value is not None}
    return function_url(body, sent, encoded=encoded)


def receive(event: dict[str, Any]) -> tuple[int, str]:
    answer = function("resend_webhook").handler(event, CONTEXT)
    json.dumps(answer)
    body = json.loads(answer["body"])
    if answer["statusCode"] >= 400:
        assert answer["headers"]["Content-Type"] == "application/problem+json"
        assert body["status"] == answer["statusCode"]
    return answer["statusCode"], body.get("code", "")


def suppressed() -> dict[str, str]:
    rows = invariants.rows(
        "SELECT recipient_norm, reason FROM email_suppression"
        " WHERE lifted_at IS NULL AND (until IS NULL OR until > now())"
    )
    return {row["recipient_norm"]: row["reason"] for row in rows}


def sent(resend: FakeResend, email: str = "dana@example.com") -> dict[str, Any]:
    event = mail_queue.verification(email)
    mail_queue.deliver(mail_queue.record(*event))
    return mail_queue.message(event[1]["id"])


def status(row: dict[str, Any]) -> str:
    return str(mail_queue.message(row["event_id"])["status"])


def secret(key: bytes) -> str:
    return "whsec_" + base64.b64encode(key).decode()
