// One tensor or op beside another: its gradient, the training step before, another trace; another backend.

import { duration, el, num, scroller } from "./dom.js";
import { tensorOf, trace } from "./data.js";
import { update } from "./state.js";

// The statistics of a tensor, and next to them those of its gradient and of its counterparts elsewhere.
export function statistics(tensor, other) {
  if (!tensor.facts) return el("p", { class: "quiet" }, "Its values were not recorded.");
  const own = tensor.of !== null ? ["gradient", "value"] : ["value", "gradient"];
  const columns = [{ title: own[0], facts: tensor.facts }];
  if (other?.facts) columns.push({ title: own[1], facts: other.facts, go: other });
  for (const row of tensor.compared) columns.push({ title: row.where.replace("the training step before", "step before"), facts: row.facts, go: tensorOf(row.tensor), apart: row.apart, far: true });
  const share = (f) => `${num(100 * f.zero / f.size, 2)} %`, known = columns.map((c) => c.facts);
  const rows = [["min", (f) => num(f.min)], ["max", (f) => num(f.max)], ["mean", (f) => num(f.mean)], ["std", (f) => num(f.std)],
    ["largest |·|", (f) => num(f.absmax)], ["zeros", share], ["NaN", (f) => String(f.nan)], ["∞", (f) => String(f.inf)]];
  const far = columns.some((c) => c.far);
  return scroller("statistics", el("table", { class: "statistics" },
    el("thead", {}, el("tr", {}, el("td", {}), columns.map((c) => el("th", { scope: "col" },
      c.go && c.far ? el("button", { type: "button", class: "link", click: () => update({ tensor: c.go.id, at: null }) }, c.title) : c.title)))),
    el("tbody", {}, rows.map(([name, of]) => el("tr", { class: (name === "NaN" || name === "∞") && of(known[0]) !== "0" ? "bad" : null },
      el("th", { scope: "row" }, name), known.map((f) => el("td", {}, f ? of(f) : "–")))),
    far ? el("tr", { class: "apart" }, el("th", { scope: "row", title: "the largest |difference|, as a part of the largest |value| there" }, "differs by"),
      columns.map((c) => el("td", {}, !c.far ? "" : c.apart === null ? "?" : c.apart === 0 ? "nothing" : num(c.apart)))) : null)));
}

// What computed a step, and what was passed over.
export function ranOn(step) {
  if (!step.runs.length) return step.kind === "update" ? null : el("p", { class: "quiet" }, "Plain array expressions, as the source shows them.");
  return el("dl", {}, step.runs.map((run) => [el("dt", {}, el("code", {}, run.op)),
    el("dd", {}, el("b", {}, run.name), ` ${duration(run.seconds)}. ${run.why}`,
      run.others.map(([name, why]) => el("p", { class: "quiet" }, el("code", {}, name), `: ${why}`)))]));
}

// The op on other backends: what it makes of the recorded inputs (alone), and of what that backend made before (added up).
export function differences(forward) {
  const said = trace.diffs.map((diff) => [diff, diff.rows.find((row) => row.step === forward?.id)]).filter(([, row]) => row);
  if (!trace.diffs.length) return null;
  const head = ["backend", "alone", "added up", "recorded − float64", "its − float64", "nearer to float64"];
  const nearer = (row, name) => (row.ours === row.theirs ? "" : row.ours < row.theirs ? "the recording" : name);
  const line = (name, row) => [name, num(row.alone), num(row.added), num(row.ours), num(row.theirs)];
  return [said.length ? scroller("other backends", el("table", {}, el("thead", {}, el("tr", {}, head.map((c) => el("th", { scope: "col" }, c)))),
    el("tbody", {}, said.map(([diff, row]) => el("tr", {}, [...line(diff.backend, row), nearer(row, diff.backend)].map((cell) => el("td", {}, cell)))))))
    : el("p", { class: "quiet" }, `Not compared: ${trace.diffs.flatMap((diff) => diff.left.filter((l) => forward && l.ops.includes(forward.op)).map((l) => `${diff.backend} ${l.why}`)).join("; ") || "no such op there"}.`),
  el("details", { class: "as-table" }, el("summary", {}, "all ops"), scroller("all ops on other backends", el("table", {},
    el("thead", {}, el("tr", {}, ["op", ...head.slice(0, 5)].map((c) => el("th", { scope: "col" }, c)))),
    el("tbody", {}, trace.diffs.flatMap((diff) => diff.rows.map((row) => el("tr", {}, el("td", {}, jump(row.step)), line(diff.backend, row).map((cell) => el("td", {}, cell))))))))),
  el("p", { class: "quiet" }, "Largest |difference| as a part of the largest |y|: alone on the recorded inputs, and added up along the network.")];
}

function jump(id) {
  const place = trace.byId.get(id), step = trace.steps[place];
  return el("button", { type: "button", class: "link", click: () => update({ place }) }, step.path || step.op);
}
