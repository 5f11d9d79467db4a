"""Asking a function of a deployed stack: once, for as long as it may take."""

import json
from collections.abc import Iterator

import pytest

from local.commands import remote
from local.progress import Trouble
from tests.account import FUNCTION, Account
from tests.scripted import Answer, scripted


@pytest.fixture
def account(environment: pytest.MonkeyPatch) -> Iterator[Account]:
    found = Account()
    with scripted(found.answer) as server:
        environment.setenv("AWS_ENDPOINT_URL", server.url)
        environment.setenv("AWS_EC2_METADATA_DISABLED", "true")
        yield found


def test_a_function_is_found_by_its_stack_and_asked(account: Account) -> None:
    ask = remote.deployed("staging", "update_analytics")
    assert ask({"rebuild": {}}) == {"next": None}
    [request] = account.invoked
    assert request.path == f"/2015-03-31/functions/{FUNCTION}/invocations"
    assert json.loads(request.body) == {"rebuild": {}}
    assert "/eu-west-1/lambda/" in request.headers["authorization"]


def test_a_call_that_takes_long_is_not_made_twice(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first one still works: a second would do its work again, beside it."""
    assert remote._LONGEST > 900
    monkeypatch.setattr(remote, "_LONGEST", 0.5)
    account.answers = [Answer(delay=2)]
    with pytest.raises(Trouble, match=r"timed out|timeout"):
        remote.deployed("staging", "update_analytics")({"rebuild": {}})
    assert account.came.acquire(timeout=60)  # the server may not have looked yet
    assert len(account.invoked) == 1


@pytest.mark.parametrize("answer", [Answer(500), Answer(drop=True), Answer(429)])
def test_nor_is_one_that_fails(answer: Answer, account: Account) -> None:
    account.answers = [answer]
    with pytest.raises(Trouble, match="could not be asked"):
        remote.deployed("staging", "update_analytics")({})
    assert len(account.invoked) == 1


def test_a_functions_own_failure_is_reported(account: Account) -> None:
    account.answers = [Answer(body=b'{"errorMessage": "no plan", "errorType": "ValueError"}')]
    with pytest.raises(Trouble, match="no plan"):
        remote.deployed("staging", "update_analytics")({})


def test_a_stage_that_is_not_configured_is_refused() -> None:
    with pytest.raises(Trouble, match="no environment 'production'"):
        remote.deployed("production", "update_analytics")
