// The viewer of `scaleseg serve`: the server segments a photograph once, then every fusion is computed in this page.
//
// state.js holds what is shown; whatever changes it calls `redraw` (schedule.js), and the next animation frame does what is
// needed, once (showing.js). asking.js asks the server, choosing.js listens to people, result.js and geometry.js compute.
// `window.scaleseg` is for tests and for the curious: see the end of this file.

import { begin } from "./asking.js";
import { listen, setRule } from "./choosing.js";
import * as geometry from "./geometry.js";
import { moved } from "./hand.js";
import { drawWith } from "./schedule.js";
import { render } from "./showing.js";
import { state } from "./state.js";

drawWith(render);
listen();
begin();

/**
 * For tests and the curious. `labels()` are the class ids at the places shown, row after row, `size()` their (rows, columns),
 * `alone(scale)` what one scale alone says there; `pixel(row, column)` is the read-out in numbers, `rule()` the fusion,
 * `setWeights(weights)` what the sliders do. body[data-rest] is "true" where no answer, frame or timer is waited for.
 */
window.scaleseg = {
  state, geometry, moved,
  labels: () => state.labels,
  size: () => [state.places.height, state.places.width],
  alone: (scale) => state.result.labelsAlone(scale, state.places),
  pixel: (row, column) => state.result.at(state.fused, row, column),
  rule: () => state.rule,
  setWeights: (weights) => setRule("weights", weights),
};
