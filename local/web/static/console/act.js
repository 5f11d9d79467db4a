// What a button does: POST /_console/<verb>, with the token that this page was given.
import { html, note } from "./ui.js";

const token = document.querySelector('meta[name="kyora-console-token"]').content;

/** Ask for a verb; returns its answer, or throws an Error with its sentence. */
export async function ask(verb, given = {}) {
  let answer, found;
  try {
    answer = await fetch(`/_console/${verb}`, {
      method: "POST",
      headers: { "Content-Type": "application/json", "X-Kyora-Token": token },
      body: JSON.stringify(given),
      signal: AbortSignal.timeout(100000),
    });
    found = await answer.json();
  } catch (error) {
    throw new Error(error.name === "TimeoutError" ? "No answer in 100 seconds." : "The local stack does not answer. Is `make run` still running?");
  }
  if (answer.status === 401) throw new Error("The stack was started again since this page was loaded: reload the page.");
  if (!answer.ok) throw new Error([...(found.said || []), found.error].join("\n"));
  return found;
}

/** Read a view once. */
export async function read(view) {
  const answer = await fetch(`/_console/${view}`, { signal: AbortSignal.timeout(20000) });
  const found = await answer.json();
  if (!answer.ok) throw new Error(found.fault || found.error);
  return found;
}

/** Do something for a button: busy meanwhile, and say how it went. */
export async function press(button, verb, given) {
  if (button.getAttribute("aria-busy") === "true") return null;
  button.setAttribute("aria-busy", "true");
  try {
    const found = await ask(verb, given);
    note(found.said.join("\n") || "Done.");
    return found;
  } catch (error) {
    note(error.message, true);
    return null;
  } finally {
    button.removeAttribute("aria-busy");
  }
}

/** A button for a verb. */
export function button(text, verb, given = {}, kind = "small") {
  return html`<button class=${kind} data-verb=${verb} @click=${(event) => press(event.currentTarget, verb, given)}>${text}</button>`;
}
