import { invoke } from "../dialogs.js";
import { card, copies, duration, empty, facts, html, json, log, nothing, plural, table, tag, time, tone } from "../ui.js";

export const title = "Invocations";
export const lead = "Each run of a function: what started it, what it answered, how long it took, what it logged.";
export const one = true;

export function list(asked) {
  return "invocations?" + new URLSearchParams({ ...asked, ...(asked.schedules ? {} : { quiet: "1" }) });
}

export function buttons() {
  return html`<button class="main" @click=${() => invoke("check_health")}>Invoke a function</button>`;
}

export function filters(data, page) {
  const { asked, filter } = page;
  return html`<div class="bar" role="search" aria-label="Filter">
    <label>Function<select @change=${(e) => filter({ function: e.target.value })}>
      <option value="">all</option>${data.functions?.map((name) => html`<option ?selected=${name === asked.function}>${name}</option>`)}</select></label>
    <label>About<input type="search" placeholder="ast_…, evt_…, a word" .value=${asked.text || ""} @change=${(e) => filter({ text: e.target.value })}></label>
    <label class="check"><input type="checkbox" .checked=${Boolean(asked.failed)} @change=${(e) => filter({ failed: e.target.checked ? "1" : "" })}>failed</label>
    <label class="check"><input type="checkbox" .checked=${Boolean(asked.schedules)} @change=${(e) => filter({ schedules: e.target.checked ? "1" : "" })}>schedules</label>
  </div>`;
}

export function draw(data, page) {
  return card(data.invocations.length === 200 ? "The newest 200" : plural(data.invocations.length, "invocation"), table("Invocations",
    [["Function"], ["Trigger", "wrap"], ["Status"], ["Took", "num"], ["Cold start", "num less"], ["Memory", "num less"], ["At", "aside"]],
    data.invocations.map((line) => [line.id, [
      html`<a href=${page.address("invocations", line.id, page.asked)}>${line.function}</a>`,
      line.trigger.text, tag(line.status, tone(line.good)), duration(line.ms),
      line.cold ? duration(line.initMs) : html`<span class="soft">warm</span>`,
      line.memoryMb ? `${line.memoryMb} MB` : "", time(line.at),
    ], line.id === page.item]),
    empty(Object.keys(page.asked).length ? "No invocation matches." : "No function has run but on its schedule. Invoke one, or call the API:", Object.keys(page.asked).length ? "" : ". .local/env; curl $KYORA_URL/v1/billing/plans")));
}

export function detail(data, page) {
  return html`
    <div class="tags">${tag(data.status, tone(data.good))}${copies(data.copy)}
      <button class="small" @click=${() => invoke(data.function, portable(data))}>Invoke again …</button></div>
    <h3>${data.function}</h3>
    ${facts([["Trigger", data.trigger.text], ["At", time(data.at)], ["Took", duration(data.ms)],
      ["Cold start", data.cold ? `${duration(data.initMs)} of it` : "no, the worker was warm"],
      ["Memory", data.memoryMb ? `${data.memoryMb} MB at most, of this worker` : ""],
      ["Trace", html`<a href=${`/trace/${encodeURIComponent(data.id)}`}>its waterfall</a>`],
      ["Correlation", data.correlationIds?.map((id) => html`<a href=${page.address("invocations", "", { text: id })} class="mono">${id}</a> `)],
      ["Events", data.eventIds?.length ? data.eventIds.map((id) => html`<a href=${page.address("events", id)} class="mono">${id}</a> `) : ""]])}
    <h3>Log</h3>${log(data.log || [])}
    ${data.request ? html`<h3>Request, as the front got it</h3>${facts([["", html`<code>${data.request.method} ${data.request.path}</code>`]])}${data.request.body ? json(data.request.body, "Request body") : nothing}
      <h3>Response: ${data.response.status} after ${duration(data.response.milliseconds)}</h3>${data.response.body ? json(data.response.body, "Response body") : nothing}
      <details><summary>Headers of both</summary>${json({ request: data.request.headers, response: data.response.headers }, "Headers")}</details>` : nothing}
    <h3>Event</h3>${json(data.event ?? null, "Event")}
    <h3>Result</h3>${json(data.result ?? null, "Result")}`;
}

// The event again, with the placeholders that are filled in when it is sent.
function portable(data) {
  const event = structuredClone(data.event);
  for (const name of Object.keys(event?.headers || {})) {
    if (name.toLowerCase() === "authorization") event.headers[name] = "Bearer ${KYORA_TOKEN}";
    if (["stripe-signature", "svix-signature"].includes(name.toLowerCase())) event.headers[name] = "${SIGNATURE}";
  }
  if (Array.isArray(event?.identitySource)) event.identitySource = ["Bearer ${KYORA_TOKEN}"];
  return event;
}
