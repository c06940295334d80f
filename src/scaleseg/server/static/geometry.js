// Where pixels lie on score grids, and what is computed there: the rules of geometry.py, fusion.py and model.py in typed arrays.
//
// Maps are held cell after cell, (rows, columns, channels), so that the scores of one cell lie side by side.

/**
 * Two cells and the way from the first to the second, for each wished pixel of an axis.
 * `target` pixels lie on `source` cells; `wished` are the pixels' indices (all of them if left out).
 */
export function taps(target, source, align, wished = null) {
  const count = wished ? wished.length : target;
  const lower = new Int32Array(count), upper = new Int32Array(count), part = new Float64Array(count);
  for (let index = 0; index < count; index++) {
    const pixel = wished ? wished[index] : index;
    const place = align
      ? (target > 1 ? (pixel * (source - 1)) / (target - 1) : 0)
      : Math.max(0, ((pixel + 0.5) * source) / target - 0.5);
    lower[index] = Math.min(source - 1, Math.floor(place));
    upper[index] = Math.min(source - 1, lower[index] + 1);
    part[index] = place - lower[index];
  }
  return { lower, upper, part, count };
}

/** (channels, rows, columns) as (rows, columns, channels). */
export function byCell(maps, channels, cells) {
  const turned = new Float32Array(channels * cells);
  for (let channel = 0; channel < channels; channel++) {
    const start = channel * cells;
    for (let cell = 0; cell < cells; cell++) turned[cell * channels + channel] = maps[start + cell];
  }
  return turned;
}

/** Maps on other places: bilinear, two taps an axis, as F.interpolate. `grid` is {values, rows, columns, channels}. */
export function bilinear(grid, down, across) {
  const { values, columns, channels } = grid;
  const result = new Float32Array(down.count * across.count * channels);
  let to = 0;
  for (let row = 0; row < down.count; row++) {
    const above = down.lower[row] * columns, below = down.upper[row] * columns, y = down.part[row];
    for (let column = 0; column < across.count; column++) {
      const left = across.lower[column], right = across.upper[column], x = across.part[column];
      const a = (above + left) * channels, b = (above + right) * channels;
      const c = (below + left) * channels, d = (below + right) * channels;
      for (let channel = 0; channel < channels; channel++) {
        const top = values[a + channel] * (1 - x) + values[b + channel] * x;
        const bottom = values[c + channel] * (1 - x) + values[d + channel] * x;
        result[to++] = top * (1 - y) + bottom * y;
      }
    }
  }
  return result;
}

/** Eq. 1 with weights that are the same everywhere: one number a scale. */
export function fuseConstant(stack, weights) {
  const result = new Float32Array(stack[0].length);
  for (let index = 0; index < result.length; index++) {
    let sum = 0;
    for (let scale = 0; scale < stack.length; scale++) sum += weights[scale] * stack[scale][index];
    result[index] = sum;
  }
  return result;
}

/** Eq. 1 with a map of weights a scale; `shared` says that all classes of a cell have the same weight. */
export function fuseMaps(stack, maps, channels, shared) {
  const result = new Float32Array(stack[0].length);
  for (let index = 0; index < result.length; index++) {
    const place = shared ? (index / channels) | 0 : index;
    let sum = 0;
    for (let scale = 0; scale < stack.length; scale++) sum += maps[scale][place] * stack[scale][index];
    result[index] = sum;
  }
  return result;
}

/** The weights of max: 1 for the scale with the highest score of a class, the first where some are equal. */
export function maxWeights(stack) {
  const maps = stack.map((scores) => new Float32Array(scores.length));
  for (let index = 0; index < stack[0].length; index++) {
    let winner = 0;
    for (let scale = 1; scale < stack.length; scale++) if (stack[scale][index] > stack[winner][index]) winner = scale;
    maps[winner][index] = 1;
  }
  return maps;
}

/** The class with the highest interpolated score at each place. */
export function labels(grid, down, across) {
  const cells = grid.rows * grid.columns;
  return down.count * across.count >= 8 * cells ? labelsByCell(grid, down, across) : labelsOneByOne(grid, down, across);
}

function labelsOneByOne(grid, down, across) {
  const { columns, channels } = grid;
  const result = new Uint8Array(down.count * across.count), line = new Float64Array(columns * channels);
  let to = 0;
  for (let row = 0; row < down.count; row++) {
    blendRows(grid, down, row, line);
    for (let column = 0; column < across.count; column++) {
      const left = across.lower[column] * channels, right = across.upper[column] * channels, x = across.part[column];
      let best = 0, highest = -Infinity;
      for (let channel = 0; channel < channels; channel++) {
        const score = line[left + channel] * (1 - x) + line[right + channel] * x;
        if (score > highest) { highest = score; best = channel; }
      }
      result[to++] = best;
    }
  }
  return result;
}

/**
 * The same where many pixels share four cells: between them a class cannot win whose highest corner is below another's
 * lowest, and mostly one class is left.
 */
function labelsByCell(grid, down, across) {
  const { columns, channels } = grid;
  const result = new Uint8Array(down.count * across.count), line = new Float64Array(columns * channels);
  const able = new Uint8Array(columns * channels), counts = new Int32Array(columns);
  let to = 0, known = -1;
  for (let row = 0; row < down.count; row++) {
    if (down.lower[row] !== known) {
      known = down.lower[row];
      candidates(grid, known, down.upper[row], able, counts);
    }
    blendRows(grid, down, row, line);
    for (let column = 0; column < across.count; column++) {
      const cell = across.lower[column], left = cell * channels;
      if (counts[cell] === 1) { result[to++] = able[left]; continue; }
      const right = across.upper[column] * channels, x = across.part[column];
      let best = 0, highest = -Infinity;
      for (let index = 0; index < counts[cell]; index++) {
        const channel = able[left + index];
        const score = line[left + channel] * (1 - x) + line[right + channel] * x;
        if (score > highest) { highest = score; best = channel; }
      }
      result[to++] = best;
    }
  }
  return result;
}

function blendRows({ values, columns, channels }, down, row, line) {
  const above = down.lower[row] * columns * channels, below = down.upper[row] * columns * channels, y = down.part[row];
  for (let index = 0; index < line.length; index++) line[index] = values[above + index] * (1 - y) + values[below + index] * y;
}

/** For each cell of a row, the classes that can win between it and its neighbours to the right and below. */
function candidates({ values, columns, channels }, upperRow, lowerRow, able, counts) {
  for (let cell = 0; cell < columns; cell++) {
    const next = Math.min(cell + 1, columns - 1);
    const a = (upperRow * columns + cell) * channels, b = (upperRow * columns + next) * channels;
    const c = (lowerRow * columns + cell) * channels, d = (lowerRow * columns + next) * channels;
    let floor = -Infinity, count = 0;
    for (let channel = 0; channel < channels; channel++) {
      const lowest = Math.min(values[a + channel], values[b + channel], values[c + channel], values[d + channel]);
      if (lowest > floor) floor = lowest;
    }
    for (let channel = 0; channel < channels; channel++) {
      const highest = Math.max(values[a + channel], values[b + channel], values[c + channel], values[d + channel]);
      if (highest >= floor) able[cell * channels + count++] = channel;
    }
    counts[cell] = count;
  }
}

/** One value a place: channel 0, or at each place the channel that `chosen` names there. */
export function oneChannel(grid, down, across, chosen = null) {
  const { values, columns, channels } = grid;
  const result = new Float32Array(down.count * across.count);
  for (let row = 0, to = 0; row < down.count; row++) {
    const above = down.lower[row] * columns, below = down.upper[row] * columns, y = down.part[row];
    for (let column = 0; column < across.count; column++, to++) {
      const left = across.lower[column], right = across.upper[column], x = across.part[column];
      const channel = chosen ? chosen[to] : 0;
      const top = values[(above + left) * channels + channel] * (1 - x) + values[(above + right) * channels + channel] * x;
      const bottom = values[(below + left) * channels + channel] * (1 - x) + values[(below + right) * channels + channel] * x;
      result[to] = top * (1 - y) + bottom * y;
    }
  }
  return result;
}

/** Scores as probabilities. */
export function softmax(scores) {
  const top = scores.reduce((a, b) => Math.max(a, b), -Infinity);
  const raised = Array.from(scores, (score) => Math.exp(score - top));
  const sum = raised.reduce((a, b) => a + b, 0);
  return raised.map((value) => value / sum);
}

/** The index of the highest value, the first where some are equal. */
export function argmax(values) {
  let best = 0;
  for (let index = 1; index < values.length; index++) if (values[index] > values[best]) best = index;
  return best;
}
