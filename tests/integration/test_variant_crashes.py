"""Workers that die or stall at every step of making variants, and who comes after them.

    claim | read | render | reserve | write … write | publish | send the event

No worker's end may lose a variant, book or reserve storage twice, or show what is not there.
"""

import pytest

from kyora.assets.variants import make
from kyora.storage.types import Storage
from tests.integration.support import api, invariants, photos, stores
from tests.integration.support.stores import Store
from tests.integration.support.workers import Crew

BEFORE_PUBLISHING = {
    "after the claim": ("kyora.assets.variants.make:make", "before"),
    "while reading": ("read", "after"),
    "after rendering": ("kyora.assets.variants.child:render", "after"),
    "inside the reservation": ("kyora.assets.ledger:reserve", "after"),
    "after the reservation": ("kyora.assets.variants.make:_write", "before"),
    "after the first file": ("put", "after"),
    "before publishing": ("kyora.assets.variants.make:_publish", "before"),
    "inside the last transaction": ("kyora.assets.variants.make:_insert", "after"),
}
AFTER_PUBLISHING = {
    "before the event is sent": ("kyora.bus.outbox:_publish", "before"),
    "after everything": ("kyora.assets.variants.make:_publish", "after"),
}
every_case = pytest.mark.parametrize("store", ["local", "ministack"], indirect=True)


def place(store: Store, target: str) -> str:
    return target if ":" in target else stores.method(store, target)


def whole(asset_id: str, store: Store) -> None:
    """Assert that the variants are shown, counted, and that nothing else is there."""
    assert len(photos.images(asset_id)) == 4
    size = len(photos.small().data) + photos.sizes(asset_id)
    assert invariants.usage() == (size, 0)
    api.sweep()
    assert len(store.list()) == 5


@every_case
def test_a_crash_before_publishing_is_made_good_by_the_next_delivery(
    store: Store, crew: Crew
) -> None:
    for step, (target, when) in BEFORE_PUBLISHING.items():
        asset_id = photos.ready(photos.small())
        crew.crash(place(store, target), when, "variants", asset_id=asset_id)
        assert photos.state(asset_id)["status"] == "making", step
        assert "variants" not in api.get(asset_id).body, step
        invariants.recount()
        invariants.inspect(store)
        photos.break_lease(asset_id)
        assert photos.deliver(asset_id) == 0, step
        whole(asset_id, store)
        assert invariants.events(asset_id) == ["AssetReady", "AssetVariantsReady"], step
        assert api.deleted(api.delete(asset_id))
        invariants.begin()
        store.empty()


@every_case
def test_a_crash_after_publishing_changes_nothing(store: Store, crew: Crew) -> None:
    for step, (target, when) in AFTER_PUBLISHING.items():
        asset_id = photos.ready(photos.small())
        crew.crash(place(store, target), when, "variants", asset_id=asset_id)
        assert photos.deliver(asset_id) == 0, step
        whole(asset_id, store)
        assert invariants.events(asset_id) == ["AssetReady", "AssetVariantsReady"], step
        invariants.begin()
        store.empty()


def test_what_a_dead_worker_reserved_is_freed_by_the_sweep(store: Store, crew: Crew) -> None:
    asset_id = photos.ready(photos.small())
    crew.crash("kyora.assets.variants.make:_publish", "before", "variants", asset_id=asset_id)
    used, reserved = invariants.usage()
    assert reserved > 0
    api.sweep()
    assert invariants.usage() == (used, reserved), "its lease is not over"
    photos.break_lease(asset_id)
    api.sweep()
    assert invariants.usage() == (used, 0)
    assert photos.state(asset_id)["status"] == "waiting"
    assert len(store.list()) == 1
    photos.deliver(asset_id)
    whole(asset_id, store)


def test_an_image_at_which_every_worker_dies_fails_in_the_end(store: Store, crew: Crew) -> None:
    asset_id = photos.ready(photos.small())
    for _ in range(make.MAX_CLAIMS):
        crew.crash("kyora.assets.variants.child:render", "before", "variants", asset_id=asset_id)
        photos.break_lease(asset_id)
    assert photos.deliver(asset_id) == 0
    assert photos.state(asset_id)["reason"] == "too_heavy"
    assert invariants.events(asset_id) == ["AssetReady", "AssetVariantsFailed"]


@pytest.mark.parametrize("step", ["after rendering", "after the first file", "before publishing"])
@pytest.mark.parametrize("rival", ["another worker", "delete", "rebuild"])
def test_a_worker_that_wakes_up_late_publishes_nothing(
    rival: str, step: str, store: Store, crew: Crew
) -> None:
    asset_id = photos.ready(photos.small())
    target, when = BEFORE_PUBLISHING[step]
    with crew.stalled(place(store, target), when, "variants", asset_id=asset_id) as finish:
        if rival == "delete":
            assert api.deleted(api.delete(asset_id))
        else:
            photos.break_lease(asset_id)
            if rival == "rebuild":
                assert photos.rebuild(asset=asset_id)["ready"] == 1
            else:
                assert photos.deliver(asset_id) == 0
            shown = api.get(asset_id).body["variants"]
        assert finish() == 0
    assert len(invariants.rows("SELECT 1 FROM inbox WHERE consumer = 'make_variants'")) == 1
    if rival == "delete":
        invariants.run("UPDATE variant_set SET clean_after = now() - interval '1 second'")
        api.sweep()
        assert store.list() == []
        assert invariants.usage() == (0, 0)
        assert invariants.events(asset_id) == ["AssetReady", "AssetDeleted"]
    else:
        assert api.get(asset_id).body["variants"] == shown
        whole(asset_id, store)
        assert invariants.events(asset_id) == ["AssetReady", "AssetVariantsReady"]


def test_a_worker_whose_lease_lapsed_and_that_no_one_replaced_begins_again(
    store: Store, crew: Crew
) -> None:
    asset_id = photos.ready(photos.small())
    target, when = BEFORE_PUBLISHING["before publishing"]
    with crew.stalled(place(store, target), when, "variants", asset_id=asset_id) as finish:
        photos.break_lease(asset_id)
        api.sweep()
        assert photos.state(asset_id)["status"] == "waiting"
        assert finish() == 0
    whole(asset_id, store)


def test_what_a_late_worker_writes_after_a_delete_is_swept(store: Store, crew: Crew) -> None:
    """It is killed after its last write; the delete had cleaned before."""
    asset_id = photos.ready(photos.small())
    put = stores.method(store, "put")
    with crew.stalled(put, "before", "variants", asset_id=asset_id):
        assert api.deleted(api.delete(asset_id))
        token = photos.state(asset_id)["stale"][-1]
        key = f"variants/ws_demo/{asset_id}/{token}/small.webp"
        store.write(key, b"late")
    api.sweep()
    assert store.list() == [key], "its lease is not over"
    invariants.run("UPDATE variant_set SET clean_after = now() - interval '1 second'")
    api.sweep()
    assert store.list() == []


def test_of_sixteen_deliveries_one_makes_the_variants(store: Store, crew: Crew) -> None:
    asset_id = photos.ready(photos.small())
    crew.each(_deliver, [(asset_id,)] * 16)
    whole(asset_id, store)
    assert invariants.events(asset_id) == ["AssetReady", "AssetVariantsReady"]


def _deliver(asset_id: str) -> int:
    return photos.deliver(asset_id)


def test_a_store_that_is_down_gives_the_claim_back(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kyora.errors import Unavailable
    from kyora.storage import local

    asset_id = photos.ready(photos.small())

    def refuse(self: Storage, *args: object, **kwargs: object) -> None:
        raise Unavailable("The file store does not answer.", code="storage.unavailable")

    with monkeypatch.context() as patch:
        patch.setattr(local.Local, "put", refuse)
        for _ in range(make.MAX_CLAIMS + 1):
            assert photos.deliver(asset_id) == 1
            assert photos.state(asset_id)["status"] == "waiting"
            invariants.recount()
    assert photos.deliver(asset_id) == 0
    whole(asset_id, store)


def test_a_connection_lost_while_the_image_is_decoded_is_replaced(store: Store, crew: Crew) -> None:
    asset_id = photos.ready(photos.small())
    render = "kyora.assets.variants.child:render"
    with crew.stalled(render, "after", "variants", asset_id=asset_id) as finish:
        invariants.rows(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        assert finish() == 0
    whole(asset_id, store)
