// The questions that wait for a person, on the operator's page: read, answer, teach the device, or leave be. A row keeps
// its place and what was typed into it while the page polls.

import { call, DeviceError } from "./api.js";
import { el } from "./dom.js";
import { has, language, put, say } from "./texts.js";

const $ = (id) => document.getElementById(id);
const text = (tag, key, values, attributes = {}) => put(el(tag, attributes), key, values);
const rows = new Map();
let refresh = () => {};
let locked = () => {};

// `poll` shows the board anew, `lock` is called where the token is no longer good.
export function useBoard({ poll, lock }) {
  refresh = poll;
  locked = lock;
}

export async function showPeople(signal) {
  const reply = await call("GET", "/admin/handoffs", { signal });
  const { handoffs } = await reply.json();
  for (const [id, row] of rows) {
    if (handoffs.some((shown) => shown.event_id === id && shown.state === row.state)) continue;
    row.node.remove();
    rows.delete(id);
  }
  for (const [i, shown] of handoffs.entries()) {
    if (!rows.has(shown.event_id)) rows.set(shown.event_id, shown.state === "handed_off" ? asked(shown) : answered(shown));
    const row = rows.get(shown.event_id);
    row.update(shown);
    // a node that is in its place is not touched: moving it would take the focus from its field
    if ($("cases").children[i] !== row.node) $("cases").insertBefore(row.node, $("cases").children[i] ?? null);
  }
  $("cases-none").hidden = handoffs.length > 0;
}

export function forgetPeople() {
  rows.clear();
  $("cases").replaceChildren();
  $("cases-said").textContent = "";
}

function why(reason) {
  const key = `op_reason_${reason}`;
  return has(key) ? say(key) : reason.replaceAll("_", " ");
}

function about({ waiting_s: waiting, collection, reason, state, personal, session }) {
  const minutes = Math.round(waiting / 60);
  const since = new Intl.RelativeTimeFormat(language(), { numeric: "auto", style: "short" });
  const age = minutes < 60 ? since.format(-minutes, "minute") : since.format(-Math.round(minutes / 60), "hour");
  const parts = [
    age,
    collection,
    state === "handed_off" ? why(reason) : null,
    personal ? say("op_case_personal") : null,
    session ? say("op_case_session", { session }) : null,
  ];
  return parts.filter(Boolean).join(" · ");
}

function asked(shown) {
  const meta = el("p", { class: "quiet" });
  const id = `answer-${shown.event_id}`;
  const box = el("textarea", { id, rows: "2", maxlength: "20000", spellcheck: "true", dir: "auto" });
  const send = el("button", { type: "button", class: "sign" }, text("span", "op_case_send"));
  const teach = el("button", { type: "button", class: "plain" }, text("span", "op_case_teach"));
  const leave = el("button", { type: "button", class: "plain" }, text("span", "op_case_dismiss"));
  const path = `/admin/handoffs/${encodeURIComponent(shown.event_id)}`;
  const answer = (button, learn) => () => {
    if (!box.value.trim()) return box.focus();
    return act(button, () => call("POST", `${path}/answer`, { body: { text: box.value, learn } }), "op_case_sent");
  };
  send.addEventListener("click", answer(send, false));
  teach.addEventListener("click", answer(teach, true));
  leave.addEventListener("click", () => act(leave, () => call("POST", `${path}/dismiss`, { body: {} }), "op_case_dismissed"));
  const found = el("details", {}, text("summary", "op_case_found"), ...shown.passages.map((found) => el("blockquote", { dir: "auto" }, found)));
  const node = el(
    "li",
    {},
    el("h3", { lang: shown.language, dir: "auto" }, shown.question),
    meta,
    shown.passages.length ? found : null,
    text("label", "op_case_answer", undefined, { for: id }),
    box,
    el("div", { class: "choices" }, send, teach, leave),
  );
  return { node, state: shown.state, update: (now) => (meta.textContent = about(now)) };
}

function answered(shown) {
  const meta = el("p", { class: "quiet" });
  const learn = el("button", { type: "button", class: "plain" }, text("span", "op_case_learn_now"));
  const learned = text("p", "op_case_learned", undefined, { class: "quiet" });
  const path = `/admin/handoffs/${encodeURIComponent(shown.event_id)}/learn`;
  learn.addEventListener("click", () => act(learn, () => call("POST", path, { body: {} }), "op_case_taught"));
  const node = el(
    "li",
    {},
    el("h3", { lang: shown.language, dir: "auto" }, shown.question),
    meta,
    el("p", { class: "said", lang: shown.language, dir: "auto" }, shown.answer.text),
    el("div", { class: "choices" }, learn),
    learned,
  );
  return {
    node,
    state: shown.state,
    update(now) {
      meta.textContent = `${say("from_person")} · ${about(now)}`;
      learn.hidden = now.learned;
      learned.hidden = !now.learned;
    },
  };
}

async function act(button, work, done) {
  button.disabled = true;
  try {
    await work();
    put($("cases-said"), done);
  } catch (error) {
    if (!(error instanceof DeviceError)) throw error;
    if (error.status === 401) return locked();
    put($("cases-said"), "op_case_failed", { error: error.message });
  } finally {
    button.disabled = false;
  }
  return refresh();
}
