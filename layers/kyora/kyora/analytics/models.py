"""Analytics as clients get them."""

import datetime as dt

from kyora.api import AnswerBody

OTHER = "other"  # all sources beyond the limits


class Day(AnswerBody):
    """A UTC day of a business: revenue as decimals by currency, customers by source.

    Sources beyond a hundred a day, or 8,000 in an answer (21 a day for a whole year), are `other`.
    """

    date: dt.date
    orders: int = 0
    revenue: dict[str, str] = {}
    customers: dict[str, int] = {}


class Summary(AnswerBody):
    """Every day of the range, in order."""

    days: list[Day]
