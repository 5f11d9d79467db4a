"""Files that are too large for a request: the store's event has them verified."""

import hashlib
import io
import os
import signal
import time
from base64 import b64encode

import pytest

from kyora import config, postgres
from kyora.assets import confirm
from tests.integration.support import api, invariants, parts
from tests.integration.support.parts import FILM
from tests.integration.support.stores import Store
from tests.integration.support.workers import forkserver

LARGE = "KYORA_LARGE" in os.environ
SIZE = 2 << 30
PART = 8 << 20


@pytest.fixture
def from_aws(environment: pytest.MonkeyPatch) -> None:
    """As with S3 at AWS, and a request that has time for small files only."""
    budget = confirm.IN_REQUEST._replace(most_bytes=PART)
    environment.setattr(confirm, "IN_REQUEST", budget)
    environment.setattr(config.Storage, "sends_events", True)


@pytest.mark.usefixtures("from_aws")
def test_a_large_file_waits_for_the_stores_event(store: Store) -> None:
    asset_id = parts.start()
    assert api.confirm(asset_id).code == "asset.not_uploaded"
    assert parts.complete(asset_id, parts.send(asset_id)).status == 200
    for _ in range(2):
        waiting = api.confirm(asset_id)
        assert (waiting.status, waiting.body["status"]) == (202, "pending")
        assert waiting.headers["Retry-After"]
    assert api.deliver(f"incoming/ws_demo/{asset_id}") == []
    assert api.confirm(asset_id).body["sha256"] == api.digest(FILM.data)


@pytest.mark.usefixtures("from_aws")
def test_a_large_file_that_was_not_confirmed_in_time_has_expired(store: Store) -> None:
    asset_id = parts.start()
    assert parts.complete(asset_id, parts.send(asset_id)).status == 200
    invariants.pass_deadline(asset_id)
    assert api.confirm(asset_id).code == "asset.expired"


def test_a_store_without_events_verifies_within_the_request(
    store: Store, environment: pytest.MonkeyPatch
) -> None:
    environment.setattr(confirm, "IN_REQUEST", confirm.IN_REQUEST._replace(most_bytes=PART))
    asset_id = parts.start()
    assert parts.complete(asset_id, parts.send(asset_id)).status == 200
    assert api.confirm(asset_id).status == 200


# ---- two gigabytes


def piece(number: int) -> bytes:
    """The bytes of a part: noise, and the film's boxes in front."""
    noise = hashlib.shake_128(str(number).encode()).digest(PART)
    if number > 1:
        return noise
    head = FILM.data[: FILM.data.index(b"mdat") - 4].replace(b"mdat", b"free")
    head += (SIZE - len(head)).to_bytes(4) + b"mdat"
    return (head + noise)[:PART]


def _client(asset_id: str, environment: dict[str, str]) -> None:
    """Send what is missing, as a page does after a reload."""
    os.environ.update(environment)
    config.forget()
    postgres.close()
    have = {p["number"]: p["etag"] for p in parts.arrived(asset_id).body["parts"]}
    for number in range(1, SIZE // PART + 1):
        if number in have:
            continue
        data = piece(number)
        wanted = {"number": number, "size": PART, "sha256": api.digest(data)}
        (ticket,) = parts.sign(asset_id, wanted).body["parts"]
        reply = parts.put(ticket, data)
        assert reply.status == 200, reply
        have[number] = reply.headers["etag"]
    assert parts.complete(asset_id, have).status == 200


@pytest.mark.skipif(not LARGE, reason="2 GiB in parts takes minutes and 8 GB: KYORA_LARGE=1")
@pytest.mark.parametrize("store", ["seaweedfs"], indirect=True)
def test_two_gigabytes_survive_a_client_that_is_killed_three_times(
    store: Store, environment: pytest.MonkeyPatch, logs: io.StringIO
) -> None:
    environment.setenv("STORAGE_MAX_BYTES", '{"video": 5000000000}')
    config.forget()
    invariants.limit(-1)
    whole = hashlib.sha256()
    for number in range(1, SIZE // PART + 1):
        whole.update(piece(number))
    asset_id = parts.start(size=SIZE, sha256=b64encode(whole.digest()).decode())
    began = time.monotonic()
    for kill_at in (60, 120, 200, None):
        client = forkserver().Process(target=_client, args=(asset_id, dict(os.environ)))
        client.start()
        while kill_at and len(parts.arrived(asset_id).body["parts"]) < kill_at:
            time.sleep(0.5)
        if kill_at:
            os.kill(client.pid or 0, signal.SIGKILL)
        client.join(600)
        print("client ended", client.exitcode, f"{time.monotonic() - began:.0f} s", flush=True)
    began = time.monotonic()
    assert api.deliver(f"incoming/ws_demo/{asset_id}") == []
    print(f"verified in {time.monotonic() - began:.0f} s", flush=True)
    found = api.confirm(asset_id)
    assert found.status == 200, found
    assert found.body["sha256"] == b64encode(whole.digest()).decode()
    assert invariants.usage() == (SIZE, 0)
    assert api.deleted(api.delete(asset_id))
