"""What systemd sees: READY=1 when it is, WATCHDOG=1 while the event loop and the workers answer, STOPPING=1."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.simulators.daemon import TINY, install_tiny, running_daemon


class Manager:
    """The end of NOTIFY_SOCKET that systemd holds."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))

    def next(self, seconds: float) -> str | None:
        """The next message; None when none comes in time."""
        self._socket.settimeout(seconds)
        try:
            return self._socket.recv(4096).decode()
        except TimeoutError:
            return None

    def expect(self, wanted: str, seconds: float = 20) -> None:
        deadline = time.monotonic() + seconds
        while (message := self.next(max(0.01, deadline - time.monotonic()))) is not None:
            if wanted in message:
                return
        raise AssertionError(f"{wanted} did not come within {seconds} s")

    def drain(self) -> None:
        while self.next(0.01) is not None:
            pass

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    made = Manager(tmp_path / "notify")
    yield made
    made.close()


def test_ready_watchdog_and_stopping(manager: Manager, tmp_path: Path, tiny_gguf: Path) -> None:
    state = tmp_path / "state"
    install_tiny(state, tiny_gguf)
    settings = {
        "NOTIFY_SOCKET": str(manager.path),
        "WATCHDOG_USEC": "3000000",
        "OUTPOST_MODELS__TEXT": TINY,
        "OUTPOST_MODELS__PINNED": f'["{TINY}"]',
    }
    with running_daemon(state, settings=settings) as daemon:
        manager.expect("READY=1")
        pinned = next(m for m in daemon.status()["models"] if m["name"] == TINY)
        assert pinned["state"] == "ready", "ready means that the pinned models are loaded"
        manager.expect("WATCHDOG=1")

        worker = daemon.worker_pid(TINY)
        os.kill(worker, signal.SIGSTOP)
        try:
            manager.drain()
            starved = time.monotonic() + 4
            while time.monotonic() < starved:
                message = manager.next(starved - time.monotonic())
                if message is None:
                    break
                last = time.monotonic()
                assert last < starved - 2, "the watchdog is fed although a worker does not answer"
        finally:
            os.kill(worker, signal.SIGCONT)
        manager.expect("WATCHDOG=1")
        with daemon.client() as client:
            assert (
                client.post("/v1/completions", json={"model": TINY, "prompt": "a", "max_tokens": 2}).status_code == 200
            )
        daemon.process.send_signal(signal.SIGTERM)
        manager.expect("STOPPING=1")
        assert daemon.process.wait(20) == 0
