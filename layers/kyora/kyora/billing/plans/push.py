"""Write a catalogue of ours to a Stripe account: `make push-plans`.

A product is found by its metadata `kyora_plan`, a price by its lookup key. Stripe's amounts are
immutable, so a changed price is a new one that takes over the key and names the price that it
replaces, which is archived, by the next push if this one is interrupted. What the catalogue does
not name is left alone.
"""

from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from kyora import limits
from kyora.billing import stripe_client
from kyora.errors import Conflict, Invalid, field_errors

_PlanId = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,39}$")]
# A key of Stripe's metadata has at most forty characters, including `feature_`.
_Feature = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_]{0,31}$")]
_Limit = Annotated[int, Field(ge=limits.UNLIMITED, le=2**53 - 1, strict=True)]
_REPLACES = "kyora_replaces"  # a price's metadata


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PriceWanted(_Strict):
    """A price of a plan; `amount` is in minor units."""

    amount: Annotated[int, Field(ge=0, le=99_999_999, strict=True)]
    currency: Annotated[str, StringConstraints(pattern=r"^[a-z]{3}$")]
    interval: Annotated[str, StringConstraints(pattern=r"^(day|week|month|year)$")]


class PlanWanted(_Strict):
    """A product; its first price is its default."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=250)]
    description: Annotated[str, StringConstraints(max_length=1000)] = ""
    features: list[_Feature] = []
    limits: dict[str, _Limit]
    prices: Annotated[list[PriceWanted], Field(min_length=1)]


class _File(_Strict):
    plans: dict[_PlanId, PlanWanted]


class Pushed(NamedTuple):
    """Ids of Stripe's products and prices."""

    created: list[str]
    updated: list[str]
    archived: list[str]


def push(catalogue: Mapping[str, Any]) -> Pushed:
    """Write a catalogue to the Stripe account; what is right already stays untouched.

    Raises Invalid naming every fault of the catalogue, Conflict `billing.catalogue_ambiguous`
    when two active products of the account are the same plan, and as `stripe_client.call` does.
    """
    wanted = _read(catalogue)
    done = Pushed([], [], [])
    products = list(stripe_client.pages("products"))
    kept: set[str] = set()
    for plan_id, plan in wanted.items():
        alike = [p for p in products if (p.get("metadata") or {}).get("kyora_plan") == plan_id]
        alike = [p for p in alike if p["active"]] or alike
        if len(alike) > 1:
            raise Conflict(
                f"Several products say that they are {plan_id}.",
                code="billing.catalogue_ambiguous",
                products=[product["id"] for product in alike],
            )
        kept |= _push(plan_id, plan, alike[0] if alike else None, done)
    prices = list(stripe_client.pages("prices"))
    replaced = {(price.get("metadata") or {}).get(_REPLACES) for price in prices} - kept
    for price in prices:
        if price["active"] and price["id"] in replaced:
            stripe_client.call("post", f"prices/{price['id']}", active=False)
            done.archived.append(str(price["id"]))
    return done


def _read(catalogue: Mapping[str, Any]) -> dict[str, PlanWanted]:
    try:
        found = _File.model_validate(catalogue).plans
    except ValidationError as error:
        raise Invalid(errors=field_errors(error.errors())) from None
    faults = []
    for plan_id, plan in found.items():
        if set(plan.limits) != set(limits.NAMES):
            message = f"needs exactly {', '.join(limits.NAMES)}"
            faults.append({"field": f"plans.{plan_id}.limits", "message": message})
        kinds = {(price.interval, price.currency) for price in plan.prices}
        if len(kinds) < len(plan.prices):
            message = "has two of the same interval and currency"
            faults.append({"field": f"plans.{plan_id}.prices", "message": message})
    if faults:
        raise Invalid(errors=faults)
    return found


def _push(plan_id: str, plan: PlanWanted, product: dict[str, Any] | None, done: Pushed) -> set[str]:
    """Write a plan to the account and return the ids of its prices."""
    said: dict[str, Any] = {"name": plan.name, "active": True}
    if plan.description or (product or {}).get("description"):
        said["description"] = plan.description
    metadata = {"kyora_plan": plan_id}
    metadata |= {f"limit_{name}": str(value) for name, value in plan.limits.items()}
    metadata |= {f"feature_{name}": "true" for name in plan.features}
    if product is None:
        # We choose the id, so that two concurrent pushes create one product.
        made: dict[str, Any] = {"id": f"kyora_{plan_id}", **said, "metadata": metadata}
        product = stripe_client.call("post", "products", **made).object
        done.created.append(product["id"])
    elif change := _change(product, said, metadata):
        stripe_client.call("post", f"products/{product['id']}", **change)
        done.updated.append(product["id"])
    ids = [_price(plan_id, product["id"], price, done) for price in plan.prices]
    # Stripe archives no price that is a product's default.
    if product.get("default_price") != ids[0]:
        stripe_client.call("post", f"products/{product['id']}", default_price=ids[0])
        if product["id"] not in (*done.created, *done.updated):
            done.updated.append(product["id"])
    return set(ids)


def _change(
    product: Mapping[str, Any], said: Mapping[str, Any], metadata: Mapping[str, str]
) -> dict[str, Any]:
    """Return what differs at a product; metadata that is not a plan's is ignored."""
    found = product.get("metadata") or {}
    change = {k: v for k, v in said.items() if (product.get(k) or "") != v}
    changed = {k: v for k, v in metadata.items() if found.get(k) != v}
    gone = [k for k in found if k.startswith(("limit_", "feature_")) and k not in metadata]
    changed |= dict.fromkeys(gone, "")  # Stripe removes an empty one
    return {**change, "metadata": changed} if changed else change


def _price(plan_id: str, product_id: str, price: PriceWanted, done: Pushed) -> str:
    """Return the id of the right price, created if need be."""
    key = f"kyora_{plan_id}_{price.interval}_{price.currency}"
    found = stripe_client.call("get", "prices", lookup_keys=[key]).object["data"]
    old = found[0] if found else None
    if old and _same(old, product_id, price):
        if not old["active"]:
            stripe_client.call("post", f"prices/{old['id']}", active=True)
            done.updated.append(old["id"])
        return str(old["id"])
    made: dict[str, Any] = {
        "product": product_id,
        "unit_amount": price.amount,
        "currency": price.currency,
        "recurring": {"interval": price.interval},
        "lookup_key": key,
    }
    if old is None:  # a lookup key is unique: of two concurrent pushes, one is refused
        answer = stripe_client.call("post", "prices", **made)
    else:
        once = f"push:{old['id']}:{product_id}:{price.amount}"
        made |= {"transfer_lookup_key": True, "metadata": {_REPLACES: old["id"]}}
        answer = stripe_client.call("post", "prices", idempotency_key=once, **made)
    done.created.append(answer.object["id"])
    return str(answer.object["id"])


def _same(old: Mapping[str, Any], product_id: str, price: PriceWanted) -> bool:
    recurring = old.get("recurring") or {}
    there = (old["product"], old["unit_amount"], old["currency"])
    return there == (product_id, price.amount, price.currency) and (
        recurring.get("interval"),
        recurring.get("interval_count"),
        recurring.get("usage_type"),
    ) == (price.interval, 1, "licensed")
