"""Plans as Stripe has them: read from there, kept here, told to whoever is on one.

`catalogue` says which plans follow from Stripe's products and prices. Stripe is asked while no
transaction is open, so an answer is applied only if nobody wrote since (`billing_run.version`);
else the whole turn is taken again. A webhook's payload is never applied: it says that something
changed, and Stripe is asked what is.
"""

import json
import random
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from kyora import cache, config
from kyora.billing import catalogue, facts, inbox
from kyora.billing.catalogue import Place, Plan
from kyora.billing.normalise import Event
from kyora.errors import Unavailable
from kyora.observability import count, logger
from kyora.postgres import Transaction, transaction

_TURNS = 8  # times that somebody else may write while Stripe is asked
_NEAR = 2  # seconds: whole seconds on both sides, and Stripe's clocks among themselves
_PATIENCE = 20.0  # seconds for a statement: new limits reach every workspace of a plan


class Report(NamedTuple):
    """What a sync did or, when it only checked, would do."""

    created: list[str]
    updated: list[str]
    archived: list[str]
    drift: list[str]  # a line for each difference there was: what Stripe says ≠ what we had
    faults: list[str]  # what Stripe has and nobody can use


class _Asked(NamedTuple):
    """What Stripe answered; `as_of` is a second of Stripe's clock by which it was not older."""

    products: list[dict[str, Any]]
    prices: list[dict[str, Any]]
    as_of: int


def sync(*, check: bool = False) -> Report:
    """Bring the plans up to date with Stripe; with `check` only say what differs.

    Raises as `stripe_api.call` does, and Unavailable `billing.busy`.
    """
    found = _converge(None, check=check)
    assert found is not None  # noqa: S101  # only an event can be done already
    return found


def apply(event: Event) -> None:
    """Bring the plans up to date because of an event of a product or a price.

    Raises as `sync` does.
    """
    _converge(event, check=False)


def _converge(event: Event | None, *, check: bool) -> Report | None:
    for turn in range(_TURNS):
        with transaction() as tx:
            version = _begin(tx, event)
        if version is None:
            return None
        asked = _ask()
        # A connection of its own, as a statement may take longer than the usual one allows.
        with transaction(timeout=_PATIENCE) as tx:
            if _claim(tx, version, check=check):
                return _apply(tx, event, asked, check=check)
        time.sleep(random.random() * 0.05 * (turn + 1))  # noqa: S311  # dice, not a secret
    raise Unavailable("Others write about the plans.", code="billing.busy", retry_after=5)


def _begin(tx: Transaction, event: Event | None) -> int | None:
    """Return the version before Stripe is asked, or None when an event is done already."""
    run = tx.row("SELECT version, state FROM billing_run WHERE name = 'plans'") or {}
    if event is not None:
        row = tx.row("SELECT status FROM stripe_event WHERE id = :id", id=event.id)
        if row is None or row["status"] != "received":
            return None
        state = run.get("state")
        if isinstance(state, dict) and state.get("as_of", 0) > event.created + _NEAR:
            inbox.done(tx, event.id, "processed")  # what was read since then has it
            return None
    return int(str(run["version"]))


def _ask() -> _Asked:
    """Read every product and price, those that are archived as well."""
    from kyora.billing import stripe_api

    pages = list(stripe_api.pages_of("products"))
    products = [product for page in pages for product in page.object["data"]]
    # After the products: the default price of one is then among them.
    prices = list(stripe_api.pages("prices", expand=["data.currency_options"]))
    return _Asked(products, prices, pages[0].as_of)


def _claim(tx: Transaction, version: int, *, check: bool) -> bool:
    """Lock the run's row unless somebody wrote since `version`."""
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


def _apply(tx: Transaction, event: Event | None, asked: _Asked, *, check: bool) -> Report:
    known = {str(row["id"]): _plan(row) for row in tx.rows("SELECT * FROM plan")}
    mapped = {
        str(row["price_id"]): Place(str(row["plan_id"]), row["active"] is True)
        for row in tx.rows("SELECT price_id, plan_id, active FROM plan_price")
    }
    wanted = catalogue.read(asked.products, asked.prices, known, mapped)
    faults = list(wanted.faults)
    settings = config.settings("database", "billing")
    row = tx.row("SELECT plan_id FROM free_plan_choice")
    held = str(row["plan_id"]) if row else None
    free = catalogue.free(wanted.plans, settings.free_plan, held, faults)
    changed = [plan for plan in wanted.plans.values() if known.get(plan.id) != plan]
    archived = [p.id for p in changed if not p.active and p.id in known and known[p.id].active]
    report = Report(
        created=sorted(p.id for p in changed if p.id not in known),
        updated=sorted(p.id for p in changed if p.id in known and p.id not in archived),
        archived=sorted(archived),
        drift=catalogue.differences(wanted, known, mapped)
        + ([f"free plan: {free} ≠ {held}"] if free != held else []),
        faults=faults,
    )
    for fault in report.faults:
        logger().warning("not applied", fault=fault)
    if check:
        return report
    if event is None:  # once for each run, not for each event of a burst
        count(settings.stage, "PlanDrift", len(report.drift))  # what no event of Stripe's had told
        if report.faults:
            count(settings.stage, "PlanFaults", len(report.faults))
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
        cache.drop_after_commit(tx, "plans")  # the list that offers shows
        told = {"created": report.created, "updated": report.updated, "archived": report.archived}
        facts.tell(tx, "PlansSynced", told, None)
    tx.run(
        "UPDATE billing_run SET state = CAST(:state AS jsonb), result = CAST(:result AS jsonb),"
        " finished_at = now() WHERE name = 'plans'",
        state=json.dumps({"as_of": asked.as_of}),
        result=json.dumps(report._asdict()),
    )
    if event is not None:
        inbox.done(tx, event.id, "processed")
    return report


def _write(tx: Transaction, plans: list[Plan], prices: Mapping[str, Place]) -> None:
    if plans:
        # A price may go from one plan to another, and is offered by one at a time.
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
    """Let what the plans say by now reach who is on one; `prices` are those that changed.

    Every workspace is compared, not only those of a changed plan. Subscriptions come first, as in
    every other writer.
    """
    # A price that has only now become known, or is another plan's now: to be read from Stripe,
    # which finds the plan's item, settles and announces.
    tx.run(
        "UPDATE subscription s SET plan_id = p.plan_id, doubtful = true FROM plan_price p"
        " WHERE p.price_id = s.price_id AND s.plan_id IS DISTINCT FROM p.plan_id"
        " AND (s.plan_id IS NULL OR s.status NOT IN ('canceled', 'incomplete_expired'))"
    )
    # The same of what else it is charged for, and of a price whose product has become a plan's.
    tx.run(
        "UPDATE subscription s SET doubtful = true WHERE NOT doubtful"
        " AND s.status NOT IN ('canceled', 'incomplete_expired')"
        " AND (s.prices && CAST(:prices AS text[]) AND cardinality(s.prices) > 1"
        "   OR s.unplanned_since IS NOT NULL AND (s.prices && CAST(:prices AS text[])"
        "     OR s.products && ARRAY(SELECT product_id FROM plan)))",
        prices=prices,
    )
    # Who is being settled right now may have read the limits of before: what it writes is waited
    # for, and nobody begins to until what is written here is to be seen. Reading goes on.
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


def _plan(row: Mapping[str, Any]) -> Plan:
    return Plan(**{field: row[field] for field in Plan._fields})
