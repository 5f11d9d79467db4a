"""Products and prices."""

from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from local.stripe.core.errors import Refusal, invalid, required
from local.stripe.core.params import (
    Params,
    Reader,
    amount,
    boolean,
    decimal,
    integer,
    listing,
    mapping,
    merged,
    need,
    one_of,
    only,
    text,
    values,
)
from local.stripe.core.routes import delete, get, one, pages, post
from local.stripe.core.state import State
from local.stripe.core.views import Object, within

_PRODUCT: dict[str, Reader] = {
    "active": boolean,
    "default_price": text,
    "description": text,
    "images": lambda value, param: listing(value, param) or [],
    "marketing_features": lambda value, param: listing(value, param) or [],
    "name": text,
    "package_dimensions": mapping,
    "shippable": boolean,
    "statement_descriptor": text,
    "tax_code": text,
    "type": text,
    "unit_label": text,
    "url": text,
}
PRODUCT_CREATE = {*_PRODUCT, "id", "metadata", "default_price_data"} - {"default_price"}
PRODUCT_UPDATE = {*_PRODUCT, "metadata"} - {"type"}


def create_product(state: State, params: Params) -> Object:
    """POST /v1/products."""
    need(params, "name")
    name = text(params.get("id"), "id") or state.identify("prod_", 14)
    if name in state.objects:
        raise Refusal(400, "Product already exists.", code="resource_already_exists", param="id")
    made: Object = {
        "id": name,
        "object": "product",
        "active": True,
        "created": state.now,
        "default_price": None,
        "description": None,
        "images": [],
        "livemode": False,
        "marketing_features": [],
        "metadata": merged({}, params),
        "name": "",
        "package_dimensions": None,
        "shippable": None,
        "statement_descriptor": None,
        "tax_code": None,
        "type": "service",
        "unit_label": None,
        "updated": state.now,
        "url": None,
    }
    state.add(made | values(params, _PRODUCT))
    found = state.get(name)
    state.emit("product.created", found)
    if inside := mapping(params.get("default_price_data"), "default_price_data"):
        price = create_price(state, {**inside, "product": name})
        state.change(found, default_price=price["id"])
    return found


def update_product(state: State, params: Params, name: str) -> Object:
    """POST /v1/products/{id}."""
    found = state.find("product", name)
    if wanted := text(params.get("default_price"), "default_price"):
        price = state.find("price", wanted, "default_price")
        if price["product"] != name:
            raise invalid(f"The price specified does not belong to {name}.", "default_price")
    fields = values(params, _PRODUCT) | {"metadata": merged(found["metadata"], params)}
    if any(found[field] != value for field, value in fields.items()):
        state.change(found, **fields, updated=state.now)
    return found


def delete_product(state: State, params: Params, name: str) -> Object:
    """DELETE /v1/products/{id}: only one without prices can go."""
    found = state.find("product", name)
    if any(price["product"] == name for price in state.all("price")):
        raise Refusal(
            400,
            "This product cannot be deleted because it has one or more user-created prices.",
        )
    found["_deleted"] = True
    state.emit("product.deleted", found)
    return {"id": name, "object": "product", "deleted": True}


def list_products(state: State, params: Params) -> list[Object]:
    """GET /v1/products."""
    ids = listing(params.get("ids"), "ids")
    active = boolean(params.get("active"), "active")
    return [
        item
        for item in state.all("product")
        if (ids is None or item["id"] in ids)
        and (active is None or item["active"] == active)
        and within(item["created"], params.get("created"), "created")
    ]


# ---- prices

_TAX = one_of("exclusive", "inclusive", "unspecified")
PRICE_CREATE = {
    *("currency", "active", "billing_scheme", "currency_options", "custom_unit_amount"),
    *("lookup_key", "metadata", "nickname", "product", "product_data", "recurring", "tax_behavior"),
    *("tiers", "tiers_mode", "transfer_lookup_key", "transform_quantity", "unit_amount"),
    "unit_amount_decimal",
}
PRICE_UPDATE = {
    *("active", "currency_options", "lookup_key", "metadata", "nickname", "tax_behavior"),
    "transfer_lookup_key",
}


def create_price(state: State, params: Params) -> Object:
    """POST /v1/prices."""
    currency = str(need(params, "currency")).lower()
    if not (len(currency) == 3 and currency.isalpha()):
        raise invalid(f"Invalid currency: {currency}.", "currency")
    scheme = one_of("per_unit", "tiered")(params.get("billing_scheme"), "billing_scheme")
    tiers = [_tier(tier) for tier in listing(params.get("tiers"), "tiers") or []]
    unit, exact = _unit(params)
    if scheme == "tiered" and not tiers:
        raise required("tiers")
    if scheme != "tiered" and exact is None:
        raise required("unit_amount")
    key = _claim(state, params, "")
    product = _product(state, params)
    made: Object = {
        "id": state.identify("price_1"),
        "object": "price",
        "active": boolean(params.get("active", True), "active"),
        "billing_scheme": scheme or "per_unit",
        "created": state.now,
        "currency": currency,
        "currency_options": _options(params, currency, unit, exact),
        "custom_unit_amount": None,
        "livemode": False,
        "lookup_key": key,
        "metadata": merged({}, params),
        "nickname": text(params.get("nickname"), "nickname"),
        "product": product,
        "recurring": _recurring(params),
        "tax_behavior": _TAX(params.get("tax_behavior"), "tax_behavior") or "unspecified",
        "tiers": tiers or None,
        "tiers_mode": text(params.get("tiers_mode"), "tiers_mode"),
        "transform_quantity": mapping(params.get("transform_quantity"), "transform_quantity"),
        "type": "recurring" if params.get("recurring") else "one_time",
        "unit_amount": unit,
        "unit_amount_decimal": exact,
    }
    state.add(made)
    state.emit("price.created", made)
    return made


def inline_price(state: State, data: Params) -> Object:
    """Create a price that a request describes inline; it is not offered to others."""
    made = create_price(state, {**data, "active": False})
    made["_inline"] = True
    return made


def update_price(state: State, params: Params, name: str) -> Object:
    """POST /v1/prices/{id}: amounts and intervals never change."""
    found = state.find("price", name)
    readers: dict[str, Reader] = {"active": boolean, "nickname": text, "tax_behavior": _TAX}
    fields = values(params, readers) | {"metadata": merged(found["metadata"], params)}
    if fields.get("active") is False and state.get(found["product"])["default_price"] == name:
        raise Refusal(
            400,
            "This price cannot be archived because it is the default price of its product.",
            param="active",
        )
    if "currency_options" in params:
        more = _options(params, found["currency"], None, None)
        more.pop(found["currency"])
        found["currency_options"] = found["currency_options"] | more
    if "lookup_key" in params:
        fields["lookup_key"] = _claim(state, params, name)
    state.change(found, **fields)
    return found


def list_prices(state: State, params: Params) -> list[Object]:
    """GET /v1/prices."""
    keys = listing(params.get("lookup_keys"), "lookup_keys")
    active = boolean(params.get("active"), "active")
    recurring = mapping(params.get("recurring"), "recurring") or {}
    return [
        item
        for item in state.all("price")
        if (keys is None or item["lookup_key"] in keys)
        and (active is None or item["active"] == active)
        and params.get("product") in (None, "", item["product"])
        and params.get("currency") in (None, "", item["currency"])
        and params.get("type") in (None, "", item["type"])
        and all((item["recurring"] or {}).get(field) == v for field, v in recurring.items())
        and within(item["created"], params.get("created"), "created")
    ]


def _unit(params: Params) -> tuple[int | None, str | None]:
    unit = amount(params.get("unit_amount"), "unit_amount")
    if unit is not None:
        return unit, str(unit)
    exact = decimal(params.get("unit_amount_decimal"), "unit_amount_decimal")
    return (int(exact) if exact is not None and exact.isdecimal() else None), exact


def _product(state: State, params: Params) -> str:
    if inside := mapping(params.get("product_data"), "product_data"):
        return str(create_product(state, inside)["id"])
    return str(state.find("product", need(params, "product"), "product")["id"])


def _recurring(params: Params) -> Object | None:
    given = mapping(params.get("recurring"), "recurring")
    if given is None:
        return None
    only(given, {"interval", "interval_count", "usage_type", "meter"}, "recurring")
    interval = one_of("day", "week", "month", "year")(given.get("interval"), "recurring[interval]")
    if interval is None:
        raise required("recurring[interval]")
    count = integer(given.get("interval_count", 1), "recurring[interval_count]") or 1
    if not 1 <= count <= {"day": 1095, "week": 156, "month": 36, "year": 3}[interval]:
        raise invalid("Invalid interval_count.", "recurring[interval_count]")
    return {
        "interval": interval,
        "interval_count": count,
        "meter": text(given.get("meter"), "recurring[meter]"),
        "trial_period_days": None,
        "usage_type": text(given.get("usage_type"), "recurring[usage_type]") or "licensed",
    }


def _tier(given: Any) -> Object:
    tier = mapping(given, "tiers") or {}
    unit, exact = _unit(tier)
    flat = amount(tier.get("flat_amount"), "tiers[flat_amount]")
    top = tier.get("up_to")
    return {
        "flat_amount": flat,
        "flat_amount_decimal": None if flat is None else str(flat),
        "unit_amount": unit,
        "unit_amount_decimal": exact,
        "up_to": None if top in (None, "inf") else integer(top, "tiers[up_to]"),
    }


def _options(params: Params, currency: str, unit: int | None, exact: str | None) -> Object:
    base = {"custom_unit_amount": None, "tax_behavior": "unspecified"}
    found: Object = {currency: base | {"unit_amount": unit, "unit_amount_decimal": exact}}
    for name, given in (mapping(params.get("currency_options"), "currency_options") or {}).items():
        other, decimals = _unit(mapping(given, f"currency_options[{name}]") or {})
        found[name] = base | {"unit_amount": other, "unit_amount_decimal": decimals}
    return found


def _claim(state: State, params: Params, name: str) -> str | None:
    """Take a lookup key, from another price only if the request says so."""
    key = text(params.get("lookup_key"), "lookup_key")
    holder = next((p for p in state.all("price") if key and p["lookup_key"] == key), None)
    if holder is None or holder["id"] == name:
        return key
    if not boolean(params.get("transfer_lookup_key"), "transfer_lookup_key"):
        raise invalid(f"A price (`{holder['id']}`) already uses that lookup key.", "lookup_key")
    state.change(holder, lookup_key=None)
    return key


def cost(price: Object, quantity: int) -> int:
    """Return what a quantity of a price costs, in minor units, rounded half up."""
    if price["billing_scheme"] != "tiered":
        return whole(Decimal(price["unit_amount_decimal"]) * quantity)
    total, below = Decimal(0), 0
    for tier in price["tiers"]:
        top = tier["up_to"]
        last = top is None or quantity <= top
        part = quantity if price["tiers_mode"] == "volume" else min(quantity, top or quantity)
        if price["tiers_mode"] != "volume" or last:
            unit = Decimal(tier["unit_amount_decimal"] or 0)
            total += (tier["flat_amount"] or 0) + unit * (part - below)
        if last:
            break
        below = top if price["tiers_mode"] != "volume" else 0
    return whole(total)


def whole(exact: Decimal) -> int:
    """Round to a whole number, half away from zero."""
    return int(exact.quantize(Decimal(1), ROUND_HALF_UP))


ROUTES = (
    post("/v1/products", create_product, *PRODUCT_CREATE),
    pages("/v1/products", list_products, "active", "ids", "type", "url"),
    get("/v1/products/{}", one("product")),
    post("/v1/products/{}", update_product, *PRODUCT_UPDATE),
    delete("/v1/products/{}", delete_product),
    post("/v1/prices", create_price, *PRICE_CREATE),
    pages(
        "/v1/prices",
        list_prices,
        *("active", "lookup_keys", "product", "currency", "type", "recurring"),
    ),
    get("/v1/prices/{}", one("price")),
    post("/v1/prices/{}", update_price, *PRICE_UPDATE),
)
