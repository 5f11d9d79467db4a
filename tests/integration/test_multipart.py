"""Files in parts: the plan, what is signed and what is not, every way that an upload can end."""

from datetime import UTC, datetime
from typing import Any

import pytest

from tests.integration.support import api, invariants, parts
from tests.integration.support.parts import FILM, PIECES
from tests.integration.support.samples import PNG
from tests.integration.support.stores import Store, every_store, method
from tests.integration.support.workers import Crew

SIGN = "POST /v1/assets/{assetId}/multipart/parts"
COMPLETE = "POST /v1/assets/{assetId}/multipart/complete"
ABORT = "DELETE /v1/assets/{assetId}/multipart"


@every_store
@pytest.mark.parametrize("checked", [True, False])
def test_a_film_arrives_in_parts_over_two_visits_and_is_verified_as_one_file(
    checked: bool, store: Store
) -> None:
    plan = parts.ask().body
    asset_id = plan["assetId"]
    assert (plan["partSize"], plan["parts"]) == (8 << 20, 3)
    assert invariants.usage() == (0, len(FILM.data))
    assert parts.arrived(asset_id).body["parts"] == []
    first = parts.send(asset_id, [3, 1], checked=checked)

    known = parts.arrived(asset_id).body  # another page: it has the id, and nothing else
    assert (known["uploadId"], known["partSize"]) == (plan["uploadId"], plan["partSize"])
    assert [(p["number"], p["size"], p["etag"]) for p in known["parts"]] == [
        (number, len(PIECES[number]), first[number]) for number in (1, 3)
    ]
    assert api.confirm(asset_id).code == "asset.not_uploaded"
    etags = first | parts.send(asset_id, [2], checked=checked)
    completed = parts.complete(asset_id, etags)
    assert (completed.status, completed.body["status"]) == (200, "pending")
    assert store.uploads() == []

    confirmed = api.confirm(asset_id)
    assert confirmed.status == 200, confirmed
    assert confirmed.body["sha256"] == api.digest(FILM.data)
    assert api.http_call("GET", confirmed.body["downloadUrl"]).body == FILM.data
    assert invariants.usage() == (len(FILM.data), 0)
    assert invariants.events(asset_id) == ["AssetReady"]


def test_a_url_of_a_part_lives_ten_minutes_and_the_upload_a_day(store: Store) -> None:
    asset_id = parts.start()
    (ticket,) = parts.sign(asset_id, parts.wish(1)).body["parts"]
    left = datetime.fromisoformat(ticket["expiresAt"]) - datetime.now(UTC)
    assert 590 < left.total_seconds() <= 600
    assert ticket["headers"] == {"x-amz-checksum-sha256": api.digest(PIECES[1])}
    left = invariants.asset(asset_id)["confirm_deadline"] - datetime.now(UTC)
    assert 86_300 < left.total_seconds() <= 86_400


WRONG: dict[str, tuple[list[dict[str, Any]], str]] = {
    "a number that is not in the plan": ([parts.wish(1, number=4)], "parts.0.number"),
    "number 0": ([parts.wish(1, number=0)], "parts.0.number"),
    "a number twice": ([parts.wish(1), parts.wish(1)], "parts.1.number"),
    "a byte more": ([parts.wish(1, size=(8 << 20) + 1)], "parts.0.size"),
    "a byte less": ([parts.wish(2, size=(8 << 20) - 1)], "parts.0.size"),
    "the last part with the size of the others": ([parts.wish(3, size=8 << 20)], "parts.0.size"),
    "no checksum beside others that have one": (
        [parts.wish(1), parts.wish(2, checked=False)],
        "parts.1.sha256",
    ),
    "a checksum that is none": ([parts.wish(1, sha256="abc")], "parts.0.sha256"),
    "no part": ([], "parts"),
    "more than a hundred": ([parts.wish(1)] * 101, "parts"),
    "a field of the client's own": ([parts.wish(1, key="incoming/ws_other/x")], "parts.0.key"),
}


@pytest.mark.parametrize("case", WRONG)
def test_nothing_is_signed_but_what_the_plan_says(case: str, store: Store) -> None:
    wanted, field = WRONG[case]
    asset_id = parts.start()
    refused = parts.sign(asset_id, *wanted)
    assert (refused.status, refused.code) == (422, "request.validation_failed")
    assert [error["field"] for error in refused.body["errors"]] == [field]
    assert store.uploads() == []


def test_parts_with_and_without_checksums_do_not_mix(store: Store) -> None:
    """S3 would refuse them one by one; the client hears of it at once."""
    for checked in (True, False):
        asset_id = parts.start()
        parts.send(asset_id, [1], checked=checked)
        refused = parts.sign(asset_id, parts.wish(2, checked=not checked))
        assert refused.body["errors"][0]["field"] == "parts.0.sha256"


@every_store
def test_a_part_in_the_wrong_place_is_refused_by_the_store(store: Store) -> None:
    asset_id, other = parts.start(), parts.start()
    one, two, last = parts.sign(asset_id, *map(parts.wish, PIECES)).body["parts"]
    parts.sign(other, parts.wish(1))
    uploads = [invariants.asset(found)["store_upload"] for found in (asset_id, other)]
    assert parts.put(one, PIECES[2]).status // 100 == 4, "swapped"
    assert parts.put(last, PIECES[1]).status // 100 == 4, "too large"
    foreign = {**one, "url": one["url"].replace(*uploads)}
    assert parts.put(foreign, PIECES[1]).status // 100 == 4, "of another upload"
    foreign = {**one, "url": one["url"].replace(asset_id, other)}
    assert parts.put(foreign, PIECES[1]).status // 100 == 4, "of another asset"
    assert parts.arrived(asset_id).body["parts"] == []
    assert parts.arrived(other).body["parts"] == []
    assert parts.put(two, PIECES[2]).status == 200


def test_a_file_that_fits_in_one_part_takes_the_other_way(store: Store) -> None:
    refused = parts.ask(size=8 << 20)
    assert (refused.status, refused.body["errors"][0]["field"]) == (422, "size")
    assert invariants.nothing_happened()


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"filename": "film.exe"}, "asset.type_not_allowed"),
        ({"size": 101 << 20}, "asset.too_large"),
        ({"filename": "clip.gif", "contentType": "image/gif", "size": 21 << 20}, "asset.too_large"),
    ],
)
def test_a_file_that_may_not_be_uploaded_is_refused_before_its_parts(
    changes: dict[str, Any], code: str, store: Store
) -> None:
    assert parts.ask(**changes).code == code
    assert invariants.nothing_happened()


def test_the_whole_file_is_reserved_before_the_first_part(store: Store) -> None:
    invariants.limit(len(FILM.data) * 2 - 1)
    parts.start()
    refused = parts.ask()
    assert (refused.status, refused.code) == (403, "billing.limit_reached")


def test_a_pause_gives_up_the_reservation_and_the_next_part_takes_it_again(store: Store) -> None:
    invariants.limit(len(FILM.data))
    asset_id = parts.start()
    etags = parts.send(asset_id, [1])
    invariants.end_url(asset_id)
    api.sweep()
    assert invariants.usage() == (0, 0)
    other = parts.start()
    refused = parts.sign(asset_id, parts.wish(2))
    assert (refused.status, refused.code) == (403, "billing.limit_reached")
    assert api.deleted(parts.abort(other))
    etags |= parts.send(asset_id, [2, 3])
    assert invariants.usage() == (0, len(FILM.data))
    assert parts.complete(asset_id, etags).status == 200
    assert api.confirm(asset_id).status == 200


def test_an_upload_of_another_workspace_does_not_exist(store: Store) -> None:
    asset_id = parts.start()
    etags = parts.send(asset_id)
    for answer in (
        parts.sign(asset_id, parts.wish(1), who=api.STRANGER),
        parts.arrived(asset_id, api.STRANGER),
        parts.complete(asset_id, etags, api.STRANGER),
        parts.abort(asset_id, api.STRANGER),
        parts.arrived(api.UNKNOWN),
        parts.abort("nonsense"),
    ):
        assert (answer.status, answer.code) == (404, "asset.not_found")
    assert parts.complete(asset_id, etags, api.MEMBER).status == 200


def test_an_asset_of_one_put_has_no_parts_and_one_of_parts_has_no_put(store: Store) -> None:
    asset_id = api.request(PNG)["assetId"]
    for answer in (
        parts.sign(asset_id, parts.wish(1)),
        parts.arrived(asset_id),
        parts.complete(asset_id, {1: "x"}),
        parts.abort(asset_id),
    ):
        assert (answer.status, answer.code) == (409, "asset.not_multipart")
    refused = api.renew(parts.start())
    assert (refused.status, refused.code) == (409, "asset.is_multipart")


def test_complete_names_what_is_missing_and_what_is_another_part(store: Store) -> None:
    asset_id = parts.start()
    etags = parts.send(asset_id, [1])
    refused = parts.complete(asset_id, etags)
    assert (refused.status, refused.code) == (409, "asset.parts_missing")
    assert refused.body["missing"] == [2, 3]
    etags |= parts.send(asset_id, [2, 3])
    refused = parts.complete(asset_id, {1: etags[1], 3: etags[3]})
    assert refused.body["missing"] == [2]
    refused = parts.complete(asset_id, etags | {2: etags[3]})
    assert (refused.status, refused.code) == (409, "asset.part_changed")
    assert refused.body["parts"] == [2]
    refused = parts.complete(asset_id, etags | {4: etags[3]})
    assert (refused.status, refused.body["errors"][0]["field"]) == (422, "parts")
    doubled = {"parts": [*parts.named(etags)["parts"], {"number": 1, "etag": etags[1]}]}
    assert api.call(COMPLETE, asset_id=asset_id, body=doubled).status == 422
    unquoted = {number: etag.strip('"') for number, etag in etags.items()}
    assert parts.complete(asset_id, unquoted).status == 200


@every_store
def test_after_complete_nothing_can_be_changed_and_a_repeat_answers_the_same(store: Store) -> None:
    asset_id = parts.start()
    late = parts.sign(asset_id, parts.wish(1)).body["parts"][0]
    etags = parts.send(asset_id)
    first = parts.complete(asset_id, etags)
    assert first.status == 200, first
    assert parts.complete(asset_id, etags).same_as(first)
    assert parts.put(late, PIECES[1]).status // 100 == 4
    for answer in (parts.sign(asset_id, parts.wish(1)), parts.arrived(asset_id)):
        assert (answer.status, answer.code) == (409, "asset.upload_completed")
    assert api.confirm(asset_id).status == 200
    for answer in (
        parts.sign(asset_id, parts.wish(1)),
        parts.arrived(asset_id),
        parts.abort(asset_id),
    ):
        assert (answer.status, answer.code) == (409, "asset.not_pending")
    assert parts.complete(asset_id, etags).body["status"] == "ready"
    assert parts.put(late, PIECES[1]).status // 100 == 4


@every_store
def test_an_aborted_upload_leaves_nothing(store: Store) -> None:
    asset_id = parts.start()
    late = parts.sign(asset_id, parts.wish(2)).body["parts"][0]
    etags = parts.send(asset_id)
    assert api.deleted(parts.abort(asset_id))
    assert invariants.usage() == (0, 0)
    assert store.uploads() == []
    assert parts.put(late, PIECES[2]).status // 100 == 4
    for answer in (
        parts.sign(asset_id, parts.wish(1)),
        parts.complete(asset_id, etags),
        parts.abort(asset_id),
        api.confirm(asset_id),
    ):
        assert answer.status == 404
    assert invariants.events(asset_id) == []


@every_store
def test_deleting_the_asset_aborts_its_upload(store: Store) -> None:
    asset_id = parts.start()
    parts.send(asset_id, [1])
    assert api.deleted(api.delete(asset_id))
    assert store.uploads() == []


@every_store
def test_an_abandoned_upload_is_swept_with_its_parts(store: Store) -> None:
    asset_id = parts.start()
    etags = parts.send(asset_id)
    invariants.pass_deadline(asset_id)
    for answer in (
        parts.sign(asset_id, parts.wish(1)),
        parts.arrived(asset_id),
        parts.complete(asset_id, etags),
    ):
        assert (answer.status, answer.code) == (410, "asset.expired")
    assert api.sweep()["expired"] == 1
    assert invariants.usage() == (0, 0)
    invariants.pass_grace()
    api.sweep()
    assert store.uploads() == []
    assert parts.arrived(asset_id).code == "asset.expired"


@every_store
def test_parts_that_the_store_has_dropped_are_gone(store: Store) -> None:
    """As by the bucket's own rule."""
    asset_id = parts.start()
    etags = parts.send(asset_id)
    store.empty()
    assert parts.arrived(asset_id).code == "asset.expired"
    assert parts.complete(asset_id, etags).code == "asset.expired"


def test_a_file_whose_parts_are_not_what_was_announced_is_rejected(store: Store) -> None:
    asset_id = parts.start(sha256=api.digest(b"another film"))
    assert parts.complete(asset_id, parts.send(asset_id)).status == 200
    refused = api.confirm(asset_id)
    assert (refused.code, refused.body["reason"]) == ("asset.rejected", "checksum_mismatch")
    assert invariants.usage() == (0, 0)


def test_the_buckets_event_confirms_for_a_client_that_left_after_complete(store: Store) -> None:
    asset_id = parts.start()
    assert parts.complete(asset_id, parts.send(asset_id)).status == 200
    assert api.deliver(f"incoming/ws_demo/{asset_id}") == []
    assert invariants.status(asset_id) == "ready"


def test_an_idempotency_key_repeats_the_plan_until_its_upload_has_ended(store: Store) -> None:
    first = parts.ask(key="film-1")
    assert parts.ask(key="film-1").same_as(first)
    assert invariants.usage() == (0, len(FILM.data))
    reused = parts.ask(key="film-1", size=len(FILM.data) + 1)
    assert (reused.status, reused.code) == (422, "idempotency.key_reused")
    parts.abort(first.body["assetId"])
    again = parts.ask(key="film-1")
    assert again.body["assetId"] != first.body["assetId"]
    assert parts.ask(key="film-1").same_as(again)


# ---- crashes, and many at once

CRASHES: dict[str, tuple[str, str, str]] = {
    "before the parts are noted": (SIGN, "kyora.assets.multipart:_digests", "after"),
    "before the store's upload begins": (SIGN, "begin_parts", "before"),
    "before its id is noted": (SIGN, "begin_parts", "after"),
    "before the parts are listed": (COMPLETE, "list_parts", "before"),
    "before the parts are joined": (COMPLETE, "join_parts", "before"),
    "after the parts were joined": (COMPLETE, "join_parts", "after"),
    "after complete was committed": (COMPLETE, "kyora.assets.multipart:_note_joined", "after"),
    "before the parts are dropped": (ABORT, "drop_parts", "before"),
    "after the parts were dropped": (ABORT, "drop_parts", "after"),
    "in the middle of the clean-up": (ABORT, "delete", "after"),
}


@pytest.mark.parametrize("step", CRASHES)
@pytest.mark.parametrize("store", ["local", "ministack", "seaweedfs"], indirect=True)
def test_a_crash_at_any_step_is_made_good_by_a_repeat(step: str, store: Store, crew: Crew) -> None:
    route, target, when = CRASHES[step]
    asset_id = parts.start()
    before = invariants.usage()
    body: dict[str, Any] | None = {"parts": [parts.wish(1)]}
    etags: dict[int, str] = {}
    if route != SIGN:
        etags = parts.send(asset_id)
        body = parts.named(etags) if route == COMPLETE else None
    place = target if ":" in target else method(store, target)
    crew.crash(place, when, route, asset_id=asset_id, body=body)
    invariants.recount()
    if route == ABORT:
        assert invariants.usage() == (0, 0)
        assert parts.abort(asset_id).status == 404
        invariants.pass_grace()
        api.sweep()
        assert store.uploads() == []
        return
    assert invariants.usage() == before
    if target == "begin_parts" and when == "after":
        store.empty()  # an unknown upload: the bucket's rule aborts it
    etags = etags or parts.send(asset_id)
    assert parts.complete(asset_id, etags).status == 200
    invariants.recount()
    assert api.confirm(asset_id).body["sha256"] == api.digest(FILM.data)
    assert invariants.events(asset_id) == ["AssetReady"]
    assert store.uploads() == []


def test_a_complete_whose_commit_was_lost_is_seen_by_every_route(store: Store, crew: Crew) -> None:
    for _ in range(2):
        asset_id = parts.start()
        body = parts.named(parts.send(asset_id))
        crew.crash(method(store, "join_parts"), "after", COMPLETE, asset_id=asset_id, body=body)
        assert parts.arrived(asset_id).code == "asset.upload_completed"
        assert api.confirm(asset_id).status == 200
    asset_id = parts.start()
    body = parts.named(parts.send(asset_id))
    crew.crash(method(store, "join_parts"), "after", COMPLETE, asset_id=asset_id, body=body)
    assert api.confirm(asset_id).status == 200, "confirm needs no complete that was answered"
    assert invariants.asset(asset_id)["joined_at"]


def test_sixteen_pages_at_once_share_one_upload(store: Store, crew: Crew) -> None:
    asset_id = parts.start()
    options = {"asset_id": asset_id, "body": {"parts": [parts.wish(1)]}}
    answers = crew.together([(SIGN, options)] * 16)
    assert {answer.status for answer in answers} == {200}
    assert len(store.uploads()) == 1
    etags = parts.send(asset_id)
    options = {"asset_id": asset_id, "body": parts.named(etags)}
    answers = crew.together([(COMPLETE, options)] * 16)
    assert {answer.status for answer in answers} == {200}
    assert api.confirm(asset_id).status == 200


@pytest.mark.parametrize("target", ["list_parts", "join_parts"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_an_abort_in_the_middle_of_complete_wins(
    target: str, when: str, store: Store, crew: Crew
) -> None:
    asset_id = parts.start()
    body = parts.named(parts.send(asset_id))
    place = method(store, target)
    with crew.stalled(place, when, COMPLETE, asset_id=asset_id, body=body) as finish:
        assert api.deleted(parts.abort(asset_id))
        late = finish()
    assert late.status in (404, 409, 410), late
    assert api.confirm(asset_id).status == 404
    assert invariants.usage() == (0, 0)
    assert store.list() == []
    assert store.uploads() == []


def test_a_page_that_signs_while_the_upload_is_aborted_leaves_no_parts(
    store: Store, crew: Crew
) -> None:
    asset_id = parts.start()
    options = {"asset_id": asset_id, "body": {"parts": [parts.wish(1)]}}
    with crew.stalled(method(store, "begin_parts"), "after", SIGN, **options) as finish:
        assert api.deleted(parts.abort(asset_id))
        assert finish().status == 404
    assert store.uploads() == []
