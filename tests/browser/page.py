"""A page in Chromium that is looked at, clicked and typed into, by the DevTools protocol.

All pages of a process share one Chromium: a start costs more than most pages do.
"""

import asyncio
import atexit
import base64
import html
import itertools
import json
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import aiohttp

from tests.browser import chromium

_PATIENCE = 120.0
_running: list[tuple["subprocess.Popen[bytes]", int]] = []


class Page:
    """A tab, or the browser itself. `visitor` is the context that holds its cookies and rights."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, visitor: str = "") -> None:
        self._socket, self._numbers = socket, itertools.count(1)
        self.visitor = visitor
        self.console: list[str] = []  # errors that the page's console shows

    async def call(self, method: str, **given: Any) -> Any:
        """Send a command of the protocol and return its result."""
        number = next(self._numbers)
        await self._socket.send_json({"id": number, "method": method, "params": given})
        while True:
            found = await self._socket.receive_json(timeout=_PATIENCE)
            if found.get("id") == number:
                assert "error" not in found, found["error"]
                return found["result"]
            self._hear(found)

    def _hear(self, found: dict[str, Any]) -> None:
        given = found.get("params", {})
        if found.get("method") == "Runtime.exceptionThrown":
            self.console.append(str(given["exceptionDetails"].get("exception", given)))
        entry = given.get("entry", {})
        if entry.get("level") == "error" and entry["source"] != "network":  # a refusal is no fault
            self.console.append(f"{entry['text']} {entry.get('url', '')}")

    async def go(self, address: str) -> None:
        """Open an address."""
        await self.call("Page.navigate", url=address)

    async def turn(self, hash_: str) -> None:
        """Go to another part of the same page, which is there once the page has heard of it."""
        await self.ask(
            f"location.hash === {json.dumps(hash_)} || new Promise((done) => {{"
            f" addEventListener('hashchange', done, {{ once: true }}); location.hash ="
            f" {json.dumps(hash_)}; }})"
        )

    async def settle(self, address: str) -> None:
        """Open an address and let six seconds of the page's own time pass, which take no time."""
        clock = "Emulation.setVirtualTimePolicy"
        await self.call(clock, policy="pause")
        await self.go(address)
        await self.call(clock, policy="pauseIfNetworkFetchesPending", budget=6000)
        while True:
            found = await self._socket.receive_json(timeout=_PATIENCE)
            if found.get("method") == "Emulation.virtualTimeBudgetExpired":
                return
            self._hear(found)

    async def ask(self, script: str) -> Any:
        """Return what an expression of JavaScript is, once its promise is settled."""
        found = await self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    async def until(self, script: str, seconds: float = _PATIENCE) -> Any:
        """Wait until an expression is true; fails with what the page says meanwhile."""
        deadline = time.monotonic() + seconds
        # An element has no value that could be sent.
        asked = f"((it) => it instanceof Node ? true : it)({script})"
        while not (found := await self.ask(asked)):
            if time.monotonic() > deadline:
                said = await self.ask("document.body.innerText")
                raise AssertionError(f"not within {seconds} s: {script}\n{said[:2000]}")
            await asyncio.sleep(0.05)
        return found

    async def says(self, text: str, seconds: float = _PATIENCE) -> None:
        """Wait until the page shows a text."""
        await self.until(f"document.body?.innerText.includes({json.dumps(text)})", seconds)

    async def click(self, text: str, within: str = "body") -> None:
        """Click the first button or link with this text, as a mouse does, once it is there."""
        script = (
            f"[...document.querySelectorAll({json.dumps(within + ' :is(button, a, summary)')})]"
            f".find((one) => one.innerText.trim() === {json.dumps(text)})"
        )
        await self.until(f"Boolean({script})")
        await self.ask(f"{script}.scrollIntoView({{ block: 'center', behavior: 'instant' }})")
        box = await self.ask(f"JSON.stringify({script}.getBoundingClientRect())")
        edge = json.loads(box)
        middle = {"x": edge["x"] + edge["width"] / 2, "y": edge["y"] + edge["height"] / 2}
        for kind in ("mousePressed", "mouseReleased"):
            await self.call(
                "Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **middle
            )

    async def look(self, width: int, height: int = 900, *, dark: bool = False) -> None:
        """Set the window's size and the colour scheme."""
        await self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.call("Emulation.setEmulatedMedia", features=[scheme])

    async def picture(self, name: str) -> Path:
        """Take a picture and keep it for a person to look at."""
        chromium.PICTURES.mkdir(parents=True, exist_ok=True)
        found = await self.call("Page.captureScreenshot", format="png", optimizeForSpeed=True)
        file = chromium.PICTURES / f"{name}.png"
        file.write_bytes(base64.b64decode(found["data"]))
        return file


@asynccontextmanager
async def tab() -> AsyncIterator[Page]:
    """Open an empty page of a visitor who has never been here, in this process's Chromium."""
    async with aiohttp.ClientSession() as session:
        home = f"http://127.0.0.1:{_port()}"
        async with session.get(f"{home}/json/version") as answer:
            address = (await answer.json())["webSocketDebuggerUrl"]
        async with session.ws_connect(address, max_msg_size=0) as socket:
            browser = Page(socket)
            made = await browser.call("Target.createBrowserContext")
            visitor = made["browserContextId"]
            target = await browser.call(
                "Target.createTarget", url="about:blank", browserContextId=visitor
            )
            address = f"{home.replace('http', 'ws')}/devtools/page/{target['targetId']}"
            try:
                async with session.ws_connect(address, max_msg_size=0) as of_page:
                    page = Page(of_page, visitor)
                    for domain in ("Page", "Runtime", "Log"):
                        await page.call(f"{domain}.enable")
                    yield page
            finally:
                await browser.call("Target.disposeBrowserContext", browserContextId=visitor)


def _port() -> int:
    """Return the port of DevTools of a Chromium that serves all pages of this process."""
    if not (_running and _running[-1][0].poll() is None):
        profile = Path(tempfile.mkdtemp(prefix="chromium-"))
        process = chromium.start("about:blank", str(profile))
        atexit.register(shutil.rmtree, profile, ignore_errors=True)
        atexit.register(chromium.end, process)  # the last that is registered comes first
        file, deadline = profile / "DevToolsActivePort", time.monotonic() + _PATIENCE
        while not file.exists() or not file.read_text():
            assert time.monotonic() < deadline, "Chromium does not start"
            time.sleep(0.05)
        _running.append((process, int(file.read_text().splitlines()[0])))
    return _running[-1][1]


def visit[T](work: Callable[[Page], Awaitable[T]]) -> T:
    """Do something in a page of its own."""

    async def run() -> T:
        async with tab() as page:
            return await work(page)

    return asyncio.run(run())


def picture(address: str, name: str, width: int, height: int, *, dark: bool = False) -> Path:
    """Take a picture of a page and keep it for a person to look at."""

    async def take(page: Page) -> Path:
        await page.look(width, height, dark=dark)
        await page.settle(address)
        return await page.picture(name)

    return visit(take)


def dom(address: str, width: int = 1280, *, dark: bool = False) -> str:
    """Return a page as it stands after a few seconds."""

    async def read(page: Page) -> str:
        await page.look(width, dark=dark)
        await page.settle(address)
        return str(await page.ask("document.documentElement.outerHTML"))

    return visit(read)


def report(address: str, width: int = 1280, *, dark: bool = False) -> Any:
    """Return what a page put into `<output id="report">` as JSON."""
    said = dom(address, width, dark=dark)
    found = re.search(r'<output id="report"[^>]*>([^<]+)</output>', said)
    assert found, f"the page reports nothing: {said[:500]}"
    return json.loads(html.unescape(found.group(1)))


@contextmanager
def looking_at(address: str) -> Iterator[None]:
    """Keep a page open, in real time, for one that says itself when it is done."""
    with asyncio.Runner() as runner:
        opened = tab()
        page = runner.run(opened.__aenter__())
        try:
            runner.run(page.go(address))
            yield
        finally:
            runner.run(opened.__aexit__(None, None, None))
