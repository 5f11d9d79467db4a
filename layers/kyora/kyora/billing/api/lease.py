"""One change of a workspace's subscription at a time, even when an outcome stays unknown.

    take ──► call Stripe, mirror ──► release, keep the answer
                  │ no answer, or the process died
                  └──► abandoned ──► the next one first asks Stripe what happened

It is a lease, not a lock: no transaction is open while Stripe is called, and stripe_webhook never
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

# Longer than a function may run, so that two workers never hold it.
_LEASE = "60 seconds"
# How long an abandoned request may still be in flight at Stripe. Stripe repeats a key's answer for
# a day, even a failure of its own, so after this time a repetition uses a new key.
_UNDER_WAY = "5 minutes"


class Lease(NamedTuple):
    """A workspace's lease. `left_behind`: the outcome of the one before is unknown."""

    workspace_id: str
    token: str
    attempt: str
    left_behind: bool

    def key(self, *parts: str) -> str:
        """Return the idempotency key at Stripe for a write under this lease."""
        return ":".join((*parts, self.workspace_id, self.token))

    def shared_key(self, *parts: str) -> str:
        """Return the key that an abandoned lease used for the same write.

        For a write that must not happen twice while the first request may still be in flight.
        Stripe may then repeat its first answer, which says what was, not what is.
        """
        return ":".join((*parts, self.workspace_id, self.attempt))


def perform(
    workspace_id: str,
    operation: str,
    key: str,
    request: object,
    act: Callable[[Lease], dict[str, Any]],
) -> dict[str, Any]:
    """Call `act` under the workspace's lease and return its answer, or the one kept for `key`.

    Raises Conflict `billing.in_progress` or `idempotency.in_progress` while another change runs,
    and whatever `act` raises.
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
        with suppress(Unavailable):  # then the lease expires
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
    """Call `act`; when its object is gone at Stripe, end that here and call it once more."""
    try:
        return act(lease)
    except (Conflict, NotFound) as error:
        from kyora.billing.events import gone

        if error.code not in gone.GONE or not gone.workspace(lease.workspace_id):
            raise
    # With other keys: Stripe keeps a key's answer, even a refusal.
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
    """End a lease; with an unknown outcome it is abandoned, for the next one to find out."""
    with transaction() as tx:
        if settled:
            tx.run(
                "DELETE FROM billing_operation"
                " WHERE workspace_id = :workspace_id AND token = :token",
                workspace_id=workspace_id,
                token=token,
            )
        else:
            logger().warning("the outcome of a billing operation is unknown")
            tx.run(
                "UPDATE billing_operation SET until = now()"
                " WHERE workspace_id = :workspace_id AND token = :token",
                workspace_id=workspace_id,
                token=token,
            )


def _settled(error: Exception) -> bool:
    """Return whether an error says that nothing happened at Stripe beyond what was mirrored."""
    known = isinstance(error, KyoraError) and not isinstance(error, Unavailable)
    return known and getattr(error, "code", "") != "billing.in_progress"
