"""`/_control/`: what tests and people need and Stripe does not offer: time, faults, deliveries.

POST bodies are JSON objects, sent with the token that `make run` writes as KYORA_CONSOLE_TOKEN: any
page that a browser has open may send a request here. Reads need none.
"""

import json
from collections.abc import Awaitable, Callable
from dataclasses import asdict, fields
from typing import Any

from aiohttp import web

from local.stripe import faults
from local.stripe.core.errors import Refusal
from local.stripe.core.state import Rules
from local.stripe.objects import collection, setup_intents
from local.stripe.pages import overview
from local.stripe.pump import Behaviour
from local.stripe.standin import STANDIN, StandIn
from local.web import guard

type Command = Callable[[StandIn, dict[str, Any]], Any]
_DAY = 86400


def mount(app: web.Application) -> None:
    """Serve the control addresses on this application."""
    app.router.add_get("/_control/state", _answer(_state))
    app.router.add_get("/_control/events", _answer(_events))
    app.router.add_get("/_control/overview", _answer(_overview))
    for path, command in (
        ("advance", _advance),
        ("pump", _behave),
        ("rules", _rule),
        ("faults", _fail),
        ("redeliver", _redeliver),
        ("hold", lambda found, _: _behave(found, {"hold": True})),
        ("release", lambda found, _: _behave(found, {"hold": False})),
        ("authenticate", _authenticate),
        ("roll", _roll),
        ("reset", _reset),
    ):
        app.router.add_post(f"/_control/{path}", _answer(command))


def _answer(command: Command) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def handle(request: web.Request) -> web.StreamResponse:
        found = request.app[STANDIN]
        if request.method == "POST" and (no := guard.refuse_act(request, found.options.token)):
            return web.json_response({"error": no[1]}, status=no[0])
        text = await request.text()
        try:
            given = json.loads(text) if text else {}
        except ValueError:
            given = None
        if not isinstance(given, dict):
            return web.json_response({"error": "the body must be a JSON object"}, status=400)
        found.tick()
        try:
            answer = command(found, given or dict(request.query))
        except (TypeError, ValueError) as error:
            return web.json_response({"error": str(error)}, status=400)
        except Refusal as refusal:
            return web.json_response(refusal.body, status=refusal.status)
        found.pump.take(found.engine)
        return web.json_response(answer)

    return handle


def _state(found: StandIn, given: dict[str, Any]) -> Any:
    engine = found.engine
    return {
        "now": engine.now,
        "next": engine.next_due(),
        "offset": found.offset,
        "api_version": "".join({event["api_version"] for event in engine.events[-1:]}),
        "objects": {kind: len(names) for kind, names in engine.kinds.items()},
        "events": len(engine.events),
        "waiting": len(found.pump.waiting()),
        "due": found.pump.due(),
        "pump": asdict(found.pump.behaviour),
        "rules": asdict(engine.rules),
        "faults": [asdict(fault) for fault in found.troubles],
    }


def _events(found: StandIn, given: dict[str, Any]) -> Any:
    """List events, newest first, with how their deliveries went."""
    sent: dict[str, list[Any]] = {}
    for delivery in found.pump.deliveries:
        sent.setdefault(delivery.event, []).append(asdict(delivery))
    limit = int(given.get("limit", 100))
    return [
        {
            "id": event["id"],
            "type": event["type"],
            "created": event["created"],
            "object": event["data"]["object"]["id"],
            "deliveries": sent.get(event["id"], []),
        }
        for event in list(reversed(found.engine.events))[:limit]
    ]


def _overview(found: StandIn, given: dict[str, Any]) -> Any:
    """Return what the dashboard shows."""
    events = _events(found, {"limit": 100})
    return {**_state(found, given), "events": events, **overview.of(found.engine)}


def _advance(found: StandIn, given: dict[str, Any]) -> Any:
    """Move the clock by `seconds`, `days` or both."""
    seconds = int(given.get("seconds", 0)) + int(given.get("days", 0)) * _DAY
    if seconds < 0:
        raise ValueError("time does not go back")
    found.tick()
    found.engine.skip(seconds)
    found.offset += seconds
    found.tick()
    return {"now": found.engine.now, "events": len(found.engine.events)}


def _behave(found: StandIn, given: dict[str, Any]) -> Any:
    """Set how events are delivered: drop, duplicate, copies, delay, shuffle, hold, seed."""
    _known(given, Behaviour)
    found.pump.behave(**given)
    return asdict(found.pump.behaviour)


def _rule(found: StandIn, given: dict[str, Any]) -> Any:
    """Set the account's rules: retry_days, final, pause_first, draft_seconds."""
    _known(given, Rules)
    now = asdict(found.engine.rules) | given
    found.engine.rules = Rules(**now | {"retry_days": tuple(now["retry_days"])})
    return asdict(found.engine.rules)


def _fail(found: StandIn, given: dict[str, Any]) -> Any:
    """Make the next requests fail: kind, times, status, path, method, seconds; times 0 ends it."""
    _known(given, faults.Fault)
    if given.get("times") == 0:
        found.troubles.clear()
        return []
    fault = faults.Fault(**{"kind": "status", **given})
    if fault.kind not in faults.KINDS:
        raise ValueError(f"kind must be one of {', '.join(faults.KINDS)}")
    found.troubles.append(fault)
    return [asdict(each) for each in found.troubles]


def _known(given: dict[str, Any], shape: Any) -> None:
    if unknown := set(given) - {field.name for field in fields(shape)}:
        raise ValueError(f"unknown: {', '.join(sorted(unknown))}")


def _redeliver(found: StandIn, given: dict[str, Any]) -> Any:
    """Send an event again."""
    return {"endpoints": found.pump.redeliver(str(given.get("event")))}


def _authenticate(found: StandIn, given: dict[str, Any]) -> Any:
    """Pass or fail the 3D Secure challenge of a payment intent, as the cardholder would."""
    passed = bool(given.get("passed", True))
    if "setup_intent" in given:
        setup = found.engine.find("setup_intent", given["setup_intent"])
        setup_intents.authenticate(found.engine, setup, passed=passed)
        return found.engine.show(setup)
    intent = found.engine.find("payment_intent", given.get("payment_intent"))
    collection.authenticate(found.engine, intent, passed=passed)
    return found.engine.show(intent)


def _roll(found: StandIn, given: dict[str, Any]) -> Any:
    """Roll an endpoint's secret: add a new one, or with `expire` drop all but the newest."""
    endpoint = found.engine.find("webhook_endpoint", given.get("endpoint"))
    if given.get("expire"):
        endpoint["_secrets"] = endpoint["_secrets"][:1]
        return {"secrets": 1}
    secret = given.get("secret") or f"whsec_{found.engine.random(32)}"
    endpoint["_secrets"] = [secret, *endpoint["_secrets"]]
    return {"secret": secret, "secrets": len(endpoint["_secrets"])}


def _reset(found: StandIn, given: dict[str, Any]) -> Any:
    """Delete everything except the webhook endpoints given at the start."""
    found.forget()
    return {"now": found.engine.now}
