import { button, press } from "../act.js";
import { card, empty, facts, html, nothing, tag, time } from "../ui.js";

export const title = "Clock";
export const lead = "What time it is for functions, database, schedules, signatures and Stripe's stand-in. They move together, step by step; what falls due on the way happens.";

const STEPS = [["+1h", "An hour on"], ["+1d", "A day on"], ["+7d", "A week on"], ["+30d", "A month on"]];
const GOALS = { renewal: "Past the next renewal", "trial-end": "Past the end of the trial", "grace-end": "Past the end of the grace period" };

export function list(asked) { return asked.workspace ? `clock?workspace=${encodeURIComponent(asked.workspace)}` : "clock"; }

export function draw(data, page) {
  const given = page.asked.workspace ? { workspace: page.asked.workspace } : {};
  const busy = data.movingTo;
  const goals = Object.entries(GOALS).filter(([name]) => data.goals[name]);
  return html`
    ${card("Now", html`<div class="in">${facts([
      ["Time here", time(data.now)],
      ["Ahead of this machine", data.aheadSeconds ? ahead(data.aheadSeconds) : "not at all"],
      ["On the way to", busy ? html`${time(busy)} ${tag("moving", "warn")}` : ""],
    ])}</div>`, data.aheadSeconds && !busy ? button("Back to this machine's time", "time", { to: "reset" }) : nothing)}
    ${data.fixed ? card("Move it", html`<div class="in"><p>It cannot be moved: ${data.fixed}.</p></div>`) : card("Move it", html`<div class="in">
      ${busy ? html`<p class="soft" role="status">It is being moved.</p>` : html`
        <div class="bar">${STEPS.map(([to, text]) => button(text, "time", { to }))}</div>
        <form class="bar" @submit=${(event) => go(event)}><label>Or to a date, or by a time such as +36h
          <input type="text" name="to" required placeholder="+36h" autocomplete="off"></label><button class="small">Move</button></form>`}
    </div>`)}
    ${card(`Of ${page.asked.workspace || "the demo workspace"}`, goals.length ? html`<div class="in"><ul class="times">${goals.map(([name, text]) => html`<li>
      <span class="grow">${text} <span class="soft">${time(data.goals[name])}</span></span>${busy || data.fixed ? nothing : button("Move there", "time", { to: name, ...given })}</li>`)}</ul></div>`
    : empty("Nothing of it falls due. A subscription gives it a renewal:", "make run prints the command"))}
    ${data.faults.length ? card("What failed on the way", html`<div class="in"><ul class="times">${data.faults.map((one) => html`<li>${one}</li>`)}</ul></div>`) : nothing}`;
}

function go(event) {
  event.preventDefault();
  const form = event.currentTarget;
  press(form.querySelector("button"), "time", { to: form.elements.to.value.trim() });
}

function ahead(seconds) {
  const days = Math.floor(seconds / 86400), hours = Math.floor((seconds % 86400) / 3600), minutes = Math.floor((seconds % 3600) / 60);
  return [days && `${days} d`, hours && `${hours} h`, minutes && `${minutes} min`].filter(Boolean).join(" ") || `${seconds} s`;
}
