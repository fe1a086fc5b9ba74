"use strict";
// The page: findings, a chart, two sortable tables, filters, and a model's layers. What is chosen
// stands in the address, so that a link keeps the view. Text from records is only ever set as text.

const DATA = GAMMABENCH;
const PAGE = 100;
const NO_FILTER = { domain: "", data: "", query: "", arm: "", state: "", model: "" };
const DEFAULTS = {
  setting: DATA.settings.length ? DATA.settings[0].key : "",
  ...NO_FILTER,
  // The bar of a row says what the first three do; the others are for who looks closer.
  hidden: "Due to mean %,Due to spectrum %,Due to neither %,Prediction %,Pred. error,Saved at end",
  compare: "", layer: "",
  modelSort: "3", modelDown: "1", cellSort: "", cellDown: "1", saeSort: "", saeDown: "1",
};
const FILTERS = ["setting", "domain", "data", "arm", "state"];
const view = { ...DEFAULTS };
let shown = PAGE;

const byId = (id) => document.getElementById(id);

// ------------------------------------------------------------------------------------- numbers

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
  // Halves go to the even digit, as the boards write them.
  const tenths = 1000 * share;
  const below = Math.floor(tenths);
  if (tenths - below === 0.5) return ((below % 2 ? below + 1 : below) / 10).toFixed(1);
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

// The arms and states of each model's cells: filters of cells leave the models that have such cells.
const CELLS_OF = new Map(DATA.models.map((model) => [model, []]));
for (const [index, , arm, , state] of DATA.cells) CELLS_OF.get(DATA.models[index]).push([arm, state]);

function cellFits(arm, state) {
  return (!view.arm || DATA.arms[arm] === view.arm) && (!view.state || state === view.state);
}

function fitsFilters(model) {
  return (!view.domain || model.domain === view.domain)
    && (!view.data || model.data === view.data)
    && (!view.query || model.label.toLowerCase().includes(view.query.toLowerCase()))
    && CELLS_OF.get(model).some(([arm, state]) => cellFits(arm, state));
}

function modelFits(model) {
  return DATA.settings[model.setting].key === view.setting && fitsFilters(model);
}

// Of a column's arm, where it has one: the chosen arm's columns are shown, else those of raw and centered.
function armFits(column) {
  if (!column.arm) return true;
  return view.arm ? column.arm === view.arm : column.usual !== false;
}

// --------------------------------------------------------------------------------------- tables

const columnNamed = (title) => DATA.modelColumns.findIndex((column) => column.title === title);
const PLACE = {
  gamma: columnNamed("gamma"),
  dead: columnNamed("Born dead % raw"),
  parts: ["mean", "spectrum", "neither"].map((part) => columnNamed(`Due to ${part} %`)),
};
const SMALL = matchMedia("(max-width: 40rem)");
// A column knows its title, the value to sort by, and how to make its cell.
const MODEL_COLUMNS = [
  { title: "Model", word: true, sort: (model) => model.label, cell: (model) => {
    const box = element("input", { type: "checkbox", "data-name": "compare " + model.key, title: "compare",
      "aria-label": "compare " + model.label, onclick: () => turnCompared(model.key) });
    box.checked = compared().includes(model.key);
    return element("div", { class: "name" }, box,
      element("button", { type: "button", "data-name": "model " + model.key,
        "aria-controls": "profile", "aria-expanded": String(view.model === model.key),
        onclick: () => (view.model === model.key ? choose({ model: "" }) : openModel(model)) },
      model.label));
  } },
  { title: "Domain", word: true, sort: (model) => model.domain, cell: (model) => model.domain },
  { title: "Data", word: true, meaning: "real data, or data that a program made", sort: (model) => model.data,
    cell: (model) => model.data },
  ...DATA.modelColumns.map((column, index) => ({
    ...column,
    sort: (model) => model.values[index],
    cell: (model) => {
      const text = written(model.values[index], column);
      return column.settles ? markedEnd(text, settledWords(model, column.arm)) : text;
    },
  })),
  { title: "Why dead", word: true, arm: "raw", meaning: "features born dead: due to the mean, to the spectrum, the rest",
    sort: (model) => model.values[PLACE.dead], cell: (model) => whyBar(model.values[PLACE.dead],
      PLACE.parts.map((place) => model.values[place])) },
  { title: "By layer", word: true, arm: "raw", meaning: "features born dead from the first layer to the last, 0 to 100 %",
    sort: null, cell: profileLine },
  { title: "Layers", sort: (model) => parseInt(model.layers, 10), cell: (model) => model.layers },
  { title: "Failed", sort: (model) => model.failed, cell: (model) => lost(model.failed) },
  { title: "Missing", sort: (model) => model.missing, cell: (model) => lost(model.missing) },
  { title: "Page", word: true, sort: null, cell: (model) =>
    element("a", { href: model.page, "aria-label": "markdown page of " + model.label }, "page") },
];

// What a phone shows before one scrolls sideways, and what follows at once.
const PHONE_FIRST = ["Born dead % raw", "Why dead", "Dead at end % raw", "Dead at end % centered",
  "Born dead % centered", "gamma"];

// The places of the columns that are shown, in their order: death comes first on a phone, words
// last; columns that are empty, or that were put away, are left out.
function shownColumns(columns, rows, hidden) {
  const places = columns.map((_, place) => place).filter((place) => {
    const { sort, title, name, word } = columns[place];
    if (hidden.has(name || title) || !armFits(columns[place])) return false;
    if (!sort || word || !rows.length) return true;
    const values = rows.map(sort);
    if (title === "Failed" || title === "Missing") return values.some((value) => value > 0);
    return values.some((value) => value !== null && value !== undefined);
  });
  if (columns !== MODEL_COLUMNS) return places;
  const rank = (place) => {
    const { title } = columns[place];
    if (title === "Model") return 0;
    if (SMALL.matches) {
      const first = PHONE_FIRST.indexOf(title);
      return first >= 0 ? first + 1 : PHONE_FIRST.length + place + (columns[place].word ? 1000 : 1);
    }
    if (title === "Why dead") return whyPlace;
    return title === "By layer" ? whyPlace + 0.2 : place;
  };
  const whyPlace = columns.findIndex((column) => column.title === "Born dead % raw") + 0.5;
  return places.sort((a, b) => rank(a) - rank(b));
}

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
    cell: (cell) => {
      const text = cell[6] ? written(cell[6][index], column) : "\u2014";
      return column.settles ? markedEnd(text, cell[9] === false ? "not settled" : "") : text;
    },
  })),
  { title: "Reason", word: true, sort: null,
    cell: (cell) => (cell[7] ? element("span", { title: cell[7] }, cell[7]) : "") },
];

// SAEs of others: a table of its own, below the filters' reach.
const SAES = DATA.publishedSaes || { columns: [], rows: [] };
const SAE_COLUMNS = [
  { title: "SAE", word: true, sort: (sae) => sae.name, cell: (sae) =>
    element("a", { href: sae.record, "aria-label": "record of " + sae.name }, sae.name) },
  { title: "Model", word: true, sort: (sae) => sae.model, cell: (sae) => sae.model },
  { title: "Layer", sort: (sae) => sae.layer, cell: (sae) => String(sae.layer) },
  { title: "Data", word: true, sort: (sae) => sae.data, cell: (sae) => sae.data },
  { title: "Family", word: true, sort: (sae) => sae.family, cell: (sae) => sae.family },
  ...SAES.columns.map((column, index) => ({
    title: column.title,
    meaning: column.meaning,
    sort: (sae) => sae.values[index],
    cell: (sae) => written(sae.values[index], column),
  })),
  { title: "Measured on", word: true, sort: (sae) => sae.measured, cell: (sae) => sae.measured },
  { title: "Failed", word: true, sort: null, cell: (sae) => sae.reason || "" },
];

function showPublished() {
  byId("published").hidden = !SAES.rows.length;
  const index = view.saeSort === "" ? -1 : Number(view.saeSort);
  const order = sorted(SAES.rows, SAE_COLUMNS, index, view.saeDown === "1");
  fill(byId("saes"), "Published SAEs", SAE_COLUMNS, order, "sae");
}

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

function fill(table, caption, columns, rows, prefix, chosen, hidden = new Set()) {
  const places = shownColumns(columns, rows, hidden);
  const index = view[prefix + "Sort"] === "" ? -1 : Number(view[prefix + "Sort"]);
  const down = view[prefix + "Down"] === "1";
  const heads = places.map((place) => {
    const column = columns[place];
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
  // Where nothing is left the table says so too.
  const none = rows.length || !DATA.models.length ? [] : [element("tr", {},
    element("td", { class: "word none", colspan: String(places.length) }, ...noMatch()))];
  const body = element("tbody", {}, ...none, ...rows.map((row) =>
    element("tr", { class: chosen && chosen(row) ? "chosen" : null }, ...places.map((place) =>
      element(place ? "td" : "th", { class: columns[place].word ? "word" : null,
        scope: place ? null : "row" }, columns[place].cell(row))))));
  table.replaceChildren(
    element("caption", { class: "skip" }, caption),
    element("thead", {}, element("tr", {}, ...heads)), body);
}

function show() {
  for (const key of FILTERS) byId(key).value = view[key];
  if (byId("query").value !== view.query) byId("query").value = view.query;
  const away = hiddenColumns();
  for (const box of document.querySelectorAll("#choices input")) box.checked = !away.has(box.value);
  const models = DATA.models.filter(modelFits);
  const fits = new Set(models.map((model) => DATA.models.indexOf(model)));
  const chosen = DATA.models.findIndex((model) => model.key === view.model);
  const cells = DATA.cells.filter((cell) => fits.has(cell[0])
    && cellFits(cell[2], cell[4])
    && (chosen < 0 || cell[0] === chosen));
  fill(byId("models"), "Models", MODEL_COLUMNS,
    sorted(models, MODEL_COLUMNS, Number(view.modelSort), view.modelDown === "1"), "model",
    (model) => model.key === view.model, hiddenColumns());
  showFindings(models);
  showComparison();
  showPublished();
  const order = sorted(cells, CELL_COLUMNS,
    view.cellSort === "" ? -1 : Number(view.cellSort), view.cellDown === "1");
  fill(byId("cells"), "Cells", CELL_COLUMNS, order.slice(0, shown), "cell");
  const left = order.length - shown;
  byId("more").hidden = left <= 0;
  byId("more").textContent = `Show ${Math.min(left, PAGE)} more of ${left}`;
  byId("count").textContent = `${namesOf(models).size} of ${namesOf(DATA.models).size} models, `
    + `${cells.length} of ${DATA.cells.length} cells`;
  byId("causes").hidden = Boolean(view.arm) && view.arm !== "raw"; // the bars are of the raw arm
  byId("settled").textContent = settledSentence(models);
  showProfile(chosen < 0 ? null : chosen);
}

const hiddenColumns = () => new Set(view.hidden ? view.hidden.split(",") : []);

// What the records say of the models that are shown, and their chart.
function showFindings(models) {
  const said = !DATA.models.length ? [["There are no records yet."]]
    : models.length ? findings(models).map((text) => [text]) : [noMatch()];
  byId("findings").replaceChildren(...said.map((parts) => element("li", {}, ...parts)));
  const setting = DATA.settings.find((each) => each.key === view.setting);
  const arm = view.arm || "raw";
  byId("chart-title").textContent = `Features born dead${arm === "raw" ? "" : `, ${arm}`}, by the length of the average`;
  // The formula is that of the raw arm.
  byId("chart").replaceChildren(...gammaChart(models, setting && arm === "raw" ? setting.expected : [],
    { gamma: PLACE.gamma, dead: columnNamed(`Born dead % ${arm}`) }, SMALL.matches, openModel));
}

// Opens a model's layers, and leads there: they stand below the table.
function openModel(model) {
  choose({ model: model.key });
  leadTo("profile");
}

function leadTo(id) {
  byId(id).scrollIntoView({ block: "start" });
  byId(id + "-title").focus({ preventScroll: true });
}

// Where the page is published; a file on somebody's disk has no address to cite.
function address() {
  return /^https?:$/.test(location.protocol) ? `\n${location.origin}${location.pathname}` : "";
}

// ---------------------------------------------------------------------------------------- start

function start() {
  const { versions, newest } = DATA.about;
  const version = versions.length ? `version ${versions.join(", ")}` : "version unknown";
  byId("meta").textContent = `${version}; newest record of ${newest || "no day"}; `
    + `${namesOf(DATA.models).size} models, ${DATA.cells.length} cells`;
  byId("cite").textContent = `gammabench, ${version}, results of ${newest || "no day"}.\n`
    + "Simon, Adams, Zou (2026): On the Relationship Between Activation Outliers and Feature Death\n"
    + "in Sparse Autoencoders. arXiv:2605.31518." + address();
  for (const title of new Set(DATA.modelColumns.map((column) => column.name))) {
    const box = element("input", { type: "checkbox", value: title });
    box.addEventListener("change", () => {
      const hidden = hiddenColumns();
      if (box.checked) hidden.delete(title);
      else hidden.add(title);
      choose({ hidden: [...hidden].join(",") });
    });
    byId("choices").append(element("label", {}, box, title));
  }
  byId("to-comparison").addEventListener("click", () => leadTo("comparison"));
  byId("csv").addEventListener("click", () => download("csv"));
  byId("json").addEventListener("click", () => download("json"));
  const files = typeof GAMMABENCH_FILES === "undefined" ? {} : GAMMABENCH_FILES;
  byId("files").append(...Object.keys(files).map((name) =>
    element("a", { href: name, download: name }, `All ${name.replace(".parquet", "")} (Parquet)`)));
  byId("filters-fold").open = !SMALL.matches;
  SMALL.addEventListener("change", () => {
    byId("filters-fold").open = !SMALL.matches;
    show();
  });
  for (const setting of DATA.settings) {
    byId("setting").append(element("option", { value: setting.key }, setting.name));
  }
  for (const domain of DATA.domains) byId("domain").append(element("option", { value: domain }, domain));
  for (const arm of DATA.arms) byId("arm").append(element("option", { value: arm }, arm));
  const explained = new Map([...DATA.modelColumns, ...DATA.cellColumns, ...SAES.columns]
    .map((column) => [column.name || column.title, column.meaning]));
  for (const [title, meaning] of explained) {
    byId("columns").append(element("dt", {}, title), element("dd", {}, meaning));
  }
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  for (const key of FILTERS) {
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
