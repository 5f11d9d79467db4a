"""Money is conserved: whatever a workspace does, it has paid for the time it used, and no more.

The ledger here knows prices and periods only. It adds up what each second on a plan is worth and
compares that with what the stand-in has charged, less the credit that is left.
"""

import os
from functools import cached_property
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.integration.support.shops import CATALOGUE, Shop
from tests.integration.support.workspaces import Workspace

HOUR = 3600
PLANS = st.sampled_from(["starter", "professional", "professional-year", "enterprise"])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("choose"), PLANS),
        st.tuples(st.just("choose_now"), PLANS),
        st.tuples(st.just("cancel"), st.sampled_from(["period_end", "now"])),
        st.tuples(st.sampled_from(["resume", "pause", "take_back"]), st.just("")),
        st.tuples(st.just("pass_days"), st.sampled_from(["1.3", "9.7", "22.1", "33.4", "70.2"])),
        st.tuples(st.just("pass_days"), st.sampled_from(["4.2", "15.6", "28.9"])),
    ),
    min_size=2,
    max_size=9,
)
type Steps = list[tuple[str, str]]


class Account(Workspace):
    """A workspace whose card always pays, and the ledger of what its time was worth."""

    def __init__(self, shop: Shop, *counted: str) -> None:
        super().__init__(shop)
        self.worth, self.counted = 0.0, counted or ("active", "past_due")
        self.choose("professional")
        self.pay("")
        [customer] = self.customers()
        shop.save_card(customer["id"])
        self.seen = self.look()

    def look(self) -> tuple[int, int, int, int]:
        """Return now, what a period costs, and when it began and ends; nothing for no time."""
        now = int(self.shop.calls(lambda: self.shop.on.engine.now))
        for sub in self.live():
            items = sub["items"]["data"]
            used = sub["status"] in self.counted
            amount = sum(one["price"]["unit_amount"] * one["quantity"] for one in items)
            period = (items[0]["current_period_start"], items[0]["current_period_end"])
            return now, amount if used else 0, *period
        return now, 0, now, now + 1

    def book(self) -> None:
        """Add what the time since the last look was worth, on what the workspace was on then."""
        before, amount, began, ends = self.seen
        self.seen = self.look()
        now, _, began_now, _ = self.seen
        if now > ends and began_now >= ends:  # a period began meanwhile
            self.worth += amount * (ends - before) / (ends - began)
            _, amount, began, ends = self.seen
            before = began
        self.worth += amount * (now - before) / (ends - began)

    def pass_days(self, days: str) -> None:
        """Let time pass, stopping after each renewal, when its draft of an hour is charged."""
        left = int(float(days) * 24 * HOUR)
        while left > 0:
            self.book()
            now, _, _, ends = self.seen
            to_end = ends - now + 2 * HOUR
            stride = min(left, to_end) if to_end > 0 else left
            if ends - HOUR < now + stride < ends + 2 * HOUR:
                stride = to_end
            self.shop.advance(stride / (24 * HOUR))
            left -= stride
            self.shop.deliver()
        self.book()

    # Done in the dashboard: what the plan is not, is paid for all the same.

    def add_on(self, _: str) -> None:
        """Put an add-on beside the plan, or take it away."""
        for sub in self.live():
            items = sub["items"]["data"]
            [had] = [one["id"] for one in items if one["price"]["id"] == self.addon] or [""]
            item = {"id": had, "deleted": True} if had else {"price": self.addon}
            self.bill(sub, item)

    def more(self, quantity: str) -> None:
        """Have so many of the plan."""
        for sub in self.live():
            items = sub["items"]["data"]
            plan = next((one for one in items if one["price"]["id"] != self.addon), None)
            if plan:
                self.bill(sub, {"id": plan["id"], "quantity": int(quantity)})

    def bill(self, sub: dict[str, Any], item: dict[str, Any]) -> None:
        if sub["status"] == "active":
            how = {"proration_behavior": "always_invoice"}
            self.shop.request("POST", f"subscriptions/{sub['id']}", items=[item], **how)

    @cached_property
    def addon(self) -> str:
        price = self.shop.request(
            *("POST", "prices"),
            product_data={"name": "Add-on"},
            currency="aed",
            unit_amount=1700,
            recurring={"interval": "month"},
        )
        return str(price["id"])

    def take(self, steps: Steps) -> None:
        for name, what in steps:
            self.book()
            getattr(self, name)(what)
            # What an action changed counts from the action on.
            self.seen = self.look()
            self.shop.deliver()
            assert len(self.live()) <= 1
        self.book()
        self.cancel("now")
        self.shop.deliver()

    def step(self, name: str, what: str) -> None:
        """Do something; a `bad` card, and any other, pays for the subscription at once."""
        getattr(self, name)("pm_card_chargeCustomerFail" if what == "bad" else what)
        for sub in self.live():
            method = self.customers()[0]["invoice_settings"]["default_payment_method"]
            path = f"subscriptions/{sub['id']}"
            self.shop.request("POST", path, default_payment_method=method)
        self.shop.deliver()

    def paid(self) -> int:
        """Return what was charged, less the credit that is left."""
        [customer] = self.customers()
        charges = [
            c["amount"]
            for c in self.shop.all("charge")
            if c["customer"] == customer["id"] and c["status"] == "succeeded"
        ]
        assert customer["balance"] <= 0
        return sum(charges) + int(customer["balance"])

    def lines(self) -> int:
        names = {customer["id"] for customer in self.customers()}
        return sum(
            len(i["lines"]["data"]) for i in self.shop.all("invoice") if i["customer"] in names
        )


_CONFIGURED = settings(
    max_examples=1 + int(os.environ.get("KYORA_SEEDS", "4")),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@_CONFIGURED
@given(steps=STEPS)
# A month of the dearest plan for the price of a smaller one, again and again.
@example(
    steps=[
        *(("choose", "enterprise"), ("pass_days", "28.9"), ("cancel", "now")),
        *(("choose", "professional"), ("choose", "enterprise"), ("pass_days", "28.9")),
    ]
)
@example(steps=[("choose_now", "starter"), ("choose", "enterprise"), ("pass_days", "9.7")])
@example(steps=[("choose", "professional-year"), ("pass_days", "70.2"), ("choose_now", "starter")])
@example(steps=[("pass_days", "9.7"), ("pause", ""), ("pass_days", "70.2"), ("resume", "")])
@example(steps=[("pass_days", "9.7"), ("pause", ""), ("choose", "enterprise"), ("pause", "")])
@example(steps=[("choose", "enterprise"), ("choose", "professional"), ("pass_days", "70.2")])
def test_what_was_charged_is_what_the_time_was_worth(steps: Steps, shop: Shop) -> None:
    account = Account(shop)
    account.take(steps)
    # A line is rounded to a minor unit, and an action takes its second.
    tolerance = 2 * account.lines() + 5
    assert abs(account.paid() - account.worth) <= tolerance, (account.paid(), account.worth)


MONTHLY = st.sampled_from(["starter", "professional", "enterprise"])


@_CONFIGURED
@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.sampled_from(["choose", "choose_now"]), MONTHLY),
            st.tuples(st.just("add_on"), st.just("")),
            st.tuples(st.just("more"), st.sampled_from("123")),
            st.tuples(st.sampled_from(["pause", "resume", "take_back"]), st.just("")),
            st.tuples(st.just("cancel"), st.sampled_from(["period_end", "now"])),
            st.tuples(st.just("pass_days"), st.sampled_from(["1.3", "9.7", "22.1", "33.4"])),
        ),
        min_size=2,
        max_size=9,
    )
)
@example(steps=[("add_on", ""), ("pass_days", "9.7"), ("choose", "enterprise"), ("add_on", "")])
@example(steps=[("more", "3"), ("pass_days", "33.4"), ("choose", "starter"), ("more", "1")])
@example(steps=[("add_on", ""), ("choose", "starter"), ("pass_days", "33.4"), ("pause", "")])
def test_add_ons_and_quantities_are_paid_for_as_well(steps: Steps, shop: Shop) -> None:
    account = Account(shop)
    account.take(steps)
    tolerance = 2 * account.lines() + 5
    assert abs(account.paid() - account.worth) <= tolerance, (account.paid(), account.worth)


@_CONFIGURED
@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("choose"), PLANS),
            st.tuples(st.just("choose_now"), PLANS),
            st.tuples(st.just("cancel"), st.just("now")),
            st.tuples(st.just("card"), st.sampled_from(["pm_card_visa", "bad"])),
            st.tuples(st.just("next_period"), st.just("")),
        ),
        max_size=8,
    )
)
@example(steps=[("card", "bad"), ("next_period", ""), ("choose_now", "starter"), ("cancel", "now")])
@example(steps=[("card", "bad"), ("choose", "enterprise"), ("cancel", "now")])
def test_no_one_gets_a_credit_for_what_was_not_paid(steps: Steps, shop: Shop) -> None:
    """What is left of the charges covers at least the time that was paid for."""
    account = Account(shop, "active")
    for name, what in steps:
        account.book()
        account.step(name, what)
        if name == "next_period":
            account.book()
        else:
            account.seen = account.look()
        assert account.paid() >= account.worth - 2 * account.lines() - 5


@_CONFIGURED
@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.sampled_from(["choose", "choose_now"]), PLANS),
            st.tuples(st.just("cancel"), st.sampled_from(["period_end", "now"])),
            st.tuples(st.just("card"), st.sampled_from(["pm_card_visa", "bad"])),
            st.tuples(st.sampled_from(["pause", "resume", "take_back"]), st.just("")),
            st.tuples(st.just("pass_days"), st.sampled_from(["0.4", "1.3", "4.2"])),
        ),
        max_size=6,  # 25 days: within the first month nothing is left unpaid
    )
)
@example(steps=[("card", "bad"), ("choose", "enterprise"), ("cancel", "now")])
@example(steps=[("card", "bad"), ("choose", "enterprise"), ("choose_now", "starter")])
@example(steps=[("card", "bad"), ("choose_now", "professional-year"), ("pass_days", "1.3")])
# The invoice of a return that is not paid for holds the credit of the pause.
@example(steps=[("pass_days", "4.2"), ("pause", ""), ("card", "bad"), ("resume", "")])
@example(
    steps=[
        *(("pass_days", "4.2"), ("pause", ""), ("card", "bad"), ("resume", "")),
        *(("card", "pm_card_visa"), ("choose", "enterprise")),
    ]
)
def test_a_card_that_fails_takes_nothing_away_from_what_was_paid(steps: Steps, shop: Shop) -> None:
    account = Account(shop)
    for name, what in [*steps, ("cancel", "now")]:
        account.book()
        account.step(name, what)
        account.seen = account.look()
    tolerance = 2 * account.lines() + 5
    assert abs(account.paid() - account.worth) <= tolerance, (account.paid(), account.worth)


def test_a_ledger_that_books_another_plan_is_found_out(shop: Shop) -> None:
    """The comparison is no tautology: a month of Enterprise is not worth one of Professional."""
    account = Account(shop)
    account.choose("enterprise")
    account.seen = (account.seen[0], CATALOGUE["professional"][0], *account.seen[2:])
    shop.advance(25)
    account.book()
    account.cancel("now")
    shop.deliver()
    assert account.paid() - account.worth > CATALOGUE["enterprise"][0] / 3
