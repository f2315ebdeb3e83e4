"""Schemas against the native grammar sampler: what it accepts, and what is refused before it gets there."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from agent.engines.grammar import MAX_SCHEMA_CHARS, compile_schema
from agent.errors import InvalidRequest

Accepts = Callable[[object, str], bool]


@pytest.fixture(scope="module")
def accepts(tiny_gguf: Path) -> Iterator[Accepts]:
    """Whether the grammar of a schema lets a text through, byte by byte, and lets it end there."""
    from agent.engines.constraint import Constraint, Vocabulary
    from agent.engines.llama import Model

    model = Model(tiny_gguf)
    vocabulary = Vocabulary(model)
    by_byte = {model.piece(token): token for token in range(256)}
    end = next(token for token in range(model.n_vocab) if model.is_end(token))

    def accepts(schema: object, text: str) -> bool:
        constraint = Constraint(model, vocabulary, json.dumps(schema))
        try:
            for byte in text.encode("utf-8", "surrogatepass"):
                token = by_byte[bytes([byte])]
                if not constraint.allowed(np.array([token], np.int32))[0]:
                    return False
                constraint.accept(token)
            return bool(constraint.allowed(np.array([end], np.int32))[0])
        finally:
            constraint.close()

    yield accepts
    model.close()


PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}, "vip": {"type": "boolean"}},
    "required": ["name"],
    "additionalProperties": False,
}
LIST = {"$defs": {"node": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/pair"}]}, "pair": {
    "type": "object", "properties": {"head": {"type": "integer"}, "tail": {"$ref": "#/$defs/node"}},
    "required": ["head", "tail"]}}, "$ref": "#/$defs/node"}  # fmt: skip
SHAPES = {
    "oneOf": [
        {
            "type": "object",
            "properties": {"kind": {"const": "disc"}, "r": {"type": "number"}},
            "required": ["kind", "r"],
        },
        {"type": "object", "properties": {"kind": {"enum": ["none"]}}, "required": ["kind"]},
    ]
}


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        (PERSON, ['{"name":"Ada"}', '{"name": "é😀\\u00e9\\n", "vip":true}', '{\n  "name": "x",\n  "age": -3\n}'],
         ["{}", '{"age":3}', '{"name":"a","x":1}', '{"name":3}', '{"name":"a",}',
          '{"name":"\n"}', '{"name":"\\ud800"}']),
        ({"type": ["string", "null"], "maxLength": 2}, ['""', '"ab"', "null", '"\\n€"'], ['"abc"', "3", "nul"]),
        ({"type": "string", "minLength": 2}, ['"ab"', '"abc"'], ['"a"', '""']),
        ({"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 3},
         ["[1]", "[1, 2,3]"], ["[]", "[1,2,3,4]", "[1,]", "[1.5]", "[01]"]),
        ({"type": "array", "maxItems": 1}, ["[]", "[null]", '[{"a":[1]}]'], ["[1,2]"]),
        ({"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}]}, ['[1,"a"]'], ["[1]", '["a",1]']),
        ({"enum": ["a", 1, None, {"b": [2]}, "ü\""]}, ['"a"', "1", "null", '{"b": [2]}', '"ü\\""'], ['"b"', "2"]),
        ({"type": "string", "enum": ["a", 1]}, ['"a"'], ["1"]),
        ({"enum": ["a", "ab", "abc", "b", "a"]}, ['"a"', '"ab"', '"abc"', '"b"'], ['"ac"', '""', '"abcd"']),
        ({"enum": [f"n{number}" for number in range(1000)]}, ['"n7"', '"n77"', '"n999"'], ['"n1000"', '"n07"']),
        ({"const": "yes"}, ['"yes"'], ['"no"', "yes"]),
        ({"type": "object"}, ["{}", '{"a":{"b":[1,"x",null,-2.5e3]}}'], ["[]", '{a:1}', '{"a"}']),
        ({"type": "object", "additionalProperties": {"type": "boolean"}}, ['{"a":true,"b":false}'], ['{"a":1}']),
        ({}, ["1", '"a"', "[]", "null"], ["", "a", "'a'"]),
        (LIST, ["null", '{"head":1,"tail":{"head":2,"tail":null}}'], ['{"head":1}']),
        (SHAPES, ['{"kind":"disc","r":1.5}', '{"kind":"none"}'], ['{"kind":"disc"}', '{"kind":"other"}']),
        ({"allOf": [{"type": "boolean"}]}, ["true"], ["1"]),
        ({"$ref": "#/$defs/a%20b~1c", "$defs": {"a b/c": {"const": 1}}}, ["1"], ["2"]),
        ({"type": "string", "format": "date"}, ['"2026-02-28"', '"2026-12-31"'], ['"2026-02-30"', '"2026-13-01"']),
        ({"type": "string", "format": "date-time"}, ['"2026-02-28T23:59:59Z"'], ['"2026-02-28T24:00:00Z"']),
        ({"type": "string", "format": "ipv4"}, ['"192.168.0.255"'], ['"192.168.0.256"', '"1.2.3"']),
        ({"type": "number", "minimum": 0, "maximum": 1}, ["0", "1", "0.5", "1.0"], ["1.5", "-0.5", "2", "1.01"]),
        ({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 2}, ["0.001", "1", "1.999"],
         ["0", "2", "0.0", "2.0"]),
        ({"type": "number", "minimum": -2, "exclusiveMaximum": 0}, ["-2", "-0.1", "-1.99"], ["-2.5", "1", "0.5"]),
        ({"minimum": 5}, ["5", "77", "5.5"], ["4", "4.9"]),
    ],
)  # fmt: skip
def test_the_grammar_agrees_with_the_schema(accepts: Accepts, schema: object, good: list[str], bad: list[str]) -> None:
    for text in good:
        jsonschema.validate(json.loads(text), schema)
        assert accepts(schema, text), text
    for text in bad:
        assert not accepts(schema, text), text


@pytest.mark.parametrize(
    ("low", "high"), [(-12, 7), (0, 0), (8, 103), (95, 1005), (-1000, -99), (None, -5), (17, None)]
)
def test_integer_bounds_are_exact(accepts: Accepts, low: int | None, high: int | None) -> None:
    schema: dict[str, Any] = {"type": "integer"}
    if low is not None:
        schema["minimum"] = low
    if high is not None:
        schema["exclusiveMaximum"] = high + 1
    near = {*range(-13, 14), *(edge + d for edge in (low or 0, high or 0) for d in (-11, -10, -9, -2, -1, 0, 1, 2, 10))}
    for value in near | {99, 100, 101, 109, 110, 999, 1000, 1001, -99, -100}:
        inside = (low is None or value >= low) and (high is None or value <= high)
        assert accepts(schema, str(value)) == inside, value


@pytest.mark.parametrize(
    ("schema", "named"),
    [
        ({"type": "string", "pattern": "a+"}, "pattern"),
        ({"type": "object", "properties": {"a": {"not": {}}}}, "#/properties/a"),
        ({"type": "array", "uniqueItems": True}, "uniqueItems"),
        ({"type": "integer", "multipleOf": 3}, "multipleOf"),
        ({"type": "strnig"}, "strnig"),
        ({"type": []}, "no type"),
        ({"type": "string", "format": "iri"}, "iri"),
        ({"type": "number", "minimum": 0.5}, "minimum"),
        ({"type": "integer", "minimum": 5, "maximum": 4}, "bounds"),
        ({"$ref": "https://example.com/schema"}, "document"),
        ({"$ref": "#/$defs/missing"}, "nothing"),
        ({"$ref": "#"}, "itself"),
        (
            {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"anyOf": [{"$ref": "#/$defs/a"}]}}, "$ref": "#/$defs/a"},
            "itself",
        ),
        ({"oneOf": [{"type": "string"}, {"type": "string", "maxLength": 3}]}, "oneOf"),
        ({"allOf": [{}, {}]}, "allOf"),
        ({"anyOf": []}, "list"),
        ({"anyOf": [{"type": "null"}], "type": "string"}, "type"),
        ({"type": "string", "minLength": -1}, "minLength"),
        ({"type": "string", "maxLength": 10**9}, "maxLength"),
        ({"type": "object", "required": ["a"], "additionalProperties": False}, "required"),
        (False, "satisfy"),
        ([1], "satisfy"),
    ],
)
def test_what_cannot_be_enforced_is_refused_by_name(schema: object, named: str) -> None:
    with pytest.raises(InvalidRequest, match=named.replace("$", r"\$")) as caught:
        compile_schema(json.dumps(schema))
    assert caught.value.param == "json_schema"


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "nul",
        '{"const": NaN}',
        "[" * 100_000,
        '{"items":' * 100 + "{}" + "}" * 100,
        " " * (MAX_SCHEMA_CHARS + 1),
        json.dumps(
            {"properties": {f"p{i}": {"type": "object", "properties": {"a": {"type": "null"}}} for i in range(1500)}}
        ),
        json.dumps({"properties": {f"p{i}": {"type": "string", "maxLength": 1000} for i in range(50)}}),
    ],
)
def test_schemas_beyond_the_limits_are_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        compile_schema(text)


def test_no_name_in_a_schema_can_write_grammar(accepts: Accepts) -> None:
    evil = 'a" | root ::= [^\\x00]* #\n\\'
    schema = {"type": "object", "properties": {evil: {"enum": [evil]}}, "required": [evil]}
    assert accepts(schema, json.dumps({evil: evil}))
    assert not accepts(schema, '{"a":1}')
