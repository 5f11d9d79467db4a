"""Idempotency-Key on both routes that create uploads."""

import json
import time
from typing import Any

import pytest

from tests.integration.support import api, invariants, samples
from tests.integration.support.api import Answer
from tests.integration.support.samples import PNG
from tests.integration.support.stores import Store
from tests.integration.support.workers import Crew

UPLOAD = "POST /v1/assets/upload"
UPLOADS = "POST /v1/assets/uploads"
KEY = "order-77-photo"


def _ask(key: str = KEY, body: object = None, **options: Any) -> Answer:
    return api.call(UPLOAD, body=body or api.wish(PNG), headers={"idempotency-key": key}, **options)


def _count() -> int:
    (row,) = invariants.rows("SELECT count(*) AS n FROM asset")
    return int(row["n"])


def test_the_same_request_gets_the_same_answer_and_makes_one_asset(store: Store) -> None:
    first = _ask()
    assert first.status == 200
    for _ in range(3):
        assert _ask().same_as(first)
    assert _count() == 1
    assert invariants.usage() == (0, len(PNG.data))
    assert api.put(first.body, PNG.data).status == 200
    api.confirm(first.body["assetId"])
    assert _ask().same_as(first), "also when the asset has gone on"
    assert _count() == 1


def test_the_same_request_written_differently_is_the_same(store: Store) -> None:
    wish = api.wish(PNG)
    first = _ask()
    backwards = json.dumps(dict(reversed(wish.items())), indent=3)
    found = api.call(UPLOAD, raw=backwards, headers={"Idempotency-Key": KEY})
    assert found.same_as(first)


@pytest.mark.parametrize(
    "change",
    [{"size": 9}, {"filename": "b.png"}, {"sha256": None}, {"purpose": "logo"}],
    ids=["size", "name", "checksum", "purpose"],
)
def test_another_request_with_the_key_is_refused(change: dict[str, Any], store: Store) -> None:
    first = _ask()
    refused = _ask(body=api.wish(PNG, **change))
    assert (refused.status, refused.code) == (422, "idempotency.key_reused")
    assert _ask().same_as(first)
    assert _count() == 1


def test_a_key_belongs_to_a_workspace_a_user_and_a_route(store: Store) -> None:
    first = _ask()
    colleague = _ask(who=api.MEMBER)  # of the same workspace: the answer is not theirs
    assert (colleague.status, colleague.code) == (422, "idempotency.key_reused")
    other = _ask(who=api.STRANGER)
    assert other.status == 200
    assert other.body["assetId"] != first.body["assetId"]
    assert "/ws_other/" in other.body["uploadUrl"]
    many = api.call(UPLOADS, body={"files": [api.wish(PNG)]}, headers={"idempotency-key": KEY})
    assert many.status == 200
    assert _count() == 3


def test_a_batch_is_repeated_with_its_refusals(store: Store) -> None:
    files = [api.wish(PNG), api.wish(PNG, filename="a.exe"), api.wish(samples.ALL["txt"])]
    headers = {"idempotency-key": KEY}
    first = api.call(UPLOADS, body={"files": files}, headers=headers)
    assert ["error" in item for item in first.body["uploads"]] == [False, True, False]
    assert api.call(UPLOADS, body={"files": files}, headers=headers).same_as(first)
    swapped = api.call(UPLOADS, body={"files": files[::-1]}, headers=headers)
    assert swapped.code == "idempotency.key_reused"
    assert _count() == 2


def test_a_refusal_is_not_kept(store: Store) -> None:
    invariants.limit(1)
    assert _ask().code == "billing.limit_reached"
    invariants.limit(-1)
    assert _ask().status == 200
    assert _ask("other", api.wish(PNG, filename="a.exe")).status == 415
    assert _ask("other").status == 200


def test_a_key_is_forgotten_after_a_day(store: Store) -> None:
    first = _ask()
    invariants.run("UPDATE idempotency_key SET created_at = now() - interval '23 hours 59 minutes'")
    assert _ask().same_as(first)
    invariants.run("UPDATE idempotency_key SET created_at = now() - interval '24 hours 1 second'")
    second = _ask(body=api.wish(PNG, filename="b.png"))
    assert second.status == 200
    assert second.body["assetId"] != first.body["assetId"]
    assert _ask(body=api.wish(PNG, filename="b.png")).same_as(second), "kept for another day"


@pytest.mark.parametrize("key", ["k" * 256, "مفتاح", "a\tb", "a\x7fb", "é"])
def test_a_key_that_is_none_is_refused(key: str, store: Store) -> None:
    refused = _ask(key)
    assert (refused.status, refused.code) == (422, "request.validation_failed")
    assert refused.body["errors"] == [{"field": "Idempotency-Key", "message": "not valid"}]
    assert invariants.nothing_happened()


@pytest.mark.parametrize("key", ["k", "k" * 255, "a b", "'; DROP TABLE asset; --", "{}", "a:b\\n"])
def test_any_printable_key_is_taken(key: str, store: Store) -> None:
    assert _ask(key).same_as(_ask(key))
    assert _count() == 1


def test_without_a_key_each_request_makes_an_asset(store: Store) -> None:
    assert _ask("").body["assetId"] != _ask("").body["assetId"]
    assert _count() == 2
    assert not invariants.rows("SELECT * FROM idempotency_key")


def test_a_second_request_while_the_first_runs_is_asked_to_wait(store: Store, crew: Crew) -> None:
    options = {"body": api.wish(PNG), "headers": {"idempotency-key": KEY}}
    with crew.stalled("kyora.assets.ledger:take", "after", UPLOAD, **options) as finish:
        second = _ask()
        assert (second.status, second.code) == (409, "idempotency.in_progress")
        assert second.headers["Retry-After"] == "1"
        assert _ask("another key", who=api.STRANGER).status == 200, "no one else waits"
        first = finish()
    assert first.status == 200
    assert _ask().same_as(first)


def test_a_request_that_died_leaves_its_key_free(store: Store, crew: Crew) -> None:
    options = {"body": api.wish(PNG), "headers": {"idempotency-key": KEY}}
    crew.crash("kyora.assets.requests:_insert", "after", UPLOAD, **options)
    assert _count() == 0
    deadline = time.monotonic() + 60
    while (answer := _ask()).code == "idempotency.in_progress" and time.monotonic() < deadline:
        time.sleep(0.05)  # the database has yet to notice that its client is gone
    assert answer.status == 200


def test_sixteen_at_once_with_one_key_make_one_asset(store: Store, crew: Crew) -> None:
    for number in range(5):
        options = {"body": api.wish(PNG), "headers": {"idempotency-key": f"{KEY}-{number}"}}
        answers = crew.together([(UPLOAD, options)] * 16)
        granted = {answer.text for answer in answers if answer.status == 200}
        assert len(granted) == 1
        assert {answer.code for answer in answers} <= {"", "idempotency.in_progress"}
        assert _count() == number + 1
