"""What the payload of an event is worth, in whatever order events arrive."""

from datetime import UTC, datetime
from typing import Any

import pytest

from kyora.billing import ordering, stripe_objects
from kyora.billing.ordering import Ask, Attempt, Read


def event(created: int, version: str = stripe_objects.API_VERSION) -> stripe_objects.Event:
    return stripe_objects.Event(
        "evt_1", "customer.subscription.updated", created, version, False, {}, {}
    )


NOW = 1_790_000_000
DECISIONS: list[tuple[str, int | None, dict[str, Any], stripe_objects.Event, str]] = [
    ("nothing is known", None, {}, event(NOW), "apply"),
    ("three seconds newer", NOW - 3, {}, event(NOW), "apply"),
    ("two seconds newer", NOW - 2, {}, event(NOW), "ask"),
    ("the same second", NOW, {}, event(NOW), "ask"),
    ("two seconds older", NOW + 2, {}, event(NOW), "ask"),
    ("three seconds older", NOW + 3, {}, event(NOW), "skip"),
    ("ours is over", NOW - 99, {"over": True}, event(NOW), "skip"),
    ("ours is over, and so is this", NOW, {"over": True, "ends": True}, event(NOW), "skip"),
    ("it ends, in the same second", NOW, {"ends": True}, event(NOW), "apply"),
    ("it ends, and is older", NOW + 99, {"ends": True}, event(NOW), "apply"),
    ("it is cut off", NOW - 99, {"whole": False}, event(NOW), "ask"),
    ("it is cut off and old news", NOW + 99, {"whole": False}, event(NOW), "skip"),
    ("another version", NOW - 99, {}, event(NOW, "2026-08-26.dahlia"), "ask"),
    ("an early version", None, {}, event(NOW, "2020-08-27"), "ask"),
    ("no version", None, {}, event(NOW, ""), "ask"),
    ("another date of our train", NOW - 99, {}, event(NOW, "2026-09-30.endive"), "apply"),
]


@pytest.mark.parametrize(
    ("as_of", "more", "reported", "verdict"),
    [row[1:] for row in DECISIONS],
    ids=[r[0] for r in DECISIONS],
)
def test_a_payload_is_worth(
    as_of: int | None, more: dict[str, Any], reported: stripe_objects.Event, verdict: str
) -> None:
    given = {"over": False, "ends": False, "whole": True} | more
    assert ordering.decide(as_of, event=reported, **given) == verdict


# ---- an attempt at an event


def attempt(read: Read | None = None) -> Attempt:
    return Attempt(event(NOW), {"version": 7}, {"attempts": 3}, read)


FACTS = {"over": False, "ends": False, "whole": True}
APPLIED = [row for row in DECISIONS if row[3].pinned]


@pytest.mark.parametrize(
    ("as_of", "more", "reported", "verdict"),
    [row[1:] for row in DECISIONS],
    ids=[r[0] for r in DECISIONS],
)
def test_an_attempt_applies_it_skips_it_or_asks(
    as_of: int | None, more: dict[str, Any], reported: stripe_objects.Event, verdict: str
) -> None:
    tried = attempt()._replace(event=reported)
    if verdict != "ask":
        assert tried.applies(as_of, **FACTS | more) is (verdict == "apply")
        return
    with pytest.raises(Ask) as asked:
        tried.applies(as_of, **FACTS | more)
    # The attempt has counted the version up already; the answer is for the one before.
    assert (asked.value.version, asked.value.attempts) == (6, 3)
    assert str(asked.value) == "ask Stripe"


def test_what_is_not_said_to_be_cut_off_is_whole() -> None:
    assert attempt().applies(None, over=False, ends=False)


@pytest.mark.parametrize(
    ("as_of", "applies"), [(None, True), (NOW - 1, True), (NOW, True), (NOW + 1, False)]
)
def test_while_stripe_is_unreachable_the_newest_payload_counts(
    as_of: int | None, applies: bool
) -> None:
    tried = attempt(Read(None, 6))
    assert tried.applies(as_of, over=True, ends=False, whole=False) is applies


def test_an_answer_is_what_stripe_was_read_to_say() -> None:
    answer: Any = object()
    assert attempt().answer is None
    assert attempt(Read(None, 6)).answer is None
    assert attempt(Read(answer, 6)).answer is answer


def test_an_event_happened_at_the_second_of_stripes_clock() -> None:
    assert attempt().happened == datetime(2026, 9, 21, 14, 13, 20, tzinfo=UTC)
