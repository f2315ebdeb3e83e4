"""The ranking model that ships with Outpost, in its worker: as installed, switched off, and damaged."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import shutil
from pathlib import Path

import numpy as np
import pytest

from agent.config import Config, Models
from agent.config import Pool as PoolConfig
from agent.engines.clients import RankingClient
from agent.engines.pool import ModelSpec, Pool
from agent.errors import BadModel, InvalidRequest
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


async def test_the_answer_is_judged_best_and_the_verdict_always_the_same(spec: ModelSpec) -> None:
    scores = await ranked(spec)
    assert len(scores) == len(TEXTS)
    assert max(scores) == scores[0]
    assert all(math.isfinite(score) for score in scores)
    assert await ranked(spec) == scores


async def test_a_question_without_words_and_a_text_beyond_the_limit_are_judged(spec: ModelSpec) -> None:
    async with Pool(PoolConfig()) as pool:
        pool.register(spec)
        client = RankingClient(pool, NAME)
        assert len(await client.rank("", ["The mill opens at ten.", "ten " * 5000], deadline_s=30)) == 2
        assert await client.rank("when", [], deadline_s=30) == []


@pytest.mark.parametrize("payload", [{"question": 7, "texts": []}, {"question": "when", "texts": "at ten"}, {}])
async def test_a_request_that_is_none_is_refused(spec: ModelSpec, payload: dict[str, object]) -> None:
    async with Pool(PoolConfig()) as pool:
        pool.register(spec)
        with pytest.raises(InvalidRequest):
            await pool.call(NAME, "rank", payload, deadline_s=30)


def test_the_configuration_names_it_and_can_switch_it_off(tmp_path: Path) -> None:
    installation = Installation.open(tmp_path)
    model = installation.ranker(Config().models.ranker)
    assert model is not None
    assert (model.name, model.kind, model.reference) == (NAME, "ranker", True)
    assert installation.ranker(Models(ranker="").ranker) is None
    assert installation.ranker("outpost-reference-slm") is None
    assert installation.embedding(NAME) is None


@pytest.mark.parametrize("damage", ["cut short", "not a model", "judge of another shape", "no judge"])
async def test_a_damaged_file_is_a_bad_model(spec: ModelSpec, tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(shipped("models", "reference", "ranker"), folder, ignore=shutil.ignore_patterns("recipe"))
    model = folder / "model.onnx"
    if damage == "no judge":
        (folder / "judge.npz").unlink()
    elif damage == "judge of another shape":
        np.savez(folder / "judge.npz", importance=np.zeros(7))
    else:
        model.write_bytes(model.read_bytes()[:100_000] if damage == "cut short" else b"text")
    files = {str(model): hashlib.sha256(model.read_bytes()).hexdigest()}
    with pytest.raises(BadModel):
        await ranked(dataclasses.replace(spec, load=dataclasses.replace(spec.load, entry=str(model), files=files)))
    with pytest.raises(BadModel):  # and by its hash, before anything reads it
        await ranked(dataclasses.replace(spec, load=dataclasses.replace(spec.load, files={str(model): "0" * 64})))
