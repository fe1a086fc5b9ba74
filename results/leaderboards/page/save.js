"use strict";
// What the page shows as a file that the browser makes.

// The models that are shown, as a table or as objects, in a file that the browser makes.
function download(kind) {
  const models = DATA.models.filter(modelFits);
  const titles = ["model", "domain", "data", "protocol", "settled", ...DATA.modelColumns.map((column) => column.title)];
  // Shares in percent, as their columns' titles say.
  const titled = (value, index) =>
    value !== null && DATA.modelColumns[index].show === "percent" ? 100 * value : value;
  const rows = models.map((model) =>
    [model.label, model.domain, model.data, DATA.settings[model.setting].name,
      settledCount(model), ...model.values.map(titled)]);
  const quoted = (value) => {
    if (value === null) return "";
    // A spreadsheet would run what begins so.
    const text = typeof value === "string" ? value.replace(/^[=+\-@]/, "'$&") : String(value);
    return /[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const text = kind === "csv"
    ? [titles, ...rows].map((row) => row.map(quoted).join(",")).join("\r\n") + "\r\n"
    : JSON.stringify(rows.map((row) => Object.fromEntries(row.map((value, i) => [titles[i], value]))), null, 1);
  const type = kind === "csv" ? "text/csv" : "application/json";
  const address = URL.createObjectURL(new Blob([text], { type }));
  element("a", { href: address, download: `gammabench-models.${kind}` }).click();
  setTimeout(() => URL.revokeObjectURL(address), 1000);
}

// Of all arms, for the files.
function settledCount(model) {
  const sum = (place) => Object.values(model.settled).reduce((total, pair) => total + pair[place], 0);
  return sum(1) ? `${sum(0)} of ${sum(1)} cells` : null;
}
