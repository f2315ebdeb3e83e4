"""Frames: what visitor information says about one matter, and how people ask for it. Read from the text files here.

A frame file is a list of blocks. Lines of a block:

    @ name                  starts a frame; `@ + file.name` goes on with one that another file started
    let slot=kind ...       its slots; kinds are those of values.py
    key slot ...            slots that say what the fact is about (a question about another one has no answer here)
    parts whole=a,b         a span that consists of others: with a part known, asking for the whole is not refused
    H heading || heading    headings under which such facts stand
    S text   / S~ text      a statement; `~` marks wording held out of training
    M lead :: item / M~     several facts of the frame in one sentence
    Q span question / Q~    a question that the span answers
    L label :: value        the fact as a list item or two-column table row
    T column = value | ...  the fact as a table row
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path


@dataclass
class Frame:
    name: str
    kinds: dict[str, str] = field(default_factory=dict)
    keys: tuple[str, ...] = ()
    parts: dict[str, tuple[str, ...]] = field(default_factory=dict)
    headings: list[str] = field(default_factory=list)
    statements: list[str] = field(default_factory=list)
    held_statements: list[str] = field(default_factory=list)
    questions: dict[str, list[str]] = field(default_factory=dict)
    held_questions: dict[str, list[str]] = field(default_factory=dict)
    items: list[str] = field(default_factory=list)
    rows: list[str] = field(default_factory=list)
    several: list[str] = field(default_factory=list)
    held_several: list[str] = field(default_factory=list)


def read(path: Path, known: dict[str, Frame]) -> None:
    """Add a file's frames to those known."""
    for line in path.read_text("utf-8").splitlines():
        mark, _, rest = line.partition(" ")
        if not line.strip() or mark == "#":
            continue
        if mark == "@":
            name = rest.removeprefix("+ ") if rest.startswith("+ ") else f"{path.stem}.{rest}"
            frame = known[name] if rest.startswith("+ ") else known.setdefault(name, Frame(name))
            continue
        if mark == "let":
            frame.kinds.update(pair.split("=") for pair in rest.split())
        elif mark == "key":
            frame.keys = tuple(rest.split())
        elif mark == "parts":
            frame.parts.update(
                {whole: tuple(parts.split(",")) for whole, parts in (pair.split("=") for pair in rest.split())}
            )
        elif mark == "H":
            frame.headings += [heading.strip() for heading in rest.split("||")]
        elif mark in ("S", "S~"):
            (frame.statements if mark == "S" else frame.held_statements).append(rest)
        elif mark in ("M", "M~"):
            (frame.several if mark == "M" else frame.held_several).append(rest)
        elif mark in ("Q", "Q~"):
            name, _, question = rest.partition(" ")
            (frame.questions if mark == "Q" else frame.held_questions).setdefault(name, []).append(question)
        elif mark == "L":
            frame.items.append(rest)
        elif mark == "T":
            frame.rows.append(rest)
        else:
            raise ValueError(f"{path.name}: unknown mark in {line!r}")


_MARKS = str.maketrans("", "", " .,;:?!'\"-–()/’“”")


def _bare(template: str) -> str:
    return template.rpartition("::")[2].lower().translate(_MARKS)


def apart(frame: Frame) -> Frame:
    """The frame without training wording that is held out too; they were written without sight of each other."""
    held = {_bare(text) for text in (*frame.held_statements, *frame.held_several)}
    held |= {_bare(text) for texts in frame.held_questions.values() for text in texts}
    return replace(
        frame,
        statements=[text for text in frame.statements if _bare(text) not in held],
        several=[text for text in frame.several if _bare(text) not in held],
        questions={
            name: [text for text in texts if _bare(text) not in held] for name, texts in frame.questions.items()
        },
    )


@cache
def load() -> tuple[Frame, ...]:
    known: dict[str, Frame] = {}
    for path in sorted(Path(__file__).parent.glob("*.txt"), key=lambda path: (path.stem == "more", path.stem)):
        read(path, known)
    return tuple(map(apart, known.values()))


@cache
def conflicts() -> tuple[frozenset[str], ...]:
    """Groups of frames of which a passage may hold only one; `clause` stands for all made by clauses.py."""
    lines = (Path(__file__).parent / "conflicts").read_text("utf-8").splitlines()
    return tuple(frozenset(line.split()) for line in lines if not line.startswith("#"))
