"""Decisions about memory, pure: what must go before a model may come.

The pool measures and acts (agent/engines/pool.py); here is only the arithmetic, so that every rule can be tested
without a process.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agent.errors import ModelDoesNotFit


@dataclass(frozen=True, slots=True)
class Holding:
    """Memory that a worker holds, or that a load in progress was promised. ``evictable``: idle and not pinned;
    ``reload_s`` is what loading it took the last time, ``last_used`` any clock that grows."""

    model: str
    bytes: int
    evictable: bool
    pinned: bool = False
    reload_s: float = 0.0
    last_used: float = 0.0


def make_room(model: str, needed: int, budget: int, holdings: Sequence[Holding]) -> tuple[str, ...]:
    """The models to evict so that ``needed`` bytes fit into ``budget``: cheapest to reload first, then the least
    recently used, and none that turns out unnecessary once a bigger one had to go.

    Raises ModelDoesNotFit: for good where the pinned models alone leave too little, else with a time to come back.
    """
    pinned = sum(holding.bytes for holding in holdings if holding.pinned)
    used = sum(holding.bytes for holding in holdings)
    if needed > budget - pinned:
        reason = f", of which pinned models hold {_mib(pinned)}" if pinned else ""
        raise ModelDoesNotFit(
            f"model {model!r} needs {_mib(needed)}, the budget is {_mib(budget)}{reason}",
            remedy="Raise [pool] memory_mb, unpin a model, or choose a smaller one.",
        )
    chosen: list[Holding] = []
    for holding in sorted(
        (holding for holding in holdings if holding.evictable),
        key=lambda holding: (holding.reload_s, holding.last_used),
    ):
        if used - _total(chosen) + needed <= budget:
            break
        chosen.append(holding)
    freed = _total(chosen)
    if used - freed + needed > budget:
        raise ModelDoesNotFit(
            f"model {model!r} needs {_mib(needed)}, the budget is {_mib(budget)} and models at work hold "
            f"{_mib(used - freed)}",
            remedy="Come back when they are idle, or raise [pool] memory_mb.",
            retry_after_s=5.0,
        )
    for holding in sorted(chosen, key=lambda holding: (holding.reload_s, holding.last_used), reverse=True):
        if used - (freed - holding.bytes) + needed <= budget:
            chosen.remove(holding)
            freed -= holding.bytes
    return tuple(holding.model for holding in chosen)


def _total(holdings: Sequence[Holding]) -> int:
    return sum(holding.bytes for holding in holdings)


def _mib(count: int) -> str:
    return f"{count / (1 << 20):.0f} MiB"
