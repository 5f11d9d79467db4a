"""Tickets that live: fresh URLs, reservations that lapse, and keys that give out no dead ticket."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from kyora.assets import ledger
from kyora.assets.renewals import CONFIRM_SECONDS, URL_SECONDS
from tests.integration.support import api, invariants, samples
from tests.integration.support.api import Answer
from tests.integration.support.samples import PNG
from tests.integration.support.stores import Store, every_store

UPLOAD = "POST /v1/assets/upload"
UPLOADS = "POST /v1/assets/uploads"
SIZE = len(PNG.data)
BAD = b"MZ".ljust(SIZE)


def left(ticket: dict[str, Any]) -> float:
    """Return the seconds that a ticket is still good for, as it says."""
    return (datetime.fromisoformat(ticket["expiresAt"]) - datetime.now(UTC)).total_seconds()


def asset_in(status: str) -> str:
    """Return the id of an asset in a state."""
    if status == "pending":
        return str(api.request(PNG)["assetId"])
    ticket = api.request(PNG, sha256=None)
    asset_id = str(ticket["assetId"])
    if status == "verifying":
        invariants.run(
            "UPDATE asset SET status = 'verifying', lease_token = 'try_x',"
            " lease_until = now() + interval '1 minute' WHERE id = :id",
            id=asset_id,
        )
    elif status == "expired":
        invariants.pass_deadline(asset_id)
        api.sweep()
    else:
        api.put(ticket, BAD if status == "rejected" else PNG.data)
        api.confirm(asset_id)
        if status == "deleted":
            api.delete(asset_id)
    assert status in ("deleted", invariants.status(asset_id))
    return asset_id


@every_store
def test_a_pending_upload_gets_a_fresh_url_of_the_same_shape(store: Store) -> None:
    first = api.request(PNG)
    invariants.run("UPDATE asset SET url_expires_at = now() - interval '1 minute'")
    fresh = api.renew(first["assetId"])
    assert fresh.status == 200
    assert fresh.body.keys() == first.keys()
    assert {name: fresh.body[name] for name in ("assetId", "method", "headers")} == {
        name: first[name] for name in ("assetId", "method", "headers")
    }
    assert 590 < left(fresh.body) <= URL_SECONDS
    assert api.put(fresh.body, PNG.data).status == 200
    assert api.put(api.renew(first["assetId"]).body, PNG.data).status == 412, "the bytes are there"
    assert api.confirm(first["assetId"]).status == 200
    assert invariants.usage() == (SIZE, 0)


def test_a_fresh_url_is_another_signature_for_the_whole_time(store: Store) -> None:
    first = api.request(PNG)
    invariants.run("UPDATE asset SET confirm_deadline = now() + interval '1 minute'")
    fresh = api.renew(first["assetId"]).body
    assert left(fresh) > 590
    (row,) = invariants.rows("SELECT confirm_deadline - url_expires_at AS more FROM asset")
    assert row["more"] == timedelta(seconds=CONFIRM_SECONDS - URL_SECONDS)


def test_an_upload_is_renewed_for_a_day_and_no_longer(store: Store) -> None:
    asset_id = api.request(PNG)["assetId"]
    invariants.run(
        "UPDATE asset SET created_at = now() - interval '23 hours 55 minutes',"
        " confirm_deadline = now() + interval '1 minute'"
    )
    assert 200 < left(api.renew(asset_id).body) <= 300, "until the day is over"
    invariants.run("UPDATE asset SET created_at = now() - interval '25 hours'")
    assert 200 < left(api.renew(asset_id).body) <= 300, "no longer than it was promised"
    invariants.pass_deadline(asset_id)
    assert api.renew(asset_id).status == 410


@pytest.mark.parametrize("status", ["verifying", "ready", "rejected"])
def test_only_what_waits_gets_a_fresh_url(status: str, store: Store) -> None:
    asset_id = asset_in(status)
    refused = api.renew(asset_id)
    assert (refused.status, refused.code) == (409, "asset.not_pending")
    assert refused.body["assetStatus"] == status


def test_what_has_expired_is_410_before_and_after_the_sweep(store: Store) -> None:
    asset_id = asset_in("pending")
    invariants.pass_deadline(asset_id)
    late = api.renew(asset_id)
    assert (late.status, late.code) == (410, "asset.expired")
    api.sweep()
    assert api.renew(asset_id).same_as(late)


def test_what_is_not_there_is_404(store: Store) -> None:
    for asset_id in (api.UNKNOWN, "x", asset_in("deleted")):
        assert api.renew(asset_id).code == "asset.not_found"
    assert api.renew(asset_in("pending"), api.STRANGER).code == "asset.not_found"


# --- reservations


def test_an_abandoned_ticket_frees_its_quota_at_the_next_request(store: Store) -> None:
    invariants.limit(SIZE)
    first = api.request(PNG)["assetId"]
    invariants.run("UPDATE asset SET url_expires_at = now() - interval '4 minutes'")
    assert api.call(UPLOAD, body=api.wish(PNG)).code == "billing.limit_reached", "it may be on PUT"
    invariants.end_url(first)
    assert api.call(UPLOAD, body=api.wish(PNG)).status == 200
    assert invariants.usage() == (0, SIZE)
    assert invariants.status(first) == "pending"


def test_an_abandoned_ticket_frees_its_quota_at_the_next_sweep(store: Store) -> None:
    first, second = api.request(PNG)["assetId"], api.request(PNG)["assetId"]
    invariants.end_url(first)
    assert api.sweep() == {"expired": 0, "cleaned": 0}
    assert invariants.usage() == (0, SIZE)
    invariants.pass_deadline(first)
    invariants.pass_deadline(second)
    assert api.sweep() == {"expired": 2, "cleaned": 0}
    assert invariants.usage() == (0, 0), "nothing is freed twice"


def test_a_reservation_that_has_lapsed_is_freed_once_whatever_ends_it(store: Store) -> None:
    for end in (api.delete, api.confirm):
        asset_id = api.upload(PNG)
        invariants.end_url(asset_id)
        api.sweep()
        assert invariants.usage() == (0, 0)
        assert end(asset_id).status in (200, 204)
        invariants.recount()
        api.delete(asset_id)
        assert invariants.usage() == (0, 0)


def test_abandoned_tickets_do_not_count_among_those_that_wait(store: Store) -> None:
    batch = {"files": [api.wish(samples.ALL["txt"])] * 50}
    for _ in range(ledger.MAX_OPEN // 50):
        api.call(UPLOADS, body=batch)
    assert api.call(UPLOAD, body=api.wish(PNG)).code == "asset.too_many_pending"
    invariants.run("UPDATE asset SET url_expires_at = now() - interval '10 minutes'")
    assert api.call(UPLOAD, body=api.wish(PNG)).status == 200


def test_a_slow_put_is_taken_while_there_is_room_and_else_waits_for_it(store: Store) -> None:
    invariants.limit(SIZE)
    slow = api.upload(PNG)
    invariants.end_url(slow)
    other = api.upload(PNG)  # takes the room
    refused = api.confirm(slow)
    assert (refused.status, refused.code) == (403, "billing.limit_reached")
    assert api.renew(slow).code == "billing.limit_reached"
    assert invariants.status(slow) == "pending"
    key = f"incoming/ws_demo/{slow}"
    assert api.deliver(key) == []
    assert key in store.list(), "its bytes are kept until its deadline"
    api.delete(other)
    assert api.confirm(slow).status == 200
    assert invariants.usage() == (SIZE, 0)


def test_a_fresh_url_takes_the_reservation_again(store: Store) -> None:
    invariants.limit(SIZE)
    slow = api.request(PNG)["assetId"]
    invariants.end_url(slow)
    api.sweep()
    assert invariants.usage() == (0, 0)
    assert api.renew(slow).status == 200
    assert invariants.usage() == (0, SIZE)
    assert api.call(UPLOAD, body=api.wish(PNG)).code == "billing.limit_reached"


# --- keys


def ask(key: str = "k", **changes: Any) -> Answer:
    return api.call(UPLOAD, body=api.wish(PNG, **changes), headers={"idempotency-key": key})


def end_soon(asset_id: str, minutes: int = 4) -> None:
    """Let the URLs that were given out end in a few minutes."""
    later = datetime.now(UTC) + timedelta(minutes=minutes)
    invariants.run(
        "UPDATE asset SET url_expires_at = :later WHERE id = :id", later=later, id=asset_id
    )
    invariants.run(
        "UPDATE idempotency_key SET response = CASE WHEN response ? 'uploads'"
        "  THEN jsonb_set(response, '{uploads,0,expiresAt}', to_jsonb(CAST(:later AS text)))"
        "  ELSE jsonb_set(response, '{expiresAt}', to_jsonb(CAST(:later AS text))) END",
        later=later.isoformat(),
    )


@pytest.mark.parametrize("minutes", [4, -1, -20])
def test_a_key_gives_a_fresh_url_for_the_same_asset_when_the_first_is_about_to_end(
    minutes: int, store: Store
) -> None:
    first = ask().body
    end_soon(first["assetId"], minutes)
    api.sweep()
    again = ask().body
    assert again["assetId"] == first["assetId"]
    assert left(again) > 590
    assert invariants.usage() == (0, SIZE)
    assert api.put(again, PNG.data).status == 200
    assert api.confirm(again["assetId"]).status == 200
    assert ask().body == again, "which is kept for the next repeat"


def test_a_key_whose_assets_day_is_over_gives_another_asset(store: Store) -> None:
    first = ask().body
    end_soon(first["assetId"], -20)
    invariants.run(
        "UPDATE asset SET created_at = now() - interval '23 hours 58 minutes',"
        " confirm_deadline = now() + interval '1 minute'"
    )
    again = ask().body
    assert again["assetId"] != first["assetId"]
    assert left(again) > 590


@pytest.mark.parametrize("end", ["rejected", "expired", "deleted", "purged"])
def test_a_key_whose_asset_came_to_nothing_gives_another_asset(end: str, store: Store) -> None:
    first = ask(sha256=None).body
    if end == "rejected":
        api.put(first, BAD)
        api.confirm(first["assetId"])
    elif end == "expired":
        invariants.pass_deadline(first["assetId"])
    else:
        api.delete(first["assetId"])
    if end == "purged":
        invariants.run("DELETE FROM asset")
    again = ask(sha256=None).body
    assert again["assetId"] != first["assetId"]
    assert api.put(again, PNG.data).status == 200
    assert api.confirm(again["assetId"]).status == 200
    assert ask(sha256=None).body == again


def test_a_key_whose_asset_is_ready_leads_to_it_once_more(store: Store) -> None:
    first = ask().body
    api.put(first, PNG.data)
    ready = api.confirm(first["assetId"])
    end_soon(first["assetId"], -30)
    again = ask().body
    assert again["assetId"] == first["assetId"]
    assert api.put(again, PNG.data).status == 200
    assert api.confirm(again["assetId"]).body["sha256"] == ready.body["sha256"]
    assert invariants.usage() == (SIZE, 0)
    assert api.deliver(f"incoming/ws_demo/{again['assetId']}") == []
    assert invariants.events(again["assetId"]) == ["AssetReady"]


def test_a_key_of_a_batch_renews_each_file_on_its_own(store: Store) -> None:
    files = [api.wish(PNG), api.wish(PNG, filename="a.exe"), api.wish(samples.ALL["txt"])]

    def many() -> list[dict[str, Any]]:
        found = api.call(UPLOADS, body={"files": files}, headers={"idempotency-key": "k"})
        uploads: list[dict[str, Any]] = found.body["uploads"]
        return uploads

    first = many()
    end_soon(first[0]["assetId"])
    api.delete(first[2]["assetId"])
    second = many()
    assert second[0]["assetId"] == first[0]["assetId"]
    assert left(second[0]) > 590
    assert second[1] == first[1]
    assert second[2]["assetId"] != first[2]["assetId"]
    assert many() == second


def test_a_ticket_that_cannot_be_renewed_is_refused_and_its_key_stays_its_own(
    store: Store,
) -> None:
    invariants.limit(SIZE)
    body = {"files": [api.wish(PNG)]}
    first = api.call(UPLOADS, body=body, headers={"idempotency-key": "k"}).body["uploads"][0]
    end_soon(first["assetId"], -20)
    other = api.request(PNG)["assetId"]
    refused = api.call(UPLOADS, body=body, headers={"idempotency-key": "k"}).body["uploads"][0]
    assert refused["error"]["code"] == "billing.limit_reached"
    api.delete(other)
    again = api.call(UPLOADS, body=body, headers={"idempotency-key": "k"}).body["uploads"][0]
    assert again["assetId"] == first["assetId"]
