"""SnapStart, simulated: a process imports a function, is frozen, and wakes up as several.

fork does what the snapshot does: every module's state survives, and whatever was opened or drawn
before it would be shared by all that wake up.
"""

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kyora.bus import consume
from kyora.email import retry
from kyora.email.message import Refusal
from tests.scripted import Answer, Request, Server, scripted

ROOT = Path(__file__).parents[2]
KEYS = {
    "AccessKeyId": "AKIASNAP",
    "SecretAccessKey": "s",
    "Token": "t",
    "Expiration": "2099-01-01T00:00:00Z",
}
# Three environments wake up one after another; each handles two requests.
SCRIPT = """
import importlib.util, json, os, sys
event = json.load(sys.stdin)
spec = importlib.util.spec_from_file_location("app", event.pop("file"))
app = importlib.util.module_from_spec(spec)
spec.loader.exec_module(app)  # the snapshot is taken here

class Context:
    aws_request_id = "r"
    function_name = "f"
    def get_remaining_time_in_millis(self): return 29000

def sockets():
    links = (os.path.join("/proc/self/fd", fd) for fd in os.listdir("/proc/self/fd"))
    return [t for link in links if os.path.islink(link) and "socket" in (t := os.readlink(link))]

print(json.dumps({"opened": len(sockets())}), flush=True)
for _ in range(3):
    child = os.fork()
    if not child:
        from kyora import postgres
        for _ in range(2):
            found = app.handler(dict(event), Context())
            with postgres.transaction() as tx:
                backend = tx.row("SELECT pg_backend_pid() AS pid")["pid"]
            said = {"status": found["statusCode"], "body": json.loads(found["body"]),
                    "backend": backend, "process": os.getpid()}
            print("\\n" + json.dumps(said), flush=True)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
"""


@pytest.fixture
def addresses() -> Iterator[Server]:
    """The address that keys come from under SnapStart."""
    with scripted(lambda _: Answer(body=json.dumps(KEYS).encode())) as server:
        yield server


@pytest.fixture
def woken(
    database: str, environment: pytest.MonkeyPatch, addresses: Server
) -> list[dict[str, Any]]:
    """What each environment says of each request, after what the snapshot says."""
    environ = {k: v for k, v in os.environ.items() if not k.startswith("AWS_")} | {
        "PYTHONPATH": os.pathsep.join([str(ROOT / "layers" / "kyora"), *sys.path]),
        "AWS_LAMBDA_INITIALIZATION_TYPE": "snap-start",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{addresses.url}/credentials",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN": "word",
        "AWS_REGION": "eu-west-1",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "STORAGE_PROVIDER": "s3",
        "STORAGE_S3_BUCKET": "files",
    }
    event = {
        "file": str(ROOT / "functions" / "request_upload" / "app.py"),
        "routeKey": "POST /v1/assets/upload",
        "rawPath": "/v1/assets/upload",
        "headers": {"content-type": "application/json"},
        "isBase64Encoded": False,
        "body": json.dumps({"filename": "a.png", "contentType": "image/png", "size": 100}),
        "requestContext": {
            "requestId": "request-1",
            "http": {"method": "POST", "path": "/v1/assets/upload"},
            "authorizer": {
                "lambda": {
                    "userId": "usr_demo_admin",
                    "workspaceId": "ws_demo",
                    "role": "admin",
                    "locale": "en",
                }
            },
        },
    }
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        input=json.dumps(event),
        capture_output=True,
        text=True,
        env=environ,
        check=True,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith(('{"opened', '{"status'))]
    return [json.loads(line) for line in lines]


def test_an_environment_that_wakes_up_is_like_a_new_one(
    woken: list[dict[str, Any]], addresses: Server
) -> None:
    snapshot, *requests = woken
    assert snapshot == {"opened": 0}, "a connection in the snapshot would be everybody's"
    assert [r["status"] for r in requests] == [200] * 6, requests
    by_process: dict[int, list[dict[str, Any]]] = {}
    for request in requests:
        by_process.setdefault(request["process"], []).append(request)
    assert len(by_process) == 3
    # A new connection is made in each, and kept there.
    backends = [{r["backend"] for r in found} for found in by_process.values()]
    assert [len(found) for found in backends] == [1, 1, 1]
    assert len(set.union(*backends)) == 3
    # The keys are asked for once in each, not at every signature, and not before the snapshot.
    assert len(addresses.requests) == 3
    assert all("AKIASNAP" in request["body"]["uploadUrl"] for request in requests)
    # What is drawn at random is drawn after it.
    assert len({request["body"]["assetId"] for request in requests}) == 6


def test_the_address_is_asked_with_the_word_that_lambda_gave(
    woken: list[dict[str, Any]], addresses: Server
) -> None:
    words: set[str] = {request.headers["authorization"] for request in addresses.requests}
    assert words == {"word"}
    first: Request = addresses.requests[0]
    assert first.path == "/credentials"


def test_environments_of_one_snapshot_do_not_wait_alike() -> None:
    """They have the same state of Python's generator; Lambda's manual asks for the system's."""
    refused = retry.action(Refusal(500, "application_error"), 3)
    drawn = set()
    for _ in range(2):
        random.seed(1)
        drawn.add(retry.backoff(refused, 3, None))
        drawn.add(consume._backoff({"attributes": {"ApproximateReceiveCount": "3"}}))
    assert len(drawn) == 4
