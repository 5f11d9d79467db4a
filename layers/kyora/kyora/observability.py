"""Logs, metrics and the correlation id that joins a request, its events and their e-mails."""

from contextvars import ContextVar
from functools import cache

from aws_lambda_powertools import Logger

correlation_id: ContextVar[str] = ContextVar("correlation_id", default="")


@cache
def logger() -> Logger:
    """Return this process's logger: JSON lines, level LOG_LEVEL.

    Never log an event, a header, a URL or an e-mail address: only ids, codes and counts.
    """
    return Logger(service="kyora", use_rfc3339=True, serialize_stacktrace=False)


def begin(correlation: str) -> None:
    """Make `correlation` the id of what runs now, in logs and in events."""
    correlation_id.set(correlation)
    logger().set_correlation_id(correlation)
