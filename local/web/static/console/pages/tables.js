import { card, empty, html, nothing, table } from "../ui.js";

export const title = "Tables";
export const lead = "The rows of every table and view, read-only. A value of a cell selects the rows that share it.";

export function list(asked, item) { return item ? `tables/${encodeURIComponent(item)}?${new URLSearchParams(asked)}` : "tables"; }

export function draw(data, page) {
  if (!page.item) return data.tables ? card("Tables", table("Tables", [["Table"], ["Kind"], ["Rows, about", "num"]],
    data.tables.map((one) => [one.name, [html`<a class="mono" href=${page.address("tables", one.name)}>${one.name}</a>`, one.view ? "view" : "table", one.view ? "" : one.estimate]]),
    empty("No table: is the database migrated?", "make migrate"))) : nothing;
  if (!data.columns) return nothing;
  const { asked, filter } = page, at = Number(data.page);
  return card(html`<span class="mono">${data.name}</span> <span class="soft">${data.count} rows</span>`, html`
    ${asked.where ? html`<div class="in"><button class="small" @click=${() => filter({ where: "", is: "", page: "" })}>Only where ${asked.where} is ${asked.is}: show all</button></div>` : nothing}
    ${table(`Rows of ${data.name}`, data.columns.map((column) => [html`<span class="mono">${column.name}</span><br>${column.type}${column.key ? ", key" : ""}`, ""]),
      data.rows.map((row, i) => [i, data.columns.map((column) => value(row[column.name], column, page))]), empty("No row."))}
    <div class="pages"><button class="small" ?disabled=${!at} @click=${() => filter({ page: String(at - 1) })}>Newer</button>
      ${data.rows.length ? `${at * data.perPage + 1} to ${at * data.perPage + data.rows.length}` : ""}
      <button class="small" ?disabled=${!data.more} @click=${() => filter({ page: String(at + 1) })}>Older</button></div>`,
    html`<a class="button small" href=${page.address("tables")}>All tables</a>`);
}

function value(text, column, page) {
  if (text === null) return html`<span class="soft">null</span>`;
  const short = text.length > 60 ? `${text.slice(0, 60)}…` : text;
  if (/(^|_)id$|^key$/.test(column.name) && text.length <= 120) return html`<a class="mono" href=${page.address("tables", page.item, { where: column.name, is: text })}>${short}</a>`;
  return html`<span class="mono" title=${text}>${short}</span>`;
}
