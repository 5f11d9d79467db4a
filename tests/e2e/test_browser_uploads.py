"""Uploads as a front end makes them: a page of another origin, in a real browser.

The page is served on a usual port of a development server, as the API's and the bucket's CORS
rules allow; it uploads through fetch, XMLHttpRequest with progress, and Uppy's AwsS3 plugin.
"""

import base64
import json
import queue
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from local.settings import PAGE_PORTS
from tests.browser import chromium
from tests.browser.page import looking_at
from tests.e2e.conftest import ROOT, Stack
from tests.integration.support import samples
from tests.scripted import Answer, Request, Server

UPPY = ROOT / ".local" / "uppy" / "uppy.min.mjs"
SCRIPT = Path(__file__).with_name("uploads.js")
ARABIC = "عکس\u200cها ۱.png"
BIG = ("a line of text, and another\n" * 150_000).encode()

pytestmark = [chromium.needed]
uppy_needed = pytest.mark.skipif(
    not UPPY.exists(), reason="Uppy is not installed (make test gets it from npm, where that is)"
)


def given(name: str, kind: str, data: bytes) -> dict[str, str]:
    return {"name": name, "type": kind, "base64": base64.b64encode(data).decode()}


HEIC = given("IMG_0042.HEIC", "", samples.ALL["heic"].data)  # Chrome on Windows knows no HEIC
UPLOADS: dict[str, tuple[str, dict[str, str]]] = {
    "a photograph of a phone": ("byFetch", HEIC),
    "a name with a joiner": ("byFetch", given(ARABIC, "image/png", samples.ALL["png"].data)),
    "a recording": ("byFetch", given("a.webm", "video/webm;codecs=vp8", samples.ALL["webm"].data)),
    "a table of Excel": ("byFetch", given("a.csv", "application/vnd.ms-excel", b"a,b\n1,2\n")),
    "a large text": ("byXhr", given("notes.txt", "text/plain", BIG)),
    "a tab that slept": ("afterALongBreak", HEIC),
    "a film of this browser": ("byFetch", {"name": "film.webm", "record": "video"}),
    "a voice of this browser": ("byFetch", {"name": "voice.webm", "record": "audio"}),
}


class Page:
    """A server of one page and its scripts; what the page posts is its report."""

    def __init__(self, address: str) -> None:
        self.address, self.files = address, dict[str, bytes]()
        self.reports = queue.Queue[bytes]()


@pytest.fixture
def page() -> Iterator[Page]:
    """A page on a usual port of a development server."""

    def answer(asked: Request) -> Answer:
        if asked.method == "POST":
            served.reports.put(asked.body)
            return Answer(204, b"")
        found = served.files.get(asked.path)
        kind = "text/javascript" if asked.path.endswith("js") else "text/html"
        return Answer(200 if found is not None else 404, found or b"", {"Content-Type": kind})

    for port in PAGE_PORTS:
        served = Page(f"http://localhost:{port}")
        try:
            server = Server(answer, port=port)
        except OSError:
            continue
        break
    else:
        pytest.skip("every usual port of a development server is taken")
    yield served
    server.stop()


def run(
    stack: Stack, page: Page, uploads: Mapping[str, tuple[str, dict[str, str]]]
) -> dict[str, Any]:
    """Upload files from a page; return what it reports of each."""
    constants = {
        "API": stack.env["KYORA_URL"],
        "TOKEN": stack.env["KYORA_MEMBER_TOKEN"],
        "UPLOADS": [[name, how, file] for name, (how, file) in uploads.items()],
    }
    script = "".join(f"const {k} = {json.dumps(v)};\n" for k, v in constants.items())
    page.files["/uploads.mjs"] = (script + SCRIPT.read_text()).encode()
    page.files["/"] = b'<!doctype html><script type="module" src="/uploads.mjs"></script>'
    with looking_at(f"{page.address}/"):
        found: dict[str, Any] = json.loads(page.reports.get(timeout=600))
    return found


def test_a_page_of_another_origin_uploads_what_a_person_chooses(stack: Stack, page: Page) -> None:
    found = run(stack, page, UPLOADS)
    assert [found[name].get("error") for name in UPLOADS] == [None] * len(UPLOADS), found
    assert {found[name]["status"] for name in UPLOADS} == {"ready"}
    assert all(found[name]["same"] for name in UPLOADS), "what is downloaded is what was sent"
    types = [found[name]["contentType"] for name in UPLOADS]
    assert types == [
        *("image/heic", "image/png", "video/webm", "text/csv", "text/plain", "image/heic"),
        *("video/webm", "audio/webm"),
    ]
    assert ";codecs=" in found["a voice of this browser"]["sent"]
    assert found["a name with a joiner"]["filename"] == ARABIC
    assert found["a photograph of a phone"]["etag"], "the page can read it"
    loaded = found["a large text"]["loaded"]
    assert loaded == sorted(loaded)
    assert loaded[-1] == len(BIG)
    assert found["a tab that slept"]["same"]
    assert found["refused"]["known"] == 404
    assert found["refused"]["unknown"] == 401, "a refusal reaches the page as what it is"
    assert found["refused"]["id"]


@uppy_needed
def test_uppys_plugin_for_s3_uploads(stack: Stack, page: Page) -> None:
    page.files["/uppy.min.mjs"] = UPPY.read_bytes()
    text = given("notes.txt", "text/plain", BIG)
    uploads = {"a photograph of a phone": ("byUppy", HEIC), "a large text": ("byUppy", text)}
    found = run(stack, page, uploads)
    for name in uploads:
        assert found[name].get("status") == "ready", found[name]
        assert found[name]["same"]
    assert found["a large text"]["loaded"][-1] == len(BIG)
