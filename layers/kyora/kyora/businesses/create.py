"""Open a business."""

from typing import Any

from kyora import idempotency
from kyora.auth import Principal
from kyora.businesses.models import Business, NewBusiness
from kyora.ids import new_id
from kyora.limits import enforce_plan_limit
from kyora.postgres import Transaction, transaction


def create(who: Principal, wanted: NewBusiness, idempotency_key: str = "") -> Business:
    """Open a business. A repeated key gets the first answer, even if the plan is now used up.

    Raises Forbidden for users other than admins, Forbidden `billing.limit_reached`, and what
    `idempotency.once` raises.
    """
    who.require("admin")

    def produce() -> dict[str, Any]:
        row = _insert(tx, who.workspace_id, wanted)
        return Business.model_validate(row).model_dump(mode="json", by_alias=True)

    with transaction() as tx:
        body = idempotency.asked(who.user_id, wanted.model_dump(mode="json", by_alias=True))
        answer = idempotency.once(
            tx, who.workspace_id, "create_business", idempotency_key, body, produce
        )
    return Business.model_validate(answer)


@enforce_plan_limit("maxBusinesses")
def _insert(tx: Transaction, workspace_id: str, wanted: NewBusiness) -> dict[str, object]:
    row = tx.row(
        "INSERT INTO business (id, workspace_id, name, currency)"
        " VALUES (:id, :workspace_id, :name, :currency)"
        " RETURNING id AS business_id, name, currency, created_at",
        id=new_id("biz"),
        workspace_id=workspace_id,
        name=wanted.name,
        currency=wanted.currency,
    )
    return row or {}
