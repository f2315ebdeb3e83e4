"""`outpost knowledge`: put documents in, search them, take them out."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

import typer

from agent.cli.http import DEFAULT_URL, Daemon, Json, State, Url
from agent.cli.screen import console, print_json, print_table
from agent.errors import InvalidRequest, OutpostError, ShuttingDown, StorageFull, Unauthorized, Unavailable

app = typer.Typer(help="Documents that answers come from.", no_args_is_help=True)
Collection = Annotated[str, typer.Option("--collection", "-c", help="Collection of documents.")]
_SUFFIXES = frozenset({".md", ".markdown", ".txt", ".html", ".htm", ".pdf", ".docx", ".jsonl"})
_HOPELESS = (Unavailable, Unauthorized, StorageFull, ShuttingDown)
"""Errors after which the next file would fail as well."""


@app.command(short_help="Store documents, or take changes over.")
def add(
    paths: Annotated[list[Path], typer.Argument(help="Files, or folders with files.")],
    collection: Collection = "default",
    url: Url = DEFAULT_URL,
    state: State = None,
    json: Json = False,
) -> None:
    """Store documents; unchanged ones are left alone, changed ones replaced."""
    place, files = _place(collection), _files(paths)
    daemon = Daemon(url, state, operator=True)
    totals = {"stored": 0, "unchanged": 0, "chunks": 0}
    failed: list[tuple[Path, OutpostError]] = []
    from rich.progress import Progress

    with Progress(console=console(), disable=json or not console().is_terminal, transient=True) as progress:
        task = progress.add_task("storing", total=len(files))
        for name, file in files:
            progress.update(task, description=name)
            try:
                report = daemon.upload(f"{place}/files", file, name)
            except _HOPELESS:
                raise
            except OutpostError as error:
                failed.append((file, error))
            else:
                totals["stored"] += len(report["stored"])
                totals["unchanged"] += len(report["unchanged"])
                totals["chunks"] += report["chunks"]
            progress.advance(task)
    if json:
        print_json({**totals, "failed": [{"file": str(file), "error": str(why)} for file, why in failed]})
    else:
        console().print(
            f"{totals['stored']} stored ({totals['chunks']} passages), {totals['unchanged']} unchanged", markup=False
        )
        for file, why in failed:
            console().print(f"failed: {file}: {why}", style="red", markup=False)
    if failed:
        raise typer.Exit(1)


@app.command("list")
def list_(
    collection: Annotated[str | None, typer.Argument(help="Collection; without one, the collections.")] = None,
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> None:
    """Show collections, or the documents of one."""
    daemon = Daemon(url)
    columns: tuple[str, ...] = ("collection", "documents", "chunks", "embedded")
    if collection is None:
        found = daemon.get("/v1/knowledge")["collections"]
    else:
        columns = ("id", "title", "chunks")
        found = _all_documents(daemon, collection)
    if json:
        for row in found:
            print_json(row)
        return
    print_table(
        columns,
        ([row[column] for column in columns] for row in found),
        none="no documents yet; `outpost knowledge add FILES` stores some",
    )


@app.command()
def search(
    query: Annotated[list[str], typer.Argument(help="What to look for.")],
    collection: Collection = "default",
    k: Annotated[int, typer.Option("-k", help="How many passages.", min=1, max=100)] = 5,
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> None:
    """Show the passages that fit best."""
    found = Daemon(url).post(f"{_place(collection)}/search", {"query": " ".join(query), "k": k})
    if json:
        print_json(found)
        return
    for result in found["results"]:
        console().print(f"{result['score']:.3f}  {result['document']}: {result['heading']}", style="bold", markup=False)
        console().print(result["text"].strip() + "\n", markup=False)
    if not found["results"]:
        console().print("nothing found")
    if found["outpost"]["retrieval"] == "keyword":
        console().print("keyword search only: no embedding model is at hand", style="yellow", markup=False)


@app.command("rm")
def remove(
    documents: Annotated[list[str] | None, typer.Argument(help="Document ids.")] = None,
    collection: Collection = "default",
    all_: Annotated[bool, typer.Option("--all", help="The whole collection.")] = False,
    url: Url = DEFAULT_URL,
    state: State = None,
    json: Json = False,
) -> None:
    """Remove documents, or a whole collection."""
    if bool(documents) == all_:
        raise typer.BadParameter("name documents, or give --all")
    daemon = Daemon(url, state, operator=True)
    if all_:
        daemon.delete(_place(collection))
    for document in documents or []:
        daemon.delete(f"{_place(collection)}/documents/{quote(document)}")
    if json:
        print_json({"removed": documents or collection})
    else:
        gone = ", ".join(documents) if documents else "all of it"
        console().print(f"removed from {collection}: {gone}", markup=False)


def _place(collection: str) -> str:
    """Raises InvalidRequest for what cannot be a path's part."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,62}", collection):
        raise InvalidRequest(
            f"{collection!r} is no name of a collection", remedy="Names are of a-z, 0-9, - and _, at most 63 of them."
        )
    return f"/v1/knowledge/{collection}"


def _all_documents(daemon: Daemon, collection: str) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    while True:
        after = quote(str(found[-1]["id"]), safe="") if found else ""
        page = daemon.get(f"{_place(collection)}/documents?limit=1000&after={after}")["documents"]
        found += page
        if len(page) < 1000:
            return found


def _files(paths: list[Path]) -> list[tuple[str, Path]]:
    """The documents below ``paths``, in order, each with its id: the path within the folder that was named.
    Raises InvalidRequest for a path that is not there, and for two files that would have one id."""
    files: list[tuple[str, Path]] = []
    for path in paths:
        if path.is_dir():
            found = sorted(p for p in path.rglob("*") if p.is_file() and p.suffix.lower() in _SUFFIXES)
            files += [(p.relative_to(path).as_posix(), p) for p in found]
        elif path.is_file():
            files.append((path.name, path))
        else:
            raise InvalidRequest(f"there is no file {str(path)!r}", remedy="Check the path.")
    if not files:
        kinds = " ".join(sorted(_SUFFIXES))
        raise InvalidRequest(f"no documents below {', '.join(map(str, paths))}", remedy=f"Outpost reads {kinds}.")
    seen: dict[str, Path] = {}
    for name, file in files:
        if seen.setdefault(name, file) != file:
            raise InvalidRequest(
                f"{seen[name]} and {file} would both be stored as {name!r}",
                remedy="Add the folder above them, or one after the other into two collections.",
            )
    return files
