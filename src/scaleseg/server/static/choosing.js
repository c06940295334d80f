// What people do: give a photograph, choose a model, a rule, a refinement or a view, point at a pixel, drag the weights.

import * as api from "./api.js";
import { begin, open, openOther, refine, save, unrefine } from "./asking.js";
import { listForModel } from "./menus.js";
import { $, announce, complain, tell } from "./page.js";
import { hand, legend, second, stage, views } from "./parts.js";
import { ACCEPTED, given } from "./photo.js";
import { sentence } from "./readout.js";
import { setKind, showRule } from "./rule.js";
import { later, redraw } from "./schedule.js";
import { comparing, state } from "./state.js";

export function setRule(kind, weights) {
  setKind(kind, weights);
  showRule();
  if (state.refine !== "none") {
    unrefine();
    tell("Not refined while the weights change.");
    later("refine", refine);
  }
  redraw("fusion");
}

function chooseModel() {
  listForModel($("other").value);
  const photo = state.asked ?? state.photo;
  if (photo) open(photo);
}

function look(row, column, how) {
  if (!state.result) return;
  if (row === null) state.hover = null;
  else if (how === "hover") state.hover = [row, column];
  else {
    state.pin = [row, column];
    state.hover = null;
    later("speak", () => announce(sentence(state.said, state.result.classes, state.result.scales)), 0);
  }
  redraw("pixel");
}

function setSplit(fraction) {
  state.split = fraction;
  $("split").value = String(Math.round(fraction * 100));
  redraw("paint");
}

/** The parts of the page and its controls begin to answer. */
export function listen() {
  legend.change = views.change = () => redraw("paint");
  hand.change = (weights) => setRule("weights", weights);
  stage.look = second.look = look;
  stage.slide = setSplit;
  stage.divider = () => (comparing("swipe") ? state.split : null);
  listenForPhotographs();
  listenToControls();
  addEventListener("resize", () => redraw("pixel")); // the triangle is drawn at the screen's own pixels
  for (const query of ["(prefers-color-scheme: dark)", "(forced-colors: active)"]) {
    matchMedia(query).addEventListener("change", () => redraw("pixel"));
  }
}

function listenForPhotographs() {
  $("file").addEventListener("change", () => {
    const photo = given($("file").files);
    if (photo) open(photo);
    $("file").value = ""; // so that the same file can be chosen again
  });
  addEventListener("paste", (event) => {
    const photo = given(event.clipboardData?.files, "pasted");
    if (photo) open(photo);
    else if (!event.target.matches?.("input")) complain(new Error(`What was pasted is no file; give a photograph: ${ACCEPTED}.`));
  });
  const brings = (event) => event.dataTransfer.types.includes("Files");
  addEventListener("dragover", (event) => {
    if (!brings(event)) return;
    event.preventDefault();
    document.body.classList.add("dragging");
  });
  addEventListener("dragleave", (event) => event.relatedTarget ?? document.body.classList.remove("dragging"));
  addEventListener("drop", (event) => {
    if (!brings(event)) return;
    event.preventDefault();
    document.body.classList.remove("dragging");
    const photo = given(event.dataTransfer.files);
    if (photo) open(photo);
    else complain(new Error(`What was dropped is no file; give a photograph: ${ACCEPTED}.`));
  });
}

function listenToControls() {
  $("token-form").addEventListener("submit", (event) => {
    event.preventDefault();
    api.setToken($("token").value);
    begin();
  });
  $("model").addEventListener("change", chooseModel);
  $("other").addEventListener("change", () => state.photo && openOther());
  $("refine").addEventListener("change", () => {
    state.refine = $("refine").value;
    refine();
  });
  $("fusions").addEventListener("change", (event) => setRule(event.target.value));
  $("opacity").addEventListener("input", () => {
    state.opacity = $("opacity").valueAsNumber / 100;
    redraw("paint");
  });
  $("split").addEventListener("input", () => setSplit($("split").valueAsNumber / 100));
  $("compare").addEventListener("change", (event) => {
    if (event.target.name !== "compare") return;
    state.compare = event.target.value;
    redraw("paint");
  });
  for (const button of document.querySelectorAll(".save")) button.addEventListener("click", () => save(button.dataset.output));
}
