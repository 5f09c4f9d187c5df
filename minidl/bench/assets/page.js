// The charts of a bench result, drawn as SVG from the data in the page. All text goes in as text, never as markup.
"use strict";
(() => {
  const bytes = Uint8Array.from(atob(document.getElementById("data").textContent.trim()), (c) => c.charCodeAt(0));
  const result = JSON.parse(new TextDecoder().decode(bytes));
  const charts = document.getElementById("charts"), tip = document.getElementById("tip");
  const NS = "http://www.w3.org/2000/svg";

  const el = (name, attributes = {}, text = null, children = []) => {
    const node = document.createElementNS(NS, name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    if (text !== null) node.textContent = text;
    node.append(...children);
    return node;
  };
  const html = (name, className = "", text = null, children = []) => {
    const node = document.createElement(name);
    if (className) node.className = className;
    if (text !== null) node.textContent = text;
    node.append(...children);
    return node;
  };
  const svg = (width, height, label) => el("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });
  const card = (heading, lead, full = false) => {
    const node = html("section", full ? "card full" : "card", null, [html("h2", "", heading), html("p", "lead", lead)]);
    charts.append(node);
    return node;
  };

  // --- words and numbers
  const digits = (x) => (x >= 999.5 ? Math.round(x).toLocaleString("en") : String(Number(x.toPrecision(3))));
  const time = (s) => (s >= 1 ? `${digits(s)} s` : s >= 1e-3 ? `${digits(s * 1e3)} ms` : s >= 1e-6 ? `${digits(s * 1e6)} µs` : `${Math.round(s * 1e9)} ns`);
  const short = (text, most) => (text.length > most ? text.slice(0, most - 1) + "…" : text);
  const PARTS = ["forward", "backward", "optimizer"], KINDS = ["products", "gathers", "element-wise", "Python", "idle"];
  // A colour means the same in every chart: page.css has one set for implementations, one for kinds of work, one for parts of a step.
  const fixed = new Map([...PARTS.map((name, k) => [name, `var(--p${k})`]), ...KINDS.map((name, k) => [name, `var(--k${k})`])]);
  const own = new Map();
  const tint = (name) => { if (!own.has(name)) own.set(name, `var(--i${own.size % 16})`); return own.get(name); };
  for (const { implementation } of result.rows.filter((row) => row.median)) tint(implementation);
  const told = (row) => [`${row.implementation}${row.chosen ? "  ← what minidl takes" : ""}`,
    `${time(row.median)}   (${time(row.p20)} – ${time(row.p80)}, n = ${row.n})`,
    row.gflop_s ? `${digits(row.gflop_s)} GFLOP/s, ${digits(row.gb_s)} GB/s` : "",
    row.share ? `${Math.round(row.share * 100)} % of this machine's ceiling` : "",
    row.error !== null && row.allowed ? `error ${row.error.toExponential(0)}, allowed ${row.allowed.toExponential(0)}` : "",
    row.noisy ? "noisy: look at the spread" : ""].filter(Boolean).join("\n");

  // --- one line about what is under the pointer or has the focus
  const explained = (node, text) => {
    node.classList.add("mark");
    node.setAttribute("tabindex", "0");
    node.setAttribute("role", "img");
    node.setAttribute("aria-label", text);
    const show = () => {
      tip.textContent = text;
      tip.hidden = false;
      const box = node.getBoundingClientRect(), own = tip.getBoundingClientRect();
      const left = Math.min(Math.max(8, box.left + box.width / 2 - own.width / 2), innerWidth - own.width - 8);
      tip.style.left = `${left}px`;
      tip.style.top = `${box.top - own.height - 9 > 0 ? box.top - own.height - 9 : box.bottom + 9}px`;
    };
    const hide = () => { tip.hidden = true; };
    node.addEventListener("pointerenter", show);
    node.addEventListener("focus", show);
    node.addEventListener("pointerleave", hide);
    node.addEventListener("blur", hide);
    return node;
  };
  const keys = (names, extra = () => "", colour = tint) => html("ul", "keys", null, names.map((name) => {
    const dot = el("svg", { viewBox: "0 0 10 10", "aria-hidden": "true" }, null, [el("rect", { width: 10, height: 10, rx: 2.5, fill: colour(name) })]);
    return html("li", "", null, [dot, document.createTextNode(name), html("b", "", extra(name))]);
  }));

  // --- bars: the implementations of one call
  function bars(rows, heading, lead) {
    const timed = rows.filter((row) => row.median), wrong = rows.filter((row) => row.status === "wrong");
    const absent = rows.filter((row) => row.status === "missing");
    const node = card(heading, lead);
    const shown = [...timed, ...wrong], W = 560, left = 172, right = 96, step = 31;
    const H = shown.length * step + 6, most = Math.max(...timed.map((row) => row.p80), 1e-12), x = (s) => left + (s / most) * (W - left - right);
    const chart = svg(W, H, heading);
    shown.forEach((row, k) => {
      const y = k * step + 5, name = el("text", { x: left - 10, y: y + 14, "text-anchor": "end", class: row.chosen ? "name taken" : "name" }, short(row.implementation, 25));
      chart.append(name);
      if (row.status === "wrong") {
        chart.append(explained(el("text", { x: left, y: y + 14, class: "bad" }, "✗ wrong, so no speed"), `${row.implementation}\n${row.why}`));
        return;
      }
      const width = Math.max(2, x(row.median) - left);
      chart.append(explained(el("rect", { x: left, y, width, height: 20, rx: 4, fill: tint(row.implementation) }), told(row)));
      chart.append(el("path", { class: "whisker", d: `M${x(row.p20)} ${y + 10}H${x(row.p80)}M${x(row.p20)} ${y + 6}v8M${x(row.p80)} ${y + 6}v8` }));
      chart.append(el("text", { x: Math.max(x(row.p80), left + width) + 9, y: y + 14, class: "value" }, time(row.median) + (row.noisy ? " ~" : "")));
    });
    if (shown.length) node.append(chart);
    if (absent.length) {
      const reasons = new Map();
      for (const row of absent) reasons.set(row.why, [...(reasons.get(row.why) || []), row.implementation]);
      const list = html("ul", "", null, [...reasons].map(([why, names]) => html("li", "", `${names.join(", ")}: ${why}`)));
      node.append(html("details", "absent", null, [html("summary", "", `${absent.length} not measured here, and why`), list]));
    }
  }

  // --- sweep: speed over size
  function sweep(found) {
    const places = [...new Map(found.rows.map((row) => [row.place, row.label]))].sort((a, b) => a[0] - b[0]);
    const timed = found.rows.filter((row) => row.median), names = [...new Set(timed.map((row) => row.implementation))];
    if (!timed.length) return;
    const byBytes = timed.every((row) => row.operations / row.bytes < 4), value = (row) => (byBytes ? row.gb_s : row.gflop_s);
    const unit = byBytes ? "GB/s" : "GFLOP/s", ceiling = byBytes ? result.machine.copy_gb_s : result.machine.gemm_gflop_s;
    const node = card(`${found.case} over sizes, forward`, `${unit} by ${found.grows}; higher is better. The grey line is what ${byBytes ? "a copy" : "a large product"} reaches here.`);
    const W = 560, H = 300, left = 50, right = 14, top = 12, bottom = 52;
    const most = Math.max(...timed.map(value), ceiling || 0) * 1.06, x = (k) => left + 24 + (k * (W - left - right - 48)) / Math.max(1, places.length - 1);
    const y = (v) => H - bottom - (v / most) * (H - top - bottom), chart = svg(W, H, `${found.case} over sizes`);
    const tick = 10 ** Math.floor(Math.log10(most / 2)), by = most / tick > 8 ? tick * 2 : most / tick > 4 ? tick : tick / 2;
    for (let v = 0; v <= most; v += by) chart.append(el("path", { class: "grid", d: `M${left} ${y(v)}H${W - right}` }), el("text", { x: left - 7, y: y(v) + 4, "text-anchor": "end" }, digits(v)));
    if (ceiling) chart.append(el("path", { class: "roof", d: `M${left} ${y(ceiling)}H${W - right}`, "stroke-dasharray": "5 4" }));
    places.forEach(([place, label], k) => {
      const [size, rest] = label.split(/ → |, | \+ /), room = (W - left - right) / places.length > 7 * size.length + 8;
      const line = H - bottom + 20 + (room || k % 2 === 0 ? 0 : 16);  // every other label one line lower where they would touch
      chart.append(el("text", { x: x(k), y: line, "text-anchor": "middle" }, short(size, 18)));
      if (room && label.includes(" → ")) chart.append(el("text", { x: x(k), y: line + 16, "text-anchor": "middle" }, short("→ " + rest, 16)));
    });
    for (const name of names) {
      const points = places.map(([place], k) => [k, timed.find((row) => row.place === place && row.implementation === name)]).filter(([, row]) => row);
      chart.append(el("path", { class: "series", stroke: tint(name), d: points.map(([k, row], i) => `${i ? "L" : "M"}${x(k)} ${y(value(row))}`).join("") }));
      for (const [k, row] of points) chart.append(explained(el("circle", { cx: x(k), cy: y(value(row)), r: 5, class: "edge", fill: tint(name) }), `${row.label}\n${told(row)}`));
    }
    node.append(chart, keys(names));
  }

  // --- roofline: how far each call is from the machine's two limits
  function roofline() {
    const rows = result.rows.filter((row) => row.median && row.gflop_s && row.device === "cpu" && row.implementation !== "reference");
    const { copy_gb_s: copy, gemm_gflop_s: gemm } = result.machine;
    if (!rows.length || !copy || !gemm) return;
    const node = card("Roofline", `Operations per byte that must move, against operations per second. Left of the ridge memory limits (a copy reaches ${digits(copy)} GB/s), right of it arithmetic (a product reaches ${digits(gemm)} GFLOP/s). Above the roof: an algorithm that needs fewer operations than the definition.`, true);
    const W = 1140, H = 400, left = 62, right = 26, top = 14, bottom = 44;
    const intensity = (row) => row.operations / row.bytes, log = Math.log10;
    const low = log(Math.min(...rows.map(intensity), 0.1)) - 0.15, high = log(Math.max(...rows.map(intensity), (3 * gemm) / copy)) + 0.15;
    const bottomValue = log(Math.min(...rows.map((row) => row.gflop_s), gemm / 100)) - 0.1, topValue = log(Math.max(...rows.map((row) => row.gflop_s), gemm)) + 0.22;
    const x = (v) => left + ((log(v) - low) / (high - low)) * (W - left - right), y = (v) => H - bottom - ((log(v) - bottomValue) / (topValue - bottomValue)) * (H - top - bottom);
    const chart = svg(W, H, "roofline");
    for (let e = Math.ceil(low); e <= high; e++) chart.append(el("path", { class: "grid", d: `M${x(10 ** e)} ${top}V${H - bottom}` }), el("text", { x: x(10 ** e), y: H - bottom + 19, "text-anchor": "middle" }, digits(10 ** e)));
    for (let e = Math.ceil(bottomValue); e <= topValue; e++) chart.append(el("path", { class: "grid", d: `M${left} ${y(10 ** e)}H${W - right}` }), el("text", { x: left - 8, y: y(10 ** e) + 4, "text-anchor": "end" }, digits(10 ** e)));
    chart.append(el("text", { x: W - right, y: H - 6, "text-anchor": "end" }, "operations per byte →"), el("text", { x: left + 6, y: top + 4 }, "GFLOP/s ↑"));
    const start = Math.max(10 ** low, 10 ** bottomValue / copy), ridge = gemm / copy;
    chart.append(el("path", { class: "roof", d: `M${x(start)} ${y(start * copy)}L${x(ridge)} ${y(gemm)}H${W - right}` }));
    for (const row of rows) chart.append(explained(el("circle", { cx: x(intensity(row)), cy: y(row.gflop_s), r: row.chosen ? 7 : 5, class: "edge", fill: tint(row.implementation) }), `${row.direction}: ${row.op} ${row.label}\n${told(row)}`));
    chart.append(el("text", { x: x(ridge), y: y(gemm) - 8, class: "halo" }, `${digits(gemm)} GFLOP/s, a product`));  // last: above the points
    node.append(chart, keys([...new Set(rows.map((row) => row.implementation))]));
  }

  // --- stacks: a training step and where it goes
  function stack(chart, y, parts, most, W, left, right, label, total) {
    chart.append(el("text", { x: left - 10, y: y + 19, "text-anchor": "end", class: "name" }, label));
    let x = left;
    parts.forEach(([name, seconds, text], k) => {
      const width = (seconds / most) * (W - left - right);
      chart.append(explained(el("rect", { x, y, width: Math.max(width - 1.5, 0.5), height: 28, rx: 3, fill: fixed.get(name) ?? `var(--o${k % 2})` }), text));
      if (width > name.length * 7.3 + 12) chart.append(el("text", { x: x + 8, y: y + 18.5, class: fixed.has(name) ? "on" : "on o", "pointer-events": "none" }, name));
      x += width;
    });
    chart.append(el("text", { x: x + 9, y: y + 19, class: "value" }, time(total)));
  }
  function step(found) {
    if (found.status === "wrong") {
      card(`Training step, ${found.label}`, "", true).append(html("p", "absent", `✗ wrong, so no speed: ${found.why}`));
      return;
    }
    const names = Object.keys(found.contenders), best = Math.min(...names.filter((n) => n !== "minidl").map((n) => found.contenders[n].step.median));
    const ratio = Number.isFinite(best) && found.contenders.minidl ? ` PyTorch's best takes ${digits(best / found.contenders.minidl.step.median)} of minidl's time.` : "";
    const node = card(`Training step, ${found.label}`, `Forward, backward and the optimiser's update, medians; a bar is as long as the step's median, divided like its parts' medians.${ratio}${found.breakdown ? " Where it goes was looked at in steps of its own, so that its total differs." : ""}`, true);
    const W = 1140, left = 150, right = 96, split = found.breakdown, total = split ? split.seconds : 0;
    const most = Math.max(...names.map((n) => found.contenders[n].step.median), total), chart = svg(W, names.length * 40 + (split ? 100 : 0), found.label);
    names.forEach((name, k) => {
      const c = found.contenders[name];
      const whole = c.step.median / PARTS.reduce((sum, p) => sum + c[p].median, 0);  // medians of parts need not add up to the whole's
      stack(chart, k * 40 + 2, PARTS.map((p) => [p, c[p].median * whole, `${name}: ${p}\n${time(c[p].median)} (${time(c[p].p20)} – ${time(c[p].p80)})`]), most, W, left, right, name, c.step.median);
    });
    if (split) {
      const parts = (which) => Object.entries(split[which]).filter(([, s]) => s > 0).map(([name, s]) => [name, s, `${name}\n${time(s)}, ${Math.round((100 * s) / total)} % of the step`]);
      const y = names.length * 40 + 18;
      stack(chart, y, parts("by_op"), most, W, left, right, "minidl, by op", total);
      stack(chart, y + 40, parts("by_kind"), most, W, left, right, "by kind, about", total);
    }
    node.append(chart);
    if (split) {
      const share = (name) => (name in split.by_kind ? ` ${time(split.by_kind[name])}` : "");
      const ops = Object.entries(split.by_op).filter(([, s]) => s / total > 0.01).map(([name, s]) => html("li", "", name, [html("b", "", ` ${time(s)}`)]));
      node.append(keys([...PARTS, ...Object.keys(split.by_kind)], share, (name) => fixed.get(name) ?? "var(--o0)"), html("ul", "keys", null, ops));
    }
  }

  // --- the page
  for (const found of result.steps) step(found);
  const calls = new Map();
  for (const row of result.rows) {
    const key = JSON.stringify([row.case, row.label, row.direction, row.op, row.inputs]);
    calls.set(key, [...(calls.get(key) || []), row]);
  }
  for (const rows of calls.values()) {
    const [row] = rows, whole = row.op === "whole call";
    const heading = whole ? `${row.case}, ${row.direction}: the whole call` : `${row.case}, ${row.direction}${row.op === row.case ? "" : `: ${row.op}`}`;
    bars(rows, heading, whole ? `${row.label}. As users call it, through Tensors.` : row.label + (row.op === row.case || !row.inputs ? "" : `; inputs ${row.inputs}`) + ". Median; the whisker is p20–p80. Bold: what minidl takes.");
  }
  for (const found of result.sweeps) sweep(found);
  roofline();

  const root = document.documentElement;
  document.getElementById("theme").addEventListener("click", () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
  });
  root.dataset.ready = "";
})();
