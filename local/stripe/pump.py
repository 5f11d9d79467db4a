"""The event pump: signed webhook deliveries with retries, and faults on request.

An event goes to each subscribed endpoint; a customer's events go one after the other, in order. A
delivery that is not answered with 2xx is retried after growing gaps and delays no other. On request
the pump duplicates, delays, shuffles and drops events; a seed decides which.
"""

import asyncio
import json
import random
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from aiohttp import ClientError, ClientSession, ClientTimeout, TCPConnector

from local.stripe.core.state import wants
from local.stripe.core.views import Object, copy
from local.stripe.engine import Engine
from local.stripe.objects.webhooks import signature

_GAPS = (
    1.0,
    5.0,
    15.0,
    60.0,
    300.0,
    1800.0,
    3600.0,
)  # seconds to the next attempt; the last one repeats
_ATTEMPTS = 40
_WORKERS = 8
_SHOWN = 2000  # deliveries that are over and still kept, for the dashboard


@dataclass
class Behaviour:
    """How events are delivered. Shares are 0 to 1, times are seconds."""

    drop: float = 0.0  # the share of events that are never sent
    duplicate: float = 0.0  # the share that is sent `copies` times
    copies: int = 2
    delay: float = 0.0  # the longest time an event waits, at random
    shuffle: bool = False  # events that wait together leave in any order
    hold: bool = False  # nothing leaves until it is released
    gaps: tuple[float, ...] = _GAPS
    seed: int = 0


@dataclass
class Delivery:
    """One event on its way to one endpoint."""

    event: str
    endpoint: str
    at: float = 0.0  # when it is to be sent next, real time
    attempts: int = 0
    status: str = "waiting"  # waiting, sent, failed, dropped
    answer: str = ""  # the last attempt's status or error
    copies: int = 1
    lane: str = ""  # deliveries of one lane leave in order: a customer's, to one endpoint


def _whose(found: Object) -> str:
    """Return an object's customer, or an empty text for products and prices."""
    owner = found.get("id") if found["object"] == "customer" else found.get("customer")
    return str(owner.get("id") if isinstance(owner, dict) else owner or "")


@dataclass
class Pump:
    """Pending deliveries and how they behave."""

    behaviour: Behaviour = field(default_factory=Behaviour)
    deliveries: list[Delivery] = field(default_factory=list)
    open: list[Delivery] = field(default_factory=list)  # those that may still be waiting
    taken: str = ""  # the last event that was taken over
    changes: int = 0
    _random: random.Random = field(default_factory=lambda: random.Random(0))  # noqa: S311  # dice, not a secret
    _known: dict[str, Object] = field(default_factory=dict)  # events by id
    _stir: asyncio.Event = field(default_factory=asyncio.Event)

    def take(self, engine: Engine) -> None:
        """Take over the engine's events since the last call."""
        fresh: deque[Object] = deque()
        for event in reversed(engine.events):
            if event["id"] == self.taken:
                break
            fresh.appendleft(event)
        if not fresh:
            return
        for event in fresh:
            for endpoint in engine.all("webhook_endpoint"):
                if wants(endpoint, event["type"]):
                    self._add(event, endpoint["id"])
        self.taken = fresh[-1]["id"]
        self.stir()

    def _add(self, event: Object, endpoint: str) -> None:
        chosen, dice = self.behaviour, self._random
        made = Delivery(event["id"], endpoint, at=time.time() + dice.random() * chosen.delay)
        made.lane = f"{endpoint} {_whose(event['data']['object'])}"
        if dice.random() < chosen.drop:
            made.status = "dropped"
        elif dice.random() < chosen.duplicate:
            made.copies = chosen.copies
        self.deliveries.append(made)
        self.open.append(made)

    def stir(self) -> None:
        """Wake the pump."""
        self.changes += 1
        self._stir.set()

    def behave(self, **settings: Any) -> None:
        """Change how events are delivered; a seed restarts the random numbers."""
        self.behaviour = Behaviour(**{**asdict(self.behaviour), **settings})
        if "seed" in settings:
            self._random.seed(self.behaviour.seed)
        self.stir()

    def clear(self) -> None:
        """Forget all deliveries and settings."""
        self.behaviour, self.taken = Behaviour(), ""
        self.deliveries.clear()
        self.open.clear()
        self.stir()

    def redeliver(self, event: str) -> int:
        """Send an event again to its endpoints; return how many."""
        found = [delivery for delivery in self.deliveries if delivery.event == event]
        for delivery in found:
            delivery.status, delivery.at, delivery.copies = "waiting", time.time(), 1
            delivery.attempts = 0
        self.open = [d for d in self.open if d not in found] + found
        self.stir()
        return len(found)

    def waiting(self) -> list[Delivery]:
        """Return the deliveries that are still pending."""
        self.open = [delivery for delivery in self.open if delivery.status == "waiting"]
        return self.open

    def due(self) -> int:
        """Return how many deliveries leave at once, or are on their way."""
        if self.behaviour.hold:
            return 0
        now = time.time()
        return sum(delivery.at <= now for delivery in self.waiting())

    # ---- running

    async def run(self, engine: Engine) -> None:
        """Deliver for ever."""
        limit = asyncio.Semaphore(_WORKERS)
        sending: set[asyncio.Task[None]] = set()
        busy: dict[int, str] = {}  # what is being sent, and the lane it is in
        async with ClientSession(
            connector=TCPConnector(limit=_WORKERS), timeout=ClientTimeout(total=20)
        ) as session:

            async def one(delivery: Delivery) -> None:
                try:
                    async with limit:
                        await self._send(session, engine, delivery)
                finally:
                    busy.pop(id(delivery), None)
                    self._stir.set()

            try:
                while True:
                    for delivery in self._ready(busy):
                        busy[id(delivery)] = delivery.lane
                        task = asyncio.ensure_future(one(delivery))
                        sending.add(task)
                        task.add_done_callback(sending.discard)
                    await self._rest()
            finally:
                for task in list(sending):
                    task.cancel()
                await asyncio.gather(*sending, return_exceptions=True)

    def _ready(self, busy: Mapping[int, str]) -> list[Delivery]:
        """Return what is due: the oldest of each lane, or any with `shuffle`."""
        if self.behaviour.hold:
            return []
        now = time.time()
        ready = [d for d in self.waiting() if d.at <= now and id(d) not in busy]
        if self.behaviour.shuffle:
            self._random.shuffle(ready)
        if self.behaviour.shuffle or self.behaviour.delay:
            return ready
        first = {delivery.lane: delivery for delivery in reversed(ready)}
        return [d for d in ready if first[d.lane] is d and d.lane not in busy.values()]

    async def _rest(self) -> None:
        self._stir.clear()
        now = time.time()
        times = [delivery.at for delivery in self.waiting() if delivery.at > now]
        pause = max(0.02, min([*times, now + 1.0]) - now)
        try:
            await asyncio.wait_for(self._stir.wait(), min(pause, 1.0))
        except TimeoutError:
            return

    async def _send(self, session: ClientSession, engine: Engine, delivery: Delivery) -> None:
        event = self._event(engine, delivery.event)
        endpoint = engine.objects.get(delivery.endpoint)
        if event is None or endpoint is None or endpoint.get("_deleted"):
            delivery.status = "dropped"
            return
        body = json.dumps(copy(event), indent=2).encode()
        taken = False
        for _ in range(delivery.copies):
            taken = await self._post(session, endpoint, body, delivery) or taken
        delivery.attempts += 1
        self.changes += 1
        if taken:
            delivery.status = "sent"
            event["pending_webhooks"] = max(0, event["pending_webhooks"] - 1)
        elif delivery.attempts >= _ATTEMPTS:
            delivery.status = "failed"
        else:
            gaps = self.behaviour.gaps
            delivery.at = time.time() + gaps[min(delivery.attempts, len(gaps)) - 1]

    def _event(self, engine: Engine, name: str) -> Object | None:
        """Return an event by its id."""
        if name not in self._known:
            self._known = {event["id"]: event for event in engine.events}
        return self._known.get(name)

    async def _post(
        self, session: ClientSession, endpoint: Object, body: bytes, delivery: Delivery
    ) -> bool:
        # Signed with the real time, which receivers compare with their own clock.
        headers = {
            "Content-Type": "application/json; charset=utf-8",
            "User-Agent": "Stripe/1.0 (+https://stripe.com/docs/webhooks)",
            "Stripe-Signature": signature(body, endpoint["_secrets"], int(time.time())),
        }
        try:
            async with session.post(
                endpoint["url"], data=body, headers=headers, allow_redirects=False
            ) as answer:
                await answer.read()
                delivery.answer = str(answer.status)
                return 200 <= answer.status < 300
        except (ClientError, TimeoutError, ValueError) as error:
            delivery.answer = type(error).__name__
            return False

    # ---- to JSON and back

    def dump(self) -> Object:
        """Return what a later run needs."""
        return {
            "behaviour": asdict(self.behaviour),
            "deliveries": [
                asdict(delivery)
                for place, delivery in enumerate(self.deliveries)
                if delivery.status == "waiting" or place >= len(self.deliveries) - _SHOWN
            ],
            "taken": self.taken,
        }

    @classmethod
    def load(cls, data: Object) -> Self:
        """Return the pump that was dumped."""
        behaviour = Behaviour(**data.get("behaviour", {}))
        deliveries = [Delivery(**delivery) for delivery in data.get("deliveries", [])]
        found = cls(behaviour, deliveries, list(deliveries), data.get("taken", ""))
        found._random.seed(behaviour.seed)
        return found
