"""Bring Stripe's plans here: read the catalogue, store it, apply new limits to workspaces.

`derive` says which plans follow from Stripe's products and prices. No transaction is open while
Stripe is asked, so an answer is applied only if no one has written since (`billing_run.version`);
otherwise the attempt is repeated. A webhook's payload is never applied: it says that something
changed, and Stripe is asked what.

Events of other products are done without a read. For ours one worker at a time reads our products
and their prices, on behalf of every event that waits by then; later events wait for its next read.
So a burst costs two reads and one worker.
"""

import json
import math
import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import batched
from typing import TYPE_CHECKING, Any, NamedTuple

from kyora import cache, config
from kyora.billing import announce, event_store, stripe_objects
from kyora.billing.ordering import NEAR
from kyora.billing.plans import derive
from kyora.billing.plans.derive import Place, PlanRow
from kyora.billing.stripe_objects import TERMINAL_SQL, Event
from kyora.errors import Unavailable
from kyora.observability import count, logger
from kyora.postgres import Transaction, transaction

if TYPE_CHECKING:
    from kyora.billing.stripe_client import Answer

_TRIES = 8  # times that another worker may write while Stripe is asked
_READING = 15.0  # seconds that a webhook's worker reads; the hourly sync takes as long as it needs
_LEASE = 60.0  # seconds after which a reader is dead
_PAGE = 100  # products that Stripe is asked for at once
_STATEMENT_SECONDS = 20.0  # new limits reach every workspace of a plan


class Report(NamedTuple):
    """What a sync did or, when it only checked, would do."""

    created: list[str]
    updated: list[str]
    archived: list[str]
    drift: list[str]  # a line for each difference: what Stripe says ≠ what we had
    faults: list[str]  # what is at Stripe and cannot be used


class _Asked(NamedTuple):
    """What Stripe answered, at the second `as_of` of its clock or later."""

    products: list[dict[str, Any]]
    prices: list[dict[str, Any]]
    as_of: int


def sync(*, check: bool = False) -> Report:
    """Bring the plans up to date with Stripe; with `check` only report what differs.

    Raises as `stripe_client.call` does, and Unavailable `billing.busy`.
    """
    for turn in range(_TRIES):
        with transaction() as tx:
            version = tx.value(int, "SELECT version FROM billing_run WHERE name = 'plans'") or 0
        asked = _ask()
        # On a connection of its own: a statement may take longer than the usual one allows.
        with transaction(timeout=_STATEMENT_SECONDS) as tx:
            if _claim(tx, version, check=check):
                return _apply(tx, asked, check=check)
        time.sleep(secrets.SystemRandom().uniform(0, 0.05 * (turn + 1)))
    raise _busy()


def apply(event: Event) -> bool:
    """Bring the plans up to date because of an event of a product or a price.

    False when another worker is reading: it does this event as well. Raises as `sync` does, and
    Unavailable `billing.stripe_unavailable` when the catalogue cannot be read in time.
    """
    until = time.monotonic() + _READING
    for turn in range(_TRIES):
        with transaction() as tx:
            work = _take(tx, event, again=turn > 0 and time.monotonic() < until)
        if not isinstance(work, _Work):
            return work
        try:
            asked = _ask(work.products, until)
            with transaction(timeout=_STATEMENT_SECONDS) as tx:
                if _claim(tx, work.version):
                    _apply(tx, asked, done=work.events)
        except Exception:
            with suppress(Unavailable), transaction() as tx:
                _leave(tx, work)
            raise
    raise _busy()


class _Work(NamedTuple):
    """What this worker reads the catalogue for: its events, and the products to read."""

    version: int
    events: list[str]
    products: list[str]


_STATE = """
SELECT version, state, extract(epoch FROM now())::float8 AS now FROM billing_run
WHERE name = 'plans' FOR UPDATE
"""
_WAITING = """
SELECT id, body FROM stripe_event WHERE status = 'received'
    AND (type LIKE 'product.%' OR type LIKE 'price.%') ORDER BY id <> :event, received_at LIMIT 500
"""
# The other events count an attempt, too: the worker may be killed.
_BEGUN = """
UPDATE stripe_event SET attempts = attempts + 1, tried_at = now()
WHERE id = ANY(CAST(:ids AS text[])) AND id <> :but
"""


def _take(tx: Transaction, event: Event, *, again: bool) -> _Work | bool:
    """Take the waiting events; otherwise return whether `event` is done (False: another worker's).

    With `again`, after a read, take what has come in the meantime.
    """
    run: dict[str, Any] = tx.row(_STATE) or {}
    state, now = run["state"], float(run["now"])
    known = {str(row["product_id"]) for row in tx.rows("SELECT product_id FROM plan_product")}
    bodies = [json.loads(str(row["body"])) for row in tx.rows(_WAITING, event=event.id)]
    waiting = [found for body in bodies if (found := stripe_objects.event(body))]
    products = known | {_product(found) for found in waiting if _names(found)}
    over = {one.id for one in waiting if _product(one) not in products or _was_read(one, state)}
    if over:
        event_store.all_done(tx, sorted(over))
    left = [one.id for one in waiting if one.id not in over]
    if not left or (event.id not in left and not again):
        return not _waits(tx, event)
    # A reader whose event is delivered again has most likely died.
    if state.get("reading", 0) > now and state.get("reader") != event.id:
        return event.id not in left or _put_off(tx, event)
    _note(tx, products)
    tx.run(_BEGUN, ids=left, but=event.id)
    tx.run(
        "UPDATE billing_run SET state = CAST(:state AS jsonb) WHERE name = 'plans'",
        state=json.dumps(state | {"reading": now + _LEASE, "reader": event.id}),
    )
    return _Work(int(run["version"]), left, sorted(products))


def _was_read(event: Event, state: Mapping[str, Any]) -> bool:
    """Return whether the last read covers an event, however late it comes."""
    newer = state.get("as_of", 0) > event.created + NEAR
    return newer and _product(event) in state.get("products", ())


def _put_off(tx: Transaction, event: Event) -> bool:
    """Leave an event to the reading worker; the sweep does it if that one dies."""
    tx.run(
        "UPDATE stripe_event SET tried_at = NULL, next_at = now() + interval '10 seconds'"
        " WHERE id = :id",
        id=event.id,
    )
    return False


def _leave(tx: Transaction, work: _Work) -> None:
    """Let others read the catalogue: this worker has failed."""
    tx.run(
        "UPDATE billing_run SET state = state - 'reading' WHERE name = 'plans'"
        " AND version = :version",
        version=work.version,
    )
    tx.run(
        "UPDATE stripe_event SET tried_at = NULL WHERE id = ANY(CAST(:ids AS text[]))",
        ids=work.events,
    )


def _waits(tx: Transaction, event: Event) -> bool:
    row = tx.row("SELECT status FROM stripe_event WHERE id = :id", id=event.id)
    return row is not None and row["status"] == "received"


def _product(event: Event) -> str:
    """Return the product that an event is about."""
    found = event.object if event.type.startswith("product.") else event.object.get("product")
    return str((found.get("id") if isinstance(found, Mapping) else found) or "")


def _names(event: Event) -> bool:
    """Return whether an event says that its product is, or was, one of our plans."""
    if not event.type.startswith("product."):
        return False
    return derive.ours(event.object) or derive.ours(event.previous)


def _note(tx: Transaction, products: Iterable[str]) -> None:
    """Store which products are ours: their prices do not say so."""
    tx.run(
        "INSERT INTO plan_product SELECT unnest(CAST(:products AS text[])) ON CONFLICT DO NOTHING",
        products=sorted(products),
    )


def _busy() -> Unavailable:
    return Unavailable("Another sync is writing the plans.", code="billing.busy", retry_after=5)


def _ask(products: Sequence[str] | None = None, until: float = math.inf) -> _Asked:
    """Read our products with all their prices, archived ones included.

    Reads only `products` if given, otherwise all of the account. Raises Unavailable
    `billing.stripe_unavailable` once the monotonic clock has passed `until`.
    """
    from kyora.billing import stripe_client

    pages: list[Answer] = []
    if products is None:
        pages = list(stripe_client.pages_of("products"))
        with transaction() as tx:
            known = {str(row["product_id"]) for row in tx.rows("SELECT * FROM plan_product")}
    else:
        known = set(products)
        for batch in batched(products, _PAGE, strict=False):
            pages += stripe_client.pages_of("products", ids=list(batch))
    every = [product for page in pages for product in page.object["data"]]
    ours = [one for one in every if derive.ours(one) or one["id"] in known]
    prices = []
    # After the products, so that their default prices are among them.
    for product in ours:
        if time.monotonic() > until:
            raise Unavailable(
                "Stripe's catalogue takes too long.", code="billing.stripe_unavailable"
            )
        more = {"product": product["id"], "expand": ["data.currency_options"]}
        prices += list(stripe_client.pages("prices", **more))
    return _Asked(ours, prices, pages[0].as_of if pages else 0)


def _claim(tx: Transaction, version: int, *, check: bool = False) -> bool:
    """Lock the run's row unless another worker has written since `version`."""
    if check:
        return bool(
            tx.row(
                "SELECT 1 FROM billing_run WHERE name = 'plans' AND version = :version",
                version=version,
            )
        )
    return bool(
        tx.run(
            "UPDATE billing_run SET version = version + 1, started_at = now()"
            " WHERE name = 'plans' AND version = :version",
            version=version,
        )
    )


def _apply(
    tx: Transaction, asked: _Asked, *, check: bool = False, done: Sequence[str] = ()
) -> Report:
    known = {str(row["id"]): _plan(row) for row in tx.rows("SELECT * FROM plan")}
    mapped = {
        str(row["price_id"]): Place(str(row["plan_id"]), row["active"] is True)
        for row in tx.rows("SELECT price_id, plan_id, active FROM plan_price")
    }
    wanted = derive.read(asked.products, asked.prices, known, mapped)
    faults = list(wanted.faults)
    row = tx.row("SELECT plan_id FROM free_plan_choice")
    held = str(row["plan_id"]) if row else None
    free = derive.free(wanted.plans, config.billing().free_plan, held, faults)
    changed = [plan for plan in wanted.plans.values() if known.get(plan.id) != plan]
    archived = [p.id for p in changed if not p.active and p.id in known and known[p.id].active]
    report = Report(
        created=sorted(p.id for p in changed if p.id not in known),
        updated=sorted(p.id for p in changed if p.id in known and p.id not in archived),
        archived=sorted(archived),
        drift=derive.differences(wanted, known, mapped)
        + ([f"free plan: {free} ≠ {held}"] if free != held else []),
        faults=faults,
    )
    for fault in report.faults:
        logger().warning("not applied", fault=fault)
    if check:
        return report
    if not done:  # once for each run, not for each event of a burst
        count("PlanDrift", len(report.drift))  # what no event had reported
        if report.faults:
            count("PlanFaults", len(report.faults))
    changes = {k: p for k, p in wanted.prices.items() if mapped.get(k) != p}
    _write(tx, changed, changes)
    if free and free != held:
        tx.run(
            "INSERT INTO free_plan_choice (plan_id) VALUES (:id)"
            " ON CONFLICT (one) DO UPDATE SET plan_id = excluded.plan_id",
            id=free,
        )
    _spread(tx, list(changes))
    if changed:
        from kyora.billing.plans import offers  # its models cost a webhook's cold start

        cache.drop_after_commit(tx, offers.LISTED)
        data = {"created": report.created, "updated": report.updated, "archived": report.archived}
        announce.emit(tx, "PlansSynced", data, None)
    tx.run(
        "UPDATE billing_run SET state = CAST(:state AS jsonb), result = CAST(:result AS jsonb),"
        " finished_at = now() WHERE name = 'plans'",
        state=json.dumps(
            {"as_of": asked.as_of, "products": [product["id"] for product in asked.products]}
        ),
        result=json.dumps(report._asdict()),
    )
    _note(tx, (product["id"] for product in asked.products))
    if done:
        event_store.all_done(tx, done)
    return report


def _write(tx: Transaction, plans: list[PlanRow], prices: Mapping[str, Place]) -> None:
    if plans:
        # A price may move between plans, and only one may offer it at a time.
        tx.run(
            "UPDATE plan SET active = false WHERE id = ANY(CAST(:ids AS text[]))",
            ids=[plan.id for plan in plans],
        )
        tx.run(
            "INSERT INTO plan (id, product_id, price_id, name, description, amount, currency,"
            " interval, interval_count, features, limits, active)"
            " SELECT id, product_id, price_id, name, description, amount, currency, interval,"
            " interval_count, features, limits, active"
            " FROM jsonb_populate_recordset(CAST(NULL AS plan), CAST(:plans AS jsonb))"
            " ON CONFLICT (id) DO UPDATE SET product_id = excluded.product_id,"
            " price_id = excluded.price_id, name = excluded.name,"
            " description = excluded.description, amount = excluded.amount,"
            " currency = excluded.currency, interval = excluded.interval,"
            " interval_count = excluded.interval_count, features = excluded.features,"
            " limits = excluded.limits, active = excluded.active, updated_at = now()",
            plans=json.dumps([plan._asdict() for plan in plans]),
        )
    if prices:
        tx.run(
            "INSERT INTO plan_price (price_id, plan_id, active)"
            " SELECT * FROM unnest(CAST(:prices AS text[]), CAST(:plans AS text[]),"
            " CAST(:offered AS boolean[]))"
            " ON CONFLICT (price_id) DO UPDATE SET plan_id = excluded.plan_id,"
            " active = excluded.active",
            prices=list(prices),
            plans=[place.plan_id for place in prices.values()],
            offered=[place.offered for place in prices.values()],
        )


def _spread(tx: Transaction, prices: list[str]) -> None:
    """Apply the plans' limits to the workspaces on them; `prices` are those that changed.

    Every workspace is compared, not only those of a changed plan. Subscriptions are locked first,
    as by every other writer.
    """
    # A price that has become known, or moved to another plan: the subscription is read from Stripe
    # again, which finds the plan's item, settles access and announces.
    tx.run(
        "UPDATE subscription s SET plan_id = p.plan_id, doubtful = true FROM plan_price p"
        " WHERE p.price_id = s.price_id AND s.plan_id IS DISTINCT FROM p.plan_id"
        f" AND (s.plan_id IS NULL OR s.status NOT IN {TERMINAL_SQL})"
    )
    # The same for its other items, and for a price whose product has become a plan's.
    tx.run(
        "UPDATE subscription s SET doubtful = true WHERE NOT doubtful"
        f" AND s.status NOT IN {TERMINAL_SQL}"
        " AND (s.prices && CAST(:prices AS text[]) AND cardinality(s.prices) > 1"
        "   OR s.unplanned_since IS NOT NULL AND (s.prices && CAST(:prices AS text[])"
        "     OR s.products && ARRAY(SELECT product_id FROM plan)))",
        prices=prices,
    )
    # Wait for writers that may hold old limits; block new ones until this commits. Reads continue.
    tx.run("LOCK TABLE workspace_billing IN EXCLUSIVE MODE")
    tx.run(
        "UPDATE workspace_billing b SET limits = p.limits, updated_at = now() FROM plan p"
        " WHERE p.id = b.plan_id AND b.access <> 'free' AND b.limits <> p.limits"
    )
    tx.run(
        "UPDATE workspace_billing b SET plan_id = f.id, limits = f.limits, updated_at = now()"
        " FROM free_plan f WHERE b.access = 'free'"
        " AND (b.plan_id, b.limits) IS DISTINCT FROM (f.id, f.limits)"
    )


def _plan(row: Mapping[str, Any]) -> PlanRow:
    return PlanRow(**{field: row[field] for field in PlanRow._fields})
