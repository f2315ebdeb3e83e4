"""The reference SLM's generator keeps its promises, and the committed file is the one that its figures speak of."""

import hashlib
import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import SLM, recipe

FILE = SLM / "outpost-reference-slm.Q8_0.gguf"


def test_template_expands_with_the_place_of_every_span() -> None:
    grammar = recipe("grammar")
    text = grammar.expand(
        "A {what} [costs|costs] <all:{low} to {high}>.",
        {"what": grammar.Value("audio guide"), "low": grammar.Value("€3"), "high": grammar.Value("€5")},
        random.Random(0),
    )
    assert text.text == "An audio guide costs €3 to €5."
    assert text.value("all") == "€3 to €5"
    assert text.value("high") == "€5"


@pytest.mark.parametrize("template", ["[open", "<span:open"])
def test_template_with_a_stray_mark_is_refused(template: str) -> None:
    with pytest.raises(ValueError, match="template"):
        recipe("grammar").parse(template)


def test_every_frame_uses_slots_and_spans_that_exist() -> None:
    grammar, values = recipe("grammar"), recipe("values")
    for frame in recipe("frames").load():
        said = [*frame.statements, *frame.held_statements, *frame.items, *frame.rows, *frame.several]
        asked = {**frame.questions, **frame.held_questions}
        spans = {name.lstrip("<") for template in said for name in grammar.slots(template)}
        slots = {name for template in said for name in grammar.slots(template) if not name.startswith("<")}
        slots |= {name for questions in asked.values() for q in questions for name in grammar.slots(q)}
        assert slots <= set(frame.kinds), frame.name
        assert set(frame.kinds.values()) <= set(values.KINDS), frame.name
        assert set(asked) <= spans, frame.name


def test_held_out_wording_is_not_in_training() -> None:
    frames = recipe("frames").load()
    known = {text for frame in frames for text in frame.statements}
    held = {text for frame in frames for text in frame.held_statements}
    known_questions = {text for frame in frames for asked in frame.questions.values() for text in asked}
    held_questions = {text for frame in frames for asked in frame.held_questions.values() for text in asked}
    assert not known & held
    assert not known_questions & held_questions
    assert len(held) >= 100
    assert len(held_questions) >= 100


def test_held_out_wording_of_made_clauses_is_not_in_training() -> None:
    """Whatever its spelling and punctuation: several people wrote these, none with sight of what is held out."""

    def bare(text: str) -> str:
        return re.sub(r"[^a-z0-9{}]", "", text.lower())

    clauses = recipe("clauses")
    held_seen = 0
    for seed in range(600):
        frame = clauses.clause(random.Random(seed))
        held = {bare(text) for text in frame.held_statements}
        held |= {bare(text) for asked in frame.held_questions.values() for text in asked}
        known = {bare(text) for text in frame.statements}
        known |= {bare(text) for asked in frame.questions.values() for text in asked}
        assert not held & known, (frame.name, held & known)
        held_seen += len(held)
    assert held_seen > 1000


@pytest.mark.parametrize("split", ["known", "question", "statement"])
def test_answers_are_verbatim_and_refusals_have_no_place(split: str) -> None:
    generate = recipe("generate")
    generator = generate.Generator(7, split)
    refused = asked = 0
    for _ in range(400):
        example = generator.example()
        assert example.passage.startswith("## ")
        for question in example.questions:
            asked += 1
            if question.span is None:
                refused += 1
                assert question.answer == generate.REFUSAL
            else:
                start, end = question.span
                assert example.passage[start:end] == question.answer == question.answer.strip() != ""
    assert 0.15 < refused / asked < 0.5


def test_same_seed_same_examples() -> None:
    generate = recipe("generate")
    first, second = generate.Generator(3), generate.Generator(3)
    assert [first.example() for _ in range(30)] == [second.example() for _ in range(30)]


def test_committed_file_is_the_one_of_the_figures() -> None:
    figures = json.loads((SLM / "figures.json").read_text("utf-8"))
    assert figures["file"] == FILE.name
    assert figures["sha256"] == hashlib.sha256(FILE.read_bytes()).hexdigest()
    assert figures["bytes"] == FILE.stat().st_size <= 12_000_000


def test_committed_file_describes_itself() -> None:
    gguf = pytest.importorskip("gguf", reason="reads the metadata; pip install gguf")
    fields = gguf.GGUFReader(FILE).fields
    tokens, kinds = fields["tokenizer.ggml.tokens"].contents(), fields["tokenizer.ggml.token_type"].contents()
    control = {token for token, kind in zip(tokens, kinds, strict=True) if kind == gguf.TokenType.CONTROL}
    assert fields["general.architecture"].contents() == "llama"
    assert fields["llama.context_length"].contents() >= 1024
    assert control == {"<|pad|>", "<|user|>", "<|assistant|>", "<|end|>"}
    assert tokens[fields["tokenizer.ggml.eos_token_id"].contents()] == "<|end|>"
    assert fields["tokenizer.ggml.add_bos_token"].contents() is False
    assert "<|assistant|>" in fields["tokenizer.chat_template"].contents()


def test_whole_recipe_runs_small(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="the recipe trains with torch; pip install 'outpost-agent[train]'")
    embedding = os.environ.get("OUTPOST_EMBEDDING_MODEL")
    if not embedding:
        pytest.skip("the recipe reads words by all-MiniLM-L6-v2; OUTPOST_EMBEDDING_MODEL names no folder")
    command = [sys.executable, "-m", "recipe", "--embedding", embedding, "--smoke", "--threads", "1"]
    done = subprocess.run(
        [*command, "--out", str(tmp_path)],
        cwd=SLM,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    figures = json.loads((tmp_path / "figures.json").read_text("utf-8"))
    assert figures["steps"] == 12
    assert (tmp_path / figures["file"]).stat().st_size == figures["bytes"]
