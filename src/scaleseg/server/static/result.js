// What the server said of one photograph: per-scale scores and weights, and every fusion of them, computed here.

import { argmax, bilinear, byCell, fuseConstant, fuseMaps, labels, maxWeights, oneChannel, softmax, taps } from "./geometry.js";

const SLICE = 64; // rows that are counted at once: between slices the page answers

/** Places of an image that are looked at: all pixels of a small one, every n-th of a large one. */
export class Places {
  constructor([rows, columns], longest = Infinity) {
    const factor = Math.min(1, longest / Math.max(rows, columns));
    this.size = [rows, columns];
    this.height = Math.max(1, Math.round(rows * factor));
    this.width = Math.max(1, Math.round(columns * factor));
    this.rows = indices(rows, this.height);
    this.columns = indices(columns, this.width);
  }

  get whole() {
    return this.height === this.size[0] && this.width === this.size[1];
  }
}

function indices(pixels, wished) {
  return Int32Array.from({ length: wished }, (_, index) => Math.min(pixels - 1, Math.floor(((index + 0.5) * pixels) / wished)));
}

export class Result {
  constructor(parts) {
    Object.assign(this, parts);
    this.stack ??= this.perScale.map((grid) => this.#merged(grid));
  }

  /** The server's answer. */
  static read({ tensors, metadata }) {
    const scales = JSON.parse(metadata.scales);
    return new Result({
      model: metadata.model,
      note: metadata.note ?? "", // of a refinement that worked at a smaller size, say
      classes: JSON.parse(metadata.classes),
      scales,
      size: JSON.parse(metadata.image),
      padded: JSON.parse(metadata.padded),
      cells: JSON.parse(metadata.fused),
      align: metadata.align_corners === "true",
      served: tensors.labels.values,
      perScale: scales.map((_, index) => asGrid(tensors[`per_scale.${index}`])),
      trained: asWeights(tensors.weights),
    });
  }

  /** The weights and the merged scores of a rule: {kind: trained | average | max | weights, weights}. */
  fuse({ kind, weights }) {
    const channels = this.classes.length, count = this.scales.length;
    if (kind === "average" || kind === "weights") {
      return new Constant(kind === "average" ? this.scales.map(() => 1 / count) : weights, (constant) => this.#grid(fuseConstant(this.stack, constant)));
    }
    const { shared, maps } = kind === "trained" ? this.trained : { shared: false, maps: maxWeights(this.stack) };
    const scores = this.#grid(fuseMaps(this.stack, maps, channels, shared));
    return { maps: maps.map((map) => this.#grid(map, shared ? 1 : channels)), shared, scores };
  }

  /** The merged scores of all scales at some places only, as a result of so small an image: for what must be quick. */
  reduced(places) {
    if (this.small?.places !== places) {
      const { classes, scales, align } = this, size = [places.height, places.width];
      const stack = this.stack.map((values) => bilinear(this.#grid(values), ...this.#taps(this.#grid(values), places)));
      this.small = { places, result: new Result({ classes, scales, align, size, padded: size, cells: size, stack }) };
    }
    return this.small.result;
  }

  /** The class at each place. */
  labels(fused, places) {
    return labels(fused.scores, ...this.#taps(fused.scores, places));
  }

  /** The class that one scale alone would give each place: its own scores, straight from its own grid. */
  labelsAlone(scale, places) {
    return labels(this.perScale[scale], ...this.#taps(this.perScale[scale], places));
  }

  /** The weight of a scale at each place: the one behind the class chosen there. */
  weightMap(fused, scale, places, chosen) {
    if (fused.constant) return new Float32Array(places.rows.length * places.columns.length).fill(fused.constant[scale]);
    const map = fused.maps[scale];
    return oneChannel(map, ...this.#taps(map, places), fused.shared ? null : chosen);
  }

  /** Everything that is said of one pixel; `label` is given where a refinement chose it. */
  at(fused, row, column, label = null) {
    const here = { rows: Int32Array.of(row), columns: Int32Array.of(column) };
    const scores = fused.constant ? this.#fusedHere(fused.constant, here) : this.#scores(fused.scores, here);
    const chosen = label ?? argmax(scores);
    const weights = this.scales.map((_, scale) => this.weightMap(fused, scale, here, [chosen])[0]);
    const perScale = this.perScale.map((grid, index) => {
      const own = this.#scores(grid, here);
      return { scale: this.scales[index], label: argmax(own), probabilities: softmax(own) };
    });
    return { row, column, label: chosen, probabilities: softmax(scores), weights, perScale };
  }

  /**
   * Over the whole image, at its own size: {counts, means}, pixels of each class and the mean weight of each scale. `refined`
   * are the labels of a refinement, if there is one. Null where `isStale()` came true: it is done in slices.
   */
  async count(fused, refined, isStale) {
    const counts = new Float64Array(256), sums = this.scales.map(() => 0), [rows, columns] = this.size;
    const across = Int32Array.from({ length: columns }, (_, index) => index);
    for (let start = 0; start < rows; start += SLICE) {
      const slice = { rows: Int32Array.from({ length: Math.min(SLICE, rows - start) }, (_, index) => start + index), columns: across };
      const ids = refined?.subarray(start * columns, (start + slice.rows.length) * columns) ?? this.labels(fused, slice);
      for (let index = 0; index < ids.length; index++) counts[ids[index]]++;
      this.scales.forEach((_, scale) => {
        if (!fused.constant) sums[scale] += this.weightMap(fused, scale, slice, ids).reduce((sum, weight) => sum + weight, 0);
      });
      await new Promise((done) => setTimeout(done));
      if (isStale()) return null;
    }
    return { counts, means: fused.constant ?? sums.map((sum) => sum / (rows * columns)) };
  }

  #scores(grid, here) {
    return bilinear(grid, ...this.#taps(grid, here));
  }

  /** The same as on the whole grid, of four cells only. */
  #fusedHere(constant, here) {
    return fuseConstant(this.stack.map((values) => this.#scores(this.#grid(values), here)), constant);
  }

  #taps(grid, places) {
    return [
      taps(this.padded[0], grid.rows, this.align, places.rows),
      taps(this.padded[1], grid.columns, this.align, places.columns),
    ];
  }

  #grid(values, channels = this.classes.length) {
    return { values, rows: this.cells[0], columns: this.cells[1], channels };
  }

  /** One scale's scores on the fused grid. */
  #merged(grid) {
    const [rows, columns] = this.cells;
    if (grid.rows === rows && grid.columns === columns) return grid.values;
    return bilinear(grid, taps(rows, grid.rows, this.align), taps(columns, grid.columns, this.align));
  }
}

/** Weights that are the same everywhere; the scores are merged when somebody asks for them. */
class Constant {
  #scores = null;
  #merge;

  constructor(constant, merge) {
    this.constant = constant;
    this.#merge = merge;
  }

  get scores() {
    this.#scores ??= this.#merge(this.constant);
    return this.#scores;
  }
}

function asGrid({ shape: [channels, rows, columns], values }) {
  return { values: byCell(values, channels, rows * columns), rows, columns, channels };
}

/** Weights as one map a scale; their class axis is 1 where all classes share them. */
function asWeights({ shape: [scales, channels, rows, columns], values }) {
  const size = channels * rows * columns;
  const maps = Array.from({ length: scales }, (_, scale) =>
    byCell(values.subarray(scale * size, (scale + 1) * size), channels, rows * columns));
  return { shared: channels === 1, maps };
}
