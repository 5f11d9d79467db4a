"""The bus, its queues and the workers behind them, for a test that kills all of it.

    producers ── outbox ── EventBridge ── a queue for each rule of template.yaml ── workers
        └──────────── PostgreSQL, through pgbouncer ───────────────────────────────────┘

A worker is a process with everything imported; one that is killed gets SIGKILL, in the middle of
whatever it does, and its messages come back when the queue's visibility time-out is over. The
queues and the waits written in rows live at SPEED times the clock.
"""

import importlib
import json
import os
import random
import signal
import socket
import socketserver
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, override

from kyora import postgres
from kyora.errors import KyoraError
from kyora.postgres.connection import connect
from local import template
from tests.cloud import message
from tests.integration.support.mail_queue import Forked, compile_templates
from tests.scripted import Answer, Request, Server
from tests.unit.functions import CONTEXT, function

ROOT = Path(__file__).resolve().parents[3]
SPEED = 20
_ARN = "arn:aws:sqs:eu-west-1:000000000000:"
_NEVER = float("inf")


# ---- EventBridge and SQS


@dataclass
class Message:
    """A message; `due` is a reading of the clock, never while a worker has it."""

    body: str
    due: float = 0.0
    receives: int = 0
    asked: float | None = None  # when its worker wants it back


@dataclass
class Queue:
    """A consumer's queue as template.yaml describes it."""

    name: str
    function: str
    events: frozenset[str]
    batch: int
    visibility: float  # seconds
    receives: int
    messages: dict[str, Message] = field(default_factory=dict)
    dead: list[str] = field(default_factory=list)
    most_receives: int = 0


def queues() -> list[Queue]:
    """Return the queue of each rule of our bus."""
    resources = template.read()["Resources"]
    found = []
    for rule in resources.values():
        if rule["Type"] != "AWS::Events::Rule":
            continue
        properties = rule["Properties"]
        if properties.get("EventBusName") != {"Ref": "Bus"}:
            continue
        [target] = properties["Targets"]
        name = target["Arn"]["Fn::GetAtt"][0]
        queue = resources[name]["Properties"]
        [source] = [
            r["Properties"]
            for r in resources.values()
            if r["Type"] == "AWS::Lambda::EventSourceMapping"
            and r["Properties"]["EventSourceArn"] == {"Fn::GetAtt": [name, "Arn"]}
        ]
        found.append(
            Queue(
                name=queue["QueueName"]["Fn::Sub"].replace("${Stage}", "test"),
                function=template.folder(source["FunctionName"]["Ref"].removesuffix(".Alias")),
                events=frozenset(properties["EventPattern"]["detail-type"]),
                batch=source["BatchSize"],
                visibility=queue["VisibilityTimeout"],
                receives=queue["RedrivePolicy"]["maxReceiveCount"],
            )
        )
    return found


class Cloud:
    """PutEvents and SQS over HTTP; PutEvents loses some requests, and some answers."""

    def __init__(self, chance: random.Random) -> None:
        self.queues = queues()
        self.published: list[str] = []  # ids of events, as often as they came
        self._chance = chance
        self._lock = threading.Lock()
        self._number = 0
        self.server = Server(self._answer)

    def _answer(self, request: Request) -> Answer:
        operation = request.headers["x-amz-target"].partition(".")[2]
        given = json.loads(request.body)
        with self._lock:
            if operation == "PutEvents":
                return self._put(given["Entries"])
            name = given["QueueUrl"].rpartition("/")[2]
            queue = next(q for q in self.queues if q.name == name.removesuffix("-dead"))
            if operation == "GetQueueAttributes":
                policy = json.dumps({"deadLetterTargetArn": f"{_ARN}{queue.name}-dead"})
                return Answer(body=json.dumps({"Attributes": {"RedrivePolicy": policy}}).encode())
            if operation == "ChangeMessageVisibility":
                seconds = given["VisibilityTimeout"] / SPEED
                queue.messages[given["ReceiptHandle"]].asked = time.monotonic() + seconds
            elif name.endswith("-dead"):
                queue.dead.append(given["MessageBody"])
            else:
                due = time.monotonic() + given.get("DelaySeconds", 0) / SPEED
                self._add(queue, given["MessageBody"], due)
        return Answer()

    def _put(self, entries: Sequence[dict[str, Any]]) -> Answer:
        lost = self._chance.random()  # a tenth each: the request on its way, or the answer
        if lost < 0.1:
            return Answer(drop=True)
        for entry in entries:
            self.published.append(json.loads(entry["Detail"])["id"])
            for queue in self.queues:
                if entry["DetailType"] in queue.events:
                    self._add(queue, json.dumps(message(entry)), 0.0)
        found = {"Entries": [{"EventId": "e"} for _ in entries], "FailedEntryCount": 0}
        return Answer(body=json.dumps(found).encode(), drop=lost < 0.2)

    def _add(self, queue: Queue, body: str, due: float) -> None:
        self._number += 1
        queue.messages[f"handle-{self._number}"] = Message(body, due)

    def take(self, queue: Queue) -> dict[str, Message]:
        """Receive a batch; what has been received too often goes to the dead letters instead."""
        now, found = time.monotonic(), dict[str, Message]()
        with self._lock:
            for handle, one in list(queue.messages.items()):
                if one.due > now or len(found) == queue.batch:
                    continue
                if one.receives == queue.receives:
                    queue.dead.append(queue.messages.pop(handle).body)
                    continue
                one.receives += 1
                one.due, one.asked = _NEVER, None
                queue.most_receives = max(queue.most_receives, one.receives)
                found[handle] = one
        return found

    def settle(self, queue: Queue, taken: dict[str, Message], failed: set[str]) -> None:
        """Delete what is done with; the others come back when they were asked to, or late."""
        with self._lock:
            for handle, one in taken.items():
                if handle not in failed:
                    del queue.messages[handle]
                elif one.asked is None:
                    one.due = time.monotonic() + queue.visibility / SPEED
                else:
                    one.due = one.asked

    def empty(self) -> bool:
        with self._lock:
            return not any(queue.messages for queue in self.queues)


def batch(queue: Queue, taken: dict[str, Message]) -> dict[str, Any]:
    """Return the event of Lambda's poller."""
    return {
        "Records": [
            {
                "messageId": handle,
                "receiptHandle": handle,
                "body": one.body,
                "attributes": {"ApproximateReceiveCount": str(one.receives)},
                "messageAttributes": {},
                "eventSource": "aws:sqs",
                "eventSourceARN": f"{_ARN}{queue.name}",
            }
            for handle, one in taken.items()
        ]
    }


# ---- processes


def produce(event: dict[str, Any]) -> dict[str, Any]:
    """Cause an event once, as a function does: in a transaction, published after its commit."""
    from kyora.bus import outbox, seen

    try:
        with postgres.transaction() as tx:
            if seen.first_time(tx, "test_producer", event["id"]):
                given = (event["domain"], event["name"], event["data"], event["workspace"])
                outbox.add(tx, *given)
    except KyoraError as error:
        return {"failed": error.code}
    return {}


class Worker(socketserver.StreamRequestHandler):
    """Says its process id, then answers one job after the other until it is killed."""

    @override
    def handle(self) -> None:
        from kyora import config

        random.seed()  # not the parent's
        self.wfile.write(f"{os.getpid()}\n".encode())
        for line in self.rfile:
            job = json.loads(line)
            if {k: os.environ.get(k) for k in job["environ"]} != job["environ"]:
                os.environ.update(job["environ"])
                config.forget()
                postgres.close()
            if job["function"] == "produce":
                answer = produce(job["event"])
            else:
                try:
                    answer = function(job["function"]).handler(job["event"], CONTEXT)
                except KyoraError as error:  # Lambda would say that the function failed
                    answer = {"failed": error.code}
            self.wfile.write(json.dumps(answer).encode() + b"\n")


class Process:
    """A worker; `pid` while it is busy."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._file: Any = None
        self._pid = 0
        self.pid: int | None = None

    def call(self, name: str, event: dict[str, Any]) -> dict[str, Any] | None:
        """Invoke a function; None when the worker was killed meanwhile."""
        if self._file is None:
            with socket.socket(socket.AF_UNIX) as plug:
                plug.connect(self._path)
                self._file = plug.makefile("rwb")
            self._pid = int(self._file.readline())
        environ = {k: v for k, v in os.environ.items() if k != "PYTEST_CURRENT_TEST"}
        line = b""
        with suppress(OSError):
            self._file.write(
                json.dumps({"environ": environ, "function": name, "event": event}).encode() + b"\n"
            )
            self._file.flush()
            self.pid = self._pid
            line = self._file.readline()
        self.pid = None
        if not line:
            self.stop()
            return None
        found: dict[str, Any] = json.loads(line)
        return found

    def stop(self) -> None:
        if self._file is not None:
            with suppress(OSError):
                self._file.close()
            self._file = None


class Parent:
    """The process that workers are forked from."""

    def __init__(self, log: Path) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="kill")
        self.path = f"{self._folder.name}/socket"
        with log.open("ab") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.integration.support.killable", self.path],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'layers' / 'kyora'}"},
                stdout=file,
                stderr=file,
            )
        deadline = time.monotonic() + 120
        while not Path(self.path).exists():
            assert self._process.poll() is None, log.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(60)
        self._folder.cleanup()


# ---- all of it at work


class Works:
    """Threads that keep producers, the relay and consumers busy until they are stopped."""

    def __init__(self, cloud: Cloud, path: str) -> None:
        self.cloud = cloud
        self.killed = 0
        self.failed = 0  # invocations that found no database
        self._waiting: list[dict[str, Any]] = []
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._busy = 0
        self._processes: list[Process] = []
        jobs: list[Callable[[Process], bool]] = [self._produce, self._produce, self._relay]
        for queue in cloud.queues:
            workers = 3 if queue.function == "send_email" else 1
            jobs += [lambda p, q=queue: self._consume(p, q)] * workers
        self._threads = []
        for job in jobs:
            process = Process(path)
            self._processes.append(process)
            thread = threading.Thread(target=self._keep_at_it, args=(process, job))
            self._threads.append(thread)
        for thread in self._threads:
            thread.start()

    def add(self, events: Sequence[dict[str, Any]]) -> None:
        with self._lock:
            self._waiting += events

    def kill_one(self, chance: random.Random) -> bool:
        """SIGKILL a worker that is busy; False when none is, for half a second."""
        for _ in range(50):
            busy = [pid for process in self._processes if (pid := process.pid)]
            if busy:
                with suppress(ProcessLookupError):
                    os.kill(chance.choice(busy), signal.SIGKILL)
                return True
            time.sleep(0.01)
        return False

    def idle(self) -> bool:
        """Whether nothing is left to produce or to consume."""
        with self._lock:
            return not self._waiting and not self._busy and self.cloud.empty()

    def stop(self) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join(30)
        for process in self._processes:
            process.stop()

    def _keep_at_it(self, process: Process, job: Callable[[Process], bool]) -> None:
        while not self._stopped.is_set():
            if not job(process):
                time.sleep(0.02)

    def _call(self, process: Process, name: str, event: dict[str, Any]) -> dict[str, Any] | None:
        answer = process.call(name, event)
        if answer is None:
            self.killed += 1
        elif "failed" in answer:
            self.failed += 1
            time.sleep(0.05)
        return answer

    def _produce(self, process: Process) -> bool:
        with self._lock:
            if not self._waiting:
                return False
            event = self._waiting.pop(0)
            self._busy += 1
        answer = self._call(process, "produce", event)
        with self._lock:
            self._busy -= 1
            if answer is None or "failed" in answer:  # its caller does not know, and asks again
                self._waiting.append(event)
        return True

    def _relay(self, process: Process) -> bool:
        self._call(process, "relay_outbox", {})
        time.sleep(6 / SPEED)
        return True

    def _consume(self, process: Process, queue: Queue) -> bool:
        taken = self.cloud.take(queue)
        if not taken:
            return False
        with self._lock:
            self._busy += 1
        answer = self._call(process, queue.function, batch(queue, taken))
        failed = set(taken)
        if answer is not None and "failed" not in answer:
            failed = {item["itemIdentifier"] for item in answer["batchItemFailures"]}
        self.cloud.settle(queue, taken, failed)
        with self._lock:
            self._busy -= 1
        return True


@contextmanager
def faster(url: str) -> Iterator[None]:
    """Let what rows say about waits and leases come SPEED times as soon."""
    stopped, step = threading.Event(), 0.1
    open_rows = {"email_message": "ended_at IS NULL", "outbox": "published_at IS NULL"}
    waits = {"email_message": ("next_attempt_at", "lease_until"), "outbox": ("next_attempt_at",)}
    by = f"interval '{step * (SPEED - 1)} seconds'"
    statements = [
        f"UPDATE {table} SET {', '.join(f'{name} = {name} - {by}' for name in names)}"
        f" WHERE ctid = ANY(ARRAY(SELECT ctid FROM {table} WHERE {open_rows[table]}"
        " FOR UPDATE SKIP LOCKED))"
        for table, names in waits.items()
    ]

    def tick() -> None:
        while not stopped.is_set():
            with suppress(Exception), closing(connect(url, development=True)) as connection:
                while not stopped.wait(step):
                    for statement in statements:
                        connection.run(statement)
            stopped.wait(step)

    thread = threading.Thread(target=tick)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join(10)


if __name__ == "__main__":
    for each in ("send_email", "record_transaction_fee", "update_analytics", "relay_outbox"):
        function(each)
    importlib.import_module("kyora.email.resend_http")
    compile_templates()
    Forked(sys.argv[1], Worker).serve_forever()
