// What is shown and what is chosen, in one object; and what follows from it.

import { vocColour } from "./draw.js";
import { $ } from "./page.js";

export const state = {
  models: [], limits: null, // of the server
  asked: null, // the photograph that was given and is not shown yet: {name, blob | address, more}
  photo: null, result: null, other: null, // what is shown; `other` is the second model's result
  rule: { kind: "trained", weights: null }, fused: null, otherFused: null, trained: null,
  hand: null, // the weights that the sliders showed last: where setting them by hand begins
  refine: "none", refined: null, // labels of the whole image from the server
  full: null, coarse: null, small: null, places: null, slow: false, // pixels that are looked at; `places` are those shown now
  labels: null, otherLabels: null, means: null, shares: null, different: 0,
  cloud: null, divided: null, // of the trained weights: the triangle's dots, and where the scales contradict each other most
  opacity: 0.6, pin: [0, 0], hover: null, compare: "side", split: 0.5,
  said: null, told: null, // of a pixel, and to a screen reader of the whole picture
  version: 0, // counts fusions, so that what is counted at leisure knows when it is stale
};

/** What the server says of the model that is chosen. */
export function chosen() {
  return state.models.find(({ name }) => name === $("model").value);
}

/** What the server says of the model whose result is shown. */
export function shown() {
  return state.models.find(({ name }) => name === state.result.model) ?? {};
}

export function colours() {
  return shown().colours ?? [];
}

export function comparing(way) {
  return state.other !== null && state.compare === way;
}

/** The second model's rule: the first one's, unless weights by hand are too many or too few for it. */
export function ruleFor(other) {
  const { rule } = state;
  return rule.kind === "weights" && rule.weights.length !== other.scales.length ? { kind: "trained" } : rule;
}

/** A second model's colours: the first one's for the same names, others for its own. */
export function coloursBeside(other) {
  const { classes } = state.result, own = colours();
  return other.classes.map((name, id) => own[classes.indexOf(name)] ?? vocColour(classes.length + id));
}

/** 1 where the two models name different classes. */
export function apart() {
  const { result, other, labels, otherLabels } = state;
  const same = Int32Array.from(other.classes, (name) => result.classes.indexOf(name));
  return Uint8Array.from(labels, (id, index) => Number(same[otherLabels[index]] !== id));
}
