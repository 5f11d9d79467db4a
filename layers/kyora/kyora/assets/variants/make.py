"""Make the variants of an image: claim, render, reserve their bytes, write them, publish.

No transaction is open during a call to the store or while the image is decoded.
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from kyora.assets import asset_row, ledger
from kyora.assets.variants import child, cleanup, variant_row
from kyora.bus import outbox, seen
from kyora.bus.outcomes import Again, Permanent
from kyora.errors import Unavailable
from kyora.ids import new_id
from kyora.observability import count, logger
from kyora.postgres import Transaction, transaction
from kyora.storage.provider import provider
from kyora.storage.types import Changed

if TYPE_CHECKING:
    from kyora.bus.events import AssetReady, Event

# Seconds. Longer than make_variants may run (template.yaml): a worker whose lease is over writes
# nothing more.
LEASE_SECONDS = 210
_READ_SECONDS = 25.0  # for the original
MAX_CLAIMS = 3  # workers that may die over one image
_CONSUMER = "make_variants"
_KEPT = "interval '1 day'"  # how long the files of a replaced set are still served


class _Claim(NamedTuple):
    """An asset, and the lease on its set."""

    asset: Mapping[str, Any]
    token: str


def make_once(event: "Event[AssetReady]") -> None:
    """Make the variants that were asked for with an upload; a repeated event makes none.

    Raises Again while another worker makes them, Unavailable, and Permanent for an event without a
    workspace. Emits AssetVariantsReady or AssetVariantsFailed, once per making.
    """
    if event.workspace_id is None:
        raise Permanent("event.invalid")
    if not asset_row.ID.fullmatch(event.data.asset_id):
        raise Permanent("event.invalid")
    # A worker that lost its lease looks again: the one that took over may be done, busy, or dead.
    while claim := _claim(event.workspace_id, event.data.asset_id, event.id):
        if make(claim, event.id):
            return


def make_again(workspace_id: str, asset_id: str) -> str:
    """Make the variants of a ready image whatever became of them before; return the set's status.

    Until the new ones are published, GET shows the old ones. Raises Again while another worker
    makes them, and Unavailable.
    """
    claim = _claim(workspace_id, asset_id, again=True)
    if claim is not None:
        make(claim)
    with transaction() as tx:
        return str(
            tx.value(
                str,
                "SELECT status FROM variant_set"
                " WHERE asset_id = :id AND workspace_id = :workspace_id",
                id=asset_id,
                workspace_id=workspace_id,
            )
        )


def _claim(
    workspace_id: str, asset_id: str, event_id: str | None = None, *, again: bool = False
) -> _Claim | None:
    """Take the lease on the set of a ready image that wants variants; None if nothing is to do.

    With None the event is recorded as handled. `again`: also on a set that has ended. Raises Again
    while another worker holds the lease.
    """
    token = new_id("try")
    with transaction() as tx:
        asset = tx.row(
            "SELECT * FROM asset WHERE id = :id AND workspace_id = :workspace_id"
            " AND status = 'ready' AND variants FOR UPDATE",
            id=asset_id,
            workspace_id=workspace_id,
        )
        if asset is None:
            _record(tx, event_id)
            return None
        tx.run(
            "INSERT INTO variant_set (asset_id, workspace_id) VALUES (:id, :workspace_id)"
            " ON CONFLICT DO NOTHING",
            id=asset_id,
            workspace_id=workspace_id,
        )
        found = tx.row(
            "SELECT *, extract(epoch FROM lease_until - now())::float8 AS left FROM variant_set"
            " WHERE asset_id = :id AND workspace_id = :workspace_id FOR UPDATE",
            id=asset_id,
            workspace_id=workspace_id,
        )
        before: dict[str, Any] = found or {}
        if before["status"] == "making" and before["left"] > 0:
            raise Again(before["left"] + 1)
        if not again and before["status"] in ("ready", "failed"):
            _record(tx, event_id)
            return None
        cleanup.end_lease(tx, before)
        tx.run(
            "UPDATE variant_set SET status = 'making', reason = NULL, lease_token = :token,"
            " lease_until = now() + :lease * interval '1 second',"
            " claims = CASE WHEN :again THEN 1 ELSE claims + 1 END"
            " WHERE asset_id = :id AND workspace_id = :workspace_id",
            id=asset_id,
            workspace_id=workspace_id,
            token=token,
            lease=LEASE_SECONDS,
            again=again,
        )
        claim = _Claim(asset, token)
        if not again and before["claims"] >= MAX_CLAIMS:
            _record(tx, event_id)
            _fail(tx, claim, "too_heavy")
            return None
    return claim


def make(claim: _Claim, event_id: str | None = None) -> bool:
    """Make the variants of a claimed set and end the claim. Raises Unavailable.

    Returns False if the lease was lost: a worker without it publishes nothing.
    """
    try:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            original = folder / "original"
            _download(claim, original)
            made = child.render(original, claim.asset["content_type"], folder)
            _reserve(claim, sum(item["size"] for item in made))
            for item in made:
                _write(claim, item, (folder / item["file"]).read_bytes())
        if not _publish(claim, made, event_id):
            raise _Lost
    except child.Refused as refusal:
        with transaction() as tx:
            _record(tx, event_id)
            _fail(tx, claim, refusal.reason)
    except _Lost:
        # Its token is among the stale ones, so the sweep deletes what it has written.
        logger().info("lease lost", asset_id=claim.asset["id"])
        return False
    except Changed:
        _release(claim)
        raise Unavailable("The original is not there.", code="storage.unavailable") from None
    except Unavailable:
        _release(claim)
        raise
    return True


class _Lost(Exception):
    """The lease is no longer ours: the asset was deleted, or another worker took over."""


def _download(claim: _Claim, to: Path) -> None:
    key = asset_row.attempt_key(claim.asset, claim.asset["final_attempt"])
    with to.open("wb") as file:
        file.writelines(provider().read(key, seconds=_READ_SECONDS))


def _reserve(claim: _Claim, size: int) -> None:
    """Reserve the bytes that are about to be written. Raises _Lost, and Refused `storage_full`.

    What a new set replaces does not count: its bytes go when the set is published.
    """
    with transaction() as tx:
        held = tx.run(
            "UPDATE variant_set SET reserved_bytes = :size"
            " WHERE asset_id = :id AND workspace_id = :workspace_id AND lease_token = :token",
            id=claim.asset["id"],
            workspace_id=claim.asset["workspace_id"],
            token=claim.token,
            size=size,
        )
        if not held:
            raise _Lost
        old = cleanup.published_bytes(tx, claim.asset)
        if ledger.reserve(tx, claim.asset["workspace_id"], size, freed=old):
            raise child.Refused("storage_full")  # which rolls the reservation back


def _write(claim: _Claim, item: Mapping[str, Any], data: bytes) -> None:
    provider().put(
        variant_row.key(claim.asset, claim.token, item["name"], item["format"]),
        data,
        variant_row.FORMATS[item["format"]][1],
        public=claim.asset["public"],
    )


def _publish(claim: _Claim, made: list[dict[str, Any]], event_id: str | None) -> bool:
    """Show the new variants instead of those before, book their bytes, and write the event.

    Returns False, and changes nothing, if the lease is no longer ours.
    """
    whose = {"id": claim.asset["id"], "workspace_id": claim.asset["workspace_id"]}
    with transaction() as tx:
        ended = tx.row(
            "WITH old AS (SELECT asset_id, final_attempt, reserved_bytes FROM variant_set"
            "   WHERE asset_id = :id AND workspace_id = :workspace_id AND lease_token = :token"
            "   FOR UPDATE)"
            " UPDATE variant_set s SET status = 'ready', lease_token = NULL, lease_until = NULL,"
            " claims = 0, reserved_bytes = 0, final_attempt = :token,"
            " stale = s.stale || array_remove(ARRAY[old.final_attempt], NULL),"
            " clean_after = CASE WHEN old.final_attempt IS NULL THEN s.clean_after"
            f"   ELSE now() + {_KEPT} END"
            " FROM old WHERE s.asset_id = old.asset_id RETURNING old.reserved_bytes",
            token=claim.token,
            **whose,
        )
        if ended is None:
            return False
        _record(tx, event_id)
        old = cleanup.published_bytes(tx, claim.asset)
        tx.run(
            "DELETE FROM asset_variant WHERE asset_id = :id AND workspace_id = :workspace_id",
            **whose,
        )
        _insert(tx, claim, made)
        ledger.move(tx, whose["workspace_id"], used=_size(made) - old, reserved=-_size(made))
        outbox.add(
            tx,
            "assets",
            "AssetVariantsReady",
            {"assetId": whose["id"], "variants": [_announced(claim, item) for item in made]},
            whose["workspace_id"],
        )
    count("VariantSetsReady")
    return True


def _insert(tx: Transaction, claim: _Claim, made: list[dict[str, Any]]) -> None:
    tx.run(
        "INSERT INTO asset_variant (asset_id, workspace_id, name, format, width, height, size)"
        " SELECT :id, :workspace_id, f.name, f.format, f.width, f.height, f.size"
        " FROM unnest(CAST(:names AS text[]), CAST(:formats AS text[]), CAST(:widths AS int[]),"
        "   CAST(:heights AS int[]), CAST(:sizes AS bigint[]))"
        "   AS f (name, format, width, height, size)",
        id=claim.asset["id"],
        workspace_id=claim.asset["workspace_id"],
        names=[item["name"] for item in made],
        formats=[item["format"] for item in made],
        widths=[item["width"] for item in made],
        heights=[item["height"] for item in made],
        sizes=[item["size"] for item in made],
    )


def _size(made: list[dict[str, Any]]) -> int:
    return sum(item["size"] for item in made)


def _announced(claim: _Claim, item: Mapping[str, Any]) -> dict[str, Any]:
    """Return a variant as the event has it: with its address only if that is public."""
    found = {name: item[name] for name in ("name", "format", "width", "height", "size")}
    url = variant_row.public_url(claim.asset, {**item, "attempt": claim.token})
    return found | ({"url": url} if url else {})


def _fail(tx: Transaction, claim: _Claim, reason: str) -> None:
    """End a claim without variants, with its event; a set that was shown before stays."""
    ended = cleanup.release(tx, claim.asset, claim.token, reason=reason)
    if not ended:
        return
    outbox.add(
        tx,
        "assets",
        "AssetVariantsFailed",
        {"assetId": claim.asset["id"], "reason": reason},
        claim.asset["workspace_id"],
    )
    count("VariantSetsFailed", Reason=reason)


def _release(claim: _Claim) -> None:
    """Give the claim back: the store is down, which is not the image's fault."""
    with transaction() as tx:
        cleanup.release(tx, claim.asset, claim.token)


def _record(tx: Transaction, event_id: str | None) -> None:
    if event_id:
        seen.first_time(tx, _CONSUMER, event_id)
