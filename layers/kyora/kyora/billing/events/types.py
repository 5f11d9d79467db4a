"""Stripe's event types that we act on, one a line, each with its handler.

Everything else that lists types derives from here: what `process` does, what is kept with its body,
what reconcile asks Stripe for, and what the endpoint must subscribe to (docs/billing.md, held by
tests/contract/test_stripe_events.py). Every other type is stored as ignored.
"""

from collections.abc import Callable, Mapping

from kyora.billing.mirror import customers, invoices, subscriptions
from kyora.billing.ordering import Attempt
from kyora.postgres import Transaction

# Events of the objects that we mirror; reconcile lists Stripe's events by these.
HANDLERS: Mapping[str, Callable[[Transaction, Attempt], None]] = {
    "checkout.session.completed": customers.on_checkout,
    "customer.deleted": customers.on_customer,
    "customer.subscription.created": subscriptions.on_subscription,
    "customer.subscription.deleted": subscriptions.on_subscription,
    "customer.subscription.paused": subscriptions.on_subscription,
    "customer.subscription.resumed": subscriptions.on_subscription,
    "customer.subscription.trial_will_end": subscriptions.on_subscription,
    "customer.subscription.updated": subscriptions.on_subscription,
    "customer.updated": customers.on_customer,
    "invoice.finalized": invoices.on_invoice,
    "invoice.marked_uncollectible": invoices.on_invoice,
    "invoice.paid": invoices.on_invoice,
    "invoice.payment_failed": invoices.on_invoice,
    "invoice.payment_succeeded": invoices.on_invoice,
    "invoice.voided": invoices.on_invoice,
    "payment_method.attached": customers.on_payment_method,
    "payment_method.automatically_updated": customers.on_payment_method,
    "payment_method.detached": customers.on_payment_method,
    "payment_method.updated": customers.on_payment_method,
    # Whatever else happens to a schedule shows in its subscription's own events as well.
    "subscription_schedule.updated": subscriptions.on_schedule,
}
# In one request (https://docs.stripe.com/api/events/list#list_events-types).
LISTED_AT_MOST = 20

# Events of the catalogue, all handled by `plans.sync.apply`: one read of Stripe's products and
# prices serves many of them. The hourly sync makes up for missed ones; reconcile does not.
CATALOGUE = frozenset(
    {
        "price.created",
        "price.deleted",
        "price.updated",
        "product.created",
        "product.deleted",
        "product.updated",
    }
)


def handled(kind: str) -> bool:
    """Return whether anything is done about events of this type."""
    return kind in HANDLERS or kind in CATALOGUE
