"""What rows, the storage ledger, the outbox and the store must agree on after a test."""

import json
import re
from collections import Counter
from typing import Any

from kyora import postgres
from kyora.assets.variants import variant_row
from tests.integration.support import api
from tests.integration.support.stores import Store

_FORBIDDEN = {
    "a signature": re.compile(
        r"X-Amz-Signature|[?&]signature=|signature['\"]?[:=] ?['\"]?\w", re.IGNORECASE
    ),
    "a security token": re.compile(r"Security-Token", re.IGNORECASE),
    "a credential": re.compile(r"Credential=|aws_secret|weedsecret", re.IGNORECASE),
    "a bearer token": re.compile(r"Bearer\b|secret\.jwt\.here", re.IGNORECASE),
    "an e-mail address": re.compile(r"[\w.+-]+@[\w-]+\.\w+"),
    "a signed URL": re.compile(r"https?://[^\s\"]+\?"),
}


def rows(sql: str, **params: Any) -> list[dict[str, Any]]:
    with postgres.transaction() as tx:
        return tx.rows(sql, **params)


def run(sql: str, **params: Any) -> int:
    with postgres.transaction() as tx:
        return tx.run(sql, **params)


def begin() -> None:
    """Forget every upload of the test before."""
    with postgres.transaction(owner=True, timeout=120) as tx:
        tx.run("SET LOCAL lock_timeout = '60s'")  # a worker that was killed may still let go
        tx.run(
            "TRUNCATE asset, variant_set, asset_variant, storage_usage, workspace_billing,"
            " idempotency_key, outbox, inbox"
        )
        tx.run(
            "INSERT INTO workspace (id, name) VALUES ('ws_demo', 'Demo'), ('ws_other', 'Other')"
            " ON CONFLICT DO NOTHING"
        )


def asset(asset_id: str) -> dict[str, Any]:
    (found,) = rows("SELECT * FROM asset WHERE id = :id", id=asset_id)
    return found


def status(asset_id: str) -> str:
    return str(asset(asset_id)["status"])


def usage(workspace_id: str = "ws_demo") -> tuple[int, int]:
    """Return the used and reserved bytes of the ledger."""
    found = rows("SELECT * FROM storage_usage WHERE workspace_id = :id", id=workspace_id)
    return (found[0]["used_bytes"], found[0]["reserved_bytes"]) if found else (0, 0)


def limit(size: int, workspace_id: str = "ws_demo") -> None:
    run(
        "INSERT INTO workspace_billing (workspace_id, plan_id, access, limits, status)"
        " VALUES (:id, 'test', 'free', CAST(:limits AS jsonb), 'free')"
        " ON CONFLICT (workspace_id) DO UPDATE SET limits = excluded.limits",
        id=workspace_id,
        limits=json.dumps({"maxStorageBytes": size}),
    )


def events(asset_id: str | None = None) -> list[str]:
    """Return the names of the events in the outbox, of one asset when given."""
    found = rows(
        "SELECT detail_type FROM outbox WHERE :id = '' OR detail->'data'->>'assetId' = :id"
        " ORDER BY id",
        id=asset_id or "",
    )
    return [row["detail_type"] for row in found]


def nothing_happened() -> bool:
    """True while no asset, reservation or event exists."""
    (found,) = rows(
        "SELECT (SELECT count(*) FROM asset) + (SELECT count(*) FROM outbox)"
        " + (SELECT count(*) FROM storage_usage WHERE used_bytes + reserved_bytes > 0) AS n"
    )
    return bool(found["n"] == 0)


def pass_deadline(asset_id: str) -> None:
    """Let the time to confirm be over."""
    run(
        "UPDATE asset SET confirm_deadline = now() - interval '1 second',"
        " url_expires_at = now() - interval '1 hour' WHERE id = :id",
        id=asset_id,
    )


def pass_scan_deadline(asset_id: str) -> None:
    """Let the time to wait for a scanner's verdict be over."""
    run("UPDATE asset SET scan_deadline = now() - interval '1 second' WHERE id = :id", id=asset_id)


def break_lease(asset_id: str) -> None:
    """Let the lease of a worker that is gone be over."""
    run("UPDATE asset SET lease_until = now() - interval '1 second' WHERE id = :id", id=asset_id)


def end_url(asset_id: str) -> None:
    """Let the URL have ended a while ago; its reservation is due to lapse."""
    run(
        "UPDATE asset SET url_expires_at = now() - interval '10 minutes' WHERE id = :id",
        id=asset_id,
    )


def pass_grace() -> None:
    """Let the minute be over that the sweep leaves to the worker's own clean-up.

    And the time that a row waits whose objects could not be deleted.
    """
    run(
        "UPDATE asset SET ended_at = ended_at - interval '2 minutes',"
        " clean_after = clean_after - interval '1 day' WHERE ended_at IS NOT NULL"
    )


def recount() -> None:
    """Assert that the ledger is what adding up the assets and their variants gives."""
    wrong = rows(
        "SELECT u.workspace_id, u.used_bytes, u.reserved_bytes, c.used, c.reserved"
        " FROM storage_usage u LEFT JOIN LATERAL ("
        "   SELECT coalesce(sum(size) FILTER (WHERE status = 'ready'), 0) + (SELECT"
        "       coalesce(sum(size), 0) FROM asset_variant v WHERE v.workspace_id = u.workspace_id)"
        "       AS used,"
        "     coalesce(sum(size) FILTER ("
        "       WHERE status IN ('pending', 'verifying', 'scanning') AND reserved), 0) + (SELECT"
        "       coalesce(sum(reserved_bytes), 0) FROM variant_set s"
        "       WHERE s.workspace_id = u.workspace_id) AS reserved"
        "   FROM asset WHERE asset.workspace_id = u.workspace_id) c ON true"
        " WHERE (u.used_bytes, u.reserved_bytes) IS DISTINCT FROM (c.used, c.reserved)"
    )
    assert not wrong, f"ledger and assets differ: {wrong}"
    unbooked = rows(
        "SELECT id FROM asset WHERE workspace_id NOT IN (SELECT workspace_id FROM storage_usage)"
    )
    assert not unbooked, f"assets without a ledger: {unbooked}"


def balance() -> None:
    """Assert that every asset has exactly the events of what became of it."""
    found = Counter(
        (row["asset"], row["detail_type"])
        for row in rows("SELECT detail->'data'->>'assetId' AS asset, detail_type FROM outbox")
        if not row["detail_type"].startswith("AssetVariants")  # as often as they are made
    )
    expected: Counter[tuple[str, str]] = Counter()
    for row in rows("SELECT * FROM asset"):
        if row["ready_at"]:
            expected[row["id"], "AssetReady"] = 1
            if row["status"] == "deleted" and not row["reject_reason"]:
                expected[row["id"], "AssetDeleted"] = 1
        elif row["reject_reason"]:
            expected[row["id"], "AssetRejected"] = 1
        if row["reject_reason"] == "infected":
            expected[row["id"], "AssetQuarantined"] = 1
    assert found == expected, f"outbox {found} is not {expected}"


def inspect(store: Store, *, replayed: frozenset[str] = frozenset()) -> None:
    """Assert that every object has an asset that may own it and ready ones have their bytes.

    `replayed`: keys below incoming/ that a test has written again after its asset had ended,
    and whose event has not come yet.
    """
    keys = set(store.list())
    allowed: set[str] = set()
    parts: set[str] = set()
    for row in rows("SELECT * FROM asset"):
        final = f"assets/{row['workspace_id']}/{row['id']}"
        incoming = f"incoming/{row['workspace_id']}/{row['id']}"
        if row["status"] in ("ready", "scanning"):
            own = f"{final}/{row['final_attempt']}"
            assert own in keys, f"{row['id']} is {row['status']} without bytes"
            data = store.read(own)
            assert (len(data), api.digest(data)) == (row["size"], row["sha256"]), row["id"]
            allowed.add(own)
        if row["store_upload"] and row["cleaned_at"] is None:
            parts.add(incoming)
        if row["cleaned_at"] is None:
            allowed |= {incoming, *(f"{final}/{attempt}" for attempt in row["attempts"])}
    allowed |= _variants(store, keys)
    stray = keys - allowed - replayed
    assert not stray, f"objects no asset owns: {stray}"
    left = set(store.uploads()) - parts
    assert not left, f"parts no asset owns: {left}"


def _variants(store: Store, keys: set[str]) -> set[str]:
    """Assert that every published variant has its bytes; return the keys that sets may own."""
    allowed = set()
    for row in rows(
        "SELECT a.id, a.workspace_id, a.public, s.stale, s.lease_token, s.final_attempt"
        " FROM variant_set s JOIN asset a ON a.id = s.asset_id"
    ):
        tokens = [*row["stale"], *filter(None, (row["final_attempt"], row["lease_token"]))]
        allowed |= set(variant_row.keys(row, tokens))
        for item in rows("SELECT * FROM asset_variant WHERE asset_id = :id", id=row["id"]):
            own = variant_row.key(row, row["final_attempt"], item["name"], item["format"])
            assert own in keys, f"{own} is shown without bytes"
            assert len(store.read(own)) == item["size"], own
    return allowed


def close_the_day(store: Store, *, replayed: frozenset[str] = frozenset()) -> None:
    """Let every deadline pass and sweep; then assert that nothing is left half done."""
    run(
        "UPDATE asset SET confirm_deadline = now() - interval '1 second',"
        " lease_until = CASE WHEN lease_until IS NULL THEN NULL"
        "   ELSE now() - interval '1 second' END,"
        " scan_deadline = now() - interval '1 second'"
    )
    run("UPDATE variant_set SET lease_until = now() - interval '1 second' WHERE status = 'making'")
    api.sweep()
    pass_grace()
    run("UPDATE variant_set SET clean_after = now() - interval '1 s' WHERE stale <> '{}'")
    api.sweep()
    left = rows("SELECT id, status, cleaned_at FROM asset WHERE cleaned_at IS NULL")
    assert not left, f"the sweep left {left}"
    unclean = rows("SELECT * FROM variant_set WHERE clean_after IS NOT NULL OR status = 'making'")
    assert not unclean, f"the sweep left variants: {unclean}"
    recount()
    balance()
    inspect(store, replayed=replayed)


def secrets_in(text: str) -> list[str]:
    """Return what a log must not hold, and does."""
    return [what for what, pattern in _FORBIDDEN.items() if pattern.search(text)]
