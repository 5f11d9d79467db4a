// Two forms: an event for the bus, and an event for a function. Each begins with a sample.
import { render } from "./vendor/lit-html/lit-html.js";
import { live } from "./vendor/lit-html/directives/live.js";
import { ask, read } from "./act.js";
import { html, json, log, nothing, note } from "./ui.js";

function open(draw) {
  const dialog = document.createElement("dialog");
  const state = { busy: false, answer: null, error: "" };
  const again = () => render(draw(state, again, () => dialog.close()), dialog);
  dialog.setAttribute("aria-labelledby", "dialog-title");
  document.body.append(dialog);
  dialog.addEventListener("close", () => dialog.remove());
  again();
  dialog.showModal();
  return { state, again };
}

async function send(state, again, verb, given) {
  Object.assign(state, { busy: true, error: "", answer: null });
  again();
  try {
    state.answer = await ask(verb, given());
  } catch (error) {
    state.error = error.message;
  }
  state.busy = false;
  again();
}

function parsed(text, what) {
  try { return JSON.parse(text); } catch (error) { throw new Error(`${what} is not JSON: ${error.message}`); }
}

/** Put an event on the bus: a sample, or `given` = {name, data, workspaceId} to edit. */
export async function sendEvent(given = null) {
  let samples;
  try { samples = (await read("samples")).events; } catch (error) { note(error.message, true); return; }
  const first = given || samples.find((one) => one.name === "UserWelcomed");
  const { state, again } = open((state, again, close) => html`
    <form @submit=${(event) => {
      event.preventDefault();
      send(state, again, "emit", () => ({ event: state.name, data: parsed(state.text, "The data"), workspace: state.workspace || null }));
    }}>
      <h2 id="dialog-title">Send an event</h2>
      <label>Event<select name="event" @change=${(event) => {
        const one = samples.find((sample) => sample.name === event.target.value);
        Object.assign(state, { name: one.name, text: JSON.stringify(one.data, null, 2) });
        again();
      }}>${samples.map((one) => html`<option value=${one.name} ?selected=${one.name === state.name}>${one.name}${one.consumers.length ? ` → ${one.consumers.join(", ")}` : ""}</option>`)}</select></label>
      <label>Workspace<input type="text" name="workspace" .value=${live(state.workspace || "")} @input=${(event) => { state.workspace = event.target.value; }}></label>
      <label>Data<textarea name="data" rows="12" spellcheck="false" .value=${live(state.text || "")} @input=${(event) => { state.text = event.target.value; }}></textarea></label>
      ${outcome(state)}
      <div class="row"><button type="button" @click=${close}>Close</button><button class="main" ?disabled=${state.busy} aria-busy=${state.busy}>Send</button></div>
    </form>`);
  Object.assign(state, { name: first.name, workspace: first.workspaceId, text: JSON.stringify(first.data, null, 2) });
  again();
}

/** Invoke a function with a sample of its trigger, or with `event` to edit. */
export async function invoke(name, event = null) {
  let names, found;
  const choose = async (chosen) => { found = await read(`samples/${encodeURIComponent(chosen)}`); };
  try { names = (await read("samples")).functions; await choose(name); } catch (error) { note(error.message, true); return; }
  const first = () => JSON.stringify(found.samples[0]?.event ?? {}, null, 2);
  const { state, again } = open((state, again, close) => html`
    <form @submit=${(submitted) => {
      submitted.preventDefault();
      send(state, again, "invoke", () => ({ function: state.name, event: parsed(state.text, "The event") }));
    }}>
      <h2 id="dialog-title">Invoke a function</h2>
      <label>Function<select name="function" @change=${async (changed) => {
        try {
          await choose(changed.target.value);
          Object.assign(state, { name: found.function, text: first(), answer: null });
          again();
        } catch (error) { note(error.message, true); }
      }}>${names.map((one) => html`<option value=${one} ?selected=${one === state.name}>${one}</option>`)}</select></label>
      ${found.samples.length > 1 ? html`<label>Sample<select name="sample" @change=${(changed) => {
        state.text = JSON.stringify(found.samples[changed.target.selectedIndex].event, null, 2);
        again();
      }}>${found.samples.map((one) => html`<option>${one.name}</option>`)}</select></label>` : nothing}
      <label>Event<textarea name="event" rows="13" spellcheck="false" .value=${live(state.text || "")} @input=${(typed) => { state.text = typed.target.value; }}></textarea></label>
      <p class="soft">\${KYORA_TOKEN}, \${SIGNATURE} and what else .local/env names are filled in when it is sent.</p>
      ${outcome(state)}
      <div class="row"><button type="button" @click=${close}>Close</button><button class="main" ?disabled=${state.busy} aria-busy=${state.busy}>Invoke</button></div>
    </form>`);
  Object.assign(state, { name, text: event ? JSON.stringify(event, null, 2) : first() });
  again();
}

function outcome(state) {
  if (state.error) return html`<div class="alarm" role="alert">${state.error}</div>`;
  if (!state.answer) return nothing;
  const { said, result, log: lines, failed } = state.answer;
  return html`<div role="status">
    <p><span class="tag ${failed ? "bad" : "good"}">${said.join(" ") || "Done"}</span></p>
    ${result === undefined ? nothing : json(result, "Result")}
    ${lines ? html`<h3>Log</h3>${log(lines.filter((line) => line && !line.includes('"_aws"')).map((text) => ({ level: "", text })))}` : nothing}
  </div>`;
}
