// What is under way: the next frame, timers, and jobs that ask the server. body[data-rest] is "true" where there is nothing.

import { $, complain } from "./page.js";

const REST = 250; // milliseconds without a change before something slow is begun

const wanted = new Set(), timers = new Map(), running = new Map();
let frame = 0, working = 0, render = () => {};

/** `call(parts)` is what the next frame does. */
export function drawWith(call) {
  render = call;
}

/** What changed is drawn in the next animation frame, once, however often it changed. */
export function redraw(...parts) {
  for (const part of parts) wanted.add(part);
  frame ||= requestAnimationFrame(() => {
    const parts = new Set(wanted);
    wanted.clear();
    frame = 0;
    render(parts);
    markRest();
  });
  markRest();
}

/** Once `what` was not asked for again for a while. */
export function later(what, call, wait = REST) {
  clearTimeout(timers.get(what));
  timers.set(what, setTimeout(() => {
    timers.delete(what);
    call();
    markRest();
  }, wait));
  markRest();
}

/** Work in slices, which nobody is shown to be busy with. */
export async function atLeisure(work) {
  working++;
  try {
    return await work;
  } finally {
    working--;
    markRest();
  }
}

/** Runs one job of a kind; an earlier one of that kind is given up. How it went: "done", "failed" or "superseded". */
export async function job(kind, work) {
  giveUp(kind);
  const control = new AbortController();
  running.set(kind, control);
  showBusy();
  try {
    await work(control.signal);
    return control.signal.aborted ? "superseded" : "done";
  } catch (error) {
    if (control.signal.aborted) return "superseded";
    complain(error);
    return "failed";
  } finally {
    if (running.get(kind) === control) running.delete(kind);
    showBusy();
  }
}

export function giveUp(...kinds) {
  for (const kind of kinds) running.get(kind)?.abort();
}

function showBusy() {
  $("picture").setAttribute("aria-busy", String(running.size > 0));
  markRest();
}

function markRest() {
  document.body.dataset.rest = String(!frame && running.size === 0 && timers.size === 0 && working === 0);
}
