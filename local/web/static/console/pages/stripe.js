import { button } from "../act.js";
import { card, empty, facts, html, json, nothing, plural, table, tag, time } from "../ui.js";

export const title = "Stripe";
export const lead = "Each event from Stripe: how it came, what became of it, and how its deliveries went.";
export const one = true;

export function list(asked) { return "stripe?" + new URLSearchParams(asked); }

export function buttons(page) {
  return html`${button("Replay what failed", "replay-stripe", { failed: true }, "")}${page.overview?.parts.filter((part) => part.name === "Stripe stand-in").map((part) => html`<a class="button" href=${part.address}>Stand-in’s dashboard</a>`)}`;
}

const TONES = { processed: "good", ignored: "", received: "warn", orphan: "warn", failed: "bad" };

export function filters(data, page) {
  const { asked, filter } = page;
  return html`<div class="bar" role="search" aria-label="Filter">
    <label>Status<select @change=${(e) => filter({ status: e.target.value })}>
      <option value="">all</option>${Object.entries(data.counts || {}).map(([name, n]) => html`<option value=${name} ?selected=${name === asked.status}>${name} (${n})</option>`)}</select></label>
    <label>About<input type="search" placeholder="evt_…, sub_…, a type" .value=${asked.text || ""} @change=${(e) => filter({ text: e.target.value })}></label>
  </div>`;
}

export function draw(data, page) {
  const filtered = Object.keys(page.asked).length;
  return card(data.events.length === 100 ? "The newest 100" : plural(data.events.length, "event"), table("Events from Stripe",
    [["Event"], ["About", "less"], ["Outcome"], ["Deliveries", "less"], ["Came", "less"], ["At", "aside"]],
    data.events.map((event) => [event.id, [
      html`<a href=${page.address("stripe", event.id, page.asked)}>${event.type}</a>`,
      html`<span class="mono">${event.object || ""}</span>`,
      tag(event.error ? `${event.status}: ${event.error}` : event.status, TONES[event.status]),
      delivered(event.deliveries), event.source, time(event.at),
    ], event.id === page.item]),
    empty(filtered ? "No event matches." : "Stripe has sent nothing yet. The fourth command that make run printed begins a checkout.")));
}

function delivered(deliveries) {
  return deliveries.map((one) => tag(one.status === "sent" ? one.answer || "sent" : `${one.status} ${one.answer}`, one.status === "sent" ? "good" : "bad"));
}

export function detail(data, page) {
  return html`
    <div class="tags">${tag(data.status, TONES[data.status])}
      ${button("Process again", "replay-stripe", { event: data.id })}
      ${data.deliveries.length ? button("Deliver again", "redeliver", { event: data.id }) : nothing}</div>
    <h3>${data.type}</h3>
    ${facts([["About", data.object && html`<span class="mono">${data.object}</span>`], ["Customer", data.customer && html`<a class="mono" href=${page.address("stripe", "", { text: data.customer })}>${data.customer}</a>`],
      ["Came by", data.source], ["Made at Stripe", time(Number(data.created))], ["Received", time(data.at)], ["Processed", data.processed ? time(data.processed) : data.status === "ignored" ? "nothing depends on it" : "not yet"],
      ["Attempts", data.attempts], ["Error", data.error], ["API version", data.apiVersion],
      ["Invocations", html`<a href=${page.address("invocations", "", { text: data.id })}>those that name it</a>`]])}
    ${data.deliveries.length ? html`<h3>Deliveries</h3><ul class="times">${data.deliveries.map((one) => html`<li><span class="grow">${one.endpoint}</span>${plural(one.attempts, "attempt")} ${delivered([one])}</li>`)}</ul>` : nothing}
    <h3>Body</h3>${json(body(data.body), "Body")}`;
}

function body(text) {
  if (!text) return "It is not kept any more.";
  try { return JSON.parse(text); } catch { return text; }
}
