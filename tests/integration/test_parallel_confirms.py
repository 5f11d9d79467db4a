"""Sixteen processes confirm one asset at the same moment: one wins, the others see it."""

from collections import Counter

from tests.integration.support import api, books
from tests.integration.support.crew import Crew
from tests.integration.support.samples import PNG
from tests.integration.support.stores import Store, every_store

CONFIRM = "POST /v1/assets/{assetId}/confirm"
DELETE = "DELETE /v1/assets/{assetId}"


@every_store
def test_sixteen_confirms_at_once_make_one_event_fifteen_times(store: Store, crew: Crew) -> None:
    seen: Counter[int] = Counter()
    for _ in range(15):
        asset_id = api.upload(PNG)
        answers = crew.together([(CONFIRM, {"asset_id": asset_id})] * 16)
        statuses = Counter(answer.status for answer in answers)
        seen += statuses
        assert set(statuses) <= {200, 202}, answers
        assert statuses[200] >= 1
        assert len({answer.text for answer in answers if answer.status == 200}) == 1
        assert books.events(asset_id) == ["AssetReady"]
        assert books.status(asset_id) == "ready"
        assert len(books.asset(asset_id)["attempts"]) == 1
        books.recount()
    assert books.usage() == (15 * len(PNG.data), 0)
    assert seen[202], "nobody was in anybody's way: the processes did not run together"


def test_confirms_and_deletes_at_once_leave_no_half_state(store: Store, crew: Crew) -> None:
    for _ in range(10):
        asset_id = api.upload(PNG)
        jobs = [(CONFIRM, {"asset_id": asset_id}), (DELETE, {"asset_id": asset_id})] * 8
        answers = crew.together(jobs)
        assert Counter(answer.status for answer in answers[1::2]) == {204: 1, 404: 7}
        assert {answer.status for answer in answers[::2]} <= {200, 202, 404, 409}, answers
        assert books.status(asset_id) == "deleted"
        assert books.events(asset_id) in ([], ["AssetReady", "AssetDeleted"])
        books.recount()
        books.balance()
    assert books.usage() == (0, 0)


def test_confirms_of_a_file_that_lies_reject_it_once(store: Store, crew: Crew) -> None:
    for _ in range(5):
        ticket = api.request(PNG, sha256=None)
        api.put(ticket, b"MZ".ljust(len(PNG.data)))
        asset_id = ticket["assetId"]
        answers = crew.together([(CONFIRM, {"asset_id": asset_id})] * 16)
        assert {answer.status for answer in answers} <= {202, 422}, answers
        assert books.events(asset_id) == ["AssetRejected"]
        assert books.usage() == (0, 0)
