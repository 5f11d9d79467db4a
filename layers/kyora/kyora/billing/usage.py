"""How much a workspace uses of what plans limit, as far as this database can count it.

Without a lock: for display, and for a change of plan; what is added is counted again under a lock.
"""

from collections.abc import Mapping

from kyora import limits
from kyora.errors import Conflict
from kyora.postgres import Transaction


def over(used: Mapping[str, int], allowed: Mapping[str, int]) -> list[dict[str, object]]:
    """Return every limit that is exceeded, with `limit`, `allowed` and `used`."""
    known = limits.whole(allowed)
    return [
        {"limit": name, "allowed": known[name], "used": amount}
        for name, amount in used.items()
        if limits.exceeds(known[name], amount)
    ]


def require_fit(tx: Transaction, workspace_id: str, allowed: Mapping[str, int]) -> None:
    """Raise Conflict `billing.downgrade_blocked` unless the usage fits a plan's limits."""
    if too_much := over(limits.used(tx, workspace_id), allowed):
        raise Conflict(
            "The workspace has more than this plan allows.",
            code="billing.downgrade_blocked",
            over=too_much,
        )
