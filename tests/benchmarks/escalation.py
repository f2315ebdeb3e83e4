"""What asking the cloud costs beyond the cloud's own time, and what signals and decision cost of a request.

    python tests/benchmarks/escalation.py https [--pairs 200]
    python tests/benchmarks/escalation.py mqtt [--pairs 200]
    python tests/benchmarks/escalation.py decision [--rounds 5]      # OUTPOST_EMBEDDING_MODEL gives it embeddings

``https``: a second daemon behind TLS (HTTP/2) is the cloud. The same question is asked of the same endpoint directly
(httpx, the same body, the same kind of connection) and through our path, in pairs that take turns; then the same with
the whole escalation: what leaves is built, budgeted, stored in the outbox, recorded in the audit log, sent, settled.
What counts is the median of the pairs' differences.

``mqtt``: the same pairs, ours through mosquitto (TLS, client certificates) and a gateway in a process of its own that
asks the same endpoint; before, the way alone: 1000 requests to a gateway in this process with an upstream that takes no
time.

``decision``: the demo's questions are asked of a daemon whose functions for signals and decision are timed; their
share of the time from question to answer.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import itertools
import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import httpx  # noqa: E402
import trustme  # noqa: E402

from agent import daemon as agent_daemon  # noqa: E402
from agent.config import Config, Endpoint, Escalation, load, with_server  # noqa: E402
from agent.config import Gateway as GatewayConfig  # noqa: E402
from agent.escalation.completions import Dialect, Events, body, chunk  # noqa: E402
from agent.escalation.endpoints import client, targets  # noqa: E402
from agent.escalation.gateway import Gateway, GatewayMetrics  # noqa: E402
from agent.escalation.https import Https  # noqa: E402
from agent.escalation.link import MqttLink  # noqa: E402
from agent.escalation.mqtt import MqttPath  # noqa: E402
from agent.escalation.reach import reach  # noqa: E402
from agent.escalation.request import build, finder  # noqa: E402
from agent.messages import ChatMessage, CloudDelta, CloudReply, CloudRequest, Inquiry  # noqa: E402
from tests.simulators.broker import Authority, running_broker  # noqa: E402
from tests.simulators.daemon import DEMO, TINY, clean_environment, install_tiny, running_daemon  # noqa: E402
from tests.simulators.gateway import running_gateway  # noqa: E402

QUESTION = "My name is Anna Berger and I want to know when the last boat leaves on Sundays."
TOKENS = 16
A, B, C = TypeVar("A"), TypeVar("B"), TypeVar("C")
EMBEDDING = "all-minilm-l6-v2"


@dataclass(frozen=True)
class Paired:
    """Milliseconds of pairs that took turns."""

    direct: list[float]
    ours: list[float]

    def line(self, name: str, asked: float) -> str:
        differences = sorted(ours - direct for ours, direct in zip(self.ours, self.direct, strict=True))
        low, median, high = statistics.quantiles(differences, n=4)
        medians = f"direct {statistics.median(self.direct):.2f} ms, ours {statistics.median(self.ours):.2f} ms"
        spread = f"quartiles {low:+.2f} to {high:+.2f}, {len(differences)} pairs"
        return f"{name}: {medians}, difference {median:+.2f} ms ({spread}; asked <= {asked:g} ms)"


async def paired(
    direct_of: Callable[[], A],
    direct: Callable[[A], Awaitable[None]],
    ours_of: Callable[[], B],
    ours: Callable[[B], Awaitable[None]],
    pairs: int,
) -> Paired:
    """Both in turns, the order alternating, what is asked made before; a few rounds at first do not count."""
    times = Paired([], [])

    async def timed(kept: list[float], given: C, call: Callable[[C], Awaitable[None]]) -> None:
        started = time.perf_counter()
        await call(given)
        kept.append(1000 * (time.perf_counter() - started))

    for turn in range(-5, pairs):
        spans = times if turn >= 0 else Paired([], [])
        if turn % 2:
            await timed(spans.direct, direct_of(), direct)
        await timed(spans.ours, ours_of(), ours)
        if not turn % 2:
            await timed(spans.direct, direct_of(), direct)
    return times


# ---------------------------------------------------------------- https


@contextlib.contextmanager
def cloud(folder: Path) -> Iterator[Endpoint]:
    """A second daemon behind a TLS front, each a process of its own."""
    gguf, maker = folder / "tiny.gguf", ROOT / "tests" / "benchmarks" / "make_random_model.py"
    subprocess.run([sys.executable, str(maker), str(gguf), "--tiny"], check=True, capture_output=True)
    install_tiny(folder / "cloud", gguf)
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(folder / "server.pem")
    with running_daemon(folder / "cloud", settings={"OUTPOST_POOL__KEEP_ALIVE_S": "3600"}) as second:
        command = [sys.executable, "-m", "tests.simulators.front", second.url, str(folder / "server.pem")]
        with subprocess.Popen(command, cwd=ROOT, env=clean_environment(), stdout=subprocess.PIPE, text=True) as front:
            try:
                assert front.stdout is not None
                yield Endpoint(url=front.stdout.readline().strip() + "/v1", model=TINY, ca_file=folder / "ca.pem")
            finally:
                front.terminate()


async def https(folder: Path, endpoint: Endpoint, pairs: int) -> None:
    settings = Escalation(
        enabled=True, endpoints=(endpoint,), paths=("https",), max_tokens=TOKENS, daily_requests=10**6,
        daily_tokens=10**9,
    )  # fmt: skip
    (target,) = targets(settings, {})
    known, numbers = finder(settings), itertools.count()

    def inquiry() -> Inquiry:
        return Inquiry(f"event-{next(numbers)}", QUESTION, session="s")

    def request() -> CloudRequest:
        return build(inquiry(), settings, known, expires_at=time.time() + 600)[0]

    async with client(target, settings) as connection, Https(settings, environ={}) as path:

        async def direct(asked: CloudRequest) -> None:
            await post(connection, target.url, body(asked, TINY, Dialect()))

        async def ours(asked: CloudRequest) -> None:
            await replied(path.ask(asked, deadline_s=60))

        print((await paired(request, direct, request, ours, pairs)).line("path https", 10), flush=True)

        async with reach(Config(escalation=settings), folder) as parts:
            running = asyncio.create_task(parts.run(), name="reach")

            async def escalated(asked: Inquiry) -> None:
                await replied(parts.escalator.ask(asked))

            print((await paired(request, direct, inquiry, escalated, pairs)).line("escalation", 10))
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


# ---------------------------------------------------------------- mqtt


class AtOnce:
    """An upstream that takes no time, so that what is left is the way to it."""

    async def ask(self, request: CloudRequest, *, deadline_s: float) -> AsyncGenerator[CloudDelta | CloudReply, None]:
        yield CloudReply(request.key, "At 17:40.", "https", "here", "none")


async def mqtt_alone(folder: Path, count: int) -> None:
    with running_broker(folder / "alone", Authority.make(folder / "alone-authority")) as broker:
        link = MqttLink(broker.settings("hall/kiosk"), client_id="kiosk", prefix="outpost/hall/kiosk")
        far = MqttLink(broker.settings("gateway"), client_id="gateway", prefix="outpost-gateway/here")
        gateway = Gateway(
            GatewayConfig(requests_per_minute=10**9), far, AtOnce(), name="here", deadline_s=60, max_tokens=TOKENS,
            metrics=GatewayMetrics(),
        )  # fmt: skip
        async with gateway, far, MqttPath(link) as path, link:
            assert await far.wait_online(30), far.problem
            assert await link.wait_online(30), link.problem
            times, cpu = [], time.process_time()
            for _ in range(count):
                asked = CloudRequest(
                    uuid.uuid4().hex, "event", (ChatMessage("user", QUESTION),), TOKENS, time.time() + 600
                )
                started = time.perf_counter()
                await replied(path.ask(asked, deadline_s=60))
                times.append(1000 * (time.perf_counter() - started))
            cpu = 1000 * (time.process_time() - cpu) / count
        low, median, high = statistics.quantiles(times, n=4)
        print(
            f"way alone: best {min(times):.2f} ms, median {median:.2f} ms (quartiles {low:.2f} to {high:.2f}); "
            f"processor time of device and gateway {cpu:.2f} ms a request",
            flush=True,
        )


async def mqtt(folder: Path, endpoint: Endpoint, pairs: int) -> None:
    settings = Escalation(endpoints=(endpoint,), max_tokens=TOKENS)
    (target,) = targets(settings, {})
    upstream = f'[[escalation.endpoints]]\nurl = "{endpoint.url}"\nmodel = "{TINY}"\nca_file = "{endpoint.ca_file}"\n'
    limits = f"requests_per_minute = 1000000\ntokens_per_day = 1000000000\n{upstream}"
    with (
        running_broker(folder / "broker", Authority.make(folder / "authority")) as broker,
        running_gateway(folder, broker, endpoint.url, TINY, name="only", further=limits),
    ):
        link = MqttLink(broker.settings("hall/kiosk"), client_id="outpost-hall-kiosk", prefix="outpost/hall/kiosk")
        async with client(target, settings) as connection, MqttPath(link) as path, link:
            assert await link.wait_online(30), link.problem

            def request() -> CloudRequest:
                messages = (ChatMessage("system", "Answer briefly."), ChatMessage("user", QUESTION))
                return CloudRequest(uuid.uuid4().hex, "event", messages, TOKENS, time.time() + 600)

            async def direct(asked: CloudRequest) -> None:
                await post(connection, target.url, body(asked, TINY, Dialect()))

            async def ours(asked: CloudRequest) -> None:
                await replied(path.ask(asked, deadline_s=60))

            print((await paired(request, direct, request, ours, pairs)).line("path mqtt", 15))


async def post(connection: httpx.AsyncClient, url: str, content: bytes) -> None:
    """The direct call: the same stream, read to its end by the same means."""
    events, pieces = Events(), []
    headers = {"content-type": "application/json", "accept-encoding": "identity"}
    async with connection.stream("POST", f"{url}/chat/completions", content=content, headers=headers) as response:
        assert response.status_code == 200, (await response.aread())[:300]
        async for data in response.aiter_raw():
            pieces += [chunk(event).text for event in events.feed(data)]
    assert "".join(pieces)


async def replied(events: AsyncGenerator[Any, None]) -> None:
    async with aclosing(events) as answering:
        last = [event async for event in answering][-1]
    assert isinstance(last, CloudReply), last


# ---------------------------------------------------------------- signals and decision


def timed_serve(state: Path, port: int, totals: Path) -> None:
    """A daemon whose signals and decision are timed; what they took is written to ``totals`` at its end."""
    from agent import deciding
    from agent.confidence import provisional, signals

    spent, depth = 0.0, 0

    def timed(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapper(*arguments: Any, **named: Any) -> Any:
            nonlocal spent, depth
            depth, started = depth + 1, time.perf_counter()
            try:
                return function(*arguments, **named)
            finally:
                depth -= 1
                if not depth:
                    spent += time.perf_counter() - started

        return wrapper

    for owner, names in (
        (signals, ("intent", "quote", "generated", "agreement")),
        (provisional, ("confidence",)),
        (deciding.Decider, ("decide", "doomed")),
    ):
        for name in names:
            setattr(owner, name, timed(getattr(owner, name)))
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    config = with_server(load(None), host=None, port=port)
    asyncio.run(agent_daemon.serve(config, state))
    totals.write_text(json.dumps({"seconds": spent}), encoding="utf-8")


def decision(folder: Path, rounds: int) -> None:
    questions = [row["text"] for row in tomllib.loads((DEMO / "questions.toml").read_text("utf-8"))["questions"]]
    state, totals = folder / "state", folder / "totals.json"
    state.mkdir()
    if embedding := os.environ.get("OUTPOST_EMBEDDING_MODEL"):
        command = [
            sys.executable,
            "-m",
            "agent",
            "models",
            "pull",
            EMBEDDING,
            "--from",
            embedding,
            "--state",
            str(state),
        ]
        subprocess.run(command, check=True, cwd=ROOT, env=clean_environment(), capture_output=True)
    program = (str(Path(__file__).resolve()), "timed-serve", "--totals", str(totals))
    whole = 0.0
    with running_daemon(state, program=program, settings={"OUTPOST_POOL__KEEP_ALIVE_S": "3600"}) as running:
        running.cli("knowledge", "add", str(DEMO / "documents"))
        running.cli("intents", "train", str(DEMO / "intents.toml"))
        with running.client() as caller:
            for _ in range(rounds):
                for question in questions:
                    asked = {"model": "outpost", "messages": [{"role": "user", "content": question}]}
                    answer = caller.post("/v1/chat/completions", json=asked).raise_for_status().json()
                    whole += answer["outpost"]["timings_ms"]["total"] / 1000
    spent, count = json.loads(totals.read_text("utf-8"))["seconds"], rounds * len(questions)
    print(
        f"signals and decision {1e6 * spent / count:.0f} us of {1000 * whole / count:.1f} ms a question: "
        f"{100 * spent / whole:.2f} % ({count} questions; asked <= 1 %)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("https").add_argument("--pairs", type=int, default=200)
    verbs.add_parser("mqtt").add_argument("--pairs", type=int, default=200)
    verbs.add_parser("decision").add_argument("--rounds", type=int, default=5)
    serving = verbs.add_parser("timed-serve")
    serving.add_argument("--state", type=Path)
    serving.add_argument("--totals", type=Path)
    serving.add_argument("--port", type=int)
    given = parser.parse_args()
    if given.verb == "timed-serve":
        timed_serve(given.state, given.port, given.totals)
        return
    with tempfile.TemporaryDirectory() as name:
        if given.verb == "https":
            with cloud(Path(name)) as endpoint:
                asyncio.run(https(Path(name), endpoint, given.pairs))
        elif given.verb == "mqtt":
            asyncio.run(mqtt_alone(Path(name), 1000))
            with cloud(Path(name)) as endpoint:
                asyncio.run(mqtt(Path(name), endpoint, given.pairs))
        else:
            decision(Path(name), given.rounds)


if __name__ == "__main__":
    main()
