"""Analytics as clients see them."""

import datetime as dt

from kyora.api import AnswerBody

OTHER = "other"  # every source that there is no room for


class Day(AnswerBody):
    """A day of a business in UTC; amounts are decimals by currency, customers by source.

    Sources that there is no room for are `other`: beyond a hundred on a day, or beyond 8,000 in
    an answer, 21 a day for a whole year.
    """

    date: dt.date
    orders: int = 0
    revenue: dict[str, str] = {}
    customers: dict[str, int] = {}


class Summary(AnswerBody):
    """Every day that was asked for, the first one first."""

    days: list[Day]
