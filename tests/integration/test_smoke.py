"""The workspace of `make smoke`: what the migrations' function creates, reports and removes."""

import json
from typing import Any

import pytest

from kyora import auth, config, postgres, smoke, tokens
from kyora.errors import Unauthenticated
from tests.unit.functions import CONTEXT, function

SECRET = "whsec_" + "a" * 32
TABLES = ("business", "payment_method_fee", "order_payment", "transaction_fee")
TABLES += ("analytics_event", "analytics_count")


def ask(**step: object) -> Any:
    return function("migrate_database").handler({"smoke": step}, CONTEXT)


def rows(table: str) -> int:
    with postgres.transaction() as tx:
        found = tx.row(f"SELECT count(*) AS n FROM {table} WHERE workspace_id = 'ws_smoke'")
    return int(str(found["n"])) if found else 0


def test_the_token_is_an_admins_of_that_workspace_alone(database: str) -> None:
    begun = ask(step="begin")
    claims = tokens.authorize(begun["token"])
    assert claims["workspaceId"] == begun["workspaceId"] == "ws_smoke"
    assert claims["role"] == "admin"


def test_at_the_end_the_token_is_refused_and_no_row_is_left(database: str) -> None:
    begun = ask(step="begin")
    with postgres.transaction(owner=True) as tx:
        for table, columns, values in (
            ("order_payment", "order_id, event_id, occurred_at", "'o', 'e', now()"),
            (
                "transaction_fee",
                "order_id, method, amount, currency, paid_at, event_id",
                "'o', 'credit_card', 1, 'USD', now(), 'e'",
            ),
        ):
            tx.run(
                f"INSERT INTO {table} (workspace_id, business_id, {columns})"
                f" VALUES ('ws_smoke', :business, {values})",
                business=begun["businessId"],
            )
    assert {table: rows(table) for table in TABLES[:4]} == dict.fromkeys(TABLES[:4], 1)
    ask(step="end")
    assert {table: rows(table) for table in TABLES} == dict.fromkeys(TABLES, 0)
    with pytest.raises(Unauthenticated):
        auth.load(auth.Claims("usr_smoke", "ws_smoke", 1))


def test_a_run_that_was_cut_off_is_cleaned_by_the_next(database: str) -> None:
    first = ask(step="begin")
    second = ask(step="begin")
    assert first["businessId"] != second["businessId"]
    assert rows("business") == 1


def test_nothing_but_an_event_of_a_run_is_signed(
    database: str, environment: pytest.MonkeyPatch
) -> None:
    environment.setenv("BILLING_STRIPE_WEBHOOK_SECRET", SECRET)
    config.forget()
    good = {"id": "evt_smoke_1", "type": "smoke.test"}
    assert smoke.sign(json.dumps(good)).startswith("t=")
    for bad in (
        good | {"id": "evt_1"},
        good | {"type": "customer.subscription.deleted"},
        {"id": "evt_1", "type": "smoke.test", "data": '"id": "evt_smoke_1"'},
    ):
        with pytest.raises(ValueError, match="only an event of a smoke run"):
            smoke.sign(json.dumps(bad))


def test_without_a_signing_secret_there_is_no_signature(database: str) -> None:
    assert smoke.sign(json.dumps({"id": "evt_smoke_1", "type": "smoke.test"})) == ""


def test_what_became_of_a_run_is_reported(database: str) -> None:
    begun = ask(step="begin")
    found = ask(step="look", business=begun["businessId"], mail="evt_1", stripe="evt_smoke_1")
    assert found == {"fees": 0, "mail": None, "stripe": None, "fromStripe": {"count": 0}}


def test_an_unknown_step_is_refused(database: str) -> None:
    with pytest.raises(ValueError, match="begin, sign, look or end"):
        ask(step="drop")
