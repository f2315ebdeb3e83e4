"""Choosing a token from one row of logits: pure numpy, one vectorised pass a row.

Temperature comes first, then top-k, min-p and top-p on the scaled distribution (the order of OpenAI-compatible
servers). A seeded request draws from its own generator, one number a token, so its choices depend on its logits alone.
Log-probabilities are the model's own: before penalty, temperature and any constraint.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from agent.errors import BadModel, InvalidRequest
from agent.messages import Sampling

Tokens = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Allowed = Callable[[Tokens], npt.NDArray[np.bool_]]

PENALTY_WINDOW = 64
"""How many of the latest tokens (prompt and answer) the repetition penalty looks at."""

MAX_ALTERNATIVES = 20
_GUESSES = (64, 1024, 16_384)
"""How many of the likeliest tokens a constraint is asked about, before the whole vocabulary."""
_NEGLIGIBLE = np.float32(1e-5)


def check(sampling: Sampling) -> None:
    """Raises InvalidRequest naming the field that is out of range."""
    limits: tuple[tuple[str, float, float], ...] = (
        ("temperature", 0.0, 100.0),
        ("top_k", 0, 1 << 30),
        ("top_p", 0.0, 1.0),
        ("min_p", 0.0, 1.0),
        ("repetition_penalty", 0.01, 100.0),
        ("max_tokens", 1, 1 << 30),
    )
    for name, low, high in limits:
        value = getattr(sampling, name)
        if not low <= value <= high:  # NaN fails too
            raise InvalidRequest(f"{name} = {value!r} is not within {low:g} and {high:g}", param=name)
    if sampling.logprobs is not None and not 0 <= sampling.logprobs <= MAX_ALTERNATIVES:
        raise InvalidRequest(f"logprobs = {sampling.logprobs} is not within 0 and {MAX_ALTERNATIVES}", param="logprobs")


@dataclass(frozen=True, slots=True)
class Scored:
    """The model's log-probability of the chosen token, and the best alternatives in descending order."""

    logprob: float
    top: tuple[tuple[int, float], ...]


def greedy(logits: Floats) -> int:
    """The most probable token; the lowest id among equals. Raises BadModel on NaN."""
    token = int(logits.argmax())
    if not np.isfinite(logits[token]):
        raise _not_finite()
    return token


def score(logits: Floats, token: int, alternatives: int) -> Scored:
    """Log-probabilities under a softmax of the raw logits."""
    peak = logits.max()
    if not np.isfinite(peak):
        raise _not_finite()
    shifted = logits - peak
    normaliser = float(np.log(np.exp(shifted).sum(dtype=np.float64)))
    top: tuple[tuple[int, float], ...] = ()
    if alternatives:
        count = min(alternatives, len(logits))
        ids = np.argpartition(shifted, len(shifted) - count)[len(shifted) - count :]
        ids = ids[np.lexsort((ids, -shifted[ids]))]
        top = tuple((int(i), float(shifted[i]) - normaliser) for i in ids)
    return Scored(float(shifted[token]) - normaliser, top)


def penalise(logits: Floats, recent: Tokens, penalty: float) -> Floats:
    """A copy in which the logits of ``recent`` tokens are divided (or multiplied, when negative) by ``penalty``."""
    changed = logits.copy()
    seen = np.unique(recent)
    values = changed[seen]
    changed[seen] = np.where(values > 0, values / penalty, values * penalty)
    return changed


def distribution(logits: Floats, sampling: Sampling) -> tuple[Tokens, Doubles]:
    """The tokens that may be drawn, by rising id, and their probabilities, which sum to 1."""
    peak = logits.max()
    if not np.isfinite(peak):
        raise _not_finite()
    scaled = (logits - peak) / np.float32(sampling.temperature)
    ids = np.arange(len(scaled), dtype=np.int32)
    if 0 < sampling.top_k < len(scaled):
        ids = np.argpartition(scaled, len(scaled) - sampling.top_k)[len(scaled) - sampling.top_k :].astype(np.int32)
        ids.sort()
        scaled = scaled[ids]
    weights = np.exp(scaled)
    least = np.float32(sampling.min_p)  # the best token weighs 1
    if sampling.top_p < 1:
        kept = weights if sampling.min_p == 0 else weights[weights >= least]
        least = max(least, _nucleus_edge(kept, sampling.top_p))
    if least > 0:
        keep = weights >= least
        ids, weights = ids[keep], weights[keep]
    shares = weights.astype(np.float64)
    return ids, shares / shares.sum()


def _nucleus_edge(weights: Floats, top_p: float) -> np.float32:
    """The weight of the last token that it takes to reach a share of ``top_p``; sorts light tokens only if needed."""
    goal = top_p * weights.sum(dtype=np.float64)
    heavy = weights[weights > _NEGLIGIBLE]
    if heavy.sum(dtype=np.float64) < goal:
        heavy = weights
    falling = np.sort(heavy)[::-1]
    count = int(np.searchsorted(np.cumsum(falling, dtype=np.float64), goal))
    return np.float32(falling[min(count, len(falling) - 1)])


class Sampler:
    """The choices of one request."""

    def __init__(self, sampling: Sampling) -> None:
        self._sampling = sampling
        self._random = np.random.Generator(
            np.random.PCG64(None if sampling.seed is None else sampling.seed % (1 << 64))
        )
        self.plain = sampling.temperature == 0 and sampling.repetition_penalty == 1
        """Whether the choice is `greedy` on the row as it is."""
        self.needs_history = sampling.repetition_penalty != 1

    def choose(self, logits: Floats, recent: Tokens | None = None, allowed: Allowed | None = None) -> int | None:
        """The next token; None when ``allowed`` allows none at all.

        A constraint is asked about the likeliest tokens first, about the whole vocabulary only when it refuses them.
        """
        if self.needs_history and recent is not None and len(recent):
            logits = penalise(logits, recent, self._sampling.repetition_penalty)
        if self._sampling.temperature == 0:
            return greedy(logits) if allowed is None else _greedy_allowed(logits, allowed)
        ids, shares = distribution(logits, self._sampling)
        token = self._draw(ids, shares)
        if allowed is None or allowed(np.array([token], np.int32))[0]:
            return token
        candidates = _likeliest_allowed(logits, allowed)
        if candidates is None:
            return None
        constrained = np.full_like(logits, -np.inf)
        constrained[candidates] = logits[candidates]
        ids, shares = distribution(constrained, self._sampling)
        return self._draw(ids, shares)

    def _draw(self, ids: Tokens, shares: Doubles) -> int:
        steps = np.cumsum(shares)
        place = int(np.searchsorted(steps, self._random.random() * steps[-1], side="right"))
        return int(ids[min(place, len(ids) - 1)])


def _greedy_allowed(logits: Floats, allowed: Allowed) -> int | None:
    best = greedy(logits)
    if allowed(np.array([best], np.int32))[0]:
        return best
    fits = _likeliest_allowed(logits, allowed)
    return None if fits is None else int(fits[logits[fits].argmax()])


def _likeliest_allowed(logits: Floats, allowed: Allowed) -> Tokens | None:
    """Allowed tokens, by rising id: those among the likeliest few if any is there, else among more; None for none.

    Asking about every token takes a grammar 10 to 1000 ms, and what lies below the likeliest allowed thousand is not
    worth that.
    """
    for count in (*(guess for guess in _GUESSES if guess < len(logits)), len(logits)):
        ids = np.argpartition(logits, len(logits) - count)[len(logits) - count :].astype(np.int32)
        ids.sort()
        fits = ids[allowed(ids)]
        if len(fits):
            return fits
    return None


def _not_finite() -> BadModel:
    return BadModel(
        "the model computes values that are not numbers", remedy="Its weights are damaged; download it again."
    )
