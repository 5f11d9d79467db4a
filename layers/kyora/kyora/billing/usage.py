"""How much a workspace uses of what plans limit, as far as this database can count it.

Orders are counted where orders are: `maxOrdersPerMonth` has no figure here.
"""

from collections.abc import Mapping

from kyora import limits
from kyora.errors import Conflict
from kyora.postgres import Transaction

# No lock: it is for people to read, and for a change that whoever adds something decides anew.
_COUNTED = """
SELECT (SELECT count(*) FROM business WHERE workspace_id = :workspace_id) AS "maxBusinesses",
    (SELECT count(*) FROM app_user WHERE workspace_id = :workspace_id AND deleted_at IS NULL)
        AS "maxTeamMembers",
    coalesce((SELECT used_bytes + reserved_bytes FROM storage_usage
        WHERE workspace_id = :workspace_id), 0) AS "maxStorageBytes"
"""


def count(tx: Transaction, workspace_id: str) -> dict[str, int]:
    """Return what is used, by the name of the limit."""
    row = tx.row(_COUNTED, workspace_id=workspace_id)
    return {name: int(str(used)) for name, used in (row or {}).items()}


def over(used: Mapping[str, int], allowed: Mapping[str, int]) -> list[dict[str, object]]:
    """Return every limit that is exceeded, with `limit`, `allowed` and `used`."""
    return [
        {"limit": name, "allowed": allowed.get(name, 0), "used": amount}
        for name, amount in used.items()
        if limits.exceeds(allowed.get(name, 0), amount)
    ]


def require_fit(tx: Transaction, workspace_id: str, allowed: Mapping[str, int]) -> None:
    """Raise Conflict `billing.downgrade_blocked` unless what is there fits a plan's limits."""
    if too_much := over(count(tx, workspace_id), allowed):
        raise Conflict(
            "The workspace has more than this plan allows.",
            code="billing.downgrade_blocked",
            over=too_much,
        )
