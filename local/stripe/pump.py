"""The event pump: signed deliveries, retried until they are taken, and made as bad as asked.

An event goes to each endpoint that wants it. What is not answered with 2xx comes again after a
growing gap. On request the pump duplicates, delays, shuffles and drops; a seed decides which.
"""

import asyncio
import json
import random
import time
from collections import deque
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from aiohttp import ClientError, ClientSession, ClientTimeout, TCPConnector

from local.stripe.engine import Engine
from local.stripe.state import wants
from local.stripe.views import Object
from local.stripe.webhooks import signature

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


@dataclass
class Behaviour:
    """How events travel. Shares are 0 to 1, times are seconds."""

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
    answer: str = ""  # what the last attempt met
    copies: int = 1


@dataclass
class Pump:
    """What is on its way, and how it is to behave."""

    behaviour: Behaviour = field(default_factory=Behaviour)
    deliveries: list[Delivery] = field(default_factory=list)
    taken: str = ""  # the last event that was taken over
    changes: int = 0
    _random: random.Random = field(default_factory=lambda: random.Random(0))  # noqa: S311  # dice, not a secret
    _stir: asyncio.Event = field(default_factory=asyncio.Event)

    def take(self, engine: Engine) -> None:
        """Take over what the engine has told since the last time."""
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
                    self._add(event["id"], endpoint["id"])
        self.taken = fresh[-1]["id"]
        self.stir()

    def _add(self, event: str, endpoint: str) -> None:
        chosen, dice = self.behaviour, self._random
        made = Delivery(event, endpoint, at=time.time() + dice.random() * chosen.delay)
        if dice.random() < chosen.drop:
            made.status = "dropped"
        elif dice.random() < chosen.duplicate:
            made.copies = chosen.copies
        self.deliveries.append(made)

    def stir(self) -> None:
        """Have the pump look again at once."""
        self.changes += 1
        self._stir.set()

    def behave(self, **settings: Any) -> None:
        """Change how events travel from now on; a seed starts the dice anew."""
        self.behaviour = Behaviour(**{**asdict(self.behaviour), **settings})
        if "seed" in settings:
            self._random.seed(self.behaviour.seed)
        self.stir()

    def clear(self) -> None:
        """Forget every delivery and every wish."""
        self.behaviour, self.taken = Behaviour(), ""
        self.deliveries.clear()
        self.stir()

    def redeliver(self, event: str) -> int:
        """Send an event again to every endpoint it is for; return to how many."""
        found = [delivery for delivery in self.deliveries if delivery.event == event]
        for delivery in found:
            delivery.status, delivery.at, delivery.copies = "waiting", time.time(), 1
            delivery.attempts = 0
        self.stir()
        return len(found)

    def waiting(self) -> list[Delivery]:
        """Return what has not arrived and is not given up."""
        return [delivery for delivery in self.deliveries if delivery.status == "waiting"]

    # ---- running

    async def run(self, engine: Engine) -> None:
        """Deliver for ever."""
        limit = asyncio.Semaphore(_WORKERS)
        sending: set[asyncio.Task[None]] = set()
        busy: set[int] = set()
        async with ClientSession(
            connector=TCPConnector(limit=_WORKERS), timeout=ClientTimeout(total=20)
        ) as session:

            async def one(delivery: Delivery) -> None:
                try:
                    async with limit:
                        await self._send(session, engine, delivery)
                finally:
                    busy.discard(id(delivery))

            try:
                while True:
                    for delivery in self._ready(busy):
                        busy.add(id(delivery))
                        task = asyncio.ensure_future(one(delivery))
                        sending.add(task)
                        task.add_done_callback(sending.discard)
                    await self._rest()
            finally:
                for task in list(sending):
                    task.cancel()
                await asyncio.gather(*sending, return_exceptions=True)

    def _ready(self, busy: set[int]) -> list[Delivery]:
        if self.behaviour.hold:
            return []
        now = time.time()
        ready = [d for d in self.waiting() if d.at <= now and id(d) not in busy]
        if self.behaviour.shuffle:
            self._random.shuffle(ready)
        return ready

    async def _rest(self) -> None:
        self._stir.clear()
        times = [delivery.at for delivery in self.waiting()]
        pause = max(0.02, min([*times, time.time() + 1.0]) - time.time())
        try:
            await asyncio.wait_for(self._stir.wait(), min(pause, 1.0))
        except TimeoutError:
            return

    async def _send(self, session: ClientSession, engine: Engine, delivery: Delivery) -> None:
        event = next((e for e in reversed(engine.events) if e["id"] == delivery.event), None)
        endpoint = engine.objects.get(delivery.endpoint)
        if event is None or endpoint is None or endpoint.get("_deleted"):
            delivery.status = "dropped"
            return
        body = json.dumps(event, indent=2).encode()
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

    async def _post(
        self, session: ClientSession, endpoint: Object, body: bytes, delivery: Delivery
    ) -> bool:
        # Signed with the real time: receivers compare it with theirs, whatever the engine's is.
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
            "deliveries": [asdict(delivery) for delivery in self.deliveries[-2000:]],
            "taken": self.taken,
        }

    @classmethod
    def load(cls, data: Object) -> Self:
        """Return the pump that was dumped."""
        behaviour = Behaviour(**data.get("behaviour", {}))
        found = cls(
            behaviour,
            [Delivery(**delivery) for delivery in data.get("deliveries", [])],
            data.get("taken", ""),
        )
        found._random.seed(behaviour.seed)
        return found
