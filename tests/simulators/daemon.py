"""A real daemon in a process of its own, started and stopped by tests."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.simulators.waiting import until

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "models" / "reference" / "demo"
START_S = 60.0
TINY = "tiny-random"
"""The name under which `install_tiny` installs the random-weight model."""


@dataclass(frozen=True)
class RunningDaemon:
    """A daemon that answers at ``url``; ``process`` may be killed by a test."""

    url: str
    state: Path
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def operator_token(self) -> str:
        return (self.state / "operator-token").read_text(encoding="ascii").strip()

    def client(self, *, operator: bool = False, timeout: float = 60) -> httpx.Client:
        headers = {"authorization": f"Bearer {self.operator_token}"} if operator else {}
        return httpx.Client(base_url=self.url, headers=headers, timeout=timeout, trust_env=False)

    def status(self) -> dict[str, Any]:
        with self.client(operator=True) as client:
            found: dict[str, Any] = client.get("/admin/status").raise_for_status().json()
            return found

    def ask(self, question: str, **options: Any) -> dict[str, Any]:
        """See the function `ask`."""
        with self.client() as client:
            return ask(client, question, **options)

    def worker_pid(self, model: str) -> int:
        """The process id of a loaded model's worker."""
        pid = next(m["pid"] for m in self.status()["models"] if m["name"] == model)
        assert isinstance(pid, int), f"{model} is not loaded"
        return pid

    def cli(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """The `outpost` command against this daemon."""
        env = clean_environment() | {"OUTPOST_URL": self.url, "OUTPOST_STATE": str(self.state)}
        command = [sys.executable, "-m", "agent", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=ROOT, check=False, timeout=300)
        assert not check or done.returncode == 0, done.stderr + done.stdout
        return done

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """The process stands still meanwhile; what is sent to it waits."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)


def ask(client: httpx.Client, question: str, **options: Any) -> dict[str, Any]:
    """The assistant's answer: its words as "text" beside everything of `outpost`; ``options`` are the request's."""
    body = {"model": "outpost", "messages": [{"role": "user", "content": question}], "outpost": options}
    response = client.post("/v1/chat/completions", json=body)
    assert response.status_code == 200, response.text
    reply = response.json()
    return {"text": reply["choices"][0]["message"]["content"], **reply["outpost"]}


def clean_environment() -> dict[str, str]:
    """This environment without anything that configures Outpost."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("OUTPOST_", "OPENAI_"))}


@contextlib.contextmanager
def running_daemon(
    state: Path,
    *,
    settings: Mapping[str, str] | None = None,
    arguments: tuple[str, ...] = (),
    program: tuple[str, ...] = ("-m", "agent", "serve"),
) -> Iterator[RunningDaemon]:
    """Start a daemon on a port of its own; ``settings`` are OUTPOST_SECTION__FIELD variables. Ended with SIGTERM, which
    it must obey within 30 s."""
    state.mkdir(parents=True, exist_ok=True)
    log = state / "daemon.log"
    command = [sys.executable, *program, "--state", str(state), "--port", "0", *arguments]
    env = clean_environment() | dict(settings or {})
    with log.open("ab") as stream:
        process = subprocess.Popen(command, env=env, cwd=ROOT, stdin=subprocess.DEVNULL, stderr=stream)
    try:
        yield RunningDaemon(_wait_until_ready(process, log), state, process, log)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise AssertionError(f"the daemon did not stop: {log.read_text(errors='replace')[-2000:]}") from None


def _wait_until_ready(process: subprocess.Popen[bytes], log: Path) -> str:
    def ready() -> str:
        text = log.read_text(errors="replace")
        assert process.poll() is None, f"the daemon ended with {process.returncode}: {text[-3000:]}"
        if found := re.findall(r"listens on (http://\S+)", text):
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(found[-1] + "/readyz", trust_env=False, timeout=5).status_code == 200:
                    return str(found[-1])
        return ""

    return until(ready, lambda: f"the daemon is ready: {log.read_text(errors='replace')[-3000:]}", START_S)


def install_tiny(state: Path, gguf: Path) -> None:
    """Put the random-weight model where hand-placed models lie."""
    folder = state / "models" / TINY
    folder.mkdir(parents=True)
    data = gguf.read_bytes()
    (folder / "tiny.gguf").write_bytes(data)
    manifest = {
        "name": TINY,
        "kind": "slm",
        "entry": "tiny.gguf",
        "context": 2048,
        "memory_mb": 150,
        "files": [{"path": "tiny.gguf", "sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}],
    }
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")


@contextlib.contextmanager
def running_cloud(folder: Path, gguf: Path) -> Iterator[RunningDaemon]:
    """A daemon for others to ask: random weights, so an answer is nonsense, but it is generated."""
    install_tiny(folder, gguf)
    settings = {"OUTPOST_MODELS__TEXT": "", "OUTPOST_MODELS__PINNED": f'["{TINY}"]', "OUTPOST_SERVER__QUEUE": "200"}
    with running_daemon(folder, settings=settings) as running:
        yield running


def escalating(url: str) -> dict[str, str]:
    """Settings of a daemon without an SLM that asks the cloud at ``url``, as much as it likes."""
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


def uncertified(route: str) -> str:
    """Why a device without the reference models serves nothing certified: what ships for the route is for these."""
    return "certificate_void" if list((DEMO.parent / "certificates").glob(f"{route}-*.json")) else "no_certificate"
