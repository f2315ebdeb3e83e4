// The operator's page: what the device is doing, polled while the page is open. The token stays in memory and is gone
// with the page. Rows are kept and updated in place, so that focus and reading position survive each poll.

import { call, DeviceError, useToken } from "./api.js";
import { drawIcons, el, icon, nameCells } from "./dom.js";
import { showLive } from "./live.js";
import { forgetPeople, showPeople, useBoard } from "./people.js";
import { showPromise } from "./promise.js";
import { has, language, LANGUAGES, preferred, put, say, use } from "./texts.js";

const POLL_MS = 2000;
const TIMEOUT_MS = 5000;
const TRACE_POINTS = 90;

const $ = (id) => document.getElementById(id);
const text = (tag, key, values, attributes = {}) => put(el(tag, attributes), key, values);
const queueTrace = [];
const rows = new Map();
let seen = null;
let locked = true;
let nextPoll;

// ---------------------------------------------------------------- words for numbers

const number = (value, digits = 0) =>
  new Intl.NumberFormat(language(), { maximumFractionDigits: digits, minimumFractionDigits: digits }).format(value);

function bytes(value) {
  const mib = value / 2 ** 20;
  return mib >= 1024 ? `${number(mib / 1024, 2)} GiB` : `${number(mib)} MiB`;
}

function milliseconds(value) {
  if (value === null || value === undefined) return "–";
  return value >= 1000 ? `${number(value / 1000, 2)} s` : `${number(value)} ms`;
}

function duration(seconds) {
  const days = Math.floor(seconds / 86_400);
  const hours = Math.floor((seconds % 86_400) / 3600);
  const minutes = Math.floor((seconds % 3600) / 60);
  if (days) return say("op_days", { days, hours });
  return hours ? say("op_hours", { hours, minutes }) : say("op_minutes", { minutes });
}

function word(prefix, value) {
  const key = `${prefix}_${value.replaceAll("-", "_")}`;
  return has(key) ? say(key) : value.replaceAll("_", " ");
}

// ---------------------------------------------------------------- polling

async function poll() {
  clearTimeout(nextPoll);
  if (locked) return;
  try {
    const reply = await call("GET", "/admin/status", { signal: AbortSignal.timeout(TIMEOUT_MS) });
    const status = await reply.json();
    if (locked) return;
    seen = { status, at: new Date() };
    queueTrace.push(status.queue.active);
    if (queueTrace.length > TRACE_POINTS) queueTrace.shift();
    banner(null);
    show();
    await showPeople(AbortSignal.timeout(TIMEOUT_MS));
  } catch (error) {
    if (!(error instanceof DeviceError)) throw error;
    if (error.status === 401 || error.status === 403) return lock();
    const at = seen?.at.toLocaleTimeString(language());
    banner(at ? "op_stale" : "offline", { at });
    document.body.dataset.stale = "";
  }
  nextPoll = setTimeout(poll, POLL_MS);
}

function banner(key, values) {
  $("banner").hidden = key === null;
  if (key) put($("banner"), key, values);
  else delete document.body.dataset.stale;
}

// ---------------------------------------------------------------- the board

function show() {
  const { status } = seen;
  $("board").hidden = false;
  $("device").textContent = `${status.device.site} / ${status.device.name}`;
  $("about").textContent = [
    `Outpost ${status.version}`,
    say("op_up", { time: duration(status.uptime_s) }),
    say("op_policy", { policy: status.policy }),
  ].join(" · ");
  showNotes(status);
  showFigures(status);
  showLive(status.live_risk, { word, refresh: poll, locked: lock });
  showMemory(status);
  showModels(status.models);
  showPromise(status);
  showDecisions(status.decisions);
  showKnowledge(status.knowledge);
}

function showNotes(status) {
  const notes = status.notes.map((note, i) => inWords(status.note_codes[i]) ?? note);
  if (status.retrieval === "keyword" && !status.notes.some((note) => note.includes("keyword"))) notes.unshift(say("op_note_keyword"));
  if (status.escalation.trouble) notes.push(say("op_trouble", { error: status.escalation.trouble }));
  $("notes").hidden = notes.length === 0;
  $("notes").replaceChildren(...notes.map((note) => el("li", {}, icon("warning"), el("span", {}, note))));
}

// A note in the page's language, or null for one that the device has in English only.
function inWords(coded) {
  const key = `op_note_${coded?.code}`;
  if (!has(key)) return null;
  return say(key, coded.route ? { ...coded, route: word("op_route", coded.route) } : coded);
}

function showFigures({ queue, latency_ms: latency, decisions, escalation }) {
  const total = decisions.reduce((sum, { decision, count }) => (decision === "revoked" ? sum : sum + count), 0);
  const here = decisions
    .filter(({ decision }) => decision === "local" || decision === "action")
    .reduce((sum, { count }) => sum + count, 0);
  const figure = (key, value, below) =>
    el("div", {}, text("dt", key), el("dd", {}, value), below ? el("dd", { class: "below" }, below) : null);
  $("figures").replaceChildren(
    figure("op_queue", `${number(queue.active)} / ${number(queue.limit)}`, trace(queueTrace, queue.limit)),
    figure("op_median", milliseconds(latency.p50), latency.count ? say("op_slowest", { time: milliseconds(latency.p95) }) : null),
    figure("op_questions", number(total), say("op_last_hour")),
    figure("op_outbox", number(escalation.outbox.waiting), escalationWords(escalation)),
    figure("op_here", total ? `${number((100 * here) / total)} %` : "–", say("op_here_of", { count: number(here) })),
  );
}

function escalationWords({ reason, online, outbox }) {
  if (reason) return word("op_escalation", reason);
  const share = number((100 * outbox.bytes) / outbox.limit_bytes);
  return `${say(online ? "op_escalation_online" : "op_escalation_offline")} · ${say("op_outbox_full", { share })}`;
}

// The queue over the last minutes; full height is its limit, but small numbers stay visible.
function trace(points, limit) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const top = Math.max(4, Math.min(limit, 1.25 * Math.max(...points)));
  const line = document.createElementNS("http://www.w3.org/2000/svg", "polyline");
  const at = (value, i) => `${TRACE_POINTS - points.length + i},${30 - (28 * value) / top}`;
  line.setAttribute("points", points.map(at).join(" "));
  svg.setAttribute("viewBox", `0 0 ${TRACE_POINTS} 32`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("class", "trace");
  svg.setAttribute("aria-hidden", "true");
  svg.append(line);
  return svg;
}

function showMemory({ memory, models }) {
  const parts = models
    .filter(({ pss_bytes: size }) => size > 0)
    .sort((a, b) => b.pss_bytes - a.pss_bytes)
    .map(({ name, pss_bytes: size }) => ({ name, size }));
  const words = say("op_memory_of", { used: bytes(memory.used_bytes), budget: bytes(memory.budget_bytes) });
  $("memory-words").textContent = `${words} · ${say("op_memory_control", { size: bytes(memory.control_bytes) })}`;
  $("memory-bar").setAttribute("aria-label", words);
  $("memory-bar").replaceChildren(
    ...parts.map(({ size }) => {
      const part = el("span");
      part.style.width = `${(100 * size) / Math.max(memory.budget_bytes, memory.used_bytes)}%`;
      return part;
    }),
  );
  $("memory-legend").replaceChildren(...parts.map(({ name, size }) => el("li", {}, el("b", {}, name), ` ${bytes(size)}`)));
}

// ---------------------------------------------------------------- models

function showModels(models) {
  for (const model of models) {
    if (!rows.has(model.name)) rows.set(model.name, newRow(model.name));
    rows.get(model.name).update(model);
  }
  for (const [name, row] of rows) {
    if (models.some((model) => model.name === name)) continue;
    row.node.remove();
    rows.delete(name);
  }
}

function newRow(name) {
  const state = el("p", { class: "state" });
  const facts = el("p", { class: "quiet" });
  const problem = el("p", { class: "problem-line" });
  const marks = el("p", { class: "marks" });
  const buttons = {
    load: control("load", name),
    unload: control("unload", name),
    "clear-quarantine": control("clear-quarantine", name),
  };
  const node = el(
    "li",
    {},
    el("div", {}, el("h3", {}, name), marks, facts, problem),
    state,
    el("div", { class: "choices" }, ...Object.values(buttons)),
  );
  $("models").append(node);
  return {
    node,
    update(model) {
      node.dataset.state = model.state;
      state.textContent = word("op_state", model.state);
      const running = model.pss_bytes > 0;
      facts.textContent = [
        word("op_kind", model.kind),
        running ? bytes(model.pss_bytes) : null,
        running ? say("op_active", { count: number(model.active) }) : null,
        say("op_loads", { count: number(model.loads) }),
        say("op_crashes", { count: number(model.crashes) }),
        model.pid ? `PID ${model.pid}` : null,
      ]
        .filter(Boolean)
        .join(" · ");
      marks.replaceChildren(
        ...(model.pinned ? [text("span", "op_pinned", undefined, { class: "chip" })] : []),
        ...(model.reference ? [text("span", "op_reference", undefined, { class: "chip" })] : []),
        ...model.notes.map((note) => el("span", { class: "chip warn" }, note)),
      );
      problem.textContent = model.last_error ? say("op_last_error", { error: model.last_error }) : "";
      const loaded = Boolean(model.pid);
      const held = model.state === "quarantined";
      buttons.load.hidden = loaded || held;
      buttons.unload.hidden = !loaded;
      buttons["clear-quarantine"].hidden = !held;
    },
  };
}

function control(verb, name) {
  const key = `op_do_${verb.replace("-", "_")}`;
  const button = el("button", { type: "button", class: "plain" }, text("span", key), el("span", { class: "unseen" }, ` ${name}`));
  button.addEventListener("click", async () => {
    button.disabled = true;
    put($("said"), "op_doing", { model: name });
    try {
      await call("POST", `/admin/models/${verb}`, { body: { model: name } });
      put($("said"), "op_did", { model: name });
    } catch (error) {
      if (!(error instanceof DeviceError)) throw error;
      if (error.status === 401) lock();
      put($("said"), "op_failed", { model: name, error: error.message });
    } finally {
      button.disabled = false;
      poll();
    }
  });
  return button;
}

// ---------------------------------------------------------------- decisions and knowledge

function showDecisions(decisions) {
  const most = Math.max(1, ...decisions.map(({ count }) => count));
  $("decisions-none").hidden = decisions.length > 0;
  $("decisions").replaceChildren(
    ...[...decisions]
      .sort((a, b) => b.count - a.count)
      .map(({ decision, reason, count }) => {
        const bar = el("span", { class: "bar", "data-decision": decision });
        bar.style.width = `${(100 * count) / most}%`;
        const revoked = decision === "revoked"; // not decided about a question: it stands in the same journal
        const label = el("th", { scope: "row" }, revoked ? say("op_live_revoked") : word("op_decision", decision));
        if (reason !== "confident" && !revoked) label.append(el("span", { class: "quiet" }, ` ${word("op_reason", reason)}`));
        label.append(bar);
        return el("tr", {}, label, el("td", { class: "n" }, number(count)));
      }),
  );
}

function showKnowledge(knowledge) {
  $("knowledge-none").hidden = knowledge.length > 0;
  $("knowledge").replaceChildren(
    ...knowledge.map(({ collection, documents, chunks, embedded }) =>
      el(
        "tr",
        {},
        el("th", { scope: "row" }, collection),
        el("td", { class: "n" }, number(documents)),
        el("td", { class: embedded < documents ? "n lacking" : "n" }, number(embedded)),
        el("td", { class: "n" }, number(chunks)),
      ),
    ),
  );
  nameCells($("knowledge"));
  $("knowledge").closest(".scroll").hidden = knowledge.length === 0;
}

// ---------------------------------------------------------------- the token

function lock() {
  locked = true;
  seen = null;
  useToken("");
  clearTimeout(nextPoll);
  $("board").hidden = true;
  $("models").replaceChildren();
  rows.clear();
  forgetPeople();
  queueTrace.length = 0;
  banner(null);
  if (!$("access").open) $("access").showModal();
  $("code").focus();
}

async function unlock(event) {
  event.preventDefault();
  useToken($("code").value.trim());
  $("code").value = "";
  $("code-wrong").textContent = "";
  try {
    await call("GET", "/admin/status", { signal: AbortSignal.timeout(TIMEOUT_MS) });
    locked = false;
    $("access").close();
    poll();
  } catch (error) {
    if (!(error instanceof DeviceError)) throw error;
    const refused = error.status === 401 || error.status === 403;
    put($("code-wrong"), refused ? "op_token_wrong" : "offline");
    $("code").focus();
  }
}

async function setLanguage(code) {
  await use(code);
  for (const button of $("languages").children) button.setAttribute("aria-pressed", String(button.lang === code));
  if (seen) show();
}

async function start() {
  drawIcons();
  useBoard({ poll, lock });
  for (const [code, { name }] of Object.entries(LANGUAGES)) {
    $("languages").append(
      el(
        "button",
        { type: "button", class: "plain", lang: code, "aria-pressed": "false", "aria-label": name, on: { click: () => setLanguage(code) } },
        el("span", { class: "long" }, name),
        el("span", { class: "short" }, code.toUpperCase()),
      ),
    );
  }
  $("access-form").addEventListener("submit", unlock);
  $("access").addEventListener("cancel", (event) => event.preventDefault());
  $("lock").addEventListener("click", lock);
  addEventListener("pagehide", lock);
  await setLanguage(preferred());
  lock();
}

start();
