// The outline: every forward op in order of execution, under its modules, with lanes for skips and branches as in
// `git log --graph`. It is an ARIA tree; only what is open exists, and the way to the current op is always open.

import { arrow, byId, el, fill } from "./dom.js";
import { opNumber, trace } from "./data.js";
import { pane, update, view } from "./state.js";

const LANE = 12, HIGH = 28;
let rows = [], filter = "", focusRow = -1;

export function startOutline() {
  rows = trace.page.outline;
  rows.forEach((row, number) => { row.children = []; if (row.parent >= 0) rows[row.parent].children.push(number); });
  const box = byId("filter");
  box.addEventListener("input", () => { filter = box.value.trim().toLowerCase(); render(); });
  box.addEventListener("keydown", (event) => {
    if (event.key === "Escape") { box.value = filter = ""; render(); focus(focusRow); }
    if (event.key === "Enter") { const first = shown().find((n) => rows[n].op >= 0); if (first !== undefined) goTo(first); }
  });
  const tree = byId("tree");
  tree.addEventListener("keydown", keys);
  tree.addEventListener("click", clicked);
  pane((now, before) => { if (now.place !== before.place || now.breaks !== before.breaks || !tree.children.length) render(); });
}

// The rows that are visible now, in order.
function shown() {
  if (filter) return rows.map((_, n) => n).filter((n) => rows[n].op >= 0 && matches(rows[n]));
  const here = opNumber(view.place), found = [];
  const visit = (number) => {
    found.push(number);
    if (isOpen(number, here)) rows[number].children.forEach(visit);
  };
  rows.forEach((row, number) => { if (row.parent < 0) visit(number); });
  return found;
}

function matches(row) {
  const step = trace.steps[trace.placeOfForward[row.first]];
  return `${row.path} ${row.name} ${step.op} ${step.flags.map((f) => f.kind).join(" ")}`.toLowerCase().includes(filter);
}

function isOpen(number, here) {
  const row = rows[number];
  if (!row.children.length || view.shut.has(number)) return false;
  return view.open.has(number) || row.first <= here && here <= row.last;
}

function render() {
  const tree = byId("tree"), here = opNumber(view.place), list = shown();
  const widest = Math.max(1, ...list.map((n) => lanesOf(rows[n])));
  const current = list.filter((n) => rows[n].first <= here && here <= rows[n].last).pop() ?? -1;
  const held = tree.contains(document.activeElement);
  focusRow = list.includes(focusRow) && held && focusRow !== current ? focusRow : current;
  fill(tree, list.map((n) => item(n, here, n === current, widest)));
  if (!list.length) tree.append(el("p", { class: "quiet" }, "no op matches"));
  const now = tree.querySelector('[aria-current="step"]') ?? tree.firstElementChild;
  (tree.querySelector(`[data-row="${focusRow}"]`) ?? now)?.setAttribute("tabindex", "0");
  if (held) tree.querySelector('[tabindex="0"]')?.focus({ preventScroll: true });
  if (now?.getAttribute("aria-current")) reveal(tree, now);
}

function reveal(tree, element) {
  const box = tree.getBoundingClientRect(), at = element.getBoundingClientRect();
  if (at.top < box.top + HIGH) tree.scrollTop -= box.top + HIGH * 2 - at.top;
  else if (at.bottom > box.bottom - HIGH) tree.scrollTop += at.bottom - box.bottom + HIGH * 2;
}

const lanesOf = (row) => 1 + Math.max(row.lane, ...row.past.flat(), ...row.in, ...row.out);

function item(number, here, current, widest) {
  const row = rows[number], step = trace.steps[trace.placeOfForward[row.first]], leaf = row.op >= 0;
  const open = !filter && isOpen(number, here), backwards = trace.steps[view.place].kind === "backward";
  const name = filter && row.path ? row.path : row.name;
  const kind = leaf && name !== step.op ? step.op : leaf ? "" : several(row);
  const found = flagsOf(row);
  return el("div", {
    role: "treeitem", class: `row${current ? " current" : ""}${leaf ? "" : " group"}`, "data-row": number, tabindex: "-1", "aria-level": filter ? 1 : row.level,
    "aria-expanded": leaf || filter ? null : String(open), "aria-current": current ? "step" : null, "aria-selected": String(current),
    "aria-label": `${name}${kind ? `, ${kind}` : ""}${found.length ? `, flags: ${found.join(", ")}` : ""}${broken(row) ? ", breakpoint" : ""}`,
  },
  lanes(row, widest, leaf, current, open),
  el("span", { class: "indent", "data-level": filter ? 1 : Math.min(row.level, 6) }),
  leaf ? null : el("span", { class: "twist", "aria-hidden": "true" }, open ? "▾" : "▸"),
  el("bdi", { class: "name" }, name),
  kind ? el("span", { class: "kind" }, kind) : null,
  el("span", { class: "badges" },
    found.length ? el("span", { class: "badge bad", title: found.join(", ") }, `! ${found[0]}`) : null,
    broken(row) ? el("span", { class: "badge stop", title: "breakpoint" }, "■") : null,
    current ? el("span", { class: "badge now" }, backwards ? arrow("backward") : arrow("forward")) : null));
}

const several = (row) => (row.copies > 1 ? `×${row.copies}` : `${row.last - row.first + 1} ops`);

function flagsOf(row) {
  const kinds = new Set();
  for (let op = row.first; op <= row.last; op++) {
    const forward = trace.steps[trace.placeOfForward[op]];
    for (const id of [forward.id, ...forward.back]) for (const flag of trace.steps[trace.byId.get(id)]?.flags ?? []) kinds.add(flag.kind);
  }
  return [...kinds];
}

function broken(row) {
  for (let op = row.first; op <= row.last; op++) if (view.breaks.has(trace.page.forward[op])) return true;
  return false;
}

// The lines of a row: what passes, what comes in from above, what goes out below, and the node. An open module's row
// only lets pass what its first op finds: the rows below show the rest.
function lanes(row, widest, leaf, current, open) {
  const x = (lane) => lane * LANE + LANE / 2, middle = HIGH / 2, node = x(row.lane);
  const curve = (from, y0, to, y1) => from === to ? `M${from} ${y0}V${y1}` : `M${from} ${y0}C${from} ${(y0 + y1) / 2} ${to} ${(y0 + y1) / 2} ${to} ${y1}`;
  const drawn = filter ? [] : open && !leaf ? row.before.map((lane) => [lane, curve(x(lane), 0, x(lane), HIGH)]) : [
    ...row.past.map(([from, to]) => [from, curve(x(from), 0, x(to), HIGH)]),
    ...row.in.map((lane) => [lane, curve(x(lane), 0, node, middle)]),
    ...row.out.map((lane) => [lane, curve(node, middle, x(lane), HIGH)])];
  const size = current ? 5 : leaf ? 3.5 : 4;
  return el("svg:svg", { class: "lanes", width: (filter ? 1 : widest) * LANE + 2, height: HIGH, "aria-hidden": "true" },
    drawn.map(([lane, d]) => el("svg:path", { d, class: `lane lane${lane % 4}` })),
    open && !leaf ? null : leaf ? el("svg:circle", { cx: filter ? LANE / 2 : node, cy: middle, r: size, class: "node" })
      : el("svg:rect", { x: (filter ? LANE / 2 : node) - size, y: middle - size, width: size * 2, height: size * 2, rx: 2, class: "node" }));
}

// Go to the op of a row: forward while we are in the forward, its backward while we are in the backward.
function goTo(number) {
  const forward = trace.steps[trace.placeOfForward[rows[number].first]];
  const back = trace.steps[view.place].kind === "backward" ? trace.byId.get(forward.back.at(-1)) : undefined;
  update({ place: back ?? trace.byId.get(forward.id) });
}

function toggle(number, wanted) {
  const open = isOpen(number, opNumber(view.place));
  if (wanted === open) return;
  (open ? view.shut : view.open).add(number);
  (open ? view.open : view.shut).delete(number);
  focusRow = number;
  render();
}

function clicked(event) {
  const element = event.target.closest("[data-row]");
  if (!element) return;
  const number = Number(element.dataset.row);
  focusRow = number;
  if (rows[number].op < 0 && !filter) toggle(number); else goTo(number);
}

function keys(event) {
  const list = shown(), at = list.indexOf(focusRow), row = rows[focusRow];
  if (!row || event.ctrlKey || event.metaKey || event.altKey) return;
  const move = { ArrowDown: list[at + 1], ArrowUp: list[at - 1], Home: list[0], End: list.at(-1) }[event.key];
  if (event.key in { ArrowDown: 1, ArrowUp: 1, Home: 1, End: 1 }) { if (move !== undefined) focus(move); }
  else if (event.key === "ArrowRight" && row.children.length) { if (isOpen(focusRow, opNumber(view.place))) focus(row.children[0]); else toggle(focusRow, true); }
  else if (event.key === "ArrowLeft") { if (row.children.length && isOpen(focusRow, opNumber(view.place))) toggle(focusRow, false); else if (row.parent >= 0) focus(row.parent); }
  else if (event.key === "Enter" || event.key === " ") { if (row.op >= 0) goTo(focusRow); else toggle(focusRow); }
  else return;
  event.preventDefault();
  event.stopPropagation();
}

function focus(number) {
  const tree = byId("tree");
  focusRow = number;
  tree.querySelectorAll('[tabindex="0"]').forEach((e) => e.setAttribute("tabindex", "-1"));
  const element = tree.querySelector(`[data-row="${number}"]`);
  element?.setAttribute("tabindex", "0");
  element?.focus();
}

// Where the next module begins; or, going back, where this one did, and then the one before it.
export function nextModule(direction) {
  const leaf = new Map(rows.filter((row) => row.op >= 0).map((row) => [row.op, row.parent < 0 ? `op ${row.op}` : row.parent]));
  const of = (place) => leaf.get(opNumber(place)) ?? trace.steps[place]?.kind;
  const starts = (place) => place <= 0 || of(place) !== of(place - 1) || trace.steps[place].kind !== trace.steps[place - 1].kind;
  let place = view.place + direction;
  while (place > 0 && place < trace.steps.length - 1 && !starts(place)) place += direction;
  return place;
}
