"""Test clocks of the stand-in: a customer's own time, beside the account's."""

from collections.abc import Iterator

import pytest

from local.stripe.engine import Engine
from tests.stripe_account import DAY, START, Account, Object, mark
from tests.unit.stripe_shapes import watched

THEN = START + 400 * DAY


@pytest.fixture(autouse=True)
def answers_are_stripes() -> Iterator[None]:
    with watched():
        yield


@pytest.fixture
def account() -> Account:
    """An account whose customer lives in a clock."""
    found = Account(card="")
    clock = found.post("/v1/test_helpers/test_clocks", frozen_time=THEN, name="a year on")
    made = found.post("/v1/customers", test_clock=clock["id"], email="clock@example.com")
    found.customer = made["id"]
    found.use("pm_card_visa")
    return found


def clock_of(account: Account) -> str:
    return str(account.call("GET", f"/v1/customers/{account.customer}")["test_clock"])


def advance(account: Account, days: int) -> Object:
    clock = account.call("GET", f"/v1/test_helpers/test_clocks/{clock_of(account)}")
    until = clock["frozen_time"] + days * DAY
    return account.post(f"/v1/test_helpers/test_clocks/{clock['id']}/advance", frozen_time=until)


def test_what_is_asked_of_its_customers_happens_at_its_time(account: Account) -> None:
    before = mark(account)
    sub = account.subscribe()
    assert (sub["created"], sub["test_clock"]) == (THEN, clock_of(account))
    assert {event["created"] for event in account.engine.events[before:]} == {THEN}
    assert account.engine.now == START
    assert account.post("/v1/customers", email="other@example.com")["created"] == START


def test_only_its_own_advance_moves_its_customers(account: Account) -> None:
    sub = account.subscribe()
    account.engine.advance(400 * DAY)
    assert len(account.invoices(sub["id"])) == 1
    now = account.engine.now
    assert advance(account, 63)["status"] == "ready"
    found = account.invoices(sub["id"])
    assert [invoice["status"] for invoice in found] == ["paid"] * 3
    assert found[-1]["created"] > THEN + 59 * DAY
    assert account.engine.now == now


def test_it_does_not_move_the_account_s_other_customers(account: Account) -> None:
    account.subscribe()
    other = account.post(
        "/v1/customers",
        payment_method="pm_card_visa",
        invoice_settings={"default_payment_method": "pm_card_visa"},
    )
    items = [{"price": account.basic}]
    sub = account.post("/v1/subscriptions", customer=other["id"], items=items)
    advance(account, 63)
    assert len(account.invoices(sub["id"])) == 1
    account.engine.advance(63 * DAY)
    assert len(account.invoices(sub["id"])) == 3


def test_time_does_not_go_back(account: Account) -> None:
    path = f"/v1/test_helpers/test_clocks/{clock_of(account)}"
    assert account.refused("POST", f"{path}/advance", frozen_time=THEN)[0] == 400


def test_its_customers_go_with_it(account: Account) -> None:
    sub = account.subscribe()
    path = f"/v1/test_helpers/test_clocks/{clock_of(account)}"
    assert account.call("DELETE", path)["deleted"] is True
    assert account.call("GET", f"/v1/customers/{account.customer}")["deleted"] is True
    assert account.refused("GET", f"/v1/subscriptions/{sub['id']}")[0] == 404
    assert account.refused("GET", path)[0] == 404


def test_it_goes_on_after_a_dump(account: Account) -> None:
    sub = account.subscribe()
    account.engine = Engine.load(account.engine.dump())
    advance(account, 33)
    assert len(account.invoices(sub["id"])) == 2
