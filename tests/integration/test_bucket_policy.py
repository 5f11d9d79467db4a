"""The bucket's policy, statement by statement, against the requests that our code makes.

No emulator evaluates it. The requests are recorded from a walk along every way that a file can go,
and looked at as S3 would look at them, over TLS.
"""

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import boto3
import pytest
from botocore.config import Config

from kyora import aws
from local import template
from tests import policy
from tests.integration.support import s3_policies as files
from tests.integration.support.s3_policies import BUCKET, Cloud
from tests.scripted import Answer, Request, scripted

cloud = files.cloud
ARN = f"arn:aws:s3:::{BUCKET}"


@cache
def statements() -> list[policy.Statement]:
    """The policy as it is on the bucket."""
    document = template.read()["Resources"]["BucketPolicy"]["Properties"]["PolicyDocument"]
    always = [found for found in document["Statement"] if "Fn::If" not in found]
    return [{**found, "Resource": _named(found["Resource"])} for found in always]


def _named(value: Any) -> Any:
    if isinstance(value, list):
        return [_named(item) for item in value]
    if value == {"Fn::GetAtt": ["Bucket", "Arn"]}:
        return ARN
    return value["Fn::Sub"].replace("${Bucket.Arn}", ARN)


def context(request: Request, *, tls: bool = True, now: float | None = None) -> dict[str, str]:
    """The condition keys that S3 makes of a request.

    Source: Amazon S3 User Guide, "Bucket policy examples using condition keys", and "Amazon S3
    Signature Version 4 authentication specific policy keys".
    """
    query = parse_qs(urlsplit(request.path).query, keep_blank_values=True)
    found = {"aws:SecureTransport": str(tls).lower()}
    if "X-Amz-Algorithm" in query:
        signed = datetime.strptime(query["X-Amz-Date"][0], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        age = ((now or time.time()) - signed.timestamp()) * 1000
        found |= {"s3:authType": "REST-QUERY-STRING", "s3:signatureAge": str(age)}
        found["s3:signatureversion"] = query["X-Amz-Algorithm"][0]
    elif "AWSAccessKeyId" in query:
        found |= {"s3:authType": "REST-QUERY-STRING", "s3:signatureversion": "AWS"}
    else:
        found |= {"s3:authType": "REST-HEADER"}
        found["s3:signatureversion"] = request.headers["authorization"].partition(" ")[0]
    if request.method in ("PUT", "POST"):
        creates = not {"partNumber", "uploads"} & set(query)
        found["s3:ObjectCreationOperation"] = str(creates).lower()
        if "if-none-match" in request.headers:
            found["s3:if-none-match"] = request.headers["if-none-match"]
    return found


def actions(request: Request) -> list[tuple[str, str]]:
    """What a request asks for, and of which resource."""
    key = unquote(urlsplit(request.path).path).removeprefix(f"/{BUCKET}/")
    source = unquote(request.headers.get("x-amz-copy-source", "")).removeprefix(f"{BUCKET}/")
    query = parse_qs(urlsplit(request.path).query, keep_blank_values=True)
    return [
        (action, f"{ARN}/{name}")
        for action, name in files.actions_of(request.method, key, source, query)
    ]


def refused(request: Request, **how: Any) -> list[str]:
    """The statements that refuse a request."""
    found = context(request, **how)
    return [
        sid
        for action, resource in actions(request)
        for sid in policy.denied_by(statements(), action, resource, found)
    ]


_recorded: list[Request] = []


@pytest.fixture
def recorded(cloud: Cloud) -> Sequence[Request]:
    """Every request to the bucket of a walk along all the ways of a file, made once."""
    if not _recorded:
        found: list[Request] = []
        answer = cloud.answer

        def keep(request: Request) -> Answer:
            if "x-amz-target" not in request.headers:
                found.append(request)
            return answer(request)

        cloud.server.answer = keep
        files.walk(cloud)
        _recorded.extend(found)
    return tuple(_recorded)


def test_no_statement_refuses_what_our_code_does(recorded: Sequence[Request]) -> None:
    kinds = {action for request in recorded for action, _ in actions(request)}
    assert kinds == {
        "s3:PutObject",
        "s3:GetObject",
        "s3:DeleteObject",
        "s3:ListMultipartUploadParts",
        "s3:AbortMultipartUpload",
    }
    assert [(r.method, r.path[:60], sid) for r in recorded for sid in refused(r)] == []


def test_without_tls_everything_is_refused(recorded: Sequence[Request]) -> None:
    assert all("OnlyTls" in refused(request, tls=False) for request in recorded)


def test_an_upload_address_is_refused_when_it_is_old(recorded: Sequence[Request]) -> None:
    later = time.time() + 901
    puts = [r for r in recorded if r.method == "PUT" and "X-Amz-Signature" in r.path]
    gets = [r for r in recorded if r.method == "GET" and "X-Amz-Signature" in r.path]
    assert puts
    assert gets
    assert all(refused(request, now=later) == ["NoOldUploadAddress"] for request in puts)
    assert [sid for request in gets for sid in refused(request, now=later)] == []


def test_an_upload_that_could_overwrite_is_refused(recorded: Sequence[Request]) -> None:
    for request in recorded:
        begins = "partNumber=" in request.path or "?uploads" in request.path
        if request.method in ("PUT", "POST") and "/incoming/" in request.path and not begins:
            bare = {k: v for k, v in request.headers.items() if k != "if-none-match"}
            changed = Request(request.method, request.path, bare, request.body)
            assert refused(changed) == ["NoOverwrite"]


def made(call: Callable[[Any], object], **config: Any) -> Request:
    """The request that boto3 makes."""
    with scripted(lambda _: Answer(body=b"", headers={"ETag": '"e"'})) as server:
        client = boto3.client(
            "s3",
            region_name="eu-west-1",
            endpoint_url=server.url,
            aws_access_key_id="a",
            aws_secret_access_key="s",
            config=Config(s3={"addressing_style": "path"}, **config),
        )
        found = call(client)
        if isinstance(found, str):  # a signed address
            return Request("PUT", found.removeprefix(server.url), {"if-none-match": "*"}, b"")
        return server.requests[0]


def test_an_address_of_the_old_signature_is_refused() -> None:
    """It would drop the signed length, checksum and if-none-match."""
    request = made(
        lambda client: client.generate_presigned_url(
            "put_object", Params={"Bucket": BUCKET, "Key": "incoming/ws/a"}
        ),
        signature_version="s3",
    )
    assert "AWSAccessKeyId" in request.path
    assert "OnlySigV4" in refused(request)


def test_a_part_of_a_large_upload_needs_no_condition_of_its_own() -> None:
    """The condition is that of the request that completes it."""
    request = made(
        lambda client: client.upload_part(
            Bucket=BUCKET, Key="incoming/ws/a", PartNumber=1, UploadId="u", Body=b"x"
        )
    )
    assert "partNumber" in request.path
    assert refused(request) == []


def test_the_evaluator_knows_every_operator_that_the_template_uses() -> None:
    used = {operator for found in _conditions(template.read()["Resources"]) for operator in found}
    for operator in used:
        policy._holds(operator, "a", ["1"], {"a": "1"})
    with pytest.raises(NotImplementedError):
        policy._holds("IpAddress", "a", ["1"], {"a": "1"})


def _conditions(value: Any) -> list[dict[str, Any]]:
    if isinstance(value, list):
        return [found for item in value for found in _conditions(item)]
    if not isinstance(value, dict):
        return []
    own = [value["Condition"]] if "Effect" in value and "Condition" in value else []
    return own + [found for item in value.values() for found in _conditions(item)]


def test_addresses_that_we_sign_are_of_the_new_signature() -> None:
    url = aws.presign(
        "PUT",
        f"https://s3.eu-west-1.amazonaws.com/{BUCKET}/incoming/ws/a",
        credentials=aws.Credentials("a", "s"),
        region="eu-west-1",
        expires=600,
        headers={"if-none-match": "*"},
    )
    path = url.removeprefix("https://s3.eu-west-1.amazonaws.com")
    assert refused(Request("PUT", path, {"if-none-match": "*"}, b"")) == []
