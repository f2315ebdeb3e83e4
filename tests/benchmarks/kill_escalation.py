"""kill -9 of the daemon at many random moments under load, with a line that comes and goes: acknowledged escalations
lost, answers given twice.

    python -m tests.benchmarks.kill_escalation [--rounds 300] [--seed 1]

The cloud is a second daemon that really generates. tests/integration/test_escalation_kills.py does the same twice.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.simulators import daemon as daemons
from tests.simulators.daemon import RunningDaemon, escalating, running_cloud, running_daemon
from tests.simulators.line import Line

ASKERS = 4
FIRST_ANSWER_S = 30.0
EVERY = 10
"""Kills between two reckonings."""


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
    with running_daemon(folder, settings=escalating(line.url)) as daemon:
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


def settle(folder: Path, line: Line, seen: Seen, within_s: float = 90.0) -> None:
    """With the line mended every promise is kept: read all answers, twice."""
    line.mend()
    with running_daemon(folder, settings=escalating(line.url)) as daemon, daemon.client() as client:
        deadline = time.monotonic() + within_s
        while seen.unanswered and time.monotonic() < deadline:
            for id in sorted(seen.unanswered):
                event = client.get(f"/v1/events/{id}", params={"wait": 2}).json()
                if not seen.read(event) and event.get("state") == "handed_off":
                    break
        for id in sorted(seen.acknowledged):
            seen.read(client.get(f"/v1/events/{id}").json())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    moments, numbers = random.Random(given.seed), itertools.count(1)
    daemons.START_S = 600.0  # a busy machine is no fault
    acknowledged = lost = twice = deferred = 0
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        maker = Path(__file__).with_name("make_random_model.py")
        subprocess.run(
            [sys.executable, str(maker), str(folder / "tiny.gguf"), "--tiny"], check=True, capture_output=True
        )
        with running_cloud(folder / "cloud", folder / "tiny.gguf") as far, Line(f"{far.url}/v1") as line:
            done = 0
            while done < given.rounds:
                seen, count = Seen(), min(EVERY, given.rounds - done)
                for _ in range(count):
                    kill_one(folder / "device", line, seen, numbers, moments)
                settle(folder / "device", line, seen, within_s=600.0)
                done += count
                acknowledged += len(seen.acknowledged)
                deferred += seen.decisions["deferred"]
                lost += len(seen.unanswered)
                twice += len(seen.twice)
                print(
                    f"{done} kills in {time.monotonic() - started:.0f} s: {acknowledged} escalations acknowledged"
                    f" ({deferred} of them deferred), {seen.cut} askers cut off lately, {lost} lost, {twice} answered"
                    " twice",
                    flush=True,
                )
    sys.exit(1 if lost or twice else 0)


if __name__ == "__main__":
    main()
