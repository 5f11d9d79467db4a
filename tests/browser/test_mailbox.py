"""The mailbox of the local console: what the mock provider kept, seen by HTTP and in a browser."""

import asyncio
import re

import aiohttp
import pytest

from kyora.email.message import Message
from kyora.email.mock import Mock
from kyora.email.render import render
from local.tools.email_samples import MESSAGE_ID, SETTINGS, sample
from tests.browser import chromium
from tests.browser.conftest import Served
from tests.browser.page import Page, dom, picture, visit

HOSTILE = (
    "<!doctype html><html><head></head><body><script>parent.document.title='owned'</script>"
    "<img src=x onerror=\"top.location='https://evil.example'\"><form action='/v1'></form>"
    "<meta http-equiv=refresh content='0;url=https://evil.example'>words</body></html>"
)


def deliver(template: str, locale: str, key: str, *, html: str = "") -> str:
    """Have the mock provider keep a mail, and return the id it has there."""
    made = render(
        template, locale, sample(template, locale, "typical"), message_id=key, settings=SETTINGS
    )
    message = Message(
        recipient=f"{locale}@example.com",
        sender="Kyora <hello@kyora.test>",
        subject=made.subject,
        html=html or made.html,
        text=made.text,
        reply_to="support@kyora.test",
        tags={"template": template, "locale": locale, "message_id": key},
    )
    return Mock().send(message, key).id


def get(url: str, **headers: str) -> tuple[int, dict[str, str], str]:
    async def ask() -> tuple[int, dict[str, str], str]:
        async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as answer:
            named = {name.lower(): value for name, value in answer.headers.items()}
            return answer.status, named, await answer.text()

    return asyncio.run(ask())


def test_the_list_is_new_when_a_mail_arrives(served: Served) -> None:
    status, headers, body = get(f"{served.url}/_local/mails")
    assert (status, body) == (200, "[]")
    again = get(f"{served.url}/_local/mails", **{"If-None-Match": headers["etag"]})
    assert (again[0], again[2]) == (304, "")
    mail = deliver("welcome", "ar", MESSAGE_ID)
    status, headers, body = get(f"{served.url}/_local/mails", **{"If-None-Match": headers["etag"]})
    assert status == 200
    assert mail in body
    assert '"template": "welcome"' in body


def test_one_mail_has_its_text_and_headers(served: Served) -> None:
    mail = deliver("forgot_password", "en", MESSAGE_ID)
    status, _, body = get(f"{served.url}/_local/mails/{mail}")
    assert status == 200
    for part in ("Reset your password", "en@example.com", "Reply-To", MESSAGE_ID, "reset-password"):
        assert part in body


def test_a_mail_is_shown_without_scripts_and_without_our_origin(served: Served) -> None:
    mail = deliver("welcome", "en", MESSAGE_ID, html=HOSTILE)
    status, headers, body = get(f"{served.url}/_local/mails/{mail}/html")
    assert status == 200
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert re.search(r"(^|; )sandbox allow-popups allow-popups-to-escape-sandbox(;|$)", policy)
    assert "allow-scripts" not in policy
    assert "allow-same-origin" not in policy
    assert headers["referrer-policy"] == "no-referrer"
    assert '<base target="_blank">' in body


@pytest.mark.parametrize("path", ["mail_unknown", "mail_unknown/html", "%27;drop", "..%2f/html"])
def test_an_unknown_mail_is_not_found(served: Served, path: str) -> None:
    assert get(f"{served.url}/_local/mails/{path}")[0] == 404


def test_the_console_leads_to_the_mailbox(served: Served) -> None:
    assert '"/mailbox"' in get(f"{served.url}/_console/static/app.js")[2]
    assert get(f"{served.url}/mailbox")[0] == 200


@chromium.needed
def test_a_mail_appears_while_the_page_is_open(served: Served) -> None:
    deliver("welcome", "en", "eml_first")

    async def look(page: Page) -> None:
        await page.go(f"{served.url}/mailbox")
        await page.until("document.title.startsWith('(1) Mailbox')")
        deliver("welcome", "ar", "eml_second")
        await page.until("document.title.startsWith('(2) Mailbox')")
        assert await page.ask("document.querySelectorAll('.unread').length") == 2
        said = await page.ask("document.body.innerText")
        assert said.index("مرحبًا بك في Kyora") < said.index("Welcome to Kyora")  # newest first

    visit(look)


@chromium.needed
def test_an_attacking_mail_changes_nothing_around_it(served: Served) -> None:
    mail = deliver("welcome", "en", "eml_bad", html=HOSTILE)
    said = dom(f"{served.url}/mailbox#{mail}")
    assert "owned" not in said
    assert re.search(r'<iframe sandbox="allow-popups allow-popups-to-escape-sandbox"', said)
    assert "<title>Mailbox" in said


@chromium.needed
@pytest.mark.parametrize(("width", "height"), [(1280, 860), (560, 900)])
def test_pictures_of_the_mailbox_are_kept(served: Served, width: int, height: int) -> None:
    mail = ""
    for template in ("welcome", "email_verification", "payment_failed", "workspace_invitation"):
        for locale in ("en", "ar"):
            mail = deliver(template, locale, f"eml_{template}_{locale}")
    for name, place, dark in (
        ("", f"#{mail}", False),
        ("-dark", f"#{mail}", True),
        ("-list", "", False),
    ):
        file = picture(
            f"{served.url}/mailbox{place}", f"mailbox{name}-{width}", width, height, dark=dark
        )
        assert chromium.is_picture(file, width)
