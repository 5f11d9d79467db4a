"""The workspace of `make smoke`, which tests a deployed stack end to end.

migrate_database runs this, because it may write the accounts' tables. Only someone who may invoke
that function gets the token, which is valid for 15 minutes and for this workspace alone.
"""

import hmac
import json
import secrets
from typing import Any

from kyora import clock, config
from kyora.postgres import transaction

_WORKSPACE, _USER = "ws_smoke", "usr_smoke"
_LIFETIME = 900  # seconds a token is valid
_EVENTS = "evt_smoke_"  # prefix of the ids of made-up Stripe events
_EVENT_TYPE = "smoke.test"  # not a type of Stripe's: it is stored and ignored


def answer(asked: dict[str, Any]) -> dict[str, Any]:
    """Do a step of a run: begin, sign, look or end."""
    match asked.get("step"):
        case "begin":
            return begin()
        case "sign":
            return {"signature": sign(str(asked["body"]))}
        case "look":
            return look(str(asked["business"]), str(asked["mail"]), str(asked["stripe"]))
        case "end":
            end()
            return {}
    raise ValueError("step must be begin, sign, look or end")


def begin() -> dict[str, Any]:
    """Create the workspace, an admin and a business with a fee; return them with a token.

    `token` is empty where an external issuer signs the tokens (a JWKS).
    """
    end()
    business = f"biz_smoke_{secrets.token_hex(6)}"
    with transaction(owner=True) as tx:
        tx.run(
            "INSERT INTO workspace (id, name) VALUES (:workspace, 'Smoke test')"
            " ON CONFLICT (id) DO NOTHING",
            workspace=_WORKSPACE,
        )
        tx.run(
            "INSERT INTO app_user (id, workspace_id, email, role)"
            " VALUES (:user, :workspace, 'smoke@kyora.invalid', 'admin')"
            " ON CONFLICT (id) DO UPDATE SET deleted_at = NULL",
            user=_USER,
            workspace=_WORKSPACE,
        )
        tx.run(
            "INSERT INTO business (id, workspace_id, name, currency)"
            " VALUES (:business, :workspace, 'Smoke test', 'USD')",
            business=business,
            workspace=_WORKSPACE,
        )
        tx.run(
            "INSERT INTO payment_method_fee (workspace_id, business_id, method, percent, fixed)"
            " VALUES (:workspace, :business, 'credit_card', 0.029, 0.30)",
            business=business,
            workspace=_WORKSPACE,
        )
        version = tx.value(
            int,
            "SELECT auth_version FROM app_user WHERE id = :user AND workspace_id = :workspace",
            user=_USER,
            workspace=_WORKSPACE,
        )
    return {"workspaceId": _WORKSPACE, "businessId": business, "token": _token(version or 1)}


def _token(version: int) -> str:
    import jwt

    found = config.auth()
    if not found.jwt_secrets:
        return ""
    now = int(clock.timestamp())
    claims: dict[str, Any] = {
        "userId": _USER,
        "workspaceId": _WORKSPACE,
        "authVersion": version,
        "iat": now,
        "exp": now + _LIFETIME,
    }
    if found.issuer:
        claims["iss"] = found.issuer
    if found.audience:
        claims["aud"] = found.audience
    return jwt.encode(claims, found.jwt_secrets[0], "HS256")


def sign(body: str) -> str:
    """Return the Stripe-Signature header of a body; empty without a signing secret.

    Source: https://docs.stripe.com/webhooks/signature. Only an event of a smoke run is signed.
    """
    secrets = config.stripe_webhook_secrets()
    event = json.loads(body)
    if not str(event["id"]).startswith(_EVENTS) or event["type"] != _EVENT_TYPE:
        raise ValueError("only an event of a smoke run is signed")
    if not secrets:
        return ""
    stamp = int(clock.timestamp())
    signed = f"{stamp}.{body}".encode()
    digest = hmac.digest(secrets[0].encode(), signed, "sha256").hex()
    return f"t={stamp},v1={digest}"


def look(business: str, mail: str, stripe: str) -> dict[str, Any]:
    """Return the results of a run: the fees, the mail of an event, a Stripe event."""
    with transaction() as tx:
        return {
            "fees": tx.value(
                int,
                "SELECT count(*) FROM transaction_fee"
                " WHERE workspace_id = :workspace AND business_id = :business",
                workspace=_WORKSPACE,
                business=business,
            ),
            "mail": tx.row(
                "SELECT status, reason, attempts FROM email_message WHERE event_id = :mail",
                mail=mail,
            ),
            "stripe": tx.row(
                "SELECT status, last_error FROM stripe_event WHERE id = :stripe", stripe=stripe
            ),
            # Events from Stripe itself: is our address in its dashboard?
            "fromStripe": tx.row(
                "SELECT count(*) AS count FROM stripe_event WHERE source = 'webhook'"
                f" AND NOT starts_with(id, '{_EVENTS}')"
            ),
        }


def end() -> None:
    """Delete the rows of earlier runs; the empty workspace and its user, now refused, stay.

    Files are deleted through the API; mail expires with all other mail.
    """
    with transaction(owner=True) as tx:
        # In the order that the foreign keys allow.
        whose = {"workspace": _WORKSPACE}
        tx.run("DELETE FROM transaction_fee WHERE workspace_id = :workspace", **whose)
        tx.run("DELETE FROM order_payment WHERE workspace_id = :workspace", **whose)
        tx.run("DELETE FROM payment_method_fee WHERE workspace_id = :workspace", **whose)
        tx.run("DELETE FROM analytics_count WHERE workspace_id = :workspace", **whose)
        tx.run("DELETE FROM analytics_event WHERE workspace_id = :workspace", **whose)
        tx.run("DELETE FROM business WHERE workspace_id = :workspace", **whose)
        tx.run(
            "UPDATE app_user SET deleted_at = now(), auth_version = auth_version + 1"
            " WHERE id = :user AND workspace_id = :workspace AND deleted_at IS NULL",
            user=_USER,
            workspace=_WORKSPACE,
        )
        tx.run(f"DELETE FROM stripe_event WHERE starts_with(id, '{_EVENTS}')")
