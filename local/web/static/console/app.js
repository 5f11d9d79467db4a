// The console: which page is shown, what it follows, and what stands around it.
import { render } from "./vendor/lit-html/lit-html.js";
import { follow } from "./live.js";
import { html, nothing } from "./ui.js";
import * as billing from "./pages/billing.js";
import * as clock from "./pages/clock.js";
import * as configuration from "./pages/configuration.js";
import * as events from "./pages/events.js";
import * as invocations from "./pages/invocations.js";
import * as orders from "./pages/orders.js";
import * as overview from "./pages/overview.js";
import * as queues from "./pages/queues.js";
import * as stripe from "./pages/stripe.js";
import * as tables from "./pages/tables.js";
import * as uploads from "./pages/uploads.js";

// Each page: title, lead, list(asked) → the view it follows, draw(data, page) → what it shows; with
// `one`, detail(data, page) shows the item that the address names.
const PAGES = { overview, invocations, events, queues, uploads, stripe, billing, orders, clock, tables, configuration };
const GROUPS = [
  ["What happens", ["overview", "invocations", ["/trace/", "Traces"], "events", "queues"]],
  ["Domains", ["uploads", ["/upload", "Upload a file"], "stripe", "billing", "orders", ["/mailbox", "Mailbox"]]],
  ["Reference", ["clock", "tables", "configuration", ["/docs", "API"]]],
];

// The address after `#` is page[/item][?filters].
function place() {
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  const [name, item] = path.split("/").map(decodeURIComponent);
  return { name: PAGES[name] ? name : "overview", item: item || "", asked: Object.fromEntries(new URLSearchParams(query || "")) };
}

const state = { at: place(), views: [], data: [], lost: false };

/** Go to the same page with other filters, without a new entry in the history. */
function filter(changes) {
  const asked = { ...state.at.asked, ...changes };
  for (const key of Object.keys(asked)) if (!asked[key]) delete asked[key];
  history.replaceState(null, "", address(state.at.name, state.at.item, asked));
  move();
}

function address(name, item = "", asked = {}) {
  const query = new URLSearchParams(asked).toString();
  return `#/${name}${item ? "/" + encodeURIComponent(item) : ""}${query ? "?" + query : ""}`;
}

function move() {
  const before = state.at, page = PAGES[(state.at = place()).name], { item, asked } = state.at;
  const views = ["overview", page.list ? page.list(asked, item) : "", page.one && item ? `${state.at.name}/${encodeURIComponent(item)}` : ""].filter(Boolean);
  if (state.at.name === "overview") views.length = 1;
  // What is known of a view is kept while another one changes.
  state.data = views.map((view) => { const i = state.views.indexOf(view); return i < 0 ? undefined : state.data[i]; });
  state.views = views;
  follow(views, (i, data) => {
    state.lost = i < 0;
    // A part that does not answer leaves what was known, and says so.
    if (i >= 0) state.data[i] = data.fault && state.data[i] ? { ...state.data[i], fault: data.fault } : data;
    draw();
  });
  draw();
  if (before.name !== state.at.name || before.item !== state.at.item) {
    document.title = `${page.title} · Kyora local`;
    if (before.name !== state.at.name) { scrollTo(0, 0); document.getElementById("main")?.focus({ preventScroll: true }); }
  }
}

function banner() {
  if (state.lost) return html`<div class="alarm" role="alert">The local stack does not answer. Start it with <code>make run</code>; this page then continues.</div>`;
  const known = state.data.filter(Boolean);
  const faults = new Set(known.flatMap((data) => [data.fault, ...(data.faults || [])]).filter(Boolean));
  if (state.data[0] && !state.data[0].ready) return html`<div class="alarm wait" role="status">The stack is still starting.</div>`;
  return faults.size ? html`<div class="alarm" role="alert">${[...faults].map((fault) => html`<div>${fault}</div>`)}What is shown was read before.</div>` : nothing;
}

function badge(name) {
  const attention = state.data[0]?.attention || [];
  const pages = { function: "invocations", queue: "queues" };
  const count = attention.filter((one) => (pages[one.what] || one.what) === name).length;
  return count ? html`<span class="count" title=${`${count} to look at`}>${count}</span>` : nothing;
}

function side() {
  return html`<header class="side">
    <div class="brand"><img src="/_console/static/icon.svg" alt=""><div>Kyora Integrations<small>on this machine</small></div></div>
    <nav aria-label="Pages">${GROUPS.map(([title, pages]) => html`<h2>${title}</h2><ul>${pages.map((page) => {
      if (Array.isArray(page)) return html`<li><a href=${page[0]}>${page[1]}${page[0] === "/mailbox" ? badge("mails") : nothing}</a></li>`;
      return html`<li><a href=${address(page)} aria-current=${page === state.at.name ? "page" : nothing}>${PAGES[page].title}${badge(page)}</a></li>`;
    })}</ul>`)}</nav>
  </header>`;
}

function draw() {
  const page = PAGES[state.at.name], { item, asked } = state.at;
  const list = state.data[state.at.name === "overview" ? 0 : 1], detail = state.data[page.list ? 2 : 1];
  const here = { name: state.at.name, item, asked, filter, address, overview: state.data[0] };
  const shown = list && (list.fault && Object.keys(list).length === 1 ? nothing : page.draw(list, here));
  const open = page.one && item;
  render(html`<div class="frame">${side()}
    <main id="main" tabindex="-1">
      <div class="top"><h1 class="grow">${page.title}</h1>${page.buttons ? page.buttons(here) : nothing}</div>
      <p class="lead">${page.lead}</p>
      ${banner()}
      ${page.filters && list ? page.filters(list, here) : nothing}
      <div class="split ${open ? "open" : ""} ${state.lost ? "stale" : ""}">
        <div class="list">${shown || html`<p class="soft" role="status">Reading …</p>`}</div>
        ${open ? html`<div class="detail card"><header><a class="back button small" href=${address(state.at.name, "", asked)}>← All</a><h2 class="grow mono">${item}</h2><a class="button small" href=${address(state.at.name, "", asked)}>Close</a></header>
          <div class="in">${detail ? (detail.fault && !detail.id ? html`<p>${detail.fault}</p>` : page.detail(detail, here)) : html`<p class="soft" role="status">Reading …</p>`}</div></div>` : nothing}
      </div>
    </main></div>`, document.getElementById("app"));
}

addEventListener("hashchange", move);
document.title = `${PAGES[state.at.name].title} · Kyora local`;
move();
