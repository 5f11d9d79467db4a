"""Every sample event, run by the built function under the real runtime, has its answer."""

import hashlib
import json
import time
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kyora import postgres
from kyora.billing.jobs import reconcile
from local import process, template
from local.stack import runtime
from local.stripe.engine import Engine
from local.tools import invoke
from tests.integration.support import photos, shops
from tests.integration.support.samples import png
from tests.integration.support.stripe_standin import KEY, books
from tests.runtime.conftest import Start
from tests.runtime.samples import body, sample
from tests.scripted import Answer, scripted
from tests.stripe_account import Account

# Lambda's emulator is linked statically and gives the deadline, so a function keeps the real clock.
real_clock = pytest.mark.skipif(
    bool(process.shifted_clock()), reason="faketime moves the signature's clock, not the function's"
)
ASSET = "ast_01kaq3v6m8r5x9y2c4d7f0h1jk"


def add_asset(content: bytes, *, hours: int = 1) -> None:
    with postgres.transaction() as tx:
        tx.run(
            "INSERT INTO storage_usage (workspace_id, reserved_bytes) VALUES ('ws_demo', :size)"
            " ON CONFLICT (workspace_id) DO UPDATE SET reserved_bytes = :size",
            size=len(content),
        )
        tx.run(
            "INSERT INTO asset (id, workspace_id, created_by, filename, content_type, size,"
            " url_expires_at, confirm_deadline) VALUES (:id, 'ws_demo', 'usr_demo_member',"
            " 'mug.png', 'image/png', :size, now() + make_interval(hours => :hours),"
            " now() + make_interval(hours => :hours))",
            id=ASSET,
            size=len(content),
            hours=hours,
        )


@pytest.fixture
def uploaded(database: str, tmp_path: Path) -> bytes:
    """The bytes of the samples' asset, as a client has just PUT them."""
    content = png(2, 3)
    add_asset(content)
    file = tmp_path / "store" / "incoming" / "ws_demo" / ASSET
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    return content


def outbox() -> list[str]:
    with postgres.transaction() as tx:
        return [str(row["detail_type"]) for row in tx.rows("SELECT detail_type FROM outbox")]


def test_authorize_request(start: Start, database: str) -> None:
    answer = start("authorize_request").invoke(sample("authorize_request"))
    assert answer == {
        "isAuthorized": True,
        "context": {
            "userId": "usr_demo_member",
            "workspaceId": "ws_demo",
            "role": "user",
            "locale": "ar",
        },
    }


def test_authorize_request_invalid(start: Start, database: str) -> None:
    answer = start("authorize_request").invoke(sample("authorize_request.invalid"))
    assert answer == {"isAuthorized": True, "context": {"refusal": "auth.token_invalid"}}


def test_request_upload(start: Start, database: str) -> None:
    running = start("request_upload")
    answer = running.invoke(sample("request_upload"))
    assert answer["statusCode"] == 200
    assert body(answer).keys() == {"assetId", "uploadUrl", "method", "headers", "expiresAt"}
    again = running.invoke(sample("request_upload"))  # the same Idempotency-Key
    assert body(again)["assetId"] == body(answer)["assetId"]


def test_request_upload_many(start: Start, database: str) -> None:
    answer = start("request_upload").invoke(sample("request_upload.many"))
    first, second, third = body(answer)["uploads"]
    assert "uploadUrl" in first
    assert "uploadUrl" in second
    assert third["error"]["code"] == "asset.type_not_allowed"


def test_request_upload_renew(start: Start, database: str) -> None:
    add_asset(png(2, 3))
    answer = start("request_upload").invoke(sample("request_upload.renew"))
    assert answer["statusCode"] == 200
    assert body(answer)["assetId"] == ASSET


@pytest.fixture
def film(database: str, tmp_path: Path) -> None:
    """The samples' asset as a film of two parts that have just arrived."""
    pieces = (bytes(8 << 20), bytes(1000))
    add_asset(b"".join(pieces))
    with postgres.transaction() as tx:
        tx.run(
            "UPDATE asset SET filename = 'opening.mp4', content_type = 'video/mp4',"
            " part_size = :part_size, store_upload = :upload",
            part_size=8 << 20,
            upload="a" * 32,
        )
    folder = tmp_path / "store" / "parts" / "ws_demo" / ASSET / ("a" * 32)
    folder.mkdir(parents=True)
    for number, piece in enumerate(pieces, 1):
        name = f"{number:05}-{hashlib.sha256(piece).hexdigest()}-checked"
        (folder / name).write_bytes(piece)


def test_manage_multipart(start: Start, database: str) -> None:
    running = start("manage_multipart")
    answer = running.invoke(sample("manage_multipart"))
    assert answer["statusCode"] == 200
    assert (body(answer)["partSize"], body(answer)["parts"]) == (8 << 20, 2)
    again = running.invoke(sample("manage_multipart"))  # the same Idempotency-Key
    assert body(again) == body(answer)


def test_manage_multipart_sign(start: Start, film: None) -> None:
    answer = start("manage_multipart").invoke(sample("manage_multipart.sign"))
    assert answer["statusCode"] == 200
    assert [part["number"] for part in body(answer)["parts"]] == [1, 2]


def test_manage_multipart_list(start: Start, film: None) -> None:
    answer = start("manage_multipart").invoke(sample("manage_multipart.list"))
    assert [part["size"] for part in body(answer)["parts"]] == [8 << 20, 1000]


def test_manage_multipart_complete(start: Start, film: None) -> None:
    running = start("manage_multipart")
    answers = [running.invoke(sample("manage_multipart.complete")) for _ in range(2)]
    assert [answer["statusCode"] for answer in answers] == [200, 200]
    assert body(answers[0]) == body(answers[1])


def test_manage_multipart_abort(start: Start, film: None) -> None:
    running = start("manage_multipart")
    assert running.invoke(sample("manage_multipart.abort"))["statusCode"] == 204
    assert running.invoke(sample("manage_multipart.list"))["statusCode"] == 404


def test_request_upload_invalid(start: Start, database: str) -> None:
    answer = start("request_upload").invoke(sample("request_upload.invalid"))
    assert answer["statusCode"] == 422
    assert answer["headers"]["Content-Type"] == "application/problem+json"
    assert {error["field"] for error in body(answer)["errors"]} == {"size", "colour"}


def test_request_upload_revoked(start: Start, database: str) -> None:
    answer = start("request_upload").invoke(sample("request_upload.revoked"))
    assert answer["statusCode"] == 401
    assert body(answer)["code"] == "auth.token_revoked"


def test_confirm_upload(start: Start, uploaded: bytes) -> None:
    running = start("confirm_upload")
    answers = [running.invoke(sample("confirm_upload")) for _ in range(2)]
    assert [answer["statusCode"] for answer in answers] == [200, 200]
    assert body(answers[0]) == body(answers[1])
    assert body(answers[0])["status"] == "ready"
    assert body(answers[0])["sha256"] == b64encode(hashlib.sha256(uploaded).digest()).decode()
    assert (body(answers[0])["width"], body(answers[0])["height"]) == (2, 3)
    assert outbox() == ["AssetReady"]


def test_confirm_upload_loads_boto3_from_the_runtime(start: Start, database: str) -> None:
    """The layers have none: the unreachable store is tried, and said to be away."""
    add_asset(png())
    running = start(
        "confirm_upload",
        STORAGE_PROVIDER="s3",
        STORAGE_S3_BUCKET="files",
        STORAGE_S3_ENDPOINT="http://127.0.0.1:9",
        STORAGE_S3_ADDRESSING_STYLE="path",
    )
    answer = running.invoke(sample("confirm_upload"))
    assert answer["statusCode"] == 503
    assert answer["headers"]["Content-Type"] == "application/problem+json"


def test_manage_asset(start: Start, uploaded: bytes) -> None:
    start("confirm_upload").invoke(sample("confirm_upload"))
    running = start("manage_asset")
    shown = running.invoke(sample("manage_asset"))
    assert shown["statusCode"] == 200
    assert body(shown)["downloadUrl"]
    assert running.invoke(sample("manage_asset.delete"))["statusCode"] == 204
    assert running.invoke(sample("manage_asset"))["statusCode"] == 404
    assert outbox() == ["AssetReady", "AssetDeleted"]


def test_verify_upload(start: Start, uploaded: bytes) -> None:
    assert start("verify_upload").invoke(sample("verify_upload")) == {"batchItemFailures": []}
    assert outbox() == ["AssetReady"]


def test_verify_upload_poison(start: Start, database: str) -> None:
    event = sample("verify_upload.poison")
    answer = start("verify_upload").invoke(event)
    poison = event["Records"][0]["messageId"]
    assert answer == {"batchItemFailures": [{"itemIdentifier": poison}]}


def test_record_scan(start: Start, uploaded: bytes) -> None:
    waiting = start("confirm_upload", UPLOADS_SCANNING="guardduty").invoke(sample("confirm_upload"))
    assert (waiting["statusCode"], body(waiting)["status"]) == (202, "scanning")
    running = start("record_scan", UPLOADS_SCANNING="guardduty")
    for name, events in (
        ("record_scan", ["AssetReady"]),
        ("record_scan.unsupported", ["AssetReady"]),
        ("record_scan.threat", ["AssetReady", "AssetQuarantined"]),
    ):
        assert running.invoke(_of_the_copy(sample(name))) == {"batchItemFailures": []}
        assert outbox() == events, name
    unknown = sample("record_scan.unknown")
    poison = unknown["Records"][0]["messageId"]
    assert running.invoke(unknown) == {"batchItemFailures": [{"itemIdentifier": poison}]}


def _of_the_copy(event: dict[str, Any]) -> dict[str, Any]:
    """Let a scan result name the copy that confirm has made."""
    with postgres.transaction() as tx:
        token = tx.value(str, "SELECT final_attempt FROM asset WHERE id = :id", id=ASSET)
    [record] = event["Records"]
    found = json.loads(record["body"])
    key = found["detail"]["s3ObjectDetails"]["objectKey"]
    found["detail"]["s3ObjectDetails"]["objectKey"] = f"{key.rpartition('/')[0]}/{token}"
    return {"Records": [record | {"body": json.dumps(found)}]}


def test_send_email(start: Start, database: str) -> None:
    event = sample("send_email")
    running = start("send_email")
    assert running.invoke(event) == running.invoke(event) == {"batchItemFailures": []}
    with postgres.transaction() as tx:
        rows = tx.rows("SELECT event_id, status, locale, correlation_id FROM email_message")
        mails = tx.rows("SELECT recipient FROM mock_mailbox")
    detail = json.loads(event["Records"][0]["body"])["detail"]
    assert rows == [
        {
            "event_id": detail["id"],
            "status": "sent",
            "locale": "en",
            "correlation_id": detail["correlationId"],
        }
    ]
    assert [mail["recipient"] for mail in mails] == ["delivered@resend.dev"]
    assert "delivered@" not in "".join(running.log())


def test_send_email_unreadable(start: Start, database: str) -> None:
    """The bus refuses connections here: what would be dead-lettered stays for SQS to move."""
    event = sample("send_email.unreadable")
    answer = start("send_email").invoke(event)
    version, content, _good = [record["messageId"] for record in event["Records"]]
    assert answer == {
        "batchItemFailures": [{"itemIdentifier": version}, {"itemIdentifier": content}]
    }
    with postgres.transaction() as tx:
        assert tx.rows("SELECT locale FROM email_message") == [{"locale": "ar"}]


def test_send_email_compare(start: Start, database: str) -> None:
    """What the daily schedule asks for; the mock provider keeps no list of its own."""
    compared = start("send_email").invoke(sample("send_email.compare"))
    assert (compared["refused"], compared["theirs"]) == ("mock", 0)
    with postgres.transaction() as tx:
        assert tx.rows("SELECT result FROM email_check") == [{"result": compared}]


@pytest.fixture
def business(database: str) -> None:
    """The samples' business, with a fee for credit cards."""
    with postgres.transaction() as tx:
        tx.run(
            "INSERT INTO business (id, workspace_id, name, currency)"
            " VALUES ('biz_demo', 'ws_demo', 'Demo', 'USD')"
        )
        tx.run(
            "INSERT INTO payment_method_fee (workspace_id, business_id, method, percent, fixed)"
            " VALUES ('ws_demo', 'biz_demo', 'credit_card', 0.029, 0.30)"
        )


def test_record_transaction_fee(start: Start, business: None) -> None:
    running = start("record_transaction_fee")
    for _ in range(2):
        assert running.invoke(sample("record_transaction_fee")) == {"batchItemFailures": []}
    with postgres.transaction() as tx:
        rows = tx.rows("SELECT amount::int AS amount, currency FROM transaction_fee")
    assert rows == [{"amount": 189, "currency": "USD"}]


def test_make_variants(start: Start, database: str, tmp_path: Path) -> None:
    """In the built layers, where Pillow is without what nothing uses."""
    file = tmp_path / "store" / "assets" / "ws_demo" / ASSET / "try_1"
    file.parent.mkdir(parents=True)
    file.write_bytes(photos.small().data)
    with postgres.transaction() as tx:
        tx.run("INSERT INTO storage_usage (workspace_id, used_bytes) VALUES ('ws_demo', 0)")
        tx.run(
            "INSERT INTO asset (id, workspace_id, created_by, status, filename, content_type, size,"
            " sha256, url_expires_at, confirm_deadline, final_attempt, ready_at, variants)"
            " VALUES (:id, 'ws_demo', 'usr_demo_member', 'ready', 'mug.jpg', 'image/jpeg', 1, 'x',"
            " now(), now(), 'try_1', now(), true)",
            id=ASSET,
        )
    running = start("make_variants")
    for _ in range(2):
        assert running.invoke(sample("make_variants")) == {"batchItemFailures": []}
    with postgres.transaction() as tx:
        assert len(tx.rows("SELECT 1 FROM asset_variant")) == 4
        assert len(tx.rows("SELECT 1 FROM inbox WHERE consumer = 'make_variants'")) == 1
    answer = {"ready": 0, "failed": 0, "busy": 0, "next": None}
    assert running.invoke(sample("make_variants.rebuild")) == answer


def test_update_analytics(start: Start, business: None) -> None:
    """Counted, counted no second time, and read as the API reads it."""
    running = start("update_analytics")
    for _ in range(2):
        assert running.invoke(sample("update_analytics")) == {"batchItemFailures": []}
    assert running.invoke({"rebuild": {}}) == {"businesses": 1, "wrong": 0, "next": None}
    answer = start("summarise_analytics").invoke(sample("summarise_analytics"))
    assert answer["statusCode"] == 200
    with postgres.transaction() as tx:
        [counted] = tx.rows("SELECT day::text FROM analytics_daily_orders")
    [day] = [found for found in body(answer)["days"] if found["orders"]]
    assert day == {
        "date": counted["day"],
        "orders": 1,
        "revenue": {"USD": "54.99"},
        "customers": {"instagram": 1},
    }


@real_clock
def test_resend_webhook(start: Start, database: str) -> None:
    secret = f"whsec_{b64encode(bytes(range(24))).decode()}"
    running = start("resend_webhook", EMAIL_RESEND_WEBHOOK_SECRET=secret)
    forged = running.invoke(sample("resend_webhook.forged"))
    assert (forged["statusCode"], body(forged)["code"]) == (400, "webhook.signature_invalid")
    signed = invoke.sign(sample("resend_webhook"), secret)
    assert running.invoke(signed)["statusCode"] == 200
    assert running.invoke(signed)["statusCode"] == 200
    with postgres.transaction() as tx:
        assert tx.rows("SELECT type FROM email_event") == [{"type": "email.delivered"}]


def test_resend_webhook_without_a_secret_is_closed(start: Start, database: str) -> None:
    assert start("resend_webhook").invoke(sample("resend_webhook"))["statusCode"] == 404


def test_sweep_uploads(start: Start, database: str) -> None:
    add_asset(png(), hours=-2)
    assert start("sweep_uploads").invoke(sample("sweep_uploads"))["expired"] == 1
    with postgres.transaction() as tx:
        assert tx.rows("SELECT reserved_bytes FROM storage_usage") == [{"reserved_bytes": 0}]


def test_relay_outbox_reports_the_age_that_the_alarm_reads(start: Start, database: str) -> None:
    running = start("relay_outbox")
    answer = running.invoke(sample("relay_outbox"))
    assert answer["tried"] == 0
    alarm = template.read()["Resources"]["OutboxAgeAlarm"]["Properties"]
    lines = [json.loads(line) for line in running.log() if line.startswith("{")]
    [line] = [line for line in lines if "_aws" in line and alarm["MetricName"] in line]
    [metric] = line["_aws"]["CloudWatchMetrics"]
    assert alarm["Namespace"] == {"Fn::Sub": metric["Namespace"].replace("test", "${Stage}")}
    assert line[alarm["MetricName"]] == [0.0]
    assert metric["Dimensions"] == [[]]
    assert "Dimensions" not in alarm


def test_purge_data(start: Start, database: str) -> None:
    with postgres.transaction() as tx:
        tx.run(
            "INSERT INTO inbox (consumer, event_id, received_at)"
            " VALUES ('c', 'evt_old', now() - interval '91 days'), ('c', 'evt_new', now())"
        )
    assert start("purge_data").invoke(sample("purge_data")) == {"purged": 1}


def test_report_status_reports_what_its_alarms_read(start: Start, database: str) -> None:
    running = start("report_status")
    answer = running.invoke(sample("report_status"))
    assert answer["overdueSeconds"] == 0
    assert not any(answer["differing"].values())
    resources = template.read()["Resources"]
    names = (
        *("SchedulesAlarm", "EmailBounceRateAlarm", "EmailComplaintRateAlarm"),
        *("EmailDomainAlarm", "StorageLedgerAlarm"),
    )
    watched = {resources[name]["Properties"]["MetricName"] for name in names} | {"EventsUnhandled"}
    lines = [json.loads(line) for line in running.log() if line.startswith("{")]
    assert watched <= {name for line in lines if "_aws" in line for name in line}


def test_report_status_says_what_waits_when_asked(start: Start, database: str) -> None:
    answer = start("report_status").invoke(sample("report_status.status"))
    assert answer["outbox"]["waiting"] == 0


def test_report_status_says_what_became_of_an_id(start: Start, database: str) -> None:
    asked = sample("report_status.trace")
    answer = start("report_status").invoke(asked)
    assert answer == {"id": asked["trace"], "line": [], "waits": []}


def test_sweep_billing_reports_what_its_alarms_read(start: Start, database: str) -> None:
    running = start("sweep_billing")
    answer = running.invoke(sample("sweep_billing"))
    assert (answer["oldestSeconds"], answer["parked"]) == (0, 0)
    lines = [json.loads(line) for line in running.log() if line.startswith("{")]
    metrics = {
        metric["Metrics"][0]["Name"]: (metric["Namespace"], line)
        for line in lines
        if "_aws" in line
        for metric in line["_aws"]["CloudWatchMetrics"]
    }
    for name in ("StripeEventAgeAlarm", "StripeEventsParkedAlarm"):
        alarm = template.read()["Resources"][name]["Properties"]
        namespace, line = metrics[alarm["MetricName"]]
        assert alarm["Namespace"] == {"Fn::Sub": namespace.replace("test", "${Stage}")}
        assert line[alarm["MetricName"]] == [0.0]
        assert alarm["TreatMissingData"] == "breaching"
        assert "Dimensions" not in alarm


def test_sweep_billing_replays(start: Start, database: str) -> None:
    answer = start("sweep_billing").invoke(sample("sweep_billing.replay"))
    assert answer == {"done": [], "failed": [], "left": 0, "gone": 0}


def test_reconcile_billing(start: Start, database: str, environment: pytest.MonkeyPatch) -> None:
    with books(Account().engine, environment) as stripe:
        running = start(
            "reconcile_billing",
            BILLING_STRIPE_API_KEY=KEY,
            BILLING_STRIPE_BASE_URL=stripe.server.url,
        )
        assert running.invoke(sample("reconcile_billing.start"))["finished"]
        asked = len(stripe.asked)
        assert running.invoke(sample("reconcile_billing"))["finished"]  # not due for a day
    # The events, a list for each batch of their types; the subscriptions; the plans.
    assert asked == len(stripe.asked) == len(reconcile.BATCHES) + 2


def test_migrate_database(start: Start, database: str) -> None:
    assert start("migrate_database").invoke(sample("migrate_database")) == {"applied": []}


def test_migrate_database_answers_its_stack(start: Start, database: str) -> None:
    with scripted(lambda _: Answer()) as cloudformation:
        running = start("migrate_database")
        event = sample("migrate_database.deploy")
        event["ResponseURL"] = f"{cloudformation.url}/"
        running.invoke(event)
        event["ResourceProperties"]["Configuration"] = ["dev", "INFO"]
        running.invoke(event)
        running.invoke(event | {"RequestType": "Delete", "PhysicalResourceId": "old"})
    said = [json.loads(request.body) for request in cloudformation.requests]
    assert [answer["Status"] for answer in said] == ["SUCCESS"] * 3
    first, second, deleted = (answer["PhysicalResourceId"] for answer in said)
    # Functions carry this id: a changed parameter has to change it.
    assert first != second
    assert deleted == "old"


@pytest.fixture
def stripe(database: str, environment: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """The variables that lead a function to a Stripe of our own."""
    with shops.running(environment) as shop:
        yield {"BILLING_STRIPE_API_KEY": shops.KEY, "BILLING_STRIPE_BASE_URL": shop.url}


def test_manage_billing(start: Start, database: str) -> None:
    answer = start("manage_billing").invoke(sample("manage_billing"))
    assert (answer["statusCode"], body(answer)["plan"]["id"]) == (200, "free")


def test_manage_billing_plans(start: Start, database: str) -> None:
    answer = start("manage_billing").invoke(sample("manage_billing.plans"))
    assert [plan["id"] for plan in body(answer)["items"]] == ["free"]


def test_manage_billing_subscribe(start: Start, stripe: dict[str, str]) -> None:
    answer = start("manage_billing", **stripe).invoke(sample("manage_billing.subscribe"))
    assert (answer["statusCode"], body(answer)["code"]) == (402, "billing.payment_required")
    assert body(answer)["clientSecret"]


def test_manage_billing_preview(start: Start, stripe: dict[str, str]) -> None:
    answer = start("manage_billing", **stripe).invoke(sample("manage_billing.preview"))
    assert body(answer)["preview"]["amount"] == shops.CATALOGUE["enterprise"][0]


def test_manage_billing_pause(start: Start, stripe: dict[str, str]) -> None:
    answer = start("manage_billing", **stripe).invoke(sample("manage_billing.pause"))
    assert (answer["statusCode"], body(answer)["code"]) == (409, "billing.no_subscription")


def test_manage_billing_take_back(start: Start, stripe: dict[str, str]) -> None:
    answer = start("manage_billing", **stripe).invoke(sample("manage_billing.take-back"))
    assert (answer["statusCode"], body(answer)["status"]) == (200, "free")


def test_manage_billing_checkout(start: Start, stripe: dict[str, str]) -> None:
    answer = start("manage_billing", **stripe).invoke(sample("manage_billing.checkout"))
    assert body(answer)["url"].startswith(stripe["BILLING_STRIPE_BASE_URL"])


def test_manage_billing_invoices(start: Start, database: str) -> None:
    answer = start("manage_billing").invoke(sample("manage_billing.invoices"))
    assert (answer["statusCode"], body(answer)) == (200, {"items": []})


def test_create_business(start: Start, database: str) -> None:
    answer = start("create_business").invoke(sample("create_business"))
    assert (answer["statusCode"], body(answer)["name"]) == (201, "Corner shop")


def test_create_business_member(start: Start, database: str) -> None:
    answer = start("create_business").invoke(sample("create_business.member"))
    assert (answer["statusCode"], body(answer)["code"]) == (403, "auth.forbidden")


def test_check_health(start: Start, database: str) -> None:
    answer = start("check_health").invoke(sample("check_health"))
    assert answer["statusCode"] == 200
    assert body(answer)["database"] == "ok"


def test_reject_unrouted(start: Start) -> None:
    running = start("reject_unrouted")
    unknown = running.invoke(sample("reject_unrouted"))
    assert (unknown["statusCode"], body(unknown)["status"]) == (404, 404)
    method = running.invoke(sample("reject_unrouted.method"))
    assert method["statusCode"] == 405
    assert "POST" in method["headers"]["Allow"]


@real_clock
def test_stripe_webhook(start: Start, database: str) -> None:
    secret = "whsec_of-the-webhook-of-this-run"
    variables = {
        "BILLING_STRIPE_API_KEY": "sk_test_1",
        "BILLING_STRIPE_WEBHOOK_SECRET": secret,
    }
    running = start("stripe_webhook", **variables)
    forged = running.invoke(sample("stripe_webhook.forged"))
    assert (forged["statusCode"], body(forged)["code"]) == (400, "webhook.signature_invalid")
    signed = invoke.sign(sample("stripe_webhook"), secret)
    assert running.invoke(signed)["statusCode"] == 200
    # The same event over Stripe's own bus: it is done already.
    assert running.invoke(sample("stripe_webhook.bus")) == {"batchItemFailures": []}
    with postgres.transaction() as tx:
        assert tx.rows("SELECT status, attempts FROM stripe_event") == [
            {"status": "processed", "attempts": 1}
        ]
        assert tx.rows("SELECT workspace_id, status FROM workspace_billing") == [
            {"workspace_id": "ws_demo", "status": "active"}
        ]


def test_sync_plans(start: Start, database: str, environment: pytest.MonkeyPatch) -> None:
    engine = Engine(now=int(time.time()), seed=1)
    with books(engine, environment) as stripe:
        running = start(
            "sync_plans", BILLING_STRIPE_API_KEY=KEY, BILLING_STRIPE_BASE_URL=stripe.server.url
        )
        assert running.invoke(sample("sync_plans")) == {
            "created": [],
            "updated": [],
            "archived": [],
        }
        assert running.invoke(sample("sync_plans.check"))["drift"] == []
        assert running.invoke(sample("sync_plans.byhand"))["drift"] == []


def test_a_sample_without_a_test_of_its_own_is_answered(
    start: Start, database: str, subtests: pytest.Subtests
) -> None:
    text = "".join(file.read_text() for file in Path(__file__).parent.glob("test_*.py"))
    for name in sorted(path.stem for path in (template.ROOT / "events").glob("*.json")):
        if f'sample("{name}")' not in text:
            with subtests.test(name):
                answer = start(name.partition(".")[0]).invoke(sample(name))
                assert "errorMessage" not in answer, answer
                assert answer.get("statusCode", 200) < 500, answer


def test_a_sample_can_be_run_by_hand(built: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What `make invoke F=reject_unrouted` does."""
    with runtime.start("reject_unrouted", {}) as running:
        assert running.invoke(invoke.sample("reject_unrouted"))["statusCode"] == 404
        log = running.log()
    assert [line.split()[0] for line in log if not line.startswith("{")] == [
        "START",
        "END",
        "REPORT",
    ]
