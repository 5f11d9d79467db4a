"""Every mail in a real browser; the pictures are kept under .local/screenshots."""

import functools
import itertools
from pathlib import Path

import pytest

from kyora.email.mails.catalogue import MAILS
from local.tools import emails
from local.web.mailbox import forced
from tests.browser import chromium
from tests.browser.page import picture, report

every_mail = functools.cache(emails.mails)  # a second, for each test
pytestmark = [chromium.needed, pytest.mark.timeout(300)]

# What is measured in each mail, once it is laid out.
_MEASURE = """
const root = doc.documentElement;
const [box, card] = ["a.button", ".card"].map((s) => doc.querySelector(s).getBoundingClientRect());
const inside = [...doc.querySelectorAll("p, h1, td, th, a, bdi")].filter((node) => {
  const edge = node.getBoundingClientRect();
  return node.closest(".preheader") === null && (edge.left < -0.5 || edge.right > width + 0.5);
});
const heading = getComputedStyle(doc.querySelector("h1"));
return {
  scrolls: root.scrollWidth > width, outside: inside.map((node) => node.textContent.slice(0, 40)),
  dir: getComputedStyle(doc.querySelector("[role=article]")).direction,
  heading: [heading.direction, heading.textAlign],
  button: [box.width, box.height], side: [box.left - card.left, card.right - box.right],
  ground: getComputedStyle(doc.body).backgroundColor, color: heading.color,
  preheader: doc.querySelector(".preheader").getBoundingClientRect().height,
};
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [375, 600])
def test_every_mail_fits_its_window(tmp_path: Path, width: int, scheme: str) -> None:
    mails = every_mail()
    pages = [forced(mail["html"], scheme) for mail in mails]
    found = report(chromium.address(chromium.frames(pages, width, _MEASURE), tmp_path), 1400)
    assert len(found) == len(mails) == 8 * len(MAILS)
    for mail, seen in zip(mails, found, strict=True):
        which = (mail["template"], mail["locale"], mail["sample"])
        direction, start = ("ltr", "left") if mail["locale"] == "en" else ("rtl", "right")
        assert not seen["scrolls"], which
        assert seen["outside"] == [], which
        assert seen["dir"] == direction, which
        assert seen["heading"] == [direction, start], which
        assert seen["preheader"] == 0, which
        assert seen["button"][1] >= 44, which
        left, right = seen["side"]
        if width == 375:
            assert abs(left - right) < 2, which  # a thumb reaches all of it
        else:
            assert (left < right) == (direction == "ltr"), which
        bright = {"light": "rgb(242, 245, 243)", "dark": "rgb(14, 19, 17)"}
        assert seen["ground"] == bright[scheme], which


@pytest.mark.parametrize(
    ("width", "locale", "scheme", "sample"),
    [
        *itertools.product([375, 600], ["en", "ar"], ["light", "dark"], ["typical"]),
        *itertools.product([375], ["en", "ar"], ["light"], ["long", "hostile"]),
    ],
)
def test_pictures_of_every_mail_are_kept(
    tmp_path: Path, width: int, locale: str, scheme: str, sample: str
) -> None:
    pages = [
        forced(mail["html"], scheme)
        for mail in every_mail()
        if (mail["locale"], mail["sample"]) == (locale, sample)
    ]
    assert len(pages) == len(MAILS)
    across = 12 + (width + 12) * len(pages)
    page = chromium.address(chromium.frames(pages, width), tmp_path)
    file = picture(page, f"emails-{locale}-{scheme}-{width}-{sample}", across, 1400)
    assert chromium.is_picture(file, across)


@pytest.mark.parametrize("dark", [True, False])
def test_a_dark_client_shows_dark_mails(tmp_path: Path, dark: bool) -> None:
    pages = [mail["html"] for mail in every_mail() if mail["sample"] == "typical"]
    page = chromium.address(chromium.frames(pages, 600, _MEASURE), tmp_path)
    grounds = {seen["ground"] for seen in report(page, dark=dark)}
    assert grounds == {"rgb(14, 19, 17)" if dark else "rgb(242, 245, 243)"}


def test_the_gallery_shows_every_mail(tmp_path: Path) -> None:
    page = emails.write(tmp_path)
    counting = """<output id="report" hidden></output><script>
    addEventListener("load", () => setTimeout(() => {
      const frames = [...document.querySelectorAll("iframe")];
      document.getElementById("report").textContent = JSON.stringify({
        sections: document.querySelectorAll("section").length, frames: frames.length,
        tall: frames.every((frame) => frame.clientHeight > 500),
        subjects: [...document.querySelectorAll("figure b")].map((node) => node.textContent),
      });
    }, 1500));</script>"""
    page.write_text(page.read_text().replace("</body>", counting + "</body>"))
    found = report(page.as_uri(), 1600)
    # Two samples in both languages, both schemes, at both widths.
    assert (found["sections"], found["tall"]) == (len(MAILS), True)
    assert found["frames"] == 8 * len(MAILS)
    assert "Verify your email" in found["subjects"]
    assert "مرحبًا بك في Kyora" in found["subjects"]
    file = picture(page.as_uri(), "gallery", 2600, 1800)
    assert chromium.is_picture(file, 2600)
