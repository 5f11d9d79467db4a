"""Each function may do what its code can ask of AWS, and nothing more.

What the code can ask is read from everything that it can reach (tests/reach.py). Two kinds of
permission are held elsewhere: secrets, by loading the configuration for real
(tests/infra/test_configuration.py), and S3, key by key, by an S3 that knows every function's
policy (tests/integration/test_s3_permissions.py).
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from kyora.bus.names import DOMAINS
from local import template
from tests import reach
from tests.infra.rules import Stack, function_of, named, of

type Permission = tuple[str, str]  # an action and the logical id of its resource

# What Lambda does with a queue on the function's behalf, before our code runs.
POLLING = ("sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes")
ELSEWHERE = ("secretsmanager:GetSecretValue", "s3:")


def allowed(stack: Stack, function: str) -> set[Permission]:
    """What a function's inline policies permit."""
    role = of(stack, "AWS::IAM::Role")[f"{template.logical_id(function)}Role"]
    found = set()
    for policy in role.get("Policies", []):
        for statement in policy["PolicyDocument"]["Statement"]:
            if statement["Effect"] == "Deny":
                continue
            actions, resources = statement["Action"], statement["Resource"]
            for action in actions if isinstance(actions, list) else [actions]:
                for resource in resources if isinstance(resources, list) else [resources]:
                    if not action.startswith(ELSEWHERE):
                        found.add((action, named(resource)))
    return found


def needed(stack: Stack, function: str) -> set[Permission]:
    """What a function's code can ask for, and what Lambda asks for because of the template."""
    found = reach.of(function)
    return {*_events(found), *_queues(stack, function, found), *_failures(stack, function)}


def _events(found: frozenset[str]) -> Iterator[Permission]:
    if ("events", "PutEvents") in reach.operations(found):
        yield "events:PutEvents", "Bus"


def _queues(stack: Stack, function: str, found: frozenset[str]) -> Iterator[Permission]:
    logical = template.logical_id(function)
    asked = {operation for service, operation in reach.operations(found) if service == "sqs"}
    sources = [
        named(mapping["EventSourceArn"])
        for mapping in of(stack, "AWS::Lambda::EventSourceMapping").values()
        if function_of(stack, mapping["FunctionName"]) == logical
    ]
    assert bool(sources) == bool(asked), "who reads messages has a queue, and the reverse"
    for queue in sources:
        yield from ((action, queue) for action in POLLING)
        yield from ((f"sqs:{name}", queue) for name in asked - {"SendMessage"})
        redrive = of(stack, "AWS::SQS::Queue")[queue]["RedrivePolicy"]
        yield "sqs:SendMessage", named(redrive["deadLetterTargetArn"])  # bus._bury
        if any(_uncounted(call) for call in reach.calls(found, "Again")):
            yield "sqs:SendMessage", queue  # bus._put_off, by a copy


def _uncounted(call: Any) -> bool:
    return any(k.arg == "counted" and k.value.value is False for k in call.keywords)


def _failures(stack: Stack, function: str) -> Iterator[Permission]:
    for config in of(stack, "AWS::Lambda::EventInvokeConfig").values():
        if named(config["FunctionName"]) == template.logical_id(function):
            destination = config["DestinationConfig"]["OnFailure"]["Destination"]
            yield "sqs:SendMessage", named(destination)


@pytest.mark.parametrize("function", reach.FUNCTIONS)
def test_a_function_may_do_what_its_code_can_ask_for_and_nothing_more(
    function: str, stack: Stack
) -> None:
    assert allowed(stack, function) == needed(stack, function)


def sources(function: str) -> set[str]:
    """Whose events a function publishes: its own, and the relay those of every domain."""
    found = reach.of(function)
    if ("events", "PutEvents") not in reach.operations(found):
        return set()
    if function == "relay_outbox":
        return {f"kyora.{domain}" for domain in DOMAINS.values()}
    added = [reach.texts(call) for call in reach.calls(found, "add")]
    return {f"kyora.{texts[0]}" for texts in added if texts and texts[0] in DOMAINS.values()}


@pytest.mark.parametrize("function", reach.FUNCTIONS)
def test_a_function_publishes_as_the_domains_it_can_speak_for(function: str, stack: Stack) -> None:
    role = of(stack, "AWS::IAM::Role")[f"{template.logical_id(function)}Role"]
    given: set[str] = set()
    for policy in role["Policies"]:
        for found in policy["PolicyDocument"]["Statement"]:
            if "events:PutEvents" in found["Action"]:
                source = found["Condition"]["StringEquals"]["events:source"]
                given |= {source} if isinstance(source, str) else set(source)
    assert given == sources(function)


@pytest.mark.parametrize("function", reach.FUNCTIONS)
def test_a_function_begins_by_reading_every_setting_it_can_need(function: str) -> None:
    """A section that is read later would be a secret fetched, or refused, in mid-work."""
    begun = frozenset(node for node in reach.of(function) if node.startswith("functions."))
    asked = reach.calls(reach.of(function), "settings")
    first = reach.calls(begun, "settings", "entrypoint", "webhook")
    assert {t for call in asked for t in reach.texts(call)} <= {
        t for call in first for t in reach.texts(call)
    }


def test_every_call_of_aws_in_the_layer_is_one_that_is_looked_for() -> None:
    """A call whose operation is computed would be overlooked; `_send` is read at its callers."""
    everything = frozenset(reach.nodes())
    plain = [c for c in reach.calls(everything, "call") if _of_aws(c)]
    assert len(plain) == 4
    assert [c for c in plain if len(reach.texts(c)) < 2] == [
        c for c in plain if getattr(c.args[1], "id", "") == "operation"
    ]
    assert reach.operations(everything) == {
        ("events", "PutEvents"),
        ("secretsmanager", "GetSecretValue"),
        ("sqs", "GetQueueAttributes"),
        ("sqs", "ChangeMessageVisibility"),
        ("sqs", "SendMessage"),
    }


def _of_aws(call: Any) -> bool:
    return bool({"events", "sqs", "secretsmanager"} & set(reach.texts(call)[:1]))


def statement(stack: Stack, function: str, action: str) -> dict[str, Any]:
    role = of(stack, "AWS::IAM::Role")[f"{template.logical_id(function)}Role"]
    for policy in role["Policies"]:
        for found in policy["PolicyDocument"]["Statement"]:
            if action in found["Action"]:
                permitted: dict[str, Any] = found
                return permitted
    raise LookupError(action)


# What a change could do to a policy: too little, too much, the right thing on the wrong resource.
DAMAGES: list[tuple[str, Callable[[Stack], Any]]] = [
    (
        "confirm_upload",
        lambda s: statement(s, "confirm_upload", "events:PutEvents").update(
            Action="events:PutRule"
        ),
    ),
    (
        "check_health",
        lambda s: statement(s, "check_health", "secretsmanager:GetSecretValue").update(
            Action=["secretsmanager:GetSecretValue", "events:PutEvents"]
        ),
    ),
    (
        "record_transaction_fee",
        lambda s: statement(s, "record_transaction_fee", "sqs:SendMessage").update(
            Resource={"Fn::GetAtt": ["EmailQueue", "Arn"]}
        ),
    ),
    (
        "send_email",
        lambda s: statement(s, "send_email", "sqs:ChangeMessageVisibility")["Action"].remove(
            "sqs:SendMessage"
        ),
    ),
    (
        "relay_outbox",
        lambda s: statement(s, "relay_outbox", "events:PutEvents").update(
            Resource={"Fn::GetAtt": ["OtherBus", "Arn"]}
        ),
    ),
]


@pytest.mark.parametrize(("function", "damage"), DAMAGES, ids=[name for name, _ in DAMAGES])
def test_a_policy_that_says_too_little_or_too_much_is_noticed(
    function: str, damage: Callable[[Stack], Any], stack: Stack
) -> None:
    damage(stack)
    assert allowed(stack, function) != needed(stack, function)
