"""The console over the whole stack: each of its acts, by a click in Chromium."""

import json
import os
import secrets
import signal
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from local.stack import emulator
from local.web.console import invocations
from tests.browser import chromium
from tests.browser.page import Page, visit
from tests.e2e.commands import PNG, bury, client, emit, query, quiet, save, waiting
from tests.e2e.conftest import Stack, request, wait

pytestmark = chromium.needed
SAID = "document.querySelector('#notes').innerText"


def view(stack: Stack, path: str) -> Any:
    return request("GET", f"{stack.env['KYORA_URL']}/_console/{path}").json


def on(stack: Stack, path: str, work: Callable[[Page], Awaitable[Any]]) -> Any:
    """Open a page of the console and do something there; it must log no error."""

    async def look(page: Page) -> Any:
        await page.look(1440, 1000)
        address = stack.env["KYORA_URL"].rstrip("/")
        await page.call(
            "Browser.grantPermissions",
            browserContextId=page.visitor,
            origin=address,
            permissions=["clipboardReadWrite", "clipboardSanitizedWrite"],
        )
        await page.go(f"{address}/#/{path}")
        await page.until("document.querySelector('h1')")
        found = await work(page)
        assert page.console == []
        return found

    return visit(look)


async def chosen(page: Page, selector: str, value: str) -> None:
    """Choose an option, as a person does."""
    await page.until(f"document.querySelector({json.dumps(selector)})")
    await page.ask(
        f"{{ const one = document.querySelector({json.dumps(selector)}); one.value ="
        f" {json.dumps(value)}; one.dispatchEvent(new Event('change', {{ bubbles: true }})); }}"
    )


async def typed(page: Page, selector: str, text: str) -> None:
    await page.until(f"document.querySelector({json.dumps(selector)})")
    await page.ask(
        f"{{ const one = document.querySelector({json.dumps(selector)}); one.value ="
        f" {json.dumps(text)}; one.dispatchEvent(new Event('input', {{ bubbles: true }})); }}"
    )


def test_an_edited_event_is_sent_and_is_seen_to_arrive_without_a_reload(stack: Stack) -> None:
    async def act(page: Page) -> None:
        await page.click("Send an event")
        await chosen(page, "dialog [name=event]", "OrderPaymentSucceeded")
        await page.until("document.querySelector('dialog [name=data]').value.includes('orderId')")
        given = json.loads(await page.ask("document.querySelector('dialog [name=data]').value"))
        given |= {"orderId": "ord_of_the_console", "total": "200.00"}
        await typed(page, "dialog [name=data]", json.dumps(given))
        await page.click("Send", "dialog")
        await page.says("is on kyora-local")
        await page.click("Close", "dialog")
        await page.says("record_transaction_fee: done")

    on(stack, "events?text=ord_of_the_console", act)
    amounts = "select amount from transaction_fee where order_id = 'ord_of_the_console'"
    assert query(stack, amounts) == [[610]]  # 2.9 % and 0.30


def test_what_is_wrong_in_an_edited_event_is_said_and_nothing_is_sent(stack: Stack) -> None:
    # Not of any event: schedules and deliveries of tests before send others meanwhile.
    sent = "select count(*) from outbox where detail_type = 'CustomerCreated'"
    before = query(stack, sent)

    async def act(page: Page) -> None:
        await page.click("Send an event")
        await chosen(page, "dialog [name=event]", "CustomerCreated")
        await typed(page, "dialog [name=data]", "{")
        await page.click("Send", "dialog")
        await page.says("is not JSON")
        await typed(page, "dialog [name=data]", "{}")
        await page.click("Send", "dialog")
        await page.says("missing")

    on(stack, "events", act)
    assert query(stack, sent) == before


def test_an_event_is_replayed_to_one_consumer(stack: Stack) -> None:
    event_id = emit(stack, "OrderCreated")
    wait(lambda: query(stack, "select 1 from inbox where event_id = :id", id=event_id), 120, "seen")

    async def act(page: Page) -> None:
        await page.click("Replay")
        await page.until(f"{SAID}.includes('is in kyora-local-analytics again')")
        await page.until(
            "document.querySelectorAll('.detail .own a').length === 2"
        )  # two deliveries

    on(stack, f"events/{event_id}", act)
    assert len(query(stack, "select 1 from inbox where event_id = :id", id=event_id)) == 1


def dead_letter(stack: Stack, queue: str, event: str) -> str:
    """Put an event that is on the bus into a dead-letter queue as well; return its message's id."""
    [row] = query(stack, "select detail_type, source, detail from outbox where id = :id", id=event)
    body = {"detail-type": row[0], "source": row[1], "detail": row[2]}
    sqs = client(stack, "sqs")
    url = sqs.get_queue_url(QueueName=f"kyora-local-{queue}-dead")["QueueUrl"]
    sent = sqs.send_message(QueueUrl=url, MessageBody=json.dumps(body))
    return str(sent["MessageId"])


def dead(stack: Stack, queue: str) -> list[str]:
    found = {one["name"]: one for one in view(stack, "queues")["queues"]}
    return [letter["id"] for letter in found[queue]["letters"]]


def test_one_dead_letter_is_redriven_and_then_the_rest(stack: Stack) -> None:
    bury(stack)
    event_id = emit(stack, "OrderPaymentSucceeded")
    first, *_ = (dead_letter(stack, "fees", event_id) for _ in range(3))

    async def act(page: Page) -> None:
        await page.says("3 dead letters")
        await page.click("Redrive", "section .times li")
        await page.says("2 dead letters")
        assert first not in dead(stack, "fees")
        await page.click("Redrive all")
        await page.until(f"{SAID}.includes('2 of 2')")

    on(stack, "queues", act)
    assert dead(stack, "fees") == []


def test_an_upload_is_confirmed_seen_and_swept(stack: Stack) -> None:
    # The bucket's event is held back and then deleted: it would confirm the upload first.
    sqs = client(stack, "sqs")
    uploads = sqs.get_queue_url(QueueName="kyora-local-uploads")["QueueUrl"]
    [(name, delay)] = sqs.get_queue_attributes(QueueUrl=uploads, AttributeNames=["DelaySeconds"])[
        "Attributes"
    ].items()
    sqs.purge_queue(QueueUrl=uploads)
    sqs.set_queue_attributes(QueueUrl=uploads, Attributes={name: "900"})
    try:
        asset = stack.put(PNG)
        wait(lambda: waiting(stack, "uploads"), 60, "the bucket's event in its queue")
        sqs.purge_queue(QueueUrl=uploads)
    finally:
        sqs.set_queue_attributes(QueueUrl=uploads, Attributes={name: delay})

    async def act(page: Page) -> None:
        await page.click("Confirm")
        await page.until(f"{SAID}.includes('200 ready')")
        await page.until("document.querySelector('.pictures img')?.naturalWidth === 8")
        await page.click("Sweep")
        await page.until(f"{SAID}.includes('expired')")

    on(stack, f"uploads?text={asset}", act)
    assert query(stack, "select status from asset where id = :id", id=asset) == [["ready"]]


def test_a_mail_is_sent_again(stack: Stack) -> None:
    quiet(stack)  # the mail of a test before would fail instead
    query(stack, "insert into mock_failure (status, name) values (422, 'validation_error')")
    event_id = emit(stack, "UserWelcomed")
    status = "select status from email_message where event_id = :id"
    failed = ([["dead"]], [["failed"]])
    wait(lambda: query(stack, status, id=event_id) in failed, 120, "a failed mail")

    async def act(page: Page) -> None:
        await page.click("Resend")
        await page.until(f"{SAID}.includes('is sent')")
        await page.says("welcome sent")  # its first delivery may be a dead letter still

    on(stack, f"events/{event_id}", act)


def test_plans_are_checked_and_synced_billing_reconciled_and_access_explained(stack: Stack) -> None:
    async def act(page: Page) -> None:
        for button, said in (
            ("Check plans", "The plans are what Stripe has."),
            ("Sync plans", "The plans are what Stripe has."),
            ("Reconcile", "at Stripe"),
            ("Why?", "because"),
        ):
            await page.ask("document.querySelector('#notes').replaceChildren()")
            await page.click(button)
            await page.until(f"{SAID}.includes({json.dumps(said)})")

    on(stack, "billing", act)


def test_an_event_of_stripe_s_is_processed_and_delivered_again(stack: Stack) -> None:
    found: list[dict[str, Any]] = []

    def has_come() -> bool:
        found[:] = [
            one
            for one in view(stack, "stripe")["events"]
            if one["deliveries"] and one["status"] == "processed"
        ]
        return bool(found)

    wait(has_come, 120, "an event of Stripe's that was processed")
    event = found[0]

    async def act(page: Page) -> None:
        await page.click("Process again")
        await page.until(f"{SAID}.includes('done')")
        await page.click("Deliver again")
        await page.until(f"{SAID}.includes('is sent again')")

    on(stack, f"stripe/{event['id']}", act)


def test_a_function_is_invoked_with_an_edited_sample_and_the_run_is_seen(stack: Stack) -> None:
    async def act(page: Page) -> str:
        await page.click("Invoke a function")
        await chosen(page, "dialog [name=function]", "request_upload")
        await chosen(page, "dialog [name=sample]", "request_upload.invalid")
        await page.until("document.querySelector('dialog [name=event]').value.includes('body')")
        given = json.loads(await page.ask("document.querySelector('dialog [name=event]').value"))
        given["body"] = json.dumps({"filename": "of-the-console.png", "size": -1})
        await typed(page, "dialog [name=event]", json.dumps(given))
        await page.click("Invoke", "dialog")
        await page.says("request.validation_failed")
        await page.click("Close", "dialog")
        await page.click("request_upload", "tbody")
        await page.says("of-the-console.png")
        await page.says("Invoke again")
        await page.click("Copy as pytest")
        await page.until(f"{SAID}.includes('is copied')")
        return str(await page.ask("navigator.clipboard.readText()"))

    said = on(stack, "invocations?text=of-the-console.png", act)
    assert "KYORA_TOKEN" in said or "stack.call" in said


def test_what_is_copied_does_the_same_again(stack: Stack) -> None:
    """The command in a shell, the test as it stands."""
    asked = {"filename": "Copied & 'kept'.png", "size": 74, "contentType": "image/png"}
    answer = stack.call("POST", "/v1/assets/upload", asked)
    assert answer.status == 200
    event_id = emit(stack, "CustomerCreated")
    wait(lambda: query(stack, "select 1 from inbox where event_id = :id", id=event_id), 120, "seen")
    [run] = view(stack, "invocations?function=request_upload&text=Copied")["invocations"][:1]
    request_again = view(stack, f"invocations/{run['id']}")["copy"]
    event_again = view(stack, f"events/{event_id}")["copy"]
    uploaded, sent = (
        json.loads(
            subprocess.run(
                ["sh", "-c", copy["curl"]], cwd=stack.checkout, capture_output=True, check=True
            ).stdout
        )
        for copy in (request_again, event_again)
    )
    assert uploaded.keys() == answer.json.keys()
    assert uploaded["assetId"] != answer.json["assetId"]
    assert sent["ok"]
    for copy, given in ((request_again, [stack]), (event_again, [stack, stack.home])):
        names: dict[str, Any] = {}
        exec(compile(copy["pytest"], "copied", "exec"), names)  # what a person would save
        [test] = [one for name, one in names.items() if name.startswith("test_")]
        test(*given)


def test_an_event_that_cannot_be_published_is_given_up(stack: Stack) -> None:
    event_id = f"evt_{secrets.token_hex(8)}"
    query(
        stack,
        "insert into outbox (id, source, detail_type, detail, attempts, last_error, refused,"
        " next_attempt_at) values (:id, 'kyora.orders', 'OrderCreated', '{\"data\": {}}', 3,"
        " 'too large', true, now() + interval '1 day')",
        id=event_id,
    )

    async def act(page: Page) -> None:
        await page.says("refused by the bus")
        await page.click("Give it up")
        await page.until(f"{SAID}.includes('is dropped')")

    on(stack, f"events/{event_id}", act)
    assert query(stack, "select 1 from outbox where id = :id", id=event_id) == []


def test_a_request_is_shown_as_the_front_got_it_without_its_token(stack: Stack) -> None:
    asked = {"filename": "seen.png", "size": 74, "contentType": "image/png"}
    assert stack.call("POST", "/v1/assets/upload", asked).status == 200
    [run] = view(stack, "invocations?function=request_upload&text=seen.png")["invocations"][:1]
    found = view(stack, f"invocations/{run['id']}")
    assert (found["request"]["body"], found["response"]["status"]) == (asked, 200)
    assert found["response"]["body"]["uploadUrl"].count("…") >= 1
    text = json.dumps(found, ensure_ascii=False)
    assert stack.env["KYORA_TOKEN"] not in text
    assert stack.env["AUTH_JWT_SECRET"] not in text
    assert (run["memoryMb"] or 99) > 10
    assert invocations.folder(found["event"]["requestContext"].get("x", "")) == ""


def test_a_cold_start_is_distinguished_from_a_warm_one(stack: Stack) -> None:
    source = stack.checkout / "functions" / "check_health" / "app.py"
    original = source.read_text()
    try:
        save(stack, source, f"{original}# A new version begins with a cold start.\n")
        for _ in range(2):
            assert stack.call("GET", "/v1/health", token=None).status == 200
        [warm, cold] = view(stack, "invocations?function=check_health")["invocations"][:2]
    finally:
        save(stack, source, original)
    assert (warm["cold"], cold["cold"]) == (False, True)
    assert 0 < cold["initMs"] <= cold["ms"]


@contextmanager
def frozen(stack: Stack, name: str) -> Iterator[None]:
    """Stop a part of the stack where it is, as a debugger or a sleeping machine does."""
    [child] = stack.children(name)
    family = [child, *child.children(recursive=True)]
    for one in family:
        os.kill(one.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for one in family:
            os.kill(one.pid, signal.SIGCONT)


@pytest.mark.parametrize(
    ("name", "path", "said"),
    [
        ("postgres", "events", "PostgreSQL does not answer"),
        ("ministack", "queues", "the AWS emulator does not answer"),
    ],
)
def test_a_frozen_part_is_said_soon_and_the_page_goes_on_afterwards(
    stack: Stack, name: str, path: str, said: str
) -> None:
    async def act(page: Page) -> None:
        await page.until("!document.body.innerText.includes('Reading …')")
        with frozen(stack, name):
            await page.says(said)
            # An answer, while the part is still frozen, and not just when it goes on.
            answer = request("GET", f"{stack.env['KYORA_URL']}/_local/state")
            assert answer.status == 200
        await page.until(f"!document.body.innerText.includes({json.dumps(said)})")

    on(stack, path, act)
    port = int(stack.env["AWS_ENDPOINT_URL"].rpartition(":")[2])
    wait(lambda: emulator.healthy(port), 120, "the emulator goes on")
