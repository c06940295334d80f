// What the server is asked for: its models, a photograph's scores, a second model's, a refinement, a file to keep.

import * as api from "./api.js";
import { listForModel, listModels, listSamples, refinement } from "./menus.js";
import { $, forgive, tell } from "./page.js";
import { decode, readable } from "./photo.js";
import { Result } from "./result.js";
import { options } from "./rule.js";
import * as safetensors from "./safetensors.js";
import { giveUp, job, redraw } from "./schedule.js";
import { preview, take, unshow } from "./showing.js";
import { state } from "./state.js";

const KEPT = 10_000; // milliseconds that a file to save stays in memory: the browser reads it after the click

/** The server's models and samples; then the photograph that was given before they were known. */
export async function begin() {
  forgive();
  await job("models", async (signal) => {
    const { models, samples, limits, token_required: needed, version } = await api.models(signal);
    Object.assign(state, { models, limits });
    $("token-form").hidden = true;
    $("source").hidden = false;
    listModels($("model").value);
    $("version").textContent = `scaleseg ${version ?? ""}`.trim() + (needed ? ", token in use" : "");
    $("limits").textContent = limits ? `At most ${Math.round(limits.bytes / 1e6)} MB and ${Math.round(limits.pixels / 1e6)} million pixels.` : "";
    listSamples(samples ?? [], (name, address) => open({ name, address }));
  });
  if (state.models.length === 0) $("source").hidden = !$("token-form").hidden;
  else if (state.asked) open(state.asked);
}

/** A photograph, from wherever it came: {name, blob}, {name, address} of a sample; `more` files were given and are left out. */
export async function open(asked) {
  state.asked = asked;
  if (state.models.length === 0) return begin();
  forgive();
  const went = await job("photo", (signal) => segment(asked, signal));
  if (went === "superseded") return;
  if (went === "failed") return stayWithThePhotographBefore();
  state.asked = null;
  if ($("other").value) openOther();
  if (state.refine !== "none") refine();
}

async function segment(asked, signal) {
  const { name } = asked, model = $("model").value, begun = performance.now();
  tell(`Segmenting ${name} with ${model} …`);
  asked.blob ??= await api.sample(asked.address, signal);
  await readable(asked, state.limits?.bytes);
  const answer = fetched(asked.blob, { model }, signal);
  answer.catch(() => {}); // it is awaited below, after the picture
  const decoded = await decode(asked.blob);
  try {
    if (!state.result && decoded && !signal.aborted) preview(decoded);
    const result = await answer;
    signal.throwIfAborted();
    take({ ...asked, ...(decoded ?? { size: result.size, bitmap: null }) }, result);
  } finally {
    if (decoded && state.photo?.bitmap !== decoded.bitmap) decoded.bitmap.close();
  }
  tell([`${name}, ${state.result.size[1]} x ${state.result.size[0]} pixels, segmented by ${model} in ${since(begun)} s.`, ...notes(state)].join(" "));
}

function notes({ photo, result }) {
  const said = [];
  if (photo.more) said.push(`Of the ${photo.more + 1} files given only the first is shown.`);
  if (String(photo.size) !== String(result.size)) said.push("The server and this browser turn it differently; what is shown may be askew.");
  if (!photo.bitmap) said.push("This browser cannot show such a file, so its classes are drawn on white.");
  return said;
}

/** Where a token is asked for, what was given is opened once there is one; else it is given up. */
function stayWithThePhotographBefore() {
  if (!$("token-form").hidden) return;
  state.asked = null;
  if (!state.result) return unshow();
  $("model").value = state.result.model;
  listForModel(state.other?.model ?? $("other").value);
}

/** A second model's result of the same photograph, or none any more. */
export async function openOther() {
  const model = $("other").value;
  if (!model) {
    giveUp("other");
    showOther(null);
    return;
  }
  forgive();
  const went = await job("other", async (signal) => {
    tell(`Segmenting ${state.photo.name} with ${model} …`);
    const other = await fetched(state.photo.blob, { model }, signal);
    tell("");
    showOther(other);
  });
  if (went === "failed") $("other").value = state.other?.model ?? "";
}

function showOther(other) {
  state.other = other;
  $("compare").hidden = !other;
  redraw("fusion");
}

/** Refinement is the server's work; until it answers, what is not refined is shown. */
export async function refine() {
  unrefine();
  if (state.refine === "none") return;
  forgive();
  const went = await job("refine", async (signal) => {
    tell(`Refining (${refinement(state.refine)}) …`);
    const begun = performance.now();
    const { served, note } = await fetched(state.photo.blob, options(), signal);
    state.refined = served;
    tell(`Refined in ${since(begun)} s. ${note}`.trim());
    redraw("fusion");
  });
  if (went === "failed") $("refine").value = state.refine = "none";
}

export function unrefine() {
  giveUp("refine");
  state.refined = null;
  redraw("fusion");
}

/** The mask, the overlay or the weight maps as a file. */
export async function save(output) {
  forgive();
  await job("save", async (signal) => {
    tell(`Asking for the ${output} …`);
    const file = await api.segment(state.photo.blob, { ...options(), output }, { signal, note: tell, read: "blob" });
    const link = document.createElement("a");
    link.href = URL.createObjectURL(file);
    link.download = `${state.photo.name.replace(/\.[^.]*$/, "") || "photograph"}-${output}.png`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), KEPT);
    tell(`${link.download} is saved.`);
  });
}

async function fetched(blob, options, signal) {
  const answer = await api.segment(blob, { ...options, output: "safetensors" }, { signal, note: tell, read: "arrayBuffer" });
  signal.throwIfAborted();
  return Result.read(safetensors.parse(answer));
}

function since(begun) {
  return ((performance.now() - begun) / 1000).toFixed(1);
}
