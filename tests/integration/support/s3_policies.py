"""S3 that grants what a function's policy allows."""

import json
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from functools import cache
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import boto3
import pytest

from kyora import aws, config
from kyora.storage import s3
from local import template
from tests.integration.support import api, invariants, parts, photos
from tests.integration.support.samples import PNG, Sample
from tests.scripted import Answer, Request, Server, scripted

BUCKET = "kyora-assets"


WHO = re.compile(r"Credential=([a-z_]+)/")


USERS = (
    "request_upload",
    "manage_multipart",
    "confirm_upload",
    "manage_asset",
    "verify_upload",
    "sweep_uploads",
    "make_variants",
    "record_scan",
)
PREFIXES = "incoming|assets|variants|public"


type Permission = tuple[str, str]  # an action and the prefix of a key


def policy(function: str) -> set[Permission]:
    """What template.yaml lets a function do with the objects of its own bucket."""
    return set(_policy(function))


@cache
def _policy(function: str) -> frozenset[Permission]:
    given = template.read()
    found = set()
    for policy in template.functions(given)[template.logical_id(function)].get("Policies", []):
        for statement in policy["Statement"]:
            actions, resources = statement["Action"], statement["Resource"]
            for action in actions if isinstance(actions, list) else [actions]:
                for one in resources if isinstance(resources, list) else [resources]:
                    if action.startswith("s3:"):
                        arn = template.resolve(one, given)
                        prefix = re.fullmatch(rf"arn:.*:s3:::Bucket(?:/({PREFIXES})/\*)?", arn)
                        assert prefix, arn
                        found.add((action, prefix[1] or ""))
    return frozenset(found)


@dataclass
class Cloud:
    """S3's objects, and PutEvents, behind policies; `used` is what each function needed."""

    policies: dict[str, set[Permission]]
    objects: dict[str, bytes] = field(default_factory=dict)
    uploads: dict[str, dict[int, bytes]] = field(default_factory=dict)
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
        query = parse_qs(parts.query, keep_blank_values=True)
        for action, name in actions_of(request.method, key, source, query):
            if not who or not self._may(who[1], action, name):
                return Answer(403, b"<Error><Code>AccessDenied</Code></Error>")
        missing = (source or key) not in self.objects
        if upload := query.get("uploadId", query.get("uploads")):
            return self._parts(request, key, upload[0], query.get("partNumber", [""])[0])
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

    def _parts(self, request: Request, key: str, upload: str, number: str) -> Answer:
        """Do what belongs to a multipart upload; a part's ETag is its number."""
        xml = {"Content-Type": "application/xml"}
        if not upload:
            upload = f"upload-{len(self.uploads)}"
            self.uploads[upload] = {}
            name = "InitiateMultipartUploadResult"
            begun = f"<{name}><UploadId>{upload}</UploadId></{name}>"
            return Answer(body=begun.encode(), headers=xml)
        if upload not in self.uploads:
            return Answer(404, b"<Error><Code>NoSuchUpload</Code></Error>")
        found = self.uploads[upload]
        if request.method == "PUT":
            found[int(number)] = request.body
            return Answer(body=b"", headers={"ETag": f'"{number}"'})
        if request.method == "DELETE":
            del self.uploads[upload]
            return Answer(204, b"")
        if request.method == "GET":
            listed = "".join(
                f"<Part><PartNumber>{n}</PartNumber><Size>{len(data)}</Size><ETag>&quot;{n}&quot;</ETag>"
                "<LastModified>2026-11-27T00:00:00Z</LastModified></Part>"
                for n, data in found.items()
            )
            return Answer(body=f"<ListPartsResult>{listed}</ListPartsResult>".encode(), headers=xml)
        self.objects[key] = b"".join(data for _, data in sorted(self.uploads.pop(upload).items()))
        done = b"<CompleteMultipartUploadResult><ETag>e</ETag></CompleteMultipartUploadResult>"
        return Answer(body=done, headers=xml)

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
            return Answer(body=b"", headers=tag)
        if request.method == "DELETE":
            self.objects.pop(key, None)
            return Answer(204, b"")
        if key not in self.objects:
            return Answer(404, b"")
        found = self.objects[key]
        if request.method == "HEAD":
            return Answer(body=b"", headers=tag | {"Content-Length": str(len(found))})
        return Answer(body=found, headers=tag)


def actions_of(method: str, key: str, source: str, query: Collection[str] = ()) -> list[Permission]:
    """S3's operations as IAM names them; `query` has the names of the query's parameters."""
    if {"uploadId", "uploads"} & set(query):
        special = {"GET": "ListMultipartUploadParts", "DELETE": "AbortMultipartUpload"}
        return [(f"s3:{special.get(method, 'PutObject')}", key)]
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


# The S3 clients of each function: a client takes longer to make than what it is asked for.
_clients: dict[str, dict[Any, Any]] = {}


def _disconnect() -> None:
    for clients in (s3._clients, *_clients.values()):
        while clients:
            clients.popitem()[1].close()


@cache
def _session(function: str) -> boto3.Session:
    """A session remembers whose keys it has found."""
    return boto3.Session()


@contextmanager
def running_as(function: str) -> Iterator[None]:
    """Run what follows under the role of a function."""
    config.forget()
    before = dict(s3._clients)
    s3._clients.clear()
    s3._clients.update(_clients.get(function, {}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", function)
        patch.setattr(boto3, "DEFAULT_SESSION", _session(function))
        yield
    _clients[function] = dict(s3._clients)
    s3._clients.clear()
    s3._clients.update(before)
    config.forget()


def _in_parts() -> str:
    """Take films in parts along every way; return one that is left unfinished."""
    with running_as("manage_multipart"):
        whole, dropped, deleted, abandoned, gone = (parts.start() for _ in range(5))
        for asset_id in (dropped, deleted, abandoned, gone):
            parts.send(asset_id, [1])
        etags = parts.send(whole)
        assert len(parts.arrived(whole).body["parts"]) == len(etags)
        assert parts.complete(whole, etags).status == 200
        invariants.run(
            "UPDATE asset SET joined_at = NULL WHERE id = :id", id=whole
        )  # not committed
        assert parts.arrived(whole).code == "asset.upload_completed"
        invariants.run("UPDATE asset SET store_upload = 'gone' WHERE id = :id", id=gone)
        assert parts.arrived(gone).code == "asset.expired"
        invariants.run("UPDATE asset SET attempts = '{try_x}' WHERE id = :id", id=dropped)
        assert api.deleted(parts.abort(dropped))
    with running_as("manage_asset"):
        assert api.deleted(api.delete(deleted))
        assert api.deleted(api.delete(gone))
        assert api.deleted(api.delete(whole))
    return abandoned


def walk(cloud: Cloud) -> None:
    """Take files along every way that they can go."""

    def upload(sample: Sample, **asked: bool) -> str:
        with running_as("request_upload"):
            ticket = api.request(sample, **asked)
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
    abandoned = _in_parts()
    invariants.pass_deadline(abandoned)
    private, public, gone, bad, worse = (upload(photos.small(), variants=True) for _ in range(5))
    for asset_id in (private, public, gone, bad, worse):
        assert confirm(asset_id).status == 200
    # Without a public address GET signs for what is below public/.
    for asset_id in (public, worse):
        invariants.run("UPDATE asset SET public = true WHERE id = :id", id=asset_id)
    for key in [key for key in cloud.objects if gone in key]:
        del cloud.objects[key]
    with running_as("make_variants"):
        assert {photos.deliver(asset_id) for asset_id in (private, public, bad, worse)} == {0}
        assert photos.deliver(gone) == 1  # its original is not there
        assert photos.rebuild(asset=private)["ready"] == 1
        assert photos.rebuild(asset=public)["ready"] == 1
    # A completion whose commit was lost; its parts are given up again.
    invariants.run("UPDATE asset SET part_size = 8, store_upload = 'gone' WHERE id = :id", id=bad)
    with running_as("record_scan"):
        for asset_id in (bad, worse):
            copy = f"assets/ws_demo/{asset_id}/{invariants.asset(asset_id)['final_attempt']}"
            assert api.scanned((copy, "THREATS_FOUND")) == []
            assert invariants.status(asset_id) == "rejected"
    invariants.run(
        "UPDATE variant_set SET clean_after = now() - interval '1 hour' WHERE stale <> '{}'"
    )
    with running_as("manage_asset"):
        for asset_id in (private, public):
            assert len(photos.images(asset_id)) == 4
    with running_as("sweep_uploads"):
        api.sweep()
        invariants.run("UPDATE asset SET ended_at = now() - interval '1 hour'")
        api.sweep()
    with running_as("manage_asset"):
        for asset_id in (private, public, gone):
            assert api.deleted(api.delete(asset_id))
