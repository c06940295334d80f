// What is said of the picture: of one pixel in the read-out, of all in the legend, and to a screen reader.

import { counted, shareOf } from "./counting.js";
import { $, announce } from "./page.js";
import { hand, legend, readout, second, stage } from "./parts.js";
import { apart, colours, coloursBeside, state } from "./state.js";
import { joined, percent, spoken } from "./words.js";

/** Of the pixel under the pointer, or else of the one that was chosen last. */
export function showPixel() {
  const { result, other, refined } = state, [row, column] = state.hover ?? state.pin;
  const label = refined ? refined[row * result.size[1] + column] : null;
  const said = state.said = result.at(state.fused, row, column, label);
  const answer = other && { name: other.model, classes: other.classes, said: other.at(state.otherFused, row, column) };
  const notes = refined ? ["The class is the refined one; the probabilities are those before refinement."] : [];
  if (result.scales.length > 1 && String([row, column]) === String(state.divided)) notes.push("Here the scales contradict each other most.");
  readout.show(said, result.classes, colours(), { note: notes.join(" "), other: answer });
  for (const one of [stage, second]) one.cross([row, column]);
  hand.draw({ cloud: state.cloud, pixel: result.at(state.trained, row, column).weights, byHand: state.rule.kind === "weights" });
}

/** Of all pixels: the share of each class, by both models where two are compared. */
export function showShares() {
  const { result, other, shares } = state;
  $("legend-note").hidden = !other;
  if (other) showShared(result, other);
  else legend.show(shares);
}

function showShared(result, other) {
  const { shares, otherLabels } = state, palette = coloursBeside(other);
  const theirs = shareOf(counted(otherLabels), otherLabels.length);
  const others = result.classes.map((name) => (other.classes.includes(name) ? theirs[other.classes.indexOf(name)] : null));
  const guests = other.classes.map((name, id) => ({ name, id, colour: palette[id], share: theirs[id] }))
    .filter(({ name, share }) => share > 0 && !result.classes.includes(name));
  state.different = apart().reduce((sum, one) => sum + one, 0) / otherLabels.length;
  $("legend-note").textContent = `Shares by ${result.model} · by ${other.model}`;
  $("differ").textContent = `${result.model} and ${other.model} differ on ${percent(state.different)} of the pixels`;
  legend.show(shares, others, guests);
}

/** The text that stands for the picture, and word to a screen reader once the hand rests. */
export function tellShares() {
  const { result, other, shares, photo } = state;
  const present = result.classes.map((_, id) => id).filter((id) => shares[id] > 0).sort((a, b) => shares[b] - shares[a]);
  const differ = other ? `, and the models differ on ${spoken(state.different)} of the pixels` : "";
  const text = joined(present.slice(0, 8).map((id) => `${result.classes[id]} ${spoken(shares[id])}`)) + differ;
  $("canvas").setAttribute("aria-label", `Photograph ${photo.name} with its classes: ${text}`);
  if (state.told !== text) announce(`${state.told === null ? "Found" : "Now"} ${text}.`);
  state.told = text;
}
