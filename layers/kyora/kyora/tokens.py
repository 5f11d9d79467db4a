"""The authorizer: verify a JWT, and load the user that it names.

Only `authorize_request` imports this, and PyJWT with it; the functions behind it read its result
with `kyora.auth`.
"""

from collections.abc import Mapping
from typing import Any

import jwt

from kyora import config, jwks
from kyora.auth import Claims, load, refuse
from kyora.errors import Unauthenticated, Unavailable
from kyora.postgres import storable

_LEEWAY = 60  # seconds of clock skew
_LONGEST_ID = 255  # characters


def authorize(token: str) -> dict[str, str]:
    """Return the context that `principal` reads for a bearer token."""
    try:
        claims = decode(token)
    except Unauthenticated as refusal:
        return {"refusal": refusal.code}
    except Unavailable as error:
        return {"unavailable": error.code}  # raised here, it would be answered as a bare 500
    try:
        found = load(claims)
    except Unauthenticated as refusal:
        return {"refusal": refusal.code}
    except Unavailable:
        # The gateway caches this answer for a minute: the function looks the user up itself.
        return {
            "deferred": "true",
            "userId": claims.user_id,
            "workspaceId": claims.workspace_id,
            "authVersion": str(claims.auth_version),
        }
    return {
        "userId": found.user_id,
        "workspaceId": found.workspace_id,
        "role": found.role,
        "locale": found.locale,
    }


def decode(token: str) -> Claims:
    """Verify a token's signature and expiry. Raises Unauthenticated and Unavailable.

    Each key has one algorithm: HS256 for our secrets, RS256 or ES256 for the issuer's keys.
    """
    try:
        header = jwt.get_unverified_header(token)
    except (jwt.InvalidTokenError, ValueError):
        raise refuse("auth.token_invalid") from None
    keys: list[Any]
    if header.get("alg") == "HS256":
        algorithm, keys = "HS256", list(config.auth().jwt_secrets)
    else:
        algorithm, keys = str(header.get("alg")), _public_keys(header)
    for key in keys:
        try:
            return _claims(_verified(token, key, algorithm))
        except jwt.ExpiredSignatureError:
            raise refuse("auth.token_expired") from None
        except jwt.InvalidSignatureError:
            continue
        except (jwt.PyJWTError, ValueError, TypeError):
            raise refuse("auth.token_invalid") from None
    raise refuse("auth.token_invalid")


def _verified(token: str, key: object, algorithm: str) -> dict[str, Any]:
    found = config.auth()
    return jwt.decode(
        token,
        key,  # type: ignore[arg-type]  # a secret or the key of a JWK
        algorithms=[algorithm],
        issuer=found.issuer or None,
        audience=found.audience or None,
        leeway=_LEEWAY,
        # PyJWT also requires the issuer and the audience that it is given. A token's audience that
        # is not configured it would refuse.
        options={"require": ["exp"], "verify_aud": bool(found.audience)},
    )


def _claims(payload: Mapping[str, object]) -> Claims:
    user, workspace, version = (payload.get(k) for k in ("userId", "workspaceId", "authVersion"))
    if not (_is_id(user) and _is_id(workspace) and type(version) is int):
        raise refuse("auth.token_invalid")
    return Claims(str(user), str(workspace), version)


def _is_id(value: object) -> bool:
    """Return whether a claim can be looked up: a signed token may hold any text."""
    return isinstance(value, str) and len(value) <= _LONGEST_ID and storable(value)


def _public_keys(header: Mapping[str, Any]) -> list[Any]:
    """Return the issuer's keys that may have signed a token. Raises Unavailable."""
    url = config.auth().jwks_url
    if not url:
        return []
    key_id = header.get("kid")
    return [key.public for key in jwks.find(url, key_id, str(header.get("alg")))]
