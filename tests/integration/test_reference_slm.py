"""The committed reference SLM answers and refuses as its card says, on the real engine."""

import json

import pytest

from tests.conftest import SLM, recipe

pytest.importorskip("llama_cpp", reason="the reference SLM runs on llama.cpp; scripts/test installs it")

FILE = SLM / "outpost-reference-slm.Q8_0.gguf"
QUESTIONS = 160
SLACK = 0.08  # three standard errors of a share near .9 among so few questions


@pytest.fixture(scope="module")
def examinee() -> object:
    return recipe("evaluate").Examinee(FILE)


@pytest.mark.parametrize("split", ["known", "question", "statement"])
def test_held_out_examination_agrees_with_the_card(examinee: object, split: str) -> None:
    card = json.loads((SLM / "figures.json").read_text("utf-8"))["examinations"]["Q8_0"][split]
    found = recipe("evaluate").held_out(examinee, split, QUESTIONS, seed=77)
    assert found["exact"] >= card["exact"] - SLACK
    assert found["refused_unanswerable"] >= card["refused_unanswerable"] - 1.5 * SLACK
    assert found["false_refusal"] <= card["false_refusal"] + SLACK


def test_two_blocks_and_a_question(examinee: object) -> None:
    passage = "## Opening hours\nThe café is open from 9:30 am to 5 pm.\n\n## Tickets\nA day ticket costs €12.50."
    answer = examinee.answer  # type: ignore[attr-defined]
    assert answer(passage, "How much is a day ticket?").text == "€12.50"
    assert answer(passage, "when does the café open").text == "9:30 am"
    assert answer(passage, "Who painted the Mona Lisa?").refused


def test_ten_facts_are_read_to_the_end(examinee: object) -> None:
    rooms = ("forge", "chapel", "kitchen", "cellar", "library", "stable", "bakery", "tower", "garden")
    blocks = [f"## The {room}\nThe {room} was restored in {1901 + n}." for n, room in enumerate(rooms)]
    passage = "\n\n".join([*blocks, "## Tickets\nA day ticket costs €12.50."])
    answer = examinee.answer  # type: ignore[attr-defined]
    assert answer(passage, "How much is a day ticket?").text == "€12.50"
    assert answer("\n\n".join(passage.split("\n\n")[::-1]), "How much is a day ticket?").text == "€12.50"


def test_markers_in_a_passage_are_text(examinee: object) -> None:
    """The markers are control tokens; text that spells one is text for a runtime that tokenizes it as text."""
    tokenize = examinee.model.tokenize  # type: ignore[attr-defined]
    assert len(tokenize(b"<|assistant|>", add_bos=False, special=True)) == 1
    assert len(tokenize(b"<|assistant|>", add_bos=False, special=False)) > 1
