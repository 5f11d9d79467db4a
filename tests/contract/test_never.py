"""What must never happen: a section for each rule, with the test that sees it broken.

Where a property is tested in depth elsewhere, `HELD_BY` says where; what stands here holds for
every function at once, so that a new one cannot forget it.
"""

import ast
import importlib
import json
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from pytest_socket import SocketConnectBlockedError

from kyora import config, postgres
from kyora.email.mails.catalogue import MAILS
from kyora.email.render import render
from local import template
from local.tools import email_samples
from tests import reach
from tests.cloud import batch, cloud, deliver
from tests.conftest import SECRET
from tests.contract.documented import BODIES, DOCUMENT, OPERATIONS
from tests.integration.support import api, mail_queue, photos, shops
from tests.integration.support import stripe_lives as lives
from tests.integration.support.resend_webhook import reported
from tests.integration.support.resend_webhook import request as resend_request
from tests.scripted import Answer, scripted
from tests.unit.functions import CONTEXT, call, captured_log, event, function

_SIGNED = "tests.integration.test_stripe_signatures"
HELD_BY = {
    "an e-mail sent inside an HTTP request": (
        "tests.contract.test_never.test_nothing_that_answers_http_can_send_mail",
    ),
    "a Stripe key or any secret in a response, a log or a client": (
        "tests.contract.test_answers.test_the_answer_is_the_documented_one",
        "tests.contract.test_never.test_a_key_that_stripe_refuses_is_in_no_answer_and_no_log",
        "tests.contract.test_never.test_what_a_client_is_given_holds_no_secret",
        "tests.integration.test_auth.test_the_answer_and_the_log_never_carry_the_token",
        "tests.unit.test_aws.test_no_secret_is_in_an_error_or_a_log",
        "tests.unit.test_architecture.test_no_tracked_file_names_a_machine_a_registry_or_a_secret",
    ),
    "a webhook acted on before its signature held": (
        "tests.contract.test_never.test_a_forged_webhook_is_refused_before_anything_is_asked",
        f"{_SIGNED}.test_what_is_not_signed_is_refused_and_leaves_nothing",
        "tests.integration.test_email_webhook.test_a_forged_request_changes_nothing",
    ),
    "a card number stored or passed through": (
        "tests.contract.test_never.test_a_card_number_goes_no_further_than_its_refusal",
        "tests.contract.test_never.test_no_field_is_for_a_card",
    ),
    "a webhook or event handled without its idempotency record": (
        "tests.contract.test_never.test_what_was_handled_is_on_record_and_is_not_handled_again",
        "tests.contract.test_never.test_whatever_is_delivered_to_us_is_in_the_table_above",
    ),
    "a production service reached from a test": (
        "tests.contract.test_never.test_no_test_can_leave_this_machine",
    ),
    "e-mail content outside templates": (
        "tests.contract.test_never.test_no_sentence_of_a_mail_stands_outside_its_templates",
        "tests.contract.test_never.test_only_delivery_makes_a_message_and_only_of_what_is_rendered",
    ),
    "file bytes passing through the API": (
        "tests.contract.test_never.test_the_api_takes_and_gives_json_only",
        "tests.contract.test_never.test_files_go_to_the_store_and_not_to_the_api",
    ),
}


@pytest.mark.parametrize("line", HELD_BY)
def test_each_line_is_held_by_tests_that_exist(line: str) -> None:
    for name in HELD_BY[line]:
        module, _, found = name.rpartition(".")
        assert callable(getattr(importlib.import_module(module), found))


def served() -> Iterator[str]:
    """Functions whose caller waits: behind the API, its authorizer or a function URL."""
    for logical, properties in template.functions(template.read()).items():
        triggers = properties.get("Events", {}).values()
        if "FunctionUrlConfig" in properties or any(t["Type"] == "HttpApi" for t in triggers):
            yield template.folder(logical)
    yield "authorize_request"


HTTP = sorted(served())


# ---- an e-mail sent inside an HTTP request

SENDERS = ("kyora.email.delivery", "kyora.email.resend", "kyora.email.mock", "kyora.email.provider")


def sends_mail(name: str) -> list[str]:
    return sorted(node for node in reach.of(name) if f"{node}.".startswith(SENDERS))


@pytest.mark.parametrize("name", HTTP)
def test_nothing_that_answers_http_can_send_mail(name: str) -> None:
    assert sends_mail(name) == []


def test_the_one_that_sends_mail_is_seen_to() -> None:
    assert [name for name in reach.FUNCTIONS if sends_mail(name)] == ["send_email"]


# ---- a Stripe key or any secret in a response, a log or a client


@pytest.mark.parametrize("operation", ["changeSubscription", "createPortalSession"])
def test_a_key_that_stripe_refuses_is_in_no_answer_and_no_log(
    operation: str, database: str, environment: pytest.MonkeyPatch
) -> None:
    """Stripe's own answer repeats the end of the key, and its SDK puts that into an exception."""
    key = "sk_test_" + "of-somebody-who-has-left" * 2
    reported = {
        "type": "invalid_request_error",
        "message": f"Invalid API Key: sk_test_***{key[-9:]}",
    }
    refusal = Answer(401, json.dumps({"error": reported}).encode())
    with shops.running(environment), scripted(lambda _: refusal) as stripe:
        environment.setenv("BILLING_STRIPE_API_KEY", key)
        environment.setenv("BILLING_STRIPE_BASE_URL", stripe.url)
        config.forget()
        log = captured_log(environment)
        route, made = OPERATIONS[operation]
        status, answer, _ = call(made["x-function"], event(route, BODIES[operation]))
        assert stripe.requests, "Stripe was asked"
    assert (status, answer["code"]) == (500, "config.invalid")
    said = json.dumps(answer) + log.getvalue()
    for secret in (key, key[-9:], SECRET, database):
        assert secret not in said


CLIENTS = ("local/web/static", "layers/kyora/kyora/email/templates", "events")
SECRET_LIKE = re.compile(r"\b(sk|rk)_(test|live)_\w|\bwhsec_\w|\bre_\w{8}_|AKIA|PRIVATE KEY")


def test_what_a_client_is_given_holds_no_secret() -> None:
    files = [path for folder in CLIENTS for path in (reach.ROOT / folder).rglob("*.*")]
    assert len(files) > 50
    for path in files:
        assert not SECRET_LIKE.search(path.read_text()), path.name


# ---- a webhook acted on before its signature held

WEBHOOKS = ("stripe_webhook", "resend_webhook")


def forged(name: str) -> dict[str, Any]:
    if name == "stripe_webhook":
        return lives.request('{"id": "evt_1"}', secret="whsec_of-somebody-else-altogether")
    return resend_request(reported("email.bounced"), keys=(b"of-somebody-else-altogether",))


@pytest.mark.parametrize("name", WEBHOOKS)
def test_a_forged_webhook_is_refused_before_anything_is_asked(
    name: str, environment: pytest.MonkeyPatch
) -> None:
    """Nothing listens at the addresses of Postgres, Stripe and AWS: asking would not be 400."""
    environment.setenv("DATABASE_URL", "postgresql://kyora@127.0.0.1:9/kyora")
    environment.setenv("BILLING_STRIPE_BASE_URL", "http://127.0.0.1:9")
    for variable, value in (lives.ENVIRONMENT | mail_queue.ENVIRONMENT).items():
        environment.setenv(variable, value)
    config.forget()
    asked: list[Any] = []
    environment.setattr(socket.socket, "connect", lambda _, address: asked.append(address))
    answer = function(name).handler(forged(name), CONTEXT)
    assert (answer["statusCode"], json.loads(answer["body"])["code"]) == (
        400,
        "webhook.signature_invalid",
    )
    assert asked == []


def test_every_address_that_anybody_may_post_to_is_a_webhook_of_the_list() -> None:
    urls = {
        template.folder(logical)
        for logical, properties in template.functions(template.read()).items()
        if "FunctionUrlConfig" in properties
    }
    assert urls == set(WEBHOOKS)


# ---- a card number stored or passed through

CARD = "4242424242424242"
OF_A_CARD = re.compile(r"card.?number|\bpan\b|\bcvc\b|\bcvv\b|security.?code", re.IGNORECASE)


def with_a_card(body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield body | {"card": {"number": CARD, "cvc": "123"}}
    if "planId" in body:  # a text that we look up, and could have passed on
        yield body | {"planId": CARD}


CARRYING = [
    (operation, body)
    for operation, sent in BODIES.items()
    if "files" not in sent
    for body in with_a_card(sent)
]


@pytest.mark.parametrize(("operation", "body"), CARRYING)
def test_a_card_number_goes_no_further_than_its_refusal(
    operation: str, body: dict[str, Any], database: str, environment: pytest.MonkeyPatch
) -> None:
    route, made = OPERATIONS[operation]
    with shops.running(environment) as shop:
        before = shop.used_keys()
        log = captured_log(environment)
        status, answer, _ = call(made["x-function"], event(route, body))
        assert shop.used_keys() == before, "Stripe was asked"
    assert status in (404, 422)
    assert CARD not in json.dumps(answer) + log.getvalue() + everything()


def everything() -> str:
    """Every row of every table, as text."""
    with postgres.transaction(owner=True) as tx:
        tables = tx.rows("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1")
        return "\n".join(
            str(row["whole"])
            for table in tables
            for row in tx.rows(f"SELECT t::text AS whole FROM {table['tablename']} t ORDER BY 1")
        )


def test_no_field_is_for_a_card(database: str) -> None:
    """Neither of the API, nor of a table, nor of what is sent to Stripe.

    What Stripe shows of a card, its brand, last four digits and end, is not one.
    """
    assert not OF_A_CARD.search(json.dumps(DOCUMENT["components"]["schemas"]))
    with postgres.transaction() as tx:
        columns = tx.rows(
            "SELECT table_name || '.' || column_name AS name FROM information_schema.columns"
            " WHERE table_schema = 'public' AND column_name ~* 'card|cvc|cvv|number'"
        )
    assert [row["name"] for row in columns] == ["invoice.number"]
    for path in (reach.ROOT / "layers/kyora/kyora/billing").rglob("*.py"):
        sent = [part for part in ast.walk(ast.parse(path.read_text())) if _given(part)]
        assert not [part for part in sent if re.search(r"\bcvc\b|number", ast.unparse(part))]


def _given(part: ast.AST) -> bool:
    return isinstance(part, ast.Call) and ast.unparse(part.func).endswith("stripe_client.call")


# ---- a webhook or event handled without its idempotency record


def from_the_bus(name: str, detail: dict[str, Any]) -> dict[str, Any]:
    entry = {"DetailType": name, "Source": "kyora.test", "Detail": json.dumps(detail)}
    return deliver(entry)


def order(name: str) -> dict[str, Any]:
    data = json.loads((reach.ROOT / "events/samples" / f"{name}.json").read_text())
    data = {key: value for key, value in data.items() if value is not None}
    data |= {"businessId": "biz_demo"} | ({"customerId": "cus_1"} if "customerId" in data else {})
    data |= {"paidAt": "2026-11-24T08:00:00Z"} if "paidAt" in data else {}
    return from_the_bus(name, mail_queue.detail(data, event_id="evt_one", workspace="ws_demo"))


def uploaded() -> dict[str, Any]:
    """Take a file to the store, and report it as S3 would."""
    from tests.integration.support.samples import PNG

    ticket = api.request(PNG)
    path = Path(config.storage().local_path) / "incoming/ws_demo"
    path.mkdir(parents=True, exist_ok=True)
    (path / ticket["assetId"]).write_bytes(PNG.data)
    return {"Records": [api.record(f"incoming/ws_demo/{ticket['assetId']}")]}


def photographed() -> dict[str, Any]:
    """Take a photograph to the store, confirm it, and report it as its event does."""
    sample = photos.small()
    ticket = api.request(sample, variants=True)
    path = Path(config.storage().local_path) / "incoming/ws_demo"
    path.mkdir(parents=True, exist_ok=True)
    (path / ticket["assetId"]).write_bytes(sample.data)
    assert api.confirm(ticket["assetId"]).status == 200
    return {"Records": [photos.record(ticket["assetId"])]}


def scanned() -> dict[str, Any]:
    """Let an upload wait for its verdict, and bring the verdict as GuardDuty would."""
    record = uploaded()
    config.os.environ["UPLOADS_SCANNING"] = "guardduty"
    config.forget()
    api.function("verify_upload")(record, CONTEXT)
    with postgres.transaction() as tx:
        (row,) = tx.rows("SELECT id, final_attempt FROM asset WHERE status = 'scanning'")
    key = f"assets/ws_demo/{row['id']}/{row['final_attempt']}"
    return {"Records": [api.scan_result(key, "NO_THREATS_FOUND")]}


def over_stripes_bus() -> dict[str, Any]:
    body = json.dumps({"detail-type": "customer.created", "detail": STRIPE_EVENT})
    return batch(body)


STRIPE_EVENT = {
    "id": "evt_1",
    "object": "event",
    "type": "customer.updated",
    "created": 1_790_000_000,
    "livemode": False,
    "api_version": "2026-10-28.endive",
    "data": {"object": {"id": "cus_1", "object": "customer", "metadata": {}}},
}
# Function and what it receives → the record without which it must not act.
DELIVERIES: dict[tuple[str, str], tuple[Callable[[], dict[str, Any]], str]] = {
    ("record_transaction_fee", "OrderPaymentSucceeded"): (
        lambda: order("OrderPaymentSucceeded"),
        "SELECT 1 FROM inbox WHERE event_id = 'evt_one'",
    ),
    ("update_analytics", "OrderCreated"): (
        lambda: order("OrderCreated"),
        "SELECT 1 FROM analytics_event WHERE event_id = 'evt_one'",
    ),
    ("send_email", "EmailVerificationRequested"): (
        lambda: from_the_bus(*mail_queue.verification(event_id="evt_one")),
        "SELECT 1 FROM email_message WHERE event_id = 'evt_one'",
    ),
    ("verify_upload", "Object Created"): (
        uploaded,
        "SELECT 1 FROM asset WHERE status = 'ready'",  # the row itself: an upload ends once
    ),
    ("make_variants", "AssetReady"): (
        photographed,
        "SELECT 1 FROM variant_set WHERE status = 'ready'",  # the row itself, and the inbox
    ),
    ("record_scan", "a scan result"): (
        scanned,
        "SELECT 1 FROM asset WHERE status = 'ready'",  # the same
    ),
    ("stripe_webhook", "the function URL"): (
        lambda: lives.request(json.dumps(STRIPE_EVENT)),
        "SELECT 1 FROM stripe_event WHERE id = 'evt_1' AND status <> 'received'",
    ),
    ("stripe_webhook", "Stripe's event bus"): (
        over_stripes_bus,
        "SELECT 1 FROM stripe_event WHERE id = 'evt_1' AND status <> 'received'",
    ),
    ("resend_webhook", "the function URL"): (
        lambda: resend_request(reported("email.bounced"), svix_id="msg_one"),
        "SELECT 1 FROM email_event WHERE id = 'msg_one'",
    ),
}


@pytest.mark.parametrize(("name", "told_by"), DELIVERIES)
def test_what_was_handled_is_on_record_and_is_not_handled_again(
    name: str, told_by: str, database: str, environment: pytest.MonkeyPatch
) -> None:
    make, record = DELIVERIES[name, told_by]
    for variable, value in (mail_queue.ENVIRONMENT | lives.ENVIRONMENT).items():
        environment.setenv(variable, value)
    environment.setenv("EMAIL_PROVIDER", "mock")
    environment.setenv("UPLOADS_SCANNING", "off")
    with postgres.transaction() as tx:
        tx.run(
            "INSERT INTO business (id, workspace_id, name, currency)"
            " VALUES ('biz_demo', 'ws_demo', 'Demo', 'USD')"
        )
    with cloud() as aws:
        environment.setenv("AWS_ENDPOINT_URL", aws.url)
        config.forget()
        sent = make()
        assert rows(record) == 0
        taken(function(name).handler(sent, CONTEXT))
        assert rows(record) == 1
        left = everything()
        taken(function(name).handler(sent, CONTEXT))
    assert everything() == left


def rows(sql: str) -> int:
    with postgres.transaction() as tx:
        return len(tx.rows(sql))


def taken(answer: dict[str, Any]) -> None:
    assert answer.get("statusCode", 200) == 200, answer
    assert answer.get("batchItemFailures", []) == []


def test_whatever_is_delivered_to_us_is_in_the_table_above() -> None:
    given = template.read()
    expected = {(name, "the function URL") for name in WEBHOOKS}
    sources = [
        resource["Properties"]["FunctionName"]
        for resource in given["Resources"].values()
        if resource["Type"] == "AWS::Lambda::EventSourceMapping"
    ]
    reading = {name for name in reach.FUNCTIONS if template.logical_id(name) in str(sources)}
    assert reading == {name for name, told_by in DELIVERIES if told_by != "the function URL"}
    assert expected <= DELIVERIES.keys()


# ---- a production service reached from a test


@pytest.mark.parametrize("address", ["192.0.2.1", "54.187.174.169", "8.8.8.8", "2001:db8::1"])
def test_no_test_can_leave_this_machine(address: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    blocked = (SocketConnectBlockedError, UserWarning)  # its warning comes first, and is an error
    with closing(socket.socket(family)) as outside, pytest.raises(blocked, match=address):
        outside.settimeout(0.2)
        outside.connect((address, 443))


def test_the_configuration_of_the_tests_names_this_machine_only(
    environment: pytest.MonkeyPatch,
) -> None:
    """Workers are processes of their own, where no socket is blocked: this is what they get."""
    names = ("AWS_ENDPOINT_URL", "APP_BASE_URL")
    given = config.os.environ
    assert all(given[name].startswith("http://127.0.0.1:") for name in names)
    assert (given["AWS_ACCESS_KEY_ID"], given["STAGE"]) == ("test", "test")


# ---- e-mail content outside templates


def sentences() -> Iterator[str]:
    """Four words in a row of any mail, in both languages, with whatever was filled in."""
    for name in MAILS:
        for locale in ("en", "ar"):
            data = email_samples.sample(name, locale, "typical")
            mail = render(name, locale, data, settings=email_samples.SETTINGS)
            for line in (mail.subject, mail.preheader, *mail.text.splitlines()):
                said = words(line)
                yield from (" ".join(said[n : n + 4]) for n in range(len(said) - 3))


def words(text: str) -> list[str]:
    return re.findall(r"[^\W\d_]+", text)


def test_no_sentence_of_a_mail_stands_outside_its_templates() -> None:
    said = set(sentences())
    assert len(said) > 500
    for module, tree in reach.sources().items():
        docstrings = {id(part.value) for part in ast.walk(tree) if isinstance(part, ast.Expr)}
        texts = [
            part.value
            for part in ast.walk(tree)
            if isinstance(part, ast.Constant) and isinstance(part.value, str)
            if id(part) not in docstrings
        ]
        spoken = " ".join(words("\n".join(texts)))
        assert not [one for one in said if f" {one} " in f" {spoken} "], module


def test_only_delivery_makes_a_message_and_only_of_what_is_rendered() -> None:
    made = {
        node
        for node in reach.nodes()
        for made in reach.calls(frozenset({node}), "Message")
        if "kyora.email.message.Message" in reach.reach(node)
    }
    assert made == {"kyora.email.delivery._message"}
    [made_by] = reach.calls(frozenset(made), "Message")
    given = {k.arg: ast.unparse(k.value) for k in made_by.keywords}
    assert {name: given[name] for name in ("subject", "html", "text")} == {
        "subject": "written.subject",
        "html": "written.html",
        "text": "written.text",
    }


# ---- file bytes passing through the API

PICTURE = b"\x89PNG\r\n\x1a\n" + bytes(range(256))


def test_the_api_takes_and_gives_json_only() -> None:
    media = set()
    for route, made in OPERATIONS.values():
        given = [made.get("requestBody", {}), *made["responses"].values()]
        for one in given:
            media |= one.get("content", {}).keys()
        assert "multipart/form-data" not in json.dumps(made), route
    for one in DOCUMENT["components"].get("responses", {}).values():
        media |= one.get("content", {}).keys()
    assert media == {"application/json", "application/problem+json"}
    assert not re.search(r'"format": "(binary|byte)"', json.dumps(DOCUMENT))


@pytest.mark.parametrize(
    "operation", [n for n, (route, _) in OPERATIONS.items() if "POST" in route]
)
def test_bytes_that_are_posted_to_the_api_go_nowhere(operation: str, database: str) -> None:
    route, made = OPERATIONS[operation]
    path = {"assetId": api.UNKNOWN} if "{assetId}" in route else {}
    before = everything()
    sent = event(route, PICTURE, headers={"content-type": "image/png"}, **path)
    status, _, headers = call(made["x-function"], sent)
    assert 400 <= status < 500
    assert headers["Content-Type"] == "application/problem+json"
    assert everything() == before


def test_files_go_to_the_store_and_not_to_the_api(
    database: str, environment: pytest.MonkeyPatch
) -> None:
    """The ticket's address is the store's, and so is a download's."""
    for name, value in {
        "STORAGE_PROVIDER": "s3",
        "STORAGE_S3_BUCKET": "files",
        "STORAGE_S3_REGION": "eu-west-1",
    }.items():
        environment.setenv(name, value)
    config.forget()
    status, ticket, _ = call(
        "request_upload", event("POST /v1/assets/upload", BODIES["requestUpload"])
    )
    assert (status, ticket["method"]) == (200, "PUT")
    assert ticket["uploadUrl"].startswith("https://files.s3.eu-west-1.amazonaws.com/incoming/")
