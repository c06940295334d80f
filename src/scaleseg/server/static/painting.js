// The pictures: the large one in the chosen view, a second one beside or behind it, and the small ones below.

import { classLayer, differenceLayer, put, swipe, weightLayer } from "./draw.js";
import { $ } from "./page.js";
import { legend, views } from "./parts.js";
import { apart, colours, coloursBeside, ruleFor, state } from "./state.js";

/** The large picture, and the second model's where two are compared. */
export function paint() {
  const { result, places, photo, other } = state, comparison = other ? state.compare : null;
  showControls(comparison);
  if (comparison === "differences") {
    put($("canvas"), differenceLayer(apart(), places.width, places.height), photo.bitmap);
  } else {
    put($("canvas"), ...layer(result, state.fused, state.labels, colours(), legend.hidden));
    if (other) put($("canvas-other"), ...layer(other, state.otherFused, state.otherLabels, coloursBeside(other), hiddenIn(other)));
    if (comparison === "swipe") swipe($("canvas"), $("canvas-other"), state.split);
  }
  showCaptions(comparison);
}

/** The small pictures; what each scale alone says changes with the photograph only. */
export function paintSmall(withAlone) {
  const { result, small, photo, fused } = state, ids = smallLabels();
  const several = result.scales.length > 1;
  views.draw({
    width: small.width, height: small.height, bitmap: photo.bitmap ?? blank(), colours: colours(), labels: ids, means: state.means,
    weights: several ? result.scales.map((_, scale) => result.weightMap(fused, scale, small, ids)) : null,
    alone: several && withAlone ? result.scales.map((_, scale) => result.labelsAlone(scale, small)) : null,
  });
}

/** What the large picture shows, at fewer places. */
function smallLabels() {
  const { small, labels, places } = state;
  return Uint8Array.from({ length: small.width * small.height }, (_, index) => {
    const row = Math.floor((Math.floor(index / small.width) + 0.5) * places.height / small.height);
    return labels[row * places.width + Math.floor(((index % small.width) + 0.5) * places.width / small.width)];
  });
}

/** Only what does something in this view. */
function showControls(comparison) {
  $("opacity-label").hidden = !/^(classes|alone)/.test(views.value) || comparison === "differences";
  $("ramp").hidden = !views.value.startsWith("weight") || comparison === "differences";
  $("split-label").hidden = comparison !== "swipe";
  $("second").hidden = comparison !== "side";
  $("stages").classList.toggle("pair", comparison === "side");
}

/** What `put` needs to show a result in the chosen view. */
function layer(result, fused, labels, palette, hidden) {
  const { places, photo, opacity } = state, { width, height } = places;
  const [kind, index] = views.value.split("-"), scale = Number(index);
  if (kind === "weight" && scale < result.scales.length) {
    return [weightLayer(result.weightMap(fused, scale, places, labels), width, height, labels)];
  }
  const alone = kind === "alone" && scale < result.scales.length;
  const ids = alone ? result.labelsAlone(scale, places) : labels;
  return [classLayer(ids, width, height, palette, hidden, kind === "photo" ? 0 : opacity), photo.bitmap ?? blank()];
}

/** A file that the server can read and this browser cannot: its classes on white. */
function blank() {
  const canvas = new OffscreenCanvas(1, 1), context = canvas.getContext("2d");
  context.fillStyle = "#fff";
  context.fillRect(0, 0, 1, 1);
  return canvas;
}

/** The legend hides classes by name; another model may number them differently. */
function hiddenIn(other) {
  const names = new Set([...legend.hidden].map((id) => state.result.classes[id]));
  return new Set(other.classes.map((_, id) => id).filter((id) => names.has(other.classes[id])));
}

function showCaptions(comparison) {
  const { result, other, rule } = state;
  const [kind, index] = views.value.split("-");
  const what = {
    classes: "classes", photo: "photograph", weight: `weight of scale ${result.scales[index]}`, alone: `what scale ${result.scales[index]} alone says`,
  }[kind];
  if (comparison === "swipe") $("caption").textContent = `Left of the divider ${result.model}, right of it ${other.model}: ${what}.`;
  else if (comparison === "differences") $("caption").textContent = "Hatched: where the two name different classes.";
  else $("caption").textContent = comparison ? `${result.model}: ${what}` : "";
  if (!other) return;
  const same = ruleFor(other) === rule ? "" : ", fused as trained (it has another number of scales)";
  $("caption-other").textContent = `${other.model}: ${what}${same}`;
  $("canvas-other").setAttribute("aria-label", `The same photograph by ${other.model}`);
}
