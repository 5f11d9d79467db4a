import { button } from "../act.js";
import { invoke, sendEvent } from "../dialogs.js";
import { card, duration, empty, html, nothing, plural, table, tag, time, tone } from "../ui.js";

export const title = "Overview";
export const lead = "What runs, what needs a look, and what happened last.";

export function buttons() {
  return html`<button class="main" @click=${() => sendEvent()}>Send an event</button>
    <button @click=${() => invoke("check_health")}>Invoke a function</button>`;
}

export function draw(data, page) {
  const figures = data.figures;
  return html`
    <div class="grid">${data.parts.map((part) => html`<div class="stat">
      <strong><span class="dot ${part.up ? "up" : "down"}"></span>${part.name}</strong>
      <span class="soft">${part.up ? (part.address.endsWith("/") ? html`<a href=${part.address}>its dashboard</a>` : part.address || "up") : part.detail || "does not answer"}</span>
    </div>`)}</div>
    ${card("To look at", data.attention.length ? html`<div class="in"><ul class="times">${data.attention.map((one) => attention(one, page))}</ul></div>` : empty("Nothing. No function failed at its last run, and there is no dead letter."))}
    ${figures ? html`<div class="grid">
      ${stat(figures.uploads, "uploads in a day", page.address("uploads"), figures.uploadsOpen && `${figures.uploadsOpen} not confirmed`)}
      ${stat(figures.events, "events in a day", page.address("events"), figures.eventsWaiting && `${figures.eventsWaiting} in the outbox`)}
      ${stat(figures.mails, "mails in the mailbox", "/mailbox")}
      ${stat(data.functions, "functions", page.address("invocations"))}
    </div>` : nothing}
    ${card("Latest invocations", latest(data.latest, page))}`;
}

function stat(n, text, href, more) {
  return html`<div class="stat"><strong class="num-start">${n}</strong><span class="soft"><a href=${href}>${text}</a>${more ? `, ${more}` : ""}</span></div>`;
}

function attention(one, page) {
  if (one.what === "function") return html`<li>${tag(one.status, "bad")}<span class="grow"><a href=${page.address("invocations", one.id)}>${one.function}</a> at its last run, ${time(one.at)}</span></li>`;
  if (one.what === "code") return html`<li>${tag("not deployed", "bad")}<span class="grow">The last version keeps running.<pre>${one.text}</pre></span></li>`;
  if (one.what === "queue") return html`<li>${tag(plural(one.dead, "dead letter"), "bad")}<span class="grow"><a href=${page.address("queues")}>${one.queue}</a></span>${button("Redrive", "redrive", { queue: one.queue })}</li>`;
  return html`<li>${tag(one.count, "bad")}<span class="grow"><a href=${one.what === "mails" ? "/mailbox" : page.address(one.what)}>${one.text}</a></span></li>`;
}

function latest(lines, page) {
  return table("Latest invocations", [["Function"], ["Trigger", "wrap"], ["Status"], ["Took", "num less"], ["At", "less"]],
    lines.map((line) => [line.id, [
      html`<a href=${page.address("invocations", line.id)}>${line.function}</a>`, line.trigger.text,
      tag(line.status, tone(line.good)), duration(line.ms), time(line.at),
    ]]),
    empty("Nothing has been asked of it yet. Paste the commands that make run printed, or press Send an event."));
}
