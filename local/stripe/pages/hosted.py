"""Pages that a person can click through: checkout, 3D Secure, portal, invoice, dashboard.

Server-rendered, without external resources. A link's random part is its only key, as at Stripe.
Card numbers are recognised and not stored.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from local.stripe.core.errors import Refusal, missing
from local.stripe.core.state import State
from local.stripe.core.views import Object
from local.stripe.objects import cards, checkout, collection, invoices, portal, setup_intents
from local.stripe.pages.pdf import document
from local.stripe.standin import STANDIN, StandIn

_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
        "connect-src 'self'; img-src data:; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
_FORM = web.RequestKey("form", dict)  # what a POST holds; empty otherwise
_PAGES = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def _day(at: int) -> str:
    moment = datetime.fromtimestamp(at, UTC)
    return f"{moment.day} {moment:%B %Y}"


def _short_day(at: int) -> str:
    moment = datetime.fromtimestamp(at, UTC)
    return f"{moment.day} {moment:%b %Y}"


_PAGES.filters["day"] = _day
_PAGES.filters["short_day"] = _short_day
_PAGES.filters["host"] = lambda address: urlsplit(address).netloc

type Page = Callable[[StandIn, web.Request], Any]


def mount(app: web.Application) -> None:
    """Serve the hosted pages on this application."""
    for path, page in (
        ("/", _dashboard),
        ("/p/of/{customer}", _open_portal),
        ("/i/{page}/pdf", _pdf),
    ):
        app.router.add_get(path, _guarded(page))
    for path, page in (
        ("/c/pay/{session}", _checkout),
        ("/c/3ds/{session}", _checkout_challenge),
        ("/3ds/{secret}", _challenge),
        ("/p/session/{secret}", _portal),
        ("/i/{page}", _invoice),
    ):
        app.router.add_get(path, _guarded(page))
        app.router.add_post(path, _guarded(page))
    app.router.add_post("/p/session/{secret}/{action}", _guarded(_portal))


def _guarded(page: Page) -> Callable[[web.Request], Any]:
    """Answer a refusal with a page that explains it."""

    async def handle(request: web.Request) -> web.StreamResponse:
        found = request.app[STANDIN]
        request[_FORM] = dict(await request.post()) if request.method == "POST" else {}
        found.tick()
        try:
            answer: web.StreamResponse = page(found, request)
        except Refusal as refusal:
            answer = _say(refusal.status, "This page is not available", str(refusal))
        found.pump.take(found.engine)
        return answer

    return handle


def _show(page: str, /, *, status: int = 200, **values: Any) -> web.Response:
    values = {"cards": cards.CARDS, "message": "", **values}
    text = _PAGES.get_template(f"{page}.html.j2").render(values)
    return web.Response(text=text, status=status, content_type="text/html", headers=_HEADERS)


def _say(status: int, heading: str, words: str, link: str = "", link_words: str = "") -> Any:
    return _show(
        "message", status=status, heading=heading, words=words, link=link, link_words=link_words
    )


def _go(address: str) -> web.Response:
    return web.Response(status=303, headers={**_HEADERS, "Location": address})


def _card(form: Object) -> Object:
    """Read a card form; `12 / 34` and `12/2034` are both an expiry."""
    month, _, year = str(form.get("expiry", "")).replace(" ", "").partition("/")
    if not (month.isdecimal() and year.isdecimal()):
        raise cards.declined(
            "invalid_expiry_month", None, "Your card's expiration date is incomplete."
        )
    return {
        "number": str(form.get("number", "")),
        "exp_month": month,
        "exp_year": year,
    }


def _every(price: Object) -> str:
    recurring = price["recurring"]
    count, interval = recurring["interval_count"], recurring["interval"]
    return f"per {interval}" if count == 1 else f"every {count} {interval}s"


# ---- checkout


def _checkout(found: StandIn, request: web.Request) -> web.Response:
    engine, name, form = found.engine, request.match_info["session"], request[_FORM]
    session = engine.find("checkout.session", name)
    if session["status"] == "complete":
        return _go(checkout.success(session))
    if session["status"] == "expired":
        raise Refusal(410, "This checkout has expired.")
    message, status = "", 200
    if request.method == "POST":
        try:
            return _go(checkout.pay_session(engine, name, _card(form), form))
        except Refusal as refusal:
            message, status = str(refusal), refusal.status
    return _show(
        "checkout",
        status=status,
        message=message,
        session=session,
        **_offer(engine, session),
        email=form.get("email") or _known(engine, session, "email") or session["customer_email"],
        name=form.get("name") or _known(engine, session, "name"),
    )


def _known(state: State, session: Object, field: str) -> Any:
    return state.get(session["customer"])[field] if session["customer"] else None


def _offer(state: State, session: Object) -> Object:
    """Return a session's lines and totals as text."""
    lines, first = [], state.get(session["line_items"]["data"][0]["price"])
    for line in session["line_items"]["data"]:
        product = state.get(state.get(line["price"])["product"])
        amount = invoices.money(line["amount_total"], line["currency"])
        lines.append(
            {
                "name": product["name"],
                "description": product["description"],
                "quantity": line["quantity"],
                "amount": amount,
            }
        )
    off = session["total_details"]["amount_discount"]
    total = sum(line["amount_total"] for line in session["line_items"]["data"])
    days = int(session["_data"].get("trial_period_days") or 0)
    return {
        "lines": lines,
        "total": invoices.money(total, session["currency"]),
        "every": _every(first),
        "trial_days": days,
        "trial_end": state.now + days * 86400,
        "off": invoices.money(-off, session["currency"]) if off else "",
        "due": invoices.money(0 if days else total - off, session["currency"]),
    }


def _checkout_challenge(found: StandIn, request: web.Request) -> web.Response:
    engine, name = found.engine, request.match_info["session"]
    session = checkout.open_session(engine, name)
    method = engine.objects.get(session["_challenge"] or "")
    if method is None:
        return _go(session["url"])
    if request.method == "POST":
        passed = request[_FORM].get("answer") == "complete"
        try:
            return _go(checkout.pass_challenge(engine, name, passed=passed))
        except Refusal as refusal:
            offer = _offer(engine, session)
            person = method["billing_details"]
            return _show(
                "checkout",
                status=refusal.status,
                message=str(refusal),
                session=session,
                **offer,
                email=person["email"],
                name=person["name"],
            )
    amount = _offer(engine, session)["due"]
    return _show("challenge", amount=amount, last4=method["card"]["last4"])


def _challenge(found: StandIn, request: web.Request) -> web.Response:
    engine, secret = found.engine, request.match_info["secret"]
    name = secret.partition("_secret_")[0]
    kind = "setup_intent" if name.startswith("seti_") else "payment_intent"
    intent = engine.find(kind, name)
    if intent["client_secret"] != secret:
        raise missing(kind, "…")
    if kind == "setup_intent":
        return _setup_challenge(found, request, intent)
    invoice = engine.get(intent["_invoice"])
    after = intent.get("_return_url") or invoice["hosted_invoice_url"]
    if intent["status"] != "requires_action":
        return _go(after)
    if request.method == "POST":
        passed = request[_FORM].get("answer") == "complete"
        collection.authenticate(engine, intent, passed=passed)
        return _go(after)
    method = engine.get(intent["payment_method"])
    amount = invoices.money(intent["amount"], intent["currency"])
    return _show("challenge", amount=amount, last4=method["card"]["last4"])


def _setup_challenge(found: StandIn, request: web.Request, intent: Object) -> web.Response:
    """Ask the cardholder to approve that a card is saved; nothing is paid."""
    engine, after = found.engine, intent["_return_url"] or found.engine.url
    if intent["status"] != "requires_action":
        return _go(after)
    if request.method == "POST":
        passed = request[_FORM].get("answer") == "complete"
        setup_intents.authenticate(engine, intent, passed=passed)
        return _go(after)
    method = engine.get(intent["payment_method"])
    return _show("challenge", amount=invoices.money(0, "usd"), last4=method["card"]["last4"])


# ---- the portal


def _open_portal(found: StandIn, request: web.Request) -> web.Response:
    wanted = {"customer": request.match_info["customer"], "return_url": f"{found.engine.url}/"}
    return _go(portal.create_session(found.engine, wanted)["url"])


def _portal(found: StandIn, request: web.Request) -> web.Response:
    engine, form = found.engine, request[_FORM]
    session = portal.find(engine, request.match_info["secret"])
    message, status = "", 200
    if request.method == "POST":
        try:
            _act(engine, session, request.match_info.get("action", ""), form)
            return _go(_after(session))
        except Refusal as refusal:
            message, status = str(refusal), refusal.status
    customer, flow = engine.get(session["customer"]), session["flow"] or {}
    chosen = customer["invoice_settings"]["default_payment_method"]
    own = [sub for sub in engine.all("subscription") if sub["customer"] == customer["id"]]
    living = [sub for sub in own if sub["ended_at"] is None]
    default = engine.objects.get(
        next((s["default_payment_method"] for s in living if s["default_payment_method"]), chosen)
        or ""
    )
    return _show(
        "portal",
        status=status,
        message=message,
        session=session,
        customer=customer,
        flow=flow.get("type", ""),
        only=(flow.get(str(flow.get("type"))) or {}).get("subscription", ""),
        path=f"/p/session/{session['_secret']}",
        subscriptions=[_plan(engine, session, sub) for sub in living],
        card=default["card"] if default else None,
        invoices=[
            {
                "created": invoice["created"],
                "number": invoice["number"],
                "url": invoice["hosted_invoice_url"] or "#",
                "status": invoice["status"],
                "total": invoices.money(invoice["total"], invoice["currency"]),
            }
            for invoice in engine.all("invoice")
            if invoice["customer"] == customer["id"]
        ],
    )


def _after(session: Object) -> str:
    """Return the address after an action: a flow may lead straight back."""
    after = (session["flow"] or {}).get("after_completion") or {}
    redirect = after.get("redirect") or {}
    return str(redirect.get("return_url") or session["url"])


def _act(state: State, session: Object, action: str, form: Object) -> None:
    name = str(form.get("subscription", ""))
    if action == "cancel":
        portal.cancel(state, session, name)
    elif action == "keep":
        portal.keep(state, session, name)
    elif action == "switch":
        portal.switch(state, session, name, str(form.get("price", "")))
    elif action == "card":
        portal.use_card(state, session, _card(form))
    else:
        raise Refusal(404, "There is no such action.")


def _plan(state: State, session: Object, sub: Object) -> Object:
    """Return a subscription as the portal shows it, with the plans it can change to."""
    items = sub["items"]["data"]
    price = state.get(items[0]["price"])
    products = (state.get(state.get(item["price"])["product"]) for item in items)
    total = sum(invoices.price_line(state, item, (0, 0))["amount"] for item in items)
    return {
        "id": sub["id"],
        "name": " + ".join(product["name"] for product in products),
        "status": sub["status"],
        "amount": invoices.money(total, price["currency"]),
        "every": _every(price),
        "end": max(each["current_period_end"] for each in sub["items"]["data"]),
        "cancel_at": sub["cancel_at"],
        "planned": _planned(state, sub),
        "resumes": (sub.get("_planned") or {}).get("resume_at"),
        "can_cancel": portal.allows(state, session, "subscription_cancel"),
        "choices": [
            {
                "id": choice["id"],
                "name": state.get(choice["product"])["name"],
                "amount": invoices.money(choice["unit_amount"] or 0, choice["currency"]),
                "every": _every(choice),
            }
            for choice in portal.choices(state, session, price)
        ],
    }


def _planned(state: State, sub: Object) -> str:
    """Return the name of the plan that a subscription's schedule changes it to."""
    schedule = state.objects.get(sub["schedule"] or "")
    if not schedule or not schedule["current_phase"]:
        return ""
    over = schedule["current_phase"]["end_date"]
    for phase in schedule["phases"]:
        if phase["start_date"] >= over:
            price = state.get(phase["items"][0]["price"])
            return str(state.get(price["product"])["name"])
    return ""


# ---- invoices


def _of_page(state: State, page: str) -> Object:
    invoice = state.find("invoice", page.rpartition("_")[0])
    if not str(invoice["hosted_invoice_url"]).endswith(f"/i/{page}"):
        raise missing("invoice", "…")
    return invoice


def _invoice(found: StandIn, request: web.Request) -> web.Response:
    engine, page = found.engine, request.match_info["page"]
    invoice = _of_page(engine, page)
    message, status = "", 200
    if request.method == "POST":
        try:
            challenge = checkout.pay_hosted(engine, invoice["id"], _card(request[_FORM]))
            return _go(challenge or invoice["hosted_invoice_url"])
        except Refusal as refusal:
            message, status = str(refusal), refusal.status
    currency = invoice["currency"]
    used = invoice["amount_due"] - invoice["total"]
    return _show(
        "invoice",
        status=status,
        message=message,
        invoice=invoice,
        due=invoices.money(invoice["amount_due"], currency),
        balance=invoices.money(used, currency) if used else "",
        lines=[
            {
                "description": line["description"],
                "start": line["period"]["start"],
                "end": line["period"]["end"],
                "amount": invoices.money(line["amount"], currency),
            }
            for line in invoice["lines"]["data"]
        ],
    )


def _pdf(found: StandIn, request: web.Request) -> web.Response:
    invoice = _of_page(found.engine, request.match_info["page"])
    currency = invoice["currency"]
    lines = [
        f"Invoice {invoice['number']}",
        f"{invoice['customer_name'] or invoice['customer_email'] or ''}",
        _day(invoice["created"]),
        "",
        *(
            f"{line['description']}: {invoices.money(line['amount'], currency)}"
            for line in invoice["lines"]["data"]
        ),
        "",
        f"Amount due: {invoices.money(invoice['amount_due'], currency)} ({invoice['status']})",
        "From the Stripe stand-in of this machine. Nothing was charged.",
    ]
    return web.Response(
        body=document(lines),
        content_type="application/pdf",
        headers={**_HEADERS, "Content-Disposition": f'inline; filename="{invoice["number"]}.pdf"'},
    )


def _dashboard(found: StandIn, request: web.Request) -> web.Response:
    return _show("dashboard", shared=found.options.shared_clock, token=found.options.token)
