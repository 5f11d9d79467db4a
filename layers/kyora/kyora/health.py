"""Health of this deployment."""

from typing import Literal

from pydantic import BaseModel

from kyora import __version__
from kyora.postgres import require_writable


class Health(BaseModel):
    """A healthy deployment."""

    status: Literal["ok"] = "ok"
    database: Literal["ok"] = "ok"
    version: str = __version__


def check() -> Health:
    """Check that the database accepts writes. Raises Unavailable."""
    require_writable()
    return Health()
