"""The rules, queues and archive of the bus are what the catalogue and the code say."""

import ast
import inspect
import json
import re
from typing import Any

import pytest

from kyora.bus import retention
from kyora.bus.names import DOMAINS, SENSITIVE
from kyora.email import delivery, resend
from kyora.email.mails.catalogue import MAILS
from local import template
from tests.infra.rules import function_of, functions, mentions, named, of, statements

# Each consumer with the events that it takes.
CONSUMERS = {
    "send_email": {mail.event.__name__ for mail in MAILS.values()},
    "record_transaction_fee": {"OrderPaymentSucceeded"},
    "update_analytics": {"OrderCreated", "CustomerCreated"},
    "make_variants": {"AssetReady"},
}
# What a rule looks for in an event beside its name.
ONLY = {"make_variants": {"data": {"variants": [True]}}}


def consumers(stack: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Function → the rule of our bus that feeds its queue."""
    fed = {}
    for rule in of(stack, "AWS::Events::Rule").values():
        if named(rule.get("EventBusName")) != "Bus":
            continue
        [target] = rule["Targets"]
        for mapping in of(stack, "AWS::Lambda::EventSourceMapping").values():
            if named(mapping["EventSourceArn"]) == named(target["Arn"]):
                name = template.folder(function_of(stack, mapping["FunctionName"]))
                fed[name] = rule
    return fed


def test_every_consumer_is_fed_what_the_contract_says(stack: dict[str, Any]) -> None:
    there = {path.parent.name for path in (template.ROOT / "functions").glob("*/app.py")}
    found = consumers(stack)
    assert found.keys() == CONSUMERS.keys() & there
    for name, rule in found.items():
        pattern = rule["EventPattern"]
        assert pattern.get("detail") == ONLY.get(name)
        assert set(pattern) - {"detail"} == {"source", "detail-type"}
        assert set(pattern["detail-type"]) == CONSUMERS[name]
        assert set(pattern["source"]) == {f"kyora.{DOMAINS[event]}" for event in CONSUMERS[name]}


def test_a_function_that_consumes_our_events_is_fed_by_a_rule(stack: dict[str, Any]) -> None:
    reading = set()
    for path in (template.ROOT / "functions").glob("*/app.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Name) and node.id == "consume":
                reading.add(path.parent.name)
    assert consumers(stack).keys() == reading


def test_a_token_goes_to_its_consumer_and_nowhere_else(stack: dict[str, Any]) -> None:
    fed = {
        event: [n for n, r in consumers(stack).items() if event in r["EventPattern"]["detail-type"]]
        for event in SENSITIVE
    }
    assert set(map(tuple, fed.values())) == {("send_email",)}


def test_the_archive_leaves_out_what_holds_a_token(stack: dict[str, Any]) -> None:
    [archive] = of(stack, "AWS::Events::Archive").values()
    assert named(archive["SourceArn"]) == "Bus"
    pattern = archive["EventPattern"]
    assert pattern == {
        "source": [{"prefix": "kyora."}],
        "detail-type": [{"anything-but": pattern["detail-type"][0]["anything-but"]}],
    }
    assert set(pattern["detail-type"][0]["anything-but"]) == SENSITIVE


def test_no_alarm_or_description_holds_what_a_message_says(stack: dict[str, Any]) -> None:
    for alarm in of(stack, "AWS::CloudWatch::Alarm").values():
        assert set(alarm) <= {
            *("AlarmDescription", "AlarmActions", "Namespace", "MetricName", "Dimensions"),
            *("Statistic", "Period", "EvaluationPeriods", "DatapointsToAlarm", "Threshold"),
            *("ComparisonOperator", "TreatMissingData", "Metrics"),
        }
        own = [alarm["Namespace"]] if "Namespace" in alarm else []
        parts = [m["MetricStat"]["Metric"] for m in alarm.get("Metrics", []) if "MetricStat" in m]
        for namespace in own + [part["Namespace"] for part in parts]:
            assert (
                namespace.get("Fn::Sub") == "Kyora/${Stage}"
                if isinstance(namespace, dict)
                else namespace.startswith("AWS/")
            )


@pytest.mark.parametrize("folder", ["verify_upload", *CONSUMERS])
def test_a_consumer_may_put_a_message_off_and_bury_it(folder: str, stack: dict[str, Any]) -> None:
    """`kyora.bus` asks SQS for exactly this; only send_email's waits may not count."""
    function = template.logical_id(folder)
    role = named(functions(stack)[function]["Role"])
    [mapping] = [
        m
        for m in of(stack, "AWS::Lambda::EventSourceMapping").values()
        if function_of(stack, m["FunctionName"]) == function
    ]
    queue = named(mapping["EventSourceArn"])
    dead = named(of(stack, "AWS::SQS::Queue")[queue]["RedrivePolicy"]["deadLetterTargetArn"])

    def allowed(name: str) -> set[str]:
        found: set[str] = set()
        for owner, statement in statements(stack):
            if owner == role and mentions(statement["Resource"], name):
                actions = statement["Action"]
                found |= {actions} if isinstance(actions, str) else set(actions)
        return found

    consume = {
        *("sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"),
        "sqs:ChangeMessageVisibility",
    }
    assert allowed(queue) == consume | ({"sqs:SendMessage"} if folder == "send_email" else set())
    assert allowed(dead) == {"sqs:SendMessage"}


def test_a_bounded_number_of_workers_sends(stack: dict[str, Any]) -> None:
    mapping = of(stack, "AWS::Lambda::EventSourceMapping")["SendEmailSource"]
    assert mapping["ScalingConfig"] == {"MaximumConcurrency": {"Ref": "SendEmailConcurrency"}}
    assert mapping["BatchSize"] == 5
    queue = of(stack, "AWS::SQS::Queue")["EmailQueue"]
    assert queue["RedrivePolicy"]["maxReceiveCount"] == 8
    assert queue["VisibilityTimeout"] == 6 * functions(stack)["SendEmailFunction"]["Timeout"]


def test_an_attempt_ends_before_the_function_and_a_killed_workers_mail_goes_out_in_time(
    stack: dict[str, Any],
) -> None:
    timeout = functions(stack)["SendEmailFunction"]["Timeout"]
    attempt = resend.LONGEST_PAUSE + resend.DEADLINE
    assert attempt < delivery.LONGEST_ATTEMPT < timeout, "no attempt is cut off"
    assert delivery.LONGEST_ATTEMPT < delivery.LEASE, "nor overtaken by another worker"
    waits = of(stack, "AWS::SQS::Queue")["EmailQueue"]["VisibilityTimeout"]
    shortest = min(mail.lifetime for mail in MAILS.values()).total_seconds()
    assert waits > delivery.LEASE
    assert 3 * (timeout + waits) < shortest, "even when three workers in turn are killed"


def test_only_what_sends_mail_has_the_resend_sdk(stack: dict[str, Any]) -> None:
    [layer] = [name for name in of(stack, "AWS::Lambda::LayerVersion") if "Resend" in name]
    having = {name for name, f in functions(stack).items() if mentions(f["Layers"], layer)}
    assert having == {"SendEmailFunction"}


def test_the_provider_alarm_counts_a_line_that_send_email_writes(stack: dict[str, Any]) -> None:
    pattern = of(stack, "AWS::Logs::MetricFilter")["EmailProviderRefusals"]["FilterPattern"]
    [line] = re.findall(r'^{ \$\.message = "([^"]+)" }$', pattern)
    code = (template.ROOT / "layers/kyora/kyora/email/delivery.py").read_text()
    assert f'logger().critical("{line}"' in code


def test_a_webhook_has_an_address_open_to_all_and_nothing_else_has(stack: dict[str, Any]) -> None:
    there = {path.parent.name for path in (template.ROOT / "functions").glob("*_webhook/app.py")}
    urls = of(stack, "AWS::Lambda::Url")
    assert {template.folder(name.removesuffix("Url")) for name in urls} == there
    for url in urls.values():
        assert url["AuthType"] == "NONE"
        assert "Cors" not in url
    for folder in there:
        function = functions(stack)[template.logical_id(folder)]
        assert mentions(function["ReservedConcurrentExecutions"], "WebhookReservedConcurrency")


def test_the_samples_of_a_consumer_are_events_of_its_rule(stack: dict[str, Any]) -> None:
    for folder, rule in consumers(stack).items():
        paths = list((template.ROOT / "events").glob(f"{folder}*.json"))
        assert paths
        for path in paths:
            # One without records is of the function's schedule.
            for record in json.loads(path.read_text()).get("Records", []):
                body = json.loads(record["body"])
                assert body["detail-type"] in rule["EventPattern"]["detail-type"]
                assert body["source"] == f"kyora.{DOMAINS[body['detail-type']]}"
                assert re.search(r"token", record["body"]) is None


def test_no_event_can_be_replayed_that_its_consumers_have_forgotten(source: dict[str, Any]) -> None:
    kept = re.findall(r"interval '(\d+) days'", inspect.getsource(retention.forget_seen))
    assert source["Parameters"]["EventArchiveDays"]["MaxValue"] < min(map(int, kept))
