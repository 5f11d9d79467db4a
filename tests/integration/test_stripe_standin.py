"""The stand-in over HTTP, driven by the real Stripe SDK and heard by a real receiver."""

import asyncio
import base64
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Self

import aiohttp
import pytest
import stripe
from aiohttp import web

from local.stripe.server import serve
from local.stripe.standin import Options, StandIn

KEY, SECRET, OTHER = "sk_test_kyora", "whsec_first", "whsec_second"


@pytest.fixture(autouse=True)
def no_telemetry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stripe, "enable_telemetry", False)


@dataclass
class Receiver:
    """A webhook endpoint that keeps what it was sent; `answers` are the next statuses."""

    url: str = ""
    got: list[tuple[bytes, str]] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)

    def ids(self) -> list[str]:
        return [json.loads(body)["id"] for body, _ in self.got]


@dataclass
class Running:
    """A stand-in and a receiver on a loop of their own."""

    standin: StandIn
    receiver: Receiver
    client: stripe.StripeClient

    def control(self, command: str, /, **body: Any) -> Any:
        url = f"{self.standin.url}/_control/{command}"
        return ask(url, json.dumps(body), **acting(self.standin))[2]

    def price(self, amount: int = 2000, **more: Any) -> stripe.Price:
        params: Any = {
            "product_data": {"name": "Pro"},
            "currency": "usd",
            "unit_amount": amount,
            "recurring": {"interval": "month"},
            **more,
        }
        return self.client.v1.prices.create(params)

    def sign_up(self, card: str = "pm_card_visa") -> stripe.Subscription:
        customer = self.client.v1.customers.create(
            {"payment_method": card, "invoice_settings": {"default_payment_method": card}}
        )
        return self.client.v1.subscriptions.create(
            {"customer": customer.id, "items": [{"price": self.price().id}]}
        )


def ask(url: str, body: str | None = None, **headers: str) -> tuple[int, dict[str, str], Any]:
    async def send() -> tuple[int, dict[str, str], Any]:
        async with (
            aiohttp.ClientSession() as session,
            session.request(
                "GET" if body is None else "POST", url, data=body, headers=headers
            ) as a,
        ):
            text = await a.text()
            named = {name.lower(): value for name, value in a.headers.items()}
            is_json = a.content_type == "application/json"
            return a.status, named, json.loads(text) if is_json else text

    return asyncio.run(send())


def acting(standin: StandIn) -> dict[str, str]:
    """Return the headers of an act: its body is JSON, and it knows the token."""
    return {"Content-Type": "application/json", "X-Kyora-Token": standin.options.token}


def eventually(done: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 60
    while not done():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


class Loop:
    """An event loop in a thread, for servers that a test talks to from outside."""

    def __enter__(self) -> Self:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()
        return self

    def run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(120)

    def __exit__(self, *_: object) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()


def receiving(receiver: Receiver) -> web.AppRunner:
    async def hook(request: web.Request) -> web.Response:
        receiver.got.append((await request.read(), request.headers["Stripe-Signature"]))
        return web.Response(status=receiver.answers.pop(0) if receiver.answers else 200)

    app = web.Application()
    app.router.add_post("/hook", hook)
    return web.AppRunner(app)


def client(url: str, key: str = KEY, retries: int = 0) -> stripe.StripeClient:
    return stripe.StripeClient(key, base_addresses={"api": url}, max_network_retries=retries)


@contextmanager
def standing_in(**options: Any) -> Iterator[Running]:
    """Run a stand-in that reports to a receiver."""
    receiver = Receiver()
    runner = receiving(receiver)
    with Loop() as loop:

        async def start() -> None:
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"

        loop.run(start())
        hooks = ((receiver.url, (SECRET,)),)
        serving = serve(Options(key=KEY, seed=1, webhooks=hooks, **options))
        standin = loop.run(serving.__aenter__())
        try:
            yield Running(standin, receiver, client(standin.url))
        finally:
            loop.run(serving.__aexit__(None, None, None))
            loop.run(runner.cleanup())


@pytest.fixture
def running() -> Iterator[Running]:
    with standing_in() as found:
        yield found


# ---- the SDK finds what it knows


def test_the_sdk_signs_someone_up_and_reads_every_new_shape(running: Running) -> None:
    customer = running.client.v1.customers.create({"email": "owner@example.com"})
    sub = running.client.v1.subscriptions.create(
        {
            "customer": customer.id,
            "items": [{"price": running.price().id}],
            "payment_behavior": "default_incomplete",
            "expand": ["latest_invoice.confirmation_secret", "latest_invoice.payments"],
        }
    )
    assert isinstance(sub.latest_invoice, stripe.Invoice)
    assert sub.latest_invoice.confirmation_secret is not None
    assert sub.latest_invoice.payments is not None
    intent = sub.latest_invoice.payments.data[0].payment.payment_intent
    assert isinstance(intent, str)
    running.client.v1.payment_intents.confirm(intent, {"payment_method": "pm_card_visa"})
    after = running.client.v1.subscriptions.retrieve(sub.id, {"expand": ["customer"]})
    assert after.status == "active"
    assert isinstance(after.customer, stripe.Customer)
    assert after["items"].data[0].current_period_end > after.created


def test_every_page_of_a_list_is_walked(running: Running) -> None:
    made = [running.client.v1.customers.create({"name": str(n)}).id for n in range(23)]
    found = running.client.v1.customers.list({"limit": 5}).auto_paging_iter()
    assert [one.id for one in found] == made[::-1]


@pytest.mark.parametrize(
    ("params", "names"),
    [
        ({"lookup_keys": ["b"]}, ["b"]),
        ({"active": False}, ["c"]),
        ({"type": "recurring", "limit": 2}, ["c", "b"]),
        ({"created": {"gte": 1}, "currency": "usd"}, ["c", "b", "a"]),
        ({"created": {"lt": 1}}, []),
    ],
)
def test_lists_are_filtered(running: Running, params: Any, names: list[str]) -> None:
    for name in "abc":
        running.price(lookup_key=name)
    running.client.v1.prices.update(
        running.client.v1.prices.list({"lookup_keys": ["c"]}).data[0].id, {"active": False}
    )
    found = running.client.v1.prices.list(params).data
    assert [price.lookup_key for price in found] == names


def test_tiers_and_currencies_come_when_they_are_asked_for(running: Running) -> None:
    running.price(currency_options={"eur": {"unit_amount": 1800}})
    plain = running.client.v1.prices.list().data[0].to_dict()
    assert "currency_options" not in plain
    rich = running.client.v1.prices.list({"expand": ["data.currency_options", "data.product"]})
    price = rich.data[0].to_dict()
    assert price["currency_options"]["eur"]["unit_amount"] == 1800
    assert price["product"]["name"] == "Pro"


def _with(key: str) -> Callable[[Running], object]:
    return lambda on: client(on.standin.url, key).v1.customers.list()


REFUSALS: list[tuple[Callable[[Running], object], type[stripe.StripeError], int, str | None]] = [
    (_with("sk_test_other"), stripe.AuthenticationError, 401, None),
    (
        lambda on: on.client.v1.customers.retrieve("cus_unknown"),
        stripe.InvalidRequestError,
        404,
        "resource_missing",
    ),
    (
        lambda on: on.client.v1.prices.create({"currency": "usd"}),
        stripe.InvalidRequestError,
        400,
        "parameter_missing",
    ),
    (lambda on: on.client.v1.quotes.list(), stripe.InvalidRequestError, 404, None),
    (
        lambda on: on.sign_up("pm_card_chargeDeclinedInsufficientFunds"),
        stripe.CardError,
        402,
        "card_declined",
    ),
]


@pytest.mark.parametrize(("request_", "kind", "status", "code"), REFUSALS)
def test_a_refusal_is_the_exception_the_sdk_has_for_it(
    running: Running,
    request_: Callable[[Running], object],
    kind: type[stripe.StripeError],
    status: int,
    code: str | None,
) -> None:
    with pytest.raises(kind) as refused:
        request_(running)
    assert (refused.value.http_status, refused.value.code) == (status, code)
    assert refused.value.request_id


def test_an_idempotency_key_holds_over_http(running: Running) -> None:
    first = running.client.v1.customers.create({"name": "A"}, {"idempotency_key": "k"})
    again = running.client.v1.customers.create({"name": "A"}, {"idempotency_key": "k"})
    assert again.id == first.id
    assert again.last_response is not None
    assert again.last_response.headers["Idempotent-Replayed"] == "true"
    with pytest.raises(stripe.IdempotencyError):
        running.client.v1.customers.create({"name": "B"}, {"idempotency_key": "k"})
    assert len(running.client.v1.customers.list().data) == 1


def test_a_key_that_is_still_under_way_is_a_conflict(running: Running) -> None:
    running.control("faults", kind="slow", seconds=3, path="/v1/customers")
    slow = threading.Thread(
        target=lambda: running.client.v1.customers.create({}, {"idempotency_key": "k"})
    )
    slow.start()
    eventually(lambda: running.standin.running, "the slow request never began")
    with pytest.raises(stripe.StripeError) as refused:
        running.client.v1.customers.create({}, {"idempotency_key": "k"})
    slow.join()
    assert refused.value.http_status == 409
    assert len(running.client.v1.customers.list().data) == 1


def test_the_date_is_the_stand_ins_own(running: Running) -> None:
    running.control("advance", days=40)
    made = running.client.v1.customers.create({})
    assert made.last_response is not None
    date = parsedate_to_datetime(made.last_response.headers["Date"])
    assert date.timestamp() == made.created
    assert made.created > time.time() + 39 * 86400


def test_basic_authentication_is_accepted_and_none_is_not(running: Running) -> None:
    basic = base64.b64encode(f"{KEY}:".encode()).decode()
    url = f"{running.standin.url}/v1/account"
    assert ask(url, Authorization=f"Basic {basic}")[0] == 200
    status, _, body = ask(url)
    assert (status, body["error"]["type"]) == (401, "invalid_request_error")
    assert ask(url, Authorization="Basic !!")[0] == 401


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Origin": "http://evil.example"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "null"},
    ],
    ids=["rebound name", "another site's form", "another origin", "another port", "sandbox"],
)
def test_another_site_cannot_steer_the_stand_in(running: Running, headers: Any) -> None:
    before = running.standin.offset
    url = f"{running.standin.url}/_control/advance"
    assert ask(url, '{"days": 1}', **acting(running.standin) | headers)[0] == 403
    assert running.standin.offset == before


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
        ({"X-Kyora-Token": "of another start"}, 401),
    ],
    ids=["text, which any page may send", "a form", "another token"],
)
def test_an_act_at_the_stand_in_needs_the_token_and_a_json_body(
    running: Running, headers: Any, status: int
) -> None:
    url = f"{running.standin.url}/_control/reset"
    running.client.v1.customers.create({"name": "stays"})
    assert ask(url, "{}", **acting(running.standin) | headers)[0] == status
    assert len(running.client.v1.customers.list().data) == 1


@pytest.mark.parametrize("host", ["10.88.0.1:20000", "host.docker.internal:20000", "[::1]:20000"])
def test_a_container_may_ask_by_its_own_name_for_this_machine(running: Running, host: str) -> None:
    assert ask(f"{running.standin.url}/_control/state", Host=host)[0] == 200


# ---- faults


def test_the_sdk_retries_a_lost_answer_without_doing_it_twice(running: Running) -> None:
    running.control("faults", kind="lose", path="/v1/customers", method="POST")
    client(running.standin.url, retries=2).v1.customers.create({"name": "once"})
    assert len(running.client.v1.customers.list().data) == 1


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ({"status": 500}, stripe.APIError),
        ({"status": 503}, stripe.APIError),
        ({"status": 429}, stripe.RateLimitError),
        ({"kind": "refuse"}, stripe.APIConnectionError),
        ({"kind": "lose"}, stripe.APIConnectionError),
    ],
)
def test_trouble_on_request_lasts_for_the_requests_it_is_for(
    running: Running, fault: Any, kind: type[stripe.StripeError]
) -> None:
    running.control("faults", **fault, times=2, path="/v1/prices")
    assert running.client.v1.customers.list().data == []
    for _ in range(2):
        with pytest.raises(kind):
            running.client.v1.prices.list()
    assert running.client.v1.prices.list().data == []


# ---- webhooks


def test_every_event_arrives_signed_for_the_secret(running: Running) -> None:
    running.sign_up()
    reported = [event["id"] for event in running.standin.engine.events]
    eventually(lambda: len(running.receiver.got) >= len(reported), "not every event arrived")
    assert sorted(running.receiver.ids()) == sorted(reported)
    for body, header in running.receiver.got:
        event = stripe.Webhook.construct_event(body, header, SECRET)  # type: ignore[no-untyped-call]
        assert event.api_version == "2026-10-28.endive"
        with pytest.raises(stripe.SignatureVerificationError):
            stripe.WebhookSignature.verify_header(body.decode(), header, OTHER, 300)


def test_while_a_secret_is_rolled_both_hold(running: Running) -> None:
    endpoint = running.client.v1.webhook_endpoints.list().data[0].id
    running.control("roll", endpoint=endpoint, secret=OTHER)
    running.client.v1.customers.create({})
    eventually(lambda: running.receiver.got, "nothing arrived")
    body, header = running.receiver.got[0]
    for secret in (SECRET, OTHER):
        assert stripe.WebhookSignature.verify_header(body.decode(), header, secret, 300)
    running.control("roll", endpoint=endpoint, expire=True)
    running.client.v1.customers.create({})
    eventually(lambda: len(running.receiver.got) == 2, "nothing arrived")
    body, header = running.receiver.got[1]
    assert header.count("v1=") == 1
    assert stripe.WebhookSignature.verify_header(body.decode(), header, OTHER, 300)


def test_what_is_not_taken_comes_again_until_it_is(running: Running) -> None:
    running.control("pump", gaps=[0.05])
    running.receiver.answers += [500, 302]
    running.client.v1.customers.create({})
    eventually(lambda: not running.standin.pump.waiting(), "it never arrived")
    assert len(running.receiver.got) == 3
    assert len(set(running.receiver.ids())) == 1
    delivery = running.standin.pump.deliveries[0]
    assert (delivery.status, delivery.attempts) == ("sent", 3)


def test_events_can_be_sent_twice_and_in_another_order(running: Running) -> None:
    running.control("pump", duplicate=1, copies=3, shuffle=True, hold=True, seed=4)
    running.sign_up()
    reported = [event["id"] for event in running.standin.engine.events]
    assert running.receiver.got == []
    running.control("release")
    eventually(lambda: len(running.receiver.got) >= 3 * len(reported), "not every copy arrived")
    seen = list(dict.fromkeys(running.receiver.ids()))
    assert sorted(seen) == sorted(reported)
    assert seen != reported


def test_a_dropped_event_is_found_in_the_list_and_sent_on_request(running: Running) -> None:
    running.control("pump", drop=1)
    running.client.v1.customers.create({})
    event = running.client.v1.events.list({"type": "customer.created"}).data[0]
    assert running.standin.pump.waiting() == []
    running.control("redeliver", event=event.id)
    eventually(lambda: running.receiver.got, "it was not sent again")
    assert running.receiver.ids() == [event.id]


def test_a_jump_of_a_year_delivers_every_event_in_order(tmp_path: Path) -> None:
    with standing_in(state=tmp_path / "state.json") as running:
        subs = [running.sign_up(), running.sign_up(), running.sign_up()]
        running.control("advance", days=366)
        events = list(running.standin.engine.events)
        receiver = running.receiver
        eventually(lambda: len(receiver.got) >= len(events), "events have not arrived")
        time.sleep(1)  # the state is saved twice meanwhile
        listed = [event.id for event in running.client.v1.events.list({}).auto_paging_iter()]
    assert len(events) > 3 * 12 * 6
    assert sorted(receiver.ids()) == sorted(event["id"] for event in events)
    assert listed == [event["id"] for event in reversed(events)]
    for sub in subs:
        own = [e["id"] for e in events if e["data"]["object"].get("customer") == sub.customer]
        assert [name for name in receiver.ids() if name in set(own)] == own


def test_an_endpoint_hears_only_what_it_asked_for(running: Running) -> None:
    for endpoint in running.client.v1.webhook_endpoints.list().data:
        running.client.v1.webhook_endpoints.delete(endpoint.id)
    made = running.client.v1.webhook_endpoints.create(
        {"url": running.receiver.url, "enabled_events": ["price.created"]}
    )
    running.price()
    eventually(lambda: running.receiver.got, "nothing arrived")
    eventually(lambda: not running.standin.pump.waiting(), "something is still on its way")
    body, header = running.receiver.got[0]
    assert [json.loads(body)["type"] for body, _ in running.receiver.got] == ["price.created"]
    assert made.secret is not None
    assert stripe.WebhookSignature.verify_header(body.decode(), header, made.secret, 300)
    assert "secret" not in running.client.v1.webhook_endpoints.retrieve(made.id).to_dict()


# ---- running it


def test_a_second_run_finds_its_data_again(tmp_path: Path) -> None:
    options = Options(key=KEY, state=tmp_path / "deep" / "stripe.json", seed=3)

    async def once(work: Callable[[str], Any]) -> Any:
        async with serve(options) as on:
            return await asyncio.to_thread(work, on.url)

    made = asyncio.run(once(lambda url: client(url).v1.customers.create({"name": "kept"}).id))
    found = asyncio.run(once(lambda url: client(url).v1.customers.retrieve(made).name))
    assert found == "kept"
    assert (tmp_path / "deep" / "stripe.json").stat().st_mode & 0o077 == 0


def test_reset_forgets_everything_but_where_events_go(running: Running) -> None:
    running.sign_up()
    running.control("advance", days=3)
    running.control("reset")
    assert running.client.v1.customers.list().data == []
    assert [e.url for e in running.client.v1.webhook_endpoints.list().data] == [
        running.receiver.url
    ]
    running.receiver.got.clear()
    running.client.v1.customers.create({})
    eventually(lambda: running.receiver.got, "nothing arrived after the reset")


# ---- versions


@pytest.mark.parametrize(
    ("version", "status"),
    [
        ("2026-10-28.endive", 200),
        ("2026-09-30.endive", 200),  # the same release train
        ("2025-02-24.acacia", 400),
        ("2099-01-01.endive", 400),
        ("latest", 400),
    ],
)
def test_a_version_is_answered_or_refused(running: Running, version: str, status: int) -> None:
    headers = {"Authorization": f"Bearer {KEY}", "Stripe-Version": version}
    found, answered, body = ask(f"{running.standin.url}/v1/products", **headers)
    assert (found, answered["stripe-version"]) == (status, version)
    if status != 200:
        assert body["error"]["message"].startswith(f"Invalid Stripe API version: {version}")
