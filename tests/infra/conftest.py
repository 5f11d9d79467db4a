"""The template as CloudFormation gets it, translated in-process, without AWS."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from local import template
from local.stack import deploy


@pytest.fixture(scope="session")
def source() -> dict[str, Any]:
    """template.yaml, with the long form of every intrinsic."""
    return template.read()


@pytest.fixture(scope="session")
def _translated() -> str:
    return json.dumps(template.translated())


@pytest.fixture
def stack(_translated: str) -> dict[str, Any]:
    """What CloudFormation deploys; a test may change its copy."""
    found: dict[str, Any] = json.loads(_translated)
    return found


@pytest.fixture(scope="session")
def samconfig() -> dict[str, Any]:
    import tomllib

    return tomllib.loads((template.ROOT / "samconfig.toml").read_text())


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """.aws-sam/build, built again when the sources have changed."""
    asyncio.run(deploy.build(tmp_path_factory.mktemp("build") / "log"))
    return deploy.BUILD
