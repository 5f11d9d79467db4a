"""What SpamAssassin, without network, says of every mail: no rule may count against one.

It is a Debian package; without it the test is skipped.
"""

import re
import shutil
import subprocess
from collections.abc import Mapping
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP

import pytest

from kyora.email.mails.catalogue import LOCALES, MAILS
from kyora.email.render import render
from local.tools.email_samples import MESSAGE_ID, SETTINGS, sample

pytestmark = pytest.mark.skipif(
    shutil.which("spamassassin") is None, reason="needs SpamAssassin: apt-get install spamassassin"
)
KINDS = ("minimal", "typical", "long")
_MARK = "X-Kyora-Case"


def message(
    template: str,
    locale: str,
    kind: str,
    *,
    html: str = "",
    data: Mapping[str, object] | None = None,
) -> EmailMessage:
    """Return a mail as Resend hands it over: multipart/alternative under a few headers."""
    data = data or sample(template, locale, kind)
    made = render(template, locale, data, message_id=MESSAGE_ID, settings=SETTINGS)
    found = EmailMessage(policy=SMTP)
    found[_MARK] = f"{template}-{locale}-{kind}"
    found["From"] = Address("Kyora", "hello", "kyora.example")
    found["To"] = "dana.haddad@mail.example"
    found["Reply-To"] = SETTINGS.support_email
    found["Subject"] = made.subject
    found["Date"] = "Thu, 26 Nov 2026 08:30:00 +0000"
    found["Message-ID"] = f"<{MESSAGE_ID}-{template}-{locale}-{kind}@kyora.example>"
    found.set_content(made.text)
    found.add_alternative(html or made.html, subtype="html")
    return found


def judged(mails: list[EmailMessage]) -> dict[str, tuple[float, str]]:
    """Return the score of each mail and the rules that made it, in one run of SpamAssassin."""
    box = b"".join(
        b"From hello@kyora.example Thu Nov 26 08:30:00 2026\n"
        + mail.as_bytes().replace(b"\r\n", b"\n")
        + b"\n\n"
        for mail in mails
    )
    done = subprocess.run(
        ["spamassassin", "--local", "--mbox"], input=box, capture_output=True, check=True
    )
    found = {}
    for text in re.split(r"(?m)^From hello@kyora\.example ", done.stdout.decode())[1:]:
        head = re.sub(r"\n[ \t]+", " ", text.partition("\n\n")[0])
        case = re.search(rf"{_MARK}: (\S+)", head)
        score = re.search(r"X-Spam-Status: \w+, score=(-?[\d.]+) .*?tests=(.*?) ?autolearn", head)
        assert case, head
        assert score, head
        found[case[1]] = float(score[1]), score[2]
    return found


def test_no_mail_looks_like_spam() -> None:
    cases = [(t, locale, kind) for t in MAILS for locale in LOCALES for kind in KINDS]
    found = judged([message(*case) for case in cases])
    assert set(found) == {"-".join(case) for case in cases}
    assert {case: why for case, why in found.items() if why[0] > 0} == {}


def test_an_arabic_subject_with_a_name_in_capitals_does_not_shout() -> None:
    """SpamAssassin looks at Latin letters only: ours has small ones, whatever the name has."""
    loud = []
    for template in MAILS:
        data = sample(template, "ar", "typical")
        names = {name: "DHL PRO" for name in data if name.endswith("Name") and name != "name"}
        if names:
            loud.append(message(template, "ar", "typical", data=data | names))
    assert {case: why for case, why in judged(loud).items() if why[0] > 0} == {}


def test_a_hidden_line_in_the_colour_of_its_ground_would_count() -> None:
    """The judge is awake: this is how the preheader used to be hidden."""
    made = render("welcome", "en", sample("welcome", "en", "typical"), settings=SETTINGS)
    hidden = re.sub(r"(line-height:1px;color:)#\w+", r"\1#f2f5f3", made.html)
    assert hidden != made.html
    [(score, rules)] = judged([message("welcome", "en", "typical", html=hidden)]).values()
    assert score > 0, rules
