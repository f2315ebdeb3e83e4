"""The template language that the whole generator is written in.

A template is text with three kinds of marks, which nest:

    [a|b|c]       one of the alternatives, chosen at random (an empty one is allowed)
    {slot}        the value of a slot of the fact; `{slot.form}` asks the value for another form of itself
    <name:...>    a span: its text answers the questions that are asked of `name`

Every `{slot}` is also a span under its own name. Expanding a template gives the text together with the place of every
span, so an answer is always a verbatim slice of what was written, and training knows where it stands.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from functools import lru_cache

Node = str | tuple["str", object]


@dataclass(frozen=True)
class Value:
    """What fills a slot: `text` in a statement, one of `asks` in a question, `forms` for special places."""

    text: str
    asks: tuple[str, ...] = ()
    forms: dict[str, str] = field(default_factory=dict)

    def shown(self, form: str, rng: random.Random, question: bool) -> str:
        if form:
            return self.forms.get(form, self.text)
        return rng.choice(self.asks) if question and self.asks else self.text


@dataclass
class Text:
    """Expanded text with its spans: name -> (start, end)."""

    text: str = ""
    spans: dict[str, tuple[int, int]] = field(default_factory=dict)

    def moved(self, offset: int) -> dict[str, tuple[int, int]]:
        return {name: (start + offset, end + offset) for name, (start, end) in self.spans.items()}

    def value(self, name: str) -> str:
        start, end = self.spans[name]
        return self.text[start:end]


def _parse(source: str, at: int, stops: str) -> tuple[list[Node], int]:
    nodes: list[Node] = []
    plain = ""
    while at < len(source) and source[at] not in stops:
        char = source[at]
        if char not in "[{<":
            plain += char
            at += 1
            continue
        if plain:
            nodes.append(plain)
            plain = ""
        if char == "{":
            end = source.index("}", at)
            nodes.append(("slot", source[at + 1 : end]))
            at = end + 1
        elif char == "[":
            branches = []
            while source[at] != "]":
                branch, at = _parse(source, at + 1, "|]")
                if at >= len(source):
                    raise ValueError(f"unclosed [ in template: {source!r}")
                branches.append(branch)
            nodes.append(("choice", branches))
            at += 1
        else:
            colon = source.index(":", at)
            inner, at = _parse(source, colon + 1, ">")
            if at >= len(source):
                raise ValueError(f"unclosed < in template: {source!r}")
            nodes.append(("span", (source[source.rindex("<", 0, colon) + 1 : colon], inner)))
            at += 1
    if plain:
        nodes.append(plain)
    return nodes, at


@lru_cache(maxsize=20000)
def parse(source: str) -> tuple[Node, ...]:
    nodes, at = _parse(source, 0, "")
    if at != len(source):
        raise ValueError(f"stray mark at {at} in template: {source!r}")
    return tuple(nodes)


@lru_cache(maxsize=20000)
def slots(source: str) -> frozenset[str]:
    """Names of all slots that a template may mention."""
    found: set[str] = set()

    def walk(nodes: object) -> None:
        for node in nodes:  # type: ignore[attr-defined]
            if isinstance(node, str):
                continue
            kind, body = node
            if kind == "slot":
                found.add(body.split(".")[0])
            elif kind == "span":
                found.add("<" + body[0])
                walk(body[1])
            else:
                for branch in body:
                    walk(branch)

    walk(parse(source))
    return frozenset(found)


def expand(source: str, values: dict[str, Value], rng: random.Random, question: bool = False) -> Text:
    """Choose every alternative and fill every slot; `a` becomes `an` where the next word asks for it."""
    out = Text()

    def emit(piece: str) -> None:
        if piece and out.text[-3:].lower() in (" a ", "a ") and piece[0].lower() in "aeio":
            out.text = out.text[:-1] + "n "
        if piece.startswith(" ") and (not out.text or out.text.endswith((" ", "\n"))):
            piece = piece[1:]
        out.text += piece

    def walk(nodes: object) -> None:
        for node in nodes:  # type: ignore[attr-defined]
            if isinstance(node, str):
                emit(node)
                continue
            kind, body = node
            if kind == "choice":
                walk(rng.choice(body))
                continue
            if kind == "slot":
                name, _, form = body.partition(".")
                emit_start = values[name].shown(form, rng, question)
                emit(emit_start)
                out.spans[name] = (len(out.text) - len(emit_start), len(out.text))
            else:
                name, inner = body
                start = len(out.text)
                walk(inner)
                while start < len(out.text) and out.text[start] == " ":
                    start += 1
                out.spans[name] = (start, len(out.text))

    walk(parse(source))
    return out


def capitalised(text: str) -> str:
    return text[:1].upper() + text[1:]
