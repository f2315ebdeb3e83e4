"""`outpost ask`: one question, the decided answer, and what stands behind it."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from agent.cli.http import DEFAULT_URL, Daemon, Json, Url
from agent.cli.screen import console, print_json
from agent.errors import InvalidRequest


def ask(
    question: Annotated[list[str], typer.Argument(help="The question; - reads it from standard input.")],
    collection: Annotated[str | None, typer.Option(help="Collection to search.")] = None,
    session: Annotated[str | None, typer.Option(help="Conversation to continue.")] = None,
    model: Annotated[str, typer.Option(help="outpost (the assistant) or an installed model.")] = "outpost",
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> None:
    """Ask the assistant."""
    text = sys.stdin.read() if question == ["-"] else " ".join(question)
    if not text.strip():
        raise InvalidRequest("there is no question", remedy='Write one: outpost ask "When do you open?"')
    body: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": text}]}
    options = {"collection": collection, "session": session}
    if model == "outpost":
        body["outpost"] = {name: value for name, value in options.items() if value is not None}
    daemon = Daemon(url)
    if json:
        reply = daemon.post("/v1/chat/completions", body)
        print_json({"answer": reply["choices"][0]["message"]["content"], **reply.get("outpost", {})})
        return
    _stream(daemon, body)


def _stream(daemon: Daemon, body: dict[str, Any]) -> None:
    """Words as they come; stages on the status line of a terminal."""
    told: dict[str, Any] = {}
    status = console.status("") if console.is_terminal else None
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
                    console.out(words, end="")
    finally:
        if status is not None:
            status.stop()
    console.out("")
    if told:
        print_evidence(told)


def print_evidence(about: dict[str, Any]) -> None:
    """Where an answer came from, what was decided and how sure it is."""
    kind = f" ({about['answer_kind']})" if about["answer_kind"] else ""
    certified = "" if about["certificate"] or about["decision"] not in ("local", "action") else ", uncertified"
    console.print(
        f"  {about['decision']}{kind}: {about['reason']}, confidence {about['confidence']:.2f}{certified},"
        f" {about['timings_ms'].get('total', 0):.0f} ms",
        style="dim",
        markup=False,
    )
    for source in about["sources"][:1] if about["answer_kind"] == "quote" else about["sources"]:
        console.print(f"  from {source['document']}: {source['heading']}", style="dim", markup=False)
    if about["action"]:
        arguments = ", ".join(f"{name}={value}" for name, value in about["action"]["arguments"].items())
        console.print(f"  action {about['action']['name']}({arguments})", style="dim", markup=False)
    for note in about["notes"]:
        console.print(f"  note: {note}", style="yellow", markup=False)
