"""`outpost events`: what became of a question, and the queue of those that wait for a person."""

from __future__ import annotations

import time
from typing import Annotated, Any
from urllib.parse import quote

import typer

from agent.cli.http import DEFAULT_URL, Daemon, Json, State, Url
from agent.cli.screen import console, print_json, print_table

app = typer.Typer(help="What became of questions, and those that wait for a person.", no_args_is_help=True)
Id = Annotated[str, typer.Argument(help="The event's id; it is in the `outpost` object of every answer.")]
_LONGEST_POLL_S = 30.0
_FINAL = (None, "answered", "expired")


@app.command()
def show(
    id: Id,
    wait: Annotated[float, typer.Option(help="Wait so many seconds for the answer.", min=0, max=86_400)] = 0.0,
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> None:
    """Show what was decided and the answer that came since."""
    daemon, ends = Daemon(url), time.monotonic() + wait
    found = daemon.get(f"/v1/events/{quote(id, safe='')}")
    while found["state"] not in _FINAL and (left := ends - time.monotonic()) > 0:
        poll_s = min(left, _LONGEST_POLL_S)
        found = daemon.get(f"/v1/events/{quote(id, safe='')}?wait={poll_s:.1f}&seen={found['state']}")
    if json:
        print_json(found)
        return
    console().print(f"{found['id']}: {found['decision']}, {found['reason']}", markup=False)
    if found["state"] is not None:
        console().print(f"  now {found['state']}" + (f": {found['outcome']}" if found["outcome"] else ""), markup=False)
    if found["answer"]:
        console().print(f"  {found['answer']['answer_kind']} ({found['answer']['by']}):", style="dim", markup=False)
        console().out(found["answer"]["text"])


@app.command("list", short_help="List the questions that wait for a person.")
def list_(url: Url = DEFAULT_URL, state: State = None, json: Json = False) -> None:
    """List the questions that wait for a person, and those answered in the last day."""
    cases = Daemon(url, state, operator=True).get("/admin/handoffs")["handoffs"]
    if json:
        for case in cases:
            print_json(case)
        return
    columns = ("event", "session", "state", "waits", "language", "question", "answer")
    print_table(columns, (_row(case) for case in cases), none="nobody waits for an answer")


@app.command()
def answer(
    id: Id,
    text: Annotated[list[str], typer.Argument(help="What the asker is told.")],
    learn: Annotated[bool, typer.Option(help="Add question and answer to the knowledge base.")] = False,
    by: Annotated[str, typer.Option(help="Who answers.")] = "operator",
    url: Url = DEFAULT_URL,
    state: State = None,
    json: Json = False,
) -> None:
    """Answer a question that waits for a person."""
    body = {"text": " ".join(text), "by": by, "learn": learn}
    case = Daemon(url, state, operator=True).post(f"/admin/handoffs/{quote(id, safe='')}/answer", body)
    if json:
        print_json(case)
    else:
        console().print(f"answered {id}" + (", and learned it" if case["learned"] else ""), markup=False)


@app.command()
def dismiss(id: Id, url: Url = DEFAULT_URL, state: State = None, json: Json = False) -> None:
    """Leave a question unanswered; its asker is told so."""
    Daemon(url, state, operator=True).post(f"/admin/handoffs/{quote(id, safe='')}/dismiss", {})
    if json:
        print_json({"event_id": id, "state": "expired"})
    else:
        console().print(f"{id} stays unanswered", markup=False)


@app.command(short_help="Delete all that a session left behind.")
def forget(
    session: Annotated[
        str, typer.Argument(help="The conversation whose questions and answers are deleted; `events list` names it.")
    ],
    url: Url = DEFAULT_URL,
    state: State = None,
    json: Json = False,
) -> None:
    """Delete what a session asked and was answered, and what was sent for it."""
    gone = Daemon(url, state, operator=True).delete(f"/admin/sessions/{quote(session, safe='')}/events")
    if json:
        print_json(gone)
    else:
        console().print(
            f"deleted {gone['questions']} questions, {gone['payloads']} requests that had left and"
            f" {gone['labels']} examples",
            markup=False,
        )


def _row(case: dict[str, Any]) -> tuple[object, ...]:
    waits = f"{case['waiting_s'] / 60:.0f} min" if case["state"] == "handed_off" else ""
    answer = case["answer"]["text"] if case["answer"] else ""
    session = case["session"] or ""
    return case["event_id"], session, case["state"], waits, case["language"], case["question"], answer
