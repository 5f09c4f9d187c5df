// A formula as SVG, from the glyph outlines that Python typeset.

import { el, visible } from "./dom.js";
import { trace } from "./data.js";

export function formula(number, text) {
  const { box, glyphs, rules } = trace.page.formulas.drawn[number], em = 24;
  return el("svg:svg", { class: "formula", role: "img", "aria-label": visible(text), viewBox: box.join(" "),
    width: `${box[2] / em}em`, height: `${box[3] / em}em` },
  glyphs.map(([key, x, y, scale]) => el("svg:path", { d: trace.page.formulas.outlines[key], transform: `translate(${x} ${y}) scale(${scale})` })),
  rules.map(([x, y, width, height]) => el("svg:rect", { x, y, width, height })));
}
