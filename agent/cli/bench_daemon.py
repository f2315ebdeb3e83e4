"""What `outpost bench` measures: a daemon of its own with one model, and how its answers arrive over HTTP.

The daemon lives in a temporary state folder with a configuration of its own, so that one that serves on this device
goes on undisturbed. Answers are read with the standard library's client: what the measuring costs, the model lacks.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.engines import sandbox
from agent.engines.process import measure_pss
from agent.errors import Unavailable, from_code

_START_S = 60.0
_STOP_S = 20.0
_ANSWER_S = 600.0
_SETTLE_S = 1.5


@dataclass(frozen=True, slots=True)
class Answer:
    """Seconds of one streamed answer: until its first text, from there to its last token, and in all."""

    first_s: float
    decode_s: float
    total_s: float
    tokens: int
    prompt_tokens: int
    cached_tokens: int
    engine_s: float
    """What the worker says it took."""


class BenchDaemon:
    """A running daemon; made by `running`."""

    def __init__(self, port: int, pid: int, ready_s: float) -> None:
        self.pid = pid
        self.ready_s = ready_s
        """From the start of the process until /readyz said so."""
        self.port = port

    def idle_bytes(self) -> int | None:
        """Memory (PSS) of the control process when it has come to rest; None where the system does not tell."""
        time.sleep(_SETTLE_S)
        return measure_pss([self.pid]).get(self.pid)

    def complete(self, model: str, prompt: str, tokens: int) -> Answer:
        """A greedy completion, streamed. Raises the OutpostError that the daemon sent, Unavailable."""
        body = {
            "model": model,
            "prompt": prompt,
            "max_tokens": tokens,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        started = time.perf_counter()
        first = last = 0.0
        ending: dict[str, Any] = {}
        for event in _events(self.port, "/v1/completions", body):
            if "error" in event:
                raise from_code(event["error"]["code"], event["error"]["message"])
            choices = event["choices"]
            if choices and not first and (choices[0]["text"] or choices[0]["finish_reason"]):
                first = time.perf_counter()
            if choices and choices[0]["finish_reason"]:
                last = time.perf_counter()
            ending = event
        if "usage" not in ending or not last:
            raise Unavailable("the daemon's answer broke off", remedy="Look whether memory is short, and try again.")
        usage, ended = ending["usage"], time.perf_counter()
        return Answer(
            first_s=first - started,
            decode_s=last - first,
            total_s=ended - started,
            tokens=usage["completion_tokens"],
            prompt_tokens=usage["prompt_tokens"],
            cached_tokens=usage["prompt_tokens_details"]["cached_tokens"],
            engine_s=ending["outpost"]["timings_ms"]["generate"] / 1000,
        )

    def complete_together(self, model: str, prompts: list[str], tokens: int) -> tuple[int, float]:
        """All prompts at once, each from a client of its own: tokens of all answers, and seconds until the last."""
        with ThreadPoolExecutor(len(prompts)) as clients:
            started = time.perf_counter()
            answers = list(clients.map(lambda prompt: self.complete(model, prompt, tokens), prompts))
            return sum(answer.tokens for answer in answers), time.perf_counter() - started


@contextlib.contextmanager
def running(state: Path, config: Path) -> Iterator[BenchDaemon]:
    """Start a daemon on a free port, and end it. Raises Unavailable with its last words where it does not start."""
    command = [sys.executable, "-m", "agent", "serve", "--state", str(state), "--config", str(config), "--port", "0"]
    log = state / "bench.log"
    environment: Mapping[str, str] = sandbox.environment(os.environ)
    with log.open("wb") as stream:
        started = time.perf_counter()
        process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream)
    try:
        port = _wait_until_ready(process, log, started + _START_S)
        yield BenchDaemon(port, process.pid, time.perf_counter() - started)
    finally:
        process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_ready(process: subprocess.Popen[bytes], log: Path, deadline: float) -> int:
    port = 0
    while time.perf_counter() < deadline:
        if process.poll() is not None:
            words = log.read_text("utf-8", "replace").strip().splitlines() or ["it said nothing"]
            raise Unavailable(f"the daemon ended with {process.returncode}: {words[-1]}")
        if not port and (found := re.search(rb"listens on http://\S+:(\d+)\s", log.read_bytes())):
            port = int(found[1])
        if port and _is_ready(port):
            return port
        time.sleep(0.005)
    raise Unavailable(f"the daemon was not ready within {_START_S:g} s", remedy="Try again on a quieter device.")


def _is_ready(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def _events(port: int, path: str, body: Mapping[str, object]) -> Iterator[dict[str, Any]]:
    """The objects of a server-sent event stream; a refusal is one with ``error``."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_ANSWER_S)
    try:
        connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
        response = connection.getresponse()
        if response.status != 200:
            yield json.loads(response.read())
            return
        while line := response.readline():
            if line.startswith(b"data: {"):
                yield json.loads(line[6:])
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise Unavailable(f"the connection to the bench's daemon broke off: {error}", remedy="Try again.") from error
    finally:
        connection.close()
