"""The engine: Stripe's API as a pure state machine with a clock that only `advance` moves."""

import hashlib
import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from local.stripe.core import search
from local.stripe.core.errors import Refusal
from local.stripe.core.params import Params, only
from local.stripe.core.state import Rules, State
from local.stripe.core.views import Object, copy, expanded, page
from local.stripe.objects import (
    account,
    billing_cycle,
    catalogue,
    checkout,
    collection,
    coupons,
    credit_notes,
    customers,
    invoice_items,
    invoices,
    one_off_invoices,
    portal,
    portal_features,
    refunds,
    setup_intents,
    subscription_changes,
    subscription_items,
    subscription_pauses,
    subscription_schedules,
    subscriptions,
    test_clocks,
    webhooks,
)
from local.stripe.sdk.contract import check_params, typed

_REPLAYED = 86400  # how long an idempotency key is remembered
_LONGEST_KEY = 255  # characters of an idempotency key


@dataclass(frozen=True)
class Answer:
    """An HTTP status and a JSON body; `replayed` says that the body is an earlier one's."""

    status: int
    body: Object
    replayed: bool = False


_MODULES = (
    account,
    catalogue,
    checkout,
    collection,
    coupons,
    credit_notes,
    customers,
    invoice_items,
    invoices,
    one_off_invoices,
    portal,
    refunds,
    search,
    setup_intents,
    subscription_changes,
    subscription_items,
    subscription_pauses,
    subscription_schedules,
    subscriptions,
    test_clocks,
    webhooks,
)
ROUTES = tuple(route for module in _MODULES for route in module.ROUTES)
# `/v1/customers/search` is not a customer whose id is "search".
_BY_LENGTH = sorted(ROUTES, key=lambda route: route.path.groups)


class Engine(State):
    """Stripe's API (`request`), clock (`advance`) and events (`events`)."""

    def request(
        self,
        method: str,
        path: str,
        params: Params | None = None,
        idempotency_key: str | None = None,
    ) -> tuple[int, Object]:
        """Answer a request with a status and a body."""
        answer = self.answer(method, path, params, idempotency_key)
        return answer.status, answer.body

    def answer(
        self,
        method: str,
        path: str,
        params: Params | None = None,
        idempotency_key: str | None = None,
        request_id: str | None = None,
    ) -> Answer:
        """Answer a request; the same key and parameters get the same answer."""
        params = params or {}
        key = idempotency_key if method == "POST" else None
        if key and len(key) > _LONGEST_KEY:
            refusal = Refusal(
                400, f"Idempotency keys can be at most {_LONGEST_KEY} characters long."
            )
            return Answer(400, refusal.body)
        asked = _fingerprint(method, path, params)
        if key and (known := self.keys.get(key)) and known["at"] + _REPLAYED > self.now:
            return _replay(known, key, asked)
        name = request_id or self.identify("req_", 14)
        before = self.request_of
        self.request_of = {"id": name, "idempotency_key": idempotency_key}
        try:
            answer = Answer(200, self._run(method, path, params))
        except Refusal as refusal:
            answer = Answer(refusal.status, copy(refusal.body))
        finally:
            self.request_of = before
        # A request refused before it changed anything may be repeated with its key.
        if key and answer.status in (200, 402):
            self.keys[key] = {
                "at": self.now,
                "asked": asked,
                "status": answer.status,
                "body": copy(answer.body),
            }
        return answer

    def _run(self, method: str, path: str, params: Params) -> Object:
        for route in _BY_LENGTH:
            if route.method == method and (match := route.path.fullmatch(path)):
                refuse(method, path, params)
                params = typed(method, path, params)
                only(params, set(route.params))
                with test_clocks.at_its_time(self, params, match.groups()):
                    found = route.handler(self, params, *match.groups())
                listed = route.lists
                shown = page(self.objects, found, params, path) if listed else self.show(found)
                return expanded(self.objects, shown, params)
        raise invalid_url(method, path)

    # ---- time

    def advance(self, seconds: int) -> None:
        """Move the clock; what is due on the way happens at its own time."""
        self.advance_to(self.now + seconds)

    def advance_to(self, moment: int) -> None:
        """Move the clock to a moment; never back."""
        self.live(self.agenda, moment)

    def wake_up(self, found: Object) -> None:
        """Run an object's due action."""
        _WAKE[found["object"]](self, found)

    def skip(self, seconds: int) -> None:
        """Move the clock without real time passing, so that events on the way do not age."""
        self.jump = self.now
        try:
            self.advance(seconds)
        finally:
            self.skipped += self.now - self.jump
            self.jump = None

    def forget(self, kept: Collection[str] = ()) -> None:
        """Drop what Stripe drops: events after 30 days, idempotency keys after one.

        Events named by `kept` stay, and the newest one, where the pump continues.
        """
        self.events = [
            *(e for e in self.events[:-1] if webhooks.is_listed(self, e) or e["id"] in kept),
            *self.events[-1:],
        ]
        self.keys = {k: v for k, v in self.keys.items() if v["at"] + _REPLAYED > self.now}

    # ---- to JSON and back

    def dump(self) -> Object:
        """Return everything as JSON data."""
        named = {field.name: getattr(self, field.name) for field in fields(self)}
        named |= {"rules": asdict(self.rules)}
        dumped: Object = json.loads(json.dumps(named))
        return dumped

    @classmethod
    def load(cls, data: Mapping[str, Any]) -> Self:
        """Return the engine that was dumped."""
        rules = data["rules"] | {"retry_days": tuple(data["rules"]["retry_days"])}
        agenda = [(when, name) for when, name in data["agenda"]]
        found = cls(**{**data, "rules": Rules(**rules), "agenda": agenda})
        for settings in found.all("billing_portal.configuration"):
            # State of an earlier release lists only the features it was sent.
            settings["features"] = portal_features.default_features() | settings["features"]
        return found


_WAKE: dict[str, Callable[[State, Object], None]] = {
    "subscription": subscription_schedules.wake,
    "invoice": billing_cycle.wake_invoice,
    "checkout.session": checkout.expire,
}


def _fingerprint(method: str, path: str, params: Params) -> str:
    said = json.dumps([method, path, params], sort_keys=True, default=str)
    return hashlib.sha256(said.encode()).hexdigest()


def _replay(known: Object, key: str, asked: str) -> Answer:
    if known["asked"] == asked:
        return Answer(known["status"], copy(known["body"]), replayed=True)
    refusal = Refusal(
        400,
        "Keys for idempotent requests can only be used with the same parameters they were first "
        f"used with. Try using a key other than '{key}' if you meant to execute a different "
        "request.",
        kind="idempotency_error",
    )
    return Answer(400, refusal.body)


def refuse(method: str, path: str, params: Params) -> None:
    """Refuse what the SDK's types do not allow: unknown names, shapes and words, at any depth."""
    for fault in check_params(method, path, params):
        raise Refusal(400, fault.message, code=fault.code, param=fault.param)


def invalid_url(method: str, path: str) -> Refusal:
    """Return Stripe's answer to an address that it does not have."""
    return Refusal(
        404,
        f"Unrecognized request URL ({method}: {path}). Please see https://stripe.com/docs or we "
        "can help at https://support.stripe.com/.",
    )
