"""What a person does on Stripe's pages, and what the workspace then has."""

import urllib.error
import urllib.request
from collections.abc import Callable
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from tests.e2e.commands import control, query, quiet
from tests.e2e.conftest import Stack, request, wait

GOOD, DECLINED, FAILS_LATER = "4242424242424242", "4000000000000002", "4000000000000341"


class _Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


def send(url: str, **fields: str) -> tuple[int, str, str]:
    """Send a page's form as a browser does; return status, where it leads and what it shows."""
    opener = urllib.request.build_opener(_Stay)
    try:
        with opener.open(url, urlencode(fields).encode(), timeout=120) as answer:
            return answer.status, "", answer.read().decode()
    except urllib.error.HTTPError as found:
        with found:
            return found.code, found.headers.get("Location", ""), found.read().decode()


def card(number: str) -> dict[str, str]:
    return {"number": number, "expiry": "12/34", "cvc": "123"}


def subscription(stack: Stack) -> dict[str, Any]:
    answer = stack.call("GET", "/v1/billing/subscription")
    assert answer.status == 200, answer
    found: dict[str, Any] = answer.json
    return found


def until(stack: Stack, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    # Eight at once: the emulator starts as many environments, and the first deliveries time out.
    wait(lambda: holds(subscription(stack)), 120)
    found = subscription(stack)
    assert holds(found), found
    return found


def page(stack: Stack, kind: str, **body: str) -> str:
    answer = stack.call("POST", f"/v1/billing/{kind}", body)
    assert answer.status == 200, answer
    return str(answer.json["url"])


def portal(stack: Stack) -> str:
    return page(stack, "portal-session", returnUrl=f"{stack.env['KYORA_URL']}/")


def renew(stack: Stack) -> None:
    """Move Stripe's clock to where it has charged for the next period, an hour after its begin.

    Months differ: four weeks in February, and four days later Stripe would have tried again.
    """
    ends = datetime.fromisoformat(subscription(stack)["currentPeriodEnd"])
    now = request("GET", f"{stack.env['STRIPE_URL']}/_control/state").json["now"]
    control(stack, "advance", seconds=round(ends.timestamp()) - now + 2 * 3600)


def mails(stack: Stack) -> list[str]:
    rows = query(stack, "SELECT subject FROM mock_mailbox ORDER BY created_at")
    return [row[0] for row in rows]


_RECEIVED = "SELECT count(*) FROM stripe_event WHERE status = 'received'"
# The deleted customers stay: their number is part of the next one's idempotency key.
_MIRROR = ("stripe_event", "subscription_terms", "subscription", "invoice", "payment_method",
           "billing_operation", "workspace_billing")  # fmt: skip
_LEFT = (
    "SELECT count(*) FROM billing_customer WHERE workspace_id = 'ws_demo' AND deleted_at IS NULL"
)


def start_over(stack: Stack) -> None:
    """Make the demo workspace one that never paid, whatever other tests did with it."""
    control(stack, "pump", duplicate=0, shuffle=False)
    key = {"Authorization": f"Bearer {stack.env['BILLING_STRIPE_API_KEY']}"}
    customers = f"{stack.env['STRIPE_URL']}/v1/customers"
    for one in request("GET", f"{customers}?limit=100", None, key).json["data"]:
        assert request("DELETE", f"{customers}/{one['id']}", None, key).status == 200
    wait(lambda: subscription(stack)["access"] == "free", 120)
    state = f"{stack.env['STRIPE_URL']}/_control/state"
    wait(lambda: not request("GET", state).json["due"], 120)
    # A sample webhook's customer is one that Stripe never had, and never deletes.
    query(stack, "UPDATE billing_customer SET deleted_at = now() WHERE id LIKE 'cus_TSample%'")
    wait(lambda: query(stack, _LEFT) == [[0]], 120, "every customer is deleted here as well")
    wait(lambda: query(stack, _RECEIVED) == [[0]], 120, "every event of Stripe's is processed")
    quiet(stack)
    for table in _MIRROR:
        query(stack, f"DELETE FROM {table}")
    query(stack, "DELETE FROM mock_mailbox")
    # A plan limits how many businesses there are.
    for table, column in (
        ("order_payment", "business_id"),
        ("payment_method_fee", "business_id"),
        ("business", "id"),
    ):
        demo = stack.env["KYORA_BUSINESS_ID"]
        query(stack, f"DELETE FROM {table} WHERE {column} <> :demo", demo=demo)
    assert subscription(stack)["status"] == "free"
