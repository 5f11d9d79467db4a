"""Built functions under the real Lambda runtime, with a real database."""

import asyncio
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from local.stack import deploy, runtime
from local.stack.runtime import Running

type Start = Callable[..., Running]

# What the shared fixture `environment` sets, and a function has to see.
_VARIABLES = (
    *(
        "STAGE",
        "DATABASE_URL",
        "DATABASE_OWNER_URL",
        "AWS_ENDPOINT_URL",
        "AUTH_JWT_SECRET",
        "APP_BASE_URL",
        "BUS_NAME",
    ),
    *("STORAGE_PROVIDER", "STORAGE_LOCAL_PATH"),
)


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """.aws-sam/build, built again when the sources have changed."""
    asyncio.run(deploy.build(tmp_path_factory.mktemp("build") / "log"))
    return deploy.BUILD


@pytest.fixture
def start(built: Path, environment: pytest.MonkeyPatch) -> Iterator[Start]:
    """Start a function with the test's environment; everything started ends with the test."""
    started = []

    def begin(function: str, *, timeout: float | None = None, **more: str) -> Running:
        env = {name: os.environ[name] for name in _VARIABLES if name in os.environ}
        started.append(runtime.start(function, env | more, timeout=timeout))
        return started[-1]

    yield begin
    for running in started:
        running.stop()
