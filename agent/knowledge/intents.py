"""Intents: what a pack of examples says, and the worker that learns it and tells texts apart.

A pack is a TOML file that a person writes: intents with examples and one outcome each (a response, an action or a
hand-off), and sentences that are none of them. Reading a pack is pure and needs no numpy, so that the control process
can do it; learning and classifying (agent/knowledge/intent_model.py) happen in a worker, because the patterns of slots
are regular expressions from a file and may not stall the daemon.
"""

from __future__ import annotations

import difflib
import hashlib
import math
import os
import re
import string
import tomllib
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from re import _constants, _parser  # type: ignore[attr-defined]  # nothing public tells how a pattern repeats
from typing import TYPE_CHECKING, Any

from agent.engines.protocol import LoadSpec, Payload, SequentialEngine
from agent.errors import BadModel, InvalidDocument, InvalidRequest, NotFound, StorageFailed

if TYPE_CHECKING:
    from agent.knowledge.intent_model import IntentModel

MAX_PACK_BYTES = 16 * 1024 * 1024
MAX_TEXT_CHARS = 500
"""Longer texts are cut before features are read: an intent shows in its first words."""
MAX_SLOT_CHARS = 200
"""Slots are looked for in so much of a text, which bounds what a pattern can cost."""
MAX_EXAMPLE_CHARS = 500
MAX_PATTERN_CHARS = 300
MAX_INTENTS = 2000

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}\Z")
_SLOT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,31}\Z")
_PACK_KEYS = ("name", "version", "language", "out_of_scope", "intents")
_INTENT_KEYS = ("name", "examples", "response", "action", "handoff", "slots")
_SLOT_KEYS = ("name", "pattern")


@dataclass(frozen=True, slots=True)
class Slot:
    """A value to pick out of a text: what the one group of ``pattern`` matched."""

    name: str
    pattern: re.Pattern[str]


@dataclass(frozen=True, slots=True)
class Intent:
    """Exactly one of ``response`` (a text with ``{slot}`` places), ``action`` and ``handoff`` says what happens; an
    intent without any of them is only recognised (the caller decides)."""

    name: str
    examples: tuple[str, ...]
    response: str | None = None
    action: str | None = None
    handoff: bool = False
    slots: tuple[Slot, ...] = ()

    def reply(self, slots: Mapping[str, str]) -> str:
        """The response with its places filled; empty where there is no response or one of its slots was not found."""
        if self.response is None:
            return ""
        parts = list(string.Formatter().parse(self.response))
        if any(name is not None and name not in slots for _, name, _, _ in parts):
            return ""
        return "".join(literal + (slots[name] if name is not None else "") for literal, name, _, _ in parts)


@dataclass(frozen=True, slots=True)
class IntentPack:
    """``sha256`` is the hash of the TOML text; a trained model carries it, and certificates are bound to it."""

    name: str
    version: str
    language: str
    intents: tuple[Intent, ...]
    out_of_scope: tuple[str, ...]
    sha256: str
    _by_name: Mapping[str, Intent] = field(repr=False, compare=False, default_factory=dict)

    def intent(self, name: str) -> Intent:
        """Raises NotFound: the classifier in use was trained for another pack."""
        try:
            return self._by_name[name]
        except KeyError:
            raise NotFound(
                f"the intent pack {self.name!r} has no intent {name!r}", remedy="Train the pack again."
            ) from None


def read_pack(path: Path) -> IntentPack:
    """The pack in a file. Raises InvalidDocument as `parse_pack` does, StorageFailed where it cannot be read."""
    try:
        if path.stat().st_size > MAX_PACK_BYTES:
            raise InvalidDocument(f"{path}: the intent pack is over {MAX_PACK_BYTES} bytes", remedy="Split it.")
        data = path.read_bytes()
    except OSError as error:
        raise StorageFailed(
            f"cannot read the intent pack {path}: {error.strerror}", remedy="Check the path and its permissions."
        ) from error
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidDocument(
            f"{path} is not UTF-8 text: byte {error.start} is {data[error.start]:#04x}", remedy="Save it as UTF-8."
        ) from error
    return parse_pack(text, str(path))


def parse_pack(text: str, source: str = "intent pack") -> IntentPack:
    """The pack in a TOML text; ``source`` names it in messages.

    Raises InvalidDocument, which names the file, the intent, the offending value and what to do.
    """
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidDocument(f"{source} is not valid TOML: {error}", remedy="Mend that line.") from error
    _known(data, _PACK_KEYS, source)
    entries = data.get("intents")
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        raise InvalidDocument(f"{source} holds no intents", remedy="Add at least two [[intents]] tables.")
    if not 2 <= len(entries) <= MAX_INTENTS:
        raise InvalidDocument(
            f"{source} holds {len(entries)} intent(s)", remedy=f"A pack needs 2 to {MAX_INTENTS} [[intents]] tables."
        )
    intents = [_intent(entry, position, source) for position, entry in enumerate(entries, start=1)]
    by_name: dict[str, Intent] = {}
    owner: dict[str, str] = {}
    for intent in intents:
        if intent.name in by_name:
            raise InvalidDocument(
                f"{source}: two intents are named {intent.name!r}", remedy="Rename one or join their examples."
            )
        by_name[intent.name] = intent
        for example in intent.examples:
            other = owner.setdefault(example.casefold(), intent.name)
            if other != intent.name:
                raise InvalidDocument(
                    f"{source}: the example {example!r} stands in the intents {other!r} and {intent.name!r}",
                    remedy="Keep it in one of them.",
                )
    out_of_scope = _texts(data.get("out_of_scope", []), f"{source}: out_of_scope", empty=True)
    for sentence in out_of_scope:
        if sentence.casefold() in owner:
            raise InvalidDocument(
                f"{source}: out_of_scope and the intent {owner[sentence.casefold()]!r} both hold {sentence!r}",
                remedy="Keep it in one of them.",
            )
    return IntentPack(
        name=_text(data, "name", source) or "intents",
        version=_text(data, "version", source) or "1",
        language=_text(data, "language", source) or "en",
        intents=tuple(intents),
        out_of_scope=out_of_scope,
        sha256=hashlib.sha256(text.encode("utf-8")).hexdigest(),
        _by_name=by_name,
    )


def training_texts(pack: IntentPack) -> tuple[str, ...]:
    """The texts to embed for training, in this order: every intent's examples as they stand, then out_of_scope."""
    return (*(example for intent in pack.intents for example in intent.examples), *pack.out_of_scope)


def find_slots(intent: Intent, text: str) -> dict[str, str]:
    """What the intent's patterns find in the first MAX_SLOT_CHARS characters of a text."""
    found = {}
    for slot in intent.slots:
        match = slot.pattern.search(text[:MAX_SLOT_CHARS])
        if match and match.group(1) is not None:
            found[slot.name] = match.group(1).strip()
    return found


# ---------------------------------------------------------------- reading a pack


def _known(table: Mapping[str, Any], keys: tuple[str, ...], where: str) -> None:
    for key in table:
        if key not in keys:
            nearest = difflib.get_close_matches(key, keys, n=1, cutoff=0.5)
            remedy = f"Did you mean {nearest[0]!r}?" if nearest else f"Known keys: {', '.join(keys)}."
            raise InvalidDocument(f"{where}: unknown key {key!r}", remedy=remedy)


def _text(table: Mapping[str, Any], key: str, where: str) -> str | None:
    value = table.get(key)
    if value is None:
        return None
    if key == "version" and isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or not value.strip():
        raise InvalidDocument(f"{where}: {key} = {value!r} is not a text", remedy="Give it a text or leave it out.")
    return value


def _texts(value: Any, where: str, *, empty: bool = False) -> tuple[str, ...]:
    """A list of distinct, non-empty sentences; repeated ones (apart from case) count once."""
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise InvalidDocument(f"{where} = {str(value)[:80]!r} is not a list of texts", remedy='Write ["...", "..."].')
    kept: dict[str, str] = {}
    for item in value:
        if not item.strip():
            raise InvalidDocument(f"{where} holds an empty text", remedy="Remove it.")
        if len(item) > MAX_EXAMPLE_CHARS:
            raise InvalidDocument(
                f"{where} holds a text of {len(item)} characters: {item[:40]!r}...",
                remedy=f"Keep examples under {MAX_EXAMPLE_CHARS} characters.",
            )
        kept.setdefault(item.strip().casefold(), item.strip())
    if not kept and not empty:
        raise InvalidDocument(f"{where} is empty", remedy="Give at least two examples, better fifteen.")
    return tuple(kept.values())


def _intent(table: Mapping[str, Any], position: int, source: str) -> Intent:
    name = table.get("name")
    if not isinstance(name, str) or not _NAME.match(name):
        raise InvalidDocument(
            f"{source}: the name of intent no. {position} is {name!r}",
            remedy="Give it a name of letters, digits, '_', '-' and '.', at most 64 characters.",
        )
    where = f"{source}: intent {name!r}"
    _known(table, _INTENT_KEYS, where)
    examples = _texts(table.get("examples", []), f"{where}: examples")
    if len(examples) < 2:
        raise InvalidDocument(f"{where} has one example: {examples[0]!r}", remedy="Give at least two, better fifteen.")
    handoff = table.get("handoff", False)
    if not isinstance(handoff, bool):
        raise InvalidDocument(f"{where}: handoff = {handoff!r} is not true or false", remedy="Write handoff = true.")
    response, action = _text(table, "response", where), _text(table, "action", where)
    outcomes = [key for key, given in (("response", response), ("action", action), ("handoff", handoff)) if given]
    if len(outcomes) > 1:
        raise InvalidDocument(f"{where} has two outcomes, {' and '.join(outcomes)}", remedy="Keep one of them.")
    entries = table.get("slots", [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise InvalidDocument(
            f"{where}: slots is not a list of tables", remedy='Write slots = [{ name = "...", pattern = "..." }].'
        )
    slots = tuple(_slot(entry, where) for entry in entries)
    names = [slot.name for slot in slots]
    if len(set(names)) < len(names):
        raise InvalidDocument(f"{where}: two slots have one name: {', '.join(names)}", remedy="Rename one.")
    if response is not None:
        _check_response(response, names, where)
    return Intent(name, examples, response, action, handoff, slots)


def _check_response(response: str, slots: Iterable[str], where: str) -> None:
    known = list(slots)
    try:
        parts = list(string.Formatter().parse(response))
    except ValueError as error:
        raise InvalidDocument(
            f"{where}: response {response!r}: {error}", remedy="Write {{ and }} for braces that are text."
        ) from error
    for _, name, form, conversion in parts:
        if name is not None and (name not in known or form or conversion):
            raise InvalidDocument(
                f"{where}: response has the place {{{name}}}, and there is no such slot",
                remedy=f"Slots of this intent: {', '.join(known) or 'none'}. Write {{{{ and }}}} for braces as text.",
            )


def _slot(table: Mapping[str, Any], where: str) -> Slot:
    _known(table, _SLOT_KEYS, f"{where}: slot")
    name, pattern = table.get("name"), table.get("pattern")
    if not isinstance(name, str) or not _SLOT_NAME.match(name):
        raise InvalidDocument(
            f"{where}: slot name {name!r}", remedy="Use a letter, then letters, digits and '_', at most 32."
        )
    where = f"{where}: slot {name!r}"
    if not isinstance(pattern, str) or not pattern:
        raise InvalidDocument(f"{where} has no pattern", remedy="Give a regular expression with one group.")
    if len(pattern) > MAX_PATTERN_CHARS:
        raise InvalidDocument(
            f"{where}: the pattern has {len(pattern)} characters", remedy=f"Keep it under {MAX_PATTERN_CHARS}."
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            compiled = re.compile(pattern)
            tree = _parser.parse(pattern)
    except (re.error, OverflowError, RecursionError, Warning) as error:
        raise InvalidDocument(f"{where}: pattern {pattern!r}: {error}", remedy="Mend the expression.") from error
    if compiled.groups != 1:
        raise InvalidDocument(
            f"{where}: pattern {pattern!r} has {compiled.groups} groups",
            remedy="Give it exactly one group around the value; write (?:...) for the others.",
        )
    if _ways(tree) > _MAX_WAYS:
        raise InvalidDocument(
            f"{where}: pattern {pattern!r} can match in too many ways and would take for ever on some texts",
            remedy="Do not repeat what already repeats or has alternatives, and use at most three of * and +.",
        )
    return Slot(name, compiled)


_REPEATS = (_constants.MAX_REPEAT, _constants.MIN_REPEAT, _constants.POSSESSIVE_REPEAT)
_MAX_WAYS = 1e8
"""Ways to match that a pattern may have; the regular expression engine tries some 50 million of them a second."""


def _ways(tree: Any) -> float:
    """An upper bound of the ways in which a pattern can be laid on MAX_SLOT_CHARS characters: what a failed search
    tries.

    Open repeats one after the other share the text (their count enters as a binomial), everything else multiplies; a
    repeat of something that itself has several ways counts as those ways to the power of its turns.
    """
    opened, ways = _open_and_ways(tree)
    return math.comb(MAX_SLOT_CHARS + opened, opened + 1) * ways if opened < 10 else math.inf


def _open_and_ways(tree: Any) -> tuple[int, float]:
    opened, ways = 0, 1.0
    for op, value in tree:
        if op in _REPEATS:
            least, most, body = value
            inner_open, inner = _open_and_ways(body)
            if inner_open or inner > 1:
                choices = (MAX_SLOT_CHARS**inner_open) * inner
                ways *= choices**most if most <= 64 and choices ** min(most, 8) < _MAX_WAYS else math.inf
            elif most >= MAX_SLOT_CHARS:
                opened += 1
            else:
                ways *= most - least + 1
        elif op is _constants.BRANCH:
            parts = [_open_and_ways(branch) for branch in value[1]]
            opened += max(part[0] for part in parts)
            ways *= sum(part[1] for part in parts)
        elif op in (_constants.GROUPREF, _constants.GROUPREF_EXISTS):
            ways = math.inf
        elif op in (_constants.SUBPATTERN, _constants.ATOMIC_GROUP, _constants.ASSERT, _constants.ASSERT_NOT):
            body = {_constants.SUBPATTERN: 3, _constants.ATOMIC_GROUP: None}.get(op, 1)
            inner_open, inner = _open_and_ways(value if body is None else value[body])
            opened, ways = opened + inner_open, ways * inner
    return opened, ways


# ---------------------------------------------------------------- the worker's engine


class IntentEngine(SequentialEngine):
    """Trains packs and classifies texts. ``entry`` of the LoadSpec is a trained .npz, or empty where the worker is only
    there to train; options: ``embedding``, the name of the embedding model whose vectors will come (none: unchecked).

    Payloads: ``train`` {"pack", "vectors", "out"} -> {"intents", "examples", "seconds"}; the worker goes on classifying
    by the model that it loaded. ``classify`` {"texts", "vectors"} -> {"results": [{"intent", "probability",
    "in_scope_score", "margin", "slots"}]}. Vectors are float32, little-endian, row by row, or None.
    """

    def __init__(self) -> None:
        super().__init__()
        self._model: IntentModel | None = None
        self._embedding = ""

    def load(self, spec: LoadSpec) -> Payload:
        """Raises BadModel where the file is no trained pack, or was trained with another embedding model."""
        # Before numpy is there: the matrices are small, and more threads would spin in the way of the other models. On
        # a busy machine with two cores, training the demo's pack took over two minutes instead of four seconds.
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
        from agent.knowledge.intent_model import IntentModel

        self._embedding = str(spec.options.get("embedding") or "")
        if not spec.entry:
            return {"intents": 0}
        model = IntentModel.load(Path(spec.entry))
        if self._embedding and model.embedding not in ("none", self._embedding):
            raise BadModel(
                f"{spec.entry} was trained with the embedding {model.embedding!r}, and {self._embedding!r} is in use",
                remedy="Train the pack again: outpost intents train PACK",
            )
        self._model = model
        return {"intents": len(model.pack.intents), "pack_sha256": model.pack.sha256, "embedding": model.embedding}

    def smoke_test(self) -> None:
        if self._model is not None:
            self._model.classify(["hello"], None)

    def handle(self, op: str, payload: Payload) -> Payload:
        if op == "train":
            return self._train(payload)
        if op == "classify":
            return self._classify(payload)
        raise InvalidRequest(f"the intent worker knows no operation {op!r}")

    def _train(self, payload: Payload) -> Payload:
        from agent.knowledge.intent_model import train

        report = train(payload["pack"], payload["vectors"], self._embedding or "unnamed", Path(payload["out"]))
        return {"intents": report.intents, "examples": report.examples, "seconds": report.seconds}

    def _classify(self, payload: Payload) -> Payload:
        if self._model is None:
            raise InvalidRequest("no intent pack is loaded", remedy="Train one: outpost intents train PACK")
        results = self._model.classify(payload["texts"], payload.get("vectors"))
        return {
            "results": [
                {
                    "intent": result.intent,
                    "probability": result.probability,
                    "in_scope_score": result.in_scope_score,
                    "margin": result.margin,
                    "slots": dict(result.slots),
                }
                for result in results
            ]
        }
