"""Stripe's event types that something is done about, and what does it."""

from collections.abc import Callable

from kyora.billing.mirror import customers, invoices, subscriptions
from kyora.billing.ordering import Turn
from kyora.postgres import Transaction

SUBSCRIPTION = frozenset(
    f"customer.subscription.{what}"
    for what in ("created", "updated", "deleted", "paused", "resumed", "trial_will_end")
)
INVOICE = frozenset(
    f"invoice.{what}"
    for what in (
        *("paid", "payment_succeeded", "payment_failed"),
        *("finalized", "voided", "marked_uncollectible"),
    )
)
CUSTOMER = frozenset({"customer.updated", "customer.deleted"})
PAYMENT_METHOD = frozenset(
    f"payment_method.{what}"
    for what in ("attached", "updated", "automatically_updated", "detached")
)
CHECKOUT = frozenset({"checkout.session.completed"})
# What else happens to a schedule, its subscription's own events tell as well.
SCHEDULE = frozenset({"subscription_schedule.updated"})
CATALOGUE = ("product.", "price.")

HANDLERS: tuple[tuple[frozenset[str], Callable[[Transaction, Turn], None]], ...] = (
    (SUBSCRIPTION, subscriptions.on_subscription),
    (INVOICE, invoices.on_invoice),
    (CUSTOMER, customers.on_customer),
    (PAYMENT_METHOD, customers.on_payment_method),
    (CHECKOUT, customers.on_checkout),
    (SCHEDULE, subscriptions.on_schedule),
)


def wanted(kind: str) -> bool:
    """Tell whether anything is to be done about events of this type."""
    return kind.startswith(CATALOGUE) or any(kind in types for types, _ in HANDLERS)
