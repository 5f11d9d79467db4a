"""Purging a million old rows while requests go on: what it does to their times.

`make bench PURGE=1`. Two workers ask for uploads under an Idempotency-Key and delete them, in a
closed loop: first alone, then beside what purge_data does. The aim: a p99 below twice the usual.
"""

import json
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from bench.database import database
from kyora import config, postgres
from kyora.purge import purge
from local.progress import say
from local.settings import ROOT
from tests.integration.support.old_rows import PURGES, fill

RESULTS = ROOT / "bench" / "purge.json"
ROWS, WORKERS, ALONE = 1_000_000, 2, 15.0  # rows in all, processes, seconds
AIM = 2.0
_BODY = {"filename": "a.png", "contentType": "image/png", "size": 1000}


def main() -> int:
    """Measure, print and write bench/purge.json."""
    with tempfile.TemporaryDirectory() as store:
        variables = {
            "AUTH_JWT_SECRET": "a secret of at least thirty-two bytes",
            "STORAGE_PROVIDER": "local",
            "STORAGE_LOCAL_PATH": store,
        }
        with database(variables):
            result = _measure()
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    say(
        f"alone:         {_shown(result['alone'])}\n"
        f"beside purges: {_shown(result['beside'])}\n"
        f"p99 {result['ratio']} times the usual (aim: below {AIM:.0f})\n"
        f"{result['deleted']} rows in {result['batches']} batches, {result['rows_a_second']}/s,"
        f" the longest took {result['longest_ms']} ms"
    )
    return 0


def _measure() -> dict[str, Any]:
    with postgres.transaction() as tx:
        tx.run("INSERT INTO workspace (id, name) VALUES ('ws_demo', 'Demo'), ('ws_other', 'O')")
        tx.run(
            "INSERT INTO workspace_billing (workspace_id, plan_id, access, limits, status)"
            " SELECT 'ws_demo', id, 'free', limits || '{\"maxStorageBytes\": -1}', 'free'"
            " FROM free_plan"
        )
    for name in PURGES:
        fill(name, ROWS // len(PURGES))
    with _requests() as measured:
        time.sleep(2)  # imports and first connections
        measured()
        time.sleep(ALONE)
        alone = measured()
        took: list[float] = []
        began = time.perf_counter()
        deleted = purge([_timed(forget, took) for forget in _forgets()], lambda: 60.0)
        seconds = time.perf_counter() - began
        beside = measured()
    return {
        "cores": os.cpu_count(),
        "alone": _summary(alone),
        "beside": _summary(beside),
        "ratio": round(_p99(beside) / _p99(alone), 2),
        "deleted": deleted,
        "batches": len(took),
        "rows_a_second": round(deleted / seconds),
        "longest_ms": round(max(took) * 1000, 1),
    }


def _forgets() -> list[Callable[[], int]]:
    return list(dict.fromkeys(forget for forget, *_ in PURGES.values()))


def _timed(forget: Callable[[], int], took: list[float]) -> Callable[[], int]:
    def timed() -> int:
        began = time.perf_counter()
        found = forget()
        took.append(time.perf_counter() - began)
        return found

    return timed


@contextmanager
def _requests() -> Iterator[Callable[[], list[float]]]:
    """Have workers ask without a pause; yield what returns the times since it was last called."""
    context = multiprocessing.get_context("spawn")
    stop, pipes = context.Event(), [context.Pipe() for _ in range(WORKERS)]
    workers = [context.Process(target=_ask, args=(there, stop)) for _, there in pipes]
    for worker in workers:
        worker.start()

    def measured() -> list[float]:
        for here, _ in pipes:
            here.send(None)
        return [seconds for here, _ in pipes for seconds in here.recv()]

    try:
        yield measured
    finally:
        stop.set()
        for worker in workers:
            worker.join()


def _ask(pipe: Any, stop: Any) -> None:
    from tests.integration.support import api

    config.forget()
    took: list[float] = []
    number = 0
    while not stop.is_set():
        number += 1
        headers = {"idempotency-key": f"{os.getpid()}-{number}"}
        began = time.perf_counter()
        made = api.call("POST /v1/assets/upload", body=_BODY, headers=headers)
        between = time.perf_counter()
        gone = api.call("DELETE /v1/assets/{assetId}", asset_id=made.body["assetId"])
        took += [between - began, time.perf_counter() - between]
        if (made.status, gone.status) != (200, 204):
            raise AssertionError(made, gone)
        if pipe.poll():
            pipe.recv()
            pipe.send(took)
            took = []
    postgres.close()


def _p99(times: list[float]) -> float:
    return statistics.quantiles(times, n=100)[98]


def _summary(times: list[float]) -> dict[str, float]:
    return {
        "requests": len(times),
        "p50_ms": round(statistics.median(times) * 1000, 2),
        "p99_ms": round(_p99(times) * 1000, 2),
    }


def _shown(found: dict[str, float]) -> str:
    return f"{found['requests']} requests, p50 {found['p50_ms']} ms, p99 {found['p99_ms']} ms"


if __name__ == "__main__":
    raise SystemExit(main())
