"""`make redrive`: send dead letters back to the queue they came from."""

import time
from collections.abc import Iterable, Mapping
from typing import Any

from local.commands.place import Place
from local.progress import Trouble, say


def redrive(where: Place, queue: str, *, only: str = "") -> int:
    """Move the messages of a dead-letter queue back to the queue they came from.

    On the local stack `only` is the id of the one message to move.
    """
    client = where.client("sqs")
    base = queue_name(where, queue)
    dead, live = queue_pair(client, where, base)
    waiting = int(dead["ApproximateNumberOfMessages"])
    moved = waiting
    if where.local:  # MiniStack has no message move tasks
        moved = _carry(client, dead, live, waiting, only)
    elif waiting:
        moved = _move(client, dead, live)
    say(f"{moved} of {waiting} messages are back in kyora-{where.stage}-{base}")
    return moved


def queue_name(where: Place, queue: str) -> str:
    """Return the name of a queue without the stage, however it was given."""
    return queue.removeprefix(f"kyora-{where.stage}-").removesuffix("-dead")


def queue_pair(client: Any, where: Place, base: str) -> tuple[dict[str, str], dict[str, str]]:
    """Return the attributes of a queue's dead-letter queue and of the queue itself."""
    return _queue(client, where, f"{base}-dead"), _queue(client, where, base)


def _queue(client: Any, where: Place, name: str) -> dict[str, str]:
    try:
        url = client.get_queue_url(QueueName=f"kyora-{where.stage}-{name}")["QueueUrl"]
    except client.exceptions.QueueDoesNotExist as error:
        names = queue_urls(client, where)
        known = sorted(n for n in names if f"{n}-dead" in names)
        raise Trouble(f"no queue {name!r} to redrive; there are {', '.join(known)}") from error
    found = client.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    return {**found, "url": url}


def queue_urls(client: Any, where: Place) -> dict[str, str]:
    """Return the address of every queue of the stack, by its name without `kyora-<stage>-`."""
    prefix = f"kyora-{where.stage}-"
    pages = client.get_paginator("list_queues").paginate(QueueNamePrefix=prefix)
    urls = [url for page in pages for url in page.get("QueueUrls", [])]
    return {url.rpartition("/")[2].removeprefix(prefix): url for url in urls}


def _move(client: Any, dead: dict[str, str], live: dict[str, str]) -> int:
    # The destination is named: SQS knows no source for a message that a consumer put there.
    client.start_message_move_task(SourceArn=dead["QueueArn"], DestinationArn=live["QueueArn"])
    while True:
        [task] = client.list_message_move_tasks(SourceArn=dead["QueueArn"], MaxResults=1)["Results"]
        if task["Status"] == "FAILED":
            raise Trouble(f"SQS gave up: {task.get('FailureReason')}")
        if task["Status"] != "RUNNING":
            return int(task["ApproximateNumberOfMessagesMoved"])
        time.sleep(1)


def _carry(client: Any, dead: dict[str, str], live: dict[str, str], most: int, only: str) -> int:
    moved, passed = 0, list[str]()
    while moved + len(passed) < most:
        found = client.receive_message(
            QueueUrl=dead["url"], MaxNumberOfMessages=min(10, most - moved), VisibilityTimeout=30
        ).get("Messages", [])
        if not found:
            break
        for message in found:
            if only and message["MessageId"] != only:
                passed.append(message["ReceiptHandle"])
                continue
            client.send_message(QueueUrl=live["url"], MessageBody=message["Body"])
            client.delete_message(QueueUrl=dead["url"], ReceiptHandle=message["ReceiptHandle"])
            moved += 1
    release(client, dead, passed)
    return moved


def release(client: Any, queue: Mapping[str, str], handles: Iterable[str]) -> None:
    """Make messages visible again that were received and are left where they are."""
    for handle in handles:
        client.change_message_visibility(
            QueueUrl=queue["url"], ReceiptHandle=handle, VisibilityTimeout=0
        )
