import { button } from "../act.js";
import { sendEvent } from "../dialogs.js";
import { card, copies, duration, empty, facts, html, json, nothing, plural, table, tag, time } from "../ui.js";

export const title = "Events";
export const lead = "Each event of the bus, newest first, and where each of its consumers stands.";
export const one = true;

export function list(asked) { return "events?" + new URLSearchParams(asked); }

export function buttons() { return html`<button class="main" @click=${() => sendEvent()}>Send an event</button>`; }

export function filters(data, page) {
  const { asked, filter } = page;
  return html`<div class="bar" role="search" aria-label="Filter">
    <label>Event<select @change=${(e) => filter({ type: e.target.value })}>
      <option value="">all</option>${data.types?.map((name) => html`<option ?selected=${name === asked.type}>${name}</option>`)}</select></label>
    <label>About<input type="search" placeholder="ord_…, sub_…, a word" .value=${asked.text || ""} @change=${(e) => filter({ text: e.target.value })}></label>
  </div>`;
}

export function draw(data, page) {
  const filtered = Object.keys(page.asked).length;
  return card(data.events.length === 100 ? "The newest 100" : plural(data.events.length, "event"), table("Events",
    [["Event"], ["Consumers", "wrap"], ["Workspace", "less"], ["At", "aside"]],
    data.events.map((event) => [event.id, [
      html`<a href=${page.address("events", event.id, page.asked)}>${event.type}</a>`,
      standing(event), html`<span class="mono">${event.workspace || "none"}</span>`, time(event.at),
    ], event.id === page.item]),
    empty(filtered ? "No event matches." : "No event has been emitted yet. Press Send an event, or:", filtered ? "" : "make emit EVENT=UserWelcomed")));
}

function standing(event) {
  if (!event.consumers.length) return event.published ? html`<span class="soft">no consumer</span>` : tag(event.error ? `failing: ${event.error}` : "in the outbox", event.error ? "bad" : "warn");
  return html`<span class="tags">${event.consumers.map((one) => tag(`${one.function}: ${one.state}`, one.tone))}</span>`;
}

export function detail(data, page) {
  return html`
    <div class="tags">${copies(data.copy)}
      <button class="small" @click=${() => sendEvent({ name: data.type, data: data.detail.data, workspaceId: data.workspace })}>Edit and send …</button>
      ${data.published ? nothing : button("Give it up", "drop", { event: data.id })}</div>
    <h3>${data.type}</h3>
    ${facts([["Source", data.source], ["Happened", time(data.occurredAt)], ["Written", time(data.at)],
      ["Published", data.published ? time(data.published) : html`${tag(data.error ? `not: ${data.error}` : "waits in the outbox", data.error ? "bad" : "warn")}`],
      ["Attempts", data.attempts], ["Workspace", data.workspace],
      ["Correlation", data.correlation && html`<a class="mono" href=${page.address("invocations", "", { text: data.correlation })}>${data.correlation}</a>`]])}
    <h3>Consumers</h3>
    ${data.consumers.length ? html`<ul class="times">${data.consumers.map((one) => consumer(data, one, page))}</ul>` : html`<p class="soft">No function consumes it; other parts of Kyora may.</p>`}
    <h3>Payload</h3>${json(data.detail, "Payload")}`;
}

function consumer(event, one, page) {
  return html`<li><span class="grow"><strong>${one.function}</strong> by <a href=${page.address("queues")}>${one.queue}</a></span>
    ${tag(one.state, one.tone)}
    ${one.message ? button("Redrive it", "redrive", { queue: one.queue, message: one.message }) : nothing}
    ${event.published ? button("Replay", "replay", { event: event.id, consumer: one.function }) : nothing}
    ${one.mails.map((mail) => html`<div class="own">${mail.template} ${tag(mail.reason ? `${mail.status}: ${mail.reason}` : mail.status)} ${["dead", "failed", "accepted_unknown"].includes(mail.status) ? button("Resend", "resend", { mail: mail.id }) : nothing}</div>`)}
    ${one.deliveries.length ? html`<div class="own soft">Deliveries: ${one.deliveries.map((run) => html`<a href=${page.address("invocations", run.id)}>${run.status} after ${duration(run.ms)}</a>, ${time(run.at)} `)}</div>` : nothing}
  </li>`;
}
