"""Authentication: verify the JWT, then load its user.

The authorizer passes its result to the function as a small context of strings: a principal, a
refusal, or (when the database was down) the claims, for the function to look up itself.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from kyora import config, jwks
from kyora.errors import Forbidden, Unauthenticated, Unavailable
from kyora.postgres import alone, storable

_LEEWAY = 60  # seconds of clock skew
_LONGEST_ID = 255  # characters


class Claims(NamedTuple):
    """The claims of a valid token."""

    user_id: str
    workspace_id: str
    auth_version: int


class Principal(NamedTuple):
    """A user of a workspace. `role` is `admin` or `user`."""

    user_id: str
    workspace_id: str
    role: str
    locale: str

    def require(self, role: str) -> None:
        """Raise Forbidden unless the principal has `role`; an admin has every role."""
        if self.role not in (role, "admin"):
            raise Forbidden(f"This needs the role {role}.")


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


def principal(context: Mapping[str, str]) -> Principal:
    """Return the caller from the authorizer's context.

    Raises Unauthenticated, also for an empty context, and Unavailable.
    """
    if context.get("refusal"):
        raise refuse(context["refusal"])
    if context.get("unavailable"):  # as long as the gateway caches the authorizer's answer
        raise Unavailable(code=context["unavailable"], retry_after=60)
    try:
        if context.get("deferred"):
            version = int(context["authVersion"])
            return load(Claims(context["userId"], context["workspaceId"], version))
        return Principal(
            context["userId"], context["workspaceId"], context["role"], context["locale"]
        )
    except KeyError:
        raise refuse("auth.token_missing") from None


def decode(token: str) -> Claims:
    """Verify a token's signature and expiry. Raises Unauthenticated and Unavailable.

    Each key has one algorithm: HS256 for our secrets, RS256 or ES256 for the issuer's keys.
    """
    import jwt

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


def load(claims: Claims) -> Principal:
    """Return the user that a token names. Raises Unauthenticated or Unavailable.

    An unknown or deleted user, another workspace and a stale authVersion are refused alike.
    """
    rows = alone(
        "SELECT role, locale, auth_version FROM app_user"
        " WHERE id = :user_id AND workspace_id = :workspace_id AND deleted_at IS NULL",
        user_id=claims.user_id,
        workspace_id=claims.workspace_id,
    )
    if not rows or rows[0]["auth_version"] != claims.auth_version:
        raise refuse("auth.token_revoked")
    row = rows[0]
    return Principal(claims.user_id, claims.workspace_id, str(row["role"]), str(row["locale"]))


_DETAILS = {
    "auth.token_missing": "Send a bearer token.",
    "auth.token_invalid": "The token is not valid.",
    "auth.token_expired": "The token has expired.",
    "auth.token_revoked": "The token is no longer accepted; sign in again.",
}


def refuse(code: str) -> Unauthenticated:
    """Return the refusal with this code."""
    return Unauthenticated(_DETAILS.get(code, ""), code=code)


def _verified(token: str, key: object, algorithm: str) -> dict[str, Any]:
    import jwt

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
