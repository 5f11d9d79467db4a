"""What reaches the mirror without an event: read from Stripe, decided here, or known to be over.

It writes as an event does: under the customer's lock, and what was read only if nobody wrote about
that customer since.
"""

from datetime import UTC, datetime

from kyora.billing import access, event_store, stripe_objects
from kyora.billing.events import process
from kyora.billing.mirror import customers, invoices, lifecycle, subscriptions
from kyora.billing.mirror.subscriptions import Seen
from kyora.billing.ordering import Ask, moment
from kyora.billing.stripe_objects import Invoice
from kyora.errors import Invalid, Unavailable
from kyora.postgres import transaction

_TURNS = 5  # times that somebody else may write while Stripe is asked


def subscription(customer_id: str, subscription_id: str) -> bool:
    """Read a subscription from Stripe and mirror it; False when Stripe does not know it.

    For whoever has just changed it, and for repairs. Raises as `stripe_client.call` does.
    """
    from kyora.billing import stripe_client

    for _ in range(_TURNS):
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
                found = stripe_objects.subscription(answer.object)
                if customers.bind(tx, customer, found.workspace):
                    tx.after_commit(process.catch_up, customer_id)
                before, seen = subscriptions.find(tx, found.id), moment(answer.as_of)
                subscriptions.write(tx, before, found, Seen(answer.as_of))
                lifecycle.conclude(tx, customer, found.id, seen)
                lifecycle.tell_transition(tx, customer["workspace_id"], before, found, seen)
        except Ask:
            continue
        return True
    raise Unavailable("Others write about this customer.", code="billing.busy")


def adopt(customer_id: str, workspace_id: str) -> None:
    """Note the workspace that a customer was made for. Its version counts up."""
    with transaction() as tx:
        if customers.bind(tx, customers.lock(tx, customer_id), workspace_id):
            tx.after_commit(process.catch_up, customer_id)


def bind(customer_id: str, workspace_id: str) -> None:
    """Give a customer to a workspace by hand, also beside the one that the workspace has.

    Raises Invalid when there is no such workspace, or it is another one's.
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
    """Note that Stripe does not know a customer any more. Its workspace may get another one."""
    with transaction() as tx:
        customer = customers.lock(tx, customer_id)
        tx.run(
            "UPDATE billing_customer SET deleted_at = coalesce(deleted_at, now()) WHERE id = :id",
            id=customer_id,
        )
        if customer["workspace_id"]:
            access.settle(tx, customer["workspace_id"])


def end_subscription(customer_id: str, subscription_id: str) -> None:
    """Note that Stripe does not know a subscription any more: it is over."""
    with transaction() as tx:
        customer = customers.lock(tx, customer_id)
        tx.run(
            "UPDATE subscription SET status = 'canceled', ended_at = now(), cancel_at = NULL,"
            " grace_since = NULL, doubtful = false WHERE id = :id"
            " AND status NOT IN ('canceled', 'incomplete_expired')",
            id=subscription_id,
        )
        lifecycle.conclude(tx, customer, subscription_id, datetime.now(UTC))


def invoice(customer_id: str, found: Invoice) -> bool:
    """Mirror an invoice that was read from Stripe; tell whether it was news."""
    with transaction() as tx:
        customer = customers.lock(tx, customer_id)
        fresh = invoices.write(tx, found)
        if fresh:
            invoices.tell_paid(tx, customer, found, found.created_at)
            if customer["workspace_id"]:
                access.settle(tx, customer["workspace_id"])
    return fresh
