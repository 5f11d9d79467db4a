"""Whether this deployment works."""

from typing import Literal

from pydantic import BaseModel

from kyora import __version__
from kyora.postgres import require_writable


class Health(BaseModel):
    """A deployment that works."""

    status: Literal["ok"] = "ok"
    database: Literal["ok"] = "ok"
    version: str = __version__


def check() -> Health:
    """Ask the database whether it can be written. Raises Unavailable."""
    require_writable()
    return Health()
