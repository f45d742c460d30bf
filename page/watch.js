// What was answered lately, and whether it still looks like what the model was judged on.
import { absent, ask, at, drawn, element, number, room } from "./parts.js";
// Bars: predictions in ten minutes. Line: their mean.
export async function traffic() {
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

export async function drift() {
  const reply = await ask("drift");
  if (!reply.ok) { at("drift").replaceChildren(absent(reply)); return; }
  at("drift").replaceChildren(...compared(await reply.json()));
}

const FEW = 200; // predictions; with fewer, chance alone moves the numbers (`og monitor` says the same)

// What the monitor saw, as paragraphs and a picture.
export function compared(seen) {
  if (!seen || !seen.rows) return [element("p", {}, "No predictions of this version to compare with its reference yet.")];
  if (seen.rows < FEW) return [element("p", {}, `Version ${seen.version}: ${number(seen.rows)} predictions in ${number(seen.hours)} hours, too few to say whether anything moved (${FEW} are needed).`)];
  const { outcomes, ...quality } = seen.quality, farthest = [...seen.drift].sort((a, b) => b.psi - a.psi).slice(0, 10);
  const told = outcomes ? `${number(outcomes)} outcomes: ${Object.entries(quality).map(([name, value]) => `${name} ${number(value)}`).join(", ")}` : "No outcomes have come back yet.";
  return [element("p", {}, `Version ${seen.version}: ${number(seen.rows)} predictions in ${number(seen.hours)} hours against its reference. `, told), distances(farthest),
    element("p", { className: "hint" }, (seen.rows < 1000 ? "Under a thousand predictions drift by chance. " : "") + `Looked at ${new Date(seen.at).toLocaleString()}.`)];
}
