"""One contract, two providers: the mock keeps what Resend would, and Resend's own SDK agrees.

The same cases run on the mock and on Resend's SDK, as we use it, against the fake.
"""

import io
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from copy import replace
from dataclasses import dataclass

import pytest

from kyora import config
from kyora.config import Email
from kyora.email import mock, resend_http
from kyora.email import resend as client
from kyora.email.message import Message, Refusal, params, payload
from kyora.email.provider import Provider, configured
from kyora.errors import ConfigError
from tests.fake_resend import API_KEY, FakeResend, Fault
from tests.integration.support import invariants, mail_queue
from tests.resend_types import faults
from tests.scripted import Answer, Request, in_turn, scripted

MESSAGE = Message(
    recipient="dana@example.com",
    sender='"Kyora كيورا" <hello@kyora.example>',
    subject='مرحبا 🎉, it\'s "you"',
    html="<p>مرحبا &amp; welcome</p>",
    text="مرحبا & welcome",
    reply_to="support@kyora.example",
    tags={"message_id": "eml_1", "template": "welcome", "locale": "ar", "env": "test"},
)


@dataclass
class Box:
    """A provider and the mailbox behind it."""

    provider: Provider
    kept: Callable[[], list[tuple[str, str]]]  # (id, key)
    a_day_passes: Callable[[], object]
    fail: Callable[..., object]


@pytest.fixture(params=["mock", "resend"])
def box(
    request: pytest.FixtureRequest, resend: FakeResend, environment: pytest.MonkeyPatch
) -> Iterator[Box]:
    environment.setenv("EMAIL_PROVIDER", request.param)
    config.forget()
    if request.param == "mock":
        yield Box(
            configured(),
            lambda: [
                (row["id"], row["idempotency_key"])
                for row in invariants.rows("SELECT * FROM mock_mailbox ORDER BY created_at, id")
            ],
            lambda: invariants.run(
                "UPDATE mock_mailbox SET created_at = created_at - interval '24 hours'"
            ),
            mock.fail,
        )
        return
    client._paused_until.clear()
    days = [0.0]
    resend.clock = lambda: time.time() + days[0]

    def fail(
        status: int, name: str = "", *, retry_after: float | None = None, accepted: bool = False
    ) -> None:
        left = [Fault(status, name, accepted, retry_after=str(retry_after or ""))]
        resend.faults = lambda key, nth: left.pop() if left else None

    yield Box(
        configured(),
        lambda: [(delivery.id, delivery.key) for delivery in resend.deliveries],
        lambda: days.__setitem__(0, days[0] + 86_400),
        fail,
    )


def test_a_message_is_kept_under_its_key(box: Box) -> None:
    first = box.provider.send(MESSAGE, "key-1")
    again = box.provider.send(MESSAGE, "key-1")
    other = box.provider.send(MESSAGE, "key-2")
    assert first == again != other
    assert box.kept() == [(first.id, "key-1"), (other.id, "key-2")]


@pytest.mark.parametrize(
    "change",
    [{"subject": "Another"}, {"html": "<p>x</p>"}, {"recipient": "eve@example.com"}, {"tags": {}}],
)
def test_a_key_stands_for_one_message(box: Box, change: dict[str, object]) -> None:
    box.provider.send(MESSAGE, "key-1")
    with pytest.raises(Refusal) as refused:
        box.provider.send(replace(MESSAGE, **change), "key-1")  # type: ignore[arg-type]
    assert (refused.value.status, refused.value.name) == (409, "invalid_idempotent_request")
    assert len(box.kept()) == 1


def test_a_key_is_forgotten_after_a_day(box: Box) -> None:
    first = box.provider.send(MESSAGE, "key-1")
    box.a_day_passes()
    second = box.provider.send(MESSAGE, "key-1")
    assert first != second
    assert len(box.kept()) == 2
    assert box.provider.send(MESSAGE, "key-1") == second


@pytest.mark.parametrize(
    ("change", "key", "status", "name"),
    [
        ({}, "", 400, "invalid_idempotency_key"),
        ({}, "k" * 257, 400, "invalid_idempotency_key"),
        ({}, "clé", 400, "invalid_idempotency_key"),
        ({"recipient": ""}, "k", 422, "missing_required_field"),
        ({"subject": ""}, "k", 422, "missing_required_field"),
        ({"subject": "a\r\nBcc: eve@example.com"}, "k", 422, "validation_error"),
        ({"sender": "Kyora\n <a@b.example>"}, "k", 422, "validation_error"),
        ({"tags": {"a b": "c"}}, "k", 422, "validation_error"),
    ],
)
def test_what_resend_would_refuse_is_refused(
    box: Box, change: dict[str, object], key: str, status: int, name: str
) -> None:
    with pytest.raises(Refusal) as refused:
        box.provider.send(replace(MESSAGE, **change), key)  # type: ignore[arg-type]
    assert (refused.value.status, refused.value.name) == (status, name)
    assert box.kept() == []


def test_the_longest_key_is_taken(box: Box) -> None:
    assert box.provider.send(MESSAGE, "k" * 256)


def test_a_failure_can_be_asked_for(box: Box) -> None:
    box.fail(429, "rate_limit_exceeded", retry_after=7)
    with pytest.raises(Refusal) as refused:
        box.provider.send(MESSAGE, "key-1")
    assert (refused.value.status, refused.value.name) == (429, "rate_limit_exceeded")
    assert refused.value.retry_after == 7
    assert box.kept() == []
    assert box.provider.send(MESSAGE, "key-1")


def test_a_failure_may_hide_a_success(box: Box) -> None:
    box.fail(500, "application_error", accepted=True)
    with pytest.raises(Refusal):
        box.provider.send(MESSAGE, "key-1")
    ((kept, _),) = box.kept()
    assert box.provider.send(MESSAGE, "key-1").id == kept
    assert len(box.kept()) == 1


# ---- the mock


def test_the_mock_logs_one_masked_line(database: str, mail_logs: io.StringIO) -> None:
    mock.Mock().send(MESSAGE, "key-1")
    (line,) = [json.loads(line) for line in mail_logs.getvalue().splitlines()]
    assert line["to"] == "d***@e***.com"
    assert "welcome" in line["template"]
    assert MESSAGE.text not in str(line)
    (row,) = invariants.rows("SELECT * FROM mock_mailbox")
    assert (row["html"], row["text"], row["subject"]) == (
        MESSAGE.html,
        MESSAGE.text,
        MESSAGE.subject,
    )
    assert (row["recipient"], row["sender"]) == (MESSAGE.recipient, MESSAGE.sender)


def test_the_mock_is_refused_in_production(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("STAGE", "prod")
    environment.setenv("EMAIL_PROVIDER", "mock")
    config.forget()
    with pytest.raises(ValueError, match="mock"):
        mock.Mock()
    with pytest.raises(ConfigError) as refused:
        configured()
    assert "EMAIL_PROVIDER=mock is refused in prod" in refused.value.faults


# ---- our client


@pytest.fixture(autouse=True)
def connections() -> Iterator[None]:
    client._paused_until.clear()
    yield
    while resend_http._connections:
        resend_http._connections.popitem()[1].close()


def provider(url: str) -> client.Resend:
    sender = "hello@kyora.test"
    return client.Resend(Email("resend", sender, "Kyora", sender, "", API_KEY, url))


def test_the_request_is_the_one_that_the_sdk_makes_over_its_own_client(resend: FakeResend) -> None:
    import resend as sdk

    ours = provider(resend.url).send(MESSAGE, "key-1")
    sdk.default_http_client = sdk.RequestsClient()
    theirs = sdk.Emails.send(params(MESSAGE), {"idempotency_key": "key-1"})
    assert theirs["id"] == ours.id, "the fake takes both for the same message"
    mine, its = resend.server.requests
    assert (mine.method, mine.path) == (its.method, its.path)
    assert json.loads(mine.body) == json.loads(its.body)
    assert mine.body == payload(MESSAGE), "what the row keeps the digest of"
    for name in ("authorization", "content-type", "idempotency-key", "user-agent", "accept"):
        assert mine.headers[name].partition(";")[0] == its.headers[name].partition(";")[0]


def test_the_request_has_what_the_sdks_types_have_and_nothing_else() -> None:
    import resend as sdk

    for message in (MESSAGE, replace(MESSAGE, reply_to="", tags={})):
        assert faults(params(message), sdk.Emails.SendParams) == []


def test_the_base_url_is_honoured() -> None:
    with scripted(in_turn(Answer(body=b'{"id": "there"}'))) as server:
        assert provider(f"{server.url}/proxy/resend").send(MESSAGE, "k").id == "there"
        assert server.requests[0].path == "/proxy/resend/emails"


def test_a_connection_that_went_stale_is_replaced() -> None:
    # The server hangs up after each answer without having said so.
    with scripted(in_turn(Answer(body=b'{"id": "x"}', close=True))) as server:
        sending = provider(server.url)
        for _ in range(3):
            sending.send(MESSAGE, "k")
            time.sleep(0.02)
        assert server.connections == 3
        assert len(server.requests) == 3


def test_a_server_that_ends_the_connection_is_believed() -> None:
    answer = Answer(body=b'{"id": "x"}', headers={"Connection": "close"}, close=True)
    with scripted(in_turn(answer)) as server:
        provider(server.url).send(MESSAGE, "k")
        assert resend_http._connections == {}


def drip(connection: socket.socket, data: bytes) -> None:
    """Send a byte now and then, until the client has had enough."""
    with suppress(OSError):
        for byte in data:
            connection.sendall(bytes([byte]))
            time.sleep(0.05)


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
over = threading.Event()  # the client has had enough
SLOW: dict[str, Callable[[socket.socket], object]] = {
    "never reads": lambda c: over.wait(60),
    "never answers": lambda c: drip(c, c.recv(1 << 20)[:0]),
    "drips its status": lambda c: (c.recv(1 << 20), drip(c, HEAD * 10))[1],
    "drips headers": lambda c: (c.recv(1 << 20), c.sendall(HEAD), drip(c, b"X: y\r\n" * 50))[2],
    "drips its body": lambda c: (
        c.recv(1 << 20),
        c.sendall(HEAD + b"Content-Length: 400\r\n\r\n"),
        drip(c, b" " * 400),
    )[2],
}


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("case", SLOW)
def test_one_deadline_holds_however_the_answer_drips(
    case: str, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A time-out of the socket's starts at each read: a byte a second was waited for for ever."""
    monkeypatch.setattr(client, "DEADLINE", 0.5)
    over.clear()
    large = replace(MESSAGE, html="<p>x</p>" * 2_000_000)  # more than the sockets hold
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                SLOW[case](connection)

        serving = threading.Thread(target=serve, daemon=True)
        serving.start()
        sending = provider(f"{scheme}://127.0.0.1:{server.getsockname()[1]}")
        started = time.monotonic()
        with pytest.raises(Refusal) as refused:
            sending.send(large if case == "never reads" else MESSAGE, "k")
        assert time.monotonic() - started < 10  # each would go on for longer
        over.set()
    assert (refused.value.status, refused.value.name) == (0, "no_answer")
    serving.join(60)


def test_a_request_that_timed_out_is_not_made_again() -> None:
    """It may have been taken: SQS asks again, under the same key."""
    given_up = threading.Event()

    def answer(_: Request) -> Answer:
        if len(server.requests) > 1:
            given_up.wait(60)
        return Answer(body=b'{"id": "x"}')

    with scripted(answer) as server, pytest.MonkeyPatch.context() as patch:
        sending = provider(server.url)
        sending.send(MESSAGE, "k")
        patch.setattr(client, "DEADLINE", 0.3)
        with pytest.raises(Refusal):
            sending.send(MESSAGE, "k")
        given_up.set()
        assert len(server.requests) == 2


def test_a_key_that_is_renewed_gets_no_deadline_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client, "DEADLINE", 0.5)
    monkeypatch.setattr(client.Resend, "_renewed", lambda self: True)
    with scripted(in_turn(Answer(401, b"{}", delay=0.3))) as server:
        with pytest.raises(Refusal) as refused:
            provider(server.url).send(MESSAGE, "k")
        assert refused.value.name == "no_answer"  # with another 0.5 s the second 401 would come


def test_no_one_at_the_address_is_no_answer() -> None:
    for url in ("http://127.0.0.1:9", "http://nowhere.invalid"):
        with pytest.raises(Refusal) as refused:
            provider(url).send(MESSAGE, "k")
        assert refused.value.name == "no_answer"


@pytest.mark.parametrize(
    "answer",
    [
        Answer(body=b"{}"),
        Answer(body=b"null"),
        Answer(body=b""),
        Answer(body=b"<html>"),
        Answer(body=b'{"id": ""}'),
        Answer(body=b'{"id": 7}'),
        Answer(body=b"\xff\xfe"),
        Answer(202, b'{"status": "queued"}'),
        Answer(204, b""),
    ],
)
def test_a_success_without_an_id_is_no_success(answer: Answer) -> None:
    with scripted(in_turn(answer)) as server:
        with pytest.raises(Refusal) as refused:
            provider(server.url).send(MESSAGE, "k")
        assert (refused.value.status, refused.value.name) == (0, "no_id")


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("5", 5.0),
        ("0.25", 0.25),
        ("-3", 0.0),
        ("nan", None),
        ("inf", 86_400.0),
        ("soon", None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        ("Fri, 31 Dec 2100 23:59:59 GMT", 86_400.0),
    ],
)
def test_retry_after_is_read_as_http_allows(header: str, seconds: float | None) -> None:
    with scripted(in_turn(Answer(429, b"{}", {"Retry-After": header}))) as server:
        with pytest.raises(Refusal) as refused:
            provider(server.url).send(MESSAGE, "k")
        assert refused.value.retry_after == seconds


def test_a_refusal_in_other_words_is_still_one() -> None:
    body = json.dumps({"name": "drop table; --", "message": "x" * 5000}).encode()
    with scripted(in_turn(Answer(422, body))) as server:
        with pytest.raises(Refusal) as refused:
            provider(server.url).send(MESSAGE, "k")
        assert (refused.value.status, refused.value.name) == (422, "")
        assert len(refused.value.message) == 300


def test_the_key_of_the_api_is_in_no_error() -> None:
    with pytest.raises(Refusal) as refused:
        provider("http://127.0.0.1:9").send(MESSAGE, "k")
    assert API_KEY not in repr(refused.value.__dict__) + str(refused.value)


def test_nothing_that_is_not_needed_is_imported() -> None:
    """Neither the SDK nor requests, and Jinja not for a webhook."""
    code = (
        "import sys; from tests.unit.functions import function; function({!r});"
        "print(*(sys.modules.keys() & {{'resend', 'requests', 'urllib3', 'boto3', 'httpx',"
        " 'jinja2', 'kyora.email.resend'}}))"
    )
    for name in ("send_email", "resend_webhook", "request_upload"):
        run = subprocess.run(
            [sys.executable, "-c", code.format(name)],
            capture_output=True,
            text=True,
            cwd=mail_queue.ROOT,
            env=os.environ
            | {"PYTHONPATH": f"{mail_queue.ROOT}:{mail_queue.ROOT / 'layers' / 'kyora'}"},
            check=True,
        )
        assert run.stdout.split() == [], name
