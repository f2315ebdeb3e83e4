"""Speed of the text engine against the bare native loop, in one process, rounds interleaved.

    python tests/benchmarks/make_random_model.py /tmp/random.gguf
    python tests/benchmarks/text_engine.py /tmp/random.gguf --threads 2

Prints one line a figure. What is compared takes turns at every step and medians are taken, because on a busy machine
only ratios mean something.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from agent.engines.llama import Context, Model  # noqa: E402
from agent.engines.text import TextEngine  # noqa: E402
from tests.simulators.text import Driver, load  # noqa: E402

TOKENS = 32
Clock = Callable[[], float]


class Bare:
    """What a minimal program does: one token a batch, decode, read the row, take the largest."""

    def __init__(self, path: Path, threads: int, *, extra_buffers: bool) -> None:
        self._model = Model(path, extra_buffers=extra_buffers)
        self._context = Context(self._model, cells=512, sequences=1, batch=64, threads=threads)
        self.restart()

    def restart(self) -> None:
        self._context.clear()
        place = self._context.add_run(np.arange(16, dtype=np.int32), 0, 0, want_last=True)
        self._context.decode()
        self._token = int(self._context.logits(place).argmax())
        self._position = 16

    def step(self) -> None:
        place = self._context.add(self._token, self._position, 0)
        self._context.decode()
        self._token = int(self._context.logits(place).argmax())
        self._position += 1


class Clients:
    """An engine that answers some clients at once; `step` gives each of them one token."""

    def __init__(self, engine: TextEngine, count: int) -> None:
        self._driver = Driver(engine)
        self._count = count
        self._ids: list[int] = []

    def restart(self) -> None:
        driver = self._driver
        driver.call("forget")
        self._ids = [driver.prompt(f"{n} where is the museum", max_tokens=TOKENS + 60) for n in range(self._count)]
        driver.until(lambda: all(driver.results[id].deltas for id in self._ids))

    def step(self) -> None:
        self._driver.step()

    def stop(self) -> None:
        assert not any(self._driver.results[id].lasts for id in self._ids), "an answer ended while it was measured"
        for id in self._ids:
            self._driver.engine.cancel(id)


def interleaved(left: Bare | Clients, right: Clients, rounds: int, clock: Clock) -> tuple[float, float]:
    """Median seconds of a step of each, taking turns at every step, so that both meet the same interruptions."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for one in (left, right):
            one.restart()
        for _ in range(TOKENS):
            for one, seconds in zip((left, right), times, strict=True):
                started = clock()
                one.step()
                seconds.append(clock() - started)
        for one in (left, right):
            if isinstance(one, Clients):
                one.stop()
    return statistics.median(times[0]), statistics.median(times[1])


@contextlib.contextmanager
def real_time() -> Iterator[None]:
    """Let no ordinary process interrupt this one's threads: a busy machine measures like a quiet one."""
    threads = [int(name) for name in os.listdir("/proc/self/task")]
    for thread in threads:
        os.sched_setscheduler(thread, os.SCHED_FIFO, os.sched_param(5))
    try:
        yield
    finally:
        for thread in threads:
            os.sched_setscheduler(thread, os.SCHED_OTHER, os.sched_param(0))


def first_token_seconds(driver: Driver, prefix: str, suffix: str) -> tuple[float, int, int]:
    id = driver.prompt(prefix + suffix, max_tokens=1)
    started = time.perf_counter()
    driver.finish()
    end = driver.results[id].end
    assert end is not None
    return time.perf_counter() - started, end["prompt_tokens"], end["cached_tokens"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--prefix-rounds", type=int, default=3)
    parser.add_argument("--cpu", action="store_true", help="count CPU time (busy machine, --threads 1)")
    parser.add_argument("--real-time", action="store_true", help="hold the cores while measuring (Linux, root)")
    parser.add_argument("--no-extra-buffers", action="store_true")
    arguments = parser.parse_args()
    clock: Clock = time.process_time if arguments.cpu else time.perf_counter
    alone = real_time if arguments.real_time else contextlib.nullcontext
    options = {"threads": arguments.threads, "context": 2560, "kv_tokens": 8192, "sequences": 8, "batch": 256}
    options["extra_buffers"] = not arguments.no_extra_buffers
    engine, other = load(arguments.model, **options), load(arguments.model, **options)
    bare = Bare(arguments.model, arguments.threads, extra_buffers=not arguments.no_extra_buffers)
    with alone():
        bare_s, engine_s = interleaved(bare, Clients(engine, 1), arguments.rounds, clock)
    print(f"decode: bare loop {bare_s * 1e3:.2f} ms a token, engine {engine_s * 1e3:.2f} ms")
    print(f"decode, engine / bare loop: {bare_s / engine_s:.3f}  asked: >= 0.97", flush=True)
    for clients in (4, 8):
        with alone():
            single_s, several_s = interleaved(Clients(other, 1), Clients(engine, clients), arguments.rounds, clock)
        print(f"{clients} clients, aggregate / single: {clients * single_s / several_s:.3f}  asked: >= 1", flush=True)
    driver = Driver(engine)
    ratios = []
    for _ in range(arguments.prefix_rounds):
        driver.call("forget")
        with alone():
            cold, count, cached = first_token_seconds(driver, "the " * 2000, " ticket" * 32)
            warm, _, warm_cached = first_token_seconds(driver, "the " * 2000, " guide" * 32)
        print(f"  {count} tokens: cold {cold:.2f} s ({cached} cached), warm {warm:.3f} s ({warm_cached} cached)")
        ratios.append(warm / cold)
    if ratios:
        print(f"first token, warm / cold prefix: {statistics.median(ratios):.3f}  asked: <= 0.10")


if __name__ == "__main__":
    main()
