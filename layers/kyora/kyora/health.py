"""Health of this deployment."""

from typing import Literal

from kyora import __version__
from kyora.api import AnswerBody
from kyora.postgres import require_writable


class Health(AnswerBody):
    """A healthy deployment."""

    status: Literal["ok"] = "ok"
    database: Literal["ok"] = "ok"
    version: str = __version__


def check() -> Health:
    """Check that the database accepts writes. Raises Unavailable."""
    require_writable()
    return Health()
