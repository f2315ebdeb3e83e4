"""Metadata filters: what is understood, and what is refused with a reason."""

from __future__ import annotations

import pytest

from agent.errors import InvalidRequest
from agent.knowledge.filters import Condition, parse


def test_conditions() -> None:
    assert parse(None) == parse({}) == ()
    assert parse({"lang": "en"}) == (Condition("lang", "=", "text", ("en",)),)
    assert parse({"year": {"gte": 2024, "lt": 2026.5}}) == (
        Condition("year", ">=", "number", (2024,)),
        Condition("year", "<", "number", (2026.5,)),
    )
    assert parse({"open": {"in": [True]}, "n": {"in": [1, 2.0]}}) == (
        Condition("open", "IN", "flag", (True,)),
        Condition("n", "IN", "number", (1, 2.0)),
    )


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ("lang = en", "an object"),
        ([["lang", "en"]], "an object"),
        ({"a": None}, "None is not text"),
        ({"a": float("nan")}, "finite"),
        ({"a": float("inf")}, "finite"),
        ({"a": 2**63}, "finite"),
        ({"a": [1]}, "not text"),
        ({"a": {}}, "no comparison"),
        ({"a": {"like": "x"}}, "unknown comparison 'like'; known: eq"),
        ({"a": {"gt": None}}, "None"),
        ({"a": {"gt": {"gt": 1}}}, "not text"),
        ({"a": {"lt": True}}, "true and false"),
        ({"a": {"in": "xyz"}}, "list"),
        ({"a": {"in": []}}, "list"),
        ({"a": {"in": list(range(257))}}, "256"),
        ({"a": {"in": [1, "x"]}}, "different types"),
        ({"a": {"in": [1, True]}}, "different types"),
        ({1: "x"}, "not text"),
        ({"a": "half \ud83e"}, "surrogate"),
        ({"half \ud83e": 1}, "surrogate"),
        ({f"k{n}": n for n in range(17)}, "more than 16"),
        ({"a": {1: 2}}, "unknown comparison 1"),
    ],
)
def test_what_is_refused(data: object, reason: str) -> None:
    with pytest.raises(InvalidRequest, match=reason) as caught:
        parse(data)
    assert caught.value.param == "filter"
