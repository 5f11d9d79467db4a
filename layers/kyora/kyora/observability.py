"""Logs, metrics and the correlation id that joins a request, its events and their e-mails."""

import traceback
from contextvars import ContextVar
from functools import cache
from typing import Any

from aws_lambda_powertools import Logger
from aws_lambda_powertools.metrics import MetricUnit, single_metric

from kyora import config

correlation_id: ContextVar[str] = ContextVar("correlation_id", default="")


@cache
def logger() -> Logger:
    """Return this process's logger: JSON lines, level LOG_LEVEL.

    Never log an event, a header, a URL or an e-mail address: only ids, codes and counts.
    """
    return Logger(service="kyora", use_rfc3339=True, serialize_stacktrace=False)


def begin(correlation: str) -> None:
    """Set the correlation id of this invocation, for logs and events."""
    correlation_id.set(correlation)
    logger().set_correlation_id(correlation)


def gauge(name: str, value: float, unit: MetricUnit = MetricUnit.Seconds) -> None:
    """Record a current value in `Kyora/<stage>`: a line of the log, whatever its level."""
    with single_metric(name=name, unit=unit, value=value, namespace=f"Kyora/{config.stage()}"):
        pass


def count(name: str, value: int = 1, **dimensions: str) -> None:
    """Count an occurrence in `Kyora/<stage>`: a line of the log, whatever its level."""
    with single_metric(
        name=name, unit=MetricUnit.Count, value=value, namespace=f"Kyora/{config.stage()}"
    ) as metric:
        for dimension, text in dimensions.items():
            metric.add_dimension(dimension, text)


def fault(error: BaseException) -> dict[str, Any]:
    """Describe an exception for a log: its class and its last frames.

    Its text may hold personal data: it is logged on a developer's machine only (stage local).
    """
    frames = traceback.extract_tb(error.__traceback__)[-6:]
    at = [f"{'/'.join(f.filename.split('/')[-2:])}:{f.lineno} {f.name}" for f in frames]
    described: dict[str, Any] = {"error": type(error).__name__, "at": at}
    if config.is_own_machine():
        described["traceback"] = "".join(traceback.format_exception(error))
    return described
