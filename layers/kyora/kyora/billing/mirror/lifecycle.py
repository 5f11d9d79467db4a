"""What follows from a subscription's change: announcements, and the workspace's access settled.

A transition (paused, resumed, paid again) is between two states of our mirror, which only moves
with Stripe's. So each is seen once, whatever order the events came in.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, cast

from kyora import limits
from kyora.billing import access, announce, event_store, stripe_objects
from kyora.billing.ordering import moment
from kyora.billing.stripe_objects import TERMINAL, StripeSubscription
from kyora.postgres import Transaction

_OVERDUE = ("past_due", "unpaid")
_STARTING = timedelta(days=1)  # an unpaid subscription expires 23 hours after its creation

type Row = dict[str, Any]


# What has been announced of subscription `:id`, as columns of its row.
ANNOUNCED = (
    "EXISTS (SELECT 1 FROM billing_fact WHERE key = 'activated:' || s.id) AS announced,"
    " EXISTS (SELECT 1 FROM billing_fact WHERE key = 'trial_unnamed:' || s.id) AS unnamed"
)
# What `conclude` needs of a subscription `s` at plan `p`.
_STATE = f"""
SELECT s.id, s.status, s.plan_id, s.cancel_at, s.ended_at, s.began_at, s.entitled, p.name,
    {ANNOUNCED}
FROM subscription s LEFT JOIN plan p ON p.id = s.plan_id WHERE s.id = :id
"""


def conclude(
    tx: Transaction,
    customer: Row,
    subscription_id: str,
    happened: datetime,
    row: Row | None = None,
) -> None:
    """Announce that a subscription began or ended, and settle its workspace's access.

    The customer is locked. `row` is what `_STATE` would read, if that is known already. An old
    subscription that we hear of late began when it was created, so no mail is due.
    """
    workspace_id = customer["workspace_id"]
    if not workspace_id:
        return
    row = row or tx.row(_STATE, id=subscription_id)
    said = False
    # Without a plan there is nothing to name: announced once the plan is known.
    if row and row["entitled"] and row["plan_id"]:
        data = {
            "subscriptionId": row["id"],
            "planId": row["plan_id"],
            "planName": row["name"] or row["plan_id"],
            "status": row["status"],
        }
        begun = {**data, "accessUntil": row["cancel_at"]}
        began = min(happened, cast("datetime", row["began_at"]) + _STARTING)
        if not row["announced"]:  # most events are about one that was announced long ago
            announce.first(
                tx, f"activated:{row['id']}", "SubscriptionActivated", begun, workspace_id, began
            )
            said = True
            limits.begin(tx, workspace_id)  # with its first subscription it has no row yet
            if row["unnamed"]:
                _announce_trial_ends(tx, customer, subscription_id)
        if row["status"] in TERMINAL:
            over = row["ended_at"] if isinstance(row["ended_at"], datetime) else happened
            said |= announce.once(
                tx, f"cancelled:{row['id']}", "SubscriptionCancelled", data, workspace_id, over
            )
    access.settle(tx, workspace_id, quiet=said)


def announce_change(
    tx: Transaction,
    workspace_id: str | None,
    before: Mapping[str, Any],
    found: StripeSubscription,
    happened: datetime,
) -> None:
    """Announce a transition of a subscription; `before` is our row before it was written."""
    if workspace_id is None or (change := _transition(before, found)) is None:
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
    key = f"turn:{change}:{found.id}:{int(happened.timestamp())}"
    match change:
        case "paused":
            data |= {"resumeAt": row["resume_at"], "reason": found.paused_for}
            announce.once(tx, key, "SubscriptionPaused", data, workspace_id, happened)
        case "recovered":
            announce.once(tx, key, "PaymentRecovered", data, workspace_id, happened)
        case "resumed":
            announce.once(tx, key, "SubscriptionResumed", data, workspace_id, happened)


def _transition(before: Mapping[str, Any], found: StripeSubscription) -> str | None:
    was = before.get("status")
    failing = was in _OVERDUE or (was == "paused" and before.get("grace_since") is not None)
    if found.status == "paused" and was != "paused":
        return "paused"
    if found.status != "active" or was is None:
        return None
    if failing:
        return "recovered"
    return "resumed" if was == "paused" else None


def announce_trial_end(
    tx: Transaction, customer: Row, found: StripeSubscription, happened: datetime
) -> None:
    """Announce the coming end of a trial; without a known plan, note that it is to be announced."""
    if not (customer["workspace_id"] and found.trial_end):
        return
    row = tx.row(
        "SELECT p.name FROM subscription s JOIN plan p ON p.id = s.plan_id WHERE s.id = :id",
        id=found.id,
    )
    if row is None:
        announce.note(tx, f"trial_unnamed:{found.id}")
        return
    announce.once(
        tx,
        f"trial_ending:{found.id}:{int(found.trial_end.timestamp())}",
        "TrialEnding",
        {"subscriptionId": found.id, "planName": row["name"], "trialEnd": found.trial_end},
        customer["workspace_id"],
        happened,
    )


def _announce_trial_ends(tx: Transaction, customer: Row, subscription_id: str) -> None:
    """Announce the trial's end that was heard of before the plan was known.

    No index serves this query: only call it for a subscription that has such events.
    """
    for event in event_store.kept_of(tx, subscription_id, "customer.subscription.trial_will_end"):
        announce_trial_end(
            tx, customer, stripe_objects.subscription(event.object), moment(event.created)
        )
