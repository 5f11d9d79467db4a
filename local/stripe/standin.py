"""One running stand-in: its engine, its clock, its pump, and the file that outlives it."""

import json
import secrets
import time
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web

from local.stripe import faults
from local.stripe.core.state import API_VERSION
from local.stripe.core.views import Object
from local.stripe.engine import Engine
from local.stripe.pump import Pump

_BACK = 5  # seconds that a machine's clock may be corrected by


@dataclass(frozen=True)
class Options:
    """What the stand-in is started with; `webhooks` are addresses and their secrets."""

    port: int = 0
    key: str = "sk_test_standin"
    # What an act at `/_control/` must come with.
    token: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    state: Path | None = None
    webhooks: tuple[tuple[str, tuple[str, ...]], ...] = ()
    seed: int | None = None
    url: str = ""  # where a browser finds it, when that is not the port itself
    shared_clock: bool = False  # `make time` moves this process's clock, so the dashboard does not


@dataclass
class StandIn:
    """A running stand-in: its engine, its clock (seconds ahead of the real one), its pump."""

    options: Options
    engine: Engine
    pump: Pump
    offset: int = 0
    url: str = ""
    troubles: list[faults.Fault] = field(default_factory=list)
    running: set[str] = field(default_factory=set)  # idempotency keys of requests under way
    seen: int = 0  # the clock's time at the last tick

    def now(self) -> int:
        """Return the stand-in's time."""
        return int(time.time()) + self.offset

    def tick(self) -> None:
        """Bring the engine's clock up to date and hand new events to the pump."""
        real = int(time.time())
        if real < self.seen - _BACK:
            self._went_back()
        self.seen = real
        self.engine.advance_to(self.now())
        self.pump.take(self.engine)

    def _went_back(self) -> None:
        """Follow a clock that was set back, as far as no event has happened yet.

        An event that came before an earlier one would be taken for old news: from there on this
        clock stays ahead.
        """
        newest = max((event["created"] for event in self.engine.events), default=0)
        self.engine.now = max(int(time.time()) + self.offset, newest)
        self.offset = self.engine.now - int(time.time())
        for delivery in self.pump.waiting():
            delivery.at = min(delivery.at, time.time())

    def forget(self) -> None:
        """Start over at the real time, with the endpoints given at the start."""
        fresh = Engine(now=int(time.time()), seed=self.engine.seed + 1, url=self.engine.url)
        vars(self.engine).update(vars(fresh))
        self.pump.clear()
        self.offset = 0
        self.troubles.clear()
        for address, signed in self.options.webhooks:
            _endpoint(self.engine, address, list(signed))


STANDIN = web.AppKey("standin", StandIn)


def load(options: Options) -> StandIn:
    """Return a stand-in with the state of an earlier run, if there is any."""
    kept: Object = {}
    if options.state is not None and options.state.exists():
        kept = json.loads(options.state.read_text())
    if kept:
        engine = Engine.load(kept["engine"])
    else:
        seed = secrets.randbits(32) if options.seed is None else options.seed
        engine = Engine(now=int(time.time()), seed=seed)
    found = StandIn(options, engine, Pump.load(kept.get("pump", {})), kept.get("offset", 0))
    for address, signed in options.webhooks:
        _endpoint(engine, address, list(signed))
    return found


def _endpoint(engine: Engine, address: str, signed: list[str]) -> None:
    """Make an address given at the start an endpoint for all events."""
    known = [end for end in engine.all("webhook_endpoint") if end["url"] == address]
    if not known:
        wanted = {"url": address, "enabled_events": ["*"], "api_version": API_VERSION}
        _, made = engine.request("POST", "/v1/webhook_endpoints", wanted)
        known = [engine.get(made["id"])]
    known[0]["_secrets"] = signed


def save(found: StandIn) -> None:
    """Write the state file atomically."""
    path = found.options.state
    if path is None:
        return
    found.engine.forget({delivery.event for delivery in found.pump.waiting()})
    kept = {"engine": found.engine.dump(), "pump": found.pump.dump(), "offset": found.offset}
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.touch(mode=0o600)
    part.write_text(json.dumps(kept))
    part.replace(path)
