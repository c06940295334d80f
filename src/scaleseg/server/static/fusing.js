// The rule on the grid, the class at every place that is shown, shares and means: what a changed rule changes.

import { counted, mean, sampled, shareOf } from "./counting.js";
import { hand } from "./parts.js";
import { LONGEST } from "./photo.js";
import { Places } from "./result.js";
import { atLeisure, later, redraw } from "./schedule.js";
import { ruleFor, state } from "./state.js";

const SMALL = 240; // of the small ones
const COARSE = 360; // while weights are dragged on a machine, or over a photograph, that is too slow for all pixels
const SLOW = 60; // milliseconds for one fusion

/** The pixels of an image that are looked at: in the large picture, while weights are dragged, and in the small pictures. */
export function placesOf(size) {
  const full = new Places(size, LONGEST);
  return { full, places: full, coarse: new Places(size, COARSE), small: new Places(size, SMALL), slow: false };
}

/** Everything that follows from the rule; at few places while weights move and that is slow, unless `sharp`. */
export function recompute(sharp) {
  const { result, other, rule, refined } = state, begun = performance.now();
  const quick = !sharp && state.slow && rule.kind === "weights" && !refined;
  const places = state.places = quick ? state.coarse : state.full;
  state.version++;
  state.fused = result.fuse(rule);
  state.labels = refined ? sampled(refined, places) : labelled(result, state.fused, places, quick);
  state.means = state.fused.constant ?? result.scales.map((_, scale) => mean(result.weightMap(state.fused, scale, places, state.labels)));
  const labels = refined && !places.whole ? refined : state.labels;
  state.shares = shareOf(counted(labels), labels.length);
  state.otherFused = other && other.fuse(ruleFor(other));
  state.otherLabels = other && labelled(other, state.otherFused, places, quick);
  if (rule.kind !== "weights") state.hand = [...state.means];
  hand.show(rule.kind === "weights" ? rule.weights : state.means);
  if (quick) later("sharp", () => redraw("fusion", "sharp"));
  else state.slow = performance.now() - begun > SLOW && state.full.width > state.coarse.width;
  return { quick };
}

/** Where there are more cells than places, scores are brought to the places first and merged there. */
function labelled(result, fused, places, quick) {
  const finer = result.cells[0] * result.cells[1] > places.width * places.height;
  if (!quick || !fused.constant || !finer) return result.labels(fused, places);
  const small = result.reduced(places);
  return small.labels(small.fuse({ kind: "weights", weights: fused.constant }), new Places(small.size));
}

/** Shares and means over all pixels of a large photograph, of which some are shown. Whether they are true and not stale. */
export async function countAll() {
  const { result, fused, places, refined, version } = state;
  if (places.whole) return true;
  const all = await atLeisure(result.count(fused, refined, () => version !== state.version));
  if (!all) return false;
  state.shares = shareOf(all.counts, result.size[0] * result.size[1]);
  state.means = all.means;
  if (state.rule.kind !== "weights") hand.show(state.means);
  return true;
}
