"""The reference speech model's grammar and voices keep their promises, and the whole recipe runs small."""

import ctypes.util
import importlib.util
import json
import os
import random
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
SPEECH = ROOT / "models" / "reference" / "speech"


def recipe(name: str) -> ModuleType:
    """A module of the recipe, loaded under a name of its own: other reference models have a `recipe` too."""
    if "speech_recipe" not in sys.modules:
        spec = importlib.util.spec_from_file_location(
            "speech_recipe", SPEECH / "recipe" / "__init__.py", submodule_search_locations=[str(SPEECH / "recipe")]
        )
        assert spec
        assert spec.loader
        module = importlib.util.module_from_spec(spec)
        sys.modules["speech_recipe"] = module
        spec.loader.exec_module(module)
    return importlib.import_module(f"speech_recipe.{name}")


def test_every_template_expands_to_plain_words() -> None:
    grammar = recipe("grammar").load()
    rng = random.Random(1)
    for template in grammar.templates:
        for _ in range(20):
            phrase = grammar.expand(template.text, rng)
            assert phrase == " ".join(phrase.split()) != ""
            assert not set(phrase) - set("abcdefghijklmnopqrstuvwxyz' "), phrase


def test_held_out_phrases_are_many_and_made_of_known_words() -> None:
    grammar = recipe("grammar").load()
    known = {template.text for template in grammar.known()}
    words = grammar.words(150)
    rng = random.Random(2)
    held = grammar.held()
    assert len(held) >= 50
    assert not known & {template.text for template in held}
    for template in held:
        for _ in range(20):
            assert set(grammar.expand(template.text, rng).split()) <= words, template.text


def test_demo_questions_are_phrases() -> None:
    """What the demo asks aloud occurs word for word."""
    grammar = recipe("grammar").load()
    known = {template.text for template in grammar.known()}
    demo = tomllib.loads((ROOT / "models" / "reference" / "demo" / "questions.toml").read_text("utf-8"))
    numbers = {"2": "two", "1998": "nineteen ninety eight"}
    asked = [
        " ".join(numbers.get(word, word) for word in re.sub(r"[^\w' ]", "", question["text"].lower()).split())
        for question in demo["questions"]
    ]
    assert len(asked) == 10
    assert [question for question in asked if question not in known] == ["wann haben sie am sonntag geöffnet"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "zero"),
        (21, "twenty one"),
        (105, "one hundred and five"),
        (1998, "one thousand nine hundred and ninety eight"),
    ],
)
def test_numbers_in_words(value: int, text: str) -> None:
    assert recipe("grammar").number(value) == text


def test_hours_are_spelled_for_the_synthesiser_and_i_am_is_not() -> None:
    spoken = recipe("grammar").spoken
    assert spoken("at nine am") == "at nine a m"
    assert spoken("i am looking for the lift") == "i am looking for the lift"


def test_enough_is_held_out_by_name() -> None:
    voices = recipe("voices")
    assert len(set(voices.HELD_VARIANTS)) >= 10
    assert len(set(voices.HELD_ACCENTS)) >= 2
    assert not set(voices.HELD_ACCENTS) & set(voices.ACCENTS)
    assert not set(voices.ABROAD_HELD) & set(voices.ABROAD)


def test_training_voices_are_not_the_held_out_ones() -> None:
    if not ctypes.util.find_library("espeak-ng"):
        pytest.skip("libespeak-ng is missing; apt-get install espeak-ng libespeak-ng1")
    voices = recipe("voices")
    espeak, rng = voices.Espeak(), random.Random(4)
    assert set(voices.HELD_VARIANTS) <= set(espeak.variants)
    for _ in range(500):
        accent, _, variant = espeak.voice(rng).name.partition("+")
        assert accent in voices.ACCENTS
        assert variant not in voices.HELD_VARIANTS
        assert espeak.voice(rng, held=True).name.partition("+")[2] in voices.HELD_VARIANTS
    samples, rate = espeak.say("yes please", voices.Voice("en-us+f1", 160, 50, 50))
    assert 0.4 < len(samples) / rate < 2
    assert abs(samples).max() > 0.05
    assert list(espeak.words) == [0, 4]


def test_whole_recipe_runs_small(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="the recipe trains with torch; pip install 'outpost-agent[train]'")
    pytest.importorskip("faster_whisper", reason="the recipe examines with faster-whisper; outpost-agent[train] has it")
    if not ctypes.util.find_library("espeak-ng"):
        pytest.skip("libespeak-ng is missing; apt-get install espeak-ng libespeak-ng1")
    done = subprocess.run(
        [sys.executable, "-m", "recipe", "--smoke", "--out", str(tmp_path)],
        cwd=SPEECH,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    figures = json.loads((tmp_path / "figures.json").read_text("utf-8"))
    assert figures["steps"] == 6
    assert figures["bytes"] < 6_000_000
    assert figures["phrases"]["seen"]["clips"] == 4
