"""Signatures of Stripe's webhooks: nothing is kept before one with a secret of ours is valid."""

import base64
import hmac
import json
import time
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stripe import WebhookSignature

from kyora import config, postgres
from kyora.billing.events import webhook
from kyora.errors import BadSignature
from tests.integration.support import stripe_lives as lives
from tests.unit.functions import CONTEXT, function

SECRET = lives.SECRET
OLD = "whsec_of-the-last-rotation-of-it"
EVENT = {
    "id": "evt_1",
    "object": "event",
    "type": "customer.created",
    "created": 1_790_000_000,
    "livemode": False,
    "api_version": "2026-10-28.endive",
    "data": {"object": {"id": "cus_1", "object": "customer"}},
}
BODY = json.dumps(EVENT)


@pytest.fixture(autouse=True)
def billing(database: str, environment: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name, value in lives.ENVIRONMENT.items():
        environment.setenv(name, value)
    config.forget()
    return environment


def sign(body: bytes, secret: str = SECRET, age: int = 0) -> str:
    stamp = int(time.time()) - age
    return WebhookSignature.generate_signature_header(body.decode(), secret, timestamp=stamp)


def post(
    body: str | bytes = BODY, header: str | None = None, *, encoded: bool = False
) -> tuple[int, str]:
    raw = body.encode() if isinstance(body, str) else body
    sent = lives.request("{}")
    sent["headers"] = {"content-type": "application/json"}
    if header is not None:
        sent["headers"]["Stripe-Signature"] = header
    sent["body"] = base64.b64encode(raw).decode() if encoded else raw.decode(errors="replace")
    answer = function("stripe_webhook").handler(sent | {"isBase64Encoded": encoded}, CONTEXT)
    return answer["statusCode"], str(json.loads(answer["body"]).get("code", ""))


def kept() -> int:
    with postgres.transaction() as tx:
        row = tx.row("SELECT count(*) AS n FROM stripe_event")
    return int(str(row["n"])) if row else -1


def digits(header: str, change: Callable[[str], str]) -> str:
    stamp, _, signature = header.partition(",v1=")
    return f"{stamp},v1={change(signature)}"


RAW = BODY.encode()
FORGED: dict[str, Callable[[], str | None]] = {
    "no header": lambda: None,
    "an empty header": lambda: "",
    "garbage": lambda: "t=1,v1,=,;",
    "no signature": lambda: f"t={int(time.time())}",
    "no timestamp": lambda: "v1=" + "0" * 64,
    "two timestamps": lambda: f"t=1,{sign(RAW)}",
    "a timestamp with a sign": lambda: sign(RAW).replace("t=", "t=+"),
    "a timestamp with an underscore": lambda: sign(RAW).replace("t=1", "t=1_"),
    "an Arabic timestamp": lambda: f"t=١٧٩٠٠٠٠٠٠٠,v1={'0' * 64}",
    "a signature that is no ASCII": lambda: digits(sign(RAW), lambda _: "é" * 64),
    "a wrong signature": lambda: digits(sign(RAW), lambda s: s[::-1]),
    "a signature cut short": lambda: digits(sign(RAW), lambda s: s[:-1]),
    "capital letters": lambda: digits(sign(RAW), lambda s: s.upper() + "F"),
    "another scheme": lambda: sign(RAW).replace("v1=", "v0="),
    "another's secret": lambda: sign(RAW, "whsec_somebody-elses-secret"),
    "an empty secret": lambda: sign(RAW, ""),
    "another body": lambda: sign(b"{}"),
    "too old": lambda: sign(RAW, age=301),
    "from the future": lambda: sign(RAW, age=-302),
}


@pytest.mark.parametrize("how", FORGED)
def test_what_is_not_signed_is_refused_and_leaves_nothing(how: str) -> None:
    assert post(header=FORGED[how]()) == (400, "webhook.signature_invalid")
    assert kept() == 0


GOOD: dict[str, Callable[[], str]] = {
    "now": lambda: sign(RAW),
    "five minutes ago": lambda: sign(RAW, age=298),
    "in five minutes": lambda: sign(RAW, age=-298),
    "the second of two": lambda: (
        sign(RAW, "whsec_another-secret-of-theirs") + ",v1=" + sign(RAW).partition("v1=")[2]
    ),
    "beside a scheme that we do not know": lambda: sign(RAW) + ",v9=abc",
}


@pytest.mark.parametrize("how", GOOD)
def test_what_is_signed_is_kept(how: str) -> None:
    assert post(header=GOOD[how]()) == (200, "")
    assert kept() == 1


@pytest.mark.parametrize("secret", [SECRET, OLD])
def test_while_a_secret_is_rolled_both_are_good(secret: str, billing: pytest.MonkeyPatch) -> None:
    billing.setenv("BILLING_STRIPE_WEBHOOK_SECRET", json.dumps([SECRET, f" {OLD}\n"]))
    config.forget()
    assert post(header=sign(RAW, secret)) == (200, "")


def test_the_bytes_that_were_signed_may_come_in_base64() -> None:
    body = json.dumps(EVENT | {"note": "é"}, ensure_ascii=False).encode()
    assert post(body, sign(body), encoded=True) == (200, "")


UNREADABLE: dict[str, bytes] = {
    "no UTF-8": b'{"id": "\xff"}',
    "no JSON": b"{",
    "nothing": b"",
    "an array": b"[1, 2]",
    "a number": b"7",
    "another object": json.dumps(EVENT | {"object": "charge"}).encode(),
    "no id": json.dumps(EVENT | {"id": None}).encode(),
    "an id with a NUL": json.dumps(EVENT | {"id": "evt_\0"}).encode(),
    "a type that is no text": json.dumps(EVENT | {"type": 7}).encode(),
    "a time that is no number": json.dumps(EVENT | {"created": "now"}).encode(),
    "no data": json.dumps(EVENT | {"data": []}).encode(),
    "real money in test mode": json.dumps(EVENT | {"livemode": True}).encode(),
    "much too deep": b"[" * 100_000,
}


@pytest.mark.parametrize("how", UNREADABLE)
def test_what_is_signed_and_no_event_is_refused(how: str) -> None:
    body = UNREADABLE[how]
    stamp = str(int(time.time()))
    digest = hmac.digest(SECRET.encode(), stamp.encode() + b"." + body, "sha256").hex()
    answer = post(body, f"t={stamp},v1={digest}", encoded=True)
    assert answer == (400, "webhook.payload_invalid")
    assert kept() == 0


@pytest.mark.parametrize("encoded", [False, True])
def test_a_body_of_two_mebibytes_is_not_even_looked_at(encoded: bool) -> None:
    body = b"x" * (2 << 20)
    assert post(body, sign(body), encoded=encoded) == (413, "request.body_too_large")


def test_a_body_that_is_no_base64_is_refused() -> None:
    sent = lives.request(BODY) | {"body": "####x", "isBase64Encoded": True}
    answer = function("stripe_webhook").handler(sent, CONTEXT)
    assert answer["statusCode"] == 400
    assert kept() == 0


def test_an_address_without_a_secret_is_closed(billing: pytest.MonkeyPatch) -> None:
    billing.setenv("BILLING_STRIPE_WEBHOOK_SECRET", "")
    config.forget()
    assert post(header=sign(RAW, "")) == (404, "request.not_found")


def test_a_thin_event_is_answered_and_left() -> None:
    body = json.dumps({"object": "v2.core.event", "id": "evt_thin"})
    assert post(body, sign(body.encode())) == (200, "")
    assert kept() == 0


def test_in_production_only_real_money_counts() -> None:
    live = json.dumps(EVENT | {"livemode": True}).encode()
    assert webhook._parse(live, live=True)[1] is not None
    with pytest.raises(Exception, match="other mode"):
        webhook._parse(RAW, live=True)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(body=st.text(), secret=st.text("abcdefgh0123_", min_size=1), change=st.integers(0, 10**6))
def test_stripes_own_signer_and_we_agree(body: str, secret: str, change: int) -> None:
    body = body.encode(errors="replace").decode()
    now = time.time()
    header = WebhookSignature.generate_signature_header(body, secret, timestamp=int(now))
    webhook.verify([secret], {"stripe-signature": header}, body.encode(), now)
    spoiled = bytearray(body.encode() or b" ")
    spoiled[change % len(spoiled)] ^= 1
    with pytest.raises(BadSignature):
        webhook.verify([secret], {"stripe-signature": header}, bytes(spoiled), now)
