"""Every mail, by its id and by the event that causes it."""

from collections.abc import Iterable
from typing import Any

from kyora.email.mails import account, assets, billing
from kyora.email.mails.mail import Mail

LOCALES = ("en", "ar")


def index(mails: Iterable[Mail[Any]]) -> tuple[dict[str, Mail[Any]], dict[str, Mail[Any]]]:
    """Return mails by id and by the name of their event; ValueError when two have the same."""
    found = list(mails)
    by_id = {mail.id: mail for mail in found}
    by_event = {mail.event.__name__: mail for mail in found}
    if not len(found) == len(by_id) == len(by_event):
        raise ValueError("two mails have the same id or the same event")
    return by_id, by_event


MAILS, MAIL_OF = index(
    entry
    for module in (account, assets, billing)
    for entry in vars(module).values()
    if isinstance(entry, Mail)
)


def locale_of(tag: str | None) -> str:
    """Return the locale that serves a language tag: `ar-EG` is `ar`, an unknown one is `en`."""
    language = (tag or "").replace("_", "-").split("-", maxsplit=1)[0].strip().lower()
    return language if language in LOCALES else "en"
