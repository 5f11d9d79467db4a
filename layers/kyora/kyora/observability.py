"""Logs, metrics and the correlation id that joins a request, its events and their e-mails."""

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, wraps
from typing import Any

from aws_lambda_powertools import Logger
from aws_lambda_powertools.metrics import MetricUnit, single_metric

from kyora import config, trace

correlation_id: ContextVar[str] = ContextVar("correlation_id", default="")


@cache
def logger() -> Logger:
    """Return this process's logger: JSON lines, level LOG_LEVEL.

    Never log an event, a header, a URL or an e-mail address: only ids, codes and counts.
    """
    return Logger(service="kyora", use_rfc3339=True, serialize_stacktrace=False)


def begin(correlation: str, *, parent: str = "", caused_by: str = "") -> None:
    """Begin a unit of work: its correlation id, for logs and events, and its trace.

    `parent` and `caused_by` are values of `traceparent`, as in `trace.begin`.
    """
    trace.begin(parent=parent, caused_by=caused_by)
    logger().append_keys(trace_id=trace.trace_id())
    _correlate(correlation)


@contextmanager
def follow(correlation: str, caused_by: str = "") -> Iterator[None]:
    """Continue what another unit of work has begun: its correlation id, and a link to it.

    For what comes back from a vendor. An empty value leaves things as they are.
    """
    trace.link(caused_by)
    before = correlation_id.get()
    _correlate(correlation or before)
    try:
        yield
    finally:
        _correlate(before)


def _correlate(correlation: str) -> None:
    correlation_id.set(correlation)
    logger().set_correlation_id(correlation)
    if correlation:
        trace.belongs_to(correlation)


def invoked[**P, T](handler: Callable[P, T]) -> Callable[P, T]:
    """Make a handler a unit of work of its own, with Lambda's request id as correlation id.

    For a function that no HTTP request invokes. The messages of a batch begin their own units.
    """

    @wraps(handler)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        request_id = str(getattr(args[-1], "aws_request_id", ""))
        trace.invocation(request_id)
        begin(request_id)
        error = ""
        try:
            return handler(*args, **kwargs)
        except BaseException as raised:
            error = type(raised).__name__
            raise
        finally:
            finish(error)

    return run


def finish(error: str = "") -> None:
    """End the unit of work, with an error's code if it failed, and send this invocation's spans."""
    trace.end(error)
    if spans := trace.taken():
        from kyora import otlp  # only where a collector is configured

        if (status := otlp.send(spans)) is not None:
            logger().warning("spans not sent", count=len(spans), status=status)


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
