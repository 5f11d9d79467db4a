"""The stand-in's pages: what a person clicks through, by HTTP as a browser sends it, and seen."""

import asyncio
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import aiohttp
import pytest

from local.stripe.server import serve
from local.stripe.standin import Options, StandIn
from tests.browser import chromium
from tests.browser.page import Page, dom, picture, report
from tests.browser.page import visit as look_at

CARD = {"number": "4242 4242 4242 4242", "expiry": "12 / 34", "cvc": "123"}
DECLINED, CHALLENGED = "4000000000000002", "4000002500003155"
HOSTILE = "<script>document.title='owned'</script><img src=x onerror=alert(1)>"


@dataclass
class Shop:
    """A stand-in with two plans and one customer."""

    standin: StandIn
    basic: str = ""
    pro: str = ""
    customer: str = ""

    def post(self, path: str, **params: Any) -> dict[str, Any]:
        status, body = self.standin.engine.request("POST", path, params)
        assert status == 200, body
        return body

    def get(self, path: str) -> dict[str, Any]:
        return self.standin.engine.request("GET", path)[1]

    def price(self, name: str, amount: int) -> str:
        product = {"name": name}
        made = self.post(
            "/v1/prices",
            product_data=product,
            currency="usd",
            unit_amount=amount,
            recurring={"interval": "month"},
        )
        return str(made["id"])

    def checkout(self, **params: Any) -> dict[str, Any]:
        return self.post(
            "/v1/checkout/sessions",
            mode="subscription",
            customer=self.customer,
            line_items=[{"price": self.basic, "quantity": 1}],
            success_url=f"{self.standin.url}/?done={{CHECKOUT_SESSION_ID}}",
            cancel_url="https://kyora.test/plans",
            **params,
        )

    def subscribe(self, card: str = "pm_card_visa") -> dict[str, Any]:
        method = self.post(f"/v1/payment_methods/{card}/attach", customer=self.customer)["id"]
        self.post(
            f"/v1/customers/{self.customer}", invoice_settings={"default_payment_method": method}
        )
        items = [{"price": self.basic}]
        return self.post("/v1/subscriptions", customer=self.customer, items=items)

    def portal(self) -> str:
        made = self.post(
            "/v1/billing_portal/sessions",
            customer=self.customer,
            return_url="https://kyora.test/billing",
        )
        return str(made["url"])

    def subscription(self) -> dict[str, Any]:
        found = self.standin.engine.all("subscription")[0]
        return self.standin.engine.show(found)


@pytest.fixture
def shop() -> Iterator[Shop]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    serving = serve(Options(seed=5))
    standin = asyncio.run_coroutine_threadsafe(serving.__aenter__(), loop).result(60)
    made = Shop(standin)
    made.basic, made.pro = made.price("Basic", 2000), made.price("Pro", 5000)
    made.customer = made.post("/v1/customers", email="owner@example.com", name="Rana")["id"]
    yield made
    asyncio.run_coroutine_threadsafe(serving.__aexit__(None, None, None), loop).result(60)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def visit(url: str, form: dict[str, str] | None = None) -> tuple[int, str, str]:
    """Open a page or send its form; return the status, where it leads and what it says."""

    async def send() -> tuple[int, str, str]:
        async with (
            aiohttp.ClientSession() as session,
            session.request(
                "GET" if form is None else "POST",
                url,
                data=None if form is None else urlencode(form),
                headers={"Content-Type": "application/x-www-form-urlencoded"},
                allow_redirects=False,
            ) as answer,
        ):
            return answer.status, answer.headers.get("Location", ""), await answer.text("latin-1")

    return asyncio.run(send())


# ---- checkout


def test_a_person_subscribes_and_comes_back(shop: Shop) -> None:
    session = shop.checkout()
    status, _, page = visit(session["url"])
    assert status == 200
    for part in ("Basic", "$20.00", "per month", "https://kyora.test/plans", "owner@example.com"):
        assert part in page
    status, where, _ = visit(session["url"], CARD)
    assert (status, where) == (303, f"{shop.standin.url}/?done={session['id']}")
    assert shop.subscription()["status"] == "active"
    assert visit(session["url"])[1] == where  # a reload pays nothing twice


def test_a_trial_is_named_and_costs_nothing_today(shop: Shop) -> None:
    session = shop.checkout(subscription_data={"trial_period_days": 14})
    page = visit(session["url"])[2]
    assert "14 days free" in page
    assert "Start trial" in page
    visit(session["url"], CARD)
    assert shop.subscription()["status"] == "trialing"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"number": DECLINED}, "Your card was declined."),
        ({"number": "4000000000009995"}, "insufficient funds"),
        ({"number": "1234"}, "Your card number is incorrect."),
        ({"expiry": "12/20"}, "expiration year is invalid"),
        ({"expiry": "13/34"}, "expiration month is invalid"),
        ({"expiry": "soon"}, "expiration date is incomplete"),
    ],
)
def test_a_refused_card_says_why_and_stays(shop: Shop, change: dict[str, str], words: str) -> None:
    session = shop.checkout()
    status, where, page = visit(session["url"], CARD | change)
    assert (status >= 400, where) == (True, "")
    assert words in page.replace("&#39;", "'")
    assert '4242 4242 4242 4242" maxlength' in page  # the hint, not what was typed
    assert change.get("number", "soon, never") not in re.sub(r"data-number=\"\d+\"", "", page)
    assert shop.get(f"/v1/checkout/sessions/{session['id']}")["status"] == "open"


def test_3d_secure_asks_and_failing_it_leads_back(shop: Shop) -> None:
    session = shop.checkout()
    status, challenge, _ = visit(session["url"], CARD | {"number": CHALLENGED})
    assert (status, "/c/3ds/" in challenge) == (303, True)
    assert "$20.00" in visit(challenge)[2]
    status, _, page = visit(challenge, {"answer": "fail"})
    assert (status, "unable to authenticate" in page) == (402, True)
    challenge = visit(session["url"], CARD | {"number": CHALLENGED})[1]
    assert visit(challenge, {"answer": "complete"})[0] == 303
    assert shop.subscription()["status"] == "active"


@pytest.mark.parametrize("path", ["/c/pay/cs_x", "/p/session/x", "/i/in_x_y", "/3ds/pi_x_secret_y"])
def test_a_link_that_was_never_made_shows_nothing(shop: Shop, path: str) -> None:
    status, _, page = visit(shop.standin.url + path)
    assert status == 404
    assert "owner@example.com" not in page


# ---- the portal


def test_the_portal_changes_cancels_and_keeps_a_plan(shop: Shop) -> None:
    sub = shop.subscribe()["id"]
    url = shop.portal()
    page = visit(url)[2]
    for part in ("Basic", "Pro&#8297;: $50.00", "4242", "https://kyora.test/billing", "Cancel"):
        assert part in page
    assert visit(f"{url}/switch", {"subscription": sub, "price": shop.pro})[0] == 303
    assert shop.subscription()["items"]["data"][0]["price"]["id"] == shop.pro
    visit(f"{url}/cancel", {"subscription": sub})
    planned = shop.subscription()
    assert planned["cancel_at"] == planned["items"]["data"][0]["current_period_end"]
    assert planned["cancel_at_period_end"] is False
    assert "Don't cancel" in visit(url)[2].replace("&#39;", "'")
    visit(f"{url}/keep", {"subscription": sub})
    assert shop.subscription()["cancel_at"] is None


def test_the_portal_takes_another_card(shop: Shop) -> None:
    shop.subscribe()
    url = shop.portal()
    assert visit(f"{url}/card", CARD | {"number": DECLINED})[0] == 402
    assert visit(f"{url}/card", CARD | {"number": "5555555555554444"})[0] == 303
    assert "4444" in visit(url)[2]


def test_the_portal_of_one_customer_does_not_touch_another_s(shop: Shop) -> None:
    sub = shop.subscribe()["id"]
    other = shop.post("/v1/customers", email="other@example.com")["id"]
    url = shop.post("/v1/billing_portal/sessions", customer=other)["url"]
    for action in ("cancel", "keep", "switch"):
        status, _, _ = visit(f"{url}/{action}", {"subscription": sub, "price": shop.pro})
        assert status == 404
    assert shop.subscription()["cancel_at"] is None


# ---- invoices


def test_an_open_invoice_is_paid_on_its_page(shop: Shop) -> None:
    sub = shop.subscribe("pm_card_chargeCustomerFail")
    invoice = shop.get(f"/v1/invoices/{sub['latest_invoice']}")
    url = invoice["hosted_invoice_url"]
    status, _, page = visit(url, CARD | {"number": DECLINED})
    assert (status, "Your card was declined." in page) == (402, True)
    assert visit(url, CARD) == (303, url, "")
    assert "Paid on" in visit(url)[2]
    assert shop.subscription()["status"] == "active"
    assert visit(invoice["invoice_pdf"])[2].startswith("%PDF-1.4")


def test_an_invoice_s_id_is_not_enough_to_see_it(shop: Shop) -> None:
    invoice = shop.subscribe()["latest_invoice"]
    assert visit(f"{shop.standin.url}/i/{invoice}_guessed")[0] == 404


# ---- what a browser sees


def test_what_customers_wrote_is_never_markup(shop: Shop) -> None:
    shop.post(f"/v1/customers/{shop.customer}", name=HOSTILE)
    shop.subscribe()
    for url in (shop.checkout()["url"], shop.portal()):
        page = visit(url)[2]
        assert HOSTILE not in page
        assert "&lt;script&gt;" in page


ARABIC = "مقهى النخيل والياسمين"


def arabic_pages(shop: Shop) -> list[str]:
    """The pages of a customer and a plan with Arabic names, and an add-on beside the plan."""
    product = shop.get(f"/v1/prices/{shop.basic}")["product"]
    shop.post(f"/v1/products/{product}", name=ARABIC, description=ARABIC)
    shop.post(f"/v1/customers/{shop.customer}", name=ARABIC)
    sub = shop.subscribe("pm_card_chargeCustomerFail")
    shop.post(f"/v1/subscriptions/{shop.subscribe()['id']}", items=[{"price": shop.pro}])
    invoice = shop.get(f"/v1/invoices/{sub['latest_invoice']}")
    urls = (shop.checkout()["url"], shop.portal(), invoice["hosted_invoice_url"])
    return [visit(url)[2].encode("latin-1").decode() for url in urls]


def test_a_name_in_arabic_turns_nothing_around_beside_it(shop: Shop) -> None:
    """Digits that follow a name would stand before it: each name is isolated."""
    for page in arabic_pages(shop):
        assert f"<bdi>{ARABIC}</bdi>" in page
        isolated = r'<bdi>[^<]*</bdi>|<title>[^<]*|value="[^"]*"|&#8296;[^&]*&#8297;'
        assert ARABIC not in re.sub(isolated, "", page)


def test_the_portal_names_everything_that_a_subscription_charges(shop: Shop) -> None:
    portal = arabic_pages(shop)[1]
    assert f"{ARABIC} + Pro" in portal
    assert "$70.00" in portal


@chromium.needed
def test_the_pages_fit_a_telephone(shop: Shop, tmp_path: Any) -> None:
    # As wide as the window, and no table reaches into its box's border.
    measure = (
        "for (const one of doc.querySelectorAll('td.num')) one.textContent = '12,345.99 AED';"
        "return doc.documentElement.scrollWidth + Math.max(0, ...[...doc.querySelectorAll('table')]"
        ".map((one) => one.scrollWidth - one.parentElement.clientWidth"
        " + 2 * parseInt(getComputedStyle(one.parentElement).paddingRight)));"
    )
    page = chromium.frames(arabic_pages(shop), 390, measure)
    assert report(chromium.address(page, tmp_path), 1400) == [390, 390, 390]


@chromium.needed
def test_the_dashboard_shows_what_happened(shop: Shop) -> None:
    shop.post(f"/v1/customers/{shop.customer}", name=HOSTILE)
    shop.subscribe()
    said = dom(f"{shop.standin.url}/")
    assert "<title>Dashboard" in said
    assert "customer.subscription.created" in said
    assert 'class="tag good">active' in said
    assert HOSTILE not in said


@chromium.needed
def test_the_dashboard_has_a_table_for_each_kind_of_object(shop: Shop) -> None:
    sub = shop.subscribe()
    coupon = shop.post("/v1/coupons", percent_off=12.5, name=HOSTILE)["id"]
    shop.post("/v1/promotion_codes", promotion={"type": "coupon", "coupon": coupon}, code="SPRING")
    shop.post("/v1/subscription_schedules", from_subscription=sub["id"])
    shop.post("/v1/invoiceitems", customer=shop.customer, amount=700, currency="usd")
    charge = shop.standin.engine.all("charge")[0]["id"]
    shop.post("/v1/refunds", charge=charge, amount=300)
    shop.post("/v1/credit_notes", invoice=sub["latest_invoice"], amount=100, credit_amount=100)
    shop.post("/v1/setup_intents", customer=shop.customer)
    shop.post("/v1/test_helpers/test_clocks", frozen_time=1_800_000_000, name="Later")
    said = dom(f"{shop.standin.url}/")
    titles = ("Schedules", "Invoices", "Invoice items", "Credit notes", "Refunds", "Coupons")
    for title in (*titles, "Promotion codes", "Setup intents", "Test clocks"):
        assert f"<h2>{title}</h2>" in said
    assert "12.5 %" in said
    assert "$3.00" in said
    assert HOSTILE not in said


@chromium.needed
def test_a_test_card_is_filled_in_by_a_click(shop: Shop, tmp_path: Any) -> None:
    page = visit(shop.checkout()["url"])[2].encode("latin-1").decode()
    click = (
        "<script>document.querySelector('[data-number=\"4000000000009995\"]').click();"
        "document.body.dataset.number=document.forms[0].elements.number.value</script></body>"
    )
    file = chromium.address(page.replace("</body>", click), tmp_path)
    assert 'data-number="4000000000009995"' in dom(file).partition(">\n<div")[0]


def test_the_card_that_is_declined_later_is_offered_only_where_it_is_saved(shop: Shop) -> None:
    assert 'data-number="4000000000000341"' not in visit(shop.checkout()["url"])[2]
    assert 'data-number="4000000000000341"' in visit(shop.portal())[2]


@chromium.needed
def test_the_dashboard_s_buttons_act(shop: Shop) -> None:
    async def look(page: Page) -> None:
        await page.go(f"{shop.standin.url}/")
        await page.until("document.querySelector('[data-advance]')")
        await page.ask("document.querySelector('[data-advance]').click()")
        for _ in range(1200):
            if shop.standin.offset:
                break
            await asyncio.sleep(0.05)
        assert shop.standin.offset
        assert page.console == []

    look_at(look)


@chromium.needed
@pytest.mark.parametrize(("width", "height"), [(1280, 900), (420, 900)])
def test_pictures_of_the_pages_are_kept(shop: Shop, width: int, height: int) -> None:
    checkout = shop.checkout()["url"]
    sub = shop.subscribe("pm_card_chargeCustomerFail")
    invoice = shop.get(f"/v1/invoices/{sub['latest_invoice']}")["hosted_invoice_url"]
    for name, url in (
        ("checkout", checkout),
        ("portal", shop.portal()),
        ("invoice", invoice),
        ("dashboard", f"{shop.standin.url}/"),
    ):
        for dark in (False, True):
            label = f"stripe-{name}{'-dark' if dark else ''}-{width}"
            file = picture(url, label, width, height, dark=dark)
            assert chromium.is_picture(file, width)
