"""What a subscription's change of status tells people: paused, resumed, paid again.

A transition is between two states of our mirror, which only moves with Stripe's: each is seen once,
whatever order the events came in.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, cast

from kyora.billing import access, announce, event_store, stripe_objects
from kyora.billing.ordering import moment
from kyora.billing.stripe_objects import TERMINAL, Subscription
from kyora.postgres import Transaction

_OVERDUE = ("past_due", "unpaid")
_STARTING = timedelta(days=1)  # one that is not paid for within 23 hours of its creation expires

type Row = dict[str, Any]


def conclude(tx: Transaction, customer: Row, subscription_id: str, happened: datetime) -> None:
    """Announce what is true of a subscription by now, and settle what its workspace may do.

    An old subscription that we only now hear of began when it was created: no mail is due.
    """
    workspace_id = customer["workspace_id"]
    if not workspace_id:
        return
    row = tx.row(
        "SELECT s.id, s.status, s.plan_id, s.cancel_at, s.ended_at, s.began_at, s.entitled, p.name,"
        " EXISTS (SELECT 1 FROM billing_fact WHERE key = 'activated:' || s.id) AS told,"
        " EXISTS (SELECT 1 FROM billing_fact WHERE key = 'trial_unnamed:' || s.id) AS unnamed"
        " FROM subscription s LEFT JOIN plan p ON p.id = s.plan_id WHERE s.id = :id",
        id=subscription_id,
    )
    said = False
    # Without a plan there is nothing to name: said once the plan is known.
    if row and row["entitled"] and row["plan_id"]:
        data = {
            "subscriptionId": row["id"],
            "planId": row["plan_id"],
            "planName": row["name"] or row["plan_id"],
            "status": row["status"],
        }
        begun = {**data, "accessUntil": row["cancel_at"]}
        began = min(happened, cast("datetime", row["began_at"]) + _STARTING)
        if not row["told"]:  # most events are about one that was announced long ago
            said = announce.once(
                tx, f"activated:{row['id']}", "SubscriptionActivated", begun, workspace_id, began
            )
            if row["unnamed"]:
                _tell_trials(tx, customer, subscription_id)
        if row["status"] in TERMINAL:
            over = row["ended_at"] if isinstance(row["ended_at"], datetime) else happened
            said |= announce.once(
                tx, f"cancelled:{row['id']}", "SubscriptionCancelled", data, workspace_id, over
            )
    access.settle(tx, workspace_id, quiet=said)


def tell_transition(
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
            announce.once(tx, key, "SubscriptionPaused", data, workspace_id, happened)
        case "recovered":
            announce.once(tx, key, "PaymentRecovered", data, workspace_id, happened)
        case "resumed":
            announce.once(tx, key, "SubscriptionResumed", data, workspace_id, happened)


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


def tell_trial(tx: Transaction, customer: Row, found: Subscription, happened: datetime) -> None:
    """Announce the end of a trial; while there is no plan to name, note that it waits for one."""
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


def _tell_trials(tx: Transaction, customer: Row, subscription_id: str) -> None:
    """Announce the ends of trials that were heard of before the plan was known.

    No index helps to find those events, so this is only for a subscription that has any.
    """
    for event in event_store.kept_of(tx, subscription_id, "customer.subscription.trial_will_end"):
        tell_trial(tx, customer, stripe_objects.subscription(event.object), moment(event.created))
