"""The answer that a custom resource owes its stack: always given, never too long."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kyora import cloudformation
from kyora.errors import ConfigError
from tests.scripted import Answer, Server, in_turn, scripted

LIMIT = 4096  # bytes: CloudFormation User Guide, "Custom resource response reference"
VALUES = st.one_of(
    st.integers(), st.text(max_size=2000), st.lists(st.text(max_size=80), max_size=200), st.none()
)
RESULTS = st.dictionaries(st.sampled_from(["applied", "created", "updated", "archived"]), VALUES)


def event(url: str, **more: object) -> dict[str, Any]:
    return {
        "RequestType": "Create",
        "ResponseURL": url,
        "StackId": "arn:aws:cloudformation:eu-west-1:123456789012:stack/"
        + "s" * 128
        + "/"
        + "i" * 36,
        "RequestId": "r" * 36,
        "LogicalResourceId": "l" * 64,
        "ResourceProperties": {},
    } | more


def answered(server: Server, work: Any, **more: object) -> dict[str, Any]:
    server.requests.clear()
    cloudformation.resource(event(server.url, **more), work)
    [request] = server.requests
    assert len(request.body) <= LIMIT
    found: dict[str, Any] = json.loads(request.body)
    return found


@settings(max_examples=60)
@given(result=RESULTS)
def test_any_result_fits(result: dict[str, Any]) -> None:
    with scripted(in_turn(Answer())) as server:
        assert answered(server, lambda: result)["Status"] == "SUCCESS"


@settings(max_examples=60)
@given(text=st.text(max_size=5000))
def test_any_failure_fits(text: str) -> None:
    def fail() -> dict[str, Any]:
        raise ValueError(text)

    with scripted(in_turn(Answer())) as server:
        found = answered(server, fail)
    assert (found["Status"], found["Reason"][:12]) == ("FAILED", "ValueError: ")


def test_a_list_is_shown_by_its_length() -> None:
    with scripted(in_turn(Answer())) as server:
        found = answered(server, lambda: {"applied": [f"{n:04}_name" for n in range(500)]})
    assert found["Data"] == {"applied": "500"}


def test_a_failure_names_what_it_came_from() -> None:
    """The first thing that a person sees whose database address is wrong."""

    def fail() -> dict[str, Any]:
        raise RuntimeError("The database cannot be reached.") from ConnectionRefusedError(111)

    with scripted(in_turn(Answer())) as server:
        found = answered(server, fail)
    assert (
        found["Reason"] == "RuntimeError: The database cannot be reached. (ConnectionRefusedError)"
    )


def test_a_lost_answer_is_given_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it the stack waits for as long as its ServiceTimeout says."""
    monkeypatch.setattr(cloudformation.time, "sleep", lambda _: None)
    with scripted(in_turn(Answer(503), Answer(drop=True), Answer())) as server:
        cloudformation.resource(event(server.url), dict)
        assert len(server.requests) == 3


# ---- permissions that are on their way


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that only waiting moves."""
    now = [0.0]
    monkeypatch.setattr(cloudformation.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(
        cloudformation.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds)
    )
    return now


def refusing(times: int, error: Exception) -> Any:
    left = [times]

    def work() -> str:
        left[0] -= 1
        if left[0] >= 0:
            raise error
        return "done"

    return work


def test_a_permission_that_arrives_late_is_waited_for(clock: list[float]) -> None:
    error = ConfigError(["DATABASE_URL_ARN cannot be read (AccessDeniedException)"])
    assert cloudformation.when_permitted(refusing(8, error)) == "done"
    assert clock[0] == 24


def test_a_permission_that_does_not_arrive_is_a_failure_after_thirty_seconds(
    clock: list[float],
) -> None:
    error = ConfigError(["DATABASE_URL_ARN cannot be read (AccessDeniedException)"])
    with pytest.raises(ConfigError):
        cloudformation.when_permitted(refusing(1000, error))
    assert clock[0] == 30


def test_any_other_failure_is_one_at_once(clock: list[float]) -> None:
    with pytest.raises(ConfigError):
        cloudformation.when_permitted(refusing(1000, ConfigError(["BUS_NAME is not set"])))
    assert clock[0] == 0
