"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const {steps, tensors, columns, frames} = data;
const indexOf = Object.fromEntries(steps.map((step, i) => [step.name, i]));
const state = {frame: 0, step: 0, sample: 0, i: 0, j: 0, timer: 0};
const $ = id => document.getElementById(id);

function make(space, tag, attributes, ...children) {
  const element = space ? document.createElementNS(space, tag) : document.createElement(tag);
  for (const [key, value] of Object.entries(attributes ?? {})) if (value != null && value !== false) element.setAttribute(key, value);
  element.append(...children.flat());
  return element;
}
const html = (...given) => make(null, ...given);
const svg = (...given) => make("http://www.w3.org/2000/svg", ...given);
const math = (...given) => make("http://www.w3.org/1998/Math/MathML", ...given);

// Numbers

const signed = value => String(value).replaceAll("-", "−");
const short = (value, digits = 4) => signed(typeof value === "number" ? Number(value.toPrecision(digits)) : value);
const brief = (value, digits) => typeof value === "number" && value && Math.abs(value) < 0.001 ? signed(value.toExponential(1)) : short(value, digits);
const tensor = name => tensors[name.replace("+", "")];
const isMap = name => tensor(name)?.kind === "map";
const isKnown = name => indexOf[name] === undefined || indexOf[name] <= state.step;

function pick(value, name, i, j, sample = state.sample) {
  switch (tensor(name).kind) {
    case "rows": return value[sample][i];
    case "vector": return value[i];
    case "matrix": return (value.folded ?? value)[i][j];
    default: return value;
  }
}
const valueOf = (name, i, j, sample) => pick(frames[state.frame].values[name], name, i, j, sample);

// f of each of the shown entries, and null where a layer of n is folded.
function list(shown, n, f) {
  const items = shown.map((_, k) => f(k));
  if (shown.length < n) items.splice(5, 0, null);
  return items;
}

// Symbols in MathML

const mi = text => math("mi", {}, text), mo = text => math("mo", {}, text), mn = text => math("mn", {}, text);
const inMath = (...nodes) => math("math", {}, ...nodes);
const derivative = by => math("mfrac", {}, math("mrow", {}, mo("∂"), mi("E")), math("mrow", {}, mo("∂"), by));

function symbol(name, ...indices) {
  name = name.replace("+", "");
  if (name.startsWith("∂E/∂")) return derivative(symbol(name.slice(4), ...indices));
  if (name[0] === "d" && tensors[name]) return derivative(symbol(name.slice(1), ...indices));
  if (name.startsWith("f′(")) return math("mrow", {}, math("msup", {}, mi("f"), mo("′")), mo("("), symbol(name.slice(3, -1), ...indices), mo(")"));
  const [, letter, level, marks] = name.match(/^(.*?)(\d*)(′*)$/u);
  const below = mn(indices.map(k => k + 1).join(indices.some(k => k > 8) ? "," : ""));
  const above = math("mrow", {}, level ? [mn(level)] : [], marks ? [mo(marks)] : []);
  if (level && indices.length) return math("msubsup", {}, mi(letter), below, above);
  return level ? math("msup", {}, mi(letter), above) : indices.length ? math("msub", {}, mi(letter), below) : mi(letter);
}
function symbolAt(name, i, j) {
  const {kind, rows, columns} = tensor(name);
  return kind === "number" ? symbol(name) : kind === "matrix" ? symbol(name, rows[i], columns[j]) : symbol(name, rows[i]);
}
const number = value => value < 0 ? math("mrow", {}, mo("("), mn(short(value)), mo(")")) : mn(short(value));

// How an entry follows from its factors: a list of factors [name, i, j, sample] and of the signs between them; null where
// the page does not say.

const RULES = {
  input: () => null,
  affine: ({factors: [W, a, b]}, i) => [...sum(list(tensor(W).columns, tensor(W).shape[1], k => [[W, i, k], "·", [a, k]])), "+", [b, i]],
  entrywise: ({factors: [z], numbers}, i) => numbers.includes(1) ? [{sigmoidOf: [z, i]}] : [{functionOf: [z, i]}],
  loss: ({factors: [ŷ, y], numbers}) => numbers.includes(4) && data.samples === 1
    ? ["½", "(", ...sum(list(tensor(ŷ).rows, tensor(ŷ).shape[1], k => ["(", [ŷ, k], "−", [y, k], ")²"])), ")"] : null,
  residual: ({factors: [ŷ, y], numbers}, i) => !numbers.includes(21) ? null
    : numbers.includes(17) ? ["(", [ŷ, i], "−", [y, i], ")", "/", `${data.samples}`] : [[ŷ, i], "−", [y, i]],
  product: ({factors: [above, slope]}, i) => [[above, i], "·", [slope, i]],
  transposed: ({factors: [W, δ]}, i) => sum(list(tensor(W).rows, tensor(W).shape[0], k => [[W, k, i], "·", [δ, k]])),
  outer: ({factors: [δ, a]}, i, j) => overSamples(δ, s => [[δ, i, 0, s], "·", [a, j, 0, s]]),
  sum: ({factors: [δ]}, i) => overSamples(δ, s => [[δ, i, 0, s]]),
  update: ({factors: [W, dW]}, i, j) => [[W, i, j], "−", {eta: true}, "·", [dW, i, j]],
  layer: () => null,
};
const sum = terms => terms.flatMap((term, k) => [...(k ? ["+"] : []), ...(term ?? ["…"])]);
function overSamples(name, term) {
  const terms = frames[0].values[name].map((_, s) => term(s));
  const parts = sum(data.samples > terms.length ? [...terms, null] : terms);
  return data.samples > 1 ? Object.assign(parts, {symbols: ["∑", ...term(state.sample)]}) : parts;
}
function ruleOf(step) {
  const drawn = [step.name, ...step.factors].every(name => tensor(name) && !isMap(name));
  return drawn ? RULES[step.rule](step, state.i, state.j) : null;
}
const factorsOf = parts => (parts ?? []).flatMap(part => Array.isArray(part) ? [part] : part.sigmoidOf ? [part.sigmoidOf] : part.functionOf ? [part.functionOf] : []);

const inSymbols = part => {
  if (Array.isArray(part)) return symbolAt(...part);
  if (part.eta) return mi("η");
  const argument = part.sigmoidOf ?? part.functionOf;
  return argument ? math("mrow", {}, mi(functionName()), mo("("), symbolAt(...argument), mo(")")) : sign(part);
};
const inNumbers = part => {
  if (Array.isArray(part)) return number(valueOf(...part));
  if (part.eta) return mn(short(data.lr));
  if (part.functionOf) return math("mrow", {}, mi(functionName()), mo("("), mn(short(valueOf(...part.functionOf))), mo(")"));
  if (!part.sigmoidOf) return sign(part);
  const power = math("msup", {}, mi("e"), math("mrow", {}, mo("−"), number(valueOf(...part.sigmoidOf))));
  return math("mfrac", {}, mn("1"), math("mrow", {}, mn("1"), mo("+"), power));
};
const bracket = text => math("mo", {stretchy: "false"}, text);
const sign = text => /^[½\d]/.test(text) ? mn(text) : text === ")²" ? math("msup", {}, bracket(")"), mn("2")) : "()".includes(text) ? bracket(text) : text.startsWith("∑") ? math("msub", {}, mo("∑"), math("mtext", {}, "samples")) : mo(text);

const functionName = () => steps[state.step].text.match(/= (.*)\(/u)[1].split("(")[0];

// The matrices of an equation

const equalsSum = data.samples > 1 ? "= ∑" : "=";
const OPERANDS = {
  input: () => [],
  affine: ([W, a, b]) => ["=", {name: W}, "·", {name: a}, "+", {name: b}],
  entrywise: ([z]) => [`= ${functionName()} of`, {name: z}],
  loss: ([ŷ, y]) => ["of", {name: ŷ}, "and", {name: y}],
  residual: ([ŷ, y]) => ["of", {name: ŷ}, "and", {name: y}],
  product: ([above, slope]) => ["=", {name: above}, "⊗", {name: slope}],
  transposed: ([W, δ]) => ["=", {name: W, above: "T"}, "·", {name: δ}],
  outer: ([δ, a]) => [equalsSum, {name: δ}, "·", {name: a, above: "T"}],
  sum: ([δ]) => [equalsSum, {name: δ}],
  update: ([W, dW]) => ["←", {name: W}, `− ${data.lr} ·`, {name: dW}],
  layer: names => names.flatMap((name, k) => [k ? "and" : "of", {name}]),
};
function operands(step) {
  const parts = OPERANDS[step.rule](step.factors).map(part => {
    if (part.name && tensor(part.name)) return matrix(part.name, part);
    return html("span", {}, part.name ?? part);
  });
  return [matrix(step.name, {result: true}), ...parts];
}
function matrix(name, {result, above, title} = {}) {
  const t = tensor(name), value = frames[state.frame].values[name];
  const named = above ? math("msup", {}, math("mrow", {}, mo("("), symbol(name), mo(")")), mi(above)) : symbol(name);
  const figure = html("figure", {class: `${result ? "result" : ""} ${t.kind}`}, html("figcaption", {}, title ?? inMath(named)));
  if (t.kind === "map") {
    figure.append(heatMap(name, Array.isArray(value) ? value[state.sample] : value));
    return figure;
  }
  const label = name.replace("+", ", new") + (above ? ", transposed" : "");
  const rows = above ? transposed(cells(name, t, result)) : cells(name, t, result);
  const table = html("table", {class: "matrix", role: result ? "grid" : null, "aria-label": label}, html("tbody", {}, rows.map(row => html("tr", {}, row))));
  figure.append(html("div", {class: "scroll"}, table));
  if (value.heat) figure.append(heatMap(name, value.heat));
  return figure;
}
function transposed(rows) {
  const turned = {"⋯": "⋮", "⋮": "⋯"};
  for (const td of rows.flat()) td.textContent = turned[td.textContent] ?? td.textContent;
  return rows[0].map((_, j) => rows.map(row => row[j]));
}

// The entries of a matrix, or of a vector as a column, with dots where it is folded.
function cells(name, t, focusable) {
  const rows = t.kind === "number" ? [0] : t.rows, columns = t.kind === "matrix" ? t.columns : [0];
  const height = t.kind === "number" ? 1 : t.kind === "matrix" ? t.shape[0] : t.shape.at(-1), width = t.kind === "matrix" ? t.shape[1] : 1;
  const cell = (i, j) => {
    const value = valueOf(name, i, j), index = [rows[i] + 1, ...(t.kind === "matrix" ? [columns[j] + 1] : [])];
    const title = `${name}${t.kind === "number" ? "" : ` [${index}]`} = ${signed(value)}`;
    return html("td", {"data-name": name, "data-i": i, "data-j": j, "data-value": value, title, tabindex: focusable ? -1 : null}, short(value, columns.length > 5 ? 3 : 4));
  };
  const dots = text => html("td", {class: "gap"}, text);
  const filled = list(rows, height, i => list(columns, width, j => cell(i, j)).map(td => td ?? dots("⋯")));
  return filled.map(row => row ?? list(columns, width, () => dots("⋮")).map(td => td ?? dots("⋱")));
}
const levelsOf = map => Int8Array.from(atob(map.levels), character => character.charCodeAt(0));

function heatMap(name, map) {
  const [planes, height, width] = map.shape, across = Math.min(planes, Math.ceil(Math.sqrt(planes * height / width))), down = Math.ceil(planes / across);
  const canvas = html("canvas", {width: across * (width + 1) - 1, height: down * (height + 1) - 1, role: "img", "data-map": name});
  canvas.style.width = `${canvas.width * Math.max(2, Math.min(24, Math.floor(260 / canvas.width)))}px`;
  const context = canvas.getContext("2d"), image = context.createImageData(canvas.width, canvas.height);
  levelsOf(map).forEach((level, k) => {
    const plane = Math.floor(k / (height * width)), y = Math.floor(k / width) % height, x = k % width;
    const at = (Math.floor(plane / across) * (height + 1) + y) * canvas.width + (plane % across) * (width + 1) + x;
    image.data.set([...(level < 0 ? [214, 69, 65] : [45, 125, 201]), 2 * Math.abs(level)], 4 * at);
  });
  context.putImageData(image, 0, 0);
  const shape = tensor(name).learned ? tensor(name).shape : tensor(name).shape.slice(1);
  const told = data.attention.includes(name) ? `${shape.join(" × ")}: by each head, how much a place (row) takes from each (column), at most ${short(map.limit)}`
    : `${shape.join(" × ")}, from ${short(-map.limit)} (red) to ${short(map.limit)} (blue)`;
  canvas.setAttribute("aria-label", `${name}, heat map: ${told}`);
  return html("div", {class: "heat"}, canvas, html("p", {class: "dim"}, told));
}

// The network

function places(width) {
  const vertical = width < 480, counts = columns.map(({names: [name]}) => {
    const {kind, rows, shape} = tensor(name);
    return kind === "rows" ? rows.length + (rows.length < shape.at(-1)) : 1;
  });
  const most = Math.max(...counts);
  const gap = vertical ? Math.min(130, (width - 16) / most) : Math.min(190, Math.max(84, 640 / most));
  const length = vertical ? 90 + columns.length * 140 : width, breadth = vertical ? width : Math.max(most * gap, 240) + 70;
  const first = vertical ? 62 : 70, last = vertical ? length - 110 : width - 190, between = (last - first) / Math.max(1, columns.length - 1);
  const radius = Math.min(vertical ? 28 : 46, 0.42 * gap, Math.max(18, 0.24 * between)), narrow = vertical && gap < 60, digits = narrow ? 2 : radius < 32 && !vertical ? 3 : 4;
  const font = Math.min(vertical ? 13 : 20, radius * (narrow ? 0.6 : 0.46));
  const along = c => columns.length > 1 ? first + c * between : length / 2;
  const across = (c, k) => breadth / 2 + (vertical ? 0 : 8) + (k - (counts[c] - 1) / 2) * gap;
  const at = (c, k) => vertical ? {x: across(c, k), y: along(c)} : {x: along(c), y: across(c, k)};
  return {vertical, radius, font, digits, between, side: Math.min(1.7 * radius, 0.36 * between), at, counts, width, height: vertical ? length : breadth};
}
const slot = ({rows, shape}, k) => rows.length < shape.at(-1) && k > 4 ? k + 1 : k;
const latest = names => names.filter(name => indexOf[name] <= state.step).sort((a, b) => indexOf[a] - indexOf[b]).at(-1);
const plain = name => name.replace(/^d|\+$/g, "");
function columnOf(name) {
  const inner = name.replace(/^f′\((.*)\)$/, "$1");
  return columns.findIndex(c => c.names.includes(inner) || c.errors.includes(inner) || c.parameters.includes(plain(inner)));
}
const isDense = c => columns[c].rule === "affine" && !isMap(columns[c].names[0]) && !isMap(columns[c - 1].names[0]);

function drawNetwork() {
  const card = $("network"), width = Math.max(280, card.clientWidth - 2 * parseFloat(getComputedStyle(card).paddingLeft));
  const place = places(width), step = steps[state.step], here = columnOf(step.name);
  const head = svg("marker", {id: "head", viewBox: "0 0 10 10", refX: 9, refY: 5, markerWidth: 7, markerHeight: 7, orient: "auto"}, svg("path", {d: "M0 0L10 5L0 10z", fill: "var(--dim)"}));
  const lines = columns.slice(1).flatMap((_, k) => isDense(k + 1) ? edges(place, k + 1, step) : [arrow(place, k + 1)]);
  const drawn = columns.flatMap((column, c) => nodes(place, c, column, c === here && step.rule !== "update"));
  const E = {x: place.width - 4, y: place.height - 16, style: "text-anchor: end"};
  if (isKnown("E")) drawn.push(svg("text", {...E, class: "label", "font-size": place.font * 1.15, "data-name": "E", "data-value": valueOf("E")}, `E = ${short(valueOf("E"), 6)}`));
  card.replaceChildren(svg("svg", {viewBox: `0 0 ${place.width} ${place.height}`, role: "img", "aria-label": `The network, ${columns.map(column => column.title).join("; ")}. Shown: ${step.text}`},
    svg("defs", {}, head), lines.filter(line => line.tagName === "path"), lines.filter(line => line.tagName !== "path"), drawn),
    html("p", {class: "dim"}, "Blue is positive, red and dashed negative. On an edge: w, and ∂ for ∂E/∂w. Under a node: δ = ∂E/∂z, or ∂ for ∂E/∂a."));
}
function arrow({at, counts, side, vertical}, c) {
  const from = at(c - 1, (counts[c - 1] - 1) / 2), to = at(c, (counts[c] - 1) / 2), off = side + 6;
  return svg("path", {class: "arrow", d: vertical ? `M${from.x} ${from.y + off}L${to.x} ${to.y - off}` : `M${from.x + off} ${from.y}L${to.x - off} ${to.y}`});
}
function edges({at, font, between, vertical, width}, c, step) {
  const [W] = columns[c].factors, t = tensor(W), source = tensor(columns[c - 1].names[0]), target = tensor(columns[c].names[0]);
  const now = isKnown(`${W}+`) ? `${W}+` : W, pairs = t.rows.flatMap((_, i) => t.columns.map((_, j) => [i, j]));
  const largest = Math.max(...pairs.map(([i, j]) => Math.abs(valueOf(now, i, j)) || 0)) || 1;
  const isActive = [step.name, ...step.factors].some(name => plain(name) === W), roomy = pairs.length <= (vertical ? 4 : 6), crowded = pairs.length > (vertical || between < 8 * font ? 6 : 16);
  return pairs.flatMap(([i, j]) => {
    const from = at(c - 1, slot(source, j)), to = at(c, slot(target, i)), w = valueOf(now, i, j), key = `${W} ${i} ${j}`;
    const d = `M${from.x} ${from.y}L${to.x} ${to.y}`, thick = 1.2 + 4.5 * Math.min(1, Math.abs(w) / largest || 0);
    const texts = [{name: now, text: brief(w, 4), kind: now === W ? "" : "update"}];
    if (isKnown(`d${W}`) && now === W) texts.push({name: `d${W}`, text: `∂ ${brief(valueOf(`d${W}`, i, j), 3)}`, kind: "backward"});
    const share = vertical ? 0.37 + 0.11 * ((i + 2 * j) % 4) : t.rows.length > t.columns.length ? 0.61 : 0.39;
    const shown = roomy ? texts : [texts.find(({name}) => [step.name, ...step.factors].includes(name)) ?? texts.at(-1)], size = vertical ? font : 0.85 * font;
    const margin = shown.length > 1 ? 64 : 32, x = Math.max(margin, Math.min(width - margin, from.x + share * (to.x - from.x))), y = from.y + share * (to.y - from.y);
    // Both w and ∂: side by side where edges run down, else one below the other.
    const spot = k => shown.length < 2 ? {x, y} : vertical ? {x: x + 6 * k - 3, y, style: `text-anchor: ${k ? "start" : "end"}`} : {x, y: y + (k - 0.5) * 1.15 * size};
    return [
      svg("path", {class: "under", d, "stroke-width": thick + 3, "data-edge": key}),
      svg("path", {class: `edge${w < 0 ? " minus" : ""}${isActive ? " active" : ""}`, d, "stroke-width": thick, "data-edge": key},
        svg("title", {}, `${W} [${t.rows[i] + 1},${t.columns[j] + 1}] = ${signed(w)}`)),
      ...shown.map(({name, text, kind}, k) => svg("text", {...spot(k), class: `label ${kind}`, "font-size": size,
        "data-label": key, "data-name": name, "data-value": valueOf(name, i, j), "data-crowded": crowded, visibility: crowded ? "hidden" : null}, text)),
    ];
  });
}
const raised = text => text.replace(/\d/g, d => "⁰¹²³⁴⁵⁶⁷⁸⁹"[d]), lowered = n => String(n).replace(/\d/g, d => "₀₁₂₃₄₅₆₇₈₉"[d]);

function nodes(place, c, column, isActive) {
  const {at, radius, font, digits, between, side, vertical} = place, t = tensor(column.names[0]), value = latest(column.names), error = latest(column.errors);
  const top = at(c, 0), title = svg("text", {class: "dim label", "font-size": vertical ? font : Math.min(font, 1.6 * between / column.title.length), ...(vertical ? {x: 2, y: top.y - radius - 14, style: "text-anchor: start"} : {x: top.x, y: 14})}, column.title);
  const activity = isActive ? "node active" : "node";
  if (t.kind !== "rows") {
    const box = svg("rect", {x: top.x - side, y: top.y - side, width: 2 * side, height: 2 * side, rx: 8});
    const name = error && isActive && state.step > indexOf.E ? error : value;
    const caption = svg("text", {x: top.x, y: top.y + side + font, class: "dim label", "font-size": font}, t.shape.slice(1).join(" × "));
    return [title, svg("g", {class: activity}, box, name ? svgMap(frames[state.frame].values[name], top, side) : []), caption];
  }
  const known = [...column.names, ...column.errors].filter(name => indexOf[name] <= state.step);
  const drawn = t.rows.flatMap((unit, i) => {
    const {x, y} = at(c, slot(t, i)), v = value && valueOf(value, i);
    const told = known.map(name => `${name} [${unit + 1}] = ${signed(valueOf(name, i))}`).join("\n");
    const node = svg("g", {class: activity, "data-column": c, "data-i": i}, svg("circle", {cx: x, cy: y, r: radius}), svg("title", {}, told));
    if (value) node.append(
      svg("circle", {class: v < 0 ? "tint minus" : "tint", cx: x, cy: y, r: radius - 2, "fill-opacity": Math.min(0.4, 0.4 * Math.abs(v)) || 0}),
      svg("text", {class: "inside", x, y: y - 0.44 * radius, "font-size": 0.8 * font}, `${value[0]}${raised(value.slice(1))}${lowered(unit + 1)}`),
      svg("text", {class: "inside", x, y: y + 0.18 * radius, "font-size": font, "data-name": value, "data-i": i, "data-value": v}, short(v, digits)));
    if (error) node.append(svg("text", {class: "label backward", x, y: y + radius + 0.8 * font, "font-size": font, "data-name": error, "data-i": i, "data-value": valueOf(error, i)},
      `${digits > 2 ? error[0] + " " : ""}${brief(valueOf(error, i), Math.min(digits, 3))}`));
    const isTarget = c === columns.length - 1 && tensors.y;
    const beside = vertical ? {x, y: y + radius + 2.1 * font} : {x: x + radius + 3.2 * font, y};
    return [node, ...(isTarget ? [svg("text", {...beside, class: "label", "font-size": font, "data-name": "y", "data-i": i, "data-value": valueOf("y", i)}, `y = ${short(valueOf("y", i))}`)] : [])];
  });
  if (t.rows.length < t.shape[1]) {
    const {x, y} = at(c, 5);
    drawn.push(svg("text", {x, y: y - font / 2, class: "dim", "font-size": 1.5 * font}, vertical ? "…" : "⋮"), svg("text", {x, y: y + font, class: "dim", "font-size": 0.9 * font}, `of ${t.shape[1]}`));
  }
  return [title, ...drawn];
}
function svgMap(value, {x, y}, side) {
  const map = Array.isArray(value) ? value[state.sample] : value, [, height, width] = map.shape, pixel = 2 * (side - 5) / Math.max(width, height);
  return [...levelsOf(map).slice(0, height * width)].map((level, k) => svg("rect", {x: x + (k % width - width / 2) * pixel, y: y + (Math.floor(k / width) - height / 2) * pixel,
    width: pixel, height: pixel, style: `stroke: none; fill: var(--${level < 0 ? "minus" : "plus"}); fill-opacity: ${Math.abs(level) / 127}`}));
}

// The panels

function showEquation() {
  const step = steps[state.step], phase = step.phase[0].toUpperCase() + step.phase.slice(1);
  $("name").replaceChildren(html("span", {class: "badge"}, phase), html("span", {}, `${state.step + 1} of ${steps.length}`),
    html("span", {class: "dim"}, frames.length > 1 ? `training step ${state.frame + 1} of ${frames.length}` : ""));
  $("formula").innerHTML = step.equation;
  $("operands").replaceChildren(...operands(step));
  const entries = step.numbers.map(n => {
    const [equation, erratum] = data.document[n], body = html("div", {class: "formula scroll"});
    body.innerHTML = equation;
    if (erratum) {
      const remark = html("p", {class: "dim"});
      remark.innerHTML = `† ${erratum}`;
      body.append(remark);
    }
    return html("li", {}, html("span", {}, `(${n})${erratum ? "†" : ""}`), body);
  });
  $("document").replaceChildren(...(entries.length ? [html("h2", {}, "In the derivation"), html("ol", {}, entries)] : []),
    ...(step.rule === "update" ? [html("p", {class: "dim"}, `Gradient descent (§3), η = ${data.lr}.`)] : []));
}
const line = (className, ...nodes) => html("div", {class: className}, nodes.flatMap(node => [inMath(node), " "]));

function showEntry() {
  const step = steps[state.step], parts = ruleOf(step), lines = [];
  if (!isMap(step.name)) {
    const left = symbolAt(step.name, state.i, state.j), is = step.rule === "update" ? "←" : "=";
    if (parts) lines.push(line("", math("mrow", {}, left, mo(is)), ...(parts.symbols ?? parts).map(inSymbols)), line("", mo(is), ...parts.map(inNumbers)));
    lines.push(line("answer", math("mrow", {}, ...(parts ? [] : [left]), mo(is), mn(short(valueOf(step.name, state.i, state.j), 6)))));
  }
  $("plugged").hidden = !lines.length;
  $("plugged").replaceChildren(...lines);
  showCheck(step);
  light(step, factorsOf(parts));
}
function light(step, factors) {
  const isLit = (name, i, j) => factors.some(([n, k, l, s]) => n === name && k === i && (tensor(n).kind !== "matrix" || l === j) && (s ?? state.sample) === state.sample);
  for (const td of document.querySelectorAll("td[data-name]")) {
    const {name} = td.dataset, i = Number(td.dataset.i), j = Number(td.dataset.j), isChosen = name === step.name && i === state.i && j === state.j;
    td.classList.toggle("lit", isLit(name, i, j));
    td.classList.toggle("chosen", isChosen);
    if (td.hasAttribute("tabindex")) {
      td.tabIndex = isChosen ? 0 : -1;
      td.setAttribute("aria-selected", isChosen);
    }
  }
  const entries = [...factors, [step.name, state.i, state.j]];
  for (const edge of $("network").querySelectorAll("[data-edge], [data-label]")) {
    const [W, i, j] = (edge.dataset.edge ?? edge.dataset.label).split(" ");
    const isLit = entries.some(([name, k, l]) => plain(name) === W && k === Number(i) && l === Number(j));
    edge.classList.toggle("lit", isLit);
    if (edge.dataset.crowded) edge.setAttribute("visibility", isLit ? "visible" : "hidden");
  }
  for (const node of $("network").querySelectorAll("g[data-i]")) {
    const {column, i} = node.dataset;
    node.classList.toggle("lit", entries.some(([name, k]) => tensor(name).kind === "rows" && columnOf(name) === Number(column) && k === Number(i)));
  }
}
function showCheck({name}) {
  const {exact, unit, worst} = frames[state.frame], told = [];
  if (exact[name] !== undefined) {
    if (!isMap(name)) {
      const mine = valueOf(name, state.i, state.j), theirs = pick(exact[name], name, state.i, state.j), difference = mine === theirs ? 0 : Math.abs(mine - theirs) / unit[name];
      const rows = [["by hand", mine, signed(mine)], ["jax.grad", theirs, signed(theirs)], ["difference", difference, `${short(difference, 2)} ulp`]];
      told.push(html("table", {id: "oracle"}, html("tbody", {}, rows.map(([label, value, text]) =>
        html("tr", {}, html("th", {scope: "row"}, label), html("td", {"data-oracle": label, "data-value": value}, text))))));
    }
    told.push(html("p", {class: "dim"}, `Largest difference in all of ${name}: ${short(worst[name], 2)} ulp.`));
  }
  $("check").replaceChildren(...told);
}
function showParameters() {
  const step = steps[state.step], c = columnOf(step.name);
  const column = columns.find((column, k) => k >= c && c >= 0 && column.parameters.length) ?? columns.findLast(column => column.parameters.length);
  $("parameters").hidden = !column;
  if (!column) return;
  const unknown = title => html("figure", {}, html("figcaption", {}, title), html("p", {class: "dim"}, "not yet known"));
  $("parameters").replaceChildren(html("h2", {id: "level"}, `Parameters of level ${column.names[0].match(/\d+/)}: before, gradient, after`), ...column.parameters.map(name => {
    const gradient = inMath(symbol(`d${name}`)), after = inMath(symbol(name), mo("−"), mi("η"), symbol(`d${name}`)), isThere = isKnown(`d${name}`);
    return html("div", {class: "operands"}, matrix(name), isThere ? matrix(`d${name}`) : unknown(gradient), isThere ? matrix(`${name}+`, {title: after}) : unknown(after));
  }));
}
function showLosses() {
  const E = frames.map(frame => frame.values.E), top = Math.max(...E) || 1, points = E.map((e, k) => [4 + 102 * k / (frames.length - 1), 32 - 28 * e / top]);
  const [cx, cy] = points[state.frame];
  $("spark").replaceChildren(svg("polyline", {points: points.join(" ")}), svg("circle", {cx, cy, r: 4}));
}

// Moving

function go(frame, step) {
  if (step !== state.step) state.i = state.j = 0;
  state.frame = Math.max(0, Math.min(frames.length - 1, frame));
  state.step = Math.max(0, Math.min(steps.length - 1, step));
  const {phase, text} = steps[state.step];
  document.querySelector("main").dataset.phase = phase;
  for (const button of document.querySelectorAll("[data-go]")) {
    if (button.dataset.go === phase) button.setAttribute("aria-current", "step");
    else button.removeAttribute("aria-current");
  }
  $("step").value = state.step;
  $("step").setAttribute("aria-valuetext", `${state.step + 1} of ${steps.length}: ${text}`);
  $("frame").value = state.frame;
  $("frame").setAttribute("aria-valuetext", `${state.frame + 1} of ${frames.length}`);
  const isFirst = state.frame === 0, isLast = state.frame === frames.length - 1;
  $("back").disabled = isFirst && state.step === 0;
  $("on").disabled = isLast && state.step === steps.length - 1;
  $("earlier").disabled = isFirst;
  $("later").disabled = document.querySelector("[data-go=next]").disabled = isLast;
  showEquation();
  showParameters();
  drawNetwork();
  showEntry();
  if (frames.length > 2) showLosses();
  for (const box of document.querySelectorAll(".scroll")) {
    if (box.scrollWidth > box.clientWidth && !box.querySelector("[tabindex]")) box.tabIndex = 0;
    else box.removeAttribute("tabindex");
  }
  $("said").textContent = `${phase}: ${text}`;
  try {
    history.replaceState(null, "", `#${state.frame + 1}.${state.step + 1}`);
  } catch { /* a sandboxed frame has no history */ }
}
function move(by) {
  const index = Math.max(0, Math.min(frames.length * steps.length - 1, state.frame * steps.length + state.step + by));
  go(Math.floor(index / steps.length), index % steps.length);
}
function choose(i, j) {
  state.i = i;
  state.j = j;
  showEntry();
}
function stop() {
  clearInterval(state.timer);
  for (const [id, text] of [["play", "Play"], ["roll", "Film"]]) {
    $(id).setAttribute("aria-pressed", "false");
    $(id).textContent = text;
  }
}
function play(id, advance, pause) {
  const isRunning = $(id).getAttribute("aria-pressed") === "true";
  stop();
  if (isRunning) return;
  $(id).setAttribute("aria-pressed", "true");
  $(id).textContent = "Pause";
  state.timer = setInterval(() => advance() || stop(), pause);
}
const byHand = action => () => { stop(); action(); };

$("back").onclick = byHand(() => move(-1));
$("on").onclick = byHand(() => move(1));
$("earlier").onclick = byHand(() => go(state.frame - 1, state.step));
$("later").onclick = byHand(() => go(state.frame + 1, state.step));
$("step").oninput = byHand(() => go(state.frame, Number($("step").value)));
$("frame").oninput = byHand(() => go(Number($("frame").value), state.step));
$("play").onclick = () => play("play", () => { move(1); return !$("on").disabled; }, 1500);
$("roll").onclick = () => play("roll", () => { go(state.frame + 1, state.step); return !$("later").disabled; }, 600);
$("sample").onchange = () => { state.sample = Number($("sample").value); go(state.frame, state.step); };
for (const button of document.querySelectorAll("[data-go]")) button.onclick = byHand(() =>
  button.dataset.go === "next" ? go(state.frame + 1, 0) : go(state.frame, steps.findIndex(step => step.phase === button.dataset.go)));

const ARROWS = {ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0]};
document.addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, select, .scroll")) return;
  const arrow = ARROWS[event.key];
  if (arrow && event.target.matches("td[tabindex]")) {
    $("operands").querySelector(`td[tabindex][data-i="${state.i + arrow[0]}"][data-j="${state.j + arrow[1]}"]`)?.focus();
  } else {
    if (!arrow && event.key !== "Home" && event.key !== "End") return;
    stop();
    if (arrow) arrow[1] ? move(arrow[1]) : go(state.frame + arrow[0], state.step);
    else event.key === "Home" ? go(0, 0) : go(frames.length - 1, steps.length - 1);
  }
  event.preventDefault();
});
for (const kind of ["focusin", "pointerover", "click"]) $("operands").addEventListener(kind, event => {
  const cell = event.target.closest("td[tabindex]");
  if (cell) choose(Number(cell.dataset.i), Number(cell.dataset.j));
});
$("network").addEventListener("pointerover", event => {
  const {name} = steps[state.step], edge = event.target.closest("[data-edge]"), node = event.target.closest("g[data-i]");
  if (edge && tensor(name).kind === "matrix") {
    const [W, i, j] = edge.dataset.edge.split(" ");
    if (plain(name) === W) choose(Number(i), Number(j));
  } else if (node && tensor(name).kind === "rows" && columnOf(name) === Number(node.dataset.column)) choose(Number(node.dataset.i), 0);
});

// The beginning

$("step").max = steps.length - 1;
$("frame").max = frames.length - 1;
$("film").hidden = frames.length < 2;
$("spark").style.display = frames.length > 2 ? "" : "none";
$("samples").hidden = data.samples < 2;
$("sample").append(...frames[0].values.a0.map((_, k) => html("option", {value: k}, `${k + 1} of ${data.samples}`)));
$("about").textContent = `${data.network.join(", ")}; ${data.loss}; ${data.samples === 1 ? "one sample" : `${data.samples} samples`}; η = ${data.lr}`;
const [worstName, worst] = Object.entries(frames[0].worst).reduce((a, b) => b[1] > a[1] ? b : a, ["", -1]);
$("remark").textContent = data.remark || `Every gradient was compared with jax.grad in float64: in the first training step they differ by at most ${short(worst, 2)} ulp, in ${worstName}. `
  + "One ulp is the spacing of the numbers at the largest entry of a gradient.";
const [, frame, step] = location.hash.match(/^#(\d+)\.(\d+)$/) ?? [0, 1, 1];
go(frame - 1, step - 1);
let drawnWidth = $("network").clientWidth;
new ResizeObserver(() => {
  if ($("network").clientWidth === drawnWidth) return;
  drawnWidth = $("network").clientWidth;
  drawNetwork();
  showEntry();
}).observe($("network"));
