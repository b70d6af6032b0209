"use strict";
// Everything is put on the page by textContent and attributes: a label is never read as markup.
const content = JSON.parse(document.getElementById("content").textContent);
const $ = (id) => document.getElementById(id);
const SVG = $("namespace").namespaceURI;
const KINDS = ["source", "predicted", "observed"];
const STEPS = 4000;
const MINUS = "\u2212";
const FEW_GENES = 15;
const VIRIDIS = ["#440154", "#472d7b", "#3b528b", "#2c728e", "#21918c", "#28ae80", "#5ec962", "#addc30", "#fde725"];
const state = { target: 0, plane: 0, colour: "kind", layers: { source: true, predicted: true, observed: true },
  arrows: true, way: 1, group: null, metric: null, scoreGroup: null, gene: "", allGenes: false, parameter: "", condition: "",
  sorted: {}, probe: null };

// ---------- small tools

function el(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}
function svg(name, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}
function fill(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) if (value !== null && value !== false) node.setAttribute(key, value);
  node.append(...children.filter((child) => child !== null).map((child) => (child instanceof Node ? child : String(child))));
  return node;
}
function number(value, digits = 3) {
  if (value === null || value === undefined) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  const text = size >= 1e5 || size < 1e-4 ? value.toExponential(digits - 1).replace("e+", "e") : String(Number(value.toPrecision(digits)));
  return text.replace(/-/g, MINUS);
}
const whole = (value) => value.toLocaleString("en-US");
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const target = () => content.targets[state.target];
const isDark = () => document.documentElement.dataset.theme === "dark";

/** Colours of the data; on dark paper dark ones are mixed with white, or they would vanish. */
function ink(colour) {
  const parts = [1, 3, 5].map((i) => parseInt(colour.slice(i, i + 2), 16));
  const light = 0.3 * parts[0] + 0.6 * parts[1] + 0.1 * parts[2];
  if (!isDark() || light > 125) return colour;
  const mix = (125 - light) / (255 - light);
  return "#" + parts.map((part) => Math.round(part + mix * (255 - part)).toString(16).padStart(2, "0")).join("");
}
function viridis(part) {
  const place = Math.min(Math.max(part, 0), 1) * (VIRIDIS.length - 1);
  const first = Math.min(Math.floor(place), VIRIDIS.length - 2);
  const mix = [1, 3, 5].map((i) => {
    const [a, b] = [VIRIDIS[first], VIRIDIS[first + 1]].map((colour) => parseInt(colour.slice(i, i + 2), 16));
    return Math.round(a + (b - a) * (place - first));
  });
  return "#" + mix.map((part) => part.toString(16).padStart(2, "0")).join("");
}
/** Straight; or, where scores differ by orders of magnitude, straight around 0 and logarithmic beyond. */
function bending(rows) {
  const sizes = rows.filter(([, , , value]) => value !== null).map(([, , , ...values]) => Math.max(...values.slice(0, 3).map(Math.abs)));
  const [least, most] = [Math.min(...sizes), Math.max(...sizes)];
  if (!(20 * least < most) || least === 0) return {};
  const unit = 10 ** Math.round(Math.log10(least));
  const lowest = Math.min(...rows.map(([, , , value, low]) => low ?? value ?? 0));
  const marks = lowest < -unit / 2 ? [-unit, 0] : [0];
  for (let mark = unit; mark <= most; mark *= 10) marks.push(mark);
  return { bend: (value) => Math.sign(value) * Math.log1p(Math.abs(value) / unit), marks };
}
/** Round numbers that cover a range. */
function ticks(low, high, most) {
  const rough = (high - low || 1) / most;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((each) => each * power).find((each) => each >= rough);
  const found = [];
  for (let tick = Math.ceil(low / step); tick * step <= high + step * 1e-9; tick++) found.push(tick * step);
  return found;
}
function options(select, entries, chosen) {
  select.replaceChildren(...entries.map(([value, label]) => el("option", { value, selected: value === chosen ? "" : null }, label)));
}

// ---------- tooltip

function showTip(text, x, y) {
  const tip = $("tip");
  tip.textContent = text;
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(4, Math.min(x + 14, innerWidth - box.width - 6))}px`;
  tip.style.top = `${y + 16 + box.height > innerHeight ? Math.max(4, y - box.height - 12) : y + 16}px`;
}
function hideTip() {
  $("tip").hidden = true;
}
/** A mark that says what it is when pointed at or focused. */
function speaking(node, text) {
  fill(node, { tabindex: 0, role: "img", "aria-label": text.replace(/\n/g, ", ") }, []);
  node.addEventListener("pointermove", (event) => showTip(text, event.clientX, event.clientY));
  node.addEventListener("pointerleave", () => { if (document.activeElement !== node) hideTip(); });
  node.addEventListener("focus", () => {
    const box = node.getBoundingClientRect();
    showTip(text, box.left + box.width / 2, box.bottom - 8);
  });
  node.addEventListener("blur", hideTip);
  return node;
}

// ---------- head

/** Below the heading of a section: which cells it shows, and how many. */
function which(of, text) {
  document.querySelectorAll(`.which[data-of="${of}"]`).forEach((line) => { line.textContent = text ?? ""; line.hidden = !text; });
}
function drawHead() {
  const { verdict, facts, status } = target();
  which("which", target().which);
  which("validation", target().validation);
  which("scores", null);
  $("verdict").className = verdict.level;
  $("verdict-headline").textContent = (content.index ? `${target().label}: ` : "") + verdict.headline;
  $("verdict-text").replaceChildren(...verdict.sentences.map((sentence) => el("p", {}, sentence)));
  $("verdict-details").replaceChildren(...verdict.details.map((sentence) => el("p", {}, sentence)));
  $("status").hidden = !status;
  $("status").textContent = `What the fit itself says: ${status}`;
  $("facts").replaceChildren(...facts.map(([name, value, about]) =>
    el("div", {}, el("dt", {}, name), el("dd", { class: "value" }, value), el("dd", { class: "about" }, about))));
}

// ---------- the map of cells

const canvas = $("map");
let drawn = [];  // what can be pointed at: [x, y, kind, index] in pixels

function scales() {
  const { cells } = target();
  const numbers = { displacement: "displacement", std: "standard deviation of the networks", support: "out-of-support score" };
  const entries = [["kind", "kind of cell"]];
  if (cells.group) entries.push(["group", cells.group.name]);
  for (const [name, label] of Object.entries(numbers)) if (cells[name]) entries.push([name, label]);
  return entries;
}
/** Where predicted cells are on their straight way, and all others where they were measured. */
function places(kind) {
  const plane = target().cells.planes[state.plane];
  if (kind !== "predicted") return plane[kind];
  // A negative place is none: the cell is left out.
  return plane.predicted.map((end, i) => (end < 0 ? end : plane.source[i] + state.way * (end - plane.source[i])));
}
function range(values) {
  const sorted = values.filter((value) => value !== null).sort((a, b) => a - b);
  return [sorted[0] ?? 0, sorted[Math.floor(0.99 * (sorted.length - 1))] ?? 1];
}
function colours(kind) {
  const { cells } = target();
  if (state.colour === "kind") {
    const colour = ink(content.colors[kind]);
    return () => colour;
  }
  if (state.colour === "group") {
    const codes = cells.group[kind === "observed" ? "observed" : "source"];
    return (i) => (codes[i] < 0 || (state.group !== null && state.group !== codes[i]) ? null : ink(cells.group.colors[codes[i]]));
  }
  if (kind === "observed") return () => null;
  const values = cells[state.colour];
  const [low, high] = range(values);
  return (i) => (values[i] === null ? null : ink(viridis((values[i] - low) / (high - low || 1))));
}
/** The same order at every drawing, in which no kind hides another. */
function shuffled(points) {
  let seed = 1;
  for (let i = points.length - 1; i > 0; i--) {
    seed = (seed * 1103515245 + 12345) % 2147483648;
    const k = Math.floor((seed / 2147483648) * (i + 1));
    [points[i], points[k]] = [points[k], points[i]];
  }
  return points;
}
function drawCells() {
  const { cells, missing } = target();
  $("cells").querySelectorAll(".controls, figure").forEach((part) => { part.hidden = !cells; });
  let note = $("cells-missing");
  if (!note) $("cells").append((note = el("p", { id: "cells-missing", class: "note" })));
  note.hidden = Boolean(cells);
  note.textContent = missing ?? "";
  if (!cells) return;
  if (!cells.planes.length) {
    $("cells").querySelectorAll(".controls, figure").forEach((part) => { part.hidden = true; });
    note.hidden = false;
    note.textContent = "The map has one dimension, which has no plane to draw.";
    return;
  }
  drawMap();
  drawLegend();
  const plane = cells.planes[state.plane];
  const sampled = cells.shown.some((n, i) => n < cells.n[i])
    ? `Drawn: ${whole(cells.shown[0])} of ${whole(cells.n[0])} source and ${whole(cells.shown[1])} of ${whole(cells.n[1])} observed cells, at random; all numbers are of all cells.`
    : `All ${whole(cells.n[0])} source and ${whole(cells.n[1])} observed cells are drawn.`;
  $("cells-note").textContent = `${plane.note} ${sampled}`;
}
function drawMap() {
  const width = canvas.parentElement.clientWidth - 2;
  const height = Math.round(Math.min(560, Math.max(300, width * 0.58)));
  const ratio = window.devicePixelRatio || 1;
  canvas.width = width * ratio;
  canvas.height = height * ratio;
  canvas.style.height = `${height}px`;
  const pen = canvas.getContext("2d");
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, width, height);
  const margin = 24;
  const across = (x) => margin + (x / STEPS) * (width - 2 * margin);
  const up = (y) => height - margin - (y / STEPS) * (height - 2 * margin);
  drawn = [];
  for (const kind of KINDS) {
    if (!state.layers[kind]) continue;
    const points = places(kind);
    for (let i = 0; i < points.length / 2; i++) if (points[2 * i] >= 0) drawn.push([across(points[2 * i]), up(points[2 * i + 1]), kind, i]);
  }
  shuffled(drawn);
  const size = Math.max(1.3, Math.min(3, Math.sqrt(14000 / Math.max(drawn.length, 1)))) * (width < 500 ? 0.8 : 1);
  const byKind = Object.fromEntries(KINDS.map((kind) => [kind, colours(kind)]));
  // Cells without a colour lie beneath.
  for (const lit of [false, true]) {
    for (const [x, y, kind, i] of drawn) {
      const colour = byKind[kind](i);
      if ((colour !== null) === lit) mark(pen, kind, x, y, size, colour ?? css("--dim"), lit ? 0.75 : 0.6);
    }
  }
  const plane = target().cells.planes[state.plane];
  if (state.arrows) for (let i = 0; i < plane.arrows.length; i += 4) {
    arrow(pen, across(plane.arrows[i]), up(plane.arrows[i + 1]), across(plane.arrows[i + 2]), up(plane.arrows[i + 3]));
  }
  axes(pen, plane.axes, width, height);
  if (state.probe && document.activeElement === canvas) cross(pen);
  const said = KINDS.filter((kind) => state.layers[kind]).join(", ") || "no";
  canvas.setAttribute("aria-label", `Map of ${said} cells in ${plane.axes.join(" and ")}, coloured by ${scales().find(([name]) => name === state.colour)[1]}` +
    (state.arrows ? ", with arrows from where cells were to where they are predicted." : "."));
}
/** Kinds differ in shape too: a disc, a diamond, a square. */
function mark(pen, kind, x, y, size, colour, alpha) {
  pen.globalAlpha = alpha;
  pen.fillStyle = colour;
  pen.beginPath();
  if (kind === "source") pen.arc(x, y, size, 0, 2 * Math.PI);
  else if (kind === "observed") pen.rect(x - size * 0.9, y - size * 0.9, 1.8 * size, 1.8 * size);
  else {
    const reach = 1.35 * size;
    pen.moveTo(x, y - reach); pen.lineTo(x + reach, y); pen.lineTo(x, y + reach); pen.lineTo(x - reach, y); pen.closePath();
  }
  pen.fill();
  pen.globalAlpha = 1;
}
function arrow(pen, x0, y0, x1, y1) {
  const angle = Math.atan2(y1 - y0, x1 - x0);
  const head = Math.min(8, 0.5 * Math.hypot(x1 - x0, y1 - y0) + 2);
  const wing = (turn) => [x1 - head * Math.cos(angle + turn), y1 - head * Math.sin(angle + turn)];
  for (const [colour, width] of [[css("--paper"), 3.6], [css("--mark"), canvas.clientWidth < 500 ? 1.1 : 1.5]]) {
    pen.strokeStyle = pen.fillStyle = colour;
    pen.lineWidth = width;
    pen.lineJoin = pen.lineCap = "round";
    pen.beginPath();
    pen.moveTo(x0, y0);
    pen.lineTo(x1 - 0.6 * head * Math.cos(angle), y1 - 0.6 * head * Math.sin(angle));
    pen.stroke();
    pen.beginPath();
    pen.moveTo(x1, y1); pen.lineTo(...wing(0.42)); pen.lineTo(...wing(-0.42)); pen.closePath();
    pen.lineWidth = width / 3;
    pen.stroke();
    pen.fill();
  }
}
function axes(pen, names, width, height) {
  pen.fillStyle = css("--soft");
  pen.font = "12px system-ui, sans-serif";
  pen.textAlign = "left";
  pen.fillText(`${names[0]} →`, 10, height - 8);
  pen.save();
  pen.translate(15, height - 24);
  pen.rotate(-Math.PI / 2);
  pen.fillText(`${names[1]} →`, 0, 0);
  pen.restore();
}
function cross(pen) {
  const { x, y } = state.probe;
  pen.strokeStyle = css("--mark");
  pen.lineWidth = 1.5;
  pen.beginPath();
  pen.moveTo(x - 9, y); pen.lineTo(x + 9, y); pen.moveTo(x, y - 9); pen.lineTo(x, y + 9);
  pen.stroke();
}
function symbol(kind, colour) {
  const shape = kind === "source" ? svg("circle", { cx: 6, cy: 6, r: 5 }) : kind === "predicted" ? svg("path", { d: "M6 0L12 6L6 12L0 6Z" }) : svg("rect", { x: 1, y: 1, width: 10, height: 10 });
  shape.setAttribute("fill", colour);
  return svg("svg", { width: 12, height: 12, "aria-hidden": "true" }, shape);
}
function drawLegend() {
  const { cells, label } = target();
  const names = { source: `${content.source} (source)`, predicted: `${content.source} → ${label} (predicted)`, observed: `${label} (observed)` };
  const shapes = KINDS.map((kind) => el("li", {}, symbol(kind, state.colour === "kind" ? ink(content.colors[kind]) : css("--soft")), names[kind]));
  let entries = [];
  if (state.colour === "group") {
    const group = cells.group;
    const used = new Set([...group.source, ...group.observed]);
    entries = group.labels.map((name, code) => [name, code]).filter(([, code]) => used.has(code)).map(([name, code]) => {
      const swatch = svg("svg", { width: 12, height: 12, "aria-hidden": "true" }, svg("rect", { width: 12, height: 12, rx: 2, fill: ink(group.colors[code]) }));
      const button = el("button", { type: "button", "aria-pressed": String(state.group === code) }, swatch, name);
      button.addEventListener("click", () => {
        state.group = state.group === code ? null : code;
        drawCells();
        $("legend").querySelectorAll("button").forEach((each) => { if (each.textContent === name) each.focus(); });
      });
      return el("li", {}, button);
    });
  } else if (state.colour !== "kind") {
    const [low, high] = range(cells[state.colour]);
    const bar = el("i", { "aria-hidden": "true" });
    bar.style.background = `linear-gradient(90deg, ${Array.from({ length: 17 }, (_, i) => ink(viridis(i / 16))).join(",")})`;
    const unit = state.colour === "support" ? ", above 1: far from the training cells" : ` (${content.unit})`;
    entries = [el("li", { class: "scale" }, number(low), bar, number(high), el("span", {}, scales().find(([name]) => name === state.colour)[1] + unit))];
  }
  const next = entries.length ? [el("li", { class: "next", "aria-hidden": "true" })] : [];
  $("legend").replaceChildren(...shapes, ...next, ...entries);
}
function say(kind, i) {
  const { cells, label } = target();
  const lines = [{ source: `source: ${content.source}`, predicted: `predicted: ${content.source} → ${label}`, observed: `observed: ${label}` }[kind]];
  if (cells.group) {
    const code = cells.group[kind === "observed" ? "observed" : "source"][i];
    lines.push(`${cells.group.name}: ${code < 0 ? "no label" : cells.group.labels[code]}`);
  }
  if (kind !== "observed") {
    lines.push(`displacement: ${number(cells.displacement[i])} (${content.unit})`);
    if (cells.std) lines.push(`standard deviation: ${number(cells.std[i])}`);
    if (cells.support) lines.push(`out of support: ${number(cells.support[i])}${cells.support[i] > 1 ? " (above 1: far from the training cells)" : ""}`);
  }
  return lines.join("\n");
}
function nearest(x, y, reach) {
  let best = null;
  let least = reach ** 2;
  for (const point of drawn) {
    const squared = (point[0] - x) ** 2 + (point[1] - y) ** 2;
    if (squared < least) [best, least] = [point, squared];
  }
  return best;
}
function point(event) {
  const box = canvas.getBoundingClientRect();
  const found = nearest(event.clientX - box.left - 1, event.clientY - box.top - 1, 12);
  if (found) showTip(say(found[2], found[3]), event.clientX, event.clientY);
  else hideTip();
}
function moveCross(event) {
  const step = { ArrowLeft: [-12, 0], ArrowRight: [12, 0], ArrowUp: [0, -12], ArrowDown: [0, 12] }[event.key];
  if (event.key === "Escape") hideTip();
  if (!step) return;
  event.preventDefault();
  const box = canvas.getBoundingClientRect();
  if (!state.probe) {
    const [x, y] = nearest(box.width / 2, box.height / 2, Infinity) ?? [box.width / 2, box.height / 2];
    state.probe = { x, y };
  }
  const from = state.probe;
  state.probe = { x: Math.min(Math.max(from.x + step[0], 0), box.width), y: Math.min(Math.max(from.y + step[1], 0), box.height) };
  drawMap();
  const found = nearest(state.probe.x, state.probe.y, 24);
  $("map-said").textContent = found ? say(found[2], found[3]) : "no cell here";
  if (found) showTip(say(found[2], found[3]), box.left + found[0], box.top + found[1]);
  else hideTip();
}

// ---------- charts

/** Room for rows with names at their left, or above them where the page is narrow. */
function frame(host, names, row, top = 8) {
  const width = Math.max(host.clientWidth, 280);
  const isNarrow = width < 560;
  const height = isNarrow ? row + 14 : row;
  const bottom = top + height * names.length;
  const room = { width, isNarrow, right: width - 16, top, bottom, svg: svg("svg", { width, height: bottom + 44, viewBox: `0 0 ${width} ${bottom + 44}` }) };
  room.left = isNarrow ? 14 : Math.min(18 + Math.max(0, ...names.map(textWidth)), 0.4 * width);
  room.middle = (i) => top + height * i + (isNarrow ? 18 : 0) + (height - (isNarrow ? 18 : 0)) / 2;
  // Beneath the name of the row, where this stands above it.
  room.lane = (i) => ({ y: top + height * i + (isNarrow ? 20 : 0), height: height - (isNarrow ? 20 : 0) });
  room.row = (i) => ({ x: 0, y: top + height * i, width, height, fill: "transparent" });
  room.name = (i) => svg("text", isNarrow ? { x: room.left, y: top + height * i + 15 } : { x: room.left - 10, y: room.middle(i) + 4, "text-anchor": "end" }, shortened(names[i], isNarrow ? width - 28 : room.left - 12));
  host.replaceChildren(room.svg);
  return room;
}
const measure = document.createElement("canvas").getContext("2d");
/** As much of a name as there is room for; the tooltip has all of it. */
function shortened(name, width) {
  if (textWidth(name) <= width) return name;
  let length = name.length - 1;
  while (length > 1 && textWidth(name.slice(0, length) + "…") > width) length--;
  return name.slice(0, length) + "…";
}
function textWidth(text) {
  measure.font = `13px ${getComputedStyle(document.body).fontFamily}`;
  return Math.ceil(measure.measureText(text).width);
}
function axis(room, low, high, label, { bend = (value) => value, marks = null } = {}) {
  const { top, bottom } = room;
  const x = (value) => room.left + ((bend(value) - low) / (high - low || 1)) * (room.right - room.left);
  for (const tick of marks ?? ticks(low, high, room.isNarrow ? 4 : 6)) {
    room.svg.append(svg("line", { x1: x(tick), x2: x(tick), y1: top, y2: bottom, stroke: css("--grid") }),
      svg("text", { x: x(tick), y: bottom + 17, "text-anchor": "middle", class: "soft" }, number(tick)));
  }
  room.svg.append(svg("text", { x: (room.left + room.right) / 2, y: bottom + 36, "text-anchor": "middle", class: "soft" }, label));
  return x;
}
function drawGroups() {
  const { groups, median } = target();
  $("groups").hidden = !groups || !groups.length;
  if ($("groups").hidden) return;
  const room = frame($("groups-chart"), groups.map((group) => `${group.label} (n = ${whole(group.n[0])})`), 30);
  const x = axis(room, 0, Math.max(...groups.map((group) => group.quantiles[4])), `displacement (${content.unit})`);
  groups.forEach((group, i) => {
    const y = room.middle(i);
    const [low, first, middle, third, high] = group.quantiles;
    const box = svg("g", {},
      svg("rect", room.row(i)),
      room.name(i),
      svg("line", { x1: x(low), x2: x(high), y1: y, y2: y, stroke: css("--mark"), "stroke-width": 1.2 }),
      svg("rect", { x: x(first), y: y - 8, width: Math.max(x(third) - x(first), 1), height: 16, fill: ink(group.color), "fill-opacity": group.responds ? 1 : 0.2, stroke: css("--mark"), "stroke-width": 0.8 }),
      svg("line", { x1: x(middle), x2: x(middle), y1: y - 9, y2: y + 9, stroke: css("--mark"), "stroke-width": 2.4 }));
    const far = group.far === null ? "" : `\nout of support: ${number(100 * group.far)}\u00a0% of cells`;
    room.svg.append(speaking(box, `${group.label}: ${whole(group.n[0])} source cells\nmedian displacement: ${number(middle)}\nmiddle half: ${number(first)} to ${number(third)}\n90 %: ${number(low)} to ${number(high)}${group.responds ? "" : "\nno response is seen"}${far}`));
  });
  $("groups-note").textContent = `Source cells by ${content.group}. Boxes span the middle half of the cells, lines 90 % of them; thick: the median (of all cells ${number(median)}). A map moves cells a little also where nothing responds: groups are pale where a permutation test sees no difference between ${content.source} and observed cells, or where one of them has fewer than ten cells.`;
  table("groups-table", [[content.group, "text"], ["source cells", "whole"], ["observed cells", "whole"], ["median", "number"], ["5 %", "number"], ["95 %", "number"], ["response", "text"], ["out of support, %", "number"]],
    groups.map((group) => [group.label, ...group.n, group.quantiles[2], group.quantiles[0], group.quantiles[4], group.responds ? "seen" : "not seen", group.far === null ? null : 100 * group.far]));
}
const WHICH = {
  "all": "All evaluated cells as they are, so that a map which carries cells into other groups to match the proportions looks better than it is",
  "all, same composition": "Evaluated cells of groups of ten or more, the observed ones weighted so that each group has the share that it has among the source cells",
};
function drawScores() {
  const { scores } = target();
  for (const id of ["scores-controls", "scores-chart"]) $(id).hidden = !scores;
  $("scores").querySelector("details").hidden = !scores;
  if (!scores) {
    $("scores-note").textContent = `No evaluation is stored for this condition. Run ${content.evaluate}.`;
    return;
  }
  const all = scores.rows.filter(([group, , metric]) => group === state.scoreGroup && metric === state.metric);
  const [name, good] = content.metrics[state.metric];
  const replicate = all.find(([, method]) => method === content.replicate);
  const ceiling = all.find(([, method]) => method === content.ceiling);
  const rows = all.filter((each) => each !== replicate && each !== ceiling);
  const ends = all.flatMap(([, , , value, low, high]) => [value, low, high]).filter((value) => value !== null);
  const scale = bending(all);
  const bend = scale.bend ?? ((value) => value);
  const [least, most] = [Math.min(...ends, ...(good.startsWith("←") ? [0] : [])), Math.max(...ends)].map(bend);
  const margin = 0.06 * (most - least || 1);
  const printed = rows.map(([, method]) => content.methods[method] ?? [method.replace(/_/g, " "), "#009E73"]);
  const room = frame($("scores-chart"), printed.map(([label]) => label), 36, 22);
  const { top, bottom } = room;
  const x = axis(room, least - margin, most + margin, `${name}${scale.marks ? " (log scale)" : ""}${good ? `: ${good}` : ""}`, scale);
  if (replicate && replicate[3] !== null) {
    const [low, high] = [replicate[4] ?? replicate[3], replicate[5] ?? replicate[3]];
    const band = svg("g", {}, ...rows.flatMap((_, i) => {
      const { y, height } = room.lane(i);
      return [svg("rect", { x: x(low), y, width: Math.max(x(high) - x(low), 3), height, fill: css("--floor"), opacity: 0.7 }),
        svg("line", { x1: x(replicate[3]), x2: x(replicate[3]), y1: y, y2: y + height, stroke: css("--floor-line"), "stroke-width": 1.4 })];
    }));
    room.svg.append(speaking(band, `replicate: ${scored(replicate)}\none half of the observed cells against the other`),
      svg("text", { x: Math.min(Math.max(x(replicate[3]), room.left + 26), room.right - 26), y: 14, "text-anchor": "middle", class: "soft" }, "replicate"));
  }
  if (ceiling && ceiling[3] !== null) {
    const line = svg("line", { x1: x(ceiling[3]), x2: x(ceiling[3]), y1: top, y2: bottom, stroke: css("--floor-line"), "stroke-width": 1.4, "stroke-dasharray": "4 3" });
    room.svg.append(speaking(line, `ceiling: ${scored(ceiling)}\nwhat the true means would score`));
  }
  rows.forEach((each, i) => {
    const [, method, , value, low, high] = each;
    const y = room.middle(i) + 4;
    const [label, colour] = printed[i];
    if (value === null) {
      room.svg.append(room.name(i), svg("text", { x: room.left + 6, y: y + 4, class: "soft" }, "not defined"));
      return;
    }
    const dot = svg("g", {}, svg("rect", room.row(i)), room.name(i),
      low === null ? null : svg("line", { x1: x(low), x2: x(high), y1: y, y2: y, stroke: ink(colour), "stroke-width": 2.4 }),
      svg("circle", { cx: x(value), cy: y, r: 5.5, fill: ink(colour), stroke: css("--paper"), "stroke-width": 1.5 }),
      svg("text", { x: Math.min(Math.max(x(value), room.left + 16), room.right - 10), y: y - 9, "text-anchor": "middle", class: "soft" }, number(value)));
    room.svg.append(speaking(dot, `${label}\n${name}: ${scored(each)}${versusGaussian(each)}`));
  });
  const [nSource, nTarget] = all[0].slice(6);
  // Small groups have no scores, so they are missing where groups have their shares.
  const everyone = scores.rows.find(([group]) => group === "all") ?? all[0];
  const of = (n, i) => (state.scoreGroup.startsWith("all, ") && n < everyone[i] ? `${whole(n)} of ${whole(everyone[i])}` : whole(n));
  which("scores", `${target().evaluated}: ${of(nSource, 6)} ${content.source}, ${of(nTarget, 7)} ${target().label}`);
  $("scores-note").textContent = `${WHICH[state.scoreGroup] ?? `${content.group ?? "group"}: ${state.scoreGroup}`}. Lines: 95 % bootstrap intervals over cells. Grey: replicate, one half of the observed cells against the other, and where 95 % of such halves lie; no prediction can be expected to do better.${ceiling ? " Dashed: ceiling, what the true means would score." : ""}${scale.marks ? " The axis is logarithmic beyond its first mark." : ""}`;
  const order = Object.keys(content.metrics);
  const ofGroup = scores.rows.filter(([group]) => group === state.scoreGroup).sort((a, b) => order.indexOf(a[2]) - order.indexOf(b[2]));
  table("scores-table", [["score", "text"], ["method", "text"], ["value", "number"], ["low", "number"], ["high", "number"]],
    ofGroup.map(([, method, metric, value, low, high]) => [content.metrics[metric][0], (content.methods[method] ?? [method.replace(/_/g, " ")])[0], value, low, high]));
}
function scored([, , , value, low, high]) {
  return low === null ? number(value) : `${number(value)} (95 % interval ${number(low)} to ${number(high)})`;
}
function versusGaussian([group, method, metric, , , , , , ...difference]) {
  if (difference[0] === null || method.endsWith("gaussian")) return "";
  return `\nminus the Gaussian map's: ${scored([group, method, metric, ...difference])}`;
}
function drawTraining() {
  const { history } = target();
  $("training-chart").hidden = !history;
  if (!history) {
    $("training-note").textContent = "Nothing was trained: the Gaussian map is known in closed form.";
    return;
  }
  const { step, gap, error } = history;
  const room = { ...frame($("training-chart"), [""], 198), left: 60 };
  const { bottom } = room;
  // The first checks can be far above all that follows: the axis shows the later ones.
  const later = gap.length > 4 ? gap.slice(1) : gap;
  const errors = gap.length > 4 ? error.slice(1) : error;
  const low = Math.min(0, ...later.map((value, i) => value - errors[i]));
  const high = Math.max(0, ...later.map((value, i) => value + errors[i]));
  const pad = 0.06 * (high - low || 1);
  const y = (value) => bottom - ((Math.min(value, high + pad) - low + pad) / (high - low + 2 * pad)) * (bottom - 10);
  const x = axis(room, 0, step[step.length - 1], "training step");
  for (const tick of ticks(low, high, 4)) {
    room.svg.append(svg("line", { x1: room.left, x2: room.right, y1: y(tick), y2: y(tick), stroke: css("--grid") }),
      svg("text", { x: room.left - 8, y: y(tick) + 4, "text-anchor": "end", class: "soft" }, number(tick)));
  }
  const above = step.map((each, i) => `${x(each)},${y(gap[i] + error[i])}`);
  const below = step.map((each, i) => `${x(each)},${y(gap[i] - error[i])}`).reverse();
  room.svg.append(svg("polygon", { points: [...above, ...below].join(" "), fill: ink(content.colors.predicted), opacity: 0.22 }),
    svg("line", { x1: room.left, x2: room.right, y1: y(0), y2: y(0), stroke: css("--mark"), "stroke-dasharray": "5 4" }),
    svg("polyline", { points: step.map((each, i) => `${x(each)},${y(gap[i])}`).join(" "), fill: "none", stroke: ink(content.colors.predicted), "stroke-width": 2 }));
  step.forEach((each, i) => room.svg.append(speaking(svg("circle", { cx: x(each), cy: y(gap[i]), r: 4, fill: ink(content.colors.predicted) }),
    `step ${whole(each)}\nvalidation loss relative to the Gaussian map: ${number(gap[i])} ± ${number(error[i])}`)));
  $("training-note").textContent = "Validation loss of the networks relative to the Gaussian map, with its standard error: below the dashed line, the Gaussian map, they have found structure that it lacks. A start far above is drawn at the top.";
}

// ---------- tables

const HEADS = {};
function table(id, columns, rows, shown = rows) {
  HEADS[id] = { columns, rows, shown };
  const sorted = state.sorted[id];
  const ordered = [...shown];
  if (sorted) {
    const sign = sorted.down ? -1 : 1;
    ordered.sort((a, b) => {
      const [p, q] = [a[sorted.column], b[sorted.column]];
      if (p === null || q === null) return (p === null) - (q === null);  // no number: last, whatever the order
      return sign * (typeof p === "string" ? p.localeCompare(q, "en", { numeric: true }) : p - q);
    });
  }
  const head = columns.map(([name, kind], i) => {
    const button = el("button", { type: "button" }, name);
    button.addEventListener("click", () => {
      const before = state.sorted[id];
      const first = kind !== "text";  // numbers from the largest, words from a to z
      state.sorted[id] = { column: i, down: before && before.column === i ? !before.down : first };
      table(id, HEADS[id].columns, HEADS[id].rows, HEADS[id].shown);
      $(id).querySelectorAll("th button")[i].focus();
    });
    const order = sorted && sorted.column === i ? (sorted.down ? "descending" : "ascending") : null;
    return el("th", { scope: "col", class: kind === "text" || kind === "wide" ? null : "number", "aria-sort": order }, button);
  });
  const body = ordered.map((row) => el("tr", {}, ...row.map((value, i) => {
    const kind = columns[i][1];
    const text = kind === "number" ? number(value) : kind === "whole" ? whole(value) : value;
    return el("td", { class: kind === "number" || kind === "whole" ? "number" : kind === "wide" ? "wide" : null }, text);
  })));
  $(id).replaceChildren(el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...body));
}
function drawGenes() {
  const { genes } = target();
  $("genes").hidden = genes === undefined;
  if (genes === undefined) return;
  const isTable = typeof genes !== "string";
  $("genes-controls").hidden = !isTable;
  $("genes-both").hidden = !isTable;
  if (!isTable) {
    $("genes-note").textContent = genes;
    return;
  }
  const found = genes.rows.filter(([name]) => name.toLowerCase().includes(state.gene.toLowerCase()));
  const shown = state.allGenes || state.gene ? found : found.slice(0, FEW_GENES);
  $("gene-all").textContent = state.allGenes ? `Show ${FEW_GENES}` : `Show all ${genes.rows.length}`;
  $("gene-all").setAttribute("aria-pressed", String(state.allGenes));
  $("genes-note").textContent = `The ${genes.rows.length} of ${whole(genes.n)} ${genes.kind} with the largest Welch t between observed and source cells, among genes that a tenth of the cells express. ${genes.within ? `They are compared within each ${genes.within} with two cells or more of both conditions, in the proportions of the source cells` : "All cells are compared together"}. Change: difference of means, in the units of the expression. Over all genes, predicted and observed changes correlate with r = ${number(genes.r)}.` + (shown.length ? "" : " None of them has that name.");
  drawChanges(genes.rows);
  table("genes-table", [["gene", "text"], ["source mean", "number"], ["observed change", "number"], ["predicted change", "number"], ["Welch t", "number"]], genes.rows, shown);
}
/** Predicted against observed change. Points are pointed at only: the table has the same numbers for the keyboard. */
function drawChanges(rows) {
  const host = $("genes-chart");
  const size = Math.min(Math.max(host.clientWidth, 240), 420);
  const ends = rows.flatMap(([, , observed, predicted]) => [observed, predicted]);
  const [low, high] = [Math.min(0, ...ends), Math.max(0, ...ends)];
  const pad = 0.05 * (high - low || 1);
  const place = (value) => (value - low + pad) / (high - low + 2 * pad);
  const [left, bottom, right] = [48, size - 44, size - 10];
  const x = (value) => left + place(value) * (right - left);
  const y = (value) => bottom - place(value) * (bottom - 10);
  const chart = svg("svg", { width: size, height: size, viewBox: `0 0 ${size} ${size}`, role: "img", "aria-label": `Predicted against observed change of ${rows.length} genes; the numbers are in the table.` });
  for (const tick of ticks(low, high, 4)) {
    chart.append(svg("line", { x1: x(tick), x2: x(tick), y1: 10, y2: bottom, stroke: css("--grid") }),
      svg("line", { x1: left, x2: right, y1: y(tick), y2: y(tick), stroke: css("--grid") }),
      svg("text", { x: x(tick), y: bottom + 17, "text-anchor": "middle", class: "soft" }, number(tick)),
      svg("text", { x: left - 8, y: y(tick) + 4, "text-anchor": "end", class: "soft" }, number(tick)));
  }
  chart.append(svg("line", { x1: x(low - pad), y1: y(low - pad), x2: x(high + pad), y2: y(high + pad), stroke: css("--mark"), "stroke-dasharray": "5 4" }),
    svg("text", { x: (left + right) / 2, y: bottom + 36, "text-anchor": "middle", class: "soft" }, "observed change"),
    svg("text", { transform: `translate(12 ${(bottom + 10) / 2}) rotate(-90)`, "text-anchor": "middle", class: "soft" }, "predicted change"));
  const written = [];  // a name over another one could be read neither way
  for (const [name, , observed, predicted] of rows) {
    const isFound = state.gene && name.toLowerCase().includes(state.gene.toLowerCase());
    const dot = svg("circle", { cx: x(observed), cy: y(predicted), r: isFound ? 6 : 4, fill: isFound ? css("--accent") : ink(content.colors.predicted), "fill-opacity": isFound ? 1 : 0.75, stroke: css("--paper") });
    dot.addEventListener("pointermove", (event) => showTip(`${name}\nobserved change: ${number(observed)}\npredicted change: ${number(predicted)}`, event.clientX, event.clientY));
    dot.addEventListener("pointerleave", hideTip);
    chart.append(dot);
    const isFree = written.every(([a, b]) => Math.abs(a - x(observed)) > 60 || Math.abs(b - y(predicted)) > 14);
    if (!isFound || !isFree) continue;
    written.push([x(observed), y(predicted)]);
    chart.append(svg("text", x(observed) < right - 90 ? { x: x(observed) + 9, y: y(predicted) + 12 } : { x: x(observed) - 9, y: y(predicted) - 5, "text-anchor": "end" }, name));
  }
  host.replaceChildren(chart);
}
function drawCertificate() {
  const words = { true: "✓ holds", false: "✗ fails" };
  table("certificate-table", [["measure", "text"], ["value", "number"], ["check", "text"], ["meaning", "wide"]],
    target().certificate.map(([name, value, meaning, sound]) => [name, value, words[sound] ?? "–", meaning]));
}
/** The summary of all conditions; the one that is shown below is marked. */
function drawIndex() {
  const { index } = content;
  $("index").hidden = !index;
  if (!index) return;
  const word = state.condition.toLowerCase();
  $("index-title").textContent = index.headline;
  const shown = index.rows.filter((row) => [row[0], row[1]].some((text) => text.toLowerCase().includes(word)));
  table("index-table", index.columns, index.rows, shown);
  markIndex();
}
function markIndex() {
  for (const row of $("index-table").tBodies[0].rows) row.className = row.cells[0].textContent === target().label ? "chosen" : "";
}
function drawParameters() {
  const shown = content.parameters.filter(([name]) => name.toLowerCase().includes(state.parameter.toLowerCase()));
  table("parameters-table", [["parameter", "text"], ["value", "text"]], content.parameters, shown);
  table("versions-table", [["package, at the fit", "text"], ["version", "text"]], content.versions);
}

// ---------- all together

function chooseTarget() {
  const { cells, scores } = target();
  state.plane = 0;
  state.group = null;
  if (cells) {
    if (!scales().some(([name]) => name === state.colour)) state.colour = "kind";
    options($("plane"), cells.planes.map((plane, i) => [String(i), plane.axes.join(", ")]), "0");
    options($("colour"), scales(), state.colour);
  }
  if (scores) {
    const metrics = [...new Set(scores.rows.map(([, , metric]) => metric))];
    if (!metrics.includes(state.metric)) state.metric = metrics.includes("energy_distance") ? "energy_distance" : metrics[0];
    if (!scores.groups.includes(state.scoreGroup)) state.scoreGroup = scores.headline;
    options($("metric"), metrics.map((metric) => [metric, content.metrics[metric][0]]), state.metric);
    options($("score-group"), scores.groups.map((group) => [group, group === "all" ? "all as they are" : group]), state.scoreGroup);
  }
  draw();
}
function draw() {
  hideTip();
  drawHead();
  for (const part of [drawIndex, drawCells, drawGroups, drawScores, drawGenes, drawTraining, drawCertificate, drawParameters]) part();
}
function theme(name) {
  document.documentElement.dataset.theme = name;
  $("theme").textContent = name === "dark" ? "Light" : "Dark";
  $("theme").setAttribute("aria-label", `Switch to ${name === "dark" ? "light" : "dark"} colours`);
  $("theme").setAttribute("aria-pressed", String(name === "dark"));
}
function on(id, event, act, redraw) {
  $(id).addEventListener(event, (happened) => {
    act(happened.target);
    redraw();
  });
}
on("theme", "click", () => theme(isDark() ? "light" : "dark"), draw);
on("target", "change", (select) => { state.target = Number(select.value); }, chooseTarget);
on("index-filter", "input", (field) => { state.condition = field.value; }, drawIndex);
$("index-table").addEventListener("click", (event) => {
  const cell = event.target.closest("tbody td:first-child");
  if (!cell) return;
  state.target = content.targets.findIndex((each) => each.label === cell.textContent);
  $("target").value = String(state.target);
  chooseTarget();
  $("verdict").scrollIntoView({ block: "start" });
});
on("plane", "change", (select) => { state.plane = Number(select.value); }, drawCells);
on("colour", "change", (select) => { state.colour = select.value; state.group = null; }, drawCells);
for (const kind of KINDS) on(`layer-${kind}`, "change", (box) => { state.layers[kind] = box.checked; }, drawCells);
on("arrows", "change", (box) => { state.arrows = box.checked; }, drawCells);
on("way", "input", (slider) => { state.way = slider.value / 100; $("way-text").textContent = `${slider.value} %`; }, drawMap);
on("metric", "change", (select) => { state.metric = select.value; }, drawScores);
on("score-group", "change", (select) => { state.scoreGroup = select.value; }, drawScores);
on("gene-filter", "input", (field) => { state.gene = field.value; }, drawGenes);
on("gene-all", "click", () => { state.allGenes = !state.allGenes; }, drawGenes);
on("parameter-filter", "input", (field) => { state.parameter = field.value; }, drawParameters);
canvas.addEventListener("pointermove", point);
canvas.addEventListener("pointerleave", hideTip);
canvas.addEventListener("keydown", moveCross);
canvas.addEventListener("blur", () => { hideTip(); if (target().cells) drawMap(); });
let waiting = 0;
addEventListener("resize", () => { clearTimeout(waiting); waiting = setTimeout(draw, 100); });

if (content.targets.length > 1) {
  $("target-label").hidden = false;
  options($("target"), content.targets.map((each, i) => [String(i), each.label]), "0");
}
theme(matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
chooseTarget();
