"""Every answer that the document promises can be had, and is what the document says of it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from kyora import config, postgres
from kyora.http import MAX_BODY
from kyora.postgres import connection
from tests.contract.test_openapi import DOCUMENT, OPERATIONS, resolve
from tests.unit.functions import ADMIN, call, event

FILE = {"filename": "a.txt", "contentType": "text/plain", "size": 5}
ASSET = "ast_01kaq3v6m8r5x9y2c4d7f0h1jk"
# Given by the front of the local stack, for what the gateway answers without a function.
_EDGE = "service.throttled"

type Case = Callable[["Request"], None]


class Request:
    """A request that a case may spoil, and the world it is made in."""

    def __init__(self, operation: str, environment: pytest.MonkeyPatch, store: Path) -> None:
        self.route, self.made = OPERATIONS[operation]
        self.environment, self.store = environment, store
        self.authorizer: dict[str, str] | None = None if self.made["security"] == [] else ADMIN
        self.headers: dict[str, str] = {}
        self.body: Any = None
        self.other: Any = None  # a second connection, open until the answer is there
        self.key = self.route
        parameters = [p for p in self.made.get("parameters", []) if p["in"] == "query"]
        self.query = {one["name"]: one["example"] for one in parameters}
        if "requestBody" in self.made:
            self.body = FILE if operation == "requestUpload" else {"files": [FILE]}

    def send(self) -> tuple[int, dict[str, Any], dict[str, str]]:
        path = {"assetId": ASSET} if "{assetId}" in self.route else {}
        sent = event(
            self.route, self.body, authorizer=self.authorizer, headers=self.headers, **path
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
    operation = r.made["x-function"] + ("s" if r.route.endswith("s") else "")
    r.other = connection.connect(config.settings("database").database_url, development=True)
    r.other.run(
        "SELECT pg_advisory_lock(hashtextextended(:name, 0))", name=f"ws_demo\n{operation}\nk"
    )


def key_reused(r: Request) -> None:
    r.headers = {"idempotency-key": "k"}
    assert r.send()[0] == 200
    other = FILE | {"size": 6}
    r.body = {"files": [other]} if "files" in r.body else other


def many_waiting(r: Request) -> None:
    r.asset()
    run(
        "INSERT INTO asset (id, workspace_id, created_by, filename, content_type, size,"
        " url_expires_at, confirm_deadline) SELECT 'ast_' || n, 'ws_demo', 'u', 'a.txt',"
        " 'text/plain', 1, now(), now() + interval '1 hour' FROM generate_series(1, 500) AS n"
    )


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
CREATES: dict[str, Case] = {
    "200": lambda r: None,
    "request.invalid_json": body("{"),
    "request.validation_failed": body({"surprise": 1}),
    "idempotency.in_progress": key_in_use,
    "idempotency.key_reused": key_reused,
}
OF_AN_ASSET: dict[str, Case] = {"asset.not_found": lambda r: None}
CASES: dict[str, dict[str, Case]] = {
    "requestUpload": {
        **ANYWHERE,
        **SECURED,
        **CREATES,
        "asset.too_large": body(FILE | {"size": 11 << 20}),
        "asset.type_not_allowed": body(FILE | {"filename": "a.svg"}),
        "asset.too_many_pending": many_waiting,
        "billing.limit_reached": lambda r: run(
            "INSERT INTO workspace_billing (workspace_id, plan_id, access, limits, status)"
            " VALUES ('ws_demo', 'test', 'free', '{\"maxStorageBytes\": 4}', 'free')"
        ),
    },
    "requestUploads": {**ANYWHERE, **SECURED, **CREATES},
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
}


@pytest.mark.parametrize(
    ("operation", "case"), [(name, case) for name, cases in CASES.items() for case in cases]
)
@pytest.mark.usefixtures("database")
def test_the_answer_is_the_documented_one(
    operation: str, case: str, environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    request = Request(operation, environment, tmp_path / "store")
    CASES[operation][case](request)
    status, answer, headers = request.send()
    if request.other is not None:
        request.other.close()
    assert case in {str(status), answer.get("code")}
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
