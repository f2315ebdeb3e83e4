"""Certificates: what a route's calibration promises, and whether the promise holds for what is loaded now.

A certificate belongs to the bytes that its score was fitted with (models, prompt, intent pack, retrieval settings,
score version), each named by its SHA-256 in ``depends_on``; where one of them is another now, it is void. The JSON file
of a certificate is its canonical form, and its ``id`` is made of its bytes.

    state/certificates/<route>.json          made on this device by `outpost calibrate`
    state/certificates/revoked.json          ids that live evidence has taken back, with the reason
    models/reference/certificates/*.json     for the reference models, looked at where the device has none of its own

Reasons that `Certificates.current` gives where there is none: ``no_certificate``, ``certificate_unreadable``,
``certificate_void`` (something that it depends on differs), ``certificate_weaker`` (the operator promises more than it
does), ``certificate_revoked``, ``coverage_below_floor``.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, get_args

from agent.config import Promise, Risk, RouteName
from agent.errors import ConfigError, NotFound, StorageFailed, StorageFull

SCHEMA: Final = 1
SCORE_VERSION: Final = "1"
"""Raised by whoever changes what a feature of agent/confidence/signals.py means: certificates before it are void."""
ROUTES: Final[tuple[RouteName, ...]] = get_args(RouteName)
ANSWERING: Final[tuple[RouteName, ...]] = ("intent", "quote", "generated")
"""Those by which the device itself answers. The promise of ``cache`` is about questions: two that it takes for the same
are."""
_REMEDY: Final = "Calibrate again: outpost calibrate."
_LOGIT_EDGE: Final = 1e-4


@dataclass(frozen=True, slots=True)
class Score:
    """A confidence: a logistic model over features, made a probability by monotone interpolation.

    ``weights`` go by term: a feature's name, or ``logit:`` and the name of a feature that is a probability. ``needed``
    features were there in all that it was fitted on; where one is missing the evidence is of another kind, and the
    confidence is 0. ``knots`` are (sum of the terms, confidence), both rising; outside of them the ends hold.
    """

    bias: float
    weights: Mapping[str, float]
    needed: tuple[str, ...]
    knots: tuple[tuple[float, float], ...]

    def __call__(self, features: Mapping[str, float]) -> float:
        if any(name not in features for name in self.needed):
            return 0.0
        return self.at(self.bias + sum(weight * term(name, features) for name, weight in self.weights.items()))

    def at(self, total: float) -> float:
        """The confidence of a sum of terms."""
        if math.isnan(total):
            return 0.0
        if total <= self.knots[0][0]:
            return self.knots[0][1]
        for (left, low), (right, high) in pairwise(self.knots):
            if total <= right:
                return low + (high - low) * (total - left) / (right - left)
        return self.knots[-1][1]


def term(name: str, features: Mapping[str, float]) -> float:
    """The value of a score's term; a feature that is not given counts as 0."""
    kind, _, feature = name.rpartition(":")
    value = features.get(feature if kind == "logit" else name, 0.0)
    if kind != "logit":
        return value
    share = min(1 - _LOGIT_EDGE, max(_LOGIT_EDGE, value))
    return math.log(share / (1 - share))


@dataclass(frozen=True, slots=True)
class Gate:
    """The certificate holds only for questions that another route leaves: those to which ``score`` gives less than
    ``below`` (see calibration.certify)."""

    route: RouteName
    below: float
    score: Score


@dataclass(frozen=True)  # without slots, for `id` is kept
class Certificate:
    """The promise of one route: among the answers that it gives with a confidence of at least ``threshold`` at most
    the share ``epsilon`` is wrong; the procedure that says so errs with a probability of at most ``delta``.

    Counts are of the half of the data that certified: ``n`` questions that reached the route, ``served`` of them at the
    threshold, ``wrong`` of those. ``coverage`` = served / n, ``risk`` = wrong / served, ``risk_upper`` the
    Clopper-Pearson bound of that risk at delta. ``bound`` is the largest coverage that any ordering of these answers
    could have with a risk of epsilon. ``measures`` are agent/confidence/measures.py's, on the same half; ``scores`` the
    deciles 0, 10, ... 100 % of its confidences, which drift is measured against. Times in Unix seconds.
    """

    route: RouteName
    epsilon: float
    delta: float
    threshold: float
    n: int
    served: int
    wrong: int
    coverage: float
    risk: float
    risk_upper: float
    bound: float
    tuned_on: int
    groups: int
    score: Score
    depends_on: Mapping[str, str]
    data: Mapping[str, str]
    issued_at: float
    gate: Gate | None = None
    measures: Mapping[str, float] = field(default_factory=dict)
    scores: tuple[float, ...] = ()

    @cached_property
    def id(self) -> str:
        """Stable: the route and the beginning of the hash of all that the certificate says."""
        return f"{self.route}-{hashlib.sha256(dump(self)).hexdigest()[:12]}"

    def confidence(
        self, features: Mapping[str, float], others: Mapping[str, Mapping[str, float]] | None = None
    ) -> float:
        """How likely an answer with these features is right, 0..1. ``others`` are the features of the same question's
        candidates of other routes: 0 where the gate's route has not left the question to this one."""
        if self.gate is not None:
            other = (others or {}).get(self.gate.route)
            if other is not None and self.gate.score(other) >= self.gate.below:
                return 0.0
        return self.score(features)

    def serves(self, features: Mapping[str, float], others: Mapping[str, Mapping[str, float]] | None = None) -> bool:
        """Whether the promise covers an answer with these features."""
        return self.confidence(features, others) >= self.threshold

    def least(self, feature: str) -> float:
        """The least value of the one feature that decides (rising, within -1..1) from which on the promise covers."""
        low, high = -1.0, 1.0
        for _ in range(50):
            middle = (low + high) / 2
            low, high = (low, middle) if self.serves({feature: middle}) else (middle, high)
        return high

    def differences(self, loaded: Mapping[str, str]) -> tuple[str, ...]:
        """Names of what is another now than when this was made; `loaded` as `depends_on`."""
        names = sorted(self.depends_on.keys() | loaded.keys())
        return tuple(name for name in names if self.depends_on.get(name) != loaded.get(name))


# ---------------------------------------------------------------- the file


def dump(certificate: Certificate) -> bytes:
    """The canonical JSON of a certificate."""
    data = {"schema": SCHEMA} | {f.name: _plain(getattr(certificate, f.name)) for f in fields(certificate)}
    return json.dumps(data, indent=1, sort_keys=True).encode() + b"\n"


def parse(text: bytes, where: str = "the certificate") -> Certificate:
    """Raises ConfigError for what is no certificate, or one of another schema."""
    try:
        data = json.loads(text)
        if data.pop("schema") != SCHEMA:
            raise ValueError(f"its schema is not {SCHEMA}")
        data["score"] = _score(data["score"])
        if gate := data["gate"]:
            data["gate"] = Gate(gate["route"], float(gate["below"]), _score(gate["score"]))
        data["scores"] = tuple(data["scores"])
        certificate = Certificate(**data)
        _check(certificate)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{where} cannot be used: {error}", remedy=_REMEDY) from error
    return certificate


def _plain(value: object) -> object:
    if isinstance(value, (Score, Gate)):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    return dict(value) if isinstance(value, Mapping) else value


def _score(data: Mapping[str, Any]) -> Score:
    knots = tuple((float(x), float(y)) for x, y in data["knots"])
    weights = {str(name): float(weight) for name, weight in data["weights"].items()}
    score = Score(float(data["bias"]), weights, tuple(map(str, data["needed"])), knots)
    numbers = [score.bias, *weights.values(), *(value for knot in knots for value in knot)]
    if not knots or not all(map(math.isfinite, numbers)):
        raise ValueError("its score holds no knots, or values that are not finite")
    if any(a[0] >= b[0] or a[1] > b[1] for a, b in pairwise(knots)) or not 0 <= knots[0][1] <= knots[-1][1] <= 1:
        raise ValueError("the knots of its score do not rise")
    return score


def _check(certificate: Certificate) -> None:
    if certificate.route not in ROUTES:
        raise ValueError(f"{certificate.route!r} is no route")
    if not (0 < certificate.epsilon < 1 and 0 < certificate.delta < 1 and 0 < certificate.threshold <= 1):
        raise ValueError("epsilon, delta or the threshold is out of range")
    if not (0 <= certificate.wrong <= certificate.served <= certificate.n and certificate.served > 0):
        raise ValueError("its counts contradict each other")
    if not certificate.depends_on or any(not isinstance(value, str) for value in certificate.depends_on.values()):
        raise ValueError("it does not say what it depends on")


# ---------------------------------------------------------------- those of a device


@dataclass(frozen=True, slots=True)
class Standing:
    """A route's certificate, or why there is none: ``reason`` is a stable code, ``detail`` says more to people."""

    certificate: Certificate | None
    reason: str = ""
    detail: str = ""


class Certificates:
    """The certificates of a device. Files are read by `refresh`, `install` and `revoke` only (blocking); `current`
    compares them with what is loaded at that moment and costs microseconds."""

    def __init__(
        self, folder: Path, shipped: Path, risk: Risk, dependencies: Callable[[RouteName], Mapping[str, str]]
    ) -> None:
        self._folder = folder
        self._shipped = shipped
        self._risk = risk
        self._dependencies = dependencies
        self._own: dict[str, Certificate] = {}
        self._reference: list[Certificate] = []
        self._unreadable: dict[str, str] = {}
        self._revoked: dict[str, str] = {}

    def refresh(self) -> None:
        """Read what lies in both folders. What cannot be read takes its route's certificate away and no other."""
        self._own, self._unreadable = {}, {}
        for route in ROUTES:
            path = self._folder / f"{route}.json"
            try:
                self._own[route] = parse(path.read_bytes(), str(path))
            except FileNotFoundError:
                continue
            except OSError as error:
                self._unreadable[route] = f"{path} cannot be read: {error.strerror}"
            except ConfigError as error:
                self._unreadable[route] = str(error)
        self._reference = _shipped(self._shipped)
        try:
            self._revoked = dict(json.loads((self._folder / "revoked.json").read_bytes()))
        except FileNotFoundError:
            self._revoked = {}
        except (OSError, ValueError, TypeError) as error:  # nobody knows then what was revoked
            detail = f"{self._folder / 'revoked.json'} cannot be read: {error}"
            self._unreadable = dict.fromkeys(ROUTES, detail)

    def current(self, route: RouteName) -> Standing:
        """The route's certificate that holds now: the device's own, else one for the reference models."""
        if route in self._unreadable:
            return Standing(None, "certificate_unreadable", self._unreadable[route])
        loaded = self._dependencies(route)
        standing = Standing(None, "no_certificate", "none was made; `outpost calibrate` makes one")
        own = self._own.get(route)
        for certificate in [own] if own else [c for c in self._reference if c.route == route]:
            standing = self._standing(certificate, loaded)
            if standing.reason not in ("certificate_void", "certificate_weaker"):
                break  # a revoked one too: evidence against it is evidence against a stronger promise as well
        return standing

    def _standing(self, certificate: Certificate, loaded: Mapping[str, str]) -> Standing:
        promise = self._risk.promise(certificate.route)
        if names := certificate.differences(loaded):
            return Standing(None, "certificate_void", f"made with another {', another '.join(names)}")
        if certificate.epsilon > promise.epsilon or certificate.delta > promise.delta:
            return Standing(None, "certificate_weaker", _weaker(certificate, promise))
        if certificate.id in self._revoked:
            return Standing(None, "certificate_revoked", self._revoked[certificate.id])
        if certificate.route in ANSWERING and certificate.coverage < self._risk.coverage_floor:
            detail = f"it serves {certificate.coverage:.1%}, and risk.coverage_floor is {self._risk.coverage_floor:.1%}"
            return Standing(None, "coverage_below_floor", detail)
        return Standing(certificate)

    def install(self, routes: Sequence[RouteName], certificates: Sequence[Certificate]) -> None:
        """Put these in force and take the others of ``routes`` away, durably: what was calibrated together holds
        together. Raises StorageFull, StorageFailed."""
        made = {certificate.route: certificate for certificate in certificates}
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            for route in routes:
                path = self._folder / f"{route}.json"
                path.unlink(missing_ok=True)  # a crash in between leaves a route without, never with a stale one
            for route, certificate in made.items():
                _write(self._folder / f"{route}.json", dump(certificate))
            _sync(self._folder)
        except OSError as error:
            raise _storage_error(self._folder, error) from error
        self.refresh()

    def revoke(self, id: str, reason: str) -> None:
        """Take a certificate back, durably; a new calibration makes another id. Raises StorageFull, StorageFailed."""
        revoked = self._revoked | {id: reason}
        try:
            self._keep_revoked(revoked)
        finally:
            self._revoked = revoked  # even where it cannot be kept: this process has seen the evidence

    def reinstate(self, id: str) -> None:
        """Undo a revocation, durably. Raises NotFound where it is not revoked, StorageFull, StorageFailed."""
        if id not in self._revoked:
            raise NotFound(f"the certificate {id!r} is not revoked", remedy="`outpost status` names those that are.")
        revoked = {other: reason for other, reason in self._revoked.items() if other != id}
        self._keep_revoked(revoked)
        self._revoked = revoked

    def _keep_revoked(self, revoked: Mapping[str, str]) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            _write(self._folder / "revoked.json", json.dumps(revoked, indent=1, sort_keys=True).encode() + b"\n")
            _sync(self._folder)
        except OSError as error:
            raise _storage_error(self._folder, error) from error


def _shipped(folder: Path) -> list[Certificate]:
    """Those for the reference models, the most permissive promise first; one of another schema counts for nothing."""
    found = []
    for path in sorted(folder.glob("*.json")):
        with contextlib.suppress(OSError, ConfigError):
            found.append(parse(path.read_bytes(), str(path)))
    return sorted(found, key=lambda certificate: -certificate.epsilon)


def _weaker(certificate: Certificate, promise: Promise) -> str:
    return (
        f"it promises epsilon {certificate.epsilon:g} at delta {certificate.delta:g}, "
        f"and the configuration asks for {promise.epsilon:g} at {promise.delta:g}"
    )


def _write(path: Path, data: bytes) -> None:
    fresh = path.with_name(path.name + ".new")
    with fresh.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _storage_error(folder: Path, error: OSError) -> StorageFailed | StorageFull:
    kind = StorageFull if error.errno == errno.ENOSPC else StorageFailed
    return kind(f"the certificates in {folder} cannot be kept: {error.strerror}", remedy="Free some disk space.")
