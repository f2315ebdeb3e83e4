"""Drives a text engine the way a worker's main loop does, and collects what it says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from agent.engines.protocol import EngineEvent, LoadSpec, error_event
from agent.engines.text import TextEngine
from agent.errors import OutpostError, from_code
from agent.messages import Sampling


def load(path: Path, **options: object) -> TextEngine:
    """A loaded and tried engine; one thread, small unless told otherwise."""
    engine = TextEngine()
    defaults: dict[str, object] = {"threads": 1, "context": 512, "sequences": 4, "batch": 64, "kv_tokens": 2048}
    engine.load(LoadSpec("test", "agent.engines.text:TextEngine", str(path), {}, {**defaults, **options}))
    engine.smoke_test()
    return engine


@dataclass
class Result:
    """Everything that came for one request."""

    text: str = ""
    deltas: list[str] = field(default_factory=list)
    logprobs: list[list[Any]] = field(default_factory=list)
    end: Mapping[str, Any] | None = None
    error: OutpostError | None = None
    lasts: int = 0
    """How many last events (end or error) came; anything but 1 is a fault of the engine."""

    def take(self, event: EngineEvent) -> None:
        assert not self.lasts, "an event after the last one"
        if event.kind == "event":
            self.text += event.payload["text"]
            self.deltas.append(event.payload["text"])
            self.logprobs += event.payload["logprobs"]
            return
        self.lasts += 1
        if event.kind == "end":
            self.end = event.payload
        else:
            payload = event.payload
            self.error = from_code(payload["code"], payload["message"], payload["remedy"], payload["param"])


class Driver:
    """Submits, steps and sorts events by request."""

    def __init__(self, engine: TextEngine) -> None:
        self.engine = engine
        self.results: dict[int, Result] = {}
        self._next = 1

    def submit(self, op: str, payload: Mapping[str, Any]) -> int:
        id = self._next
        self._next += 1
        self.results[id] = Result()
        try:
            self.engine.submit(id, op, payload)
        except OutpostError as error:
            self.results[id].take(error_event(id, error))
        return id

    def prompt(self, text: str, **sampling: Any) -> int:
        return self.submit("generate", {"prompt": text, "sampling": asdict(Sampling(**sampling))})

    def chat(self, *contents: str, **sampling: Any) -> int:
        messages = [{"role": "user", "content": content} for content in contents]
        return self.submit("generate", {"messages": messages, "sampling": asdict(Sampling(**sampling))})

    def step(self) -> None:
        for event in self.engine.step():
            self.results[event.id].take(event)

    def until(self, condition: Callable[[], bool], steps: int = 10_000) -> None:
        for _ in range(steps):
            if condition():
                return
            assert self.engine.busy, "the engine is idle, and it did not happen"
            self.step()
        raise AssertionError("it did not happen")

    def finish(self) -> None:
        self.until(lambda: not self.engine.busy)

    def ask(self, text: str, **sampling: Any) -> Result:
        """One raw prompt, to its end."""
        id = self.prompt(text, **sampling)
        self.finish()
        return self.results[id]

    def call(self, op: str, payload: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
        """An operation that answers with one map; other requests go on meanwhile."""
        id = self.submit(op, payload or {})
        self.until(lambda: bool(self.results[id].lasts))
        result = self.results[id]
        if result.error is not None:
            raise result.error
        assert result.end is not None
        return result.end
