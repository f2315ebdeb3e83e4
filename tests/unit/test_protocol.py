"""Frames between the control process and its workers."""

from __future__ import annotations

import struct

import pytest

from agent.engines.protocol import MAX_FRAME_BYTES, Decoder, Frame, error_event
from agent.errors import ContextOverflow, InputTooLarge


def test_a_frame_survives_the_way():
    frame = Frame("request", 7, "echo", {"text": "ü", "raw": b"\0\xff", "nested": {"list": [1, -2.5, None, True]}})
    (back,) = Decoder().feed(frame.encode())
    assert back == frame
    assert back.size == len(frame.encode()) - 4


def test_a_frame_that_comes_in_pieces_is_given_when_whole():
    decoder = Decoder()
    data = Frame("ping").encode() + Frame("end", 1, "", {"n": 1}).encode()
    given = [frame for byte in data for frame in decoder.feed(bytes([byte]))]
    assert [frame.kind for frame in given] == ["ping", "end"]


def test_frames_over_the_limit_are_refused_on_both_sides():
    with pytest.raises(InputTooLarge):
        Frame("request", 1, "echo", {"data": bytes(MAX_FRAME_BYTES)}).encode()
    with pytest.raises(InputTooLarge):
        Decoder().feed(struct.pack(">I", MAX_FRAME_BYTES + 1))


def test_errors_keep_their_code_and_foreign_ones_become_internal():
    known = error_event(3, ContextOverflow("too long", remedy="Shorten it.", param="messages"))
    assert (known.kind, known.id) == ("error", 3)
    assert known.payload == {
        "code": "context_length_exceeded",
        "message": "too long",
        "remedy": "Shorten it.",
        "param": "messages",
    }
    foreign = error_event(4, ZeroDivisionError("division by zero"))
    assert foreign.payload["code"] == "internal_error"
    assert foreign.payload["message"] == "ZeroDivisionError: division by zero"
