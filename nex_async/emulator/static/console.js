"use strict";
// What comes from the server may hold anything anybody has written: it goes into the page as text, never as markup.

const byId = (id) => document.getElementById(id);
const MOST_ROWS = 300;

function element(tag, text, className) {
  const made = document.createElement(tag);
  if (text !== undefined && text !== null) made.textContent = text;
  if (className) made.className = className;
  return made;
}

async function ask(path, options) {
  const response = await fetch(path, options);
  const text = await response.text();
  const value = text ? JSON.parse(text) : null;
  if (!response.ok) throw new Error(value && value.message ? value.message : `status ${response.status}`);
  return value;
}

function send(method, path, value) {
  const body = value === undefined ? undefined : JSON.stringify(value);
  return ask(path, { method, body, headers: body ? { "Content-Type": "application/json" } : {} });
}

function tell(id, text, failed) {
  byId(id).textContent = text;
  byId(id).classList.toggle("bad", Boolean(failed));
}

// Objects and records

const view = { object: "", offset: 0, total: 0, size: 50 };

async function showWorkspace() {
  const held = await ask("workspace");
  if (!view.object && held.objects.length) view.object = held.objects[0].slug;
  const focused = document.activeElement && document.activeElement.dataset ? document.activeElement.dataset.slug : null;
  byId("objects").replaceChildren(...held.objects.map(objectButton));
  if (focused) [...byId("objects").children].find((each) => each.dataset.slug === focused)?.focus();
  const counts = { ...held.counts, listeners: held.listeners };
  byId("counts").replaceChildren(...Object.entries(counts).map(([name, count]) => {
    const pair = element("div");
    pair.append(element("dt", name), element("dd", count));
    return pair;
  }));
  return held;
}

function objectButton(object) {
  const button = element("button", object.name || object.slug);
  button.type = "button";
  button.dataset.slug = object.slug;
  button.setAttribute("aria-pressed", String(object.slug === view.object));
  button.append(element("span", object.count));
  button.addEventListener("click", () => { view.object = object.slug; view.offset = 0; refresh(); });
  return button;
}

async function showRecords() {
  if (!view.object) return;
  const page = await ask(`records?object=${encodeURIComponent(view.object)}&offset=${view.offset}`);
  const slugs = [...new Set(page.data.flatMap((row) => Object.keys(row.attributes)))];
  view.total = page.total;
  byId("columns").replaceChildren(...["id", ...slugs, "updated"].map((name) => element("th", name)));
  byId("rows").replaceChildren(...page.data.map((row) => recordRow(row, slugs)));
  byId("columns").parentElement.hidden = !page.data.length;
  byId("no-rows").hidden = page.data.length > 0;
  const last = view.offset + page.data.length;
  byId("span").textContent = page.data.length ? `${view.offset + 1} to ${last} of ${page.total}` : `${page.total} in all`;
  byId("newer").disabled = view.offset === 0;
  byId("older").disabled = last >= page.total;
}

function recordRow(row, slugs) {
  const made = element("tr");
  made.append(element("td", row.id, "id"));
  for (const slug of slugs) {
    const text = plain(row.attributes[slug]), cell = element("td", text);
    cell.title = text;
    made.append(cell);
  }
  made.append(element("td", row.updated_at));
  return made;
}

function plain(value) {
  if (value === undefined || value === null) return "";
  if (Array.isArray(value)) return value.map(plain).join(", ");
  return typeof value === "object" ? Object.values(value).map(plain).filter(Boolean).join(" ") : String(value);
}

let refreshing = null;
function refresh() {
  if (refreshing) { refreshing.again = true; return; }
  refreshing = { again: false };
  Promise.all([showWorkspace(), showRecords()]).catch(() => {}).finally(() => {
    const again = refreshing.again;
    refreshing = null;
    if (again) refresh();
  });
}

let planned = 0;
function refreshSoon() {
  if (!planned) planned = setTimeout(() => { planned = 0; refresh(); }, 400);
}

byId("newer").addEventListener("click", () => { view.offset = Math.max(0, view.offset - view.size); refresh(); });
byId("older").addEventListener("click", () => { view.offset += view.size; refresh(); });

// Insights

function insightItem(insight, isNew) {
  const item = element("li", null, isNew ? "new" : "");
  const about = insight.target ? `${insight.target.hint} (${insight.target.entity_type})` : "the workspace";
  item.append(element("span", insight.type, "kind"), element("span", insight.content));
  item.append(element("small", `${about}, confidence ${insight.confidence}, ${insight.created_at}`));
  return item;
}

function addInsights(insights, isNew) {
  const feed = byId("feed");
  for (const insight of insights) feed.prepend(insightItem(insight, isNew));
  while (feed.childElementCount > MOST_ROWS) feed.lastElementChild.remove();
  byId("no-insights").hidden = feed.childElementCount > 0;
}

byId("ingest").addEventListener("submit", async (event) => {
  event.preventDefault();
  const content = byId("content").value, context = byId("context").value;
  try {
    const receipt = await send("POST", "texts", context ? { content, context } : { content });
    tell("ingest-outcome", `taken in${receipt ? "" : ", without a receipt"}`);
    byId("content").value = "";
    refreshSoon();
  } catch (error) {
    tell("ingest-outcome", error.message, true);
  }
});
byId("content").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) byId("ingest").requestSubmit();
});

// Requests

const seen = new Map();

function addRequests(entries) {
  for (const entry of entries) {
    const row = requestRow(entry), known = seen.get(entry.number);
    if (known) known.replaceWith(row); else byId("requests").prepend(row);
    seen.set(entry.number, row);
  }
  while (seen.size > MOST_ROWS) {
    const oldest = seen.keys().next().value;
    seen.get(oldest).remove();
    seen.delete(oldest);
  }
  byId("no-requests").hidden = seen.size > 0;
}

function requestRow(entry) {
  const row = element("tr");
  const target = entry.path.replace("/api/developers", "") + (entry.query ? `?${entry.query}` : "");
  const request = element("td", `${entry.method} ${target}`);
  request.title = entry.operation || "no operation of the API";
  row.append(element("td", entry.number, "number"), element("td", clock(entry.time)), request, statusCell(entry.status));
  row.append(element("td", entry.received || "", "number"), element("td", entry.sent || "", "number"));
  row.append(element("td", entry.fault, "warn"));
  row.dataset.text = `${entry.method} ${target} ${entry.operation} ${entry.status} ${entry.fault}`.toLowerCase();
  row.hidden = !matches(row);
  return row;
}

function statusCell(status) {
  if (status === null) return element("td", "open", "warn");
  if (status === 0) return element("td", "broken", "bad");
  return element("td", status, status < 400 ? "good" : "bad");
}

const clock = (seconds) => new Date(seconds * 1000).toLocaleTimeString([], { hour12: false });
const matches = (row) => row.dataset.text.includes(byId("filter").value.trim().toLowerCase());

byId("filter").addEventListener("input", () => { for (const row of seen.values()) row.hidden = !matches(row); });
byId("clear-log").addEventListener("click", async () => {
  await send("DELETE", "requests");
  forget();
});

function forget() {
  seen.clear();
  byId("requests").replaceChildren();
  byId("no-requests").hidden = false;
}

// Faults and switches

async function showFaults() {
  const { faults } = await ask("faults");
  byId("faults").replaceChildren(...faults.map(faultItem));
}

function faultItem(fault) {
  const item = element("li"), button = element("button", "Remove");
  const often = fault.times === null ? "until cleared" : fault.times === 1 ? "once" : `${fault.times} times`;
  const told = element("code", `${fault.kind} on ${fault.route || "every operation"}, ${often}; struck ${fault.hits}`);
  button.type = "button";
  button.setAttribute("aria-label", `Remove fault ${fault.kind}`);
  button.addEventListener("click", async () => { await send("DELETE", `faults?id=${fault.id}`).catch(() => {}); showFaults(); });
  item.append(told, button);
  return item;
}

byId("fault").addEventListener("submit", async (event) => {
  event.preventDefault();
  const times = byId("times").value;
  try {
    const more = byId("more").value.trim() ? JSON.parse(byId("more").value) : {};
    const spec = { kind: byId("kind").value, times: times ? Number(times) : null, ...more };
    if (byId("route").value) spec.route = byId("route").value;
    await send("POST", "faults", spec);
    tell("fault-outcome", "added");
  } catch (error) {
    tell("fault-outcome", error.message, true);
  }
  showFaults();
});
byId("clear-faults").addEventListener("click", async () => { await send("DELETE", "faults"); showFaults(); });

let initialSwitches = null;

function showSwitches({ switches, choices }) {
  initialSwitches = initialSwitches || switches;
  byId("switches").replaceChildren(...Object.entries(switches).map(([name, value]) => switchControl(name, value, choices[name])));
}

function switchControl(name, value, choices) {
  const label = element("label", name.replaceAll("_", " ")), control = element(choices ? "select" : "input");
  for (const choice of choices || []) control.append(element("option", choice));
  control.value = value;
  control.name = name;
  const standard = choices ? choices[0] : null;
  label.classList.toggle("changed", standard !== null && value !== standard);
  control.addEventListener("change", () => turn(name, control.value));
  label.append(control);
  return label;
}

async function turn(name, value) {
  try {
    showSwitches(await send("PUT", "switches", { [name]: value }));
    tell("switch-outcome", `${name} is now ${value}`);
  } catch (error) {
    tell("switch-outcome", error.message, true);
    showSwitches(await ask("switches"));
  }
  document.getElementsByName(name)[0]?.focus();
}
byId("reset-switches").addEventListener("click", async () => {
  showSwitches(await send("DELETE", "switches"));
  tell("switch-outcome", "as the server was started");
});

// The live line

function listen() {
  const source = new EventSource("events");
  let isFirst = true;
  source.addEventListener("open", () => {
    isFirst = true;
    byId("link").classList.add("live");
    byId("link-text").textContent = "live";
  });
  source.addEventListener("error", () => {
    byId("link").classList.remove("live");
    byId("link-text").textContent = "the emulator is gone; trying again";
    if (source.readyState === EventSource.CLOSED) setTimeout(listen, 1000);
  });
  source.addEventListener("message", (event) => {
    const news = JSON.parse(event.data);
    if (isFirst) {
      byId("feed").replaceChildren();
      forget();
    }
    addInsights(news.insights, !isFirst);
    addRequests(news.requests);
    if (!isFirst && (news.insights.length || news.requests.length)) refreshSoon();
    if (news.requests.some((entry) => entry.fault)) showFaults();
    isFirst = false;
  });
}

async function start() {
  try {
    const held = await showWorkspace();
    byId("kind").append(...held.kinds.map((kind) => element("option", kind)));
    byId("route").append(...held.operations.map((name) => element("option", name)));
    showSwitches(await ask("switches"));
    await Promise.all([showRecords(), showFaults()]);
  } catch (error) {
    byId("link-text").textContent = error.message;
  }
  listen();
}
start();
