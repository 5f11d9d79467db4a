"""Test clocks: customers with a time of their own, which only `advance` moves.

Requests about such a customer happen at its clock's time; the account's clock does not affect
it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from local.stripe.core.dates import DAY
from local.stripe.core.errors import Refusal, invalid, missing
from local.stripe.core.params import Params, integer, need, text
from local.stripe.core.routes import delete, get, pages, post
from local.stripe.core.state import CLOCK, State
from local.stripe.core.views import Object, within

_LIVES = 30 * DAY
_NAMES = ("customer", "subscription", "from_subscription", "invoice", "test_clock")


def create(state: State, params: Params) -> Object:
    """POST /v1/test_helpers/test_clocks."""
    made: Object = {
        "id": state.identify("clock_1"),
        "object": CLOCK,
        "created": state.now,
        "deletes_after": state.now + _LIVES,
        "frozen_time": integer(need(params, "frozen_time"), "frozen_time"),
        "livemode": False,
        "name": text(params.get("name"), "name"),
        "status": "ready",
        "status_details": {},
        "_agenda": [],
    }
    state.add(made)
    state.emit("test_helpers.test_clock.created", made)
    return made


def advance(state: State, params: Params, name: str) -> Object:
    """POST /v1/test_helpers/test_clocks/{id}/advance: everything on the way happens at its time."""
    clock = _live(state, name)
    until = integer(need(params, "frozen_time"), "frozen_time") or 0
    if until <= clock["frozen_time"]:
        raise invalid("Time cannot go backwards.", "frozen_time")
    clock |= {"status": "advancing"}
    clock["status_details"] = {"advancing": {"target_frozen_time": until}}
    state.emit("test_helpers.test_clock.advancing", clock)
    state.live(clock["_agenda"], until)
    clock |= {"status": "ready", "status_details": {}, "frozen_time": until}
    state.emit("test_helpers.test_clock.ready", clock)
    return clock


def remove(state: State, params: Params, name: str) -> Object:
    """DELETE /v1/test_helpers/test_clocks/{id}: with every customer that lives in it."""
    clock = _live(state, name)
    for kind in ("subscription", "customer"):
        for found in state.all(kind):
            if state.clock_of(found) is clock:
                found["_deleted"] = True
                state.wake(found, None)
    clock["_deleted"] = True
    state.emit("test_helpers.test_clock.deleted", clock)
    return {"id": name, "object": CLOCK, "deleted": True}


def show(state: State, params: Params, name: str) -> Object:
    """GET /v1/test_helpers/test_clocks/{id}."""
    return _live(state, name)


def _live(state: State, name: str) -> Object:
    found = state.find(CLOCK, name)
    if found.get("_deleted"):
        raise missing("test_clock", name)
    return found


def list_clocks(state: State, params: Params) -> list[Object]:
    """GET /v1/test_helpers/test_clocks."""
    created = params.get("created")
    return [clock for clock in state.all(CLOCK) if within(clock["created"], created, "created")]


def chosen(state: State, params: Params) -> str | None:
    """Read the test clock of a new customer."""
    name = text(params.get("test_clock"), "test_clock")
    if name is None:
        return None
    clock = state.find(CLOCK, name, "test_clock")
    customers = [c for c in state.all("customer") if c["test_clock"] == name]
    if len(customers) >= 3:
        raise Refusal(400, "A test clock can have at most 3 customers.", param="test_clock")
    return str(clock["id"])


@contextmanager
def at_its_time(state: State, params: Params, names: Any) -> Iterator[None]:
    """Run a request at the time of its customer's test clock, if it has one."""
    asked = [*names, *(params.get(name) for name in _NAMES)]
    found = (state.objects.get(name) for name in asked if isinstance(name, str))
    clock = next((c for each in found if each and (c := state.clock_of(each))), None)
    if clock is None:
        yield
        return
    before, jump = state.now, state.jump
    state.now, state.jump = clock["frozen_time"], before if jump is None else jump
    try:
        yield
    finally:
        state.now, state.jump = before, jump


ROUTES = (
    post("/v1/test_helpers/test_clocks", create, "frozen_time", "name"),
    pages("/v1/test_helpers/test_clocks", list_clocks),
    get("/v1/test_helpers/test_clocks/{}", show),
    post("/v1/test_helpers/test_clocks/{}/advance", advance, "frozen_time"),
    delete("/v1/test_helpers/test_clocks/{}", remove),
)
