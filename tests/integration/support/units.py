"""Units of work: what begins one, and none left of the test before."""

import pytest

from kyora import postgres, trace
from kyora.bus import names, outbox
from kyora.observability import correlation_id
from local.tools.event_samples import sample


@pytest.fixture(autouse=True)
def outside() -> None:
    """No test continues the unit of work of another one."""
    trace.end()
    correlation_id.set("")


def emit(name: str, **changed: object) -> str:
    """Write a sample of an event to the outbox; return its id."""
    data, workspace = sample(name)
    with postgres.transaction() as tx:
        return outbox.add(tx, names.DOMAINS[name], name, data | changed, workspace)
