"""`make mails`, and `make redrive QUEUE=emails`: list mail, and send it again.

send_email decides what may be sent again, and reports what it did; see kyora.email.by_hand.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from local.commands.dead_letters import queue_pair, release
from local.commands.place import Place
from local.commands.remote import Ask
from local.progress import Trouble, say, shown

_BATCH = 10  # what SQS hands over, and deletes, at once
_HOLD = 120  # seconds that a letter stays invisible to others while we read it


def show(ask: Ask, asked: Mapping[str, Any]) -> None:
    """List messages, newest first: `failed` ones, those `to` an address, of an `event`."""
    rows = ask({"mails": {"list": dict(asked)}})["mails"]
    for row in rows:
        mark = "✗" if row["unseen"] else " "
        why = f": {shown(row['reason'])}" if row["reason"] else ""
        say(f"{mark} {row['at']}  {row['id']}  {row['template']} to {shown(row['to'])}")
        say(f"  {'':<25}  {shown(row['event'])}, {row['status']}{why}")
    unseen = sum(row["unseen"] for row in rows)
    if not rows:
        say("There is no such mail.")
    if unseen:
        say("✗ is new: RESEND=<id> sends one again, SEEN=1 says that you have looked at them")


def seen(where: Place, ask: Ask) -> None:
    """Mark the failed mail as seen, and drop the dead letters about it.

    The messages stay in their rows. A letter without a message is left for redrive.
    """
    client = where.client("sqs")
    dead, _ = queue_pair(client, where, "emails")
    count = dropped = 0
    looked = set[str]()
    while True:
        waits = len(looked) < int(dead["ApproximateNumberOfMessages"])
        letters = _letters(client, dead, looked) if waits else []
        if not letters and looked:
            break
        found = ask({"mails": {"seen": [event for letter in letters if (event := _event(letter))]}})
        count += found["seen"]
        for letter in letters:
            if _event(letter) in found["ended"]:
                client.delete_message(QueueUrl=dead["url"], ReceiptHandle=letter["ReceiptHandle"])
                dropped += 1
        if not letters:
            break
    say(f"{count} failed mails are marked as seen, and {dropped} dead letters about mail dropped.")
    if left := len(looked) - dropped:
        say(f"{left} dead letters have no mail; `make redrive QUEUE=emails` tries them again.")


def resend(where: Place, ask: Ask, message_id: str) -> None:
    """Send a message again and delete its dead letter; raises Trouble when it is not sent."""
    found = ask({"mails": {"resend": message_id}})
    if "refused" in found:
        raise Trouble(f"{message_id} is not sent: {found['refused']}")
    if found["status"] != "sent":
        raise Trouble(f"{message_id} is {found['status']}: {found['reason']}")
    say(f"{message_id} is sent.")
    client = where.client("sqs")
    dead, _ = queue_pair(client, where, "emails")
    waiting, looked, others = int(dead["ApproximateNumberOfMessages"]), set[str](), list[str]()
    while len(looked) < waiting and (letters := _letters(client, dead, looked)):
        for letter in letters:
            if _event(letter) == found["event"]:
                client.delete_message(QueueUrl=dead["url"], ReceiptHandle=letter["ReceiptHandle"])
            else:
                others.append(letter["ReceiptHandle"])
    release(client, dead, others)


def redrive(where: Place, ask: Ask, *, only: str = "") -> int:
    """Send the dead letters that were certainly not accepted; report each of the others.

    `only` is the id of the one message to look at. Returns how many were sent.
    """
    client = where.client("sqs")
    dead, live = queue_pair(client, where, "emails")
    moved = kept = 0
    reasons: list[str] = []
    looked = set[str]()
    # No more than there were: a message that dies again at once would come back.
    waiting = int(dead["ApproximateNumberOfMessages"])
    passed = list[str]()
    while len(looked) < waiting and (letters := _letters(client, dead, looked)):
        if only:
            passed += [one["ReceiptHandle"] for one in letters if one["MessageId"] != only]
            letters = [one for one in letters if one["MessageId"] == only]
        events = [event for letter in letters if (event := _event(letter))]
        answers = ask({"mails": {"redrive": events}})["events"] if events else []
        by_event = {answer["event"]: answer for answer in answers}
        for letter in letters:
            answer = by_event.get(_event(letter), {"move": "yes", "why": ""})
            if answer["move"] == "yes":
                client.send_message(QueueUrl=live["url"], MessageBody=letter["Body"])
                moved += 1
            if answer["move"] != "stay":
                handle = letter["ReceiptHandle"]
                client.delete_message(QueueUrl=dead["url"], ReceiptHandle=handle)
            kept += answer["move"] == "stay"
            if answer["why"]:
                reasons.append(f"  {answer['mail']} to {answer['to']}: {answer['why']}")
    release(client, dead, passed)
    for line in reasons:
        say(line)
    count = max(waiting, len(looked)) - len(passed)
    rest = count - moved
    say(
        f"{moved} of {count} messages are back in {where.bus}-emails"
        + (f"; of {rest} the lines above say why not" if rest else "")
    )
    if kept:
        say(f"{kept} stay in the dead-letter queue: their content is stored nowhere else.")
    return moved


def _letters(client: Any, dead: Mapping[str, str], looked: set[str]) -> Sequence[Mapping[str, Any]]:
    """Return the next dead letters that were not looked at yet."""
    found = client.receive_message(
        QueueUrl=dead["url"],
        MaxNumberOfMessages=_BATCH,
        VisibilityTimeout=_HOLD,
        WaitTimeSeconds=1,  # asks all of SQS's servers, not some
    ).get("Messages", [])
    new = [letter for letter in found if letter["MessageId"] not in looked]
    looked |= {letter["MessageId"] for letter in new}
    return new


def _event(letter: Mapping[str, Any]) -> str:
    """Return the id of the event in a letter; empty when it cannot be read."""
    try:
        found = json.loads(letter["Body"])["detail"]["id"]
    except (ValueError, KeyError, TypeError):
        return ""
    return found if isinstance(found, str) else ""
