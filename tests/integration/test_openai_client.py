"""The official `openai` client, unchanged, against every endpoint that OpenAI has in common with us."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator

import jsonschema
import openai
import pydantic
import pytest

from tests.simulators.daemon import TINY, RunningDaemon

SLM = "outpost-reference-slm"
EMBEDDING = "all-minilm-l6-v2"
PASSAGE = "## Opening hours\nThe boat house opens at 9:40 every day.\n\nQuestion: When does the boat house open?"


@pytest.fixture(scope="module")
def client(daemon: RunningDaemon) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{daemon.url}/v1", api_key="unused", max_retries=0) as made:
        yield made


def needs_embedding(client: openai.OpenAI) -> None:
    if EMBEDDING not in {model.id for model in client.models.list()}:
        pytest.skip("the embedding model is not installed; set OUTPOST_EMBEDDING_MODEL")


def test_models_are_listed_with_the_assistant_first(client: openai.OpenAI) -> None:
    models = list(client.models.list())
    assert models[0].id == "outpost"
    assert {model.id: model.owned_by for model in models}[SLM] == "reference"
    assert client.models.retrieve(SLM).id == SLM
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("gpt-4")
    assert caught.value.code == "model_not_found"


def test_the_assistant_answers_with_its_decision(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(
        model="outpost", messages=[{"role": "user", "content": "Do I need a password for the wifi?"}]
    )
    about = reply.model_extra["outpost"]
    assert reply.choices[0].finish_reason == "stop"
    assert reply.choices[0].message.content
    assert about["decision"] in ("local", "handoff")
    assert 0 <= about["confidence"] <= 1
    assert about["certificate"] is None or about["certificate"].startswith("quote-")
    assert about["event_id"].startswith("evt-")
    assert {"understand", "search", "total"} <= set(about["timings_ms"])


def test_the_assistant_streams_the_same_text(client: openai.OpenAI) -> None:
    messages = [{"role": "user", "content": "What is the height limit in the car park?"}]
    whole = client.chat.completions.create(model="outpost", messages=messages)
    pieces, stages, ends = [], [], []
    stream = client.chat.completions.create(
        model="outpost", messages=messages, stream=True, stream_options={"include_usage": True}
    )
    usage = None
    for chunk in stream:
        about = (chunk.model_extra or {}).get("outpost", {})
        if "stage" in about:
            stages.append(about["stage"])
        elif about:
            ends.append(about)
        usage = chunk.usage or usage
        pieces += [choice.delta.content or "" for choice in chunk.choices]
    assert "".join(pieces) == whole.choices[0].message.content
    assert stages[:2] == ["understanding", "searching"]
    assert [about["decision"] for about in ends] == [whole.model_extra["outpost"]["decision"]]
    assert usage is not None


def test_provisional_text_stays_apart_from_the_answer(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model="outpost",
        messages=[{"role": "user", "content": "Do I need a password for the wifi?"}],
        stream=True,
        extra_body={"outpost": {"provisional": True}},
    )
    provisional, content = [], []
    for chunk in stream:
        provisional.append((chunk.model_extra or {}).get("outpost", {}).get("provisional", ""))
        content += [choice.delta.content or "" for choice in chunk.choices]
    assert "".join(provisional).strip()
    assert "".join(content).strip()


def test_a_raw_model_answers_from_its_passage(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(
        model=SLM, messages=[{"role": "user", "content": PASSAGE}], temperature=0, max_tokens=20
    )
    assert "9:40" in (reply.choices[0].message.content or "")
    assert reply.choices[0].finish_reason == "stop"
    assert reply.usage is not None
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens


def test_the_second_question_reuses_the_prompt(client: openai.OpenAI) -> None:
    def ask() -> int:
        reply = client.chat.completions.create(
            model=SLM, messages=[{"role": "user", "content": PASSAGE}], temperature=0, max_tokens=4
        )
        assert reply.usage is not None
        assert reply.usage.prompt_tokens_details is not None
        return reply.usage.prompt_tokens_details.cached_tokens or 0

    ask()
    assert ask() > 10


def test_streaming_sends_tokens_then_usage(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model=SLM,
        messages=[{"role": "user", "content": PASSAGE}],
        temperature=0,
        max_tokens=20,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    assert "9:40" in text
    assert [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason] == ["stop"]
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens > 0


def test_logprobs_are_a_distribution_with_the_chosen_token_on_top(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(
        model=TINY,
        messages=[{"role": "user", "content": PASSAGE}],
        temperature=0,
        max_tokens=5,
        logprobs=True,
        top_logprobs=5,
    )
    logprobs = reply.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content
    for token in logprobs.content:
        assert len(token.top_logprobs) == 5
        assert token.logprob == pytest.approx(token.top_logprobs[0].logprob)  # greedy
        assert sum(math.exp(other.logprob) for other in token.top_logprobs) <= 1 + 1e-6
        assert bytes(token.bytes or []).decode(errors="replace") == token.token


def test_a_seed_repeats_and_stop_strings_end(client: openai.OpenAI) -> None:
    def sample(seed: int) -> str:
        reply = client.completions.create(model=TINY, prompt="The tower", temperature=1.5, seed=seed, max_tokens=24)
        return reply.choices[0].text

    assert sample(7) == sample(7)
    assert len({sample(seed) for seed in range(5)}) > 1
    whole = client.completions.create(model=TINY, prompt="The tower", temperature=0, max_tokens=24).choices[0].text
    stop = whole[3:6]
    cut = client.completions.create(model=TINY, prompt="The tower", temperature=0, max_tokens=24, stop=[stop])
    assert cut.choices[0].text == whole[: whole.index(stop)]
    assert cut.choices[0].finish_reason == "stop"


def test_plain_completions_stream_with_logprobs(client: openai.OpenAI) -> None:
    stream = client.completions.create(model=TINY, prompt="The", max_tokens=6, temperature=0, stream=True, logprobs=2)
    logprobs = [c.logprobs for chunk in stream for c in chunk.choices if c.logprobs is not None]
    tokens = [token for about in logprobs for token in about.tokens or []]
    assert 1 <= len(tokens) <= 6
    offsets = [offset for about in logprobs for offset in about.text_offset or []]
    assert offsets == [sum(map(len, tokens[:number])) for number in range(len(tokens))]


SCHEMA = {
    "type": "object",
    "properties": {
        "room": {"type": "string", "maxLength": 12},
        "seats": {"type": "integer", "minimum": 0, "maximum": 99},
        "open": {"type": "boolean"},
    },
    "required": ["room", "seats", "open"],
    "additionalProperties": False,
}


def test_a_json_schema_is_enforced_even_on_a_model_that_knows_none(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(
        model=SLM,
        messages=[{"role": "user", "content": "Describe a room."}],
        max_tokens=200,
        temperature=0,
        response_format={"type": "json_schema", "json_schema": {"name": "room", "schema": SCHEMA, "strict": True}},
    )
    assert reply.choices[0].finish_reason == "stop"
    jsonschema.validate(json.loads(reply.choices[0].message.content or ""), SCHEMA)


def test_an_unsupported_schema_is_refused_by_name(client: openai.OpenAI) -> None:
    wrong = {"type": "object", "properties": {"a": {"not": {"type": "string"}}}}
    with pytest.raises(openai.BadRequestError, match="not"):
        client.chat.completions.create(
            model=SLM,
            messages=[{"role": "user", "content": "x"}],
            response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": wrong}},
        )


TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": f"{name} something",
            "parameters": {
                "type": "object",
                "properties": {"floor": {"type": "integer", "minimum": 0, "maximum": 9}},
                "required": ["floor"],
                "additionalProperties": False,
            },
        },
    }
    for name in ("print_map", "call_lift")
]


@pytest.mark.parametrize("stream", [False, True])
def test_a_forced_tool_call_fits_its_schema(client: openai.OpenAI, stream: bool) -> None:
    request = {
        "model": SLM,
        "messages": [{"role": "user", "content": "Print me a map of floor 2"}],
        "tools": TOOLS,
        "tool_choice": {"type": "function", "function": {"name": "print_map"}},
        "temperature": 0,
        "max_tokens": 120,
    }
    if stream:
        chunks = list(client.chat.completions.create(**request, stream=True))
        calls = [call for chunk in chunks for c in chunk.choices for call in c.delta.tool_calls or []]
        finish = [c.finish_reason for chunk in chunks for c in chunk.choices if c.finish_reason]
    else:
        choice = client.chat.completions.create(**request).choices[0]
        calls, finish = list(choice.message.tool_calls or []), [choice.finish_reason]
    assert finish == ["tool_calls"]
    assert calls[0].function.name == "print_map"
    assert calls[0].id
    jsonschema.validate(json.loads(calls[0].function.arguments), TOOLS[0]["function"]["parameters"])


def test_a_required_tool_call_names_one_of_the_tools(client: openai.OpenAI) -> None:
    choice = client.chat.completions.create(
        model=SLM,
        messages=[{"role": "user", "content": "Get me up there"}],
        tools=TOOLS,
        tool_choice="required",
        temperature=0,
        max_tokens=120,
    ).choices[0]
    assert choice.message.tool_calls
    assert choice.message.tool_calls[0].function.name in ("print_map", "call_lift")


class Door(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    open: bool


class OpenDoors(pydantic.BaseModel):
    """Its JSON schema holds `$defs`, which references point to."""

    model_config = pydantic.ConfigDict(extra="forbid")
    left: Door
    right: Door | None


class Tree(pydantic.BaseModel):
    """Its JSON schema is a reference itself, and recursive."""

    model_config = pydantic.ConfigDict(extra="forbid")
    leaf: bool
    inner: Tree | None


@pytest.mark.parametrize("arguments", [OpenDoors, Tree])
@pytest.mark.parametrize("others", [[], TOOLS[1:]])
def test_a_tool_described_by_a_pydantic_model_is_called(
    client: openai.OpenAI, arguments: type[pydantic.BaseModel], others: list
) -> None:
    tool = openai.pydantic_function_tool(arguments)
    choice = client.chat.completions.create(
        model=SLM,
        messages=[{"role": "user", "content": "Open the doors"}],
        tools=[tool, *others],
        tool_choice={"type": "function", "function": {"name": arguments.__name__}},
        temperature=0,
        max_tokens=300,
    ).choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.tool_calls
    arguments.model_validate_json(choice.message.tool_calls[0].function.arguments)


def test_a_tool_reply_goes_back_into_the_conversation(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(
        model=SLM,
        messages=[
            {"role": "user", "content": "Print floor 2"},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {"id": "c1", "type": "function", "function": {"name": "print_map", "arguments": '{"floor": 2}'}}
                ],
            },
            {"role": "tool", "tool_call_id": "c1", "content": "printed"},
            {"role": "user", "content": PASSAGE},
        ],
        tools=TOOLS,
        tool_choice="none",
        temperature=0,
        max_tokens=20,
    )
    assert reply.choices[0].message.tool_calls is None
    assert "9:40" in (reply.choices[0].message.content or "")


def test_embeddings_in_both_encodings(client: openai.OpenAI) -> None:
    needs_embedding(client)
    texts = ["Where are the lockers?", "Lockers are beside the cloakroom.", "The tide is high at noon."]
    as_base64 = client.embeddings.create(model=EMBEDDING, input=texts)
    as_float = client.embeddings.create(model=EMBEDDING, input=texts, encoding_format="float")
    vectors = [item.embedding for item in as_base64.data]
    assert [len(vector) for vector in vectors] == [384] * 3
    assert vectors[0] == pytest.approx(as_float.data[0].embedding, abs=1e-6)
    assert math.hypot(*vectors[0]) == pytest.approx(1, abs=1e-3)

    def cosine(a: list[float], b: list[float]) -> float:
        return sum(x * y for x, y in zip(a, b, strict=True))

    assert cosine(vectors[0], vectors[1]) > cosine(vectors[0], vectors[2])
    assert as_base64.usage.prompt_tokens > 10
    with pytest.raises(openai.BadRequestError, match="dimensions"):
        client.embeddings.create(model=EMBEDDING, input="x", dimensions=7)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"n": 2}, "n = 2"),
        ({"logit_bias": {"1": 5}}, "logit_bias"),
        ({"presence_penalty": 1.0}, "presence_penalty"),
        ({"top_logprobs": 3}, "logprobs"),
        ({"tool_choice": "required"}, "tool"),
        ({"temperature": -1}, "temperature"),
        ({"max_tokens": 10**9}, "max_tokens"),
        ({"stop": ["x"] * 17}, "stop"),
        ({"extra_body": {"temprature": 1}}, "did you mean 'temperature'"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(client: openai.OpenAI, change: dict, told: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=SLM, messages=[{"role": "user", "content": "x"}], **change)
    assert told in str(caught.value)
    assert caught.value.type == "invalid_request_error"


def test_a_prompt_over_the_context_is_a_typed_error(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=SLM, messages=[{"role": "user", "content": "word " * 20_000}])
    assert caught.value.code == "context_length_exceeded"


def test_an_unknown_model_names_those_that_are_there(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match=SLM):
        client.chat.completions.create(model="gpt-4", messages=[{"role": "user", "content": "x"}])


async def test_the_asynchronous_client_works_side_by_side(daemon: RunningDaemon) -> None:
    import asyncio

    async with openai.AsyncOpenAI(base_url=f"{daemon.url}/v1", api_key="unused", max_retries=0) as client:

        async def ask() -> str:
            reply = await client.chat.completions.create(
                model=SLM, messages=[{"role": "user", "content": PASSAGE}], temperature=0, max_tokens=20
            )
            return reply.choices[0].message.content or ""

        answers = await asyncio.gather(*(ask() for _ in range(8)))
    assert len(set(answers)) == 1
