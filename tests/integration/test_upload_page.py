"""examples/upload.html in Chromium: the network is cut and the page reloaded in the middle."""

import asyncio
import json
import queue
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web

from kyora import config
from local.web import storage as front
from tests import events
from tests.browser import chromium
from tests.browser.page import looking_at
from tests.conftest import SECRET
from tests.integration.support import api, invariants, stores
from tests.integration.support.parts import FILM

PAGE = Path(__file__).parents[2] / "examples" / "upload.html"
pytestmark = chromium.needed
# Chooses the same film after each load, reloads in the middle, and reports what the page shows.
DRIVER = """
<script type="module">
const data = new Uint8Array(await (await fetch("/film")).arrayBuffer());
const chosen = new DataTransfer();
chosen.items.add(new File([data], "film.mp4", {type: "video/mp4", lastModified: 1}));
chosen.items.add(new File(["no film"], "page.html", {type: "text/html", lastModified: 1}));
const seen = JSON.parse(sessionStorage.seen ?? "[]");
const input = document.querySelector("#files");
input.files = chosen.files;
input.dispatchEvent(new Event("change"));
const [film, other] = document.querySelectorAll("li");
new MutationObserver(() => { // each state is seen, however short it is
  if (seen.at(-1) !== film.dataset.state) seen.push(film.dataset.state);
  sessionStorage.seen = JSON.stringify(seen);
}).observe(film, {attributeFilter: ["data-state"]});
const tick = setInterval(async () => {
  if (!sessionStorage.reloaded && film.querySelector("progress").value > 0.4) {
    sessionStorage.reloaded = 1;
    location.reload();
  } else if (film.dataset.asset && other.dataset.state !== "waiting") {
    clearInterval(tick);
    const report = {seen, asset: JSON.parse(film.dataset.asset), other: other.dataset.state,
      text: other.querySelector(".state").textContent, direction: document.documentElement.dir};
    await fetch("/report", {method: "POST", body: JSON.stringify(report)});
  }
}, 20);
</script>"""

UPPY = Path(__file__).parents[2] / ".local" / "uppy" / "uppy.min.mjs"
# Uppy's plugin for S3 with our routes; up to Uppy 5.
IN_UPPY = """<!doctype html><script type="module">
import {Uppy, AwsS3} from "/uppy.min.mjs";
const headers = {"Content-Type": "application/json"};
async function call(method, path, body) {
  const answer = await fetch(path, {method, headers, body: body && JSON.stringify(body)});
  if (!answer.ok) throw new Error(await answer.text());
  return answer.status === 204 ? {} : answer.json();
}
const path = (key) => `/v1/assets/${key}/multipart`;
const uppy = new Uppy();
uppy.use(AwsS3, {
  shouldUseMultipart: (file) => file.size > 8 << 20,
  getChunkSize: () => 8 << 20, // the plan's partSize
  async createMultipartUpload({name, type, size}) {
    const body = {filename: name, contentType: type, size};
    const plan = await call("POST", "/v1/assets/multipart", body);
    return {key: plan.assetId, uploadId: plan.uploadId};
  },
  async signPart(file, {key, partNumber, body}) {
    const parts = [{number: partNumber, size: body.size}];
    return (await call("POST", `${path(key)}/parts`, {parts})).parts[0]; // url and headers
  },
  async listParts(file, {key}) {
    const {parts} = await call("GET", `${path(key)}/parts`);
    return parts.map(({number, size, etag}) => ({PartNumber: number, Size: size, ETag: etag}));
  },
  async completeMultipartUpload(file, {key, parts}) {
    parts = parts.map(({PartNumber, ETag}) => ({number: PartNumber, etag: ETag}));
    await call("POST", `${path(key)}/complete`, {parts});
    return {};
  },
  abortMultipartUpload: (file, {key}) => call("DELETE", path(key)),
});
const data = await (await fetch("/film")).blob();
uppy.addFile({name: "film.mp4", type: "video/mp4", data});
let paused = false;
uppy.on("s3-multipart:part-uploaded", (file) => { // as a person does, in the middle
  if (paused) return;
  paused = true;
  uppy.pauseResume(file.id);
  setTimeout(() => uppy.pauseResume(file.id), 500);
});
const {successful, failed} = await uppy.upload();
const asset = successful.length
  ? await call("POST", `/v1/assets/${successful[0].s3Multipart.key}/confirm`) : {};
const error = String(failed[0]?.error);
await fetch("/report", {method: "POST", body: JSON.stringify({asset, error, paused})});
</script>"""


class Site:
    """The page, the functions behind its API and the folder that takes the parts: one origin."""

    def __init__(self, root: Path) -> None:
        self.root, self.url, self.reports = root, "", queue.Queue[dict[str, Any]]()
        self.parts: list[str] = []
        self.cut = 0  # PUTs that are still to be cut off
        self.loads = 0  # how often the page was loaded
        self._functions = ThreadPoolExecutor(1)  # they share a connection, as in Lambda

    def application(self, url: str) -> web.Application:
        app = web.Application(middlewares=[self._network])
        stack = SimpleNamespace(assets=self.root, url=url, secrets={"AUTH_JWT_SECRET": SECRET})
        front.mount(app, stack)  # type: ignore[arg-type]
        page = (PAGE.read_text() + DRIVER).encode()
        app.router.add_get("/", self._page(page))
        app.router.add_get("/uppy", _answer(IN_UPPY.encode(), "text/html"))
        script = UPPY.read_bytes() if UPPY.exists() else b""
        app.router.add_get("/uppy.min.mjs", _answer(script, "text/javascript"))
        app.router.add_get("/film", _answer(FILM.data, "video/mp4"))
        app.router.add_post("/report", self._report)
        for route in api.ROUTES:
            method, _, path = route.partition(" ")
            if path.startswith("/v1/assets"):
                app.router.add_route(method, path, self._function(route))
        return app

    @web.middleware
    async def _network(self, request: web.Request, handler: Any) -> web.StreamResponse:
        request[front.REQUEST_ID] = "front-00000001"
        if request.method == "PUT":
            self.parts.append(request.query["partNumber"])
            if len(self.parts) > 1 and self.cut and request.transport:
                self.cut -= 1
                request.transport.abort()
        response: web.StreamResponse = await handler(request)
        return response

    def _page(self, page: bytes) -> Any:
        async def answer(_: web.Request) -> web.Response:
            self.loads += 1
            return web.Response(body=page, content_type="text/html")

        return answer

    async def _report(self, request: web.Request) -> web.Response:
        self.reports.put(await request.json())
        return web.Response()

    def _function(self, route: str) -> Any:
        async def answer(request: web.Request) -> web.Response:
            if self.loads == 1 and route.endswith("/complete"):
                return web.Response(status=503)  # until the page is reloaded, which takes time
            event = events.http_api(
                route,
                (await request.text()) or None,
                path=dict(request.match_info),
                query=None,
                headers={"authorization": "Bearer t"},
                authorizer=api.MEMBER,
            )
            handler = api.function(api.ROUTES[route])
            loop = asyncio.get_running_loop()
            found = await loop.run_in_executor(self._functions, handler, event, api.Context())
            text = found.get("body")
            return web.Response(status=found["statusCode"], text=text, headers=found["headers"])

        return answer


def _answer(body: bytes, kind: str) -> Any:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=body, content_type=kind)

    return answer


@pytest.fixture
def site(uploads: str, environment: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Site]:
    """The site, running at `url`."""
    found = Site(tmp_path)
    with stores.listening() as sock:
        found.url = f"http://127.0.0.1:{sock.getsockname()[1]}"
        for name, value in {
            "STORAGE_PROVIDER": "local",
            "STORAGE_LOCAL_PATH": str(tmp_path),
            "APP_BASE_URL": found.url,
        }.items():
            environment.setenv(name, value)
        config.forget()
        with stores._in_thread(found.application(found.url), sock):
            yield found


def test_a_film_arrives_although_the_network_is_cut_and_the_page_reloaded(site: Site) -> None:
    site.cut = 2
    with looking_at(f"{site.url}/?lang=ar"):
        report = site.reports.get(timeout=120)
    assert report["asset"]["sha256"] == api.digest(FILM.data), json.dumps(report)
    assert site.cut == 0, "two connections were cut"
    assert report["seen"][-2:] == ["checking", "ready"]
    assert report["other"] == "asset.type_not_allowed"
    assert report["direction"] == "rtl"
    assert report["text"] == "هذا النوع من الملفات غير مقبول"
    assert sorted(set(site.parts)) == ["1", "2", "3"]
    assert site.loads == 2, "the page was reloaded"
    assert len(invariants.rows("SELECT id FROM asset")) == 1, "the reload went on with the first"
    invariants.recount()


@pytest.mark.skipif(not UPPY.exists(), reason="Uppy is not installed (make test gets it from npm)")
def test_uppys_plugin_for_s3_sends_parts_pauses_and_goes_on(site: Site) -> None:
    with looking_at(f"{site.url}/uppy"):
        report = site.reports.get(timeout=120)
    assert report["asset"].get("sha256") == api.digest(FILM.data), json.dumps(report)
    assert report["paused"]
    invariants.recount()
