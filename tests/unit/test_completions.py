"""Chat completions on the wire: what is sent, and what of a server's bytes is believed."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.escalation.completions import (
    Dialect,
    Events,
    ServerError,
    Unreadable,
    body,
    chunk,
    estimated_usage,
    refusal,
    whole,
)
from agent.messages import ChatMessage, CloudRequest, ToolCall, Usage

REQUEST = CloudRequest("k1", "e1", (ChatMessage("user", "Wo ist das Café?"),), 50, 0.0)
STREAM = (
    b": a comment\r\n\r\ndata: one\r\n\r\nevent: x\ndata:two \xe2\x80\xa8 still two\n\n"
    b"data: three\ndata: and four\n\ndata: [DONE]\n\n"
)
EVENTS = ["one", "two \u2028 still two", "three\nand four", "[DONE]"]


@given(st.lists(st.integers(0, len(STREAM)), max_size=8))
def test_events_are_the_same_wherever_the_bytes_are_cut(cuts: list[int]) -> None:
    reader, found, edges = Events(), [], [0, *sorted(cuts), len(STREAM)]
    for start, end in itertools.pairwise(edges):
        found += list(reader.feed(STREAM[start:end]))
    assert found == EVENTS


def test_an_event_that_is_no_utf8_is_unreadable() -> None:
    with pytest.raises(Unreadable, match="UTF-8"):
        list(Events().feed(b"data: \xff\xfe\n\n"))


def test_the_body_holds_what_openai_wants_and_nothing_of_the_device() -> None:
    sent = json.loads(body(REQUEST, "gpt", Dialect()))
    assert sent == {
        "model": "gpt",
        "messages": [{"role": "user", "content": "Wo ist das Café?"}],
        "max_tokens": 50,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_tool_calls_travel_in_openais_shape() -> None:
    calls = (ToolCall("c1", "lamp", '{"on":true}'),)
    messages = (ChatMessage("assistant", "", tool_calls=calls), ChatMessage("tool", "done", tool_call_id="c1"))
    sent = json.loads(body(CloudRequest("k", "e", messages, 5, 0.0), "m", Dialect()))["messages"]
    assert sent[0]["tool_calls"][0]["function"] == {"name": "lamp", "arguments": '{"on":true}'}
    assert sent[1]["tool_call_id"] == "c1"


def test_a_dialect_learns_each_field_once() -> None:
    newer = Dialect().after("Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.")
    assert newer is not None
    assert json.loads(body(REQUEST, "m", newer))["max_completion_tokens"] == 50
    assert newer.after("max_completion_tokens is too large") is None
    plain = newer.after('{"detail":[{"type":"extra_forbidden","loc":["body","stream_options"]}]}')
    assert plain is not None
    assert "stream_options" not in json.loads(body(REQUEST, "m", plain))
    assert Dialect().after("messages: too long") is None


def test_a_chunk_gives_text_model_usage_and_the_reason_for_the_end() -> None:
    found = chunk(
        '{"model":"m","choices":[{"delta":{"content":"Hi"},"finish_reason":"stop"}],'
        '"usage":{"prompt_tokens":3,"completion_tokens":4,"prompt_tokens_details":{"cached_tokens":2}}}'
    )
    assert (found.text, found.finish_reason, found.model, found.usage) == ("Hi", "stop", "m", Usage(3, 4, 2))
    assert chunk(" [DONE]").done


@pytest.mark.parametrize(
    "odd",
    ["{}", '{"choices":[]}', '{"choices":[null]}', '{"choices":{"0":1}}', '{"choices":[{"delta":null}]}',
     '{"choices":[{"delta":{"content":["a"]}}],"usage":{"prompt_tokens":"x"}}',
     '{"usage":{"prompt_tokens":-1,"completion_tokens":1}}', '{"usage":{"prompt_tokens":1e99,"completion_tokens":1}}',
     '{"usage":{"prompt_tokens":true,"completion_tokens":1}}'],
)  # fmt: skip
def test_what_holds_no_text_gives_none(odd: str) -> None:
    found = chunk(odd)
    assert (found.text, found.usage, found.done) == ("", None, False)


@pytest.mark.parametrize("odd", ["", "no", "[1]", "[" * 100_000, '"text"', "NaN", "1" * 5000])
def test_what_is_no_object_is_unreadable(odd: str) -> None:
    with pytest.raises(Unreadable):
        chunk(odd)


def test_an_error_within_the_stream_is_told() -> None:
    with pytest.raises(ServerError, match=r"out of memory \(oom\)"):
        chunk('{"error":{"message":"out of memory","code":"oom"}}')
    with pytest.raises(ServerError):
        whole(b'{"error":"boom"}')


def test_text_is_clean_whatever_it_holds() -> None:
    found = chunk(r'{"choices":[{"delta":{"content":"a\u0000b\ud800c\ud83d\ude00\n\u001b[31m"}}]}')
    assert found.text == "ab\ufffdc\U0001f600\n[31m"
    found.text.encode()


def test_a_reply_in_one_piece() -> None:
    found = whole(b'{"choices":[{"message":{"content":"Hi"},"finish_reason":"stop"}]}')
    assert (found.text, found.done) == ("Hi", True)
    with pytest.raises(Unreadable, match="without a message"):
        whole(b'{"object":"list"}')


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (b'{"error":{"message":"Wrong key","code":"invalid_api_key"}}', "Wrong key (invalid_api_key)"),
        (b'{"error":"no such model"}', "no such model"),
        (b'{"detail":"Not Found"}', "Not Found"),
        (b'{"detail":[{"loc":["body","x"]}]}', '[{"loc": ["body", "x"]}]'),
        (b"<html>teapot</html>", ""),
        (b"\xff\x00", ""),
    ],
)
def test_a_refusal_in_few_words(sent: bytes, said: str) -> None:
    assert refusal(sent) == said


def test_a_long_refusal_is_cut_and_has_one_line() -> None:
    said = refusal(json.dumps({"error": {"message": "no\n" * 1000}}).encode())
    assert len(said) == 200
    assert "\n" not in said


def test_usage_is_estimated_high() -> None:
    assert estimated_usage(REQUEST, "It is upstairs.") == Usage(6, 5)
