"""What an upload URL can be used for, on every store, beside its one purpose.

A store may refuse at the PUT; where one does not, confirm refuses or nothing comes of it. Each
test ends with the books of `store`: nothing half done, nothing outside the asset's own keys.
"""

import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import pytest

from kyora.storage.provider import provider as configured
from tests.integration.support import api, invariants, samples
from tests.integration.support.api import Reply
from tests.integration.support.samples import PNG
from tests.integration.support.stores import Store, every_bucket, every_store

type Ticket = dict[str, Any]

OTHER = samples.png(note=b"other")
SAME_SIZE = PNG.data[:-1] + b"\0"


def _edited(ticket: Ticket, old: str, new: str) -> Reply:
    assert old in ticket["uploadUrl"], ticket
    return api.put(ticket | {"uploadUrl": ticket["uploadUrl"].replace(old, new)}, PNG.data)


def _flip(ticket: Ticket) -> Reply:
    url = ticket["uploadUrl"]
    name = "X-Amz-Signature=" if "X-Amz-Signature=" in url else "signature="
    start = url.index(name) + len(name)
    wrong = "0" if url[start] != "0" else "1"
    return api.put(ticket | {"uploadUrl": url[:start] + wrong + url[start + 1 :]}, PNG.data)


def _unsigned(ticket: Ticket) -> Reply:
    return api.put(ticket | {"uploadUrl": ticket["uploadUrl"].partition("?")[0]}, PNG.data)


def _longer_life(ticket: Ticket) -> Reply:
    url = ticket["uploadUrl"]
    if "X-Amz-Expires=600" in url:
        return _edited(ticket, "X-Amz-Expires=600", "X-Amz-Expires=6000")
    until = url.partition("expires=")[2].partition("&")[0]
    return _edited(ticket, f"expires={until}", f"expires={int(until) + 6000}")


def _chunked(ticket: Ticket) -> Reply:
    """Send the body in chunks, without a length."""
    parts = urlsplit(ticket["uploadUrl"])
    lines = [f"PUT {parts.path}?{parts.query} HTTP/1.1", f"Host: {parts.netloc}"]
    lines += [f"{name}: {value}" for name, value in ticket["headers"].items()]
    lines += ["Transfer-Encoding: chunked", "Connection: close", "", ""]
    body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(PNG.data), PNG.data)
    with socket.create_connection((parts.hostname, parts.port), timeout=60) as sock:
        sock.sendall("\r\n".join(lines).encode() + body)
        status = sock.makefile("rb").readline().split()[1]
    return Reply(int(status), {}, b"")


# Number and trick, the PUT. All of these are 4xx at the store, and there is no object.
REFUSED: dict[str, Callable[[Ticket], Reply]] = {
    "another content type": lambda t: api.put(t, PNG.data, content_type="text/html"),
    "no content type": lambda t: api.put(t, PNG.data, content_type=None),
    "a longer body": lambda t: api.put(t, PNG.data + b"x"),
    "a shorter body": lambda t: api.put(t, PNG.data[:-1]),
    "no body": lambda t: api.put(t, b""),
    "other bytes of the same length": lambda t: api.put(t, SAME_SIZE),
    "another checksum with its own bytes": lambda t: api.put(
        t, SAME_SIZE, x_amz_checksum_sha256=api.digest(SAME_SIZE)
    ),
    "no If-None-Match": lambda t: api.put(t, PNG.data, if_none_match=None),
    "no checksum": lambda t: api.put(t, PNG.data, x_amz_checksum_sha256=None),
    "chunks without a length": _chunked,
    "a longer life": _longer_life,
    "a key of another workspace": lambda t: _edited(t, "/ws_demo/", "/ws_other/"),
    "a key among the verified": lambda t: _edited(t, "/incoming/", "/assets/"),
    "a key that climbs": lambda t: _edited(t, "/ws_demo/", "/ws_demo/../ws_other/"),
    "a key that climbs, encoded": lambda t: _edited(t, "/ws_demo/", "/ws_demo/%2e%2e/ws_other/"),
    "a key of another asset": lambda t: _edited(t, t["assetId"], api.UNKNOWN),
    "another signature": _flip,
    "no signature": _unsigned,
    "POST": lambda t: api.http_call("POST", t["uploadUrl"], t["headers"], PNG.data),
}


@every_store
def test_a_put_that_is_not_what_was_signed_is_refused(store: Store) -> None:
    for trick, attempt in REFUSED.items():
        ticket = api.request(PNG)
        reply = attempt(ticket)
        assert 400 <= reply.status < 500, (trick, reply)
        assert store.list() == [], trick
        early = api.confirm(ticket["assetId"])
        assert (early.status, early.code) == (409, "asset.not_uploaded"), trick
        assert early.headers["Retry-After"] == "1"
        assert invariants.status(ticket["assetId"]) == "pending", trick
        # The ticket is still good for what it was given for.
        assert api.put(ticket, PNG.data).status == 200, trick
        assert api.confirm(ticket["assetId"]).status == 200, trick
        api.delete(ticket["assetId"])


@every_store
def test_an_upload_url_neither_reads_nor_deletes(store: Store) -> None:
    """32."""
    ticket = api.request(PNG)
    assert api.put(ticket, PNG.data).status == 200
    for method in ("GET", "HEAD", "DELETE"):
        reply = api.http_call(method, ticket["uploadUrl"], ticket["headers"])
        assert 400 <= reply.status < 500, (method, reply)
    assert api.confirm(ticket["assetId"]).status == 200


@every_store
def test_bytes_that_were_not_announced_are_found_at_confirm(store: Store) -> None:
    """Without a checksum the store cannot know; the bytes themselves show it."""
    ticket = api.request(PNG, sha256=None)
    assert api.put(ticket, b"<html>".ljust(len(PNG.data))).status == 200
    refused = api.confirm(ticket["assetId"])
    assert (refused.status, refused.code) == (422, "asset.rejected")
    assert refused.body["reason"] == "type_mismatch"
    assert invariants.events(ticket["assetId"]) == ["AssetRejected"]
    assert invariants.usage() == (0, 0)
    assert store.list() == []
    assert api.confirm(ticket["assetId"]).same_as(refused)


@every_store
def test_a_weak_store_that_took_other_bytes_than_signed_is_seen_through(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a store checks neither length nor checksum: as if it had let them pass."""
    copied: list[str] = []
    provider = type(configured())
    real: Any = provider.copy

    def copy(self: object, source: str, *args: Any, **more: Any) -> None:
        copied.append(source)
        real(self, source, *args, **more)

    monkeypatch.setattr(provider, "copy", copy)
    for data, reason in (
        (PNG.data + b"x", "size_mismatch"),
        (PNG.data[:-1], "size_mismatch"),
        (SAME_SIZE, "checksum_mismatch"),
    ):
        ticket = api.request(PNG)
        store.write(f"incoming/ws_demo/{ticket['assetId']}", data)
        refused = api.confirm(ticket["assetId"])
        assert (refused.status, refused.body["reason"]) == (422, reason)
        assert bool(copied) == (reason != "size_mismatch"), "a size is seen before the copy"
        assert store.list() == []
    assert invariants.usage() == (0, 0)


@every_store
def test_headers_beyond_the_signed_have_no_effect(store: Store) -> None:
    """Refused, or taken and dropped by the copy: nothing of them is served."""
    extra = {
        "x_amz_acl": "public-read",
        "x_amz_meta_evil": "1",
        "x_amz_tagging": "a=b",
        "cache_control": "public",
        "content_disposition": "inline",
        "content_language": "xx",
        "x_amz_website_redirect_location": "https://evil.example",
    }
    for name, value in extra.items():
        ticket = api.request(PNG)
        reply = api.put(ticket, PNG.data, **{name: value})
        if reply.status != 200:
            assert 400 <= reply.status < 500, (name, reply)
            assert api.put(ticket, PNG.data).status == 200
        found = api.confirm(ticket["assetId"]).body
        download = api.http_call("GET", found["downloadUrl"])
        assert download.status == 200, name
        assert download.headers["content-disposition"].startswith("attachment;"), name
        assert not {n for n in download.headers if "evil" in n or "redirect" in n}, name
        assert download.headers.get("content-language") is None
        assert "public" not in download.headers.get("cache-control", "")


@every_store
def test_a_content_encoding_is_not_served(store: Store) -> None:
    """Accepted by every store, as it cannot be forbidden by a signature."""
    ticket = api.request(PNG)
    reply = api.put(ticket, PNG.data, content_encoding="gzip")
    if reply.status != 200:
        assert 400 <= reply.status < 500
        assert api.put(ticket, PNG.data).status == 200
    download = api.http_call("GET", api.confirm(ticket["assetId"]).body["downloadUrl"])
    assert download.body == PNG.data
    # MiniStack's copy keeps what REPLACE drops at AWS; the signed address names another one.
    assert download.headers.get("content-encoding", "identity") == "identity"


@every_store
def test_an_expired_url_is_refused(store: Store) -> None:
    """The same URL, signed eleven minutes ago."""
    ticket = api.request(PNG)
    key = f"incoming/ws_demo/{ticket['assetId']}"
    provider: Any = configured()
    if store.name == "local":
        url = provider.presign_put(key, "image/png", len(PNG.data), api.digest(PNG.data), -60).url
    else:
        bound = ticket["headers"] | {"Content-Length": str(len(PNG.data))}
        old = datetime.now(UTC) - timedelta(minutes=11)
        url = provider._presign("PUT", key, 600, headers=bound, now=old)
    reply = api.put(ticket | {"uploadUrl": url}, PNG.data)
    assert reply.status == 403, reply
    assert b"xpired" in reply.body, "refused for another reason"
    assert store.list() == []


@every_store
def test_a_url_writes_once(store: Store) -> None:
    """Before confirm: the second PUT is refused, the first stands."""
    ticket = api.request(PNG, sha256=None)
    assert api.put(ticket, PNG.data).status == 200
    assert api.put(ticket, SAME_SIZE).status == 412
    assert api.confirm(ticket["assetId"]).body["sha256"] == api.digest(PNG.data)


@every_store
def test_a_replay_after_ready_changes_nothing_and_goes_with_its_event(store: Store) -> None:
    """After confirm: an object lies in incoming/ again; what is served stays."""
    ticket = api.request(PNG, sha256=None)
    asset_id = ticket["assetId"]
    api.put(ticket, PNG.data)
    first = api.confirm(asset_id)
    assert api.put(ticket, SAME_SIZE).status == 200
    assert api.confirm(asset_id).same_as(first)
    assert api.deliver(f"incoming/ws_demo/{asset_id}") == []
    assert len(store.list()) == 1, "what was written again is charged to no one"
    assert api.http_call("GET", first.body["downloadUrl"]).body == PNG.data
    assert invariants.events(asset_id) == ["AssetReady"]


@every_store
def test_of_eight_parallel_puts_one_wins(store: Store) -> None:
    """Two contents, eight clients, one object; confirm sees the winner's bytes."""
    for _ in range(2):
        ticket = api.request(PNG, sha256=None)
        bodies = [samples.png(width=3 + n) for n in range(8)]
        assert {len(body) for body in bodies} == {len(PNG.data)}
        with ThreadPoolExecutor(8) as pool:
            replies = list(pool.map(partial(api.put, ticket), bodies))
        won = [i for i, reply in enumerate(replies) if reply.status == 200]
        assert len(won) == 1, [reply.status for reply in replies]
        assert {reply.status for reply in replies} <= {200, 409, 412}
        assert api.confirm(ticket["assetId"]).body["width"] == 3 + won[0]


@every_store
@pytest.mark.parametrize("end", ["rejected", "expired", "deleted"])
def test_an_upload_after_the_end_revives_nothing_and_goes_with_its_event(
    end: str, store: Store
) -> None:
    """35."""
    ticket = api.request(PNG, sha256=None)
    asset_id, key = ticket["assetId"], f"incoming/ws_demo/{ticket['assetId']}"
    if end == "rejected":
        api.put(ticket, b"MZ".ljust(len(PNG.data)))
        assert api.confirm(asset_id).code == "asset.rejected"
    elif end == "expired":
        invariants.pass_deadline(asset_id)
        api.sweep()
        assert invariants.status(asset_id) == "expired"
    else:
        api.delete(asset_id)
    before = (api.confirm(asset_id), api.get(asset_id))
    assert api.put(ticket, PNG.data).status == 200
    assert api.deliver(key) == []
    assert store.list() == []
    for old, new in zip(before, (api.confirm(asset_id), api.get(asset_id)), strict=True):
        assert new.same_as(old)
    assert invariants.status(asset_id) == end
    assert invariants.usage() == (0, 0)


@every_bucket
def test_a_verified_object_carries_only_what_we_wrote(store: Any) -> None:
    ticket = api.request(PNG)
    api.put(ticket, PNG.data, content_encoding="gzip")
    api.confirm(ticket["assetId"])
    (key,) = store.list()
    found = store.head(key)
    assert found["ContentType"] == "image/png"
    assert found["ContentDisposition"] == "attachment"
    assert found["CacheControl"] == "private, max-age=31536000, immutable"
    assert found["Metadata"] == {}
    if store.name != "ministack":
        assert "ContentEncoding" not in found
