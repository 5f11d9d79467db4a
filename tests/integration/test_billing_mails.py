"""Billing mail says what is true of the workspace when it is sent, and is not sent otherwise."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from kyora.billing.jobs import reminders
from tests.fake_resend import FakeResend
from tests.integration.support import api, billing, invariants, mail_queue
from tests.integration.support.shops import Shop
from tests.integration.support.subscribing import (
    SUBSCRIPTION,
    bad_card,
    cancel,
    checkout,
    choose,
    good_card,
    live,
    pause,
    price_id,
    read,
)

LATER = timedelta(minutes=1)


@pytest.fixture
def desk(resend: FakeResend, shop: Shop) -> Iterator[FakeResend]:
    billing.as_owner("UPDATE workspace SET owner_id = 'usr_demo_admin' WHERE id = 'ws_demo'")
    billing.as_owner("UPDATE app_user SET locale = 'en' WHERE id = 'usr_demo_admin'")
    return resend


@pytest.fixture
def payer(desk: FakeResend, shop: Shop) -> Shop:
    shop.subscribe()
    sent()
    return shop


def reported(name: str) -> list[dict[str, Any]]:
    """Return the events of this name that no mail was written for yet."""
    return [
        row["detail"]
        for row in invariants.rows(
            "SELECT o.detail FROM outbox o WHERE o.detail_type = :name AND NOT EXISTS"
            " (SELECT 1 FROM email_message m WHERE m.event_id = o.detail->>'id') ORDER BY o.id",
            name=name,
        )
    ]


def sent() -> dict[str, str]:
    """Deliver the events; return each mail's status, or why it was not sent, by template."""
    names = [
        row["detail_type"] for row in invariants.rows("SELECT DISTINCT detail_type FROM outbox")
    ]
    found: dict[str, str] = {}
    for name in names:
        for detail in reported(name):
            now = datetime.now(UTC).isoformat()
            mail_queue.deliver(mail_queue.record(name, detail | {"occurredAt": now}))
            for row in invariants.rows(
                "SELECT template, status, reason FROM email_message WHERE event_id = :id",
                id=detail["id"],
            ):
                found[row["template"]] = row["reason"] or row["status"]
    return found


def text(desk: FakeResend, subject: str) -> str:
    [mail] = [d.payload for d in desk.deliveries if subject in d.payload["subject"]][-1:]
    return str(mail["text"])


def test_a_new_subscription_is_confirmed_with_amount_card_and_day(
    desk: FakeResend, shop: Shop
) -> None:
    shop.subscribe()
    assert sent() == {"subscription_confirmed": "sent"}  # and not that the first try failed
    said = text(desk, "You're on Professional")
    assert "99.00 AED" in said
    assert "4242" in said
    assert "UTC" in said


def test_a_plan_that_was_changed_meanwhile_is_called_by_its_name(
    desk: FakeResend, shop: Shop
) -> None:
    shop.subscribe()
    assert choose("enterprise").status == 200
    shop.deliver()
    assert sent() == {"subscription_confirmed": "sent"}
    assert "299.00 AED" in text(desk, "You're on Enterprise")


def test_a_payer_at_the_form_gets_no_mail_that_the_payment_failed(
    desk: FakeResend, shop: Shop
) -> None:
    assert choose("professional").status == 402
    [sub] = shop.all("subscription")
    bad = shop.request(
        *("POST", "payment_methods/pm_card_chargeCustomerFail/attach"), customer=sub["customer"]
    )
    status, _ = shop.calls(
        lambda: shop.on.engine.request(
            *("POST", f"/v1/invoices/{sub['latest_invoice']}/pay"), {"payment_method": bad["id"]}
        )
    )
    assert status == 402
    shop.deliver()
    assert reported("PaymentFailed")
    assert sent() == {"payment_failed": "untrue: at the form"}


def test_an_upgrade_that_waits_for_its_payment_is_no_failed_payment(payer: Shop) -> None:
    bad_card(payer)
    assert choose("enterprise").status == 402
    payer.deliver()
    assert sent() == {"payment_failed": "untrue: at the form"}


def test_a_renewal_that_fails_is_mailed_and_paid_meanwhile_it_is_not(
    desk: FakeResend, payer: Shop
) -> None:
    bad_card(payer)
    payer.advance(32)
    payer.deliver()
    assert sent() == {"payment_failed": "sent"}
    said = text(desk, "couldn't take")
    assert "99.00 AED" in said
    payer.advance(4)
    payer.deliver()
    good_card(payer)
    payer.pay(live(payer)["id"])
    payer.deliver()
    assert sent() == {"payment_failed": "untrue: settled", "payment_recovered": "sent"}


def test_the_end_is_mailed_only_when_nothing_else_runs(payer: Shop) -> None:
    first = live(payer)["id"]
    payer.save_card(live(payer)["customer"])
    payer.request(
        *("POST", "subscriptions"),
        customer=live(payer)["customer"],
        items=[{"price": price_id("enterprise")}],
        metadata={"workspaceId": "ws_demo"},
    )
    payer.request("DELETE", f"subscriptions/{first}")
    payer.deliver()
    assert sent() == {
        "subscription_confirmed": "sent",
        "subscription_cancelled": "untrue: nothing lost",
    }
    cancel("now")
    assert sent() == {"subscription_cancelled": "sent"}


def test_opening_a_page_is_no_end(payer: Shop) -> None:
    assert choose("starter", when="now").status == 200
    payer.deliver()
    sent()
    assert checkout("professional").status == 200
    payer.deliver()
    assert sent() == {"subscription_cancelled": "untrue: nothing lost"}


@pytest.mark.parametrize("card", [True, False])
def test_a_trials_end_says_whether_the_card_is_charged(
    desk: FakeResend, payer: Shop, *, card: bool
) -> None:
    trial(payer, card=card)
    payer.advance(8)
    payer.deliver()
    assert sent()["trial_ending"] == "sent"
    said = text(desk, "trial ends")
    assert ("your card is charged" in said.replace("\n", " ")) == card
    assert ("Add a payment method" in said or "add a payment method" in said) != card
    assert ("4242" in said) == card
    assert "99.00 AED" in said


def trial(shop: Shop, *, card: bool = True) -> None:
    cancel("now")
    [customer] = shop.all("customer")
    shop.request("POST", f"customers/{customer['id']}", balance=0)
    if not card:
        for method in shop.all("payment_method"):
            if method["customer"]:
                shop.request("POST", f"payment_methods/{method['id']}/detach")
    else:
        shop.save_card(customer["id"])
    shop.request(
        *("POST", "subscriptions"),
        customer=customer["id"],
        items=[{"price": price_id("professional")}],
        trial_period_days=10,
        metadata={"workspaceId": "ws_demo"},
    )
    shop.deliver()
    sent()


@pytest.mark.parametrize("what", ["over", "ending"])
def test_a_trial_that_is_over_or_cancelled_ends_without_a_word(payer: Shop, what: str) -> None:
    trial(payer)
    payer.advance(8)
    payer.deliver()
    assert reported("TrialEnding")
    cancel("now" if what == "over" else "period_end")
    payer.deliver()
    assert sent()["trial_ending"] == "untrue: no trial"


def test_a_pause_and_its_end_are_mailed(desk: FakeResend, payer: Shop) -> None:
    until = datetime.now(UTC) + timedelta(days=40)
    pause(resumeAt=until.isoformat())
    payer.deliver()
    assert sent() == {"subscription_paused": "sent"}
    assert f"{until.day}\u00a0{until:%B}" in text(desk, "is paused")
    assert api.call(f"POST {SUBSCRIPTION}/resume").status == 200
    payer.deliver()
    assert sent() == {"subscription_resumed": "sent"}
    assert sent() == {}


def test_what_was_paused_and_resumed_at_once_is_mailed_as_it_is(payer: Shop) -> None:
    pause()
    assert api.call(f"POST {SUBSCRIPTION}/resume").status == 200
    payer.deliver()
    assert sent() == {
        "subscription_paused": "untrue: not paused",
        "subscription_resumed": "sent",
    }


# ---- ahead of time


def end_period_in(days: float) -> None:
    invariants.run(
        "UPDATE subscription SET period_end = now() + CAST(:days AS float8) * interval '1 day'",
        days=days,
    )


def test_a_years_renewal_is_mailed_once_a_week_ahead(desk: FakeResend, payer: Shop) -> None:
    choose("professional-year")
    payer.deliver()
    sent()
    assert reminders.remind() == 0
    end_period_in(6.5)
    assert reminders.remind() == 1
    assert reminders.remind() == 0
    assert sent() == {"renewal_upcoming": "sent"}
    assert "990.00 AED" in text(desk, "renews soon")


def test_under_a_discount_no_mail_names_an_amount_that_is_not_charged(
    desk: FakeResend, payer: Shop
) -> None:
    choose("professional-year")
    coupon = payer.request("POST", "coupons", percent_off="20", duration="forever")["id"]
    payer.request("POST", f"subscriptions/{live(payer)['id']}", discounts=[{"coupon": coupon}])
    payer.deliver()
    sent()
    end_period_in(6.5)
    assert reminders.remind() == 1
    assert sent() == {"renewal_upcoming": "sent"}
    said = text(desk, "renews soon")
    assert "AED" not in said
    assert "4242" in said


def test_a_months_renewal_and_an_end_are_not_mailed(payer: Shop) -> None:
    end_period_in(6)
    assert reminders.remind() == 0
    choose("professional-year")
    cancel()
    end_period_in(6)
    invariants.run("UPDATE subscription SET cancel_at = period_end")
    assert reminders.remind() == 0


def expire_the_card() -> None:
    invariants.run(
        "UPDATE payment_method SET exp_month = extract(month FROM now() - interval '1 month'),"
        " exp_year = extract(year FROM now() - interval '1 month')"
    )


@pytest.mark.parametrize("then", ["", "another card"])
def test_a_card_that_expires_before_the_charge_is_mailed(
    desk: FakeResend, payer: Shop, then: str
) -> None:
    end_period_in(10)
    assert reminders.remind() == 0
    expire_the_card()
    assert (reminders.remind(), reminders.remind()) == (1, 0)
    if then:
        invariants.run("UPDATE payment_method SET exp_year = exp_year + 5")
        assert sent() == {"payment_method_expiring": "untrue: another card"}
    else:
        assert sent() == {"payment_method_expiring": "sent"}
        assert "4242" in text(desk, "expires before")


def test_a_card_that_expires_is_mailed_without_an_amount_that_is_not_known(
    desk: FakeResend, payer: Shop
) -> None:
    """What is metered or in tiers is charged all the same."""
    end_period_in(10)
    expire_the_card()
    invariants.run("UPDATE subscription_terms SET items = jsonb_set(items, '{0,amount}', 'null')")
    assert reminders.remind() == 1
    assert sent() == {"payment_method_expiring": "sent"}
    assert "AED" not in text(desk, "expires before")


def test_the_last_day_of_grace_is_mailed_with_the_way_to_pay(desk: FakeResend, payer: Shop) -> None:
    bad_card(payer)
    payer.advance(32)
    payer.deliver()
    sent()
    assert read()["access"] == "grace"
    assert reminders.remind() == 0
    invariants.run("UPDATE workspace_billing SET access_until = now() + interval '20 hours'")
    assert (reminders.remind(), reminders.remind()) == (1, 0)
    assert sent() == {"grace_ending": "sent"}
    assert "99.00 AED" in text(desk, "Last day")
