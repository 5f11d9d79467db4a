"""What is logged of an exception."""

import json

import pytest

from kyora.observability import fault

SECRET = "lina@shop.example"


def failure() -> Exception:
    try:
        raise KeyError(SECRET)
    except KeyError as error:
        return error


def test_an_exception_is_named_with_the_code_it_went_through(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("STAGE", "prod")
    described = fault(failure())
    assert described["error"] == "KeyError"
    assert described["at"] == [f"unit/test_observability.py:{LINE} failure"]
    assert SECRET not in json.dumps(described)


def test_only_a_persons_own_machine_shows_its_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAGE", "local")
    assert f"KeyError: '{SECRET}'" in fault(failure())["traceback"]


LINE = failure.__code__.co_firstlineno + 2
