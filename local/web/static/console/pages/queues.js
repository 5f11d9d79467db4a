import { button } from "../act.js";
import { card, empty, html, json, nothing, plural, tag, time } from "../ui.js";

export const title = "Queues";
export const lead = "What waits for each consumer, and the letters that were given up. Looking counts no delivery.";

export function list() { return "queues"; }

export function draw(data, page) {
  const open = data.queues.filter((queue) => queue.waiting || queue.dead);
  const quiet = data.queues.filter((queue) => !queue.waiting && !queue.dead);
  return html`
    ${open.map((queue) => card(html`${queue.name} <span class="soft">${queue.consumer ? `→ ${queue.consumer}` : ""}</span>`, html`<div class="in">
      ${queue.messages.length ? html`<h3>Waiting</h3><ul class="times">${queue.messages.map((one) => letter(queue, one, false, page))}</ul>` : nothing}
      ${queue.letters.length ? html`<h3>Dead letters</h3><ul class="times">${queue.letters.map((one) => letter(queue, one, true, page))}</ul>` : nothing}
      ${queue.dead > queue.letters.length ? html`<p class="soft">… and ${queue.dead - queue.letters.length} more</p>` : nothing}
    </div>`, html`${queue.waiting ? tag(`${queue.waiting} wait`, "warn") : nothing}${queue.dead ? html`${tag(plural(queue.dead, "dead letter"), "bad")}${queue.name === "jobs" ? nothing : button("Redrive all", "redrive", { queue: queue.name })}` : nothing}`))}
    ${card("Empty queues", quiet.length ? html`<div class="in"><ul class="times">${quiet.map((queue) => html`<li><strong>${queue.name}</strong><span class="grow soft">${queue.consumer ? `→ ${queue.consumer}` : "letters of scheduled functions"}</span>${tag("nothing waits", "good")}</li>`)}</ul></div>` : empty("None."))}`;
}

function letter(queue, one, dead, page) {
  return html`<li><span class="grow">${one.type || "message"} ${one.event ? html`<a class="mono" href=${page.address("events", one.event)}>${one.event}</a>` : html`<span class="mono">${one.id}</span>`}</span>
    ${one.reason ? tag(one.reason, "bad") : nothing}
    <span class="soft">sent ${time(one.sent)}, received ${plural(one.receives, "time")}${one.visible || dead ? "" : html`, again at ${time(one.visibleAt)}`}</span>
    ${dead && queue.name !== "jobs" ? button("Redrive", "redrive", { queue: queue.name, message: one.id }) : nothing}
    <details class="own"><summary>Body</summary>${json(one.body, "Body")}</details></li>`;
}
