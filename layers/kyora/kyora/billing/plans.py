"""Plans as Stripe has them: products with a recurring price."""

from kyora.billing.normalise import Event


def apply(event: Event) -> None:
    """Bring the plans of an event's product up to date."""
    raise NotImplementedError(event.type)
