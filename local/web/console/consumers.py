"""Which function consumes which event, through which queue: read from template.yaml's rules."""

from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

from local import template


class Consumer(NamedTuple):
    """A function behind a queue of the bus."""

    function: str
    queue: str
    wants: tuple[str, ...] = ()  # fields of the data that must be true, by the rule's pattern

    def takes(self, data: Mapping[str, Any]) -> bool:
        """Return whether an event with this data reaches the function."""
        return all(data.get(name) is True for name in self.wants)


@cache
def by_event() -> Mapping[str, list[Consumer]]:
    """Return the consumers of each of our events, by the event's name."""
    resources = template.read()["Resources"]
    found: dict[str, list[Consumer]] = {}
    for rule in resources.values():
        if rule["Type"] != "AWS::Events::Rule":
            continue
        properties = rule["Properties"]
        if "EventBusName" not in properties:  # S3's and Stripe's buses bring others' events
            continue
        for target in properties["Targets"]:
            logical = target["Arn"]["Fn::GetAtt"][0]
            wants = tuple(properties["EventPattern"].get("detail", {}).get("data", {}))
            consumer = Consumer(_reader(resources, logical), queue_name(resources[logical]), wants)
            for name in properties["EventPattern"].get("detail-type", []):
                found.setdefault(name, []).append(consumer)
    return found


@cache
def by_queue() -> Mapping[str, str]:
    """Return the function that reads each queue."""
    resources = template.read()["Resources"]
    return {
        queue_name(queue): reader
        for logical, queue in resources.items()
        if queue["Type"] == "AWS::SQS::Queue" and (reader := _reader(resources, logical))
    }


def queue_name(queue: Mapping[str, Any]) -> str:
    """Return a queue's name without the stage."""
    return str(queue["Properties"]["QueueName"]["Fn::Sub"]).removeprefix("kyora-${Stage}-")


def _reader(resources: Mapping[str, Any], queue: str) -> str:
    """Return the folder of the function that an event source mapping feeds from a queue."""
    for resource in resources.values():
        if resource["Type"] == "AWS::Lambda::EventSourceMapping":
            properties = resource["Properties"]
            if properties["EventSourceArn"] == {"Fn::GetAtt": [queue, "Arn"]}:
                return template.folder(properties["FunctionName"]["Ref"].removesuffix(".Alias"))
    return ""
