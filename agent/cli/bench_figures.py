"""What `outpost bench` measures, and how.

What is compared takes turns, round by round, and the median of the rounds' ratios counts: on a device that does other
things meanwhile only ratios of neighbouring moments mean something. The daemon that is measured is the bench's own
(agent/cli/bench_daemon.py), the yardstick a bare llama.cpp loop (agent/cli/bench_raw.py); one of them works at a time.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.cli.bench_daemon import BenchDaemon, running
from agent.cli.bench_raw import Yardstick

STARTS = 5
PREFIXES = 5
SUFFIX_TOKENS = 32
CLIENTS = (4, 8)


@dataclass(frozen=True, slots=True)
class Figure:
    """``ratio`` is value to baseline (a limit is a baseline too); ``rounds`` are those whose median it is."""

    name: str
    value: float
    unit: str
    baseline: float
    against: str
    ratio: float
    wanted: str
    met: bool
    rounds: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """``tokens`` of an answer, ``prefix`` tokens that two requests share, both as the model's context allows."""

    model: str
    tokens: int
    prefix: int
    rounds: int


def measure(raw: Yardstick, state: Path, config: Path, plan: Plan, say: Callable[[str], None]) -> list[Figure]:
    """All figures; ``say`` tells how far it is. Raises any OutpostError of the daemon, the loop and the model."""
    say("starting the daemon ...")
    figures = _starting(state, config, min(STARTS, plan.rounds))
    with running(state, config) as daemon:
        say("looking for prompts with long answers ...")
        prompts = raw.prompts(max(CLIENTS), plan.tokens)
        daemon.complete(plan.model, prompts[0], 2)  # loads the model
        say("decoding ...")
        figures.append(_decode(daemon, raw, prompts[0], plan))
        for clients in CLIENTS:
            say(f"{clients} clients ...")
            figures.append(_together(daemon, prompts[:clients], plan))
        say("reading prefixes ...")
        figures.append(_prefix(daemon, raw, plan))
        figures.append(_overhead(daemon, prompts[0], plan))
    return figures


def _starting(state: Path, config: Path, starts: int) -> list[Figure]:
    """Best of several starts: what else the device did is in the others."""
    ready: list[float] = []
    memory: list[float] = []
    for start in range(starts):
        with running(state, config) as daemon:
            ready.append(daemon.ready_s)
            if start == 0 and (idle := daemon.idle_bytes()) is not None:
                memory.append(idle / 1e6)
    figures = [_limited("ready after start", ready, "s", 1.0)]
    return figures + ([_limited("control process, idle", memory, "MB", 80.0)] if memory else [])


def _decode(daemon: BenchDaemon, raw: Yardstick, prompt: str, plan: Plan) -> Figure:
    ours: list[float] = []
    theirs: list[float] = []
    for turn in range(plan.rounds):
        for daemons in (True, False) if turn % 2 else (False, True):
            if daemons:
                answer = daemon.complete(plan.model, prompt, plan.tokens)
                ours.append((answer.tokens - 1) / answer.decode_s)
            else:
                theirs.append(raw.decode(prompt, plan.tokens).rate)
    return _compared("decode, one client", ours, theirs, "tokens/s", "bare loop", at_least=0.97)


def _together(daemon: BenchDaemon, prompts: list[str], plan: Plan) -> Figure:
    all_: list[float] = []
    single: list[float] = []
    for turn in range(plan.rounds):
        count, seconds = daemon.complete_together(plan.model, [prompts[turn % len(prompts)]], plan.tokens)
        single.append(count / seconds)
        count, seconds = daemon.complete_together(plan.model, prompts, plan.tokens)
        all_.append(count / seconds)
    return _compared(f"{len(prompts)} clients together", all_, single, "tokens/s", "one client", at_least=1.0)


def _prefix(daemon: BenchDaemon, raw: Yardstick, plan: Plan) -> Figure:
    warm: list[float] = []
    cold: list[float] = []
    for turn in range(min(PREFIXES, plan.rounds)):
        prefix = raw.text(plan.prefix, 1000 + turn)
        first, second = (raw.text(SUFFIX_TOKENS, 2000 + 2 * turn + n) for n in (0, 1))
        cold.append(daemon.complete(plan.model, f"{prefix}\n{first}", 2).first_s * 1000)
        warm.append(daemon.complete(plan.model, f"{prefix}\n{second}", 2).first_s * 1000)
    return _compared("first token, warm prefix", warm, cold, "ms", "cold prefix", at_most=0.10)


def _overhead(daemon: BenchDaemon, prompt: str, plan: Plan) -> Figure:
    """What a request takes outside the worker, from the client's connect to its last byte."""
    answers = [daemon.complete(plan.model, prompt, 2) for _ in range(max(plan.rounds, 20))]
    return _limited(
        "request outside the engine", [(a.total_s - a.engine_s) * 1000 for a in answers], "ms", 5.0, best=False
    )


def _compared(
    name: str,
    values: Sequence[float],
    baselines: Sequence[float],
    unit: str,
    against: str,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
) -> Figure:
    rounds = tuple(value / baseline for value, baseline in zip(values, baselines, strict=True))
    ratio = statistics.median(rounds)
    met = ratio >= at_least if at_least is not None else at_most is None or ratio <= at_most
    wanted = f">= {at_least:.2f}" if at_least is not None else f"<= {at_most:.2f}"
    value, baseline = statistics.median(values), statistics.median(baselines)
    return Figure(name, value, unit, baseline, against, ratio, wanted, met, rounds)


def _limited(name: str, values: Sequence[float], unit: str, limit: float, *, best: bool = True) -> Figure:
    value = min(values) if best else statistics.median(values)
    rounds = tuple(value / limit for value in values)
    return Figure(name, value, unit, limit, "limit", value / limit, "<= 1.00", value <= limit, rounds)
