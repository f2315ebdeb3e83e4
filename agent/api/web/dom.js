// Building nodes. Text only ever becomes a text node; the content security policy forbids markup from strings anyway.

export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "class") node.className = value;
    else if (name === "on") for (const [event, act] of Object.entries(value)) node.addEventListener(event, act);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

// Name each cell of a table's body after its column: on a phone a row is a list.
export function nameCells(body) {
  const heads = [...body.closest("table").querySelectorAll("thead th")].map((head) => head.textContent);
  for (const row of body.rows) [...row.cells].forEach((cell, i) => (cell.dataset.head = heads[i]));
}

// Icons are drawn from here and not from a file, so that they are there when the device is not. Each is one line, drawn
// on a square of 24.
const LINES = {
  again: "M4 12a8 8 0 1 0 2.5-5.800M4 3.500v4.500h4.5",
  cloud: "M7 19a4.5 4.5 0 0 1-.6-9A6 6 0 0 1 18 10.5 4.3 4.3 0 0 1 17.5 19z",
  cross: "m6 6 12 12M18 6 6 18",
  document: "M6 3h8l4 4v14H6zM14 3v4h4M9 12h6M9 16h6",
  done: "m4.5 12.5 5 5 10-11",
  globe: "M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18zM3 12h18M12 3c-5 5.5-5 12.5 0 18 5-5.5 5-12.5 0-18z",
  key: "M8 12a4 4 0 1 0 0 8 4 4 0 0 0 0-8zM11 13 20 4M16.5 7.500l3 3",
  letters: "m2.5 19 6-15 6 15M4.8 13.500h7.400M19 11v8M15.5 15h7",
  person: "M12 11a4 4 0 1 0 0-8 4 4 0 0 0 0 8zM4 21c0-4 3.5-6.5 8-6.5s8 2.5 8 6.5",
  question: "M8 8.500a4 4 0 1 1 6 3.500c-1.3.8-2 1.5-2 3M12 19v.1",
  warning: "M12 3.5 22 20.500H2zM12 10v5M12 17.800v.1",
};
const SVG = "http://www.w3.org/2000/svg";

export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "icon");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  const line = document.createElementNS(SVG, "path");
  line.setAttribute("d", LINES[name]);
  svg.append(line);
  return svg;
}

// Draw the icons that the page's markup names by data-icon.
export function drawIcons() {
  for (const place of document.querySelectorAll("[data-icon]")) place.prepend(icon(place.dataset.icon));
}
