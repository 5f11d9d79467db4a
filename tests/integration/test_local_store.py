"""The `local` store keeps S3's rules, and its files stay in its folder."""

import io
import socket
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from kyora import config
from kyora.storage import local
from tests.conftest import SECRET
from tests.integration.support import api, invariants
from tests.integration.support.api import Reply
from tests.integration.support.samples import PNG, Sample
from tests.integration.support.stores import PAGE, Folder


def _raw(url: str, head: str, body: bytes = b"", *, hang_up: bool = False) -> int:
    """Send a request exactly as written; return the status, or 0 when none came."""
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port), timeout=60) as sock:
        sock.sendall(head.replace("\n", "\r\n").encode() + body)
        if hang_up:
            return 0
        line = sock.makefile("rb").readline().split()
        return int(line[1]) if line else 0


def test_a_forged_signature_opens_nothing(store: Folder) -> None:
    """Signed with the JWT's secret itself, with an empty one, or for another method."""
    ticket = api.request(PNG)
    key = f"incoming/ws_demo/{ticket['assetId']}"
    settings = config.storage()
    until = int(time.time()) + 600
    for secret in ("", "another secret of thirty-two bytes!"):
        forged = local._sign(_with(secret), "PUT", key, until, "image/png", str(len(PNG.data)), "")
        url = f"{store.variables['APP_BASE_URL']}{local.PREFIX}{key}"
        answer = api.http_call(
            "PUT",
            f"{url}?expires={until}&signature={forged}",
            {"Content-Type": "image/png", "If-None-Match": "*"},
            PNG.data,
        )
        assert answer.status == 403
    for query in (
        "",
        "?expires=",
        "?expires=٣&signature=x",
        "?expires=1e9&signature=x",
        "?expires=99999999999999&signature=x",
        "?signature=é",
    ):
        plain = ticket["uploadUrl"].partition("?")[0]
        assert (
            api.put(
                ticket | {"uploadUrl": plain + query.encode("ascii", "replace").decode()}, PNG.data
            ).status
            == 403
        )
    assert local._sign(settings, "GET", key, until, "a", "b") != local._sign(
        settings, "PUT", key, until, "a", "b"
    )
    assert store.list() == []


def _with(secret: str) -> config.Storage:
    return config.storage()._replace(auth_jwt_secret=secret)


PATHS = [
    "../secret",
    "..%2fsecret",
    "%2e%2e/secret",
    "%252e%252e/secret",
    "incoming/ws_demo/../../../secret",
    "incoming/ws_demo/..%2f..%2f..%2fsecret",
    "incoming//ws_demo",
    "incoming/ws_demo/a%00b",
    "/etc/passwd",
    "%2fetc%2fpasswd",
    "incoming/ws_demo/A",
    "incoming/ws_demo/.hidden",
    "other/ws_demo/a",
    "incoming",
    "",
]


@pytest.mark.parametrize("path", PATHS)
def test_a_path_that_climbs_is_refused_even_with_a_good_signature(path: str, store: Folder) -> None:
    """As if an attacker had the key; nothing is read or written outside the folder."""
    from urllib.parse import unquote

    secret = store.root.parent / "secret"
    secret.write_bytes(b"secret")
    settings = config.storage()
    until = int(time.time()) + 600
    key = unquote(path)
    get = local._sign(settings, "GET", key, until, "text/plain", "x")
    query = f"expires={until}&type=text%2Fplain&name=x&signature={get}"
    host = urlsplit(store.variables["APP_BASE_URL"]).netloc
    status = _raw(
        store.variables["APP_BASE_URL"],
        f"GET {local.PREFIX}{path}?{query} HTTP/1.1\nHost: {host}\nConnection: close\n\n",
    )
    assert status in (400, 403, 404), status
    put = local._sign(settings, "PUT", key, until, "text/plain", "3", "")
    status = _raw(
        store.variables["APP_BASE_URL"],
        f"PUT {local.PREFIX}{path}?expires={until}&signature={put} HTTP/1.1\nHost: {host}\n"
        "Content-Type: text/plain\nContent-Length: 3\nIf-None-Match: *\nConnection: close\n\n",
        b"abc",
    )
    assert status in (400, 403, 404), status
    assert secret.read_bytes() == b"secret"
    secret.unlink()
    assert store.list() == []


def test_links_planted_in_the_folder_are_not_followed(store: Folder, tmp_path: Path) -> None:
    """To read, to copy, to write through a folder or a file."""
    outside = tmp_path / "outside"
    outside.mkdir()
    target = outside / "secret.png"
    target.write_bytes(PNG.data)

    # A file that is a link, in place of the upload.
    ticket = api.request(PNG, sha256=None)
    path = store.root / "incoming" / "ws_demo" / ticket["assetId"]
    path.parent.mkdir(parents=True)
    path.symlink_to(target)
    answer = api.confirm(ticket["assetId"])
    assert answer.status in (422, 503), answer
    path.unlink(missing_ok=True)
    assert api.put(ticket, PNG.data).status in (200, 412)
    api.delete(ticket["assetId"])

    # A file that is a link, in place of the verified bytes.
    asset_id = api.upload(PNG)
    url = api.confirm(asset_id).body["downloadUrl"]
    final = next(store.root.glob(f"assets/ws_demo/{asset_id}/*"))
    final.unlink()
    final.symlink_to(target)
    assert api.http_call("GET", url).status == 404
    final.unlink()
    final.write_bytes(PNG.data)

    # A folder that is a link.
    ticket = api.request(PNG, api.STRANGER)
    (store.root / "incoming" / "ws_other").symlink_to(outside)
    assert api.put(ticket, PNG.data).status == 404
    assert api.confirm(ticket["assetId"], api.STRANGER).status in (404, 409, 503)
    assert [path.name for path in outside.iterdir()] == ["secret.png"]
    (store.root / "incoming" / "ws_other").unlink()


def test_a_link_as_long_as_the_announced_file_is_not_followed_either(
    store: Folder, tmp_path: Path
) -> None:
    """A link's own size is the length of its target's path."""
    target = tmp_path / "secret.txt"
    size = len(str(target))
    target.write_bytes(b"s" * size)
    ticket = api.request(Sample("a.txt", "text/plain", target.read_bytes()))
    path = store.root / "incoming" / "ws_demo" / ticket["assetId"]
    path.parent.mkdir(parents=True)
    path.symlink_to(target)
    answer = api.confirm(ticket["assetId"])
    assert answer.status in (409, 422, 503), answer
    assert [key for key in store.list() if key.startswith("assets/")] == []
    path.unlink()


def test_a_body_that_breaks_off_or_goes_on_is_cut(store: Folder, logs: io.StringIO) -> None:
    """What a client announced and did not send, or sent beyond it, is not kept."""
    ticket = api.request(PNG)
    parts = urlsplit(ticket["uploadUrl"])
    head = f"PUT {parts.path}?{parts.query} HTTP/1.1\nHost: {parts.netloc}\n" + "".join(
        f"{name}: {value}\n" for name, value in ticket["headers"].items()
    )
    length = f"Content-Length: {len(PNG.data)}\n\n"
    _raw(ticket["uploadUrl"], head + length, PNG.data[:20], hang_up=True)
    deadline = time.monotonic() + 60
    while store.list() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert store.list() == [], "a temporary file stays"
    assert "Traceback" not in logs.getvalue(), "a client that leaves is no error of the server"
    assert api.confirm(ticket["assetId"]).status == 409
    # As much as is read at once: after more, a reset may come before the answer is read.
    surplus = _raw(ticket["uploadUrl"], head + length, PNG.data + b"x" * 1000)
    assert surplus in (200, 400)
    assert api.put(ticket, PNG.data).status == (412 if surplus == 200 else 200)
    assert store.read(f"incoming/ws_demo/{ticket['assetId']}") == PNG.data
    assert api.confirm(ticket["assetId"]).status == 200


def test_two_lengths_or_a_strange_one_are_refused(store: Folder) -> None:
    ticket = api.request(PNG)
    parts = urlsplit(ticket["uploadUrl"])
    head = f"PUT {parts.path}?{parts.query} HTTP/1.1\nHost: {parts.netloc}\n" + "".join(
        f"{name}: {value}\n" for name, value in ticket["headers"].items()
    )
    size = len(PNG.data)
    for length in (
        f"Content-Length: {size}\nContent-Length: {size + 1}\n",
        f"Content-Length: +{size}\n",
        f"Content-Length: {size}, {size}\n",
        f"Content-Length: 0x{size:x}\n",
        f"Content-Length: {size}\nTransfer-Encoding: chunked\n",
        "",
    ):
        status = _raw(ticket["uploadUrl"], head + length + "Connection: close\n\n", PNG.data)
        assert 400 <= status < 500, (length, status)
    assert store.list() == []


def test_a_refusal_of_the_store_is_a_problem_document(store: Folder) -> None:
    ticket = api.request(PNG)
    reply: Reply = api.put(ticket, PNG.data, content_type="text/html")
    assert reply.headers["content-type"].startswith("application/problem+json")
    assert b"signature=" not in reply.body


def test_a_served_file_cannot_run_in_the_browser(store: Folder) -> None:
    asset_id = api.upload(PNG)
    headers = api.http_call("GET", api.confirm(asset_id).body["downloadUrl"]).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["content-security-policy"] == "sandbox; default-src 'none'"


WRONG: dict[str, tuple[dict[str, str], str]] = {
    "the local store in production": (
        {"STAGE": "prod", "STORAGE_PROVIDER": "local", "AUTH_JWT_SECRET": SECRET},
        "STORAGE_PROVIDER",
    ),
    "the local store in staging": (
        {"STAGE": "staging", "STORAGE_PROVIDER": "local", "AUTH_JWT_SECRET": SECRET},
        "STORAGE_PROVIDER",
    ),
    "no bucket": ({"STAGE": "prod", "STORAGE_PROVIDER": "s3"}, "STORAGE_S3_BUCKET"),
    "a plain endpoint in production": (
        {
            "STAGE": "prod",
            "STORAGE_PROVIDER": "s3",
            "STORAGE_S3_BUCKET": "b",
            "STORAGE_S3_ENDPOINT": "http://minio:9000",
        },
        "STORAGE_S3_ENDPOINT",
    ),
    "a key without its secret": (
        {"STORAGE_PROVIDER": "s3", "STORAGE_S3_BUCKET": "b", "STORAGE_S3_ACCESS_KEY_ID": "k"},
        "STORAGE_S3_SECRET_ACCESS_KEY",
    ),
    "a broken table of types": ({"UPLOADS_ALLOWED": "{"}, "UPLOADS_ALLOWED"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_function_refuses_to_work_with(
    case: str, store: Folder, environment: pytest.MonkeyPatch, logs: Any
) -> None:
    """Every route that needs it answers 500 and says no more; the log names the variable."""
    variables, culprit = WRONG[case]
    routes = {route: name for route, name in api.ROUTES.items() if "/v1/assets" in route}
    if culprit == "UPLOADS_ALLOWED":  # what was uploaded can still be read and deleted
        routes = {route: name for route, name in routes.items() if name != "manage_asset"}
    assert routes
    for name, value in variables.items():
        environment.setenv(name, value)
    config.forget()
    for route in routes:
        answer = api.call(route, asset_id=api.UNKNOWN, body=api.wish(PNG))
        assert (answer.status, answer.code) == (500, "config.invalid")
        assert culprit not in answer.text
    assert culprit in logs.getvalue()
    environment.setenv("STAGE", "test")
    for name, value in store.variables.items():
        environment.setenv(name, value)
    environment.delenv("UPLOADS_ALLOWED", raising=False)
    config.forget()
    assert invariants.nothing_happened()


def test_a_page_of_a_known_origin_may_upload_and_read_the_etag(store: Folder) -> None:
    ticket = api.request(PNG)
    asked = {
        "Origin": PAGE,
        "Access-Control-Request-Method": "PUT",
        "Access-Control-Request-Headers": ",".join(sorted(map(str.lower, ticket["headers"]))),
    }
    preflight = api.http_call("OPTIONS", ticket["uploadUrl"], asked)
    assert preflight.status == 200
    assert preflight.headers["access-control-allow-origin"] == PAGE
    assert "PUT" in preflight.headers["access-control-allow-methods"]
    allowed = preflight.headers["access-control-allow-headers"].split(", ")
    assert {name.lower() for name in ticket["headers"]} <= set(allowed)
    put = api.put(ticket, PNG.data, Origin=PAGE)
    assert put.status == 200
    assert put.headers["etag"]
    assert put.headers["access-control-allow-origin"] == PAGE
    assert "ETag" in put.headers["access-control-expose-headers"]
    url = api.confirm(ticket["assetId"]).body["downloadUrl"]
    download = api.http_call("GET", url, {"Origin": PAGE})
    assert download.headers["access-control-allow-origin"] == PAGE


def test_a_page_of_another_origin_may_not(store: Folder) -> None:
    ticket = api.request(PNG)
    origin = {"Origin": "http://localhost:1", "Access-Control-Request-Method": "PUT"}
    assert api.http_call("OPTIONS", ticket["uploadUrl"], origin).status == 403
    put = api.put(ticket, PNG.data, Origin=origin["Origin"])
    assert "access-control-allow-origin" not in put.headers
