"""POST /v1/businesses: as many as the plan allows, however many ask at once."""

import json
from typing import Any

import pytest

from kyora import postgres
from kyora.limits import LIMITS
from tests.integration.support import api
from tests.integration.support.workers import Crew

ROUTE = "POST /v1/businesses"
SHOP = {"name": "Corner shop", "currency": "AED"}


def create(key: str = "", body: object = SHOP, who: Any = api.ADMIN) -> api.Answer:
    return api.call(ROUTE, body=body, who=who, headers={"idempotency-key": key} if key else {})


def allow(**limits: int) -> None:
    """Put the workspace on a plan with these limits."""
    with postgres.transaction() as tx:
        tx.run(
            "INSERT INTO workspace_billing (workspace_id, plan_id, access, limits, status)"
            " VALUES ('ws_demo', 'test', 'full', CAST(:limits AS jsonb), 'active')"
            " ON CONFLICT (workspace_id) DO UPDATE SET limits = excluded.limits",
            limits=json.dumps(limits),
        )


def names(workspace: str = "ws_demo") -> list[str]:
    with postgres.transaction() as tx:
        rows = tx.rows(
            "SELECT name FROM business WHERE workspace_id = :workspace ORDER BY id",
            workspace=workspace,
        )
    return [str(row["name"]) for row in rows]


def test_a_business_is_made_and_its_address_is_answered(database: str) -> None:
    found = create()
    assert (found.status, found.body["name"], found.body["currency"]) == (201, "Corner shop", "AED")
    assert found.headers["Location"] == f"/v1/businesses/{found.body['businessId']}"
    assert names() == ["Corner shop"]


def test_a_workspace_that_pays_nothing_has_the_free_plans_limit(database: str) -> None:
    assert create().status == 201
    refused = create()
    assert (refused.status, refused.code) == (403, "billing.limit_reached")
    reported = {key: refused.body[key] for key in ("limit", "allowed", "used")}
    assert reported == {"limit": "maxBusinesses", "allowed": 1, "used": 1}
    assert len(names()) == 1


def test_minus_one_is_unlimited(database: str) -> None:
    allow(maxBusinesses=-1)
    assert [create().status for _ in range(12)] == [201] * 12


def test_a_limit_that_the_plan_does_not_say_is_the_free_plans_and_not_0(database: str) -> None:
    allow(maxTeamMembers=9)
    assert create().status == 201
    refused = create()
    assert (refused.code, refused.body["allowed"]) == ("billing.limit_reached", 1)
    shown = api.call("GET /v1/billing/subscription").body
    free = {name: limit.free for name, limit in LIMITS.items()}
    assert shown["limits"] == free | {"maxTeamMembers": 9}
    assert shown["usage"]["maxBusinesses"] == 1
    assert shown["overLimit"] == []


def test_the_built_in_free_plan_has_the_values_of_the_table_of_limits(database: str) -> None:
    with postgres.transaction() as tx:
        [row] = tx.rows("SELECT limits FROM free_plan WHERE id = 'free'")
    assert row["limits"] == {name: LIMITS[name].free for name in row["limits"]}


def test_only_an_admin_opens_a_business(database: str) -> None:
    assert (create(who=api.MEMBER).status, create(who=api.MEMBER).code) == (403, "auth.forbidden")
    assert names() == []


def test_one_workspaces_businesses_do_not_count_for_another(database: str) -> None:
    assert create().status == 201
    assert create(who=api.STRANGER).status == 201
    assert (len(names()), len(names("ws_other"))) == (1, 1)


def test_a_repeated_key_gets_the_first_answer_also_at_the_limit(database: str) -> None:
    first = create("shop-1")
    assert first.status == 201
    assert create("shop-2").code == "billing.limit_reached"
    assert create("shop-1").same_as(first)
    assert create("shop-1", SHOP | {"name": "Other"}).code == "idempotency.key_reused"
    assert len(names()) == 1


def test_a_refused_key_may_succeed_once_there_is_room(database: str) -> None:
    allow(maxBusinesses=0)
    assert create("shop-1").status == 403
    allow(maxBusinesses=1)
    assert create("shop-1").status == 201


def test_over_the_limit_after_a_downgrade_nothing_new_is_made_and_nothing_is_lost(
    database: str,
) -> None:
    allow(maxBusinesses=3)
    assert [create().status for _ in range(3)] == [201] * 3
    allow(maxBusinesses=1)
    refused = create()
    assert (refused.code, refused.body["used"]) == ("billing.limit_reached", 3)
    assert len(names()) == 3


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (SHOP | {"name": ""}, "name"),
        (SHOP | {"name": "  "}, "name"),
        (SHOP | {"name": "a\0b"}, "name"),
        (SHOP | {"name": "x" * 201}, "name"),
        (SHOP | {"name": 7}, "name"),
        (SHOP | {"currency": "aed"}, "currency"),
        (SHOP | {"currency": "AED\n"}, "currency"),
        (SHOP | {"currency": "DIRHAM"}, "currency"),
        (SHOP | {"currency": "ABC"}, "currency"),
        ({"name": "Shop"}, "currency"),
        (SHOP | {"workspaceId": "ws_other"}, "workspaceId"),
    ],
)
def test_a_wrong_field_is_named(body: dict[str, Any], field: str, database: str) -> None:
    refused = create(body=body)
    assert (refused.status, refused.code) == (422, "request.validation_failed")
    assert [error["field"] for error in refused.body["errors"]] == [field]


def test_a_name_keeps_its_letters_and_loses_stray_blanks(database: str) -> None:
    assert create(body=SHOP | {"name": "  متجر   الزاوية "}).body["name"] == "متجر الزاوية"


@pytest.mark.parametrize(("limit", "there"), [(1, 0), (5, 0), (7, 3), (3, 3), (20, 0)])
def test_sixteen_at_once_cannot_pass_the_limit(
    limit: int, there: int, database: str, crew: Crew
) -> None:
    allow(maxBusinesses=-1)
    for _ in range(there):
        create()
    allow(maxBusinesses=limit)
    answers = crew.together([(ROUTE, {"body": SHOP})] * 16)
    room = min(16, limit - there)
    assert sorted(a.status for a in answers) == [201] * room + [403] * (16 - room)
    assert {a.code for a in answers if a.status == 403} <= {"billing.limit_reached"}
    assert len(names()) == there + room


def test_sixteen_at_once_on_a_workspace_that_never_had_a_plan(database: str, crew: Crew) -> None:
    answers = crew.together([(ROUTE, {"body": SHOP})] * 16)
    assert sorted(a.status for a in answers) == [201] + [403] * 15
    assert len(names()) == 1


def test_sixteen_at_once_with_one_key_make_one_business(database: str, crew: Crew) -> None:
    allow(maxBusinesses=-1)
    call = (ROUTE, {"body": SHOP, "headers": {"idempotency-key": "shop-1"}})
    answers = crew.together([call] * 16)
    assert {a.code for a in answers if a.status != 201} <= {"idempotency.in_progress"}
    assert len({a.text for a in answers if a.status == 201}) == 1
    assert len(names()) == 1
