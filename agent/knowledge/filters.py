"""Metadata filters of a search: parsed once from JSON, turned into SQL with bound values.

    {"language": "en"}                                equality
    {"year": {"gte": 2024, "lt": 2026}}               comparisons, all of which must hold
    {"floor": {"in": [1, 2]}, "public": {"ne": false}}

All keys must match. A document without a key matches no condition on it; a number never equals a text or a flag.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from agent.errors import InvalidRequest

Value = str | int | float | bool
ValueType = Literal["text", "number", "flag"]

MAX_CONDITIONS = 16
MAX_VALUES = 256
MAX_INTEGER = 2**63 - 1
_OPERATORS = {"eq": "=", "ne": "<>", "lt": "<", "lte": "<=", "gt": ">", "gte": ">="}


@dataclass(frozen=True, slots=True)
class Condition:
    """``operator`` is SQL's comparison or IN; ``values`` holds one value but for IN, all of one ``type``."""

    key: str
    operator: str
    type: ValueType
    values: tuple[Value, ...]


Filter = tuple[Condition, ...]


def parse(data: object) -> Filter:
    """The conditions of a filter as it came from a caller. Raises InvalidRequest, which names what is wrong."""
    if data is None:
        return ()
    if not isinstance(data, Mapping):
        raise _invalid(f"a filter is an object, not {data!r}")
    conditions: list[Condition] = []
    for key, wanted in data.items():
        if not isinstance(key, str):
            raise _invalid(f"the key {key!r} is not text")
        type_of(key)
        if isinstance(wanted, Mapping):
            if not wanted:
                raise _invalid(f"{key!r} has no comparison")
            conditions += [_condition(key, operator, operand) for operator, operand in wanted.items()]
        else:
            conditions.append(_condition(key, "eq", wanted))
    if len(conditions) > MAX_CONDITIONS:
        raise _invalid(f"{len(conditions)} conditions are more than {MAX_CONDITIONS}")
    return tuple(conditions)


def sql(conditions: Filter) -> tuple[str, list[Value]]:
    """``AND ...`` over a table ``documents`` named ``d``, and the values to bind."""
    text, values = "", []
    for condition in conditions:
        marks = ", ".join("?" * len(condition.values))
        operand = f"({marks})" if condition.operator == "IN" else marks
        text += (
            " AND EXISTS (SELECT 1 FROM metadata m WHERE m.document = d.id AND m.key = ? AND m.type = ?"
            f" AND m.value {condition.operator} {operand})"
        )
        values += [condition.key, condition.type, *condition.values]
    return text, values


def type_of(value: object) -> ValueType:
    """How a metadata value is stored and compared. Raises InvalidRequest for anything but text, finite numbers and
    flags."""
    if isinstance(value, bool):
        return "flag"
    if isinstance(value, str):
        if any("\ud800" <= character <= "\udfff" for character in value):
            raise _invalid(f"{value!r} holds half a surrogate pair")
        return "text"
    if isinstance(value, int) and abs(value) <= MAX_INTEGER:
        return "number"
    if isinstance(value, float) and math.isfinite(value):
        return "number"
    raise _invalid(f"{value!r} is not text, a finite number, true or false")


def _condition(key: str, operator: object, operand: object) -> Condition:
    if operator == "in":
        if not isinstance(operand, (list, tuple)) or not 1 <= len(operand) <= MAX_VALUES:
            raise _invalid(f"{key!r}: 'in' takes a list of 1 to {MAX_VALUES} values, not {operand!r}")
        types = {type_of(value) for value in operand}
        if len(types) > 1:
            raise _invalid(f"{key!r}: the values of 'in' are of different types: {operand!r}")
        return Condition(key, "IN", types.pop(), tuple(operand))
    symbol = _OPERATORS.get(operator) if isinstance(operator, str) else None
    if symbol is None:
        known = ", ".join([*_OPERATORS, "in"])
        raise _invalid(f"{key!r}: unknown comparison {operator!r}; known: {known}")
    kind = type_of(operand)
    assert isinstance(operand, (str, int, float))
    if kind == "flag" and symbol not in ("=", "<>"):
        raise _invalid(f"{key!r}: true and false can only be compared with eq, ne and in")
    return Condition(key, symbol, kind, (operand,))


def _invalid(message: str) -> InvalidRequest:
    return InvalidRequest(
        f"the filter cannot be used: {message}", remedy='Write it like {"year": {"gte": 2024}}.', param="filter"
    )
