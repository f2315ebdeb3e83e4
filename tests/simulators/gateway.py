"""A real gateway in a process of its own, started, killed and stopped by tests."""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.simulators.broker import Broker, free_port
from tests.simulators.daemon import ROOT, clean_environment
from tests.simulators.waiting import until

START_S = 60.0


@dataclass
class RunningGateway:
    name: str
    command: list[str]
    environment: dict[str, str]
    metrics_url: str
    log: Path
    process: subprocess.Popen[bytes]

    def metric(self, name: str, **labels: str) -> float:
        """A value of /metrics, 0 where it is not there yet."""
        wanted = "{" + ",".join(f'{key}="{value}"' for key, value in labels.items()) + "}" if labels else ""
        text = httpx.get(self.metrics_url, trust_env=False, timeout=10).text
        found = re.search(rf"^outpost_gateway_{name}{re.escape(wanted)} (\S+)$", text, re.MULTILINE)
        return float(found[1]) if found else 0.0

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def start_again(self) -> None:
        with self.log.open("ab") as stream:
            self.process = subprocess.Popen(self.command, env=self.environment, cwd=ROOT, stderr=stream)

    def connected(self) -> bool:
        """Whether it says that it has a broker."""
        try:
            return self.metric("connected") == 1
        except httpx.TransportError:
            return False

    def wait_connected(self) -> None:
        def connected() -> bool:
            assert self.process.poll() is None, self.log.read_text(errors="replace")[-3000:]
            return self.connected()

        until(connected, lambda: f"{self.name} is connected: {self.log.read_text(errors='replace')[-3000:]}", START_S)


@contextlib.contextmanager
def running_gateway(
    folder: Path, broker: Broker, upstream: str, model: str, *, name: str, further: str = "", wait: bool = True
) -> Iterator[RunningGateway]:
    """``outpost gateway`` against a broker and an OpenAI-compatible server; ``further`` are lines of its [gateway]."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    config = folder / f"{name}.toml"
    config.write_text(
        broker.toml("gateway") + f'[gateway]\nname = "{name}"\nmetrics_port = {port}\n{further}', encoding="utf-8"
    )
    command = [sys.executable, "-m", "agent", "gateway", "--config", str(config)]
    environment = clean_environment() | {
        "PYTHONFAULTHANDLER": "1",
        "OPENAI_BASE_URL": upstream,
        "OPENAI_MODEL": model,
        "OPENAI_API_KEY": "unused",
    }
    log = folder / f"{name}.log"
    with log.open("ab") as stream:
        process = subprocess.Popen(command, env=environment, cwd=ROOT, stderr=stream)
    running = RunningGateway(name, command, environment, f"http://127.0.0.1:{port}/metrics", log, process)
    try:
        if wait:
            running.wait_connected()
        yield running
    finally:
        if running.process.poll() is None:
            running.process.send_signal(signal.SIGCONT)
            running.process.send_signal(signal.SIGTERM)
            try:
                running.process.wait(30)
            except subprocess.TimeoutExpired:
                running.process.send_signal(signal.SIGABRT)  # writes where it hangs
                running.process.wait()
                raise AssertionError(f"the gateway did not stop: {log.read_text(errors='replace')[-2000:]}") from None
