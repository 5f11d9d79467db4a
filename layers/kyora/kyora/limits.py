"""What a workspace's plan allows, decided so that parallel requests cannot pass it.

Code that adds something limited locks the workspace's billing row, counts, and inserts in the same
transaction. Nothing that exists is touched when a plan shrinks: only new things are refused.

A limit is one row of `LIMITS`. A plan whose metadata at Stripe does not have it yet gets the
built-in free plan's value, so a new limit does not refuse everything.
"""

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, Concatenate, NamedTuple

from kyora.errors import Forbidden
from kyora.postgres import Transaction

UNLIMITED = -1


class Limit(NamedTuple):
    """A limit: the built-in free plan's value, and the SQL that counts what is used.

    `used` is None where another database counts. Both are shown by GET subscription.
    """

    free: int
    used: str | None


# By its name in the API; in Stripe's metadata it is `limit_<name>`.
LIMITS: Mapping[str, Limit] = {
    "maxBusinesses": Limit(1, "SELECT count(*) FROM business WHERE workspace_id = :workspace_id"),
    "maxTeamMembers": Limit(
        1,
        "SELECT count(*) FROM app_user WHERE workspace_id = :workspace_id AND deleted_at IS NULL",
    ),
    "maxOrdersPerMonth": Limit(25, None),
    "maxStorageBytes": Limit(
        2**30,
        "SELECT used_bytes + reserved_bytes FROM storage_usage WHERE workspace_id = :workspace_id",
    ),
}
NAMES = tuple(LIMITS)
# One statement for all that is counted here.
USED = "SELECT " + ", ".join(
    f'coalesce(({limit.used}), 0) AS "{name}"' for name, limit in LIMITS.items() if limit.used
)

type Count = Callable[[Transaction, str], int]


def whole(said: Mapping[str, Any] | None) -> dict[str, int]:
    """Return every limit of a plan that says some; for the rest the built-in free plan's value."""
    return {name: int((said or {}).get(name, limit.free)) for name, limit in LIMITS.items()}


def lock(tx: Transaction, workspace_id: str) -> dict[str, int]:
    """Lock the workspace's billing row to the end of the transaction; return every limit.

    A workspace that never had anything to do with billing begins on the free plan.
    """
    row = _locked(tx, workspace_id)
    if row is None:
        begin(tx, workspace_id)
        row = _locked(tx, workspace_id)
    said = (row or {}).get("limits")
    return whole(said if isinstance(said, dict) else None)


def begin(tx: Transaction, workspace_id: str) -> None:
    """Give a workspace that has no billing row one, on the free plan."""
    tx.later(
        "INSERT INTO workspace_billing (workspace_id, plan_id, access, limits, status)"
        " SELECT :workspace_id, id, 'free', limits, 'free' FROM free_plan"
        " ON CONFLICT DO NOTHING",
        workspace_id=workspace_id,
    )


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
    """Return whether `wanted` is more than a limit allows."""
    return allowed != UNLIMITED and wanted > allowed


def used(tx: Transaction, workspace_id: str) -> dict[str, int]:
    """Return how much is used, by the name of each limit that is counted here."""
    row = tx.row(USED, workspace_id=workspace_id)
    return {name: int(str(amount)) for name, amount in (row or {}).items()}


def enforce_plan_limit[**P, T](
    limit: str, *, count: Count | None = None
) -> Callable[
    [Callable[Concatenate[Transaction, str, P], T]], Callable[Concatenate[Transaction, str, P], T]
]:
    """Let a function add one thing only while the plan of its workspace allows one more.

    It is for functions of a transaction and a workspace's id, and runs them in that transaction,
    with the billing row locked to its end. What is used is counted by the limit's row, or by
    `count`. The function raises Forbidden `billing.limit_reached` with `limit`, `allowed` and
    `used`.
    """

    def decorate(
        function: Callable[Concatenate[Transaction, str, P], T],
    ) -> Callable[Concatenate[Transaction, str, P], T]:
        @wraps(function)
        def limited(tx: Transaction, workspace_id: str, /, *args: P.args, **kwargs: P.kwargs) -> T:
            allowed = lock(tx, workspace_id)[limit]
            there = count(tx, workspace_id) if count else used(tx, workspace_id)[limit]
            if exceeds(allowed, there + 1):
                raise refusal(limit, allowed, there)
            return function(tx, workspace_id, *args, **kwargs)

        return limited

    return decorate


def _locked(tx: Transaction, workspace_id: str) -> dict[str, object] | None:
    return tx.row(
        "SELECT limits FROM workspace_billing WHERE workspace_id = :workspace_id FOR UPDATE",
        workspace_id=workspace_id,
    )
