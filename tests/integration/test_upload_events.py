"""The safety net: S3's own events, the sweep, and the events that we emit."""

import json
import os
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import boto3
import pytest

from kyora import config
from tests.events import sqs_message
from tests.integration.support import api, invariants, stores
from tests.integration.support.samples import PNG
from tests.integration.support.stores import Bucket, Store, every_store
from tests.integration.support.workers import Crew

CONFIRM = "POST /v1/assets/{assetId}/confirm"


def _key(asset_id: str) -> str:
    return f"incoming/ws_demo/{asset_id}"


@every_store
def test_a_file_whose_client_never_came_back_becomes_ready(store: Store) -> None:
    asset_id = api.upload(PNG)
    assert api.deliver(_key(asset_id)) == []
    assert api.get(asset_id).body["status"] == "ready"
    assert invariants.events(asset_id) == ["AssetReady"]


def test_event_and_confirm_in_any_order_and_number_make_one_event(store: Store) -> None:
    """44."""
    for order in ("ec", "ce", "ee", "eec", "cee", "ecec"):
        asset_id = api.upload(PNG)
        for step in order:
            if step == "e":
                assert api.deliver(_key(asset_id)) == [], order
            else:
                assert api.confirm(asset_id).status == 200, order
        assert invariants.events(asset_id) == ["AssetReady"], order
    rejected = api.request(PNG, sha256=None)
    api.put(rejected, b"MZ".ljust(len(PNG.data)))
    assert api.deliver(*[_key(rejected["assetId"])] * 3) == []
    assert invariants.events(rejected["assetId"]) == ["AssetRejected"]


DETAILS: dict[str, dict[str, Any]] = {
    "etag as AWS writes it": {},
    "eTag as an emulator writes it": {"object": {"eTag": "x", "size": 1}},
    "no etag": {"object": {"size": 1}},
    "a version": {"object": {"etag": "x", "version-id": "IYV3p45BT0ac8hjHg1houSdS1a.Mro8e"}},
    "a wrong size": {"object": {"etag": "x", "size": 2**60}},
    "another bucket's name": {"bucket": {"name": "other"}},
    "another reason": {"reason": "CopyObject"},
}


def test_nothing_but_the_key_of_an_event_is_believed(store: Store) -> None:
    for case, detail in DETAILS.items():
        asset_id = api.upload(PNG)
        changed = (
            {"object": {"key": _key(asset_id), **detail["object"]}}
            if "object" in detail
            else detail
        )
        assert api.deliver(_key(asset_id), detail=changed) == [], case
        assert invariants.status(asset_id) == "ready", case


def test_an_event_for_nothing_of_ours_is_done_with(store: Store) -> None:
    """Unknown key, other prefixes, keys that are no keys of ours."""
    asset_id = api.upload(PNG)
    keys = [
        _key(api.UNKNOWN),
        f"incoming/ws_other/{asset_id}",
        f"incoming/ws_nobody/{asset_id}",
        f"assets/ws_demo/{asset_id}/try_1",
        f"assets/ws_demo/{asset_id}",
        f"/incoming/ws_demo/{asset_id}",
        f"incoming/ws_demo/{asset_id}/x",
        f"incoming/ws_demo/{asset_id}%20",
        f"Incoming/ws_demo/{asset_id}",
        "incoming/",
        "incoming",
        "incoming//",
        "",
        "incoming/ws_demo/' OR 1=1 --",
        "incoming/ws_demo/\0",
        "incoming/\ud83d\ude42/🙂",
    ]
    assert api.deliver(*keys) == []
    assert invariants.status(asset_id) == "pending"
    assert invariants.events() == []


def test_an_event_that_finds_no_object_comes_again(store: Store) -> None:
    """Early, or while a worker that failed was giving its claim back: it is not lost."""
    ticket = api.request(PNG)
    key = _key(ticket["assetId"])
    assert api.deliver(key) == [key]
    assert invariants.status(ticket["assetId"]) == "pending"
    api.put(ticket, PNG.data)
    assert api.deliver(key) == []
    assert invariants.status(ticket["assetId"]) == "ready"


def test_an_event_after_the_deadline_changes_nothing(store: Store) -> None:
    asset_id = api.upload(PNG)
    invariants.pass_deadline(asset_id)
    assert api.deliver(_key(asset_id)) == []
    assert invariants.status(asset_id) == "pending"
    assert api.get(asset_id).body["status"] == "expired"
    assert store.list() == []


def test_an_event_deletes_nothing_but_its_own_object(store: Store) -> None:
    """The key is believed only as far as it looks like one that an upload URL can write."""
    asset_id = api.upload(PNG)
    api.confirm(asset_id)
    (final,) = store.list()
    bystander = "incoming/ws_demo/not_an_asset"
    store.write(bystander, b"x")
    for key in (final, bystander, f"/{final}", f"incoming/../{final}", f"incoming/{final}"):
        assert api.deliver(key) == [], key
    assert store.list() == sorted([final, bystander])
    store.remove(bystander)


POISON = {
    "no JSON": "{",
    "a list": "[]",
    "a text": '"x"',
    "null": "null",
    "nothing in it": "{}",
    "no object": '{"detail": {}}',
    "an object that is a text": '{"detail": {"object": "x"}}',
    "an object without a key": '{"detail": {"object": {}}}',
    "a key that is none": '{"detail": {"object": {"key": null}}}',
    "a key that is a number": '{"detail": {"object": {"key": 7}}}',
}


def test_poison_goes_back_to_its_queue_alone(store: Store, crew: Crew, logs: Any) -> None:
    """A batch of good, busy and poisoned messages: each on its own, none twice."""
    good, busy = api.upload(PNG), api.upload(PNG)
    with crew.stalled(stores.method(store, "copy"), "after", CONFIRM, asset_id=busy) as finish:
        records = [api.record(_key(good)), api.record(_key(busy)), api.record(_key(good))]
        poison = [sqs_message(body) for body in POISON.values()]
        mixed = [record for pair in zip(poison, poison, strict=True) for record in pair[:1]]
        batch = [mixed[0], records[0], *mixed[1:4], records[1], *mixed[4:], records[2]]
        found = api.function("verify_upload")({"Records": batch}, api.Context())
        failed = {item["itemIdentifier"] for item in found["batchItemFailures"]}
        assert failed == {r["messageId"] for r in [*poison, records[1]]}
        assert invariants.status(good) == "ready"
        assert finish().status == 200
    assert api.function("verify_upload")({"Records": [records[1]]}, api.Context()) == {
        "batchItemFailures": []
    }
    assert '"detail"' not in logs.getvalue(), "a message's content is in the log"


def test_a_dead_database_leaves_every_message_in_the_queue(
    store: Store, environment: pytest.MonkeyPatch, uploads: str
) -> None:
    from kyora import postgres

    asset_id = api.upload(PNG)
    postgres.close()
    environment.setenv("DATABASE_URL", "postgresql://x:y@127.0.0.1:9/none")
    config.forget()
    assert api.deliver(_key(asset_id), _key(api.UNKNOWN)) == [_key(asset_id), _key(api.UNKNOWN)]
    environment.setenv("DATABASE_URL", uploads)
    config.forget()
    assert api.deliver(_key(asset_id), _key(api.UNKNOWN)) == []
    assert invariants.status(asset_id) == "ready"


def test_sixteen_deliveries_of_one_event_at_once_make_one_event(store: Store, crew: Crew) -> None:
    """What was held elsewhere comes back and finds it done."""
    for _ in range(5):
        asset_id = api.upload(PNG)
        later = crew.each(api.deliver, [(_key(asset_id),)] * 16)
        assert [] in later
        assert api.deliver(_key(asset_id)) == []
        assert invariants.events(asset_id) == ["AssetReady"]


# --- the sweep


def test_the_sweep_ends_what_is_late_and_nothing_else(store: Store) -> None:
    fresh, uploaded, late, late_uploaded, ready = (
        api.request(PNG)["assetId"],
        api.upload(PNG),
        api.request(PNG)["assetId"],
        api.upload(PNG),
        api.upload(PNG),
    )
    api.confirm(ready)
    for asset_id in (late, late_uploaded, ready):
        invariants.pass_deadline(asset_id)
    assert api.sweep() == {"expired": 2, "cleaned": 0}
    assert [invariants.status(i) for i in (fresh, uploaded, late, late_uploaded, ready)] == [
        "pending",
        "pending",
        "expired",
        "expired",
        "ready",
    ]
    size = len(PNG.data)
    assert invariants.usage() == (size, 2 * size)
    assert api.sweep() == {"expired": 0, "cleaned": 0}, "the clean-up has its minute"
    assert _key(late_uploaded) in store.list()
    invariants.pass_grace()
    assert api.sweep() == {"expired": 0, "cleaned": 2}
    assert sorted(key for key in store.list() if key.startswith("incoming/")) == [_key(uploaded)]
    assert api.sweep() == {"expired": 0, "cleaned": 0}
    assert api.confirm(uploaded).status == 200
    assert invariants.events(late) == []


def _many(count: int, workspace_id: str) -> None:
    """Insert late uploads, as `count` requests long ago would have."""
    invariants.run(
        "WITH new AS (INSERT INTO asset (id, workspace_id, created_by, filename, content_type,"
        " size, url_expires_at, confirm_deadline)"
        " SELECT 'ast_' || lpad(n::text, 26, '0') || :ws, :ws, 'usr', 'a.png', 'image/png', n,"
        " now() - interval '2 hours', now() - interval '1 hour'"
        " FROM generate_series(1, :count) AS n RETURNING size)"
        " INSERT INTO storage_usage (workspace_id, reserved_bytes)"
        " SELECT :ws, sum(size) FROM new",
        ws=workspace_id,
        count=count,
    )


def test_the_sweep_works_through_many_batches_and_stops_in_time(store: Store) -> None:
    _many(450, "ws_demo")
    _many(30, "ws_other")
    sweep: Callable[..., dict[str, int]] = api.function("sweep_uploads")
    assert sweep({}, api.Context(*[30_000] * 4, *[9_999] * 9)) == {"expired": 200, "cleaned": 0}
    invariants.recount()
    assert sweep({}, api.Context()) == {"expired": 280, "cleaned": 0}
    assert invariants.usage() == invariants.usage("ws_other") == (0, 0)
    invariants.pass_grace()
    assert sweep({}, api.Context()) == {"expired": 0, "cleaned": 480}


def test_sweeps_at_once_free_each_reservation_once(store: Store, crew: Crew) -> None:
    _many(700, "ws_demo")
    _many(700, "ws_other")
    found = crew.each(api.sweep, [()] * 16)
    assert sum(swept["expired"] for swept in found) == 1400
    assert invariants.usage() == invariants.usage("ws_other") == (0, 0)


def test_a_sweep_without_its_store_frees_the_reservations_and_cleans_later(
    store: Store, environment: pytest.MonkeyPatch
) -> None:
    ids = [api.upload(PNG) for _ in range(6)]
    for asset_id in ids:
        invariants.pass_deadline(asset_id)
    asked: list[bytes] = []
    with stores.broken(b"HTTP/1.1 500 Broken\r\nContent-Length: 0\r\n\r\n", asked) as url:
        for name, value in Bucket("broken", url, "key", "secret").variables.items():
            environment.setenv(name, value)
        config.forget()
        assert api.sweep() == {"expired": 6, "cleaned": 0}
        assert invariants.usage() == (0, 0)
        assert asked == []
        invariants.pass_grace()
        assert api.sweep() == {"expired": 0, "cleaned": 0}
        objects = {line.split()[1] for line in asked}
        assert len(objects) == 3, "a store that is down is not asked for every object"
    for name, value in store.variables.items():
        environment.setenv(name, value)
    config.forget()
    assert api.sweep() == {"expired": 0, "cleaned": 3}, "those that failed wait a while"
    invariants.pass_grace()
    assert api.sweep() == {"expired": 0, "cleaned": 3}
    assert store.list() == []


# --- what we emit


@pytest.fixture
def bus(
    store: Store,
    running_stores: Callable[[str], Store],
    environment: pytest.MonkeyPatch,
) -> Callable[[], list[dict[str, Any]]]:
    """A bus of the emulator with a rule into a queue; returns how to empty the queue."""
    emulator = running_stores("ministack").variables["STORAGE_S3_ENDPOINT"]
    name = f"kyora-{time.time_ns()}"
    options = {
        "endpoint_url": emulator,
        "region_name": "us-east-1",
        "aws_access_key_id": "test",
        "aws_secret_access_key": "test",
    }
    events: Any = boto3.client("events", **options)
    sqs: Any = boto3.client("sqs", **options)
    url = sqs.create_queue(QueueName=name)["QueueUrl"]
    attributes = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
    arn = attributes["Attributes"]["QueueArn"]
    events.create_event_bus(Name=name)
    pattern = json.dumps({"source": ["kyora.assets"]})
    events.put_rule(Name=name, EventBusName=name, EventPattern=pattern)
    events.put_targets(Rule=name, EventBusName=name, Targets=[{"Id": "q", "Arn": arn}])
    for variable, value in {
        "AWS_ENDPOINT_URL": emulator,
        "AWS_REGION": "us-east-1",
        "BUS_NAME": name,
    }.items():
        environment.setenv(variable, value)
    config.forget()

    def arrived() -> list[dict[str, Any]]:
        found, empty = [], 0
        while empty < 2:
            got = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", [])
            for message in got:
                sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
                found.append(json.loads(message["Body"]))
            empty = 0 if got else empty + 1
            time.sleep(0 if got else 0.05)
        return found

    return arrived


def _relay() -> None:
    invariants.run("UPDATE outbox SET next_attempt_at = now()")
    api.function("relay_outbox")({}, api.Context())


def test_each_end_of_an_asset_arrives_on_the_bus_once(
    store: Store, crew: Crew, bus: Callable[[], list[dict[str, Any]]]
) -> None:
    """56."""
    asset_id = api.upload(PNG)
    crew.together([(CONFIRM, {"asset_id": asset_id})] * 16)
    api.confirm(asset_id)
    api.deliver(_key(asset_id))
    lies = api.request(PNG, sha256=None)
    api.put(lies, b"MZ".ljust(len(PNG.data)))
    api.confirm(lies["assetId"])
    api.delete(asset_id)
    api.delete(lies["assetId"])
    _relay()
    events = bus()
    found = [(e["detail-type"], e["detail"]["data"]["assetId"]) for e in events]
    assert sorted(found) == sorted(
        [
            ("AssetReady", asset_id),
            ("AssetRejected", lies["assetId"]),
            ("AssetDeleted", asset_id),
        ]
    )
    for event in events:
        assert event["source"] == "kyora.assets"
        assert event["detail"]["workspaceId"] == "ws_demo"
        assert event["detail"]["version"] == 1
    (ready,) = (e["detail"]["data"] for e in events if e["detail-type"] == "AssetReady")
    assert ready == {"assetId": asset_id, "contentType": "image/png", "size": len(PNG.data)}
    (rejected,) = (e["detail"]["data"] for e in events if e["detail-type"] == "AssetRejected")
    assert rejected["reason"] == "type_mismatch"


@pytest.mark.parametrize(
    ("target", "when", "copies"),
    [
        ("kyora.bus.outbox:_publish", "before", 1),
        ("kyora.bus.outbox:_put", "before", 1),
        ("kyora.bus.outbox:_put", "after", 2),
    ],
)
def test_an_event_whose_sender_died_is_sent_by_the_relay_under_the_same_id(
    target: str,
    when: str,
    copies: int,
    store: Store,
    crew: Crew,
    bus: Callable[[], list[dict[str, Any]]],
) -> None:
    """Zero times never, twice only when the first sending was not recorded."""
    asset_id = api.upload(PNG)
    crew.crash(target, when, CONFIRM, asset_id=asset_id)
    _relay()
    _relay()
    ids = Counter(event["detail"]["id"] for event in bus())
    (row,) = invariants.rows("SELECT id, published_at FROM outbox")
    assert ids == {row["id"]: copies}
    assert row["published_at"] is not None


def test_an_event_waits_for_a_bus_that_is_away(
    store: Store, bus: Callable[[], list[dict[str, Any]]], environment: pytest.MonkeyPatch
) -> None:
    emulator = os.environ["AWS_ENDPOINT_URL"]
    environment.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    asset_id = api.upload(PNG)
    assert api.confirm(asset_id).status == 200, "the client does not wait for the bus"
    (row,) = invariants.rows("SELECT published_at, attempts, last_error FROM outbox")
    assert (row["published_at"], row["attempts"]) == (None, 1)
    assert row["last_error"]
    environment.setenv("AWS_ENDPOINT_URL", emulator)
    _relay()
    assert [event["detail-type"] for event in bus()] == ["AssetReady"]
