"""`outpost bench`: how fast this device answers with one of its models, as ratios that other devices' compare with.

Prepares a state folder and a configuration for the daemon that is measured, and prints what agent/cli/bench_figures.py
found.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agent.cli.http import Json, State
from agent.cli.screen import console, print_json, print_table
from agent.config import Config
from agent.config import load as load_config
from agent.errors import InvalidRequest, StorageFailed
from agent.messages import InstalledModel
from agent.paths import default_state, shipped
from agent.updates.catalog import Catalog, ModelStore

if TYPE_CHECKING:
    from agent.cli.bench_figures import Figure, Plan


def bench(
    model: Annotated[str | None, typer.Option(help="Installed model; without it the configured one.")] = None,
    state: State = None,
    config: Annotated[Path | None, typer.Option(help="Configuration file (TOML).")] = None,
    threads: Annotated[int | None, typer.Option(min=1, max=256, help="Without it as configured.")] = None,
    tokens: Annotated[int, typer.Option(min=4, max=4096, help="Tokens of an answer.")] = 64,
    prefix: Annotated[int, typer.Option(min=8, max=100_000, help="Tokens of the shared prefix.")] = 2000,
    rounds: Annotated[int, typer.Option(min=1, max=100, help="Rounds of each comparison.")] = 7,
    json: Json = False,
) -> None:
    """Measure decoding, concurrent clients, prefix reuse and the daemon itself; needs no running daemon."""
    from agent.cli.bench_figures import SUFFIX_TOKENS, Plan, measure
    from agent.cli.bench_raw import yardstick
    from agent.engines.text import physical_cores

    settings = load_config(config)
    installed = _model(state or default_state(), model or settings.models.text)
    threads = threads or settings.text.threads or physical_cores()
    with (
        nullcontext() if json else console().status("measuring ...") as status,
        tempfile.TemporaryDirectory(prefix="outpost-bench-") as folder,
        yardstick(installed.entry_path, threads, tokens) as raw,
    ):
        context = raw.facts.context or settings.text.context
        plan = Plan(installed.name, min(tokens, context // 4), min(prefix, context - SUFFIX_TOKENS - 16), rounds)
        place = _state(Path(folder), installed)
        own = _configuration(Path(folder), settings, plan, threads, context)
        figures = measure(raw, place, own, plan, lambda what: status.update(what) if status else None)
        facts = raw.facts
    if json:
        print_json(
            {
                "model": installed.name,
                "parameters": facts.parameters,
                "quantisation": facts.quantisation,
                "threads": threads,
                **{name: value for name, value in asdict(plan).items() if name != "model"},
                "figures": [asdict(figure) for figure in figures],
            }
        )
        return
    title = f"{installed.name}: {facts.parameters / 1e6:.1f} M parameters, {facts.quantisation}, {threads} threads"
    print_table(("what", "measured", "against", "ratio", "wanted", "met"), map(_row, figures), title=title)


def _row(figure: Figure) -> tuple[str, ...]:
    return (
        figure.name,
        f"{figure.value:.4g} {figure.unit}",
        f"{figure.baseline:.4g} {figure.unit} ({figure.against})",
        f"{figure.ratio:.3f}",
        figure.wanted,
        "yes" if figure.met else "no",
    )


def _model(state: Path, name: str) -> InstalledModel:
    """Raises UnknownModel, InvalidRequest."""
    if not name:
        raise InvalidRequest("no model is configured", remedy="Name an installed one with --model.")
    catalog = Catalog.load(shipped("models", "catalog"))
    model = ModelStore(state / "models", catalog=catalog, reference_dir=shipped("models", "reference")).get(name)
    if model.kind != "slm":
        raise InvalidRequest(
            f"{name!r} is a model for {model.kind}", remedy="Name a text model; see `outpost models list`."
        )
    return model


def _state(folder: Path, model: InstalledModel) -> Path:
    """A state folder with this one model, linked from where it is installed."""
    state = folder / "state"
    try:
        (state / "models").mkdir(parents=True)
        (state / "models" / model.name).symlink_to(model.folder)
    except OSError as error:
        raise StorageFailed(f"cannot write below {folder}: {error.strerror}") from error
    return state


def _configuration(folder: Path, settings: Config, plan: Plan, threads: int, trained: int) -> Path:
    """This device's text engine, and nothing else that would load or answer."""
    text = settings.text.model_copy(update={"threads": threads})
    context = max(min(plan.prefix + 256, trained), 128)
    if context > text.context:
        text = text.model_copy(update={"context": context, "kv_tokens": max(text.kv_tokens, 4 * context)})
    lines = ["[text]", *(f"{key} = {value}" for key, value in text.model_dump().items())]
    lines += ["[models]", 'text = ""', 'embedding = ""']
    lines += ["[pool]", f"memory_mb = {max(settings.pool.memory_mb, _memory_mb())}", "keep_alive_s = 3600.0"]
    path = folder / "bench.toml"
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


def _memory_mb() -> int:
    """All of this device's: the model fits or it does not, and the bench is not where to keep a budget."""
    return int(os.sysconf("SC_PHYS_PAGES")) * int(os.sysconf("SC_PAGE_SIZE")) >> 20
