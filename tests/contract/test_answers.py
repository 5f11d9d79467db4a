"""Every answer that the document promises can be had, and is what the document says of it."""

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from kyora import config, postgres
from kyora.billing.api import subscriptions
from kyora.billing.models import PlanChoice
from kyora.errors import PaymentRequired
from kyora.http import MAX_BODY
from kyora.postgres import connection
from tests.conftest import SECRET
from tests.contract.documented import BODIES, DOCUMENT, FILE, FILM, HOME, OPERATIONS, resolve
from tests.days import not_at_midnight
from tests.integration.support import shops
from tests.integration.support.shops import Shop
from tests.unit.functions import ADMIN, call, captured_log, event

OTHERS: dict[str, Any] = {  # good ones as well
    "requestUpload": FILE | {"size": 6},
    "requestUploads": {"files": [FILE, FILE]},
    "startMultipart": FILM | {"size": 10 << 20},
    "createBusiness": BODIES["createBusiness"] | {"name": "Other"},
    "changeSubscription": {"planId": "enterprise"},
    "createCheckoutSession": BODIES["createCheckoutSession"] | {"planId": "enterprise"},
    "createPortalSession": {"returnUrl": HOME + "?other"},
}
ASSET = "ast_01kaq3v6m8r5x9y2c4d7f0h1jk"
# Given by the front of the local stack, for what the gateway answers without a function.
_EDGE = "service.throttled"

type Case = Callable[["Request"], None]


class Request:
    """A request that a case may spoil, and the world it is made in."""

    def __init__(self, operation: str, environment: pytest.MonkeyPatch, store: Path) -> None:
        self.route, self.made = OPERATIONS[operation]
        self.operation, self.environment, self.store = operation, environment, store
        self.authorizer: dict[str, str] | None = None if self.made["security"] == [] else ADMIN
        self.headers: dict[str, str] = {}
        self.other: Any = None  # a second connection, open until the answer is there
        self.key = self.route
        self.body = BODIES.get(operation)
        self.path = {"assetId": ASSET} if "{assetId}" in self.route else {}
        self.path |= {"planId": "professional"} if "{planId}" in self.route else {}
        parameters = [p for p in self.made.get("parameters", []) if p["in"] == "query"]
        self.query = {one["name"]: one["example"] for one in parameters if one["required"]}
        self.shop: Shop

    def send(self) -> tuple[int, dict[str, Any], dict[str, str]]:
        sent = event(
            self.route, self.body, authorizer=self.authorizer, headers=self.headers, **self.path
        )
        sent |= {"routeKey": self.key, "queryStringParameters": self.query or None}
        return call(self.made["x-function"], sent)

    def asset(self, changes: str = "status = 'pending'", content: bytes | None = None) -> None:
        """Insert the asset that the route names."""
        with postgres.transaction() as tx:
            tx.run("INSERT INTO storage_usage (workspace_id, reserved_bytes) VALUES ('ws_demo', 5)")
            tx.run(
                "INSERT INTO asset (id, workspace_id, created_by, filename, content_type, size,"
                " url_expires_at, confirm_deadline) VALUES (:id, 'ws_demo', 'usr_demo_admin',"
                " 'a.txt', 'text/plain', 5, now() + interval '1 hour', now() + interval '1 hour')",
                id=ASSET,
            )
            tx.run(f"UPDATE asset SET {changes}")
        if content is not None:
            file = self.store / "incoming" / "ws_demo" / ASSET
            file.parent.mkdir(parents=True)
            file.write_bytes(content)

    def variable(self, name: str, value: str | None) -> None:
        """Change the configuration under a running function."""
        if value is None:
            self.environment.delenv(name)
        else:
            self.environment.setenv(name, value)
        postgres.close()
        config.forget()


def as_owner(sql: str) -> None:
    with postgres.transaction(owner=True) as tx:
        tx.run(sql)


def run(sql: str) -> None:
    with postgres.transaction() as tx:
        tx.run(sql)


def refused(code: str) -> Case:
    return lambda r: setattr(r, "authorizer", {"refusal": code})


def body(value: object) -> Case:
    return lambda r: setattr(r, "body", value)


def secrets_away(r: Request) -> None:
    r.variable("DATABASE_URL", None)
    r.variable("DATABASE_URL_ARN", "arn:aws:secretsmanager:eu-west-1:123456789012:secret:x")


def key_in_use(r: Request) -> None:
    r.headers = {"idempotency-key": "k"}
    operation = re.sub(r"([A-Z])", r"_\1", r.made["operationId"]).lower()
    r.other = connection.connect(config.database_url(), development=True)
    r.other.run(
        "SELECT pg_advisory_lock(hashtextextended(:name, 0))", name=f"ws_demo\n{operation}\nk"
    )


def key_reused(r: Request) -> None:
    r.headers = {"idempotency-key": "k"}
    assert r.send()[0] in (200, 201)
    r.body = OTHERS[r.operation]


def allowed(limit: str, amount: int) -> Case:
    """Give the workspace a plan with one limit."""
    return lambda r: run(
        "INSERT INTO workspace_billing (workspace_id, plan_id, access, limits, status)"
        f" VALUES ('ws_demo', 'test', 'free', '{{\"{limit}\": {amount}}}', 'free')"
    )


def many_waiting(r: Request) -> None:
    r.asset()
    run(
        "INSERT INTO asset (id, workspace_id, created_by, filename, content_type, size,"
        " url_expires_at, confirm_deadline) SELECT 'ast_' || n, 'ws_demo', 'u', 'a.txt',"
        " 'text/plain', 1, now(), now() + interval '1 hour' FROM generate_series(1, 500) AS n"
    )


def all_asked_for_today(r: Request) -> None:
    allowed("maxStorageBytes", 100)(r)
    not_at_midnight()
    run(
        "INSERT INTO storage_usage (workspace_id, asked_on, asked_files)"
        " VALUES ('ws_demo', (now() AT TIME ZONE 'UTC')::date, 20000)"
    )


def room_given_away(r: Request) -> None:
    """The reservation of the asset has lapsed, and something else was uploaded since."""
    r.asset("reserved = false")
    allowed("maxStorageBytes", 9)(r)  # five are reserved, for nothing that is there


UPLOAD = "a" * 32
_PIECES = {1: b"he", 2: b"ll", 3: b"o"}


def in_parts(changes: str = "status = 'pending'", arrived: Sequence[int] = ()) -> Case:
    """Insert the asset as a file of three parts, some of which have arrived."""

    def make(r: Request) -> None:
        r.asset(f"part_size = 2, store_upload = '{UPLOAD}', {changes}")
        folder = r.store / "parts" / "ws_demo" / ASSET / UPLOAD
        folder.mkdir(parents=True)
        named = []
        for number in arrived:
            digest = hashlib.sha256(_PIECES[number]).hexdigest()
            (folder / f"{number:05}-{digest}").write_bytes(_PIECES[number])
            named.append({"number": number, "etag": digest})
        if r.operation == "completeMultipart" and named:
            r.body = {"parts": named}

    return make


def parts_room_given_away(r: Request) -> None:
    in_parts("reserved = false")(r)
    allowed("maxStorageBytes", 9)(r)


def another_part(r: Request) -> None:
    in_parts(arrived=(1, 2, 3))(r)
    r.body["parts"][1]["etag"] = "another"


def parts_are_no_folder(r: Request) -> None:
    r.asset(f"part_size = 2, store_upload = '{UPLOAD}'")
    if r.operation == "signParts":
        run("UPDATE asset SET store_upload = NULL")
    r.store.mkdir(parents=True)
    (r.store / "parts").write_text("")


def store_is_no_folder(r: Request) -> None:
    r.asset()
    r.store.mkdir(parents=True)
    (r.store / "incoming").write_text("")


def a_day_of_orders(r: Request) -> None:
    run(
        "INSERT INTO business (id, workspace_id, name, currency)"
        " VALUES ('biz_demo', 'ws_demo', 'Demo', 'USD')"
    )
    run(
        "INSERT INTO analytics_count (workspace_id, business_id, day, kind, label, shard, count,"
        " amount) VALUES ('ws_demo', 'biz_demo', '2026-11-23', 'order', 'USD', 1, 2, 10998),"
        " ('ws_demo', 'biz_demo', '2026-11-23', 'customer', 'shop', 1, 1, 0)"
    )


def after(prepare: Case, spoil: Case) -> Case:
    """Make one thing after another."""

    def both(r: Request) -> None:
        prepare(r)
        spoil(r)

    return both


def nothing(r: Request) -> None:
    """Leave the world as it is."""


def subscribed(r: Request) -> None:
    r.shop.subscribe()


def ending(r: Request) -> None:
    subscribed(r)
    subscriptions.cancel(shops.ADMIN, "period_end")


def unpaid(r: Request) -> None:
    with suppress(PaymentRequired):
        choice = PlanChoice.model_validate({"planId": "professional"})
        subscriptions.choose(shops.ADMIN, choice)


def bad_card(r: Request) -> None:
    """A card that is good to be kept, and not to pay with."""
    subscribed(r)
    subscriptions.cancel(shops.ADMIN, "now")
    r.shop.save_card(r.shop.all("customer")[0]["id"], "pm_card_chargeCustomerFail")


def owing(r: Request) -> None:
    """The renewal could not be charged."""
    name = r.shop.subscribe()
    method = r.shop.save_card(r.shop.all("customer")[0]["id"], "pm_card_chargeCustomerFail")
    r.shop.request("POST", f"subscriptions/{name}", default_payment_method=method)
    r.shop.advance(32)
    r.shop.deliver()


def forgotten(r: Request) -> None:
    """Stripe knows nothing of ours: the key is another account's."""
    run("UPDATE plan SET price_id = 'price_gone_' || id")
    run("UPDATE subscription SET id = 'sub_gone'")
    run("UPDATE workspace_billing SET subscription_id = 'sub_gone' WHERE workspace_id = 'ws_demo'")
    run(
        "INSERT INTO billing_customer (id, workspace_id) SELECT 'cus_gone', 'ws_demo'"
        " WHERE NOT EXISTS (SELECT 1 FROM billing_customer)"
    )


def others_write(r: Request) -> None:
    """Whenever Stripe was asked, another request has written about the customer meanwhile."""
    as_owner(
        "CREATE FUNCTION meanwhile() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN NEW.version = NEW.version + 1; RETURN NEW; END'"
    )
    as_owner(
        "CREATE TRIGGER meanwhile BEFORE UPDATE ON billing_customer"
        " FOR EACH ROW EXECUTE FUNCTION meanwhile()"
    )


def of_stripe(prepare: Case) -> dict[str, Case]:
    """What can go wrong between Stripe and us, once everything is prepared."""
    running = (
        "INSERT INTO billing_operation (workspace_id, token, attempt, until)"
        " VALUES ('ws_demo', 't', 't', now() + interval '1 minute')"
    )
    return {
        "billing.in_progress": lambda r: run(running),
        "billing.stripe_missing": after(prepare, forgotten),
        "billing.stripe_refused": after(
            prepare, lambda r: r.shop.fail("status", times=9, status=400)
        ),
        "billing.stripe_unavailable": after(
            prepare, lambda r: r.shop.fail("status", times=9, status=503)
        ),
        "billing.busy": after(prepare, others_write),
    }


def businesses(r: Request) -> None:
    run(
        "INSERT INTO business (id, workspace_id, name, currency)"
        " SELECT 'biz_' || n, 'ws_demo', 'Shop', 'AED' FROM generate_series(1, 4) n"
    )


ANYWHERE: dict[str, Case] = {
    "request.body_too_large": body("x" * (MAX_BODY + 1)),
    "internal.error": lambda r: setattr(r, "key", "GET /nowhere"),
    "config.invalid": lambda r: r.variable("STAGE", "nowhere"),
    "database.unavailable": lambda r: r.variable("DATABASE_URL", "postgresql://x@127.0.0.1:9/x"),
    "service.unavailable": secrets_away,
}
SECURED: dict[str, Case] = {
    "auth.token_missing": lambda r: setattr(r, "authorizer", None),
    "auth.token_invalid": refused("auth.token_invalid"),
    "auth.token_expired": refused("auth.token_expired"),
    "auth.token_revoked": refused("auth.token_revoked"),
    "auth.keys_unavailable": lambda r: setattr(
        r, "authorizer", {"unavailable": "auth.keys_unavailable"}
    ),
}
ADMINS: dict[str, Case] = {
    "auth.forbidden": lambda r: setattr(r, "authorizer", ADMIN | {"role": "user"}),
}
CREATES: dict[str, Case] = {
    "request.invalid_json": body("{"),
    "request.validation_failed": body({"surprise": 1}),
    "idempotency.in_progress": key_in_use,
    "idempotency.key_reused": key_reused,
}
OF_AN_ASSET: dict[str, Case] = {"asset.not_found": lambda r: None}
_READS: dict[str, Case] = {
    "request.invalid_json": body("{"),
    "request.validation_failed": body({"surprise": 1}),
}
OF_PARTS: dict[str, Case] = {
    **OF_AN_ASSET,
    "asset.not_multipart": lambda r: r.asset(),
    "asset.not_pending": in_parts("status = 'rejected', reject_reason = 'infected'"),
}
EXPIRED: dict[str, Case] = {
    "asset.expired": in_parts("confirm_deadline = now() - interval '1 second'"),
    "storage.unavailable": parts_are_no_folder,
}
CASES: dict[str, dict[str, Case]] = {
    "startMultipart": {
        **ANYWHERE,
        **SECURED,
        **CREATES,
        "200": lambda r: None,
        "asset.too_large": body(FILM | {"size": 101 << 20}),
        "asset.type_not_allowed": body(FILM | {"filename": "a.svg"}),
        "asset.too_many_pending": many_waiting,
        "asset.daily_limit_reached": after(
            all_asked_for_today, lambda r: run("UPDATE workspace_billing SET limits = '{}'")
        ),
        "billing.limit_reached": allowed("maxStorageBytes", 4),
    },
    "signParts": {
        **ANYWHERE,
        **SECURED,
        **_READS,
        **OF_PARTS,
        **EXPIRED,
        "200": in_parts(),
        "asset.upload_completed": in_parts("joined_at = now()"),
        "billing.limit_reached": parts_room_given_away,
    },
    "listParts": {
        **ANYWHERE,
        **SECURED,
        **OF_PARTS,
        **EXPIRED,
        "200": in_parts(arrived=(1, 3)),
        "asset.upload_completed": in_parts("joined_at = now()"),
    },
    "completeMultipart": {
        **ANYWHERE,
        **SECURED,
        **_READS,
        **OF_PARTS,
        **EXPIRED,
        "200": in_parts(arrived=(1, 2, 3)),
        "asset.parts_missing": in_parts(arrived=(1,)),
        "asset.part_changed": another_part,
    },
    "abortMultipart": {**ANYWHERE, **SECURED, **OF_PARTS, "204": in_parts()},
    "requestUpload": {
        **ANYWHERE,
        **SECURED,
        **CREATES,
        "200": lambda r: None,
        "asset.too_large": body(FILE | {"size": 11 << 20}),
        "asset.type_not_allowed": body(FILE | {"filename": "a.svg"}),
        "asset.too_many_pending": many_waiting,
        "asset.daily_limit_reached": all_asked_for_today,
        "billing.limit_reached": allowed("maxStorageBytes", 4),
    },
    "requestUploads": {**ANYWHERE, **SECURED, **CREATES, "200": lambda r: None},
    "createBusiness": {
        **ANYWHERE,
        **SECURED,
        **CREATES,
        **ADMINS,
        "201": lambda r: None,
        "billing.limit_reached": allowed("maxBusinesses", 0),
    },
    "renewUploadUrl": {
        **ANYWHERE,
        **SECURED,
        **OF_AN_ASSET,
        "200": lambda r: r.asset(),
        "asset.not_pending": lambda r: r.asset("status = 'rejected', reject_reason = 'infected'"),
        "asset.is_multipart": in_parts(),
        "asset.expired": lambda r: r.asset("confirm_deadline = now() - interval '1 second'"),
        "billing.limit_reached": room_given_away,
    },
    "confirmUpload": {
        **ANYWHERE,
        **SECURED,
        **OF_AN_ASSET,
        "200": lambda r: r.asset(content=b"hello"),
        "202": lambda r: r.asset(
            "status = 'verifying', lease_token = 't', lease_until = now() + interval '1 minute'"
        ),
        "asset.not_uploaded": lambda r: r.asset(),
        "asset.expired": lambda r: r.asset("confirm_deadline = now() - interval '1 second'"),
        "asset.rejected": lambda r: r.asset(content=b"longer than said"),
        "asset.too_many_attempts": lambda r: r.asset("claims = 1000"),
        "billing.limit_reached": room_given_away,
        "storage.unavailable": store_is_no_folder,
    },
    "getAsset": {**ANYWHERE, **SECURED, **OF_AN_ASSET, "200": lambda r: r.asset()},
    "deleteAsset": {**ANYWHERE, **SECURED, **OF_AN_ASSET, "204": lambda r: r.asset()},
    "summariseAnalytics": {
        **ANYWHERE,
        **SECURED,
        "200": a_day_of_orders,
        "request.validation_failed": lambda r: r.query.update(to="tomorrow"),
        "business.not_found": lambda r: None,
    },
    "checkHealth": {**ANYWHERE, "200": lambda r: None},
    "listPlans": {**ANYWHERE, "200": nothing},
    "getPlan": {
        **ANYWHERE,
        "200": nothing,
        "billing.plan_not_found": lambda r: setattr(r, "path", {"planId": "nothing"}),
    },
    "getSubscription": {**ANYWHERE, **SECURED, "200": ending},
    "changeSubscription": {
        **ANYWHERE,
        **SECURED,
        **CREATES,
        **ADMINS,
        **of_stripe(after(subscribed, body({"planId": "enterprise"}))),
        "200": subscribed,
        "idempotency.key_reused": after(subscribed, key_reused),
        "billing.plan_not_found": body({"planId": "nothing"}),
        "billing.downgrade_blocked": businesses,
        "billing.payment_required": nothing,
        "billing.card_declined": after(bad_card, body({"planId": "enterprise"})),
    },
    "cancelSubscription": {
        **ANYWHERE,
        **SECURED,
        **ADMINS,
        **of_stripe(subscribed),
        "200": subscribed,
        "request.validation_failed": lambda r: setattr(r, "query", {"when": "never"}),
    },
    "resumeSubscription": {
        **ANYWHERE,
        **SECURED,
        **ADMINS,
        **of_stripe(ending),
        "200": ending,
        "billing.no_subscription": nothing,
        "billing.payment_required": owing,
    },
    "pauseSubscription": {
        **ANYWHERE,
        **SECURED,
        **ADMINS,
        **of_stripe(subscribed),
        "request.invalid_json": CREATES["request.invalid_json"],
        "request.validation_failed": CREATES["request.validation_failed"],
        "200": subscribed,
        "billing.no_subscription": nothing,
        "billing.cannot_pause": ending,
    },
    "takeBackChange": {
        **ANYWHERE,
        **SECURED,
        **ADMINS,
        **of_stripe(ending),
        "200": ending,
    },
    "createCheckoutSession": {
        **ANYWHERE,
        **SECURED,
        **CREATES,
        **ADMINS,
        **of_stripe(unpaid),
        "billing.stripe_missing": forgotten,
        "200": nothing,
        "billing.plan_not_found": body(BODIES["createCheckoutSession"] | {"planId": "nothing"}),
        "billing.downgrade_blocked": businesses,
        "billing.already_subscribed": subscribed,
        "billing.payment_required": owing,
    },
    "createPortalSession": {
        **ANYWHERE,
        **SECURED,
        **CREATES,
        **ADMINS,
        **{code: case for code, case in of_stripe(nothing).items() if code != "billing.busy"},
        "200": nothing,
        "billing.no_subscription": body({"returnUrl": HOME, "flow": "subscription_cancel"}),
    },
    "listInvoices": {
        **ANYWHERE,
        **SECURED,
        "200": subscribed,
        "request.validation_failed": lambda r: setattr(r, "query", {"limit": "0"}),
    },
}


@pytest.mark.parametrize(
    ("operation", "case"), [(name, case) for name, cases in CASES.items() for case in cases]
)
def test_the_answer_is_the_documented_one(
    operation: str, case: str, database: str, environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    request = Request(operation, environment, tmp_path / "store")
    log = captured_log(environment)
    with ExitStack() as stack:
        if request.made["x-function"] == "manage_billing":
            request.shop = stack.enter_context(shops.running(environment))
        CASES[operation][case](request)
        status, answer, headers = request.send()
    if request.other is not None:
        request.other.close()
    assert case in {str(status), answer.get("code")}
    said = json.dumps([answer, headers]) + log.getvalue()
    assert not [secret for secret in (SECRET, shops.KEY, database) if secret in said]
    documented = resolve(request.made["responses"][str(status)])
    media = documented.get("content")
    if media is None:
        assert answer == {}
        return
    schema = media[headers["Content-Type"]]["schema"]
    Draft202012Validator(
        schema | {"components": DOCUMENT["components"]},
        format_checker=Draft202012Validator.FORMAT_CHECKER,
    ).validate(answer)
    assert headers["X-Request-Id"]
    assert headers.keys() - {"Content-Type", "Cache-Control"} <= documented["headers"].keys()
    if status in {202, 429, 503}:
        assert int(headers["Retry-After"]) > 0


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_documented_answer_has_a_case(operation: str) -> None:
    documented = set()
    for status, given in OPERATIONS[operation][1]["responses"].items():
        content = resolve(given).get("content", {})
        codes = content.get("application/problem+json", {}).get("examples", {})
        documented |= set(codes) or {status}
    assert documented - {_EDGE} == CASES[operation].keys()
