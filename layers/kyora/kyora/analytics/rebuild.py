"""Recompute the counts from the stored events."""

from collections.abc import Callable
from typing import Any

from kyora.analytics.count import lock_key
from kyora.observability import logger
from kyora.postgres import Transaction, transaction

_BUSINESS_SECONDS = 50.0  # for one business; update_analytics has 120
_BATCH = 100

# How many counts differ from what the events say.
_WRONG = """
    SELECT count(*) AS wrong FROM (
        SELECT day, kind, label, count, amount FROM analytics_day
        WHERE workspace_id = :workspace_id AND business_id = :business_id
    ) AS kept FULL JOIN (
        SELECT day, kind, label, count(*) AS count, sum(amount) AS amount FROM analytics_event
        WHERE workspace_id = :workspace_id AND business_id = :business_id
        GROUP BY day, kind, label
    ) AS expected USING (day, kind, label)
    WHERE (kept.count, kept.amount) IS DISTINCT FROM (expected.count, expected.amount)
"""
_CLEAR = """
    DELETE FROM analytics_count WHERE workspace_id = :workspace_id AND business_id = :business_id
"""
_FILL = """
    INSERT INTO analytics_count
        (workspace_id, business_id, day, kind, label, shard, count, amount)
    SELECT workspace_id, business_id, day, kind, label, 0, count(*), sum(amount)
    FROM analytics_event
    WHERE workspace_id = :workspace_id AND business_id = :business_id
    GROUP BY workspace_id, business_id, day, kind, label
"""


def by_hand(asked: dict[str, Any], milliseconds_left: Callable[[], int]) -> dict[str, Any]:
    """Rebuild one business (`{"business": id}`) or all of them after `{"after": id}`.

    Returns how many `businesses` were done, how many counts were `wrong`, and `next`: the `after`
    of the next call, or None.
    """
    done, wrong, after = 0, 0, str(asked.get("after") or "")
    while found := _businesses(after, asked.get("business")):
        for workspace_id, business_id in found:
            if done and milliseconds_left() < (_BUSINESS_SECONDS + 5) * 1000:
                return {"businesses": done, "wrong": wrong, "next": after}
            wrong += business(workspace_id, business_id)
            done, after = done + 1, business_id
        if len(found) < _BATCH:
            break
    logger().info("analytics rebuilt", businesses=done, wrong=wrong)
    return {"businesses": done, "wrong": wrong, "next": None}


def business(workspace_id: str, business_id: str) -> int:
    """Recompute the counts of a business; return how many were wrong.

    Its events wait meanwhile; if that takes too long, they are delivered again.
    """
    with transaction(timeout=_BUSINESS_SECONDS) as tx:
        return _rebuild(tx, workspace_id, business_id)


def _rebuild(tx: Transaction, workspace_id: str, business_id: str) -> int:
    tx.rows("SELECT pg_advisory_xact_lock(hashtextextended(:key, 0))", key=lock_key(business_id))
    whose = {"workspace_id": workspace_id, "business_id": business_id}
    wrong = tx.value(int, _WRONG, **whose)
    tx.run(_CLEAR, **whose)
    tx.run(_FILL, **whose)
    return wrong or 0


def _businesses(after: str, only: str | None) -> list[tuple[str, str]]:
    with transaction() as tx:
        rows = tx.rows(
            "SELECT workspace_id, id FROM business"
            " WHERE id > :after AND (CAST(:only AS text) IS NULL OR id = :only)"
            " ORDER BY id LIMIT :batch",
            after=after,
            only=only,
            batch=_BATCH,
        )
    return [(str(row["workspace_id"]), str(row["id"])) for row in rows]
