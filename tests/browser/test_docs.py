"""The page at /docs in a real browser: it draws the whole document and fits its window."""

import html
import json
from pathlib import Path

import pytest

from local.tools.openapi import document as openapi
from tests.browser import chromium
from tests.browser.page import picture, report

pytestmark = chromium.needed

DOCUMENT = json.loads(openapi.DOCUMENT.read_text())
PAGE = (openapi.DOCUMENT.parent / "docs.html").read_text()

# The page as it is, but for where it reads the document; once drawn, it opens everything and
# reports what a reader gets.
_BEFORE = """<script>
const problems = [];
addEventListener("error", (event) => problems.push(event.message));
addEventListener("unhandledrejection", (event) => problems.push(String(event.reason)));
fetch = async () => ({ json: async () => (DOCUMENT) });
</script>"""
_AFTER = """<script>
addEventListener("load", () => setTimeout(() => {
  for (const one of document.querySelectorAll("details")) one.open = true;
  const texts = (selector) => [...document.querySelectorAll(selector)].map((n) => n.textContent);
  const wide = [...document.querySelectorAll("main *")].filter((node) => {
    const edge = node.getBoundingClientRect();
    return edge.right > innerWidth + 0.5 && edge.width > 0;
  });
  parent.document.getElementById("report").textContent = JSON.stringify({
    problems, width: innerWidth, scrolls: document.documentElement.scrollWidth > innerWidth,
    wide: wide.map((node) => node.textContent.slice(0, 40)),
    operations: [...document.querySelectorAll("article")].map((node) => node.id),
    statuses: Object.fromEntries([...document.querySelectorAll("article")].map((node) =>
      [node.id, [...node.querySelectorAll("summary .status")].map((s) => s.textContent)])),
    requests: texts(".shown .panel:first-child pre"), codes: texts("#codes + .box code"),
    schemas: texts(".schema h3"), odd: texts("main").join(" ").match(/undefined|\\[object/g) || [],
    dead: [...document.querySelectorAll('a[href^="#"]')].map((a) => a.hash.slice(1))
      .filter((id) => !document.getElementById(id)),
  });
}, 500));
</script>"""


def _address(folder: Path, width: int) -> str:
    """Return a page with the page in a frame: no window of Chromium's is as narrow as a phone."""
    before = _BEFORE.replace("DOCUMENT", json.dumps(DOCUMENT).replace("</", "<\\/"))
    page = PAGE.replace("<body>", "<body>" + before).replace("</body>", _AFTER + "</body>")
    frame = f'<iframe width="{width}" height="1400" srcdoc="{html.escape(page)}"></iframe>'
    output = '<output id="report" hidden></output>'
    style = "<style>body { margin: 0 } iframe { border: 0; display: block }</style>"
    return chromium.address(f'<!doctype html><meta charset="utf-8">{style}{output}{frame}', folder)


@pytest.mark.parametrize("width", [390, 820, 1280])
def test_it_draws_everything_and_fits(tmp_path: Path, width: int) -> None:
    found = report(_address(tmp_path, width), 1280)
    assert found["problems"] == []
    assert found["odd"] == []
    assert found["dead"] == []
    assert (found["width"], found["scrolls"], found["wide"]) == (width, False, [])
    operations = {
        made["operationId"]: sorted(made["responses"])
        for methods in DOCUMENT["paths"].values()
        for made in methods.values()
    }
    assert sorted(found["operations"]) == sorted(operations)  # drawn by their tags
    assert found["statuses"] == operations
    assert found["schemas"] == list(DOCUMENT["components"]["schemas"])
    assert set(DOCUMENT["x-problems"]) <= set(found["codes"])
    secured = [
        bool(made["security"])
        for methods in DOCUMENT["paths"].values()
        for made in methods.values()
    ]
    assert ["$KYORA_TOKEN" in request for request in found["requests"]] == secured


@pytest.mark.parametrize("width", [390, 1280])
def test_pictures_are_kept(tmp_path: Path, width: int) -> None:
    file = picture(_address(tmp_path, width), f"docs-{width}", width, 1400)
    assert chromium.is_picture(file, width)
