// What the server offers to choose from: models, refinements and sample photographs.

import { $ } from "./page.js";
import { chosen, state } from "./state.js";

const REFINEMENTS = { none: "none", crf: "dense CRF", domain: "domain transform", "domain-learned": "domain transform, learned edges" };

/** A refinement in words. */
export function refinement(name) {
  return REFINEMENTS[name] ?? name;
}

/** The models; `name` stays chosen where it is still there. */
export function listModels(name) {
  const names = state.models.map((model) => model.name);
  fill($("model"), names, name);
  listForModel($("other").value);
}

/** What depends on the model that is chosen: what it can be compared with, and how it can be refined. */
export function listForModel(other) {
  const names = state.models.map(({ name }) => name).filter((name) => name !== $("model").value);
  $("other-label").hidden = names.length === 0;
  fill($("other"), ["", ...names], other, (name) => name || "nothing");
  const refinements = chosen()?.refinements ?? ["none"];
  $("refine-line").hidden = refinements.length < 2;
  fill($("refine"), refinements, state.refine, refinement);
  state.refine = $("refine").value;
}

function fill(select, names, chosen, text = (name) => name) {
  select.replaceChildren(...names.map((name) => new Option(text(name), name)));
  if (names.includes(chosen)) select.value = chosen;
}

/** `give(name, address)` is called for the one that is chosen. */
export function listSamples(samples, give) {
  $("samples").hidden = samples.length === 0;
  $("samples").querySelector("ul").replaceChildren(...samples.map((sample) => entry(sample, give)));
}

function entry({ name, credit }, give) {
  const item = document.createElement("li"), button = document.createElement("button"), image = document.createElement("img");
  const text = document.createElement("span"), title = document.createElement("b");
  const address = `/samples/${encodeURIComponent(name)}.jpg`;
  button.type = "button";
  button.title = `${name}: ${credit}`;
  button.addEventListener("click", () => give(name, address));
  image.src = address;
  image.alt = "";
  title.textContent = name;
  text.append(title, credit);
  button.append(image, text);
  item.append(button);
  return item;
}
