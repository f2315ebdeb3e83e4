"""Payloads between device and gateway, parts of large ones, a gateway's quotas, and who may be answered where."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import InvalidRequest
from agent.escalation import envelope
from agent.escalation.gateway import Quotas
from agent.escalation.mqtt import may_answer_to
from agent.messages import ChatMessage, CloudRequest, ToolCall, Usage


def request(text: str) -> CloudRequest:
    call = ToolCall("call-1", "print_map", '{"floor": 2}')
    messages = (ChatMessage("system", "Be brief."), ChatMessage("assistant", "", tool_calls=(call,)))
    return CloudRequest("key", "evt-1", (*messages, ChatMessage("user", text)), 300, 1_800_000_000.5, "de")


@given(st.text())
def test_a_request_comes_out_as_it_went_in_but_for_its_event_id(text: str) -> None:
    """Whoever has that may read the answer."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return  # a lone surrogate is no text and is taken out before
    sent = envelope.encode_request(request(text))
    assert b"evt-1" not in sent
    assert envelope.decode_request(sent) == replace(request(text), event_id="key")


@pytest.mark.parametrize(
    "reply",
    [
        envelope.Working(),
        envelope.Ready(),
        envelope.Delta(3, "and a piece"),
        envelope.Final("whole", "cloud", "m-1", Usage(5, 2, 1), 0.25),
        envelope.Failed("cloud_unavailable", "down", 3.5),
    ],
)
def test_a_reply_comes_out_as_it_went_in(reply: envelope.Reply) -> None:
    assert envelope.decode_reply(envelope.encode_reply(reply)) == reply


def test_fields_of_later_versions_are_let_pass() -> None:
    assert envelope.decode_reply(b'{"kind": "working", "since": 3}') == envelope.Working()


@pytest.mark.parametrize(
    "payload", [b"", b"{", b"[]", b'{"kind": "shout"}', b'{"kind": "delta"}', b"\xff\xfe", b"null"]
)
def test_what_is_no_reply_is_refused(payload: bytes) -> None:
    with pytest.raises(InvalidRequest):
        envelope.decode_reply(payload)


def test_a_bad_request_is_told_where_it_is_bad() -> None:
    with pytest.raises(InvalidRequest, match=r"messages\.0\.role"):
        envelope.decode_request(b'{"key":"k","event_id":"e","messages":[{"role":"boss","content":""}],"max_tokens":1,'
                                b'"expires_at":1}')  # fmt: skip


@given(st.binary(min_size=1, max_size=5000), st.integers(1, 700), st.randoms(use_true_random=False))
def test_parts_make_the_whole_in_any_order_and_twice(payload: bytes, size: int, chance: random.Random) -> None:
    cut = envelope.cut(payload, size)
    if len(cut.parts) > envelope.MAX_PARTS:
        with pytest.raises(InvalidRequest):
            envelope.Assembly.of(cut.labels(0))
        return
    numbers = list(range(len(cut.parts)))
    chance.shuffle(numbers)
    assembly = envelope.Assembly.of(cut.labels(numbers[0]))
    for number in numbers[:-1]:
        assert assembly.add(cut.labels(number), cut.parts[number]) is None
        assert assembly.add(cut.labels(number), cut.parts[number]) is None
    assert assembly.add(cut.labels(numbers[-1]), cut.parts[numbers[-1]]) == payload


def test_parts_that_were_not_announced_are_refused() -> None:
    cut, other = envelope.cut(b"a" * 30, 10), envelope.cut(b"b" * 30, 10)
    assembly = envelope.Assembly.of(cut.labels())
    with pytest.raises(InvalidRequest, match="belong"):
        assembly.add(other.labels(0), other.parts[0])
    with pytest.raises(InvalidRequest, match="belong"):
        assembly.add(cut.labels(3), b"")
    with pytest.raises(InvalidRequest, match="no number"):
        assembly.add(cut.labels(), b"")
    assembly.add(cut.labels(0), cut.parts[0])
    assembly.add(cut.labels(1), b"forged")
    with pytest.raises(InvalidRequest, match="not what was announced"):
        assembly.add(cut.labels(2), cut.parts[2])


@pytest.mark.parametrize("count", ["0", "-1", "1025", "x", ""])
def test_a_number_of_parts_beyond_the_limit_is_refused(count: str) -> None:
    with pytest.raises(InvalidRequest):
        envelope.Assembly.of({"parts": count, "digest": "0"})


def test_parts_together_stay_under_the_limit() -> None:
    assembly = envelope.Assembly.of({"parts": "3", "digest": "0"})
    assembly.add({"parts": "3", "part": "0", "digest": "0"}, bytes(envelope.LARGEST_BYTES))
    with pytest.raises(InvalidRequest, match="more than"):
        assembly.add({"parts": "3", "part": "1", "digest": "0"}, b"x")


def test_a_quota_refills_within_the_minute_and_is_each_devices_own() -> None:
    quotas = Quotas(requests_per_minute=2, tokens_per_day=1000)
    assert [quotas.take("a", 0.0, 1) for _ in range(2)] == [None, None]
    assert quotas.take("a", 0.0, 1) == pytest.approx(30.0)
    assert quotas.take("b", 0.0, 1) is None
    assert quotas.take("a", 29.0, 1) == pytest.approx(1.0)
    assert quotas.take("a", 30.5, 1) is None
    assert quotas.take("a", 30.5, 1) is not None


def test_tokens_run_out_for_the_day() -> None:
    quotas = Quotas(requests_per_minute=60, tokens_per_day=100)
    assert quotas.take("a", 0.0, 1) is None
    quotas.count("a", 100)
    assert quotas.take("a", 1.0, 1) == 3600.0
    assert quotas.take("a", 2.0, 2) is None


@pytest.mark.parametrize(
    ("topic", "allowed"),
    [
        ("lobby/display/answers", True),
        ("outpost/hall/kiosk/ask/response/7", True),
        ("outpost/hall/kiosk/ask", False),
        ("outpost/hall/kiosk/events", False),
        ("outpost/hall/kiosk/status", False),
        ("outpost/hall/kiosk/escalate/request", False),
        ("outpost/hall/other/ask/response/7", False),
        ("outpost/hall/kiosk2/ask/response", False),
        ("outpost-gateway/north/status", False),
        ("$SYS/broker", False),
        ("answers/#", False),
        ("answers/+", False),
        ("", False),
    ],
)
def test_where_an_asker_may_be_answered(topic: str, allowed: bool) -> None:
    assert may_answer_to(topic, "outpost/hall/kiosk") is allowed
