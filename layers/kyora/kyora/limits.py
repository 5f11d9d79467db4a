"""What a workspace's plan allows, decided so that parallel requests cannot pass it.

Whoever adds something that a plan limits locks the workspace's billing row, counts, and inserts in
the same transaction. Nothing that exists is touched when a plan shrinks: only new things are
refused.
"""

from collections.abc import Callable
from functools import wraps
from typing import Concatenate

from kyora.errors import Forbidden
from kyora.postgres import Transaction

UNLIMITED = -1
NAMES = ("maxBusinesses", "maxTeamMembers", "maxOrdersPerMonth", "maxStorageBytes")

type Count = Callable[[Transaction, str], int]


def lock(tx: Transaction, workspace_id: str) -> dict[str, int]:
    """Lock the workspace's billing row to the end of the transaction; return its limits.

    A workspace that never had anything to do with billing begins on the free plan.
    """
    row = _locked(tx, workspace_id)
    if row is None:
        tx.run(
            "INSERT INTO workspace_billing (workspace_id, plan_id, access, limits, status)"
            " SELECT :workspace_id, id, 'free', limits, 'free' FROM free_plan"
            " ON CONFLICT DO NOTHING",
            workspace_id=workspace_id,
        )
        row = _locked(tx, workspace_id)
    limits = (row or {}).get("limits")
    return {str(k): int(v) for k, v in limits.items()} if isinstance(limits, dict) else {}


def refusal(limit: str, allowed: int, used: int) -> Forbidden:
    """Return the refusal of one more than a plan allows."""
    return Forbidden(
        "The workspace's plan does not allow more.",
        code="billing.limit_reached",
        limit=limit,
        allowed=allowed,
        used=used,
    )


def exceeds(allowed: int, wanted: int) -> bool:
    """Tell whether `wanted` is more than a limit allows."""
    return allowed != UNLIMITED and wanted > allowed


def enforce_plan_limit[**P, T](
    limit: str, *, count: Count
) -> Callable[
    [Callable[Concatenate[Transaction, str, P], T]], Callable[Concatenate[Transaction, str, P], T]
]:
    """Let a function add one thing only while the plan of its workspace allows one more.

    It is for functions of a transaction and a workspace's id, and runs them in that transaction,
    with the billing row locked to its end. `count` says how many there are. The function raises
    Forbidden `billing.limit_reached` with `limit`, `allowed` and `used`.
    """

    def decorate(
        function: Callable[Concatenate[Transaction, str, P], T],
    ) -> Callable[Concatenate[Transaction, str, P], T]:
        @wraps(function)
        def limited(tx: Transaction, workspace_id: str, /, *args: P.args, **kwargs: P.kwargs) -> T:
            allowed = lock(tx, workspace_id).get(limit, 0)
            used = count(tx, workspace_id)
            if exceeds(allowed, used + 1):
                raise refusal(limit, allowed, used)
            return function(tx, workspace_id, *args, **kwargs)

        return limited

    return decorate


def _locked(tx: Transaction, workspace_id: str) -> dict[str, object] | None:
    return tx.row(
        "SELECT limits FROM workspace_billing WHERE workspace_id = :workspace_id FOR UPDATE",
        workspace_id=workspace_id,
    )
