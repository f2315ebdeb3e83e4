"""The ranking model that ships with Outpost, in its worker: as installed, switched off, and damaged."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
from pathlib import Path

import pytest

from agent.config import Config, Models
from agent.config import Pool as PoolConfig
from agent.engines.clients import RankingClient
from agent.engines.pool import ModelSpec, Pool
from agent.errors import BadModel
from agent.installation import Installation
from agent.paths import shipped

NAME = "outpost-reference-ranker"
QUESTION = "how much is it for a child"
TEXTS = ["Mill: Children pay 4.00, adults 9.00.", "Mill: The mill was built in 1720.", ""]


@pytest.fixture
def spec(tmp_path: Path) -> ModelSpec:
    return Installation.open(tmp_path).specs(Config())[NAME]


async def ranked(spec: ModelSpec) -> list[float]:
    async with Pool(PoolConfig()) as pool:
        pool.register(spec)
        return await RankingClient(pool, NAME).rank(QUESTION, TEXTS, deadline_s=30)


async def test_the_answer_is_nearest_and_the_verdict_always_the_same(spec: ModelSpec) -> None:
    cosines = await ranked(spec)
    assert len(cosines) == len(TEXTS)
    assert max(cosines) == cosines[0]
    assert all(-1.001 <= cosine <= 1.001 for cosine in cosines)
    assert await ranked(spec) == cosines


def test_the_configuration_names_it_and_can_switch_it_off(tmp_path: Path) -> None:
    installation = Installation.open(tmp_path)
    model = installation.ranker(Config().models.ranker)
    assert model is not None
    assert (model.name, model.kind, model.reference) == (NAME, "ranker", True)
    assert installation.ranker(Models(ranker="").ranker) is None
    assert installation.ranker("outpost-reference-slm") is None
    assert installation.embedding(NAME) is None


@pytest.mark.parametrize("damage", ["cut short", "not a model"])
async def test_a_damaged_file_is_a_bad_model(spec: ModelSpec, tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(shipped("models", "reference", "ranker"), folder, ignore=shutil.ignore_patterns("recipe"))
    model = folder / "model.onnx"
    model.write_bytes(model.read_bytes()[:100_000] if damage == "cut short" else b"text")
    files = {str(model): hashlib.sha256(model.read_bytes()).hexdigest()}
    with pytest.raises(BadModel):
        await ranked(dataclasses.replace(spec, load=dataclasses.replace(spec.load, entry=str(model), files=files)))
    with pytest.raises(BadModel):  # and by its hash, before anything reads it
        await ranked(dataclasses.replace(spec, load=dataclasses.replace(spec.load, files={str(model): "0" * 64})))
