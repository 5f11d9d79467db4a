"""Our SigV4 signer is held against botocore's, our two calls against a server with a script."""

import io
import json
import logging
import re
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

import botocore.auth
import botocore.credentials
import pytest
from botocore.awsrequest import AWSRequest
from hypothesis import given, settings
from hypothesis import strategies as st

from kyora import aws, timed_http, tls
from kyora.aws import AwsError, Credentials
from kyora.errors import Unavailable
from tests.scripted import Answer, Request, in_turn, scripted

NOW = datetime(2026, 11, 23, 8, 0, 5, tzinfo=UTC)
SECRET_KEY = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"

TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20)
KEYS = st.lists(TEXT.filter(lambda part: part not in (".", "..")), min_size=1, max_size=4).map(
    "/".join
)
HEADER_VALUES = st.text(
    st.characters(min_codepoint=0x20, max_codepoint=0x7E) | st.just(" "), min_size=1, max_size=40
).filter(lambda value: value.strip() != "")
HEADERS = st.dictionaries(
    st.sampled_from(
        ["Content-Type", "Content-Length", "If-None-Match", "x-amz-checksum-sha256", "X-Amz-Meta-A"]
    ),
    HEADER_VALUES,
)
QUERIES = st.dictionaries(
    st.sampled_from(["response-content-type", "response-content-disposition", "versionId"]), TEXT
)
KEY_PARTS = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=30)
CREDENTIALS = st.builds(
    Credentials,
    KEY_PARTS,
    st.text(st.characters(codec="ascii", min_codepoint=0x21), min_size=1, max_size=60),
    st.one_of(st.just(""), st.text("ABab01+/=", min_size=1, max_size=80)),
)


@pytest.fixture(autouse=True)
def fresh(environment: pytest.MonkeyPatch) -> Iterator[None]:
    hang_up()
    yield
    hang_up()


def hang_up() -> None:
    aws._refreshing.cache_clear()
    while aws._connections:
        aws._connections.popitem()[1].close()


def botocore_credentials(found: Credentials) -> botocore.credentials.Credentials:
    return botocore.credentials.Credentials(found.access_key, found.secret_key, found.token or None)


def pin_botocores_clock(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(botocore.auth, "get_current_datetime", lambda *a, **k: NOW.replace(tzinfo=None))


@settings(max_examples=150)
@given(
    method=st.sampled_from(["PUT", "GET"]),
    key=KEYS,
    credentials=CREDENTIALS,
    headers=HEADERS,
    query=QUERIES,
    region=st.sampled_from(["eu-west-1", "us-east-1", "me-central-1"]),
    expires=st.integers(1, 604_800),
    host=st.sampled_from(["b.s3.eu-west-1.amazonaws.com", "127.0.0.1:4566", "store.example:9000"]),
)
def test_a_presigned_url_is_botocores_own(
    method: str,
    key: str,
    credentials: Credentials,
    headers: dict[str, str],
    query: dict[str, str],
    region: str,
    expires: int,
    host: str,
) -> None:
    url = f"https://{host}/{quote(key)}"
    ours = aws.presign(
        method,
        url,
        credentials=credentials,
        region=region,
        expires=expires,
        headers=headers,
        query=query,
        now=NOW,
    )
    request = AWSRequest(method=method, url=url, headers=headers, params=query)
    with pytest.MonkeyPatch.context() as patch:
        pin_botocores_clock(patch)
        botocore.auth.S3SigV4QueryAuth(
            botocore_credentials(credentials), "s3", region, expires
        ).add_auth(request)

    mine, theirs = urlsplit(ours), urlsplit(request.url)
    assert mine.path == theirs.path
    assert parse_qs(mine.query, strict_parsing=True) == parse_qs(theirs.query, strict_parsing=True)


def test_every_given_header_is_bound_by_the_url() -> None:
    url = aws.presign(
        "PUT",
        "https://b.example/incoming/ws/a",
        credentials=Credentials("AKIA", SECRET_KEY),
        region="eu-west-1",
        expires=600,
        headers={
            "Content-Type": "image/png",
            "Content-Length": "10",
            "If-None-Match": "*",
            "x-amz-checksum-sha256": "abc",
        },
    )
    assert parse_qs(urlsplit(url).query)["X-Amz-SignedHeaders"] == [
        "content-length;content-type;host;if-none-match;x-amz-checksum-sha256"
    ]
    assert SECRET_KEY not in url


@settings(max_examples=100)
@given(
    body=st.binary(max_size=200),
    credentials=CREDENTIALS,
    region=st.sampled_from(["eu-west-1", "us-east-1"]),
    service=st.sampled_from(["secretsmanager", "events"]),
    url=st.sampled_from(
        ["https://events.eu-west-1.amazonaws.com", "http://127.0.0.1:4566", "https://x.test/"]
    ),
)
def test_signed_headers_are_botocores_own(
    body: bytes, credentials: Credentials, region: str, service: str, url: str
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        pin_botocores_clock(patch)
        patch.setattr(aws, "_stamp", lambda now: "20261123T080005Z")
        ours = aws.sign("POST", url, body, service=service, region=region, credentials=credentials)
        request = AWSRequest(method="POST", url=url, data=body)
        botocore.auth.SigV4Auth(botocore_credentials(credentials), service, region).add_auth(
            request
        )
    assert ours["authorization"] == request.headers["Authorization"]
    assert ours["x-amz-date"] == request.headers["X-Amz-Date"]
    assert ours.get("x-amz-security-token", "") == request.headers.get("X-Amz-Security-Token", "")


def test_a_call_names_its_operation_and_is_signed_for_its_service(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "session")
    with scripted(in_turn(Answer(body=b'{"SecretString": "s3cret"}'))) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        assert aws.secret("arn:aws:secretsmanager:eu-west-1:1:secret:x") == "s3cret"
    (request,) = server.requests
    assert request.headers["x-amz-target"] == "secretsmanager.GetSecretValue"
    assert request.headers["content-type"] == "application/x-amz-json-1.1"
    assert request.headers["x-amz-security-token"] == "session"
    assert "/eu-west-1/secretsmanager/aws4_request" in request.headers["authorization"]
    assert json.loads(request.body) == {"SecretId": "arn:aws:secretsmanager:eu-west-1:1:secret:x"}


FAULTS = {
    "an internal error": Answer(500, b'{"__type": "InternalServiceError"}'),
    "a bad gateway in HTML": Answer(502, b"<html>Bad gateway</html>"),
    "throttling": Answer(400, b'{"__type": "com.amazonaws#ThrottlingException"}'),
    "a dropped connection": Answer(drop=True),
    "an answer that is no JSON": Answer(200, b"<html>a proxy's page</html>"),
    "an answer that is no object": Answer(200, b"[1]"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_passing_fault_is_tried_again(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with scripted(in_turn(FAULTS[fault], Answer(body=b'{"ok": true}'))) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        assert aws.call("events", "PutEvents", {}) == {"ok": True}
    assert len(server.requests) == 2


@pytest.mark.parametrize("fault", FAULTS)
def test_a_lasting_fault_is_unavailable_after_the_given_attempts(
    fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with scripted(in_turn(FAULTS[fault])) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        for attempts in (1, 3):
            server.requests.clear()
            with pytest.raises(Unavailable):
                aws.call("events", "PutEvents", {}, attempts=attempts)
            assert len(server.requests) == attempts


def test_a_slow_answer_is_given_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aws, "_ATTEMPT", 0.3)
    came, given_up = threading.Semaphore(0), threading.Event()

    def late(_: Request) -> Answer:
        came.release()
        given_up.wait(60)
        return Answer()

    with scripted(late) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        with pytest.raises(Unavailable):
            aws.call("events", "PutEvents", {}, attempts=2)
        # The server may not have looked yet at what it was sent.
        assert all(came.acquire(timeout=60) for _ in range(2))
        given_up.set()
    assert len(server.requests) == 2


def test_no_one_listening_is_unavailable() -> None:
    with pytest.raises(Unavailable):  # the endpoint of the fixture refuses connections
        aws.call("events", "PutEvents", {})


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (400, b'{"__type": "ResourceNotFoundException"}', "ResourceNotFoundException"),
        (
            400,
            b'{"__type": "com.amazon.coral#AccessDeniedException", "Message": "no"}',
            "AccessDeniedException",
        ),
        (403, b"<html>", "Unknown"),
        (404, b"[]", "Unknown"),
        (400, b"{}", "Unknown"),
        (307, b"", "Unknown"),
    ],
)
def test_a_refusal_is_not_tried_again(
    status: int, body: bytes, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with scripted(in_turn(Answer(status, body))) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        with pytest.raises(AwsError) as refusal:
            aws.call("secretsmanager", "GetSecretValue", {})
    assert (refusal.value.status, refusal.value.code) == (status, code)
    assert len(server.requests) == 1


def test_one_connection_serves_many_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    with scripted(in_turn(Answer())) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        for _ in range(5):
            aws.call("events", "PutEvents", {})
        assert server.connections == 1


def test_a_kept_connection_that_went_stale_costs_no_attempt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A frozen execution environment finds its connection closed by the other side."""
    with scripted(in_turn(Answer(close=True))) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        for _ in range(3):
            aws.call("events", "PutEvents", {}, attempts=1)
            time.sleep(0.05)
        assert len(server.requests) == 3


def test_no_secret_is_in_an_error_or_a_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    monkeypatch.setenv("AWS_SESSION_TOKEN", "the-session-token")
    said = io.StringIO()
    with caplog.at_level(logging.DEBUG):
        for answer in (Answer(500), Answer(403, b"{}"), Answer(drop=True)):
            with scripted(in_turn(answer)) as server:
                monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
                with pytest.raises((AwsError, Unavailable)) as raised:
                    aws.call("secretsmanager", "GetSecretValue", {"SecretId": "arn"}, attempts=1)
                said.write(f"{raised.value!r} {raised.value}")
    text = said.getvalue() + caplog.text
    assert SECRET_KEY not in text
    assert "the-session-token" not in text
    assert "Signature=" not in text


def test_credentials_come_from_the_environment() -> None:
    environ = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "s", "AWS_SESSION_TOKEN": "t"}
    assert aws.credentials(environ) == Credentials("a", "s", "t")
    del environ["AWS_SESSION_TOKEN"]
    assert aws.credentials(environ) == Credentials("a", "s", "")


def test_credentials_without_keys_come_from_the_containers_address(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """SnapStart's way: an address that answers with keys that expire."""
    body = json.dumps(
        {
            "AccessKeyId": "AKIASNAP",
            "SecretAccessKey": "from the address",
            "Token": "session",
            "Expiration": "2099-01-01T00:00:00Z",
        }
    ).encode()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    with scripted(in_turn(Answer(body=body))) as server:
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{server.url}/credentials")
        monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN", "word")
        for _ in range(2):
            assert aws.credentials() == Credentials("AKIASNAP", "from the address", "session")
    # The address is asked once in a process, not at every signature.
    assert [request.headers["authorization"] for request in server.requests] == ["word"]


def test_keys_that_expire_are_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process restored from a snapshot may wake up after its keys have expired."""

    def keys(name: str, expiry: str) -> Answer:
        return Answer(
            body=json.dumps(
                {
                    "AccessKeyId": name,
                    "SecretAccessKey": "s",
                    "Token": "t",
                    "Expiration": expiry,
                }
            ).encode()
        )

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    soon = (datetime.now(UTC) + timedelta(minutes=11)).isoformat()
    answers = in_turn(keys("OLD", soon), keys("NEW", "2099-01-01T00:00:00Z"))
    with scripted(answers) as server:
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{server.url}/credentials")
        found = [aws.credentials().access_key for _ in range(3)]
    assert found == ["NEW"] * 3
    assert len(server.requests) == 2


def test_under_snapstart_the_snapshot_holds_what_reads_credentials() -> None:
    """After the restore it would be a cold start's time, at the first signature."""
    script = (
        "import sys, kyora.http as h; h.webhook(print); print('botocore.session' in sys.modules)"
    )
    for kind, expected in (("snap-start", "True"), ("on-demand", "False")):
        found = subprocess.run(
            [sys.executable, "-c", script],
            capture_output=True,
            text=True,
            check=True,
            env={
                "PYTHONPATH": str(Path(aws.__file__).parents[1]),
                "AWS_LAMBDA_INITIALIZATION_TYPE": kind,
            },
        ).stdout
        assert found.strip() == expected


def test_the_authorities_are_read_once_in_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each reading takes 20 ms and more on a small function."""
    read: list[object] = []
    create = ssl.create_default_context
    monkeypatch.setattr(ssl, "create_default_context", lambda **k: (read.append(k), create(**k))[1])
    tls.context.cache_clear()
    for host in ("127.0.0.1:9", "127.0.0.2:9"):
        with pytest.raises(OSError, match="refused"):
            timed_http._connect(True, host, time.monotonic() + 1)
        assert tls.database_context("db.example.com") is tls.context()
    assert len(read) == 1


def test_without_any_credentials_the_service_is_unavailable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(Unavailable):
        aws.credentials()


def test_importing_the_module_loads_no_sdk() -> None:
    """The reason this module exists: boto3 costs more than all the rest."""
    found = subprocess.run(
        [sys.executable, "-c", "import kyora.aws, sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(Path(aws.__file__).parents[1]), "PATH": ""},
    ).stdout.split()
    assert not [name for name in found if re.match(r"boto|urllib3|requests|httpx", name)]
