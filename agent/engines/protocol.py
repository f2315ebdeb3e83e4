"""What a worker and the control process say to each other, and what an engine must be.

A frame is a 4-byte big-endian length and a msgpack map. The parent sends ``request`` and ``cancel``; the worker sends
``ready`` (once, after load and smoke test), then any number of ``event`` and exactly one ``end`` or ``error`` a
request, in any order between requests. Payloads are msgpack-able maps; the typed clients in agent/engines/clients.py
make them and read them, so no loose map travels further.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import msgpack

from agent.errors import InputTooLarge, OutpostError

MAX_FRAME_BYTES = 64 * 1024 * 1024
_LENGTH = struct.Struct(">I")

FrameKind = Literal["load", "request", "cancel", "ready", "event", "end", "error", "ping", "pong"]
Payload = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Frame:
    """``id`` is the request's, 0 for frames about the worker itself; ``size`` in bytes is that of a received frame."""

    kind: FrameKind
    id: int = 0
    op: str = ""
    payload: Payload = field(default_factory=dict)
    size: int = field(default=0, compare=False)

    def encode(self) -> bytes:
        """Raises InputTooLarge over MAX_FRAME_BYTES."""
        body: bytes = msgpack.packb([self.kind, self.id, self.op, dict(self.payload)], use_bin_type=True)
        if len(body) > MAX_FRAME_BYTES:
            raise InputTooLarge(f"a message of {len(body)} bytes is over the limit of {MAX_FRAME_BYTES}")
        return _LENGTH.pack(len(body)) + body


class Decoder:
    """Cuts a byte stream into frames; ``feed`` what was read, iterate what is whole."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterable[Frame]:
        """Raises InputTooLarge where a length prefix is over MAX_FRAME_BYTES (the stream is lost then)."""
        self._buffer += data
        frames: list[Frame] = []
        while len(self._buffer) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer)
            if length > MAX_FRAME_BYTES:
                raise InputTooLarge(f"a message of {length} bytes is over the limit of {MAX_FRAME_BYTES}")
            if len(self._buffer) < _LENGTH.size + length:
                break
            body = bytes(self._buffer[_LENGTH.size : _LENGTH.size + length])
            del self._buffer[: _LENGTH.size + length]
            kind, ident, op, payload = msgpack.unpackb(body, raw=False)
            frames.append(Frame(kind, ident, op, payload, length))
        return frames


@dataclass(frozen=True, slots=True)
class LoadSpec:
    """What a worker loads. ``engine`` is the import path ``module:Class`` of an `Engine`; ``files`` maps paths to
    SHA-256, checked before anything opens them; ``options`` are the engine's own (threads, context, ...)."""

    model: str
    engine: str
    entry: str
    files: Mapping[str, str]
    options: Payload = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EngineEvent:
    """One thing to send for a request: ``event`` (more follow), ``end`` or ``error`` (the last)."""

    kind: Literal["event", "end", "error"]
    id: int
    payload: Payload


class Engine(Protocol):
    """What the worker's main loop drives, always on one thread.

    The loop calls ``load`` once, then ``smoke_test``, then forever: ``submit`` and ``cancel`` for what arrived,
    ``step`` while ``busy``. A step is one bounded slice of work (at most some tens of milliseconds where it can be), so
    that new requests join and cancels take effect between steps.
    """

    def load(self, spec: LoadSpec) -> Payload:
        """Load the model; returns facts for status. Raises BadModel, UnfitBuild."""

    def smoke_test(self) -> None:
        """Run the native code once for real, so that a bad build dies here and not under a visitor's question."""

    def submit(self, id: int, op: str, payload: Payload) -> None:
        """Take a request. Raises OutpostError to refuse it (the loop answers with the error)."""

    def cancel(self, id: int) -> None:
        """Drop a request if it is still here; nothing more is sent for it."""

    def step(self) -> Iterable[EngineEvent]:
        """Do one slice of work."""

    @property
    def busy(self) -> bool:
        """Whether ``step`` has work to do."""


class SequentialEngine:
    """An engine that answers one request after the other; subclasses give ``load``, ``smoke_test`` and ``handle``."""

    def __init__(self) -> None:
        self._waiting: dict[int, tuple[str, Payload]] = {}

    def load(self, spec: LoadSpec) -> Payload:
        raise NotImplementedError

    def smoke_test(self) -> None:
        """Nothing to try unless the subclass says otherwise."""

    def handle(self, op: str, payload: Payload) -> Payload:
        """Answer one request. Raises OutpostError."""
        raise NotImplementedError

    def submit(self, id: int, op: str, payload: Payload) -> None:
        self._waiting[id] = (op, payload)

    def cancel(self, id: int) -> None:
        self._waiting.pop(id, None)

    def step(self) -> Iterable[EngineEvent]:
        """Answer the oldest request; whatever ``handle`` raises is that request's error."""
        id, (op, payload) = next(iter(self._waiting.items()))
        del self._waiting[id]
        try:
            return [EngineEvent("end", id, self.handle(op, payload))]
        except Exception as error:  # the worker's boundary: any failure of a handler is that request's error
            return [error_event(id, error)]

    @property
    def busy(self) -> bool:
        return bool(self._waiting)


def error_event(id: int, error: Exception) -> EngineEvent:
    """An exception as the last event of a request; foreign exceptions get the code ``internal_error``."""
    if isinstance(error, OutpostError):
        payload = {"code": error.code, "message": error.message, "remedy": error.remedy, "param": error.param}
    else:
        payload = {"code": "internal_error", "message": f"{type(error).__name__}: {error}", "remedy": "", "param": None}
    return EngineEvent("error", id, payload)
