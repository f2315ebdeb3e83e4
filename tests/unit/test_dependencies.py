"""What a certificate is bound to: every part that a route's score rests on shows when it is another."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from agent.config import RouteName
from agent.dependencies import NONE, Dependencies
from agent.knowledge.intents import parse_pack
from agent.messages import InstalledModel, ModelFile, ModelKind

PACK = """[[intents]]
name = "louder"
action = "audio.louder"
examples = ["louder", "speak up", "I can't hear you"]
[[intents]]
name = "quieter"
action = "audio.quieter"
examples = ["quieter", "not so loud", "turn it down"]
"""
DOCUMENTS = {"score", "intents", "embedding", "ranker", "retrieval", "text", "prompt"}


def model(kind: ModelKind, sha256: str = "a" * 64) -> InstalledModel:
    return InstalledModel(kind, kind, Path("/models"), (ModelFile("file", sha256),), "file")


EMBEDDING, RANKER, TEXT = model("embedding"), model("ranker"), model("slm")


@dataclass(frozen=True)
class Loaded:
    """What a device has loaded."""

    pack: str | None = PACK
    min_confidence: float = 0.5
    embedding: InstalledModel | None = EMBEDDING
    ranker: InstalledModel | None = RANKER
    text: InstalledModel | None = TEXT

    def hashes(self, route: RouteName) -> dict[str, str]:
        pack = None if self.pack is None else parse_pack(self.pack)
        found = Dependencies(
            pack=lambda: pack,
            embedding=lambda: self.embedding,
            ranker=lambda: self.ranker,
            text=lambda: self.text,
            min_confidence=self.min_confidence,
        )
        return dict(found(route))


def test_each_route_names_what_it_rests_on() -> None:
    assert set(Loaded().hashes("intent")) == {"score", "intents", "embedding"}
    assert set(Loaded().hashes("quote")) == set(Loaded().hashes("generated")) == DOCUMENTS
    assert all(len(value) == 64 for value in Loaded().hashes("quote").values())


@pytest.mark.parametrize(
    ("other", "shows"),
    [
        (replace(Loaded(), pack=PACK.replace("speak up", "speak louder")), "intents"),
        (replace(Loaded(), pack=None), "intents"),
        (replace(Loaded(), min_confidence=0.6), "intents"),
        (replace(Loaded(), embedding=model("embedding", "b" * 64)), "embedding"),
        (replace(Loaded(), embedding=None), "embedding"),
        (replace(Loaded(), ranker=model("ranker", "b" * 64)), "ranker"),
        (replace(Loaded(), ranker=None), "ranker"),
        (replace(Loaded(), text=model("slm", "b" * 64)), "text"),
        (replace(Loaded(), text=None), "text"),
    ],
)
def test_another_part_shows_and_no_other_does(other: Loaded, shows: str) -> None:
    before, after = Loaded().hashes("generated"), other.hashes("generated")
    assert {name for name in before if before[name] != after[name]} == {shows}


def test_the_name_and_place_of_a_model_do_not_matter() -> None:
    moved = replace(TEXT, name="renamed", folder=Path("/elsewhere"))
    assert replace(Loaded(), text=moved).hashes("generated") == Loaded().hashes("generated")


def test_what_is_missing_is_called_so() -> None:
    bare = Loaded(pack=None, embedding=None, ranker=None, text=None).hashes("quote")
    assert {name for name, value in bare.items() if value == NONE} == {"intents", "embedding", "ranker", "text"}
