"""What worker processes do with the outbox and the inbox. Imports little: sixteen load it."""

import os
from collections.abc import Mapping

from kyora import config, postgres
from kyora.bus import outbox, seen


def _settle_in(environment: Mapping[str, str]) -> None:
    os.environ.update(environment)
    config.forget()
    postgres.close()


def relay(environment: Mapping[str, str]) -> int:
    """Publish until nothing is due; return how many rows this worker has held."""
    _settle_in(environment)
    total = 0
    while count := outbox.publish():
        total += count
    postgres.close()
    return total


def handle(environment: Mapping[str, str], event_id: str) -> bool:
    """Have the effect of an event, once; return whether it was this worker."""
    _settle_in(environment)
    with postgres.transaction() as tx:
        first = seen.first_time(tx, "test", event_id)
        if first:
            tx.run("UPDATE workspace SET name = name || '!' WHERE id = 'ws_demo'")
    postgres.close()
    return first
