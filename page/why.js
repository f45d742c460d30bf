// A past answer and what it came from: all of it is one answer of `/why/ID`.
import { reasons } from "./form.js";
import { ask, at, element, number, useKey } from "./parts.js";

const pairs = (id, values) => at(id).replaceChildren(...Object.entries(values).filter(([, value]) => value !== null && value !== "" && value !== undefined)
  .flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, typeof value === "number" ? number(value) : String(value))]));

const table = (head, rows) => element("table", {}, element("thead", {}, element("tr", {}, ...head.map(text => element("th", { scope: "col" }, text)))),
  element("tbody", {}, ...rows.map(row => element("tr", {}, ...row.map(text => element("td", {}, String(text)))))));

function show(found) {
  at("found").hidden = false;
  at("status").textContent = `${new Date(found.predicted_at).toLocaleString()}, version ${found.version}`;
  at("answer").replaceChildren(element("p", {}, ...Object.entries(found.answer).flatMap(([name, value]) => [element("span", {}, `${name} `), element("span", { className: "big" }, number(value)), "   "])),
    ...(found.reasons.length ? [reasons(found.reasons.map(([feature, value, contribution]) => ({ feature, value, contribution })), "answer")] : []));
  at("rebuilt").replaceChildren(table(["what", "came out", "how"], found.rebuilt.map(depth => [depth.what, depth.verdict, depth.how])));
  pairs("record", { ...found.record, ...Object.fromEntries(Object.entries(found.hidden).map(([name, mark]) => [name, mark === "drop" ? "personal: dropped" : "personal: kept as a hash only"])) });
  const change = found.champion;
  pairs("champion", { ...(change ? { version: change.to_version, since: new Date(change.at).toLocaleString(), by: change.who, what: change.kind, verdict: change.verdict || "none", reason: change.reason } : {}), ...found.quality });
  const outcomes = found.outcomes.map(said => ["outcome", said.outcome, new Date(said.received_at).toLocaleString()]);
  at("day").replaceChildren(table(["what", "value", ""], [...outcomes, ...found.drift.map(part => [`drift of ${part.feature || "the score"}`, number(part.psi), `PSI, ${part.rows} predictions`])]));
  pairs("chain", found.chain);
}

async function rebuild() {
  const id = at("id").value.trim();
  if (!id) return;
  at("found").hidden = true;
  at("status").textContent = "Rebuilding …";
  const reply = await ask(`../why/${encodeURIComponent(id)}`), said = await reply.json();
  if (reply.ok) { show(said); return; }
  if (reply.status === 403) at("key").hidden = false;
  at("status").textContent = said.detail;
}

const fails = e => { at("status").textContent = `The service does not answer: ${e.message}`; };
at("key").addEventListener("submit", event => { event.preventDefault(); useKey(at("key-value").value); at("key").hidden = true; rebuild().catch(fails); });
at("which").addEventListener("submit", event => { event.preventDefault(); location.hash = encodeURIComponent(at("id").value.trim()); rebuild().catch(fails); });
try { at("id").value = decodeURIComponent(location.hash.slice(1)); } catch { at("status").textContent = "The address names no prediction."; }
rebuild().catch(fails);
