"""`outpost models`: the catalogue and what is installed; works without a daemon, and tells a running one."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from agent.cli.http import DEFAULT_URL, Daemon, Json, State, Url
from agent.cli.screen import console, print_json, print_table, size
from agent.errors import BadModel, OutpostError
from agent.paths import default_state, shipped
from agent.updates.catalog import Catalog, CatalogModel, ModelStore
from agent.updates.part import Progress as Transfer

app = typer.Typer(help="Models: the catalogue and what is installed.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(help="Name of a model.")]


def _store(state: Path | None) -> ModelStore:
    root = (state or default_state()) / "models"
    return ModelStore(
        root, catalog=Catalog.load(shipped("models", "catalog")), reference_dir=shipped("models", "reference")
    )


@app.command("list")
def list_(state: State = None, json: Json = False) -> None:
    """Show installed models and those that the catalogue offers."""
    store = _store(state)
    installed = {model.name: model for model in store.list()}
    rows: list[dict[str, Any]] = [
        {
            "name": model.name,
            "kind": model.kind,
            "state": "reference" if model.reference else "installed",
            "license": model.license,
            "bytes": sum(file.size or 0 for file in model.files),
            "memory_bytes": model.memory_bytes,
            "checked": True,
        }
        for model in installed.values()
    ] + [
        {
            "name": model.name,
            "kind": model.kind,
            "state": "offered",
            "license": model.license,
            "bytes": model.size,
            "memory_bytes": None if model.memory_mb is None else model.memory_mb << 20,
            "checked": store.confirmed(model),
        }
        for model in store.catalog.models
        if model.name not in installed
    ]
    if json:
        for row in rows:
            print_json(row)
        return
    shown = [
        (
            row["name"],
            row["kind"],
            row["state"] if row["checked"] else f"{row['state']}, hash unchecked",
            row["license"],
            size(row["bytes"]),
            size(row["memory_bytes"]),
        )
        for row in rows
    ]
    print_table(("name", "kind", "state", "licence", "download", "memory"), shown)


@app.command()
def show(name: Name, state: State = None, json: Json = False) -> None:
    """Show what is known of a model."""
    store = _store(state)
    offered = store.catalog.find(name)
    installed = next((model for model in store.list() if model.name == name), None)
    if offered is None and installed is None:
        store.get(name)  # raises, with the nearest name
    facts = _facts(store, offered) | (
        {
            "state": "reference" if installed.reference else "installed",
            "folder": str(installed.folder),
            "kind": installed.kind,
            "license": installed.license,
            "files": [{"path": f.path, "sha256": f.sha256, "bytes": f.size} for f in installed.files],
        }
        if installed is not None
        else {"state": "offered"}
    )
    if json:
        print_json({"name": name, **facts})
        return
    console().print(name, style="bold", markup=False)
    for key, value in facts.items():
        if key == "files":
            for file in value:
                console().print(f"  file {file['path']}  {size(file['bytes'])}  sha256 {file['sha256']}", markup=False)
        elif value not in (None, ""):
            console().print(f"  {key.replace('_', ' ')}: {value}", markup=False)


@app.command(short_help="Download, verify and install a model.")
def pull(
    name: Name,
    from_: Annotated[str | None, typer.Option("--from", help="Folder or address of a mirror.")] = None,
    state: State = None,
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> None:
    """Download, verify and install a model; goes on where an earlier attempt was cut off."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn

    store = _store(state)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        console=console(),
        disable=json or not console().is_terminal,
        transient=True,
    ) as bars:
        tasks: dict[str, TaskID] = {}

        def show_progress(transfer: Transfer) -> None:
            if transfer.path not in tasks:
                tasks[transfer.path] = bars.add_task(transfer.path, total=transfer.total)
            bars.update(tasks[transfer.path], completed=transfer.done, total=transfer.total)

        pulled = store.pull(name, from_, progress=show_progress)
    folder = pulled.folder
    if pulled.convert is not None:
        folder = _convert(store, name, folder, quiet=json)
    _tell_daemon(url, state)
    if json:
        print_json({"name": name, "folder": str(folder), "changed": pulled.changed})
    else:
        console().print(f"{name} is {'installed' if pulled.changed else 'here already'}: {folder}", markup=False)


@app.command()
def verify(
    names: Annotated[list[str] | None, typer.Argument(help="Names of models; without one, all installed.")] = None,
    state: State = None,
    json: Json = False,
) -> None:
    """Read every file of models again and compare the hashes."""
    store = _store(state)
    bad = False
    for name in names or [model.name for model in store.list()]:
        problems = store.verify(name)
        bad = bad or bool(problems)
        if json:
            print_json({"name": name, "ok": not problems, "problems": list(problems)})
        else:
            console().print(f"{name}: {'; '.join(problems) or 'ok'}", style="red" if problems else None, markup=False)
    if bad:
        raise typer.Exit(1)


@app.command("rm")
def remove(name: Name, state: State = None, url: Url = DEFAULT_URL, json: Json = False) -> None:
    """Remove an installed model."""
    _store(state).remove(name)
    _tell_daemon(url, state)
    if json:
        print_json({"removed": name})
    else:
        console().print(f"removed {name}", markup=False)


@app.command()
def clear(name: Name, url: Url = DEFAULT_URL, state: State = None, json: Json = False) -> None:
    """Let a model that crashed too often be loaded again."""
    Daemon(url, state, operator=True).post("/admin/models/clear-quarantine", {"model": name})
    if json:
        print_json({"cleared": name})
    else:
        console().print(f"{name} may be loaded again", markup=False)


def _facts(store: ModelStore, model: CatalogModel | None) -> dict[str, Any]:
    if model is None:
        return {}
    return {
        "kind": model.kind,
        "description": model.description,
        "license": model.license,
        "parameters": model.parameters,
        "context": model.context,
        "memory_mb": model.memory_mb,
        "chat_template": model.chat_template,
        "hashes": "checked" if store.confirmed(model) else "from one catalogue, unchecked until a first download",
        "files": [{"path": f.path, "sha256": f.sha256, "bytes": f.size, "url": f.url} for f in model.files],
    }


def _convert(store: ModelStore, name: str, source: Path, *, quiet: bool) -> Path:
    """Build what the engine opens from what was downloaded. Raises BadModel with the converter's last words."""
    place = store.scratch(name)
    command = [sys.executable, "-m", "quantize.embedding", str(source), str(place)]
    with contextlib.nullcontext() if quiet else console().status(f"converting {name} ..."):
        run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode != 0:
        words = run.stderr.strip().splitlines() or ["no message"]
        raise BadModel(f"the conversion of {name!r} failed: {words[-1]}", remedy="Is the extra `convert` installed?")
    return store.install_built(name, place).folder


def _tell_daemon(url: str, state: Path | None) -> None:
    """A running daemon takes note of what changed; where none runs there is nobody to tell."""
    with contextlib.suppress(OutpostError):
        Daemon(url, state, operator=True).post("/admin/models/rescan", {})
