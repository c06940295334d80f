// The picture as something to point at: mouse, finger and arrow keys all name a pixel of the photograph itself.

const STEPS = 60; // presses of an arrow key from one border to the other

export class Stage {
  constructor(canvas) {
    this.canvas = canvas;
    this.frame = canvas.closest(".frame");
    this.size = [1, 1];
    this.sliding = false;
    this.look = () => {}; // (row, column, how): how is "hover", "pin" (a press or a tap) or "key"; (null) when the mouse leaves
    this.divider = () => null; // the place of a divider, 0 to 1, where there is one
    this.slide = () => {}; // (fraction) when the divider is dragged
    canvas.addEventListener("pointerdown", (event) => this.#down(event));
    canvas.addEventListener("pointermove", (event) => this.#move(event));
    canvas.addEventListener("pointerup", () => { this.sliding = false; });
    canvas.addEventListener("pointercancel", () => { this.sliding = false; });
    canvas.addEventListener("pointerleave", () => this.sliding || this.look(null));
    canvas.addEventListener("click", (event) => this.slid || this.look(...this.#pixel(event), "pin"));
    canvas.addEventListener("keydown", (event) => this.#key(event));
  }

  /** The photograph's size, (rows, columns). */
  fit([rows, columns]) {
    this.size = [rows, columns];
    this.frame.style.setProperty("--ratio", columns / rows);
  }

  cross([row, column]) {
    this.at = [row, column];
    this.frame.style.setProperty("--x", `${(100 * (column + 0.5)) / this.size[1]}%`);
    this.frame.style.setProperty("--y", `${(100 * (row + 0.5)) / this.size[0]}%`);
  }

  #fraction(event) {
    const box = this.canvas.getBoundingClientRect();
    return [(event.clientY - box.top) / box.height, (event.clientX - box.left) / box.width];
  }

  #pixel(event) {
    return this.#fraction(event).map((part, axis) => clamp(Math.floor(part * this.size[axis]), this.size[axis]));
  }

  #down(event) {
    const divider = this.divider(), width = this.canvas.getBoundingClientRect().width;
    this.slid = this.sliding = divider !== null && Math.abs(this.#fraction(event)[1] - divider) * width < 24;
    if (this.sliding) this.canvas.setPointerCapture(event.pointerId);
  }

  #move(event) {
    if (this.sliding) this.slide(Math.min(1, Math.max(0, this.#fraction(event)[1])));
    else if (event.pointerType === "mouse") this.look(...this.#pixel(event), "hover");
    else if (event.buttons) this.look(...this.#pixel(event), "pin");
  }

  #key(event) {
    const [rows, columns] = this.size, step = event.shiftKey ? 1 : Math.max(1, Math.round(Math.max(rows, columns) / STEPS));
    const ways = {
      ArrowLeft: [0, -step], ArrowRight: [0, step], ArrowUp: [-step, 0], ArrowDown: [step, 0],
      Home: [0, -columns], End: [0, columns], PageUp: [-rows, 0], PageDown: [rows, 0],
    };
    const way = ways[event.key];
    if (!way || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    this.at = [clamp(this.at[0] + way[0], rows), clamp(this.at[1] + way[1], columns)]; // the next key may come before a frame
    this.look(...this.at, "key");
  }
}

function clamp(value, count) {
  return Math.min(count - 1, Math.max(0, value));
}
