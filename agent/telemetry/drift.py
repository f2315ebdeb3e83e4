"""Drift: whether a route's confidences come from the distribution that it was calibrated on (pure).

The reference is the deciles that the certificate keeps of its calibration set; the present, the last `WINDOW`
confidences. Compared are the shares of the bins between deciles: the population stability index (PSI, the symmetrised
divergence) and the Kullback-Leibler divergence of the present from the reference, in nats. Without drift the PSI of n
against m samples is about (1/n + 1/m) times a chi-square of bins - 1 degrees of freedom (Yurdakul and Naranjo,
"Statistical properties of the population stability index", 2020), so a warning needs the usual bound of .25 *and* a
value beyond its 99.9 % quantile. A warning says that the exchangeability which the promise stands on is in doubt. It
proves neither that answers got worse nor, where it is absent, that they did not: a venue may ask easier questions, and
right answers may become wrong under the same confidences.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

WINDOW: Final = 500
LARGE: Final = 0.25
"""PSI from which on a shift is called large."""
_QUANTILE_Z: Final = 3.09
"""Standard normal quantile of 99.9 %."""


@dataclass(frozen=True, slots=True)
class Drift:
    """``psi`` and ``kl`` (nats) of the last ``n`` confidences; None without any."""

    psi: float | None
    kl: float | None
    n: int
    warning: bool


class Window:
    """The last `WINDOW` confidences of a route, by the bins of a reference. ``deciles`` are 0, 10, ... 100 % of ``n``
    calibration confidences; equal ones (a score with steps) make one bin."""

    def __init__(self, deciles: Sequence[float], n: int, kept: bytes = b"") -> None:
        ordered = sorted(deciles)
        steps = max(1, len(ordered) - 1)
        below = {value: place / steps for place, value in enumerate(ordered)}  # the last place of equal ones
        self._edges = [value for value, share in below.items() if 0.0 < share < 1.0]
        bounds = [0.0, *(below[edge] for edge in self._edges), 1.0]
        self._expected = [high - low for low, high in pairwise(bounds)]
        self._n = n
        self._bins = deque((bin for bin in kept if bin < len(self._expected)), maxlen=WINDOW)

    def add(self, confidence: float) -> None:
        self._bins.append(bisect_left(self._edges, confidence))

    def kept(self) -> bytes:
        """For another Window with the same reference."""
        return bytes(self._bins)

    def drift(self) -> Drift:
        total = len(self._bins)
        if not total or len(self._expected) < 2:
            return Drift(None, None, total, False)
        counts = Counter(self._bins)
        observed = [counts[bin] for bin in range(len(self._expected))]
        psi, kl = divergences(self._expected, observed)
        chance = (1 / total + 1 / max(1, self._n)) * _chi_square(len(self._expected) - 1)
        return Drift(psi, kl, total, psi > LARGE and psi > chance)


def divergences(expected: Sequence[float], counts: Iterable[int]) -> tuple[float, float]:
    """PSI, and KL(observed | expected) in nats, of counted bins against expected shares (all positive). Half a count is
    added to every bin, for empty ones would be infinitely far away."""
    filled = [count + 0.5 for count in counts]
    total = sum(filled)
    pairs = [(count / total, share) for count, share in zip(filled, expected, strict=True)]
    psi = sum((now - before) * math.log(now / before) for now, before in pairs)
    return psi, sum(now * math.log(now / before) for now, before in pairs)


def _chi_square(freedom: int) -> float:
    """Its 99.9 % quantile (Wilson and Hilferty's approximation, within 2 % of it)."""
    spread = 2 / (9 * freedom)
    return float(freedom * (1 - spread + _QUANTILE_Z * math.sqrt(spread)) ** 3)
