import { button } from "../act.js";
import { bytes, card, duration, empty, facts, html, nothing, plural, tag, time } from "../ui.js";

export const title = "Uploads";
export const lead = "Each upload with its verdict. An upload of the demo workspace is confirmed by a click.";
export const one = true;

export function list(asked) { return "uploads?" + new URLSearchParams(asked); }

export function buttons() { return button("Sweep", "sweep", {}, ""); }

export function filters(data, page) {
  const { asked, filter } = page;
  return html`<div class="bar" role="search" aria-label="Filter">
    <label>Status<select @change=${(e) => filter({ status: e.target.value })}>
      <option value="">all</option>${Object.entries(data.counts || {}).map(([name, n]) => html`<option value=${name} ?selected=${name === asked.status}>${name} (${n})</option>`)}</select></label>
    <label>About<input type="search" placeholder="ast_…, a file's name" .value=${asked.text || ""} @change=${(e) => filter({ text: e.target.value })}></label>
  </div>`;
}

const TONES = { ready: "good", rejected: "bad", expired: "warn", pending: "warn", verifying: "warn", scanning: "warn" };

export function draw(data, page) {
  const filtered = Object.keys(page.asked).length;
  const used = data.usage.filter((one) => Number(one.used) || Number(one.reserved));
  return html`
    ${card(data.assets.length === 100 ? "The newest 100" : plural(data.assets.length, "upload"), data.assets.length ? html`<ul class="pictures">${data.assets.map((asset) => html`<li class=${asset.id === page.item ? "chosen" : ""}>
      <div class="image">${asset.picture ? html`<img src=${`/_console/uploads/${encodeURIComponent(asset.id)}/picture`} alt=${asset.filename} loading="lazy">` : asset.filename.split(".").pop().slice(0, 8)}</div>
      <div class="about"><a href=${page.address("uploads", asset.id, page.asked)}><strong>${asset.filename}</strong></a>
        <span class="tags">${state(asset)}${asset.status === "pending" || asset.status === "verifying" ? button("Confirm", "confirm", { asset: asset.id }) : nothing}</span>
        <span class="soft">${asset.type}, ${bytes(Number(asset.size))}${asset.width ? `, ${asset.width} × ${asset.height}` : ""}</span>
        <span class="soft">${time(asset.at)}${asset.status === "pending" ? html`; until ${time(asset.deadline)}` : nothing}</span>
        <span class="mono soft">${asset.id}</span>
      </div></li>`)}</ul>` : empty(filtered ? "No upload matches." : "Nothing yet: paste the three commands that make run printed."))}
    ${used.length ? card("Storage", html`<div class="in">${used.map((one) => html`<p><span class="mono">${one.workspace}</span> uses ${bytes(Number(one.used))}${Number(one.reserved) ? `, ${bytes(Number(one.reserved))} reserved` : ""}</p>`)}</div>`) : nothing}`;
}

export function detail(data, page) {
  return html`
    <div class="tags">${state(data)}${data.status === "pending" || data.status === "verifying" ? button("Confirm", "confirm", { asset: data.id }) : nothing}
      <a class="button small" href=${page.address("invocations", "", { text: data.id })}>Invocations</a>
      <a class="button small" href=${`/trace/${encodeURIComponent(data.id)}`}>Trace</a></div>
    <h3>${data.filename}</h3>
    ${data.picture ? html`<img class="original" src=${`/_console/uploads/${encodeURIComponent(data.id)}/picture`} alt=${data.filename}>` : nothing}
    ${facts([["Asset", html`<span class="mono">${data.id}</span>`], ["Workspace", data.workspace], ["Type", data.type], ["Size", bytes(Number(data.size))],
      ["As shown", data.width && `${data.width} × ${data.height}`], ["Length", data.durationMs && duration(data.durationMs)], ["Purpose", data.purpose],
      ["SHA-256", data.sha256 && html`<span class="mono">${data.sha256}</span>`], ["Requested", time(data.at)],
      ["Open until", data.status === "pending" ? time(data.deadline) : null], ["Ready", data.ready ? time(data.ready) : null], ["Ended", data.status !== "ready" && data.ended ? time(data.ended) : null]])}
    ${data.wantsVariants ? variants(data) : nothing}`;
}

function state(asset) { return tag(asset.reason ? `${asset.status}: ${asset.reason}` : asset.status, TONES[asset.status]); }

const SET_TONES = { ready: "good", failed: "bad", waiting: "warn", making: "warn" };

function variants({ id, set, variants: made, public: open, status }) {
  const word = set ? (set.reason ? `${set.status}: ${set.reason}` : set.status) : status === "ready" ? "waiting" : "once it is ready";
  return html`<h3>Variants</h3>
    <div class="tags">${tag(word, SET_TONES[set ? set.status : "waiting"])}${tag(open ? "public" : "signed addresses")}
      ${made.length ? tag(`${bytes(made.reduce((sum, one) => sum + Number(one.size), 0))} in ${plural(made.length, "file")}`) : nothing}</div>
    ${set?.status === "failed" ? html`<p class="soft">Make them again: <code>make variants ASSET=${id}</code></p>` : nothing}
    ${made.length ? html`<ul class="pictures own">${made.map((one) => html`<li>
      <div class="image">${one.picture ? html`<img src=${one.picture} alt=${`${one.name}, ${one.format}`} loading="lazy">` : nothing}</div>
      <div class="about"><strong>${one.name}, ${one.format}</strong><span class="soft">${one.width} × ${one.height}, ${bytes(Number(one.size))}</span>
        ${one.publicUrl ? html`<a class="mono" href=${one.publicUrl} target="_blank" rel="noopener">${one.publicUrl}</a>` : nothing}
      </div></li>`)}</ul>` : nothing}`;
}
