import { sendEvent } from "../dialogs.js";
import { card, empty, html, table, time } from "../ui.js";

export const title = "Orders";
export const lead = "What update_analytics has counted by business and day, and the fees of paid orders.";

export function list() { return "orders"; }

export function buttons() { return html`<button @click=${() => sendEvent()}>Send an event</button>`; }

function listed(found) { return Object.entries(found || {}).map(([name, value]) => `${value} ${name}`).join(", "); }

export function draw(data) {
  return html`
    ${card("By day", table("Orders and customers by day", [["Day"], ["Business"], ["Orders", "num"], ["Revenue"], ["New customers, by source", "wrap"]],
      data.days.map((one) => [`${one.date} ${one.business}`, [one.date, html`<span class="mono">${one.business}</span>`, one.orders, listed(one.revenue) || "none", listed(one.customers) || "none"]]),
      empty("No order yet:", "make emit EVENT=OrderCreated")))}
    ${card("Fees", table("Fees of paid orders", [["Order"], ["Business", "less"], ["Paid by"], ["Fee", "num"], ["Paid at"]],
      data.fees.map((one) => [`${one.business} ${one.order}`, [html`<span class="mono">${one.order}</span>`, html`<span class="mono">${one.business}</span>`, one.method.replaceAll("_", " "), one.amount, time(one.at)]]),
      empty("No fee yet:", "make emit EVENT=OrderPaymentSucceeded")))}`;
}
