"""A first deploy that fails is repaired and repeated, with the real sam against the emulator."""

import asyncio
import dataclasses
from pathlib import Path

import pytest

from local import process, settings
from local.process import Child
from local.progress import Trouble
from local.settings import ROOT, Settings
from local.stack import clock, deploy, emulator, postgres
from tests.ports import free_port

_SECONDS = 400  # for a build, two deploys and a rollback on a busy machine


async def _fails_then_works(stack: Settings, children: list[Child]) -> None:
    logs = stack.logs
    children.append(
        await postgres.run(
            stack.home / "postgres",
            stack.postgres_port,
            stack.secrets["POSTGRES_PASSWORD"],
            logs / "postgres.log",
        )
    )
    children.append(
        await emulator.run(
            ROOT / ".local/ministack/bin/python",
            stack.home / "emulator",
            stack.gateway_port,
            logs / "emulator.log",
            clock.environment(stack.home),
        )
    )
    wrong = dataclasses.replace(stack, postgres_port=free_port())
    with pytest.raises(Trouble, match=r"DatabaseMigration: .*database cannot be reached"):
        await deploy.deploy(stack, deploy.parameters(wrong), logs / "wrong.log")

    # As docs/deploy.md says: the stack that was rolled back is deleted, its address put right.
    assert deploy.stack(stack) is None
    await deploy.deploy(stack, deploy.parameters(stack), logs / "right.log")

    resources = deploy.stack(stack)
    assert resources is not None
    assert "DatabaseMigration" in resources
    [[applied]] = postgres.query(stack.database_owner_url, "SELECT count(*) FROM schema_migration")
    assert applied > 0


async def _within_its_time(stack: Settings) -> None:
    children: list[Child] = []
    try:
        async with asyncio.timeout(_SECONDS):
            await _fails_then_works(stack, children)
    finally:
        for child in reversed(children):
            await process.stop(child)


@pytest.mark.timeout(_SECONDS + 60)
def test_a_first_deploy_with_a_wrong_database_is_repaired_and_repeated(
    built: Path, tmp_path: Path
) -> None:
    stack = settings.load(tmp_path, free_port(), {})
    asyncio.run(_within_its_time(stack))
