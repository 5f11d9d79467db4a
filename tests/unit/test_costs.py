"""The cost tables of docs/deploy.md: worked out from data, and current."""

import json
import re

import pytest

from bench import costs
from local import template


def test_the_document_has_the_tables_of_now() -> None:
    """After a change of alarms, schedules or prices: python -m bench.costs --write."""
    text = costs.DOCUMENT.read_text()
    assert costs.written(text) == text


def test_every_price_has_a_date_and_a_source_and_every_time_is_measured() -> None:
    found = json.loads(costs.DATA.read_text())
    for price in found["prices"].values():
        assert price["usd"] > 0
        assert re.fullmatch(r"20\d\d-\d\d-\d\d", price["asOf"])
        assert price["source"].startswith("https://")
        # A price list is of one region, and names the kind of usage in it.
        listed = f"/{found['region']}/" in price["source"]
        assert price["usage"].startswith("EU-") == listed
        assert listed or price["region"] != found["region"]
    needed = {name for operation in costs.OPERATIONS.values() for name in operation.functions}
    assert {costs._LIKE.get(name, name) for name in needed} <= set(found["measured"])
    assert all(0 < time < 10_000 for time in found["measured"].values())


def test_every_consumer_and_every_route_is_part_of_an_operation() -> None:
    priced = {name for operation in costs.OPERATIONS.values() for name in operation.functions}
    asked = {
        template.folder(name)
        for name, resource in template.read()["Resources"].items()
        if resource["Type"] == "AWS::Serverless::Function"
        and any(e["Type"] == "HttpApi" for e in resource["Properties"].get("Events", {}).values())
    }
    assert asked - priced <= {"check_health", "reject_unrouted"}


@pytest.mark.parametrize("name", costs.OPERATIONS)
def test_an_operation_costs_more_than_its_parts_alone(name: str) -> None:
    found, operation = costs.data(), costs.OPERATIONS[name]
    whole = costs.million(operation, found)
    assert whole > sum(costs.invocation(f, found) for f in operation.functions) * 1e6
    dearer = {**found, "measured": {k: v + 100 for k, v in found["measured"].items()}}
    gigabytes = sum(costs.memory(function) for function in operation.functions)
    assert costs.million(operation, dearer) - whole == pytest.approx(
        0.1 * gigabytes * found["prices"]["lambda_gb_second"] * 1e6, rel=0.05
    )


def test_an_idle_stage_pays_for_its_alarms_and_schedules() -> None:
    found, stack = costs.data(), template.translated({"Stage": "dev"})
    often, seldom = (costs.idle(found, stack, minutes) for minutes in ("1", "60"))
    assert any("alarms" in name for name in often)
    # Three functions run each minute, and the request alone costs 0.2 USD a million.
    assert often["scheduled runs"] > 3 * 43_800 * 0.2e-6
    assert 0 < seldom["scheduled runs"] < often["scheduled runs"] / 10
