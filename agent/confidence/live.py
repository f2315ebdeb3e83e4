"""The live risk of a route: a confidence sequence over labels that come in while the device serves (pure).

A certificate was earned on data of the past. From then on some of the answers that the route serves are judged: by the
cloud, which is asked the same at idle (agent/audits.py), and by visitors where the operator allows it. Judges err, so
what is known is how often they *call* an answer wrong, and each judge's error is a stated number (`Judge`):

    P(called wrong) <= risk + other + (1 - risk - other) * false_alarm          nothing assumed about who errs together
    P(called wrong) >= risk * (1 - miss) - other

The lower bound is tested by betting (Waudby-Smith and Ramdas, "Estimating means of bounded random variables by
betting", J. R. Stat. Soc. B 86(1), 2024, section 4; arXiv 2010.09686): for a supposed risk r, a gambler starts with
capital 1 and bets at every label that more than P(called wrong | r) will be called wrong. Where the risk at no time
exceeds r, the capital is a nonnegative supermartingale, so by Ville's inequality it *ever* reaches 1/delta with a
probability of at most delta, however often one looks. A supposed risk whose gambler gets there is ruled out for good;
the lower bound is the largest r such that it and all below it are. One gambler is a mixture over several bets (their
method of mixtures), each the likelihood ratio of a higher risk, and over the moments at which betting begins (weights
1/(k(k+1)) over blocks of labels, which sum to 1, so the mixture is a supermartingale still): long good service before a
change does not have to be bet away first, as in change detection (Shin, Ramdas and Rinaldo, "E-detectors", 2023).

So with a probability of at least 1 - delta a certificate whose route keeps its promise is never revoked. The upper
bound is the mirror image without the restarts; it holds where the risk has not changed meanwhile, and revokes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from agent.config import Promise

# Plain floats: a label costs 20 us this way, and a device whose risk is watched at idle does without numpy (6 MB).
Rows = list[list[float]]
"""One number for every supposed risk (row) and bet."""

Source = Literal["cloud", "visitor"]

_STEPS: Final = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 12.0, 15.0)
"""Supposed risks, in multiples of epsilon."""
_GAPS: Final = (0.02, 0.04, 0.08, 0.15, 0.3, 0.6)
"""How much higher the bets take the risk to be, as shares of what is left up to 1."""
_SHRUNK: Final = (0.0, 0.25, 0.5, 0.75)
"""How much rarer the bets of the upper bound take answers to be called wrong."""
_BLOCK: Final = 50
"""Labels between two moments at which betting may begin."""
_RICH: Final = 1e100
"""Capital is cut here: less capital rules out no more, and floats do not run over."""


@dataclass(frozen=True, slots=True)
class Judge:
    """Stated errors of one source of labels, 0..1. ``other``: share of judged answers in which the judge has another
    reason to call a right answer wrong, or a wrong one right: a cloud that is mistaken itself. ``false_alarm``: share
    of right answers that the comparison calls wrong though the judge is right; ``miss``: of wrong ones called right."""

    other: float
    false_alarm: float = 0.0
    miss: float = 0.0

    def most(self, risk: float) -> float:
        """The largest probability of being called wrong at a risk of at most ``risk``."""
        blamed = min(1.0, risk + self.other)
        return blamed + (1.0 - blamed) * self.false_alarm

    def least(self, risk: float) -> float:
        """The smallest probability of being called wrong at a risk of at least ``risk``."""
        return max(0.0, risk * (1.0 - self.miss) - self.other)

    def guess(self, share: float) -> float:
        """The risk at which ``share`` would be called wrong, were the errors independent of each other."""
        floor = self.most(0.0)
        reach = 1.0 - floor - self.other * (1.0 - self.miss) - self.miss
        return min(1.0, max(0.0, (share - floor) / reach)) if reach > 0 else 0.0


@dataclass(frozen=True, slots=True)
class LiveRisk:
    """What the labels so far say: between ``lower`` and ``upper``, each of which holds at all times at once with a
    probability of at least 1 - delta. ``estimate`` corrects the share called wrong for the judges' stated errors."""

    lower: float
    upper: float
    estimate: float | None
    labels: Mapping[Source, int]
    wrong: Mapping[Source, int]


class Sequence:
    """The confidence sequence of one certificate; not thread-safe. ``promise`` and ``judges`` are fixed beforehand:
    after a change of either the capital means nothing, and `restore` begins anew."""

    def __init__(self, promise: Promise, judges: Mapping[Source, Judge]) -> None:
        self._promise = promise
        self._judges = dict(judges)
        self._risks = [step * promise.epsilon for step in _STEPS if step * promise.epsilon < 1.0]
        self._odds = {source: _all_odds(judge, self._risks) for source, judge in self._judges.items()}
        self._capital: Rows = [[0.0] * len(_GAPS) for _ in self._risks]
        self._against: Rows = [[1.0 / len(_SHRUNK)] * len(_SHRUNK) for _ in self._risks]
        self._ruled_out = 0
        self._upper = len(self._risks)
        self._labels: dict[Source, int] = dict.fromkeys(self._judges, 0)
        self._wrong: dict[Source, int] = dict.fromkeys(self._judges, 0)

    @property
    def broken(self) -> bool:
        """Whether the lower bound has passed epsilon; once true it stays so."""
        return self._ruled_out > _STEPS.index(1.0)

    @property
    def labels(self) -> int:
        return sum(self._labels.values())

    def add(self, source: Source, wrong: bool) -> None:
        """One label of an answer that has none yet; ``source`` must be among the judges."""
        block, place = divmod(self.labels, _BLOCK)
        fresh = 1.0 / ((block + 1) * (block + 2)) / len(_GAPS) if place == 0 else 0.0
        unspent = 1.0 / (block + 2)
        self._labels[source] += 1
        self._wrong[source] += wrong
        target = 1.0 / self._promise.delta
        above, below = self._odds[source]
        self._capital = _bet(self._capital, fresh, above[int(wrong)])
        self._against = _bet(self._against, 0.0, below[int(wrong)])
        while self._ruled_out < len(self._risks) and sum(self._capital[self._ruled_out]) + unspent >= target:
            self._ruled_out += 1
        while self._upper > 0 and sum(self._against[self._upper - 1]) >= target:
            self._upper -= 1

    def risk(self) -> LiveRisk:
        """The bounds and the estimate after the labels so far."""
        guesses = [
            (count, self._judges[source].guess(self._wrong[source] / count))
            for source, count in self._labels.items()
            if count
        ]
        total = sum(count for count, _ in guesses)
        return LiveRisk(
            lower=self._risks[self._ruled_out - 1] if self._ruled_out else 0.0,
            upper=self._risks[self._upper] if self._upper < len(self._risks) else 1.0,
            estimate=sum(count * guess for count, guess in guesses) / total if total else None,
            labels=dict(self._labels),
            wrong=dict(self._wrong),
        )

    def state(self) -> dict[str, Any]:
        """Everything, as JSON can hold it; for `restore`."""
        return {
            "terms": self._terms(),
            "capital": self._capital,
            "against": self._against,
            "ruled_out": self._ruled_out,
            "upper": self._upper,
            "labels": self._labels,
            "wrong": self._wrong,
        }

    @classmethod
    def restore(cls, state: Mapping[str, Any], promise: Promise, judges: Mapping[Source, Judge]) -> Sequence:
        """The sequence that `state` describes; a new one where the promise, a judge or the bets are others now."""
        sequence = cls(promise, judges)
        if state.get("terms") != sequence._terms():
            return sequence
        sequence._capital = [[float(value) for value in row] for row in state["capital"]]
        sequence._against = [[float(value) for value in row] for row in state["against"]]
        sequence._ruled_out, sequence._upper = int(state["ruled_out"]), int(state["upper"])
        sequence._labels = {source: int(state["labels"][source]) for source in judges}
        sequence._wrong = {source: int(state["wrong"][source]) for source in judges}
        return sequence

    def _terms(self) -> list[Any]:
        judges = [
            [source, judge.other, judge.false_alarm, judge.miss] for source, judge in sorted(self._judges.items())
        ]
        return [self._promise.epsilon, self._promise.delta, judges, list(_STEPS), list(_GAPS), list(_SHRUNK), _BLOCK]


def _all_odds(judge: Judge, risks: list[float]) -> tuple[tuple[Rows, Rows], tuple[Rows, Rows]]:
    """What bets multiply their capital by where an answer is called right, and called wrong: those of the lower bound,
    and those of the upper."""
    above = [[_odds(judge.most(risk), judge.most(risk + (1.0 - risk) * gap)) for gap in _GAPS] for risk in risks]
    below = [[_odds(judge.least(risk), judge.least(risk) * share) for share in _SHRUNK] for risk in risks]
    return _by_verdict(above), _by_verdict(below)


def _by_verdict(odds: list[list[tuple[float, float]]]) -> tuple[Rows, Rows]:
    return [[right for right, _ in row] for row in odds], [[wrong for _, wrong in row] for row in odds]


def _bet(capital: Rows, fresh: float, odds: Rows) -> Rows:
    """The capital after a label; ``fresh`` is what begins to bet now."""
    return [
        [
            grown if (grown := (value + fresh) * ratio) < _RICH else _RICH  # a third of what `min` costs
            for value, ratio in zip(row, ratios, strict=True)
        ]
        for row, ratios in zip(capital, odds, strict=True)
    ]


def _odds(supposed: float, bet: float) -> tuple[float, float]:
    """Likelihood ratios of ``bet`` over ``supposed`` for an answer called right, and called wrong; 1 where the supposed
    probability is 0 or 1 and nothing can be won."""
    if not 0.0 < supposed < 1.0:
        return 1.0, 1.0
    return (1.0 - bet) / (1.0 - supposed), bet / supposed
