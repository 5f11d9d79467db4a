"""Debian's Chromium without a window: pictures of pages, and what a page says of itself."""

import base64
import html
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PICTURES = ROOT / ".local" / "screenshots"
PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser")

# What `prefers-color-scheme` answers; --force-dark-mode inverts pages instead.
_DARK = {True: ("--blink-settings=preferredColorScheme=0",), False: ()}

OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"),
    *("--no-first-run", "--disable-background-networking", "--disable-sync"),
    *("--disable-component-update", "--hide-scrollbars"),
)

needed = pytest.mark.skipif(
    PROGRAM is None, reason="chromium is not installed (Debian: apt-get install chromium)"
)


def picture(address: str, name: str, width: int, height: int, *, dark: bool = False) -> Path:
    """Take a picture of a page and keep it for a person to look at."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    file = PICTURES / f"{name}.png"
    file.unlink(missing_ok=True)
    _run(address, f"--screenshot={file}", f"--window-size={width},{height}", *_DARK[dark])
    return file


def dom(address: str) -> str:
    """Return a page as it stands after a few seconds."""
    return _run(address, "--dump-dom")


def report(address: str, width: int = 1280, *, dark: bool = False) -> Any:
    """Return what a page put into `<output id="report">` as JSON."""
    said = _run(address, "--dump-dom", f"--window-size={width},900", *_DARK[dark])
    found = re.search(r'<output id="report"[^>]*>([^<]+)</output>', said)
    assert found, f"the page reports nothing: {said[:500]}"
    return json.loads(html.unescape(found.group(1)))


@contextmanager
def looking_at(address: str) -> Iterator[None]:
    """Keep a page open, in real time, for one that says itself when it is done."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = start(address, profile)
        try:
            yield
        finally:
            end(process)


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


def _run(address: str, *options: str) -> str:
    assert PROGRAM is not None
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        done = subprocess.run(
            [
                PROGRAM,
                *OPTIONS,
                *(f"--user-data-dir={profile}", "--virtual-time-budget=6000"),
                *options,
                address,
            ],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


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
