// The stage: an op with its inputs on the left, its parameters below, its outputs on the right. Going back, every
// tensor shows its gradient too, and the arrows turn. An element chosen in one tensor lights up what it meets in the others.

import { append, arrow, byId, el, fill, num, shapeText, visible } from "./dom.js";
import { forwardOf, missing, sentenceOf, settingsText, tensorOf, titleOf, trace, turnOf } from "./data.js";
import { boxAt, boxOf, draw, legend, plan, rectangles, roles, shownValue, sizeOf } from "./picture.js";
import { pane, update, view } from "./state.js";
import { windows } from "./windows.js";
import { formula } from "./formula.js";

const pictures = []; // {canvas, over, tensor, layout, argument}: what can light up
let drawnFor = "";   // the room() that they were drawn for

export function startStage() {
  pane((now, before) => {
    if (now.place !== before.place || !pictures.drawn) render();
    else if (now.tensor !== before.tensor) mark();
    if (now.at !== before.at || now.place !== before.place) fromView();
  });
  let waiting = 0;
  new ResizeObserver(() => { clearTimeout(waiting); waiting = setTimeout(() => { if (room() !== drawnFor) { render(); fromView(); } }, 60); }).observe(byId("stage"));
}

// What the size of the pictures depends on; stacked, the stage is as high as its cards, so only its width counts.
const stacked = () => matchMedia("(max-width: 640px)").matches;
const room = () => `${byId("stage").clientWidth} × ${stacked() ? "any" : byId("stage").clientHeight}`;

function render() {
  const step = trace.steps[view.place], slots = slotsOf(step);
  pictures.length = 0;
  pictures.drawn = true;
  heading(step);
  const stage = byId("stage"), wide = stage.clientWidth - 16, high = stacked() ? 300 : stage.clientHeight - 16;
  drawnFor = room();
  const of = (side) => slots.filter((slot) => slot.side === side), left = of("in"), below = of("parameter"), right = of("out");
  stage.dataset.kind = step.kind;
  stage.dataset.alone = below.length ? "no" : "yes";
  const column = stacked() ? wide : below.length ? (wide - 68) / 3 : (wide - 68 - 170) / 2, back = step.kind === "backward", settings = unusual(step);
  const head = el("div", { class: "op", role: "group", "aria-label": `operation ${step.op}` },
    el("strong", {}, step.op), settings ? el("span", { class: "settings" }, settings) : null, constants(step));
  const flow = () => el("div", { class: "flow", "aria-hidden": "true" }, back ? "←" : "→");
  fill(stage, el("div", { class: "side left" }, cards(left, step, column, high)), flow(),
    el("div", { class: "side middle" }, head, below.length ? el("div", { class: "up", "aria-hidden": "true" }, back ? "↓" : "↑") : null, parameters(below, step, column, high - 82 - 20 * Math.ceil(settings.length * 7.6 / (column - 34)))),
    flow(), el("div", { class: "side right" }, cards(right, step, column, high)));
  mark();
}

// The cards of one side: those that matter most share the height, the others are one line each.
function cards(list, step, wide, high) {
  const small = list.map((slot, k) => k > 0 && high / list.length < 190 && minor(slot, step));
  const taken = list.reduce((sum, slot, k) => sum + (small[k] ? step.kind === "backward" && slot.gradient === null ? 36 : 58 : 0), 0); // without numbers below it a card is one line
  const rest = high - 8 * (list.length - 1) - taken, share = rest / Math.max(1, small.filter((s) => !s).length);
  return list.map((slot, k) => card(slot, step, wide - 22, share, small[k] || share < 84));
}

const minor = (slot, step) => tensorOf(slot.tensor).shape.length < 2 || step.kind === "backward" && slot.gradient === null;

// Parameters below the op: one above the other, or two vectors side by side.
function parameters(list, step, column, high) {
  if (list.length === 2 && list.every((slot) => tensorOf(slot.tensor).shape.length < 2))
    return el("div", { class: "parameters pair" }, list.map((slot) => card(slot, step, column / 2 - 28, high, high < 96, true)));
  return el("div", { class: "parameters" }, cards(list, step, column, high));
}

// What stands where: {side, argument, tensor, gradient, part}.
export function slotsOf(step) {
  if (step.kind === "update") return step.parameters.slice(0, 3).flatMap((row) => [
    { side: "in", argument: "grad", tensor: row.gradient, gradient: null },
    { side: "out", argument: "new", tensor: row.after, gradient: null }]);
  const forward = forwardOf(step);
  const role = (id) => ["parameter", "buffer"].includes(tensorOf(id)?.role);
  if (step.kind === "forward" || !forward) {
    return [...step.inputs.filter((x) => x.tensor !== null).map((x) => ({ side: role(x.tensor) ? "parameter" : "in", argument: x.argument, tensor: x.tensor, gradient: null })),
      ...step.outputs.filter((y) => y.tensor !== null).map((y) => ({ side: "out", argument: y.argument, tensor: y.tensor, gradient: null }))];
  }
  const parts = new Map(step.parts.map((part) => [part.argument, part]));
  const given = new Map(step.inputs.map((g) => [tensorOf(g.tensor)?.of, g.tensor]));
  return [...forward.inputs.filter((x) => x.tensor !== null).map((x) => {
    const part = parts.get(x.argument);
    return { side: role(x.tensor) ? "parameter" : "in", argument: x.argument, tensor: x.tensor, gradient: part ? part.tensor : null, part };
  }), ...forward.outputs.map((y, k) => ({ side: "out", argument: y.argument, tensor: y.tensor,
    gradient: given.get(y.tensor) ?? step.inputs[k]?.tensor ?? null }))];
}

// The settings that are not what everybody expects.
const unusual = (step) => settingsText(step).split(", ").filter((s) => !/^(dilation=1|groups=1|ceil_mode=False|return_indices=False)$/.test(s)).join(", ");

// Numbers among the inputs: x * 2.
function constants(step) {
  const numbers = (forwardOf(step) ?? step).inputs.filter((x) => x.tensor === null && x.text && x.text !== "None");
  return numbers.map((x) => el("span", { class: "settings" }, `${x.argument} = ${x.text}`));
}

function heading(step) {
  const turn = turnOf(view.place), forward = forwardOf(step), number = trace.page.tex[step.op] ?? -1;
  byId("where").dataset.kind = step.kind;
  fill(byId("where"),
    el("span", { class: "way" }, `${arrow(step.kind)} ${step.kind} ${turn.nth} of ${turn.count}`),
    el("h1", {}, el("bdi", {}, titleOf(step))),
    el("span", { class: "signature" }, signature(step, forward)),
    step.flags.map((flag) => el("span", { class: "badge bad" }, `! ${flag.kind}`)),
    el("span", { class: "whole" }, `step ${view.place + 1} of ${trace.steps.length}`), el("span", { class: "parts" }, turn.said));
  const line = trace.ops[step.op];
  const told = step.kind === "backward" ? line?.gradient : line?.summary;
  fill(byId("idea"), step.kind === "forward" && number >= 0 ? formula(number, line.formula.join(" ")) : null,
    el("p", {}, el("b", {}, step.kind === "backward" ? "Backward: " : ""), told ?? "", missing(step) ? el("span", { class: "quiet" }, ` Here ${missing(step)}.`) : null));
  fill(byId("effect"), line?.effect ? [el("b", {}, "To the gradient: "), line.effect, " "] : null, step.measured ? el("span", { class: "measured" }, step.measured) : null);
  byId("effect").title = visible(step.measured); // where it is cut off
  fill(byId("says"), sentenceOf(view.place));
}

function signature(step, forward) {
  const shape = (x) => (x.tensor === null ? x.text : shapeText(tensorOf(x.tensor).shape));
  if (step.kind === "update") return "";
  const source = forward ?? step, before = source.inputs.filter((x) => x.tensor !== null || x.text !== "None").map(shape).join(", ");
  return `${step.path ? `${step.op}   ` : ""}${before} ${step.kind === "backward" ? "←" : "→"} ${source.outputs.map(shape).join(", ")}`;
}

// --- one tensor ------------------------------------------------------------------------------------------------------
function card(slot, step, wide, high, compact, narrow) {
  const tensor = tensorOf(slot.tensor), gradient = tensorOf(slot.gradient), back = step.kind === "backward";
  const named = back ? gradient ?? tensor : tensor;
  const both = back && gradient && tensor?.thumbnails && gradient.thumbnails && !narrow;
  const width = both ? (wide - 14) / 2 : wide, height = high - 58 - (slot.part && slot.part.count !== 1 ? 20 : 0);
  const body = compact ? null : el("div", { class: "views" });
  if (body && !back) body.append(look(tensor, slot.argument, width, height, null));
  else if (body) {
    body.append(gradient ? look(gradient, slot.argument, width, height, both ? `grad_${slot.argument}` : null)
      : look(tensor, slot.argument, width, height, "no gradient asked for; its value"));
    if (both) body.append(look(tensor, slot.argument, width, height, slot.argument));
  }
  return el("section", { class: `card${back ? " back" : ""}`, "data-tensor": named?.id, "aria-label": `${slot.argument}: ${named?.name ?? ""}`, click: () => select(named) },
    el("header", {}, el("b", { class: "argument" }, back && gradient ? `grad_${slot.argument}` : slot.argument),
      el("bdi", { class: "name", title: tensor?.name }, tensor?.name === slot.argument ? "" : tensor?.name ?? ""), el("span", { class: "shape" }, shapeText(tensor?.shape ?? []))),
    slot.part && slot.part.count !== 1 ? contribution(slot.part) : null,
    body, back && !gradient ? null : facts(named, narrow, compact));
}

// A tensor that several ops read gets a gradient from each, and they add up.
function contribution(part) {
  const sum = tensorOf(part.after)?.facts, whole = part.complete ? "complete" : `${part.count ? part.count - part.index : "more"} to come`;
  return el("p", { class: "share", title: sum ? `the largest of the sum so far is ${num(sum.absmax)}` : null },
    `contribution ${part.index}${part.count ? ` of ${part.count}` : ""}: ${whole}`);
}

function facts(tensor, narrow, compact) {
  const f = tensor?.facts;
  if (!f) return el("p", { class: "facts quiet" }, "not recorded");
  const odd = [f.nan ? `${f.nan} NaN` : "", f.inf ? `${f.inf} ∞` : ""].filter(Boolean).join(", ");
  if (f.size === 1) return compact ? el("p", { class: "facts" }, odd || `value ${num(f.min, 5)}`) : null; // it stands there large
  if (typeof f.mean !== "number" && f.nan + f.inf === f.size) return el("p", { class: "facts" }, el("b", { class: "bad" }, `${odd}: nothing finite`));
  const mean = typeof f.mean === "number" && Math.abs(f.mean) < 1e-6 * f.absmax ? "≈0" : num(f.mean, 2);
  return el("p", { class: "facts" }, odd ? el("b", { class: "bad" }, `${odd}   `) : null, `${tensor.thumbnails?.kind === "rgb" ? "all: " : ""}${num(f.min)} … ${num(f.max)}`, narrow ? "" : `   μ ${mean}   σ ${num(f.std, 2)}`);
}

// A picture with its scale; a single number where there is nothing to draw.
function look(tensor, argument, width, height, label) {
  const t = tensor?.thumbnails, some = (count) => t && count < t.total ? `${count} of ${t.total}${label ? "" : t.kind === "tiles" ? " filters" : " channels"}` : "";
  const planned = (captioned) => plan(tensor, Math.max(60, width), Math.max(24, height - (captioned ? 36 : 18)));
  let layout = t ? planned(label || some(t.shown.length)) : null;
  if (t && some(layout.count) && !label) layout = planned(true); // with fewer pictures than there are, a line above says so
  const said = [label, t ? some(t.kind === "row" ? t.total : layout.count) : ""].filter(Boolean).join(", "), caption = said ? el("span", { class: "caption" }, said) : null;
  if (!tensor) return el("div", { class: "look" }, caption);
  if (tensor.facts?.size === 1) return el("div", { class: "look" }, caption, el("output", { class: "scalar" }, tensor.facts.nan ? "NaN" : tensor.facts.inf ? "∞" : num(tensor.facts.mean ?? tensor.facts.min, 5)));
  if (!tensor.thumbnails) return el("div", { class: "look" }, caption, numbers(tensor));
  const canvas = el("canvas", { "aria-hidden": "true" }), over = el("svg:svg", { class: "over", "aria-hidden": "true" });
  const [w, h] = draw(canvas, tensor, layout);
  over.setAttribute("width", w);
  over.setAttribute("height", h);
  const entry = { canvas, over, tensor, layout, argument };
  const frame = el("div", {
    class: "frame", tabindex: "0", role: "application", "aria-label": `picture of ${tensor.name}; arrow keys choose an element`, "aria-roledescription": "heat map",
    pointermove: (event) => hover(entry, event), pointerleave: () => fromView(), keydown: (event) => arrows(entry, event),
    click: (event) => { event.stopPropagation(); pin(entry, event); } }, canvas, over);
  entry.frame = frame;
  pictures.push(entry);
  return el("div", { class: "look" }, caption, frame, legend(tensor));
}

function numbers(tensor) {
  if (!tensor.corner) return el("p", { class: "quiet" }, shapeText(tensor.shape));
  return el("table", { class: "corner" }, el("tbody", {}, tensor.corner.values.slice(0, 4).map((row) => el("tr", {}, row.slice(0, 4).map((v) => el("td", {}, num(v, 2)))))));
}

// --- choosing an element -----------------------------------------------------------------------------------------------
function select(tensor) {
  if (tensor && view.tensor !== tensor.id) update({ tensor: tensor.id, at: null });
}

function mark() {
  for (const element of byId("stage").querySelectorAll("[data-tensor]"))
    element.classList.toggle("selected", Number(element.dataset.tensor) === view.tensor);
}

function pointed(entry, event) {
  const box = entry.canvas.getBoundingClientRect();
  return boxAt(entry.tensor, entry.layout, (event.clientX - box.left) * entry.canvas.clientWidth / box.width, (event.clientY - box.top) * entry.canvas.clientHeight / box.height);
}

function hover(entry, event) {
  const box = pointed(entry, event);
  if (box) light(entry, box);
}

function pin(entry, event) {
  const box = pointed(entry, event);
  if (box) update({ tensor: entry.tensor.id, at: box.map(([lo]) => lo) });
  entry.frame.focus({ preventScroll: true });
}

// The element that the view names, if its tensor stands on the stage.
function fromView() {
  const entry = pictures.find((p) => p.tensor.id === view.tensor);
  if (entry && view.at) light(entry, view.at.map((k) => [k, k + 1]));
  else dark();
}

function arrows(entry, event) {
  const role = roles(entry.tensor), axis = { ArrowUp: role.down, ArrowDown: role.down, ArrowLeft: role.across, ArrowRight: role.across,
    PageUp: role.over, PageDown: role.over }[event.key];
  if (axis === undefined || event.ctrlKey || event.metaKey) return;
  event.preventDefault();
  event.stopPropagation();
  if (axis === null) return;
  const here = view.tensor === entry.tensor.id && view.at ? view.at : entry.tensor.shape.map(() => 0);
  const by = /Up|Left/.test(event.key) ? -1 : 1, fresh = view.tensor !== entry.tensor.id || !view.at;
  const at = here.map((k, n) => n === axis && !fresh ? Math.max(0, Math.min(entry.tensor.shape[n] - 1, k + by)) : k);
  update({ tensor: entry.tensor.id, at });
  fill(byId("polite"), byId("picked").textContent);
}

function light(entry, box) {
  const forward = forwardOf(trace.steps[view.place]) ?? trace.steps[view.place];
  const found = windows(forward, entry.argument, box, tensorOf);
  for (const other of pictures) {
    const mine = other.argument === entry.argument ? box : found[other.argument];
    outline(other, mine, other.argument === entry.argument ? "chosen" : "window");
  }
  const words = Object.entries(found).map(([name, part]) => `${name}[${boxText(part)}]`);
  const back = entry.tensor.role === "gradient", name = `${back ? "grad_" : ""}${entry.argument}`;
  fill(byId("picked"), `${name}[${boxText(box)}] ${shownValue(entry.tensor, box)}${words.length ? `   meets   ${words.join(",  ")}` : ""}`);
}

const boxText = (box) => box.map(([lo, hi]) => (hi - lo === 1 ? lo : `${lo}:${hi}`)).join(", ");

function outline(entry, box, kind) {
  const drawn = box ? rectangles(entry.tensor, entry.layout, box) : [];
  fill(entry.over, drawn.slice(0, 64).map(([x, y, w, h]) => [
    el("svg:rect", { x: x + 0.5, y: y + 0.5, width: Math.max(2, w - 1), height: Math.max(2, h - 1), class: `${kind} halo` }),
    el("svg:rect", { x: x + 0.5, y: y + 0.5, width: Math.max(2, w - 1), height: Math.max(2, h - 1), class: kind })]));
}

function dark() {
  for (const entry of pictures) entry.over.replaceChildren();
  fill(byId("picked"), pictures.length ? "Point at an element, or focus a picture and use the arrow keys: what it meets lights up." : "");
}

// [ and ]: the tensors of the stage, one after the other.
export function nextTensor(direction) {
  const ids = [...new Set([...byId("stage").querySelectorAll("[data-tensor]")].map((e) => Number(e.dataset.tensor)))];
  if (!ids.length) return;
  const at = ids.indexOf(view.tensor);
  update({ tensor: ids[(at < 0 ? (direction > 0 ? 0 : ids.length - 1) : at + direction + ids.length) % ids.length], at: null });
}
