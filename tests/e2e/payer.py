"""What a person does on Stripe's pages, and what the workspace then has."""

import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

from tests.e2e.commands import query
from tests.e2e.conftest import Stack, wait

GOOD, DECLINED, FAILS_LATER = "4242424242424242", "4000000000000002", "4000000000000341"


class _Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


def send(url: str, **fields: str) -> tuple[int, str, str]:
    """Send a page's form as a browser does; return status, where it leads and what it shows."""
    opener = urllib.request.build_opener(_Stay)
    try:
        with opener.open(url, urlencode(fields).encode(), timeout=30) as answer:
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


def mails(stack: Stack) -> list[str]:
    rows = query(stack, "SELECT subject FROM mock_mailbox ORDER BY created_at")
    return [row[0] for row in rows]
