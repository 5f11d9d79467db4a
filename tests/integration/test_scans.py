"""The malware gate: verdicts in any order and number, none at all, and crashes at any step.

The scanner's own part is a message: its shape is that of GuardDuty's samples.
"""

import itertools
import json
from typing import Any

import pytest

from kyora import config
from kyora.assets import scan
from tests.integration.support import api, invariants, photos, samples, stores
from tests.integration.support.samples import PNG
from tests.integration.support.stores import Store, every_store
from tests.integration.support.workers import Crew

CLEAN, THREAT = "NO_THREATS_FOUND", "THREATS_FOUND"
CONFIRM = "POST /v1/assets/{assetId}/confirm"


@pytest.fixture(autouse=True)
def gate(store: Store, environment: pytest.MonkeyPatch) -> None:
    environment.setenv("UPLOADS_SCANNING", "guardduty")
    config.forget()


def policy(environment: pytest.MonkeyPatch, unscanned: str) -> None:
    environment.setenv("UPLOADS_UNSCANNED", unscanned)
    config.forget()


def copy_of(asset_id: str) -> str:
    """The key of the copy that is being verified, or was."""
    row = invariants.asset(asset_id)
    return f"assets/ws_demo/{asset_id}/{row['final_attempt'] or row['lease_token']}"


def verdict(asset_id: str, status: str) -> None:
    assert api.scanned((copy_of(asset_id), status)) == []


def scanning() -> str:
    """Upload and confirm a file; return the id of an asset that waits for its verdict."""
    asset_id = api.upload(PNG)
    assert api.confirm(asset_id).status == 202
    assert invariants.status(asset_id) == "scanning"
    return asset_id


def ready() -> str:
    asset_id = scanning()
    verdict(asset_id, CLEAN)
    assert invariants.status(asset_id) == "ready"
    return asset_id


def emitted(asset_id: str) -> list[str]:
    """The names of its events; two of one transaction have no order."""
    return sorted(invariants.events(asset_id))


def quarantined() -> dict[str, Any]:
    (row,) = invariants.rows("SELECT detail FROM outbox WHERE detail_type = 'AssetQuarantined'")
    detail = row["detail"]
    found: dict[str, Any] = (json.loads(detail) if isinstance(detail, str) else detail)["data"]
    return found


# ---- while it waits


@every_store
def test_a_verified_upload_waits_for_its_verdict_and_is_then_ready(store: Store) -> None:
    asset_id = api.upload(PNG)
    answer = api.confirm(asset_id)
    assert (answer.status, answer.headers["Retry-After"]) == (202, "2")
    assert (answer.body["status"], answer.body["width"]) == ("scanning", 3)
    assert "downloadUrl" not in answer.body
    assert api.confirm(asset_id).same_as(answer)
    assert api.get(asset_id).body == answer.body
    assert emitted(asset_id) == []
    assert invariants.usage() == (0, len(PNG.data))
    verdict(asset_id, CLEAN)
    answer = api.confirm(asset_id)
    assert (answer.status, answer.body["status"]) == (200, "ready")
    assert api.http_call("GET", answer.body["downloadUrl"]).body == PNG.data
    assert emitted(asset_id) == ["AssetReady"]
    assert invariants.usage() == (len(PNG.data), 0)
    assert [key for key in store.list() if asset_id in key] == [copy_of(asset_id)]


@every_store
def test_a_threat_rejects_it_and_deletes_its_objects(store: Store) -> None:
    asset_id = scanning()
    verdict(asset_id, THREAT)
    answer = api.confirm(asset_id)
    assert (answer.status, answer.code) == (422, "asset.rejected")
    assert answer.body["reason"] == "infected"
    assert answer.body["detail"] == "Malware was found in the file."
    assert api.get(asset_id).body["status"] == "rejected"
    assert "downloadUrl" not in api.get(asset_id).body
    assert emitted(asset_id) == ["AssetQuarantined", "AssetRejected"]
    assert quarantined() == {
        "assetId": asset_id,
        "reason": "infected",
        "filename": PNG.filename,
        "wasReady": False,
    }
    assert invariants.usage() == (0, 0)
    assert store.list() == []


def test_an_upload_that_its_client_left_waits_as_well(store: Store) -> None:
    """The message is done: the verdict or the deadline does the rest."""
    asset_id = api.upload(PNG)
    assert api.deliver(f"incoming/ws_demo/{asset_id}") == []
    assert invariants.status(asset_id) == "scanning"
    verdict(asset_id, CLEAN)
    assert emitted(asset_id) == ["AssetReady"]


def test_a_file_that_is_not_what_was_announced_is_rejected_without_a_verdict(store: Store) -> None:
    asset_id = api.upload(samples.Sample("a.png", "image/png", b"MZ".ljust(68)))
    answer = api.confirm(asset_id)
    assert (answer.status, answer.body["reason"]) == (422, "type_mismatch")
    verdict(asset_id, CLEAN)
    assert emitted(asset_id) == ["AssetRejected"]


def test_it_does_not_expire_while_it_waits(store: Store) -> None:
    asset_id = scanning()
    invariants.pass_deadline(asset_id)
    api.sweep()
    assert api.confirm(asset_id).status == 202
    verdict(asset_id, CLEAN)
    assert invariants.status(asset_id) == "ready"


def test_its_url_is_not_renewed_but_its_request_can_be_repeated(store: Store) -> None:
    key = {"Idempotency-Key": "once"}
    first = api.call("POST /v1/assets/upload", body=api.wish(PNG), headers=key)
    asset_id = first.body["assetId"]
    api.put(first.body, PNG.data)
    api.confirm(asset_id)
    assert api.renew(asset_id).code == "asset.not_pending"
    again = api.call("POST /v1/assets/upload", body=api.wish(PNG), headers=key)
    assert again.body["assetId"] == asset_id


def test_a_delete_ends_the_wait(store: Store) -> None:
    asset_id = scanning()
    key = copy_of(asset_id)
    assert api.deleted(api.delete(asset_id))
    assert (invariants.usage(), store.list()) == ((0, 0), [])
    for status in (CLEAN, THREAT):
        assert api.scanned((key, status)) == []
    assert invariants.status(asset_id) == "deleted"
    assert emitted(asset_id) == []


# ---- before the commit, late, twice, in any order


@pytest.mark.parametrize(
    ("first", "status", "expected"),
    [
        (CLEAN, 200, ["AssetReady"]),
        (THREAT, 422, ["AssetQuarantined", "AssetRejected"]),
        ("UNSUPPORTED", 422, ["AssetRejected"]),
        ("FAILED", 202, []),
    ],
)
def test_a_verdict_before_the_commit_is_kept_and_used(
    first: str, status: int, expected: list[str], store: Store, crew: Crew
) -> None:
    asset_id = api.upload(PNG)
    copied = stores.method(store, "copy")
    with crew.stalled(copied, "after", CONFIRM, asset_id=asset_id) as finish:
        verdict(asset_id, first)
        assert emitted(asset_id) == []
        assert finish().status == status
    assert api.confirm(asset_id).status == status
    assert emitted(asset_id) == expected


def test_a_verdict_on_a_copy_that_was_given_up_counts_for_nothing(store: Store, crew: Crew) -> None:
    asset_id = api.upload(PNG)
    crew.crash(stores.method(store, "copy"), "after", CONFIRM, asset_id=asset_id)
    given_up = copy_of(asset_id)
    assert api.scanned((given_up, THREAT)) == []  # its worker might still have come back
    invariants.break_lease(asset_id)
    assert api.confirm(asset_id).status == 202
    assert copy_of(asset_id) != given_up
    for status in (CLEAN, THREAT):
        assert api.scanned((given_up, status)) == []
    assert (invariants.status(asset_id), emitted(asset_id)) == ("scanning", [])
    verdict(asset_id, CLEAN)
    assert invariants.status(asset_id) == "ready"


RESULTS = (CLEAN, THREAT, "UNSUPPORTED", "FAILED", "ACCESS_DENIED")


@pytest.mark.parametrize("unscanned", ["reject", "accept"])
def test_results_in_any_order_and_number_end_in_one_state(
    unscanned: str, store: Store, environment: pytest.MonkeyPatch
) -> None:
    """A threat counts whenever it comes; a rejection is final; each event is emitted once."""
    policy(environment, unscanned)
    for order in itertools.product(RESULTS, repeat=3):
        asset_id = scanning()
        key = copy_of(asset_id)
        for status in order:
            assert api.scanned((key, status), (key, status)) == []
        expected = ("scanning", None)
        for status in order:
            outcome = scan.decide(expected[0], _SHORT[status], unscanned)
            expected = outcome or expected
        row = invariants.asset(asset_id)
        assert (row["status"], row["reject_reason"]) == expected, order
        assert invariants.asset(asset_id)["scan_result"] is not None
        api.delete(asset_id)
    invariants.recount()
    invariants.balance()


_SHORT = {
    CLEAN: "clean",
    THREAT: "threats",
    "UNSUPPORTED": "unsupported",
    "FAILED": "failed",
    "ACCESS_DENIED": "failed",
}


def test_sixteen_workers_with_the_same_verdict_make_one_event(store: Store, crew: Crew) -> None:
    for status, expected in (
        (CLEAN, ["AssetReady"]),
        (THREAT, ["AssetQuarantined", "AssetRejected"]),
    ):
        asset_id = scanning()
        found = crew.each(api.scanned, [((copy_of(asset_id), status),)] * 16)
        assert found == [[]] * 16
        assert emitted(asset_id) == expected


def test_verdict_and_commit_at_the_same_moment_lose_nothing(store: Store, crew: Crew) -> None:
    """The commit waits for the verdict's transaction, or the verdict for the commit's."""
    for step in ("kyora.assets.scan:after_verification", "kyora.assets.asset_row:view"):
        for when in ("before", "after"):
            asset_id = api.upload(PNG)
            with crew.stalled(step, when, CONFIRM, asset_id=asset_id) as finish:
                if (step, when) == ("kyora.assets.scan:after_verification", "after"):
                    continue  # it holds the row: the verdict would wait for this block to end
                verdict(asset_id, CLEAN)
                assert finish().status in (200, 202)
            assert api.confirm(asset_id).status == 200, (step, when)
            assert emitted(asset_id) == ["AssetReady"], (step, when)


# ---- no verdict


@pytest.mark.parametrize(
    ("unscanned", "status", "expected"),
    [("reject", "rejected", ["AssetRejected"]), ("accept", "ready", ["AssetReady"])],
)
def test_the_policy_decides_at_the_deadline(
    unscanned: str,
    status: str,
    expected: list[str],
    store: Store,
    environment: pytest.MonkeyPatch,
) -> None:
    policy(environment, unscanned)
    asset_id = scanning()
    assert api.sweep() == {"expired": 0, "cleaned": 0}
    assert invariants.status(asset_id) == "scanning"
    invariants.pass_scan_deadline(asset_id)
    assert api.confirm(asset_id).status == 202, "nothing decides before the sweep"
    assert api.sweep() == {"expired": 1, "cleaned": 0}
    assert invariants.status(asset_id) == status
    assert emitted(asset_id) == expected
    assert api.sweep() == {"expired": 0, "cleaned": 0}
    answer = api.confirm(asset_id)
    if status == "rejected":
        assert (answer.status, answer.body["reason"]) == (422, "not_scanned")
        assert answer.body["detail"] == "The file could not be scanned for malware."
        assert (invariants.usage(), store.list()) == ((0, 0), [])
    else:
        assert api.http_call("GET", answer.body["downloadUrl"]).body == PNG.data


def test_the_policy_is_to_reject_unless_another_is_configured(store: Store) -> None:
    asset_id = scanning()
    invariants.pass_scan_deadline(asset_id)
    api.sweep()
    assert invariants.asset(asset_id)["reject_reason"] == "not_scanned"


def test_the_deadline_is_the_configured_number_of_minutes(
    store: Store, environment: pytest.MonkeyPatch
) -> None:
    environment.setenv("UPLOADS_SCAN_MINUTES", "7")
    config.forget()
    asset_id = scanning()
    (row,) = invariants.rows(
        "SELECT extract(epoch FROM scan_deadline - now())::float8 AS left FROM asset"
        " WHERE id = :id",
        id=asset_id,
    )
    assert 6 * 60 < row["left"] <= 7 * 60


def test_uploads_that_wait_when_scanning_is_switched_off_get_the_policy(
    store: Store, environment: pytest.MonkeyPatch
) -> None:
    asset_id = scanning()
    environment.setenv("UPLOADS_SCANNING", "off")
    config.forget()
    assert api.confirm(asset_id).status == 202
    invariants.pass_scan_deadline(asset_id)
    api.sweep()
    assert invariants.status(asset_id) == "rejected"
    other = api.upload(PNG)
    assert api.confirm(other).status == 200


@pytest.mark.parametrize("late", [CLEAN, THREAT])
def test_a_verdict_after_a_rejection_changes_nothing(late: str, store: Store) -> None:
    asset_id = scanning()
    invariants.pass_scan_deadline(asset_id)
    api.sweep()
    verdict(asset_id, late)
    assert invariants.asset(asset_id)["reject_reason"] == "not_scanned"
    assert emitted(asset_id) == ["AssetRejected"]


# ---- after it was ready


@every_store
def test_a_threat_found_later_takes_the_file_away(store: Store) -> None:
    asset_id = ready()
    url = api.get(asset_id).body["downloadUrl"]
    assert api.http_call("GET", url).status == 200
    for _ in range(2):
        verdict(asset_id, THREAT)
        shown = api.get(asset_id).body
        assert (shown["status"], "downloadUrl" in shown) == ("rejected", False)
        assert api.http_call("GET", url).status == 404, "a URL of before finds nothing"
        assert api.confirm(asset_id).body["reason"] == "infected"
        assert emitted(asset_id) == ["AssetQuarantined", "AssetReady"]
        assert quarantined()["wasReady"] is True
        assert (invariants.usage(), store.list()) == ((0, 0), [])
    assert api.deleted(api.delete(asset_id))
    assert emitted(asset_id) == ["AssetQuarantined", "AssetReady"]


def test_a_threat_in_a_file_that_the_policy_let_in_takes_it_away(
    store: Store, environment: pytest.MonkeyPatch
) -> None:
    policy(environment, "accept")
    asset_id = scanning()
    invariants.pass_scan_deadline(asset_id)
    api.sweep()
    verdict(asset_id, THREAT)
    assert emitted(asset_id) == ["AssetQuarantined", "AssetReady"]


def test_a_file_of_the_time_before_the_gate_can_be_taken_away(
    store: Store, environment: pytest.MonkeyPatch
) -> None:
    """An on-demand scan finds what was uploaded when nothing was scanned."""
    environment.setenv("UPLOADS_SCANNING", "off")
    config.forget()
    asset_id = api.upload(PNG)
    assert api.confirm(asset_id).status == 200
    environment.setenv("UPLOADS_SCANNING", "guardduty")
    config.forget()
    verdict(asset_id, CLEAN)
    assert emitted(asset_id) == ["AssetReady"]
    verdict(asset_id, THREAT)
    assert invariants.asset(asset_id)["reject_reason"] == "infected"


def test_a_store_that_is_down_leaves_the_objects_to_the_sweep(
    store: Store, environment: pytest.MonkeyPatch
) -> None:
    asset_id = ready()
    with stores.broken(b"HTTP/1.1 500 Broken\r\nContent-Length: 0\r\n\r\n") as url:
        for name, value in stores.Bucket("broken", url, "key", "secret").variables.items():
            environment.setenv(name, value)
        config.forget()
        verdict(asset_id, THREAT)
    for name, value in store.variables.items():
        environment.setenv(name, value)
    config.forget()
    assert invariants.status(asset_id) == "rejected"
    assert store.list() == [copy_of(asset_id)]
    invariants.pass_grace()
    api.sweep()
    assert store.list() == []


def test_the_variants_of_a_file_go_with_it(store: Store) -> None:
    ticket = api.request(photos.small(), variants=True)
    asset_id = str(ticket["assetId"])
    api.put(ticket, photos.small().data)
    api.confirm(asset_id)
    verdict(asset_id, CLEAN)
    assert photos.deliver(asset_id) == 0
    assert api.get(asset_id).body["variants"]
    verdict(asset_id, THREAT)
    assert "variants" not in api.get(asset_id).body
    assert (invariants.usage(), store.list()) == ((0, 0), [])


# ---- crashes


STEPS = {
    "before anything": ("kyora.assets.scan:record", "before"),
    "inside the transaction": ("kyora.assets.scan:_end", "before"),
    "after the booking": ("kyora.assets.scan:_end", "after"),
}
COMMITTED = {
    "before the event is sent": ("kyora.bus.outbox:_publish", "before"),
    "between PutEvents and its record": ("kyora.bus.outbox:_put", "after"),
    "before the clean-up": ("kyora.assets.sweep:clean", "before"),
    "in the middle of the clean-up": ("delete", "after"),
}


@pytest.mark.parametrize("store", ["local", "ministack"], indirect=True)
@pytest.mark.parametrize(
    ("before", "status", "after", "expected"),
    [
        ("scanning", CLEAN, "ready", ["AssetReady"]),
        ("scanning", THREAT, "rejected", ["AssetQuarantined", "AssetRejected"]),
        ("ready", THREAT, "rejected", ["AssetQuarantined", "AssetReady"]),
    ],
)
def test_a_crash_at_any_step_is_made_good_by_the_next_delivery(
    before: str, status: str, after: str, expected: list[str], store: Store, crew: Crew
) -> None:
    for step, (target, when) in (STEPS | COMMITTED).items():
        asset_id = scanning() if before == "scanning" else ready()
        usage, earlier = invariants.usage(), emitted(asset_id)
        place = target if ":" in target else stores.method(store, target)
        crew.crash(place, when, "scan", key=copy_of(asset_id), status=status)
        if step in STEPS:
            assert invariants.status(asset_id) == before, step
            assert (invariants.usage(), emitted(asset_id)) == (usage, earlier), step
        invariants.recount()
        verdict(asset_id, status)
        assert invariants.status(asset_id) == after, step
        assert emitted(asset_id) == expected, step
        invariants.pass_grace()
        api.sweep()
        assert len([k for k in store.list() if asset_id in k]) == (after == "ready"), step


def test_a_crash_of_the_sweep_is_made_good_by_the_next(store: Store, crew: Crew) -> None:
    for step, (target, when) in ({} | STEPS | COMMITTED).items():
        if target == "kyora.assets.scan:record":
            continue
        asset_id = scanning()
        invariants.pass_scan_deadline(asset_id)
        place = target if ":" in target else stores.method(store, target)
        crew.crash(place, when, "sweep")
        invariants.recount()
        api.sweep()
        invariants.pass_grace()
        api.sweep()
        assert emitted(asset_id) == ["AssetRejected"], step
        assert store.list() == [], step


def test_a_confirm_that_dies_around_its_commit_keeps_the_verdict(store: Store, crew: Crew) -> None:
    for target, when in (
        ("kyora.assets.scan:after_verification", "before"),
        ("kyora.assets.scan:after_verification", "after"),
        ("kyora.assets.asset_row:view", "before"),
    ):
        asset_id = api.upload(PNG)
        crew.crash(target, when, CONFIRM, asset_id=asset_id)
        verdict(asset_id, CLEAN)
        if invariants.status(asset_id) == "verifying":
            invariants.break_lease(asset_id)
            assert api.confirm(asset_id).status == 202, (
                "another copy waits for a verdict of its own"
            )
            verdict(asset_id, CLEAN)
        assert api.confirm(asset_id).status == 200
        assert emitted(asset_id) == ["AssetReady"]


# ---- messages


def test_a_result_for_nothing_of_ours_is_done_with(store: Store) -> None:
    asset_id = scanning()
    token = copy_of(asset_id).rsplit("/", 1)[1]
    for key in (
        f"assets/ws_other/{asset_id}/{token}",
        f"assets/ws_demo/{api.UNKNOWN}/{token}",
        f"assets/ws_demo/{asset_id}/try_other",
        f"assets/ws_demo/{asset_id}",
        f"incoming/ws_demo/{asset_id}",
        f"variants/ws_demo/{asset_id}/{token}",
        "malware-protection-resource-validation-object",
        "assets/ws_demo/' OR 1=1 --/x",
        "",
    ):
        assert api.scanned((key, THREAT)) == [], key
    assert invariants.status(asset_id) == "scanning"


def test_what_no_one_can_read_is_dead_lettered_and_the_rest_is_handled(
    store: Store, environment: pytest.MonkeyPatch
) -> None:
    asset_id = scanning()
    key = copy_of(asset_id)
    # No queue here: what belongs in the dead-letter queue stays where it is.
    assert api.scanned((key, "SOMETHING_NEW"), (key, CLEAN)) == [key]
    assert invariants.status(asset_id) == "ready"
