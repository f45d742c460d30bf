// The form, made of the contract, and the answer to what is asked in it.
import { ask, at, drawn, element, kind, number, room } from "./parts.js";

let schema = null, example = {};

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

export async function form() {
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

// Each reason is a bar from the middle: to the right it raised the score, to the left it lowered it.
export function reasons(list, place) {
  const width = room(place), narrow = width < 520, row = narrow ? 46 : 30, above = narrow ? 18 : 0;
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

export async function answer(event) {
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
    reasons(why, "answer"), element("p", { className: "hint" }, `version ${said.model_version} · recorded as ${id} · `, element("a", { href: `page/why.html#${encodeURIComponent(id)}` }, "why?")));
}
