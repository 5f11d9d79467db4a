"""Samples that a page offers to edit: of each function's trigger, and of each event.

Tokens and signatures stay `${…}`: they are filled in when the sample is sent.
"""

import json
from typing import Any

from kyora.bus.names import DOMAINS
from local.settings import ROOT
from local.tools import event_samples, samples
from local.web.console import consumers, invocations

_SCHEMAS = ROOT / "events" / "schemas"


def of_events() -> dict[str, Any]:
    """Return a sample of each event, with its consumers."""
    found = []
    for name in sorted(DOMAINS):
        data, workspace = event_samples.sample(name)
        consumed = [reader.function for reader in consumers.by_event().get(name, [])]
        schema = json.loads((_SCHEMAS / f"{name}.json").read_text("utf-8"))
        found.append(
            {
                "name": name,
                "source": f"kyora.{DOMAINS[name]}",
                "data": data,
                "workspaceId": workspace,
                "consumers": consumed,
                "schema": schema,
            }
        )
    return {"events": found, "functions": invocations.names()}


def of_function(name: str) -> dict[str, Any] | None:
    """Return the samples of a function's trigger, its own first; None when there is no function."""
    if name not in invocations.names():
        return None
    paths = [*samples.EVENTS.glob(f"{name}.json"), *sorted(samples.EVENTS.glob(f"{name}.*.json"))]
    return {
        "function": name,
        "samples": [
            {"name": path.stem, "event": json.loads(samples.move_to_now(path.read_text("utf-8")))}
            for path in paths
        ],
    }
