"""What a plan allows: the limits, their values without a plan, and where one is exceeded."""

import pytest

from kyora import limits
from kyora.errors import Forbidden

FREE = {
    "maxBusinesses": 1,
    "maxTeamMembers": 1,
    "maxOrdersPerMonth": 25,
    "maxStorageBytes": 1_073_741_824,
}


def test_without_a_plan_the_built_in_free_plans_limits_hold() -> None:
    found = limits.whole(None)
    assert found == limits.whole({}) == {name: row.free for name, row in limits.LIMITS.items()}
    assert found | FREE == found


def test_a_limit_that_a_plan_does_not_say_is_the_free_plans() -> None:
    said = {"maxBusinesses": 0, "maxStorageBytes": "-1", "another": 9}
    assert limits.whole(said) == limits.whole(None) | {"maxBusinesses": 0, "maxStorageBytes": -1}


@pytest.mark.parametrize(
    ("allowed", "wanted", "exceeds"),
    [(1, 0, False), (1, 1, False), (1, 2, True), (0, 0, False), (0, 1, True), (-1, 10**9, False)],
)
def test_a_limit_is_exceeded_by_more_than_it_allows(
    allowed: int, wanted: int, exceeds: bool
) -> None:
    assert limits.exceeds(allowed, wanted) is exceeds


def test_a_refusal_names_the_limit_and_the_numbers() -> None:
    refused = limits.refusal("maxBusinesses", 3, 2)
    assert isinstance(refused, Forbidden)
    assert refused.code == "billing.limit_reached"
    assert refused.detail == "The workspace's plan does not allow more."
    assert refused.members == {"limit": "maxBusinesses", "allowed": 3, "used": 2}


def test_one_statement_counts_all_that_is_counted_here() -> None:
    for name, table in {
        "maxBusinesses": "business",
        "maxTeamMembers": "app_user",
        "maxStorageBytes": "storage_usage",
    }.items():
        counted = f"FROM {table} WHERE workspace_id = :workspace_id"
        assert counted in str(limits.LIMITS[name].used)
        assert f'coalesce(({limits.LIMITS[name].used}), 0) AS "{name}"' in limits.USED
    assert limits.LIMITS["maxOrdersPerMonth"].used is None
    assert limits.USED.count("coalesce") == sum(bool(row.used) for row in limits.LIMITS.values())
