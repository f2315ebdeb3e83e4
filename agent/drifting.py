"""Drift while the device runs: the confidences of every certified route, kept across restarts (L2).

What is compared, and what a warning means, is in agent/telemetry/drift.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from agent.confidence.certificate import Certificate, Standing
from agent.config import RouteName
from agent.telemetry.drift import Drift, Window
from agent.telemetry.labels import Labels
from agent.telemetry.metrics import Metrics

_DOCUMENTS: Final[tuple[RouteName, ...]] = ("quote", "generated")
_INTENTS: Final[tuple[RouteName, ...]] = ("intent",)
_FEWEST_SCORES: Final = 3


class Drifting:
    """`open` first; `keep` writes down what was seen since, which a kill loses. ``standing`` says what is promised."""

    def __init__(self, labels: Labels, metrics: Metrics, standing: Callable[[RouteName], Standing]) -> None:
        self._labels = labels
        self._metrics = metrics
        self._standing = standing
        self._windows: dict[str, Window] = {}
        self._kept: dict[str, bytes] = {}
        self._stale: set[str] = set()

    async def open(self) -> None:
        """Raises StorageFull, StorageFailed."""
        self._kept = await self._labels.windows()

    def saw(self, features: Mapping[str, Mapping[str, float]], *, searched: bool) -> None:
        """A question with the features of its candidates by route; ``searched``: documents were. Counted is the
        confidence of every route that the question reached, 0 where that had no answer to give."""
        for route in _INTENTS if "intent" in features else _DOCUMENTS if searched else ():
            certificate = self._standing(route).certificate
            if certificate is None or len(certificate.scores) < _FEWEST_SCORES:
                continue
            gate = certificate.gate
            if gate and gate.route in features and gate.score(features[gate.route]) >= gate.below:
                continue  # not a question of those that the certificate is about
            own = features.get(route)
            id = certificate.id  # the hash of all that it says: once is enough
            self._window(id, certificate).add(certificate.score(own) if own is not None else 0.0)
            self._stale.add(id)

    def of(self, certificate: Certificate) -> Drift:
        return self._window(certificate.id, certificate).drift()

    async def keep(self) -> None:
        """Raises StorageFull, StorageFailed."""
        while self._stale:
            id = self._stale.pop()
            drift = self._windows[id].drift()
            route = id.partition("-")[0]
            if drift.psi is not None and drift.kl is not None:
                self._metrics.drift["psi"].labels(route).set(drift.psi)
                self._metrics.drift["kl_nats"].labels(route).set(drift.kl)
            await self._labels.keep_window(id, self._windows[id].kept())

    def _window(self, id: str, certificate: Certificate) -> Window:
        if id not in self._windows:
            self._windows[id] = Window(certificate.scores, certificate.n, self._kept.get(id, b""))
        return self._windows[id]
