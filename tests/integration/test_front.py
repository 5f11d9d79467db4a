"""The local address shows its pages and its mails to this machine only."""

import http.client
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from local.settings import Settings
from local.shift import sitecustomize
from local.stack.clock import Clock
from local.web.running import Front
from tests.integration.support.fronts import serving


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The front without a stack behind it; returns its port."""
    home: Path = tmp_path_factory.mktemp("home")
    secrets = {"POSTGRES_PASSWORD": "x", "AUTH_JWT_SECRET": "y" * 64}
    stack = Settings(home, 8000, 1, 1, 1, secrets, {})
    moved = Clock(stack, sitecustomize.Shift(home / "clock"))
    with serving(Front(stack, moved, token="the token")) as port:
        yield port


def status(port: int, path: str, *, method: str = "GET", **headers: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, path, headers=headers)
        return connection.getresponse().status
    finally:
        connection.close()


PAGES = ("/", "/mailbox", "/docs", "/_local/mails", "/_local/mails/eml_1/html", "/_local/state")


@pytest.mark.parametrize("path", PAGES)
def test_a_rebound_name_sees_no_page_and_no_mail(front: int, path: str) -> None:
    assert status(front, path, Host="evil.example:8000") == 403
    assert status(front, path, Host="localhost:8000") in {200, 404, 503}


def test_the_icon_that_a_browser_asks_for_is_no_request_to_the_api(front: int) -> None:
    assert status(front, "/favicon.ico") == 200


def test_the_api_may_be_reached_by_another_name_as_through_a_tunnel(front: int) -> None:
    assert status(front, "/v1/health", Host="shop.tunnel.example") == 503  # nothing runs behind it


@pytest.mark.parametrize(
    ("headers", "answer"),
    [
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({}, 404),  # a program: there is nothing to do there, and no function is asked
    ],
)
def test_another_site_cannot_act_on_local_pages(
    front: int, headers: dict[str, str], answer: int
) -> None:
    assert status(front, "/_local/state", method="POST", **headers) == answer


# ---- the clock

ACT = {"Content-Type": "application/json", "X-Kyora-Token": "the token"}


@pytest.mark.parametrize(
    ("headers", "answer"),
    [
        ({"X-Kyora-Token": "another"} | {"Content-Type": "application/json"}, 401),
        ({"Content-Type": "application/json"}, 401),
        ({"Content-Type": "text/plain", "X-Kyora-Token": "the token"}, 415),
        (ACT, 422),
    ],
)
def test_the_clock_moves_only_for_who_has_the_token(
    front: int, headers: dict[str, str], answer: int
) -> None:
    assert status(front, "/_local/time", method="POST", **headers) == answer


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example:8000"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
    ],
)
def test_another_site_neither_sees_nor_moves_the_clock(front: int, headers: dict[str, str]) -> None:
    assert status(front, "/_local/time", method="POST", **headers) == 403
    if "Host" in headers:
        assert status(front, "/_local/time", **headers) == 403


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ('{"to": "never"}', "is no time"),
        ('{"to": "+1d", "stepDays": 8}', "stepDays is a number from 1 to 7"),
        ('{"to": "+1d", "stepDays": "1"}', "stepDays is a number from 1 to 7"),
        ("{}", "is no time"),
        ("+7d", "the body is a JSON object"),
        ("[]", "the body is a JSON object"),
    ],
)
def test_a_move_that_makes_no_sense_says_why(front: int, body: str, why: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", front, timeout=60)
    connection.request("POST", "/_local/time", body, ACT)
    answer = connection.getresponse()
    assert answer.status == 422
    assert why in json.loads(answer.read())["error"]
    connection.close()


def test_the_clock_says_what_time_it_is(front: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", front, timeout=60)
    connection.request("GET", "/_local/time")
    found = json.loads(connection.getresponse().read())
    connection.close()
    assert {name: found[name] for name in ("aheadSeconds", "movingTo", "fixed", "faults")} == {
        "aheadSeconds": 0,
        "movingTo": None,
        "fixed": "",
        "faults": [],
    }


# ---- what is no request of ours


def said(port: int, request: bytes) -> tuple[int, dict[str, str], bytes]:
    """Send bytes as they are and return status, headers and body of the answer."""
    with socket.create_connection(("127.0.0.1", port), 60) as connection:
        connection.sendall(request)
        response = http.client.HTTPResponse(connection)
        response.begin()
        return response.status, {k.lower(): v for k, v in response.headers.items()}, response.read()


TOKEN = b"eyJhbGciOiJIUzI1NiJ9.canary"
MALFORMED = {
    "a long token": (
        b"GET /v1/health HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + TOKEN * 600 + b"\r\n\r\n",
        431,
    ),
    "a long name": (
        b"GET /v1/health HTTP/1.1\r\nHost: x\r\n" + TOKEN.replace(b".", b"") * 600 + b": 1\r\n\r\n",
        431,
    ),
    "a long address": (b"GET /v1/" + TOKEN * 600 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 431),
    "a header without a colon": (
        b"GET /v1/health HTTP/1.1\r\nHost: x\r\nAuthorization " + TOKEN + b"\r\n\r\n",
        400,
    ),
    "a control character": (
        b"GET /v1/health HTTP/1.1\r\nHost: x\r\nAuthorization: " + TOKEN + b"\0\r\n\r\n",
        400,
    ),
    "no method": (b"\x16\x03\x01" + TOKEN + b"\r\n\r\n", 400),
    "two lengths": (
        b"POST /v1/health HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: "
        + TOKEN
        + b"\r\n\r\nx",
        400,
    ),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_what_is_no_http_is_refused_without_repeating_it(
    name: str, front: int, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    request, expected = MALFORMED[name]
    status, headers, body = said(front, request)
    assert status == expected
    assert headers["content-type"].startswith("application/problem+json")
    assert headers["x-request-id"]
    assert json.loads(body)["status"] == status
    assert b"canary" not in body
    assert b"eyJ" not in body + "".join(headers.values()).encode()


@pytest.mark.parametrize(
    "target",
    [
        b"http://other.example/v1/health",
        b"http://127.0.0.1:9/v1/health",
        b"https://other.example/",
        b"http://other.example",
        b"ftp://x/y",
        b"*",
    ],
)
def test_an_absolute_target_is_no_address_here(target: bytes, front: int) -> None:
    method = b"OPTIONS" if target == b"*" else b"GET"
    status, headers, body = said(front, method + b" " + target + b" HTTP/1.1\r\nHost: x\r\n\r\n")
    assert 400 <= status < 500
    assert headers["content-type"].startswith("application/problem+json")
    assert json.loads(body)["status"] == status


def test_a_token_below_the_limit_is_passed_on(front: int) -> None:
    request = b"GET /v1/health HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + b"x" * 8000
    assert said(front, request + b"\r\n\r\n")[0] == 503  # nothing runs behind it
