"use strict";
// Two to four models beside each other.

const MOST_COMPARED = 4;
const compared = () => (view.compare ? view.compare.split(",") : []);

// Chosen by a tick in its row; a fifth one takes the place of the first.
function turnCompared(key) {
  const keys = compared().filter((each) => each !== key);
  if (!compared().includes(key)) keys.push(key);
  choose({ compare: keys.slice(-MOST_COMPARED).join(",") });
}

function showComparison() {
  const section = byId("comparison");
  const models = compared().map((key) => DATA.models.find((model) => model.key === key)).filter(Boolean);
  section.hidden = models.length < 2;
  section.replaceChildren();
  byId("ticked").textContent = models.length === 1 ? `${models[0].label} is ticked; tick another one to compare them.` : "";
  byId("to-comparison").hidden = section.hidden;
  byId("to-comparison").textContent = `See the comparison of ${models.length} models`;
  if (section.hidden) return;
  const rows = DATA.modelColumns.map((column, index) => [column, models.map((model) => model.values[index])])
    .filter(([column, values]) => armFits(column) && values.some((value) => value !== null));
  section.append(
    element("h2", { id: "comparison-title", tabindex: "-1" }, "Compared"),
    element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Comparison of models" },
      element("table", {}, element("caption", { class: "skip" }, "Models beside each other"),
        element("thead", {}, element("tr", {}, element("th", { scope: "col", class: "word" }, "Number"),
          ...models.map((model) => element("th", { scope: "col" }, model.label)))),
        element("tbody", {}, element("tr", {}, element("th", { scope: "row", class: "word" }, "Data"),
          ...models.map((model) => element("td", {}, model.data))), ...rows.map(([column, values]) =>
          element("tr", {}, element("th", { scope: "row", class: "word", title: column.meaning }, column.title),
            ...values.map((value, i) => element("td", {}, column.settles
              ? markedEnd(written(value, column), settledWords(models[i], column.arm))
              : written(value, column)))))))),
    element("button", { type: "button", onclick: () => choose({ compare: "" }) }, "End comparison"));
}
