"use strict";
// The drawings: plain SVG, whose points are links that a keyboard reaches and a screen reader names.
// No library is needed for them, so none is shipped.

// ------------------------------------------------------------------------------------- building

function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "onclick") node.addEventListener("click", value);
    else if (value !== null) node.setAttribute(key, value);
  }
  node.append(...children);
  return node;
}

function drawn(tag, attributes, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

// -------------------------------------------------------------------------------------- profile

const WIDTH = 840;
const LEFT = 60;
const RIGHT = 20;

function armClass(name) {
  if (name === "raw" || name === "centered" || name === "whitened") return name;
  return name === "raw+auxk" ? "auxk" : "other";
}

function panel(layers, top, height, scale, ticks, title) {
  const step = (WIDTH - LEFT - RIGHT) / Math.max(layers.length, 1);
  const x = (layer) => LEFT + step * (layers.indexOf(layer) + 0.5);
  const y = (value) => top + height * (1 - scale(value));
  const group = drawn("g", {});
  for (const [value, text] of ticks) {
    group.append(drawn("line", { class: "grid", x1: LEFT, x2: WIDTH - RIGHT, y1: y(value), y2: y(value) }),
      drawn("text", { x: LEFT - 6, y: y(value) + 4, "text-anchor": "end" }, text));
  }
  group.append(drawn("text", { x: LEFT, y: top - 8 }, title));
  return { group, x, y };
}

// points: [layer, value, link, text] of one line; a point without a number breaks nothing.
function line(place, points, style, dashed) {
  const there = points.filter((point) => point[1] !== null);
  const path = there.map(([layer, value], i) => `${i ? "L" : "M"}${place.x(layer)} ${place.y(value)}`);
  const group = drawn("g", { class: style });
  group.append(drawn("path", { class: dashed ? "line dash" : "line", d: path.join("") || "M0 0" }));
  for (const [layer, value, link, text] of there) {
    const dot = drawn("circle", { class: dashed ? "dot hollow" : "dot", cx: place.x(layer),
      cy: place.y(value), r: 4 });
    const anchor = drawn("a", { href: link, "aria-label": text });
    anchor.append(dot, drawn("title", {}, text));
    group.append(anchor);
  }
  place.group.append(group);
}

// The cells of a model as one line per arm: the mean over seeds, linked to the first seed's record.
function byLayer(cells, column) {
  const layers = new Map();
  if (column < 0) return []; // a column that no cell has a number for
  for (const cell of cells) {
    if (!cell[6] || cell[6][column] === null) continue;
    if (!layers.has(cell[1])) layers.set(cell[1], []);
    layers.get(cell[1]).push(cell);
  }
  const about = DATA.cellColumns[column];
  return [...layers].sort(([a], [b]) => a - b).map(([layer, found]) => {
    const mean = found.reduce((sum, cell) => sum + cell[6][column], 0) / found.length;
    const seeds = found.length > 1 ? `, mean of ${found.length} cells` : "";
    return [layer, mean, found[0][5],
      `layer ${layer}, ${DATA.arms[found[0][2]]}: ${about.title} ${written(mean, about)}${seeds}`];
  });
}

function showProfile(chosen) {
  const section = byId("profile");
  section.hidden = chosen === null;
  section.replaceChildren();
  if (chosen === null) return;
  const model = DATA.models[chosen];
  const cells = DATA.cells.filter((cell) => cell[0] === chosen && cellFits(cell[2], cell[4]));
  const layers = [...new Set(cells.map((cell) => cell[1]))].sort((a, b) => a - b);
  const place = (title) => DATA.cellColumns.findIndex((column) => column.title === title);
  const gammas = byLayer(cells, place("gamma"));
  const values = gammas.map((point) => point[1]).filter((value) => value > 0);
  const low = Math.min(1, ...values) / 1.3;
  const high = Math.max(2, ...values) * 1.3;
  const steps = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000]
    .filter((tick) => tick >= low && tick <= high).map((tick) => [tick, String(tick)]);
  const logarithmic = (value) => Math.log(Math.max(value, low) / low) / Math.log(high / low);
  const upper = panel(layers, 30, 140, logarithmic, steps, "gamma");
  line(upper, gammas, "plain", false);
  const lower = panel(layers, 215, 220, (share) => share,
    [0, 0.2, 0.4, 0.6, 0.8, 1].map((tick) => [tick, `${100 * tick} %`]), "dead features, share of n");
  const legend = element("ul", { class: "legend" });
  DATA.arms.forEach((name, arm) => {
    const mine = cells.filter((cell) => cell[2] === arm);
    if (!mine.length) return;
    for (const [title, word, dashed] of [["Born dead %", "born dead", false],
      ["Dead at end %", "dead at the end", true]]) {
      line(lower, byLayer(mine, place(title)), armClass(name), dashed);
      legend.append(element("li", {}, element("span",
        { class: `${armClass(name)}${dashed ? " dashed" : ""}` }), `${name}, ${word}`));
    }
  });
  const predicted = byLayer(cells, place("Prediction %")); // older records have none
  for (const [layer, value] of predicted) {
    lower.group.append(drawn("line", { class: "tick", x1: lower.x(layer) - 8, x2: lower.x(layer) + 8,
      y1: lower.y(value), y2: lower.y(value) }));
  }
  if (predicted.length) {
    legend.append(element("li", {}, element("span", { class: "plain" }), "predicted, born dead"));
  }
  const every = Math.ceil(layers.length / 24);
  const names = layers.filter((_, i) => i % every === 0).map((layer) =>
    drawn("text", { x: lower.x(layer), y: 455, "text-anchor": "middle" }, String(layer)));
  const picture = drawn("svg", { viewBox: `0 0 ${WIDTH} 480`, role: "group",
    "aria-label": `Layers of ${model.label}: gamma, and features born dead and dead at the end by arm` });
  picture.append(upper.group, lower.group, ...names,
    drawn("text", { x: WIDTH / 2, y: 475, "text-anchor": "middle" }, "layer"));
  section.append(
    element("h2", { id: "profile-title", tabindex: "-1" }, `Layers of ${model.label}, ${model.data} data`),
    element("p", { class: "hint" }, DATA.settings[model.setting].name,
      ". A point leads to its record; the cells below hold the same numbers. ",
      element("button", { type: "button", id: "close", onclick: () => {
        choose({ model: "" });
        focusOn("model " + model.key);
      } }, "Close")),
    element("p", {}, model.details || ""), legend, element("div", { class: "wide" }, picture));
  section.append(...curves(cells, layers));
}

// What the cells of one layer did in training, the first seed of each arm.
function curves(cells, layers) {
  const trained = layers.filter((layer) => cells.some((cell) => cell[1] === layer && cell[8]));
  if (!trained.length) return [];
  const layer = trained.includes(Number(view.layer)) && view.layer !== "" ? Number(view.layer) : trained[0];
  const firsts = new Map();
  for (const cell of cells) {
    if (cell[1] === layer && cell[8] && !firsts.has(cell[2])) firsts.set(cell[2], cell);
  }
  const select = element("select", { id: "curve-layer", "data-name": "curve layer" },
    ...trained.map((each) => element("option", { value: String(each) }, String(each))));
  select.value = String(layer);
  select.addEventListener("change", () => choose({ layer: select.value }));
  const arms = [...firsts].map(([arm, cell]) => [DATA.arms[arm], cell[8]]);
  const chart = (title, parts) => stepChart(title, arms.flatMap(([arm, points]) =>
    parts.map(([word, place, dashed]) => [`${arm}${word}`, armClass(arm), dashed,
      points.map((point) => [point[0], point[place]])])));
  return [
    element("h3", {}, "In training"),
    element("label", { class: "inline" }, "Layer ", select),
    element("p", { class: "hint" }, "Colours are the arms, as above. Dead by ReLU is drawn solid, dead by TopK dashed."),
    element("div", { class: "curves" },
      chart("Dead, by path", [[" by ReLU", 1, false], [" by TopK", 2, true]]),
      chart("Born dead, revived for good", [["", 3, false]]),
      chart("Mean that the bias has learned", [["", 4, false]])),
  ];
}

// ------------------------------------------------------------------------------- gamma and death

// A colour and a shape each, as in the figures; on a black and white print the shape is enough.
const DOMAIN_MARKS = {
  language: ["centered", "circle"], vision: ["raw", "square"], protein: ["whitened", "triangle"],
  genomic: ["other", "diamond"], synthetic: ["plain", "cross"],
};
const SHAPES = {
  circle: "M-5 0A5 5 0 1 1 5 0A5 5 0 1 1 -5 0Z", square: "M-4.5 -4.5H4.5V4.5H-4.5Z",
  triangle: "M0 -5.5L5.5 4.5H-5.5Z", diamond: "M0 -6L6 0L0 6L-6 0Z",
  cross: "M-5 -3L-3 -5L0 -2L3 -5L5 -3L2 0L5 3L3 5L0 2L-3 5L-5 3L-2 0Z",
};
const markOf = (domain) => DOMAIN_MARKS[domain] || ["auxk", "circle"];

function mark(domain, x, y, hollow) {
  return drawn("path", { class: hollow ? "dot hollow" : "dot", d: SHAPES[markOf(domain)[1]],
    transform: `translate(${x} ${y})` });
}

// models: those shown; place: of gamma and of what is dead among a model's values; narrow: for a
// phone; open: what a point does with its model.
function gammaChart(models, expected, place, narrow, open) {
  const gamma = (model) => model.values[place.gamma];
  const dead = (model) => model.values[place.dead];
  const there = models.filter((model) => gamma(model) > 0 && typeof dead(model) === "number");
  const values = there.map(gamma);
  const low = Math.min(0.2, ...values) / 1.3;
  const high = Math.max(5, ...values) * 1.5;
  const [width, height, top, bottom] = narrow ? [380, 340, 16, 296] : [640, 360, 16, 316];
  const x = (value) => 52 + (width - 72) * Math.log(value / low) / Math.log(high / low);
  const y = (share) => bottom - (bottom - top) * share;
  const picture = drawn("svg", { viewBox: `0 0 ${width} ${height}`, role: "group",
    "aria-label": "Share of features born dead, by gamma, a point for each model" });
  for (const share of [0, 0.25, 0.5, 0.75, 1]) {
    picture.append(drawn("line", { class: "grid", x1: 52, x2: width - 20, y1: y(share), y2: y(share) }),
      drawn("text", { x: 46, y: y(share) + 4, "text-anchor": "end" }, `${100 * share} %`));
  }
  for (const tick of [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500]) {
    if (tick < low || tick > high || (narrow && /[25]/.test(tick))) continue;
    picture.append(drawn("text", { x: x(tick), y: bottom + 18, "text-anchor": "middle" }, String(tick)));
  }
  picture.append(drawn("text", { x: width / 2, y: height - 6, "text-anchor": "middle" },
    "gamma: length of the average over the spread"),
  drawn("text", { x: 56, y: top - 3 }, "features born dead"));
  const inside = expected.filter(([value]) => value >= low && value <= high);
  const path = inside.map(([value, share], i) => `${i ? "L" : "M"}${x(value)} ${y(share)}`).join("");
  if (path) picture.append(drawn("path", { class: "expected", d: path }));
  const taken = there.map((model) => [x(gamma(model)) - 6, y(dead(model)) - 6, 12, 12]);
  for (const model of there) {
    const text = `${model.label}, ${model.domain}, ${model.data} data: gamma ${number(gamma(model))}, `
      + `${percent(dead(model))} % born dead`;
    const point = drawn("a", { href: "#model=" + encodeURIComponent(model.key),
      class: markOf(model.domain)[0], "aria-label": text },
    mark(model.domain, x(gamma(model)), y(dead(model)), model.data === "made"),
    drawn("title", {}, text));
    point.addEventListener("click", (event) => {
      event.preventDefault();
      open(model);
    });
    picture.append(point);
    const spot = labelSpot(x(gamma(model)), y(dead(model)), model.label, taken, width, top, bottom);
    if (spot) picture.append(drawn("text", { x: spot[0], y: spot[1], "aria-hidden": "true" }, model.label));
  }
  const legend = element("ul", { class: "legend" },
    ...[...new Set(there.map((model) => model.domain))].sort().map((name) => element("li", {},
      drawn("svg", { viewBox: "-7 -7 14 14", class: markOf(name)[0], "aria-hidden": "true" },
        mark(name, 0, 0, false)), name)));
  if (path) legend.append(element("li", {}, element("span", { class: "soft dashed" }), "raw, expected from gamma"));
  return [picture, legend];
}

// Where a label stands free of what is taken; null where there is no room for it.
function labelSpot(x, y, text, taken, width, top, bottom) {
  const long = 7 * text.length;
  const spots = [[x + 9, y + 4], [x - 9 - long, y + 4], [x - long / 2, y - 11], [x - long / 2, y + 20]];
  for (const [left, base] of spots) {
    const box = [left, base - 11, long, 14];
    const fits = left > 54 && left + long < width - 2 && box[1] > top && base < bottom;
    const free = taken.every(([a, b, w, h]) =>
      box[0] > a + w || a > box[0] + box[2] || box[1] > b + h || b > box[1] + box[3]);
    if (fits && free) {
      taken.push(box);
      return [left, base];
    }
  }
  return null;
}

// ----------------------------------------------------------------------------- within a table row

// The features born dead as a bar in three parts.
function whyBar(dead, parts) {
  if (typeof dead !== "number") return "\u2014";
  const names = ["mean", "spectrum", "neither"];
  const known = parts.every((part) => typeof part === "number");
  const text = `${percent(dead)} % born dead` + (known
    ? `: ${names.map((name, i) => `${percent(parts[i])} points ${name}`).join(", ")}` : "");
  const bar = drawn("svg", { class: "bar", viewBox: "0 0 100 10", role: "img", "aria-label": text,
    preserveAspectRatio: "none" }, drawn("title", {}, text),
  drawn("rect", { class: "ground", x: 0, y: 0, width: 100, height: 10 }));
  let left = 0;
  (known ? parts : [dead]).forEach((part, i) => {
    const wide = 100 * Math.max(0, part);
    bar.append(drawn("rect", { class: known ? names[i] : "neither", x: left, y: 0, width: wide, height: 10 }));
    left += wide;
  });
  return bar;
}

// The share born dead from the first layer to the last.
function profileLine(model) {
  const there = model.profile.filter(([, share]) => share !== null);
  if (there.length < 2) return "\u2014";
  const first = there[0][0];
  const last = there[there.length - 1][0];
  const x = (layer) => 2 + 76 * (layer - first) / (last - first);
  const y = (share) => 18 - 16 * share;
  const most = there.reduce((a, b) => (b[1] > a[1] ? b : a));
  const text = `born dead by layer: ${percent(there[0][1])} % in layer ${first}, `
    + `${percent(there[there.length - 1][1])} % in layer ${last}, most in layer ${most[0]}, ${percent(most[1])} %`;
  return drawn("svg", { class: "spark", viewBox: "0 0 80 20", role: "img", "aria-label": text },
    drawn("title", {}, text), drawn("path", { class: "grid", d: "M2 18H78M2 2H78" }),
    drawn("path", { class: "line raw",
      d: there.map(([layer, share], i) => `${i ? "L" : "M"}${x(layer)} ${y(share)}`).join("") }));
}

// ---------------------------------------------------------------------------------------- curves

// lines: [name, class, dashed, points of [step, share]]; a share may be null.
function stepChart(title, lines) {
  const [width, height, left, bottom] = [300, 190, 46, 150];
  const steps = lines.flatMap(([, , , points]) => points.map(([step]) => step));
  const last = Math.max(10, ...steps);
  // Logarithmic in steps, with room for step 0.
  const x = (step) => left + (width - left - 10) * Math.log1p(step) / Math.log1p(last);
  const y = (share) => bottom - (bottom - 26) * Math.max(0, Math.min(1, share));
  const picture = drawn("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label":
    `${title} by training step. ` + lines.map(([name, , , points]) => {
      const known = points.filter(([, share]) => share !== null);
      return known.length ? `${name}: ${percent(known[known.length - 1][1])} % at the end` : "";
    }).filter(Boolean).join("; ") }, drawn("text", { x: left, y: 14 }, title));
  for (const share of [0, 0.5, 1]) {
    picture.append(drawn("line", { class: "grid", x1: left, x2: width - 10, y1: y(share), y2: y(share) }),
      drawn("text", { x: left - 5, y: y(share) + 4, "text-anchor": "end" }, `${100 * share} %`));
  }
  for (let step = 1; step <= last; step *= 10) {
    picture.append(drawn("text", { x: x(step), y: bottom + 16, "text-anchor": "middle" },
      step.toLocaleString("en")));
  }
  picture.append(drawn("text", { x: (left + width) / 2, y: height - 6, "text-anchor": "middle" },
    "training step"));
  for (const [, style, dashed, points] of lines) {
    const there = points.filter(([, share]) => share !== null);
    if (!there.length) continue;
    const d = there.map(([step, share], i) => `${i ? "L" : "M"}${x(step)} ${y(share)}`).join("");
    picture.append(drawn("g", { class: style }, drawn("path", { class: dashed ? "line dash" : "line", d })));
  }
  return picture;
}
