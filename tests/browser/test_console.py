"""The console in a browser: what it shows, that it stays still, and who may not use it."""

import asyncio
import json
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from kyora import postgres
from tests.browser import chromium
from tests.browser.conftest import Served
from tests.browser.page import Page, visit

HOSTILE = "<img src=x onerror=document.title='owned'>"


@pytest.fixture
def shop(served: Served) -> Served:
    """A workspace in its grace, events of Stripe's of every status, two days and two fees."""
    with postgres.transaction() as tx:
        tx.run(
            "INSERT INTO plan (id, product_id, price_id, name, amount, currency, interval, limits,"
            " active) VALUES ('pro', 'prod_1', 'price_1', :name, 5499, 'aed', 'month', '{}', true)",
            name=f"Pro {HOSTILE}",
        )
        tx.run(
            "INSERT INTO workspace_billing (workspace_id, plan_id, access, access_until, limits,"
            " subscription_id, status) VALUES ('ws_demo', 'pro', 'grace', '2026-12-02', '{}',"
            " 'sub_1', 'past_due'), ('ws_other', 'gone', 'free', NULL, '{}', NULL, 'free')"
        )
        tx.run(
            "INSERT INTO stripe_event (id, type, created, object_id, source, body, status,"
            " attempts, last_error) VALUES"
            " ('evt_1', 'invoice.payment_failed', 1, 'in', 'webhook', '{}', 'processed', 1, NULL),"
            " ('evt_2', 'customer.updated', 2, 'cus_1', 'reconcile', '{}', 'failed', 5, 'KeyError')"
        )
        tx.run(
            "INSERT INTO business (id, workspace_id, name, currency)"
            " VALUES ('biz_1', 'ws_demo', 'Shop', 'KWD')"
        )
        tx.run(
            "INSERT INTO analytics_count (workspace_id, business_id, day, kind, label, shard,"
            " count, amount) VALUES"
            " ('ws_demo', 'biz_1', '2026-11-24', 'order', 'KWD', 0, 2, 12345),"
            " ('ws_demo', 'biz_1', '2026-11-24', 'order', 'KWD', 1, 1, 5),"
            " ('ws_demo', 'biz_1', '2026-11-24', 'order', 'JPY', 0, 1, 700),"
            " ('ws_demo', 'biz_1', '2026-11-25', 'customer', 'instagram', 0, 4, 0)"
        )
        tx.run(
            "INSERT INTO order_payment (workspace_id, business_id, order_id, event_id, occurred_at)"
            " VALUES ('ws_demo', 'biz_1', 'ord_1', 'evt_1', now())"
        )
        tx.run(
            "INSERT INTO transaction_fee (workspace_id, business_id, order_id, method, amount,"
            " currency, paid_at, event_id) VALUES ('ws_demo', 'biz_1', 'ord_1', 'credit_card',"
            " 1895, 'KWD', now(), 'evt_1')"
        )
        tx.run(
            "INSERT INTO asset (id, workspace_id, created_by, filename, content_type, size, status,"
            " sha256, final_attempt, url_expires_at, confirm_deadline, variants, public) VALUES"
            " ('ast_1', 'ws_demo', 'u', :name, 'image/jpeg', 4, 'ready', 'x', 'try', now(),"
            " now(), true, true)",
            name=f"{HOSTILE}.jpg",
        )
        tx.run(
            "INSERT INTO variant_set (asset_id, workspace_id, status, final_attempt)"
            " VALUES ('ast_1', 'ws_demo', 'ready', 'try')"
        )
        tx.run(
            "INSERT INTO asset_variant VALUES"
            " ('ast_1', 'ws_demo', 'small', 'webp', 320, 200, 9000),"
            " ('ast_1', 'ws_demo', 'small', 'jpeg', 320, 200, 12000)"
        )
    return served


def state(shop: Served) -> dict[str, Any]:
    with urllib.request.urlopen(f"{shop.url}/_local/state", timeout=30) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


def test_a_workspace_is_shown_with_its_plan_access_and_when_that_ends(shop: Served) -> None:
    found = {row.pop("workspace"): row for row in state(shop)["billing"]}
    assert found["ws_demo"] == {
        "plan": f"Pro {HOSTILE}",
        "access": "grace",
        "status": "past_due",
        "subscription": "sub_1",
        "until": "2026-12-02T00:00:00Z",
    }
    assert (found["ws_other"]["plan"], found["ws_other"]["until"]) == ("gone", None)


def test_an_event_of_stripe_s_is_shown_with_its_fate_and_without_its_body(shop: Served) -> None:
    found = {row["id"]: row for row in state(shop)["stripeEvents"]}
    parked = found["evt_2"]
    assert (parked["status"], parked["attempts"], parked["error"]) == ("failed", 5, "KeyError")
    assert (parked["type"], parked["object"]) == ("customer.updated", "cus_1")
    assert "body" not in parked


def test_a_day_s_shards_are_one_line_with_decimals_as_the_currency_has_them(shop: Served) -> None:
    newest, older = state(shop)["days"]
    assert (newest["date"], newest["orders"], newest["revenue"]) == ("2026-11-25", 0, {})
    assert newest["customers"] == {"instagram": 4}
    assert (older["orders"], older["revenue"]) == (4, {"JPY": "700", "KWD": "12.350"})


def test_a_fee_is_shown_in_its_currency_s_decimals(shop: Served) -> None:
    [fee] = state(shop)["fees"]
    assert (fee["order"], fee["method"], fee["amount"]) == ("ord_1", "credit_card", "1.895")


def test_what_cannot_be_read_is_empty_and_the_database_is_said_to_be_down(served: Served) -> None:
    with postgres.transaction(owner=True) as tx:
        tx.run("DROP TABLE transaction_fee")
    found = state(served)
    assert (found["database"], found["fees"], found["uploads"]) == ("down", [], [])


# ---- the page

BILLING = "#/billing"
EVENTS = "#/events"


@chromium.needed
def test_the_pages_show_all_of_it_as_text(shop: Served) -> None:
    async def look(page: Page) -> None:
        await page.look(1440)
        await page.go(f"{shop.url}/{BILLING}")
        await page.says("past_due")
        for part in ("Dec 2, 2026", f"Pro {HOSTILE}", "54.99 AED a month"):
            await page.says(part)
        await page.go(f"{shop.url}/#/stripe")
        for part in ("invoice.payment_failed", "failed: KeyError"):
            await page.says(part)
        await page.go(f"{shop.url}/#/orders")
        for part in ("2026-11-24", "4 instagram", "12.350 KWD", "1.895 KWD", "credit card"):
            await page.says(part)
        assert await page.ask("document.title") == "Orders · Kyora local"
        assert page.console == []

    visit(look)


def add_events(count: int, start: int = 0) -> None:
    with postgres.transaction() as tx:
        tx.run(
            "INSERT INTO outbox (id, source, detail_type, detail, published_at, created_at)"
            " SELECT 'evt_' || n, 'kyora.orders', 'OrderCreated', jsonb_build_object('id',"
            " 'evt_' || n, 'data', jsonb_build_object('orderId', 'ord_' || n)), now(),"
            " now() + n * interval '1 second'"
            " FROM generate_series(CAST(:first AS int), CAST(:last AS int)) n",
            first=start,
            last=start + count - 1,
        )


@chromium.needed
def test_what_happens_appears_and_focus_selection_and_scroll_stay(served: Served) -> None:
    """Nothing is drawn again that has not changed."""
    add_events(60)

    async def look(page: Page) -> None:
        await page.look(1440, 500)
        await page.go(f"{served.url}/{EVENTS}")
        await page.says("60 events")
        await page.ask(
            "document.querySelector('input[type=search]').focus();"
            " document.querySelector('input[type=search]').value = 'half a wo'"
        )
        add_events(1, start=100)
        await page.says("61 events")
        assert await page.ask("document.activeElement.value") == "half a wo"
        await page.ask(
            "scrollTo(0, 400); window.row = document.querySelectorAll('tbody tr')[9];"
            " getSelection().selectAllChildren(row.cells[0])"
        )
        before = await page.ask("[scrollY, getSelection().toString()]")
        add_events(1, start=101)
        await page.says("62 events")
        after = await page.ask("[scrollY, getSelection().toString()]")
        assert after[1] == before[1] == "OrderCreated"
        # A browser keeps what is looked at in place when a row is put above it.
        assert 0 <= after[0] - before[0] < 60
        assert await page.ask("row.isConnected")

    visit(look)


@chromium.needed
def test_a_hidden_page_keeps_no_stream_open(served: Served) -> None:
    async def look(page: Page) -> None:
        await page.go(f"{served.url}/{EVENTS}")
        await page.says("No event has been emitted yet")
        assert served.streams == 1
        hide = (
            "Object.defineProperty(document, 'hidden', { value: %s, configurable: true });"
            " document.dispatchEvent(new Event('visibilitychange'))"
        )
        await page.ask(hide % "true")
        for _ in range(200):
            if not served.streams:
                break
            add_events(1, start=len(served.acts))
            served.acts.append("")
            await asyncio.sleep(0.1)
        assert served.streams == 0
        await page.ask(hide % "false")
        await page.says("The newest" if len(served.acts) > 99 else "event")

    visit(look)


@chromium.needed
def test_a_part_that_does_not_answer_is_said_and_the_rest_is_shown(shop: Served) -> None:
    async def look(page: Page) -> None:
        await page.go(f"{shop.url}/#/overview")
        await page.says("To look at")
        parts = await page.ask(
            "[...document.querySelectorAll('.stat')].filter((one) => one.querySelector('.down'))"
            ".map((one) => one.querySelector('strong').innerText.trim())"
        )
        assert parts == ["API", "AWS emulator", "Stripe stand-in"]
        await page.go(f"{shop.url}/#/queues")
        await page.says("the AWS emulator does not answer")
        await page.go(f"{shop.url}/#/tables/plan")
        await page.says("1 rows")

    visit(look)


@chromium.needed
def test_everything_is_reached_with_the_keyboard(served: Served) -> None:
    async def press(page: Page, key: str, code: int) -> None:
        for kind in ("rawKeyDown", "keyUp"):
            await page.call(
                "Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code
            )

    async def look(page: Page) -> None:
        await page.look(1440)
        await page.go(f"{served.url}/{EVENTS}")
        await page.says("No event has been emitted yet")
        reached = []
        for _ in range(18):
            await press(page, "Tab", 9)
            reached.append(await page.ask("document.activeElement.innerText.split('\\n')[0]"))
        assert reached[0] == "Skip to the page"
        assert reached[1:5] == ["Overview", "Invocations", "Traces", "Events"]
        assert "Send an event" in reached
        await page.ask(
            "[...document.querySelectorAll('main button')]"
            ".find((one) => one.innerText === 'Send an event').focus()"
        )
        await page.click("Send an event")
        await page.until("document.querySelector('dialog[open] textarea')?.value.includes('name')")
        for _ in range(12):  # out of the dialog leads only the browser's own frame
            await press(page, "Tab", 9)
            assert await page.ask(
                "document.activeElement === document.body"
                " || document.activeElement.closest('dialog') !== null"
            )
        await press(page, "Escape", 27)
        await page.until("!document.querySelector('dialog')")
        assert await page.ask("document.activeElement.innerText") == "Send an event"

    visit(look)


# ---- pages of others

ATTACK = Path(__file__).with_name("another_page.html").read_text()


@chromium.needed
def test_the_upload_page_is_reached_with_the_keyboard_and_says_whose_token_it_needs(
    served: Served,
) -> None:
    async def look(page: Page) -> None:
        await page.look(390)
        await page.go(f"{served.url}/upload")
        await page.says("KYORA_TOKEN in .local/env")
        await page.ask("document.querySelector('#files').focus()")
        assert await page.ask("document.activeElement.id") == "files"
        assert await page.ask("document.querySelector('#token').ariaLabel") == "Access token"
        assert page.console == []

    visit(look)


@chromium.needed
def test_a_page_of_another_origin_can_neither_act_nor_read(shop: Served) -> None:
    """It even knows the token: it is refused because of where it comes from."""
    assert shop.front is not None
    page_of_another = ATTACK.replace("CONSOLE", shop.url).replace("TOKEN", shop.front.token)

    class Attacker(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write(page_of_another.encode())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Attacker) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()

        async def look(page: Page) -> Any:
            await page.go(f"http://127.0.0.1:{server.server_port}/")
            return await page.until("window.found")

        found = visit(look)
        server.shutdown()
    assert shop.acts == []
    assert {
        name: found[name] for name in found if name not in {"blind", "beacon"}
    } == dict.fromkeys(("page", "view", "mails", "act", "stream", "script", "frame"), "refused")


@chromium.needed
def test_our_own_page_can_act(shop: Served) -> None:
    async def look(page: Page) -> None:
        await page.go(f"{shop.url}/{BILLING}")
        await page.says("54.99 AED")
        script = (
            "import('/_console/static/act.js').then((act) => act.ask('noted', { name: 'ours' }))"
        )
        assert (await page.ask(script))["ok"]

    visit(look)
    assert shop.acts == ["ours"]


# ---- how it looks, and how it is read out

PAGES = (
    *("overview", "invocations", "events", "events/evt_1", "queues", "uploads", "uploads/ast_1"),
    *("stripe", "stripe/evt_2", "billing", "orders", "tables", "tables/outbox", "configuration"),
)
AXE = Path(__file__).resolve().parents[2] / ".local" / "axe" / "axe.min.js"


@chromium.needed
@pytest.mark.skipif(
    not AXE.exists(), reason="axe-core is not installed (make test gets it from npm, where that is)"
)
@pytest.mark.parametrize(("width", "dark"), [(390, False), (1440, False), (1440, True)])
def test_no_page_has_a_fault_that_axe_finds_and_none_is_wider_than_its_window(
    shop: Served, width: int, dark: bool
) -> None:
    add_events(3)

    async def look(page: Page) -> dict[str, Any]:
        found = {}
        await page.look(width, dark=dark)
        await page.go(f"{shop.url}/#/{PAGES[0]}")
        for name in PAGES:
            await page.turn(f"#/{name}")
            await page.until(
                "document.querySelector('h1') && !document.body.innerText.includes('Reading …')"
            )
            if name == PAGES[0]:
                await page.ask(AXE.read_text())
            faults = await page.ask(
                "axe.run(document, { resultTypes: ['violations'] }).then((found) =>"
                " found.violations.map((one) => `${one.id}: ${one.nodes[0].html.slice(0, 200)}`))"
            )
            wide = await page.ask("document.documentElement.scrollWidth > innerWidth")
            if faults or wide:
                found[name] = [*faults, *(["wider than its window"] if wide else [])]
        await page.click("Invocations", "nav")
        await page.click("Invoke a function")
        await page.until("document.querySelector('dialog[open] textarea')?.value")
        if faults := await page.ask(
            "axe.run(document.querySelector('dialog')).then((found) =>"
            " found.violations.map((one) => `${one.id}: ${one.nodes[0].html.slice(0, 200)}`))"
        ):
            found["dialog"] = faults
        return found

    assert visit(look) == {}


@chromium.needed
@pytest.mark.skipif(not AXE.exists(), reason="axe-core is not installed")
@pytest.mark.parametrize("dark", [False, True])
def test_the_pages_beside_the_console_have_no_fault_that_axe_finds(
    served: Served, dark: bool
) -> None:
    async def look(page: Page) -> dict[str, Any]:
        found = {}
        await page.look(390, dark=dark)
        for name in ("trace/", "upload", "mailbox", "docs"):
            await page.go(f"{served.url}/{name}")
            await page.until(
                f"location.pathname === '/{name}' && document.readyState === 'complete'"
                " && document.querySelector('main h1, h1')"
            )
            await page.ask(AXE.read_text())
            found[name] = await page.ask(
                "axe.run(document, { resultTypes: ['violations'] }).then((found) =>"
                " found.violations.map((one) => `${one.id}: ${one.nodes[0].html.slice(0, 200)}`))"
            )
        return {name: faults for name, faults in found.items() if faults}

    assert visit(look) == {}


@chromium.needed
@pytest.mark.parametrize("dark", [False, True])
def test_pictures_of_the_console_are_kept(shop: Served, dark: bool) -> None:
    async def look(page: Page) -> None:
        await page.look(1280, 1000, dark=dark)
        await page.go(f"{shop.url}/{BILLING}")
        await page.says("past_due")
        file = await page.picture(f"console{'-dark' if dark else ''}-1280")
        assert chromium.is_picture(file, 1280)

    visit(look)
