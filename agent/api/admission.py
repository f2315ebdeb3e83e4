"""How many questions and generations the daemon takes at a time: a bounded count, then 429 with Retry-After."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from agent.errors import Overloaded, ShuttingDown


class Admission:
    """``limit`` requests waiting or running. What runs together is the engine's own matter; this bounds the whole."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.active = 0
        self.closed = False
        self._mean_s = 1.0

    @contextmanager
    def enter(self) -> Iterator[None]:
        """Hold a place. Raises Overloaded with the expected time until one is free, ShuttingDown after `close`."""
        if self.closed:
            raise ShuttingDown("the daemon is stopping", remedy="Ask again when it is back.")
        if self.active >= self.limit:
            wait = max(1.0, self._mean_s)
            raise Overloaded(
                f"{self.active} requests are waiting or running; the limit is {self.limit}",
                remedy=f"Try again in {wait:.0f} s.",
                retry_after_s=wait,
            )
        started = time.monotonic()
        self.active += 1
        try:
            yield
        finally:
            self.active -= 1
            self._mean_s += 0.2 * (time.monotonic() - started - self._mean_s)

    def close(self) -> None:
        """Take no more requests; those inside go on."""
        self.closed = True
