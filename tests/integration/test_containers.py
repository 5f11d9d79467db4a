"""The way from a container to the stack; tests/e2e/test_sam_local.py goes it with real ones."""

import asyncio
import os
import socket
import sys
from pathlib import Path

import pytest

from local import settings
from local.settings import Settings
from local.stack import containers
from tests.ports import free_port

BRIDGE = "127.0.0.2"  # an address of this machine that nothing listens on, as a bridge's is
GIVEN = {
    "APP_BASE_URL": "http://127.0.0.1:8000",
    "AWS_ENDPOINT_URL": "http://127.0.0.1:20001",
    "BILLING_STRIPE_BASE_URL": "http://localhost:20003",
    "CACHE_MEMCACHED_SERVERS": "127.0.0.1:11211,localhost:11212,cache.internal:11213",
    "DATABASE_URL_ARN": "arn:aws:secretsmanager:…",
    "STAGE": "local",
}


@pytest.fixture
def stack(tmp_path: Path) -> Settings:
    kept = dict.fromkeys(("POSTGRES_PASSWORD", "AUTH_JWT_SECRET"), "secret")
    return Settings(tmp_path, 8000, 20001, 20002, 20003, kept, {})


def test_a_container_is_given_its_own_name_for_this_machine(stack: Settings) -> None:
    found = containers.environment(stack, GIVEN, "10.88.0.1")
    assert found == GIVEN | {
        "AWS_ENDPOINT_URL": "http://10.88.0.1:20001",
        "BILLING_STRIPE_BASE_URL": "http://10.88.0.1:20003",
        "CACHE_MEMCACHED_SERVERS": "10.88.0.1:11211,10.88.0.1:11212,cache.internal:11213",
        "DATABASE_URL": "postgresql://kyora:secret@10.88.0.1:20002/kyora",
    }


def test_without_an_engine_everything_is_where_it_is_for_the_host(
    stack: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"tcp://127.0.0.1:{free_port()}")
    name = containers.address()
    assert name == ""
    assert containers.environment(stack, GIVEN, name)["DATABASE_URL"] == stack.database_url


def test_a_function_without_a_database_is_given_none(stack: Settings) -> None:
    given = GIVEN | {"DATABASE_URL_ARN": ""}
    assert "DATABASE_URL" not in containers.environment(stack, given, "10.88.0.1")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a bridge of its own")
def test_what_listens_here_is_reached_over_the_bridge_until_the_stack_stops() -> None:
    content = os.urandom(1 << 20)

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.read())  # to the end: the other half stays open for the answer
        writer.close()

    async def ask(port: int) -> bytes:
        reader, writer = await asyncio.open_connection(BRIDGE, port)
        writer.write(content)
        writer.write_eof()
        try:
            return await reader.read()
        finally:
            writer.close()

    async def scene() -> list[bytes]:
        async with await asyncio.start_server(echo, settings.HOST, 0) as server:
            port = server.sockets[0].getsockname()[1]
            given = [{"A": f"http://{BRIDGE}:{port}"}, {"A": f"http://{BRIDGE}:{port}/again"}]
            async with containers.forwarding(BRIDGE, given):
                found = await asyncio.gather(*(ask(port) for _ in range(20)))
            with pytest.raises(ConnectionRefusedError):
                await ask(port)
            return list(found)

    assert asyncio.run(scene()) == [content] * 20


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a bridge of its own")
def test_a_service_that_is_down_ends_the_containers_connection() -> None:
    async def scene() -> bytes:
        port = free_port()
        async with containers.forwarding(BRIDGE, [{"A": f"{BRIDGE}:{port}"}]):
            reader, writer = await asyncio.open_connection(BRIDGE, port)
            try:
                return await asyncio.wait_for(reader.read(), 60)
            finally:
                writer.close()

    assert asyncio.run(scene()) == b""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a bridge of its own")
def test_a_taken_port_is_reported_and_stops_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    async def scene(port: int) -> str:
        async with containers.forwarding(BRIDGE, [{"A": f"{BRIDGE}:{port}"}]):
            return "up"

    with socket.create_server((BRIDGE, 0)) as taken:
        assert asyncio.run(scene(taken.getsockname()[1])) == "up"
    assert "`sam local` will not reach the stack" in capsys.readouterr().out
