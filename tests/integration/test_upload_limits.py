"""No workspace burdens another: caps on what a client may do, a clean-up that moves on."""

from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from kyora import config
from kyora.assets import confirm, ledger, renewals
from tests.days import not_at_midnight
from tests.integration.support import api, invariants, stores
from tests.integration.support.samples import PNG
from tests.integration.support.stores import Bucket, Store, every_store
from tests.integration.support.workers import Crew

UPLOAD = "POST /v1/assets/upload"
CONFIRM = "POST /v1/assets/{assetId}/confirm"
SIZE = len(PNG.data)


# --- attempts and claims


def test_a_confirm_that_copies_nothing_notes_no_attempt(store: Store) -> None:
    asset_id = api.request(PNG)["assetId"]
    for _ in range(40):
        assert api.confirm(asset_id).status == 409
    assert invariants.asset(asset_id)["attempts"] == []


def test_confirms_are_limited_to_a_burst_and_one_a_second(store: Store) -> None:
    asset_id = api.request(PNG)["assetId"]
    answers = [api.confirm(asset_id) for _ in range(confirm.MAX_CLAIMS + 40)]
    refused = [answer for answer in answers if answer.status == 429]
    assert {answer.status for answer in answers} == {409, 429}
    assert {answer.code for answer in refused} == {"asset.too_many_attempts"}
    assert refused[0].headers["Retry-After"] == "2"
    claims = invariants.asset(asset_id)["claims"]
    age = datetime.now(UTC) - invariants.asset(asset_id)["created_at"]
    assert claims <= confirm.MAX_CLAIMS + age.total_seconds() + 1


def test_a_limited_confirm_loses_no_bytes(store: Store) -> None:
    asset_id = api.upload(PNG)
    invariants.run("UPDATE asset SET claims = 1000")
    key = f"incoming/ws_demo/{asset_id}"
    assert api.confirm(asset_id).status == 429
    assert api.deliver(key) == [key], "its event comes again"
    assert store.list() == [key]
    invariants.run("UPDATE asset SET created_at = now() - interval '20 minutes'")
    assert api.confirm(asset_id).status == 200, "a patient client is served"


def test_copies_of_one_upload_are_limited(store: Store, crew: Crew) -> None:
    asset_id = api.upload(PNG)
    invariants.run("UPDATE asset SET attempts = array_fill(CAST('try_old' AS text), ARRAY[18])")
    for _ in range(2):
        crew.crash(stores.method(store, "copy"), "after", CONFIRM, asset_id=asset_id)
        invariants.break_lease(asset_id)
    refused = api.confirm(asset_id)
    assert (refused.status, refused.code) == (429, "asset.too_many_attempts")
    assert 0 < int(refused.headers["Retry-After"]) <= renewals.CONFIRM_SECONDS
    assert len(invariants.asset(asset_id)["attempts"]) == confirm.MAX_ATTEMPTS
    assert api.deleted(api.delete(asset_id))
    assert store.list() == []


@pytest.mark.parametrize("held", [False, True], ids=["pending", "its worker died"])
def test_the_deadline_holds_no_matter_who_held_the_upload(
    held: bool, store: Store, crew: Crew
) -> None:
    asset_id = api.upload(PNG)
    if held:
        crew.crash(stores.method(store, "copy"), "after", CONFIRM, asset_id=asset_id)
        invariants.break_lease(asset_id)
    invariants.run("UPDATE asset SET confirm_deadline = now() - interval '3 days'")
    refused = api.confirm(asset_id)
    assert (refused.status, refused.code) == (410, "asset.expired")
    assert api.get(asset_id).body["status"] == "expired"
    assert api.sweep() == {"expired": 1, "cleaned": 0}
    assert invariants.usage() == (0, 0)


# --- what a workspace may ask for on one day


def asked(files: int, size: int, day: str = "(now() AT TIME ZONE 'UTC')::date") -> None:
    not_at_midnight()
    invariants.run(
        "INSERT INTO storage_usage (workspace_id, asked_on, asked_files, asked_bytes)"
        f" VALUES ('ws_demo', {day}, :files, :size) ON CONFLICT (workspace_id) DO UPDATE"
        " SET asked_on = excluded.asked_on, asked_files = :files, asked_bytes = :size",
        files=files,
        size=size,
    )


GIB = 1 << 30
DAILY = {
    "files": (ledger.DAILY_FILES, 0, GIB, ledger.DAILY_FILES),
    "twice the plan": (0, 6 * GIB, 3 * GIB, 6 * GIB),
    "a small plan": (0, GIB, 1000, GIB),
}


@pytest.mark.parametrize("case", DAILY)
def test_what_may_be_asked_for_on_a_day_is_limited(case: str, store: Store) -> None:
    files, size, limit, allowed = DAILY[case]
    invariants.limit(limit)
    asked(files, size)
    refused = api.call(UPLOAD, body=api.wish(PNG))
    assert (refused.status, refused.code) == (429, "asset.daily_limit_reached")
    assert refused.body["limit"] == ("files" if case == "files" else "bytes")
    assert (refused.body["allowed"], refused.body["used"]) == (allowed, max(files, size))
    assert 0 < int(refused.headers["Retry-After"]) <= 24 * 3600
    assert api.call(UPLOAD, body=api.wish(PNG), who=api.STRANGER).status == 200
    asked(files, size, "CAST('2001-01-01' AS date)")
    assert api.call(UPLOAD, body=api.wish(PNG)).status == 200, "another day"
    (row,) = invariants.rows("SELECT * FROM storage_usage WHERE workspace_id = 'ws_demo'")
    assert (row["asked_files"], row["asked_bytes"]) == (1, SIZE)


def test_deleting_gives_nothing_back_of_the_day(store: Store) -> None:
    invariants.limit(GIB)
    asked(ledger.DAILY_FILES - 1, 0)
    api.delete(api.upload(PNG))
    assert api.call(UPLOAD, body=api.wish(PNG)).code == "asset.daily_limit_reached"


def test_a_plan_without_a_limit_has_none_for_a_day_but_in_files(store: Store) -> None:
    invariants.limit(-1)
    asked(0, 1 << 50)
    assert api.call(UPLOAD, body=api.wish(PNG)).status == 200


# --- the clean-up


def test_a_row_of_many_objects_does_not_keep_others_waiting(store: Store) -> None:
    """What an old version let a client do: tens of thousands of attempts on one asset."""
    poison, behind = api.upload(PNG), api.upload(PNG)
    invariants.run(
        "UPDATE asset SET attempts = array_fill(CAST('try_old' AS text), ARRAY[60000])"
        " WHERE id = :id",
        id=poison,
    )
    store.write(f"assets/ws_demo/{poison}/try_last", b"x")
    invariants.run(
        "UPDATE asset SET attempts = attempts || ARRAY['try_last'] WHERE id = :id", id=poison
    )
    for asset_id in (poison, behind):
        invariants.pass_deadline(asset_id)
        api.sweep()
        invariants.pass_grace()
    sweep: Callable[..., dict[str, int]] = api.function("sweep_uploads")
    assert sweep({}, api.Context()) == {"expired": 0, "cleaned": 1}
    assert invariants.asset(behind)["cleaned_at"] is not None
    assert 55_000 < len(invariants.asset(poison)["attempts"]) < 60_001, "some turns' share"
    invariants.run(
        "UPDATE asset SET attempts = array_fill(CAST('try_old' AS text), ARRAY[900])"
        " || ARRAY['try_last'] WHERE id = :id",
        id=poison,
    )
    for _ in range(30):
        invariants.pass_grace()
        api.sweep()
    assert invariants.asset(poison)["cleaned_at"] is not None
    assert store.list() == []


def test_a_row_that_fails_moves_back_and_the_others_are_cleaned(store: Store) -> None:
    ids = [api.upload(PNG) for _ in range(3)]
    for asset_id in ids:
        invariants.pass_deadline(asset_id)
    api.sweep()
    invariants.pass_grace()
    invariants.run(
        "UPDATE asset SET attempts = '{not/a/key}', ended_at = ended_at - interval '1 minute'"
        " WHERE id = :id",
        id=ids[0],
    )
    assert api.sweep() == {"expired": 0, "cleaned": 2}
    assert api.sweep() == {"expired": 0, "cleaned": 0}, "it waits"
    (row,) = invariants.rows(
        "SELECT clean_after - now() AS wait FROM asset WHERE cleaned_at IS NULL"
    )
    assert 240 < row["wait"].total_seconds() <= 300
    invariants.run("UPDATE asset SET attempts = '{}'")
    invariants.pass_grace()
    assert api.sweep() == {"expired": 0, "cleaned": 1}


def test_each_row_of_a_clean_up_is_committed_alone(store: Store, crew: Crew) -> None:
    ids = [api.upload(PNG) for _ in range(3)]
    for asset_id in ids:
        invariants.pass_deadline(asset_id)
    api.sweep()
    invariants.pass_grace()
    with crew.stalled("kyora.assets.sweep:_note_cleaned", "after", "sweep") as finish:
        cleaned = [invariants.asset(asset_id)["cleaned_at"] is not None for asset_id in ids]
        assert cleaned.count(True) == 1
        finish()


def test_a_clean_up_watches_the_clock(store: Store) -> None:
    for asset_id in [api.upload(PNG) for _ in range(4)]:
        invariants.pass_deadline(asset_id)
    api.sweep()
    invariants.pass_grace()
    sweep: Callable[..., dict[str, int]] = api.function("sweep_uploads")
    enough = [30_000] * 6  # to begin, for what lapses and what waits for a scanner, for two rows
    assert sweep({}, api.Context(*enough, *[9_000] * 9)) == {"expired": 0, "cleaned": 2}


@every_store
def test_a_store_that_is_down_holds_up_no_reservation(
    store: Store, environment: pytest.MonkeyPatch
) -> None:
    asset_id = api.upload(PNG)
    invariants.pass_deadline(asset_id)
    with stores.broken(b"HTTP/1.1 500 Broken\r\nContent-Length: 0\r\n\r\n") as url:
        for name, value in Bucket("broken", url, "key", "secret").variables.items():
            environment.setenv(name, value)
        config.forget()
        assert api.sweep()["expired"] == 1
        assert invariants.usage() == (0, 0)
    for name, value in store.variables.items():
        environment.setenv(name, value)
    config.forget()
