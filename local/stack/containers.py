"""How a container of `sam local` reaches the stack.

The stack listens on 127.0.0.1, which inside a container is the container itself, and SAM never
starts one in the host's network (aws-sam-cli 1.170 ignores `--docker-network host`). On Linux the
stack therefore also listens on the address of the containers' bridge, which only this machine and
its containers reach. Docker Desktop has a name for this machine, and forwards to it.
"""

import asyncio
import os
import re
import socket
import sys
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import ExitStack, asynccontextmanager, closing, suppress
from pathlib import Path

from local.progress import say
from local.settings import HOST, Settings

DESKTOP = "host.docker.internal"  # this machine, in a container of Docker Desktop
_HERE = re.compile(r"\b(?:127\.0\.0\.1|localhost):(\d+)")
_SOCKET = "/var/run/docker.sock"  # where docker.from_env() looks without DOCKER_HOST
_FREEBIND = 15  # ip(7): Podman's bridge has no address before its first container runs


def address() -> str:
    """Return what a container calls this machine; empty where no container engine answers."""
    if not os.environ.get("DOCKER_HOST") and not Path(_SOCKET).exists():
        return ""
    import docker  # type: ignore[import-untyped] # as SAM finds one; a third of a second

    try:
        with closing(docker.from_env(timeout=5)) as engine:
            if sys.platform != "linux" or engine.info()["OperatingSystem"] == "Docker Desktop":
                return DESKTOP if engine.ping() else ""
            networks = engine.networks.get("bridge").attrs["IPAM"]["Config"]
            return next((str(n["Gateway"]) for n in networks if "." in n.get("Gateway", "")), "")
    except (docker.errors.DockerException, OSError):
        return ""


def environment(stack: Settings, given: Mapping[str, str], container: str) -> dict[str, str]:
    """Return a function's variables for a container, which calls this machine `container`.

    Secrets that name this machine are given as variables: Secrets Manager has the host's.
    """
    secrets = {"DATABASE_URL": stack.database_url, "DATABASE_OWNER_URL": stack.database_owner_url}
    known = {name: secret for name, secret in secrets.items() if given.get(f"{name}_ARN")}
    return {
        # Links are opened outside the container.
        name: text if name == "APP_BASE_URL" else _HERE.sub(rf"{container or HOST}:\1", text)
        for name, text in {**given, **known}.items()
    }


@asynccontextmanager
async def forwarding(container: str, given: Iterable[Mapping[str, str]]) -> AsyncIterator[None]:
    """Listen on the bridge for each port that these variables name there."""
    ports: set[int] = set()
    if container not in ("", DESKTOP):
        named = re.compile(rf"\b{re.escape(container)}:(\d+)")
        texts = [text for found in given for text in found.values()]
        ports = {int(port) for text in texts for port in named.findall(text)}
    with ExitStack() as stack:
        try:
            for port in sorted(ports):
                stack.callback((await _listen(container, port)).close)
        except OSError as error:
            say(f"  · `sam local` will not reach the stack: {container}: {error.strerror}")
        yield


async def _listen(container: str, port: int) -> asyncio.Server:
    with socket.socket() as bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setsockopt(socket.IPPROTO_IP, _FREEBIND, 1)
        bound.bind((container, port))

        async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with suppress(OSError), closing(writer):
                answers, questions = await asyncio.open_connection(HOST, port)
                with closing(questions):
                    await asyncio.gather(_pump(reader, questions), _pump(answers, writer))

        return await asyncio.start_server(forward, sock=bound.dup())


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    with suppress(OSError):
        writer.write_eof()
