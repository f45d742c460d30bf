// What the parts of the page share: the service is asked, elements are made, numbers are written.
export const at = id => document.getElementById(id);

let key = "";
export const useKey = given => { key = given; };

export async function ask(path, options = {}) {
  const headers = { ...(options.headers || {}), ...(key ? { authorization: `Bearer ${key}` } : {}) };
  const reply = await fetch(path, { ...options, headers });
  if (reply.status === 401 || reply.status === 403 && !key) at("key").hidden = false;
  return reply;
}

export function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

export function drawn(name, attributes, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

export const kind = spec => (spec.anyOf || [spec]).find(s => s.type !== "null");

export const number = value => typeof value === "number" ? Number(value.toPrecision(4)).toLocaleString("en", { maximumFractionDigits: 6 }) : String(value);

// As wide as there is room, so that the text keeps its size on a phone.
export const room = id => Math.max(280, Math.min(900, at(id).clientWidth || 640));

// A store that is away is no reason for an empty page.
export const absent = reply => element("p", {}, reply.status === 503 ? "The store cannot be reached; predictions go on." : "Shown to whoever has a key for it.");
