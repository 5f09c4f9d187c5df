// The page comes alive: unpack the trace, start the panes, listen to keys.

import { byId, el, fill, visible } from "./dom.js";
import { forwardOf, sentenceOf, tensorOf, titleOf, trace, unpack } from "./data.js";
import { TABS, pane, readHash, update, view } from "./state.js";
import { nextModule, startOutline } from "./outline.js";
import { nextTensor, startStage } from "./stage.js";
import { startPanels } from "./panels.js";
import { startTimeline } from "./timeline.js";
import { windows } from "./windows.js";

const KEYS = [["j  n  Enter  →", "next step"], ["k  p  ←", "step before"], ["Home  End", "first step, last step"], ["J  K", "next module, module before"], ["c  C", "on to the next stop (breakpoint, flag, start of the backward), back to the last"],
  ["f", "between an op's forward and its backward"], ["b", "breakpoint on this op, and off"], ["[  ]", "tensor before, next tensor on the stage"],
  ["← ↑ → ↓", "in a picture: choose an element; PgUp and PgDn change the channel"], ["1 – 5", "tensor, maths, source, check, graph"],
  ["/", "filter the outline"], ["g", "graph"], ["d", "doctor: what looks ill"], ["P", "large type, for a screen in front of a class"], ["t", "dark or light"], ["?", "this help"]];

async function start() {
  await unpack(byId("trace").textContent);
  fill(byId("title"), [trace.page.title, ...trace.title.slice(1)].join("  "));
  byId("title").title = visible(byId("title").textContent);
  document.title = `${visible(trace.page.title)} · minidl`;
  if (!trace.steps.length) { fill(byId("says"), "Nothing was recorded."); return; }
  startOutline();
  startStage();
  startPanels();
  startTimeline();
  pane((now, before) => { if (now.place !== before.place) fill(byId("polite"), sentenceOf(now.place) + (stopped ? ` ${stopped}` : "")); });
  notes();
  help();
  buttons();
  document.addEventListener("keydown", keys);
  window.addEventListener("hashchange", () => { const found = readHash(location.hash); if (found) update(found); });
  update(readHash(location.hash) ?? {});
  document.documentElement.dataset.ready = "yes";
  performance.mark("ready");
}

// What the first screen must say (random weights, an exception), and the doctor's findings.
function notes() {
  const lines = [trace.error ? `It stopped: ${trace.error}` : "", ...trace.shrunk].filter(Boolean);
  fill(byId("notes"), lines.map((line) => el("p", {}, line)));
  byId("notes").hidden = !lines.length;
  byId("doctor-button").hidden = !trace.doctor.length && !trace.steps.some((step) => step.flags.length);
}

function doctor() {
  const flagged = trace.steps.map((step, place) => [step, place]).filter(([step]) => step.flags.length);
  fill(byId("doctor-body"), trace.doctor.length ? el("ol", {}, trace.doctor.map((line) => el("li", {}, line))) : null,
    flagged.length ? el("ul", { class: "plain" }, flagged.slice(0, 200).map(([step, place]) => el("li", {},
      el("button", { type: "button", class: "link", click: () => { byId("doctor").close(); update({ place }); } }, `step ${place + 1}, ${step.kind} ${titleOf(step)}`), " ",
      step.flags.map((flag) => el("span", {}, el("span", { class: "badge bad" }, `! ${flag.kind}`), ` ${flag.text} `)))))
      : el("p", {}, "Nothing looks ill: no NaN, no infinity, no dead or saturated units, no exploding or vanishing gradient."));
  byId("doctor").showModal();
}

function help() {
  fill(byId("help-body"), el("table", {}, el("tbody", {}, KEYS.map(([key, what]) => el("tr", {}, el("th", { scope: "row" }, key.split(/\s+/).filter((k) => k !== "–").map((k, n, all) => [n && key.includes("–") ? " – " : n ? " " : "", el("kbd", {}, k)])), el("td", {}, what))))));
}

function buttons() {
  byId("next").addEventListener("click", () => move(1));
  byId("previous").addEventListener("click", () => move(-1));
  byId("flip").addEventListener("click", flip);
  byId("go-on").addEventListener("click", () => goOn(1));
  byId("help-button").addEventListener("click", () => byId("help").showModal());
  byId("doctor-button").addEventListener("click", doctor);
  byId("theme").addEventListener("click", theme);
  for (const dialog of document.querySelectorAll("dialog")) {
    dialog.querySelector(".close").addEventListener("click", () => dialog.close());
    dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  }
  pane((now) => {
    byId("previous").disabled = now.place === 0;
    byId("next").disabled = now.place === trace.steps.length - 1;
    byId("flip").disabled = partner() === undefined;
    byId("flip").firstChild.textContent = trace.steps[now.place].kind === "backward" ? "its forward " : "its backward ";
  });
}

function theme() {
  const root = document.documentElement, dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
}

// --- moving ----------------------------------------------------------------------------------------------------------
let stopped = "";

function move(by) {
  stopped = "";
  update({ place: view.place + by });
}

// The same op's backward, or its forward.
function partner() {
  const step = trace.steps[view.place];
  if (step.kind === "forward") return trace.byId.get(step.back.at(-1));
  return step.kind === "backward" ? trace.byId.get(forwardOf(step)?.id) : undefined;
}

function flip() {
  const place = partner();
  if (place !== undefined) update({ place });
}

// Why a walk stops at a step: a breakpoint, a flag, the first step back; "" where it goes on.
function stopAt(place) {
  const step = trace.steps[place], forward = forwardOf(step);
  if (view.breaks.has(step.id) || forward && view.breaks.has(forward.id)) return "Stopped at a breakpoint.";
  if (step.flags.length) return `Stopped at a flag: ${step.flags[0].kind}.`;
  if (step.kind === "backward" && trace.steps[place - 1]?.kind === "forward") return "Here the backward begins.";
  return "";
}

function goOn(direction) {
  let place = view.place + direction;
  while (place > 0 && place < trace.steps.length - 1 && !stopAt(place)) place += direction;
  place = Math.max(0, Math.min(trace.steps.length - 1, place));
  stopped = stopAt(place) || (direction > 0 ? "This is the last step." : "This is the first step.");
  update({ place });
  stopped = "";
}

function breakpoint() {
  const id = forwardOf(trace.steps[view.place])?.id ?? trace.steps[view.place].id, breaks = new Set(view.breaks);
  const off = breaks.delete(id);
  if (!off) breaks.add(id);
  update({ breaks });
  fill(byId("polite"), `Breakpoint ${off ? "removed from" : "set on"} ${titleOf(trace.steps[view.place])}.`);
}

const ACTIONS = {
  j: () => move(1), k: () => move(-1), n: () => move(1), p: () => move(-1), J: () => { stopped = ""; update({ place: nextModule(1) }); }, K: () => { stopped = ""; update({ place: nextModule(-1) }); },
  c: () => goOn(1), C: () => goOn(-1), f: flip, b: breakpoint, "[": () => nextTensor(-1), "]": () => nextTensor(1),
  "/": () => byId("filter").focus(), g: () => update({ tab: "graph" }), d: doctor, t: theme, "?": () => byId("help").showModal(),
  P: () => { document.documentElement.toggleAttribute("data-present"); update({}); },
};
// Keys that mean something else to a button, to a list or to a box that scrolls.
const ON_THE_PAGE = { Enter: () => move(1), ArrowRight: () => move(1), ArrowLeft: () => move(-1), Home: () => move(-trace.steps.length), End: () => move(trace.steps.length) };
TABS.forEach((name, k) => { ACTIONS[k + 1] = () => update({ tab: name }); });

function keys(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, textarea, select, dialog[open]")) return;
  const action = ACTIONS[event.key] ?? (event.target === document.body || event.target === byId("stage") ? ON_THE_PAGE[event.key] : undefined);
  if (!action) return;
  event.preventDefault();
  action();
}

// For the tests: what lights up when an element is chosen.
window.minidl = { windows: (place, argument, box) => windows(trace.steps[place], argument, box, tensorOf) };

start();
