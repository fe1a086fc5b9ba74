"use strict";
// The page: two sortable tables, filters, and a model's layers. What is chosen stands in the
// address, so that a link keeps the view. Text from records is only ever set as text.

const DATA = GAMMABENCH;
const PAGE = 100;
const DEFAULTS = {
  setting: DATA.settings.length ? DATA.settings[0].key : "",
  domain: "", query: "", arm: "", state: "", model: "",
  modelSort: "2", modelDown: "1", cellSort: "", cellDown: "1",
};
const view = { ...DEFAULTS };
let shown = PAGE;

const byId = (id) => document.getElementById(id);

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

function number(value) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 999.5) return Math.round(value).toLocaleString("en");
  return size < 1e-3 ? value.toExponential(2) : value.toPrecision(3);
}

function percent(share) {
  if (share === 0 || Math.abs(share) === 1) return String(100 * share);
  const size = Math.abs(share);
  if (size < 0.0005) return share > 0 ? "<0.1" : ">-0.1";
  if (size > 0.9995 && size < 1) return share > 0 ? ">99.9" : "<-99.9";
  return (100 * share).toFixed(1);
}

function integer(value) {
  return Math.round(value).toLocaleString("en");
}

function epochs(passes) {
  return number(passes) + (passes > 5 ? " !" : "");
}

// By the names that the data gives them.
const FORMATS = { number, percent, integer, epochs };

function written(value, column) {
  if (value === null || value === undefined) return "\u2014";
  return FORMATS[column.show](value);
}

// ---------------------------------------------------------------------------------------- state

function readAddress() {
  Object.assign(view, DEFAULTS, Object.fromEntries(new URLSearchParams(location.hash.slice(1))));
  if (!DATA.settings.some((setting) => setting.key === view.setting)) {
    view.setting = DEFAULTS.setting;
  }
}

function writeAddress() {
  const kept = Object.entries(view).filter(([key, value]) => DEFAULTS[key] !== value);
  history.replaceState(null, "", "#" + new URLSearchParams(kept));
}

function choose(change) {
  Object.assign(view, change);
  shown = PAGE;
  writeAddress();
  // The tables are made anew: what was focused is found again by its name.
  const focused = document.activeElement && document.activeElement.dataset.name;
  show();
  if (focused) focusOn(focused);
}

function focusOn(name) {
  const found = document.querySelector(`[data-name="${CSS.escape(name)}"]`);
  if (found) found.focus();
}

function modelFits(model) {
  return DATA.settings[model.setting].key === view.setting
    && (!view.domain || model.domain === view.domain)
    && (!view.query || model.label.toLowerCase().includes(view.query.toLowerCase()));
}

// --------------------------------------------------------------------------------------- tables

// A column knows its title, the value to sort by, and how to make its cell.
const MODEL_COLUMNS = [
  { title: "Model", word: true, sort: (model) => model.label, cell: (model) =>
    element("button", { type: "button", "data-name": "model " + model.key,
      "aria-controls": "profile", "aria-expanded": String(view.model === model.key),
      onclick: () => choose({ model: view.model === model.key ? "" : model.key }) },
    model.label) },
  { title: "Domain", word: true, sort: (model) => model.domain, cell: (model) => model.domain },
  ...DATA.modelColumns.map((column, index) => ({
    title: column.title,
    meaning: column.meaning,
    sort: (model) => model.values[index],
    cell: (model) => written(model.values[index], column),
  })),
  { title: "Layers", sort: (model) => parseInt(model.layers, 10), cell: (model) => model.layers },
  { title: "Failed", sort: (model) => model.failed, cell: (model) => lost(model.failed) },
  { title: "Missing", sort: (model) => model.missing, cell: (model) => lost(model.missing) },
  { title: "Page", word: true, sort: null, cell: (model) =>
    element("a", { href: model.page, "aria-label": "markdown page of " + model.label }, "page") },
];

const CELL_COLUMNS = [
  { title: "Model", word: true, sort: (cell) => DATA.models[cell[0]].label,
    cell: (cell) => DATA.models[cell[0]].label },
  { title: "Layer", meaning: "the block, from 0; in parentheses the layer's number in published tables",
    sort: (cell) => cell[1], cell: layerName },
  { title: "Arm", word: true, sort: (cell) => cell[2], cell: (cell) => DATA.arms[cell[2]] },
  { title: "Seed", sort: (cell) => cell[3], cell: (cell) => String(cell[3]) },
  { title: "Record", word: true, sort: (cell) => cell[4], cell: recordLink },
  ...DATA.cellColumns.map((column, index) => ({
    title: column.title,
    meaning: column.meaning,
    sort: (cell) => (cell[6] ? cell[6][index] : null),
    cell: (cell) => (cell[6] ? written(cell[6][index], column) : "\u2014"),
  })),
  { title: "Reason", word: true, sort: null,
    cell: (cell) => (cell[7] ? element("span", { title: cell[7] }, cell[7]) : "") },
];

// A number of cells, marked where there are any.
function lost(count) {
  return count ? element("span", { class: "failed" }, String(count)) : "0";
}

function layerName(cell) {
  const { published } = DATA.models[cell[0]];
  return published && cell[1] in published ? `${cell[1]} (${published[cell[1]]})` : String(cell[1]);
}

function recordLink(cell) {
  const state = element("span", { class: cell[4] }, cell[4]);
  if (!cell[5]) return state;
  const [model, layer, arm, seed] = cell;
  const name = `${cell[4]}: record of ${DATA.models[model].label}, layer ${layer}, `
    + `${DATA.arms[arm]}, seed ${seed}`;
  return element("a", { href: cell[5], "aria-label": name }, state);
}

function compare(a, b) {
  if (typeof a === "string") return a.localeCompare(b, "en");
  return a - b;
}

function sorted(rows, columns, index, down) {
  const read = columns[index] && columns[index].sort;
  if (!read) return rows;
  const sign = down ? -1 : 1;
  // What has no number comes last, whichever way it is sorted.
  return rows.map((row) => [read(row), row]).sort(([a], [b]) => {
    if (a === null || b === null) return (a === null) - (b === null);
    return sign * compare(a, b);
  }).map(([, row]) => row);
}

function fill(table, caption, columns, rows, prefix, chosen) {
  const index = view[prefix + "Sort"] === "" ? -1 : Number(view[prefix + "Sort"]);
  const down = view[prefix + "Down"] === "1";
  const heads = columns.map((column, place) => {
    const order = place === index ? (down ? "descending" : "ascending") : "none";
    const head = element("th", { scope: "col", class: column.word ? "word" : null });
    if (!column.sort) {
      head.append(column.title);
      return head;
    }
    head.setAttribute("aria-sort", order);
    const turn = place === index ? !down : !column.word;
    head.append(element("button", { type: "button", title: column.meaning || null,
      "data-name": `${prefix} column ${place}`,
      onclick: () =>
        choose({ [prefix + "Sort"]: String(place), [prefix + "Down"]: turn ? "1" : "0" }),
    }, column.title));
    return head;
  });
  const body = element("tbody", {}, ...rows.map((row) =>
    element("tr", { class: chosen && chosen(row) ? "chosen" : null }, ...columns.map(
      (column, place) => element(place ? "td" : "th",
        { class: column.word ? "word" : null, scope: place ? null : "row" }, column.cell(row))))));
  table.replaceChildren(
    element("caption", { class: "skip" }, caption),
    element("thead", {}, element("tr", {}, ...heads)), body);
}

function show() {
  for (const key of ["setting", "domain", "arm", "state"]) byId(key).value = view[key];
  if (byId("query").value !== view.query) byId("query").value = view.query;
  const models = DATA.models.filter(modelFits);
  const fits = new Set(models.map((model) => DATA.models.indexOf(model)));
  const arm = DATA.arms.indexOf(view.arm);
  const chosen = DATA.models.findIndex((model) => model.key === view.model);
  const cells = DATA.cells.filter((cell) => fits.has(cell[0])
    && (!view.arm || cell[2] === arm) && (!view.state || cell[4] === view.state)
    && (chosen < 0 || cell[0] === chosen));
  fill(byId("models"), "Models", MODEL_COLUMNS,
    sorted(models, MODEL_COLUMNS, Number(view.modelSort), view.modelDown === "1"), "model",
    (model) => model.key === view.model);
  const order = sorted(cells, CELL_COLUMNS,
    view.cellSort === "" ? -1 : Number(view.cellSort), view.cellDown === "1");
  fill(byId("cells"), "Cells", CELL_COLUMNS, order.slice(0, shown), "cell");
  const left = order.length - shown;
  byId("more").hidden = left <= 0;
  byId("more").textContent = `Show ${Math.min(left, PAGE)} more of ${left}`;
  byId("count").textContent =
    `${models.length} of ${DATA.models.length} models, ${cells.length} of ${DATA.cells.length} cells`;
  showProfile(chosen < 0 ? null : chosen);
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
  const cells = DATA.cells.filter((cell) => cell[0] === chosen);
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
    for (const [title, word, dashed] of [["Init %", "init", false], ["End %", "end", true]]) {
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
    legend.append(element("li", {}, element("span", { class: "plain" }), "predicted, init"));
  }
  const every = Math.ceil(layers.length / 24);
  const names = layers.filter((_, i) => i % every === 0).map((layer) =>
    drawn("text", { x: lower.x(layer), y: 455, "text-anchor": "middle" }, String(layer)));
  const picture = drawn("svg", { viewBox: `0 0 ${WIDTH} 480`, role: "group",
    "aria-label": `Layers of ${model.label}: gamma, and dead features at init and end by arm` });
  picture.append(upper.group, lower.group, ...names,
    drawn("text", { x: WIDTH / 2, y: 475, "text-anchor": "middle" }, "layer"));
  section.append(
    element("h2", { id: "profile-title" }, `Layers of ${model.label}`),
    element("p", { class: "hint" }, DATA.settings[model.setting].name,
      ". A point leads to its record; the cells below hold the same numbers. ",
      element("button", { type: "button", id: "close", onclick: () => {
        choose({ model: "" });
        focusOn("model " + model.key);
      } }, "Close")),
    legend, element("div", { class: "wide" }, picture));
}

// ---------------------------------------------------------------------------------------- start

function start() {
  for (const setting of DATA.settings) {
    byId("setting").append(element("option", { value: setting.key }, setting.name));
  }
  for (const domain of DATA.domains) byId("domain").append(element("option", { value: domain }, domain));
  for (const arm of DATA.arms) byId("arm").append(element("option", { value: arm }, arm));
  const explained = new Map([...DATA.modelColumns, ...DATA.cellColumns]
    .map((column) => [column.title, column.meaning]));
  for (const [title, meaning] of explained) {
    byId("columns").append(element("dt", {}, title), element("dd", {}, meaning));
  }
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  for (const key of ["setting", "domain", "arm", "state"]) {
    byId(key).addEventListener("change", (event) => choose({ [key]: event.target.value, model: "" }));
  }
  byId("query").addEventListener("input", (event) => choose({ query: event.target.value, model: "" }));
  // The address holds the view, so a link within the page would lose it.
  byId("skip").addEventListener("click", (event) => {
    event.preventDefault();
    byId("models-region").focus();
  });
  byId("reset").addEventListener("click", () => choose({ ...DEFAULTS }));
  byId("more").addEventListener("click", () => {
    shown += PAGE;
    show();
  });
  window.addEventListener("hashchange", () => {
    readAddress();
    show();
  });
  readAddress();
  show();
}

start();
