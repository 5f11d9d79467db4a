"""Multipart uploads as each store does them: what a part's URL binds, and what joins the parts."""

import hashlib
import shutil
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from kyora.storage.provider import provider
from kyora.storage.types import Changed, Part, Upload
from tests.integration.support import api
from tests.integration.support.api import Reply
from tests.integration.support.stores import Bucket, Store, every_bucket, every_store

KEY = "incoming/ws_demo/ast_00000000000000000000000001"
OTHER = "incoming/ws_demo/ast_00000000000000000000000002"
SIZE = 5 << 20  # S3's least, for every part but the last
FIRST, LAST = b"1" * SIZE, b"the rest"


def sign(upload: str, number: int, data: bytes, *, checked: bool, seconds: int = 600) -> Upload:
    sha256 = api.digest(data) if checked else None
    return provider().presign_part(KEY, upload, number, len(data), sha256, seconds)


def put(ticket: Upload, data: bytes, **headers: str | None) -> Reply:
    found = {"method": "PUT", "uploadUrl": ticket.url, "headers": ticket.headers}
    return api.put(found, data, **headers)


def send(upload: str, number: int, data: bytes, *, checked: bool = True) -> Part:
    """Send a part; return it as the client knows it."""
    reply = put(sign(upload, number, data, checked=checked), data)
    assert reply.status == 200, reply
    sha256 = api.digest(data) if checked else ""
    return Part(number, len(data), reply.headers["etag"], sha256)


def begin(*, checked: bool = True) -> tuple[str, list[Part]]:
    """Begin an upload and send both of its parts."""
    upload = provider().begin_parts(KEY, "video/mp4", checked=checked)
    both = ((1, FIRST), (2, LAST))
    return upload, [send(upload, number, data, checked=checked) for number, data in both]


@every_store
@pytest.mark.parametrize("checked", [True, False])
def test_parts_become_an_object(checked: bool, store: Store) -> None:
    upload, parts = begin(checked=checked)
    listed = provider().list_parts(KEY, upload)
    assert [part[:3] for part in listed] == [part[:3] for part in parts]
    assert {part.sha256 for part in listed} <= {part.sha256 for part in parts} | {""}
    assert provider().stat(KEY) is None
    provider().join_parts(KEY, upload, parts)
    assert store.read(KEY) == FIRST + LAST
    with pytest.raises(Changed):
        provider().list_parts(KEY, upload)
    assert put(sign(upload, 2, LAST, checked=checked), LAST).status in (403, 404)
    with suppress(Changed):  # S3 answers a repeat as the first call, for a while
        provider().join_parts(KEY, upload, parts)
    assert store.read(KEY) == FIRST + LAST
    store.remove(KEY)


@every_store
def test_a_part_that_is_sent_again_replaces_the_first(store: Store) -> None:
    upload, (first, _) = begin()
    again = LAST[::-1]
    second = send(upload, 2, again)
    assert [part.number for part in provider().list_parts(KEY, upload)] == [1, 2]
    provider().join_parts(KEY, upload, [first, second])
    assert store.read(KEY) == FIRST + again
    store.remove(KEY)


@every_store
def test_a_url_of_a_part_accepts_nothing_but_that_part(store: Store) -> None:
    upload = provider().begin_parts(KEY, "video/mp4", checked=True)
    ticket = sign(upload, 1, FIRST, checked=True)
    elsewhere = provider().begin_parts(KEY, "video/mp4", checked=True)
    swapped = b"2" * SIZE
    replies = {
        "other bytes of the same length": put(ticket, swapped),
        "another checksum": put(ticket, swapped, x_amz_checksum_sha256=api.digest(swapped)),
        "no checksum": put(ticket, FIRST, x_amz_checksum_sha256=None),
        "a byte more": put(ticket, FIRST + b"1"),
        "a byte less": put(ticket, FIRST[1:]),
        "another number": put(
            Upload(ticket.url.replace("partNumber=1", "partNumber=2"), ticket.headers), FIRST
        ),
        "another upload": put(Upload(ticket.url.replace(upload, elsewhere), ticket.headers), FIRST),
        "another key": put(Upload(ticket.url.replace(KEY, OTHER), ticket.headers), FIRST),
        "the whole file": put(
            Upload(ticket.url.replace("partNumber=1&", ""), ticket.headers), FIRST
        ),
        "an expired URL": put(sign(upload, 1, FIRST, checked=True, seconds=-60), FIRST),
    }
    assert {what: reply.status // 100 for what, reply in replies.items()} == dict.fromkeys(
        replies, 4
    )
    assert provider().list_parts(KEY, upload) == []
    assert provider().list_parts(KEY, elsewhere) == []
    assert store.list() == []
    provider().drop_parts(KEY, upload)
    provider().drop_parts(KEY, elsewhere)


@every_store
def test_parts_that_are_not_those_that_were_listed_are_not_joined(store: Store) -> None:
    upload, parts = begin()
    again = send(upload, 1, b"3" * SIZE)
    if store.name != "seaweedfs":  # it keeps both
        with pytest.raises(Changed):
            provider().join_parts(KEY, upload, parts)
    foreign = Part(3, len(LAST), '"d41d8cd98f00b204e9800998ecf8427e"', api.digest(b""))
    with pytest.raises(Changed):
        provider().join_parts(KEY, upload, [again, parts[1], foreign])
    assert KEY not in store.list()
    provider().drop_parts(KEY, upload)


@every_store
def test_what_was_dropped_takes_no_part_any_more(store: Store) -> None:
    upload, _ = begin()
    late = sign(upload, 1, FIRST, checked=True)
    provider().drop_parts(KEY, upload)
    provider().drop_parts(KEY, upload)
    assert put(late, FIRST).status // 100 == 4
    with pytest.raises(Changed):
        provider().list_parts(KEY, upload)
    assert store.list() == []


@every_store
def test_joining_does_not_overwrite_an_object(store: Store) -> None:
    upload, parts = begin()
    store.write(KEY, b"was here first")
    with pytest.raises(Changed):
        provider().join_parts(KEY, upload, parts)
    assert store.read(KEY) == b"was here first"
    provider().drop_parts(KEY, upload)
    store.remove(KEY)


@every_bucket
def test_a_parts_url_signs_all_that_it_binds(store: Bucket) -> None:
    query = parse_qs(urlsplit(sign("an-upload", 7, LAST, checked=True).url).query)
    assert query["X-Amz-SignedHeaders"] == ["content-length;host;x-amz-checksum-sha256"]
    assert (query["partNumber"], query["uploadId"]) == (["7"], ["an-upload"])
    plain = parse_qs(urlsplit(sign("an-upload", 7, LAST, checked=False).url).query)
    assert plain["X-Amz-SignedHeaders"] == ["content-length;host"]


def test_an_etag_of_the_folder_is_the_digest_of_the_part(store: Store) -> None:
    upload, (first, _) = begin()
    assert first.etag == f'"{hashlib.sha256(FIRST).hexdigest()}"'
    provider().drop_parts(KEY, upload)


def test_who_lists_while_parts_are_deleted_sees_all_or_none(store: Store) -> None:
    """A page that completes beside another would report the deleted ones as missing."""
    upload, _ = begin()
    seen: list[object] = []
    rmtree = shutil.rmtree

    def list_first(*given: Any, **named: Any) -> None:
        with suppress(Changed):
            seen.append(provider().list_parts(KEY, upload))
        rmtree(*given, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shutil, "rmtree", list_first)
        provider().drop_parts(KEY, upload)
    assert seen == []
    assert store.uploads() == []
