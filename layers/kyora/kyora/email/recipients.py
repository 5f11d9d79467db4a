"""Who gets an event's mail, and in which language."""

from typing import Any, NamedTuple

from kyora.bus.events import Event
from kyora.bus.outcomes import Permanent
from kyora.email.mails.catalogue import locale_of
from kyora.postgres import Transaction


class Recipient(NamedTuple):
    """Who gets a mail. `known` is its message's id, when that has been made before."""

    address: str
    name: str
    locale: str
    known: str | None = None


def find(tx: Transaction, event: Event[Any], mail: str) -> Recipient:
    """Return who gets a mail: the address that an account event names, or the workspace's owner.

    Raises Permanent when the workspace has no owner.
    """
    if hasattr(event.data, "email"):
        locale = event.data.locale or _locale(tx, event)
        return Recipient(event.data.email, getattr(event.data, "name", ""), locale_of(locale))
    owner = tx.row(
        # The owner may be another one when the event comes again: its message stays the same.
        "SELECT u.email, u.name, u.locale, (SELECT m.id FROM email_message m"
        "  WHERE m.event_id = :event_id AND m.template = :template) AS known"
        " FROM workspace w LEFT JOIN app_user u ON u.id = w.owner_id AND u.deleted_at IS NULL"
        " WHERE w.id = :workspace_id",
        workspace_id=event.workspace_id,
        event_id=event.id,
        template=mail,
    )
    if owner is None or (owner["email"] is None and owner["known"] is None):
        raise Permanent("email.no_owner")
    return Recipient(
        address=str(owner["email"] or ""),
        name=str(owner["name"] or ""),
        locale=locale_of(str(owner["locale"])),
        known=None if owner["known"] is None else str(owner["known"]),
    )


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
