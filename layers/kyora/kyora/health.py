"""Whether this deployment works."""

from typing import Literal

from pydantic import BaseModel

from kyora import __version__
from kyora.postgres import transaction


class Health(BaseModel):
    """A deployment that works."""

    status: Literal["ok"] = "ok"
    database: Literal["ok"] = "ok"
    version: str = __version__


def check() -> Health:
    """Ask the database. Raises Unavailable."""
    with transaction() as tx:
        tx.row("SELECT 1 AS one")
    return Health()
