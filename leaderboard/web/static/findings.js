"use strict";
// The words at the top of the page, of the models that the filters leave, and the mark of a death
// that had not settled.

// `a`, `a and b`, `a, b and c`, as the boards write it.
function listed(parts) {
  if (parts.length < 2) return parts.join("");
  return `${parts.slice(0, -1).join(", ")} and ${parts[parts.length - 1]}`;
}

// What the records say of these models: those with many features born dead have a sentence each, up
// to a handful, and the others share some. The same as `leaderboard/findings.py` says of all.
function findings(models) {
  const { mostTold, little, dataKinds } = DATA.about;
  const many = models.filter((model) => model.finding).sort((a, b) => a.rank - b.rank);
  const said = many.slice(0, mostTold).map((model) => model.finding);
  const rest = many.slice(mostTold);
  if (rest.length) {
    const others = rest.map((model) => `${model.label} (${percent(model.born)} %)`);
    said.push(`${rest.length} further model${rest.length === 1 ? "" : "s"} with features born dead: `
      + `${listed(others)}.`);
  }
  for (const kind of dataKinds) {
    const few = models.filter((model) => !model.finding && model.born !== null && model.data === kind);
    if (few.length) {
      said.push(`In ${listed(few.map((model) => model.label))}, on ${kind} data, `
        + `fewer than ${little} of the features are born dead.`);
    }
  }
  return said.length ? said : ["Nothing is known yet: no cell of these models was measured."];
}

// What is looked for, where no model is like it: one line, with the way out.
function noMatch() {
  const asked = [view.query && `\u201c${view.query}\u201d`, view.domain && `domain ${view.domain}`,
    view.data && `${view.data} data`, view.arm && `arm ${view.arm}`,
    view.state && `${view.state} cells`].filter(Boolean).join(", ");
  const elsewhere = namesOf(DATA.models.filter(fitsFilters)).size;
  const hint = elsewhere
    ? ` under this protocol; under another one ${elsewhere === 1 ? "1 does" : `${elsewhere} do`}` : "";
  return [`No model matches ${asked}${hint}. `,
    element("button", { type: "button", "data-name": "clear",
      onclick: () => choose({ ...NO_FILTER }) }, "Clear filters")];
}

// Models are counted by their names: one that was measured by several protocols is one.
const namesOf = (models) => new Set(models.map((model) => model.name));

// --------------------------------------------------------------------------------------- settled

const UNSETTLED = "\u21c5";

// A number of death at the end; marked, in words too, where it had not settled.
function markedEnd(text, words) {
  if (!words) return text;
  return element("span", { title: words }, element("span",
    { class: "unsettled", role: "img", "aria-label": words + ":" }, UNSETTLED), text);
}

// In how many cells of an arm death at the end had settled; empty where all had, or none was judged.
function settledWords(model, arm) {
  const [settled, judged] = model.settled[DATA.arms.indexOf(arm)] || [0, 0];
  if (settled === judged) return "";
  return settled ? `settled in ${settled} of ${judged} cells` : "not settled";
}

// Of the models that are shown, as the boards say it of all.
function settledSentence(models) {
  const arm = DATA.arms.indexOf(view.arm);
  let [settled, judged] = [0, 0];
  for (const model of models) {
    for (const [place, [some, all]] of Object.entries(model.settled)) {
      if (view.arm && Number(place) !== arm) continue;
      settled += some;
      judged += all;
    }
  }
  if (!judged) return "";
  const about = `Death at the end had settled in ${settled} of ${judged} cell${judged === 1 ? "" : "s"}`
    + ` of these models: ${DATA.about.settledBy}.`;
  return settled === judged ? about : `${about} ${UNSETTLED} marks a number that had not: the share `
    + "of dead features was still changing, or training was too short to tell.";
}
