// What the operator has promised, what keeps it, who answered during the last day and what the cloud may still cost.

import { el, nameCells } from "./dom.js";
import { has, language, put, say } from "./texts.js";

const $ = (id) => document.getElementById(id);

const number = (value, digits = 0) => new Intl.NumberFormat(language(), { maximumFractionDigits: digits }).format(value);

const share = (value) => (value === null || value === undefined ? "–" : `${number(100 * value, 1)} %`);

function word(prefix, value) {
  const key = `${prefix}_${value.replaceAll("-", "_")}`;
  return has(key) ? say(key) : value.replaceAll("_", " ");
}

export function showPromise({ promise, serving, budget, escalation, audit }) {
  put($("promise-words"), "op_promise_words", {
    risk: share(promise.epsilon),
    certainty: share(1 - promise.delta),
  });
  $("promise").replaceChildren(...promise.routes.map(row));
  nameCells($("promise"));
  $("serving-words").textContent = serving.questions
    ? say("op_serving", {
        count: number(serving.questions),
        here: share(serving.local_coverage),
        away: share(serving.escalation_rate),
      })
    : "";
  $("budget-words").hidden = escalation.reason === "escalation_disabled";
  put($("budget-words"), "op_budget", {
    requests: spent(budget.requests),
    tokens: spent(budget.tokens),
    money: spent(budget.money, 2),
  });
  put($("audit-words"), "op_audit", { entries: number(audit.entries), head: audit.head });
}

function row(route) {
  const holds = route.certificate !== null;
  const certificate = el("td", { class: holds ? null : "lacking" }, holds ? route.certificate : word("op_lacks", route.reason));
  if (route.detail) certificate.title = route.detail;
  return el(
    "tr",
    {},
    el("th", { scope: "row" }, word("op_route", route.route)),
    el("td", { class: "n" }, share(route.epsilon)),
    certificate,
    el("td", { class: "n" }, share(route.coverage)),
    el("td", { class: "n" }, share(route.risk_upper)),
  );
}

const spent = ({ spent: used, limit }, digits = 0) => say("op_spent", { used: number(used, digits), limit: number(limit, digits) });
