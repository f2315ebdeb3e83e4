"""Ranges of numbers spelled as grammar (GBNF): pure, exact, and no wider than the bounds.

Each function returns alternatives without a bar at their top level, so they can be joined or embedded. `decimals` uses
the rule ``fraction`` of agent/engines/grammar.py.
"""

from __future__ import annotations

MAX_DIGITS = 15
"""Digits that a number may have before and behind its point."""


def integers(low: int, high: int) -> list[str]:
    """Alternatives that spell the integers from ``low`` to ``high``."""
    parts = []
    if low < 0:
        parts += [f'"-" ( {part} )' for part in _natural(max(1, -high), -low)]
    if high >= 0:
        parts += _natural(max(0, low), high)
    return parts


def _natural(low: int, high: int) -> list[str]:
    parts = []
    for length in range(len(str(low)), len(str(high)) + 1):
        least = max(low, 10 ** (length - 1) if length > 1 else 0)
        most = min(high, 10**length - 1)
        if least <= most:
            parts += _between(str(least), str(most))
    return parts


def _between(low: str, high: str) -> list[str]:
    """Alternatives for the digit strings from ``low`` to ``high``, both of one length."""
    if not low:
        return ['""']
    rest = len(low) - 1
    if low[0] == high[0]:
        return [f'"{low[0]}" {part}' for part in _between(low[1:], high[1:])]
    if low[1:] == "0" * rest and high[1:] == "9" * rest:
        return [_digits(low[0], high[0], rest)]
    parts = [f'"{low[0]}" {part}' for part in _between(low[1:], "9" * rest)]
    if int(high[0]) - int(low[0]) > 1:
        parts.append(_digits(str(int(low[0]) + 1), str(int(high[0]) - 1), rest))
    return parts + [f'"{high[0]}" {part}' for part in _between("0" * rest, high[1:])]


def _digits(low: str, high: str, rest: int) -> str:
    return f"[{low}-{high}]" + (f" [0-9]{{{rest}}}" if rest else "")


def decimals(low: int, high: int, low_open: bool, high_open: bool) -> list[str]:
    """Alternatives that spell the decimal numbers between whole bounds."""
    if high < 0 or (high == 0 and low < 0 and high_open):
        return [f'"-" ( {part} )' for part in decimals(-high, -low, high_open, low_open)]
    if low < 0:
        below = [f'"-" ( {part} )' for part in decimals(0, -low, True, low_open)]
        return below + decimals(0, high, False, high_open)
    zeros, something = '( "." "0"{1,6} )?', f'"." [0-9]{{0,{MAX_DIGITS - 1}}} [1-9]'
    parts = []
    if low == high:
        return [] if low_open or high_open else [f"{part} {zeros}" for part in _natural(low, low)]
    inner = low
    if low_open:
        parts += [f"{part} {something}" for part in _natural(low, low)]
        inner = low + 1
    if inner <= high - 1:
        parts += [f"( {' | '.join(_natural(inner, high - 1))} ) fraction?"]
    if not high_open:
        parts += [f"{part} {zeros}" for part in _natural(high, high)]
    return parts
