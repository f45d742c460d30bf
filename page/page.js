// The page for people: everything on it comes from the service's own routes, nothing from elsewhere.
import { answer, form } from "./form.js";
import { card, model, speed, versions } from "./model.js";
import { at, useKey } from "./parts.js";
import { drift, traffic } from "./watch.js";

const refresh = () => Promise.all([model(), versions(), traffic(), speed(), drift()]);

at("ask").addEventListener("submit", event => answer(event).then(() => setTimeout(traffic, 4000)));
at("ask").addEventListener("reset", () => at("answer").replaceChildren());
at("card").addEventListener("toggle", () => at("card").open && card());
at("key").addEventListener("submit", event => { event.preventDefault(); useKey(at("key-value").value); at("key").hidden = true; refresh(); });
const fails = e => { at("status").textContent = `The service does not answer: ${e.message}`; };
form().then(refresh).catch(fails);
setInterval(() => refresh().catch(fails), 30000);
