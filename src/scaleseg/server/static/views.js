// The small pictures under the large one: everything there is to look at, and the choice of what is shown large.

import { classLayer, put, weightLayer } from "./draw.js";
import { percent } from "./words.js";

const NONE = new Set();

export class Views {
  constructor(root) {
    this.root = root;
    this.change = () => {}; // called when another picture is chosen
    this.value = "classes";
  }

  /** One column for all scales together, one for each: above whom to believe, below what it says. */
  build(scales) {
    const several = scales.length > 1;
    const above = [["classes", "all scales"], ...scales.map((scale, index) => [`weight-${index}`, `weight of scale ${scale}`])];
    const below = [["photo", "photograph"], ...scales.map((scale, index) => [`alone-${index}`, `scale ${scale} alone`])];
    const choices = several ? [...above, ...below] : [above[0], below[0]];
    this.root.style.setProperty("--columns", several && scales.length < 5 ? scales.length + 1 : 4);
    this.items = new Map(choices.map(([value, text]) => [value, this.#item(value, text)]));
    this.root.replaceChildren(...[...this.items.values()].map(({ label }) => label));
    if (!this.items.has(this.value)) this.value = "classes";
    this.items.get(this.value).input.checked = true;
  }

  /** `layers` say how each picture is drawn small; those that are left out stay. */
  draw({ width, height, bitmap, colours, labels, weights, alone, means }) {
    const classes = (ids) => classLayer(ids, width, height, colours, NONE, 0.6);
    if (bitmap) put(this.items.get("photo").canvas, new ImageData(width, height), bitmap);
    put(this.items.get("classes").canvas, classes(labels), bitmap);
    weights?.forEach((values, index) => {
      const { canvas, number } = this.items.get(`weight-${index}`);
      put(canvas, weightLayer(values, width, height));
      number.textContent = `mean ${percent(means[index])}`;
    });
    alone?.forEach((ids, index) => put(this.items.get(`alone-${index}`).canvas, classes(ids), bitmap));
  }

  #item(value, text) {
    const label = document.createElement("label"), input = document.createElement("input"), canvas = document.createElement("canvas");
    const caption = document.createElement("span"), number = document.createElement("small");
    Object.assign(input, { type: "radio", name: "view", value });
    input.addEventListener("change", () => {
      this.value = value;
      this.change();
    });
    canvas.setAttribute("aria-hidden", "true"); // the caption names it
    caption.append(text, number);
    label.append(input, canvas, caption);
    return { label, input, canvas, number };
  }
}
