"""Intent packs: what is refused and how it is said, slots, training that repeats itself, and trained files that were
tampered with."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent.engines.protocol import LoadSpec
from agent.errors import BadModel, InvalidDocument, InvalidRequest, NotFound, OutpostError, StorageFailed
from agent.knowledge.intent_model import IntentModel, train_model
from agent.knowledge.intents import IntentEngine, find_slots, parse_pack, read_pack, training_texts

DEMO = Path(__file__).resolve().parents[2] / "models" / "reference" / "demo" / "intents.toml"

SMALL = r"""
name = "kiosk"
version = 3
out_of_scope = ["how far away is the moon", "what does a ticket cost", "when do you close", "is there a lift"]

[[intents]]
name = "greet"
examples = ["hello", "hello there", "good morning", "hi you"]
response = "Hello {who}, 100 {{percent}}."
slots = [{ name = "who", pattern = '(?i)i am (\w+)' }]

[[intents]]
name = "louder"
examples = ["louder please", "turn the volume up", "volume up", "speak louder"]
action = "audio.louder"

[[intents]]
name = "staff"
examples = ["call a person", "I want a human", "get me a person please", "a human please"]
handoff = true
"""


def pack_with(**changes: str) -> str:
    """A pack of two intents whose second one has further lines."""
    return (
        '[[intents]]\nname = "one"\nexamples = ["first text", "second text"]\n'
        '[[intents]]\nname = "two"\n' + "\n".join(f"{key} = {value}" for key, value in changes.items())
    )


GOOD = '["third text", "fourth text"]'


# ---------------------------------------------------------------- packs


def test_a_pack_says_what_the_file_says() -> None:
    pack = parse_pack(SMALL)
    assert (pack.name, pack.version, pack.language) == ("kiosk", "3", "en")
    assert [intent.name for intent in pack.intents] == ["greet", "louder", "staff"]
    assert (pack.intent("louder").action, pack.intent("staff").handoff) == ("audio.louder", True)
    assert training_texts(pack)[3:5] == ("hi you", "louder please")
    assert training_texts(pack)[-4:] == pack.out_of_scope
    with pytest.raises(NotFound, match="quieter"):
        pack.intent("quieter")


def test_the_demo_pack_reads() -> None:
    pack = read_pack(DEMO)
    assert len(training_texts(pack)) == sum(len(intent.examples) for intent in pack.intents) + len(pack.out_of_scope)
    assert find_slots(pack.intent("print_map"), "Print a map of floor 2") == {"floor": "2"}
    switch = pack.intent("language_switch")
    assert find_slots(switch, "the screen is in German, I want English") == {"language": "English"}


def test_a_reply_needs_all_its_slots() -> None:
    greet = parse_pack(SMALL).intent("greet")
    slots = find_slots(greet, "Hello, I am Ada")
    assert greet.reply(slots) == "Hello Ada, 100 {percent}."
    assert greet.reply(find_slots(greet, "hello")) == ""
    assert parse_pack(SMALL).intent("staff").reply({}) == ""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name = ", ["not valid TOML"]),
        ('name = "empty"', ["holds no intents"]),
        ('[[intents]]\nname = "one"\nexamples = ["a", "b"]', ["1 intent", "needs 2"]),
        ("outofscope = []\n" + pack_with(examples=GOOD), ["unknown key 'outofscope'", "'out_of_scope'"]),
        (pack_with(exampels=GOOD), ["'two'", "unknown key 'exampels'", "'examples'"]),
        (pack_with(examples="[]"), ["'two'", "examples is empty"]),
        (pack_with(examples='["alone"]'), ["'two'", "one example", "alone"]),
        (pack_with(examples='["fine", " "]'), ["'two'", "empty text"]),
        (pack_with(examples='["fine", 7]'), ["'two'", "not a list of texts"]),
        (pack_with(examples=f'["fine", "{"x" * 501}"]'), ["'two'", "501 characters"]),
        (pack_with(examples='["first text", "other"]'), ["'one'", "'two'", "first text"]),
        (f'out_of_scope = ["Third text"]\n{pack_with(examples=GOOD)}', ["out_of_scope", "'two'", "Third text"]),
        (pack_with(examples=GOOD).replace('"two"', '"one"'), ["two intents", "'one'"]),
        (pack_with(examples=GOOD).replace('"two"', '"a b"'), ["'a b'", "letters"]),
        (pack_with(examples=GOOD, action='"a"', handoff="true"), ["'two'", "two outcomes", "action", "handoff"]),
        (pack_with(examples=GOOD, handoff='"yes"'), ["'two'", "handoff", "'yes'"]),
        (pack_with(examples=GOOD, response='"floor {flor}"'), ["'two'", "{flor}", "no such slot"]),
        (pack_with(examples=GOOD, response='"open { brace"'), ["'two'", "{{"]),
        (pack_with(examples=GOOD, slots='[{name="s", patern="(a)"}]'), ["'two'", "'patern'", "'pattern'"]),
        (pack_with(examples=GOOD, slots='[{name="s", pattern="(a"}]'), ["'two'", "'s'", "(a"]),
        (pack_with(examples=GOOD, slots='[{name="s", pattern="a"}]'), ["'two'", "'s'", "0 groups"]),
        (pack_with(examples=GOOD, slots='[{name="s", pattern="(a)(b)"}]'), ["'two'", "'s'", "2 groups"]),
        (pack_with(examples=GOOD, slots='[{name="s-t", pattern="(a)"}]'), ["'two'", "'s-t'"]),
        (
            pack_with(examples=GOOD, slots='[{name="s", pattern="(a)"}, {name="s", pattern="(b)"}]'),
            ["'two'", "two slots"],
        ),
        (pack_with(examples=GOOD, slots=f'[{{name="s", pattern="({"a" * 300})"}}]'), ["'two'", "302 characters"]),
    ],
)
def test_a_bad_pack_is_refused_by_file_intent_and_value(text: str, said: list[str]) -> None:
    with pytest.raises(InvalidDocument) as caught:
        parse_pack(text, "mine.toml")
    assert str(caught.value).startswith("mine.toml")
    assert caught.value.remedy
    for part in said:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    "pattern",
    [
        r"(a+)+b",
        r"((?:\w+\s*)+)x",
        r"(?:a|aa)+(b)",
        r"(.*.*.*.*)x",
        r"(a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?aaaaaaaa)",
        r"(?:(?:a{0,9}){0,9}){0,9}(b)",
        r"(?=(a+)+b)x",
    ],
)
def test_a_pattern_that_can_take_for_ever_is_refused(pattern: str) -> None:
    with pytest.raises(InvalidDocument, match=r"too many ways|groups|repeat"):
        parse_pack(pack_with(examples=GOOD, slots=f"[{{name='s', pattern='{pattern}'}}]"))


def test_the_slowest_pattern_allowed_ends_in_seconds() -> None:
    slot = "[{name='s', pattern='(.*.*.*)x'}]"
    pack = parse_pack(pack_with(examples=GOOD, slots=slot))
    started = time.process_time()
    assert find_slots(pack.intent("two"), "a" * 100_000) == {}
    assert time.process_time() - started < 10


def test_a_pack_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(StorageFailed, match=r"absent\.toml"):
        read_pack(tmp_path / "absent.toml")
    latin = tmp_path / "latin.toml"
    latin.write_bytes(SMALL.replace("hi you", "grüezi").encode("latin-1"))
    with pytest.raises(InvalidDocument, match=r"latin\.toml is not UTF-8.*0xfc"):
        read_pack(latin)


# ---------------------------------------------------------------- training


def vectors_for(texts: tuple[str, ...], dim: int = 32) -> bytes:
    """Stand-ins for embeddings: the same text, the same direction; texts that share words are near."""
    rows = np.zeros((len(texts), dim))
    for row, text in enumerate(texts):
        for word in text.casefold().split():
            rows[row] += np.random.default_rng(list(word.encode())).standard_normal(dim)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype("<f4").tobytes()


@pytest.fixture(scope="module")
def trained() -> IntentModel:
    return train_model(SMALL, vectors_for(training_texts(parse_pack(SMALL))), "stand-in")


@pytest.fixture
def saved(trained: IntentModel, tmp_path: Path) -> Path:
    path = tmp_path / "pack.npz"
    trained.save(path)
    return path


def test_training_twice_gives_the_same_bytes(saved: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.npz"
    train_model(SMALL, vectors_for(training_texts(parse_pack(SMALL))), "stand-in").save(again)
    assert again.read_bytes() == saved.read_bytes()


def test_a_trained_file_answers_as_the_model_that_wrote_it(trained: IntentModel, saved: Path) -> None:
    texts = ("hello there, I am Ada", "volume up please", "what does the moon cost", "", "\ud800 ???")
    again = IntentModel.load(saved)
    for vectors in (vectors_for(("hello", "volume up", "moon", "x", "y")), None):
        assert again.classify(texts, vectors) == trained.classify(texts, vectors)
    assert again.classify([], None) == []


@pytest.mark.parametrize("vectors", [True, False], ids=["with-embedding", "text-alone"])
def test_examples_are_recognised_and_the_rest_is_not(trained: IntentModel, vectors: bool) -> None:
    texts = ("hello there", "volume up", "I want a human", "how far away is the moon")
    results = trained.classify(texts, vectors_for(texts) if vectors else None)
    assert [result.intent for result in results[:3]] == ["greet", "louder", "staff"]
    assert all(result.in_scope_score > 0.5 for result in results[:3])
    assert results[3].in_scope_score < 0.5
    assert all(0 <= result.probability <= 1 and 0 <= result.in_scope_score <= 1 for result in results)


def test_a_pack_without_out_of_scope_sentences_still_rejects() -> None:
    text = DEMO.read_text(encoding="utf-8")
    text = text[: text.index("out_of_scope = [")] + text[text.index("[[intents]]") :]
    model = train_model(text, None, "none")
    inside = model.classify(["say that again please", "print me a map", "good morning to you"], None)
    outside = model.classify(["colourless green ideas sleep furiously", "SELECT * FROM users", "1234567"], None)
    assert [result.intent for result in inside] == ["repeat", "print_map", "greeting"]
    assert min(result.in_scope_score for result in inside) > max(result.in_scope_score for result in outside)
    assert all(result.in_scope_score < 0.5 for result in outside)


def test_two_examples_an_intent_are_enough_to_train() -> None:
    model = train_model(pack_with(examples=GOOD), None, "none")
    (result,) = model.classify(["fourth text"], None)
    assert result.intent == "two"
    assert result.probability < 0.999  # so few examples promise no certainty


@pytest.mark.parametrize(
    "vectors", [b"", b"\0" * 4, b"\0" * 130, np.full(32, np.nan, "<f4").tobytes(), np.ones(64, "<f4").tobytes()]
)
def test_vectors_of_another_model_are_refused(trained: IntentModel, vectors: bytes) -> None:
    with pytest.raises(InvalidRequest, match="vectors"):
        trained.classify(["hello"], vectors)


def test_training_vectors_must_fit_the_texts() -> None:
    with pytest.raises(InvalidRequest, match="16 text"):
        train_model(SMALL, b"\0" * 100, "x")


# ---------------------------------------------------------------- tampered files


def change(path: Path, **changes: Any) -> None:
    """Write the file again with other arrays (None leaves one out)."""
    with np.load(path, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files} | changes
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})


def change_meta(path: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    with np.load(path, allow_pickle=False) as archive:
        meta = json.loads(archive["meta"].tobytes())
    edit(meta)
    change(path, meta=np.frombuffer(json.dumps(meta).encode(), np.uint8))


@pytest.mark.parametrize("keep", [0, 1, 100, 0.5, 0.99])
def test_a_truncated_file_is_refused(saved: Path, keep: float) -> None:
    data = saved.read_bytes()
    saved.write_bytes(data[: int(keep if keep >= 1 else keep * len(data))])
    with pytest.raises(BadModel, match=r"pack\.npz"):
        IntentModel.load(saved)


def test_flipped_bytes_are_refused_or_leave_no_trace(saved: Path) -> None:
    data = saved.read_bytes()
    random = np.random.default_rng(7)
    refused = 0
    for _ in range(60):
        bad = bytearray(data)
        bad[int(random.integers(len(bad)))] ^= 1 << int(random.integers(8))
        saved.write_bytes(bad)
        try:
            IntentModel.load(saved).classify(["hello"], None)
        except BadModel:
            refused += 1
    assert refused > 50  # the zip's checksums cover all but a few header fields


@pytest.mark.parametrize("name", ["text_weights", "embedding_weights", "idf", "example_scales"])
def test_values_that_are_not_finite_are_refused(saved: Path, name: str) -> None:
    with np.load(saved) as archive:
        array = archive[name].copy()
    array.flat[3] = np.nan
    change(saved, **{name: array})
    with pytest.raises(BadModel, match=f"{name}.*not finite"):
        IntentModel.load(saved)


@pytest.mark.parametrize(
    "changes",
    [
        {"text_weights": np.zeros((3, 4), np.float32)},
        {"text_weights": np.zeros((2048, 4), np.float64)},
        {"embedding_weights": np.zeros((32, 3), np.float32)},
        {"example_rows": np.zeros((2, 32), np.int8)},
        {"example_borders": np.array([0, 4, 2, 12, 16])},
        {"hashes": np.zeros(0, np.uint32)},
        {"idf": None},
        {"meta": None},
        {"pack": np.frombuffer(SMALL.replace("hi you", "hi me").encode(), np.uint8)},
        {"pack": np.frombuffer(b"\xff\xfe", np.uint8)},
        {"meta": np.frombuffer(b"[1, 2]", np.uint8)},
        {"text_weights": np.array([{"a": 1}], dtype=object)},
    ],
    ids=lambda changes: "-".join(changes),
)
def test_arrays_of_another_shape_or_kind_are_refused(saved: Path, changes: dict[str, Any]) -> None:
    change(saved, **changes)
    with pytest.raises(BadModel, match=r"pack\.npz"):
        IntentModel.load(saved)


@pytest.mark.parametrize(
    "edit",
    [
        lambda meta: meta.update(format=2),
        lambda meta: meta.update(pack_sha256="0" * 64),
        lambda meta: meta["classes"].reverse(),
        lambda meta: meta["heads"].pop("full"),
        lambda meta: meta["heads"]["text"].update(temperature=0.0),
        lambda meta: meta["heads"]["text"].update(temperature=float("nan")),
        lambda meta: meta["heads"]["full"].update(weights=[1.0]),
        lambda meta: meta["heads"]["full"].update(spread=[0.0] * 5),
        lambda meta: meta.update(unseen=float("inf")),
    ],
)
def test_another_calibration_is_refused(saved: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    change_meta(saved, edit)
    with pytest.raises(BadModel, match="Train the pack again"):
        IntentModel.load(saved)


# ---------------------------------------------------------------- the engine


def test_the_engine_trains_and_then_answers(tmp_path: Path) -> None:
    out = tmp_path / "small.npz"
    trainer = IntentEngine()
    trainer.load(LoadSpec("kiosk", "", "", {}, {"embedding": "stand-in"}))
    trainer.smoke_test()
    vectors = vectors_for(training_texts(parse_pack(SMALL)))
    report = trainer.handle("train", {"pack": SMALL, "vectors": vectors, "out": str(out)})
    assert (report["intents"], report["examples"]) == (3, 16)

    engine = IntentEngine()
    assert engine.load(LoadSpec("kiosk", "", str(out), {}))["embedding"] == "stand-in"
    engine.smoke_test()
    answer = engine.handle("classify", {"texts": ["hello, I am Ada"], "vectors": None})
    (result,) = answer["results"]
    assert (result["intent"], result["slots"]) == ("greet", {"who": "Ada"})
    assert set(result) == {"intent", "probability", "in_scope_score", "margin", "slots"}


def test_the_engine_refuses_what_it_cannot_do(saved: Path, tmp_path: Path) -> None:
    refusals: list[tuple[type[OutpostError], Callable[[], object]]] = [
        (InvalidRequest, lambda: IntentEngine().handle("classify", {"texts": ["hello"], "vectors": None})),
        (InvalidRequest, lambda: IntentEngine().handle("sing", {})),
        (BadModel, lambda: IntentEngine().load(LoadSpec("kiosk", "", str(tmp_path / "absent.npz"), {}))),
        (BadModel, lambda: IntentEngine().load(LoadSpec("kiosk", "", str(saved), {}, {"embedding": "another"}))),
        (InvalidDocument, lambda: IntentEngine().handle("train", {"pack": "x", "vectors": None, "out": str(saved)})),
        (
            StorageFailed,
            lambda: IntentEngine().handle("train", {"pack": SMALL, "vectors": None, "out": str(tmp_path / "no/x.npz")}),
        ),
    ]
    for kind, attempt in refusals:
        with pytest.raises(kind) as caught:
            attempt()
        assert caught.value.remedy or kind is InvalidRequest
