"""`outpost intents`: train and try intent packs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from agent.cli.http import DEFAULT_URL, Daemon, Json, State, Url
from agent.cli.screen import console, print_json, print_table
from agent.errors import InvalidRequest

app = typer.Typer(help="What the device does by itself.", no_args_is_help=True)


@app.command()
def train(
    pack: Annotated[Path, typer.Argument(help="Intent pack (TOML).")],
    url: Url = DEFAULT_URL,
    state: State = None,
    json: Json = False,
) -> None:
    """Train on a pack and use it from now on."""
    try:
        text = pack.read_text(encoding="utf-8")
    except OSError as error:
        raise InvalidRequest(f"cannot read the pack {pack}: {error.strerror}", remedy="Name a TOML file.") from error
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"the pack {pack} is no UTF-8 text: {error}", remedy="Name a TOML file.") from error
    with console().status("training ..."):
        report = Daemon(url, state, operator=True).post("/v1/intents/train", {"pack": text})
    if json:
        print_json(report)
        return
    console().print(f"{report['intents']} intents from {report['examples']} examples in {report['seconds']:.1f} s")


@app.command()
def classify(
    texts: Annotated[list[str], typer.Argument(help="Utterances.")], url: Url = DEFAULT_URL, json: Json = False
) -> None:
    """Show what the classifier makes of utterances."""
    results = Daemon(url).post("/v1/intents/classify", {"texts": texts})["results"]
    if json:
        for text, result in zip(texts, results, strict=True):
            print_json({"text": text, **result})
        return
    rows = [
        (text, r["intent"], f"{r['probability']:.2f}", f"{r['in_scope_score']:.2f}", _slots(r["slots"]))
        for text, r in zip(texts, results, strict=True)
    ]
    print_table(("text", "intent", "probability", "in scope", "slots"), rows)


def _slots(slots: dict[str, object]) -> str:
    return ", ".join(f"{name}={value}" for name, value in slots.items())
