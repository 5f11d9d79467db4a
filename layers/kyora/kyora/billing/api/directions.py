"""Whether a change of plan is an upgrade or a downgrade, which decides when it happens."""

from kyora import limits
from kyora.billing import plan_order
from kyora.billing.models import Plan
from kyora.billing.plans import offers
from kyora.errors import NotFound

_FOREVER = float("inf")


def default(current: str | None, wanted: Plan) -> str:
    """Return `now` or `renewal` for a change from the plan `current` to `wanted`."""
    if current is None:
        return "now"
    try:
        return "renewal" if goes_down(offers.get(current), wanted) else "now"
    except NotFound:  # a plan that no longer exists
        return "now"


def goes_down(current: Plan, wanted: Plan) -> bool:
    """Return whether a change is a downgrade.

    The limits decide when all of them agree; otherwise the price per day. Of plans with the same
    limits a shorter interval is less, then a lower price.
    """
    before, after = _reach(current), _reach(wanted)
    if before != after and all(a <= b for a, b in zip(after, before, strict=True)):
        return True
    if before != after and all(a >= b for a, b in zip(after, before, strict=True)):
        return False
    if before != after:
        return wanted.amount / _days(wanted) < current.amount / _days(current)
    return (_days(wanted), wanted.amount) < (_days(current), current.amount)


def _reach(plan: Plan) -> list[float]:
    allowed = limits.whole(plan.limits).values()
    return [_FOREVER if one == limits.UNLIMITED else one for one in allowed]


def _days(plan: Plan) -> int:
    return plan_order.DAYS.get(plan.interval or "month", 30) * plan.interval_count
