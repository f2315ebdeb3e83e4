// One turn of the conversation as nodes: the question, its progress, the answer with its sources, or an error.

import { el, icon } from "./dom.js";
import { render } from "./markdown.js";
import { has, language, put, say } from "./texts.js";

const text = (tag, key, values, attributes = {}) => put(el(tag, attributes), key, values);

// How each decision looks: its tone (colour) and its sign.
const LOOKS = {
  local: ["good", "document"],
  action: ["good", "done"],
  ask_back: ["care", "question"],
  refused: ["care", "cross"],
  escalated: ["person", "cloud"],
  deferred: ["person", "again"],
  handoff: ["person", "person"],
};
const HIGH = 0.8;
const MIDDLE = 0.5;

export class Turn {
  constructor(question, number) {
    this.words = el("div", { class: "words", dir: "auto" });
    this.verdict = el("p", { class: "verdict" });
    this.body = el("div", { class: "answer", "data-tone": "wait", "aria-busy": "true" }, this.verdict, this.words);
    this.node = el(
      "article",
      { class: "turn", "aria-labelledby": `asked-${number}` },
      el(
        "h2",
        { class: "asked", id: `asked-${number}`, tabindex: "-1" },
        text("span", "you_asked", undefined, { class: "unseen" }),
        " ",
        el("span", { dir: "auto" }, question),
      ),
      this.body,
    );
    this.streamed = "";
    this.stage("waiting");
  }

  stage(name) {
    const key = has(`stage_${name}`) ? `stage_${name}` : "stage_waiting";
    this.verdict.replaceChildren(el("span", { class: "walker", "aria-hidden": "true" }), text("span", key));
  }

  // New text of the answer as it arrives, unformatted until it is whole.
  append(piece) {
    this.streamed += piece;
    this.words.textContent = this.streamed;
  }

  // The whole answer. `bestEffort`: the policy serves uncertified answers; `notice`: what the page did of an action, or
  // that it can't (`done` false); `rate(rating)` sends feedback and resolves when it was taken.
  finish(outpost, { bestEffort, notice, rate }) {
    const decision = notice && !notice.done ? "refused" : outpost.decision;
    const [tone, sign] = LOOKS[decision] ?? LOOKS.handoff;
    this.body.dataset.tone = tone;
    this.verdict.replaceChildren(icon(sign), el("span", {}, ...verdict(decision, outpost), ...chips(outpost, bestEffort)));
    const content = [];
    const said = this.streamed.trim();
    const source = outpost.answer_kind === "quote" ? outpost.sources[0] : undefined;
    this.words.lang = outpost.language || language();
    this.words.classList.toggle("quoted", source !== undefined);
    this.words.replaceChildren(render(said));
    const deferred = decision === "deferred";
    if (!said || notice || deferred) this.words.remove();
    if (deferred) content.push(text("p", "deferred_note", undefined, { class: "words" }), because(outpost));
    if (notice) content.push(text("p", notice.key, notice.values, { class: "words" }));
    if (outpost.decision === "handoff") content.push(handoff(outpost, said));
    if (outpost.cloud?.cut) content.push(because(outpost));
    const rest = source ? outpost.sources.filter((other) => other !== source) : outpost.sources;
    if (source) content.push(cite(source));
    if (rest.length) content.push(sources(rest, source ? "sources_more" : "sources"));
    if (["local", "action", "escalated"].includes(decision)) content.push(feedback(rate));
    content.push(details(outpost));
    this.body.append(...content.filter(Boolean));
    this.done();
  }

  // What the visitor waits for now, or null for nothing.
  waits(key) {
    if (key === null) return this.later?.remove();
    this.later ??= el("p", { class: "later", role: "status" });
    if (!this.later.isConnected) this.body.querySelector(".how").before(this.later);
    const sign = key === "wait_expired" ? icon("person") : el("span", { class: "walker", "aria-hidden": "true" });
    return this.later.replaceChildren(sign, text("span", key));
  }

  // The answer that came later, from the cloud or a person, takes the place of what was said in the meantime.
  arrived(answer, rate) {
    const origin = `from_${answer.answer_kind}`;
    this.later?.remove();
    this.streamed = answer.text;
    this.body.dataset.tone = "person";
    this.verdict.replaceChildren(
      icon(answer.answer_kind === "cloud" ? "cloud" : "person"),
      el("span", {}, text("span", "arrived"), " · ", text("span", has(origin) ? origin : "decision_escalated")),
    );
    for (const interim of this.body.querySelectorAll(".words, .because, .sources")) interim.remove();
    this.words.className = "words";
    this.words.setAttribute("role", "status");
    this.verdict.after(this.words);
    this.words.lang = answer.language || language();
    this.words.replaceChildren(render(answer.text));
    if (answer.cut) this.words.after(because({ reason: "cloud_cut" }));
    this.body.querySelector(".how").before(feedback(rate));
  }

  fail(key, values, error, retry) {
    this.body.dataset.tone = "fault";
    this.verdict.replaceChildren(icon("warning"), text("span", key, values));
    const technical = error.status ? `${error.code} · ${error.status}` : error.code;
    this.words.replaceChildren();
    this.words.remove();
    this.body.append(
      el(
        "p",
        { class: "after" },
        el("button", { type: "button", class: "plain", on: { click: retry } }, icon("again"), text("span", "try_again")),
        el("code", { class: "technical" }, technical),
      ),
    );
    this.done();
  }

  done() {
    this.body.setAttribute("aria-busy", "false");
  }

  get asked() {
    return this.node.querySelector(".asked");
  }
}

function verdict(decision, outpost) {
  const from = `from_${outpost.answer_kind}`;
  const origin = ["local", "escalated"].includes(decision) && has(from) ? from : null;
  const words = [text("span", origin ?? `decision_${decision in LOOKS ? decision : "handoff"}`)];
  if (decision === "local") words.push(" · ", text("span", sureness(outpost.confidence)));
  return words;
}

function sureness(confidence) {
  if (confidence >= HIGH) return "sure_high";
  return confidence >= MIDDLE ? "sure_middle" : "sure_low";
}

function chips(outpost, bestEffort) {
  const keys = [];
  if (outpost.decision === "local" && outpost.certificate) keys.push("certified");
  if (outpost.decision === "local" && !outpost.certificate && bestEffort) keys.push("uncertified");
  if (outpost.retrieval === "keyword") keys.push("keyword_only");
  return keys.flatMap((key) => [" ", text("span", key, undefined, { class: "chip" })]);
}

function because(outpost) {
  const reason = `reason_${outpost.reason}`;
  return has(reason) ? el("p", { class: "because" }, text("span", reason)) : null;
}

// What a visitor does next: the venue's own words are the answer's text; ours explain, and stand in where it is empty.
function handoff(outpost, said) {
  const reason = `reason_${outpost.reason}`;
  return el(
    "p",
    { class: "because" },
    has(reason) ? text("span", reason) : null,
    said && outpost.language === language() ? null : el("strong", {}, " ", text("span", "ask_staff")),
  );
}

function place(source) {
  const title = source.title || source.document;
  const headings = (source.heading || "").split(" > ").filter(Boolean);
  const path = headings[0] === title ? headings : [title, ...headings];
  return el(
    "span",
    { class: "found" },
    ...path.flatMap((step, i) => (i ? [el("span", { class: "step", "aria-hidden": "true" }, " › "), el("span", {}, step)] : [el("b", {}, step)])),
    title === source.document ? null : el("span", { class: "file" }, source.document),
  );
}

function cite(source) {
  return el("p", { class: "cite" }, icon("document"), place(source));
}

function sources(list, title) {
  return el(
    "section",
    { class: "sources" },
    text("h3", title),
    ...list.map((source) =>
      el(
        "figure",
        {},
        el("blockquote", { class: "quoted", dir: "auto" }, render(source.text)),
        el("figcaption", { class: "cite" }, icon("document"), place(source)),
      ),
    ),
  );
}

function feedback(rate) {
  const node = el("p", { class: "feedback", role: "status" });
  const answer = async (rating) => {
    try {
      await rate(rating);
      node.replaceChildren(icon("done"), text("span", "feedback_thanks"));
    } catch {
      node.replaceChildren(icon("warning"), text("span", "feedback_failed"));
    }
  };
  const button = (key, sign, rating) =>
    el("button", { type: "button", class: "plain", on: { click: () => answer(rating) } }, icon(sign), text("span", key));
  node.append(
    text("span", "feedback_prompt"),
    button("feedback_right", "done", "right"),
    button("feedback_wrong", "cross", "wrong"),
  );
  return node;
}

function details(outpost) {
  const rows = [
    ["how_decision", outpost.decision],
    ["how_reason", outpost.reason],
    ["how_confidence", outpost.confidence?.toFixed(2)],
    ["how_route", [outpost.route, outpost.intent].filter(Boolean).join(" · ")],
    ["how_retrieval", outpost.retrieval],
    ["how_certificate", outpost.certificate ? shorten(outpost.certificate) : say("none")],
    ["how_time", say("seconds", { seconds: ((outpost.timings_ms?.total ?? 0) / 1000).toFixed(2) })],
    ["how_notes", outpost.notes?.join("; ")],
    ["how_event", outpost.event_id],
  ].filter(([, value]) => value);
  return el(
    "details",
    { class: "how" },
    text("summary", "how"),
    el("dl", {}, ...rows.flatMap(([key, value]) => [text("dt", key), el("dd", {}, String(value))])),
  );
}

function shorten(certificate) {
  return typeof certificate === "string" ? certificate : JSON.stringify(certificate);
}
