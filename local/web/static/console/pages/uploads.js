import { button } from "../act.js";
import { bytes, card, empty, html, nothing, plural, tag, time } from "../ui.js";

export const title = "Uploads";
export const lead = "Each upload with its verdict. An upload of the demo workspace is confirmed by a click.";

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
    ${card(data.assets.length === 100 ? "The newest 100" : plural(data.assets.length, "upload"), data.assets.length ? html`<ul class="pictures">${data.assets.map((asset) => html`<li>
      <div class="image">${asset.picture ? html`<img src=${`/_console/uploads/${encodeURIComponent(asset.id)}/picture`} alt=${asset.filename} loading="lazy">` : asset.filename.split(".").pop().slice(0, 8)}</div>
      <div class="about"><strong>${asset.filename}</strong>
        <span class="tags">${tag(asset.reason ? `${asset.status}: ${asset.reason}` : asset.status, TONES[asset.status])}${asset.status === "pending" || asset.status === "verifying" ? button("Confirm", "confirm", { asset: asset.id }) : nothing}</span>
        <span class="soft">${asset.type}, ${bytes(Number(asset.size))}${asset.width ? `, ${asset.width} × ${asset.height}` : ""}</span>
        <span class="soft">${time(asset.at)}${asset.status === "pending" ? html`; until ${time(asset.deadline)}` : nothing}</span>
        <a class="mono" href=${page.address("invocations", "", { text: asset.id })}>${asset.id}</a>
      </div></li>`)}</ul>` : empty(filtered ? "No upload matches." : "Nothing yet: paste the three commands that make run printed."))}
    ${used.length ? card("Storage", html`<div class="in">${used.map((one) => html`<p><span class="mono">${one.workspace}</span> uses ${bytes(Number(one.used))}${Number(one.reserved) ? `, ${bytes(Number(one.reserved))} reserved` : ""}</p>`)}</div>`) : nothing}`;
}
