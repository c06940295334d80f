// What is said of one pixel: its class, the weight of each scale, and what each scale alone would have said.

import { rampColour } from "./draw.js";
import { percent, spoken } from "./words.js";

const MOST = 5; // classes with a bar; the height stays the same, whatever the pixel

export class Readout {
  constructor(root) {
    this.place = root.querySelector("#pixel-place");
    this.answer = root.querySelector("#pixel-answer");
    this.bars = root.querySelector("#pixel-bars");
    this.scales = root.querySelector("#pixel-scales tbody");
    this.others = root.querySelector("#pixel-others");
    this.rest = root.querySelector("#pixel-rest");
    this.note = root.querySelector("#pixel-note");
  }

  build({ classes, scales }) {
    this.rows = Array.from({ length: Math.min(MOST, classes.length) }, () => bar());
    this.bars.replaceChildren(...this.rows.map(({ item }) => item));
    this.lines = scales.map((scale) => line(scale));
    this.scales.replaceChildren(...this.lines.map(({ row }) => row));
  }

  /** `said` is Result.at's answer; `other` are a second model's name, classes and answer, or null. */
  show(said, classes, colours, { note = "", other = null } = {}) {
    this.place.textContent = `row ${said.row}, column ${said.column}`;
    this.answer.replaceChildren(swatch(colours[said.label], said.label), classes[said.label]);
    const order = said.probabilities.map((_, id) => id).sort((a, b) => said.probabilities[b] - said.probabilities[a]);
    this.rows.forEach(({ name, fill, number }, index) => {
      const id = order[index];
      name.textContent = classes[id];
      number.textContent = percent(said.probabilities[id]);
      fill.style.setProperty("--share", `${100 * said.probabilities[id]}%`);
      fill.style.setProperty("--colour", css(colours[id], id));
    });
    const left = order.slice(this.rows.length);
    this.rest.hidden = left.length === 0;
    this.rest.textContent = `${left.length} other ${left.length === 1 ? "class" : "classes"}: ` +
      percent(left.reduce((sum, id) => sum + said.probabilities[id], 0));
    this.lines.forEach(({ fill, weight, alone }, index) => {
      const own = said.perScale[index];
      weight.textContent = percent(said.weights[index]);
      fill.style.setProperty("--share", `${100 * said.weights[index]}%`);
      fill.style.setProperty("--colour", rampColour(said.weights[index]));
      const sure = document.createElement("span");
      sure.className = "number";
      sure.textContent = percent(own.probabilities[own.label]);
      alone.replaceChildren(swatch(colours[own.label], own.label), `${classes[own.label]} `, sure);
      alone.classList.toggle("dissents", own.label !== said.label);
    });
    this.others.hidden = !other;
    if (other) this.others.textContent = `${other.name} says ${other.classes[other.said.label]} ${percent(other.said.probabilities[other.said.label])} here.`;
    this.note.textContent = note;
  }
}

/** The same in one sentence, for the live region. */
export function sentence(said, classes, scales) {
  const weights = scales.map((scale, index) => `scale ${scale} weighs ${spoken(said.weights[index])} and alone says ${classes[said.perScale[index].label]}`);
  return `Row ${said.row}, column ${said.column}: ${classes[said.label]}, ${spoken(said.probabilities[said.label])}; ${weights.join("; ")}.`;
}

export function swatch(colour, id) {
  const square = document.createElement("span");
  square.className = "swatch";
  square.style.setProperty("--colour", css(colour, id));
  return square;
}

/** Class 0 has no colour: the picture leaves it as it is. */
export function css(colour, id) {
  return id && colour ? `rgb(${colour.join(" ")})` : "transparent";
}

function bar() {
  const item = document.createElement("li"), name = document.createElement("span"), track = document.createElement("span");
  const fill = document.createElement("span"), number = document.createElement("span");
  name.className = "name";
  track.className = "track";
  fill.className = "fill";
  number.className = "number";
  track.append(fill);
  item.append(name, track, number);
  return { item, name, fill, number };
}

function line(scale) {
  const row = document.createElement("tr"), head = document.createElement("th"), middle = document.createElement("td"), alone = document.createElement("td");
  const track = document.createElement("span"), fill = document.createElement("span"), weight = document.createElement("span");
  head.scope = "row";
  head.textContent = String(scale);
  track.className = "track";
  fill.className = "fill";
  weight.className = "number";
  track.append(fill);
  middle.append(track, weight);
  middle.className = "weight";
  row.append(head, middle, alone);
  return { row, fill, weight, alone };
}
