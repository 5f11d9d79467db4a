// Small parts that every page draws with. Everything shown is untrusted: lit-html writes text, never
// markup.
import { html, nothing } from "./vendor/lit-html/lit-html.js";
import { repeat } from "./vendor/lit-html/directives/repeat.js";

export { html, nothing, repeat };

const DAY = { day: "numeric", month: "short" };
const CLOCK = { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" };

/** A time with its day; the whole of it when pointed at. Takes ISO text or seconds. */
export function time(when) {
  if (when === null || when === undefined || when === "") return html`<span class="soft">never</span>`;
  const date = new Date(typeof when === "number" ? when * 1000 : when);
  const today = new Date();
  const year = date.getFullYear() === today.getFullYear() ? {} : { year: "numeric" };
  const text = `${date.toLocaleDateString([], { ...DAY, ...year })}, ${date.toLocaleTimeString([], CLOCK)}`;
  return html`<time datetime=${date.toISOString()} title=${date.toISOString()}>${text}</time>`;
}

export function day(when) {
  if (!when) return html`<span class="soft">no end</span>`;
  const date = new Date(when);
  return html`<time datetime=${date.toISOString()} title=${date.toISOString()}>${date.toLocaleDateString([], { ...DAY, year: "numeric" })}</time>`;
}

export function bytes(n) {
  const units = ["B", "KiB", "MiB", "GiB"];
  let i = 0;
  while (n >= 1024 && i < units.length - 1) { n /= 1024; i += 1; }
  return `${i ? n.toFixed(1) : n} ${units[i]}`;
}

export function duration(ms) {
  if (ms === null || ms === undefined) return "";
  return ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(2)} s`;
}

export function plural(n, one, many) { return `${n} ${n === 1 ? one : many || one + "s"}`; }

export function tag(text, tone = "") { return html`<span class="tag ${tone}">${text}</span>`; }

export function tone(good) { return good === null || good === undefined ? "" : good ? "good" : "bad"; }

export function empty(text, command = "") {
  return html`<div class="empty">${text}${command ? html` <code>${command}</code>` : nothing}</div>`;
}

/** A table in a region that scrolls and that the keyboard reaches. `rows` are [key, cells, chosen]. */
export function table(name, heads, rows, none) {
  if (!rows.length) return none;
  return html`<div class="scroll" role="region" aria-label=${name} tabindex="0">
    <table>
      <thead><tr>${heads.map(([head, kind]) => html`${head ? html`<th scope="col" class=${kind || ""}>${head}</th>` : html`<td></td>`}`)}</tr></thead>
      <tbody>${repeat(rows, ([key]) => key, ([, cells, chosen]) => html`
        <tr class=${chosen ? "chosen" : ""}>${cells.map((cell, i) => html`<td class=${heads[i][1] || ""}>${cell}</td>`)}</tr>`)}
      </tbody>
    </table>
  </div>`;
}

export function card(title, body, side = nothing) {
  return html`<section class="card"><header><h2 class="grow">${title}</h2>${side}</header>${body}</section>`;
}

export function facts(pairs) {
  const known = pairs.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return html`<dl class="facts">${known.map(([name, value]) => html`<dt>${name}</dt><dd>${value}</dd>`)}</dl>`;
}

const TOKENS = /("(?:[^"\\]|\\.)*")(\s*:)?|(-?\b\d+(?:\.\d+)?(?:[eE][+-]?\d+)?\b|\btrue\b|\bfalse\b|\bnull\b)/g;

/** A value as indented JSON, coloured; a text as it is. */
export function json(value, label = "JSON") {
  const text = typeof value === "string" ? value : JSON.stringify(value, null, 2) ?? "nothing";
  return html`<pre tabindex="0" role="region" aria-label=${label}>${typeof value === "string" ? text : coloured(text)}</pre>`;
}

function coloured(text) {
  if (text.length > 60000) return text;
  const parts = [];
  let last = 0;
  for (const found of text.matchAll(TOKENS)) {
    if (found.index > last) parts.push(text.slice(last, found.index));
    const kind = found[3] ? "number" : found[2] ? "name" : "text";
    parts.push(html`<span class=${kind}>${found[3] || found[1]}</span>`, found[2] || "");
    last = found.index + found[0].length;
  }
  return [...parts, text.slice(last)];
}

export function log(lines) {
  if (!lines.length) return html`<p class="soft">It has logged nothing.</p>`;
  return html`<ol class="log">${lines.map((line) => html`<li class=${line.level}>${line.level ? `${line.level.padEnd(8)}` : ""}${line.text}</li>`)}</ol>`;
}

/** A sentence at the corner of the page, read out by screen readers; errors stay until closed. */
export function note(text, bad = false) {
  const box = document.createElement("div");
  const said = document.createElement("div");
  const close = document.createElement("button");
  box.className = bad ? "note bad" : "note";
  said.textContent = text;
  close.textContent = "Close";
  close.className = "small";
  close.addEventListener("click", () => box.remove());
  box.append(said, close);
  document.getElementById("notes").append(box);
  if (!bad) setTimeout(() => { if (!box.contains(document.activeElement)) box.remove(); }, 7000);
}

export async function copy(text, what) {
  try {
    await navigator.clipboard.writeText(text);
    note(`${what} is copied.`);
  } catch {
    note(`The browser does not let this page copy. Here it is:\n${text}`, true);
  }
}

export function copies(found) {
  if (!found) return nothing;
  return html`<button class="small" @click=${() => copy(found.curl, "The curl command")}>Copy as curl</button>
    <button class="small" @click=${() => copy(found.pytest, "The test")}>Copy as pytest</button>`;
}
