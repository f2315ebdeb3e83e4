"""Kill -9 of the broker and of gateways at random moments under load: nothing acknowledged may get lost, nothing be
answered twice.

    python -m tests.benchmarks.kill_mqtt [--broker 100] [--gateway 100] [--askers 8] [--seed 1] [--minutes M] [--json]

A device asks by MQTT without pause, from several askers at a time, through a real mosquitto (TLS) and two real gateways
in front of a daemon that generates. As the outbox does, an asker sends a question again under the same key when the
path gives up, and is done only with its answer. Meanwhile a victim is killed at a random moment and started again, the
next one as soon as the device has had an answer since. Counted: questions that have no answer within two minutes
(lost), answers that reached an asker beyond the first (twice), and what it cost: requests sent again, second answers
that came by the wire and were dropped, upstream answers beyond one a question.

tests/integration/test_mqtt.py runs a small seeded share.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path

import httpx

from agent.errors import CloudUnavailable
from agent.escalation.link import MqttLink
from agent.escalation.mqtt import MqttPath
from agent.messages import ChatMessage, CloudReply, CloudRequest
from tests.simulators.broker import Authority, Broker, running_broker
from tests.simulators.daemon import ROOT, TINY, install_tiny, running_daemon
from tests.simulators.gateway import RunningGateway, running_gateway

GIVE_UP_S = 120.0
_DEVICE = "hall/kiosk"


@dataclass
class Outcome:
    """The counts; ``slowest_s`` from a question to its answer, ``upstream`` answers that the server made."""

    broker_kills: int = 0
    gateway_kills: int = 0
    asked: int = 0
    answered: int = 0
    lost: int = 0
    twice: int = 0
    resent: int = 0
    dropped: int = 0
    upstream: int = 0
    slowest_s: float = 0.0
    seconds: float = 0.0
    first_problems: list[str] = field(default_factory=list)


class Load:
    """Askers that never pause; `answers` counts what each key got."""

    def __init__(self, path: MqttPath, outcome: Outcome) -> None:
        self._path = path
        self._outcome = outcome
        self.replies: Counter[str] = Counter()
        self.stopping = False

    async def ask_on(self) -> None:
        while not self.stopping:
            await self._ask_one()

    async def _ask_one(self) -> None:
        key, started = uuid.uuid4().hex, time.monotonic()
        question = (ChatMessage("user", f"Where is the lift? {key}"),)
        request = CloudRequest(key, "evt", question, 4, time.time() + 600)
        self._outcome.asked += 1
        while time.monotonic() - started < GIVE_UP_S:
            try:
                async for event in self._path.ask(request, deadline_s=20):
                    self.replies[key] += isinstance(event, CloudReply)
                break
            except CloudUnavailable as error:
                if len(self._outcome.first_problems) < 5:
                    self._outcome.first_problems.append(str(error))
                await asyncio.sleep(0.2)  # as the outbox waits before it sends again
        self._outcome.answered += self.replies[key] >= 1
        self._outcome.lost += self.replies[key] == 0
        self._outcome.twice += self.replies[key] > 1
        self._outcome.slowest_s = max(self._outcome.slowest_s, round(time.monotonic() - started, 2))

    async def wait_for_another(self) -> None:
        """Until one more question is answered."""
        before, deadline = self._outcome.answered, time.monotonic() + GIVE_UP_S
        while self._outcome.answered == before:
            assert time.monotonic() < deadline, "no question is answered any more"
            await asyncio.sleep(0.01)


async def campaign(
    broker: Broker, gateways: list[RunningGateway], upstream_url: str, *, broker_kills: int, gateway_kills: int,
    askers: int, seed: int, minutes: float = 1e9, told: bool = False,
) -> Outcome:  # fmt: skip
    """Kills in random order at random moments, for so many minutes; returns when every question has its answer or is
    given up."""
    chance, outcome, started = random.Random(seed), Outcome(), time.monotonic()
    victims = ["broker"] * broker_kills + ["gateway"] * gateway_kills
    chance.shuffle(victims)
    link = MqttLink(broker.settings(_DEVICE), client_id="outpost-hall-kiosk", prefix=f"outpost/{_DEVICE}")
    before = _completions(upstream_url)
    async with MqttPath(link, silence_s=2.0) as path, link:
        assert await link.wait_online(60), link.problem
        load = Load(path, outcome)
        async with asyncio.TaskGroup() as tasks:
            for number in range(askers):
                tasks.create_task(load.ask_on(), name=f"asker-{number}")
            for victim in victims:
                if time.monotonic() - started > 60 * minutes:
                    break
                await load.wait_for_another()
                await asyncio.sleep(chance.uniform(0.0, 0.4))
                if victim == "broker":
                    await asyncio.to_thread(broker.kill)
                    await asyncio.sleep(chance.uniform(0.0, 0.3))
                    await asyncio.to_thread(broker.start)
                    outcome.broker_kills += 1
                else:
                    at_work = [one for one in gateways if await asyncio.to_thread(one.connected)]
                    gateway = chance.choice(at_work or gateways)
                    await asyncio.to_thread(gateway.kill)
                    gateway.start_again()
                    outcome.gateway_kills += 1
                if told:
                    print(f"{outcome.broker_kills} + {outcome.gateway_kills} kills, {outcome.answered} answered",
                          file=sys.stderr)  # fmt: skip
            load.stopping = True
        outcome.resent, outcome.dropped = path.traffic.resent, path.traffic.dropped
    outcome.upstream = _completions(upstream_url) - before
    outcome.seconds = round(time.monotonic() - started, 1)
    return outcome


def _completions(upstream_url: str) -> int:
    """How many chat completions the server has answered."""
    text = httpx.get(f"{upstream_url}/metrics", trust_env=False, timeout=30).text
    rows = [row for row in text.splitlines() if row.startswith("outpost_http_requests_total{")]
    return sum(int(float(row.split()[-1])) for row in rows if "chat/completions" in row and '"200"' in row)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--broker", type=int, default=100)
    parser.add_argument("--gateway", type=int, default=100)
    parser.add_argument("--askers", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=1e9, help="kill no more after so long")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        gguf = folder / "tiny.gguf"
        make = [sys.executable, str(ROOT / "tests/benchmarks/make_random_model.py"), str(gguf), "--tiny"]
        subprocess.run(make, check=True, capture_output=True)
        install_tiny(folder / "upstream", gguf)
        upstream = stack.enter_context(running_daemon(folder / "upstream"))
        broker = stack.enter_context(running_broker(folder / "broker", Authority.make(folder / "authority")))
        limits = "requests_per_minute = 1000000\ntokens_per_day = 1000000000\n"
        gateways = [
            stack.enter_context(
                running_gateway(folder, broker, f"{upstream.url}/v1", TINY, name=name, further=limits)
            )
            for name in ("north", "south")
        ]  # fmt: skip
        outcome = asyncio.run(
            campaign(broker, gateways, upstream.url, broker_kills=given.broker, gateway_kills=given.gateway,
                     askers=given.askers, seed=given.seed, minutes=given.minutes, told=True)
        )  # fmt: skip
        if given.json:
            print(json.dumps(asdict(outcome)), flush=True)
        else:
            for what, value in asdict(outcome).items():
                print(f"{what:14} {value}", flush=True)
    sys.exit(bool(outcome.lost or outcome.twice))


if __name__ == "__main__":
    main()
