"""Any order of anything that can happen to uploads, against a model of ten lines per step.

After every step the ledger, the states and the outbox must be what the model says.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from kyora.assets.confirm import MAX_ATTEMPTS
from tests.integration.support import api, invariants
from tests.integration.support.samples import PNG
from tests.integration.support.stores import Folder

GOOD = PNG.data
ANY = st.integers(0, 59)  # which asset, taken modulo how many there are, and how
# One rule for all, so that every example tries each; what is named more often comes more often.
HAPPENINGS = [
    *["confirm"] * 4,
    *["deliver_its_event"] * 2,
    *["put"] * 3,
    *["request"] * 2,
    "request_with_a_key",
    "delete",
    "a_worker_dies_with_the_claim",
    *["a_lease_ends"] * 2,
    *["a_url_ends"] * 2,
    *["renew"] * 2,
    "too_many_copies_were_begun",
    "a_copy_fails",
    "a_clean_up_fails",
    "a_deadline_passes",
    *["sweep"] * 2,
    "a_stranger_tries",
]
ROOM = 7 * len(GOOD)
BAD = b"MZ".ljust(len(GOOD))


@dataclass
class Asset:
    """What the model knows: `incoming` is what lies there, `late` means past its deadline.

    `over` is a URL that has ended, `reserved` whether the size counts, `copies` how many were
    begun, and `capped` that no more may be.
    """

    ticket: dict[str, Any]
    size: int
    status: str = "pending"
    incoming: bytes | None = None
    late: bool = False
    over: bool = False
    reserved: bool = True
    capped: bool = False
    copies: int = 0
    lease_over: bool = False
    ended_long_ago: bool = False
    cleaned: bool = False

    @property
    def id(self) -> str:
        return str(self.ticket["assetId"])

    @property
    def key(self) -> str:
        return f"incoming/ws_demo/{self.id}"


def machine(store: Folder) -> type[RuleBasedStateMachine]:
    class Uploads(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            store.empty()
            invariants.begin()
            self.all: list[Asset] = []
            self.events: Counter[tuple[str, str]] = Counter()
            self.tickets: dict[str, tuple[str, Asset]] = {}

        def _emit(self, asset: Asset, name: str) -> None:
            self.events[asset.id, name] += 1

        def _pick(self, n: int) -> Asset:
            return self.all[n % len(self.all)]

        @initialize()
        def begin_with_four_uploads(self) -> None:
            invariants.limit(ROOM)
            for data in (GOOD, GOOD, GOOD, BAD):
                asset = Asset(api.request(PNG, sha256=None), len(GOOD), incoming=data)
                assert api.put(asset.ticket, data).status == 200
                self.all.append(asset)

        def _taken(self) -> int:
            return sum(
                a.size
                for a in self.all
                if a.status == "ready" or (a.status in ("pending", "verifying") and a.reserved)
            )

        def _room(self, size: int) -> bool:
            return self._taken() + size <= ROOM

        def _a_request_lapses_what_is_over(self) -> None:
            for asset in self.all:
                if asset.over and asset.status == "pending":
                    asset.reserved = False

        def request(self, n: int) -> None:
            size = len(GOOD) + (n % 3 == 0)
            answer = api.call("POST /v1/assets/upload", body=api.wish(PNG, size=size, sha256=None))
            before = [asset.reserved for asset in self.all]
            self._a_request_lapses_what_is_over()
            if not self._room(size):
                assert answer.code == "billing.limit_reached"
                self._undo(before)
                return
            assert answer.status == 200, answer
            self.all.append(Asset(answer.body, size))

        def _undo(self, reserved: list[bool]) -> None:
            """A refused request has changed nothing, lapsed reservations included."""
            for asset, was in zip(self.all, reserved, strict=True):
                asset.reserved = was

        def request_with_a_key(self, n: int) -> None:
            key, name = "abc"[n % 3], "a.png" if n % 4 else "b.png"
            answer = api.call(
                "POST /v1/assets/upload",
                body=api.wish(PNG, filename=name, sha256=None),
                headers={"idempotency-key": key},
            )
            if key in self.tickets:
                whose, asset = self.tickets[key]
                if whose != name:
                    assert answer.code == "idempotency.key_reused"
                    return
                if asset.status not in ("rejected", "expired", "deleted") and not self._late(asset):
                    assert answer.body["assetId"] == asset.id
                    return
            before = [asset.reserved for asset in self.all]
            self._a_request_lapses_what_is_over()
            if not self._room(len(GOOD)):
                assert answer.code == "billing.limit_reached"
                self._undo(before)
                return
            asset = Asset(answer.body, len(GOOD))
            assert asset.id not in {other.id for other in self.all}
            self.tickets[key] = (name, asset)
            self.all.append(asset)

        def _late(self, asset: Asset) -> bool:
            """Return whether it has expired and no row says so yet."""
            held = asset.status == "verifying" and not asset.lease_over
            return asset.late and asset.status in ("pending", "verifying") and not held

        def renew(self, n: int) -> None:
            asset = self._pick(n)
            answer = api.renew(asset.id)
            if asset.status == "deleted":
                assert answer.status == 404
            elif asset.status == "expired" or (
                asset.late
                and (
                    asset.status == "pending" or (asset.status == "verifying" and asset.lease_over)
                )
            ):
                assert answer.status == 410
            elif asset.status != "pending":
                assert answer.status == 409
            elif self._takes_again(asset, answer):
                assert answer.body["assetId"] == asset.id
                asset.over, asset.ticket = False, answer.body

        def _takes_again(self, asset: Asset, answer: api.Answer) -> bool:
            """Apply to the model that an upload needs its reservation; False when refused."""
            if asset.reserved:
                return True
            before = [other.reserved for other in self.all]
            self._a_request_lapses_what_is_over()
            if not self._room(asset.size):
                assert answer.code == "billing.limit_reached"
                self._undo(before)
                return False
            asset.reserved = True
            return True

        def a_url_ends(self, n: int) -> None:
            asset = self._pick(n)
            invariants.end_url(asset.id)
            asset.over = True

        def too_many_copies_were_begun(self, n: int) -> None:
            asset = self._pick(n)
            if asset.status == "pending" and n % 3 == 0:
                invariants.run(
                    "UPDATE asset SET attempts = array_fill(CAST('try_old' AS text),"
                    " ARRAY[CAST(:most AS integer)]) WHERE id = :id",
                    most=MAX_ATTEMPTS,
                    id=asset.id,
                )
                asset.capped = True

        def put(self, n: int) -> None:
            asset, data = self._pick(n), BAD if n % 5 == 0 else GOOD
            status = api.put(asset.ticket, data).status
            if asset.size != len(data):
                assert status == 403
            elif asset.incoming is not None:
                assert status == 412
            else:
                assert status == 200
                asset.incoming = data

        def confirm(self, n: int) -> None:
            asset = self._pick(n)
            status = api.confirm(asset.id).status
            assert status == self._confirmed(asset)

        def deliver_its_event(self, n: int) -> None:
            asset = self._pick(n)
            again = api.deliver(asset.key)
            expected = self._confirmed(asset)
            later = expected in (202, 409, 429)
            assert again == ([asset.key] if later else [])
            if not later and expected != 403:  # what was written after the end goes with its event
                asset.incoming = None

        def _confirmed(self, asset: Asset, *, fails: bool = False) -> int:
            """Apply a confirm to the model, or one whose copy fails; return its status."""
            ends = {"ready": 200, "rejected": 422, "expired": 410, "deleted": 404}
            if asset.status in ends:
                return ends[asset.status]
            if asset.status == "verifying" and not asset.lease_over:
                return 202
            if asset.late:
                return 410
            if asset.capped or asset.copies >= MAX_ATTEMPTS:
                return 429
            if not asset.reserved:
                before = [other.reserved for other in self.all]
                claimed, asset.status = asset.status, "verifying"
                self._a_request_lapses_what_is_over()
                if not self._room(asset.size):
                    asset.status = claimed
                    self._undo(before)
                    return 403
                asset.reserved = True
            if asset.incoming is None:
                asset.status, asset.lease_over = "pending", False
                return 409
            asset.copies += 1
            if fails:
                asset.status, asset.lease_over = "pending", False
                return 503
            asset.status = "ready" if asset.incoming == GOOD else "rejected"
            asset.incoming, asset.cleaned = None, True
            self._emit(asset, "AssetReady" if asset.status == "ready" else "AssetRejected")
            return ends[asset.status]

        def a_copy_fails(self, n: int) -> None:
            """Where the copies of an asset belong, there is something else for a moment."""
            asset = self._pick(n)
            folder = store.root / "assets" / "ws_demo" / asset.id
            if folder.exists():  # a dead worker's
                return
            folder.parent.mkdir(parents=True, exist_ok=True)
            folder.write_bytes(b"")
            status = api.confirm(asset.id).status
            folder.unlink()
            assert status == self._confirmed(asset, fails=True)

        def a_clean_up_fails(self, n: int) -> None:
            """What is to be deleted cannot be, for a moment; the sweep does it later."""
            asset = self._pick(n)
            place = store.root / asset.key
            if asset.incoming is not None or asset.status not in ("pending", "rejected"):
                return
            place.mkdir(parents=True)
            assert api.delete(asset.id).status == 204
            place.rmdir()
            asset.status, asset.cleaned, asset.ended_long_ago = "deleted", False, False

        def a_worker_dies_with_the_claim(self, n: int) -> None:
            asset = self._pick(n)
            if asset.status == "pending" and not asset.late:
                invariants.run(
                    "UPDATE asset SET status = 'verifying', lease_token = 'try_dead',"
                    " lease_until = now() + interval '1 hour',"  # until `a_lease_ends`
                    " attempts = attempts || ARRAY['try_dead'] WHERE id = :id",
                    id=asset.id,
                )
                asset.status, asset.lease_over = "verifying", False
                asset.copies += 1
                if asset.incoming:
                    store.write(f"assets/ws_demo/{asset.id}/try_dead", asset.incoming)

        def a_lease_ends(self, n: int) -> None:
            asset = self._pick(n)
            if asset.status == "verifying":
                invariants.break_lease(asset.id)
                asset.lease_over = True

        def a_deadline_passes(self, n: int) -> None:
            asset = self._pick(n)
            invariants.pass_deadline(asset.id)
            asset.late = asset.over = True

        def delete(self, n: int) -> None:
            asset = self._pick(n)
            answer = api.delete(asset.id)
            assert answer.status == (404 if asset.status == "deleted" else 204)
            if asset.status == "deleted":
                return
            if asset.status == "ready":
                self._emit(asset, "AssetDeleted")
            asset.status, asset.incoming, asset.cleaned = "deleted", None, True

        def sweep(self, n: int) -> None:
            if n % 2:
                invariants.pass_grace()
                for asset in self.all:
                    asset.ended_long_ago = asset.status in ("expired", "deleted")
            late = [
                a
                for a in self.all
                if a.late and (a.status == "pending" or (a.status == "verifying" and a.lease_over))
            ]
            dirty = [a for a in self.all if a.ended_long_ago and not a.cleaned]
            assert api.sweep() == {"expired": len(late), "cleaned": len(dirty)}
            self._a_request_lapses_what_is_over()
            for asset in late:
                asset.status = "expired"
            for asset in dirty:
                asset.cleaned, asset.incoming = True, None

        def a_stranger_tries(self, n: int) -> None:
            asset = self._pick(n)
            for attempt in (api.confirm, api.renew, api.get, api.delete):
                assert attempt(asset.id, api.STRANGER).status == 404

        @rule(what=st.sampled_from(HAPPENINGS), n=ANY)
        def something_happens(self, what: str, n: int) -> None:
            getattr(self, what)(n)

        @invariant()
        def the_ledger_is_right(self) -> None:
            used = sum(a.size for a in self.all if a.status == "ready")
            assert invariants.usage() == (used, self._taken() - used)
            invariants.recount()

        @invariant()
        def the_states_are_right(self) -> None:
            found = {
                row["id"]: row["status"] for row in invariants.rows("SELECT id, status FROM asset")
            }
            assert found == {asset.id: asset.status for asset in self.all}

        @invariant()
        def every_end_was_told_once(self) -> None:
            rows = invariants.rows(
                "SELECT detail_type AS n, detail->'data'->>'assetId' AS id FROM outbox"
            )
            assert Counter((row["id"], row["n"]) for row in rows) == self.events

        @invariant()
        def objects_lie_where_they_belong(self) -> None:
            incoming = {a.key for a in self.all if a.incoming is not None}
            keys = store.list()
            assert {k for k in keys if k.startswith("incoming/")} == incoming
            invariants.inspect(store, replayed=frozenset(incoming))

        def teardown(self) -> None:
            replayed = frozenset(a.key for a in self.all if a.incoming is not None)
            invariants.close_the_day(store, replayed=replayed)
            store.empty()
            invariants.begin()

    return Uploads


def test_any_order_of_anything_keeps_the_books(store: Folder) -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        machine(store),
        settings=settings(
            max_examples=20,
            stateful_step_count=35,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
