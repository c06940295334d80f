// The fusion that is chosen, and what is said of it.

import { $ } from "./page.js";
import { shown, state } from "./state.js";

const RULES = {
  trained: ({ fusion }) => `The model's own rule${fusion ? ` (${fusion})` : ""}. The sliders show each scale's mean weight.`,
  average: () => "Every scale counts the same at every pixel.",
  max: () => "For each class, the scale with the highest score counts alone. The sliders show the means.",
  weights: () => "Your weights, the same at every pixel. They always sum to one.",
};

/** Takes a rule over; weights by hand begin where the sliders stood. */
export function setKind(kind, weights = null) {
  state.rule = { kind, weights: kind === "weights" ? weights ?? state.hand : null };
  document.querySelector(`input[name="fusion"][value="${kind}"]`).checked = true;
}

export function showRule() {
  const several = state.result.scales.length > 1;
  $("fusions").hidden = $("hand").hidden = !several;
  $("fusion-note").textContent = several ? RULES[state.rule.kind](shown()) : "This model looks at one scale: there is nothing to fuse.";
}

/** What is chosen, as the API's query parameters. */
export function options() {
  const { kind, weights } = state.rule;
  return { model: state.result.model, fusion: kind, weights: weights?.map((weight) => weight.toFixed(6)).join(","), refine: state.refine };
}
