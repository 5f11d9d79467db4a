"""Whether a token is good, and what the authorizer's context says; no database is asked."""

import json
from collections.abc import Iterator
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from kyora import auth, clock, config, jwks, postgres, tokens
from kyora.auth import Claims, Principal
from kyora.errors import Forbidden, Unauthenticated, Unavailable
from tests.conftest import SECRET
from tests.scripted import Answer, in_turn, scripted

OTHER = "another secret of thirty-two bytes"
CLAIMS: dict[str, Any] = {"userId": "usr_1", "workspaceId": "ws_1", "authVersion": 3}
READ = Claims("usr_1", "ws_1", 3)
OURS = {"iss": "https://id.example", "aud": "kyora"}
PARTIES = {"AUTH_ISSUER": OURS["iss"], "AUTH_AUDIENCE": OURS["aud"]}
MINUTES = 600
EC = ec.generate_private_key(ec.SECP256R1())


@pytest.fixture(autouse=True)
def configured(environment: pytest.MonkeyPatch) -> Iterator[None]:
    jwks._sets.clear()
    # No one listens there.
    environment.setenv("DATABASE_URL", "postgresql://kyora:x@127.0.0.1:9/kyora")
    config.forget()
    yield
    jwks._sets.clear()
    postgres.close()


def use(environment: pytest.MonkeyPatch, **variables: str) -> None:
    for name, value in variables.items():
        environment.setenv(name, value)
    config.forget()


def token(key: Any = SECRET, algorithm: str = "HS256", kid: str | None = None, **more: Any) -> str:
    claims = {"exp": int(clock.timestamp()) + MINUTES} | CLAIMS | more
    kept = {name: value for name, value in claims.items() if value is not ...}
    return jwt.encode(kept, key, algorithm, headers={"kid": kid} if kid else None)


def refusal(found: str) -> str:
    with pytest.raises(Unauthenticated) as refused:
        tokens.decode(found)
    return refused.value.code


# ---- the token


def test_a_good_token_names_its_user_workspace_and_version() -> None:
    assert tokens.decode(token()) == READ


@pytest.mark.parametrize(
    ("found", "code"),
    [
        ("", "auth.token_invalid"),
        ("a.b.c", "auth.token_invalid"),
        ("\ud800.b.c", "auth.token_invalid"),
        (token(OTHER), "auth.token_invalid"),
        (token(algorithm="HS512", key=SECRET * 2), "auth.token_invalid"),
        (token(exp=...), "auth.token_invalid"),
        (token(exp=1), "auth.token_expired"),
    ],
)
def test_a_bad_token_is_refused(found: str, code: str) -> None:
    assert refusal(found) == code


@pytest.mark.parametrize(("ago", "good"), [(50, True), (70, False)])
def test_clocks_may_differ_by_a_minute(ago: int, good: bool) -> None:
    found = token(exp=int(clock.timestamp()) - ago)
    assert (tokens.decode(found) == READ) if good else (refusal(found) == "auth.token_expired")


def test_any_of_the_secrets_verifies(environment: pytest.MonkeyPatch) -> None:
    use(environment, AUTH_JWT_SECRET=json.dumps([OTHER, SECRET]))
    assert tokens.decode(token()) == tokens.decode(token(OTHER)) == READ
    assert refusal(token("a third secret of thirty-two bytes")) == "auth.token_invalid"


@pytest.mark.parametrize(
    "claims",
    [
        {"userId": ...},
        {"userId": 7},
        {"userId": "u" * 256},
        {"userId": "u\0"},
        {"workspaceId": ...},
        {"workspaceId": "w" * 256},
        {"authVersion": ...},
        {"authVersion": "3"},
        {"authVersion": True},
        {"authVersion": 3.0},
    ],
)
def test_claims_that_name_no_user_are_refused(claims: dict[str, Any]) -> None:
    assert refusal(token(**claims)) == "auth.token_invalid"


def test_an_id_has_at_most_255_characters() -> None:
    longest = "u" * 255
    assert tokens.decode(token(userId=longest, workspaceId=longest)) == Claims(longest, longest, 3)


@pytest.mark.parametrize(
    ("key", "claim", "right", "wrong"),
    [
        ("AUTH_ISSUER", "iss", "https://id.example", "https://evil.example"),
        ("AUTH_AUDIENCE", "aud", "kyora", "another"),
    ],
)
def test_a_claim_is_checked_when_it_is_configured(
    key: str, claim: str, right: str, wrong: str, environment: pytest.MonkeyPatch
) -> None:
    assert tokens.decode(token(**{claim: wrong})) == READ
    use(environment, **{key: right})
    assert tokens.decode(token(**{claim: right})) == READ
    assert refusal(token(**{claim: wrong})) == "auth.token_invalid"
    assert refusal(token()) == "auth.token_invalid"


def test_a_token_of_the_issuers_key_is_verified_with_it(environment: pytest.MonkeyPatch) -> None:
    key = json.loads(ECAlgorithm.to_jwk(EC.public_key())) | {"kid": "k1", "alg": "ES256"}
    found = token(EC, "ES256", kid="k1", **OURS)
    assert refusal(found) == "auth.token_invalid"  # no issuer is configured
    with scripted(in_turn(Answer(body=json.dumps({"keys": [key]}).encode()))) as issuer:
        use(environment, AUTH_JWKS_URL=f"{issuer.url}/jwks", **PARTIES)
        assert tokens.decode(found) == READ
        assert refusal(token(EC, "ES256", kid="k2", **OURS)) == "auth.token_invalid"
        assert tokens.decode(token(**OURS)) == READ  # our own secret still verifies
        assert tokens.authorize(found) == DEFERRED


def test_while_the_issuer_does_not_answer_nothing_is_decided(
    environment: pytest.MonkeyPatch,
) -> None:
    use(environment, AUTH_JWKS_URL="http://127.0.0.1:9/jwks", **PARTIES)
    found = token(EC, "ES256", kid="k1", **OURS)
    assert tokens.authorize(found) == {"unavailable": "auth.keys_unavailable"}


# ---- the context

DEFERRED = {"deferred": "true", "userId": "usr_1", "workspaceId": "ws_1", "authVersion": "3"}


def test_without_a_database_the_function_looks_the_user_up() -> None:
    assert tokens.authorize(token()) == DEFERRED
    with pytest.raises(Unavailable):
        auth.principal(DEFERRED)


def test_a_refused_token_is_a_refusal_in_the_context() -> None:
    assert tokens.authorize(token(OTHER)) == {"refusal": "auth.token_invalid"}


def test_a_context_names_the_caller() -> None:
    known = {"userId": "usr_1", "workspaceId": "ws_1", "role": "user", "locale": "ar"}
    assert auth.principal(known) == Principal("usr_1", "ws_1", "user", "ar")
    for name in known:
        with pytest.raises(Unauthenticated) as refused:
            auth.principal({key: value for key, value in known.items() if key != name})
        assert refused.value.code == "auth.token_missing"
    with pytest.raises(Unauthenticated) as refused:
        auth.principal({"deferred": "true"})
    assert refused.value.code == "auth.token_missing"


def test_a_context_that_says_unavailable_asks_to_come_back_in_a_minute() -> None:
    with pytest.raises(Unavailable) as found:
        auth.principal({"unavailable": "auth.keys_unavailable"})
    assert found.value.code == "auth.keys_unavailable"
    assert found.value.headers == {"Retry-After": "60"}


@pytest.mark.parametrize(
    ("code", "detail"),
    [
        ("auth.token_missing", "Send a bearer token."),
        ("auth.token_invalid", "The token is not valid."),
        ("auth.token_expired", "The token has expired."),
        ("auth.token_revoked", "The token is no longer accepted; sign in again."),
        ("auth.other", ""),
    ],
)
def test_a_refusal_says_what_to_do(code: str, detail: str) -> None:
    with pytest.raises(Unauthenticated) as refused:
        auth.principal({"refusal": code})
    assert (refused.value.code, refused.value.detail) == (code, detail)


def test_an_admin_has_every_role_and_a_user_one() -> None:
    admin, user = (Principal("usr_1", "ws_1", role, "en") for role in ("admin", "user"))
    for role in ("admin", "user"):
        admin.require(role)
    user.require("user")
    with pytest.raises(Forbidden, match="admin"):
        user.require("admin")
