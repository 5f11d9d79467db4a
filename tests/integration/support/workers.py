"""Functions in processes of their own, as Lambda runs them: many at once, crashing or stalled.

A worker is given the step at which to stop. The step is the real code's own function; there the
worker dies (`os._exit`, as an out-of-memory kill would) or waits.
"""

import importlib
import multiprocessing.forkserver
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest

from tests.integration.support import api, photos

CRASHED = 70
_barrier: Any = None


@cache
def forkserver() -> ForkServerContext:
    """Return multiprocessing's way to fork processes from one that has imported our modules.

    Python 3.13.0 hands that one our `sys.path` and does not read it: it would import nothing.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.integration.support.preloaded"])
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
        multiprocessing.forkserver.ensure_running()
    return context


class Crew:
    """Processes that start together when they are called together."""

    def __init__(self, size: int, log: Path) -> None:
        self.size, self._log = size, str(log)
        context = forkserver()
        self._pool = context.Pool(size, _arrive, (context.Barrier(size), str(log), list(sys.path)))

    def together(self, jobs: Sequence[tuple[str, Mapping[str, Any]]]) -> list[api.Answer]:
        """Call (route, options) in as many processes, all at the same moment."""
        assert len(jobs) == self.size
        environment = dict(os.environ)
        tasks = [(route, dict(options), environment) for route, options in jobs]
        return self._pool.map_async(_call, tasks, chunksize=1).get(240)

    def each(self, function: Callable[..., Any], arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Call another module-level function in as many processes at the same moment."""
        assert len(arguments) == self.size
        environment = dict(os.environ)
        tasks = [(function, given, environment) for given in arguments]
        return self._pool.map_async(_apply, tasks, chunksize=1).get(240)

    def stop(self) -> None:
        self._pool.terminate()
        self._pool.join()

    @contextmanager
    def stalled(
        self, target: str, when: str, route: str, **options: Any
    ) -> Iterator[Callable[[], Any]]:
        """Run a call in a process that waits before or after `target`, until it may go on.

        The block gets a function that lets the worker go on and returns its answer.
        """
        here, there = forkserver().Pipe()
        process = forkserver().Process(
            target=_stall,
            args=(there, self._log, target, when, route, options, dict(os.environ)),
        )
        process.start()
        there.close()

        def finish() -> Any:
            here.send("go on")
            assert here.poll(120), "the worker did not answer"
            return here.recv()

        try:
            assert here.poll(120), "the worker did not reach its step"
            assert here.recv() == "waiting"
            yield finish
        finally:
            process.terminate()
            process.join(60)
            here.close()

    def crash(self, target: str, when: str, route: str, **options: Any) -> None:
        """Run a call in a process that dies before or after `target`."""
        process = forkserver().Process(
            target=_die, args=(self._log, target, when, route, options, dict(os.environ))
        )
        process.start()
        process.join(120)
        assert process.exitcode == CRASHED, f"the worker ended with {process.exitcode}"


def _arrive(barrier: Any, log: str, path: list[str]) -> None:
    global _barrier  # noqa: PLW0603  # one per worker process
    _barrier = barrier
    _write_to(log)


def _write_to(log: str) -> None:
    with Path(log).open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)


def _settle_in(environment: Mapping[str, str]) -> None:
    from kyora import config, postgres

    wanted = {k: v for k, v in environment.items() if k != "PYTEST_CURRENT_TEST"}
    if dict(os.environ) != wanted:  # without what an earlier test had set, too
        os.environ.clear()
        os.environ.update(wanted)
        config.forget()
        postgres.close()


def _call(task: tuple[str, dict[str, Any], dict[str, str]]) -> api.Answer:
    route, options, environment = task
    _settle_in(environment)
    api.function(api.ROUTES[route])
    _barrier.wait(120)
    return api.call(route, **options)


def _apply(task: tuple[Callable[..., Any], tuple[Any, ...], dict[str, str]]) -> Any:
    function, given, environment = task
    _settle_in(environment)
    _barrier.wait(120)
    return function(*given)


def _die(
    log: str,
    target: str,
    when: str,
    route: str,
    options: dict[str, Any],
    environment: dict[str, str],
) -> None:
    _write_to(log)
    _settle_in(environment)
    _at(target, when, lambda: os._exit(CRASHED))
    _any(route, options)


def _stall(
    pipe: Any,
    log: str,
    target: str,
    when: str,
    route: str,
    options: dict[str, Any],
    environment: dict[str, str],
) -> None:
    _write_to(log)
    _settle_in(environment)

    def wait() -> None:
        pipe.send("waiting")
        pipe.recv()

    _at(target, when, wait)
    pipe.send(_any(route, options))
    time.sleep(0.01)


def _any(route: str, options: dict[str, Any]) -> Any:
    if route == "event":
        return api.deliver(*options["keys"])
    if route == "relay":
        return api.function("relay_outbox")({}, api.Context())
    if route == "variants":
        return photos.deliver(options["asset_id"])
    if route == "rebuild":
        return photos.rebuild(asset=options["asset_id"])
    if route == "scan":
        return api.scanned((options["key"], options["status"]))
    if route == "sweep":
        return api.sweep()
    return api.call(route, **options)


def _at(target: str, when: str, action: Callable[[], None]) -> None:
    """Do `action` once, before or after the first call of `package.module:name[.attribute]`."""
    module_name, _, path = target.partition(":")
    owner: Any = importlib.import_module(module_name)
    *parents, name = path.split(".")
    for parent in parents:
        owner = getattr(owner, parent)
    real, done = getattr(owner, name), list[bool]()

    def stopping(*args: Any, **kwargs: Any) -> Any:
        if when == "before" and not done:
            done.append(True)
            action()
        found = real(*args, **kwargs)
        if when == "after" and not done:
            done.append(True)
            action()
        return found

    setattr(owner, name, stopping)
