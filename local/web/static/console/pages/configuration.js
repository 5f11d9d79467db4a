import { bytes, card, html, nothing, table, tag } from "../ui.js";

export const title = "Configuration";
export const lead = "What is in force, with secrets masked. docs/configuration.md says what each variable means.";

export function list() { return "configuration"; }

export function draw(data) {
  return html`
    ${card("This stack", table("This stack", [["Part"], ["Value", "wrap"]], data.stack.map((one) => [one.name, [one.name, html`<code>${one.value}</code>`]]), nothing))}
    ${card("Variables of every function", variables("Variables of every function", data.shared))}
    ${data.functions.map((one) => card(html`<span class="mono">${one.name}</span>`, html`
      <div class="in soft">${one.memoryMb} MB, ${one.timeout} s, ${bytes(one.codeBytes)} of code, layers ${one.layers.join(", ") || "none"}</div>
      ${one.variables.length ? variables(`Variables of ${one.name}`, one.variables) : nothing}`))}`;
}

function variables(name, found) {
  return table(name, [["Variable"], ["Value", "wrap"]], found.map((one) => [one.name, [
    html`<code>${one.name}</code>`, one.value ? html`<code>${one.value}</code> ${one.from ? tag(one.from) : nothing}` : html`<span class="soft">not set</span>`,
  ]]), nothing);
}
