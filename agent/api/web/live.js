// Whether the promise is kept: each route's live risk between its bounds, on the operator's page.

import { call, DeviceError } from "./api.js";
import { el, nameCells } from "./dom.js";
import { language, put, say } from "./texts.js";

const $ = (id) => document.getElementById(id);
let told = "";

const percent = (value) =>
  value === null
    ? "–"
    : new Intl.NumberFormat(language(), { style: "percent", maximumFractionDigits: 1 }).format(value);

// Drawn anew only when something changed, so that a focused button stays where it is.
export function showLive(live, page) {
  const now = JSON.stringify([language(), live]);
  if (now === told) return;
  told = now;
  $("live").replaceChildren(...live.routes.map((route) => row(route, page)));
  nameCells($("live"));
  $("live").closest(".scroll").hidden = live.routes.length === 0;
  $("live-none").hidden = live.routes.length > 0;
  const { barrier, today, per_day: most, waiting } = live.audits;
  const audits = say("op_live_audits", { today, most, waiting });
  $("live-audits").textContent = barrier ? `${audits} · ${page.word("op_escalation", barrier)}` : audits;
}

function row(route, page) {
  const name = el("th", { scope: "row" }, page.word("op_route", route.route));
  if (!route.certificate) name.append(el("span", { class: "quiet" }, ` ${say("op_live_uncertified")}`));
  const bounds = say("op_live_between", { low: percent(route.lower), high: percent(route.upper) });
  const risk = route.revoked
    ? [el("span", { class: "chip warn", title: route.revoked }, say("op_live_revoked")), " ", reinstate(route, page)]
    : [el("b", {}, percent(route.estimate)), el("span", { class: "quiet" }, ` ${bounds}`)];
  const judged = Object.values(route.labels).reduce((sum, count) => sum + count, 0);
  const wrong = Object.values(route.wrong).reduce((sum, count) => sum + count, 0);
  return el(
    "tr",
    {},
    name,
    el("td", {}, say("op_live_at_most", { share: percent(route.epsilon) })),
    el("td", {}, el("div", {}, ...risk)),
    el("td", {}, say("op_live_judgements", { judged, wrong })),
    el("td", {}, drift(route.drift)),
  );
}

function drift(found) {
  if (!found || found.psi === null) return "–";
  const value = new Intl.NumberFormat(language(), { maximumFractionDigits: 2 }).format(found.psi);
  return found.warning ? el("span", { class: "chip warn" }, say("op_live_drifted", { value })) : `PSI ${value}`;
}

function reinstate({ certificate }, page) {
  const button = el("button", { type: "button", class: "plain" }, say("op_live_reinstate"));
  button.addEventListener("click", async () => {
    button.disabled = true;
    try {
      await call("POST", `/admin/certificates/${encodeURIComponent(certificate)}/reinstate`);
      put($("live-said"), "op_live_reinstated", { certificate });
    } catch (error) {
      if (!(error instanceof DeviceError)) throw error;
      if (error.status === 401) page.locked();
      put($("live-said"), "op_live_failed", { error: error.message });
    } finally {
      button.disabled = false;
      page.refresh();
    }
  });
  return button;
}
