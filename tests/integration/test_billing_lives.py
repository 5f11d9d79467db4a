"""Scripted lives: what a workspace is shown is what Stripe's objects say, step by step.

Each life is a few lines of what people do, through us, on Stripe's pages and in its dashboard. At
its end, and wherever it looks, every field of GET /v1/billing/subscription is compared with Stripe.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from kyora import postgres
from local.stripe.core.state import Rules
from local.stripe.objects import collection, portal
from tests.integration.support import api, shown
from tests.integration.support.billing import reconciled
from tests.integration.support.shops import Shop
from tests.integration.support.workspaces import CARD, HOME, SUBSCRIPTION, Workspace

WRITES_ACCOUNTS = True

BAD = "pm_card_chargeCustomerFail"
DAY = 86_400

type Json = dict[str, Any]
type Life = Callable[["Person"], None]

LIVES: list[Life] = []


class Person(Workspace):
    """A workspace's people, at our API, at Stripe's pages and in Stripe's dashboard."""

    def __init__(self, shop: Shop) -> None:
        super().__init__(shop)
        self.looks = 0

    # ---- asked of us

    def want(self, plan: str, *, when: str | None = None, status: int = 200) -> api.Answer:
        body = {"planId": plan} | ({"when": when} if when else {})
        found = self.call(f"POST {SUBSCRIPTION}", body=body)
        assert found.status == status, found
        return found

    def buy(self, plan: str = "professional", card: str = "pm_card_visa") -> None:
        """Choose a plan and pay at the form."""
        self.want(plan, status=402)
        self.shop.pay(self.sub["id"], card)
        self.shop.deliver()

    def drop(self, when: str = "period_end") -> None:
        found = self.call(f"DELETE {SUBSCRIPTION}", query={"when": when})
        assert found.status == 200, found

    def keep(self, status: int = 200) -> None:
        assert self.call(f"POST {SUBSCRIPTION}/resume").status == status

    def rest(self, days: float | None = None) -> None:
        """Pause, for so many days or until it is resumed."""
        body = {}
        if days:
            now = self.shop.calls(lambda: self.shop.on.engine.now)
            back = datetime.fromtimestamp(now, UTC) + timedelta(days=days)
            body = {"resumeAt": back.isoformat()}
        found = self.call(f"POST {SUBSCRIPTION}/pause", body=body)
        assert found.status == 200, found

    # ---- done at Stripe

    @property
    def sub(self) -> Json:
        """The newest subscription, as Stripe has it."""
        names = {one["id"] for one in self.customers()}
        found = [one for one in self.shop.all("subscription") if one["customer"] in names]
        return dict(found[0])

    @property
    def customer(self) -> str:
        """The customer, made as ours are when there is none."""
        if not self.customers():
            page = {"planId": "professional", "successUrl": HOME, "cancelUrl": HOME}
            assert self.call("POST /v1/billing/checkout-session", body=page).status == 200
            self.shop.deliver()
        return str(self.customers()[0]["id"])

    def ask(self, method: str, path: str, **params: Any) -> Json:
        found: Json = self.shop.request(method, path, **params)
        self.shop.deliver()
        return found

    def set(self, **params: Any) -> None:
        """Change the subscription in the dashboard."""
        self.ask("POST", f"subscriptions/{self.sub['id']}", **params)

    def start(self, plan: str = "professional", **params: Any) -> Json:
        """Begin a subscription in the dashboard."""
        return self.ask(
            *("POST", "subscriptions"),
            customer=self.customer,
            items=[{"price": self.price(plan)}],
            metadata={"workspaceId": self.id},
            **params,
        )

    def price(self, plan: str) -> str:
        with postgres.transaction() as tx:
            return str(
                (tx.row("SELECT price_id FROM plan WHERE id = :id", id=plan) or {})["price_id"]
            )

    def product(self, plan: str) -> str:
        return str(self.shop.request("GET", f"prices/{self.price(plan)}")["product"])

    def made_price(self, product: str, amount: int, **params: Any) -> str:
        every = {"recurring": {"interval": "month"}} | params
        made = self.ask(
            *("POST", "prices"), product=product, unit_amount=amount, currency="aed", **every
        )
        return str(made["id"])

    def item(self) -> str:
        return str(self.sub["items"]["data"][0]["id"])

    def use(self, card: str) -> str:
        """Put a card in place of the one that is charged."""
        name = self.shop.save_card(self.customer, card)
        if self.live():
            self.set(default_payment_method=name)
        return name

    def bill(self) -> Json:
        return self.ask("GET", f"invoices/{self.sub['latest_invoice']}")

    def wait(self, days: float) -> None:
        self.shop.advance(days)
        self.shop.deliver()

    def rules(self, **chosen: Any) -> None:
        """Say what the account does about payments that fail."""
        self.shop.calls(lambda: setattr(self.shop.on.engine, "rules", Rules(**chosen)))

    # ---- the comparison

    def look(self) -> Json:
        """Compare what we show with what Stripe has; return what we show."""
        self.shop.deliver()
        self.looks += 1
        answer = self.call(f"GET {SUBSCRIPTION}")
        assert answer.status == 200, answer
        found = shown.ours(answer.body)
        assert found == shown.of_stripe(self)
        return found


def life(script: Life) -> Life:
    LIVES.append(script)
    return script


# ---- the first payment


@life
def nothing_bought(p: Person) -> None:
    p.look()


@life
def paid_at_the_form(p: Person) -> None:
    p.want("professional", status=402)
    p.look()
    p.buy()


@life
def the_form_is_left_and_the_offer_expires(p: Person) -> None:
    p.want("enterprise", status=402)
    p.wait(1.1)
    assert p.look()["status"] == "free"


@life
def declined_then_paid_by_another_card(p: Person) -> None:
    p.want("professional", status=402)
    with pytest.raises(AssertionError):
        p.shop.pay(p.sub["id"], BAD)
    p.look()
    p.shop.pay(p.sub["id"])


@life
def another_plan_before_the_first_payment(p: Person) -> None:
    p.want("professional", status=402)
    p.want("enterprise", status=402)
    p.look()
    p.shop.pay(p.sub["id"])
    assert p.look()["plan"] == "enterprise"


@life
def a_saved_card_pays_at_once(p: Person) -> None:
    p.shop.save_card(p.customer)
    p.want("enterprise")


@life
def the_bank_asks_the_cardholder(p: Person) -> None:
    p.shop.save_card(p.customer, "pm_card_authenticationRequired")
    p.want("professional", status=402)
    intent = p.shop.all("payment_intent")[0]["id"]
    engine = p.shop.on.engine
    p.ask("POST", f"payment_intents/{intent}/confirm", return_url=HOME)
    p.look()
    p.shop.calls(lambda: collection.authenticate(engine, engine.get(intent), passed=True))
    assert p.look()["status"] == "active"


@life
def a_page_is_paid(p: Person) -> None:
    p.page("professional")
    p.look()
    p.pay_page("")


@life
def a_page_is_left_for_a_day(p: Person) -> None:
    p.page("professional")
    p.wait(1.1)


@life
def two_pages_are_opened_and_one_is_paid(p: Person) -> None:
    p.page("professional")
    p.page("enterprise")
    p.pay_page("")
    assert p.look()["plan"] == "enterprise"


# ---- trials


@life
def a_trial_with_a_card_is_charged_at_its_end(p: Person) -> None:
    p.shop.save_card(p.customer)
    p.start(trial_period_days=14)
    assert p.look()["status"] == "trialing"
    p.wait(12)
    p.look()
    p.wait(3)
    assert p.look()["status"] == "active"


@life
def a_trial_whose_card_declines(p: Person) -> None:
    p.shop.save_card(p.customer, BAD)
    p.start(trial_period_days=7)
    p.wait(7.2)
    assert p.look()["status"] == "past_due"


@life
def a_trial_without_a_card_is_billed(p: Person) -> None:
    p.start(trial_period_days=7)
    p.look()
    p.wait(7.2)
    assert p.look()["status"] == "past_due"


def _trial_without_a_card(p: Person, then: str) -> None:
    end = {"end_behavior": {"missing_payment_method": then}}
    p.start(trial_period_days=7, trial_settings=end)
    p.look()
    p.wait(7.2)


@life
def a_trial_without_a_card_is_over(p: Person) -> None:
    _trial_without_a_card(p, "cancel")
    assert p.look()["status"] == "free"


@life
def a_trial_without_a_card_is_paused(p: Person) -> None:
    _trial_without_a_card(p, "pause")
    assert p.look()["status"] == "paused"
    p.keep(status=402)


@life
def a_trial_that_was_paused_goes_on_with_a_card(p: Person) -> None:
    _trial_without_a_card(p, "pause")
    p.shop.save_card(p.customer)
    p.keep()
    assert p.look()["status"] == "active"


@life
def a_trial_is_ended_early(p: Person) -> None:
    p.shop.save_card(p.customer)
    p.start(trial_period_days=30)
    p.wait(2)
    p.set(trial_end="now")
    p.look()
    p.wait(0.1)


@life
def a_trial_is_made_longer(p: Person) -> None:
    p.shop.save_card(p.customer)
    p.start(trial_period_days=5)
    p.set(trial_end=p.sub["trial_end"] + 10 * DAY)
    p.wait(6)
    assert p.look()["status"] == "trialing"


@life
def a_better_plan_during_the_trial(p: Person) -> None:
    p.shop.save_card(p.customer)
    p.start(trial_period_days=14)
    p.want("enterprise")
    p.look()
    p.wait(14.2)


@life
def a_trial_that_ends_with_its_last_day(p: Person) -> None:
    p.shop.save_card(p.customer)
    p.start(trial_period_days=14)
    p.drop()
    p.look()
    p.wait(14.2)
    assert p.look()["status"] == "free"


# ---- other plans


@life
def a_better_plan_at_once(p: Person) -> None:
    p.buy()
    p.wait(10)
    p.want("enterprise")
    p.look()
    p.wait(32)


@life
def two_better_plans_in_a_day(p: Person) -> None:
    p.buy()
    p.wait(0.2)
    p.want("professional-year", when="now")
    p.look()
    p.wait(0.2)
    p.want("enterprise", when="now")


@life
def a_better_plan_that_is_declined_and_then_paid(p: Person) -> None:
    p.buy()
    p.use(BAD)
    p.wait(3)
    p.want("enterprise", status=402)
    assert p.look()["plan"] == "professional"
    p.shop.pay(p.sub["id"])
    assert p.look()["plan"] == "enterprise"


@life
def a_better_plan_that_nobody_pays(p: Person) -> None:
    p.buy()
    p.use(BAD)
    p.want("enterprise", status=402)
    p.wait(1.1)
    assert p.look()["payUrl"] is None


@life
def a_better_plan_that_is_declined_and_taken_back(p: Person) -> None:
    p.buy()
    p.use(BAD)
    p.want("enterprise", status=402)
    p.take_back("")


@life
def a_smaller_plan_at_renewal(p: Person) -> None:
    p.buy("enterprise")
    p.want("professional")
    assert p.look()["pendingChange"]["plan"] == "professional"
    p.wait(32)
    assert p.look()["plan"] == "professional"


@life
def a_smaller_plan_taken_back(p: Person) -> None:
    p.buy("enterprise")
    p.want("professional")
    p.take_back("")
    assert p.look()["pendingChange"] is None
    p.wait(32)


@life
def a_smaller_plan_taken_back_by_choosing_the_present_one(p: Person) -> None:
    p.buy("enterprise")
    p.want("professional")
    p.want("enterprise")


@life
def a_smaller_plan_replaced_by_a_better_one(p: Person) -> None:
    p.buy("professional")
    p.want("starter")
    p.look()
    p.want("enterprise")
    assert p.look()["pendingChange"] is None


@life
def a_smaller_plan_released_in_the_dashboard(p: Person) -> None:
    p.buy("enterprise")
    p.want("professional")
    p.ask("POST", f"subscription_schedules/{p.sub['schedule']}/release")


@life
def a_smaller_plan_now_leaves_a_credit(p: Person) -> None:
    p.buy("enterprise")
    p.wait(5)
    p.want("professional", when="now")
    assert p.look()["nextCharge"]["amount"] < 9900
    p.wait(32)


@life
def down_to_the_free_plan_at_renewal(p: Person) -> None:
    p.buy()
    p.want("starter")
    p.look()
    p.wait(32)
    assert p.look()["plan"] == "starter"


@life
def down_to_the_free_plan_now(p: Person) -> None:
    p.buy()
    p.wait(5)
    p.want("starter", when="now")


@life
def from_months_to_years(p: Person) -> None:
    p.buy()
    p.wait(9)
    p.want("professional-year", when="now")
    p.look()
    p.wait(300)


@life
def from_years_to_months_at_renewal(p: Person) -> None:
    p.buy("professional-year")
    p.want("professional")
    p.look()
    p.wait(367)


@life
def a_smaller_plan_keeps_quantity_and_add_on(p: Person) -> None:
    p.buy("enterprise")
    price = p.made_price(p.ask("POST", "products", name="Add-on")["id"], 1000)
    many = {"id": p.item(), "quantity": 2}
    p.set(items=[many, {"price": price}], proration_behavior="always_invoice")
    p.want("professional")
    found = p.look()
    assert found["nextCharge"]["amount"] == 2 * 9900 + 1000
    p.wait(32)
    assert p.look()["price"]["quantity"] == 2


@life
def a_smaller_plan_whose_first_payment_fails(p: Person) -> None:
    p.buy("enterprise")
    p.want("professional")
    p.use(BAD)
    p.wait(31.2)
    found = p.look()
    assert (found["status"], found["plan"]) == ("past_due", "professional")


@life
def a_smaller_plan_and_then_an_end(p: Person) -> None:
    p.buy("enterprise")
    p.want("professional")
    p.drop()
    found = p.look()
    assert found["pendingChange"]["plan"] == "starter"
    p.keep()
    assert p.look()["pendingChange"] is None


@life
def a_smaller_plan_and_then_a_pause(p: Person) -> None:
    p.buy("enterprise")
    p.wait(2)
    p.want("professional")
    p.rest(20)
    assert p.look()["pendingChange"] is None
    p.wait(21)


@life
def a_better_plan_takes_an_end_back(p: Person) -> None:
    p.buy()
    p.drop()
    p.want("enterprise")
    assert p.look()["cancelAt"] is None


@life
def a_smaller_plan_after_the_trial(p: Person) -> None:
    p.shop.save_card(p.customer)
    p.start("enterprise", trial_period_days=10)
    p.want("professional")
    p.look()
    p.wait(10.2)
    assert p.look()["plan"] == "professional"


@life
def another_smaller_plan_instead(p: Person) -> None:
    p.buy("enterprise")
    p.want("professional")
    p.want("starter")
    assert p.look()["pendingChange"]["plan"] == "starter"
    p.want("professional", when="renewal")
    p.wait(32)
    assert p.look()["plan"] == "professional"


@life
def a_smaller_plan_with_a_coupon(p: Person) -> None:
    p.buy("enterprise")
    _coupon(p, percent_off=20, duration="forever")
    p.want("professional")
    p.look()
    p.wait(32)
    p.look()
    assert p.bill()["amount_paid"] == 7920


@life
def a_price_for_three_months(p: Person) -> None:
    p.shop.save_card(p.customer)
    product = p.product("professional")
    every = {"interval": "month", "interval_count": 3}
    price = p.made_price(product, 27000, recurring=every)
    items = [{"price": price}]
    p.ask("POST", "subscriptions", customer=p.customer, items=items)
    assert p.look()["price"]["intervalCount"] == 3
    p.wait(93)


@life
def a_price_in_tiers(p: Person) -> None:
    p.shop.save_card(p.customer)
    tiers = [{"up_to": 5, "unit_amount": 3000}, {"up_to": "inf", "unit_amount": 2000}]
    price = p.ask(
        *("POST", "prices"),
        product=p.product("professional"),
        currency="aed",
        recurring={"interval": "month"},
        billing_scheme="tiered",
        tiers_mode="graduated",
        tiers=tiers,
    )["id"]
    items = [{"price": price, "quantity": 7}]
    p.ask("POST", "subscriptions", customer=p.customer, items=items)
    assert p.look()["access"] == "full"


# ---- ends and pauses


@life
def an_end_with_the_period(p: Person) -> None:
    p.buy()
    p.drop()
    p.look()
    p.wait(32)
    assert p.look()["status"] == "free"


@life
def an_end_that_is_taken_back(p: Person) -> None:
    p.buy()
    p.drop()
    p.keep()
    p.look()
    p.wait(32)


@life
def an_end_now_and_a_new_beginning(p: Person) -> None:
    p.buy("enterprise")
    p.wait(4)
    p.drop("now")
    p.look()
    p.shop.save_card(p.customer)
    p.want("professional")


@life
def an_end_in_half_a_year_and_then_with_the_period(p: Person) -> None:
    p.buy()
    p.set(cancel_at=p.sub["created"] + 180 * DAY)
    p.look()
    p.drop()
    p.look()
    p.wait(32)
    assert p.look()["status"] == "free"


@life
def an_end_set_in_the_portal_and_kept(p: Person) -> None:
    p.buy()
    p.portal_end("")
    p.look()
    p.portal_keep("")


@life
def a_pause_without_a_date(p: Person) -> None:
    p.buy()
    p.wait(3)
    p.rest()
    p.look()
    p.wait(40)
    p.look()
    p.keep()


@life
def a_pause_with_a_date_of_return(p: Person) -> None:
    p.buy()
    p.wait(3)
    p.rest(60)
    assert p.look()["pausedUntil"]
    p.wait(61)
    assert p.look()["status"] == "active"


@life
def a_return_that_the_card_declines(p: Person) -> None:
    p.buy()
    p.use(BAD)
    p.wait(20)
    p.rest(60)
    p.wait(60.1)
    assert p.look()["status"] == "paused"
    p.shop.pay(p.sub["id"])
    assert p.look()["status"] == "active"


@life
def another_date_of_return(p: Person) -> None:
    p.buy()
    p.rest(30)
    p.rest(90)
    p.look()
    p.wait(31)
    assert p.look()["status"] == "paused"


@life
def a_pause_that_ends_for_good(p: Person) -> None:
    p.buy()
    p.wait(3)
    p.rest()
    p.drop("now")


@life
def another_plan_instead_of_a_return(p: Person) -> None:
    p.buy()
    p.shop.save_card(p.customer)
    p.wait(3)
    p.rest()
    p.want("enterprise")
    p.look()
    p.wait(32)


@life
def an_old_subscription_is_paused(p: Person) -> None:
    p.shop.save_card(p.customer)
    p.start(billing_mode={"type": "classic"})
    p.rest(20)


# ---- renewals, and payments that fail


@life
def a_year_of_months(p: Person) -> None:
    p.buy()
    for _ in range(12):
        p.wait(31)
        p.look()


@life
def a_year_and_its_renewal(p: Person) -> None:
    p.buy("professional-year")
    p.wait(367)


@life
def a_jump_of_a_year(p: Person) -> None:
    p.buy()
    p.shop.calls(lambda: p.shop.on.engine.skip(365 * DAY))
    p.shop.calls(lambda: setattr(p.shop.on, "offset", p.shop.on.offset + 365 * DAY))


@life
def a_renewal_that_fails(p: Person) -> None:
    p.buy()
    p.use(BAD)
    p.wait(31.2)
    found = p.look()
    assert (found["status"], found["access"]) == ("past_due", "grace")
    assert found["payUrl"]
    p.want("enterprise", status=402)


@life
def a_renewal_that_another_card_pays(p: Person) -> None:
    p.buy()
    p.use(BAD)
    p.wait(31.2)
    p.shop.pay(p.sub["id"])
    assert p.look()["status"] == "active"


@life
def a_renewal_that_nobody_ever_pays(p: Person) -> None:
    p.buy()
    p.use(BAD)
    p.wait(31.2)
    p.wait(3.1)
    p.look()
    p.wait(13)
    assert p.look()["status"] == "free"


@life
def a_renewal_given_up_as_unpaid_and_then_paid(p: Person) -> None:
    p.rules(final="unpaid")
    p.buy()
    p.use(BAD)
    p.wait(50)
    assert p.look()["status"] == "unpaid"
    p.shop.pay(p.sub["id"])


@life
def a_renewal_given_up_and_left_past_due(p: Person) -> None:
    p.rules(final="past_due")
    p.buy()
    p.use(BAD)
    p.wait(50)


@life
def a_renewal_that_pauses_at_its_first_failure(p: Person) -> None:
    p.rules(pause_first=True)
    p.buy()
    p.use(BAD)
    p.wait(31.2)
    found = p.look()
    assert (found["status"], found["access"]) == ("paused", "grace")
    assert found["payUrl"]
    p.keep(status=402)
    p.shop.pay(p.sub["id"])
    assert p.look()["status"] == "active"


@life
def a_renewal_that_pauses_at_its_last_failure(p: Person) -> None:
    p.rules(final="pause")
    p.buy()
    p.use(BAD)
    p.wait(50)
    p.look()
    p.wait(40)
    p.shop.pay(p.sub["id"])


@life
def an_unpaid_invoice_is_voided(p: Person) -> None:
    p.buy()
    p.use(BAD)
    p.wait(31.2)
    p.ask("POST", f"invoices/{p.bill()['id']}/void")
    p.look()


@life
def an_unpaid_invoice_is_written_off(p: Person) -> None:
    p.buy()
    p.use(BAD)
    p.wait(31.2)
    p.ask("POST", f"invoices/{p.bill()['id']}/mark_uncollectible")
    p.look()
    p.wait(20)


@life
def an_invoice_paid_outside_of_stripe(p: Person) -> None:
    p.buy()
    p.use(BAD)
    p.wait(31.2)
    p.ask("POST", f"invoices/{p.bill()['id']}/pay", paid_out_of_band=True)


@life
def an_invoice_that_is_sent_and_late(p: Person) -> None:
    p.start(collection_method="send_invoice", days_until_due=10)
    p.look()
    p.wait(10.1)
    assert p.look()["status"] == "past_due"
    p.ask("POST", f"invoices/{p.bill()['id']}/pay", paid_out_of_band=True)


@life
def payments_are_waived(p: Person) -> None:
    p.buy()
    p.set(pause_collection={"behavior": "void"})
    p.look()
    p.wait(32)
    p.look()
    p.set(pause_collection="")


# ---- money beside the plan


@life
def the_last_charge_is_refunded(p: Person) -> None:
    p.buy()
    p.ask("POST", "refunds", charge=p.shop.all("charge")[0]["id"])


@life
def a_credit_note_of_what_is_owed(p: Person) -> None:
    p.buy()
    p.use(BAD)
    p.wait(31.2)
    p.ask("POST", "credit_notes", invoice=p.bill()["id"], amount=5000)
    reconciled()  # Stripe says so with `invoice.updated` only, which we do not ask for


@life
def a_credit_note_that_credits_the_next_invoice(p: Person) -> None:
    p.buy()
    p.ask("POST", "credit_notes", invoice=p.bill()["id"], amount=2000, credit_amount=2000)
    assert p.look()["nextCharge"]["amount"] == 7900
    p.wait(32)


def _coupon(p: Person, **params: Any) -> None:
    name = p.ask("POST", "coupons", **params)["id"]
    p.set(discounts=[{"coupon": name}])


@life
def a_coupon_for_ever(p: Person) -> None:
    p.buy()
    _coupon(p, percent_off=25, duration="forever")
    assert p.look()["nextCharge"] is None
    p.wait(32)


@life
def a_coupon_for_once(p: Person) -> None:
    p.buy()
    _coupon(p, amount_off=3000, currency="aed", duration="once")
    p.look()
    p.wait(32)
    assert p.look()["nextCharge"]["amount"] == 9900


@life
def a_coupon_that_is_taken_off(p: Person) -> None:
    p.buy()
    _coupon(p, percent_off=50, duration="repeating", duration_in_months=3)
    p.set(discounts="")


@life
def a_coupon_of_the_customer_s_first_payment(p: Person) -> None:
    name = p.ask("POST", "coupons", percent_off=10, duration="forever")["id"]
    p.shop.save_card(p.customer)
    p.start(discounts=[{"coupon": name}])


@life
def an_amount_that_waits_for_the_next_invoice(p: Person) -> None:
    p.buy()
    p.ask(
        *("POST", "invoiceitems"),
        customer=p.customer,
        amount=1500,
        currency="aed",
        description="Set-up",
    )
    p.look()
    p.wait(32)


@life
def a_credit_in_the_dashboard(p: Person) -> None:
    p.buy()
    p.wait(40)
    p.ask("POST", f"customers/{p.customer}", balance=-4000)


# ---- items, prices and products


@life
def three_of_a_plan(p: Person) -> None:
    p.buy()
    p.set(items=[{"id": p.item(), "quantity": 3}], proration_behavior="always_invoice")
    assert p.look()["price"]["quantity"] == 3
    p.wait(32)


@life
def three_of_a_plan_billed_with_the_next_invoice(p: Person) -> None:
    p.buy()
    p.wait(5)
    p.set(items=[{"id": p.item(), "quantity": 3}])
    p.look()
    p.wait(32)


@life
def none_of_a_plan(p: Person) -> None:
    p.buy()
    p.set(items=[{"id": p.item(), "quantity": 0}], proration_behavior="none")
    assert p.look()["access"] == "free"


@life
def an_add_on_beside_the_plan(p: Person) -> None:
    p.buy()
    product = p.ask("POST", "products", name="Add-on")["id"]
    price = p.made_price(product, 1000)
    p.set(items=[{"price": price}], proration_behavior="always_invoice")
    p.look()
    p.want("enterprise")
    p.look()
    p.want("professional")


@life
def a_subscription_of_a_second_product(p: Person) -> None:
    p.buy()
    p.shop.save_card(p.customer)
    p.start("enterprise")
    assert p.look()["plan"] == "enterprise"


@life
def the_better_of_two_subscriptions_ends(p: Person) -> None:
    p.buy()
    p.shop.save_card(p.customer)
    better = p.start("enterprise")["id"]
    p.look()
    p.ask("DELETE", f"subscriptions/{better}")
    assert p.look()["plan"] == "professional"


@life
def a_negotiated_price_of_our_product(p: Person) -> None:
    p.buy()
    price = p.made_price(p.product("enterprise"), 21000)
    p.set(items=[{"id": p.item(), "price": price}], proration_behavior="always_invoice")
    assert p.look()["plan"] == "enterprise"
    p.wait(32)


@life
def a_plan_is_archived_under_its_subscriber(p: Person) -> None:
    p.buy()
    p.ask("POST", f"prices/{p.price('professional')}", active=False)
    with postgres.transaction(owner=True) as tx:
        tx.run("UPDATE plan SET active = false WHERE id = 'professional'")
    p.look()
    p.wait(32)


@life
def a_price_is_replaced_and_the_subscriber_keeps_the_old_one(p: Person) -> None:
    p.buy()
    new = p.made_price(p.product("professional"), 12900)
    with postgres.transaction(owner=True) as tx:
        tx.run("UPDATE plan SET price_id = :id, amount = 12900 WHERE id = 'professional'", id=new)
        tx.run("INSERT INTO plan_price VALUES (:id, 'professional', true)", id=new)
    assert p.look()["price"]["amount"] == 9900
    p.wait(32)


# ---- cards and customers


@life
def a_card_is_replaced(p: Person) -> None:
    p.buy()
    p.use("pm_card_amex")
    assert p.look()["paymentMethod"]["last4"] == "0005"


@life
def a_card_expires(p: Person) -> None:
    p.buy()
    card = p.sub["default_payment_method"]
    p.ask("POST", f"payment_methods/{card}", card={"exp_month": 12, "exp_year": 2026})
    p.look()


@life
def the_only_card_is_taken_away(p: Person) -> None:
    p.buy()
    p.ask("POST", f"payment_methods/{p.sub['default_payment_method']}/detach")
    assert p.look()["paymentMethod"] is None
    p.wait(32)


@life
def a_card_is_given_in_the_portal(p: Person) -> None:
    p.buy()
    back = {"returnUrl": HOME}
    assert p.call("POST /v1/billing/portal-session", body=back).status == 200
    session = p.shop.all("billing_portal.session")[0]
    engine = p.shop.on.engine
    p.shop.calls(lambda: portal.use_card(engine, engine.get(session["id"]), CARD))


@life
def the_customer_is_deleted(p: Person) -> None:
    p.buy()
    p.ask("DELETE", f"customers/{p.customer}")
    assert p.look()["status"] == "free"


@life
def a_customer_of_a_test_clock_over_a_year(p: Person) -> None:
    now = p.shop.calls(lambda: p.shop.on.engine.now)
    clock = p.ask("POST", "test_helpers/test_clocks", frozen_time=now)["id"]
    p.ask("POST", "customers", metadata={"workspaceId": p.id}, test_clock=clock)
    p.shop.save_card(p.customer)
    p.start()
    for months in (1, 6, 12):
        moment = now + int(months * 30.5 * DAY)
        p.ask("POST", f"test_helpers/test_clocks/{clock}/advance", frozen_time=moment)
        p.look()


# ---- the comparison


@pytest.mark.parametrize("script", LIVES, ids=lambda script: script.__name__)
def test_what_is_shown_is_what_stripe_has(script: Life, shop: Shop) -> None:
    person = Person(shop)
    script(person)
    person.look()


def test_a_difference_is_seen(shop: Shop) -> None:
    person = Person(shop)
    person.buy()
    with postgres.transaction(owner=True) as tx:
        tx.run("UPDATE subscription_terms SET items = jsonb_set(items, '{0,quantity}', '2')")
    with pytest.raises(AssertionError, match="price"):
        person.look()
