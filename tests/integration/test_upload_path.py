"""The upload path as a client walks it, with every type of file, on every store."""

from datetime import UTC, datetime
from urllib.parse import parse_qs, quote, urlsplit

import pytest

from kyora import config
from tests.integration.support import api, invariants, samples
from tests.integration.support.samples import PNG, Sample
from tests.integration.support.stores import Store, every_bucket, every_store


@every_store
def test_every_type_of_file_is_uploaded_verified_downloaded_and_deleted(store: Store) -> None:
    kinds = list(samples.ALL.values())
    answer = api.call("POST /v1/assets/uploads", body={"files": [api.wish(s) for s in kinds]})
    tickets = answer.body["uploads"]
    total = sum(len(sample.data) for sample in kinds)
    assert invariants.usage() == (0, total)
    assert len({ticket["assetId"] for ticket in tickets}) == len(kinds)

    for sample, ticket in zip(kinds, tickets, strict=True):
        asset_id, reserved = ticket["assetId"], invariants.usage()
        reply = api.put(ticket, sample.data)
        assert reply.status == 200, (sample.filename, reply)
        confirmed = api.confirm(asset_id)
        assert confirmed.status == 200, (sample.filename, confirmed)
        found = confirmed.body
        expected = {
            "assetId": asset_id,
            "status": "ready",
            "filename": sample.filename,
            "contentType": sample.content_type,
            "size": len(sample.data),
            "sha256": api.digest(sample.data),
        }
        assert expected.items() <= found.items()
        measured = (sample.width or None, sample.height or None, sample.duration_ms or None)
        assert (found.get("width"), found.get("height"), found.get("durationMs")) == measured
        assert invariants.usage() == (
            reserved[0] + len(sample.data),
            reserved[1] - len(sample.data),
        )
        assert api.get(asset_id).body == found
        download = api.http_call("GET", found["downloadUrl"])
        assert (download.status, download.body) == (200, sample.data), sample.filename
        assert download.headers["content-type"] == sample.content_type
        assert download.headers["content-disposition"].startswith("attachment;")
        assert invariants.events(asset_id) == ["AssetReady"]
        final = f"assets/ws_demo/{asset_id}/{invariants.asset(asset_id)['final_attempt']}"
        assert [key for key in store.list() if asset_id in key] == [final]
    assert invariants.usage() == (total, 0)

    for ticket in tickets:
        assert api.deleted(api.delete(ticket["assetId"]))
        assert api.get(ticket["assetId"]).status == 404
    assert invariants.usage() == (0, 0)
    assert store.list() == []
    assert invariants.events().count("AssetDeleted") == len(kinds)


@every_store
def test_an_arabic_name_comes_back_with_the_download(store: Store) -> None:
    sample = Sample("كوب القهوة الجديد.png", "image/png", PNG.data)
    asset_id = api.upload(sample)
    found = api.confirm(asset_id).body
    assert found["filename"] == sample.filename
    download = api.http_call("GET", found["downloadUrl"])
    assert download.headers["content-disposition"] == (
        f"attachment; filename=\"download.png\"; filename*=UTF-8''{quote(sample.filename)}"
    )


@every_store
def test_a_file_without_a_checksum_is_accepted_and_its_checksum_computed(store: Store) -> None:
    asset_id = api.upload(PNG, sha256=None)
    assert api.confirm(asset_id).body["sha256"] == api.digest(PNG.data)


@every_store
def test_a_member_uploads_as_an_admin_does(store: Store) -> None:
    asset_id = api.upload(PNG, api.MEMBER)
    assert api.confirm(asset_id, api.MEMBER).status == 200
    assert invariants.asset(asset_id)["created_by"] == "usr_demo_member"
    assert api.get(asset_id, api.ADMIN).status == 200


@every_store
def test_an_upload_url_binds_everything_and_ends_in_ten_minutes(store: Store) -> None:
    ticket = api.request(PNG)
    assert ticket["method"] == "PUT"
    assert ticket["headers"] == {
        "Content-Type": "image/png",
        "If-None-Match": "*",
        "x-amz-checksum-sha256": api.digest(PNG.data),
    }
    left = datetime.fromisoformat(ticket["expiresAt"]) - datetime.now(UTC)
    assert 590 < left.total_seconds() <= 600
    url = urlsplit(ticket["uploadUrl"])
    assert url.path.endswith(f"/incoming/ws_demo/{ticket['assetId']}")
    if store.name != "local":
        query = parse_qs(url.query)
        assert query["X-Amz-SignedHeaders"] == [
            "content-length;content-type;host;if-none-match;x-amz-checksum-sha256"
        ]
        assert query["X-Amz-Expires"] == ["600"]
        assert query["X-Amz-Algorithm"] == ["AWS4-HMAC-SHA256"]


@every_store
def test_a_file_larger_than_what_is_kept_in_memory_is_verified_from_disk(store: Store) -> None:
    data = samples.movie(b"isom") + samples.box(b"mdat", b"\x5a" * (17 << 20))
    asset_id = api.upload(Sample("long.mp4", "video/mp4", data))
    assert api.confirm(asset_id).body["sha256"] == api.digest(data)


def test_a_download_url_stays_the_same_for_a_while(store: Store) -> None:
    asset_id = api.upload(PNG)
    first = api.confirm(asset_id).body["downloadUrl"]
    assert api.get(asset_id).body["downloadUrl"] == first
    invariants.run("UPDATE asset SET ready_at = ready_at - interval '11 minutes'")
    later = api.get(asset_id).body["downloadUrl"]
    assert later != first
    assert api.http_call("GET", later).body == PNG.data


def test_the_configured_tables_replace_the_default_rules(
    store: Store, environment: pytest.MonkeyPatch
) -> None:
    environment.setenv("UPLOADS_ALLOWED", '{"image": ["png"]}')
    environment.setenv("STORAGE_MAX_BYTES", '{"image": 100}')
    config.forget()
    small = samples.png()
    assert len(small) <= 100
    assert api.upload(Sample("a.png", "image/png", small))
    refused = api.call("POST /v1/assets/upload", body=api.wish(PNG, size=101))
    assert (refused.status, refused.code) == (413, "asset.too_large")
    refused = api.call("POST /v1/assets/upload", body=api.wish(samples.ALL["jpg"]))
    assert (refused.status, refused.code) == (415, "asset.type_not_allowed")


@every_bucket
def test_session_credentials_sign_with_their_token_and_keep_it_out_of_the_log(
    store: Store, environment: pytest.MonkeyPatch
) -> None:
    """As in Lambda, where no keys of the store are configured; `logs` looks for the token."""
    environment.delenv("STORAGE_S3_ACCESS_KEY_ID")
    environment.setenv("AWS_ACCESS_KEY_ID", "ASIATEST")
    environment.setenv("AWS_SESSION_TOKEN", "session/token+=")
    config.forget()
    ticket = api.request(PNG)
    query = parse_qs(urlsplit(ticket["uploadUrl"]).query)
    assert query["X-Amz-Security-Token"] == ["session/token+="]
    assert query["X-Amz-Credential"][0].startswith("ASIATEST/")
    answer = api.confirm(ticket["assetId"])
    assert answer.status in (409, 503)  # the store knows no such key
    assert "session" not in answer.text
    for name, value in store.variables.items():
        environment.setenv(name, value)
    config.forget()
