"""How fast Stripe is asked, against a clock that only waiting moves."""

from hypothesis import given
from hypothesis import strategies as st

from kyora.billing import rate_limit


class Clock:
    def __init__(self) -> None:
        self.time = 0.0

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds


@given(st.lists(st.floats(0, 2), max_size=200), st.integers(1, 50))
def test_no_second_has_more_requests_than_are_allowed(pauses: list[float], rate: int) -> None:
    clock, asked = Clock(), list[float]()
    with rate_limit.at(rate, now=clock.now, sleep=clock.sleep):
        for pause in pauses:
            clock.time += pause
            rate_limit.wait()
            asked.append(clock.time)
    for first, last in zip(asked, asked[rate:], strict=False):
        assert last - first >= 1 - 1e-6


@given(st.lists(st.floats(0.1, 2), max_size=50))
def test_who_asks_seldom_never_waits(pauses: list[float]) -> None:
    clock, slept = Clock(), list[float]()
    with rate_limit.at(10, now=clock.now, sleep=slept.append):
        for pause in pauses:
            clock.time += pause + 1e-6
            rate_limit.wait()
    assert slept == []


def test_no_pace_holds_up_no_one() -> None:
    clock = Clock()
    with rate_limit.at(1, now=clock.now, sleep=clock.sleep):
        rate_limit.wait()
    for _ in range(3):
        rate_limit.wait()
    assert clock.time == 0


def test_stripe_is_asked_as_often_as_it_allows_in_test_mode() -> None:
    clock = Clock()
    with rate_limit.at(now=clock.now, sleep=clock.sleep):
        for _ in range(26):
            rate_limit.wait()
    assert abs(clock.time - 1) < 1e-6
