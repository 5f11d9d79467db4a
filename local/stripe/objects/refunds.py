"""Lists of charges, and refunds: in full or in part, never more than was paid."""

from local.stripe.core.errors import Refusal, invalid, required
from local.stripe.core.params import Params, amount, merged, text
from local.stripe.core.routes import get, one, pages, post
from local.stripe.core.state import State
from local.stripe.core.views import Object, within
from local.stripe.objects.invoices import money

_CREATE = ("charge", "payment_intent", "amount", "reason", "metadata")


def create(state: State, params: Params) -> Object:
    """POST /v1/refunds, of a charge or of a payment intent's."""
    charge = _charge(state, params)
    wanted = amount(params.get("amount"), "amount")
    made = refund(state, charge, wanted, text(params.get("reason"), "reason"))
    made["metadata"] = merged({}, params)
    return made


def _charge(state: State, params: Params) -> Object:
    if name := text(params.get("charge"), "charge"):
        return state.find("charge", name, "charge")
    name = text(params.get("payment_intent"), "payment_intent")
    if name is None:
        raise required("charge")
    intent = state.find("payment_intent", name, "payment_intent")
    if intent["status"] != "succeeded":
        raise invalid(
            f"This PaymentIntent ({name}) does not have a successful charge to refund.",
            "payment_intent",
        )
    return state.get(intent["latest_charge"])


def refund(state: State, charge: Object, wanted: int | None, reason: str | None) -> Object:
    """Refund a charge: all that remains, unless `wanted` says how much."""
    left = charge["amount_captured"] - charge["amount_refunded"]
    if charge["status"] != "succeeded":
        raise invalid("You cannot refund a charge that did not succeed.", "charge")
    if not left:
        raise Refusal(
            400,
            f"Charge {charge['id']} has already been refunded.",
            code="charge_already_refunded",
            param="charge",
        )
    given = left if wanted is None else wanted
    if not 0 < given <= left:
        raise invalid(
            f"Refund amount ({money(given, charge['currency'])}) is greater than unrefunded amount "
            f"on charge ({money(left, charge['currency'])})",
            "amount",
        )
    made: Object = {
        "id": state.identify("re_3"),
        "object": "refund",
        "amount": given,
        "balance_transaction": None,
        "charge": charge["id"],
        "created": state.now,
        "currency": charge["currency"],
        "customer": charge["customer"],
        "customer_account": None,
        "description": None,
        "destination_details": {
            "card": {
                "reference": None,
                "reference_status": "pending",
                "reference_type": "acquirer_reference_number",
                "type": "refund",
            },
            "type": "card",
        },
        "metadata": {},
        "payment_intent": charge["payment_intent"],
        "payment_method": charge["payment_method"],
        "reason": reason,
        "receipt_number": None,
        "source_transfer_reversal": None,
        "status": "succeeded",
        "transfer_reversal": None,
    }
    state.add(made)
    state.emit("refund.created", made)
    total = charge["amount_refunded"] + given
    fields = {"amount_refunded": total, "refunded": total == charge["amount_captured"]}
    state.change(charge, "charge.refunded", **fields)
    return made


def update(state: State, params: Params, name: str) -> Object:
    """POST /v1/refunds/{id}: metadata."""
    found = state.find("refund", name)
    state.change(found, metadata=merged(found["metadata"], params))
    return found


def list_refunds(state: State, params: Params) -> list[Object]:
    """GET /v1/refunds."""
    return [
        item
        for item in state.all("refund")
        if params.get("charge") in (None, "", item["charge"])
        and params.get("payment_intent") in (None, "", item["payment_intent"])
        and within(item["created"], params.get("created"), "created")
    ]


def list_charges(state: State, params: Params) -> list[Object]:
    """GET /v1/charges."""
    return [
        item
        for item in state.all("charge")
        if params.get("customer") in (None, "", item["customer"])
        and params.get("payment_intent") in (None, "", item["payment_intent"])
        and within(item["created"], params.get("created"), "created")
    ]


ROUTES = (
    pages("/v1/charges", list_charges, "customer", "payment_intent"),
    get("/v1/charges/{}", one("charge")),
    post("/v1/refunds", create, *_CREATE),
    pages("/v1/refunds", list_refunds, "charge", "payment_intent"),
    get("/v1/refunds/{}", one("refund")),
    post("/v1/refunds/{}", update, "metadata"),
)
