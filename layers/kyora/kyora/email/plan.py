"""What mail an event asks for: the template, who gets it, in which language, saying what."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from kyora.bus import Permanent
from kyora.bus.events import Event
from kyora.config import Settings
from kyora.email.catalogue import STRIPE_HOSTS, TEMPLATES, locale_of
from kyora.email.text import LinkPolicy
from kyora.postgres import Transaction

TEMPLATE_OF = {template.event: name for name, template in TEMPLATES.items()}


@dataclass(frozen=True, slots=True)
class Plan:
    """A mail that is to be sent. `known` is its message, when that had been made before."""

    recipient: str
    locale: str
    data: Mapping[str, object]
    known: str | None = None


def plan(tx: Transaction, event: Event[Any], settings: Settings) -> Plan:
    """Return what an event of TEMPLATE_OF asks for.

    Account events name their recipient; billing mail goes to the workspace's owner. Raises
    Permanent when there is none.
    """
    if hasattr(event.data, "email"):
        locale = event.data.locale or _locale(tx, event)
        name = getattr(event.data, "name", "")
        return Plan(event.data.email, locale_of(locale), _data(event, name, settings))
    owner = tx.row(
        # The owner may be another one when the event comes again: its message stays the same.
        "SELECT u.email, u.name, u.locale, (SELECT m.id FROM email_message m"
        "  WHERE m.event_id = :event_id AND m.template = :template) AS known"
        " FROM workspace w LEFT JOIN app_user u ON u.id = w.owner_id AND u.deleted_at IS NULL"
        " WHERE w.id = :workspace_id",
        workspace_id=event.workspace_id,
        event_id=event.id,
        template=TEMPLATE_OF[event.name],
    )
    if owner is None or (owner["email"] is None and owner["known"] is None):
        raise Permanent("email.no_owner")
    return Plan(
        recipient=str(owner["email"] or ""),
        locale=locale_of(str(owner["locale"])),
        data=_data(event, str(owner["name"] or ""), settings),
        known=None if owner["known"] is None else str(owner["known"]),
    )


def _data(  # noqa: PLR0911  # an event a case
    event: Event[Any], name: str, settings: Settings
) -> dict[str, object]:
    """Return what the template shows, of the event and of the person it goes to."""
    data, base = event.data, settings.app_base_url
    match event.name:
        case "EmailVerificationRequested":
            return {"name": name, "verificationLink": _link(base, "/verify-email", data.token)}
        case "PasswordResetRequested":
            return {"name": name, "resetLink": _link(base, "/reset-password", data.token)}
        case "WorkspaceInvitationCreated":
            return {
                "inviterName": data.inviter_name,
                "workspaceName": data.workspace_name,
                "invitationLink": _link(base, "/accept-invitation", data.token),
            }
        case "UserWelcomed":
            return {"name": name, "workspaceName": data.workspace_name}
        case "PaymentFailed":
            due = data.next_attempt_at
            return {
                "name": name,
                "retryLink": _payment_link(settings, data.hosted_invoice_url),
                "amount": data.amount,
                "currency": data.currency,
                "nextAttemptAt": due.isoformat() if due else None,
            }
        case "TrialEnding":
            trial_end = data.trial_end.isoformat()
            return {"name": name, "planName": data.plan_name, "trialEnd": trial_end}
        case _:  # SubscriptionActivated, SubscriptionCancelled
            return {"name": name, "planName": data.plan_name}


def _link(base: str, path: str, token: str) -> str:
    return f"{base}{path}?{urlencode({'token': token})}"


def _payment_link(settings: Settings, invoice: str | None) -> str:
    """Return where to pay: the invoice's own page when it is Stripe's, else our billing page."""
    try:
        policy = LinkPolicy(settings.app_base_url, settings.development)
        return str(policy.check(invoice or "", also=STRIPE_HOSTS))
    except ValueError:
        return f"{settings.app_base_url}/billing"


def _locale(tx: Transaction, event: Event[Any]) -> str | None:
    """Return the language of a user whom the event names without it."""
    if event.workspace_id is None:
        return None
    row = tx.row(
        "SELECT locale FROM app_user WHERE workspace_id = :workspace_id"
        " AND lower(email) = lower(:email) AND deleted_at IS NULL",
        workspace_id=event.workspace_id,
        email=event.data.email,
    )
    return str(row["locale"]) if row else None
