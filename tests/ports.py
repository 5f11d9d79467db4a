"""Ports for servers that are given one before they listen on it.

A port that the kernel chose and that was freed again may be another process's a moment later:
every connection takes one of that range. These are below it and above those that the local stack
chooses from, and other ones in each worker.
"""

import itertools
import os

from local import process

_EACH = 250
_worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 10
_offsets = itertools.count(os.getpid())  # another checkout's run begins elsewhere


def free_port() -> int:
    """Return a port that nothing listens on, another one each time."""
    while True:
        port = 30_000 + _worker * _EACH + next(_offsets) % _EACH
        if process.is_free(port):
            return port
