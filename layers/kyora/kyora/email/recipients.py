"""What mail an event asks for: the template, who gets it, in which language, saying what."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from kyora.bus.events import Event
from kyora.bus.outcomes import Permanent
from kyora.config import Settings
from kyora.email import books
from kyora.email.catalogue import STRIPE_HOSTS, TEMPLATES, locale_of
from kyora.email.text import LinkPolicy
from kyora.postgres import Transaction

TEMPLATE_OF = {template.event: name for name, template in TEMPLATES.items()}


@dataclass(frozen=True, slots=True)
class Plan:
    """A mail that is to be sent. `known` is its message, when that had been made before.

    `untrue` says why its event is not true any more; then it is not sent.
    """

    recipient: str
    locale: str
    data: Mapping[str, object]
    known: str | None = None
    untrue: str = ""


def plan(tx: Transaction, event: Event[Any], settings: Settings) -> Plan:
    """Return what an event of TEMPLATE_OF asks for.

    Account events name their recipient; billing mail goes to the workspace's owner. Raises
    Permanent when there is none.
    """
    if hasattr(event.data, "email"):
        locale = event.data.locale or _locale(tx, event)
        name = getattr(event.data, "name", "")
        return Plan(event.data.email, locale_of(locale), _data(event, name, settings, {}))
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
    row = books.read(tx, event)
    return Plan(
        recipient=str(owner["email"] or ""),
        locale=locale_of(str(owner["locale"])),
        data=_data(event, str(owner["name"] or ""), settings, row),
        known=None if owner["known"] is None else str(owner["known"]),
        untrue=books.untrue(event, row),
    )


def _data(
    event: Event[Any], name: str, settings: Settings, row: Mapping[str, Any]
) -> dict[str, object]:
    """Return what the template shows, of the event, of our books, and of the person it goes to."""
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
                **books.card(row),
            }
        case _:
            # Of what goes on, the plan that it is on by now.
            goes_on = event.name in ("SubscriptionActivated", "SubscriptionResumed")
            shown = (row.get("plan_name") if goes_on else None) or data.plan_name
            return {"name": name, "planName": shown, **_billing(event, settings, row)}


def _billing(  # noqa: PLR0911  # an event a case
    event: Event[Any], settings: Settings, row: Mapping[str, Any]
) -> dict[str, object]:
    """Return what a billing mail shows beside the plan."""
    data = event.data
    match event.name:
        case "SubscriptionActivated" | "SubscriptionResumed":
            return books.charge(row)
        case "SubscriptionCancelled":
            return {}
        case "TrialEnding":
            said = books.charge(row)
            said.pop("nextChargeAt", None)
            return {"trialEnd": data.trial_end.isoformat(), **said}
        case "PaymentRecovered":
            said = books.charge(row)
            return {name: said[name] for name in ("nextChargeAt",) if name in said}
        case "GraceEnding":
            link = _payment_link(settings, row.get("hosted_url"))
            until = data.access_until.isoformat()
            return {"accessUntil": until, "retryLink": link, **books.owed(row)}
        case "PaymentMethodExpiring":
            said = books.charge(row)
            said.pop("nextChargeAt", None)
            said |= {"last4": data.last4} if data.last4 else {}
            expiry = f"{data.exp_month:02}/{data.exp_year}"
            return {**said, "expiry": expiry, "chargeAt": data.charge_at.isoformat()}
        case "RenewalUpcoming":
            price = {"amount": data.amount, "currency": data.currency}
            return {**price, "renewsAt": data.renews_at.isoformat(), **books.card(row)}
        case "SubscriptionPaused":
            back = data.resume_at
            return {"resumeAt": back.isoformat()} if back else {}
    raise NotImplementedError(event.name)  # a template without a case here


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
