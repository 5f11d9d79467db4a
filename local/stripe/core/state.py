"""The stand-in's state: objects, events and clock, with no input from outside."""

import hashlib
import heapq
from dataclasses import dataclass, field
from typing import Any

from local.stripe.core import views
from local.stripe.core.errors import missing
from local.stripe.core.views import Object

API_VERSION = "2026-10-28.endive"
CLOCK = "test_helpers.test_clock"
_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


@dataclass
class Rules:
    """The account's settings: days between payment attempts, what follows a failure, draft time."""

    retry_days: tuple[int, ...] = (3, 5, 7)
    final: str = "cancel"  # after the last attempt: or "unpaid", "past_due", "pause"
    pause_first: bool = False  # pause at the first failed attempt of a renewal
    draft_seconds: int = 3600


@dataclass
class State:
    """All objects by id, every event so far, and the current time. `seed` decides the ids."""

    now: int
    seed: int = 0
    url: str = "http://127.0.0.1"  # where the hosted pages are
    rules: Rules = field(default_factory=Rules)
    objects: dict[str, Object] = field(default_factory=dict)
    kinds: dict[str, list[str]] = field(default_factory=dict)  # ids by kind, oldest first
    events: list[Object] = field(default_factory=list)
    keys: dict[str, Object] = field(default_factory=dict)  # answers by idempotency key
    count: int = 0
    request_of: Object = field(default_factory=lambda: {"id": None, "idempotency_key": None})
    agenda: list[tuple[int, str]] = field(default_factory=list)  # a heap of (when, id)
    skipped: int = 0  # seconds that the clock was moved ahead of real time
    jump: int | None = None  # when the present jump began

    @property
    def real(self) -> int:
        """The time on a clock that is never moved: it stands still during a jump."""
        return (self.now if self.jump is None else self.jump) - self.skipped

    def identify(self, prefix: str, length: int = 24) -> str:
        """Return a fresh id."""
        return prefix + self.random(length)

    def random(self, length: int) -> str:
        """Return text that looks random and is the same for the same seed."""
        self.count += 1
        number = int.from_bytes(hashlib.sha512(f"{self.seed}:{self.count}".encode()).digest())
        letters = []
        for _ in range(length):
            number, digit = divmod(number, len(_ALPHABET))
            letters.append(_ALPHABET[digit])
        return "".join(letters)

    def add(self, made: Object) -> Object:
        """Store a new object without emitting an event."""
        self.objects[made["id"]] = made
        self.kinds.setdefault(made["object"], []).append(made["id"])
        self.plan(made)
        return made

    def plan(self, found: Object) -> None:
        """Put an object's next automatic action on the agenda."""
        if (when := found.get("_due")) is None:
            return
        clock = self.clock_of(found)
        if clock is None:
            heapq.heappush(self.agenda, (when, found["id"]))
        else:
            heapq.heappush(clock["_agenda"], [when, found["id"]])

    def clock_of(self, found: Object) -> Object | None:
        """Return the test clock of an object's customer, or None."""
        if found["object"] == CLOCK:
            return found
        owner = found if found["object"] == "customer" else self.objects.get(_name(found))
        return self.objects.get(owner["test_clock"] or "") if owner else None

    def live(self, agenda: list[Any], moment: int) -> None:
        """Run an agenda up to a moment, each entry at its own time; never back in time."""
        while agenda and agenda[0][0] <= moment:
            when, name = heapq.heappop(agenda)
            found = self.objects[name]
            if found.get("_due") != when:
                continue  # it was rescheduled meanwhile
            self.now = max(self.now, when)
            found["_due"] = None
            self.wake_up(found)
        self.now = max(self.now, moment)

    def next_due(self) -> int | None:
        """Return when the next automatic action is due, without those on a test clock."""
        return min(
            (when for when, name in self.agenda if self.objects[name].get("_due") == when),
            default=None,
        )

    def wake_up(self, found: Object) -> None:
        """Run an object's due action; the engine knows what that is."""
        raise NotImplementedError

    def wake(self, found: Object, when: int | None) -> None:
        """Schedule an object's next automatic action; None is never."""
        found["_due"] = when
        self.plan(found)

    def get(self, name: str) -> Object:
        """Return an object that is known to exist."""
        return self.objects[name]

    def find(self, kind: str, name: Any, param: str | None = None) -> Object:
        """Return an object of a kind, or refuse: 404 for one in a path, 400 in a parameter."""
        found = self.objects.get(name) if isinstance(name, str) else None
        if found is None or found["object"] != kind or (param and found.get("_deleted")):
            raise missing(kind, str(name), param)
        return found

    def all(self, kind: str) -> list[Object]:
        """Return the objects of a kind, newest first, without the deleted ones."""
        found = (self.objects[name] for name in reversed(self.kinds.get(kind, [])))
        return [item for item in found if not item.get("_deleted")]

    def show(self, found: Object) -> Object:
        """Return an object as it is answered now."""
        return views.show(self.objects, found)

    def emit(self, kind: str, found: Object, previous: Object | None = None) -> None:
        """Append an event with the object as it is at this moment."""
        data: Object = {"object": self.show(found)}
        if previous is not None:
            data["previous_attributes"] = previous
        self.events.append(
            {
                "id": self.identify("evt_1"),
                "object": "event",
                "api_version": API_VERSION,
                "created": self.now,
                "data": data,
                "livemode": False,
                "pending_webhooks": sum(wants(end, kind) for end in self.all("webhook_endpoint")),
                "request": dict(self.request_of),
                "type": kind,
                "_real": self.real,
            }
        )

    def change(self, found: Object, event: str | None = None, **fields: Any) -> bool:
        """Set fields; emit `<object>.updated` (or `event`) if that changed anything."""
        before = self.show(found)
        found |= fields
        previous = views.difference(before, self.show(found))
        if previous:
            self.emit(event or f"{_event_name(found)}.updated", found, previous)
        return bool(previous)


def _name(found: Object) -> str:
    owner = found.get("customer")
    return owner if isinstance(owner, str) else ""


def _event_name(found: Object) -> str:
    kind = str(found["object"])
    return "customer.subscription" if kind == "subscription" else kind


def wants(endpoint: Object, kind: str) -> bool:
    """Return whether a webhook endpoint subscribes to a type of event."""
    enabled = endpoint["enabled_events"]
    return endpoint["status"] == "enabled" and ("*" in enabled or kind in enabled)
