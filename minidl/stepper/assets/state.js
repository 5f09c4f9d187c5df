// What is being looked at, in one object; whoever changes it calls update(), and the panes redraw themselves.
// The address after # holds it too, so that a view can be sent to someone: #step=12&tab=source&tensor=h&at=0,3

import { trace } from "./data.js";

export const TABS = ["tensor", "maths", "source", "check", "graph"];

export const view = { place: 0, tab: "maths", tensor: null, at: null, metric: "time", breaks: new Set(), open: new Set(), shut: new Set() };

const panes = [];

export function pane(draw) {
  panes.push(draw);
}

// Change some of the view; every pane is told what it was before.
export function update(changes) {
  const before = { ...view };
  Object.assign(view, changes);
  view.place = Math.max(0, Math.min(trace.steps.length - 1, view.place));
  if (view.place !== before.place && !("tensor" in changes)) Object.assign(view, { tensor: null, at: null });
  for (const draw of panes) draw(view, before);
  writeHash();
}

let written = "", waiting = 0;

function writeHash() {
  const parts = [`step=${trace.steps[view.place]?.id ?? 0}`, `tab=${view.tab}`];
  if (view.tensor !== null) parts.push(`tensor=${encodeURIComponent(trace.tensors[view.tensor].name)}`);
  if (view.tensor !== null && view.at) parts.push(`at=${view.at.join(",")}`);
  if (view.metric !== "time") parts.push(`by=${view.metric}`);
  if (view.breaks.size) parts.push(`break=${[...view.breaks].join(",")}`);
  written = "#" + parts.join("&");
  clearTimeout(waiting); // browsers refuse too many changes of the address in a short time
  waiting = setTimeout(() => {
    if (location.hash !== written) history.replaceState(null, "", location.href.split("#")[0] + written); // whole: in a notebook's frame "#" alone is the notebook's
  }, 120);
}

// The view that an address describes; what it does not understand is left out.
export function readHash(hash) {
  if (hash === written) return null;
  const found = {};
  for (const part of hash.replace(/^#/, "").split("&")) {
    const [name, value = ""] = part.split("=");
    if (name === "step" && trace.byId.has(Number(value))) found.place = trace.byId.get(Number(value));
    if (name === "tab" && TABS.includes(value)) found.tab = value;
    if (name === "tensor") found.tensor = trace.tensors.findIndex((t) => t.name === text(value));
    if (name === "at" && /^\d+(,\d+)*$/.test(value)) found.at = value.split(",").map(Number);
    if (name === "by" && ["time", "memory", "gradient"].includes(value)) found.metric = value;
    if (name === "break") found.breaks = new Set(value.split(",").map(Number).filter((n) => trace.byId.has(n)));
  }
  if (found.tensor === undefined || found.tensor < 0) Object.assign(found, { tensor: null, at: null });
  else found.at = fits(found.at, trace.tensors[found.tensor].shape) ? found.at : null;
  return found;
}

function text(value) {
  try { return decodeURIComponent(value); } catch { return value; }
}

function fits(at, shape) {
  return Boolean(at) && at.length === shape.length && at.every((k, axis) => k < shape[axis]);
}
