"""A stack with the `local` storage provider on a database that is not its own, and loses it."""

import asyncio
import itertools
import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import jwt
import pytest

from local import process
from local.stack import postgres
from tests.e2e.commands import PNG
from tests.e2e.conftest import Answer, Stack, request, wait
from tests.ports import free_port

PASSWORD = "e2e-password"


class Database:
    """A PostgreSQL of the test's, which it can kill and start again."""

    def __init__(self, home: Path) -> None:
        self.home, self.port, self.runner = home, free_port(), asyncio.Runner()
        self.child: process.Child | None = None

    @property
    def url(self) -> str:
        return f"postgresql://kyora:{PASSWORD}@127.0.0.1:{self.port}/kyora"

    def start(self) -> None:
        running = postgres.run(self.home / "data", self.port, PASSWORD, self.home / "log")
        self.child = self.runner.run(running)

    def kill(self) -> None:
        assert self.child is not None
        os.kill(self.child.process.pid, signal.SIGKILL)
        self.runner.run(process.stop(self.child))

    def close(self) -> None:
        assert self.child is not None
        self.runner.run(process.stop(self.child))
        self.runner.close()


@pytest.fixture(scope="module")
def database(checkout: Path) -> Iterator[Database]:
    (checkout / "database").mkdir()
    running = Database(checkout / "database")
    running.start()
    yield running
    running.close()


@pytest.fixture(scope="module")
def second(checkout: Path, database: Database) -> Iterator[Stack]:
    variables = {
        "STORAGE_PROVIDER": "local",
        "STORAGE_LOCAL_PATH": "files",
        "DATABASE_URL": database.url,
        "DATABASE_OWNER_URL": database.url.replace("//kyora:", "//kyora_owner:"),
        "LOG_LEVEL": "DEBUG",
    }
    running = Stack(checkout, checkout / ".local" / "second", free_port(), variables)
    running.start()
    yield running
    assert running.stop() == 0


def test_the_three_commands_end_with_a_file_that_can_be_seen(second: Stack) -> None:
    for command in second.commands:
        done = subprocess.run(
            ["bash", "-c", command], capture_output=True, text=True, timeout=240, check=True
        )
    asset = json.loads(done.stdout)
    assert asset["status"] == "ready"
    assert asset["downloadUrl"].startswith(f"{second.env['KYORA_URL']}/_local/storage/")
    assert request("GET", asset["downloadUrl"]).body == PNG
    assert PNG in [
        path.read_bytes() for path in second.checkout.glob("files/assets/**/*") if path.is_file()
    ]


def test_configuration_in_the_environment_reaches_the_functions(second: Stack) -> None:
    functions = json.loads((second.home / "functions.json").read_text())
    assert functions["RequestUploadFunction"]["LOG_LEVEL"] == "DEBUG"
    assert functions["RequestUploadFunction"]["STORAGE_PROVIDER"] == "local"
    assert second.env["DATABASE_URL"].endswith("/kyora")


def test_a_signed_url_takes_one_put_of_what_was_signed(second: Stack) -> None:
    wanted = {"filename": "a.png", "contentType": "image/png", "size": len(PNG)}
    ticket = second.call("POST", "/v1/assets/upload", wanted).json
    url, headers = ticket["uploadUrl"], ticket["headers"]
    assert request("PUT", url, PNG + b"more", headers).problem == "storage.signature_invalid"
    assert request("PUT", url, PNG, headers | {"Content-Type": "text/html"}).status == 403
    assert request("PUT", url.replace("signature=", "signature=0"), PNG, headers).status == 403
    assert request("PUT", url, PNG, headers).status == 200
    assert request("PUT", url, PNG, headers).status == 412


def test_without_its_database_the_service_says_503_and_comes_back_automatically(
    second: Stack, database: Database
) -> None:
    kept = second.upload(PNG)
    answers: list[tuple[str, Answer]] = []
    stopping = threading.Event()
    questions = _questions(second, kept["assetId"])
    threads = [
        threading.Thread(target=_keep_asking, args=(name, ask, answers, stopping))
        for name, ask in questions.items()
    ]

    def everyone_got(status: int, since: int) -> bool:
        return {name for name, a in answers[since:] if a.status == status} == questions.keys()

    for thread in threads:
        thread.start()
    try:
        wait(lambda: everyone_got(200, 0), 120, "a 200 for every client")
        database.kill()
        gone = len(answers)
        wait(lambda: everyone_got(503, gone), 120)
        assert everyone_got(503, gone)
        database.start()
        back = len(answers)
        wait(lambda: everyone_got(200, back), 120)
        assert everyone_got(200, back)
    finally:
        stopping.set()
        for thread in threads:
            thread.join(150)
    for name, answer in answers:
        assert answer.status in {200, 503}, (name, answer)
        if answer.status == 503:
            assert answer.problem
            assert int(answer.headers["retry-after"]) > 0
    # What was promised with a 200 is there.
    promised = [a.json["assetId"] for n, a in answers if n == "upload" and a.status == 200]
    rows = postgres.query(database.url, "select id from asset")
    assert {kept["assetId"], *promised} <= {row[0] for row in rows}
    assert second.upload(PNG)["status"] == "ready"


def _questions(stack: Stack, asset: str) -> dict[str, Callable[[], Answer]]:
    wanted = {"filename": "a.png", "contentType": "image/png", "size": len(PNG)}
    numbers = itertools.count()

    def fresh() -> str:
        # A token that the authorizer's cache has not seen: it needs the database, too.
        env = stack.env
        claims = jwt.decode(env["KYORA_TOKEN"], options={"verify_signature": False})
        return jwt.encode(claims | {"jti": str(next(numbers))}, env["AUTH_JWT_SECRET"], "HS256")

    return {
        "health": lambda: stack.call("GET", "/v1/health", token=None),
        "upload": lambda: stack.call("POST", "/v1/assets/upload", wanted),
        "asset": lambda: stack.call("GET", f"/v1/assets/{asset}"),
        "new token": lambda: stack.call("GET", f"/v1/assets/{asset}", token=fresh()),
    }


def _keep_asking(
    name: str,
    ask: Callable[[], Answer],
    answers: list[tuple[str, Answer]],
    stopping: threading.Event,
) -> None:
    while not stopping.is_set():
        answers.append((name, ask()))
        stopping.wait(0.05)
