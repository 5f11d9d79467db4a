"""Our changes at Stripe, by Stripe's ids of the requests: its events name the one that caused them.

So a webhook continues the request of ours behind it. What a page of Stripe's does has another
request's id: the metadata of a checkout names ours instead (`stripe_objects.origin`).
"""

from kyora import trace
from kyora.errors import Unavailable
from kyora.observability import correlation_id, logger
from kyora.postgres import transaction


def note(request_id: str, method: str, path: str, object_id: object) -> None:
    """Note a change that Stripe has made for us. Never raises: the change is made."""
    if not request_id or not correlation_id.get():
        return
    try:
        with transaction() as tx:
            tx.run(
                "INSERT INTO stripe_call (request_id, method, path, object_id, correlation_id,"
                "  traceparent)"
                " VALUES (:request, :method, :path, :object, :correlation, :traceparent)"
                " ON CONFLICT DO NOTHING",
                request=request_id[:255],
                method=method,
                path=path,
                object=str(object_id)[:255] if object_id else None,
                correlation=correlation_id.get(),
                traceparent=trace.current() or None,
            )
    except Unavailable:  # its events then stand alone
        logger().warning("Stripe call not noted")


def forget() -> int:
    """Delete up to a thousand calls that are more than 35 days old; return how many.

    Stripe delivers an event for three days, and our reconciliation finds it within thirty.
    """
    with transaction() as tx:
        return tx.run(
            "DELETE FROM stripe_call WHERE ctid = ANY(ARRAY(SELECT ctid FROM stripe_call"
            " WHERE called_at < now() - interval '35 days' ORDER BY called_at LIMIT 1000"
            " FOR UPDATE SKIP LOCKED))"
        )
