"""A workspace's invoices, from our mirror: the newest first, page by page."""

import base64
import binascii
import json
import re
from collections.abc import Mapping
from typing import Any

from kyora.billing.models import Invoice, Invoices
from kyora.errors import Invalid
from kyora.postgres import transaction

_MOST = 100
_DEFAULT = 20
_ID = re.compile(r"\w{1,255}", re.ASCII)

_PAGE = """
SELECT i.*, CAST(extract(epoch FROM i.created_at) AS bigint) AS second
FROM billing_customer c JOIN invoice i ON i.customer_id = c.id
WHERE c.workspace_id = :workspace_id AND i.status <> 'draft'
AND (CAST(:id AS text) IS NULL
    OR (i.created_at, i.id) < (to_timestamp(CAST(:second AS bigint)), CAST(:id AS text)))
ORDER BY i.created_at DESC, i.id DESC LIMIT :limit
"""


def listed(workspace_id: str, limit: str, cursor: str) -> Invoices:
    """Return a page of invoices; `limit` and `cursor` come from the query. Raises Invalid.

    The cursor names the last invoice that was shown, so new ones shift nothing.
    """
    size, (second, after) = _size(limit), _place(cursor)
    with transaction() as tx:
        rows = tx.rows(_PAGE, workspace_id=workspace_id, second=second, id=after, limit=size + 1)
    shown: list[Mapping[str, Any]] = list(rows[:size])
    more = len(rows) > size
    return Invoices(
        items=[_invoice(row) for row in shown],
        next_cursor=_cursor(shown[-1]) if more else None,
    )


def _size(limit: str) -> int:
    if not limit:
        return _DEFAULT
    if not re.fullmatch(r"[0-9]{1,3}", limit, re.ASCII) or not 1 <= int(limit) <= _MOST:
        raise _invalid("limit", f"must be a whole number from 1 to {_MOST}")
    return int(limit)


def _cursor(row: Mapping[str, Any]) -> str:
    place = json.dumps([row["second"], row["id"]]).encode()
    return base64.urlsafe_b64encode(place).decode().rstrip("=")


def _place(cursor: str) -> tuple[int | None, str | None]:
    """Return the second and the id that a cursor names. Raises Invalid."""
    if not cursor:
        return None, None
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        second, after = json.loads(base64.b64decode(padded, b"-_", validate=True))
    except (ValueError, TypeError, binascii.Error, RecursionError):
        raise _invalid("cursor", "must be the nextCursor of an earlier page") from None
    good = type(second) is int and 0 <= second < 1 << 35
    if not good or not isinstance(after, str) or not _ID.fullmatch(after):
        raise _invalid("cursor", "must be the nextCursor of an earlier page")
    return second, after


def _invalid(field: str, message: str) -> Invalid:
    return Invalid("Some fields are not valid.", errors=[{"field": field, "message": message}])


def _invoice(row: Mapping[str, Any]) -> Invoice:
    return Invoice(
        invoice_id=row["id"],
        number=row["number"],
        status=row["status"],
        currency=row["currency"].upper(),
        total=row["total"],
        amount_due=row["amount_due"],
        amount_paid=row["amount_paid"],
        created_at=row["created_at"],
        next_attempt_at=row["next_attempt_at"],
        hosted_invoice_url=row["hosted_url"],
        pdf_url=row["pdf_url"],
    )
