"""The queue of send_email as SQS behaves, its workers as Lambda runs them, and events for it.

The workers are processes forked from one that has everything imported. One that has to crash
ends with `os._exit`, as an out-of-memory kill would end it: before the send or right after it.
"""

import importlib
import itertools
import json
import os
import random
import re
import socket
import socketserver
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, override

from kyora import postgres
from tests import events
from tests.fake_resend import API_KEY
from tests.scripted import Answer, Request, Server
from tests.unit.functions import CONTEXT, function

ROOT = Path(__file__).resolve().parents[3]
QUEUE = "arn:aws:sqs:eu-west-1:000000000000:kyora-test-send-email"
DEAD = "arn:aws:sqs:eu-west-1:000000000000:kyora-test-send-email-dlq"
WEBHOOK_SECRET = "whsec_" + "a2V5LW9mLWF0LWxlYXN0LTE2LWJ5dGVz"
TOKEN = "tok_3f9a-secret+token/=="
# What no log line may hold: an unmasked address, a token, a link, a key.
LEAK = re.compile(r"[\w.+-]+@[\w-]+\.\w|tok_|token=|https?://(?!127)|re_test_|whsec_\w|Bearer")
ENVIRONMENT = {
    "EMAIL_PROVIDER": "resend",
    "EMAIL_RESEND_API_KEY": API_KEY,
    "EMAIL_FROM_EMAIL": "hello@kyora.example",
    "EMAIL_FROM_NAME": "Kyora",
    "EMAIL_SUPPORT_EMAIL": "support@kyora.example",
    "EMAIL_RESEND_WEBHOOK_SECRET": WEBHOOK_SECRET,
}
_numbers = itertools.count(1)


# ---- events


def detail(
    data: Mapping[str, object],
    *,
    event_id: str = "",
    workspace: str | None = None,
    age: float = 0.0,
) -> dict[str, Any]:
    """Return an envelope; `age` is in seconds."""
    found: dict[str, Any] = {
        "id": event_id or f"evt_{next(_numbers):026}",
        "occurredAt": (datetime.now(UTC) - timedelta(seconds=age)).isoformat(),
        "version": 1,
        "correlationId": "request-0123456789",
        "data": dict(data),
    }
    return found | ({"workspaceId": workspace} if workspace else {})


def verification(email: str = "dana@example.com", **options: Any) -> tuple[str, dict[str, Any]]:
    data = {"email": email, "name": "Dana", "token": TOKEN, "locale": "en"}
    return "EmailVerificationRequested", detail(data, **options)


def record(name: str, envelope: Mapping[str, Any]) -> dict[str, Any]:
    """Return an SQS record that holds an event as EventBridge delivers it."""
    return carried(json.dumps({"detail-type": name, "source": "kyora.test", "detail": envelope}))


def carried(body: str) -> dict[str, Any]:
    return events.sqs_message(body, queue=QUEUE)


def deliver(*records: Mapping[str, Any]) -> list[str]:
    """Call send_email in this process; return the bodies that it leaves to the queue."""
    answer = function("send_email").handler({"Records": list(records)}, CONTEXT)
    failed = {item["itemIdentifier"] for item in answer["batchItemFailures"]}
    return [record["body"] for record in records if record["messageId"] in failed]


def message(event_id: str) -> dict[str, Any]:
    """Return the one message of an event."""
    with postgres.transaction() as tx:
        (found,) = tx.rows("SELECT * FROM email_message WHERE event_id = :id", id=event_id)
    return found


def elsewhere(name: str, event: Mapping[str, Any]) -> dict[str, Any]:
    """Call a function in a process of its own, while this one is in the middle of something."""
    code = (
        "import json, sys\nfrom tests.unit.functions import CONTEXT, function\n"
        f"answer = function({name!r}).handler(json.load(sys.stdin), CONTEXT)\n"
        "print(json.dumps(answer))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps(event),
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=_environ(),
        check=True,
    )
    found: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return found


def _environ() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'layers' / 'kyora'}"}


# ---- the queue


class Queue:
    """SQS's API as far as a consumer uses it, over HTTP; delays are kept, not waited for."""

    def __init__(self) -> None:
        self.again: list[tuple[float, str]] = []
        self.dead: list[tuple[str, str]] = []
        self._lock = threading.Lock()
        self.server: Server

    def __call__(self, request: Request) -> Answer:
        operation = request.headers["x-amz-target"].partition(".")[2]
        given = json.loads(request.body)
        name = given["QueueUrl"].rpartition("/")[2]
        if operation == "GetQueueAttributes":
            policy = json.dumps({"deadLetterTargetArn": DEAD, "maxReceiveCount": 8})
            return Answer(body=json.dumps({"Attributes": {"RedrivePolicy": policy}}).encode())
        with self._lock:
            if operation == "SendMessage" and DEAD.endswith(name):
                reason = given["MessageAttributes"]["Reason"]["StringValue"]
                self.dead.append((reason, given["MessageBody"]))
            elif operation == "SendMessage":
                self.again.append((given.get("DelaySeconds", 0), given["MessageBody"]))
        return Answer()

    def take(self) -> list[tuple[float, str]]:
        with self._lock:
            found, self.again = self.again, []
            return found


@contextmanager
def queue() -> Iterator[Queue]:
    made = Queue()
    made.server = Server(made)
    try:
        yield made
    finally:
        made.server.stop()


# ---- the workers


class Forked(socketserver.ForkingMixIn, socketserver.UnixStreamServer):
    """A process for each connection, with everything imported before it is forked."""

    max_children = 64
    request_queue_size = 64

    def __init__(self, path: str, worker: type[socketserver.BaseRequestHandler]) -> None:
        """Listen at `path`, which is there only when the server listens."""
        super().__init__(f"{path}.new", worker)
        Path(f"{path}.new").rename(path)


class Worker(socketserver.StreamRequestHandler):
    """Takes batches as lines of JSON until it crashes or its connection ends."""

    @override
    def handle(self) -> None:
        from kyora import config

        random.seed()  # not the parent's
        for line in self.rfile:
            job = json.loads(line)
            if {k: os.environ.get(k) for k in job["environ"]} != job["environ"]:
                os.environ.update(job["environ"])
                config.forget()
                postgres.close()
            with _crash(job.get("crash", "")):
                answer = function("send_email").handler({"Records": job["records"]}, CONTEXT)
            self.wfile.write(json.dumps(answer).encode() + b"\n")


def compile_templates() -> None:
    """Import what writes mails and compile all of them: each worker that takes over would."""
    from kyora.email.mails.catalogue import LOCALES
    from kyora.email.render import environment

    for kind, locale in itertools.product(("html", "text"), LOCALES):
        made = environment(kind, locale)
        for name in made.list_templates():
            made.get_template(name)


@contextmanager
def _crash(where: str) -> Iterator[None]:
    """Die before or after the next send; a job that sends nothing leaves the worker as it was."""
    from kyora.email import resend

    real = resend.Resend.send

    def dying(self: resend.Resend, *given: Any) -> Any:
        if where == "before":
            os._exit(70)
        real(self, *given)
        os._exit(70)

    try:
        if where:
            setattr(resend.Resend, "send", dying)  # noqa: B010
        yield
    finally:
        setattr(resend.Resend, "send", real)  # noqa: B010


class Workers:
    """So many connections to forked workers; `call` hands one of them a batch."""

    def __init__(self, size: int, log: Path) -> None:
        self.size = size
        self._folder = tempfile.TemporaryDirectory(prefix="post")
        self._path = f"{self._folder.name}/socket"
        with log.open("ab") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.integration.support.mail_queue", self._path],
                cwd=ROOT,
                env=_environ(),
                stdout=file,
                stderr=file,
            )
        self._files: dict[int, Any] = {}
        deadline = time.monotonic() + 120
        while not Path(self._path).exists():
            assert self._process.poll() is None, "the workers' parent did not start"
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def call(
        self, number: int, records: Sequence[Mapping[str, Any]], *, crash: str = ""
    ) -> set[str] | None:
        """Return the bodies to be delivered again; None when the worker died."""
        if number not in self._files:
            with socket.socket(socket.AF_UNIX) as plug:
                plug.connect(self._path)
                self._files[number] = plug.makefile("rwb")
        job = {"environ": dict(os.environ), "records": records, "crash": crash}
        file = self._files[number]
        line = b""
        with suppress(OSError):
            file.write(json.dumps(job).encode() + b"\n")
            file.flush()
            line = file.readline()
        if not line:
            self._files.pop(number).close()
            return None
        failed = {item["itemIdentifier"] for item in json.loads(line)["batchItemFailures"]}
        return {record["body"] for record in records if record["messageId"] in failed}

    def stop(self) -> None:
        for file in self._files.values():
            with suppress(OSError):
                file.close()
        self._process.terminate()
        self._process.wait(60)
        self._folder.cleanup()


class Office:
    """Delivers bodies until all of them are done with, on all workers at once.

    Time passes quickly here: what is due later is delivered at the next look, and its row is
    set as if the time had passed. A worker that dies has its messages delivered again.
    """

    def __init__(
        self,
        workers: Workers,
        post: Queue,
        chance: Callable[[], str] = lambda: "",
        *,
        batch: int = 5,
    ) -> None:
        self._workers, self._post, self._chance, self._batch = workers, post, chance, batch
        self._bodies: list[str] = []
        self._busy = 0
        self._lock = threading.Condition()
        self.crashes = 0
        self.batches = 0

    def run(self, bodies: Sequence[str], *, seconds: float = 240) -> None:
        self._bodies = list(bodies)
        deadline = time.monotonic() + seconds
        threads = [
            threading.Thread(target=self._serve, args=(n,)) for n in range(self._workers.size)
        ]
        for thread in threads:
            thread.start()
        while True:
            waiting = [body for _, body in self._post.take()]
            if waiting:
                pass_time()
            with self._lock:
                self._bodies += waiting
                self._lock.notify_all()
                if not (self._bodies or self._busy or waiting or self._post.again):
                    break
            assert time.monotonic() < deadline, f"{len(self._bodies)} left"
            time.sleep(0.02)
        with self._lock:
            self._busy = -1
            self._lock.notify_all()
        for thread in threads:
            thread.join()

    def _serve(self, number: int) -> None:
        while True:
            with self._lock:
                while not self._bodies and self._busy >= 0:
                    self._lock.wait()
                if self._busy < 0:
                    return
                taken, self._bodies = self._bodies[: self._batch], self._bodies[self._batch :]
                self._busy += 1
                self.batches += 1
            crash = self._chance()
            again = self._workers.call(number, [carried(body) for body in taken], crash=crash)
            if again is None:
                self.crashes += 1
                again = set(taken)
                expire_leases()
            with self._lock:
                self._busy -= 1
                self._bodies += again
                self._lock.notify_all()


def pass_time() -> None:
    """Let everything that waits for its next attempt be due."""
    _alone("UPDATE email_message SET next_attempt_at = now() WHERE status = 'queued'")


def expire_leases() -> None:
    """Let every lease be over: also those of workers that are merely slow."""
    _alone("UPDATE email_message SET lease_until = now() WHERE status = 'sending'")


def expire_leases_elsewhere() -> None:
    """The same from another thread than the one whose connection is kept."""
    _over_a_connection_of_its_own(
        "UPDATE email_message SET lease_until = now() WHERE status = 'sending'"
    )


def disconnect_everyone() -> None:
    """End every connection to this database, as a fail-over does."""
    _over_a_connection_of_its_own(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )


def _over_a_connection_of_its_own(sql: str) -> None:
    connection = postgres.connection.connect(os.environ["DATABASE_URL"], development=True)
    connection.run(sql)
    connection.close()


_connection_lock = threading.Lock()


def _alone(sql: str) -> None:
    # The kept connection of this process is one, and several threads come here.
    with _connection_lock, postgres.transaction() as tx:
        tx.run(sql)


if __name__ == "__main__":
    function("send_email")
    importlib.import_module("kyora.email.resend_http")
    compile_templates()
    Forked(sys.argv[1], Worker).serve_forever()
