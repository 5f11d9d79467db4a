"""Workers that die or stall at every step of confirm, and what the next confirm finds.

    claim | stat | note the attempt | copy | read | commit | publish | clean

No worker's end may lose bytes, free or book storage twice, or send an event twice.
"""

import pytest

from kyora import config
from tests.integration.support import api, invariants, samples, stores
from tests.integration.support.samples import PNG, Sample
from tests.integration.support.stores import Bucket, Store
from tests.integration.support.workers import Crew

CONFIRM = "POST /v1/assets/{assetId}/confirm"

# Where the worker dies before its commit: the asset is claimed, and nothing has happened.
BEFORE_COMMIT = {
    "after the claim": ("kyora.assets.confirm:_verify", "before"),
    "after the look": ("stat", "after"),
    "after the attempt was noted": ("copy", "before"),
    "after the copy": ("copy", "after"),
    "while reading": ("kyora.assets.content.verify:inspect", "before"),
    "after the reading": ("kyora.assets.confirm:_end", "before"),
    "inside the last transaction": ("kyora.assets.ending:settle", "after"),
}
# Where it dies after its commit: the verdict stands, its event and its clean-up are owed.
AFTER_COMMIT = {
    "before the event is sent": ("kyora.bus.outbox:_publish", "before"),
    "between PutEvents and its record": ("kyora.bus.outbox:_put", "after"),
    "before the clean-up": ("kyora.assets.sweep:clean", "before"),
    "in the middle of the clean-up": ("delete", "after"),
}


every_case = pytest.mark.parametrize(
    ("store", "good"),
    [("local", True), ("local", False), ("ministack", True), ("seaweedfs", True)],
    indirect=["store"],
)


def _place(store: Store, target: str) -> str:
    return target if ":" in target else stores.method(store, target)


def _upload(good: bool) -> tuple[str, Sample]:
    data = PNG.data if good else b"MZ".ljust(len(PNG.data))
    sample = Sample(PNG.filename, PNG.content_type, data)
    return api.upload(sample), sample


@every_case
def test_a_crash_before_the_commit_is_made_good_by_the_next_confirm(
    good: bool, store: Store, crew: Crew
) -> None:
    for step, (target, when) in BEFORE_COMMIT.items():
        asset_id, sample = _upload(good)
        before = invariants.usage()
        crew.crash(_place(store, target), when, CONFIRM, asset_id=asset_id)
        assert invariants.status(asset_id) == "verifying", step
        assert invariants.usage() == before, step
        assert invariants.events(asset_id) == [], step
        assert api.confirm(asset_id).status == 202, step  # the lease is not over
        assert api.get(asset_id).body["status"] == "verifying", step
        invariants.recount()
        invariants.inspect(store)
        invariants.break_lease(asset_id)
        answer = api.confirm(asset_id)
        assert answer.status == (200 if good else 422), (step, answer)
        begun = 1 if step in ("after the claim", "after the look") else 2
        assert len(invariants.asset(asset_id)["attempts"]) == begun, step
        if good:
            assert api.http_call("GET", answer.body["downloadUrl"]).body == sample.data, step
        assert invariants.events(asset_id) == ["AssetReady" if good else "AssetRejected"], step
        assert len([k for k in store.list() if asset_id in k]) == int(good), step


@every_case
def test_a_crash_after_the_commit_changes_no_answer(good: bool, store: Store, crew: Crew) -> None:
    for step, (target, when) in AFTER_COMMIT.items():
        asset_id, sample = _upload(good)
        crew.crash(_place(store, target), when, CONFIRM, asset_id=asset_id)
        assert invariants.status(asset_id) == ("ready" if good else "rejected"), step
        answer = api.confirm(asset_id)
        assert answer.status == (200 if good else 422), (step, answer)
        if good:
            assert api.http_call("GET", answer.body["downloadUrl"]).body == sample.data, step
        assert invariants.events(asset_id) == ["AssetReady" if good else "AssetRejected"], step
        invariants.recount()
        assert invariants.asset(asset_id)["cleaned_at"] is None, step
        api.sweep()
        assert invariants.asset(asset_id)["cleaned_at"] is None, "the worker still has its minute"
        invariants.pass_grace()
        api.sweep()
        assert len([k for k in store.list() if asset_id in k]) == int(good), step


def test_a_crash_between_claim_and_deadline_is_swept(store: Store, crew: Crew) -> None:
    asset_id, _ = _upload(good=True)
    crew.crash(stores.method(store, "copy"), "after", CONFIRM, asset_id=asset_id)
    invariants.pass_deadline(asset_id)
    api.sweep()
    assert invariants.status(asset_id) == "verifying", "a worker may still hold it"
    invariants.break_lease(asset_id)
    assert api.sweep() == {"expired": 1, "cleaned": 0}
    assert invariants.status(asset_id) == "expired"
    assert invariants.usage() == (0, 0)
    assert api.confirm(asset_id).status == 410


@pytest.mark.parametrize("store", ["local", "ministack"], indirect=True)
@pytest.mark.parametrize("step", ["after the claim", "after the copy", "after the reading"])
@pytest.mark.parametrize("rival", ["confirm", "delete", "expire"])
def test_a_worker_that_wakes_up_late_changes_nothing(
    rival: str, step: str, store: Store, crew: Crew
) -> None:
    """It stalls, its lease is over, another worker decides; then it goes on."""
    asset_id, sample = _upload(good=True)
    target, when = BEFORE_COMMIT[step]
    with crew.stalled(_place(store, target), when, CONFIRM, asset_id=asset_id) as finish:
        invariants.break_lease(asset_id)
        if rival == "confirm":
            first = api.confirm(asset_id)
            assert first.status == 200
        elif rival == "delete":
            assert api.deleted(api.delete(asset_id))
        else:
            invariants.pass_deadline(asset_id)
            api.sweep()
            assert invariants.status(asset_id) == "expired"
        late = finish()
    if rival == "confirm":
        assert late.status in (200, 409), late
        answer = api.confirm(asset_id)
        assert answer.same_as(first)
        assert api.http_call("GET", answer.body["downloadUrl"]).body == sample.data
        assert len([k for k in store.list() if asset_id in k]) == 1
    else:
        assert late.status in (404, 409, 410), late
        assert api.confirm(asset_id).status == (404 if rival == "delete" else 410)
    assert invariants.events(asset_id) == (["AssetReady"] if rival == "confirm" else [])


def test_a_worker_that_wakes_up_late_with_a_swapped_file_cannot_undo_ready(
    store: Store, crew: Crew
) -> None:
    """The attack on a fixed final key: the late worker rejects, and deletes what is served."""
    asset_id = api.upload(PNG, sha256=None)
    copy = stores.method(store, "copy")
    with crew.stalled(copy, "before", CONFIRM, asset_id=asset_id) as finish:
        invariants.break_lease(asset_id)
        first = api.confirm(asset_id)
        assert first.status == 200
        store.write(f"incoming/ws_demo/{asset_id}", b"MZ".ljust(len(PNG.data)))
        late = finish()
    assert late.status in (200, 409)
    assert api.http_call("GET", first.body["downloadUrl"]).body == PNG.data
    assert api.confirm(asset_id).same_as(first)
    for key in store.list():
        if key.startswith("incoming/"):  # the lifecycle rule's part
            store.remove(key)


def test_a_late_clean_up_does_not_call_a_deleted_asset_clean(
    store: Store, crew: Crew, environment: pytest.MonkeyPatch
) -> None:
    """It knows only what ready leaves behind; delete owes the verified object as well."""
    asset_id, _ = _upload(good=True)
    with crew.stalled("kyora.assets.sweep:clean", "before", CONFIRM, asset_id=asset_id) as finish:
        with stores.broken(b"HTTP/1.1 500 Broken\r\nContent-Length: 0\r\n\r\n") as url:
            for name, value in Bucket("broken", url, "key", "secret").variables.items():
                environment.setenv(name, value)
            config.forget()
            assert api.delete(asset_id).status == 204
        for name, value in store.variables.items():
            environment.setenv(name, value)
        config.forget()
        assert finish().status == 200
    assert invariants.asset(asset_id)["cleaned_at"] is None
    invariants.pass_grace()
    api.sweep()
    assert store.list() == []


def _cut_connections() -> None:
    """End every connection but ours, as a restart of the database does."""
    invariants.rows(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )


def test_a_connection_lost_while_the_file_is_read_is_replaced(store: Store, crew: Crew) -> None:
    asset_id, _ = _upload(good=True)
    with crew.stalled(stores.method(store, "copy"), "after", CONFIRM, asset_id=asset_id) as finish:
        _cut_connections()
        assert finish().status == 200
    assert invariants.events(asset_id) == ["AssetReady"]


@pytest.mark.parametrize("step", ["kyora.assets.ending:settle", "kyora.assets.ledger:free"])
def test_a_connection_lost_inside_the_last_transaction_is_503_and_then_ready(
    step: str, store: Store, crew: Crew
) -> None:
    asset_id, _ = _upload(good=True)
    with crew.stalled(step, "before", CONFIRM, asset_id=asset_id) as finish:
        _cut_connections()
        answer = finish()
    assert (answer.status, answer.code) == (503, "database.unavailable")
    assert answer.headers["Retry-After"]
    assert invariants.status(asset_id) == "verifying"
    assert invariants.events(asset_id) == []
    invariants.break_lease(asset_id)
    assert api.confirm(asset_id).status == 200


def test_a_lease_that_is_over_is_taken_by_one_of_sixteen(store: Store, crew: Crew) -> None:
    for _ in range(5):
        asset_id, _ = _upload(good=True)
        crew.crash(stores.method(store, "copy"), "after", CONFIRM, asset_id=asset_id)
        invariants.break_lease(asset_id)
        answers = crew.together([(CONFIRM, {"asset_id": asset_id})] * 16)
        assert {answer.status for answer in answers} <= {200, 202}
        assert len(invariants.asset(asset_id)["attempts"]) == 2
        assert invariants.events(asset_id) == ["AssetReady"]


def test_a_crash_in_the_event_path_is_made_good_by_the_next_delivery(
    store: Store, crew: Crew
) -> None:
    asset_id, _ = _upload(good=True)
    key = f"incoming/ws_demo/{asset_id}"
    crew.crash(stores.method(store, "copy"), "after", "event", keys=[key])
    assert api.deliver(key) == [key], "held by the dead worker's lease"
    invariants.break_lease(asset_id)
    assert api.deliver(key) == []
    assert invariants.status(asset_id) == "ready"


def test_a_crash_of_the_sweep_is_made_good_by_the_next(store: Store, crew: Crew) -> None:
    ids = [api.upload(samples.ALL["txt"]) for _ in range(3)]
    for asset_id in ids:
        invariants.pass_deadline(asset_id)
    api.sweep()
    invariants.pass_grace()
    crew.crash(stores.method(store, "delete"), "after", "sweep")
    assert all(invariants.asset(asset_id)["cleaned_at"] is None for asset_id in ids)
    assert invariants.usage() == (0, 0)
    api.sweep()
    assert all(invariants.asset(asset_id)["cleaned_at"] for asset_id in ids)
    assert store.list() == []
