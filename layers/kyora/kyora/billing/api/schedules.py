"""Stripe's subscription schedules, of which this module is the only owner.

    plan     two calls: a schedule of the subscription as it is, then its phases: the running
             period, unchanged, and from its end the new price
    release  before the subscription is ended, which Stripe refuses while it has a schedule, and
             after its items are changed, which the next phase would undo. Once the planned change
             has begun, or an upgrade that waited is paid, sweep_billing releases it

An update replaces all phases, so it repeats what the current one has: left out, a trial ends and a
discount is gone. Rules: https://docs.stripe.com/billing/subscriptions/subscription-schedules
"""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from kyora.billing.api.lease import Lease
from kyora.billing.stripe_terms import PLANNED_FROM
from kyora.errors import KyoraError

# What a phase keeps of the previous one.
_KEPT = (
    *("automatic_tax", "collection_method", "default_payment_method", "default_tax_rates"),
    *("description", "invoice_settings", "metadata", "application_fee_percent"),
)

type Json = Mapping[str, Any]


def release(lease: Lease, found: Json) -> bool:
    """Take a subscription out of its schedule; return whether it had one."""
    from kyora.billing import stripe_client

    if not (schedule := _id(found.get("schedule"))):
        return False
    # It may have ended just now.
    with suppress(stripe_client.Refused, stripe_client.Missing):
        key = lease.key("release", schedule)
        stripe_client.call(
            "post", f"subscription_schedules/{schedule}/release", idempotency_key=key
        )
    return True


def plan(lease: Lease, found: Json, item: str, price: str, every: tuple[str, int]) -> None:
    """Plan another price for a subscription's item, from the end of its period on.

    `every` is the price's interval and its count. An earlier plan is replaced.
    """
    from kyora.billing import stripe_client

    release(lease, found)
    name = str(found["id"])
    made = stripe_client.call(
        "post",
        "subscription_schedules",
        idempotency_key=lease.key("schedule", name, price),
        from_subscription=name,
    ).object
    try:
        now = made["phases"][0]
        stripe_client.call(
            "post",
            f"subscription_schedules/{made['id']}",
            idempotency_key=lease.key("phases", made["id"], price),
            end_behavior="release",
            metadata={PLANNED_FROM: str(_price_of(found, item))},
            proration_behavior="none",
            phases=[
                _again(now) | _trial(now) | {"items": _items(found)},
                _kept(now)
                | {
                    "items": _items(found, item, price),
                    "duration": {"interval": every[0], "interval_count": every[1]},
                    "proration_behavior": "none",
                },
            ],
        )
    except KyoraError:
        with suppress(KyoraError):  # without phases it would only be in the way
            stripe_client.call("post", f"subscription_schedules/{made['id']}/release")
        raise


def _price_of(found: Json, item: str) -> Any:
    return next(_id(one.get("price")) for one in found["items"]["data"] if one["id"] == item)


def _again(phase: Json) -> dict[str, Any]:
    same = {"start_date": phase["start_date"], "end_date": phase["end_date"]}
    return _kept(phase) | same | {"proration_behavior": "none"}


def _trial(phase: Json) -> dict[str, Any]:
    return {"trial_end": phase["trial_end"]} if phase.get("trial_end") else {}


def _kept(phase: Json) -> dict[str, Any]:
    kept = {name: _plain(phase[name]) for name in _KEPT if phase.get(name)}
    if discounts := phase.get("discounts"):
        kept["discounts"] = [_discount(one) for one in discounts]
    return {name: value for name, value in kept.items() if value not in ({}, [])}


def _items(found: Json, item: str = "", price: str = "") -> list[dict[str, Any]]:
    """Return a subscription's items as a phase takes them, one of them at another price."""
    items = []
    for one in found["items"]["data"]:
        said = {"price": price if one["id"] == item else _id(one.get("price"))}
        if one.get("quantity") is not None:
            said["quantity"] = one["quantity"]
        if rates := one.get("tax_rates"):
            said["tax_rates"] = [_id(rate) for rate in rates]
        items.append(said)
    return items


def _discount(found: Json) -> dict[str, Any]:
    name = next(n for n in ("discount", "promotion_code", "coupon") if found.get(n))
    return {name: _id(found[name])}


def _plain(value: Any) -> Any:
    """Return a value of an answer as a request takes it: nothing that is not set, ids alone."""
    if isinstance(value, dict):
        if "id" in value and "object" in value:
            return value["id"]
        left_out = ("disabled_reason",)  # an answer's alone
        given = {k: _plain(v) for k, v in value.items() if v is not None and k not in left_out}
        return {name: one for name, one in given.items() if one not in ({}, [])}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return value


def _id(value: Any) -> Any:
    return value.get("id") if isinstance(value, dict) else value
