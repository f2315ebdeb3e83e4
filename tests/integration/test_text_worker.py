"""The text engine in its real worker process, behind the pool and the typed client."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent import config
from agent.engines.clients import TextClient
from agent.engines.pool import ModelSpec, Pool
from agent.engines.protocol import LoadSpec
from agent.errors import BadModel, ContextOverflow, InvalidRequest, WorkerCrashed
from agent.messages import ChatMessage, GenerationEnd, GenerationRequest, Sampling, TextDelta

OPTIONS = {"threads": 1, "context": 512, "sequences": 4, "batch": 64, "kv_tokens": 2048}


def spec(path: Path) -> ModelSpec:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return ModelSpec(
        LoadSpec("tiny", "agent.engines.text:TextEngine", str(path), {str(path): digest}, OPTIONS), "slm", 1 << 27
    )


@pytest.fixture
async def client(tiny_gguf: Path) -> AsyncIterator[TextClient]:
    async with Pool(config.Pool()) as pool:
        pool.register(spec(tiny_gguf))
        yield TextClient(pool, "tiny")


async def generate(client: TextClient, text: str, **sampling: object) -> tuple[str, GenerationEnd]:
    shown, end = "", None
    request = GenerationRequest(Sampling(**sampling), (ChatMessage("user", text),))  # type: ignore[arg-type]
    async with contextlib.aclosing(client.generate(request, deadline_s=60)) as events:
        async for event in events:
            if isinstance(event, TextDelta):
                shown += event.text
            else:
                end = event
    assert end is not None
    return shown, end


async def until_idle(client: TextClient) -> None:
    async with asyncio.timeout(20):
        while (await client.stats()).sequences_active:  # each round is an answer of the worker
            pass


async def test_generation_end_to_end(client: TextClient) -> None:
    questions = [f"where is hall {number}" for number in range(6)]
    together = await asyncio.gather(*(generate(client, question, max_tokens=12) for question in questions))
    assert {end.finish_reason for _, end in together} == {"length"}
    assert {end.usage.completion_tokens for _, end in together} == {12}
    assert all(text for text, _ in together)
    assert (await generate(client, questions[0], max_tokens=12))[1].usage.cached_tokens > 0
    schema = '{"type":"array","items":{"type":"boolean"},"minItems":2,"maxItems":2}'
    answer, end = await generate(client, "json", json_schema=schema, max_tokens=60)
    assert end.finish_reason == "stop"
    assert [type(item) for item in json.loads(answer)] == [bool, bool]
    assert await client.tokenize("where is it")


async def test_log_probabilities_cross_the_border(client: TextClient) -> None:
    request = GenerationRequest(Sampling(max_tokens=3, logprobs=2), prompt="where is")
    tokens = []
    async with contextlib.aclosing(client.generate(request, deadline_s=60)) as events:
        async for event in events:
            if isinstance(event, TextDelta):
                tokens += event.logprobs
    assert len(tokens) == 3
    assert all(len(token.top) == 2 and token.logprob <= 0 and isinstance(token.raw, bytes) for token in tokens)


async def test_leaving_early_frees_the_sequence(client: TextClient) -> None:
    request = GenerationRequest(Sampling(max_tokens=400), prompt="where is it")
    async with contextlib.aclosing(client.generate(request, deadline_s=60)) as events:
        async for _ in events:
            break
    await until_idle(client)
    assert (await client.stats()).kv_used == 0


async def test_errors_keep_their_class(client: TextClient) -> None:
    with pytest.raises(ContextOverflow):
        await generate(client, "a " * 600)
    with pytest.raises(InvalidRequest, match="pattern"):
        await generate(client, "a", json_schema='{"type":"string","pattern":"x"}')
    assert (await generate(client, "still here", max_tokens=2))[1].finish_reason == "length"


async def test_a_killed_worker_ends_its_requests_and_comes_back(tiny_gguf: Path) -> None:
    async with Pool(config.Pool()) as pool:
        pool.register(spec(tiny_gguf))
        client = TextClient(pool, "tiny")

        async def killed_in_the_middle() -> None:
            request = GenerationRequest(Sampling(max_tokens=400), prompt="where is it")
            async with contextlib.aclosing(client.generate(request, deadline_s=60)) as events:
                async for _ in events:
                    if (pid := pool.status().model("tiny").pid) is not None:
                        os.kill(pid, signal.SIGKILL)

        with pytest.raises(WorkerCrashed):
            await killed_in_the_middle()
        assert (await generate(client, "back again", max_tokens=2))[1].finish_reason == "length"


@pytest.fixture
def half_gguf(tiny_gguf: Path, tmp_path: Path) -> Path:
    path = tmp_path / "half.gguf"
    path.write_bytes(tiny_gguf.read_bytes()[:500_000])
    return path


async def test_a_damaged_file_is_a_bad_model(half_gguf: Path) -> None:
    async with Pool(config.Pool()) as pool:
        pool.register(spec(half_gguf))
        with pytest.raises(BadModel, match=r"half\.gguf"):
            await generate(TextClient(pool, "tiny"), "hello")
