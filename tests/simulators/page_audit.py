"""What can be measured of a page as it is shown: contrast, sizes of targets, names of controls, overflow.

The measuring (page_audit.js) runs inside the page, so it sees computed colours and sizes, not the style sheet.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

_SCRIPT = Path(__file__).with_suffix(".js").read_text(encoding="utf-8")


def _measure(page: Any, what: str) -> Any:
    return page.evaluate(f"() => {{ {_SCRIPT}\nreturn {what}(); }}")


def worst_contrast(page: Any) -> dict[str, Any]:
    """The text with the least contrast to its ground; WCAG AA asks for 4.5."""
    found: list[dict[str, Any]] = _measure(page, "contrasts")
    assert found, "no text on the page"
    return min(found, key=lambda pair: float(pair["ratio"]))


def small_targets(page: Any, least: float = 48) -> list[dict[str, Any]]:
    """The controls that are too small for a finger."""
    found: list[dict[str, Any]] = _measure(page, "targets")
    assert found, "no control on the page"
    return [target for target in found if target["width"] < least - 0.5 or target["height"] < least - 0.5]


def unnamed_controls(page: Any) -> list[str]:
    """The controls that a screen reader could not name."""
    found: list[str] = _measure(page, "unnamed")
    return found


def overflow(page: Any) -> list[str]:
    """What sticks out of the screen sideways."""
    found: list[str] = _measure(page, "overflowing")
    return found
