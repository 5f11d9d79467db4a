"""Making the counts anew from the events that are stored."""

from collections.abc import Callable
from typing import Any

from kyora.analytics.count import lock_key
from kyora.observability import logger
from kyora.postgres import Transaction, transaction

_BUSINESS_SECONDS = 50.0  # for one business; update_analytics has 120
_BATCH = 100

# What the counts are next to what they have to be, where these differ.
_WRONG = """
    SELECT count(*) AS wrong FROM (
        SELECT day, kind, label, count, amount FROM analytics_day
        WHERE workspace_id = :workspace_id AND business_id = :business_id
    ) AS kept FULL JOIN (
        SELECT day, kind, label, count(*) AS count, sum(amount) AS amount FROM analytics_event
        WHERE workspace_id = :workspace_id AND business_id = :business_id
        GROUP BY day, kind, label
    ) AS told USING (day, kind, label)
    WHERE (kept.count, kept.amount) IS DISTINCT FROM (told.count, told.amount)
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

    Returns how many there were, how many counts were wrong, and where to go on when time is over.
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
    """Make the counts of a business anew; return how many were wrong.

    Its events wait meanwhile, and are delivered again when that takes too long.
    """
    with transaction(timeout=_BUSINESS_SECONDS) as tx:
        return _anew(tx, workspace_id, business_id)


def _anew(tx: Transaction, workspace_id: str, business_id: str) -> int:
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
