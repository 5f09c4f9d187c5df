// Building blocks: elements whose text is always text, numbers and sizes as the stepper writes them.

const HIDDEN = /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]/g;
const SVG = "http://www.w3.org/2000/svg";
const BARS = { forward: "→", backward: "←", update: "↻" };

// Characters that would not show, or would turn the writing direction, become visible: a name is what it is.
export function visible(text) {
  return String(text).replace(HIDDEN, (c) => "\\u" + c.charCodeAt(0).toString(16).padStart(4, "0"));
}

// An element: attributes (functions are listeners, true and false switch), then children: strings, elements, lists, null.
export function el(tag, attributes, ...children) {
  const element = tag.startsWith("svg:") ? document.createElementNS(SVG, tag.slice(4)) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, visible(value));
  }
  append(element, children);
  return element;
}

export function append(element, children) {
  for (const child of children) {
    if (Array.isArray(child)) append(element, child);
    else if (child !== null && child !== undefined && child !== false)
      element.append(child instanceof Node ? child : visible(child));
  }
  return element;
}

export function fill(element, ...children) {
  element.replaceChildren();
  return append(element, children);
}

export const byId = (id) => document.getElementById(id);

export function arrow(kind) {
  return BARS[kind] ?? "·";
}

// Three digits, as the terminal writes them: 0.0312, -3.12e-5. What is not finite comes as a string.
export function num(value, digits = 3) {
  if (value === null || value === undefined) return "–";
  if (typeof value !== "number") return String(value).replace("inf", "∞").replace("nan", "NaN").replace("-", "−");
  if (value === 0) return "0";
  const size = Math.abs(value);
  let text = size >= 1e-4 && size < 1e5 ? String(Number(value.toPrecision(digits))) : value.toExponential(digits - 1);
  if (size >= 1000 && size < 1e5 && Number.isInteger(value)) text = String(value);
  return text.replace("e+", "e").replace(/\.?0+e/, "e").replace(/-/g, "−");
}

export function bytes(count) {
  for (const unit of ["B", "kB", "MB"]) {
    if (count < 1000) return `${Number(count.toPrecision(3))} ${unit}`;
    count /= 1000;
  }
  return `${Number(count.toPrecision(3))} GB`;
}

export function duration(seconds) {
  if (seconds >= 1) return `${Number(seconds.toPrecision(3))} s`;
  if (seconds >= 1e-3) return `${Number((seconds * 1e3).toPrecision(2))} ms`;
  return `${Math.round(seconds * 1e6)} µs`;
}

export function shapeText(shape) {
  return shape.length ? shape.join("×") : "scalar";
}

// "1 step", "3 steps".
export function several(count, word) {
  return `${count} ${word}${count === 1 ? "" : "s"}`;
}

// A box that scrolls where its content is too large, by keys too.
export function scroller(label, ...children) {
  return el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": label }, children);
}

// A chart's numbers as a table, folded away behind a button-like summary.
export function tableOf(caption, columns, rows) {
  return el("details", { class: "as-table" }, el("summary", {}, "as a table"),
    scroller(caption,
      el("table", {}, el("caption", {}, caption),
        el("thead", {}, el("tr", {}, columns.map((c) => el("th", { scope: "col" }, c)))),
        el("tbody", {}, rows.map((row) => el("tr", {}, row.map((cell) => el("td", {}, cell))))))));
}
