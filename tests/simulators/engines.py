"""Engines whose behaviour a test dictates, run by the real worker loop in real child processes."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from agent.engines.protocol import EngineEvent, LoadSpec, Payload, SequentialEngine, error_event
from agent.errors import BadModel, InvalidRequest


class ScriptedEngine:
    """One step serves every request that is here once, so requests run concurrently.

    Load options: ``marker`` (a file that gets one line a load, the proof that the engine got so far), ``crash`` (a
    signal name to die by), ``crash_with_extra_buffers``, ``load_s`` (how long loading takes), ``allocate_mb``,
    ``bad_model`` (refuse with that text), ``go`` (a file; loading waits until it is there).
    """

    def __init__(self) -> None:
        self._requests: dict[int, tuple[str, Payload, int]] = {}
        self._kept: list[bytearray] = []
        self._cancelled = 0
        self._options: Payload = {}

    def load(self, spec: LoadSpec) -> Payload:
        self._options = options = spec.options
        if "marker" in options:
            with Path(options["marker"]).open("a") as marker:
                marker.write(f"{os.getpid()} extra_buffers={options.get('extra_buffers', True)}\n")
        if "go" in options:
            _wait_for(Path(options["go"]))
        time.sleep(options.get("load_s", 0))
        if "bad_model" in options:
            raise BadModel(options["bad_model"])
        self._allocate(options.get("allocate_mb", 0))
        return {"extra_buffers": options.get("extra_buffers", True), "version": options.get("version", 1)}

    def smoke_test(self) -> None:
        options = self._options
        if "crash" in options and (options.get("extra_buffers", True) or not options.get("crash_with_extra_buffers")):
            _die(options["crash"])

    def submit(self, id: int, op: str, payload: Payload) -> None:
        if op == "refuse":
            raise InvalidRequest("not this one", remedy="Ask another.", param="op")
        if op == "unhandled":
            raise RuntimeError("submit failed")
        self._requests[id] = (op, payload, 0)

    def cancel(self, id: int) -> None:
        if self._requests.pop(id, None):
            self._cancelled += 1

    @property
    def busy(self) -> bool:
        return bool(self._requests)

    def step(self) -> Iterable[EngineEvent]:
        events = []
        for id, (op, payload, turn) in list(self._requests.items()):
            try:
                event = self._turn(id, op, payload, turn)
            except InvalidRequest as error:
                event = error_event(id, error)
            events.append(event)
            if event.kind == "event":
                self._requests[id] = (op, payload, turn + 1)
            else:
                del self._requests[id]
        return events

    def _turn(self, id: int, op: str, payload: Payload, turn: int) -> EngineEvent:
        if op == "count":
            time.sleep(payload.get("pause_s", 0))
            if turn < payload["n"]:
                return EngineEvent("event", id, {"i": turn, "pad": b"x" * payload.get("size", 0)})
            return EngineEvent("end", id, {"n": turn})
        return EngineEvent("end", id, getattr(self, f"_op_{op}")(**payload))

    def _op_echo(self, **payload: Any) -> Payload:
        return payload

    def _op_sleep(self, seconds: float) -> Payload:
        time.sleep(seconds)
        return {}

    def _op_crash(self, name: str) -> Payload:
        return _die(name)

    def _op_leave(self, code: int) -> Payload:
        print("leaving for a reason", file=sys.stderr, flush=True)
        os._exit(code)

    def _op_fail(self) -> Payload:
        raise RuntimeError("the engine broke")

    def _op_allocate(self, mb: int) -> Payload:
        self._allocate(mb)
        return {}

    def _op_big(self, size: int) -> Payload:
        return {"data": bytes(size)}

    def _op_connect(self, port: int) -> Payload:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=5):
                return {"connected": True, "error": ""}
        except OSError as error:
            return {"connected": False, "error": str(error)}

    def _op_facts(self) -> Payload:
        return {
            "environ": dict(os.environ),
            "cwd": os.getcwd(),
            "sid": os.getsid(0),
            "uid": os.getuid(),
            "threads": threading.active_count(),
            "fds": len(os.listdir("/proc/self/fd")),
            "core": list(resource.getrlimit(resource.RLIMIT_CORE)),
            "oom_score_adj": int(Path("/proc/self/oom_score_adj").read_text()),
            "active": len(self._requests) - 1,
            "cancelled": self._cancelled,
        }

    def _op_garbage(self) -> Payload:
        """Write something that is no frame over the parent's socket."""
        for descriptor in range(3, 64):
            with contextlib.suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as sock:
                sock.sendall(b"\x00\x00\x00\x02\xc1\xc1")
        return {}

    def _allocate(self, mb: int) -> None:
        self._kept.append(bytearray(os.urandom(1 << 20)) * mb)


def _die(name: str) -> Any:
    os.kill(os.getpid(), signal.Signals[name])
    time.sleep(60)


def _wait_for(path: Path) -> None:
    end = time.monotonic() + 60
    while not path.exists():
        if time.monotonic() > end:
            raise BadModel(f"{path} never came")
        time.sleep(0.005)


class PayloadEngine(SequentialEngine):
    """Answers every operation with the payload that the load options name for it; ``echo_into`` puts the request's own
    payload, as JSON, into that field, so that a test sees what a client sent."""

    def load(self, spec: LoadSpec) -> Payload:
        self._options = spec.options
        return {}

    def handle(self, op: str, payload: Payload) -> Payload:
        answer = dict(self._options[op])
        if field := self._options.get("echo_into"):
            answer[field] = json.dumps(payload, default=lambda raw: raw.hex())
        return answer


class SpeakingEngine(PayloadEngine):
    """As `PayloadEngine`; ``generate`` gives the option's ``deltas``, one a step, before its ``end``."""

    def __init__(self) -> None:
        super().__init__()
        self._speaking: dict[int, list[Payload]] = {}

    def submit(self, id: int, op: str, payload: Payload) -> None:
        if op == "generate":
            sent = {"text": json.dumps(payload), "logprobs": []}
            self._speaking[id] = [sent, *self._options["deltas"]]
        else:
            super().submit(id, op, payload)

    def step(self) -> Iterable[EngineEvent]:
        if not self._speaking:
            return super().step()
        id, deltas = next(iter(self._speaking.items()))
        if deltas:
            return [EngineEvent("event", id, deltas.pop(0))]
        del self._speaking[id]
        return [EngineEvent("end", id, self._options["end"])]

    @property
    def busy(self) -> bool:
        return bool(self._speaking) or super().busy
