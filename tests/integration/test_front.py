"""The local address shows its pages and its mails to this machine only."""

import asyncio
import http.client
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp import web

from local.front import Front, application
from local.settings import Settings


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The front without a stack behind it; returns its port."""
    home: Path = tmp_path_factory.mktemp("home")
    secrets = {"POSTGRES_PASSWORD": "x", "AUTH_JWT_SECRET": "y" * 64}
    stack = Settings(home, 8000, 1, 1, 1, secrets, {})
    loop = asyncio.new_event_loop()
    runner = web.AppRunner(application(Front(stack)))

    async def begin() -> int:
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        return int(runner.addresses[0][1])

    port = loop.run_until_complete(begin())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield port
    asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()


def status(port: int, path: str, *, method: str = "GET", **headers: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
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


def test_the_api_may_be_reached_by_another_name_as_through_a_tunnel(front: int) -> None:
    assert status(front, "/v1/health", Host="shop.tunnel.example") == 503  # nothing runs behind it


@pytest.mark.parametrize(
    ("headers", "answer"),
    [
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({}, 503),  # a program: passed on to the API, which does not run here
    ],
)
def test_another_site_cannot_act_on_local_pages(
    front: int, headers: dict[str, str], answer: int
) -> None:
    assert status(front, "/_local/state", method="POST", **headers) == answer
