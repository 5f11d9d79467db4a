"""Variants of images: asked for with the upload, made once, shown, counted, deleted."""

import io
import json
from collections.abc import Callable
from typing import Any

import pytest
from PIL import Image

from kyora import config
from tests.cloud import cloud, deliver, detail
from tests.integration.support import api, invariants, photos, samples, stores
from tests.integration.support.stores import Store, every_store

UPLOAD, UPLOADS = "POST /v1/assets/upload", "POST /v1/assets/uploads"
JPEG = photos.small


def names(asset_id: str) -> list[tuple[str, str, int, int]]:
    found = api.get(asset_id).body["variants"]
    return [(item["name"], item["format"], item["width"], item["height"]) for item in found]


@every_store
def test_an_image_gets_three_sizes_in_two_formats(store: Store) -> None:
    sample = photos.jpeg()
    asset_id = photos.ready(sample)
    assert "variants" not in api.get(asset_id).body
    assert photos.deliver(asset_id) == 0
    assert names(asset_id) == [
        ("small", "webp", 320, 213),
        ("small", "jpeg", 320, 213),
        ("medium", "webp", 960, 640),
        ("medium", "jpeg", 960, 640),
        ("large", "webp", 1920, 1280),
        ("large", "jpeg", 1920, 1280),
    ]
    for (_, kind), (item, data) in photos.images(asset_id).items():
        assert len(data) == item["size"]
        with Image.open(io.BytesIO(data)) as image:
            assert (image.format, image.size) == (kind.upper(), (item["width"], item["height"]))
    assert invariants.usage() == (len(sample.data) + photos.sizes(asset_id), 0)
    assert invariants.events(asset_id) == ["AssetReady", "AssetVariantsReady"]


def test_the_event_names_each_variant_and_no_signed_address(store: Store) -> None:
    asset_id = photos.ready(JPEG())
    photos.deliver(asset_id)
    [row] = invariants.rows("SELECT detail FROM outbox WHERE detail_type = 'AssetVariantsReady'")
    data = row["detail"]["data"]
    assert data["assetId"] == asset_id
    shown = api.get(asset_id).body["variants"]
    key = lambda item: (item["name"], item["format"])  # noqa: E731
    assert sorted(data["variants"], key=key) == sorted(
        ({k: v for k, v in item.items() if k != "url"} for item in shown), key=key
    )


def test_an_image_that_did_not_ask_gets_none(store: Store) -> None:
    asset_id = api.upload(JPEG())
    assert api.confirm(asset_id).status == 200
    assert photos.deliver(asset_id) == 0
    assert "variants" not in api.get(asset_id).body
    assert invariants.rows("SELECT 1 FROM variant_set") == []


def test_a_repeated_event_makes_nothing_new(store: Store) -> None:
    asset_id = photos.ready(JPEG())
    photos.deliver(asset_id)
    before, keys = names(asset_id), store.list()
    assert photos.deliver(asset_id, asset_id) == 0
    assert (names(asset_id), store.list()) == (before, keys)
    assert invariants.events(asset_id) == ["AssetReady", "AssetVariantsReady"]


def test_delete_takes_the_variants_along_and_frees_their_bytes(store: Store) -> None:
    asset_id = photos.ready(JPEG())
    photos.deliver(asset_id)
    assert len(store.list()) == 5
    assert api.deleted(api.delete(asset_id))
    assert store.list() == []
    assert invariants.usage() == (0, 0)
    assert photos.deliver(asset_id) == 0
    assert invariants.rows("SELECT 1 FROM asset_variant") == []


BEFORE: dict[str, Callable[[str], object]] = {
    "made": lambda asset_id: None,
    "failed": lambda asset_id: invariants.limit(len(JPEG().data)),
    "made by hand before": lambda asset_id: photos.rebuild(asset=asset_id),
    "deleted before": api.delete,
    "given up after three workers died": lambda asset_id: invariants.run(
        "INSERT INTO variant_set (asset_id, workspace_id, claims) VALUES (:id, 'ws_demo', 3)",
        id=asset_id,
    ),
}


@pytest.mark.parametrize("case", BEFORE)
def test_an_event_is_recorded_as_handled_however_it_ends(case: str, store: Store) -> None:
    """The running invariants count an event without a record as lost."""
    asset_id = photos.ready(JPEG())
    BEFORE[case](asset_id)
    [event] = invariants.rows("SELECT id FROM outbox WHERE detail_type = 'AssetReady'")
    handled = "SELECT event_id AS id FROM inbox WHERE consumer = 'make_variants'"
    assert invariants.rows(handled) == []
    assert photos.deliver(asset_id) == 0
    assert invariants.rows(handled) == [event]


# ---- the request

UNFIT: dict[str, tuple[dict[str, Any], str]] = {
    "variants of a text": (
        {"filename": "a.txt", "contentType": None, "variants": True},
        "variants",
    ),
    "variants as text": ({"variants": "true"}, "variants"),
    "variants as a number": ({"variants": 1}, "variants"),
    "public without variants": ({"public": True}, "public"),
    "public as text": ({"variants": True, "public": "yes"}, "public"),
}


@pytest.mark.parametrize("case", UNFIT)
def test_a_wish_that_cannot_be_met_is_refused_alone_and_among_others(
    case: str, store: Store
) -> None:
    changes, field = UNFIT[case]
    body = api.wish(samples.PNG, **changes)
    answer = api.call(UPLOAD, body=body)
    assert (answer.status, answer.code) == (422, "request.validation_failed")
    assert [fault["field"] for fault in answer.body["errors"]] == [field]
    assert invariants.nothing_happened()
    many = api.call(UPLOADS, body={"files": [body, api.wish(samples.PNG)]}).body["uploads"]
    assert many[0]["error"]["errors"] == answer.body["errors"]
    assert "uploadUrl" in many[1]


def test_nothing_is_public_where_there_is_no_public_address(
    store: Store, environment: pytest.MonkeyPatch
) -> None:
    environment.delenv("STORAGE_PUBLIC_BASE_URL")
    config.forget()
    answer = api.call(UPLOAD, body=api.wish(samples.PNG, variants=True, public=True))
    assert (answer.status, answer.body["errors"][0]["field"]) == (422, "public")


def test_variants_can_be_asked_for_with_many_files(store: Store) -> None:
    sample = JPEG()
    files = [api.wish(sample, variants=True), api.wish(sample)]
    tickets = api.call(UPLOADS, body={"files": files}).body["uploads"]
    for ticket in tickets:
        assert api.put(ticket, sample.data).status == 200
        assert api.confirm(ticket["assetId"]).status == 200
        photos.deliver(ticket["assetId"])
    shown = [api.get(ticket["assetId"]).body for ticket in tickets]
    assert ["variants" in asset for asset in shown] == [True, False]


def test_a_key_of_before_there_were_variants_still_fits_its_request(store: Store) -> None:
    """Their fields are left out of the request's digest while they are false."""
    body, headers = api.wish(samples.PNG), {"idempotency-key": "k"}
    first = api.call(UPLOAD, body=body, headers=headers).body
    said = body | {"variants": False, "public": False}
    assert api.call(UPLOAD, body=said, headers=headers).body["assetId"] == first["assetId"]
    other = api.call(UPLOAD, body=body | {"variants": True}, headers=headers)
    assert (other.status, other.code) == (422, "idempotency.key_reused")


# ---- who sees them


def test_a_signed_variant_is_downloaded_under_a_name_of_its_own(store: Store) -> None:
    asset_id = photos.ready(JPEG())
    photos.deliver(asset_id)
    for item in api.get(asset_id).body["variants"]:
        assert "/variants/" in item["url"]
        reply = api.http_call("GET", item["url"])
        suffix = {"webp": "webp", "jpeg": "jpg"}[item["format"]]
        assert f'filename="mug-{item["name"]}.{suffix}"' in reply.headers["content-disposition"]
        assert reply.headers["content-type"] == f"image/{item['format']}"
        assert api.http_call("GET", item["url"].partition("?")[0]).status in (403, 404)


def test_a_public_variant_has_one_address_for_everyone_and_a_year_in_caches(store: Store) -> None:
    sample = JPEG()
    asset_id = photos.ready(sample, public=True)
    photos.deliver(asset_id)
    shown = api.get(asset_id).body
    for item in shown["variants"]:
        assert "?" not in item["url"]
        reply = api.http_call("GET", item["url"])
        assert (reply.status, len(reply.body)) == (200, item["size"])
        assert reply.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert reply.headers["content-type"] == f"image/{item['format']}"
        assert reply.headers["x-content-type-options"] == "nosniff"
    assert api.get(asset_id).body["variants"] == shown["variants"]
    [row] = invariants.rows("SELECT detail FROM outbox WHERE detail_type = 'AssetVariantsReady'")
    announced = [item["url"] for item in row["detail"]["data"]["variants"]]
    assert sorted(announced) == sorted(item["url"] for item in shown["variants"])


def test_the_original_is_never_public(store: Store) -> None:
    asset_id = photos.ready(JPEG(), public=True)
    photos.deliver(asset_id)
    base = config.public_base_url()
    for key in store.list():
        assert key.startswith(("assets/", "public/"))
        found = api.http_call("GET", f"{base}/{key}")
        assert (found.status == 200) == key.startswith("public/"), key
    for key in [key for key in store.list() if key.startswith("assets/")]:
        for climbing in (f"public/../{key}", f"public/%2e%2e/{key}"):
            assert api.http_call("GET", f"{base}/{climbing}").status in (403, 404)


@stores.every_bucket
def test_a_bucket_says_how_long_a_public_variant_may_be_kept(store: Any) -> None:
    config.forget()
    asset_id = photos.ready(JPEG())
    invariants.run("UPDATE asset SET public = true WHERE id = :id", id=asset_id)
    photos.deliver(asset_id)
    keys = [key for key in store.list() if key.startswith("public/")]
    assert len(keys) == 4
    for key in keys:
        head = store.head(key)
        assert head["CacheControl"] == "public, max-age=31536000, immutable"
        assert (
            head["ContentType"] == {"w": "image/webp", "j": "image/jpeg"}[key.rpartition(".")[2][0]]
        )


def test_variants_are_never_shown_of_an_asset_that_is_not_ready(store: Store) -> None:
    asset_id = photos.ready(JPEG())
    photos.deliver(asset_id)
    for status in ("rejected", "expired"):
        invariants.run(
            "UPDATE asset SET status = :status, reject_reason = 'x' WHERE id = :id",
            id=asset_id,
            status=status,
        )
        assert "variants" not in api.get(asset_id).body
    invariants.run(
        "UPDATE asset SET status = 'ready', reject_reason = NULL WHERE id = :id", id=asset_id
    )


def test_a_stranger_sees_and_deletes_no_variant(store: Store) -> None:
    asset_id = photos.ready(JPEG())
    photos.deliver(asset_id)
    assert api.get(asset_id, who=api.STRANGER).status == 404
    assert api.delete(asset_id, who=api.STRANGER).status == 404
    assert len(api.get(asset_id).body["variants"]) == 4


# ---- what cannot be made


def test_a_file_that_no_decoder_reads_fails_with_a_reason(store: Store) -> None:
    asset_id = photos.ready(JPEG())
    [key] = store.list()
    store.write(key, b"\xff\xd8\xff" + b"no picture" * 40)
    assert photos.deliver(asset_id) == 0
    assert "variants" not in api.get(asset_id).body
    assert photos.state(asset_id)["reason"] == "bad_content"
    assert invariants.usage() == (len(JPEG().data), 0)
    assert invariants.events(asset_id) == ["AssetReady", "AssetVariantsFailed"]
    assert photos.deliver(asset_id) == 0
    assert invariants.events(asset_id) == ["AssetReady", "AssetVariantsFailed"]
    store.write(key, JPEG().data)


def test_a_workspace_without_room_gets_no_variants_and_later_may(store: Store) -> None:
    sample = JPEG()
    asset_id = photos.ready(sample)
    invariants.limit(len(sample.data) + 100)
    assert photos.deliver(asset_id) == 0
    assert photos.state(asset_id)["reason"] == "storage_full"
    assert invariants.usage() == (len(sample.data), 0)
    assert len(store.list()) == 1
    invariants.limit(10 * len(sample.data))
    assert photos.rebuild(failed=True) == {"ready": 1, "failed": 0, "busy": 0, "next": None}
    assert len(api.get(asset_id).body["variants"]) == 4
    names = ["AssetReady", "AssetVariantsFailed", "AssetVariantsReady"]
    assert invariants.events(asset_id) == names


def test_an_event_without_a_workspace_or_with_another_id_is_given_up(
    store: Store, environment: pytest.MonkeyPatch
) -> None:
    asset_id = photos.ready(JPEG())
    with cloud() as aws:
        environment.setenv("AWS_ENDPOINT_URL", aws.url)
        config.forget()
        for old, new in (('"workspaceId"', '"was"'), (asset_id, "ast_1")):
            message = photos.record(asset_id)
            message["body"] = message["body"].replace(old, new)
            found = api.function("make_variants")({"Records": [message]}, api.Context(170_000))
            assert found["batchItemFailures"] == []
        assert len(aws.sent("-dead")) == 2


def test_the_sample_event_of_an_image_that_does_not_exist_is_done(
    store: Store, environment: pytest.MonkeyPatch
) -> None:
    """`make emit EVENT=AssetReady` leaves no dead letter."""
    entry = {
        "Source": "kyora.assets",
        "DetailType": "AssetReady",
        "Detail": json.dumps(detail("AssetReady")),
    }
    with cloud() as aws:
        environment.setenv("AWS_ENDPOINT_URL", aws.url)
        config.forget()
        assert api.function("make_variants")(deliver(entry), api.Context(170_000)) == {
            "batchItemFailures": []
        }
        assert aws.sent("-dead") == []


# ---- made again


def test_a_rebuild_replaces_the_variants_and_keeps_the_old_files_for_a_day(store: Store) -> None:
    asset_id = photos.ready(JPEG(), public=True)
    photos.deliver(asset_id)
    old = api.get(asset_id).body["variants"]
    used = invariants.usage()
    assert photos.rebuild(asset=asset_id)["ready"] == 1
    new = api.get(asset_id).body["variants"]
    assert {item["url"] for item in old}.isdisjoint(item["url"] for item in new)
    assert invariants.usage() == used
    api.sweep()
    assert {api.http_call("GET", item["url"]).status for item in [*old, *new]} == {200}
    invariants.run("UPDATE variant_set SET clean_after = clean_after - interval '25 hours'")
    api.sweep()
    assert {api.http_call("GET", item["url"]).status for item in old} == {404}
    assert {api.http_call("GET", item["url"]).status for item in new} == {200}


def test_a_rebuild_that_fails_keeps_what_is_shown(store: Store) -> None:
    asset_id = photos.ready(JPEG())
    photos.deliver(asset_id)
    before = api.get(asset_id).body["variants"]
    [key] = [key for key in store.list() if key.startswith("assets/")]
    store.write(key, b"\xff\xd8\xff" + b"no picture" * 40)
    assert photos.rebuild(asset=asset_id)["failed"] == 1
    assert api.get(asset_id).body["variants"] == before
    store.write(key, JPEG().data)


def test_a_rebuild_of_all_goes_through_those_that_asked(store: Store) -> None:
    asked = sorted(photos.ready(JPEG()) for _ in range(3))
    plain = api.upload(JPEG())
    api.confirm(plain)
    assert photos.rebuild() == {"ready": 3, "failed": 0, "busy": 0, "next": None}
    assert [len(api.get(asset_id).body["variants"]) for asset_id in asked] == [4, 4, 4]
    assert "variants" not in api.get(plain).body
    assert photos.rebuild(asset=plain)["ready"] == 1  # by its id, whatever its upload asked for
    assert len(api.get(plain).body["variants"]) == 4


def test_a_rebuild_that_runs_out_of_time_says_where_to_go_on(store: Store) -> None:
    first, second = sorted(photos.ready(JPEG()) for _ in range(2))
    handler = api.function("make_variants")
    found = handler({"rebuild": {}}, api.Context(5_000))
    assert found == {"ready": 1, "failed": 0, "busy": 0, "next": first}
    found = handler({"rebuild": {"after": first}}, api.Context(170_000))
    assert found == {"ready": 1, "failed": 0, "busy": 0, "next": None}
    assert "variants" in api.get(second).body


@pytest.mark.parametrize("asked", ["ast_1", "x'; --", api.UNKNOWN])
def test_a_rebuild_of_what_is_not_there_does_nothing(asked: str, store: Store) -> None:
    assert photos.rebuild(asset=asked) == {"ready": 0, "failed": 0, "busy": 0, "next": None}
