"""The main loop of a worker process: ``python -m agent.engines.worker FD PARENT_PID ISOLATE``.

Order of things: confine the process, wait for ``load``, verify the SHA-256 of every file, import the engine, load,
smoke test, say ``ready``; then drive the engine between reads of the socket until the parent closes it. One thread: a
native library is never entered twice, and a ping that stays unanswered means that the engine is stuck in a step.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import select
import socket
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import NoReturn

from agent.engines import sandbox
from agent.engines.protocol import Decoder, Engine, EngineEvent, Frame, LoadSpec, Payload, error_event
from agent.errors import BadModel, HashMismatch, InputTooLarge

_READ_BYTES = 1 << 18
_HIGH_WATER = 1 << 20
"""Unsent bytes over which the engine is not stepped: a parent that reads slowly slows the engine, memory stays flat."""

_SETTLED_NS = 2_000_000_000

FileIdentity = tuple[int, int, int, int, int]


class Closed(Exception):
    """The parent closed the socket or is gone."""


class Link:
    """The worker's end of the socket: frames in, frames out, never blocking except in `wait`."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._poll = select.poll()  # select() would refuse a descriptor number over 1023
        self._decoder = Decoder()
        self._out = bytearray()

    @property
    def congested(self) -> bool:
        return len(self._out) > _HIGH_WATER

    def send(self, frame: Frame) -> None:
        """Queue a frame and send what the socket takes. Raises InputTooLarge, Closed."""
        self._out += frame.encode()
        self._flush()

    def receive(self, *, wait: bool) -> Iterable[Frame]:
        """Frames that have arrived; with ``wait`` sleeps until there is something to read or to send. Raises Closed."""
        self._poll.register(self._sock, select.POLLIN | (select.POLLOUT if self._out else 0))
        happened = sum(events for _, events in self._poll.poll(None if wait else 0))
        if happened & select.POLLOUT:
            self._flush()
        if not happened & ~select.POLLOUT:
            return []
        try:
            data = self._sock.recv(_READ_BYTES)
        except BlockingIOError:
            return []
        except ConnectionError as error:
            raise Closed from error
        if not data:
            raise Closed
        return self._decoder.feed(data)

    def flush_all(self) -> None:
        """Send the rest, waiting as long as the parent reads. Raises Closed."""
        while self._out:
            self._poll.register(self._sock, select.POLLOUT)
            self._poll.poll()
            self._flush()

    def _flush(self) -> None:
        try:
            while self._out:
                del self._out[: self._sock.send(self._out)]
        except BlockingIOError:
            return
        except ConnectionError as error:
            raise Closed from error


def identity(stat: os.stat_result) -> FileIdentity:
    """What changes when a file does; the change time cannot be set back by its owner."""
    return (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


def verify(files: Mapping[str, str], known: Mapping[str, Sequence[int]]) -> dict[str, FileIdentity]:
    """Check every file against its SHA-256; one whose identity is in ``known`` (verified earlier) is not read again.

    Returns the identities that are now verified, without files changed a moment ago: a second change could hide in the
    same tick of the file system's clock. Raises HashMismatch, BadModel.
    """
    verified: dict[str, FileIdentity] = {}
    for path, expected in files.items():
        try:
            with open(path, "rb") as file:
                before = identity(os.fstat(file.fileno()))
                if tuple(known.get(path, ())) != before:
                    digest = hashlib.file_digest(file, "sha256").hexdigest()
                    if digest != expected.lower():
                        raise HashMismatch(
                            f"{path} has SHA-256 {digest}, not {expected}",
                            remedy="The file is damaged or was replaced. Remove the model and install it again.",
                        )
                    if identity(os.fstat(file.fileno())) != before:
                        raise BadModel(f"{path} changed while it was checked", remedy="Load the model again.")
                if time.time_ns() - before[-1] > _SETTLED_NS:
                    verified[path] = before
        except OSError as error:
            raise BadModel(
                f"cannot read {path}: {error.strerror or error}", remedy="Check that it is there and readable."
            ) from error
    return verified


def load_engine(spec: LoadSpec) -> tuple[Engine, Payload]:
    """The loaded and tried engine with its facts. Raises what the engine raises, BadModel for an unverified entry."""
    if spec.entry and spec.entry not in spec.files:
        raise BadModel(
            f"{spec.entry} of model {spec.model!r} has no SHA-256", remedy="List it among the model's files."
        )
    module, _, name = spec.engine.partition(":")
    engine: Engine = getattr(importlib.import_module(module), name)()
    facts = engine.load(spec)
    engine.smoke_test()
    return engine, facts


def serve(link: Link, engine: Engine) -> NoReturn:
    """Drive ``engine`` until the parent closes the socket. Raises Closed; anything else is the engine's own failure."""
    while True:
        step = engine.busy and not link.congested
        for frame in link.receive(wait=not step):
            if frame.kind == "request":
                try:
                    engine.submit(frame.id, frame.op, frame.payload)
                except Exception as error:  # the worker's boundary: whatever refuses a request is that request's error
                    _emit(link, engine, error_event(frame.id, error))
            elif frame.kind == "cancel":
                engine.cancel(frame.id)
            elif frame.kind == "ping":
                link.send(Frame("pong", frame.id))
        if engine.busy and not link.congested:
            for event in engine.step():
                _emit(link, engine, event)


def _emit(link: Link, engine: Engine, event: EngineEvent) -> None:
    try:
        link.send(Frame(event.kind, event.id, "", event.payload))
    except InputTooLarge as error:
        engine.cancel(event.id)
        failed = error_event(event.id, error)
        link.send(Frame(failed.kind, failed.id, "", failed.payload))


def main(arguments: Sequence[str]) -> int:
    descriptor, parent, isolate = (int(argument) for argument in arguments)
    network = sandbox.confine(parent, isolate=bool(isolate))
    sock = socket.socket(fileno=descriptor)
    sock.set_inheritable(False)
    link = Link(sock)
    try:
        order = _await_load(link)
        try:
            verified = verify(order["files"], order["known"])
            spec = LoadSpec(order["model"], order["engine"], order["entry"], order["files"], order["options"])
            engine, facts = load_engine(spec)
        except Exception as error:  # the worker's boundary: whatever stops a load is the answer to it
            failed = error_event(0, error)
            link.send(Frame("error", 0, "", failed.payload))
            link.flush_all()
            return 1
        link.send(Frame("ready", 0, "", {"facts": dict(facts), "verified": verified, "network": network}))
        serve(link, engine)
    except Closed:
        # Destructors of native libraries may hang or crash on the way out, and nothing is left to save.
        sys.stderr.flush()
        os._exit(0)


def _await_load(link: Link) -> Payload:
    while True:
        for frame in link.receive(wait=True):
            if frame.kind == "load":
                return frame.payload


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
