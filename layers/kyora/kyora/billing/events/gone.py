"""End here what is gone at Stripe, when no event reported it.

    during a request   a customer or subscription that Stripe does not know, or that has ended
                       there, is ended here, and the request continues without it
    by reconcile       the same for a customer that Stripe has deleted

With the key of another account Stripe would know nothing of ours. So nothing is ended unless
Stripe knows one of our prices.
"""

from collections.abc import Callable

from kyora.billing import stripe_objects
from kyora.billing.events import resync
from kyora.billing.stripe_objects import TERMINAL_SQL
from kyora.errors import Conflict, NotFound
from kyora.observability import logger
from kyora.postgres import transaction

_LIVE = f"""
SELECT id FROM subscription WHERE customer_id = :customer
AND status NOT IN {TERMINAL_SQL} ORDER BY id
"""


GONE = ("billing.stripe_missing", "billing.stripe_refused")  # codes of what may be gone


def once_more[T](workspace_id: str, ask: Callable[[], T]) -> T:
    """Call `ask`; when its object is gone at Stripe, end that here and call it once more."""
    try:
        return ask()
    except (Conflict, NotFound) as error:
        if error.code not in GONE or not workspace(workspace_id):
            raise
    return ask()


def workspace(workspace_id: str) -> bool:
    """End what a workspace has that is over or unknown at Stripe; return whether anything was.

    Raises as `stripe_client.call` does.
    """
    with transaction() as tx:
        rows = tx.rows(
            "SELECT id FROM billing_customer"
            " WHERE workspace_id = :workspace_id AND deleted_at IS NULL",
            workspace_id=workspace_id,
        )
    return sum(_customer(str(row["id"]), strict=True) for row in rows) > 0


def customer(customer_id: str) -> bool:
    """End a customer that is gone at Stripe, with its subscriptions; return whether it was.

    Raises as `stripe_client.call` does.
    """
    return _customer(customer_id, strict=False)


def _customer(customer_id: str, *, strict: bool) -> bool:
    """End what is gone; `strict`: also subscriptions of a customer that still exists."""
    gone = _is_gone(customer_id)
    before = _live(customer_id) if gone or strict else []
    missing = [name for name in before if not resync.subscription(customer_id, name)]
    ended = _live(customer_id) != before if before else False
    if not (gone or missing) or not _ours():
        return ended
    logger().warning("gone at Stripe", customer_id=customer_id, gone=gone, subscriptions=missing)
    for name in missing:
        resync.end_subscription(customer_id, name)
    if gone:
        resync.end_customer(customer_id)
    return True


def _live(customer_id: str) -> list[str]:
    with transaction() as tx:
        return [str(row["id"]) for row in tx.rows(_LIVE, customer=customer_id)]


def _is_gone(customer_id: str) -> bool:
    from kyora.billing import stripe_client

    try:
        found = stripe_client.call("get", f"customers/{customer_id}").object
    except stripe_client.Missing:
        return True
    return stripe_objects.customer(found).deleted


def _ours() -> bool:
    """Return whether our key belongs to the account that has our catalogue."""
    from kyora.billing import stripe_client

    with transaction() as tx:
        row = tx.row("SELECT price_id FROM plan ORDER BY active DESC, id LIMIT 1")
    if row is None:
        return True
    try:
        stripe_client.call("get", f"prices/{row['price_id']}")
    except stripe_client.Missing:
        logger().error("Stripe does not know our prices: is the key of another account?")
        return False
    return True
