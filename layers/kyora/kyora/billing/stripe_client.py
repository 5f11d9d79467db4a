"""Stripe's API through its SDK: one client, one error map, plain dictionaries.

Import it where Stripe is called, not at the top of a module: the SDK costs more than the rest of a
function's cold start. Its `raw_request` is used because our reader of Stripe's objects
(`stripe_objects`) is for webhooks' payloads as well, and reads JSON.
"""

import math
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

import requests
import stripe

from kyora import clock, config, trace
from kyora.billing import calls, rate_limit
from kyora.billing.stripe_objects import API_VERSION
from kyora.deadline import within
from kyora.errors import (
    ConfigError,
    Conflict,
    Invalid,
    KyoraError,
    NotFound,
    PaymentRequired,
    Unavailable,
)
from kyora.observability import logger

_CONNECT_AND_READ = (2.0, 6.0)  # seconds; three attempts of it fit into a function's 29
_DEADLINE = 24.0  # seconds for a call with its retries, however slowly an answer comes
_RETRIES = 2  # the SDK's default is none; it sends an idempotency key with every write
_PAGE = 100

_clients: dict[tuple[str, str], stripe.StripeClient] = {}


class Answer(NamedTuple):
    """An object of Stripe's, and a second of Stripe's clock by which it was not older."""

    object: dict[str, Any]
    as_of: int


class Declined(PaymentRequired):
    """The card was declined; `declineCode` is Stripe's own word for why."""

    code, title = "billing.card_declined", "The card was declined"


class Missing(NotFound):
    """Stripe does not know the object."""

    code, title = "billing.stripe_missing", "Not known to Stripe"


class Refused(Conflict):
    """Stripe understood and refuses: the object is in another state than we assumed."""

    code, title = "billing.stripe_refused", "Stripe refused"


def call(method: str, path: str, *, idempotency_key: str | None = None, **params: Any) -> Answer:
    """Call `/v1/<path>` and return what Stripe answers.

    Raises Declined, Missing, Refused, Conflict `billing.in_progress`, Unavailable
    `billing.stripe_unavailable` and ConfigError. Stripe's messages may name people: only their code
    is logged, and nothing of them is returned.
    """
    options = {"idempotency_key": idempotency_key} if idempotency_key else {}
    rate_limit.wait()
    began = time.monotonic()
    with trace.span(f"Stripe {method.upper()} {path.partition('/')[0]}", url__path=f"/v1/{path}"):
        try:
            found = _ask(method, f"/v1/{path}", params | options)
        except stripe.StripeError as error:
            raise _translate(error, path) from None
    if method != "get":
        calls.note(str(found.headers.get("Request-Id", "")), method, path, found.data.get("id"))
    taken = math.ceil(time.monotonic() - began)
    try:
        answered = int(parsedate_to_datetime(found.headers["Date"]).timestamp())
    except (KeyError, ValueError):
        answered = int(clock.timestamp())
    # Stripe read its data at some time between the request and the answer.
    return Answer(dict(found.data), answered - taken)


def pages(path: str, **params: Any) -> Iterator[dict[str, Any]]:
    """Yield every object of a list, page by page. Raises as `call` does."""
    for page in pages_of(path, **params):
        yield from page.object["data"]


def pages_of(path: str, **params: Any) -> Iterator[Answer]:
    """Yield every page of a list, at least one. Raises as `call` does."""
    after: dict[str, str] = {}
    while True:
        page = call("get", path, limit=_PAGE, **params, **after)
        yield page
        if not page.object.get("has_more") or not page.object["data"]:
            return
        after = {"starting_after": str(page.object["data"][-1]["id"])}


def _ask(method: str, path: str, options: dict[str, Any]) -> Any:
    """Call with the current key; when Stripe refuses it, once more with a key that replaced it."""
    used, ends = config.billing().stripe_api_key, time.monotonic() + _DEADLINE
    try:
        return _request(method, path, options, ends)
    except (stripe.AuthenticationError, stripe.PermissionError):
        config.forget()
        if config.billing().stripe_api_key == used:
            raise
    return _request(method, path, options, ends)


def _request(method: str, path: str, options: dict[str, Any], ends: float) -> Any:
    client = _client()
    try:
        return within(ends - time.monotonic(), lambda: client.raw_request(method, path, **options))
    except TimeoutError as error:
        _clients.clear()  # one of its connections is still waiting
        late = stripe.APIConnectionError("no whole answer in time")  # type: ignore[no-untyped-call]
        raise late from error


def _client() -> stripe.StripeClient:
    found = config.billing()
    if not found.stripe_api_key:
        raise ConfigError(["BILLING_STRIPE_API_KEY (or BILLING_STRIPE_API_KEY_ARN) is not set"])
    name = (found.stripe_api_key, found.stripe_base_url)
    if name not in _clients:
        _clients.clear()  # the key was rotated
        stripe.enable_telemetry = False  # it writes a file into the home folder
        _clients[name] = stripe.StripeClient(
            found.stripe_api_key,
            stripe_version=API_VERSION,
            base_addresses={"api": found.stripe_base_url} if found.stripe_base_url else {},
            max_network_retries=_RETRIES,
            # One session for the client, not one for each thread.
            http_client=stripe.RequestsClient(
                timeout=_CONNECT_AND_READ, session=requests.Session()
            ),
        )
    return _clients[name]


def _translate(error: stripe.StripeError, path: str) -> KyoraError:  # noqa: PLR0911  # a row each
    """Return our error for an error of the SDK's."""
    code, status = str(error.code or ""), error.http_status or 0
    logger().warning("Stripe refused", path=path.partition("/")[0], status=status, code=code)
    if isinstance(error, stripe.CardError):
        decline = str(getattr(error.error, "decline_code", None) or code)
        return Declined("The card was declined.", declineCode=decline)
    if isinstance(error, stripe.AuthenticationError | stripe.PermissionError):
        return ConfigError(["BILLING_STRIPE_API_KEY is not accepted by Stripe"])
    if isinstance(error, stripe.RateLimitError) or status == 429:
        asked = str((error.headers or {}).get("Retry-After", ""))
        wait = min(int(asked), 3600) if asked.isascii() and asked.isdigit() else 5
        return Unavailable("Stripe is busy.", code="billing.stripe_unavailable", retry_after=wait)
    if code in ("idempotency_key_in_use", "lock_timeout"):
        return Conflict(
            "The same is being done already.", code="billing.in_progress", retry_after=2
        )
    if code == "resource_missing":
        return Missing("Stripe does not know this.")
    if isinstance(error, stripe.APIConnectionError) or status >= 500 or not status:
        return Unavailable(
            "Stripe does not answer.", code="billing.stripe_unavailable", retry_after=10
        )
    if isinstance(error, stripe.IdempotencyError):
        return Invalid("This key was used with another request.", code="idempotency.key_reused")
    return Refused("Stripe does not do this for the subscription as it is.")
