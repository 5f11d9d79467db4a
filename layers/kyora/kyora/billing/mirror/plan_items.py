"""Which item of a subscription is its plan: found by price, never by position.

    items [add-on, professional]        the price that is a plan's
    [professional, enterprise]          the better plan: its limits, then what it costs
    [another price of our product]      the product's plan, of that interval and currency if any
    [a price of no plan]                the first item, and no plan

An item of quantity 0 is not paid for: it counts only when it is the only one.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from kyora.billing import plan_order
from kyora.billing.stripe_objects import Item, StripeSubscription
from kyora.postgres import Transaction

_PLANS = """
SELECT p.id, p.name, p.product_id, p.currency, p.interval, p.interval_count, p.amount, p.limits,
    p.active, p.price_id AS offered, o.price_id AS priced
FROM plan p LEFT JOIN plan_price o ON o.plan_id = p.id
    AND o.price_id = ANY(CAST(:prices AS text[]))
WHERE o.price_id IS NOT NULL OR p.price_id = ANY(CAST(:prices AS text[]))
    OR p.product_id = ANY(CAST(:products AS text[]))
"""

type Row = Mapping[str, Any]


class Placed(NamedTuple):
    """A subscription at the item of its plan; `plan_id` is None at a price of no plan."""

    found: StripeSubscription
    plan_id: str | None = None
    plan_name: str | None = None


def place(tx: Transaction, found: StripeSubscription) -> Placed:
    """Find the item that is a subscription's plan."""
    return place_all(tx, [found])[0]


def place_all(tx: Transaction, found: Sequence[StripeSubscription]) -> list[Placed]:
    """Find the item that is the plan of each subscription, with one query."""
    items = [item for one in found for item in one.items]
    plans = tx.rows(
        _PLANS,
        prices=list({item.price for item in items if item.price}),
        products=list({item.product for item in items if item.product}),
    )
    return [choose(one, plans) for one in found]


def choose(found: StripeSubscription, plans: Sequence[Row]) -> Placed:
    """Find the item that is a subscription's plan among the plans of its prices and products."""
    if not found.items:
        return Placed(found)
    judged = [(item, *_plan(item, plans)) for item in found.items]
    order = range(len(judged))
    best = max(order, key=lambda at: (*_weight(*judged[at]), -at))
    item, plan, _ = judged[best]
    shown = found._replace(price=item.price, item=item.id, quantity=item.quantity)
    if plan and item.period_end:
        shown = shown._replace(period_start=item.period_start, period_end=item.period_end)
    return Placed(shown, str(plan["id"]), str(plan["name"])) if plan else Placed(shown)


def _plan(item: Item, plans: Sequence[Row]) -> tuple[Row | None, bool]:
    """Return the plan of an item, and whether its price is that plan's own."""
    for where in ("priced", "offered"):
        for plan in plans:
            if item.price and plan[where] == item.price:
                return plan, True
    ours = [p for p in plans if item.product and p["product_id"] == item.product]
    alike = (item.currency, item.interval, item.interval_count or 1)
    return max(
        ours,
        key=lambda p: (
            (p["currency"], p["interval"], p["interval_count"]) == alike,
            p["active"],
            -len(p["id"]),  # the plan without a suffix is what the product is called
            p["id"],
        ),
        default=None,
    ), False


def _weight(item: Item, plan: Row | None, exact: bool) -> tuple[Any, ...]:
    worth = plan_order.worth(plan) if plan else ()
    return item.quantity != 0, plan is not None, exact, worth
