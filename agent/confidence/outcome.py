"""What a calibration found about a route: the tests, the curves, the certificate; and its JSON, which travels to the
command line and is kept beside the certificates."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from agent.confidence.certificate import Certificate, dump, parse
from agent.config import RouteName

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Step:
    """A tested threshold: of the held samples ``served`` reach it and ``wrong`` of them are wrong."""

    threshold: float
    served: int
    wrong: int
    p: float


@dataclass(frozen=True, slots=True)
class Walk:
    """What the tests gave on ``n`` held samples. ``threshold`` is the last that passed, None where none did;
    ``failed_at`` the lowest that was looked at; ``reason`` a stable code: ``certified``, ``no_prospect`` (tune shows no
    threshold worth a test), ``not_certified`` (the first test failed)."""

    reason: str
    n: int
    steps: tuple[Step, ...]
    threshold: float | None = None
    failed_at: float = 1.0

    @property
    def last(self) -> Step:
        """The step that certified."""
        return next(step for step in reversed(self.steps) if step.threshold == self.threshold)


@dataclass(frozen=True, slots=True)
class Curves:
    """What the report shows of the held samples: named figures (agent/confidence/measures.py), bins of (mean
    confidence, share right, share of answers), points of (coverage, risk) for the given order and for the best that
    these answers could have, and the point that was certified."""

    measures: Mapping[str, float]
    bound: float
    reliability: tuple[tuple[float, float, float], ...]
    risk_coverage: tuple[Point, ...]
    ideal: tuple[Point, ...]
    certified: Point | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """A route's certificate, or the ``reason`` why there is none: a Walk's, ``too_few_labels`` or
    ``coverage_below_floor``."""

    route: RouteName
    reason: str
    epsilon: float
    delta: float
    certificate: Certificate | None = None
    walk: Walk | None = None
    curves: Curves | None = None


def to_json(outcome: Outcome) -> dict[str, Any]:
    certificate = outcome.certificate
    return {
        "route": outcome.route,
        "reason": outcome.reason,
        "epsilon": outcome.epsilon,
        "delta": outcome.delta,
        "id": certificate.id if certificate else None,
        "certificate": json.loads(dump(certificate)) if certificate else None,
        "walk": asdict(outcome.walk) if outcome.walk else None,
        "curves": asdict(outcome.curves) if outcome.curves else None,
    }


def from_json(data: Mapping[str, Any]) -> Outcome:
    """The outcome that `to_json` wrote. Raises ConfigError for its certificate; KeyError, TypeError, ValueError."""
    certificate, walk, curves = data["certificate"], data["walk"], data["curves"]
    return Outcome(
        route=data["route"],
        reason=data["reason"],
        epsilon=data["epsilon"],
        delta=data["delta"],
        certificate=parse(json.dumps(certificate).encode()) if certificate else None,
        walk=Walk(**{**walk, "steps": tuple(Step(**step) for step in walk["steps"])}) if walk else None,
        curves=_curves(curves) if curves else None,
    )


def _curves(data: Mapping[str, Any]) -> Curves:
    points = {name: tuple(map(tuple, data[name])) for name in ("reliability", "risk_coverage", "ideal")}
    return Curves(**{**data, **points, "certified": tuple(data["certified"]) if data["certified"] else None})
