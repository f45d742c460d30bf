"use strict";
// The page for people: everything on it comes from the service's own routes, nothing from elsewhere.
const at = id => document.getElementById(id);
let key = "", schema = null, example = {};

async function ask(path, options = {}) {
  const headers = { ...(options.headers || {}), ...(key ? { authorization: `Bearer ${key}` } : {}) };
  const reply = await fetch(path, { ...options, headers });
  if (reply.status === 401 || reply.status === 403 && !key) at("key").hidden = false;
  return reply;
}

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

function drawn(name, attributes, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

const kind = spec => (spec.anyOf || [spec]).find(s => s.type !== "null");
const number = value => typeof value === "number" ? Number(value.toPrecision(4)).toLocaleString("en", { maximumFractionDigits: 6 }) : String(value);

function field(name, spec, required) {
  const of = kind(spec), numeric = of.type === "number" || of.type === "integer", choices = of.enum || (of.const ? [of.const] : null);
  const given = example[name] ?? "";
  let input;
  if (choices || of.type === "boolean") {
    input = element("select", {}, ...(required ? [] : [element("option", { value: "" }, "—")]),
      ...(choices || ["true", "false"]).map(c => element("option", { value: c, defaultSelected: String(c) === String(given) }, String(c))));
  } else {
    input = element("input", { type: numeric ? "number" : "text", defaultValue: given, autocomplete: "off" });
    if (numeric) Object.assign(input, { step: of.type === "integer" ? 1 : "any", min: of.minimum ?? "", max: of.maximum ?? "" });
    if (of.pattern) input.pattern = of.pattern;
  }
  Object.assign(input, { id: `field-${name}`, name, required });
  input.setAttribute("aria-describedby", `hint-${name}`);
  const range = of.minimum !== undefined && of.maximum !== undefined ? ` (${of.minimum} to ${of.maximum})` : "";
  return element("div", {}, element("label", { htmlFor: `field-${name}` }, name + (required ? "" : " (may be empty)")), input,
    element("span", { className: "hint", id: `hint-${name}` }, (spec.description || "") + range));
}

async function form() {
  const described = await (await fetch("openapi.json")).json();
  at("title").textContent = document.title = described.info.title;
  at("about").textContent = described.info.description;
  schema = described.components.schemas.Record;
  example = (schema.examples || [{}])[0];
  const fields = Object.entries(schema.properties).filter(([name]) => name !== "id");
  at("fields").replaceChildren(...fields.map(([name, spec]) => field(name, spec, (schema.required || []).includes(name))));
}

function asked() {
  const record = {};
  for (const input of at("ask").querySelectorAll("[name]")) {
    const of = kind(schema.properties[input.name]);
    if (input.value === "") continue;
    record[input.name] = of.type === "number" || of.type === "integer" ? Number(input.value) : of.type === "boolean" ? input.value === "true" : input.value;
  }
  return record;
}

// As wide as there is room, so that the text keeps its size on a phone.
const room = id => Math.max(280, Math.min(900, at(id).clientWidth || 640));

// Each reason is a bar from the middle: to the right it raised the score, to the left it lowered it.
function reasons(list) {
  const width = room("answer"), narrow = width < 520, row = narrow ? 46 : 30, above = narrow ? 18 : 0;
  const middle = narrow ? width / 2 : width * 0.66, reach = Math.min(middle, width - middle) - 60, most = Math.max(...list.map(r => Math.abs(r.contribution)), 1e-9);
  const picture = drawn("svg", { viewBox: `0 0 ${width} ${row * list.length + 24}`, role: "img" });
  picture.append(drawn("title", {}, "Reasons: " + list.map(r => `${r.feature} ${number(r.contribution)}`).join(", ")));
  picture.append(drawn("line", { x1: middle, x2: middle, y1: 0, y2: row * list.length, class: "axis" }));
  list.forEach((r, i) => {
    const size = Math.abs(r.contribution) / most * reach, up = r.contribution > 0, y = i * row + above;
    picture.append(drawn("text", { x: 0, y: i * row + (narrow ? 14 : 19) }, `${r.feature} = ${r.value === null ? "not known" : number(r.value)}`));
    picture.append(drawn("rect", { x: up ? middle : middle - size, y: y + 5, width: Math.max(size, 1), height: 20, class: up ? "up" : "down" }));
    picture.append(drawn("text", { x: up ? middle + size + 4 : middle - size - 4, y: y + 19, "text-anchor": up ? "start" : "end", class: "soft" }, (up ? "+" : "−") + number(Math.abs(r.contribution))));
  });
  picture.append(drawn("text", { x: middle, y: row * list.length + 18, "text-anchor": "middle", class: "soft" }, "← lowered the score · raised it →"));
  return picture;
}

async function answer(event) {
  event.preventDefault();
  for (const input of at("ask").querySelectorAll("[name]")) input.removeAttribute("aria-invalid");
  const reply = await ask("predict?explain=true", { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(asked()) });
  const said = await reply.json();
  if (!reply.ok) {
    const wrong = Array.isArray(said.detail) ? said.detail.map(d => { at(`field-${d.loc.at(-1)}`)?.setAttribute("aria-invalid", "true"); return `${d.loc.at(-1)}: ${d.msg}`; }) : [said.detail];
    at("answer").replaceChildren(...wrong.map(text => element("p", { className: "error" }, text)));
    return;
  }
  const { id, reasons: why, ...values } = said.predictions[0];
  at("answer").replaceChildren(
    element("p", {}, ...Object.entries(values).flatMap(([name, value]) => [element("span", {}, `${name} `), element("span", { className: "big" }, number(value)), "   "])),
    reasons(why), element("p", { className: "hint" }, `version ${said.model_version} · recorded as ${id}`));
  setTimeout(traffic, 4000);
}

async function model() {
  const reply = await ask("model");
  if (!reply.ok) { at("status").textContent = "The model is shown to whoever has a key."; return; }
  const m = await reply.json(), quality = m.quality || {};
  at("status").textContent = m.version ? `Version ${m.version} serves since ${new Date(m.since).toLocaleString()}${m.from_disk ? ", from the disk: the registry has not confirmed it yet" : ""}.` : m.status;
  const days = m.lookups_age_seconds === undefined ? "" : `${m.lookups_until} (${(m.lookups_age_seconds / 86400).toFixed(1)} days ago)`;
  const rows = { version: m.version, registry: m.registry_reachable ? "reachable" : "cannot be reached", "trained until": m.trained_until, "at commit": m.trained_at_commit,
    ...Object.fromEntries(Object.entries(quality).map(([name, value]) => [name, number(value)])), "lookups until": days, refused: Object.entries(m.refused).map(([v, why]) => `${v}: ${why}`).join("; ") };
  at("model").replaceChildren(...Object.entries(rows).filter(([, value]) => value).flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, String(value))]));
}

// A store that is away is no reason for an empty page.
const absent = reply => element("p", {}, reply.status === 503 ? "The store cannot be reached; predictions go on." : "Shown to whoever has a key for it.");

// The last changes of the champion, the newest first.
async function versions() {
  const reply = await ask("history");
  if (!reply.ok) { at("versions").replaceChildren(absent(reply)); return; }
  const rows = (await reply.json()).slice(0, 5).map(c => element("tr", {}, ...[new Date(c.at).toLocaleString(), c.kind, `${c.from_version || "none"} → ${c.to_version || "none"}`, c.who, c.reason].map(text => element("td", {}, text))));
  if (!rows.length) { at("versions").replaceChildren(); return; }
  const head = element("tr", {}, ...["when", "what", "version", "who", "why"].map(text => element("th", { scope: "col" }, text)));
  at("versions").replaceChildren(element("table", {}, element("thead", {}, head), element("tbody", {}, ...rows)));
}

// A quantile of cumulative counts by upper bound; within a bucket values count as evenly spread.
function quantile(buckets, share) {
  const wanted = share * buckets.at(-1)[1];
  let [low, before] = [0, 0];
  for (const [bound, count] of buckets) {
    if (count >= wanted) return bound === Infinity ? low : low + (bound - low) * (wanted - before) / (count - before || 1);
    [low, before] = [bound, count];
  }
}

// From the numbers for Prometheus: what this process answered since it started.
async function speed() {
  const reply = await ask("metrics");
  if (!reply.ok) { at("speed").replaceChildren(absent(reply)); return; }
  const lines = (await reply.text()).split("\n");
  const series = name => lines.filter(line => line.startsWith(`${name}{`)).map(line =>
    [Object.fromEntries([...line.matchAll(/(\w+)="([^"]*)"/g)].map(m => [m[1], m[2]])), Number(line.slice(line.lastIndexOf(" ")))]);
  const requests = series("og_http_requests_total").filter(([of]) => of.route === "/predict"), sum = list => list.reduce((total, [, value]) => total + value, 0);
  const buckets = series("og_http_request_duration_seconds_bucket").filter(([of]) => of.route === "/predict").map(([of, value]) => [of.le === "+Inf" ? Infinity : Number(of.le), value]);
  const total = sum(requests), failed = sum(requests.filter(([of]) => of.status >= "500")), refused = sum(requests.filter(([of]) => of.status >= "400" && of.status < "500"));
  if (!total) { at("speed").replaceChildren(element("p", {}, "No requests yet.")); return; }
  const ms = share => `${number(1000 * quantile(buckets, share))} ms`;
  const rows = { requests: total.toLocaleString("en"), "half are answered within": ms(0.5), "99 of 100 within": ms(0.99),
    failed: `${failed} (${(100 * failed / total).toFixed(2)}%)`, "refused as wrong": String(refused) };
  at("speed").replaceChildren(element("dl", {}, ...Object.entries(rows).flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)])),
    element("p", { className: "hint" }, "Predictions asked of this process since it started."));
}

// Bars: predictions in ten minutes. Line: their mean.
async function traffic() {
  const reply = await ask("traffic");
  if (!reply.ok) { at("traffic").replaceChildren(absent(reply)); return; }
  const parts = await reply.json(), end = Date.now() / 1000, start = end - 86400, width = room("traffic"), height = 150;
  if (!parts.length) { at("traffic").replaceChildren(element("p", {}, "No predictions yet. Ask above; what is answered shows here a few seconds later.")); return; }
  const slots = new Map();
  for (const p of parts) { const s = slots.get(p.at) || { count: 0, sum: 0 }; s.count += p.predictions; s.sum += p.predictions * (p.mean ?? 0); slots.set(p.at, s); }
  const most = Math.max(...[...slots.values()].map(s => s.count)), total = [...slots.values()].reduce((sum, s) => sum + s.count, 0);
  const means = [...slots].map(([t, s]) => [t, s.sum / s.count]), low = Math.min(0, ...means.map(m => m[1])), high = Math.max(...means.map(m => m[1]), low + 1e-9);
  const x = t => (t - start) / 86400 * width, picture = drawn("svg", { viewBox: `0 0 ${width} ${height + 40}`, role: "img" });
  picture.append(drawn("title", {}, `${total} predictions in 24 hours`), drawn("line", { x1: 0, x2: width, y1: height + 16, y2: height + 16, class: "axis" }));
  for (const [t, s] of slots) picture.append(drawn("rect", { x: x(t), y: height + 16 - s.count / most * height, width: Math.max(width / 144 - 1, 2), height: s.count / most * height, class: "down" }));
  const y = v => height + 16 - (v - low) / (high - low) * height;
  picture.append(drawn("polyline", { points: means.map(([t, v]) => `${x(t) + 2},${y(v)}`).join(" "), class: "mean" }));
  for (const h of width < 520 ? [24, 12, 0] : [24, 18, 12, 6, 0]) picture.append(drawn("text", { x: Math.min(Math.max((24 - h) / 24 * width, 0), width), y: height + 34, "text-anchor": h === 24 ? "start" : h === 0 ? "end" : "middle", class: "soft" }, h ? `${h} h ago` : "now"));
  const by = [...new Set(parts.map(p => p.version))].join(", ");
  at("traffic").replaceChildren(element("p", {}, element("span", { className: "big" }, total.toLocaleString("en")), ` predictions, by version ${by}`), picture,
    element("p", { className: "hint" }, `Bars: predictions in ten minutes, at most ${most.toLocaleString("en")}. Line: their mean, at most ${number(high)}.`));
}

// Each feature's distance from its reference (PSI), the farthest first; from 0.1 it is worth a look, from 0.25 another population.
function distances(list) {
  const width = room("drift"), name = Math.min(220, width * 0.4), row = 22, most = Math.max(0.3, ...list.map(d => d.psi)), x = value => name + value / most * (width - name - 60);
  const picture = drawn("svg", { viewBox: `0 0 ${width} ${row * list.length + 24}`, role: "img" });
  picture.append(drawn("title", {}, "Drift: " + list.map(d => `${d.feature || "score"} ${number(d.psi)}`).join(", ")));
  for (const limit of [0.1, 0.25]) picture.append(drawn("line", { x1: x(limit), x2: x(limit), y1: 0, y2: row * list.length, class: "axis" }));
  list.forEach((d, i) => {
    picture.append(drawn("text", { x: 0, y: i * row + 15 }, d.feature || "score"));
    picture.append(drawn("rect", { x: name, y: i * row + 3, width: Math.max(x(d.psi) - name, 1), height: row - 6, class: d.psi >= 0.25 ? "up" : "down" }));
    picture.append(drawn("text", { x: x(d.psi) + 4, y: i * row + 15, class: "soft" }, number(d.psi)));
  });
  picture.append(drawn("text", { x: name, y: row * list.length + 18, class: "soft" }, "PSI; the lines: 0.1 worth a look, 0.25 another population"));
  return picture;
}

async function drift() {
  const reply = await ask("drift");
  if (!reply.ok) { at("drift").replaceChildren(absent(reply)); return; }
  at("drift").replaceChildren(...compared(await reply.json()));
}

const FEW = 200; // predictions; with fewer, chance alone moves the numbers (`og monitor` says the same)

// What the monitor saw, as paragraphs and a picture.
function compared(seen) {
  if (!seen || !seen.rows) return [element("p", {}, "No predictions of this version to compare with its reference yet.")];
  if (seen.rows < FEW) return [element("p", {}, `Version ${seen.version}: ${number(seen.rows)} predictions in ${number(seen.hours)} hours, too few to say whether anything moved (${FEW} are needed).`)];
  const { outcomes, ...quality } = seen.quality, farthest = [...seen.drift].sort((a, b) => b.psi - a.psi).slice(0, 10);
  const told = outcomes ? `${number(outcomes)} outcomes: ${Object.entries(quality).map(([name, value]) => `${name} ${number(value)}`).join(", ")}` : "No outcomes have come back yet.";
  return [element("p", {}, `Version ${seen.version}: ${number(seen.rows)} predictions in ${number(seen.hours)} hours against its reference. `, told), distances(farthest),
    element("p", { className: "hint" }, (seen.rows < 1000 ? "Under a thousand predictions drift by chance. " : "") + `Looked at ${new Date(seen.at).toLocaleString()}.`)];
}

const refresh = () => Promise.all([model(), versions(), traffic(), speed(), drift()]);

at("ask").addEventListener("submit", answer);
at("ask").addEventListener("reset", () => at("answer").replaceChildren());
at("key").addEventListener("submit", event => { event.preventDefault(); key = at("key-value").value; at("key").hidden = true; refresh(); });
const fails = e => { at("status").textContent = `The service does not answer: ${e.message}`; };
form().then(refresh).catch(fails);
setInterval(() => refresh().catch(fails), 30000);
