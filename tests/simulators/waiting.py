"""Waiting for a state that sets no event, of another process mostly: by looking again until a deadline, never for a
time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
What = str | Callable[[], str]
WITHIN_S = 20.0


def until(look: Callable[[], T], what: What, within_s: float = WITHIN_S) -> T:
    """What ``look`` gives once that is true; raises AssertionError with ``what`` did not come."""
    deadline = time.monotonic() + within_s
    while not (found := look()):
        assert time.monotonic() < deadline, _missed(what, within_s)
        time.sleep(0.02)
    return found


async def soon(look: Callable[[], T], what: What, within_s: float = WITHIN_S) -> T:
    """The same for what happens in this event loop: ``look`` must not block."""
    deadline = time.monotonic() + within_s
    while not (found := look()):
        assert time.monotonic() < deadline, _missed(what, within_s)
        await asyncio.sleep(0.005)
    return found


def _missed(what: What, within_s: float) -> str:
    return f"not within {within_s:g} s: {what if isinstance(what, str) else what()}"
