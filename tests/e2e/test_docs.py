"""The page at /docs: every example on it works as pasted, and a route is tried from it."""

import json
import subprocess
from typing import Any

from tests.browser import chromium
from tests.browser.page import Page, visit
from tests.e2e.commands import query, quiet, subscribe
from tests.e2e.conftest import Stack, wait
from tests.e2e.payer import start_over, until

pytestmark = chromium.needed

# What an example needs that the examples above it do not make.
LATER = {"planId": "starter", "when": "renewal"}
UNLIMITED = "update workspace_billing set limits = limits || '{\"maxBusinesses\": -1}'"


async def opened(page: Page, stack: Stack) -> None:
    await page.look(1440, 1000)
    await page.go(f"{stack.env['KYORA_URL']}/docs")
    await page.until("document.querySelector('article')")


def pasted(stack: Stack, command: str) -> tuple[int, str]:
    """Run a command of the page in a shell that has read `.local/env`."""
    done = subprocess.run(
        ["sh", "-c", f". {stack.home.name}/env; {command} -sS -w '\\n%{{http_code}}'"],
        cwd=stack.home.parent,
        capture_output=True,
        text=True,
        check=True,
        timeout=240,
    )
    body, _, status = done.stdout.rpartition("\n")
    return int(status), body


def test_every_example_works_as_pasted(stack: Stack) -> None:
    start_over(stack)
    subscribe(stack)
    prepare = {
        "takeBackChange": lambda: stack.call("POST", "/v1/billing/subscription", LATER),
        # The plan limits how many businesses there are, and another test may have made some.
        # It was paused above, which gives the free plan's.
        "createBusiness": lambda: (
            stack.call("POST", "/v1/billing/subscription/resume"),
            until(stack, lambda it: it["access"] == "full"),
            quiet(stack),
            query(stack, UNLIMITED),
        ),
    }

    async def read(page: Page) -> list[list[str]]:
        await opened(page, stack)
        await page.click("Try it", "#startMultipart")
        await page.until(
            "document.querySelector('#startMultipart .answer').innerText.includes('Now')"
        )
        await page.click("Try it", "#signParts")
        await page.until("document.querySelector('#signParts .answer').innerText.includes('zeros')")
        shown = "document.querySelector('#renewUploadUrl pre').innerText"
        before = json.dumps(await page.ask(shown))
        await page.click("Upload a sample")
        await page.until(f"{shown} !== {before}")
        found: list[list[str]] = await page.ask(
            "[...document.querySelectorAll('article')].map((one) =>"
            " [one.id, one.querySelector('.shown pre').innerText])"
        )
        return found

    examples = visit(read)
    assert len(examples) > 15
    wrong = {}
    for name, command in examples:
        prepare.get(name, lambda: None)()
        status, body = pasted(stack, command)
        # Who has a subscription changes it; the example above has just done that.
        if not (200 <= status < 300 or "billing.already_subscribed" in body):
            wrong[name] = (status, body[:300], command)
    assert not wrong, wrong


def test_the_examples_of_webhooks_and_events_work_as_pasted(stack: Stack) -> None:
    async def read(page: Page) -> Any:
        await opened(page, stack)
        return await page.ask(
            "({ hooks: [...document.querySelectorAll('#stripe_webhook pre, #resend_webhook pre')]"
            ".map((one) => one.innerText), events: [...document.querySelectorAll('.event')]"
            ".map((one) => one.id.replace('event-', '')) })"
        )

    found = visit(read)
    assert len(found["hooks"]) == 2
    for command in found["hooks"]:
        status, body = pasted(stack, command)
        assert (status, json.loads(body)["result"]["statusCode"]) == (200, 200), body
    assert {"OrderCreated", "UserWelcomed", "PlansSynced"} <= set(found["events"])


def test_a_route_is_tried_with_the_demo_token_which_the_page_never_has(stack: Stack) -> None:
    async def act(page: Page) -> str:
        await opened(page, stack)
        await page.click("Try it", "#listPlans")
        await page.until(
            "document.querySelector('#listPlans .answer').innerText.includes('Professional')"
        )
        await page.ask(
            "document.querySelector('#getPlan .try input').value = 'nothing-of-this-name'"
        )
        await page.click("Try it", "#getPlan")
        await page.until("document.querySelector('#getPlan .answer').innerText.includes('404')")
        await page.click("Send it", "#event-OrderCreated")
        await page.until(
            "document.querySelector('#event-OrderCreated .answer').innerText.includes('evt_')"
        )
        assert page.console == []
        return str(await page.ask("document.documentElement.outerHTML"))

    before = query(stack, "select count(*) from outbox where detail_type = 'OrderCreated'")[0][0]
    text = visit(act)
    assert stack.env["KYORA_TOKEN"] not in text
    sent = "select count(*) from outbox where detail_type = 'OrderCreated'"
    wait(lambda: query(stack, sent)[0][0] > before, 60, "the event")
