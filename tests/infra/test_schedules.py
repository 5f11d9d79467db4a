"""Schedules, the alarms on what their functions report, and the code's table say the same."""

import re
from typing import Any

import pytest

from kyora import config, status
from local import template
from tests import reach
from tests.infra.rules import Stack, of

_UNITS = {"minute": 1, "hour": 60, "day": 24 * 60}
KINDS = ("gauge", "count")  # of figures, in kyora.observability
# Watched by lines of their own in `make status`: what they do is late, not only their run.
OWN_LINES = {"sync_plans", "reconcile_billing", "send_email"}


def minutes(expression: str) -> int:
    found = re.fullmatch(r"rate\((\d+) (minute|hour|day)(s?)\)", expression)
    assert found, expression
    assert bool(found[3]) is (found[1] != "1"), f"{expression}: AWS wants one minute, two minutes"
    return int(found[1]) * _UNITS[found[2]]


def deployed(stack: Stack, fewest: str) -> dict[str, int]:
    """Function → minutes between two runs, with a value of ScheduleMinutes."""
    stack["Parameters"]["ScheduleMinutes"]["Default"] = fewest
    return {
        template.folder(re.sub("Function.*", "Function", name)): minutes(
            template.resolve(schedule["ScheduleExpression"], stack)
        )
        for name, schedule in of(stack, "AWS::Scheduler::Schedule").items()
    }


def figures(function: str) -> set[str]:
    """What a run reports, whatever it finds: in the handler, or in what that calls itself."""
    handler = f"functions.{function}.handler"
    calls = reach.calls(frozenset({handler} | (reach.edges(handler) & set(reach.nodes()))), *KINDS)
    return {reach.texts(call)[0] for call in calls}


@pytest.mark.parametrize("fewest", config.SCHEDULE_MINUTES)
def test_the_code_knows_how_often_each_function_runs(
    stack: Stack, fewest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCHEDULE_MINUTES", fewest)
    config.forget()
    found = deployed(stack, fewest)
    config.forget()
    assert {n: m for n, m in found.items() if n not in OWN_LINES} == status.minutes()
    assert min(found.values()) == int(fewest)


def test_the_parameter_takes_what_the_code_takes(source: dict[str, Any]) -> None:
    parameter = source["Parameters"]["ScheduleMinutes"]
    assert tuple(map(str, parameter["AllowedValues"])) == config.SCHEDULE_MINUTES
    assert tuple(source["Mappings"]["Schedules"]) == config.SCHEDULE_MINUTES
    assert str(parameter["Default"]) == "1"


def watches(alarm: dict[str, Any]) -> list[tuple[str, int]]:
    """The figures that an alarm reads, alone or in an expression, each with its period."""
    if "MetricName" in alarm:
        return [(alarm["MetricName"], alarm["Period"])]
    metrics = [metric["MetricStat"] for metric in alarm["Metrics"] if "MetricStat" in metric]
    return [(metric["Metric"]["MetricName"], metric["Period"]) for metric in metrics]


@pytest.mark.parametrize("fewest", config.SCHEDULE_MINUTES)
def test_an_alarm_on_a_scheduled_figure_has_a_period_of_at_least_one_run(
    stack: Stack, fewest: str
) -> None:
    """A shorter one has periods without a figure: for ever silent, or for ever ringing."""
    runs = deployed(stack, fewest)
    every = {figure: runs[name] for name in status.SCHEDULES for figure in figures(name)}
    watched = set()
    for name, alarm in of(stack, "AWS::CloudWatch::Alarm").items():
        found = template.resolve(alarm, stack)
        for figure, period in watches(found):
            if figure not in every:
                continue
            watched.add(figure)
            assert period >= 60 * every[figure], name
            # CloudWatch's limit for alarms with periods below an hour, and for the others.
            day = 86_400 if period < 3600 else 7 * 86_400
            assert period * found["EvaluationPeriods"] <= day, name
            if found["TreatMissingData"] == "breaching":
                assert found["EvaluationPeriods"] > 1, f"{name}: one late run is no fault"
    assert watched == set(every)


def test_with_the_default_nothing_waits_longer_than_it_did(stack: Stack) -> None:
    alarms = of(template.resolve(stack, stack), "AWS::CloudWatch::Alarm")
    for name in ("OutboxAgeAlarm", "SchedulesAlarm", "StripeEventsParkedAlarm"):
        assert (alarms[name]["Period"], alarms[name]["EvaluationPeriods"]) == (60, 5)
