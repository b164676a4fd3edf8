// The tab About: the card of each bundled model.

import { element } from "./worklist.js";

function table({ protocol, rows }, name) {
  const columns = [...new Set(rows.flatMap((row) => Object.keys(row)))];
  const cell = (value) => (typeof value === "number" ? String(Math.round(value * 1000) / 1000) : (value ?? ""));
  const head = element("tr", {}, ...columns.map((title) => element("th", { scope: "col", textContent: title })));
  const body = rows.map((row) => element("tr", {}, ...columns.map((title) => element("td", { textContent: cell(row[title]) }))));
  const caption = element("caption", { textContent: `${name} (${protocol})` });
  const scroll = element("div", { className: "scroll", tabIndex: 0 }, element("table", {}, caption, head, ...body));
  scroll.setAttribute("role", "region");
  scroll.setAttribute("aria-label", name);
  return scroll;
}

function describe(model) {
  const size = `${(model.parameters / 1e6).toFixed(1)} M parameters, ${(model.bytes / 2 ** 20).toFixed(1)} MiB`;
  return element(
    "details",
    {},
    element("summary", {}, element("strong", { textContent: model.name }), ` – ${model.kind}, ${model.modality}: ${model.description}`),
    element("p", { textContent: `${size}. Licence: ${model.licence}.` }),
    ...(model.data.length ? [element("p", { textContent: "Trained on:" }), element("ul", {}, ...model.data.map((line) => element("li", { textContent: line })))] : []),
    ...Object.entries(model.metrics).map(([name, measured]) => table(measured, name)),
  );
}

export function showAbout(about) {
  document.getElementById("version").textContent = about.version;
  document.getElementById("models").replaceChildren(...about.models.map(describe));
}
