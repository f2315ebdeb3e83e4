"""The circuit breaker of one endpoint: a pure state machine that is told the time and what happened.

closed: requests pass; ``Rules.failures`` in a row open it. open: nothing passes until ``rest_s`` are over, or until the
moment that the endpoint itself named (Retry-After). half open: one probe passes; its success closes the breaker, its
failure opens it for twice as long as before, up to ``rest_max_s``. A probe of which nothing is heard for ``probe_s`` is
given up, so that a lost one cannot keep the breaker half open for ever.

Any answer that shows the endpoint at work counts as a success, also one that refuses the request: a wrong key is no
outage, and resting does not mend it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

State = Literal["closed", "open", "half_open"]


@dataclass(frozen=True, slots=True)
class Rules:
    """When a breaker opens and for how long; times in seconds."""

    failures: int = 3
    rest_s: float = 5.0
    rest_max_s: float = 300.0
    probe_s: float = 120.0


RULES = Rules()


@dataclass(frozen=True, slots=True)
class Breaker:
    """One endpoint's state. ``now`` in every method is a monotonic clock in seconds; each change gives a new Breaker.

    ``failures`` in a row; ``until``: nothing passes before (None: closed); ``rest_s``: the last rest, 0 for none;
    ``probing_since``: a probe is out.
    """

    rules: Rules = RULES
    failures: int = 0
    until: float | None = None
    rest_s: float = 0.0
    probing_since: float | None = None

    def state(self, now: float) -> State:
        if self.until is None:
            return "closed"
        return "open" if now < self.until else "half_open"

    @property
    def tripped(self) -> bool:
        """Whether failures opened it, not only a wish of the endpoint; until the next success."""
        return self.rest_s > 0

    def admits(self, now: float) -> bool:
        """Whether a request may pass now; who sends one calls `sent` first."""
        return self.wait_s(now) == 0.0

    def wait_s(self, now: float) -> float:
        """Seconds until a request may pass, 0 for at once; while a probe is out, until it would be given up."""
        if self.until is None:
            return 0.0
        free = self.until
        if self.probing_since is not None:
            free = max(free, self.probing_since + self.rules.probe_s)
        return max(0.0, free - now)

    def sent(self, now: float) -> Breaker:
        """A request that `admits` let pass is on its way; half open, it is the probe."""
        return self if self.until is None else replace(self, probing_since=now)

    def succeeded(self) -> Breaker:
        return Breaker(self.rules)

    def abandoned(self) -> Breaker:
        """The request was withdrawn before anything was learnt from it: another may probe."""
        return replace(self, probing_since=None)

    def failed(self, now: float, retry_after_s: float | None = None) -> Breaker:
        """A request found nobody at work. ``retry_after_s`` is the endpoint's own wish and is always respected; it
        opens the breaker by itself."""
        failures = self.failures + 1
        wish = [now + retry_after_s] if retry_after_s else []
        if self.until is not None and now < self.until:  # sent before it opened: no reason to rest for longer
            return replace(self, failures=failures, until=max([self.until, *wish]), probing_since=None)
        opens = failures >= self.rules.failures
        rest = min(self.rules.rest_max_s, max(self.rules.rest_s, 2 * self.rest_s)) if opens else self.rest_s
        ends = [*wish, now + rest] if opens else wish
        return Breaker(self.rules, failures, max(ends, default=None), rest)
