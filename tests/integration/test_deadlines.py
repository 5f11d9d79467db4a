"""A peer that sends a byte now and then: each call to it ends when its time is over."""

import gc
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from kyora import aws, config, jwks
from kyora.assets.confirm import IN_QUEUE, IN_REQUEST
from kyora.billing import stripe_client
from kyora.deadline import within
from kyora.email import resend
from kyora.errors import Unavailable
from kyora.observability import correlation_id
from kyora.storage import s3
from kyora.storage.types import Part
from local.template import read as read_template
from tests.scripted import dripping

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
SLOW = {  # what comes at once, and what drips
    "nothing": (b"", b""),
    "the status": (b"", HEAD * 20),
    "headers": (HEAD, b"X: y\r\n" * 100),
    "the body": (HEAD + b"Content-Length: 4000\r\n\r\n", b" " * 4000),
    "chunks": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n" * 200),
}


def secret(_: str) -> None:
    aws.secret("arn:aws:secretsmanager:eu-west-1:000000000000:secret:x-AbCdEf")


def put_events(_: str) -> None:
    aws.call("events", "PutEvents", {"Entries": []}, attempts=1)


def change_visibility(_: str) -> None:
    aws.call("sqs", "ChangeMessageVisibility", {"QueueUrl": "q"})


def store() -> s3.S3:
    return s3.S3(config.storage())


def stat(_: str) -> None:
    store().stat("incoming/ws/a")


def copy(_: str) -> None:
    store().copy("incoming/ws/a", "assets/ws/a", '"e"', "image/png", seconds=0.5)


def read(_: str) -> None:
    list(store().read("assets/ws/a", seconds=0.5))


def begin_parts(_: str) -> None:
    store().begin_parts("incoming/ws/a", "video/mp4", checked=True)


def list_parts(_: str) -> None:
    store().list_parts("incoming/ws/a", "upload")


def join_parts(_: str) -> None:
    store().join_parts("incoming/ws/a", "upload", [Part(1, 5, '"e"')])


def drop_parts(_: str) -> None:
    store().drop_parts("incoming/ws/a", "upload")


def delete(_: str) -> None:
    store().delete(["assets/ws/a"])


def ask_stripe(_: str) -> None:
    stripe_client.call("get", "products")


CALLS: dict[str, Callable[[str], None]] = {
    "Secrets Manager": secret,
    "EventBridge": put_events,
    "SQS": change_visibility,
    "S3 head": stat,
    "S3 copy": copy,
    "S3 read": read,
    "S3 delete": delete,
    "S3 parts begun": begin_parts,
    "S3 parts listed": list_parts,
    "S3 parts joined": join_parts,
    "S3 parts dropped": drop_parts,
    "Stripe": ask_stripe,
}


@pytest.fixture(scope="module")
def swept() -> None:
    """Leave no garbage of another file's tests, whose warnings would be lost below."""
    gc.collect()


@pytest.fixture
def short(swept: None, environment: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    gc.freeze()  # so that the collection at the end walks only what this test makes
    for module, name in (
        (aws, "_DEADLINE"),
        (aws, "_ATTEMPT"),
        (s3, "_CALL"),
        (s3, "_JOIN"),
        (stripe_client, "_DEADLINE"),
    ):
        environment.setattr(module, name, 0.5)
    s3._clients.clear()
    stripe_client._clients.clear()
    yield environment
    s3._clients.clear()
    stripe_client._clients.clear()
    while aws._connections:
        aws._connections.popitem()[1].close()
    gc.collect()  # the sockets that SDKs drop: their warning belongs to this test, which expects it


@pytest.fixture
def given_up(short: pytest.MonkeyPatch) -> list[float]:
    """Note each call that is still under way when its caller stops to wait."""
    found: list[float] = []

    def noting(seconds: float, work: Callable[[], Any]) -> Any:
        try:
            return within(seconds, work)
        except TimeoutError:
            found.append(seconds)
            raise

    for module in (s3, stripe_client):
        short.setattr(module, "within", noting)
    return found


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("case", SLOW)
@pytest.mark.parametrize("name", CALLS)
def test_an_answer_that_drips_is_given_up_when_the_time_is_over(
    name: str, case: str, short: pytest.MonkeyPatch, given_up: list[float]
) -> None:
    with dripping(*SLOW[case]) as url:
        for variable, value in {
            "AWS_ENDPOINT_URL": url,
            "STORAGE_PROVIDER": "s3",
            "STORAGE_S3_BUCKET": "files",
            "STORAGE_S3_REGION": "eu-west-1",
            "STORAGE_S3_ENDPOINT": url,
            "STORAGE_S3_ADDRESSING_STYLE": "path",
            "STORAGE_S3_ACCESS_KEY_ID": "test",
            "STORAGE_S3_SECRET_ACCESS_KEY": "test",
            "BILLING_STRIPE_API_KEY": "sk_test_1234",
            "BILLING_STRIPE_BASE_URL": url,
        }.items():
            short.setenv(variable, value)
        config.forget()
        config.require(config.storage, config.billing)
        store()._client(patient=False)
        stripe_client._client()
        started = time.monotonic()
        with pytest.raises(Unavailable):
            CALLS[name](url)
        assert time.monotonic() - started < 20  # each drips for half a minute and more
        if given_up:  # what is still being waited for is never used again
            assert not (s3._clients if name.startswith("S3") else {})
            assert not (stripe_client._clients if name == "Stripe" else {})


def test_every_deadline_is_shorter_than_the_function_that_waits() -> None:
    template = read_template()
    default = template["Globals"]["Function"]["Timeout"]
    waits: dict[str, tuple[float, ...]] = {
        "AuthorizeRequest": (jwks.DEADLINE, aws._DEADLINE),
        "SendEmail": (resend.DEADLINE, aws._DEADLINE),
        "ConfirmUpload": (s3._CALL, *IN_REQUEST[-2:]),
        "VerifyUpload": (s3._CALL, sum(IN_QUEUE[-2:])),
        "ManageMultipart": (s3._CALL, s3._JOIN),
        "SweepUploads": (s3._CALL,),
        "ManageBilling": (stripe_client._DEADLINE,),
        "StripeWebhook": (stripe_client._DEADLINE,),
        "RelayOutbox": (aws._DEADLINE,),
    }
    for name, seconds in waits.items():
        properties = template["Resources"][f"{name}Function"]["Properties"]
        assert max(seconds) < properties.get("Timeout", default), name


# ---- the thread behind it


def test_what_is_returned_and_what_is_raised_come_through() -> None:
    assert within(5, lambda: 42) == 42
    assert within(5, lambda: None) is None
    with pytest.raises(ZeroDivisionError):
        within(5, lambda: 1 / 0)
    with pytest.raises(KeyboardInterrupt):
        within(5, lambda: (_ for _ in ()).throw(KeyboardInterrupt))


def test_the_correlation_id_goes_along() -> None:
    correlation_id.set("request-1")
    assert within(5, correlation_id.get) == "request-1"


@pytest.mark.parametrize("seconds", [0.1, 0.0, -1.0])
def test_a_call_that_takes_longer_is_left_alone(seconds: float) -> None:
    stop = threading.Event()
    started = time.monotonic()
    with pytest.raises(TimeoutError):
        within(seconds, stop.wait)
    assert time.monotonic() - started < 20
    stop.set()


def test_an_answer_for_no_one_harms_no_one() -> None:
    answers, done = threading.Event(), threading.Event()
    with pytest.raises(TimeoutError):
        within(0.05, lambda: (answers.wait(), done.set()))
    answers.set()
    assert done.wait(60)
