"""Debian's Chromium without a window, and the pages that tests put into it."""

import base64
import html
import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PICTURES = ROOT / ".local" / "screenshots"
PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser")

OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"),
    *("--no-first-run", "--disable-background-networking", "--disable-sync"),
    *("--disable-component-update", "--hide-scrollbars"),
)

needed = pytest.mark.skipif(
    PROGRAM is None, reason="chromium is not installed (Debian: apt-get install chromium)"
)


def start(address: str, profile: str) -> "subprocess.Popen[bytes]":
    """Start Chromium in a session of its own, with DevTools on a port that it chooses."""
    assert PROGRAM is not None
    return subprocess.Popen(
        [
            PROGRAM,
            *OPTIONS,
            f"--user-data-dir={profile}",
            "--remote-debugging-port=0",
            address,
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def end(process: "subprocess.Popen[bytes]") -> None:
    """End a Chromium that was started in a session of its own."""
    with suppress(ProcessLookupError):  # it has ended already
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def frames(pages: Sequence[str], width: int, script: str = "") -> str:
    """Return a page that shows pages side by side, each as wide as a reader's window.

    `script` is a function's body: it gets `doc` and its frame's `width`, and returns what is
    reported of each page. The pages themselves run no scripts.
    """
    inside = "".join(
        f'<iframe sandbox="allow-same-origin" width="{width}" height="400" '
        f'srcdoc="{html.escape(page)}"></iframe>'
        for page in pages
    )
    return f"""<!doctype html><meta charset="utf-8">
<style>body {{ margin: 12px; display: flex; gap: 12px; align-items: flex-start;
background: #8a918e }} iframe {{ border: 0; flex: none }}</style>{inside}
<output id="report" hidden></output>
<script>
addEventListener("load", () => {{
  const found = [...document.querySelectorAll("iframe")].map((frame) => {{
    const doc = frame.contentDocument, width = {width};
    frame.height = doc.documentElement.scrollHeight;
    return (function () {{ {script} }})();
  }});
  document.getElementById("report").textContent = JSON.stringify(found);
}});
</script>"""


def address(page: str, folder: Path) -> str:
    """Write a page and return its address."""
    file = folder / "page.html"
    file.write_text(page)
    return file.as_uri()


def is_picture(file: Path, width: int) -> bool:
    """Return whether a file is a PNG of that width that shows more than one colour."""
    data = file.read_bytes()
    return (
        data.startswith(base64.b64decode("iVBORw0KGgo="))
        and int.from_bytes(data[16:20]) == width
        and len(data) > 20_000
    )
