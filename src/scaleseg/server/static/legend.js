// The classes in the picture, each with its share; a press hides one, "only" shows one alone.

import { swatch } from "./readout.js";
import { percent } from "./words.js";

export class Legend {
  constructor(list, reset) {
    this.list = list;
    this.reset = reset;
    this.change = () => {}; // called when classes are hidden or shown
    this.hidden = new Set();
    reset.addEventListener("click", () => this.#set([]));
  }

  build(classes, colours) {
    this.classes = classes;
    this.colours = colours;
    this.items = new Map();
    this.hidden = new Set();
    this.reset.hidden = true;
    this.list.replaceChildren();
    this.guests = [];
  }

  /**
   * Shares of all classes; those that were ever seen stay in their place, so nothing jumps while weights are dragged.
   * `others` are a second model's shares of the same classes, `guests` its own ones: {name, colour, id, share}.
   */
  show(shares, others = null, guests = []) {
    const seen = this.classes.map((_, id) => id).filter((id) => (shares[id] > 0 || others?.[id] > 0) && !this.items.has(id));
    for (const id of seen.sort((a, b) => shares[b] - shares[a])) this.#add(id);
    for (const [id, { share }] of this.items) {
      share.textContent = percent(shares[id]) + (others ? ` · ${others[id] === null ? "none" : percent(others[id])}` : "");
    }
    for (const item of this.guests) item.remove();
    this.guests = guests.map(({ name, colour, id, share }) => still(swatch(colour, id), name, `none · ${percent(share)}`));
    this.list.append(...this.guests);
  }

  #add(id) {
    let item = document.createElement("li"), share = document.createElement("span");
    share.className = "number";
    if (id === 0) { // the picture leaves class 0 as it is: there is nothing to hide
      item = still(swatch(this.colours[id], id), this.classes[id], "");
      share = item.querySelector(".number");
      this.items.set(id, { share });
    } else {
      const button = control("chip"), only = control("only");
      button.append(swatch(this.colours[id], id), `${this.classes[id]} `, share);
      button.title = `Hide or show ${this.classes[id]}`;
      button.addEventListener("click", () => this.#toggle(id));
      only.textContent = "only";
      only.setAttribute("aria-label", `Show ${this.classes[id]} only`);
      only.addEventListener("click", () => this.#solo(id));
      item.append(button, only);
      this.items.set(id, { share, button, only });
    }
    this.list.append(item);
    this.#mark();
  }

  #toggle(id) {
    this.#set(this.hidden.has(id) ? [...this.hidden].filter((other) => other !== id) : [...this.hidden, id]);
  }

  #solo(id) {
    const others = this.classes.map((_, other) => other).filter((other) => other && other !== id);
    this.#set(this.#alone() === id ? [] : others);
  }

  /** The class that is shown alone, if one is. */
  #alone() {
    const left = this.classes.map((_, id) => id).filter((id) => id && !this.hidden.has(id));
    return left.length === 1 && this.classes.length > 2 ? left[0] : null;
  }

  #set(ids) {
    this.hidden = new Set(ids);
    this.#mark();
    this.change();
  }

  #mark() {
    for (const [id, { button, only }] of this.items) {
      button?.setAttribute("aria-pressed", String(!this.hidden.has(id)));
      only?.setAttribute("aria-pressed", String(this.#alone() === id));
    }
    this.reset.hidden = this.hidden.size === 0;
  }
}

/** A class that cannot be hidden. */
function still(mark, name, text) {
  const item = document.createElement("li"), chip = document.createElement("span"), share = document.createElement("span");
  chip.className = "chip still";
  share.className = "number";
  share.textContent = text;
  chip.append(mark, `${name} `, share);
  item.append(chip);
  return item;
}

function control(name) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = name;
  return button;
}
