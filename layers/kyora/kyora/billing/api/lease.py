"""One change of a workspace's subscription at a time, also when its outcome stays unknown.

    take ──► ask Stripe, mirror ──► give back, answer kept
                  │ no answer, or the process died
                  └──► left behind ──► the next one asks Stripe first what came of it

It is a lease, not a lock: while Stripe is asked no transaction is open, and stripe_webhook never
waits for it.
"""

import hashlib
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

from kyora import idempotency
from kyora.errors import Conflict, KyoraError, NotFound, Unavailable
from kyora.ids import new_id
from kyora.observability import logger
from kyora.postgres import Transaction, transaction

# Longer than a function may run, so that no two workers ever hold it.
_LEASE = "60 seconds"
# For as long may a request that we gave up on still be under way at Stripe. Stripe repeats a key's
# answer for a day, also a failure of its own: after this a repetition gets a new one.
_UNDER_WAY = "5 minutes"


class Lease(NamedTuple):
    """A workspace's lease. `left_behind` says that nobody knows what came of the one before."""

    workspace_id: str
    token: str
    attempt: str
    left_behind: bool

    def key(self, *parts: str) -> str:
        """Return Stripe's idempotency key of a write in this lease."""
        return ":".join((*parts, self.workspace_id, self.token))

    def shared_key(self, *parts: str) -> str:
        """Return the key that a turn which was left behind used for the same write.

        For what must not be done twice while the first request may still be under way. Stripe's
        answer may then be the first one's: it tells what was, not what is.
        """
        return ":".join((*parts, self.workspace_id, self.attempt))


def perform(
    workspace_id: str,
    operation: str,
    key: str,
    request: object,
    act: Callable[[Lease], dict[str, Any]],
) -> dict[str, Any]:
    """Do `act` in the workspace's turn and return its answer, or the one kept for the client's key.

    Raises Conflict `billing.in_progress` or `idempotency.in_progress` while another one runs, and
    whatever `act` raises.
    """
    token = new_id("bop")
    asked = hashlib.sha256(f"{operation}\n{key}".encode()).hexdigest() if key else ""
    with transaction() as tx:
        kept = idempotency.recall(tx, workspace_id, operation, key, request)
        if kept is not None:
            return kept
        lease = _take(tx, workspace_id, token, asked)
    try:
        answer = _act(lease, act)
    except Exception as error:
        with suppress(Unavailable):  # then the lease runs out by itself
            _give_back(workspace_id, token, settled=_settled(error))
        raise
    with transaction() as tx:
        answer = idempotency.keep(tx, workspace_id, operation, key, request, answer)
        tx.run(
            "DELETE FROM billing_operation WHERE workspace_id = :workspace_id AND token = :token",
            workspace_id=workspace_id,
            token=token,
        )
    return answer


def _act(lease: Lease, act: Callable[[Lease], dict[str, Any]]) -> dict[str, Any]:
    """Do `act`; when what it is about is gone at Stripe, end that here and do it once more."""
    try:
        return act(lease)
    except (Conflict, NotFound) as error:
        from kyora.billing.events import gone

        if error.code not in gone.GONE or not gone.workspace(lease.workspace_id):
            raise
    # Other keys: Stripe keeps a key's answer, refusals as well.
    again = lease._replace(token=f"{lease.token}:again", attempt=f"{lease.attempt}:again")
    return act(again)


def _take(tx: Transaction, workspace_id: str, token: str, asked: str) -> Lease:
    """Take the workspace's lease. Raises Conflict."""
    row = tx.row(
        "INSERT INTO billing_operation AS o (workspace_id, token, attempt, request, until)"
        f" VALUES (:workspace_id, :token, :token, :asked, now() + interval '{_LEASE}')"
        " ON CONFLICT (workspace_id) DO UPDATE SET token = excluded.token, left_behind = true,"
        "  request = excluded.request, until = excluded.until,"
        f"  attempt = CASE WHEN o.began_at > now() - interval '{_UNDER_WAY}' THEN o.attempt"
        "    ELSE excluded.attempt END,"
        f"  began_at = CASE WHEN o.began_at > now() - interval '{_UNDER_WAY}' THEN o.began_at"
        "    ELSE now() END"
        " WHERE o.until <= now()"
        " RETURNING attempt, left_behind",
        workspace_id=workspace_id,
        token=token,
        asked=asked,
    )
    if row is None:
        other = tx.row(
            "SELECT request FROM billing_operation WHERE workspace_id = :workspace_id",
            workspace_id=workspace_id,
        )
        if asked and other and other["request"] == asked:
            raise idempotency.in_progress()
        raise Conflict(
            "The workspace's subscription is being changed.",
            code="billing.in_progress",
            retry_after=2,
        )
    return Lease(workspace_id, token, str(row["attempt"]), bool(row["left_behind"]))


def _give_back(workspace_id: str, token: str, *, settled: bool) -> None:
    """End a turn; one whose outcome is not known is left behind for the next to find out."""
    with transaction() as tx:
        if settled:
            tx.run(
                "DELETE FROM billing_operation"
                " WHERE workspace_id = :workspace_id AND token = :token",
                workspace_id=workspace_id,
                token=token,
            )
        else:
            logger().warning("a billing operation's outcome is not known")
            tx.run(
                "UPDATE billing_operation SET until = now()"
                " WHERE workspace_id = :workspace_id AND token = :token",
                workspace_id=workspace_id,
                token=token,
            )


def _settled(error: Exception) -> bool:
    """Tell whether an error says what happened at Stripe: nothing, beyond what was mirrored."""
    known = isinstance(error, KyoraError) and not isinstance(error, Unavailable)
    return known and getattr(error, "code", "") != "billing.in_progress"
