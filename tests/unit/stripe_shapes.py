"""Every answer and every event of the stand-in, held against the SDK's resources as it is given."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import strategies as st

from local.stripe.engine import Answer, Engine
from local.stripe.sdk.contract import check_answer
from local.stripe.sdk.types import installed


@contextmanager
def watched() -> Iterator[set[str]]:
    """Fail at the end when an answer or an event differs from Stripe's objects.

    Yields the calls that were answered with 200: `GET /v1/prices/{}`.
    """
    faults: list[str] = []
    answered: set[str] = set()
    seen: dict[int, int] = {}
    real = Engine.answer

    def answer(engine: Engine, method: str, path: str, *args: Any, **kwargs: Any) -> Answer:
        given = real(engine, method, path, *args, **kwargs)
        route = installed().route(method, path)
        if given.status == 200 and route is not None:
            answered.add(f"{method} {route.path}")
            faults.extend(check_answer(given.body, route.answer))
        for event in engine.events[seen.get(id(engine), 0) :]:
            shown = {name: value for name, value in event.items() if name[0] != "_"}
            faults.extend(check_answer(shown))  # but what it is about, which may be anything
            faults.extend(check_answer(event["data"]["object"]))
        seen[id(engine)] = len(engine.events)
        return given

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Engine, "answer", answer)
        yield answered
    assert not faults, sorted(set(faults))


_WORDS = """id object customer status items data created current_period_end price plan cancel_at
parent subscription_details lines metadata card type last4 total amount_due amount_paid currency"""


KEYS = st.sampled_from(_WORDS.split())


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text()


JSON = st.recursive(
    LEAVES, lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner), max_leaves=30
)
