"""Every request to AWS that we write ourselves is botocore's own, and every answer is the model's.

Our code makes the requests and reads the answers; the same parameters are given to boto3, whose
request is caught before it is sent.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qs, urlsplit

import boto3
import pytest
from botocore.awsrequest import AWSPreparedRequest
from botocore.config import Config
from botocore.exceptions import ClientError
from botocore.model import Shape

from kyora import aws, config
from kyora.bus import outbox
from kyora.bus.consume import consume_aws
from kyora.bus.outcomes import Again, Permanent
from kyora.storage.s3 import S3
from tests import sigv4
from tests.scripted import Answer, Request, scripted

KEY, SECRET, TOKEN, REGION = (
    "AKIDEXAMPLE",
    "wJalrXUtnFEMI/K7MDENG+bPxRfiCY",
    "a/session+token=",
    "eu-west-1",
)
DEAD = f"arn:aws:sqs:{REGION}:123456789012:kyora-test-emails-dead"
ROWS = [{"source": "kyora.billing", "detail_type": "PlansSynced", "detail": '{"é": "\\"}'}] * 2
RECORD = {
    "messageId": "m-1",
    "receiptHandle": "AQEB+/=",
    "body": "{}",
    "attributes": {"ApproximateReceiveCount": "3"},
    "eventSourceARN": f"arn:aws:sqs:{REGION}:123456789012:kyora-test-emails",
}


def _read_secret() -> object:
    return aws.secret(f"arn:aws:secretsmanager:{REGION}:123456789012:secret:kyora/test/x-AbCdEf")


def _publish() -> object:
    return outbox._put(ROWS)


def _consume(raised: Exception) -> Callable[[], object]:
    def handle(detail: dict[str, Any]) -> bool:
        raise raised

    def work() -> object:
        record = RECORD | {"body": json.dumps({"detail": {}})}
        return consume_aws({"Records": [record]}, handle)

    return work


# What our code does → the operations it asks for, in order; a test below compares the list with
# the code.
WORK: dict[str, tuple[Callable[[], object], list[tuple[str, str]]]] = {
    "a secret is read": (_read_secret, [("secretsmanager", "GetSecretValue")]),
    "events are published": (_publish, [("events", "PutEvents")]),
    "a message comes again": (
        _consume(Again(30)),
        [("sqs", "ChangeMessageVisibility")],
    ),
    "a message waits uncounted": (_consume(Again(30, counted=False)), [("sqs", "SendMessage")]),
    "a message is dead-lettered": (
        _consume(Permanent("event.invalid")),
        [("sqs", "GetQueueAttributes"), ("sqs", "SendMessage")],
    ),
}
OPERATIONS = sorted({operation for _, asked in WORK.values() for operation in asked})


@pytest.fixture(autouse=True)
def fresh(environment: pytest.MonkeyPatch) -> Iterator[None]:
    environment.setenv("AWS_ACCESS_KEY_ID", KEY)
    environment.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    environment.setenv("AWS_SESSION_TOKEN", TOKEN)
    yield
    while aws._connections:
        aws._connections.popitem()[1].close()


def example(shape: Shape, name: str = "") -> Any:
    """A value of a shape of the service model with every member there is."""
    match shape.type_name:
        case "structure":
            return {n: example(s, n) for n, s in shape.members.items()}  # type: ignore[attr-defined]
        case "list":
            return [example(shape.member)] * 2  # type: ignore[attr-defined]
        case "map":
            keys = shape.key.enum or ["key"]  # type: ignore[attr-defined]
            return {key: example(shape.value, key) for key in keys}  # type: ignore[attr-defined]
        case "integer" | "long":
            return 0
        case "timestamp":
            return 1_790_000_000.5
        case "boolean":
            return False
        case "blob":
            return "AA=="
    if name == "RedrivePolicy":
        return json.dumps({"deadLetterTargetArn": DEAD, "maxReceiveCount": 8})
    return f"a {name}"


def client(service: str) -> Any:
    return boto3.client(
        service,
        region_name=REGION,
        aws_access_key_id=KEY,
        aws_secret_access_key=SECRET,
        aws_session_token=TOKEN,
        endpoint_url=f"https://{service}.{REGION}.amazonaws.com",
        config=Config(signature_version="s3v4", request_checksum_calculation="when_required")
        if service == "s3"
        else None,
    )


def asked_of(request: Request) -> tuple[str, str]:
    target = request.headers["x-amz-target"]
    service = {"AWSEvents": "events", "AmazonSQS": "sqs"}.get(target.partition(".")[0])
    return service or "secretsmanager", target.partition(".")[2]


def strict(request: Request) -> Answer:
    """Refuse what AWS would; answer what the service model says it may."""
    if reason := sigv4.refusal(request, KEY, SECRET):
        return Answer(403, json.dumps({"__type": "SignatureError", "message": reason}).encode())
    service, operation = asked_of(request)
    shape = client(service).meta.service_model.operation_model(operation).output_shape
    return Answer(body=json.dumps(example(shape) if shape else {}).encode())


def done(what: str, answer: Callable[[Request], Answer] = strict) -> tuple[object, list[Request]]:
    """Do a piece of work against a server; return its result and what was asked."""
    work, _ = WORK[what]
    with scripted(answer) as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", server.url)
        config.forget()
        return work(), server.requests


def theirs(service: str, operation: str, parameters: dict[str, Any]) -> AWSPreparedRequest:
    """What boto3 would send."""
    caught: list[AWSPreparedRequest] = []
    asking = client(service)

    def catch(request: AWSPreparedRequest, **_: Any) -> None:
        caught.append(request)
        raise KeyboardInterrupt  # nothing is sent; botocore retries every Exception

    asking.meta.events.register("before-send.*", catch)
    method = {name: key for key, name in asking.meta.method_to_api_mapping.items()}[operation]
    with suppress(KeyboardInterrupt, ClientError):
        getattr(asking, method)(**parameters)
    return caught[0]


def headers_of(request: AWSPreparedRequest) -> dict[str, str]:
    return {
        name.lower(): value.decode() if isinstance(value, bytes) else str(value)
        for name, value in request.headers.items()
    }


def signed_by(headers: dict[str, str]) -> str:
    return headers["authorization"].partition("SignedHeaders=")[2].partition(",")[0]


# Who asks and how often: no operation looks at them, and no signature covers them.
UNSIGNED = {
    "user-agent",
    "amz-sdk-invocation-id",
    "amz-sdk-request",
    "accept-encoding",
    "connection",
}


@pytest.mark.parametrize("what", WORK)
def test_a_request_is_the_one_that_botocore_makes(what: str) -> None:
    _, requests = done(what)
    assert [asked_of(request) for request in requests] == WORK[what][1]
    for request in requests:
        service, operation = asked_of(request)
        other = theirs(service, operation, json.loads(request.body))
        expected = headers_of(other)
        assert signed_by(request.headers) == signed_by(expected)
        volatile = {"authorization", "x-amz-date", "host", "content-length"}
        assert {n: v for n, v in request.headers.items() if n not in UNSIGNED | volatile} == {
            n: v for n, v in expected.items() if n not in UNSIGNED | volatile
        }
        assert (request.method, request.path) == (other.method, urlsplit(other.url).path)
        assert json.loads(request.body) == json.loads(other.body)


@pytest.mark.parametrize("what", WORK)
def test_a_server_that_refuses_what_is_not_signed_serves_us(what: str) -> None:
    _, requests = done(what)
    assert [sigv4.refusal(request, KEY, SECRET) for request in requests] == [""] * len(requests)


@pytest.mark.parametrize(
    "name", ["x-amz-target", "content-type", "x-amz-security-token", "host", "x-amz-date"]
)
def test_that_server_sees_a_changed_header(name: str) -> None:
    _, [request] = done("a secret is read")
    request.headers[name] = "20261127T000000Z" if name == "x-amz-date" else "changed"
    assert sigv4.refusal(request, KEY, SECRET) == "the signature does not match"


def test_that_server_sees_a_header_that_is_not_signed() -> None:
    _, [request] = done("a secret is read")
    request.headers["x-amz-meta-more"] = "1"
    assert sigv4.refusal(request, KEY, SECRET) == "sent and not signed: x-amz-meta-more"


def test_what_is_read_of_an_answer_is_what_the_service_model_calls_it() -> None:
    """The answer has every member of the model, under its name there, and no other."""
    assert done("a secret is read")[0] == "a SecretString"
    assert done("events are published")[0] == [None, None]
    _, requests = done("a message is dead-lettered")
    assert json.loads(requests[1].body)["QueueUrl"].endswith("/123456789012/kyora-test-emails-dead")


def test_what_is_read_of_a_refused_entry_is_what_the_service_model_calls_it() -> None:
    def refused(request: Request) -> Answer:
        answer = json.loads(strict(request).body)
        for entry in answer["Entries"]:
            del entry["EventId"]
        return Answer(body=json.dumps(answer).encode())

    found = done("events are published", refused)[0]
    assert isinstance(found, list)
    assert [failure.reason for failure in found] == ["a ErrorCode: a ErrorMessage"] * 2


@pytest.mark.parametrize(("service", "operation"), OPERATIONS)
def test_the_code_of_an_error_is_the_one_that_botocore_reads(service: str, operation: str) -> None:
    """The forms in which services of the JSON protocol name an error."""
    asking = client(service)
    for written in (
        "ResourceNotFoundException",
        "com.amazonaws.sqs#QueueDoesNotExist",
        "AccessDeniedException:http://internal.amazon.com/coral/com.amazon.coral.service/",
        "com.amazon.coral.service#AccessDeniedException:http://internal.amazon.com/",
    ):
        body = json.dumps({"__type": written, "Message": "no"}).encode()
        model = asking.meta.service_model.operation_model(operation)
        read = asking._response_parser.parse(
            {"body": body, "headers": {}, "status_code": 400}, model.output_shape
        )
        assert aws._code(json.loads(body)) == read["Error"]["Code"]


def test_every_operation_that_our_code_names_is_in_the_list() -> None:
    from tests import reach

    assert reach.operations(frozenset(reach.nodes())) == set(OPERATIONS)


# ---- presigned addresses


@pytest.mark.parametrize("region", ["eu-west-1", "us-east-1", "me-central-1"])
def test_a_presigned_upload_is_botocores_own(region: str, environment: pytest.MonkeyPatch) -> None:
    environment.delenv("AWS_ENDPOINT_URL")
    ours = _store(environment, region).presign_put(
        "incoming/ws_1/ast é", "image/png", 10, "x" * 43 + "=", 600
    )
    expected = _presigner(region).generate_presigned_url(
        "put_object",
        Params={
            "Bucket": "kyora-files",
            "Key": "incoming/ws_1/ast é",
            "ContentType": "image/png",
            "ContentLength": 10,
            "IfNoneMatch": "*",
            "ChecksumSHA256": "x" * 43 + "=",
        },
        ExpiresIn=600,
    )
    assert _comparable(ours.url) == _comparable(expected)
    assert _query(ours.url)["X-Amz-SignedHeaders"] == _query(expected)["X-Amz-SignedHeaders"]


@pytest.mark.parametrize("region", ["eu-west-1", "us-east-1", "me-central-1"])
def test_a_presigned_download_is_botocores_own(
    region: str, environment: pytest.MonkeyPatch
) -> None:
    from datetime import UTC, datetime

    environment.delenv("AWS_ENDPOINT_URL")
    moment = datetime(2026, 11, 27, 8, tzinfo=UTC)
    ours = _store(environment, region).presign_get(
        "assets/ws_1/ast_1/1", "صورة.png", "image/png", moment, 600
    )
    expected = _presigner(region).generate_presigned_url(
        "get_object",
        Params={
            "Bucket": "kyora-files",
            "Key": "assets/ws_1/ast_1/1",
            "ResponseContentType": "image/png",
            "ResponseContentDisposition": _query(ours)["response-content-disposition"][0],
            "ResponseContentEncoding": "identity",
        },
        ExpiresIn=600,
    )
    assert _comparable(ours) == _comparable(expected)


def _store(environment: pytest.MonkeyPatch, region: str) -> S3:
    environment.setenv("STORAGE_PROVIDER", "s3")
    environment.setenv("STORAGE_S3_BUCKET", "kyora-files")
    environment.setenv("STORAGE_S3_REGION", region)
    config.forget()
    return S3(config.storage())


def _presigner(region: str) -> Any:
    return boto3.client(
        "s3",
        region_name=region,
        aws_access_key_id=KEY,
        aws_secret_access_key=SECRET,
        aws_session_token=TOKEN,
        endpoint_url=f"https://s3.{region}.amazonaws.com",
        config=Config(
            signature_version="s3v4",
            request_checksum_calculation="when_required",
            s3={"addressing_style": "virtual"},
        ),
    )


def _query(url: str) -> dict[str, list[str]]:
    return parse_qs(urlsplit(url).query, strict_parsing=True)


def _comparable(url: str) -> tuple[str, str, str, dict[str, list[str]]]:
    """Everything but the moment and what follows from it; test_aws.py pins the signature itself."""
    found = _query(url)
    for name in ("X-Amz-Date", "X-Amz-Signature", "X-Amz-Credential"):
        found.pop(name)
    parts = urlsplit(url)
    return parts.scheme, parts.netloc, parts.path, found
