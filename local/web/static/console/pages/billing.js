import { button } from "../act.js";
import { bytes, card, day, empty, html, nothing, plural, table, tag, time } from "../ui.js";

export const title = "Billing";
export const lead = "What each workspace may do, its subscriptions and invoices, and whether our plans are Stripe’s.";

export function list() { return "billing"; }

export function buttons() {
  return html`${button("Sync plans", "sync-plans", {}, "")}${button("Check plans", "sync-plans", { check: true }, "")}${button("Reconcile", "reconcile", {}, "")}`;
}

const ACCESS = { full: "good", grace: "warn" };
const INVOICE = { paid: "good", open: "warn", uncollectible: "bad" };

function ends(one) {
  if (one.ended) return html`ended ${day(one.ended)}`;
  if (one.cancelAt) return html`ends ${day(one.cancelAt)}`;
  return one.periodEnd ? html`renews ${day(one.periodEnd)}` : "";
}

export function draw(data, page) {
  return html`
    ${card("Workspaces", table("Workspaces", [["Workspace"], ["Plan"], ["Access"], ["At Stripe", "less"], ["Until"], [""]],
      data.workspaces.map((one) => [one.workspace, [
        html`<span class="mono">${one.workspace}</span>`, one.plan || html`<span class="soft">free, never changed</span>`, tag(one.access || "free", ACCESS[one.access]),
        one.status || "", one.until ? day(one.until) : "", button("Why?", "why", { workspace: one.workspace }),
      ]]), empty("There is no workspace.")))}
    ${card("Subscriptions", table("Subscriptions", [["Subscription"], ["Status"], ["Plan"], ["Workspace", "less"], ["Next"], ["Began", "less"]],
      data.subscriptions.map((one) => [one.id, [
        html`<a class="mono" href=${page.address("stripe", "", { text: one.id })}>${one.id}</a>`,
        html`${tag(one.status, one.status === "active" || one.status === "trialing" ? "good" : "warn")}${one.doubtful ? tag("to be read again", "warn") : nothing}`,
        one.plan || one.price, html`<span class="mono">${one.workspace || "of no workspace"}</span>`, ends(one), day(one.began),
      ]]), empty("No subscription yet. The fourth command that make run printed begins a checkout.")))}
    ${card("Invoices", table("Invoices", [["Invoice"], ["Status"], ["Total", "num"], ["Paid", "num"], ["Still due", "num less"], ["At"]],
      data.invoices.map((one) => [one.id, [
        html`<a class="mono" href=${page.address("stripe", "", { text: one.id })}>${one.number || one.id}</a>`, tag(one.status, INVOICE[one.status]), one.total, one.amountPaid,
        one.status === "open" ? one.amountDue : "", time(one.at),
      ]]), empty("No invoice yet.")))}
    ${card("Plans", html`${run(data.runs.plans, "sync")}${table("Plans", [["Plan"], ["Amount", "num"], ["Offered"], ["Limits", "wrap less"], ["Price", "less"]],
      data.plans.map((one) => [one.id, [
        html`<strong>${one.name}</strong> <span class="mono soft">${one.id}</span>`, `${one.amount} a ${one.intervalCount > 1 ? one.intervalCount + " " : ""}${one.interval}`,
        one.active ? tag("yes", "good") : tag("archived"), limits(one.limits), html`<span class="mono">${one.price}</span>`,
      ]]), empty("No plan yet:", "make push-plans FILE=plans.toml"))}`)}
    ${card("Comparison with Stripe", run(data.runs.reconcile, "reconcile"))}`;
}

function limits(found) {
  return Object.entries(found || {}).map(([name, value]) => `${name} ${Number(value) < 0 ? "unlimited" : name.endsWith("Bytes") ? bytes(Number(value)) : value}`).join(", ");
}

function run(found, what) {
  const result = found?.result || {}, drift = result.drift || [], faults = result.faults || [];
  if (!found?.started) return empty(`The first ${what} has not run yet.`);
  return html`<div class="in"><p>Last ${what}: began ${time(found.started)}${found.finished ? "" : ", not finished"}. ${drift.length ? "" : "Nothing differed."}</p>
    ${drift.length ? html`<p>${tag(plural(drift.length, "difference"), "warn")}</p><ul>${drift.map((one) => html`<li>${typeof one === "string" ? one : `${one.id} ${one.field}: ${one.ours} → ${one.stripe}`}</li>`)}</ul>` : nothing}
    ${faults.length ? html`<p>${tag(plural(faults.length, "fault"), "bad")}</p><ul>${faults.map((one) => html`<li>${one}</li>`)}</ul>` : nothing}</div>`;
}
