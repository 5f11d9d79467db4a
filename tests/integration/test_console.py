"""The console's JSON: who may ask, what is shown of each part, and what is never shown."""

import http.client
import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from kyora import postgres
from local.progress import Trouble, say
from local.settings import Settings
from local.stack import emulator
from local.web.console import consumers, copying, invocations, masking
from local.web.console.invocations import Record
from local.web.running import Front
from tests.integration.support.fronts import serving

TOKEN = "of-this-start"
SECRET = "whsec_" + "of-the-local-stack" * 2


def greet(front: Front, name: str, loud: bool = False) -> dict[str, Any]:
    """Greet someone."""
    if name == "nobody":
        raise Trouble("there is no one to greet")
    say(f"Hello {name}")
    return {"greeted": name.upper() if loud else name, "key": SECRET}


@contextmanager
def console(folder: Path, database: str) -> Iterator[tuple[Front, int]]:
    """A console before a database and nothing else, with one verb."""
    stack = Settings(
        home=folder,
        port=8000,
        gateway_port=1,
        postgres_port=0,
        stripe_port=1,
        secrets={"AUTH_JWT_SECRET": "y" * 64, "BILLING_STRIPE_WEBHOOK_SECRET": SECRET},
        environ={
            "DATABASE_URL": database,
            "STORAGE_PROVIDER": "local",
            "STORAGE_LOCAL_PATH": str(folder / "assets"),
        },
    )
    front = Front(stack, api="api", acts={"greet": greet}, token=TOKEN)
    with serving(front) as port:
        yield front, port


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a console whose parts all do not answer."""
    address = "postgresql://kyora:hidden-word@127.0.0.1:1/kyora"
    with console(tmp_path_factory.mktemp("home"), address) as (_, port):
        yield port


@pytest.fixture
def on(database: str, tmp_path: Path) -> Iterator[tuple[Front, int]]:
    with console(tmp_path, database) as found:
        yield found


def ask(port: int, path: str, method: str = "GET", body: bytes = b"", **headers: str) -> Any:
    """Return status and JSON of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        connection.request(method, path, body or None, sent)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read() or b"null")
    finally:
        connection.close()


def act(port: int, given: Any, **headers: str) -> Any:
    wanted = {"Content_Type": "application/json", "X_Kyora_Token": TOKEN} | headers
    return ask(port, "/_console/greet", "POST", json.dumps(given).encode(), **wanted)


# ---- who may ask


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example:8000"},
        {"Origin": "http://evil.example"},
        {"Origin": "http://127.0.0.1:9"},  # another port of this machine
        {"Origin": "null"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
    ],
)
def test_another_page_can_neither_read_nor_act(closed: int, headers: dict[str, str]) -> None:
    assert ask(closed, "/_console/verbs", **headers)[0] == 403
    assert act(closed, {"name": "you"}, **headers)[0] == 403


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"X_Kyora_Token": "of-another-start"}, 401),
        ({"X_Kyora_Token": ""}, 401),
        ({"Content_Type": "text/plain"}, 415),
        ({"Content_Type": "application/x-www-form-urlencoded"}, 415),
    ],
)
def test_an_act_needs_the_token_of_this_start_and_a_json_body(
    closed: int, headers: dict[str, str], status: int
) -> None:
    assert act(closed, {"name": "you"}, **headers)[0] == status


def test_the_page_holds_the_token_and_may_stand_in_no_frame(closed: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", closed, timeout=60)
    connection.request("GET", "/")
    answer = connection.getresponse()
    text, policy = answer.read().decode(), answer.headers["Content-Security-Policy"]
    connection.close()
    assert TOKEN in text
    assert "frame-ancestors 'none'" in policy
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy


@pytest.mark.parametrize(
    "path", ["../index.html", "%2e%2e/docs.html", "..%2f..%2fguard.py", "x.js"]
)
def test_no_file_but_the_page_s_own_is_served(closed: int, path: str) -> None:
    assert ask(closed, f"/_console/static/{path}")[0] == 404


# ---- acts


def test_a_verb_answers_with_what_its_command_says_and_no_secret(closed: int) -> None:
    status, found = act(closed, {"name": "you", "loud": True})
    assert (status, found) == (
        200,
        {"ok": True, "said": ["Hello you"], "greeted": "YOU", "key": masking.HIDDEN},
    )


@pytest.mark.parametrize(
    ("given", "status", "part"),
    [
        ({"name": "nobody"}, 409, "no one to greet"),
        ({}, 422, "name"),
        ({"name": 5}, 422, "name"),
        ({"name": "you", "more": 1}, 422, "more"),
        ([], 422, "JSON object"),
    ],
)
def test_what_a_verb_cannot_do_is_said(closed: int, given: Any, status: int, part: str) -> None:
    found = act(closed, given)
    assert found[0] == status
    assert part in found[1]["error"]


def test_an_unknown_verb_is_not_found_and_the_list_names_those_there_are(closed: int) -> None:
    headers = {"Content_Type": "application/json", "X_Kyora_Token": TOKEN}
    assert ask(closed, "/_console/nothing", "POST", b"{}", **headers)[0] == 404
    [verb] = ask(closed, "/_console/verbs")[1]["verbs"]
    assert verb["takes"] == {"name": "required", "loud": "default: False"}


# ---- what is shown

VIEWS = ("overview", "invocations", "events", "queues", "stripe", "uploads", "billing", "orders")


@pytest.mark.parametrize("view", [*VIEWS, "configuration", "tables"])
def test_a_part_that_does_not_answer_is_said_and_nothing_hangs(closed: int, view: str) -> None:
    status, found = ask(closed, f"/_console/{view}")
    if view == "overview":
        assert {part["name"] for part in found["parts"] if not part["up"]} >= {"PostgreSQL"}
    elif view == "invocations":
        assert (status, found["invocations"]) == (200, [])
    else:
        assert status == 503
        assert "does not answer" in found["fault"]
        assert "hidden-word" not in found["fault"]


def test_an_event_is_shown_with_where_its_consumers_stand(on: tuple[Front, int]) -> None:
    with postgres.transaction() as tx:
        tx.run(
            "INSERT INTO outbox (id, source, detail_type, detail, published_at) VALUES"
            " ('evt_1', 'kyora.orders', 'OrderCreated', :detail, now()),"
            " ('evt_2', 'kyora.orders', 'OrderCreated', :detail, NULL)",
            detail=json.dumps({"id": "evt_1", "data": {"token": "vrf_secret", "orderId": "o"}}),
        )
        tx.run("INSERT INTO inbox (consumer, event_id) VALUES ('update_analytics', 'evt_1')")
    found = {one["id"]: one for one in ask(on[1], "/_console/events")[1]["events"]}
    [done], [waits] = found["evt_1"]["consumers"], found["evt_2"]["consumers"]
    assert (done["function"], done["queue"]) == ("update_analytics", "analytics")
    assert (done["state"], waits["state"]) == ("done", "in the outbox")
    one = ask(on[1], "/_console/events/evt_1")[1]
    assert one["detail"]["data"] == {"token": masking.HIDDEN, "orderId": "o"}
    assert "update_analytics" in one["copy"]["pytest"]
    assert ask(on[1], "/_console/events/evt_9")[0] == 404


def test_a_table_is_shown_a_page_at_a_time(on: tuple[Front, int]) -> None:
    with postgres.transaction() as tx:
        tx.run("INSERT INTO billing_fact (key) SELECT 'fact ' || n FROM generate_series(1, 60) n")
    first = ask(on[1], "/_console/tables/billing_fact")[1]
    second = ask(on[1], "/_console/tables/billing_fact?page=1")[1]
    assert (len(first["rows"]), first["more"], first["count"]) == (50, True, 60)
    assert (len(second["rows"]), second["more"]) == (10, False)
    one = ask(on[1], "/_console/tables/billing_fact?where=key&is=fact%207")[1]
    assert [row["key"] for row in one["rows"]] == ["fact 7"]


@pytest.mark.parametrize("name", ["pg_authid", "pg_catalog.pg_class", "plan;drop", "plan%22"])
def test_a_table_that_is_not_listed_cannot_be_read(on: tuple[Front, int], name: str) -> None:
    assert ask(on[1], f"/_console/tables/{name}")[0] == 404


def picture(port: int, path: str) -> tuple[bytes, str]:
    """Return the bytes and the type of a picture, which runs nothing where it is shown."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        connection.request("GET", path)
        answer = connection.getresponse()
        assert "sandbox" in answer.headers["Content-Security-Policy"]
        return answer.read(), str(answer.headers["Content-Type"])


def test_a_picture_is_served_as_an_image_and_nothing_else(on: tuple[Front, int]) -> None:
    front, port = on
    with postgres.transaction() as tx:
        tx.run(
            "INSERT INTO asset (id, workspace_id, created_by, filename, content_type, size, status,"
            " sha256, final_attempt, url_expires_at, confirm_deadline) VALUES"
            " ('ast_1', 'ws_demo', 'u', 'a.png', 'image/png', 4, 'ready', 'x', 'try', now(),"
            " now()),"
            " ('ast_2', 'ws_demo', 'u', 'a.pdf', 'application/pdf', 4, 'ready', 'x', 't', now(),"
            " now())"
        )
    stored = front.stack.assets / "assets/ws_demo/ast_1/try"
    stored.parent.mkdir(parents=True)
    stored.write_bytes(b"\x89PNG")
    assert picture(port, "/_console/uploads/ast_1/picture") == (b"\x89PNG", "image/png")
    assert ask(port, "/_console/uploads/ast_2/picture")[0] == 404


def test_an_upload_is_shown_with_its_variants_and_their_pictures(on: tuple[Front, int]) -> None:
    front, port = on
    with postgres.transaction() as tx:
        tx.run(
            "INSERT INTO asset (id, workspace_id, created_by, filename, content_type, size, status,"
            " sha256, final_attempt, url_expires_at, confirm_deadline, variants, public) VALUES"
            " ('ast_3', 'ws_demo', 'u', 'a.heic', 'image/heic', 4, 'ready', 'x', 'try', now(),"
            " now(), true, true),"
            " ('ast_4', 'ws_demo', 'u', 'a.png', 'image/png', 4, 'ready', 'x', 'try', now(),"
            " now(), true, false)"
        )
        tx.run(
            "INSERT INTO variant_set (asset_id, workspace_id, status, reason, final_attempt) VALUES"
            " ('ast_3', 'ws_demo', 'ready', NULL, 'try_v'),"
            " ('ast_4', 'ws_demo', 'failed', 'too_slow', NULL)"
        )
        tx.run(
            "INSERT INTO asset_variant VALUES ('ast_3', 'ws_demo', 'small', 'webp', 320, 200, 9000)"
        )
    stored = front.stack.assets / "public/ws_demo/ast_3/try_v/small.webp"
    stored.parent.mkdir(parents=True)
    stored.write_bytes(b"RIFF")
    found = ask(port, "/_console/uploads/ast_3")[1]
    assert (found["filename"], found["picture"], found["set"]["status"]) == (
        "a.heic",
        False,
        "ready",
    )
    [variant] = found["variants"]
    assert (variant["name"], variant["width"], variant["size"]) == ("small", 320, 9000)
    assert variant["publicUrl"] == "http://127.0.0.1:8000/public/ws_demo/ast_3/try_v/small.webp"
    assert picture(port, variant["picture"]) == (b"RIFF", "image/webp")
    for other in ("medium.webp", "small.png", "huge.webp", "..%2Fsmall.webp", "small"):
        assert ask(port, f"/_console/uploads/ast_3/picture?variant={other}")[0] == 404, other
    failed = ask(port, "/_console/uploads/ast_4")[1]
    assert (failed["set"]["reason"], failed["variants"]) == ("too_slow", [])
    assert ask(port, "/_console/uploads/ast_9")[0] == 404


def test_a_stream_sends_a_view_again_when_it_has_changed(on: tuple[Front, int]) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", on[1], timeout=60)
    connection.request("GET", "/_console/stream?view=tables/billing_fact")
    answer = connection.getresponse()

    def event() -> Any:
        while not (line := answer.readline()).startswith(b"data: "):
            assert line
        return json.loads(line[6:])

    assert event()["count"] == 0
    with postgres.transaction() as tx:
        tx.run("INSERT INTO billing_fact (key) VALUES ('new')")
    assert event()["count"] == 1
    connection.close()


# ---- the emulator's record of invocations


def written(file: Path, *lines: Any) -> Record:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as opened:
        opened.writelines(json.dumps(line) + "\n" for line in lines)
    return Record(file)


def invocation(**more: Any) -> dict[str, Any]:
    return {"id": "a", "function": "kyora-local-send-email", "at": 1.0, "event": {}, **more}


def test_an_invocation_is_running_until_it_has_ended(tmp_path: Path) -> None:
    file = tmp_path / "record"
    record = written(file, invocation(running=True))
    assert [one["status"] for one in invocations.listed(record, {})] == ["running"]
    written(file, invocation(ms=5, result={"batchItemFailures": []}))
    assert [one["status"] for one in invocations.listed(record, {})] == ["done"]
    written(file, invocation(id="b", running=True), {"started": 2})
    assert [one["status"] for one in invocations.listed(record, {})] == ["interrupted", "done"]


def test_a_line_that_is_being_written_is_read_once_it_is_whole(tmp_path: Path) -> None:
    file = tmp_path / "record"
    record = written(file, invocation())
    line = json.dumps(invocation(id="b")) + "\n"
    with file.open("a") as opened:
        opened.write(line[:10])
        opened.flush()
        assert len(record.read()) == 1
        opened.write(line[10:])
    assert len(record.read()) == 2


@pytest.mark.parametrize(
    ("line", "status", "good"),
    [
        ({"error": True, "result": {"errorType": "KeyError"}}, "failed", False),
        ({"error": True, "result": {"errorMessage": "Task timed out"}}, "timed out", False),
        ({"result": {"statusCode": 404}}, "404", True),
        ({"result": {"statusCode": 503}}, "503", False),
        ({"result": {"isAuthorized": False}}, "refused", True),
        (
            {"event": {"Records": [{}, {}]}, "result": {"batchItemFailures": [{}]}},
            "1 of 2 again",
            False,
        ),
    ],
)
def test_what_became_of_an_invocation(line: dict[str, Any], status: str, good: bool) -> None:
    found = invocations.summary(invocation(**line))
    assert (found["status"], found["good"]) == (status, good)


def test_an_invocation_is_shown_with_the_request_that_the_front_passed_on(
    on: tuple[Front, int],
) -> None:
    front, port = on
    headers = {"x-request-id": "r-1", "authorization": "Bearer eyJhbGciOiJIUzI1.eyJh.b"}
    event = {
        "requestContext": {"http": {"method": "GET", "path": "/v1/assets/ast_1"}},
        "rawPath": "/v1/assets/ast_1",
        "headers": headers,
    }
    written(
        emulator.invocations(front.stack.home / "emulator"),
        invocation(event=event, result={"statusCode": 200, "body": '{"a": 1}'}, ms=3),
    )
    status, found = ask(port, "/_console/invocations/a")
    assert (status, found["trigger"]["text"]) == (200, "GET /v1/assets/ast_1")
    assert found["result"]["body"] == {"a": 1}
    assert "eyJh" not in json.dumps(found)
    assert "$KYORA_TOKEN" in found["copy"]["curl"]


# ---- what is copied, what is masked, who consumes


def test_a_copied_test_is_python_and_names_no_token() -> None:
    event = {
        "requestContext": {"http": {"method": "POST", "path": "/v1/businesses"}},
        "rawPath": "/v1/businesses",
        "headers": {"authorization": "Bearer secret"},
        "body": json.dumps({"name": 'Nour\'s "shop"\nnew', "currency": "AED"}),
    }
    for line in (
        invocation(event=event, result={"statusCode": 201}),
        invocation(event={"Records": [{"body": "it's"}]}),
        invocation(event={"headers": {"stripe-signature": "t=1"}, "body": "{}"}),
    ):
        copies = copying.of_invocation(line)
        compile(copies["pytest"], "copied", "exec")
        for text in copies.values():
            assert "Bearer secret" not in text
            assert "t=1" not in text


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ({"Authorization": "Bearer abc"}, {"Authorization": "…"}),
        ({"authorization": "Bearer ${KYORA_TOKEN}"}, {"authorization": "Bearer ${KYORA_TOKEN}"}),
        ({"clientSecret": "pi_1_secret"}, {"clientSecret": "…"}),
        ({"token": "", "a": 1}, {"token": "", "a": 1}),
        (["postgresql://kyora:word@h/db"], ["postgresql://kyora:…@h/db"]),
        ("https://b/k?X-Amz-Signature=abc&x=1", "https://b/k?X-Amz-Signature=…&x=1"),
        (f"a {SECRET} b", "a whsec_… b"),
        ({"sha256": "abc", "tokens": 3}, {"sha256": "abc", "tokens": 3}),
    ],
)
def test_secrets_are_masked_and_nothing_else(value: Any, shown: Any) -> None:
    assert masking.clean(value) == shown


def test_each_event_s_consumers_are_those_of_the_template() -> None:
    found = consumers.by_event()
    assert found["OrderPaymentSucceeded"] == [("record_transaction_fee", "fees", ())]
    assert found["UserWelcomed"] == [("send_email", "emails", ())]
    [variants] = found["AssetReady"]
    assert variants == ("make_variants", "variants", ("variants",))
    assert (variants.takes({"variants": True}), variants.takes({})) == (True, False)
    assert "PlansSynced" not in found
    assert consumers.by_queue()["uploads"] == "verify_upload"
