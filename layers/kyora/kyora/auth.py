"""The caller of a request: the authorizer's result, and the user in the database.

`kyora.tokens` is the authorizer. It passes its result to the function as a small context of
strings: a principal, a refusal, or (when the database was down) the claims, for the function to
look up itself.
"""

from collections.abc import Mapping
from typing import NamedTuple

from kyora.errors import Forbidden, Unauthenticated, Unavailable
from kyora.postgres import alone


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
