"""What the typed clients send to a worker and make of its answers, over a real pool and worker process."""

from __future__ import annotations

import contextlib
import json
import struct
from pathlib import Path
from typing import Any

import pytest

from agent.engines.clients import DocumentClient, EmbeddingClient, IntentClient, TextClient, TextStats, TrainingReport
from agent.engines.pool import ModelSpec, Pool
from agent.engines.protocol import LoadSpec
from agent.errors import WorkerCrashed
from agent.messages import (
    Alternative,
    ChatMessage,
    GenerationEnd,
    GenerationRequest,
    IntentResult,
    Sampling,
    TextDelta,
    TokenLogprob,
    ToolCall,
    Usage,
)

ROOT = Path(__file__).resolve().parents[2]
END = {
    "finish_reason": "stop",
    "prompt_tokens": 7,
    "completion_tokens": 2,
    "cached_tokens": 5,
    "first_token_ms": 1.5,
    "total_ms": 3.0,
}


def speak(pool: Pool, **options: Any) -> None:
    load = LoadSpec("m", "tests.simulators.engines:SpeakingEngine", "", {}, options)
    pool.register(ModelSpec(load, "slm", 30 << 20))


async def generate(pool: Pool, request: GenerationRequest) -> tuple[dict[str, Any], list[TextDelta], GenerationEnd]:
    events = []
    async with contextlib.aclosing(TextClient(pool, "m").generate(request, deadline_s=10)) as stream:
        async for event in stream:
            events.append(event)
    sent, *deltas, end = events
    assert isinstance(sent, TextDelta)
    assert isinstance(end, GenerationEnd)
    return json.loads(sent.text), [delta for delta in deltas if isinstance(delta, TextDelta)], end


async def test_generation_of_messages(pool: Pool) -> None:
    deltas = [
        {
            "text": "Hé",
            "logprobs": [["H", -0.1, b"H", [["H", -0.1, b"H"], ["J", -2.5, b"J"]]], ["é", -0.2, b"\xc3", []]],
        },
        {"text": "!", "logprobs": []},
    ]
    speak(pool, deltas=deltas, end=END)
    request = GenerationRequest(
        Sampling(temperature=0.7, stop=("\n", "##"), logprobs=2, json_schema="{}", seed=3),
        messages=(
            ChatMessage("user", "Opening hours?"),
            ChatMessage("assistant", "", tool_calls=(ToolCall("call_1", "hours", '{"day":"Monday"}'),)),
            ChatMessage("tool", "9 to 5", tool_call_id="call_1"),
        ),
        tools='[{"type":"function"}]',
        template_variables={"enable_thinking": False},
    )
    sent, given, end = await generate(pool, request)
    assert sent == {
        "messages": [
            {"role": "user", "content": "Opening hours?"},
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [{"id": "call_1", "name": "hours", "arguments": '{"day":"Monday"}'}],
            },
            {"role": "tool", "content": "9 to 5", "tool_call_id": "call_1"},
        ],
        "tools": '[{"type":"function"}]',
        "template_variables": {"enable_thinking": False},
        "sampling": {
            "temperature": 0.7,
            "top_k": 0,
            "top_p": 1.0,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "seed": 3,
            "max_tokens": 256,
            "stop": ["\n", "##"],
            "logprobs": 2,
            "json_schema": "{}",
        },
    }
    assert given == [
        TextDelta(
            "Hé",
            (
                TokenLogprob("H", -0.1, b"H", (Alternative("H", -0.1, b"H"), Alternative("J", -2.5, b"J"))),
                TokenLogprob("é", -0.2, b"\xc3"),
            ),
        ),
        TextDelta("!"),
    ]
    assert end == GenerationEnd("stop", Usage(7, 2, 5), 1.5, 3.0)


async def test_generation_of_a_raw_prompt(pool: Pool) -> None:
    speak(pool, deltas=[], end=END)
    sent, given, _ = await generate(pool, GenerationRequest(Sampling(), prompt="Once"))
    assert (sent["prompt"], "messages" in sent, sent["tools"]) == ("Once", False, None)
    assert given == []


async def test_the_text_models_other_operations(pool: Pool) -> None:
    stats = {"sequences_active": 1, "waiting": 2, "kv_used": 3, "kv_total": 4, "prefixes_cached": 5}
    speak(pool, tokenize={"tokens": [1, 2, 3]}, stats=stats, forget={})
    client = TextClient(pool, "m")
    assert await client.tokenize("a b c") == [1, 2, 3]
    assert await client.stats() == TextStats(1, 2, 3, 4, 5)
    await client.forget()


@pytest.mark.parametrize(
    "end",
    [
        {**END, "finish_reason": "tired"},
        {**END, "prompt_tokens": None},
        {key: value for key, value in END.items() if key != "cached_tokens"},
    ],
)
async def test_a_generation_end_in_an_unknown_form_is_an_error(pool: Pool, end: dict[str, Any]) -> None:
    speak(pool, deltas=[], end=end)
    with pytest.raises(WorkerCrashed, match="unknown form"):
        await generate(pool, GenerationRequest(Sampling(), prompt=""))


async def test_a_delta_in_an_unknown_form_is_an_error(pool: Pool) -> None:
    speak(pool, deltas=[{"text": "a", "logprobs": [["too", "short"]]}], end=END)
    with pytest.raises(WorkerCrashed, match="unknown form"):
        await generate(pool, GenerationRequest(Sampling(), prompt=""))


async def test_embeddings_are_rows_of_float32(pool: Pool) -> None:
    speak(pool, embed={"dim": 2, "vectors": struct.pack("<4f", 1, 0, 0.6, 0.8), "tokens": 9})
    vectors, tokens = await EmbeddingClient(pool, "m").embed_counted(["a", "b"], deadline_s=10)
    assert (vectors.shape, str(vectors.dtype), tokens) == ((2, 2), "float32", 9)
    assert vectors[1].tolist() == pytest.approx([0.6, 0.8])
    with pytest.raises(WorkerCrashed, match="unknown form"):
        await EmbeddingClient(pool, "m").embed(["a", "b", "c"], deadline_s=10)


async def test_intents_are_trained_and_classified(pool: Pool) -> None:
    import numpy

    result = {"intent": "toilets", "probability": 0.9, "in_scope_score": 0.8, "margin": 3.5, "slots": {"floor": "2"}}
    speak(
        pool,
        train={"intents": 3, "examples": 40, "seconds": 0.5},
        classify={"results": [result]},
    )
    client = IntentClient(pool, "m")
    assert await client.train("[[intents]]", numpy.ones((1, 2), "f4"), "/tmp/x.npz") == TrainingReport(3, 40, 0.5)
    assert await client.classify(["where are the toilets"]) == [IntentResult("toilets", 0.9, 0.8, 3.5, {"floor": "2"})]


async def test_what_the_document_parser_gets_and_gives(pool: Pool) -> None:
    speak(pool, extract={"title": "Prices", "text": ""}, echo_into="text")
    title, text = await DocumentClient(pool, "m").extract("prices.pdf", b"%PDF\xff")
    assert title == "Prices"
    assert json.loads(text) == {"name": "prices.pdf", "data": b"%PDF\xff".hex()}
