// Which elements of an op's other tensors meet a chosen one: the window of a convolution, the row of a product.
// A place is a box, [lo, hi) per axis. Every rule answers in both directions: x to y and y to x. A box may hold a
// little more than what takes part (the gaps of a dilated kernel), never less.

const EACH = new Set(("add sub mul div remainder pow neg abs sign exp log sqrt clone to rsqrt reciprocal square sin cos erf log1p expm1 "
  + "floor ceil trunc round fmod atan2 hypot tanh tanh_grad sigmoid sigmoid_grad relu relu_grad leaky_relu elu celu gelu silu softplus "
  + "logsigmoid mish hardtanh hardswish where maximum minimum clamp eq ne lt le gt ge masked_scale masked_fill").split(" "));
const ALONG = new Set(["softmax", "log_softmax", "cumsum", "cumprod", "logcumsumexp"]);
const REDUCE = new Set("sum mean var std amax amin argmax argmin logsumexp prod norm max_along min_along median_along all any".split(" "));
const POOL = new Set(["max_pool2d", "avg_pool2d"]);
const ADAPTIVE = new Set(["adaptive_avg_pool2d", "adaptive_max_pool2d"]);
const CHANNEL = new Set(["batch_norm_train", "batch_norm_eval"]);

const whole = (shape) => shape.map((size) => [0, size]);
const same = (box) => box.map((span) => [...span]);

// A Python setting as JSON knows it: (1, 2), None, True, 'mean'; undefined where it is something else.
export function setting(step, name, otherwise) {
  const text = step.settings?.[name];
  if (text === undefined) return otherwise;
  const json = text.replace(/\(/g, "[").replace(/,?\s*\)/g, "]").replace(/'/g, '"').replace(/\bNone\b/g, "null")
    .replace(/\bTrue\b/g, "true").replace(/\bFalse\b/g, "false");
  try { return JSON.parse(json); } catch { return otherwise; }
}

const pair = (value) => (Array.isArray(value) ? (value.length === 1 ? [value[0], value[0]] : value) : [value, value]);

// {argument: shape} of a forward step's tensors, its output under "y".
function shapesOf(step, tensorOf) {
  const shapes = {};
  for (const { argument, tensor } of [...step.inputs, ...step.outputs]) if (tensor !== null) shapes[argument] = tensorOf(tensor).shape;
  return shapes;
}

// {argument: box} for the box chosen in tensor `argument` of a forward step; arguments it says nothing about are missing.
export function windows(step, argument, box, tensorOf) {
  const shapes = shapesOf(step, tensorOf), out = step.outputs[0]?.argument;
  if (!shapes[argument] || !out || !shapes[out]) return {};
  const rule = ruleOf(step, shapes, out);
  const found = rule ? rule(argument === out ? "y" : argument, box) : {};
  if ("y" in found && out !== "y") { found[out] = found.y; delete found.y; }
  for (const name of Object.keys(found)) if (!shapes[name] || name === argument) delete found[name];
  return found;
}

function ruleOf(step, shapes, out) {
  const all = { ...shapes, y: shapes[out] }, op = step.op;
  if (EACH.has(op)) return each(all);
  if (op === "conv2d") return convolution(step, all);
  if (POOL.has(op)) return pool(step, all);
  if (ADAPTIVE.has(op)) return adaptive(all);
  if (op === "linear") return linear(all);
  if (op === "matmul") return product(all);
  if (REDUCE.has(op)) return reduction(step, all);
  if (ALONG.has(op)) return along(step, all);
  if (CHANNEL.has(op)) return channel(all);
  if (op === "reshape" || op === "flatten" || op === "squeeze" || op === "unsqueeze") return reshaped(all);
  if (op === "permute" || op === "transpose") return permuted(step, all);
  if (op === "cat") return joined(step, all);
  if (op === "expand") return each(all);
  if (op === "cross_entropy" || op === "nll_loss") return loss(all);
  return null;
}

// Element by element, with axes of size 1 stretched.
function each(shapes) {
  const names = Object.keys(shapes).filter((name) => name !== "y"), rank = shapes.y.length;
  return (from, box) => {
    const lead = rank - shapes[from].length, found = {};
    const wide = shapes.y.map((size, axis) => axis < lead || shapes[from][axis - lead] === 1 && size > 1 ? [0, size] : box[axis - lead]);
    found.y = wide;
    for (const name of names) {
      const shift = rank - shapes[name].length;
      found[name] = shapes[name].map((size, axis) => size === 1 ? [0, 1] : wide[axis + shift]);
    }
    return found;
  };
}

// Along one axis: output positions whose window touches inputs [lo, hi), and the inputs of outputs [lo, hi).
function sliding(size, outputs, kernel, stride, pad, dilation) {
  const reach = (kernel - 1) * dilation;
  return {
    out: ([lo, hi]) => [Math.max(0, Math.ceil((lo + pad - reach) / stride)), Math.min(outputs, Math.floor((hi - 1 + pad) / stride) + 1)],
    in: ([lo, hi]) => [Math.max(0, lo * stride - pad), Math.min(size, (hi - 1) * stride - pad + reach + 1)],
    kernel: ([plo, phi], [hlo, hhi]) => [Math.max(0, Math.ceil((hlo - (phi - 1) * stride + pad) / dilation)),
      Math.min(kernel, Math.floor((hhi - 1 - plo * stride + pad) / dilation) + 1)],
    tap: ([ilo, ihi]) => ({ // which outputs and inputs meet kernel positions [ilo, ihi)
      out: [Math.max(0, Math.ceil((pad - (ihi - 1) * dilation) / stride)), Math.min(outputs, Math.floor((size - 1 + pad - ilo * dilation) / stride) + 1)],
      in: [Math.max(0, ilo * dilation - pad), Math.min(size, (outputs - 1) * stride - pad + (ihi - 1) * dilation + 1)] }),
  };
}

function convolution(step, { x, weight, y }) {
  const [N, C] = x, [O, , KH, KW] = weight, groups = setting(step, "groups", 1), perIn = C / groups, perOut = O / groups;
  const padding = pair(setting(step, "padding", 0)), stride = pair(setting(step, "stride", 1)), dilation = pair(setting(step, "dilation", 1));
  if (padding.some((p) => typeof p !== "number")) return null; // "same": let it be
  const axes = [0, 1].map((k) => sliding(x[k + 2], y[k + 2], weight[k + 2], stride[k], padding[k], dilation[k]));
  const inputsOf = ([lo, hi]) => [Math.floor(lo / perOut) * perIn, (Math.floor((hi - 1) / perOut) + 1) * perIn];
  const outputsOf = ([lo, hi]) => [Math.floor(lo / perIn) * perOut, (Math.floor((hi - 1) / perIn) + 1) * perOut];
  return (from, box) => {
    if (from === "y") {
      const rows = axes.map((axis, k) => axis.in(box[k + 2]));
      const taps = axes.map((axis, k) => axis.kernel(box[k + 2], rows[k]));
      return { x: [box[0], inputsOf(box[1]), ...rows], weight: [box[1], [0, weight[1]], ...taps], bias: [box[1]] };
    }
    if (from === "x") {
      const outputs = outputsOf(box[1]), positions = axes.map((axis, k) => axis.out(box[k + 2]));
      const taps = axes.map((axis, k) => axis.kernel(positions[k], box[k + 2]));
      const lo = box[1][0] % perIn, inside = box[1][1] - box[1][0] >= perIn ? [0, perIn] : [lo, Math.min(perIn, lo + box[1][1] - box[1][0])];
      return { y: [box[0], outputs, ...positions], weight: [outputs, inside, ...taps], bias: [outputs] };
    }
    if (from === "bias") return { y: [[0, N], box[0], [0, y[2]], [0, y[3]]], weight: [box[0], [0, weight[1]], [0, KH], [0, KW]] };
    const met = axes.map((axis, k) => axis.tap(box[k + 2])), [first] = inputsOf(box[0]);
    const channels = groups === 1 ? box[1] : [first + box[1][0], first + box[1][1]];
    return { y: [[0, N], box[0], met[0].out, met[1].out], x: [[0, N], channels, met[0].in, met[1].in], bias: [box[0]] };
  };
}

function pool(step, { x, y }) {
  const kernel = pair(setting(step, "kernel_size", 2)), stride = pair(setting(step, "stride", null) ?? kernel);
  const padding = pair(setting(step, "padding", 0)), dilation = pair(setting(step, "dilation", 1));
  const axes = [0, 1].map((k) => sliding(x[k + 2], y[k + 2], kernel[k], stride[k], padding[k], dilation[k]));
  return (from, box) => from === "y" ? { x: [box[0], box[1], axes[0].in(box[2]), axes[1].in(box[3])] }
    : { y: [box[0], box[1], axes[0].out(box[2]), axes[1].out(box[3])] };
}

// Output p averages inputs floor(p·H/OH) .. ceil((p + 1)·H/OH).
function adaptive({ x, y }) {
  const reads = (size, count) => ([lo, hi]) => [Math.floor(lo * size / count), Math.ceil(hi * size / count)];
  const meets = (size, count) => ([lo, hi]) => {
    const touched = Array.from({ length: count }, (_, p) => p).filter((p) => Math.floor(p * size / count) < hi && Math.ceil((p + 1) * size / count) > lo);
    return [touched[0], touched[touched.length - 1] + 1];
  };
  return (from, box) => {
    const rule = from === "y" ? reads : meets;
    const other = [box[0], box[1], rule(x[2], y[2])(box[2]), rule(x[3], y[3])(box[3])];
    return from === "y" ? { x: other } : { y: other };
  };
}

// y[..., o] = Σ_k x[..., k] · weight[o, k]
function linear({ x, weight }) {
  const last = x.length - 1, inputs = [0, weight[1]], outputs = [0, weight[0]], rows = x.slice(0, last).map((size) => [0, size]);
  return (from, box) => {
    if (from === "y") return { x: [...box.slice(0, last), inputs], weight: [box[last], inputs], bias: [box[last]] };
    if (from === "x") return { y: [...box.slice(0, last), outputs], weight: [outputs, box[last]] };
    if (from === "bias") return { y: [...rows, box[0]], weight: [box[0], inputs] };
    return { y: [...rows, box[0]], x: [...rows, box[1]], bias: [box[0]] };
  };
}

// y[m, n] = Σ_k x[m, k] · other[k, n]; with more axes in front only where both have the same.
function product({ x, other, y }) {
  const rank = y.length;
  if (x.length < 2 || other.length < 2 || x.length !== other.length) return null;
  if (x.slice(0, -2).some((size, axis) => size !== other[axis])) return null;
  const K = [0, x[rank - 1]], M = [0, x[rank - 2]], columns = [0, other[rank - 1]];
  return (from, box) => {
    const lead = box.slice(0, -2), [first, second] = box.slice(-2);
    if (from === "y") return { x: [...lead, first, K], other: [...lead, K, second] };
    if (from === "x") return { y: [...lead, first, columns], other: [...lead, second, columns] };
    return { y: [...lead, M, second], x: [...lead, M, first] };
  };
}

function dims(step, rank) {
  const dim = setting(step, "dim", null);
  if (dim === null) return Array.from({ length: rank }, (_, axis) => axis);
  return (Array.isArray(dim) ? dim : [dim]).map((axis) => (axis < 0 ? axis + rank : axis));
}

function reduction(step, { x, y }) {
  const gone = new Set(dims(step, x.length)), kept = x.map((_, axis) => axis).filter((axis) => !gone.has(axis)), stays = x.length === y.length;
  return (from, box) => {
    if (from === "x") return { y: stays ? box.map((span, axis) => gone.has(axis) ? [0, 1] : span) : kept.map((axis) => box[axis]) };
    return { x: x.map((size, axis) => gone.has(axis) ? [0, size] : box[stays ? axis : kept.indexOf(axis)]) };
  };
}

// Every element of a row depends on the whole row.
function along(step, { x }) {
  const [axis] = dims(step, x.length);
  return (from, box) => ({ [from === "x" ? "y" : "x"]: box.map((span, k) => k === axis ? [0, x[k]] : span) });
}

// A channel is normalised by its own mean and variance, over the batch and all positions.
function channel(shapes) {
  const { x } = shapes, of = (span) => x.map((size, axis) => axis === 1 ? span : [0, size]);
  return (from, box) => {
    const span = shapes[from].length === 1 ? box[0] : box[1], found = {};
    for (const [name, shape] of Object.entries(shapes)) if (name !== from) found[name] = shape.length === 1 ? [span] : of(span);
    if (from === "add") found.y = same(box);
    if (from === "y" && found.add) found.add = same(box);
    return found;
  };
}

// The same elements in the same order: exact for one element, and for what stays together.
function reshaped({ x, y }) {
  return (from, box) => {
    const here = from === "x" ? x : y, there = from === "x" ? y : x;
    const flat = (corner) => corner.reduce((sum, k, axis) => sum * here[axis] + k, 0);
    let first = flat(box.map(([lo]) => lo)), last = flat(box.map(([, hi]) => hi - 1));
    const places = there.map(() => null);
    for (let axis = there.length - 1; axis >= 0; axis--) {
      const a = first % there[axis], b = last % there[axis];
      first = Math.floor(first / there[axis]);
      last = Math.floor(last / there[axis]);
      places[axis] = first === last ? [Math.min(a, b), Math.max(a, b) + 1] : [0, there[axis]];
    }
    return { [from === "x" ? "y" : "x"]: places };
  };
}

function permuted(step, { x }) {
  const rank = x.length, at = (axis) => (axis < 0 ? axis + rank : axis), order = x.map((_, axis) => axis);
  if (step.op === "permute") order.splice(0, rank, ...(setting(step, "dims", order)).map(at));
  else {
    const a = at(setting(step, "dim0", -2)), b = at(setting(step, "dim1", -1));
    [order[a], order[b]] = [b, a];
  }
  return (from, box) => from === "x" ? { y: order.map((axis) => box[axis]) } : { x: order.map((_, axis) => box[order.indexOf(axis)]) };
}

function joined(step, shapes) {
  const rank = shapes.y.length, dim = (setting(step, "dim", 0) + rank) % rank, starts = {};
  let start = 0;
  for (const [name, shape] of Object.entries(shapes)) if (name !== "y") { starts[name] = start; start += shape[dim]; }
  return (from, box) => {
    const moved = (by) => box.map(([lo, hi], axis) => axis === dim ? [lo + by, hi + by] : [lo, hi]), found = {};
    if (from !== "y") return { y: moved(starts[from]) };
    for (const [name, by] of Object.entries(starts)) {
      const part = moved(-by).map(([lo, hi], axis) => [Math.max(0, lo), Math.min(shapes[name][axis], hi)]);
      if (part.every(([lo, hi]) => hi > lo)) found[name] = part;
    }
    return found;
  };
}

// A sample's loss depends on its own scores and its label.
function loss(shapes) {
  const { x, y } = shapes;
  if (x.length !== 2 || y.length) return null;
  return (from, box) => from === "x" ? { y: [], target: [box[0]] } : from === "target" ? { y: [], x: [box[0], [0, x[1]]] } : { x: whole(x), target: [[0, x[0]]] };
}
