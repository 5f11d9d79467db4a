"""The hot paths with ten thousand and with a million rows in every table: `make bench GROWTH=1`.

Each step runs in turn on two databases, so that whatever else the machine does falls on both; read
the ratio. A minute's report compares 20 workspaces' ledgers with their files, of which each has a
thousandth of the rows.
"""

import io
import json
import os
import statistics
import tempfile
import time
from contextlib import ExitStack, closing, redirect_stdout
from typing import Any

from bench.database import database
from kyora import config, postgres
from kyora.postgres.connection import connect
from local.progress import say
from local.settings import ROOT
from tests.integration.support import growth, mail_queue

RESULTS = ROOT / "bench" / "growth.json"
SIZES, ROUNDS, TIMES = (10_000, 1_000_000), 5, 20
_ACCOUNTS = (
    "INSERT INTO workspace (id, name) VALUES ('ws_demo', 'Demo')",
    """INSERT INTO app_user (id, workspace_id, email, role) VALUES
    ('usr_demo_admin', 'ws_demo', 'admin@example.com', 'admin'),
    ('usr_demo_member', 'ws_demo', 'member@example.com', 'user')""",
    """INSERT INTO workspace_billing (workspace_id, plan_id, access, limits, status)
    SELECT 'ws_demo', id, 'free', limits || '{"maxStorageBytes": -1}', 'free' FROM free_plan""",
)


def main() -> int:
    """Measure, print and write bench/growth.json."""
    with ExitStack() as stack:
        variables = {
            **mail_queue.ENVIRONMENT,
            "AUTH_JWT_SECRET": "a secret of at least thirty-two bytes",
            "EMAIL_PROVIDER": "mock",
            "STORAGE_PROVIDER": "local",
            "STORAGE_LOCAL_PATH": stack.enter_context(tempfile.TemporaryDirectory()),
        }
        addresses = {}
        for rows in SIZES:
            say(f"  · {rows:,} rows in each of {len(growth.TABLES)} tables")
            addresses[rows] = stack.enter_context(database(variables))
            with closing(connect(addresses[rows], development=True, timeout=600)) as connection:
                for statement in (*_ACCOUNTS, *growth.filled(rows), "CHECKPOINT"):
                    connection.run(statement)
        with redirect_stdout(io.StringIO()):  # their metrics
            result = {name: _measure(name, addresses) for name in growth.STEPS}
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    small, large = SIZES
    say(f"\n{'':<34}{f'{small:,}':>11}{f'{large:,}':>13}{'ratio':>8}")
    for name, found in result.items():
        say(f"{name:<34}{found['small']:>8.1f} ms{found['large']:>10.1f} ms{found['ratio']:>8.2f}")
    return 0


def _measure(name: str, addresses: dict[int, str]) -> dict[str, Any]:
    """Return the median milliseconds of a step at both sizes, and the median of the ratios."""
    took: dict[int, list[float]] = {rows: [] for rows in addresses}
    for _ in range(ROUNDS):
        for rows, address in addresses.items():
            os.environ["DATABASE_URL"] = address
            postgres.close()
            config.forget()
            growth.STEPS[name]()  # connects
            began = time.perf_counter()
            for _ in range(TIMES):
                growth.STEPS[name]()
            took[rows].append((time.perf_counter() - began) * 1000 / TIMES)
    small, large = (took[rows] for rows in SIZES)
    ratios = [its / mine for mine, its in zip(small, large, strict=True)]
    return {
        "small": round(statistics.median(small), 2),
        "large": round(statistics.median(large), 2),
        "ratio": round(statistics.median(ratios), 2),
    }


if __name__ == "__main__":
    raise SystemExit(main())
