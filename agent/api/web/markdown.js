// The part of Markdown that documents' quotes hold (headings, lists, tables, code, emphasis), as DOM nodes.
// Links and images become their text: a visitor must not be led away from the page by a document.

import { el } from "./dom.js";
import { say } from "./texts.js";

const ITEM = /^(\s*)(?:[-*+]|(\d{1,9})[.)])\s+(.*)$/;
const HEADING = /^ {0,3}(#{1,6})\s+(.*?)\s*#*\s*$/;
const RULE = /^ {0,3}([-*_])(?:\s*\1){2,}\s*$/;
const DIVIDER = /^\s*\|?\s*:?-+:?\s*(?:\|\s*:?-+:?\s*)*\|?\s*$/;
const FENCE = /^\s*(`{3,}|~{3,})/;

export function render(text) {
  const lines = text.replace(/\r\n?/g, "\n").split("\n");
  const blocks = document.createDocumentFragment();
  let at = 0;
  while (at < lines.length) {
    const line = lines[at];
    if (!line.trim()) at += 1;
    else if (FENCE.test(line)) at = code(lines, at, blocks);
    else if (isTable(lines, at)) at = table(lines, at, blocks);
    else if (HEADING.test(line)) {
      blocks.append(el("p", { class: "heading" }, inline(HEADING.exec(line)[2])));
      at += 1;
    } else if (RULE.test(line)) at += 1;
    else if (ITEM.test(line)) at = list(lines, at, blocks);
    else at = paragraph(lines, at, blocks);
  }
  return blocks;
}

function startsBlock(lines, at) {
  const line = lines[at];
  return !line.trim() || FENCE.test(line) || HEADING.test(line) || ITEM.test(line) || isTable(lines, at);
}

function paragraph(lines, at, blocks) {
  const node = el("p");
  let from = at;
  do {
    const line = lines[at].replace(/^\s*(?:>\s?)*/, "");
    if (at > from) node.append(/(?: {2,}|\\)$/.test(lines[at - 1]) ? el("br") : " ");
    node.append(inline(line.replace(/(?:\s+|\\)$/, "")));
    at += 1;
  } while (at < lines.length && !startsBlock(lines, at));
  blocks.append(node);
  return at;
}

function list(lines, at, blocks) {
  const [, indent, number] = ITEM.exec(lines[at]);
  const node = el(number ? "ol" : "ul", number && number !== "1" ? { start: String(Number(number)) } : {});
  let item = null;
  while (at < lines.length) {
    const match = ITEM.exec(lines[at]);
    if (match && match[1].length > indent.length + 1 && item) at = list(lines, at, item);
    else if (match && match[1].length >= indent.length && Boolean(match[2]) === Boolean(number)) {
      item = el("li", {}, inline(match[3].replace(/^\[[ xX]\]\s+/, "").trim()));
      node.append(item);
      at += 1;
    } else if (!match && item && lines[at].trim() && !startsBlock(lines, at)) {
      item.append(" ", inline(lines[at].trim()));
      at += 1;
    } else if (!lines[at].trim() && at + 1 < lines.length && (ITEM.exec(lines[at + 1])?.[1].length ?? -1) >= indent.length)
      at += 1;
    else break;
  }
  blocks.append(node);
  return at;
}

function isTable(lines, at) {
  return lines[at].includes("|") && at + 1 < lines.length && lines[at + 1].includes("-") && DIVIDER.test(lines[at + 1]);
}

function cells(line) {
  const inside = line.trim().replace(/^\|/, "").replace(/(?<!\\)\|$/, "");
  return inside.split(/(?<!\\)\|/).map((cell) => cell.replaceAll("\\|", "|").trim());
}

function table(lines, at, blocks) {
  const head = cells(lines[at]);
  const body = el("tbody");
  const node = el(
    "table",
    {},
    el("thead", {}, el("tr", {}, ...head.map((cell) => el("th", { scope: "col" }, inline(cell))))),
    body,
  );
  at += 2;
  while (at < lines.length && lines[at].trim() && lines[at].includes("|")) {
    body.append(el("tr", {}, ...cells(lines[at]).map((cell, i) => el("td", { "data-head": plain(head[i]) }, inline(cell)))));
    at += 1;
  }
  // wide tables scroll inside their own frame, reachable by keyboard
  const frame = { class: "scroll", tabindex: "0", role: "group", "data-label": "table", "aria-label": say("table") };
  blocks.append(el("div", frame, node));
  return at;
}

const plain = (cell = "") => inline(cell).textContent;

function code(lines, at, blocks) {
  const fence = FENCE.exec(lines[at])[1];
  const from = at + 1;
  do at += 1;
  while (at < lines.length && !lines[at].trim().startsWith(fence));
  blocks.append(el("pre", { tabindex: "0" }, lines.slice(from, at).join("\n")));
  return at + 1;
}

// Each way of marking up a run of text: what it looks like and the node that it becomes.
const RUNS = [
  [/\\([!-/:-@[-`{-~])/, (match) => match[1]],
  [/`+([^`]+)`+/, (match) => el("code", {}, match[1])],
  [/!\[([^\]]*)\]\([^()\s]*(?:\s+"[^"]*")?\)/, (match) => match[1]],
  [/\[([^\]]+)\]\([^()\s]*(?:\([^()]*\))?[^()\s]*(?:\s+"[^"]*")?\)/, (match) => inline(match[1])],
  [/<((?:https?:\/\/|mailto:)[^>\s]+|[^>\s@]+@[^>\s]+)>/, (match) => match[1].replace(/^mailto:/, "")],
  [/\*\*\*(?=\S)(.+?)(?<=\S)\*\*\*/, (match) => el("strong", {}, el("em", {}, inline(match[1])))],
  [/\*\*(?=\S)(.+?)(?<=\S)\*\*(?!\*)/, (match) => el("strong", {}, inline(match[1]))],
  [/(?<!\w)__(?=\S)(.+?)(?<=\S)__(?!\w)/, (match) => el("strong", {}, inline(match[1]))],
  [/\*(?=[^\s*])(.+?)(?<=[^\s*])\*(?!\*)/, (match) => el("em", {}, inline(match[1]))],
  [/(?<!\w)_(?=[^\s_])(.+?)(?<=[^\s_])_(?!\w)/, (match) => el("em", {}, inline(match[1]))],
  [/<br\s*\/?>/i, () => el("br")],
];

function inline(text) {
  const nodes = document.createDocumentFragment();
  let rest = text;
  while (rest) {
    let first = null;
    for (const [pattern, make] of RUNS) {
      const match = pattern.exec(rest);
      if (match && (first === null || match.index < first.match.index)) first = { match, make };
    }
    if (first === null) break;
    nodes.append(rest.slice(0, first.match.index), first.make(first.match));
    rest = rest.slice(first.match.index + first.match[0].length);
  }
  nodes.append(rest);
  return nodes;
}
