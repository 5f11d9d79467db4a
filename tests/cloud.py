"""EventBridge's PutEvents and SQS's few operations, in memory, behind a real socket."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from kyora import aws
from kyora.bus import outbox
from local.tools.event_samples import sample
from tests import events
from tests.scripted import Answer, Request, scripted

ARN = "arn:aws:sqs:eu-west-1:000000000000:"
QUEUE, DEAD = "kyora-test-emails", "kyora-test-emails-dead"


@dataclass
class Cloud:
    """What was published and sent; the three callables decide what goes wrong."""

    url: str = ""
    entries: list[dict[str, Any]] = field(default_factory=list)
    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    # The reason for which an entry is refused, or nothing.
    refuse: Callable[[dict[str, Any]], str] = lambda _: ""
    # Called when a request is about to be answered: an Answer of its own wins.
    interfere: Callable[[str, dict[str, Any]], Answer | None] = lambda *_: None

    def sent(self, queue: str) -> list[dict[str, Any]]:
        """The messages sent to a queue by name."""
        return [p for o, p in self.calls if o == "SendMessage" and p["QueueUrl"].endswith(queue)]

    def ids(self) -> list[str]:
        """The ids of the published events, in order."""
        return [json.loads(entry["Detail"])["id"] for entry in self.entries]

    def answer(self, request: Request) -> Answer:
        operation = request.headers["x-amz-target"].partition(".")[2]
        payload = json.loads(request.body)
        self.calls.append((operation, payload))
        result: dict[str, Any] = {}
        if operation == "PutEvents":
            result = self._put(payload["Entries"])
        elif operation == "GetQueueAttributes":
            policy = {"deadLetterTargetArn": f"{ARN}{DEAD}", "maxReceiveCount": 8}
            result = {"Attributes": {"RedrivePolicy": json.dumps(policy)}}
        return self.interfere(operation, payload) or Answer(body=json.dumps(result).encode())

    def _put(self, entries: list[dict[str, Any]]) -> dict[str, Any]:
        results = []
        for entry in entries:
            if reason := self.refuse(entry):
                results.append({"ErrorCode": reason, "ErrorMessage": "try later"})
            else:
                self.entries.append(entry)
                results.append({"EventId": f"eb-{len(self.entries)}"})
        return {"Entries": results, "FailedEntryCount": sum("ErrorCode" in r for r in results)}


@contextmanager
def cloud() -> Iterator[Cloud]:
    """Run one; `url` is for AWS_ENDPOINT_URL."""
    found = Cloud()
    with scripted(found.answer) as server:
        found.url = server.url
        yield found
        if kept := aws._connections.pop(server.url, None):
            kept.close()


def deliver(*entries: dict[str, Any], replay: str = "") -> dict[str, Any]:
    """Return the SQS batch that EventBridge's rule makes of published entries."""
    return batch(*(json.dumps(message(entry, replay)) for entry in entries))


def message(entry: dict[str, Any], replay: str = "") -> dict[str, Any]:
    """Return the EventBridge event of a published entry."""
    found = {
        "version": "0",
        "id": "17793124-05d4-b198-2fde-7ededc63b103",
        "detail-type": entry["DetailType"],
        "source": entry["Source"],
        "account": "000000000000",
        "time": "2026-11-23T07:36:09Z",
        "region": "eu-west-1",
        "resources": [],
        "detail": json.loads(entry["Detail"]),
    }
    return found | ({"replay-name": replay} if replay else {})


def batch(*bodies: str) -> dict[str, Any]:
    """Return the SQS batch of messages with these bodies; their ids are m0, m1, …"""
    queue = f"{ARN}{QUEUE}"
    return events.sqs_batch(
        *(events.sqs_message(body, id_=f"m{n}", queue=queue) for n, body in enumerate(bodies))
    )


def detail(name: str = "UserWelcomed", **changed: Any) -> dict[str, Any]:
    data, workspace = sample(name)
    return {**outbox.envelope("evt_1", data, workspace), **changed}
