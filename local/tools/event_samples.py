"""Samples of our own events, from events/samples/: ids and dates in them are new each time."""

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from kyora.ids import new_id
from local import settings
from local.progress import Trouble
from local.settings import ROOT

SAMPLES = ROOT / "events" / "samples"


def sample(name: str, file: Path | None = None) -> tuple[dict[str, Any], str | None]:
    """Return an event's data and its workspace; ids and dates in it are new each time."""
    data = _fill(_read(SAMPLES / f"{name}.json"), new_id("sample").removeprefix("sample_"))
    given = _read(file) if file else {}
    workspace = given.get("workspaceId", settings.WORKSPACE)
    if isinstance(given.get("data"), dict):
        given = given["data"]
    return {**data, **{k: v for k, v in given.items() if k != "workspaceId"}}, workspace


def _read(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise Trouble(f"{file} cannot be read as JSON: {error}") from error
    if not isinstance(found, dict):
        raise Trouble(f"{file} must hold a JSON object")
    return found


def _fill(value: Any, unique: str) -> Any:
    if isinstance(value, dict):
        return {key: _fill(item, unique) for key, item in value.items()}
    if not isinstance(value, str):
        return value
    if days := re.fullmatch(r"\{in_days:(\d+)\}", value):
        return (datetime.now(UTC) + timedelta(int(days[1]))).isoformat(timespec="seconds")
    return value.replace("{id}", unique)
