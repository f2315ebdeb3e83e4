"""Frames cut at any place arrive whole; bytes that are no frames end in one of the errors that the pool expects."""

from __future__ import annotations

import random
import struct

from hypothesis import given, seed, settings
from hypothesis import strategies as st

from agent.engines.protocol import Decoder, Frame
from agent.errors import InputTooLarge

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=3),
    max_leaves=8,
)
frames = st.builds(
    Frame,
    kind=st.sampled_from(["request", "event", "end", "error", "ping"]),
    id=st.integers(0, 2**32),
    op=st.text(max_size=10),
    payload=st.dictionaries(st.text(), values, max_size=4),
)


@seed(1)
@settings(max_examples=150, deadline=None)
@given(sent=st.lists(frames, max_size=4), cuts=st.randoms(use_true_random=False))
def test_any_cutting_gives_the_same_frames(sent: list[Frame], cuts: random.Random) -> None:
    data = b"".join(frame.encode() for frame in sent)
    decoder, received, at = Decoder(), [], 0
    while at < len(data):
        size = cuts.randint(1, 40)
        received += decoder.feed(data[at : at + size])
        at += size
    assert received == sent


@seed(2)
@settings(max_examples=300, deadline=None)
@given(body=st.binary(max_size=200), framed=st.booleans())
def test_garbage_raises_only_what_the_reader_catches(body: bytes, framed: bool) -> None:
    data = struct.pack(">I", len(body)) + body if framed else body
    try:
        for frame in Decoder().feed(data):
            assert isinstance(frame, Frame)
    except (InputTooLarge, ValueError, TypeError):
        pass  # what agent/engines/process.py turns into the end of that worker
