// What serves: the model, its last changes, and how fast it answers.
import { absent, ask, at, element, number } from "./parts.js";
export async function model() {
  const reply = await ask("model");
  if (!reply.ok) { at("status").textContent = "The model is shown to whoever has a key."; return; }
  const m = await reply.json(), quality = m.quality || {};
  at("status").textContent = m.version ? `Version ${m.version} serves since ${new Date(m.since).toLocaleString()}${m.from_disk ? ", from the disk: the registry has not confirmed it yet" : ""}.` : m.status;
  const days = m.lookups_age_seconds === undefined ? "" : `${m.lookups_until} (${(m.lookups_age_seconds / 86400).toFixed(1)} days ago)`;
  const rows = { version: m.version, registry: m.registry_reachable ? "reachable" : "cannot be reached", "trained until": m.trained_until, "at commit": m.trained_at_commit,
    ...Object.fromEntries(Object.entries(quality).map(([name, value]) => [name, number(value)])), "lookups until": days, refused: Object.entries(m.refused).map(([v, why]) => `${v}: ${why}`).join("; ") };
  at("model").replaceChildren(...Object.entries(rows).filter(([, value]) => value).flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, String(value))]));
}

// The model card, when somebody opens it.
export async function card() {
  const reply = await ask("model/card");
  at("card-text").textContent = reply.ok ? (await reply.text()).replace(/^---\n[^]*?\n---\n+/, "") : "Shown to whoever has a key.";
}

// The last changes of the champion, the newest first.
export async function versions() {
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
export async function speed() {
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
