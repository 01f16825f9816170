// Runs in a page that holds the page under test in one frame per width: steps through it as a reader would, and leaves
// what it read off as JSON in <pre id="read">.
const pause = () => new Promise(resolve => setTimeout(resolve, 0));

function texts(document) {
  const cells = [...document.querySelectorAll("#operands td[data-name], #parameters td[data-name]")];
  const drawn = [...document.querySelectorAll("#network text[data-value]")];
  return {
    cells: cells.map(({dataset: d, textContent}) => [d.name, Number(d.i), Number(d.j), Number(d.value), textContent]),
    drawn: drawn.map(e => [e.dataset.name, Number(e.dataset.value), e.textContent]),
    oracle: Object.fromEntries([...document.querySelectorAll("#oracle td")].map(td => [td.dataset.oracle, Number(td.dataset.value)])),
    answer: document.querySelector("#plugged .answer")?.textContent ?? "",
    lit: [...document.querySelectorAll("#operands td.lit")].map(td => [td.dataset.name, Number(td.dataset.i), Number(td.dataset.j)]),
    nodes: document.querySelectorAll("#network g.node.lit").length,
    phase: document.querySelector("main").dataset.phase,
    said: document.getElementById("said").textContent,
  };
}

function overflow(window) {
  const {document, innerWidth} = window, outside = [...document.querySelectorAll("body *")].filter(e => !e.closest(".scroll, .unseen, svg"));
  return Math.max(document.documentElement.scrollWidth, ...outside.map(e => Math.ceil(e.getBoundingClientRect().right))) - innerWidth;
}

async function violations(window) {
  if (!window.axe) {
    const script = window.document.createElement("script");
    script.textContent = document.getElementById("axe").textContent;
    window.document.head.append(script);
  }
  const {violations} = await window.axe.run(window.document, {iframes: false});
  return violations.map(({id, nodes}) => `${id}: ${nodes.map(node => node.target).join(", ")}`);
}

async function readTrace(window) {
  const {document} = window, key = name => document.body.dispatchEvent(new window.KeyboardEvent("keydown", {key: name, bubbles: true, cancelable: true}));
  const steps = [], seen = [], widths = [];
  for (let k = 0; k < 1000; k++) {
    steps.push(texts(document));
    widths.push(overflow(window));
    if (k % 10 === 0) seen.push(...await violations(window));
    if (document.getElementById("on").disabled) break;
    if (k % 2) document.getElementById("on").click();
    else key("ArrowRight");
    await pause();
  }
  const at = () => window.location.hash || `${document.getElementById("frame").value}.${document.getElementById("step").value}`;
  const places = {};
  key("Home");
  places.home = at();
  for (const phase of ["backward", "update", "next"]) {
    document.querySelector(`[data-go=${phase}]`).click();
    places[phase] = at();
  }
  key("End");
  places.end = at();
  key("ArrowUp");
  places.up = at();
  document.querySelector("[data-go=backward]").click();
  const slider = document.getElementById("step");
  slider.value = steps.findIndex(step => step.said.includes("dW"));
  slider.dispatchEvent(new window.Event("input", {bubbles: true}));
  const hovered = {before: texts(document)}, last = [...document.querySelectorAll("#operands td[tabindex]")].at(-1);
  last.dispatchEvent(new window.PointerEvent("pointerover", {bubbles: true}));
  hovered.after = texts(document);
  const first = document.querySelector("#operands td[tabindex]");
  first.focus();
  first.dispatchEvent(new window.KeyboardEvent("keydown", {key: "ArrowDown", bubbles: true, cancelable: true}));
  hovered.keyboard = texts(document);
  hovered.focus = [document.activeElement.dataset.i, document.activeElement.dataset.j];
  const edge = document.querySelector("path.edge");
  document.getElementById("network").querySelector(`path.edge[data-edge="${last.dataset.name.slice(1)} 0 1"]`)?.dispatchEvent(new window.PointerEvent("pointerover", {bubbles: true}));
  hovered.edge = edge ? texts(document) : null;
  const sample = document.getElementById("sample"), other = {value: sample.options.length - 1};
  sample.value = other.value;
  sample.dispatchEvent(new window.Event("change", {bubbles: true}));
  other.read = texts(document);
  return {steps, other, violations: seen, overflow: Math.max(...widths), places, hovered};
}

async function readEquations(window) {
  const {document} = window, seen = [], widths = [], shown = {};
  for (const language of ["en", "zh"]) {
    document.getElementById(language).click();
    await pause();
    const visible = [...document.querySelectorAll("[lang]")].filter(e => e !== document.documentElement && e.checkVisibility());
    shown[language] = [...new Set(visible.map(e => e.lang))];
    seen.push(...await violations(window));
    widths.push(overflow(window));
  }
  const checks = [...document.querySelectorAll(".check")].map(({dataset: d}) => [Number(d.value), Number(d.exact)]);
  return {violations: seen, overflow: Math.max(...widths), shown, checks, math: document.querySelectorAll("article math").length};
}

async function readPage(window) {
  const {document} = window;
  for (const details of document.querySelectorAll("details")) details.open = true;
  return {violations: await violations(window), overflow: overflow(window), contrast: contrast(window)};
}

// The smallest contrast of a number on its coloured cell, by the formula of WCAG 2.
function contrast(window) {
  const canvas = window.document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const luminance = colour => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = window.getComputedStyle(window.document.body).backgroundColor;
    canvas.fillRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].map(c => c / 255).map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  return Math.min(Infinity, ...[...window.document.querySelectorAll("td")].filter(td => td.textContent).map(td => {
    const style = window.getComputedStyle(td), [low, high] = [luminance(style.color), luminance(style.backgroundColor)].sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
  }));
}

addEventListener("load", async () => {
  const read = {};
  for (const frame of document.querySelectorAll("iframe")) {
    const window = frame.contentWindow;
    try {
      const has = id => window.document.getElementById(id);
      read[frame.width] = await (has("controls") ? readTrace : has("zh") ? readEquations : readPage)(window);
      read[frame.width].paper = window.getComputedStyle(window.document.body).backgroundColor;
    } catch (error) {
      read[frame.width] = {error: String(error.stack)};
    }
  }
  const pre = document.createElement("pre");
  pre.id = "read";
  pre.textContent = JSON.stringify(read);
  document.body.replaceChildren(pre);
});
