// Tensors as pictures: blue below zero, white at zero, red above it; what is not finite is black with a cross.

import { el, num } from "./dom.js";

const BLUE = [33, 102, 172], WHITE = [247, 247, 247], RED = [178, 24, 43], MIDDLE = [[146, 197, 222], [244, 165, 130]];

// 256 colours: byte 0 is "not finite", 1..255 run from -scale over 0 (128) to +scale.
const COLOURS = Array.from({ length: 256 }, (_, byte) => {
  if (byte === 0) return [0, 0, 0];
  const share = Math.max(-1, Math.min(1, (byte - 128) / 127)), size = Math.abs(share);
  const [end, middle] = share < 0 ? [BLUE, MIDDLE[0]] : [RED, MIDDLE[1]];
  const [from, to, t] = size < 0.5 ? [WHITE, middle, size * 2] : [middle, end, size * 2 - 1];
  return from.map((c, k) => Math.round(c + (to[k] - c) * t));
});

const unpacked = new Map(); // tensor id -> [Uint8Array]

export function levels(tensor) {
  if (!unpacked.has(tensor.id))
    unpacked.set(tensor.id, tensor.thumbnails.data.map((text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0))));
  return unpacked.get(tensor.id);
}

// The pictures of a tensor laid out on one canvas: how many columns, how large a cell, in CSS pixels.
// A row of numbers is wrapped, so that it never becomes a sliver.
export function plan(tensor, width, height) {
  const { height: h, width: w, data, kind } = tensor.thumbnails, count = data.length;
  if (kind === "row" && w > 16) {
    const columns = Math.min(w, Math.ceil(Math.sqrt(w * 2.5)));
    const cell = Math.max(3, Math.min(22, Math.floor(width / columns), Math.floor(height / Math.ceil(w / columns))));
    return { columns: 1, cell, gap: 0, wrap: columns, w: columns, h: Math.ceil(w / columns), count: 1 };
  }
  let best = arranged(w, h, count, width, height);
  for (let fewer = count - 1; fewer > 0 && best.cell < 1; fewer--) best = arranged(w, h, fewer, width, height); // below a pixel a cell shows nothing
  best.cell = best.cell >= 6 ? Math.floor(best.cell) : best.cell >= 1 ? Math.floor(best.cell * 2) / 2 : best.cell;
  return best;
}

// `count` pictures in the columns that give them the largest cells.
function arranged(w, h, count, width, height) {
  const plans = Array.from({ length: count }, (_, k) => {
    const columns = k + 1, rows = Math.ceil(count / columns), gap = count > 1 ? 3 : 0;
    const cell = Math.min((width - gap * (columns - 1)) / (w * columns), (height - gap * (rows - 1)) / (h * rows), 40);
    return { columns, cell, gap, wrap: 0, w, h, count, even: count % columns === 0 };
  });
  const largest = (list) => list.reduce((a, b) => (b.cell > a.cell ? b : a));
  const full = largest(plans.filter((p) => p.even)), most = largest(plans);
  return full.cell > 0.7 * most.cell ? full : most; // no holes, if it costs little
}

export function sizeOf(layout) {
  const rows = Math.ceil(layout.count / layout.columns);
  return [layout.columns * layout.w * layout.cell + (layout.columns - 1) * layout.gap,
    rows * layout.h * layout.cell + (rows - 1) * layout.gap];
}

export function draw(canvas, tensor, layout) {
  const [width, height] = sizeOf(layout), ratio = Math.max(1, window.devicePixelRatio || 1);
  canvas.width = Math.ceil(width * ratio);
  canvas.height = Math.ceil(height * ratio);
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  context.imageSmoothingEnabled = false;
  levels(tensor).slice(0, layout.count).forEach((data, number) => {
    const image = picture(data, tensor.thumbnails, layout);
    const [x, y] = corner(layout, number);
    context.drawImage(image, x, y, layout.w * layout.cell, layout.h * layout.cell);
  });
  crosses(context, tensor, layout);
  return [width, height];
}

function picture(data, thumbnails, layout) {
  const image = new ImageData(layout.w, layout.h), rgb = thumbnails.kind === "rgb";
  const total = rgb ? data.length / 3 : data.length;
  for (let k = 0; k < total; k++) {
    const colour = rgb ? [data[3 * k], data[3 * k + 1], data[3 * k + 2]] : COLOURS[data[k]];
    image.data.set([...colour, 255], 4 * k);
  }
  const canvas = document.createElement("canvas");
  canvas.width = layout.w;
  canvas.height = layout.h;
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

// NaN and infinity: a cross in the black cell, where there is room for one.
function crosses(context, tensor, layout) {
  if (tensor.thumbnails.kind === "rgb" || !(tensor.facts?.nan || tensor.facts?.inf) || layout.cell < 5) return;
  context.strokeStyle = "#ffd400";
  context.lineWidth = 1.5;
  context.beginPath();
  levels(tensor).slice(0, layout.count).forEach((data, number) => data.forEach((byte, k) => {
    if (byte) return;
    const [left, top] = corner(layout, number), x = left + (k % layout.w) * layout.cell, y = top + Math.floor(k / layout.w) * layout.cell;
    const near = layout.cell * 0.25, far = layout.cell * 0.75;
    context.moveTo(x + near, y + near); context.lineTo(x + far, y + far);
    context.moveTo(x + far, y + near); context.lineTo(x + near, y + far);
  }));
  context.stroke();
}

function corner(layout, number) {
  return [(number % layout.columns) * (layout.w * layout.cell + layout.gap),
    Math.floor(number / layout.columns) * (layout.h * layout.cell + layout.gap)];
}

// --- from places in the picture to places in the tensor, and back ---------------------------------------------------

const squeezed = (tensor) => tensor.shape.length === 4 && tensor.shape[2] * tensor.shape[3] === 1;

// Which axes of the tensor run down, across and over the pictures; null where the picture has no such axis.
export function roles(tensor) {
  const { kind } = tensor.thumbnails, rank = tensor.shape.length;
  if (rank === 4 && squeezed(tensor)) return { down: 0, across: 1, over: null };
  if (kind === "rgb") return { down: 2, across: 3, over: null };
  if (kind === "channels") return { down: 2, across: 3, over: 1 };
  if (kind === "tiles") return { down: 2, across: 3, over: 0 };
  return rank === 2 ? { down: 0, across: 1, over: null } : { down: null, across: 0, over: null };
}

// [first, last + 1) of the elements behind cell `k` of `cells`, where the axis has `size` elements.
const block = (k, cells, size) => [Math.floor(k * size / cells), Math.max(Math.floor(k * size / cells) + 1, Math.floor((k + 1) * size / cells))];

// The box of elements behind a point of the canvas, or null: [[lo, hi], ...] per axis.
export function boxAt(tensor, layout, x, y) {
  const wide = layout.w * layout.cell + layout.gap, high = layout.h * layout.cell + layout.gap;
  const column = Math.floor(x / wide), row = Math.floor(y / high), number = row * layout.columns + column;
  let across = Math.floor((x - column * wide) / layout.cell), down = Math.floor((y - row * high) / layout.cell);
  if (x < 0 || y < 0 || number >= layout.count || column >= layout.columns || across >= layout.w || down >= layout.h) return null;
  if (layout.wrap) [down, across] = [0, down * layout.wrap + across];
  return boxOf(tensor, number, down, across);
}

export function boxOf(tensor, number, down, across) {
  const { width, height, shown } = tensor.thumbnails, role = roles(tensor);
  if (down >= height || across >= width) return null;
  return tensor.shape.map((size, axis) => {
    if (axis === role.down) return block(down, height, size);
    if (axis === role.across) return block(across, width, size);
    if (axis === role.over) return [shown[number], shown[number] + 1];
    return tensor.thumbnails.kind === "rgb" && axis === 1 ? [0, size] : [0, 1];
  });
}

// The rectangles of a box on the canvas: [x, y, width, height], one per picture that it touches.
export function rectangles(tensor, layout, box) {
  const { width, height, shown } = tensor.thumbnails, role = roles(tensor), found = [];
  const hidden = box.some(([lo], axis) => axis !== role.down && axis !== role.across && axis !== role.over && lo > 0
    && !(tensor.thumbnails.kind === "rgb" && axis === 1));
  if (hidden || box.some(([lo, hi]) => hi <= lo)) return [];
  const cells = (axis, count) => axis === null ? [0, 1] : range(box[axis], count, tensor.shape[axis]);
  const [top, bottom] = cells(role.down, height), [left, right] = cells(role.across, width);
  shown.slice(0, layout.count).forEach((channel, number) => {
    if (role.over !== null && (channel < box[role.over][0] || channel >= box[role.over][1])) return;
    const [x, y] = corner(layout, number), c = layout.cell;
    if (!layout.wrap) found.push([x + left * c, y + top * c, (right - left) * c, (bottom - top) * c]);
    else for (let row = Math.floor(left / layout.wrap); row * layout.wrap < right; row++) {
      const from = Math.max(left, row * layout.wrap) - row * layout.wrap, to = Math.min(right, (row + 1) * layout.wrap) - row * layout.wrap;
      found.push([from * c, row * c, (to - from) * c, c]);
    }
  });
  return found;
}

// The cells that elements [lo, hi) of an axis fall into.
function range([lo, hi], cells, size) {
  if (cells >= size) return [lo, hi];
  let first = Math.floor(lo * cells / size), last = first;
  while (block(first, cells, size)[1] <= lo) first++;
  last = Math.max(first, Math.floor((hi - 1) * cells / size));
  while (last + 1 < cells && block(last + 1, cells, size)[0] < hi) last++;
  return [first, last + 1];
}

// The value behind a cell, as well as the picture knows it.
export function shownValue(tensor, box) {
  const { corner: raw, thumbnails } = tensor, rank = tensor.shape.length;
  const exact = box.every(([lo, hi]) => hi - lo === 1), [r, c] = rank > 1 ? [box[rank - 2][0], box[rank - 1][0]] : [0, box[0]?.[0] ?? 0];
  if (exact && raw && box.slice(0, Math.max(0, rank - 2)).every(([lo]) => lo === 0) && raw.values[r]?.[c] !== undefined)
    return `= ${num(raw.values[r][c], 4)}`;
  if (!thumbnails || thumbnails.kind === "rgb") return "";
  const role = roles(tensor), cell = (axis, cells) => axis === null ? 0 : range(box[axis], cells, tensor.shape[axis])[0];
  const number = role.over === null ? 0 : thumbnails.shown.indexOf(box[role.over][0]);
  const byte = number < 0 ? 0 : levels(tensor)[number][cell(role.down, thumbnails.height) * thumbnails.width + cell(role.across, thumbnails.width)];
  if (!byte) return "is not finite";
  const value = num((byte - 128) / 127 * thumbnails.scale, 2), off = num(thumbnails.scale / 254, 1);
  return exact ? `≈ ${value} ± ${off}` : `: mean ≈ ${value} ± ${off}`;
}

// The colour bar with its numbers.
export function legend(tensor) {
  const { kind, scale, low, high } = tensor.thumbnails;
  if (kind === "rgb") return el("p", { class: "legend" }, `${tensor.shape[0] > 1 ? `the first of ${tensor.shape[0]}` : "a picture"}: black ${num(low)}, full ${num(high)}`);
  return el("p", { class: "legend", title: "Blue is below zero, red above it; the scale is the largest value shown." },
    el("span", { "aria-hidden": "true" }, "−"), el("span", { class: "ramp", "aria-hidden": "true" }), el("span", {}, `± ${num(scale)}`));
}
