"""By hand (`make bind`): link a customer that was created at Stripe to its workspace."""

import re
from collections.abc import Mapping
from typing import Any

from kyora.billing import stripe_objects
from kyora.billing.events import resync
from kyora.errors import Invalid
from kyora.postgres import transaction


def bind(asked: object) -> dict[str, Any]:
    """Link a customer to a workspace: `{"customer": "cus_…", "workspace": "ws_…"}`.

    A subscription's id stands for its customer. If the workspace has a customer already, the
    subscriptions of both count. Returns the `customer` and the workspace's access. Raises
    Invalid, and as `stripe_client.call` does.
    """
    from kyora.billing import stripe_client

    given = asked if isinstance(asked, Mapping) else {}
    name, whose = str(given.get("customer", "")), str(given.get("workspace", ""))
    if not re.fullmatch(r"(cus|sub)_[A-Za-z0-9_]{1,250}", name):
        raise Invalid("`customer` is an id of Stripe's: cus_…, or sub_… for its customer")
    try:
        if name.startswith("sub_"):
            sub = stripe_client.call("get", f"subscriptions/{name}").object
            name = stripe_objects.subscription(sub).customer
        found = stripe_objects.customer(stripe_client.call("get", f"customers/{name}").object)
    except stripe_client.Missing:
        raise Invalid(f"Stripe does not know {name}.") from None
    if found.deleted:
        raise Invalid(f"{name} is deleted at Stripe.")
    resync.bind(name, whose)
    # So that a mirror that is rebuilt from Stripe links it again.
    stripe_client.call("post", f"customers/{name}", metadata={"workspaceId": whose})
    for one in stripe_client.pages("subscriptions", customer=name, status="all"):
        resync.subscription(name, str(one["id"]))
    with transaction() as tx:
        row = tx.row(
            "SELECT access, plan_id FROM workspace_billing WHERE workspace_id = :id", id=whose
        )
    return {"customer": name, "workspace": whose, **(row or {"access": "free", "plan_id": None})}
