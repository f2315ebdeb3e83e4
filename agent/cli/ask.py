"""`outpost ask`: one question, the decided answer, and what stands behind it."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from agent.cli.http import DEFAULT_URL, Daemon, Json, State, Url
from agent.cli.screen import console, print_json
from agent.errors import InvalidRequest, Unauthorized

_NOT_KEPT = ("storage_full", "storage_failed")
"""Why a question for a person is in no list."""


def ask(
    question: Annotated[list[str], typer.Argument(help="The question; - reads it from standard input.")],
    collection: Annotated[str | None, typer.Option(help="Collection to search.")] = None,
    session: Annotated[str | None, typer.Option(help="Conversation to continue.")] = None,
    model: Annotated[str, typer.Option(help="outpost (the assistant) or an installed model.")] = "outpost",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Tell how it would be answered, and why; nothing leaves the device.")
    ] = False,
    private: Annotated[bool, typer.Option("--private", help="The question must not leave the device.")] = False,
    url: Url = DEFAULT_URL,
    state: State = None,
    json: Json = False,
) -> None:
    """Ask the assistant."""
    text = sys.stdin.read() if question == ["-"] else " ".join(question)
    if not text.strip():
        raise InvalidRequest("there is no question", remedy='Write one: outpost ask "When do you open?"')
    if dry_run:
        if model != "outpost":
            raise InvalidRequest(f"--dry-run explains the assistant's decisions; {model!r} makes none")
        asked = {"question": text, "collection": collection, "session": session, "private": private}
        try:  # the operator is shown what would leave
            explained = Daemon(url, state, operator=True).post("/v1/explain", asked)
        except Unauthorized:
            explained = Daemon(url).post("/v1/explain", asked)
        print_json(explained) if json else print_explanation(explained)
        return
    body: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": text}]}
    options = {"collection": collection, "session": session, "private": private or None}
    given = {name: value for name, value in options.items() if value is not None}
    if model == "outpost":
        body["outpost"] = given
    elif given:
        raise InvalidRequest(
            f"--{next(iter(given))} goes with the assistant; {model!r} is asked as it is",
            remedy="Leave one of --model and the other out.",
        )
    daemon = Daemon(url)
    if json:
        reply = daemon.post("/v1/chat/completions", body)
        print_json({"answer": reply["choices"][0]["message"]["content"], **reply.get("outpost", {})})
        return
    _stream(daemon, body)


def _stream(daemon: Daemon, body: dict[str, Any]) -> None:
    """Words as they come; stages on the status line of a terminal."""
    told: dict[str, Any] = {}
    status = console().status("") if console().is_terminal else None
    try:
        for event in daemon.events("/v1/chat/completions", {**body, "stream": True}):
            about = event.get("outpost", {})
            if "stage" in about:
                if status is not None:
                    status.start()
                    status.update(f"{about['stage']} ...")
            elif about:
                told = about
            for choice in event["choices"]:
                if words := choice["delta"].get("content"):
                    if status is not None:
                        status.stop()
                    console().out(words, end="")
    finally:
        if status is not None:
            status.stop()
    console().out("")
    if told:
        print_evidence(told)


def print_evidence(about: dict[str, Any]) -> None:
    """Where an answer came from, what was decided and how sure it is."""
    kind = f" ({about['answer_kind']})" if about["answer_kind"] else ""
    certified = "" if about["certificate"] or about["decision"] not in ("local", "action") else ", uncertified"
    console().print(
        f"  {about['decision']}{kind}: {about['reason']}, confidence {about['confidence']:.2f}{certified},"
        f" {about['timings_ms'].get('total', 0):.0f} ms",
        style="dim",
        markup=False,
    )
    if cloud := about.get("cloud"):
        cost = f", cost {cloud['cost']:.4f}" if cloud["cost"] else ""
        console().print(
            f"  by {cloud['path']} from {cloud['endpoint']} ({cloud['model']}){cost}", style="dim", markup=False
        )
    if about["decision"] == "deferred" or (about["decision"] == "handoff" and about["reason"] not in _NOT_KEPT):
        console().print(f"  outpost events show {about['event_id']} has the answer later", style="dim", markup=False)
    for source in about["sources"][:1] if about["answer_kind"] == "quote" else about["sources"]:
        console().print(f"  from {source['document']}: {source['heading']}", style="dim", markup=False)
    if about["action"]:
        arguments = ", ".join(f"{name}={value}" for name, value in about["action"]["arguments"].items())
        console().print(f"  action {about['action']['name']}({arguments})", style="dim", markup=False)
    for note in about["notes"]:
        console().print(f"  note: {note}", style="yellow", markup=False)


def print_explanation(about: dict[str, Any]) -> None:
    """The route that a question would take, step by step."""

    def line(text: str, style: str = "") -> None:
        console().print(text, style=style, markup=False)

    policy, cloud = about["policy"], about["cloud"]
    holding = "; ".join(f"{name} = {value}" for name, value in policy["overrides"].items())
    line(f"policy {policy['device']}" + (f", but {holding}" if holding else ""))
    line(f"language {about['language']}, intent {about['intent'] or 'none'}, {about['retrieval']} retrieval")
    for candidate in about["candidates"]:
        least = candidate["least_confidence"]
        needed = f"needs {least:.2f}" if least is not None else "cannot be served"
        id, why = candidate["certificate"], candidate["why_uncertified"]
        certificate = f"certificate {id}" if id else f"uncertified ({why})"
        served = ", served" if candidate["served"] else ""
        line(f"{candidate['route']}: confidence {candidate['confidence']:.2f}, {needed}, {certificate}{served}")
        line(f"  {candidate['text'] or '(an action)'}", "dim")
    if about["not_generated"]:
        line(f"generated: not tried, for nothing that it said could be served ({about['not_generated']})")
    state = cloud["barrier"] or cloud["delay"] or "may be asked"
    line(f"cloud: {state}")
    line(
        f"decision: {about['decision']} ({about['reason']})" + (", would leave the device" if about["leaves"] else ""),
        "bold",
    )
    if request := about["request"]:
        line(f"by {request['path']} to {request['endpoint']} would go, with a key of its own:")
        line(request["payload"], "dim")
    elif about["leaves"]:
        line("what would leave is shown with the operator's token only (--state)")
    for note in about["notes"]:
        line(f"note: {note}", "yellow")
