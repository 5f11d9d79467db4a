"""What a subscription's change of status tells people: paused, resumed, paid again.

A transition is between two states of our mirror, which only moves with Stripe's: each is seen once,
whatever order the events came in.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from kyora.billing import facts
from kyora.billing.normalise import Subscription
from kyora.postgres import Transaction

_OVERDUE = ("past_due", "unpaid")


def announce(
    tx: Transaction,
    workspace_id: str | None,
    before: Mapping[str, Any],
    found: Subscription,
    happened: datetime,
) -> None:
    """Announce what a subscription has turned into; `before` is our row of before the change."""
    if workspace_id is None or (turn := _turn(before, found)) is None:
        return
    row = tx.row(
        "SELECT s.plan_id, p.name, t.resume_at FROM subscription s"
        " LEFT JOIN plan p ON p.id = s.plan_id"
        " LEFT JOIN subscription_terms t ON t.subscription_id = s.id WHERE s.id = :id",
        id=found.id,
    )
    if row is None or not row["plan_id"]:
        return
    data: dict[str, object] = {
        "subscriptionId": found.id,
        "planId": row["plan_id"],
        "planName": row["name"] or row["plan_id"],
    }
    key = f"turn:{turn}:{found.id}:{int(happened.timestamp())}"
    match turn:
        case "paused":
            data |= {"resumeAt": row["resume_at"], "reason": found.paused_for}
            facts.announce(tx, key, "SubscriptionPaused", data, workspace_id, happened)
        case "recovered":
            facts.announce(tx, key, "PaymentRecovered", data, workspace_id, happened)
        case "resumed":
            facts.announce(tx, key, "SubscriptionResumed", data, workspace_id, happened)


def _turn(before: Mapping[str, Any], found: Subscription) -> str | None:
    was = before.get("status")
    failing = was in _OVERDUE or (was == "paused" and before.get("grace_since") is not None)
    if found.status == "paused" and was != "paused":
        return "paused"
    if found.status != "active" or was is None:
        return None
    if failing:
        return "recovered"
    return "resumed" if was == "paused" else None
