"""What verbs print: JSON for machines, tables for people."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console


@cache
def console() -> Console:
    """The terminal; rich comes with the first word for people: `outpost serve` does without it."""
    from rich.console import Console

    return Console(highlight=False, soft_wrap=True)


def print_json(value: Any) -> None:
    """One object on one line."""
    print(json.dumps(value, ensure_ascii=False), flush=True)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str = "", none: str = "") -> None:
    """Columns for people; ``none`` is said where there is no row.

    Lines break between words only, also where the screen is too narrow: a name or an id is there to be copied.
    """
    from rich.table import Table
    from rich.text import Text

    cells = [["" if value is None else str(value) for value in row] for row in rows]
    if not cells and none:
        console().print(none, markup=False)
        return
    table = Table(title=title or None, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for place, column in enumerate(columns):
        words = [word for text in (column, *(row[place] for row in cells)) for word in text.split()]
        table.add_column(column, min_width=max(map(len, words), default=0))
    for row in cells:
        table.add_row(*(Text(text) for text in row))
    console().print(table)


def size(count: float | None) -> str:
    """Bytes for people: 12.3 MiB."""
    if count is None:
        return "-"
    for unit in ("B", "KiB", "MiB"):
        if abs(count) < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"
