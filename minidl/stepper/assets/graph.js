// The graph around the cursor: the nearest module that branches. In the backward the arrows turn, and their width
// grows with the gradient that flows along them.

import { byId, el, num, scroller, several, shapeText } from "./dom.js";
import { opNumber, tensorOf, trace } from "./data.js";
import { update, view } from "./state.js";

const WIDE = 104, HIGH = 34, ACROSS = 150, DOWN = 48;

export function graphPane(step) {
  const op = opNumber(view.place), graph = op < 0 ? null : trace.page.graphs[trace.page.graph_of[op]];
  if (!graph) return el("p", { class: "quiet" }, "This step stands in no graph.");
  const back = step.kind === "backward", across = (c) => 30 + c * ACROSS, down = (r) => 16 + r * DOWN;
  const columns = 1 + Math.max(...graph.nodes.map((n) => n.column)), rows = 1 + Math.max(...graph.nodes.map((n) => n.row));
  const width = across(columns - 1) + WIDE + 60, height = down(rows - 1) + HIGH + 40;
  const drawn = el("svg:svg", { class: `graph ${back ? "back" : "ahead"}`, viewBox: `0 0 ${width} ${height}`, width, height, role: "group", "aria-label": `graph of ${graph.path || "the whole network"}` },
    graph.edges.map((edge) => arrowOf(edge, graph, back, across, down)),
    graph.nodes.map((node) => nodeOf(node, node.first <= op && op <= node.last, across, down)));
  requestAnimationFrame(() => centre(drawn.querySelector(".here")));
  return [el("h2", {}, el("bdi", { class: "name" }, graph.path || "the network"), el("span", { class: "quiet" }, back ? "   gradients flow back; a wider arrow carries a larger one" : "   data flows forward")),
    scroller("graph", drawn)];
}

function nodeOf(node, here, across, down) {
  const x = across(node.column), y = down(node.row), leaf = node.op >= 0;
  if (node.first < 0) return outside(node, x, y);
  const step = trace.steps[trace.placeOfForward[node.first]];
  const under = leaf && node.name !== step.op ? step.op : leaf ? "" : several(node.last - node.first + 1, "op");
  return el("svg:g", { class: `vertex${here ? " here" : ""}${leaf ? "" : " module"}`, role: "button", tabindex: "0", "aria-label": `${node.name} ${under}`,
    click: () => go(node), keydown: (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); go(node); } } },
  el("svg:rect", { x, y, width: WIDE, height: HIGH, rx: leaf ? 17 : 5 }),
  el("svg:text", { x: x + WIDE / 2, y: y + (under ? 15 : 21), "text-anchor": "middle" }, cut(node.name, 14)),
  under ? el("svg:text", { x: x + WIDE / 2, y: y + 28, "text-anchor": "middle", class: "under" }, cut(under, 17)) : null,
  el("svg:title", {}, node.name));
}

// A tensor that comes from outside of what is drawn.
function outside(node, x, y) {
  const tensor = tensorOf(node.tensor);
  return el("svg:g", { class: "vertex outside" }, el("svg:circle", { cx: x + WIDE - 8, cy: y + HIGH / 2, r: 6 }),
    el("svg:text", { x: x + WIDE - 22, y: y + HIGH / 2 + 4, "text-anchor": "end" }, cut(tensor.name, 14)), el("svg:title", {}, tensor.name));
}

const cut = (text, most) => (text.length > most ? text.slice(0, most - 1) + "…" : text);

function arrowOf([from, to, tensor], graph, back, across, down) {
  const a = graph.nodes[from], b = graph.nodes[to], gradient = tensorOf(tensorOf(tensor).gradient), size = back ? weight(gradient) : 1.6;
  const start = [across(a.column) + WIDE, down(a.row) + HIGH / 2], end = [across(b.column), down(b.row) + HIGH / 2];
  const bend = Math.min(30, (end[0] - start[0]) / 2);
  const past = a.row === b.row && graph.nodes.some((n) => n.row === a.row && n.column > a.column && n.column < b.column);
  const lift = past ? DOWN * 0.8 : 0;
  const d = past ? `M${start} C${start[0] + 26} ${start[1] + lift} ${start[0] + 26} ${start[1] + lift} ${start[0] + 60} ${start[1] + lift} H${end[0] - 60} C${end[0] - 26} ${end[1] + lift} ${end[0] - 26} ${end[1] + lift} ${end}`
    : a.row > b.row ? `M${start} H${end[0] - 46} C${end[0] - 16} ${start[1]} ${end[0] - 30} ${end[1]} ${end}` // along its own row, then up
    : `M${start} C${start[0] + bend} ${start[1]} ${start[0] + 16} ${end[1]} ${start[0] + 46} ${end[1]} H${end[0]}`;
  const tip = back ? `M${start[0] + 8} ${start[1] - 5}L${start[0]} ${start[1]}l8 5z` : `M${end[0] - 8} ${end[1] - 5}L${end[0]} ${end[1]}l-8 5z`;
  const t = tensorOf(tensor);
  return el("svg:g", { class: "flowing" }, el("svg:path", { d, class: "edge", "stroke-width": size }), el("svg:path", { d: tip, class: "tip" }),
    el("svg:title", {}, `${t.name} ${shapeText(t.shape)}${back && gradient?.facts ? `, largest |gradient| ${num(gradient.facts.absmax)}` : ""}`));
}

// The width of an arrow: 1 for a gradient of 1e-6 and below, 6 for one of norm 1 and above.
function weight(gradient) {
  const f = gradient?.facts;
  if (!f || typeof f.std !== "number") return 1;
  const norm = Math.sqrt(f.size * (f.mean ** 2 + f.std ** 2));
  return Math.max(1, Math.min(6, 6 + Math.log10(norm || 1e-9)));
}

// Bring the node into sight, in the middle of its box, without moving the page.
function centre(node) {
  const box = node?.closest(".scroll");
  if (!box) return;
  const frame = box.getBoundingClientRect(), at = node.getBoundingClientRect();
  const panel = byId("panel"), seen = panel.getBoundingClientRect();
  if (at.bottom > seen.bottom) panel.scrollTop += at.bottom - seen.bottom + 12;
  box.scrollLeft += at.left + at.width / 2 - frame.left - frame.width / 2;
}

function go(node) {
  const forward = trace.steps[trace.placeOfForward[node.first]], back = trace.steps[view.place].kind === "backward" ? trace.byId.get(forward.back.at(-1)) : undefined;
  update({ place: back ?? trace.byId.get(forward.id) });
  byId("panel").querySelector(".here")?.focus();
}
