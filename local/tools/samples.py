"""Sample events under events/: read with their variables filled in and their days moved to now.

The files are written for one moment, WRITTEN. Reading shifts every date and time in them by the
time that has passed since, so that a sample never grows old.
"""

import json
import re
import time
from collections.abc import Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from string import Template
from typing import Any

from local.progress import Trouble
from local.settings import ROOT

EVENTS = ROOT / "events"
WRITTEN = datetime(2026, 11, 23, 7, 36, 12, tzinfo=UTC)

# The forms in which AWS, Stripe and Resend write a time. A Unix time is recognised by its digits:
# seconds (10) or milliseconds (13) from 2023 to 2033, never part of a longer word.
# Stripe's API versions (2026-10-28.endive) are names, not days.
_ACCESS_LOG = r"\d{2}/[A-Z][a-z]{2}/20\d{2}:\d{2}:\d{2}:\d{2} [+-]\d{4}"
_LOG_FORM = "%d/%b/%Y:%H:%M:%S %z"
_INSTANT = r"20\d{2}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(?:\.\d{3})?(?:Z|[+-]\d{2}:\d{2})"
_DATE = r"20\d{2}-\d{2}-\d{2}"
_UNIX = r"(?:1[7-9]\d{8})(?:\d{3})?"
_MOMENT = re.compile(
    rf"(?<![\w.-])(?:(?P<log>{_ACCESS_LOG})|(?P<instant>{_INSTANT})|(?P<date>{_DATE})"
    rf"|(?P<unix>{_UNIX}))(?![\w-]|\.\w)"
)


def read(file: Path, known: Mapping[str, str]) -> Any:
    """Return a sample event of today; `known` are the values of ${KYORA_TOKEN} and its like.

    Raises Trouble when there is no such file or it is not JSON.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise Trouble(f"{file} is not UTF-8: {error}") from error
    except OSError as error:
        raise Trouble(f"there is no event {file}") from error
    try:
        return json.loads(move_to_now(Template(text).safe_substitute(known)))
    except ValueError as error:
        raise Trouble(f"{file} is not JSON: {error}") from error


def move_to_now(text: str) -> str:
    """Shift every date and time in a sample by the whole seconds that passed since WRITTEN."""
    now = datetime.fromtimestamp(int(time.time()), UTC)
    return _MOMENT.sub(lambda found: _moved(found, now), text)


def moments(text: str) -> list[datetime]:
    """Return the dates and times that move_to_now would shift; a date is its midnight in UTC."""
    return [_read(found) for found in _MOMENT.finditer(text)]


def _read(found: re.Match[str]) -> datetime:
    text = found[0]
    match found.lastgroup:
        case "log":
            return datetime.strptime(text, _LOG_FORM).astimezone(UTC)
        case "date":
            return datetime.fromisoformat(f"{text}T00:00Z")
        case "unix":
            return datetime.fromtimestamp(int(text[:10]), UTC)
        case _:
            return datetime.fromisoformat(text)


def _moved(found: re.Match[str], now: datetime) -> str:
    """Write the shifted time in the form, the zone and the precision that it was read in."""
    text, moved = found[0], _read(found) + (now - WRITTEN)
    match found.lastgroup:
        case "log":
            return moved.strftime(_LOG_FORM)
        case "date":
            # By whole days, so that WRITTEN's own day becomes today.
            return (date.fromisoformat(text) + (now.date() - WRITTEN.date())).isoformat()
        case "unix":
            return f"{int(moved.timestamp())}{text[10:]}"
        case _:
            decimals = {".": "milliseconds"}.get(text[19], "seconds")
            written = moved.isoformat(timespec=decimals)
            return written.replace("+00:00", "Z") if text.endswith("Z") else written
