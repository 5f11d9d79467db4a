"""When a message is tried again: one consequence of each of the provider's answers."""

import pytest

from kyora.email import retry
from kyora.email.message import Refusal
from kyora.email.retry import Action, Do

MINUTE, HOUR = 60, 3600

DIES = Action(Do.DIE, counted=True, refused=True)
LOST = Action(Do.RETRY, counted=True)
DOWN = Action(Do.RETRY, counted=True, limited=True)
SLOWER = Action(Do.RETRY, counted=True, refused=True)
BUSY = Action(Do.RETRY, counted=False)
ACCESS = Action(Do.WAIT, counted=False, refused=True, breaker=15 * MINUTE, kind="access")
DAY = Action(Do.WAIT, counted=False, refused=True, breaker=HOUR, kind="quota")
MONTH = Action(Do.WAIT, counted=False, refused=True, breaker=6 * HOUR, kind="quota")

ANSWERS: list[tuple[int, str, Action]] = [
    (0, "no_answer", LOST),
    (0, "no_id", LOST),
    (200, "odd", ACCESS),
    (301, "", ACCESS),
    (399, "", ACCESS),
    (400, "validation_error", DIES),
    (401, "missing_api_key", ACCESS),
    (403, "invalid_api_key", ACCESS),
    (404, "not_found", ACCESS),
    (405, "method_not_allowed", ACCESS),
    (408, "request_timeout", DOWN),
    (409, "concurrent_idempotent_requests", BUSY),
    (409, "resource_locked", DOWN),
    (409, "something_new", DIES),
    (413, "content_too_large", DIES),
    (422, "invalid_parameter", DIES),
    (425, "too_early", DOWN),
    (429, "rate_limit_exceeded", SLOWER),
    (429, "daily_quota_exceeded", DAY),
    (429, "monthly_quota_exceeded", MONTH),
    (499, "", DIES),
    (500, "application_error", DOWN),
    (503, "", DOWN),
    (599, "", DOWN),
]


@pytest.mark.parametrize(("status", "name", "action"), ANSWERS)
@pytest.mark.parametrize("attempts", [1, 7])
def test_an_answer_has_one_consequence(
    status: int, name: str, action: Action, attempts: int
) -> None:
    assert retry.action(Refusal(status, name), attempts) == action


@pytest.mark.parametrize(("status", "name", "action"), ANSWERS)
def test_the_eighth_attempt_in_doubt_is_the_last(status: int, name: str, action: Action) -> None:
    given_up = Action(Do.DIE, counted=True, exhausted=True)
    for attempts in (8, 9):
        found = retry.action(Refusal(status, name), attempts)
        assert found == (given_up if action == DOWN else action)


def test_a_key_bound_to_other_bytes_was_accepted_before_or_is_not_ours() -> None:
    other = Refusal(409, "invalid_idempotent_request")
    assert retry.action(other, 1) == DIES
    assert retry.action(other, 2) == Action(Do.ASSUME)
    # A name means something only with its status.
    assert retry.action(Refusal(400, "invalid_idempotent_request"), 2) == DIES


def waits(action: Action, attempts: int, retry_after: float | None = None) -> tuple[float, float]:
    """The shortest and the longest of many waits."""
    many = [retry.backoff(action, attempts, retry_after) for _ in range(2000)]
    return min(many), max(many)


@pytest.mark.parametrize(
    ("attempts", "longest"), [(1, 2), (2, 4), (3, 8), (8, 256), (9, 512), (10, 900), (99, 900)]
)
def test_a_wait_doubles_and_is_spread_over_the_whole_range(attempts: int, longest: int) -> None:
    shortest, found = waits(DOWN, attempts)
    assert 0 <= shortest < longest * 0.02
    assert longest * 0.98 < found <= longest


def test_what_is_not_counted_waits_some_seconds() -> None:
    """Another attempt of ours is in flight, whatever its number is."""
    shortest, longest = waits(BUSY, 9)
    assert 2 <= shortest < 2.1
    assert 4.9 < longest <= 5


def test_a_wait_is_never_shorter_than_the_provider_asks() -> None:
    assert waits(SLOWER, 1, 7.0) == (7, 7)
    assert waits(SLOWER, 1, 1.0)[0] == 1
    assert waits(SLOWER, 2, 1.0)[1] > 3.5


def test_what_an_action_does_not_say_it_does_not_do() -> None:
    assert Action(Do.DIE) == Action(
        Do.DIE, counted=True, refused=False, limited=False, exhausted=False, breaker=0, kind=""
    )


def test_the_numbers_of_the_doc() -> None:
    """They are public: docs/recipes/retry-mail.md, and what the provider promises about keys."""
    assert retry.MAX_ATTEMPTS == 8
    assert retry.LONGEST_BACKOFF == 900
    assert retry.WINDOW.total_seconds() == 23 * HOUR
    assert retry.RECHECK_AFTER.total_seconds() == 15 * MINUTE
    assert [one.value for one in Do] == ["retry", "wait", "die", "assume"]
