"""JSON schema to the grammar that constrains an answer; whatever the grammar lets end is valid under the schema.

Pure text to text. The native sampler crashes on malformed grammars, so only what `compile_schema` wrote reaches it. A
grammar may allow less than its schema (bounded digits and white space, listed properties only and in their order, depth
of free values), never more.

Supported: ``type`` (one or several), ``properties``, ``required``, ``additionalProperties`` (an object with
``properties`` gets these only; one without is a map), ``items``, ``prefixItems``, ``minItems``, ``maxItems``,
``minLength``, ``maxLength``, ``format`` (see FORMATS), ``minimum``, ``maximum``, ``exclusiveMinimum``,
``exclusiveMaximum`` (whole numbers), ``enum``, ``const``, ``anyOf``, ``oneOf`` of alternatives that plainly exclude
each other, ``allOf`` of one, ``$ref`` inside the document (recursion included), annotations. Anything else is an
InvalidRequest that names the keyword and its path.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, NoReturn
from urllib.parse import unquote

from agent.engines.digits import MAX_DIGITS, decimals, integers
from agent.errors import InvalidRequest

MAX_SCHEMA_CHARS = 64 * 1024
MAX_DEPTH = 40
MAX_RULES = 3000
MAX_REPEAT = 1000
"""Largest minLength, maxLength, minItems, maxItems: the native grammar unrolls repetitions."""
MAX_UNROLLED = 20_000
FREE_DEPTH = 6
"""Nesting of values that the schema says nothing about."""

_ANNOTATIONS = frozenset(
    "title description default examples example deprecated readOnly writeOnly discriminator $schema $id $comment "
    "$defs definitions".split()
)
_KEYWORDS: Mapping[str, frozenset[str]] = {
    "object": frozenset({"properties", "required", "additionalProperties"}),
    "array": frozenset({"items", "prefixItems", "minItems", "maxItems"}),
    "string": frozenset({"minLength", "maxLength", "format"}),
    "number": frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}),
    "integer": frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}),
    "boolean": frozenset(),
    "null": frozenset(),
}
_ALL_KEYWORDS = frozenset().union(*_KEYWORDS.values()) | {"type"}

_DATE = (
    "[12] [0-9]{3} "
    '"-" ( ( "01" | "03" | "05" | "07" | "08" | "10" | "12" ) "-" ( "0" [1-9] | [12] [0-9] | "3" [01] )'
    ' | ( "04" | "06" | "09" | "11" ) "-" ( "0" [1-9] | [12] [0-9] | "30" )'
    ' | "02-" ( "0" [1-9] | "1" [0-9] | "2" [0-8] ) )'
)
_CLOCK = '( [01] [0-9] | "2" [0-3] ) ":" [0-5] [0-9]'
_TIME = f'{_CLOCK} ":" [0-5] [0-9] ( "." [0-9]{{1,6}} )? ( "Z" | [+-] {_CLOCK} )'
_LABEL = "[a-z0-9] ( [a-z0-9-]{0,20} [a-z0-9] )?"
_HOST = f'{_LABEL} ( "." {_LABEL} ){{1,4}}'
_OCTET = '( [0-9] | [1-9] [0-9] | "1" [0-9]{2} | "2" [0-4] [0-9] | "25" [0-5] )'
FORMATS: Mapping[str, str] = {
    "date": _DATE,
    "time": _TIME,
    "date-time": f'{_DATE} "T" {_TIME}',
    "uuid": '[0-9a-f]{8} "-" [0-9a-f]{4} "-" [0-9a-f]{4} "-" [0-9a-f]{4} "-" [0-9a-f]{12}',
    "ipv4": f'{_OCTET} ( "." {_OCTET} ){{3}}',
    "hostname": _HOST,
    "email": f'[a-z0-9] [a-z0-9_+-]{{0,30}} ( "." [a-z0-9_+-]{{1,30}} )? "@" {_HOST}',
}

_BASE = {
    "ws": '( " " | "\\n" [ \\t]{0,20} )?',
    # No lone surrogates, and an escaped character counts as one, so that lengths hold.
    "char": '[^"\\\\\\x00-\\x1f\\x7f] | "\\\\" ( ["\\\\/bfnrt] | "u" ( [0-9a-cA-CefEF] hex{3} | [dD] [0-7] hex{2} ) )',
    "hex": "[0-9a-fA-F]",
    "string": '"\\"" char* "\\""',
    "integer": f'"-"? ( "0" | [1-9] [0-9]{{0,{MAX_DIGITS - 1}}} )',
    "fraction": f'"." [0-9]{{1,{MAX_DIGITS}}}',
    "number": "integer fraction? ( [eE] [+-]? [0-9]{1,2} )?",
    "boolean": '"true" | "false"',
    "null": '"null"',
    "free0": "string | number | boolean | null",
}


def compile_schema(text: str) -> str:
    """The grammar (GBNF) of the JSON schema in ``text``. Raises InvalidRequest."""
    if len(text) > MAX_SCHEMA_CHARS:
        raise InvalidRequest(f"the schema has {len(text)} characters, the limit is {MAX_SCHEMA_CHARS}", param=_PARAM)
    try:
        schema = json.loads(text, parse_constant=_no_constant)
        text.encode("utf-8")
    except RecursionError as error:
        raise InvalidRequest("the schema is nested too deeply", param=_PARAM) from error
    except ValueError as error:
        raise InvalidRequest(f"the schema is not JSON: {error}", param=_PARAM) from error
    return _Compiler(schema).grammar()


_PARAM = "json_schema"


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


class _Compiler:
    """One schema document on its way to rules."""

    def __init__(self, document: Any) -> None:
        self._document = document
        self._rules: dict[str, str] = dict(_BASE)
        self._references: dict[str, str] = {}
        self._unrolled = 0
        for level in range(1, FREE_DEPTH + 1):
            inner = f"free{level - 1}"
            self._rules[f"free-object{level}"] = _members(f'string ":" ws {inner}')
            self._rules[f"free-array{level}"] = _elements(inner)
            self._rules[f"free{level}"] = f"free0 | free-object{level} | free-array{level}"

    def grammar(self) -> str:
        root = self._schema(self._document, "#", 0)
        rules = {"root": root, **self._rules}
        return "\n".join(f"{name} ::= {body}" for name, body in rules.items()) + "\n"

    # Each of these returns the body of a rule, safe to put anywhere inside another.

    def _schema(self, schema: Any, path: str, depth: int) -> str:
        if depth > MAX_DEPTH:
            _refuse(f"the schema is nested over {MAX_DEPTH} levels", path)
        if schema is True or schema == {}:
            return f"free{FREE_DEPTH}"
        if not isinstance(schema, dict):
            _refuse(f"{json.dumps(schema)[:60]} is not a schema that an answer can satisfy", path)
        keywords = {key: value for key, value in schema.items() if key not in _ANNOTATIONS}
        special: Mapping[str, Callable[[Any, str, int], str]] = {
            "$ref": self._reference,
            "anyOf": self._any_of,
            "oneOf": self._one_of,
            "allOf": self._all_of,
        }
        for keyword, compile_it in special.items():
            if keyword in keywords:
                _only(keywords, {keyword}, path, beside=keyword)
                return compile_it(keywords[keyword], f"{path}/{keyword}", depth + 1)
        types = _types(keywords, path)
        for keyword in ("const", "enum"):
            if keyword in keywords:
                _only(keywords, {keyword, "type"}, path, beside=keyword)
                values = [keywords[keyword]] if keyword == "const" else keywords[keyword]
                return self._values(values, types, f"{path}/{keyword}")
        _only(keywords, _ALL_KEYWORDS, path)
        used = set(keywords) - {"type"}
        if not types:
            types = [name for name in _KEYWORDS if name != "integer" and used & _KEYWORDS[name]]
            if not types:
                return f"free{FREE_DEPTH}"
        build: Mapping[str, Callable[[dict[str, Any], str, int], str]] = {
            "object": self._object,
            "array": self._array,
            "string": self._string,
            "number": partial(self._number, whole=False),
            "integer": partial(self._number, whole=True),
            "boolean": lambda *_: "boolean",
            "null": lambda *_: "null",
        }
        return self._either(build[name](keywords, path, depth + 1) for name in types)

    def _rule(self, body: str) -> str:
        if len(self._rules) >= MAX_RULES:
            raise InvalidRequest(f"the schema needs over {MAX_RULES} grammar rules", param=_PARAM)
        name = f"r{len(self._rules)}"
        self._rules[name] = body
        return name

    def _either(self, bodies: Iterable[str]) -> str:
        alternatives = list(dict.fromkeys(bodies))
        return alternatives[0] if len(alternatives) == 1 else self._rule(" | ".join(alternatives))

    def _reference(self, pointer: Any, path: str, depth: int) -> str:
        target = self._resolve(pointer, path)
        if pointer not in self._references:
            name = self._rule("")
            self._references[pointer] = name
            self._rules[name] = self._schema(target, pointer, depth)
            self._check_progress(pointer, target)
        return self._references[pointer]

    def _resolve(self, pointer: Any, path: str) -> Any:
        if not isinstance(pointer, str) or not (pointer == "#" or pointer.startswith("#/")):
            _refuse(f"$ref {json.dumps(pointer)[:80]} does not point into this document", path)
        target = self._document
        for part in pointer.split("/")[1:]:
            key = unquote(part).replace("~1", "/").replace("~0", "~")
            if isinstance(target, dict) and key in target:
                target = target[key]
            elif isinstance(target, list) and key.isdecimal() and int(key) < len(target):
                target = target[int(key)]
            else:
                _refuse(f"$ref {json.dumps(pointer)[:80]} points to nothing", path)
        return target

    def _check_progress(self, pointer: str, target: Any) -> None:
        """A reference that leads to itself without any text in between has no grammar."""
        seen = {pointer}
        ahead = [target]
        while ahead:
            schema = ahead.pop()
            if not isinstance(schema, dict):
                continue
            for keyword in ("anyOf", "oneOf", "allOf"):
                if isinstance(schema.get(keyword), list):
                    ahead.extend(schema[keyword])
            if "$ref" in schema:
                if schema["$ref"] == pointer:
                    _refuse("the reference leads to itself", pointer)
                if schema["$ref"] not in seen:
                    seen.add(schema["$ref"])
                    ahead.append(self._resolve(schema["$ref"], pointer))

    def _any_of(self, schemas: Any, path: str, depth: int) -> str:
        if not isinstance(schemas, list) or not schemas:
            _refuse("a list of schemas is needed", path)
        return self._either(self._schema(schema, f"{path}/{i}", depth) for i, schema in enumerate(schemas))

    def _one_of(self, schemas: Any, path: str, depth: int) -> str:
        body = self._any_of(schemas, path, depth)
        signatures = [self._signature(schema, path) for schema in schemas]
        for i, left in enumerate(signatures):
            for right in signatures[:i]:
                if not _exclude(left, right):
                    _refuse(
                        "oneOf needs alternatives that exclude each other by type or by a constant; use anyOf", path
                    )
        return body

    def _all_of(self, schemas: Any, path: str, depth: int) -> str:
        if not isinstance(schemas, list) or len(schemas) != 1:
            _refuse("allOf is supported with exactly one schema", path)
        return self._schema(schemas[0], f"{path}/0", depth)

    def _signature(self, schema: Any, path: str) -> tuple[frozenset[str], dict[str, frozenset[str]]]:
        """The types that a schema allows, and for objects the constants that required properties must have."""
        for _ in range(MAX_DEPTH):
            if not (isinstance(schema, dict) and "$ref" in schema):
                break
            schema = self._resolve(schema["$ref"], path)
        if not isinstance(schema, dict):
            return frozenset(_KEYWORDS), {}
        fixed = _constants(schema)
        if fixed is not None:
            return frozenset(_type_of(json.loads(value)) for value in fixed), {"": fixed}
        types = frozenset(_types(schema, path)) or frozenset(_KEYWORDS)
        if "number" in types:
            types |= {"integer"}
        properties = schema.get("properties", {})
        tags = {}
        for name in schema.get("required", []):
            constants = _constants(properties.get(name))
            if constants is not None:
                tags[f"/{name}"] = constants
        return types, tags

    def _values(self, values: Any, types: list[str], path: str) -> str:
        if not isinstance(values, list) or not values:
            _refuse("a list of values is needed", path)
        fitting = [
            v for v in values if not types or _type_of(v) in types or (_type_of(v) == "integer" and "number" in types)
        ]
        if not fitting:
            _refuse("no value has the type that is asked for", path)
        if len(fitting) > MAX_REPEAT:
            _refuse(f"over {MAX_REPEAT} values", path)
        return self._rule(_choice(sorted({_dump(value) for value in fitting})))

    def _object(self, keywords: dict[str, Any], path: str, depth: int) -> str:
        properties = keywords.get("properties", {})
        required = keywords.get("required", [])
        others = keywords.get("additionalProperties", True)
        if not isinstance(properties, dict):
            _refuse("an object of schemas is needed", f"{path}/properties")
        if not isinstance(required, list) or not all(isinstance(name, str) for name in required):
            _refuse("a list of names is needed", f"{path}/required")
        entries = dict(properties)
        for name in required:
            if name not in entries:
                if others is False:
                    _refuse(f"{name!r} is required, but no property allows it", f"{path}/required")
                entries[name] = others
        if not entries:
            if others is False:
                return self._rule('"{" ws "}"')
            value = self._schema(others, f"{path}/additionalProperties", depth)
            return self._rule(_members(f'string ":" ws {self._short(value)}'))
        # From the last property to the first: what may follow when something came before it, and when nothing did.
        after, first = '""', '""'
        for name, schema in reversed(entries.items()):
            value = self._short(self._schema(schema, f"{path}/properties/{name}", depth))
            entry = f'{_literal(_dump(name))} ":" ws {value}'
            if name in required:
                first = self._rule(f"{entry} {after}")
                after = self._rule(f'"," ws {entry} {after}')
            else:
                first = self._rule(f"{entry} {after} | {first}")
                after = self._rule(f'( "," ws {entry} )? {after}')
        return self._rule(f'"{{" ws {first} ws "}}"')

    def _short(self, body: str) -> str:
        """``body`` under a name unless it is one already, so that rules stay short."""
        return body if " " not in body else self._rule(body)

    def _array(self, keywords: dict[str, Any], path: str, depth: int) -> str:
        low, high = self._span(keywords, "minItems", "maxItems", path)
        if "prefixItems" in keywords:
            prefix = keywords["prefixItems"]
            if not isinstance(prefix, list) or not prefix:
                _refuse("a list of schemas is needed", f"{path}/prefixItems")
            if not low <= len(prefix) or (high is not None and high < len(prefix)):
                if low > len(prefix):
                    _refuse(f"minItems over the {len(prefix)} prefixItems is not supported", path)
                prefix = prefix[:high]
            parts = [self._short(self._schema(s, f"{path}/prefixItems/{i}", depth)) for i, s in enumerate(prefix)]
            joined = ' "," ws '.join(parts)
            return self._rule(f'"[" ws {joined} ws "]"' if parts else '"[" ws "]"')
        items = keywords.get("items", True)
        if items is False or high == 0:
            if low:
                _refuse("items are needed, but none is allowed", path)
            return self._rule('"[" ws "]"')
        item = self._short(self._schema(items, f"{path}/items", depth))
        return self._rule(_elements(item, low, high))

    def _string(self, keywords: dict[str, Any], path: str, depth: int) -> str:
        if "format" in keywords:
            _only(keywords, _ALL_KEYWORDS - {"minLength", "maxLength"}, path, beside="format")
            pattern = FORMATS.get(keywords["format"]) if isinstance(keywords["format"], str) else None
            if pattern is None:
                _refuse(f"format {keywords['format']!r} is not one of {', '.join(FORMATS)}", f"{path}/format")
            return self._rule(f'"\\"" {pattern} "\\""')
        low, high = self._span(keywords, "minLength", "maxLength", path)
        if low == 0 and high is None:
            return "string"
        return self._rule(f'"\\"" {_repeat("char", low, high)} "\\""')

    def _span(self, keywords: dict[str, Any], low_key: str, high_key: str, path: str) -> tuple[int, int | None]:
        low, high = keywords.get(low_key, 0), keywords.get(high_key)
        for key, value in ((low_key, low), (high_key, high)):
            if value is not None and (
                not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MAX_REPEAT
            ):
                _refuse(f"{key} = {json.dumps(value)[:40]} is not a whole number from 0 to {MAX_REPEAT}", path)
        if high is not None and high < low:
            _refuse(f"{high_key} is below {low_key}", path)
        self._unrolled += high if high is not None else low
        if self._unrolled > MAX_UNROLLED:
            raise InvalidRequest(f"the schema's lengths add up to over {MAX_UNROLLED}", param=_PARAM)
        return low, high

    def _number(self, keywords: dict[str, Any], path: str, depth: int, *, whole: bool) -> str:
        low, low_open = _bound(keywords, "minimum", "exclusiveMinimum", max, path)
        high, high_open = _bound(keywords, "maximum", "exclusiveMaximum", min, path)
        if low is None and high is None:
            return "integer" if whole else "number"
        most = 10**MAX_DIGITS - 1
        bottom = low if low is not None else min(-most, high or 0)
        top = high if high is not None else max(most, low or 0)
        if whole:
            bottom, top = bottom + low_open, top - high_open
            parts = integers(bottom, top)
        else:
            parts = decimals(bottom, top, low_open, high_open)
        if not parts:
            _refuse("no number lies within the bounds", path)
        return self._either(parts)


def _refuse(message: str, path: str) -> NoReturn:
    raise InvalidRequest(f"schema at {path}: {message}", param=_PARAM)


def _only(keywords: Iterable[str], allowed: Iterable[str], path: str, beside: str = "") -> None:
    unknown = sorted(set(keywords) - set(allowed))
    if unknown:
        context = f" beside {beside!r}" if beside and unknown[0] in _ALL_KEYWORDS else ""
        raise InvalidRequest(
            f"schema at {path}: keyword {unknown[0]!r}{context} is not supported",
            remedy="Remove it and check the answer yourself.",
            param=_PARAM,
        )


def _types(keywords: Mapping[str, Any], path: str) -> list[str]:
    given = keywords.get("type", [])
    types = [given] if isinstance(given, str) else given
    if not isinstance(types, list) or not all(isinstance(name, str) and name in _KEYWORDS for name in types):
        _refuse(f"type {json.dumps(given)[:60]} is unknown", path)
    if "type" in keywords and not types:
        _refuse("type names no type", path)
    return types


def _type_of(value: Any) -> str:
    if value is None:
        return "null"
    names: Mapping[type, str] = {
        bool: "boolean",
        int: "integer",
        float: "number",
        str: "string",
        list: "array",
        dict: "object",
    }
    return names[type(value)]


def _constants(schema: Any) -> frozenset[str] | None:
    """The values that a schema is limited to, as JSON, or None."""
    if not isinstance(schema, dict):
        return None
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    return frozenset(json.dumps(value, sort_keys=True) for value in values) if isinstance(values, list) else None


def _exclude(
    left: tuple[frozenset[str], dict[str, frozenset[str]]], right: tuple[frozenset[str], dict[str, frozenset[str]]]
) -> bool:
    shared = left[0] & right[0]
    if not shared:
        return True
    if any(not (left[1][tag] & right[1][tag]) for tag in left[1].keys() & right[1].keys()):
        return shared == {"object"} or "" in left[1].keys() & right[1].keys()
    return False


def _dump(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:  # a lone surrogate stays an escape
        return json.dumps(value)
    return text


def _literal(text: str) -> str:
    """A GBNF literal; everything but plain ASCII is escaped by number."""
    escaped = "".join(c if c.isascii() and (c.isalnum() or c in " _-.:/,") else f"\\U{ord(c):08X}" for c in text)
    return f'"{escaped}"'


def _choice(texts: list[str]) -> str:
    """One of sorted texts, as a tree: the sampler pays for every alternative that could still be meant."""
    first, last = texts[0], texts[-1]
    shared = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    start = first[:shared]  # sorted: what the outermost share, all share
    groups: dict[str, list[str]] = {}
    for text in texts:
        groups.setdefault(text[len(start) : len(start) + 1], []).append(text[len(start) :])
    if len(texts) == 1:
        return _literal(start)
    ways = " | ".join(_choice(group) if letter else '""' for letter, group in groups.items())
    return f"{_literal(start)} ( {ways} )" if start else f"( {ways} )"


def _members(entry: str) -> str:
    return f'"{{" ws ( {entry} ( "," ws {entry} )* ws )? "}}"'


def _elements(item: str, low: int = 0, high: int | None = None) -> str:
    more = _repeat(f'( "," ws {item} )', max(low - 1, 0), None if high is None else high - 1)
    inner = f"{item} {more} ws" if low else f"( {item} {more} ws )?"
    return f'"[" ws {inner} "]"'


def _repeat(body: str, low: int, high: int | None) -> str:
    if high is None:
        return f"{body}*" if low == 0 else f"{body}{{{low},}}"
    return f"{body}{{{low},{high}}}" if high else '""'


def _bound(
    keywords: Mapping[str, Any], closed: str, opened: str, pick: Callable[[int, int], int], path: str
) -> tuple[int | None, bool]:
    """The tighter of an inclusive and an exclusive bound, and whether it is exclusive."""
    values: dict[str, int] = {}
    for key in (closed, opened):
        value = keywords.get(key)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value):
            _refuse(f"{key} = {json.dumps(value)[:40]} is supported as a whole number only", f"{path}/{key}")
        if abs(value) > 10**MAX_DIGITS:
            _refuse(f"{key} = {value} is over {MAX_DIGITS} digits", f"{path}/{key}")
        values[key] = int(value)
    if not values:
        return None, False
    if len(values) == 1:
        key, bound = next(iter(values.items()))
        return bound, key == opened
    bound = pick(values[closed], values[opened])
    return bound, bound == values[opened]
