// The panes below the stage: one tensor, the maths, the source, the check.

import { byId, bytes, duration, el, fill, num, scroller, several, shapeText, tableOf } from "./dom.js";
import { forwardOf, missing, settingsText, tensorOf, trace } from "./data.js";
import { draw, legend, plan } from "./picture.js";
import { slotsOf } from "./stage.js";
import { formula } from "./formula.js";
import { differences, ranOn, statistics } from "./compare.js";
import { TABS, pane, update, view } from "./state.js";
import { graphPane } from "./graph.js";

const PANES = { tensor: tensorPane, maths: mathsPane, source: sourcePane, check: checkPane, graph: graphPane };

export function startPanels() {
  const tabs = byId("tabs");
  fill(tabs, TABS.map((name, k) => el("button", { type: "button", role: "tab", id: `tab-${name}`, "aria-controls": "panel", "data-tab": name, click: () => update({ tab: name }) },
    name[0].toUpperCase() + name.slice(1), el("kbd", { "aria-hidden": "true" }, String(k + 1)))));
  tabs.addEventListener("keydown", (event) => {
    const at = TABS.indexOf(view.tab), to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: TABS.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    update({ tab: TABS[(to + TABS.length) % TABS.length] });
    byId(`tab-${view.tab}`).focus();
  });
  pane((now, before) => {
    const tab = now.tab !== before.tab || !byId("panel").children.length;
    if (tab || now.place !== before.place || now.tensor !== before.tensor) show(tab);
  });
}

function show(fresh) {
  for (const button of byId("tabs").children) {
    const on = button.dataset.tab === view.tab;
    button.setAttribute("aria-selected", String(on));
    button.tabIndex = on ? 0 : -1;
  }
  const panel = byId("panel");
  panel.setAttribute("aria-labelledby", `tab-${view.tab}`);
  panel.dataset.tab = view.tab;
  fill(panel, PANES[view.tab](trace.steps[view.place]));
  if (fresh) panel.scrollTop = 0;
}

const section = (title, ...children) => el("section", {}, el("h2", {}, title), children);

// --- tensor ----------------------------------------------------------------------------------------------------------
// The tensor that was chosen, or what the step is about: the first gradient it gives, or its output.
function subject(step) {
  if (view.tensor !== null) return tensorOf(view.tensor);
  const slots = slotsOf(step), slot = step.kind === "backward" ? slots.find((s) => s.side !== "out" && s.gradient !== null) : slots.find((s) => s.side === "out");
  return tensorOf(slot ? slot.gradient ?? slot.tensor : step.outputs[0]?.tensor);
}

function tensorPane(step) {
  const tensor = subject(step);
  if (!tensor) return el("p", { class: "quiet" }, "This step has no tensor to show.");
  const maker = tensor.made_by === null ? null : trace.byId.get(tensor.made_by);
  const gradient = tensorOf(tensor.gradient), of = tensorOf(tensor.of), other = gradient ?? of;
  return [
    section([tensor.role === "gradient" ? "gradient " : "", el("bdi", { class: "name" }, tensor.name)],
      el("p", { class: "axes" }, tensor.shape.length ? tensor.shape.map((size, k) => el("span", { class: "axis" }, el("i", {}, tensor.axes[k] ?? `axis ${k}`), String(size))) : "a scalar"),
      el("p", { class: "quiet" }, `${tensor.role}, ${tensor.dtype}, ${tensor.device}`),
      el("p", { class: "links" }, maker !== null && maker !== undefined ? jump(`made in step ${maker + 1}`, maker) : null,
      of ? el("button", { type: "button", class: "link", click: () => update({ tensor: of.id, at: null }) }, `gradient of ${of.name}`) : null,
      gradient ? el("button", { type: "button", class: "link", click: () => update({ tensor: gradient.id, at: null }) }, "see its gradient") : null),
      statistics(tensor, other)),
    section("Values", big(tensor)),
    section("Histogram", histogram(tensor)),
    tensor.corner?.values.length ? numbers(tensor) : null];
}

const jump = (text, place) => el("button", { type: "button", class: "link", click: () => update({ place }) }, text);

function big(tensor) {
  if (!tensor.thumbnails) return el("p", { class: "quiet" }, tensor.facts?.size === 1 ? num(tensor.facts.min, 6) : "no picture: see the numbers");
  const canvas = el("canvas", { role: "img", "aria-label": `heat map of ${tensor.name}, scale ${num(tensor.thumbnails.scale)}` });
  const layout = plan(tensor, 260, Math.max(110, byId("panel").clientHeight - 96));
  draw(canvas, tensor, layout);
  const { total, kind } = tensor.thumbnails;
  return [canvas, legend(tensor), total > layout.count ? el("p", { class: "legend" }, `${layout.count} of ${total} ${kind === "tiles" ? "filters" : "channels of sample 0"}`) : null];
}

function histogram(tensor) {
  if (!tensor.histogram) return el("p", { class: "quiet" }, "Nothing to spread: all values are equal, or none is finite.");
  const { low, high, counts } = tensor.histogram, top = Math.max(...counts), wide = 240, tall = 96, step = wide / counts.length;
  const zero = low < 0 && high > 0 ? -low / (high - low) * wide : null, at = (k) => low + (high - low) * k / counts.length;
  return [el("svg:svg", { class: "histogram", viewBox: `0 0 ${wide} ${tall}`, role: "img", "aria-label": `histogram from ${num(low)} to ${num(high)}, tallest bar ${top}` },
    counts.map((count, k) => count ? el("svg:rect", { x: k * step + 0.5, width: step - 1, y: tall - Math.max(1.5, count / top * (tall - 8)), height: Math.max(1.5, count / top * (tall - 8)), class: at(k + 0.5) < 0 ? "under" : "over" }) : null),
    zero !== null ? el("svg:line", { x1: zero, x2: zero, y1: 0, y2: tall, class: "zero" }) : null),
  el("p", { class: "legend wide" }, el("span", {}, num(low)), el("span", {}, num(high))),
  tableOf("Histogram", ["from", "to", "count"], counts.map((count, k) => [num(at(k)), num(at(k + 1)), String(count)]))];
}

// The corner's numbers with a common power of ten in front, so that their digits can be compared.
function numbers(tensor) {
  const { at, values } = tensor.corner, known = values.flat().filter((v) => typeof v === "number" && v);
  const top = known.reduce((a, b) => Math.max(a, Math.abs(b)), 0), power = top ? Math.floor(Math.log10(top)) : 0;
  const plain = power >= 0 && power < 4, whole = known.every(Number.isInteger), digits = whole && plain ? 0 : plain ? Math.max(0, 3 - power) : 3;
  const shown = (v) => typeof v !== "number" ? num(v) : v === 0 ? "0" : (plain ? v : v / 10 ** power).toFixed(digits).replace("-", "−");
  const scale = plain ? null : el("span", { class: "quiet" }, "  × 10", el("sup", {}, String(power).replace("-", "−")));
  return section(["Numbers ", el("code", {}, at || "the value"), scale], scroller("numbers",
    el("table", { class: "corner" }, el("tbody", {}, values.map((row) => el("tr", {}, row.map((value) =>
      el("td", { class: typeof value !== "number" ? "bad" : value === 0 ? "nil" : Math.abs(value) > top / 2 ? "large" : null, title: num(value, 6) }, shown(value)))))))));
}

// --- maths -----------------------------------------------------------------------------------------------------------
function mathsPane(step) {
  const op = trace.ops[step.op], forward = forwardOf(step), number = trace.page.tex[step.op] ?? -1;
  if (step.kind === "update" || !op) return section("The optimiser's step", updateTable(step));
  const back = step.kind === "backward";
  return [
    section("Forward", number >= 0 ? scroller("formula", formula(number, op.formula.join(" "))) : null,
      op.formula.join(" ") === op.summary && number >= 0 ? null : el("div", { class: number >= 0 ? "formula-text quiet" : "formula-text" }, op.formula.map((line) => el("code", {}, line)), missing(step) ? el("code", {}, `(here ${missing(step)})`) : null),
      (trace.page.rules[forward?.id] ?? []).length ? el("div", { class: "rule" }, el("h3", {}, "shape"), trace.page.rules[forward.id].map((line) => el("code", {}, line))) : null,
      op.shapes ? el("p", { class: "quiet" }, op.shapes) : null),
    section("Gradients", back ? gradients(step) : null, el("p", {}, op.gradient || "This op passes no gradient on."),
      back && step.ran.length ? el("p", { class: "quiet" }, `Its backward ran: ${step.ran.join(", ")}.`) : null,
      back ? null : usedBy(step)),
    section("One number, worked out", worked(step))];
}

function gradients(step) {
  return el("ul", { class: "plain" }, step.parts.map((part) => {
    const to = tensorOf(part.to), share = part.count === 1 ? "" : ` — contribution ${part.index}${part.count ? ` of ${part.count}` : ""}${part.complete ? ", now complete" : ""}`;
    return el("li", {}, el("code", {}, `grad_${part.argument}`), " → gradient of ", el("bdi", { class: "name" }, to.name), ` ${shapeText(to.shape)}${share}`);
  }));
}

function usedBy(step) {
  const readers = step.users.map((id) => trace.byId.get(id)).filter((place) => place !== undefined);
  if (!readers.length) return null;
  return el("p", {}, readers.length > 1 ? `Read by ${readers.length} ops, so that many gradients add up in it: ` : "Read by ",
    readers.map((place, k) => [k ? ", " : "", jump(`${trace.steps[place].path || trace.steps[place].op} (step ${place + 1})`, place)]));
}

function worked(step) {
  if (!step.worked.length) return el("p", { class: "quiet" }, forwardOf(step)?.op ? "No number was worked out here: the op gives none, or it is too large to be run again for one. At the prompt w does it." : "No number was worked out for this step.");
  return step.worked.map((w) => el("div", { class: "worked" },
    el("p", {}, el("code", {}, w.name), w.agree === false ? el("b", { class: "bad" }, " ✗ differs from what is stored") : el("span", { class: "good" }, " ✓ as stored")),
    w.terms?.length ? el("table", {}, el("tbody", {},
      w.terms.map((t, k) => el("tr", {}, el("td", {}, k ? "+" : ""), el("td", {}, el("code", {}, t.text)),
        el("td", {}, t.factor === null || t.factor === undefined ? "" : `${num(t.value)} · ${num(t.factor)}`), el("td", { class: "right" }, num(t.product)))),
      w.more ? el("tr", {}, el("td", {}, "+"), el("td", { colspan: 2 }, `${w.more} more`), el("td", { class: "right" }, num(w.rest))) : null,
      el("tr", { class: "total" }, el("td", {}, "="), el("td", { colspan: 2 }, `total (stored ${num(w.stored, 5)})`), el("td", { class: "right" }, num(w.total, 5)))))
      : el("p", {}, el("code", {}, w.text))));
}

function updateTable(step) {
  return scroller("parameters", el("table", {}, el("thead", {}, el("tr", {}, ["parameter", "|gradient| ≤", "change / size"].map((c) => el("th", { scope: "col" }, c)))),
    el("tbody", {}, (step.parameters ?? []).map((row) => el("tr", {}, el("th", { scope: "row" }, el("bdi", {}, tensorOf(row.tensor)?.name ?? "")),
      el("td", {}, num(tensorOf(row.gradient)?.facts?.absmax)), el("td", {}, row.change === "inf" ? "from 0" : num(row.change)))))));
}

// --- source ----------------------------------------------------------------------------------------------------------
function sourcePane(step) {
  const forward = forwardOf(step) ?? step;
  return [
    step.call ? section(["Called at ", place(step.call)], code([[step.call.line, step.call.text]], true)) : null,
    step.kind === "backward" ? listing("Backward", step.source.backward, true) : null, // what ran comes first
    listing("Forward", step.source.forward, step.kind === "forward"),
    step.kind === "backward" ? null : listing("Backward", step.source.backward, false),
    section("Ran on", ranOn(step)),
    kernelsOf(step).map((launch) => section(["CUDA kernel ", el("code", { class: "file" }, `${launch.file}: ${launch.name}`), ` grid ${launch.grid.join("×")}, block ${launch.block.join("×")}`],
      launch.source === null ? el("p", { class: "quiet" }, "A macro of that file writes it.") : code(trace.sources[launch.source].lines, true))),
    forward.keeps?.length ? section("Kept alive for the backward", el("p", {}, forward.keeps.map((k) => `${k.name} ${bytes(k.bytes)}`).join(", "))) : null];
}

// The kernels that a step launched, each once.
const kernelsOf = (step) => [...new Map(step.runs.flatMap((run) => run.launches).map((one) => [`${one.file} ${one.name}`, one])).values()];

const place = (call) => el("code", { class: "file" }, `${call.file}:${call.line}`);

function listing(title, number, current) {
  const found = number === null || number === undefined ? null : trace.sources[number];
  if (!found) return section(title, el("p", { class: "quiet" }, title === "Backward" ? "No backward: no gradient is asked for here." : "The source is not there."));
  return section([title, " ", el("code", { class: "file" }, `${found.file}:${found.lines[0]?.[0] ?? ""}`), current ? el("span", { class: "badge now" }, "this step ran it") : null], code(found.lines, current));
}

function code(lines, current) {
  const label = current ? "source, the lines of this step" : "source";
  return el("div", { class: `code${current ? " current" : ""}`, tabindex: "0", role: "region", "aria-label": label }, el("ol", {}, lines.map(([n, text]) => el("li", { class: "line" },
    el("span", { class: "mark", "aria-hidden": "true" }, current ? "▸" : ""), el("span", { class: "number" }, String(n)), el("span", { class: "text" }, coloured(text))))));
}

// Words of Python: keywords, numbers, strings and comments.
function coloured(text) {
  const parts = [], pattern = /(#.*$)|("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')|\b(def|return|if|else|elif|for|in|is|not|and|or|None|True|False|while|with|lambda|import|from|raise)\b|\b(\d[\d._e]*)\b|\b(grad_\w+)\b/g;
  let from = 0;
  for (const match of text.matchAll(pattern)) {
    if (match.index > from) parts.push(text.slice(from, match.index));
    const kind = match[1] ? "comment" : match[2] ? "string" : match[3] ? "keyword" : match[4] ? "number" : "gradient";
    parts.push(el("span", { class: `py-${kind}` }, match[0]));
    from = match.index + match[0].length;
  }
  return [...parts, text.slice(from)];
}

// --- check -----------------------------------------------------------------------------------------------------------
function checkPane(step) {
  const forward = forwardOf(step), check = step.check ?? forward?.check;
  if (!check) return [otherBackends(forward), section("Finite differences", el("p", { class: "quiet" }, "This trace was written without checks. ", el("code", {}, "minidl step --check fast --html FILE"), " puts them in; at the prompt, ", el("code", {}, "ck"), " checks the op under the cursor.")), timing(step)];
  return [section(["Finite differences ", el("span", { class: check.ok ? "good" : "bad" }, verdict(check))],
    check.cropped ? el("p", { class: "quiet" }, check.cropped) : null,
    scroller("the check", el("table", {}, el("thead", {}, el("tr", {}, ["gradient", "verdict", "error", "allowed", "probes", ""].map((c) => el("th", { scope: "col" }, c)))),
      el("tbody", {}, check.rows.map((row) => el("tr", {}, el("th", { scope: "row" }, el("code", {}, `grad_${row.argument}`)), el("td", { class: row.verdict === "ok" ? "good" : "" }, row.verdict === "ok" ? "✓ ok" : row.verdict),
        el("td", {}, num(row.error)), el("td", {}, num(row.allowed)), el("td", {}, String(row.probes)), el("td", {}, row.reason))))),
    check.rows.filter((row) => row.skipped?.length).map((row) => el("p", { class: "quiet" }, `grad_${row.argument}: ${several(row.skipped.length, "probe")} left out: ${row.skipped.slice(0, 3).join("; ")}`))),
    check.rows.flatMap((row) => row.details ?? []).map((line) => el("p", {}, el("code", {}, line)))),
  check.rows.filter((row) => row.curve?.length).slice(0, 2).map((row) => section(["Error against h, ", el("code", {}, `grad_${row.argument}`)], curve(row.curve))), otherBackends(forward), timing(step)];
}

function otherBackends(forward) {
  const found = differences(forward);
  return found ? section("Other backends", found) : null;
}

function verdict(check) {
  if (check.ok) return "✓ the gradient is right";
  return check.rows.some((row) => row.probes) ? "✗ the gradient is wrong" : "? nothing could be probed";
}

function timing(step) {
  const rows = [["took", duration(step.seconds)], ["settings", settingsText(step) || "none"]];
  if (step.kind === "forward") rows.push(["keeps", step.keeps.length ? step.keeps.map((k) => `${k.name} ${bytes(k.bytes)}`).join(", ") : "nothing"], ["moves", bytes(step.bytes)]);
  if (step.flops) rows.push(["arithmetic", `${num(step.flops)} operations`]);
  if (step.kind === "backward") rows.push(["ran", step.ran.join(", ") || "no op at all"]);
  if (step.runs.length) rows.push(["on", step.runs.map((run) => (step.runs.length > 1 || run.op !== step.op ? `${run.op}: ${run.name}` : run.name)).join(", ")]);
  return section("This step", el("dl", {}, rows.map(([name, value]) => [el("dt", {}, name), el("dd", {}, value)])));
}

function curve(points) {
  const good = points.filter(([h, e]) => typeof e === "number" && e > 0 && h > 0);
  if (good.length < 2) return el("p", { class: "quiet" }, "The error is zero for every h.");
  const xs = good.map(([h]) => Math.log10(h)), ys = good.map(([, e]) => Math.log10(e)), wide = 300, tall = 120, pad = 14;
  const place = (v, list, size, flip) => { const lo = Math.min(...list), hi = Math.max(...list), t = (v - lo) / (hi - lo || 1); return pad + (flip ? 1 - t : t) * (size - 2 * pad); };
  const at = good.map((_, k) => [place(xs[k], xs, wide, false), place(ys[k], ys, tall, true)]);
  return [el("svg:svg", { class: "curve", viewBox: `0 0 ${wide} ${tall}`, role: "img", "aria-label": "error against the step h, both logarithmic" },
    el("svg:polyline", { points: at.map((p) => p.join(",")).join(" ") }), at.map(([x, y]) => el("svg:circle", { cx: x, cy: y, r: 3 }))),
  el("p", { class: "legend wide" }, el("span", {}, `h = ${num(10 ** Math.min(...xs), 1)}`), el("span", {}, `error ${num(10 ** Math.min(...ys), 1)} … ${num(10 ** Math.max(...ys), 1)}`), el("span", {}, `h = ${num(10 ** Math.max(...xs), 1)}`)),
  el("p", { class: "quiet" }, "Rounding grows to the left, curvature to the right: a right gradient has a deep valley."),
  tableOf("Error against h", ["h", "error"], points.map(([h, e]) => [num(h), num(e)]))];
}
