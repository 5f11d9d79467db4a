"""The stand-in's schedules and pauses: what Stripe's documents say of both."""

from collections.abc import Iterator

import pytest

from tests.stripe_account import DAY, HOUR, SCHEDULES, START, Account, Object, downgrade, resume_on
from tests.unit.stripe_shapes import watched

MONTH = 30 * DAY  # November: from 24 November to 24 December


@pytest.fixture(autouse=True)
def answers_are_stripes() -> Iterator[None]:
    with watched():
        yield


def price_of(account: Account, sub: Object) -> str:
    (item,) = account.sub(sub["id"])["items"]["data"]
    return str(item["price"]["id"])


# ---- phases


def test_the_next_phase_begins_with_the_period_and_is_billed_at_its_price() -> None:
    account = Account()
    sub = account.subscribe(account.pro)
    downgrade(account, sub)
    assert price_of(account, sub) == account.pro
    account.engine.advance(MONTH + 2 * HOUR)
    assert price_of(account, sub) == account.basic
    assert [invoice["total"] for invoice in account.invoices(sub["id"])] == [5000, 2000]
    account.engine.advance(MONTH + 2 * DAY)  # the last phase is over: it is released
    assert account.sub(sub["id"])["schedule"] is None
    assert [invoice["total"] for invoice in account.invoices(sub["id"])] == [5000, 2000, 2000]
    assert "subscription_schedule.completed" in account.reported()


def test_the_next_phase_of_another_interval_begins_a_cycle_of_its_own() -> None:
    account = Account()
    sub = account.subscribe(account.pro)
    account.engine.advance(3 * DAY)
    downgrade(account, sub, account.yearly, interval="year", interval_count=1)
    account.engine.advance(MONTH)
    (item,) = account.sub(sub["id"])["items"]["data"]
    assert item["current_period_start"] == START + MONTH
    assert item["current_period_end"] == START + MONTH + 365 * DAY


def test_a_released_subscription_goes_on_as_it_is() -> None:
    account = Account()
    sub = account.subscribe(account.pro)
    made = downgrade(account, sub)
    released = account.post(f"{SCHEDULES}/{made['id']}/release")
    assert (released["status"], released["subscription"]) == ("released", None)
    assert released["released_subscription"] == sub["id"]
    account.engine.advance(MONTH + 2 * HOUR)
    assert price_of(account, sub) == account.pro
    status, error = account.refused("POST", f"{SCHEDULES}/{made['id']}/release")
    assert status == 400
    assert "released" in error["message"]


def test_a_subscription_has_one_schedule() -> None:
    account = Account()
    sub = account.subscribe(account.pro)
    account.post(SCHEDULES, from_subscription=sub["id"])
    status, error = account.refused("POST", SCHEDULES, from_subscription=sub["id"])
    assert status == 400
    assert "already attached" in error["message"]


@pytest.mark.parametrize("change", [{"cancel_at_period_end": True}, {"cancel_at": START + DAY}])
def test_the_end_of_a_scheduled_subscription_is_not_changed_directly(change: Object) -> None:
    account = Account()
    sub = account.subscribe(account.pro)
    downgrade(account, sub)
    _, error = account.refused("POST", f"/v1/subscriptions/{sub['id']}", **change)
    assert "managed by the subscription schedule" in error["message"]


def test_what_is_changed_beside_a_schedule_is_lost_with_the_next_phase() -> None:
    account = Account()
    sub = account.subscribe(account.basic)
    downgrade(account, sub)
    account.switch(sub["id"], account.pro)
    assert price_of(account, sub) == account.pro
    account.engine.advance(MONTH + 2 * HOUR)
    assert price_of(account, sub) == account.basic


def test_a_phase_that_does_not_repeat_the_trial_ends_it() -> None:
    account = Account()
    sub = account.subscribe(account.pro, trial_period_days=7)
    downgrade(account, sub)
    assert account.sub(sub["id"])["status"] == "active"


def test_an_ended_subscription_takes_its_schedule_along() -> None:
    account = Account()
    sub = account.subscribe(account.pro)
    made = downgrade(account, sub)
    account.call("DELETE", f"/v1/subscriptions/{sub['id']}")
    assert account.call("GET", f"{SCHEDULES}/{made['id']}")["status"] == "canceled"


@pytest.mark.parametrize(
    ("phase", "param"),
    [
        ({"iterations": 1}, "iterations"),
        ({"end_date": START + 90 * DAY, "duration": {"interval": "month"}}, "duration"),
        ({"items": []}, "items"),
        ({"start_date": START + 5 * DAY}, "start_date"),
    ],
)
def test_a_phase_is_refused_for_what_is_wrong_with_it(phase: Object, param: str) -> None:
    account = Account()
    sub = account.subscribe(account.pro)
    made = account.post(SCHEDULES, from_subscription=sub["id"])
    now = {"items": [{"price": account.pro}], "start_date": START, "end_date": START + MONTH}
    following = {"items": [{"price": account.basic}], **phase}
    status, error = account.refused("POST", f"{SCHEDULES}/{made['id']}", phases=[now, following])
    assert status == 400
    assert param in error["message"] + str(error.get("param"))


def test_phases_and_a_subscription_are_not_given_together() -> None:
    account = Account()
    sub = account.subscribe(account.pro)
    phases = [{"items": [{"price": account.basic}]}]
    _, error = account.refused("POST", SCHEDULES, from_subscription=sub["id"], phases=phases)
    assert error["param"] == "phases"


# ---- pauses


def test_a_paused_subscription_makes_no_invoice_and_its_rest_is_credited_when_it_resumes() -> None:
    account = Account()
    sub = account.subscribe(account.pro)
    account.engine.advance(MONTH // 2)
    paused = account.post(f"/v1/subscriptions/{sub['id']}/pause")
    assert paused["status"] == "paused"
    assert paused["status_details"]["paused"]["subscription"]["type"] == "pause_requested"
    account.engine.advance(100 * DAY)
    assert len(account.invoices(sub["id"])) == 1
    resumed = account.post(
        f"/v1/subscriptions/{sub['id']}/resume", payment_behavior="resume_on_payment_success"
    )
    assert resumed["status"] == "active"
    assert resumed["status_details"] is None
    assert account.invoices(sub["id"])[-1]["amount_paid"] == 5000 - 2500
    (item,) = resumed["items"]["data"]
    assert item["current_period_start"] == account.engine.now
    assert account.reported().count("customer.subscription.resumed") == 1


@pytest.mark.parametrize("card", ["", "pm_card_chargeCustomerFail"])
def test_a_resumption_that_is_not_paid_leaves_it_paused_and_its_invoice_open(card: str) -> None:
    account = Account()
    sub = account.subscribe(account.pro)
    account.engine.advance(MONTH // 2)
    account.post(f"/v1/subscriptions/{sub['id']}/pause")
    old = (
        account.sub(sub["id"])["default_payment_method"]
        or account.call("GET", f"/v1/customers/{account.customer}")["invoice_settings"][
            "default_payment_method"
        ]
    )
    account.post(f"/v1/payment_methods/{old}/detach")
    if card:
        account.use(card)
    account.engine.advance(50 * DAY)
    path = f"/v1/subscriptions/{sub['id']}/resume"
    found = account.post(path, payment_behavior="resume_on_payment_success")
    assert found["status"] == "paused"
    invoice = account.invoices(sub["id"])[-1]
    assert (invoice["status"], invoice["id"]) == ("open", found["latest_invoice"])
    account.refused("POST", path)
    account.use("pm_card_visa")
    account.post(f"/v1/invoices/{invoice['id']}/pay")
    assert account.sub(sub["id"])["status"] == "active"


def test_an_unpaid_resumption_is_voided_after_a_day_and_its_credit_kept() -> None:
    account = Account()
    sub = account.subscribe(account.pro)
    account.engine.advance(MONTH // 2)
    account.post(f"/v1/subscriptions/{sub['id']}/pause")
    account.use("pm_card_chargeCustomerFail")
    path = f"/v1/subscriptions/{sub['id']}/resume"
    account.post(path, payment_behavior="resume_on_payment_success")
    account.engine.advance(DAY)
    assert account.invoices(sub["id"])[-1]["status"] == "void"
    account.use("pm_card_visa")
    account.post(path, payment_behavior="resume_on_payment_success")
    assert account.invoices(sub["id"])[-1]["amount_paid"] == 2500


def test_a_schedule_pauses_now_and_resumes_on_its_day() -> None:
    account = Account()
    sub = account.subscribe(account.pro)
    until = START + 100 * DAY
    made = account.post(SCHEDULES, from_subscription=sub["id"], pause_schedules=resume_on(until))
    assert account.sub(sub["id"])["status"] == "paused"
    (plan,) = made["pause_schedules"]
    assert plan["resume"]["resume_at"] == until
    account.engine.advance(99 * DAY)
    assert account.sub(sub["id"])["status"] == "paused"
    account.engine.advance(2 * DAY)
    assert account.sub(sub["id"])["status"] == "active"
    assert [invoice["amount_paid"] for invoice in account.invoices(sub["id"])] == [5000, 0]


def test_a_pause_that_is_on_gets_a_day_of_return() -> None:
    account = Account()
    sub = account.subscribe(account.pro)
    account.post(f"/v1/subscriptions/{sub['id']}/pause")
    (plan,) = resume_on(START + 40 * DAY)
    del plan["pause"]
    account.post(SCHEDULES, from_subscription=sub["id"], pause_schedules=[plan])
    account.engine.advance(41 * DAY)
    assert account.sub(sub["id"])["status"] == "active"


@pytest.mark.parametrize("state", ["trialing", "past_due", "scheduled", "classic", "paused"])
def test_what_cannot_be_paused_is_refused(state: str) -> None:
    account = Account("pm_card_visa")
    given: Object = {}
    if state == "trialing":
        given["trial_period_days"] = 7
    if state == "classic":
        given["billing_mode"] = {"type": "classic"}
    sub = account.subscribe(account.pro, **given)
    path = f"/v1/subscriptions/{sub['id']}"
    if state == "past_due":
        account.use("pm_card_chargeCustomerFail")
        account.engine.advance(MONTH + 2 * HOUR)
    if state == "scheduled":
        account.post(SCHEDULES, from_subscription=sub["id"])
    if state == "paused":
        account.post(f"{path}/pause")
    status, _ = account.refused("POST", f"{path}/pause")
    assert status == 400


def test_voiding_the_invoice_of_a_pending_update_takes_it_back() -> None:
    account = Account()
    sub = account.subscribe(account.basic)
    account.use("pm_card_chargeCustomerFail")
    waits = account.switch(
        sub["id"],
        account.pro,
        proration_behavior="always_invoice",
        payment_behavior="pending_if_incomplete",
    )
    assert waits["pending_update"]
    account.post(f"/v1/invoices/{waits['latest_invoice']}/void")
    assert account.sub(sub["id"])["pending_update"] is None
    assert price_of(account, sub) == account.basic


def test_voiding_an_invoice_gives_back_what_it_used_of_the_balance() -> None:
    account = Account("pm_card_chargeCustomerFail")
    account.post(f"/v1/customers/{account.customer}", balance=-1500)
    sub = account.subscribe(account.basic, payment_behavior="allow_incomplete")
    balance = account.call("GET", f"/v1/customers/{account.customer}")["balance"]
    assert balance == 0
    account.post(f"/v1/invoices/{sub['latest_invoice']}/void")
    assert account.call("GET", f"/v1/customers/{account.customer}")["balance"] == -1500
