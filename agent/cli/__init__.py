"""The command line (L4): `outpost serve` runs the daemon, the other verbs are thin HTTP calls to it.

Each verb lives in the module of its subject; this one puts them together and turns errors into one line and an exit
code: 0 done, 1 failed, 2 usage. ``--json`` prints one object (or one a line) for machines on every verb.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from agent import __version__
from agent.cli import ask, audit, bench, calibrate, events, gateway, intents, knowledge, models, serve, status
from agent.errors import OutpostError

app = typer.Typer(
    name="outpost",
    help="On-device inference agent.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("serve")(serve.serve)
app.command("ask")(ask.ask)
app.command("status", short_help="Show models, promise, queue and decisions.")(status.status)
app.command("gateway", short_help="Serve the devices of an MQTT broker.")(gateway.gateway)
app.command("bench", short_help="Measure how fast this device answers.")(bench.bench)
app.add_typer(knowledge.app, name="knowledge")
app.add_typer(intents.app, name="intents")
app.add_typer(calibrate.app, name="calibrate")
app.add_typer(models.app, name="models")
app.add_typer(audit.app, name="audit")
app.add_typer(events.app, name="events")


def _version(wanted: bool) -> None:
    if wanted:
        print(f"outpost {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """On-device inference agent."""


def _first(group: BaseExceptionGroup[OutpostError]) -> OutpostError:
    inner = group.exceptions[0]
    return _first(inner) if isinstance(inner, BaseExceptionGroup) else inner


def main() -> None:
    """The console script."""
    try:
        app()
    except OutpostError as error:
        sys.exit(f"outpost: {error}")
    except BaseExceptionGroup as group:  # the daemon's TaskGroups wrap what ended them
        errors, others = group.split(OutpostError)
        if errors is None or others is not None:
            raise
        sys.exit(f"outpost: {_first(errors)}")
    except BrokenPipeError:  # the reader of our output has gone: `outpost ... | head`
        sys.stderr.close()
        sys.exit(1)
