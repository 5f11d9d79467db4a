"""`make run`: start the stack, keep it running, stop it."""

import asyncio
import errno
import hashlib
import json
import logging
import os
import signal
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

from aiohttp import web

from local import process, settings, template
from local.commands import plans, remote
from local.commands.acts import ACTS
from local.process import Child
from local.progress import Trouble, say, step
from local.settings import HOST, ROOT, Settings
from local.shift import sitecustomize
from local.stack import (
    clock,
    containers,
    deploy,
    emulator,
    gaps,
    guide,
    postgres,
    routes,
    scanner,
    seed,
    starting,
    watch,
)
from local.stripe import child as standin
from local.web.front import Runner, application
from local.web.running import Front

_EMULATOR_PYTHON = ROOT / ".local" / "ministack" / "bin" / "python"


async def run(port: int) -> None:
    """Run the stack until Ctrl-C, SIGTERM or the end of a child process."""
    began = time.monotonic()
    home, lock = settings.claim_home(os.environ, port)
    with lock:
        stack = settings.load(home, port, os.environ)
        stopped = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, stopped.set)
        children: list[Child] = []
        # Before anything here looks at the clock: this process signs, and checks signed URLs.
        moved = clock.Clock(stack, sitecustomize.install(clock.file(home)))
        front = Front(stack, moved, acts=ACTS)
        # A file that is saved while the stack starts may be too late for the build.
        seen = await asyncio.to_thread(watch.snapshot)
        try:
            async with _serving(front):
                functions = await _or_stopped(_start(stack, front, children), stopped, children)
                if functions is None:
                    return
                here = await asyncio.to_thread(_environments, stack)
                name = await asyncio.to_thread(containers.address)
                there = {f: containers.environment(stack, given, name) for f, given in here.items()}
                values = await asyncio.to_thread(guide.write_files, stack, here, there, front.token)
                forwarding = containers.forwarding(name, there.values())
                async with forwarding, scanner.scanning(stack):
                    guide.show(stack, values, time.monotonic() - began)
                    await _or_stopped(watch.watch(stack, functions, seen), stopped, children)
        finally:
            if children:
                say("\nStopping …")
            # The emulator first: its functions hold connections to PostgreSQL.
            for child in reversed(children):
                if child.name == emulator.NAME and child.alive:
                    # It waits for running functions, which may wait for anything: its state is
                    # saved first, so that the wait can be short.
                    await asyncio.to_thread(emulator.save, child, home / "emulator")
                await process.stop(child, patience=3 if child.name == emulator.NAME else 10)


async def _or_stopped[T](
    work: Coroutine[Any, Any, T], stopped: asyncio.Event, children: list[Child]
) -> T | None:
    """Do the work until it ends, a stop is requested (None) or a child dies (Trouble)."""
    doing = asyncio.ensure_future(work)
    asked = asyncio.ensure_future(stopped.wait())
    dead = asyncio.ensure_future(_first_death(children))
    try:
        await asyncio.wait({doing, asked, dead}, return_when=asyncio.FIRST_COMPLETED)
        if doing.done():
            return await doing
        if asked.done():
            return None
        child = await dead
        raise Trouble(
            f"{child.name} ended unexpectedly (exit code {child.process.returncode}): "
            f"{process.last_line(child.log)}"
        )
    finally:
        for task in (doing, asked, dead):
            if not task.done():
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task


async def _first_death(children: list[Child]) -> Child:
    while True:
        for child in children:
            if not child.alive:
                return child
        await asyncio.sleep(0.2)


@asynccontextmanager
async def _serving(front: Front) -> AsyncIterator[None]:
    """Listen from the start; until the stack is up every answer is 503."""
    # auto_decompress: a body is passed on as it was sent; signed lengths count those bytes.
    runner = Runner(
        application(front),
        access_log=None,
        shutdown_timeout=2,
        auto_decompress=False,
        logger=_quiet(),
    )
    log = logging.FileHandler(front.stack.logs / "front.log", mode="w", delay=True)
    logging.getLogger("kyora.front").addHandler(log)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, HOST, front.stack.port, reuse_address=True).start()
        except OSError as error:
            raise Trouble(_refused(front.stack.port, error)) from error
        yield
    finally:
        await runner.cleanup()
        logging.getLogger("kyora.front").removeHandler(log)
        log.close()


def _refused(port: int, error: OSError) -> str:
    if error.errno == errno.EACCES:
        return f"port {port} needs more rights than this user has; choose another: PORT=8000"
    return (
        f"port {port} is already in use; stop what uses it, "
        f"or choose another one: PORT={port + 1} make run"
    )


def _quiet() -> logging.Logger:
    # aiohttp would print a malformed request, whose header may hold a token.
    logger = logging.getLogger("kyora.http-server")
    logger.addHandler(logging.NullHandler())
    logger.propagate = False
    return logger


async def _start(stack: Settings, front: Front, children: list[Child]) -> dict[str, str]:
    """Start everything; return the functions' names in AWS by folder."""
    building = asyncio.ensure_future(_build(stack))
    try:
        await _database(stack, children)
        if front.clock is not None:
            await asyncio.to_thread(front.clock.follow)
        if stack.own_stripe:
            with step("Stripe stand-in") as line:
                children.append(
                    await standin.run(stack, clock.environment(stack.home), front.token)
                )
                line.append(f"on {stack.stripe_url}")
        with step("AWS emulator") as line:
            child = await emulator.run(
                _EMULATOR_PYTHON,
                stack.home / "emulator",
                stack.gateway_port,
                stack.logs / "emulator.log",
                clock.environment(stack.home),
            )
            children.append(child)
            line.append(f"on {emulator.endpoint(stack.gateway_port)}")
        await building
    except BaseException:
        building.cancel()
        with suppress(asyncio.CancelledError, Trouble):
            await building
        raise
    parameters = await asyncio.to_thread(deploy.parameters, stack)
    digest = hashlib.sha256(json.dumps([deploy.built(), parameters]).encode()).hexdigest()
    deployed, touched = await _deploy(stack, child, parameters, digest)
    physical = await asyncio.to_thread(deploy.stack, stack)
    if physical is None:
        raise Trouble(f"sam deploy left no stack behind (log: {stack.logs / 'deploy.log'})")
    functions = {
        template.folder(logical): name
        for logical, name in physical.items()
        if logical.endswith("Function")
    }
    if deployed:
        with step("HTTP API") as line:
            deployed_template = await asyncio.to_thread(deploy.translated, stack)
            count = await asyncio.to_thread(routes.apply, stack, deployed_template, physical)
            await asyncio.to_thread(gaps.fill, stack, physical)
            line.append(f"with {count} routes")
    if touched:
        everything = [watch.KYORA, *(watch.FUNCTIONS / name for name in functions)]
        await asyncio.to_thread(watch.publish, stack, functions, everything)
    with step("Database migrated, demo workspace ready"):
        if touched or not deployed:  # otherwise the deploy's custom resource has just done it
            await asyncio.to_thread(migrate, stack, functions)
        await asyncio.to_thread(seed.seed, stack)
    if stack.own_stripe and not await asyncio.to_thread(seed.has_plans, stack):
        with step("Sample plans, in Stripe's stand-in and ours"):
            await asyncio.to_thread(plans.begin, remote.local(stack, functions, "sync_plans"))
    if deployed:
        await asyncio.to_thread(emulator.save, child, stack.home / "emulator")
        (stack.home / "deployed").write_text(digest)
        await asyncio.to_thread(emulator.deploy_is_whole, stack.home / "emulator")
    front.webhooks = await asyncio.to_thread(routes.webhooks, stack, functions)
    front.functions, front.api = functions, physical["HttpApi"]
    return functions


async def _database(stack: Settings, children: list[Child]) -> None:
    if stack.own_postgres:
        with step("PostgreSQL 18") as line:
            children.append(
                await postgres.run(
                    stack.home / "postgres",
                    stack.postgres_port,
                    stack.secrets["POSTGRES_PASSWORD"],
                    stack.logs / "postgres.log",
                )
            )
            line.append(f"on {HOST}:{stack.postgres_port}")
    elif not await asyncio.to_thread(postgres.answers, stack.database_url):
        raise Trouble("the database in DATABASE_URL does not answer")


async def _build(stack: Settings) -> None:
    if deploy.built() == await asyncio.to_thread(deploy.fingerprint):
        say("  ✓ sam build: nothing changed")
    else:
        with step("sam build", starting="sam build, about half a minute the first time"):
            await deploy.build(stack.logs / "build.log")
    names = [path.parent.name for path in sorted(watch.FUNCTIONS.glob("*/app.py"))]
    if failed := await asyncio.to_thread(starting.failures_of_build, names):
        raise Trouble(starting.explain(failed))


async def _deploy(
    stack: Settings, child: Child, parameters: dict[str, str], digest: str
) -> tuple[bool, bool]:
    """Deploy if needed; return whether it was, and whether saved files were deployed before.

    The file `deployed` holds the digest of the last `sam deploy`. A redeploy on save removes it,
    since functions may then differ from what CloudFormation knows.
    """
    marker = stack.home / "deployed"
    kept = marker.read_text() if marker.exists() else ""
    known = await asyncio.to_thread(deploy.stack, stack) is not None
    if known and kept == digest:
        say("  ✓ sam deploy: nothing changed")
        return False, False
    home = stack.home / "emulator"
    await asyncio.to_thread(emulator.keep_before_deploy, child, home, first=not known)
    with step("sam deploy of template.yaml", starting="sam deploy to the emulator"):
        await deploy.deploy(stack, parameters, stack.logs / "deploy.log")
    return True, known and not kept


def migrate(stack: Settings, functions: dict[str, str]) -> list[str]:
    """Run migrate_database by hand, as `make migrate` does; return the migrations applied."""
    client = emulator.client("lambda", stack.gateway_port)
    answer = client.invoke(FunctionName=functions["migrate_database"], Payload=b"{}")
    said = json.loads(answer["Payload"].read() or b"{}")
    if answer.get("FunctionError"):
        raise Trouble(f"migrate_database failed: {said.get('errorMessage', said)}")
    return list(said["applied"])


def _environments(stack: Settings) -> dict[str, dict[str, str]]:
    """Return the variables of each deployed function by logical id, and where AWS is."""
    pages = emulator.client("lambda", stack.gateway_port).get_paginator("list_functions").paginate()
    given = {f["FunctionName"]: f.get("Environment", {}) for p in pages for f in p["Functions"]}
    return {
        logical: {
            **given[name].get("Variables", {}),
            **emulator.credentials(stack.gateway_port),
        }
        for logical, name in sorted((deploy.stack(stack) or {}).items())
        if logical.endswith("Function")
    }
