// The trace as it lies in the page: deflated JSON in base64, unpacked once; then looked up by step and tensor.

import { num } from "./dom.js";

export const trace = { steps: [], tensors: [], page: {} };

// Unpack the data block, and add what is looked up often.
export async function unpack(text) {
  const binary = atob(text), packed = new Uint8Array(binary.length);
  for (let k = 0; k < binary.length; k++) packed[k] = binary.charCodeAt(k); // Uint8Array.from() with a function is ten times slower
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const buffer = await new Response(stream).arrayBuffer();
  Object.assign(trace, JSON.parse(new TextDecoder().decode(buffer)));
  trace.byId = new Map(trace.steps.map((step, place) => [step.id, place]));
  trace.placeOfForward = trace.page.forward.map((id) => trace.byId.get(id)); // outline's op number -> place in steps
  trace.opOfStep = new Map(trace.placeOfForward.map((place, op) => [place, op]));
  for (const tensor of trace.tensors) tensor.gradients = [];
  for (const tensor of trace.tensors) if (tensor.of !== null) trace.tensors[tensor.of].gradients.push(tensor.id);
  return trace;
}

export const tensorOf = (id) => (id === null || id === undefined ? null : trace.tensors[id]);

// The forward step that a step is about (a backward's own forward), or null.
export function forwardOf(step) {
  if (step.kind === "forward") return step;
  const place = trace.byId.get(step.forward);
  return place === undefined ? null : trace.steps[place];
}

// Which row of the outline a step belongs to: the op's number among the forward ops, or -1.
export function opNumber(place) {
  const forward = forwardOf(trace.steps[place]);
  return forward ? (trace.opOfStep.get(trace.byId.get(forward.id)) ?? -1) : -1;
}

// What a step is called: the module it belongs to, or else the op.
export function titleOf(step) {
  if (step.kind === "update") return "optimiser step";
  return step.path || step.op;
}

// The training steps of the recording, each up to an optimiser's step: where they begin, and how many steps of each kind they have.
function turns() {
  const found = [];
  trace.steps.forEach((step, place) => {
    if (!place || trace.steps[place - 1].kind === "update" && step.kind !== "update") found.push({ from: place, counts: {} });
    const counts = found.at(-1).counts;
    counts[step.kind] = (counts[step.kind] ?? 0) + 1;
  });
  return found;
}

// Which step of its kind a step is in its training step, of how many, and what that training step is made of.
export function turnOf(place) {
  trace.turns ??= turns();
  const number = trace.turns.findLastIndex((turn) => turn.from <= place), { from, counts } = trace.turns[number], { kind } = trace.steps[place];
  const nth = trace.steps.slice(from, place + 1).filter((step) => step.kind === kind).length;
  const parts = [["forward", "forward"], ["backward", "back"], ["update", "update"]].filter(([name]) => counts[name]).map(([name, word]) => `${counts[name]} ${word}`).join(", ");
  const all = trace.turns.filter((turn) => turn.counts.update).length;
  return { nth, count: counts[kind], said: trace.turns.length === 1 ? parts : counts.update ? `training step ${number + 1} of ${all}` : "after the last update" };
}

// What an op could have taken and did not: "without bias"; "" where nothing is missing, or where the formula does not speak of it.
export function missing(step) {
  const names = forwardOf(step)?.without ?? [];
  return names.length ? `without ${names.join(" and ")}` : "";
}

// As in the call; (2, 2) is 2, as people write it.
export function settingsText(step) {
  return Object.entries(step.settings ?? {}).map(([name, value]) => `${name}=${value.replace(/^\((\d+), \1\)$/, "$1")}`).join(", ");
}

// The largest |gradient in| of a backward step, by norm where it is known: mean and deviation give it.
export function gradientNorm(step) {
  if (step.kind !== "backward") return null;
  let sum = 0;
  for (const input of step.inputs) {
    const facts = tensorOf(input.tensor)?.facts;
    if (!facts || typeof facts.mean !== "number" || typeof facts.std !== "number") return facts ? NaN : null;
    sum += facts.size * (facts.mean ** 2 + facts.std ** 2);
  }
  return Math.sqrt(sum);
}

// One sentence that says everything a listener needs.
export function sentenceOf(place) {
  const step = trace.steps[place], flags = step.flags.length ? ` Note: ${step.flags.map((f) => f.text).join("; ")}.` : "";
  const head = `Step ${place + 1} of ${trace.steps.length}: ${step.kind}`;
  if (step.kind === "update") return `${head}, the optimiser changes ${step.parameters?.length ?? 0} parameters.${flags}`;
  const where = step.path ? `${step.op} in ${step.path}` : step.op;
  if (step.kind === "forward") {
    const out = tensorOf(step.outputs[0]?.tensor);
    return `${head}, ${where}, makes ${out ? `${out.name}, ${out.shape.join(" by ") || "a scalar"}` : "a number"}.${flags}`;
  }
  const parts = step.parts.map((part) => {
    const to = tensorOf(part.to), share = part.count === 1 ? "" : `, contribution ${part.index}${part.count ? ` of ${part.count}` : ""}`;
    return `${to.name} (largest ${num(tensorOf(part.tensor)?.facts?.absmax)}${share})`;
  });
  return `${head}, through ${where}, gives a gradient to ${parts.join(" and ") || "nothing"}.${flags}`;
}
