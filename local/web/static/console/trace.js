// The waterfall of a story: a card for each unit of work, a row for each of its spans.
const element = (tag, attributes = {}, ...children) => {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children.filter((child) => child !== ""));
  return made;
};

const time = (ms) => (ms >= 1000 ? `${(ms / 1000).toFixed(2)} s` : `${ms.toFixed(1)} ms`);

// What a span is, by its attributes and OTLP's kind: 3 calls another service.
const kind = (span) => {
  if (span.attributes["db.query.text"]) return "sql";
  if (span.attributes["kyora.wait"]) return "wait";
  return span.kind === 3 || span.kind === 4 ? "vendor" : "";
};

function row(span, from, whole, deep) {
  const bar = element("span", { class: "bar-of" });
  bar.style.left = `${Math.min(99, (Math.max(0, span.at - from) / whole) * 100)}%`;
  bar.style.width = `${(span.ms / whole) * 100}%`;
  const text = span.attributes["db.query.text"] || span.attributes["url.path"] || span.name;
  const classes = ["row", deep ? "deep" : "", kind(span), span.error ? "bad" : ""];
  return element("li", { class: classes.filter(Boolean).join(" "), title: text },
    element("span", { class: "name" }, span.name + (span.error ? ` · ${span.error}` : "")),
    element("span", { class: "num" }, time(span.ms)),
    element("span", { class: "line", "aria-hidden": "true" }, bar));
}

// Each unit has a time line of its own, from the message's arrival in the queue: the overview has the story's.
function unit(found, numbers) {
  const from = Math.min(found.at, ...found.spans.map((span) => span.at));
  const whole = Math.max(found.at + found.ms - from, 0.1);
  const tags = [element("span", { class: "tag" }, found.function || "unit")];
  if (found.cold) tags.push(element("span", { class: "tag warn" }, `cold start${found.initMs ? ` ${time(found.initMs)}` : ""}`));
  if (found.error) tags.push(element("span", { class: "tag bad" }, found.error));
  const status = found.attributes["http.response.status_code"];
  if (status) tags.push(element("span", { class: `tag ${status < 400 ? "good" : status < 500 ? "warn" : "bad"}` }, String(status)));
  const causes = found.links.map((link) => numbers.get(link.spanId)).filter(Boolean);
  const meta = element("p", { class: "meta" },
    element("span", {}, `begins at ${time(found.at)}`),
    causes.length ? element("span", {}, `caused by ${[...new Set(causes)].map((n) => `no. ${n}`).join(", ")}`) : "",
    found.memoryMb ? element("span", {}, `${found.memoryMb} MB`) : "",
    element("span", { class: "mono" }, `trace ${found.traceId}`));
  const rows = element("ul", { class: "rows" }, row(found, from, whole, false), ...found.spans.map((span) => row(span, from, whole, true)));
  const card = element("section", { class: "card", id: found.spanId },
    element("header", {}, element("h2", {}, `${numbers.get(found.spanId)}. ${found.name}`, ...tags)), meta, rows);
  if (found.log.length) {
    const lines = found.log.map((line) => `${line.level}  ${line.text}`).join("\n");
    const count = `${found.log.length} log line${found.log.length === 1 ? "" : "s"}`;
    card.append(element("details", {}, element("summary", {}, count), element("pre", {}, lines)));
  }
  return card;
}

function overview(story, numbers) {
  const whole = Math.max(story.ms, 0.1);
  const rows = story.units.map((found) => {
    const made = row({ ...found, name: `${numbers.get(found.spanId)}. ${found.name}` }, 0, whole, false);
    const name = made.querySelector(".name");
    name.replaceChildren(element("a", { href: `#${found.spanId}` }, name.textContent));
    return made;
  });
  return element("section", { class: "card" }, element("header", {}, element("h2", {}, "The whole story")),
    element("ul", { class: "rows" }, ...rows));
}

function show(story) {
  const numbers = new Map();
  story.units.forEach((found, index) => {
    numbers.set(found.spanId, index + 1);
    found.spans.forEach((span) => numbers.set(span.spanId, index + 1));
  });
  document.title = `${story.name} · trace`;
  document.getElementById("title").textContent = story.name;
  document.getElementById("lead").replaceChildren(
    `${story.units.length} unit${story.units.length === 1 ? "" : "s"} of work in ${time(story.ms)}, from ${new Date(story.startedAt * 1000).toLocaleString()}; `,
    element("code", {}, `make trace ID=${story.id}`), " says what became of it.");
  const legend = element("p", { class: "legend" }, element("span", {}, "function"),
    element("span", { class: "sql" }, "SQL"), element("span", { class: "vendor" }, "another service"),
    element("span", { class: "wait" }, "in a queue"));
  document.getElementById("units").replaceChildren(
    legend, overview(story, numbers), ...story.units.map((found) => unit(found, numbers)));
}

function list(stories) {
  document.getElementById("title").textContent = "Traces";
  const every = location.search.includes("all");
  const other = element("a", { href: every ? "/trace/" : "/trace/?all" }, every ? "Leave out scheduled runs" : "Show scheduled runs");
  document.getElementById("lead").replaceChildren(stories.length
    ? "The newest stories: a request, message or run, with all that it caused. "
    : "No span yet. Send a request, for example one of those that make run prints. ", other);
  const body = element("tbody", {}, ...stories.map((one) => element("tr", {},
    element("td", { class: "wrap" }, element("a", { href: `/trace/${encodeURIComponent(one.id)}` }, one.name)),
    element("td", { class: "wrap" }, one.functions.join(", ")),
    element("td", { class: "num" }, time(one.ms)),
    element("td", {}, new Date(one.startedAt * 1000).toLocaleTimeString()))));
  const head = element("thead", {}, element("tr", {}, ...["Begins with", "Functions", "Took", "At"].map((text) => element("th", {}, text))));
  document.getElementById("units").replaceChildren(stories.length
    ? element("div", { class: "card" }, element("div", { class: "scroll", tabindex: "0" }, element("table", {}, head, body))) : "");
}

const asked = decodeURIComponent(location.pathname.replace(/^\/trace\/?/, ""));
const answer = await fetch(asked ? `/_local/traces/${encodeURIComponent(asked)}` : `/_local/traces${location.search}`);
const found = await answer.json();
if (!answer.ok) document.getElementById("lead").textContent = `No span has the id ${asked}: the store keeps those of this start, the newest first.`;
else if (asked) show(found);
else list(found.traces);
