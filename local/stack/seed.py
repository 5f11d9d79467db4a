"""The demo workspace, and tokens for its two people."""

import time

import jwt

from local import settings
from local.settings import Settings
from local.stack import postgres

_ROWS = """
with w as (
    insert into workspace (id, name, owner_id) values (:workspace, 'Demo shop', :admin)
    on conflict do nothing
), u as (
    insert into app_user (id, workspace_id, email, name, role, locale) values
        (:admin, :workspace, 'admin@demo.example', 'Dana Admin', 'admin', 'en'),
        (:member, :workspace, 'member@demo.example', 'Mona Member', 'user', 'ar')
    on conflict do nothing
), b as (
    insert into business (id, workspace_id, name, currency)
    values (:business, :workspace, 'Demo shop', 'USD')
    on conflict do nothing
), f as (
    insert into payment_method_fee (workspace_id, business_id, method, percent, fixed)
    values (:workspace, :business, 'credit_card', 0.029, 0.30)
    on conflict do nothing
)
insert into storage_usage (workspace_id) values (:workspace) on conflict do nothing
"""
_YEARS = 5 * 366 * 24 * 3600  # longer than `make time` goes in one move


def seed(stack: Settings) -> None:
    """Write the demo rows; rows that exist stay.

    As the owner: the functions' role may not write accounts' rows.
    """
    postgres.query(
        stack.database_owner_url or stack.database_url,
        _ROWS,
        workspace=settings.WORKSPACE,
        admin=settings.ADMIN,
        member=settings.MEMBER,
        business=settings.BUSINESS,
    )


def has_plans(stack: Settings) -> bool:
    """Return whether plans have been synced."""
    return bool(postgres.query(stack.database_url, "select 1 from plan limit 1"))


def token(stack: Settings, user: str) -> str:
    """Return a token of a demo user, valid for years.

    It has no `iat`, for which it would be refused once the clock is set back.
    """
    rows = postgres.query(
        stack.database_url, "select auth_version from app_user where id = :id", id=user
    )
    claims: dict[str, object] = {
        "userId": user,
        "workspaceId": settings.WORKSPACE,
        "authVersion": rows[0][0] if rows else 1,
        "exp": int(time.time()) + _YEARS,
    }
    for claim, variable in (("iss", "AUTH_ISSUER"), ("aud", "AUTH_AUDIENCE")):
        if value := stack.environ.get(variable):
            claims[claim] = value
    # Any of several secrets is accepted for rotation; the first is the current one.
    return jwt.encode(claims, _current(stack.secrets["AUTH_JWT_SECRET"]), algorithm="HS256")


def _current(secret: str) -> str:
    if secret.startswith("["):
        import json

        return str(json.loads(secret)[0])
    return secret.split(",", maxsplit=1)[0]
