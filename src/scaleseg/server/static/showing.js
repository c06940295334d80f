// Bringing a photograph onto the page, and the order in which what changed is drawn.

import { dots, mostDivided } from "./counting.js";
import { put } from "./draw.js";
import { countAll, placesOf, recompute } from "./fusing.js";
import { $ } from "./page.js";
import { paint, paintSmall } from "./painting.js";
import { hand, legend, readout, second, stage, views } from "./parts.js";
import { setKind, showRule } from "./rule.js";
import { giveUp, later, redraw } from "./schedule.js";
import { colours, state } from "./state.js";
import { showPixel, showShares, tellShares } from "./telling.js";

const DOTS = 2500; // of the triangle's cloud

/** One frame: `parts` are "fusion" (the rule), "sharp" (at all places), "alone", "paint" (the large picture) and "pixel". */
export function render(parts) {
  if (!state.result) return;
  if (parts.has("fusion")) {
    const { quick } = recompute(parts.has("sharp"));
    showShares();
    if (!quick) later("count", countAndTell);
  }
  if (parts.has("fusion") || parts.has("paint")) paint();
  if (parts.has("fusion")) paintSmall(parts.has("alone"));
  showPixel();
}

async function countAndTell() {
  if (!await countAll()) return;
  showShares();
  paintSmall(false);
  tellShares();
}

/** The first photograph is shown while the server works. */
export function preview({ size, bitmap }) {
  show({ result: false });
  stage.fit(size);
  put($("canvas"), new ImageData(bitmap.width, bitmap.height), bitmap);
}

/** The page before the first photograph. */
export function unshow() {
  document.body.classList.remove("working");
  $("work").hidden = true;
}

/** What the server said becomes what is shown. */
export function take(photo, result) {
  giveUp("other", "refine"); // of the photograph before
  state.photo?.bitmap?.close();
  Object.assign(state, { photo, result, other: null, refined: null, hover: null, told: null, ...placesOf(result.size) });
  state.trained = result.fuse({ kind: "trained" });
  if (state.rule.weights?.length !== result.scales.length) setKind("trained");
  build(result);
  const sample = spread(result);
  state.cloud = result.scales.length === 3 ? dots(sample, colours()) : null;
  state.pin = state.divided = mostDivided(sample);
  show({ result: true });
  showRule();
  redraw("fusion", "alone");
}

function build({ classes, scales, size }) {
  legend.build(classes, colours());
  readout.build({ classes, scales });
  hand.build(scales);
  views.build(scales);
  for (const one of [stage, second]) one.fit(size);
}

/** The page at work; what needs a result is seen with one only. */
function show({ result }) {
  document.body.classList.add("working");
  $("work").hidden = false;
  $("compare").hidden = true;
  for (const id of ["side", "views", "tools"]) $(id).hidden = !result;
}

/** Everything that is said of some pixels, spread evenly. */
function spread(result) {
  const [rows, columns] = result.size, step = Math.max(1, Math.sqrt((rows * columns) / DOTS)), said = [];
  for (let row = Math.min(step, rows) / 2; row < rows; row += step) { // at least one, of however thin a picture
    for (let column = Math.min(step, columns) / 2; column < columns; column += step) {
      said.push(result.at(state.trained, Math.floor(row), Math.floor(column)));
    }
  }
  return said;
}
