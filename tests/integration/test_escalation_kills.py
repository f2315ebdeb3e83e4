"""kill -9 of the daemon at random moments, under load, with a line that comes and goes: what was acknowledged is
answered, once.

The cloud is a second daemon that really generates. tests/benchmarks/kill_escalation.py does the same hundreds of times.
"""

from __future__ import annotations

import itertools
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from tests.simulators.daemon import TINY, RunningDaemon, install_tiny, running_daemon
from tests.simulators.line import Line

ASKERS = 4
SETTLE_S = 90.0
FIRST_ANSWER_S = 30.0


@dataclass
class Seen:
    """All that askers ever saw of their questions. ``acknowledged``: event ids that the device told; ``answers``: by
    event id, the different (text, time) that were read as its answer."""

    acknowledged: set[str] = field(default_factory=set)
    decisions: Counter[str] = field(default_factory=Counter)
    answers: dict[str, set[tuple[str, float]]] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    cut: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def told(self, text: str, outpost: dict[str, object]) -> None:
        id = str(outpost["event_id"])
        with self.lock:
            self.decisions[str(outpost["decision"])] += 1
            if outpost["decision"] in ("escalated", "deferred"):
                self.acknowledged.add(id)
            if outpost["decision"] == "escalated":
                self.texts[id] = text

    def read(self, event: dict[str, object]) -> bool:
        """Note an event as it was read; whether it has its answer."""
        answer = event["answer"]
        if not isinstance(answer, dict):
            return False
        with self.lock:
            self.answers.setdefault(str(event["id"]), set()).add((answer["text"], answer["at"]))
        return True

    @property
    def unanswered(self) -> set[str]:
        return self.acknowledged - self.answers.keys()

    @property
    def twice(self) -> set[str]:
        """Events with two answers, or with another one than the asker was given at once."""
        several = {id for id, found in self.answers.items() if len(found) > 1}
        other = {id for id, text in self.texts.items() if {text} != {t for t, _ in self.answers.get(id, {(text, 0)})}}
        return several | other


@contextmanager
def cloud(folder: Path, tiny_gguf: Path) -> Iterator[RunningDaemon]:
    """The cloud's model: random weights, so an answer is nonsense, but it is generated."""
    install_tiny(folder, tiny_gguf)
    settings = {"OUTPOST_MODELS__TEXT": "", "OUTPOST_MODELS__PINNED": f'["{TINY}"]', "OUTPOST_SERVER__QUEUE": "200"}
    with running_daemon(folder, settings=settings) as running:
        yield running


def device_settings(url: str) -> dict[str, str]:
    endpoint = f'[{{ name = "cloud", url = "{url}", model = "{TINY}" }}]'
    return {
        "OUTPOST_MODELS__TEXT": "",
        "OUTPOST_ASSISTANT__POLICY": "certified",
        "OUTPOST_ESCALATION__ENABLED": "true",
        "OUTPOST_ESCALATION__ENDPOINTS": endpoint,
        "OUTPOST_ESCALATION__MAX_TOKENS": "8",
        "OUTPOST_ESCALATION__TOTAL_S": "3",
        "OUTPOST_ESCALATION__DAILY_REQUESTS": "1000000",
        "OUTPOST_ESCALATION__DAILY_TOKENS": "1000000000",
    }


def load(daemon: RunningDaemon, seen: Seen, numbers: Iterator[int], stop: threading.Event) -> None:
    """One asker: asks, and reads up what was promised, until the device dies or the round is over."""
    with daemon.client(timeout=20) as client:
        while not stop.is_set():
            question = f"What is inside parcel {next(numbers)}?"
            body = {"model": "outpost", "messages": [{"role": "user", "content": question}]}
            try:
                reply = client.post("/v1/chat/completions", json=body)
                if reply.status_code == 200:
                    told = reply.json()
                    seen.told(told["choices"][0]["message"]["content"], told["outpost"])
                for id in random.sample(sorted(seen.acknowledged), min(2, len(seen.acknowledged))):
                    seen.read(client.get(f"/v1/events/{id}").json())
            except (httpx.TransportError, json.JSONDecodeError):
                seen.cut += 1
                return


def kill_one(folder: Path, line: Line, seen: Seen, numbers: Iterator[int], moments: random.Random) -> None:
    """Start the device, load it, kill it at a random moment; the line is up, down or comes back meanwhile."""
    with running_daemon(folder, settings=device_settings(line.url)) as daemon:
        stop = threading.Event()
        askers = [threading.Thread(target=load, args=(daemon, seen, numbers, stop)) for _ in range(ASKERS)]
        if moments.random() < 0.5:
            line.cut()
        for asker in askers:
            asker.start()
        if moments.random() < 0.8:  # else it dies with its first questions
            heard = sum(seen.decisions.values())
            warm = time.monotonic() + FIRST_ANSWER_S
            while sum(seen.decisions.values()) <= heard + 1 and time.monotonic() < warm:
                stop.wait(0.01)
        ends = time.monotonic() + moments.uniform(0.0, 1.5)
        if moments.random() < 0.5:
            stop.wait(moments.uniform(0.0, 0.5))
            line.mend()
        stop.wait(max(0.0, ends - time.monotonic()))
        daemon.process.kill()
        daemon.process.wait()
        stop.set()
        for asker in askers:
            asker.join(30)


def settle(folder: Path, line: Line, seen: Seen) -> None:
    """With the line mended every promise is kept: read all answers, twice."""
    line.mend()
    with running_daemon(folder, settings=device_settings(line.url)) as daemon, daemon.client() as client:
        deadline = time.monotonic() + SETTLE_S
        while seen.unanswered and time.monotonic() < deadline:
            for id in sorted(seen.unanswered):
                event = client.get(f"/v1/events/{id}", params={"wait": 2}).json()
                if not seen.read(event) and event.get("state") == "handed_off":
                    break
        for id in sorted(seen.acknowledged):
            seen.read(client.get(f"/v1/events/{id}").json())


@pytest.mark.timeout(300)
def test_nothing_acknowledged_is_lost_and_nothing_answered_twice(tmp_path: Path, tiny_gguf: Path) -> None:
    seen, numbers, moments = Seen(), itertools.count(1), random.Random(8)
    with cloud(tmp_path / "cloud", tiny_gguf) as far, Line(f"{far.url}/v1") as line:
        for _ in range(2):
            kill_one(tmp_path / "device", line, seen, numbers, moments)
        settle(tmp_path / "device", line, seen)
    assert seen.acknowledged, "the device answered nobody before it was killed"
    assert seen.unanswered == set()
    assert seen.twice == set()
