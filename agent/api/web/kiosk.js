// The kiosk page: one visitor's conversation, from the first question until it is ended by a button, by idle time or by
// leaving the page. Then nothing of it stays: not on the screen, not in the input, not in memory, not on the device.

import { ask, call, DeviceError, status, useToken } from "./api.js";
import { Turn } from "./answer.js";
import { drawIcons, el } from "./dom.js";
import { language, languageNames, LANGUAGES, named, preferred, put, use } from "./texts.js";

const MAX_TURNS = 8;
const WARNING_S = 15;
const POLL_MS = 15_000;
const FIRST_RETRY_MS = 1000;
const LAST_RETRY_MS = 5000;
const LONG_POLL_S = 25;

// what the device says of an action that its intent has no words for
const BARE_REPLY = "OK.";

const $ = (id) => document.getElementById(id);
const device = { idle: 90, bestEffort: false, languages: [] };

// ---------------------------------------------------------------- the visit

let visit = newVisit();

function newVisit() {
  return {
    session: null,
    turns: [],
    asked: 0,
    running: null,
    lastAnswer: null,
    touched: false,
    over: new AbortController(),
  };
}

function randomId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

// End the visit and forget it here and on the device.
function end(noticeKey) {
  const old = visit;
  visit = newVisit();
  old.running?.abort();
  old.over.abort();
  $("send").setAttribute("aria-disabled", "false");
  if (old.session) {
    // the device ends the session by its own idle time where this does not reach it
    call("DELETE", `/v1/sessions/${old.session}`, { keepalive: true }).catch(() => {});
  }
  $("log").replaceChildren();
  freshInput();
  getSelection().removeAllRanges();
  for (const dialog of document.querySelectorAll("dialog#idle[open]")) dialog.close();
  setTextSize(0);
  notice(noticeKey);
  show();
}

// A new textarea: the old one's undo history would bring the last visitor's words back.
function freshInput() {
  const old = $("question");
  const fresh = old.cloneNode(false);
  fresh.value = "";
  fresh.removeAttribute("style");
  old.replaceWith(fresh);
  listenToInput(fresh);
  fresh.focus({ preventScroll: true });
}

function show() {
  const talking = visit.turns.length > 0;
  document.body.dataset.state = talking ? "talking" : "welcome";
  $("welcome").hidden = talking;
  $("start-over").hidden = !talking && !visit.touched;
}

// Bring a turn's question to the top, so that its answer is read from its beginning.
function showTurn(turn) {
  turn.node.scrollIntoView({ block: "start", behavior: "instant" });
}

function notice(key, values) {
  if (key) put($("notice"), key, values);
  else {
    $("notice").textContent = "";
    delete $("notice").dataset.text;
  }
}

// ---------------------------------------------------------------- asking

async function submit(question) {
  if (visit.running || !question.trim()) return;
  const here = visit;
  here.session ??= randomId();
  here.running = new AbortController();
  here.touched = true;
  notice();
  const turn = new Turn(question.trim(), (here.asked += 1));
  here.turns.push(turn);
  while (here.turns.length > MAX_TURNS) here.turns.shift().node.remove();
  $("log").append(turn.node);
  show();
  $("send").setAttribute("aria-disabled", "true");
  showTurn(turn);
  try {
    await follow(here, turn, question.trim());
  } catch (error) {
    if (here === visit) fail(here, turn, question.trim(), error);
  } finally {
    here.running = null;
    if (here === visit) {
      $("send").setAttribute("aria-disabled", "false");
      stillHere();
    }
  }
}

async function follow(here, turn, question) {
  let outpost = null;
  for await (const chunk of ask(question, here.session, here.running)) {
    if (here !== visit) return;
    const piece = chunk.choices?.[0]?.delta?.content;
    if (piece) turn.append(piece);
    if (chunk.outpost?.stage) turn.stage(chunk.outpost.stage);
    if (chunk.outpost?.decision) outpost = chunk.outpost;
  }
  if (here !== visit) return;
  if (outpost === null) throw new DeviceError("cut");
  const after = await act(outpost.action, here, turn);
  if (here !== visit) return;
  turn.finish(outpost, {
    bestEffort: device.bestEffort,
    notice: after,
    rate: (rating) => call("POST", "/v1/feedback", { body: { event_id: outpost.event_id, rating } }),
  });
  if (outpost.action === null && turn.streamed) here.lastAnswer = turn.streamed;
  showTurn(turn);
  if (["deferred", "handoff"].includes(outpost.decision)) awaitAnswer(here, turn, outpost.event_id);
}

// Follow a question that somebody else will answer, until they did, nobody will, or the visit is over.
async function awaitAnswer(here, turn, id) {
  let seen = null;
  while (here === visit && here.turns.includes(turn)) {
    const query = seen === null ? "" : `?wait=${LONG_POLL_S}&seen=${seen}`;
    try {
      const reply = await call("GET", `/v1/events/${encodeURIComponent(id)}${query}`, { signal: here.over.signal });
      const event = await reply.json();
      if (here !== visit) return;
      if (event.answer) return arrived(here, turn, event.answer, id);
      if (event.state !== seen) turn.waits(event.state === null ? null : `wait_${event.state}`);
      if (event.state === null || event.state === "expired") return;
      seen = event.state;
    } catch (error) {
      if (error.name === "AbortError" || error.status === 404) return;
      if (!(error instanceof DeviceError)) throw error;
      await new Promise((resolve) => setTimeout(resolve, LAST_RETRY_MS));
    }
  }
}

function arrived(here, turn, answer, id) {
  turn.arrived(answer, (rating) => call("POST", "/v1/feedback", { body: { event_id: id, rating } }));
  here.lastAnswer = answer.text;
  stillHere();
  if (here.turns.at(-1) === turn && !here.running) showTurn(turn);
}

function fail(here, turn, question, error) {
  if (!(error instanceof DeviceError)) {
    console.error(error);
    error = new DeviceError("page_error", { message: String(error) });
  }
  if (error.status === 401) askForCode();
  if (error.code === "network") checkSoon();
  const [key, values] = inPlainWords(error);
  turn.fail(key, values, error, () => {
    here.turns.splice(here.turns.indexOf(turn), 1);
    turn.node.remove();
    submit(question);
  });
}

function inPlainWords({ code, status, retryAfter }) {
  if (code === "network" || code === "cut") return [`error_${code}`];
  if (code === "slow" || code === "deadline_exceeded") return ["error_slow"];
  if (code === "shutting_down") return ["error_restarting"];
  if (status === 429 || code === "overloaded") return ["error_busy", { seconds: Math.max(1, retryAfter) }];
  if (status === 413 || code === "input_too_large" || code === "context_length_exceeded") return ["error_long"];
  if (status === 401 || status === 403) return ["error_access"];
  if (status === 400 || status === 422) return ["error_request"];
  if (status === 503 || code === "worker_crashed" || code === "unavailable") return ["error_unavailable"];
  return ["error_other"];
}

// ---------------------------------------------------------------- what an answer makes the page do

// Run an action of the device on this page. What to say of it: the intent's own words where it has some, else ours.
async function act(action, here, turn) {
  if (!action) return undefined;
  const done = await run(action, here, turn);
  return ["", BARE_REPLY].includes(turn.streamed.trim()) ? done : undefined;
}

async function run(action, here, turn) {
  const given = action.arguments ?? {};
  switch (action.name) {
    case "session.reset":
      end("ended");
      return undefined;
    case "language.set": {
      const code = named(given.language ?? "");
      if (code) await setLanguage(code);
      const languages = Object.values(LANGUAGES).map(({ name }) => name);
      return code
        ? { key: "action_language", done: true }
        : { key: "action_language_unknown", values: { languages: languages.join(", ") } };
    }
    case "display.larger_text":
      setTextSize(textSize() + 1);
      return { key: "action_larger_text", done: true };
    case "audio.louder":
      return { key: "action_louder" };
    case "audio.quieter":
      return { key: "action_quieter" };
    case "map.print":
      return given.floor ? { key: "action_map_floor", values: { floor: given.floor } } : { key: "action_map" };
    case "answer.repeat":
      if (here.lastAnswer === null) return { key: "action_nothing_to_repeat" };
      turn.streamed = here.lastAnswer;
      return undefined;
    default:
      return { key: "action_other", values: { action: action.name }, done: true };
  }
}

const textSize = () => Number(document.documentElement.dataset.size ?? 0);

function setTextSize(size) {
  document.documentElement.dataset.size = String(Math.min(2, Math.max(0, size)));
  $("text-size").setAttribute("aria-pressed", String(textSize() > 0));
  if (visit.turns.length) showTurn(visit.turns.at(-1));
}

async function setLanguage(code) {
  await use(code);
  for (const button of $("languages").children) {
    button.setAttribute("aria-pressed", String(button.lang === code));
  }
  hintLanguages();
}

// ---------------------------------------------------------------- idle time

let idleSince = performance.now();

function stillHere() {
  idleSince = performance.now();
  if ($("idle").open) $("idle").close();
}

// Any sign of life outside the dialog's own buttons keeps the visit.
function noticeActivity(event) {
  if (event.target === $("idle") || !$("idle").contains(event.target)) stillHere();
}

function touched() {
  if (!visit.touched) {
    visit.touched = true;
    show();
  }
}

function watchIdle() {
  if (visit.running) idleSince = performance.now();
  if (!visit.touched) return;
  const left = device.idle - (performance.now() - idleSince) / 1000;
  if (left <= 0) {
    end("ended");
    setLanguage(preferred());
  } else if (left <= Math.min(WARNING_S, device.idle / 2)) {
    $("idle-left").textContent = String(Math.ceil(left));
    if (!$("idle").open) {
      $("idle").showModal();
      $("stay").focus();
    }
  }
}

// ---------------------------------------------------------------- the device

let nextCheck;
let retry = FIRST_RETRY_MS;

async function check() {
  clearTimeout(nextCheck);
  try {
    const now = await status();
    retry = FIRST_RETRY_MS;
    device.idle = now.session_idle_s;
    device.bestEffort = now.policy === "best-effort";
    device.languages = now.languages;
    $("may-leave").hidden = !now.may_leave;
    $("place").textContent = placeName(now.device.site);
    document.title = `${placeName(now.device.site)} · Outpost`;
    hintLanguages();
    banner(now.ready ? null : "starting");
    nextCheck = setTimeout(check, now.ready ? POLL_MS : FIRST_RETRY_MS);
  } catch (error) {
    if (!(error instanceof DeviceError)) throw error;
    if (error.status === 401) askForCode();
    else banner("offline");
    retry = Math.min(LAST_RETRY_MS, retry * 1.5);
    nextCheck = setTimeout(check, retry);
  }
}

function checkSoon() {
  retry = FIRST_RETRY_MS;
  check();
}

function placeName(site) {
  return site.replace(/-/g, " ").replace(/(^|\s)\S/g, (letter) => letter.toUpperCase());
}

function banner(key) {
  $("banner").hidden = key === null;
  if (key) put($("banner"), key);
}

// Questions are answered in the device's languages, which may not be the screen's.
function hintLanguages() {
  if (device.languages.length === 0 || device.languages.includes(language())) put($("hint"), "privacy_note");
  else put($("hint"), "question_languages", { languages: languageNames(device.languages) });
}

function askForCode() {
  if ($("access").open) return;
  $("access").showModal();
  $("code").focus();
}

async function tryCode(event) {
  event.preventDefault();
  useToken($("code").value.trim());
  $("code").value = "";
  try {
    await status();
    $("access").close();
    check();
  } catch {
    put($("code-wrong"), "code_wrong");
    $("code").focus();
  }
}

// ---------------------------------------------------------------- listeners

function listenToInput(input) {
  input.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    $("ask").requestSubmit();
  });
  input.addEventListener("input", touched);
}

function listen() {
  listenToInput($("question"));
  $("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    const input = $("question");
    if (visit.running || !input.value.trim()) return input.focus();
    const question = input.value;
    freshInput();
    return submit(question);
  });
  $("start-over").addEventListener("click", () => end("ended"));
  $("leave").addEventListener("click", () => end("ended"));
  $("stay").addEventListener("click", stillHere);
  $("text-size").addEventListener("click", () => {
    setTextSize(textSize() === 2 ? 0 : textSize() + 1);
    touched();
  });
  $("access-form").addEventListener("submit", tryCode);
  for (const event of ["pointerdown", "keydown", "input", "wheel", "touchmove"]) {
    addEventListener(event, noticeActivity, { passive: true, capture: true });
  }
  $("idle").addEventListener("close", stillHere);
  addEventListener("pagehide", () => end());
}

function offerLanguages() {
  for (const [code, { name }] of Object.entries(LANGUAGES)) {
    const choose = () => {
      touched();
      setLanguage(code);
    };
    $("languages").append(
      el(
        "button",
        { type: "button", class: "plain", lang: code, "aria-pressed": "false", "aria-label": name, on: { click: choose } },
        el("span", { class: "long" }, name),
        el("span", { class: "short" }, code.toUpperCase()),
      ),
    );
  }
}

function takeTokenFromAddress() {
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (!given) return;
  useToken(given);
  history.replaceState(null, "", location.pathname);
}

async function start() {
  takeTokenFromAddress();
  drawIcons();
  offerLanguages();
  listen();
  await setLanguage(preferred());
  freshInput();
  check();
  setInterval(watchIdle, 250);
}

start();
