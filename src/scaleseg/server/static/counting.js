// Counting over a picture: shares, means, and where the scales contradict each other.

import { argmax } from "./geometry.js";
import { css } from "./readout.js";

/** Labels of the whole image at some places. */
export function sampled(labels, { rows, columns, size }) {
  const result = new Uint8Array(rows.length * columns.length);
  let to = 0;
  for (const row of rows) for (const column of columns) result[to++] = labels[row * size[1] + column];
  return result;
}

/** Pixels of each class. */
export function counted(labels) {
  const counts = new Float64Array(256);
  for (let index = 0; index < labels.length; index++) counts[labels[index]]++;
  return counts;
}

export function shareOf(counts, pixels) {
  return counts.map((count) => count / pixels);
}

export function mean(values) {
  let sum = 0;
  for (let index = 0; index < values.length; index++) sum += values[index];
  return sum / values.length;
}

/** The triangle's cloud: trained weights, and the colour of the class there. */
export function dots(sample, palette) {
  return sample.map(({ weights, label }) => [weights, label ? css(palette[label], label) : null]);
}

/** Where the scales contradict each other most (Jensen-Shannon divergence): there is something to see from the start. */
export function mostDivided(sample) {
  const divided = sample.map(({ perScale }) => {
    const all = perScale.map(({ probabilities }) => probabilities);
    const together = all[0].map((_, id) => all.reduce((sum, one) => sum + one[id], 0) / all.length);
    return entropy(together) - all.reduce((sum, one) => sum + entropy(one), 0) / all.length;
  });
  const { row, column } = sample[argmax(divided)];
  return [row, column];
}

function entropy(probabilities) {
  return -probabilities.reduce((sum, p) => sum + (p > 0 ? p * Math.log(p) : 0), 0);
}
