"""Tracing: W3C `traceparent` in and out, and the spans where a collector is configured.

A unit of work (a request, a message, a scheduled run) continues its caller's trace or begins one.
What it causes later, over the outbox or at a vendor, begins a trace of its own that links back:
it may happen days later, more than once, or in a batch with others. The correlation id, which
travels the same way, joins them all.

Propagation costs two regular expressions and a few random bytes a unit. Spans are recorded only
while `trace.otlp.endpoint` is set; `kyora.otlp` sends them. Names and fields are OpenTelemetry's
(https://opentelemetry.io/docs/specs/semconv/). No value of a statement, no body and no query
string is recorded.
"""

import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

from kyora import aws, clock, config
from kyora.errors import ConfigError

# https://www.w3.org/TR/trace-context/#traceparent-header: a later version may append fields.
_HEADER = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_SAMPLED = 1
INTERNAL, SERVER, CLIENT, PRODUCER, CONSUMER = range(1, 6)  # OTLP's SpanKind
_MOST = 1000  # spans of one unit; a sweep may run thousands of statements


class Context(NamedTuple):
    """A span, as others refer to it."""

    trace_id: str
    span_id: str
    flags: int = _SAMPLED

    @property
    def header(self) -> str:
        """The value of a `traceparent` header."""
        return f"00-{self.trace_id}-{self.span_id}-{self.flags:02x}"


class Span:
    """A piece of work; times are in nanoseconds since 1970, `error` is a code or a class."""

    # Not a dataclass: making one costs every cold start a millisecond.
    __slots__ = (
        *("name", "context", "parent_id", "kind", "began", "ended"),
        *("attributes", "links", "error"),
    )

    def __init__(
        self,
        name: str,
        context: Context,
        parent_id: str = "",
        kind: int = INTERNAL,
        began: int = 0,
        ended: int = 0,
        attributes: dict[str, object] | None = None,
    ) -> None:
        self.name, self.context, self.parent_id, self.kind = name, context, parent_id, kind
        self.began, self.ended, self.error = began, ended, ""
        self.attributes: dict[str, object] = attributes or {}
        self.links: list[Context] = []


class _Unit:
    """The unit of work that runs: its own span, the open ones, and those that have ended."""

    __slots__ = ("ended", "open", "recorded", "span", "started")

    def __init__(self, span: Span, *, recorded: bool) -> None:
        self.span, self.recorded, self.started = span, recorded, time.perf_counter_ns()
        self.open, self.ended = [span], list[Span]()


_unit: ContextVar[_Unit | None] = ContextVar("unit", default=None)
_invocation: ContextVar[str] = ContextVar("invocation", default="")
_pending: list[Span] = []  # of units that have ended in this invocation


def parse(header: object) -> Context | None:
    """Read a `traceparent`; None unless it is well-formed."""
    found = _HEADER.fullmatch(header) if isinstance(header, str) else None
    if found is None:
        return None
    version, trace_id, span_id, flags, more = found.groups()
    if version == "ff" or (version == "00" and more):
        return None
    if not (int(trace_id, 16) and int(span_id, 16)):
        return None
    return Context(trace_id, span_id, int(flags, 16) & _SAMPLED)


def well_formed(header: object) -> str | None:
    """Return a `traceparent` as we write it, None for a malformed one."""
    return found.header if (found := parse(header)) else None


def invocation(request_id: str) -> None:
    """Note Lambda's id of this invocation, for the units in it."""
    _invocation.set(request_id)


def begin(*, parent: str = "", caused_by: str = "") -> None:
    """Begin a unit of work; it ends the one before.

    `parent` is the `traceparent` of a caller that waits for us: its trace goes on. `caused_by` is
    that of an earlier unit: a link. Either is ignored when it is malformed.
    """
    end()
    caller = parse(parent)
    # X-Ray's trace of this invocation has the same form, so that both show the same id.
    trace_id = caller.trace_id if caller else aws.xray_trace_id() or secrets.token_hex(16)
    context = Context(trace_id, secrets.token_hex(8), caller.flags if caller else _SAMPLED)
    span = Span("", context, caller.span_id if caller else "", began=_now())
    unit = _Unit(span, recorded=bool(context.flags and _endpoint()))
    _unit.set(unit)
    link(caused_by)
    if invoked := _invocation.get():
        describe(faas__invocation_id=invoked)


def current() -> str:
    """Return the `traceparent` for what the running span causes; "" outside of a unit."""
    unit = _unit.get()
    return unit.open[-1].context.header if unit else ""


def trace_id() -> str:
    """Return the id of the running trace; "" outside of a unit."""
    unit = _unit.get()
    return unit.span.context.trace_id if unit else ""


def link(caused_by: str) -> None:
    """Link the running unit to what caused it."""
    unit, context = _unit.get(), parse(caused_by)
    if unit and context and context not in unit.span.links:
        unit.span.links.append(context)


def describe(name: str = "", kind: int = 0, **attributes: object) -> None:
    """Name the running unit and add to its attributes; `__` in a name stands for a dot."""
    if (unit := _unit.get()) and unit.recorded:
        unit.span.name, unit.span.kind = name or unit.span.name, kind or unit.span.kind
        unit.span.attributes |= _dotted(attributes)


def belongs_to(correlation: str) -> None:
    """Add a correlation id of the running unit: its own, or one whose work it continues."""
    if (unit := _unit.get()) and unit.recorded:
        listed = unit.span.attributes.setdefault("kyora.correlation_ids", [])
        if isinstance(listed, list) and correlation not in listed:
            listed.append(correlation)


def is_recording() -> bool:
    """Return whether spans of the running unit are recorded."""
    return bool((unit := _unit.get()) and unit.recorded)


@contextmanager
def span(name: str, kind: int = CLIENT, **attributes: object) -> Iterator[None]:
    """Record a span while the block runs; `__` in an attribute's name stands for a dot."""
    unit = _unit.get()
    if unit is None or not unit.recorded or len(unit.ended) >= _MOST:
        yield
        return
    above = unit.open[-1].context
    made = Span(
        name,
        Context(above.trace_id, secrets.token_hex(8)),
        above.span_id,
        kind,
        _now(),
        attributes=_dotted(attributes),
    )
    unit.open.append(made)
    try:
        yield
    except BaseException as error:
        made.error = type(error).__name__
        raise
    finally:
        made.ended = _now()
        unit.open.remove(made)
        unit.ended.append(made)


def waited(name: str, since: int) -> None:
    """Record a wait that the running unit's begin ended; `since` as the times of a Span."""
    if (unit := _unit.get()) and unit.recorded:
        context = Context(unit.span.context.trace_id, secrets.token_hex(8))
        began = unit.span.began
        unit.ended.append(
            Span(
                name,
                context,
                unit.span.context.span_id,
                INTERNAL,
                min(since, began),
                began,
                {"kyora.wait": True},
            )
        )


def end(error: str = "") -> None:
    """End the running unit, with an error's code if it failed."""
    if (unit := _unit.get()) is None:
        return
    _unit.set(None)
    # Without a name or a span nothing happened in it: a batch, whose messages are its units.
    if unit.recorded and (unit.span.name or unit.ended or error):
        unit.span.ended, unit.span.error = _now(), error
        _pending.extend((unit.span, *unit.ended))


def taken() -> list[Span]:
    """Return the spans of the units that have ended, once."""
    spans = _pending.copy()
    _pending.clear()
    return spans


def _now() -> int:
    """Return the time in nanoseconds; within a unit it only moves forward."""
    unit = _unit.get()
    if unit is None:
        return int(clock.timestamp() * 1e9)
    return unit.span.began + time.perf_counter_ns() - unit.started


def _endpoint() -> str:
    try:
        return config.trace().otlp_endpoint
    except ConfigError:  # whatever else is wrong with it: `config.require` says so
        return ""


def _dotted(attributes: dict[str, object]) -> dict[str, object]:
    return {name.replace("__", "."): value for name, value in attributes.items()}
