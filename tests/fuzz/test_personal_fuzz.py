"""Looking for personal data in hostile text: in bounded time, exactly undone, and without an error of another kind."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path

import pytest

from agent.errors import PrivacyFailed
from agent.escalation.personal import Finder, Pseudonyms, Restoration

DATA = Path(__file__).resolve().parents[1] / "data" / "personal" / "tuning.jsonl"
FINDER = Finder(("Ludovica",), ("Haus am See",), "DE")
LONG = 8_000
HOSTILE = (
    "a", "A", "1", "0", "1 ", "1.", "12-", "+", "(", "((", "[", "[NAME_", "[NAME_1", "\\[", "%5B", "a@", "@", "a.",
    "a@a.",
    "at ", " dot ", "a at b dot ", "A ", "Aa ", "Aa-", "O'", "von ", "Mr ", "Mr. ", "my name is ", "ich bin ",
    "I'm A ", "name: ",
    ":", "::", "f:", "1:", "1.1.", "DE89 ", "DE", "4111 ", "eins ", "one two ", "born ", "geb. 1.", "1/",
    "I live in ", "in A, ",
    "A1 1AA, ", "LG ", "regards ", "Dear\n", "\n", "\t", " ", "é", "İ", "ß", "\u0301", "\u200d", "😀", "\ud800",
    "\0", '"', "«",
)  # fmt: skip


@pytest.mark.parametrize("part", HOSTILE, ids=repr)
def test_repetition_takes_no_time(part: str) -> None:
    text = (part * LONG)[:LONG]
    started = time.process_time()
    given_out = Pseudonyms(FINDER, [text])
    sent = given_out.replace(text)
    assert time.process_time() - started < 2
    assert given_out.restoration.restore(sent) == text


def test_mutated_texts_come_back_exactly() -> None:
    rng = random.Random("personal data")
    seeds = [json.loads(line)["marked"] for line in DATA.read_text(encoding="utf-8").splitlines()]
    for _ in range(400):
        text = " ".join(rng.sample(seeds, 3))
        for _ in range(rng.choice((1, 3, 10))):
            at = rng.randrange(len(text))
            cut = text[at : at + rng.choice((0, 1, 2, 8))]
            text = text[:at] + rng.choice((*HOSTILE, cut * 2, cut[::-1], "")) + text[at + len(cut) :]
        given_out = Pseudonyms(FINDER, [text])
        sent = given_out.replace(text)
        restoration = Restoration.load(given_out.restoration.dump())
        assert restoration.restore(sent) == text
        stream, size = restoration.stream(), rng.randint(1, 12)
        pieces = [stream.feed(sent[place : place + size]) for place in range(0, len(sent), size)]
        assert "".join([*pieces, stream.end()]) == text
        assert given_out.replace(sent) != sent or not len(restoration)


def test_hostile_arguments_are_replaced_or_kept_at_home() -> None:
    rng = random.Random("arguments")
    seed = '{"name": "Herr Huber", "to": ["a@example.org", 4111111111111111, {"x": null, "y": 1e400, "z": "\\ud800"}]}'
    for _ in range(400):
        text = list(seed)
        for _ in range(rng.choice((0, 1, 4))):
            text[rng.randrange(len(text))] = rng.choice('{}[]",:\\u01e- \ud800')
        written = "".join(text)
        try:
            sent = Pseudonyms(FINDER, [written]).replace_json(written)
        except PrivacyFailed:
            continue
        assert "a@example.org" not in sent
