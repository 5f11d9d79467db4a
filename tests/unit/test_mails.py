"""One mail, one entry: each is whole, and is filled from its event whatever our data knows."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from kyora.bus.events import EVENTS
from kyora.email.mails import account, billing
from kyora.email.mails.catalogue import LOCALES, MAIL_OF, MAILS, index
from kyora.email.mails.mail import Context, Mail
from kyora.email.render import render
from local.tools.email_samples import SETTINGS
from local.tools.event_samples import sample

DUE = datetime(2026, 12, 23, 10, tzinfo=UTC)
# What our data may know of a subscription, from nothing to everything.
UNKNOWN: dict[str, Any] = {}
ENDED: dict[str, Any] = {
    **dict.fromkeys(("plan_name", "trial_end", "cancel_at", "period_end", "access_until")),
    **dict.fromkeys(("last4", "exp_month", "exp_year", "charge", "currency", "hosted_url")),
    **dict.fromkeys(("owed", "owed_in", "invoice_status", "payment_failed")),
    "status": "canceled",
    "access": "free",
    "costs": True,
    "another": False,
}
RUNNING: dict[str, Any] = ENDED | {
    "plan_name": "Pro",
    "status": "active",
    "access": "full",
    "period_end": DUE,
    "charge": 2900,
    "currency": "USD",
    "last4": "4242",
    "exp_month": 12,
    "exp_year": 2026,
    "owed": 2900,
    "owed_in": "USD",
    "invoice_status": "open",
    "hosted_url": "https://invoice.stripe.com/i/acct_1Kyora/test",
}
BOOKS = {"unknown": UNKNOWN, "ended": ENDED, "running": RUNNING}


def event_of(mail: Mail[Any]) -> Any:
    data, _ = sample(mail.event.__name__)
    return mail.event.model_validate(data)


@pytest.mark.parametrize("locale", LOCALES)
@pytest.mark.parametrize("known", BOOKS)
@pytest.mark.parametrize("mail_id", MAILS)
def test_a_mail_is_written_from_its_event(mail_id: str, known: str, locale: str) -> None:
    mail = MAILS[mail_id]
    values = mail.fill(event_of(mail), Context("Dana", BOOKS[known], SETTINGS))
    made = render(mail_id, locale, values, message_id="eml_1", settings=SETTINGS)
    assert made.subject
    assert made.text


@pytest.mark.parametrize("known", BOOKS)
@pytest.mark.parametrize("mail_id", MAILS)
def test_a_mail_says_why_it_is_untrue(mail_id: str, known: str) -> None:
    mail = MAILS[mail_id]
    why = mail.untrue(event_of(mail), BOOKS[known])
    assert isinstance(why, str)
    if known == "unknown" or "email" in mail.event.model_fields:
        assert why == "", "what we do not know contradicts nothing"


def test_every_billing_mail_is_held_against_our_data() -> None:
    mails = [entry for entry in vars(billing).values() if isinstance(entry, Mail)]
    assert len(mails) == 10
    for mail in mails:
        ended = mail.untrue(event_of(mail), ENDED | {"invoice_status": "paid"})
        running = mail.untrue(event_of(mail), RUNNING | {"another": True})
        assert ended or running, f"nothing could make {mail.id} untrue"


def test_each_event_is_one_of_the_bus() -> None:
    for name, mail in MAIL_OF.items():
        assert EVENTS[name].model is mail.event


@pytest.mark.parametrize("changed", [{"id": "another"}, {"event": EVENTS["UserWelcomed"].model}])
def test_two_mails_with_one_id_or_one_event_are_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="two mails"):
        index([account.WELCOME, account.WELCOME._replace(**changed)])


def test_an_entry_that_lacks_a_part_fails_at_once() -> None:
    with pytest.raises(TypeError, match="fill"):
        Mail(  # type: ignore[call-arg]
            id="x",
            event=EVENTS["UserWelcomed"].model,
            data=account.Welcome,
            lifetime=timedelta(days=1),
        )
