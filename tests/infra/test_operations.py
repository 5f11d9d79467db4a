"""What alarms and the dashboard look at is what the code says, and all of it."""

import json
import re
from collections.abc import Iterator
from itertools import combinations
from typing import Any

import pytest

from local import template
from local.stack import gaps
from tests.infra.rules import function_of, functions, mentions, named, of

OURS = "Kyora/"
_COUNTED = re.compile(r"\b(?:gauge|count)\(\s*\"(\w+)\"")


@pytest.fixture
def widgets(stack: dict[str, Any]) -> list[dict[str, Any]]:
    """The dashboard's widgets, with every reference replaced by the name of what it refers to."""
    [dashboard] = of(stack, "AWS::CloudWatch::Dashboard").values()
    text, optional = dashboard["DashboardBody"]["Fn::Sub"]
    for name, choice in optional.items():
        condition, there, absent = choice["Fn::If"]
        assert (condition in stack["Conditions"], absent) == (True, "")
        text = text.replace(f"${{{name}}}", there["Fn::Sub"])
    known = {*stack["Resources"], *stack["Parameters"], "AWS::Region"}
    for name in re.findall(r"\$\{([^!}]+)\}", text):
        assert name.removesuffix(".Arn").removesuffix(".QueueName") in known
    filled = re.sub(r"\$\{([^!}]+)\}", lambda found: found[1], text).replace("${!", "${")
    found: list[dict[str, Any]] = json.loads(filled)["widgets"]
    return found


@pytest.fixture
def emitted(stack: dict[str, Any]) -> set[str]:
    """The names of the figures that we make."""
    root = template.ROOT
    files = [*root.glob("layers/kyora/kyora/**/*.py"), *root.glob("functions/*/app.py")]
    code = {name for file in files for name in _COUNTED.findall(file.read_text())}
    filters = of(stack, "AWS::Logs::MetricFilter").values()
    return code | {t["MetricName"] for f in filters for t in f["MetricTransformations"]}


def alarmed(stack: dict[str, Any]) -> set[str]:
    found = of(stack, "AWS::CloudWatch::Alarm").values()
    return {alarm["MetricName"] for alarm in found if OURS in str(alarm.get("Namespace"))}


def shown(widgets: list[dict[str, Any]]) -> set[str]:
    text = json.dumps([w["properties"].get("metrics") for w in widgets])
    searched = re.findall(r"\{Kyora/Stage,\w+\} MetricName=\\*\"(\w+)", text)
    return {*searched, *re.findall(r"\[\"Kyora/Stage\", \"(\w+)\"", text)}


def test_an_alarm_watches_what_the_code_counts(stack: dict[str, Any], emitted: set[str]) -> None:
    assert alarmed(stack) - emitted == set()


def test_every_consumer_that_ends_without_an_answer_has_an_alarm(stack: dict[str, Any]) -> None:
    mappings = of(stack, "AWS::Lambda::EventSourceMapping").values()
    watched = {
        named(dimension["Value"])
        for alarm in of(stack, "AWS::CloudWatch::Alarm").values()
        for dimension in alarm.get("Dimensions", [])
        if alarm.get("MetricName") == "Errors"
    }
    assert watched == {function_of(stack, mapping["FunctionName"]) for mapping in mappings}


def throttles(stack: dict[str, Any], alarm: str) -> list[Any]:
    """The metrics that an alarm adds up."""
    [expression, *metrics] = of(stack, "AWS::CloudWatch::Alarm")[alarm]["Metrics"]
    assert (expression["Expression"], expression["ReturnData"]) == ("SUM(METRICS())", True)
    return list(metrics)


def test_throttles_of_each_function_that_a_caller_waits_for_have_an_alarm(
    stack: dict[str, Any],
) -> None:
    """And of nothing else in the account. An unknown address is no fault of ours."""
    asked = {
        function_of(stack, found["TargetFunctionArn"])
        for found in of(stack, "AWS::Lambda::Url").values()
    }
    asked |= {n for n, f in functions(stack).items() if mentions(f, "HttpReservedConcurrency")}
    watched = []
    for metric in throttles(stack, "ThrottlesAlarm") + throttles(stack, "WebhookThrottlesAlarm"):
        found = metric["MetricStat"]["Metric"]
        assert (found["Namespace"], found["MetricName"]) == ("AWS/Lambda", "Throttles")
        [dimension] = found["Dimensions"]
        watched.append(named(dimension["Value"]))
        assert metric["ReturnData"] is False
    assert sorted(watched) == sorted(asked - {"RejectUnroutedFunction"})


def test_no_alarm_has_more_metrics_than_cloudwatch_allows(stack: dict[str, Any]) -> None:
    for alarm in of(stack, "AWS::CloudWatch::Alarm").values():
        assert sum("MetricStat" in metric for metric in alarm.get("Metrics", [])) <= 10


def test_the_dashboard_shows_what_the_code_counts_and_all_of_it(
    widgets: list[dict[str, Any]], emitted: set[str]
) -> None:
    assert shown(widgets) == emitted


def test_the_dashboard_shows_every_alarm(
    stack: dict[str, Any], widgets: list[dict[str, Any]]
) -> None:
    [alarms] = [w["properties"]["alarms"] for w in widgets if w["type"] == "alarm"]
    assert sorted(alarms) == sorted(f"{name}.Arn" for name in of(stack, "AWS::CloudWatch::Alarm"))


def test_the_dashboard_shows_every_dead_letter_queue(
    stack: dict[str, Any], widgets: list[dict[str, Any]]
) -> None:
    text = json.dumps(widgets)
    dead = [name for name in of(stack, "AWS::SQS::Queue") if name.endswith("DeadLetters")]
    assert dead
    assert [name for name in dead if f"{name}.QueueName" not in text] == []


def test_no_two_widgets_cover_each_other(widgets: list[dict[str, Any]]) -> None:
    for one, other in combinations(widgets, 2):
        beside = one["x"] + one["width"] <= other["x"] or other["x"] + other["width"] <= one["x"]
        below = one["y"] + one["height"] <= other["y"] or other["y"] + other["height"] <= one["y"]
        assert beside or below
    assert all(w["x"] + w["width"] <= 24 for w in widgets)


def test_what_the_emulator_gets_has_every_alarm_on_one_metric(source: dict[str, Any]) -> None:
    """It refuses an alarm on an expression."""
    changed = gaps.understood(source)
    alarms = of(source, "AWS::CloudWatch::Alarm")
    assert any("Metrics" in alarm for alarm in alarms.values())
    for name, alarm in of(changed, "AWS::CloudWatch::Alarm").items():
        assert {"MetricName", "Namespace", "Statistic", "Period"} <= alarm.keys(), name
        assert "Metrics" not in alarm
        assert alarm == alarms[name] or "Metrics" in alarms[name]


def test_what_the_emulator_gets_names_no_source_of_events(source: dict[str, Any]) -> None:
    """It does not know that key of a condition, under which it would publish nothing."""
    before = of(source, "AWS::Serverless::Function")
    publishers = 0
    for name, function in of(gaps.understood(source), "AWS::Serverless::Function").items():
        for old, new in zip(before[name]["Policies"], function["Policies"], strict=True):
            changed = [now for was, now in _statements(old, new) if was != now]
            assert all(now["Action"] == "events:PutEvents" for now in changed), name
            assert all("Condition" not in now for now in changed), name
            publishers += len(changed)
    assert publishers
    assert "events:source" not in json.dumps(gaps.understood(source))


def _statements(old: Any, new: Any) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    if isinstance(old, dict) and "Statement" in old:
        yield from zip(old["Statement"], new["Statement"], strict=True)


def test_nothing_else_is_changed_for_the_emulator(source: dict[str, Any]) -> None:
    kinds = {"AWS::CloudWatch::Alarm", "AWS::Serverless::Function"}
    changed = gaps.understood(source)
    kept = {k: v for k, v in source["Resources"].items() if v["Type"] in kinds}
    assert changed | {"Resources": changed["Resources"] | kept} == source
    for name, function in of(changed, "AWS::Serverless::Function").items():
        before = of(source, "AWS::Serverless::Function")[name]
        assert function | {"Policies": before["Policies"]} == before
