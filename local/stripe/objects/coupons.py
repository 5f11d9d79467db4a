"""Coupons, the promotion codes that customers type, and the discounts they become.

A discount is of a subscription or of one invoice. A percentage is taken of every line and rounded
half up; a fixed amount is spread over the lines. Prorations are counted net of it, so that time
that was paid at half the price is credited at half the price.
"""

from decimal import Decimal
from typing import Any

from local.stripe.core.dates import boundary
from local.stripe.core.errors import Refusal, invalid, missing, required
from local.stripe.core.params import (
    Params,
    amount,
    boolean,
    integer,
    listing,
    mapping,
    merged,
    need,
    only,
    text,
    values,
)
from local.stripe.core.routes import delete, get, one, pages, post
from local.stripe.core.state import State
from local.stripe.core.views import Object, within
from local.stripe.objects.catalogue import whole

_COUPON = (
    *("id", "name", "percent_off", "amount_off", "currency", "duration", "duration_in_months"),
    *("max_redemptions", "redeem_by", "metadata", "applies_to"),
)
_CODE = (
    *("code", "promotion", "customer", "expires_at", "max_redemptions", "metadata", "active"),
    "restrictions",
)


# ---- coupons


def create_coupon(state: State, params: Params) -> Object:
    """POST /v1/coupons: a percentage, or an amount of one currency."""
    name = text(params.get("id"), "id") or state.random(8)
    if name in state.objects:
        raise Refusal(400, "Coupon already exists.", code="resource_already_exists", param="id")
    percent, off = params.get("percent_off"), amount(params.get("amount_off"), "amount_off")
    if (percent is None) == (off is None):
        raise invalid("You must pass either `percent_off` or `amount_off`.", "percent_off")
    if percent is not None and not 0 < Decimal(str(percent)) <= 100:
        raise invalid("`percent_off` must be greater than 0 and at most 100.", "percent_off")
    currency = text(params.get("currency"), "currency")
    if off is not None and currency is None:
        raise required("currency")
    duration = text(params.get("duration"), "duration") or "once"
    months = integer(params.get("duration_in_months"), "duration_in_months")
    if (duration == "repeating") != (months is not None):
        raise invalid(
            "`duration_in_months` is required if `duration` is repeating, and not allowed else.",
            "duration_in_months",
        )
    only(mapping(params.get("applies_to"), "applies_to") or {}, {"products"}, "applies_to")
    made: Object = {
        "id": name,
        "object": "coupon",
        "amount_off": off,
        "created": state.now,
        "currency": currency.lower() if currency else None,
        "duration": duration,
        "duration_in_months": months,
        "livemode": False,
        "max_redemptions": integer(params.get("max_redemptions"), "max_redemptions"),
        "metadata": merged({}, params),
        "name": text(params.get("name"), "name"),
        "percent_off": None if percent is None else float(percent),
        "redeem_by": integer(params.get("redeem_by"), "redeem_by"),
        "times_redeemed": 0,
        "valid": True,
    }
    if products := (mapping(params.get("applies_to"), "applies_to") or {}).get("products"):
        made["applies_to"] = {"products": [state.find("product", p)["id"] for p in products]}
    state.add(made)
    state.emit("coupon.created", made)
    return made


def update_coupon(state: State, params: Params, name: str) -> Object:
    """POST /v1/coupons/{id}: its name and metadata; what it takes off never changes."""
    found = state.find("coupon", name)
    fields = values(params, {"name": text})
    state.change(found, **fields, metadata=merged(found["metadata"], params))
    return found


def delete_coupon(state: State, params: Params, name: str) -> Object:
    """DELETE /v1/coupons/{id}: existing discounts stay."""
    found = state.find("coupon", name)
    if found.get("_deleted"):
        raise missing("coupon", name)
    found |= {"_deleted": True, "valid": False}
    state.emit("coupon.deleted", found)
    return {"id": name, "object": "coupon", "deleted": True}


def list_coupons(state: State, params: Params) -> list[Object]:
    """GET /v1/coupons."""
    created = params.get("created")
    return [c for c in state.all("coupon") if within(c["created"], created, "created")]


def _redeemable(state: State, coupon: Object) -> bool:
    spent = coupon["max_redemptions"] is not None
    spent = spent and coupon["times_redeemed"] >= coupon["max_redemptions"]
    over = coupon["redeem_by"] is not None and coupon["redeem_by"] <= state.now
    return not (spent or over or coupon.get("_deleted"))


# ---- promotion codes


def create_code(state: State, params: Params) -> Object:
    """POST /v1/promotion_codes."""
    promotion = mapping(need(params, "promotion"), "promotion") or {}
    param = "promotion[coupon]"
    coupon = state.find("coupon", promotion.get("coupon"), param)
    code = text(params.get("code"), "code") or state.random(8).upper()
    if any(c["active"] and c["code"].lower() == code.lower() for c in _codes(state)):
        raise invalid("An active promotion code with `code` already exists.", "code")
    customer = text(params.get("customer"), "customer")
    if customer:
        state.find("customer", customer, "customer")
    asked = mapping(params.get("restrictions"), "restrictions") or {}
    only(
        asked,
        {"first_time_transaction", "minimum_amount", "minimum_amount_currency"},
        "restrictions",
    )
    made: Object = {
        "id": state.identify("promo_1"),
        "object": "promotion_code",
        "active": boolean(params.get("active", True), "active") is not False,
        "code": code,
        "created": state.now,
        "customer": customer,
        "customer_account": None,
        "expires_at": integer(params.get("expires_at"), "expires_at"),
        "livemode": False,
        "max_redemptions": integer(params.get("max_redemptions"), "max_redemptions"),
        "metadata": merged({}, params),
        "promotion": {"coupon": coupon["id"], "type": "coupon"},
        "restrictions": {
            "first_time_transaction": False,
            "minimum_amount": None,
            "minimum_amount_currency": None,
        }
        | dict(asked),
        "times_redeemed": 0,
    }
    state.add(made)
    state.emit("promotion_code.created", made)
    return made


def update_code(state: State, params: Params, name: str) -> Object:
    """POST /v1/promotion_codes/{id}."""
    found = state.find("promotion_code", name)
    fields = values(params, {"active": boolean})
    state.change(found, **fields, metadata=merged(found["metadata"], params))
    return found


def list_codes(state: State, params: Params) -> list[Object]:
    """GET /v1/promotion_codes."""
    active = boolean(params.get("active"), "active")
    return [
        item
        for item in _codes(state)
        if (active is None or item["active"] == active)
        and params.get("code") in (None, "", item["code"])
        and params.get("coupon") in (None, "", item["promotion"]["coupon"])
        and params.get("customer") in (None, "", item["customer"])
        and within(item["created"], params.get("created"), "created")
    ]


def _codes(state: State) -> list[Object]:
    return state.all("promotion_code")


def by_code(state: State, code: str) -> Object:
    """Return the active promotion code that a customer has typed, or refuse."""
    for found in _codes(state):
        if found["code"].lower() == code.strip().lower() and found["active"]:
            return found
    raise invalid("This promotion code is invalid.", "promotion_code")


def _take(state: State, code: Object, customer: Object, param: str) -> Object:
    """Return the coupon of a promotion code, refusing one that this customer cannot use."""
    limit = code["max_redemptions"]
    over = code["expires_at"] is not None and code["expires_at"] <= state.now
    spent = limit is not None and code["times_redeemed"] >= limit
    if not code["active"] or over or spent or code["customer"] not in (None, customer["id"]):
        raise invalid("This promotion code cannot be redeemed.", param)
    paid = (i["customer"] == customer["id"] and i["amount_paid"] for i in state.all("invoice"))
    if code["restrictions"]["first_time_transaction"] and any(paid):
        raise invalid(
            "This promotion code cannot be redeemed because the associated customer has prior "
            "transactions.",
            param,
        )
    return state.find("coupon", code["promotion"]["coupon"])


# ---- discounts


def read(
    state: State, params: Params, customer: Object, *, subscription: str | None, currency: str
) -> list[Object]:
    """Return the discounts that `discounts` asks for; new ones are not stored yet."""
    found = []
    for number, given in enumerate(listing(params.get("discounts"), "discounts") or []):
        param = f"discounts[{number}]"
        inside = mapping(given, param) or {}
        if name := text(inside.get("discount"), f"{param}[discount]"):
            found.append(state.find("discount", name, f"{param}[discount]"))
            continue
        code = None
        if wanted := text(inside.get("promotion_code"), f"{param}[promotion_code]"):
            code = state.find("promotion_code", wanted, f"{param}[promotion_code]")
            coupon = _take(state, code, customer, f"{param}[promotion_code]")
        else:
            coupon = state.find("coupon", need(inside, "coupon"), f"{param}[coupon]")
        if not _redeemable(state, coupon):
            raise Refusal(
                400,
                f"Coupon {coupon['id']} is expired and cannot be applied.",
                code="coupon_expired",
                param=f"{param}[coupon]",
            )
        if coupon["currency"] not in (None, currency):
            raise invalid(
                f"The coupon's currency ({coupon['currency']}) does not match ({currency}).",
                f"{param}[coupon]",
            )
        found.append(_discount(state, coupon, code, customer, subscription))
    return found


def _discount(
    state: State, coupon: Object, code: Object | None, customer: Object, subscription: str | None
) -> Object:
    months = coupon["duration_in_months"]
    return {
        "id": state.identify("di_1"),
        "object": "discount",
        "checkout_session": None,
        "customer": customer["id"],
        "customer_account": None,
        "end": boundary(state.now, "month", months, 1) if months else None,
        "invoice": None,
        "invoice_item": None,
        "promotion_code": code["id"] if code else None,
        "source": {"coupon": coupon["id"], "type": "coupon"},
        "start": state.now,
        "subscription": subscription,
        "subscription_item": None,
    }


def redeem(state: State, discounts: list[Object]) -> list[str]:
    """Store new discounts and count their coupons' redemptions; return all ids."""
    for discount in discounts:
        if discount["id"] in state.objects:
            continue
        state.add(discount)
        coupon = state.get(discount["source"]["coupon"])
        coupon["times_redeemed"] += 1
        coupon["valid"] = _redeemable(state, coupon)
        if discount["promotion_code"]:
            state.get(discount["promotion_code"])["times_redeemed"] += 1
        if discount["subscription"]:
            state.emit("customer.discount.created", discount)
    return [discount["id"] for discount in discounts]


def drop(state: State, names: list[str]) -> None:
    """Emit the removal of a subscription's former discounts."""
    for name in names:
        state.emit("customer.discount.deleted", state.get(name))


def remove(state: State, params: Params, name: str) -> Object:
    """DELETE /v1/subscriptions/{id}/discount."""
    sub = state.find("subscription", name)
    if not sub["discounts"]:
        raise missing("discount", name)
    gone, kept = sub["discounts"][-1], sub["discounts"][:-1]
    state.change(sub, discounts=kept)
    drop(state, [gone])
    return {**state.get(gone), "deleted": True}


def active(state: State, names: list[str]) -> list[Object]:
    """Return the discounts that still apply."""
    found = map(state.get, names)
    return [each for each in found if each["end"] is None or each["end"] > state.now]


def used(state: State, sub: Object) -> None:
    """After an invoice, remove a subscription's discounts that were for once or have ended."""
    kept = [
        discount["id"]
        for discount in active(state, sub["discounts"])
        if state.get(discount["source"]["coupon"])["duration"] != "once"
    ]
    gone = [name for name in sub["discounts"] if name not in kept]
    sub["_paid_with"] = list(sub["discounts"])
    if gone:
        sub["discounts"] = kept
        drop(state, gone)


def spread(state: State, lines: list[Object], discounts: list[Object]) -> list[Object]:
    """Apply discounts to lines; return `total_discount_amounts`."""
    totals = []
    for discount in discounts:
        coupon = state.get(discount["source"]["coupon"])
        fit = [line for line in lines if line["discountable"] and _applies(coupon, line)]
        left = {line["id"]: line["amount"] - _taken(line) for line in fit}
        shares = _shares(coupon, left)
        for line in fit:
            one_of_them = {"amount": shares[line["id"]], "discount": discount["id"]}
            line["discount_amounts"] = [*line["discount_amounts"], one_of_them]
            line["discounts"] = [*line["discounts"], discount["id"]]
        totals.append({"amount": sum(shares.values()), "discount": discount["id"]})
    return totals


def _taken(line: Object) -> int:
    return sum(int(each["amount"]) for each in line["discount_amounts"])


def _applies(coupon: Object, line: Object) -> bool:
    products = (coupon.get("applies_to") or {}).get("products")
    details = (line["pricing"] or {}).get("price_details") or {}
    return line["amount"] > 0 and (not products or details.get("product") in products)


def _shares(coupon: Object, left: dict[str, int]) -> dict[str, int]:
    if coupon["percent_off"] is not None:
        part = Decimal(str(coupon["percent_off"])) / 100
        return {name: whole(value * part) for name, value in left.items()}
    total = sum(left.values())
    off = min(int(coupon["amount_off"]), total)
    shares = {name: off * value // total if total else 0 for name, value in left.items()}
    for name in list(shares)[-1:]:
        shares[name] += off - sum(shares.values())
    return shares


def net(state: State, item: Object, full: int, *, credit: bool) -> int:
    """Return the net amount of a proration: a credit is at the price that was paid."""
    sub = state.objects.get(item["subscription"])
    if sub is None or not full:
        return full
    names = sub.get("_paid_with", []) if credit else sub["discounts"]
    running: list[Any] = list(map(state.get, names)) if credit else active(state, names)
    value = Decimal(full)
    for discount in running:
        coupon = state.get(discount["source"]["coupon"])
        if coupon["percent_off"] is not None:
            value *= 1 - Decimal(str(coupon["percent_off"])) / 100
    return whole(value)


ROUTES = (
    post("/v1/coupons", create_coupon, *_COUPON),
    pages("/v1/coupons", list_coupons),
    get("/v1/coupons/{}", one("coupon")),
    post("/v1/coupons/{}", update_coupon, "name", "metadata"),
    delete("/v1/coupons/{}", delete_coupon),
    post("/v1/promotion_codes", create_code, *_CODE),
    pages("/v1/promotion_codes", list_codes, "active", "code", "coupon", "customer"),
    get("/v1/promotion_codes/{}", one("promotion_code")),
    post("/v1/promotion_codes/{}", update_code, "active", "metadata"),
    delete("/v1/subscriptions/{}/discount", remove),
)
