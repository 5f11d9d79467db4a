"""Every answer that the document promises can be had, and is what the document says of it."""

import re
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
BODIES: dict[str, Any] = {
    "requestUpload": FILE,
    "requestUploads": {"files": [FILE]},
    "createBusiness": {"name": "Corner shop", "currency": "AED"},
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

    def send(self) -> tuple[int, dict[str, Any], dict[str, str]]:
        path = {"assetId": ASSET} if "{assetId}" in self.route else {}
        sent = event(
            self.route, self.body, authorizer=self.authorizer, headers=self.headers, **path
        )
        return call(self.made["x-function"], sent | {"routeKey": self.key})

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
    operation = re.sub(r"([A-Z])", r"_\1", r.made["operationId"]).lower()
    r.other = connection.connect(config.settings("database").database_url, development=True)
    r.other.run(
        "SELECT pg_advisory_lock(hashtextextended(:name, 0))", name=f"ws_demo\n{operation}\nk"
    )


def key_reused(r: Request) -> None:
    r.headers = {"idempotency-key": "k"}
    assert r.send()[0] in (200, 201)
    other = FILE | {"size": 6}
    r.body = {"files": [other]} if "files" in r.body else r.body | {"size": 6, "name": "Other"}
    r.body = {name: value for name, value in r.body.items() if name in BODIES[r.operation]}


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


def store_is_no_folder(r: Request) -> None:
    r.asset()
    r.store.mkdir(parents=True)
    (r.store / "incoming").write_text("")


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
CASES: dict[str, dict[str, Case]] = {
    "requestUpload": {
        **ANYWHERE,
        **SECURED,
        **CREATES,
        "200": lambda r: None,
        "asset.too_large": body(FILE | {"size": 11 << 20}),
        "asset.type_not_allowed": body(FILE | {"filename": "a.svg"}),
        "asset.too_many_pending": many_waiting,
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
