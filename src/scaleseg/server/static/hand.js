// Weights by hand: one slider a scale, and for three scales a triangle; they always sum to one.

import { percent } from "./words.js";

const HUNDREDTHS = 100;

/** The weights after one was set: what the others lose or win they share in proportion. */
export function moved(weights, index, value) {
  const rest = weights.reduce((sum, weight, other) => (other === index ? sum : sum + weight), 0);
  if (weights.length === 1) return [1];
  return weights.map((weight, other) => {
    if (other === index) return value;
    return rest > 1e-9 ? (weight / rest) * (1 - value) : (1 - value) / (weights.length - 1);
  });
}

export class Hand {
  constructor(list, triangle) {
    this.list = list;
    this.triangle = triangle;
    this.change = () => {}; // called with the weights while somebody drags or presses keys
    this.weights = [];
    this.cloud = null;
    this.#listen();
  }

  /** Sliders for a model's scales. */
  build(scales) {
    this.scales = scales;
    this.sliders = scales.map((scale, index) => slider(scale, index, (value) => this.#move(index, value), () => this.weights[index]));
    this.list.replaceChildren(...this.sliders.map(({ item }) => item));
    this.triangle.closest("figure").hidden = scales.length !== 3;
  }

  /** What the sliders show: the weights by hand, or the means of another rule. */
  show(weights) {
    this.weights = [...weights];
    for (const [index, { input, number }] of this.sliders.entries()) {
      const text = percent(weights[index]);
      const value = String(Math.round(weights[index] * HUNDREDTHS * 10) / 10);
      if (input.value !== value) input.value = value;
      input.setAttribute("aria-valuetext", text.replace("\u00a0%", " percent"));
      input.style.setProperty("--share", `${weights[index] * 100}%`);
      number.textContent = text;
    }
  }

  /** Shown at once: the next key may come before the next frame. */
  #move(index, value) {
    this.show(moved(this.weights, index, Math.min(1, Math.max(0, value))));
    this.change(this.weights);
  }

  /** The triangle: a corner is a scale alone. `cloud` are [weights, colour] of many cells, `pixel` those of the pixel looked at. */
  draw({ cloud, pixel, byHand }) {
    if (this.triangle.closest("figure").hidden) return;
    const ratio = Math.min(2, window.devicePixelRatio || 1), side = this.triangle.clientWidth || 208;
    const width = Math.round(side * ratio), height = Math.round(width * 0.95);
    if (this.triangle.width !== width || this.triangle.height !== height) Object.assign(this.triangle, { width, height });
    const context = this.triangle.getContext("2d"), style = getComputedStyle(this.triangle);
    const colour = (name) => style.getPropertyValue(name).trim();
    const corners = this.#corners();
    context.clearRect(0, 0, width, height);
    context.beginPath();
    for (const [x, y] of corners) context.lineTo(x, y);
    context.closePath();
    context.fillStyle = colour("--card");
    context.fill();
    context.lineWidth = ratio;
    context.strokeStyle = colour("--edge");
    context.stroke();
    for (const [weights, ink] of cloud ?? []) {
      const [x, y] = place(corners, weights);
      context.fillStyle = ink ?? colour("--soft");
      context.globalAlpha = 0.4;
      context.fillRect(x - ratio * 0.9, y - ratio * 0.9, ratio * 1.8, ratio * 1.8);
    }
    context.globalAlpha = 1;
    context.font = `${12 * ratio}px system-ui, sans-serif`;
    context.fillStyle = colour("--soft");
    context.textAlign = "center";
    this.scales.forEach((scale, index) => {
      const [x, y] = corners[index];
      context.fillText(String(scale), x, index === 0 ? y - 7 * ratio : y + 16 * ratio);
    });
    if (pixel && pixel.every(Number.isFinite)) ring(context, place(corners, pixel), 5 * ratio, colour("--ink"), null, 1.5 * ratio);
    ring(context, place(corners, this.weights), 7 * ratio, colour("--paper"), byHand ? colour("--accent") : colour("--soft"), 2 * ratio);
  }

  #corners() {
    const { width, height } = this.triangle, side = Math.min(width * 0.9, (height * 0.8 * 2) / Math.sqrt(3));
    const top = height * 0.11, bottom = top + (side * Math.sqrt(3)) / 2, middle = width / 2;
    return [[middle, top], [middle - side / 2, bottom], [middle + side / 2, bottom]];
  }

  /** The pointer's way: the triangle is an addition, everything it does the sliders do for keys and screen readers. */
  #listen() {
    const drag = (event) => {
      const box = this.triangle.getBoundingClientRect(), ratio = this.triangle.width / box.width;
      this.change(weightsAt(this.#corners(), [(event.clientX - box.left) * ratio, (event.clientY - box.top) * ratio]));
    };
    this.triangle.addEventListener("pointerdown", (event) => {
      this.triangle.setPointerCapture(event.pointerId);
      drag(event);
    });
    this.triangle.addEventListener("pointermove", (event) => {
      if (this.triangle.hasPointerCapture(event.pointerId)) drag(event);
    });
  }
}

function slider(scale, index, move, now) {
  const item = document.createElement("li"), label = document.createElement("label");
  const input = document.createElement("input"), number = document.createElement("span");
  label.htmlFor = input.id = `hand-${index}`;
  label.textContent = `Scale ${scale}`;
  input.setAttribute("aria-label", `Weight of scale ${scale}`);
  Object.assign(input, { type: "range", min: "0", max: String(HUNDREDTHS), step: "0.1" });
  input.addEventListener("input", () => move(Number(input.value) / HUNDREDTHS));
  input.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -10, PageUp: 10 }[event.key];
    if (!step) return; // Home and End are the browser's own
    event.preventDefault();
    move(now() + step / HUNDREDTHS);
  });
  number.className = "number"; // no <output>: that is a live region, and would be read out at every step of a drag
  number.setAttribute("aria-hidden", "true");
  item.append(label, input, number);
  return { item, input, number };
}

function place(corners, weights) {
  return [0, 1].map((axis) => corners.reduce((sum, corner, index) => sum + corner[axis] * weights[index], 0));
}

/** Barycentric coordinates; outside the triangle negative ones are cut off. */
function weightsAt([[ax, ay], [bx, by], [cx, cy]], [x, y]) {
  const area = (by - cy) * (ax - cx) + (cx - bx) * (ay - cy);
  const first = ((by - cy) * (x - cx) + (cx - bx) * (y - cy)) / area;
  const second = ((cy - ay) * (x - cx) + (ax - cx) * (y - cy)) / area;
  const clipped = [first, second, 1 - first - second].map((weight) => Math.max(0, weight));
  const sum = clipped.reduce((a, b) => a + b, 0);
  return clipped.map((weight) => weight / sum);
}

function ring(context, [x, y], radius, stroke, fill, width) {
  context.beginPath();
  context.arc(x, y, radius, 0, 2 * Math.PI);
  if (fill) {
    context.fillStyle = fill;
    context.fill();
  }
  context.lineWidth = width;
  context.strokeStyle = stroke;
  context.stroke();
}

