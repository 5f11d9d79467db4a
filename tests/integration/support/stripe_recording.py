"""What our code sends to Stripe and reads of its objects, recorded while tests run.

With `STRIPE_RECORDING=<folder>` (`make stripe-record`) every integration test writes there;
`local/stripe/sdk/our_calls.py` brings the parts together. Nothing is replaced: the real client
asks, and its answers and events are dictionaries that note which of their keys are looked at.
"""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

import pytest

from kyora.billing import stripe_client, stripe_objects
from local.stripe.sdk import our_calls


class Recording:
    """Calls and reads, each kind of them once."""

    def __init__(self) -> None:
        self.calls: dict[str, dict[str, Any]] = {}
        self.reads: dict[str, set[str]] = {}

    def call(self, method: str, path: str, params: Mapping[str, Any]) -> None:
        sent = {name: value for name, value in params.items() if name != "idempotency_key"}
        made = our_calls.general({"method": method, "path": path, "params": sent})
        self.calls[json.dumps(made, sort_keys=True)] = made

    def read(self, kind: str, path: str) -> None:
        self.reads.setdefault(kind, set()).add(path)

    def write(self, folder: Path) -> None:
        reads = {kind: sorted(paths) for kind, paths in self.reads.items()}
        kept = {"calls": list(self.calls.values()), "reads": reads}
        (folder / f"{uuid4().hex}.json").write_text(json.dumps(kept))


class Seen(dict[str, Any]):
    """An object of Stripe's that notes which of its keys are looked at."""

    kind: str
    path: str
    recording: Recording

    @classmethod
    def of(cls, value: Any, recording: Recording, kind: str = "", path: str = "") -> Any:
        if isinstance(value, list):
            return [cls.of(item, recording, kind, path) for item in value]
        if not isinstance(value, dict) or isinstance(value, Seen):
            return value
        found: Self = cls(value)
        named = value.get("object")
        found.kind, found.path = (named, "") if isinstance(named, str) else (kind, path)
        if named == "list":
            found.kind, found.path = kind, path
        found.recording = recording
        return found

    def _note(self, name: str) -> str:
        path = f"{self.path}.{name}" if self.path else name
        if self.kind and isinstance(name, str):
            self.recording.read(self.kind, path)
        return path

    def __getitem__(self, name: str) -> Any:
        path = self._note(name)
        return Seen.of(super().__getitem__(name), self.recording, self.kind, path)

    def get(self, name: str, default: Any = None) -> Any:
        path = self._note(name)
        return Seen.of(super().get(name, default), self.recording, self.kind, path)


@pytest.fixture(autouse=True, scope="session")
def stripe_recording() -> Iterator[None]:
    """Record for the whole session when STRIPE_RECORDING names a folder."""
    folder = os.environ.get("STRIPE_RECORDING")
    if not folder:
        yield
        return
    found, patch = Recording(), pytest.MonkeyPatch()
    asked, read = stripe_client.call, stripe_objects.event

    def call(method: str, path: str, **params: Any) -> stripe_client.Answer:
        found.call(method, f"/v1/{path}", params)
        answer = asked(method, path, **params)
        return stripe_client.Answer(Seen.of(answer.object, found), answer.as_of)

    def event(payload: object) -> stripe_objects.Event | None:
        return read(Seen.of(payload, found))

    patch.setattr(stripe_client, "call", call)
    patch.setattr(stripe_objects, "event", event)
    yield
    patch.undo()
    found.write(Path(folder))
