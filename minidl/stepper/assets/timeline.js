// The timeline: every step as a bar, forward then backward; time, memory or the gradient's norm; drag to seek.

import { bytes, byId, duration, el, fill, num, tableOf } from "./dom.js";
import { gradientNorm, tensorOf, titleOf, trace } from "./data.js";
import { pane, update, view } from "./state.js";

const METRICS = { time: "time", memory: "memory", gradient: "‖grad‖" };
const measures = {};

export function startTimeline() {
  measures.time = trace.steps.map((step) => step.seconds);
  measures.memory = live();
  measures.gradient = trace.steps.map(gradientNorm);
  fill(byId("metrics"), Object.entries(METRICS).map(([name, label]) =>
    el("button", { type: "button", "data-metric": name, "aria-pressed": "false", click: () => update({ metric: name }) }, label)));
  const track = byId("track");
  let held = false;
  const seek = (event) => {
    const box = track.getBoundingClientRect();
    update({ place: Math.floor((event.clientX - box.left) / box.width * trace.steps.length) });
  };
  track.addEventListener("pointerdown", (event) => { held = true; track.setPointerCapture(event.pointerId); seek(event); });
  track.addEventListener("pointermove", (event) => { if (held) seek(event); });
  for (const end of ["pointerup", "pointercancel"]) track.addEventListener(end, () => { held = false; });
  track.addEventListener("keydown", keys);
  pane((now, before) => {
    if (now.metric !== before.metric || now.breaks !== before.breaks || !byId("bars").children.length) bars();
    if (now.place !== before.place || !byId("cursor").style.left) cursor();
  });
}

// Bytes that are alive after each step: what the forward keeps piles up, and each backward lets its part go.
function live() {
  let now = 0;
  const kept = new Map();
  return trace.steps.map((step) => {
    if (step.kind === "forward") { kept.set(step.id, step.keeps.reduce((sum, k) => sum + k.bytes, 0)); now += kept.get(step.id); }
    else if (step.kind === "backward") { now -= kept.get(step.forward) ?? 0; kept.delete(step.forward); }
    return now;
  });
}

function shown(value, metric) {
  if (value === null) return "–";
  return metric === "time" ? duration(value) : metric === "memory" ? bytes(value) : num(value);
}

// Heights between 0 and 1: linear for memory, logarithmic for what spans orders of magnitude.
function heights(values, metric) {
  const good = values.filter((v) => v !== null && Number.isFinite(v) && v > 0);
  if (!good.length) return values.map(() => 0);
  const top = good.reduce((a, b) => Math.max(a, b)), low = Math.max(good.reduce((a, b) => Math.min(a, b)), top * 1e-6);
  if (metric === "memory" || top / low < 3) return values.map((v) => (v > 0 ? v / top : 0));
  return values.map((v) => (v > 0 && Number.isFinite(v) ? 0.12 + 0.88 * Math.max(0, Math.log(v / low)) / Math.log(top / low) : 0));
}

function bars() {
  const metric = view.metric, values = measures[metric], tall = heights(values, metric), count = values.length;
  for (const button of byId("metrics").children) button.setAttribute("aria-pressed", String(button.dataset.metric === metric));
  const gap = count > 220 ? 0 : count > 90 ? 0.15 : 0.22;
  const bar = (step, k) => {
    const high = tall[k] * 40, odd = values[k] !== null && !Number.isFinite(values[k]);
    return odd ? `M${k + gap / 2} 44v-40h${1 - gap}v40z` : high > 0 ? `M${k + gap / 2} 44v${-Math.max(1.5, high)}h${1 - gap}v${Math.max(1.5, high)}z` : "";
  };
  const path = (kind) => trace.steps.map((step, k) => (step.kind === kind ? bar(step, k) : "")).join("");
  fill(byId("bars"), el("svg:svg", { viewBox: `0 0 ${count} 48`, preserveAspectRatio: "none", "aria-hidden": "true" },
    ["forward", "backward", "update"].map((kind) => el("svg:path", { class: `bar ${kind}`, d: path(kind) })),
    trace.steps.map((step, k) => step.flags.length ? el("svg:path", { class: "bar flagged", d: `M${k} 48v-3h1v3z` }) : null)),
  trace.steps.map((step, k) => view.breaks.has(step.id) ? markAt(k, count, "stop", "■") : null));
  const turn = trace.steps.findIndex((step) => step.kind === "backward");
  const top = values.reduce((a, b) => (b !== null && Number.isFinite(b) && b > a ? b : a), 0);
  fill(byId("scale"), `bars up to ${shown(top, metric)}${metric === "memory" || metric === "time" && count < 3 ? "" : ", log scale"}`);
  fill(byId("ends"), el("span", {}, `forward ${trace.counts.forward} · ${duration(trace.seconds.forward)}`),
    turn < 0 ? el("span", {}, "no backward was recorded") : placed(el("span", { class: "turn" }, `backward ${trace.counts.backward} · ${duration(trace.seconds.backward)}${trace.counts.update ? ` · update ${trace.counts.update}` : ""}`), turn / count));
  fill(byId("timetable"), tableOf(`Every step, with its ${METRICS[metric]}`, ["step", "kind", "where", "op", METRICS[metric]],
    trace.steps.map((step, k) => [String(k + 1), step.kind, titleOf(step), step.op, shown(values[k], metric)])));
}

function placed(element, share) {
  element.style.left = `${share * 100}%`;
  return element;
}

const markAt = (k, count, kind, text) => placed(el("span", { class: `mark ${kind}`, "aria-hidden": "true" }, text), (k + 0.5) / count);

function cursor() {
  const track = byId("track"), step = trace.steps[view.place], count = trace.steps.length;
  byId("cursor").style.left = `${view.place / count * 100}%`;
  byId("cursor").style.width = `max(3px, ${100 / count}%)`;
  track.setAttribute("aria-valuemax", count);
  track.setAttribute("aria-valuenow", view.place + 1);
  track.setAttribute("aria-valuetext", `step ${view.place + 1} of ${count}, ${step.kind} ${titleOf(step)}, ${shown(measures[view.metric][view.place], view.metric)}`);
  fill(byId("reading"), `${titleOf(step)}: ${["time", "memory", "gradient"].map((m) => `${METRICS[m]} ${shown(measures[m][view.place], m)}`).join("  ·  ")}`);
}

function keys(event) {
  const by = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, PageDown: 10, PageUp: -10, Home: -Infinity, End: Infinity }[event.key];
  if (by === undefined) return;
  event.preventDefault();
  event.stopPropagation();
  update({ place: Math.max(0, Math.min(trace.steps.length - 1, view.place + by)) });
}
