"""Resend's `/emails` and `/suppressions` on loopback: checks, keys, rates, trouble on demand.

Written from Resend's documentation, not from our client; what it answers is held against the SDK's
types. A key stands for its first payload for 24 hours: the same payload is answered with the first
id and not sent again, another one is 409.
"""

import hashlib
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.headerregistry import Address
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from tests.scripted import Answer, Request, Server

API_KEY = "re_test_0123456789abcdef"
SENDING_KEY = "re_test_that_may_only_send"
_TAG = re.compile(r"[A-Za-z0-9_-]{1,256}")
_MAILBOX = re.compile(r"[\x21-\x7e]+@[a-z0-9-]+(\.[a-z0-9-]+)+")
DAY = 24 * 3600.0


@dataclass(frozen=True)
class Fault:
    """What happens to a request. `taken`: the message is sent all the same."""

    status: int = 0  # 0: the connection drops
    name: str = ""
    taken: bool = False
    html: bool = False
    delay: float = 0.0
    retry_after: str = ""
    body: bytes | None = None


@dataclass(frozen=True)
class Delivery:
    id: str
    key: str
    payload: dict[str, Any]


type Faults = Callable[[str, int], Fault | None]


class FakeResend:
    """`faults` is asked for each request by its key and how many there were under it before."""

    def __init__(self, faults: Faults | None = None, *, delay: float = 0.0) -> None:
        self.faults: Faults = faults or (lambda key, nth: None)
        self.delay = delay
        self.deliveries: list[Delivery] = []
        self.limit = 1_000_000  # requests a second
        self.clock: Callable[[], float] = time.time
        self.asked: dict[str, int] = {}
        self.suppressions: list[dict[str, Any]] = []  # newest first, as the SDK types an entry
        self.peak = 0  # most requests of one second
        self._keys: dict[str, tuple[float, str, str]] = {}
        self._busy: dict[str, float] = {}
        self._second, self._count = 0, 0
        self._lock = threading.Lock()
        self.server: Server

    @property
    def url(self) -> str:
        return self.server.url

    def __call__(self, request: Request) -> Answer:
        key = request.headers.get("idempotency-key", "")
        with self._lock:
            nth = self.asked.get(key, 0)
            self.asked[key] = nth + 1
            rate = self._rate()
        if rate["ratelimit-remaining"] == "-1":
            rate |= {"ratelimit-remaining": "0", "retry-after": "1"}
            return _error(429, "rate_limit_exceeded", rate)
        fault = self.faults(key, nth)
        if fault is not None and not fault.taken and fault.status != 200:
            return _trouble(fault, rate)
        if request.path.startswith("/suppressions"):
            with self._lock:
                return self._suppressions(request)
        refusal = _refusal(request)
        with self._lock:
            answer = refusal or self._take(key, json.loads(request.body), fault)
        if fault is not None and answer.status == 200:
            return _trouble(fault, rate) if fault.status != 200 else _slow(answer, fault, rate)
        return Answer(answer.status, answer.body, {**answer.headers, **rate}, delay=self.delay)

    def suppress(self, email: str, origin: str = "bounce", at: str = "") -> None:
        """Hold an address, as after a bounce."""
        entry = {
            "id": f"sup_{len(self.suppressions):04}",
            "email": email,
            "origin": origin,
            "source_id": None if origin == "manual" else "56761188-7520-42d8-8898-ff6fc54ce618",
            "created_at": at or "2026-11-23T07:36:12.000Z",
        }
        self.suppressions.insert(0, entry)

    def _suppressions(self, request: Request) -> Answer:
        if request.headers.get("authorization") == f"Bearer {SENDING_KEY}":
            return _error(401, "restricted_api_key")
        url = urlsplit(request.path)
        if request.method == "DELETE":
            named = unquote(url.path.removeprefix("/suppressions/"))
            for entry in self.suppressions:
                if named in (entry["id"], entry["email"]):
                    self.suppressions.remove(entry)
                    return _json(200, {"object": "suppression", "id": entry["id"], "deleted": True})
            return _error(404, "not_found")
        query = dict(parse_qsl(url.query))
        ids = [entry["id"] for entry in self.suppressions]
        start = ids.index(query["after"]) + 1 if "after" in query else 0
        limit = int(query.get("limit", 20))
        page = self.suppressions[start : start + limit]
        more = len(self.suppressions) > start + limit
        return _json(200, {"object": "list", "data": page, "has_more": more})

    def _take(self, key: str, payload: dict[str, Any], fault: Fault | None) -> Answer:
        now, wall = self.clock(), time.monotonic()
        digest = hashlib.sha256(json.dumps(payload, sort_keys=True).encode()).hexdigest()
        if self._busy.get(key, 0.0) > wall:
            return _error(409, "concurrent_idempotent_requests")
        if fault is not None and fault.delay:
            self._busy[key] = wall + fault.delay
        at, known, first = self._keys.get(key, (0.0, "", ""))
        if key and now - at < DAY:
            if known != digest:
                return _error(409, "invalid_idempotent_request")
            return _json(200, {"id": first})
        found = f"{len(self.deliveries):08x}-fake-resend"
        self._keys[key] = (now, digest, found)
        self.deliveries.append(Delivery(found, key, payload))
        return _json(200, {"id": found})

    def _rate(self) -> dict[str, str]:
        now = self.clock()
        if int(now) != self._second:
            self._second, self._count = int(now), 0
        self._count += 1
        self.peak = max(self.peak, min(self._count, self.limit + 1))
        return {
            "ratelimit-limit": str(self.limit),
            "ratelimit-remaining": str(max(self.limit - self._count, -1)),
            "ratelimit-reset": "1",
        }


def _refusal(request: Request) -> Answer | None:
    """Return why Resend would not look at the message, or would not take it."""
    given = request.headers.get("authorization", "")
    if "user-agent" not in request.headers:
        return Answer(403, b"error code: 1010", {"content-type": "text/html"})
    if request.path != "/emails":
        return _error(404, "not_found")
    if request.method != "POST":
        return _error(405, "method_not_allowed")
    if not given:
        return _error(401, "missing_api_key")
    if given not in (f"Bearer {API_KEY}", f"Bearer {SENDING_KEY}"):
        return _error(403, "invalid_api_key")
    if len(request.headers.get("idempotency-key", "k")) not in range(1, 257):
        return _error(400, "invalid_idempotency_key")
    try:
        payload = json.loads(request.body)
    except ValueError:
        return _error(400, "validation_error")
    if not all(payload.get(name) for name in ("from", "to", "subject")):
        return _error(422, "missing_required_field")
    if not (payload.get("html") or payload.get("text")):
        return _error(422, "missing_required_field")
    if not all(_mailbox(value) for value in (payload["from"], *payload["to"])):
        return _error(422, "invalid_from_address")
    tags = payload.get("tags", [])
    if not all(_TAG.fullmatch(tag["name"]) and _TAG.fullmatch(tag["value"]) for tag in tags):
        return _error(422, "validation_error")
    return None


def _mailbox(text: str) -> bool:
    """Read `a@b.example` and `"Name" <a@b.example>`, as a mail server does."""
    name, bracket, rest = text.rpartition("<")
    address = rest.removesuffix(">") if bracket else text
    if name and not re.fullmatch(r'("([^"\\]|\\.)*"|[\w .-]+) ?', name):
        return False
    try:
        Address(addr_spec=address)
    except ValueError:
        return False
    return bool(_MAILBOX.fullmatch(address))


def _error(status: int, name: str, headers: dict[str, str] | None = None) -> Answer:
    body = {"statusCode": status, "name": name, "message": f"{name}: to=someone@example.com"}
    found = _json(status, body)
    return Answer(found.status, found.body, {**found.headers, **(headers or {})})


def _json(status: int, body: dict[str, Any]) -> Answer:
    # The SDK reads nothing without this content type.
    return Answer(status, json.dumps(body).encode(), {"content-type": "application/json"})


def _trouble(fault: Fault, rate: dict[str, str]) -> Answer:
    if fault.status == 0:
        return Answer(drop=True, delay=fault.delay)
    if fault.body is not None:
        answer = Answer(fault.status, fault.body)
    elif fault.html:
        answer = Answer(fault.status, b"<html><h1>Bad gateway</h1></html>")
    else:
        answer = _error(fault.status, fault.name)
    headers = {**rate, **({"retry-after": fault.retry_after} if fault.retry_after else {})}
    return Answer(answer.status, answer.body, headers, delay=fault.delay)


def _slow(answer: Answer, fault: Fault, rate: dict[str, str]) -> Answer:
    body = answer.body if fault.body is None else fault.body
    return Answer(200, body, rate, delay=fault.delay)


@contextmanager
def fake_resend(faults: Faults | None = None, *, delay: float = 0.0) -> Iterator[FakeResend]:
    fake = FakeResend(faults, delay=delay)
    fake.server = Server(fake)
    try:
        yield fake
    finally:
        fake.server.stop()
