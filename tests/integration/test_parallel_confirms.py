"""Sixteen processes confirm one asset at the same moment: one wins, the others see it."""

from collections import Counter
from collections.abc import Callable
from typing import Any

from tests.integration.support import api, invariants
from tests.integration.support.samples import PNG
from tests.integration.support.stores import Store, every_store
from tests.integration.support.workers import Crew

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
        assert invariants.events(asset_id) == ["AssetReady"]
        assert invariants.status(asset_id) == "ready"
        assert len(invariants.asset(asset_id)["attempts"]) == 1
        invariants.recount()
    assert invariants.usage() == (15 * len(PNG.data), 0)
    assert seen[202], "no process met another: they did not run together"


def test_confirms_and_deletes_at_once_leave_no_half_state(store: Store, crew: Crew) -> None:
    for _ in range(10):
        asset_id = api.upload(PNG)
        jobs = [(CONFIRM, {"asset_id": asset_id}), (DELETE, {"asset_id": asset_id})] * 8
        answers = crew.together(jobs)
        assert Counter(answer.status for answer in answers[1::2]) == {204: 1, 404: 7}
        assert {answer.status for answer in answers[::2]} <= {200, 202, 404, 409}, answers
        assert invariants.status(asset_id) == "deleted"
        assert invariants.events(asset_id) in ([], ["AssetReady", "AssetDeleted"])
        invariants.recount()
        invariants.balance()
    assert invariants.usage() == (0, 0)


def test_confirms_of_a_file_that_lies_reject_it_once(store: Store, crew: Crew) -> None:
    for _ in range(5):
        ticket = api.request(PNG, sha256=None)
        api.put(ticket, b"MZ".ljust(len(PNG.data)))
        asset_id = ticket["assetId"]
        answers = crew.together([(CONFIRM, {"asset_id": asset_id})] * 16)
        assert {answer.status for answer in answers} <= {202, 422}, answers
        assert invariants.events(asset_id) == ["AssetRejected"]
        assert invariants.usage() == (0, 0)


def _one_of_everything(which: int, ids: list[str], batch: list[dict[str, Any]]) -> int:
    """Do what one of sixteen processes does to uploads whose reservations have lapsed."""
    if which % 8 == 0:
        return 200 if api.sweep() else 0
    asset_id = ids[which % len(ids)]
    steps: list[Callable[[], api.Answer]] = [
        lambda: api.call("POST /v1/assets/upload", body=api.wish(PNG)),
        lambda: api.call("POST /v1/assets/uploads", body={"files": batch}),
        lambda: api.call(
            "POST /v1/assets/uploads",
            body={"files": batch},
            headers={"idempotency-key": f"k{which % 2}"},
        ),
        lambda: api.renew(asset_id),
        lambda: api.confirm(asset_id),
        lambda: api.delete(asset_id),
        lambda: api.renew(ids[0]),
    ]
    return steps[which % 8 - 1]().status


def test_requests_renewals_confirms_and_sweeps_at_once_never_wait_for_each_other_in_a_circle(
    store: Store, crew: Crew
) -> None:
    """A deadlock would be a 500; a lost or doubled reservation shows in the recount."""
    batch = [api.wish(PNG)] * 4
    for _ in range(8):
        ids = [api.upload(PNG) for _ in range(6)]
        invariants.run("UPDATE asset SET url_expires_at = now() - interval '10 minutes'")
        found = crew.each(_one_of_everything, [(n, ids, batch) for n in range(16)])
        assert set(found) <= {200, 202, 204, 404, 409}, found
        invariants.recount()
        invariants.balance()
