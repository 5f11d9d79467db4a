"""`make trace`: what became of an id, as one causal line, and what it waits for."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from local.commands.remote import Ask
from local.progress import Trouble, say, shown
from local.web.console import consumers

_CLOCK = "                         "  # as wide as a time


def show(ask: Ask, asked: str) -> None:
    """Print the line and what is still to come. Raises Trouble when nothing is known."""
    found = ask({"trace": asked})
    if not found["line"]:
        raise Trouble(
            f"nothing is known of {shown(asked)!r}: neither an asset, order, invoice, subscription,"
            " customer, event, mail, request nor trace has this id, or its rows are past their"
            " retention"
        )
    for text in lines(found):
        say(text)


def lines(found: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines to print."""
    waits = [(one["id"], one["text"], one["due"]) for one in found["waits"]]
    for fact in found["line"]:
        indent = "  " * fact["depth"]
        mark = "→ " if fact["depth"] else ""
        name = "" if ":" in fact["id"] else f"  {fact['id']}"
        yield f"{_time(fact['at'])}  {indent}{mark}{shown(fact['text'])}{shown(name)}"
        if not fact["event"]:
            continue
        known = consumers.by_event().get(fact["event"], [])
        takers = [one.function for one in known if one.takes({"variants": fact["variants"]})]
        if not takers:
            yield f"{_CLOCK}  {indent}    nothing consumes it"
        for taker in takers:
            if taker not in fact["handled"]:
                text = f"{taker} has not handled it yet; its log and `make status` say why"
                waits.append((fact["id"], text, None))
    yield ""
    if not waits:
        yield "It waits for nothing."
    for identity, text, due in waits:
        yield f"Still to come  {shown(identity)}: {shown(text)}{f', {_time(due)}' if due else ''}"


def _time(iso: str) -> str:
    at = datetime.fromisoformat(iso).astimezone(UTC)
    return f"{at:%Y-%m-%d %H:%M:%S}.{at.microsecond // 1000:03}"
