"""Who is asking: every way a token can be wrong, and the user behind a right one."""

import base64
import hashlib
import hmac
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
import time_machine
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from kyora import auth, config, postgres, tokens
from kyora import jwks as jwks_module
from kyora.auth import Claims, Principal
from kyora.errors import Forbidden, Unauthenticated, Unavailable
from kyora.postgres.connection import _TIMEOUT as STATEMENT  # as it is in Lambda
from local.template import read as read_template
from local.tools import samples
from tests.scripted import Answer, Server, dripping, scripted
from tests.unit.functions import CONTEXT, call, captured_log, event, function

WRITES_ACCOUNTS = True

SECRET = "a secret of at least thirty-two bytes"
OLD = "an older secret, thirty-two bytes too"
ISSUER, AUDIENCE = "https://id.example", "kyora"
USER = {
    "userId": "usr_demo_admin",
    "workspaceId": "ws_demo",
    "authVersion": 1,
    "iss": ISSUER,
    "aud": AUDIENCE,
}
RSA = rsa.generate_private_key(65537, 2048)
EC = ec.generate_private_key(ec.SECP256R1())
P384 = ec.generate_private_key(ec.SECP384R1())


def token(
    key: Any = SECRET, algorithm: str = "HS256", kid: str | None = None, **claims: object
) -> str:
    found = {"exp": int(time.time()) + 600, **USER, **claims}
    payload = {name: value for name, value in found.items() if value is not ...}
    return jwt.encode(payload, key, algorithm, headers={"kid": kid} if kid else None)


def part(value: object) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def signed_by_hand(header: object, payload: object, key: bytes) -> str:
    """What a library refuses to make."""
    text = f"{part(header)}.{part(payload)}"
    return f"{text}.{part(hmac.digest(key, text.encode(), hashlib.sha256))}"


def refusal_of(found: str) -> str:
    with pytest.raises(Unauthenticated) as refusal:
        tokens.decode(found)
    return refusal.value.code


@pytest.fixture(autouse=True)
def configured(environment: pytest.MonkeyPatch) -> Iterator[None]:
    jwks_module._sets.clear()
    yield
    jwks_module._sets.clear()


@pytest.fixture
def variables(environment: pytest.MonkeyPatch) -> Any:
    def change(**values: str) -> None:
        for name, value in values.items():
            environment.setenv(name, value)
        config.forget()

    return change


# ---- HS256


def test_a_good_token_says_who_asks() -> None:
    assert tokens.decode(token()) == Claims("usr_demo_admin", "ws_demo", 1)


def test_any_of_the_configured_secrets_verifies(variables: Any) -> None:
    variables(AUTH_JWT_SECRET=json.dumps([SECRET, OLD]))
    for key in (SECRET, OLD):
        assert tokens.decode(token(key)).user_id == "usr_demo_admin"
    assert refusal_of(token("a third secret of thirty-two bytes or more")) == "auth.token_invalid"
    variables(AUTH_JWT_SECRET=json.dumps([SECRET]))
    assert refusal_of(token(OLD)) == "auth.token_invalid"


def test_a_token_of_the_old_secret_that_expired_is_expired(variables: Any) -> None:
    variables(AUTH_JWT_SECRET=json.dumps([SECRET, OLD]))
    assert refusal_of(token(OLD, exp=int(time.time()) - 3600)) == "auth.token_expired"


@pytest.mark.parametrize(
    ("claim", "offset", "code"),
    [
        ("exp", -59, ""),
        ("exp", -61, "auth.token_expired"),
        ("nbf", 60, ""),
        ("nbf", 61, "auth.token_invalid"),
        ("iat", 60, ""),
        ("iat", 61, "auth.token_invalid"),
    ],
)
def test_clocks_may_differ_by_a_minute(claim: str, offset: int, code: str) -> None:
    with time_machine.travel(time.time(), tick=False):
        found = token(**{claim: int(time.time()) + offset})
        if code:
            assert refusal_of(found) == code
        else:
            assert tokens.decode(found).user_id == "usr_demo_admin"


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": ...},
        {"exp": "soon"},
        {"exp": None},
        {"exp": True},
        {"exp": [9_999_999_999]},
        {"userId": ...},
        {"userId": 7},
        {"userId": None},
        {"userId": ["usr_demo_admin"]},
        {"workspaceId": ...},
        {"workspaceId": {"$ne": ""}},
        {"authVersion": ...},
        {"authVersion": "1"},
        {"authVersion": True},
        {"authVersion": 1.0},
    ],
    ids=str,
)
def test_a_claim_that_is_missing_or_of_another_type_is_refused(claims: dict[str, Any]) -> None:
    payload = {"exp": int(time.time()) + 600, **USER, **claims}
    payload = {name: value for name, value in payload.items() if value is not ...}
    found = signed_by_hand({"alg": "HS256", "typ": "JWT"}, payload, SECRET.encode())
    assert refusal_of(found) in ("auth.token_invalid", "auth.token_expired")


@pytest.mark.parametrize(
    ("configured", "claims", "good"),
    [
        ({}, {"iss": "anybody", "aud": "anything"}, True),
        ({"AUTH_ISSUER": "https://id"}, {"iss": "https://id"}, True),
        ({"AUTH_ISSUER": "https://id"}, {"iss": "https://id.evil"}, False),
        ({"AUTH_ISSUER": "https://id"}, {"iss": ["https://id"]}, False),
        ({"AUTH_ISSUER": "https://id"}, {}, False),
        ({"AUTH_AUDIENCE": "kyora"}, {"aud": "kyora"}, True),
        ({"AUTH_AUDIENCE": "kyora"}, {"aud": ["other", "kyora"]}, True),
        ({"AUTH_AUDIENCE": "kyora"}, {"aud": "kyora2"}, False),
        ({"AUTH_AUDIENCE": "kyora"}, {"aud": 7}, False),
        ({"AUTH_AUDIENCE": "kyora"}, {}, False),
    ],
    ids=str,
)
def test_issuer_and_audience_are_checked_when_configured(
    configured: dict[str, str], claims: dict[str, Any], good: bool, variables: Any
) -> None:
    variables(**configured)
    user = {name: value for name, value in USER.items() if name not in ("iss", "aud")}
    payload = {"exp": int(time.time()) + 600, **user, **claims}
    found = signed_by_hand({"alg": "HS256"}, payload, SECRET.encode())
    if good:
        assert tokens.decode(found).workspace_id == "ws_demo"
    else:
        assert refusal_of(found) == "auth.token_invalid"


PAYLOAD = {"exp": 9_999_999_999, **USER}
GARBAGE = {
    "nothing": "",
    "a word": "word",
    "two dots": "..",
    "four parts": "a.b.c.d",
    "spaces": "  .  .  ",
    "no base64": "!!!.???.***",
    "no JSON": f"{part(b'{')}.{part(b'{}')}.x",
    "a header that is a list": f"{part([])}.{part(PAYLOAD)}.x",
    "a header nested deep": f"{part(b'[' * 100_000)}.{part(PAYLOAD)}.x",
    "a megabyte": "a" * (1 << 20),
    "a megabyte in parts": f"{part({'alg': 'HS256'})}.{'a' * (1 << 20)}.x",
    "a lone surrogate": "\ud800.a.b",
    "other letters": "ключ.ключ.ключ",
    "NUL": "\x00.\x00.\x00",
    "no algorithm": f"{part({})}.{part(PAYLOAD)}.",
    "alg none": f"{part({'alg': 'none'})}.{part(PAYLOAD)}.",
    "alg NONE": f"{part({'alg': 'NONE'})}.{part(PAYLOAD)}.",
    "alg none, signed": signed_by_hand({"alg": "none"}, PAYLOAD, SECRET.encode()),
    "alg a number": signed_by_hand({"alg": 5}, PAYLOAD, SECRET.encode()),
    "alg a list": signed_by_hand({"alg": ["HS256"]}, PAYLOAD, SECRET.encode()),
    "HS384": jwt.encode(PAYLOAD, SECRET + SECRET, "HS384"),
    "HS512 by the right secret": jwt.encode(PAYLOAD, SECRET * 2, "HS512"),
    "a detached payload": signed_by_hand(
        {"alg": "HS256", "b64": False, "crit": ["b64"]}, PAYLOAD, SECRET.encode()
    ),
    "an unknown critical header": signed_by_hand(
        {"alg": "HS256", "crit": ["x"], "x": 1}, PAYLOAD, SECRET.encode()
    ),
    "a payload that is a list": signed_by_hand({"alg": "HS256"}, [1], SECRET.encode()),
    "an empty signature": f"{part({'alg': 'HS256'})}.{part(PAYLOAD)}.",
    "another's signature": signed_by_hand({"alg": "HS256"}, PAYLOAD, b"x" * 32),
    "an empty key": signed_by_hand({"alg": "HS256"}, PAYLOAD, b""),
    "a key of its own": signed_by_hand(
        {"alg": "HS256", "jwk": {"kty": "oct", "k": part(b"x" * 32)}}, PAYLOAD, b"x" * 32
    ),
}


@pytest.mark.parametrize("name", GARBAGE)
def test_what_is_no_token_of_ours_is_refused_and_nothing_else(name: str) -> None:
    started = time.process_time()
    assert refusal_of(GARBAGE[name]) == "auth.token_invalid"
    assert time.process_time() - started < 1


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.text(max_size=60) | st.builds(".".join, st.lists(st.text("aeyJ-_=", max_size=20))))
def test_no_text_makes_the_verifier_stumble(text: str) -> None:
    assert refusal_of(text) == "auth.token_invalid"


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_a_token_with_one_character_changed_is_refused(data: st.DataObject) -> None:
    found = signed_by_hand({"alg": "HS256", "typ": "JWT"}, PAYLOAD, SECRET.encode())
    place = data.draw(st.integers(0, len(found) - 2))  # the last one holds two spare bits
    letter = data.draw(st.sampled_from("ABab01-_.").filter(lambda c: c != found[place]))
    changed = found[:place] + letter + found[place + 1 :]
    assert refusal_of(changed) == "auth.token_invalid"


# ---- a JWKS


def jwk(key: Any, kid: str, **members: str) -> dict[str, Any]:
    made = (ECAlgorithm if hasattr(key, "curve") else RSAAlgorithm).to_jwk(key.public_key())
    return {**json.loads(made), "kid": kid, **members}


class Keys:
    """A JWKS that can be changed and taken down."""

    def __init__(self) -> None:
        self.keys: list[Any] = [jwk(RSA, "r1", use="sig", alg="RS256"), jwk(EC, "e1")]
        self.answer: Answer | None = None
        self.server: Server

    def __call__(self, _: object) -> Answer:
        return self.answer or Answer(body=json.dumps({"keys": self.keys}).encode())

    @property
    def fetches(self) -> int:
        return len(self.server.requests)


@pytest.fixture
def jwks(variables: Any) -> Iterator[Keys]:
    keys = Keys()
    with scripted(keys) as keys.server:
        variables(
            AUTH_JWKS_URL=f"{keys.server.url}/jwks.json",
            AUTH_ISSUER=ISSUER,
            AUTH_AUDIENCE=AUDIENCE,
        )
        yield keys


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let time pass for the cache of keys, and no other way."""
    ahead = [time.monotonic()]

    class Time:
        time = staticmethod(time.time)

        @staticmethod
        def monotonic() -> float:
            return ahead[0]

    monkeypatch.setattr(jwks_module, "time", Time)

    def pass_by(seconds: float) -> None:
        ahead[0] += seconds

    return pass_by


@pytest.mark.parametrize(
    ("key", "algorithm", "kid"), [(RSA, "RS256", "r1"), (EC, "ES256", "e1"), (SECRET, "HS256", "")]
)
def test_a_key_of_the_set_verifies_beside_our_own_secret(
    key: Any, algorithm: str, kid: str, jwks: Keys
) -> None:
    assert tokens.decode(token(key, algorithm, kid)).user_id == "usr_demo_admin"


def test_the_set_is_fetched_once_for_many_tokens(jwks: Keys) -> None:
    for _ in range(5):
        tokens.decode(token(RSA, "RS256", "r1"))
        tokens.decode(token(EC, "ES256", "e1"))
    assert jwks.fetches == 1


def test_our_own_secrets_never_ask_for_the_set(jwks: Keys) -> None:
    tokens.decode(token())
    assert jwks.fetches == 0


def test_a_set_alone_needs_no_secret(jwks: Keys, environment: pytest.MonkeyPatch) -> None:
    environment.delenv("AUTH_JWT_SECRET")
    config.forget()
    assert tokens.decode(token(RSA, "RS256", "r1")).user_id == "usr_demo_admin"
    assert refusal_of(token()) == "auth.token_invalid"


PEM = RSA.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
DER = RSA.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


@pytest.mark.parametrize(
    "found",
    [
        pytest.param(signed_by_hand({"alg": "HS256", "kid": "r1"}, PAYLOAD, PEM), id="PEM as key"),
        pytest.param(
            signed_by_hand({"alg": "HS256", "kid": "r1"}, PAYLOAD, PEM.strip()), id="PEM stripped"
        ),
        pytest.param(signed_by_hand({"alg": "HS256", "kid": "r1"}, PAYLOAD, DER), id="DER as key"),
        pytest.param(
            signed_by_hand({"alg": "RS256", "kid": "r1"}, PAYLOAD, PEM), id="RS256 by HMAC"
        ),
        pytest.param(token(RSA, "RS256", "e1"), id="RS256 under an EC key's id"),
        pytest.param(token(EC, "ES256", "r1"), id="ES256 under an RSA key's id"),
        pytest.param(token(RSA, "RS512", "r1"), id="RS512"),
        pytest.param(token(RSA, "PS256", "r1"), id="PS256"),
        pytest.param(token(P384, "ES384", "e1"), id="ES384"),
        pytest.param(f"{part({'alg': 'none', 'kid': 'r1'})}.{part(PAYLOAD)}.", id="none"),
        pytest.param(token(P384, "ES384"), id="another curve without kid"),
        pytest.param(token(rsa.generate_private_key(65537, 2048), "RS256", "r1"), id="another key"),
        pytest.param(signed_by_hand({"alg": "RS256", "kid": ["r1"]}, PAYLOAD, PEM), id="kid list"),
    ],
)
def test_an_algorithm_belongs_to_its_key(found: str, jwks: Keys) -> None:
    assert refusal_of(found) == "auth.token_invalid"


BROKEN = {
    "no numbers": {"kty": "RSA", "kid": "x"},
    "bad numbers": {"kty": "RSA", "kid": "x", "n": "!", "e": "!"},
    "no point": {"kty": "EC", "kid": "x", "crv": "P-256", "x": "", "y": ""},
    "symmetric": {"kty": "oct", "kid": "x", "k": part(b"x" * 32)},
    "no type": {"kid": "x"},
    "a type that is a list": {"kty": ["RSA"], "kid": "x"},
    "another curve": jwk(P384, "x"),
    "for encryption": jwk(RSA, "x", use="enc"),
    "another algorithm": jwk(RSA, "x", alg="RS512"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_key_that_is_not_for_us_locks_no_one_out(name: str, jwks: Keys) -> None:
    jwks.keys.insert(0, BROKEN[name])
    assert tokens.decode(token(RSA, "RS256", "r1")).user_id == "usr_demo_admin"
    by_hand = signed_by_hand({"alg": "HS256", "kid": "x"}, PAYLOAD, b"x" * 32)
    assert refusal_of(by_hand) == "auth.token_invalid"
    assert refusal_of(token(RSA, "RS256", "x")) == "auth.token_invalid"


def test_a_new_key_is_found_half_a_minute_later_at_the_latest(jwks: Keys, clock: Any) -> None:
    tokens.decode(token(RSA, "RS256", "r1"))
    new = rsa.generate_private_key(65537, 2048)
    jwks.keys = [jwk(new, "r2")]
    assert refusal_of(token(new, "RS256", "r2")) == "auth.token_invalid"  # within half a minute
    clock(31)
    assert tokens.decode(token(new, "RS256", "r2")).user_id == "usr_demo_admin"
    assert refusal_of(token(RSA, "RS256", "r1")) == "auth.token_invalid"


def test_a_key_taken_back_is_refused_after_five_minutes(jwks: Keys, clock: Any) -> None:
    tokens.decode(token(RSA, "RS256", "r1"))
    jwks.keys = [jwk(EC, "e1")]
    clock(301)
    assert refusal_of(token(RSA, "RS256", "r1")) == "auth.token_invalid"


def test_unknown_key_ids_cannot_make_us_hammer_the_issuer(jwks: Keys, clock: Any) -> None:
    tokens.decode(token(RSA, "RS256", "r1"))
    for number in range(50):
        refusal_of(token(RSA, "RS256", f"guess-{number}"))
    assert jwks.fetches == 1
    clock(31)
    for number in range(50):
        refusal_of(token(RSA, "RS256", f"again-{number}"))
    assert jwks.fetches == 2


DOWN = {
    "an error": Answer(500),
    "no JSON": Answer(body=b"<html>"),
    "another JSON": Answer(body=b"[]"),
    "no keys": Answer(body=b'{"error": "no"}'),
    "keys that are none": Answer(body=b'{"keys": [1]}'),
    "a hang-up": Answer(drop=True),
}


@pytest.mark.parametrize("fault", DOWN)
def test_keys_once_known_outlive_their_issuer(fault: str, jwks: Keys, clock: Any) -> None:
    tokens.decode(token(RSA, "RS256", "r1"))
    jwks.answer = DOWN[fault]
    clock(301)
    for _ in range(3):
        assert tokens.decode(token(RSA, "RS256", "r1")).user_id == "usr_demo_admin"
    assert jwks.fetches == 2  # and it is not asked again at once


@pytest.mark.parametrize("fault", DOWN)
def test_without_keys_the_authorizer_still_answers_and_the_function_says_503(
    fault: str, jwks: Keys, clock: Any
) -> None:
    jwks.answer = DOWN[fault]
    context = tokens.authorize(token(RSA, "RS256", "r1"))
    assert context == {"unavailable": "auth.keys_unavailable"}
    with pytest.raises(Unavailable) as trouble:
        auth.principal(context)
    assert trouble.value.headers["Retry-After"] == "60"
    for _ in range(20):  # a hundred callers do not wait for it one after the other
        assert "unavailable" in tokens.authorize(token(RSA, "RS256", "r1"))
    assert jwks.fetches == 1
    jwks.answer = None
    clock(6)
    assert tokens.decode(token(RSA, "RS256", "r1")).user_id == "usr_demo_admin"


def test_a_withdrawn_key_is_believed_for_an_hour_at_most_while_the_issuer_is_away(
    jwks: Keys, clock: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    tokens.decode(token(RSA, "RS256", "r1"))
    jwks.answer = Answer(500)
    for _ in range(11):
        clock(301)
        assert tokens.decode(token(RSA, "RS256", "r1")).user_id == "usr_demo_admin"
    clock(301)
    for _ in range(3):
        assert tokens.authorize(token(RSA, "RS256", "r1")) == {
            "unavailable": "auth.keys_unavailable"
        }
    assert '"SigningKeysNotFetched"' in capsys.readouterr().out
    jwks.answer, jwks.keys = None, [jwk(EC, "e1")]
    clock(31)
    assert refusal_of(token(RSA, "RS256", "r1")) == "auth.token_invalid"


def test_a_failed_fetch_is_not_repeated_by_the_next_tokens(jwks: Keys, clock: Any) -> None:
    tokens.decode(token(RSA, "RS256", "r1"))
    jwks.answer = Answer(500)
    clock(301)
    for number in range(30):
        assert tokens.decode(token(RSA, "RS256", "r1")).user_id == "usr_demo_admin"
        refusal_of(token(RSA, "RS256", f"guess-{number}"))
    assert jwks.fetches == 2
    clock(31)
    tokens.decode(token(RSA, "RS256", "r1"))
    assert jwks.fetches == 3


def test_the_set_is_asked_for_in_our_own_name(jwks: Keys) -> None:
    """Firewalls of issuers refuse Python-urllib."""
    tokens.decode(token(RSA, "RS256", "r1"))
    (asked,) = jwks.server.requests
    assert re.fullmatch(r"kyora/[0-9.]+", asked.headers["user-agent"])
    assert "application/json" in asked.headers["accept"]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("where", ["/other.json", "elsewhere", "http://127.0.0.1:9/x"])
def test_a_redirect_is_not_followed(status: int, where: str, jwks: Keys) -> None:
    """To another host, or from https to http, another party would name the keys."""
    with scripted(lambda _: Answer(body=json.dumps({"keys": jwks.keys}).encode())) as other:
        target = other.url if where == "elsewhere" else where
        jwks.answer = Answer(status, headers={"Location": target})
        assert tokens.authorize(token(RSA, "RS256", "r1")) == {
            "unavailable": "auth.keys_unavailable"
        }
        assert other.requests == []
    assert jwks.fetches == 1


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
SLOW: dict[str, tuple[bytes, bytes]] = {  # what comes at once, and what drips
    "nothing": (b"", b""),
    "the status": (b"", HEAD * 20),
    "headers": (HEAD, b"X: y\r\n" * 100),
    "the body": (HEAD + b"Content-Length: 4000\r\n\r\n", b" " * 4000),
    "chunks": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n" * 200),
    "no length": (HEAD + b"\r\n", b" " * 4000),
}


@pytest.mark.parametrize("case", SLOW)
def test_an_issuer_that_drips_has_one_deadline(
    case: str, variables: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jwks_module, "DEADLINE", 0.5)
    with dripping(*SLOW[case]) as url:
        variables(AUTH_JWKS_URL=url, AUTH_ISSUER=ISSUER, AUTH_AUDIENCE=AUDIENCE)
        started = time.monotonic()
        assert tokens.authorize(token(RSA, "RS256", "r1")) == {
            "unavailable": "auth.keys_unavailable"
        }
        assert time.monotonic() - started < 20  # each drips for half a minute and more


def test_the_authorizer_has_time_for_its_issuer_and_a_database_that_is_away() -> None:
    resources = read_template()["Resources"]
    allowed = resources["AuthorizeRequestFunction"]["Properties"]["Timeout"]
    assert allowed >= jwks_module.DEADLINE + 2 * STATEMENT


OTHER = rsa.generate_private_key(65537, 2048)
SETS: dict[str, list[Any]] = {
    "one": [jwk(RSA, "r1")],
    "one without an id": [{k: v for k, v in jwk(RSA, "").items() if k != "kid"}],
    "one of each kind": [jwk(RSA, "r1"), jwk(EC, "e1")],
    "two of a kind": [jwk(RSA, "r1"), jwk(OTHER, "r2")],
    "two kinds of one id": [jwk(RSA, "k"), jwk(EC, "k")],
    "two of a kind and one id": [jwk(OTHER, "k"), jwk(RSA, "k")],
    "one beside those for others": [
        jwk(RSA, "r1"),
        jwk(P384, "r1"),
        jwk(OTHER, "r2", use="enc"),
        jwk(OTHER, "r3", alg="PS256"),
        jwk(OTHER, "r4") | {"key_ops": ["encrypt"]},
    ],
}


@pytest.mark.parametrize(
    ("which", "key", "algorithm", "kid", "good"),
    [
        ("one", RSA, "RS256", None, True),
        ("one", RSA, "RS256", "r1", True),
        ("one", RSA, "RS256", "r2", False),
        ("one", OTHER, "RS256", None, False),
        ("one", EC, "ES256", None, False),
        ("one without an id", RSA, "RS256", None, True),
        ("one without an id", RSA, "RS256", "r1", False),
        ("one of each kind", RSA, "RS256", None, True),
        ("one of each kind", EC, "ES256", None, True),
        ("two of a kind", RSA, "RS256", None, False),
        ("two of a kind", OTHER, "RS256", "r2", True),
        ("two kinds of one id", RSA, "RS256", "k", True),
        ("two kinds of one id", EC, "ES256", "k", True),
        ("two of a kind and one id", RSA, "RS256", "k", True),
        ("two of a kind and one id", OTHER, "RS256", "k", True),
        ("one beside those for others", RSA, "RS256", None, True),
        ("one beside those for others", OTHER, "RS256", "r2", False),
    ],
)
def test_a_key_is_found_by_its_id_and_its_kind(
    which: str, key: Any, algorithm: str, kid: str | None, good: bool, jwks: Keys
) -> None:
    jwks.keys = SETS[which]
    if good:
        assert tokens.decode(token(key, algorithm, kid)).user_id == "usr_demo_admin"
    else:
        assert refusal_of(token(key, algorithm, kid)) == "auth.token_invalid"


BAD_ENTRIES = {
    "a number": 1,
    "nothing": None,
    "a list": [[]],
    "a text": "RSA",
    "an empty object": {},
    "numbers that are none": {"kty": "RSA", "kid": "r1", "n": 5, "e": []},
    "a zero": {"kty": "RSA", "kid": "r1", "n": part(b"\0"), "e": part(b"\0")},
    "a point off the curve": {"kty": "EC", "kid": "r1", "crv": "P-256", "x": part(b"1" * 32)},
    "an id that is a number": jwk(OTHER, "x") | {"kid": 7},
    "operations that are a number": jwk(OTHER, "x") | {"key_ops": "verify"},
    "members that nest": {"kty": "RSA", "kid": "r1", "n": {"a": [{}]}, "e": {}},
    "a short key": jwk(rsa.generate_private_key(65537, 1024), "r1"),
}


@pytest.mark.parametrize("name", BAD_ENTRIES)
def test_a_bad_entry_spoils_no_other(name: str, jwks: Keys) -> None:
    jwks.keys.insert(0, BAD_ENTRIES[name])
    jwks.keys.append(BAD_ENTRIES[name])
    assert tokens.decode(token(RSA, "RS256", "r1")).user_id == "usr_demo_admin"
    assert tokens.decode(token(EC, "ES256", "e1")).user_id == "usr_demo_admin"


@pytest.mark.parametrize(
    "body",
    [
        b'{"keys": ' + b"[" * 200_000,
        b'{"keys": ' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}",
        b'{"keys": [' + b"9" * 10_000 + b"]}",
        b"\xff\xfe",
        b"",
        b'{"keys": []' + b" " * (2 << 20) + b"}",
    ],
    ids=["brackets", "braces", "a number", "no UTF-8", "nothing", "two megabytes"],
)
def test_a_set_that_cannot_be_read_is_a_set_that_is_not_there(body: bytes, jwks: Keys) -> None:
    jwks.answer = Answer(body=body)
    assert tokens.authorize(token(RSA, "RS256", "r1")) == {"unavailable": "auth.keys_unavailable"}


# ---- claims that no database holds

UNFIT = {
    "NUL": "usr_\0demo",
    "a lone surrogate": "usr_\ud800",
    "the other half": "\udfff",
    "oversized": "x" * 256,
    "a megabyte": "x" * (1 << 20),
}


@pytest.mark.parametrize("claim", ["userId", "workspaceId"])
@pytest.mark.parametrize("name", UNFIT)
def test_a_claim_that_no_database_holds_is_refused_and_no_fault(
    name: str, claim: str, database: str
) -> None:
    payload = {"exp": int(time.time()) + 600, **USER, claim: UNFIT[name]}
    found = signed_by_hand({"alg": "HS256", "typ": "JWT"}, payload, SECRET.encode())
    assert tokens.authorize(found) == {"refusal": "auth.token_invalid"}


# ---- the user behind the token


def test_the_user_is_looked_up(database: str) -> None:
    assert tokens.authorize(token(userId="usr_demo_member")) == {
        "userId": "usr_demo_member",
        "workspaceId": "ws_demo",
        "role": "user",
        "locale": "ar",
    }


@pytest.mark.parametrize(
    "claims",
    [
        {"userId": "usr_nobody"},
        {"userId": ""},
        {"userId": "' OR 1=1 --"},
        {"workspaceId": "ws_other"},
        {"workspaceId": "ws_nowhere"},
        {"userId": "usr_other"},
        {"authVersion": 0},
        {"authVersion": 2},
        {"authVersion": -(2**80)},
    ],
    ids=str,
)
def test_unknown_foreign_and_stale_are_one_and_the_same_refusal(
    claims: dict[str, Any], database: str
) -> None:
    assert tokens.authorize(token(**claims)) == {"refusal": "auth.token_revoked"}


def test_a_deleted_user_is_refused(database: str) -> None:
    assert tokens.authorize(token())["role"] == "admin"
    with postgres.transaction() as tx:
        tx.run("UPDATE app_user SET deleted_at = now() WHERE id = 'usr_demo_admin'")
    assert tokens.authorize(token()) == {"refusal": "auth.token_revoked"}


def test_raising_auth_version_signs_everybody_out(database: str) -> None:
    with postgres.transaction() as tx:
        tx.run("UPDATE app_user SET auth_version = 2 WHERE id = 'usr_demo_admin'")
    assert tokens.authorize(token()) == {"refusal": "auth.token_revoked"}
    assert tokens.authorize(token(authVersion=2))["role"] == "admin"


def test_while_the_database_is_down_the_function_looks_itself(
    database: str, variables: Any
) -> None:
    variables(DATABASE_URL="postgresql://127.0.0.1:9/nowhere")
    postgres.close()
    context = tokens.authorize(token(userId="usr_demo_member"))
    assert context == {
        "deferred": "true",
        "userId": "usr_demo_member",
        "workspaceId": "ws_demo",
        "authVersion": "1",
    }
    with pytest.raises(Unavailable):
        auth.principal(context)
    variables(DATABASE_URL=database)
    assert auth.principal(context) == Principal("usr_demo_member", "ws_demo", "user", "ar")
    with pytest.raises(Unauthenticated):
        auth.principal(context | {"authVersion": "2"})


@pytest.mark.parametrize(
    "context",
    [
        {},
        {"userId": "usr_demo_admin"},
        {"userId": "usr_demo_admin", "workspaceId": "ws_demo"},
        {"refusal": "auth.token_expired", "userId": "usr_demo_admin", "workspaceId": "ws_demo"},
        {"deferred": "true"},
    ],
    ids=str,
)
def test_half_a_context_is_no_one(context: dict[str, str]) -> None:
    with pytest.raises(Unauthenticated):
        auth.principal(context)


def test_roles() -> None:
    admin, user = (Principal("usr", "ws", role, "en") for role in ("admin", "user"))
    admin.require("admin")
    admin.require("user")
    user.require("user")
    with pytest.raises(Forbidden):
        user.require("admin")
    with pytest.raises(Forbidden):
        Principal("usr", "ws", "owner", "en").require("user")


# ---- the function


def authorizer_event(header: str | None) -> dict[str, Any]:
    return {
        "version": "2.0",
        "type": "REQUEST",
        "routeArn": "arn:aws:execute-api:eu-west-1:1:api/$default/GET/v1/assets/x",
        "identitySource": [header],
        "routeKey": "GET /v1/assets/{assetId}",
        "headers": {} if header is None else {"authorization": header},
        "requestContext": {"requestId": "authorizer-request"},
    }


def authorized(header: str | None) -> dict[str, Any]:
    answer: dict[str, Any] = function("authorize_request").handler(
        authorizer_event(header), CONTEXT
    )
    return answer


@pytest.mark.parametrize("scheme", ["Bearer ", "bearer ", "BEARER   "])
def test_the_authorizer_passes_on_who_asks(scheme: str, database: str) -> None:
    answer = authorized(scheme + token())
    assert answer["isAuthorized"] is True
    assert answer["context"]["workspaceId"] == "ws_demo"
    assert all(isinstance(value, str) for value in answer["context"].values())


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer ", "Basic dXNlcjpwYXNz", "Token x", "x" * 9000]
)
def test_a_header_without_a_bearer_token_is_a_refusal_for_the_function_to_answer(
    header: str | None, database: str
) -> None:
    answer = authorized(header)
    assert answer == {"isAuthorized": True, "context": {"refusal": "auth.token_invalid"}}
    status, body, headers = call(
        "manage_asset",
        event("GET /v1/assets/{assetId}", authorizer=answer["context"], assetId="ast_x"),
    )
    assert (status, body["code"]) == (401, "auth.token_invalid")
    assert headers["Content-Type"] == "application/problem+json"


SAMPLES = sorted(samples.EVENTS.glob("authorize_request*.json"))


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_the_samples_are_answered(path: Path, database: str) -> None:
    event = samples.read(path, {"KYORA_TOKEN": token(userId="usr_demo_member")})
    answer = function("authorize_request").handler(event, CONTEXT)
    assert answer["isAuthorized"] is True
    good = path.stem == "authorize_request"
    assert ("userId" in answer["context"]) is good
    assert ("refusal" in answer["context"]) is not good


def test_the_answer_and_the_log_never_carry_the_token(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = captured_log(monkeypatch)
    for found in (token(), token(exp=1), token(userId="x"), token(OLD), GARBAGE["alg none"]):
        answer = authorized(f"Bearer {found}")
        text = json.dumps(answer) + log.getvalue()
        assert not [piece for piece in found.split(".") if piece and piece in text]
