"""Random submits, cancels and lengths: every request ends exactly once, and every cell comes back."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from agent.engines.text import TextEngine
from agent.errors import InvalidRequest
from tests.simulators.text import Driver, load

SCHEMAS = ['{"type":"integer"}', '{"type":"object","properties":{"a":{"enum":["x","é"]}},"required":["a"]}', "{}"]


@pytest.fixture(
    scope="module",
    params=[("llama", 4, 256, 2048), ("llama", 2, 512, 512), ("llama", 6, 128, 700), ("lfm2", 3, 256, 600)],
    ids=str,
)
def engine(request: pytest.FixtureRequest, tiny_gguf: Path, tiny_hybrid_gguf: Path) -> TextEngine:
    family, sequences, context, cells = request.param
    path = tiny_gguf if family == "llama" else tiny_hybrid_gguf
    return load(path, sequences=sequences, context=context, kv_tokens=cells)


@pytest.mark.parametrize("seed", range(12))
def test_random_traffic(engine: TextEngine, seed: int) -> None:
    pick = random.Random(seed)
    driver = Driver(engine)
    cancelled: set[int] = set()
    passages = ["the museum is open " * pick.randint(1, 30) for _ in range(3)]
    for _ in range(60):
        action = pick.random()
        alive = [id for id, result in driver.results.items() if not result.lasts and id not in cancelled]
        if action < 0.35:
            driver.prompt(
                pick.choice([*passages, ""]) + "where " * pick.randint(0, 40),
                max_tokens=pick.choice([1, 3, 20, 100_000]),
                temperature=pick.choice([0.0, 1.0]),
                seed=pick.randrange(100),
                stop=pick.choice([(), ("e", "museum"), (" ",)]),
                logprobs=pick.choice([None, 0, 5]),
                repetition_penalty=pick.choice([1.0, 1.2]),
            )
        elif action < 0.4:
            driver.prompt("json ", json_schema=pick.choice(SCHEMAS), max_tokens=pick.choice([2, 60]))
        elif action < 0.5 and alive:
            gone = pick.choice(alive)
            engine.cancel(gone)
            cancelled.add(gone)
        elif action < 0.53:
            driver.submit("forget", {})
        elif action < 0.56:
            driver.submit("stats", {})
        elif engine.busy:
            driver.step()
    driver.finish()
    for id, result in driver.results.items():
        assert result.lasts == (0 if id in cancelled and not result.lasts else 1), id
        assert result.error is None or isinstance(result.error, InvalidRequest), result.error
        if result.end and "completion_tokens" in result.end:
            assert result.end["cached_tokens"] < result.end["prompt_tokens"]
    stats = driver.call("stats")
    assert stats["kv_used"] <= stats["kv_total"]
    assert (stats["sequences_active"], stats["waiting"]) == (0, 0)
    driver.call("forget")
    assert driver.call("stats")["kv_used"] == 0
    assert driver.call("stats")["prefixes_cached"] == 0
