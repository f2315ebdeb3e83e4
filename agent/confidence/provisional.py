"""The provisional confidence: a logistic model a route, before a device's own calibration replaces it.

Coefficients live in provisional.json beside this file. Each model says in ``fitted_on`` where its numbers come from;
``prior`` marks those that were set by hand because no labelled data existed. models/reference/natural-dev/fit.py
makes the fitted ones again. A provisional confidence orders answers well and is roughly a probability on pages like
those it was fitted on; it promises nothing, which is what certificates are for.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

Route = Literal["intent", "quote", "generated"]
_FILE = Path(__file__).with_name("provisional.json")


@dataclass(frozen=True, slots=True)
class Logistic:
    """``sigmoid(bias + sum of weight * feature)``; a feature that is not given counts as 0."""

    bias: float
    weights: Mapping[str, float]
    fitted_on: str

    def __call__(self, features: Mapping[str, float]) -> float:
        total = self.bias + sum(weight * features.get(name, 0.0) for name, weight in self.weights.items())
        return 1.0 / (1.0 + math.exp(-max(-30.0, min(30.0, total))))


def confidence(route: Route, features: Mapping[str, float]) -> float:
    """How likely the answer is right and answers the question, 0..1, from the route's features (see signals.py).

    A quote has another model when an SLM has had its say, when a ranking model has, and when no embeddings took part.
    An intent's two probabilities are calibrated where the pack is trained (agent/knowledge/intent_model.py), so their
    product is it.
    """
    return features["in_scope"] * features["probability"] if route == "intent" else model(route, features)(features)


def model(route: Literal["quote", "generated"], features: Mapping[str, float]) -> Logistic:
    """The model that weighs such features of an answer."""
    name: str = route
    if route == "quote":
        if not features.get("embedded"):
            name = "quote_keyword"
        else:
            name += "_judged" if "ranker.judged" in features else ""
            name += "_with_generated" if features.get("generated") else ""
    return models()[name]


@lru_cache(maxsize=1)
def models() -> Mapping[str, Logistic]:
    """The committed models by name: quote, quote_with_generated, the same two as quote_judged, quote_keyword,
    generated."""
    data = json.loads(_FILE.read_text(encoding="utf-8"))
    return {
        name: Logistic(float(model["bias"]), dict(model["weights"]), str(model["fitted_on"]))
        for name, model in data["models"].items()
    }
