"""`outpost calibrate`: labelled examples through the running device, certificates out of it."""

from __future__ import annotations

import json as jsonlib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from agent.cli.http import DEFAULT_URL, Daemon, Json, State, Url
from agent.cli.screen import console, print_json
from agent.confidence import report
from agent.confidence.outcome import Outcome, from_json
from agent.errors import InvalidRequest, StorageFailed, Unavailable

app = typer.Typer(help="Certify how sure the device must be to answer by itself.", no_args_is_help=True)
Data = Annotated[list[Path], typer.Option("--data", help="Labelled examples (JSON lines); may be given again.")]
Tune = Annotated[
    list[Path] | None,
    typer.Option("--tune", help="Fit on these, certify on --data alone; without, half of --data each."),
]
Png = Annotated[Path | None, typer.Option(help="Draw the charts into this folder (needs the extra `report`).")]
Keep = Annotated[Path | None, typer.Option("--evidence", help="Write what every example gave here (JSON lines).")]
_BESIDE = ("pages", "documents")
_TEXT = (".md", ".markdown", ".txt")


@app.command(short_help="From labelled utterances.")
def intents(
    data: Data,
    tune: Tune = None,
    report_file: Annotated[Path | None, typer.Option("--report", help="Write the report here (HTML).")] = None,
    png: Png = None,
    evidence: Keep = None,
    url: Url = DEFAULT_URL,
    state: State = None,
    json: Json = False,
) -> None:
    """Calibrate the intents on lines of {"text", "intent"}; the intent is null for what is none of them."""
    rows = [_picked(row, where, ("text", "intent"), ("group", "tune")) for where, row in _told(data, tune)]
    _run("intents", {"rows": rows}, Daemon(url, state, operator=True), report_file, png, evidence, json)


@app.command(short_help="From labelled questions and their documents.")
def answers(
    data: Annotated[list[Path] | None, typer.Option("--data", help="Labelled examples (JSON lines).")] = None,
    tune: Tune = None,
    from_events: Annotated[
        bool, typer.Option("--from-events", help="Use what audits and escalations taught this device.")
    ] = False,
    collection: Annotated[str | None, typer.Option("--collection", "-c", help="Ask about these documents.")] = None,
    report_file: Annotated[Path | None, typer.Option("--report", help="Write the report here (HTML).")] = None,
    png: Png = None,
    evidence: Keep = None,
    url: Url = DEFAULT_URL,
    state: State = None,
    json: Json = False,
) -> None:
    """Calibrate quotes and generated answers on lines of {"question", "documents", "answers"}.

    No answers: the documents do not hold one. The documents lie in a folder `pages` or `documents` beside the file, and
    are stored for the calibration only; with --collection the device's own documents are asked instead. `page` is taken
    for a single document; `evidence` is the sentence that answers.

    With --from-events the examples are the device's own (see risk.keep_examples), asked in the collection that they
    came from.
    """
    daemon = Daemon(url, state, operator=True)
    if from_events == bool(data):
        raise typer.BadParameter("name files with --data, or take the device's own examples with --from-events")
    if from_events and tune:
        raise typer.BadParameter("--tune goes with --data; the device's own examples are parted by the calibration")
    if from_events:
        rows, collection = _own_examples(daemon, collection)
        _run("answers", {"rows": rows, "collection": collection}, daemon, report_file, png, evidence, json)
        return
    data = data or []
    rows = [_question(row, where) for where, row in _told(data, tune)]
    body: dict[str, Any] = {"rows": rows, "collection": collection}
    if collection is None:
        folders = _documents_folders([*data, *(tune or ())])
        names = sorted({name for row in rows for name in row["documents"]})
        body["documents"] = [_document(folders, name) for name in names]
    _run("answers", body, daemon, report_file, png, evidence, json)


@app.command(short_help="From pairs of questions that are the same, or not.")
def cache(
    data: Annotated[list[Path] | None, typer.Option("--data", help="Labelled pairs (JSON lines).")] = None,
    from_events: Annotated[
        bool, typer.Option("--from-events", help="Pair the questions that the cloud has answered this device.")
    ] = False,
    collection: Annotated[str | None, typer.Option("--collection", "-c", help="Ask about these documents.")] = None,
    report_file: Annotated[Path | None, typer.Option("--report", help="Write the report here (HTML).")] = None,
    png: Png = None,
    evidence: Keep = None,
    url: Url = DEFAULT_URL,
    state: State = None,
    json: Json = False,
) -> None:
    """Certify from which similarity on two questions are the same, on lines of {"a", "b", "same"}.

    From then on the cloud's answer to one is given to the other.
    """
    if from_events == bool(data):
        raise typer.BadParameter("name files with --data, or take the device's own questions with --from-events")
    rows = [_picked(row, where, ("a", "b", "same"), ("group",)) for where, row in (_lines(data) if data else ())]
    body = {"rows": rows, "collection": collection}
    _run("cache", body, Daemon(url, state, operator=True), report_file, png, evidence, json)


@app.command(short_help="Export what audits and escalations taught.")
def examples(
    out: Annotated[Path, typer.Option("--out", help="Write them here (JSON lines).")],
    url: Url = DEFAULT_URL,
    state: State = None,
    json: Json = False,
) -> None:
    """Export what audits and escalations taught this device, one judged question a line."""
    rows = list(Daemon(url, state, operator=True).lines("/admin/examples"))
    _write(out, "".join(jsonlib.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    if json:
        print_json({"examples": len(rows), "file": str(out)})
    else:
        console().print(f"{len(rows)} examples in {out}", markup=False)


@app.command(short_help="Trust a revoked certificate again.")
def reinstate(
    certificate: Annotated[str, typer.Argument(help="Id of a certificate; `outpost status` shows it.")],
    url: Url = DEFAULT_URL,
    state: State = None,
    json: Json = False,
) -> None:
    """Trust a revoked certificate again; its live evidence begins anew. A new calibration needs no such thing."""
    Daemon(url, state, operator=True).post(f"/admin/certificates/{quote(certificate, safe='')}/reinstate", {})
    if json:
        print_json({"reinstated": certificate})
    else:
        console().print(f"{certificate} is in force again", markup=False)


# ---------------------------------------------------------------- labelled data


def _own_examples(daemon: Daemon, collection: str | None) -> tuple[list[dict[str, Any]], str]:
    """Those of one collection. Raises InvalidRequest where there are none, or of several and none is named."""
    rows = list(daemon.lines("/admin/examples"))
    names = sorted({str(row["collection"]) for row in rows})
    if not rows:
        raise InvalidRequest(
            "the device has kept no examples", remedy="Set risk.keep_examples, and let it audit and escalate."
        )
    if collection is None and len(names) > 1:
        raise InvalidRequest(f"there are examples of {', '.join(names)}", remedy="Name one with --collection.")
    chosen = collection or names[0]
    picked = [{"question": row["question"], "answers": row["answers"]} for row in rows if row["collection"] == chosen]
    if not picked:
        raise InvalidRequest(f"no example is of {chosen!r}", remedy=f"There are examples of {', '.join(names)}.")
    return picked, chosen


def _lines(files: Sequence[Path]) -> list[tuple[str, dict[str, Any]]]:
    """The objects of JSON-lines files with where each stands. Raises InvalidRequest."""
    found = []
    for file in files:
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidRequest(f"cannot read {file}: {_why(error)}", remedy="Name a file of JSON lines.") from error
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = jsonlib.loads(line)
            except ValueError as error:
                raise InvalidRequest(f"{file}, line {number} is not JSON: {error}", remedy="Mend that line.") from error
            if not isinstance(row, dict):
                raise InvalidRequest(f"{file}, line {number} holds no object", remedy="Mend that line.")
            found.append((f"{file}, line {number}", row))
    if not found:
        raise InvalidRequest(f"no examples in {', '.join(map(str, files))}", remedy="Label some.")
    return found


def _told(data: Sequence[Path], tune: Sequence[Path] | None) -> list[tuple[str, dict[str, Any]]]:
    """The lines of all files; with ``tune`` each says which side it is for."""
    if not tune:
        return _lines(data)
    return [
        (where, {**row, "tune": side}) for side, files in ((True, tune), (False, data)) for where, row in _lines(files)
    ]


def _picked(row: dict[str, Any], where: str, needed: Sequence[str], others: Iterable[str]) -> dict[str, Any]:
    if missing := [name for name in needed if name not in row]:
        raise InvalidRequest(
            f"{where} has no {missing[0]!r}: {_shortened(row)}", remedy=f"Every line needs {' and '.join(needed)}."
        )
    return {name: row[name] for name in [*needed, *others] if name in row}


def _question(row: dict[str, Any], where: str) -> dict[str, Any]:
    picked = _picked(row, where, ("question", "answers"), ("documents", "evidence", "group", "tune"))
    if "documents" not in picked:
        picked["documents"] = [row["page"]] if "page" in row else []
    picked["evidence"] = picked.get("evidence") or ""
    return picked


def _why(error: OSError | UnicodeDecodeError) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else f"it is no UTF-8 text ({error})"


def _shortened(row: dict[str, Any]) -> str:
    text = jsonlib.dumps(row, ensure_ascii=False)
    return text if len(text) <= 100 else text[:97] + "..."


def _documents_folders(files: Sequence[Path]) -> list[Path]:
    beside = dict.fromkeys(file.parent / name for file in files for name in _BESIDE)
    if folders := [folder for folder in beside if folder.is_dir()]:
        return folders
    raise InvalidRequest(
        f"there is no folder {' or '.join(_BESIDE)} beside {files[0]}",
        remedy="Put the documents there, or name the device's own with --collection.",
    )


def _document(folders: Sequence[Path], name: str) -> dict[str, str]:
    path = next((folder / name for folder in folders if (folder / name).is_file()), folders[0] / name)
    if path.suffix.lower() not in _TEXT:
        raise InvalidRequest(
            f"{name!r} is no Markdown or text file",
            remedy="Store it with `outpost knowledge add`, and calibrate with --collection.",
        )
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"cannot read the document {path}: {_why(error)}", remedy="Check its name.") from error
    heading = re.search(r"^# (.*)", text, re.MULTILINE)
    return {"id": name, "title": heading[1].strip() if heading else path.stem, "text": text}


# ---------------------------------------------------------------- the run


def _run(
    what: str,
    body: dict[str, Any],
    daemon: Daemon,
    page: Path | None,
    png: Path | None,
    evidence: Path | None,
    json: bool,
) -> None:
    body["evidence"] = evidence is not None
    found: dict[str, Any] | None = None
    from rich.progress import Progress

    with Progress(console=console(), disable=json or not console().is_terminal, transient=True) as progress:
        task = progress.add_task("calibrating", total=None)
        for event in daemon.events(f"/admin/calibrate/{what}", body):
            if "progress" in event:
                step = event["progress"]
                progress.update(task, description=step["stage"], completed=step["done"], total=step["total"])
            else:
                found = event["calibrated"]
    if found is None:
        raise Unavailable("the calibration ended without an outcome", remedy="Look at the daemon's log.")
    outcomes = [from_json(outcome) for outcome in found["outcomes"]]
    if page is not None:
        _write(page, found["report"])
    if evidence is not None:
        _write(evidence, "".join(jsonlib.dumps(one, ensure_ascii=False) + "\n" for one in found["evidence"]))
    if png is not None:
        _draw(outcomes, png)
    if json:
        print_json({"outcomes": found["outcomes"], "notes": found["notes"]})
    else:
        for outcome in outcomes:
            _show(outcome)
    if not any(outcome.certificate for outcome in outcomes):
        raise typer.Exit(1)


def _show(outcome: Outcome) -> None:
    state = "certified" if outcome.certificate else f"no certificate ({outcome.reason}): {report.why(outcome)}"
    console().print(f"{outcome.route}: {state}", style="bold" if outcome.certificate else "bold red", markup=False)
    for name, value in report.facts(outcome):
        console().print(f"  {name}: {value}", markup=False)


def _draw(outcomes: Sequence[Outcome], folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageFailed(f"cannot make {folder}: {error.strerror}", remedy="Check the path.") from error
    for outcome in outcomes:
        for chart in report.charts(outcome):
            report.write_png(chart, folder)


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise StorageFailed(f"cannot write {path}: {error.strerror}", remedy="Check the path.") from error
