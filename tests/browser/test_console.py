"""The console's billing, days and fees: what is in the database, as a person sees it."""

import json
import urllib.request
from typing import Any

import pytest

from kyora import postgres
from tests.browser import chromium
from tests.browser.conftest import Served

HOSTILE = "<img src=x onerror=document.title='owned'>"


@pytest.fixture
def shop(served: Served) -> Served:
    """A workspace in its grace, events of Stripe's of every status, two days and two fees."""
    with postgres.transaction() as tx:
        tx.run(
            "INSERT INTO plan (id, product_id, price_id, name, amount, currency, interval, limits,"
            " active) VALUES ('pro', 'prod_1', 'price_1', :name, 5499, 'aed', 'month', '{}', true)",
            name=f"Pro {HOSTILE}",
        )
        tx.run(
            "INSERT INTO workspace_billing (workspace_id, plan_id, access, access_until, limits,"
            " subscription_id, status) VALUES ('ws_demo', 'pro', 'grace', '2026-12-02', '{}',"
            " 'sub_1', 'past_due'), ('ws_other', 'gone', 'free', NULL, '{}', NULL, 'free')"
        )
        tx.run(
            "INSERT INTO stripe_event (id, type, created, object_id, source, body, status,"
            " attempts, last_error) VALUES"
            " ('evt_1', 'invoice.payment_failed', 1, 'in', 'webhook', '{}', 'processed', 1, NULL),"
            " ('evt_2', 'customer.updated', 2, 'cus_1', 'reconcile', '{}', 'failed', 5, 'KeyError')"
        )
        tx.run(
            "INSERT INTO business (id, workspace_id, name, currency)"
            " VALUES ('biz_1', 'ws_demo', 'Shop', 'KWD')"
        )
        tx.run(
            "INSERT INTO analytics_count (workspace_id, business_id, day, kind, label, shard,"
            " count, amount) VALUES"
            " ('ws_demo', 'biz_1', '2026-11-24', 'order', 'KWD', 0, 2, 12345),"
            " ('ws_demo', 'biz_1', '2026-11-24', 'order', 'KWD', 1, 1, 5),"
            " ('ws_demo', 'biz_1', '2026-11-24', 'order', 'JPY', 0, 1, 700),"
            " ('ws_demo', 'biz_1', '2026-11-25', 'customer', 'instagram', 0, 4, 0)"
        )
        tx.run(
            "INSERT INTO order_payment (workspace_id, business_id, order_id, event_id, occurred_at)"
            " VALUES ('ws_demo', 'biz_1', 'ord_1', 'evt_1', now())"
        )
        tx.run(
            "INSERT INTO transaction_fee (workspace_id, business_id, order_id, method, amount,"
            " currency, paid_at, event_id) VALUES ('ws_demo', 'biz_1', 'ord_1', 'credit_card',"
            " 1895, 'KWD', now(), 'evt_1')"
        )
    return served


def state(shop: Served) -> dict[str, Any]:
    with urllib.request.urlopen(f"{shop.url}/_local/state", timeout=30) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


def test_a_workspace_is_shown_with_its_plan_access_and_when_that_ends(shop: Served) -> None:
    found = {row.pop("workspace"): row for row in state(shop)["billing"]}
    assert found["ws_demo"] == {
        "plan": f"Pro {HOSTILE}",
        "access": "grace",
        "status": "past_due",
        "subscription": "sub_1",
        "until": "2026-12-02T00:00:00Z",
    }
    assert (found["ws_other"]["plan"], found["ws_other"]["until"]) == ("gone", None)


def test_an_event_of_stripe_s_is_shown_with_its_fate_and_without_its_body(shop: Served) -> None:
    found = {row["id"]: row for row in state(shop)["stripeEvents"]}
    parked = found["evt_2"]
    assert (parked["status"], parked["attempts"], parked["error"]) == ("failed", 5, "KeyError")
    assert (parked["type"], parked["object"]) == ("customer.updated", "cus_1")
    assert "body" not in parked


def test_a_day_s_shards_are_one_line_with_decimals_as_the_currency_has_them(shop: Served) -> None:
    newest, older = state(shop)["days"]
    assert (newest["date"], newest["orders"], newest["revenue"]) == ("2026-11-25", 0, {})
    assert newest["customers"] == {"instagram": 4}
    assert (older["orders"], older["revenue"]) == (4, {"JPY": "700", "KWD": "12.350"})


def test_a_fee_is_shown_in_its_currency_s_decimals(shop: Served) -> None:
    [fee] = state(shop)["fees"]
    assert (fee["order"], fee["method"], fee["amount"]) == ("ord_1", "credit_card", "1.895")


def test_what_cannot_be_read_is_empty_and_the_database_is_said_to_be_down(served: Served) -> None:
    with postgres.transaction(owner=True) as tx:
        tx.run("DROP TABLE transaction_fee")
    found = state(served)
    assert (found["database"], found["fees"], found["uploads"]) == ("down", [], [])


@chromium.needed
def test_the_page_shows_all_of_it_as_text(shop: Served) -> None:
    said = chromium.dom(f"{shop.url}/")
    for part in (
        *("past_due", "invoice.payment_failed", "failed: KeyError", "2026-11-24", "4 instagram"),
        *("12.350 KWD", "1.895 KWD", "credit card", "&lt;img src=x"),
    ):
        assert part in said, part
    assert "<title>Kyora" in said


@chromium.needed
def test_a_subscription_leads_to_the_stand_in_s_dashboard(shop: Served) -> None:
    said = chromium.dom(f"{shop.url}/")
    assert '<a href="http://127.0.0.1:0/">sub_1</a>' in said


@chromium.needed
@pytest.mark.parametrize("dark", [False, True])
def test_pictures_of_the_console_are_kept(shop: Served, dark: bool) -> None:
    file = chromium.picture(
        f"{shop.url}/", f"console{'-dark' if dark else ''}-1280", 1280, 1200, dark=dark
    )
    assert chromium.is_picture(file, 1280)
