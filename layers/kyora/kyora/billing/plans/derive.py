"""Which plans follow from Stripe's products and prices: no database, no network.

    product, metadata kyora_plan=professional, limit_*, feature_*
    ├── its default price   54.99 AED a month   professional
    ├── price              549.00 AED a year    professional-year
    ├── price               14.99 EUR a month   professional-eur
    └── an archived price                       of its plan still, not offered

A product's limits and features hold for all of its prices. A value that cannot be read keeps the
one that we have, and creates no new plan. Every such value is reported. A product without
`kyora_plan` is not ours.

A plan's id keeps its first interval and currency, whatever is added at Stripe: `professional` is
paid by the month forever. A new product's plan begins with its default price; without one with the
oldest, and that is reported.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from kyora import limits
from kyora.billing import plan_order

_PLAN = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")
_CURRENCY = re.compile(r"[a-z]{3}")
_LIMIT = re.compile(r"-1|0|[1-9][0-9]{0,15}")
_MOST = 2**53 - 1  # the largest whole number that every reader of JSON has
_INTERVALS = tuple(plan_order.DAYS)
_NAMED = "kyora_plan"
_MEANT = re.compile(r"(?i:limit|feature)([^a-z]|$)")  # `Limit-maxBusinesses`, not `limited`
_SWITCH = {"true": True, "false": False}

type Json = Mapping[str, Any]
type Kind = tuple[str, int, str]


class PlanRow(NamedTuple):
    """A plan, by the columns of its table; `amount` is in minor units."""

    id: str
    product_id: str
    price_id: str
    name: str
    description: str
    amount: int
    currency: str
    interval: str
    interval_count: int
    features: Mapping[str, bool]
    limits: Mapping[str, int]
    active: bool


class Place(NamedTuple):
    """The plan that a price is or was of, and whether that plan offers it."""

    plan_id: str
    offered: bool


class Catalogue(NamedTuple):
    """Every plan and price as it should be, and what is wrong at Stripe."""

    plans: Mapping[str, PlanRow]
    prices: Mapping[str, Place]
    faults: Sequence[str]


class _Price(NamedTuple):
    """A price that can be a plan's: so much per interval, whatever is used."""

    id: str
    active: bool
    amount: int
    kind: Kind  # interval, count, currency: what distinguishes a product's plans
    created: int
    place: int  # in Stripe's list, which begins with the newest

    @property
    def age(self) -> tuple[int, int, str]:
        """Order prices from the oldest; several may be created in a second."""
        return self.created, -self.place, self.id


class _ProductTerms(NamedTuple):
    """What a product says of all its plans."""

    name: str
    description: str
    features: Mapping[str, bool]
    limits: Mapping[str, int]


class _Made(NamedTuple):
    """What a product says: its plans, as long as no id is another one's, and its prices."""

    base: str
    product_id: str
    terms: _ProductTerms
    plans: Sequence[PlanRow]
    prices: Sequence[_Price]


def read(
    products: Iterable[Json],
    prices: Iterable[Json],
    known: Mapping[str, PlanRow],
    mapped: Mapping[str, Place],
) -> Catalogue:
    """Return what follows from Stripe's lists, given the plans and prices that we have.

    Nothing known is dropped: what Stripe no longer has is no longer offered.
    """
    faults: list[str] = []
    places = {price_id: Place(place.plan_id, offered=False) for price_id, place in mapped.items()}
    claims = _claims(products, known, faults)
    made = list(_products(claims, prices, known, faults))
    keepers = _keepers(made, claims, known)
    plans: dict[str, PlanRow] = {}
    for one in made:
        ours: dict[Kind, PlanRow] = {}
        for plan in one.plans:
            if taken := _taken(plan, one.base, claims, known, keepers, plans):
                faults.append(f"{plan.price_id}: {taken}")
            else:
                plans[plan.id] = ours[_kind(plan)] = plan
        for price in one.prices:
            if place := _place(price, ours.get(price.kind), mapped):
                places[price.id] = place
    for one in made:
        _follow(one.product_id, one.terms, known, plans)
    for plan in known.values():
        plans.setdefault(plan.id, plan._replace(active=False))
    return Catalogue(plans, places, faults)


def _products(
    claims: Mapping[str, Sequence[Json]],
    prices: Iterable[Json],
    known: Mapping[str, PlanRow],
    faults: list[str],
) -> Iterator[_Made]:
    """Yield what each product says, whatever the others say."""
    priced: dict[str, list[Json]] = {}
    for price in prices:
        priced.setdefault(_id(price.get("product")), []).append(price)
    for base, claimants in sorted(claims.items()):
        product, *others = sorted(claimants, key=lambda one: _precedence(one, base, known))
        product_id = _id(product)
        faults += [f"{_id(o)}: {product_id} is {base} already" for o in others if _active(o)]
        terms = _terms(product, _held(product_id, base, known), faults)
        if terms is None:
            continue
        usable = list(_usable(priced.get(product_id, []), faults))
        ids = _ids(base, product, usable, known.get(base), faults)
        plans = list(_plans(product, terms, ids, usable, known, faults))
        # The prices of a replaced product have subscribers, too.
        replaced = [price for o in others if not _active(o) for price in priced.get(_id(o), [])]
        yield _Made(base, product_id, terms, plans, [*usable, *_usable(replaced, [])])


def _keepers(
    made: Iterable[_Made], claims: Mapping[str, Sequence[Json]], known: Mapping[str, PlanRow]
) -> dict[str, str]:
    """Return the products that keep the ids that they have, by those: the first known stays.

    An id with a suffix that is no longer sold yields to a product of that name.
    """
    return {
        plan.id: one.product_id
        for one in made
        for plan in one.plans
        if (held := known.get(plan.id))
        and (held.product_id, _kind(held)) == (one.product_id, _kind(plan))
        and (plan.active or plan.id == one.base or plan.id not in claims)
    }


def _taken(
    plan: PlanRow,
    base: str,
    claims: Mapping[str, Sequence[Json]],
    known: Mapping[str, PlanRow],
    keepers: Mapping[str, str],
    plans: Mapping[str, PlanRow],
) -> str:
    """Return why a plan's id is another one's, or an empty text."""
    held, keeper = known.get(plan.id), keepers.get(plan.id)
    if held and _kind(held) != _kind(plan):
        return f"{plan.id} is {_name(_kind(held))} already"
    if keeper:
        return "" if keeper == plan.product_id else f"{keeper} is {plan.id} already"
    if plan.id != base and plan.id in claims:  # a product's own name goes before a suffix
        return f"{_id(claims[plan.id][0])} is {plan.id} already"
    if plan.id in plans:
        return f"{plans[plan.id].product_id} is {plan.id} already"
    return ""


def _follow(
    product_id: str, terms: _ProductTerms, known: Mapping[str, PlanRow], plans: dict[str, PlanRow]
) -> None:
    """Keep a product's former plans at its terms: they have subscribers."""
    for plan in known.values():
        if plan.product_id == product_id and plan.id not in plans:
            plans[plan.id] = plan._replace(active=False, **terms._asdict())


def differences(
    wanted: Catalogue, known: Mapping[str, PlanRow], mapped: Mapping[str, Place]
) -> list[str]:
    """Return a line for each difference: what Stripe says ≠ what we have."""
    lines = []
    for plan in wanted.plans.values():
        if plan.id not in known:
            lines.append(f"{plan.id}: {plan.price_id} ≠ no such plan")
            continue
        pairs = zip(PlanRow._fields, plan, known[plan.id], strict=True)
        lines += [f"{plan.id}.{field}: {_say(w)} ≠ {_say(h)}" for field, w, h in pairs if w != h]
    for price_id, place in wanted.prices.items():
        if place != mapped.get(price_id):
            had = mapped.get(price_id)
            lines.append(f"{price_id}: {_told(place)} ≠ {_told(had) if had else 'no plan'}")
    return sorted(lines)


# ---- products


def _claims(
    products: Iterable[Json], known: Mapping[str, PlanRow], faults: list[str]
) -> dict[str, list[Json]]:
    """Return our products by the plan that they say they are."""
    claims: dict[str, list[Json]] = {}
    for product in products:
        metadata = _metadata(product)
        faults += [
            f"{_id(product)}: its metadata {_say(key)} must be written kyora_plan"
            for key in metadata
            if key != _NAMED and _plain(key) == _plain(_NAMED)
        ]
        named = metadata.get(_NAMED)
        if named is None:
            continue
        if not _PLAN.fullmatch(named):
            faults.append(f"{_id(product)}: kyora_plan is not a plan's id: {_say(named)}")
            held = [p.id for p in known.values() if p.active and p.product_id == _id(product)]
            if not held:
                continue
            named = min(held, key=len)  # the others have a suffix
        claims.setdefault(named, []).append(product)
    return claims


def _precedence(product: Json, base: str, known: Mapping[str, PlanRow]) -> tuple[Any, ...]:
    """Order the products that say they are the same plan; the first one is."""
    held = known.get(base)
    holds = held is not None and held.active and held.product_id == _id(product)
    return not _active(product), not holds, _whole(product.get("created")) or 0, _id(product)


def _held(product_id: str, base: str, known: Mapping[str, PlanRow]) -> PlanRow | None:
    """Return a plan of ours whose values stand in for those that cannot be read."""
    ours = [plan for plan in known.values() if plan.product_id == product_id]
    return min(ours, key=lambda plan: (not plan.active, len(plan.id)), default=known.get(base))


def _terms(product: Json, held: PlanRow | None, faults: list[str]) -> _ProductTerms | None:
    """Return what a product says; None when it is new and anything of it cannot be read."""
    metadata, before = _metadata(product), len(faults)
    faults += [
        f"{_id(product)}: its metadata {_say(key)} must begin with limit_ or feature_"
        for key in metadata
        if _MEANT.match(key) and not key.startswith(("limit_", "feature_"))
    ]
    features: dict[str, bool] = {}
    allowed: dict[str, int] = {}
    for key, text in sorted(metadata.items()):
        group, _, name = key.partition("_")
        if group == "feature" and text in _SWITCH:
            features[name] = _SWITCH[text]
        elif group == "feature":
            faults.append(f"{_id(product)}: {key} is neither true nor false: {_say(text)}")
            if held and name in held.features:
                features[name] = held.features[name]
        elif group == "limit" and name not in limits.NAMES:
            faults.append(f"{_id(product)}: {key} is no limit that Kyora knows")
    for name in limits.NAMES:
        text = metadata.get(f"limit_{name}", "")
        if _LIMIT.fullmatch(text) and int(text) <= _MOST:
            allowed[name] = int(text)
        else:
            why = f"is not a whole number from -1: {_say(text)}" if text else "is missing"
            faults.append(f"{_id(product)}: limit_{name} {why}")
            if held and name in held.limits:
                allowed[name] = held.limits[name]
    if held is None and len(faults) > before:
        return None
    name = _text(product.get("name")) or _id(product)
    return _ProductTerms(name, _text(product.get("description")), features, allowed)


# ---- prices


def _usable(prices: Iterable[Json], faults: list[str]) -> Iterator[_Price]:
    """Yield the prices that can be a plan's; of the others, those in use are reported."""
    for place, price in enumerate(prices):
        why = _unusable(price)
        if why and _active(price):
            faults.append(f"{_id(price)}: {why}")
        if why:
            continue
        recurring, currency = price["recurring"], str(price["currency"])
        # One price in several currencies would be several plans, and Stripe settles the currency
        # of a customer at the first invoice: a price for each leaves no doubt who is on which.
        if _active(price) and set(price.get("currency_options") or ()) - {currency}:
            faults.append(f"{_id(price)}: its currency_options are not used")
        yield _Price(
            _id(price),
            _active(price),
            price["unit_amount"],
            (recurring["interval"], _whole(recurring.get("interval_count")) or 1, currency),
            _whole(price.get("created")) or 0,
            place,
        )


def _unusable(price: Json) -> str:  # noqa: PLR0911  # a row each
    """Return why a price is no plan's, or an empty text."""
    recurring, amount = price.get("recurring"), _whole(price.get("unit_amount"))
    if price.get("type") != "recurring" or not isinstance(recurring, dict):
        return "it is paid once"
    if price.get("billing_scheme", "per_unit") != "per_unit":
        return "it has tiers"
    if recurring.get("usage_type", "licensed") != "licensed" or recurring.get("meter"):
        return "it is metered"
    if price.get("transform_quantity"):
        return "it divides quantities"
    if amount is None or not 0 <= amount <= _MOST:
        return "it is no whole number of minor units"
    if recurring.get("interval") not in _INTERVALS:
        return "its interval is unknown"
    if not _CURRENCY.fullmatch(str(price.get("currency"))):
        return "its currency is unknown"
    return ""


def _ids(
    base: str, product: Json, prices: Sequence[_Price], held: PlanRow | None, faults: list[str]
) -> dict[Kind, str]:
    """Name a product's plans: the first one's has no suffix, the others say what differs."""
    if not prices:
        return {}
    first = _first(base, product, prices, held, faults)
    ids = {}
    for kind in {price.kind for price in prices}:
        interval, count, currency = kind
        length = interval if count == 1 else f"{count}{interval}"
        differs = [length] if kind[:2] != first[:2] else []
        differs += [currency] if currency != first[2] else []
        ids[kind] = "-".join([base, *differs])
    return ids


def _first(
    base: str, product: Json, prices: Sequence[_Price], held: PlanRow | None, faults: list[str]
) -> Kind:
    """Return the interval and currency of the plan without a suffix; any doubt is reported."""
    default_id = _id(product.get("default_price"))
    default = next((price.kind for price in prices if price.id == default_id), None)
    offered = {price.kind for price in prices if price.active} if _active(product) else set()
    oldest = min(prices, key=lambda price: (not price.active, *price.age)).kind
    first = _kind(held) if held else default or oldest
    stays = f"{base} stays {_name(first)}"
    if default is None and len(offered) > 1:
        faults.append(f"{_id(product)}: it has no default price, so {stays}")
    elif default is not None and default != first:
        faults.append(f"{_id(product)}: its default price is {_name(default)}, and {stays}")
    elif offered and first not in offered:
        faults.append(f"{_id(product)}: {stays}, and has no such price")
    return first


def _kind(plan: PlanRow) -> Kind:
    return plan.interval, plan.interval_count, plan.currency


def _name(kind: Kind) -> str:
    interval, count, currency = kind
    return f"{currency.upper()} for {count} {interval}{'s' if count > 1 else ''}"


def _plans(
    product: Json,
    terms: _ProductTerms,
    ids: Mapping[Kind, str],
    prices: Sequence[_Price],
    known: Mapping[str, PlanRow],
    faults: list[str],
) -> Iterator[PlanRow]:
    """Yield the plans of a product, each with the one price that is offered."""
    default = _id(product.get("default_price"))
    for kind, plan_id in sorted(ids.items(), key=lambda item: item[1]):
        held = known[plan_id].price_id if plan_id in known else ""
        # Among prices that are alike the one that is offered already stays, else the oldest.
        alike = sorted(
            (price for price in prices if price.kind == kind),
            key=lambda p: (not p.active, p.id != default, p.id != held, *p.age),
        )
        faults += [f"{p.id}: {plan_id} is offered by {alike[0].id}" for p in alike[1:] if p.active]
        yield PlanRow(
            id=plan_id,
            product_id=_id(product),
            price_id=alike[0].id,
            amount=alike[0].amount,
            interval=kind[0],
            interval_count=kind[1],
            currency=kind[2],
            active=_active(product) and alike[0].active,
            **terms._asdict(),
        )


def _place(price: _Price, plan: PlanRow | None, mapped: Mapping[str, Place]) -> Place | None:
    """Return the plan of a price; an archived one stays of the plan that it was of."""
    if not price.active and price.id in mapped:
        return Place(mapped[price.id].plan_id, offered=False)
    if plan is None:
        return None
    return Place(plan.id, offered=plan.active and plan.price_id == price.id)


# ---- values


def _id(value: object) -> str:
    """Return the id of an object that may be expanded."""
    return str((value.get("id") if isinstance(value, dict) else value) or "")


def ours(product: Json) -> bool:
    """Return whether a product is, or is meant to be, one of our plans."""
    return any(_plain(key) == _plain(_NAMED) for key in _metadata(product))


def free(
    plans: Mapping[str, PlanRow], chosen: str, held: str | None, faults: list[str]
) -> str | None:
    """Return the plan of who pays nothing: `chosen` by configuration, or the only one of amount 0.

    A product's plans are the same one, by another interval. A doubt is reported, and what was
    `held` so far stays.
    """
    costless = sorted(
        (plan for plan in plans.values() if plan.active and not plan.amount),
        key=lambda plan: (len(plan.id), plan.id),
    )
    if chosen:
        if any(plan.id == chosen for plan in costless):
            return chosen
        faults.append(f"billing.free_plan: {chosen} is no plan that is offered for 0")
        return held
    products = list({plan.product_id: plan.id for plan in reversed(costless)}.values())
    if len(products) > 1:
        named = ", ".join(sorted(products))
        faults.append(f"several plans cost nothing: name one of {named} in billing.free_plan")
        return held
    return products[0] if products else held


def _plain(key: str) -> str:
    """Return the letters of a metadata key, so that spellings of one name compare equal."""
    return "".join(letter for letter in key.lower() if letter.isalnum())


def _active(found: Json) -> bool:
    return found.get("active") is True


def _metadata(found: Json) -> dict[str, str]:
    metadata = found.get("metadata")
    return {k: _text(v) for k, v in metadata.items()} if isinstance(metadata, dict) else {}


def _whole(value: object) -> int | None:
    return value if type(value) is int else None


def _text(value: object) -> str:
    """Return a text as Postgres can keep it: no NUL, no half of a surrogate pair."""
    found = value if isinstance(value, str) else ""
    return found.replace("\0", "").encode(errors="replace").decode()


def _say(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)[:200]


def _told(place: Place) -> str:
    return place.plan_id if place.offered else f"{place.plan_id}, not offered"
