"""`outpost audit`: what left this device; reads the log in the state folder, with a daemon beside it or without."""

from __future__ import annotations

import asyncio
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from agent.cli.http import DEFAULT_URL, Daemon, Json, State, Url
from agent.cli.screen import console, print_json, print_table, size
from agent.errors import StorageFailed, Unauthorized, Unavailable
from agent.escalation import audit
from agent.escalation.outbox import Outbox
from agent.escalation.store import Store
from agent.paths import default_state
from agent.telemetry.labels import Labels

app = typer.Typer(help="What left this device, and deleting it.", no_args_is_help=True)
_SHOWN_FAULTS = 20


def _file(state: Path | None) -> Path:
    return (state or default_state()) / audit.FILE


@app.command(short_help="Check that nothing was changed or removed.")
def verify(
    head: Annotated[
        str, typer.Option(help="A head that was noted before, NUMBER:HASH or HASH: it must be part of the chain.")
    ] = "",
    state: State = None,
    json: Json = False,
) -> None:
    """Check that nothing was changed, removed or reordered; exit code 1 where something was."""
    verdict = audit.verify(_file(state), noted=head)
    if json:
        print_json({"ok": not verdict.faults, **asdict(verdict)})
    else:
        for fault in verdict.faults[:_SHOWN_FAULTS]:
            console().print(f"entry {fault.seq} {fault.problem}", style="red", markup=False)
        if len(verdict.faults) > _SHOWN_FAULTS:
            console().print(f"and {len(verdict.faults) - _SHOWN_FAULTS} more")
        console().print(
            f"{verdict.entries} entries, {verdict.payloads} payloads kept, {verdict.deleted} deleted;"
            f" {len(verdict.faults) or 'no'} fault{'' if len(verdict.faults) == 1 else 's'}\nhead {verdict.head}",
            markup=False,
        )
    if verdict.faults:
        sys.exit(1)


@app.command("list")
def list_(
    limit: Annotated[int, typer.Option(min=1, help="So many of the newest entries.")] = 20,
    state: State = None,
    json: Json = False,
) -> None:
    """Show when something left, by which path and to whom."""
    entries = audit.entries(_file(state), limit=limit)
    if json:
        for entry in entries:
            print_json(asdict(entry))
        return
    print_table(
        ("entry", "time", "what", "path", "endpoint", "size", "session", "key"),
        (
            (
                entry.seq,
                time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(entry.at)),
                entry.kind if entry.kind == "sent" else f"deleted {entry.detail}",
                entry.path,
                entry.endpoint,
                size(entry.size) if entry.kind == "sent" else "",
                entry.session or "",
                entry.key,
            )
            for entry in entries
        ),
        none="nothing has left this device",
    )


@app.command()
def show(
    entry: Annotated[int, typer.Argument(help="Number of an entry.")], state: State = None, json: Json = False
) -> None:
    """Print what was sent, byte for byte."""
    found, payload = audit.show(_file(state), entry)
    if json:
        data: dict[str, Any] = asdict(found)
        print_json({**data, "payload": None if payload is None else payload.decode("utf-8", "backslashreplace")})
    elif payload is None:
        console().print("its payload was deleted" if found.kind == "sent" else f"deleted the payloads {found.detail}")
    else:
        sys.stdout.buffer.write(payload)
        sys.stdout.flush()


@app.command(short_help="Delete all that a session left behind.")
def forget(
    session: Annotated[str, typer.Argument(help="Id of a session; `audit list` names it.")],
    url: Url = DEFAULT_URL,
    state: State = None,
    json: Json = False,
) -> None:
    """Delete everything that a session asked, was answered and had sent for it; the chain still verifies."""
    try:
        gone = Daemon(url, state, operator=True).delete(f"/admin/sessions/{quote(session, safe='')}/events")
    except (Unavailable, Unauthorized):  # none is running, or not with this state folder
        gone = asyncio.run(_forget(state or default_state(), session))
    path = _file(state)
    faults = audit.verify(path).faults if path.exists() else ()
    if json:
        print_json({"session": session, **gone, "ok": not faults})
    else:
        console().print(
            f"deleted {gone['questions']} questions, {gone['payloads']} requests that had left and"
            f" {gone['labels']} examples",
            markup=False,
        )
    if faults:
        raise StorageFailed(
            f"all of it is deleted, but the log has {len(faults)} faults", remedy="`outpost audit verify` names them."
        )


async def _forget(state: Path, session: str) -> dict[str, int]:
    """The same on the files, where no daemon answers."""
    gone = {"questions": 0, "payloads": 0, "labels": 0}
    if (state / "outbox.db").exists():
        async with Store(state / "outbox.db") as store:
            gone["questions"] = await Outbox(store, limit_bytes=0, person_s=0).forget(session)
    if (state / audit.FILE).exists():
        gone["payloads"] = await asyncio.to_thread(audit.forget, state / audit.FILE, session)
    if (state / "labels.db").exists():
        async with Labels(state / "labels.db", keep=sys.maxsize) as labels:
            gone["labels"] = await labels.forget(session)
    return gone
