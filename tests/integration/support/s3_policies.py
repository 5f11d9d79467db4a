"""S3 that grants what a function's policy allows."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from urllib.parse import parse_qs, unquote, urlsplit

import boto3
import pytest

from kyora import aws, config
from kyora.storage import s3
from local import template
from tests.integration.support import api, invariants
from tests.integration.support.samples import PNG, Sample
from tests.scripted import Answer, Request, Server, scripted

BUCKET = "kyora-assets"


WHO = re.compile(r"Credential=([a-z_]+)/")


USERS = ("request_upload", "confirm_upload", "manage_asset", "verify_upload", "sweep_uploads")


type Permission = tuple[str, str]  # an action and the prefix of a key


def policy(function: str) -> set[Permission]:
    """What template.yaml lets a function do with the objects of its own bucket."""
    given = template.read()
    found = set()
    for policy in template.functions(given)[template.logical_id(function)].get("Policies", []):
        for statement in policy["Statement"]:
            actions, resources = statement["Action"], statement["Resource"]
            for action in actions if isinstance(actions, list) else [actions]:
                for one in resources if isinstance(resources, list) else [resources]:
                    if action.startswith("s3:"):
                        arn = template.resolve(one, given)
                        prefix = re.fullmatch(r"arn:.*:s3:::Bucket(?:/(incoming|assets)/\*)?", arn)
                        assert prefix, arn
                        found.add((action, prefix[1] or ""))
    return found


@dataclass
class Cloud:
    """S3's objects, and PutEvents, behind policies; `used` is what each function needed."""

    policies: dict[str, set[Permission]]
    objects: dict[str, bytes] = field(default_factory=dict)
    used: dict[str, set[Permission]] = field(default_factory=dict)
    refused: list[tuple[str, str, str]] = field(default_factory=list)
    server: Server | None = None

    def answer(self, request: Request) -> Answer:
        if "x-amz-target" in request.headers:
            entries = json.loads(request.body)["Entries"]
            done = {"FailedEntryCount": 0, "Entries": [{"EventId": "e"} for _ in entries]}
            return Answer(body=json.dumps(done).encode())
        parts = urlsplit(request.path)
        signed = parse_qs(parts.query).get("X-Amz-Credential", [""])[0]
        who = WHO.search(request.headers.get("authorization", f"Credential={signed}"))
        key = unquote(parts.path).removeprefix(f"/{BUCKET}/")
        source = unquote(request.headers.get("x-amz-copy-source", ""))
        source = source.removeprefix(f"{BUCKET}/")
        for action, name in actions_of(request.method, key, source):
            if not who or not self._may(who[1], action, name):
                return Answer(403, b"<Error><Code>AccessDenied</Code></Error>")
        missing = (source or key) not in self.objects
        reads = source or request.method in ("GET", "HEAD")
        # Whether a key exists is for those to know who may list.
        if reads and missing and who and not self._may(who[1], "s3:ListBucket", ""):
            return Answer(403, b"<Error><Code>AccessDenied</Code></Error>")
        return self._do(request, key, source)

    def _may(self, who: str, action: str, key: str) -> bool:
        wanted = (action, key.partition("/")[0])
        if wanted not in self.policies[who]:
            self.refused.append((who, *wanted))
            return False
        self.used.setdefault(who, set()).add(wanted)
        return True

    def _do(self, request: Request, key: str, source: str) -> Answer:
        tag = {"ETag": '"a-version"', "Last-Modified": formatdate(0, usegmt=True)}
        if source and source not in self.objects:
            return Answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
        if source:
            self.objects[key] = self.objects[source]
            done = b'<CopyObjectResult><ETag>"a-version"</ETag></CopyObjectResult>'
            return Answer(body=done, headers={"Content-Type": "application/xml"})
        if request.method == "PUT":
            self.objects[key] = request.body
        elif request.method == "DELETE":
            self.objects.pop(key, None)
            return Answer(204, b"")
        elif key not in self.objects:
            return Answer(404, b"")
        found = self.objects[key]
        if request.method == "HEAD":
            return Answer(body=b"", headers=tag | {"Content-Length": str(len(found))})
        return Answer(body=found, headers=tag)


def actions_of(method: str, key: str, source: str) -> list[Permission]:
    """S3's operations as IAM names them."""
    if source:
        return [("s3:GetObject", source), ("s3:PutObject", key)]
    named = {"HEAD": "GetObject", "GET": "GetObject", "PUT": "PutObject", "DELETE": "DeleteObject"}
    return [(f"s3:{named[method]}", key)]


@pytest.fixture
def cloud(uploads: str, environment: pytest.MonkeyPatch) -> Iterator[Cloud]:
    """One whose policies are the template's, configured for the functions."""
    found = Cloud({name: policy(name) for name in USERS})
    with scripted(found.answer) as server:
        found.server = server
        for name, value in {
            "STORAGE_PROVIDER": "s3",
            "STORAGE_S3_BUCKET": BUCKET,
            "STORAGE_S3_REGION": "eu-west-1",
            "STORAGE_S3_ENDPOINT": server.url,
            "STORAGE_S3_ADDRESSING_STYLE": "path",
            "AWS_ENDPOINT_URL": server.url,
        }.items():
            environment.setenv(name, value)
        yield found
        _disconnect()
        if kept := aws._connections.pop(server.url, None):
            kept.close()


def _disconnect() -> None:
    config.forget()
    boto3.DEFAULT_SESSION = None  # it remembers whose keys it has found
    while s3._clients:
        s3._clients.popitem()[1].close()


@contextmanager
def running_as(function: str) -> Iterator[None]:
    """Run what follows under the role of a function."""
    _disconnect()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", function)
        yield
    _disconnect()


def walk() -> None:
    """Take files along every way that they can go."""

    def upload(sample: Sample) -> str:
        with running_as("request_upload"):
            ticket = api.request(sample)
        assert api.put(ticket, sample.data).status == 200
        return str(ticket["assetId"])

    def confirm(asset_id: str) -> api.Answer:
        with running_as("confirm_upload"):
            return api.confirm(asset_id)

    with running_as("request_upload"):
        never, either = (str(api.request(PNG)["assetId"]) for _ in range(2))
    assert confirm(never).code == "asset.not_uploaded"
    with running_as("verify_upload"):
        api.deliver(f"incoming/ws_demo/{either}")
    good, late, bad, left, unconfirmed = (upload(PNG) for _ in range(5))
    download = confirm(good).body["downloadUrl"]
    assert api.http_call("GET", download).status == 200
    with running_as("manage_asset"):
        shown = api.get(good).body["downloadUrl"]
        assert api.http_call("GET", shown).status == 200
        assert api.deleted(api.delete(good))
        assert api.deleted(api.delete(late))
    invariants.run("UPDATE asset SET content_type = 'image/gif' WHERE id = :id", id=bad)
    assert confirm(bad).code == "asset.rejected"
    again = upload(PNG)
    invariants.run("UPDATE asset SET content_type = 'image/gif' WHERE id = :id", id=again)
    with running_as("verify_upload"):
        for asset_id in (left, again):
            assert api.deliver(f"incoming/ws_demo/{asset_id}") == []
    assert invariants.status(left) == "ready"
    assert invariants.status(again) == "rejected"
    invariants.run(
        "UPDATE asset SET confirm_deadline = now() - interval '1 hour', attempts = '{try_x}'"
        " WHERE id = :id",
        id=unconfirmed,
    )
    with running_as("sweep_uploads"):
        api.sweep()
        invariants.run("UPDATE asset SET ended_at = now() - interval '1 hour'")
        api.sweep()
