"""Update the mirror without an event: from a read, a decision of ours, or an object that is gone.

It writes as an event does: under the customer's lock, and a read is applied only if no one has
written about that customer since.
"""

from kyora import clock
from kyora.billing import access, event_store, stripe_objects
from kyora.billing.events import process
from kyora.billing.mirror import customers, invoices, lifecycle, plan_items, subscriptions
from kyora.billing.mirror.subscriptions import Seen
from kyora.billing.ordering import Ask, moment
from kyora.billing.stripe_objects import TERMINAL_SQL, StripeInvoice
from kyora.errors import Invalid, Unavailable
from kyora.postgres import transaction

_TRIES = 5  # times that another worker may write while Stripe is asked


def subscription(customer_id: str, subscription_id: str) -> bool:
    """Read a subscription from Stripe and mirror it; False when Stripe does not know it.

    For a caller that has just changed it, and for repairs. Raises as `stripe_client.call` does.
    """
    from kyora.billing import stripe_client

    for _ in range(_TRIES):
        with transaction() as tx:
            kept = tx.value(
                int, "SELECT version FROM billing_customer WHERE id = :id", id=customer_id
            )
        version = kept or 0  # it is not known yet
        try:
            answer = stripe_client.call(
                "get", f"subscriptions/{subscription_id}", expand=subscriptions.WHOLE
            )
        except stripe_client.Missing:
            return False
        try:
            with transaction() as tx:
                customer = customers.lock(tx, customer_id)
                if customer["version"] != version + 1:
                    raise Ask(version, 0)
                placed = plan_items.place(tx, stripe_objects.subscription(answer.object))
                found = placed.found
                if customers.bind(tx, customer, found.workspace):
                    tx.after_commit(process.catch_up, customer_id)
                before, seen = subscriptions.find(tx, found.id), moment(answer.as_of)
                state = subscriptions.write(tx, before, placed, Seen(answer.as_of))
                lifecycle.conclude(tx, customer, found.id, seen, state)
                lifecycle.announce_change(tx, customer["workspace_id"], before, found, seen)
        except Ask:
            continue
        return True
    raise Unavailable("Another request is writing this customer.", code="billing.busy")


def adopt(customer_id: str, workspace_id: str) -> None:
    """Link a customer to the workspace that it was created for."""
    with transaction() as tx:
        if customers.bind(tx, customers.lock(tx, customer_id), workspace_id):
            tx.after_commit(process.catch_up, customer_id)


def bind(customer_id: str, workspace_id: str) -> None:
    """Link a customer to a workspace by hand, even beside the customer that the workspace has.

    Raises Invalid when there is no such workspace, or the customer is another workspace's.
    """
    with transaction() as tx:
        customer = customers.lock(tx, customer_id)
        customers.one_by_one(tx, workspace_id)
        if not tx.row("SELECT 1 FROM workspace WHERE id = :id", id=workspace_id):
            raise Invalid(f"There is no workspace {workspace_id}.")
        if customer["workspace_id"] not in (None, workspace_id):
            raise Invalid(f"{customer_id} is {customer['workspace_id']}'s.")
        if customer["workspace_id"] is None:
            tx.run(
                "UPDATE billing_customer SET workspace_id = :workspace_id,"
                " beside = EXISTS (SELECT 1 FROM billing_customer"
                "   WHERE workspace_id = :workspace_id AND deleted_at IS NULL AND NOT beside)"
                " WHERE id = :id",
                id=customer_id,
                workspace_id=workspace_id,
            )
        if event_store.reopen(tx, customer_id):
            tx.after_commit(process.catch_up, customer_id)
        access.settle(tx, workspace_id)


def end_customer(customer_id: str) -> None:
    """Mark a customer as deleted: Stripe no longer knows it. Its workspace may get another one."""
    with transaction() as tx:
        customer = customers.lock(tx, customer_id)
        tx.run(
            "UPDATE billing_customer SET deleted_at = coalesce(deleted_at, now()) WHERE id = :id",
            id=customer_id,
        )
        if customer["workspace_id"]:
            access.settle(tx, customer["workspace_id"])


def end_subscription(customer_id: str, subscription_id: str) -> None:
    """Mark a subscription as canceled: Stripe no longer knows it."""
    with transaction() as tx:
        customer = customers.lock(tx, customer_id)
        tx.run(
            "UPDATE subscription SET status = 'canceled', ended_at = now(), cancel_at = NULL,"
            " grace_since = NULL, doubtful = false WHERE id = :id"
            f" AND status NOT IN {TERMINAL_SQL}",
            id=subscription_id,
        )
        lifecycle.conclude(tx, customer, subscription_id, clock.now())


def invoice(customer_id: str, found: StripeInvoice) -> bool:
    """Mirror an invoice that was read from Stripe; return whether it was newer than ours."""
    with transaction() as tx:
        customer = customers.lock(tx, customer_id)
        fresh = invoices.write(tx, found)
        if fresh:
            invoices.announce_paid(tx, customer, found, found.created_at)
            if customer["workspace_id"]:
                access.settle(tx, customer["workspace_id"])
    return fresh
