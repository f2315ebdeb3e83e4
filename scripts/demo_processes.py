"""What scripts/demo runs beside itself: processes in sessions of their own, each with a .log and a .pid in .venv/demo,
by which a later run finds and ends it."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NoReturn, TypeVar

import httpx

ROOT = Path(__file__).resolve().parent.parent
STATE = ROOT / ".venv" / "demo"
OUTPOST = [sys.executable, "-m", "agent"]
READY_S = 60.0
STOP_S = 20.0
T = TypeVar("T")
_started: dict[str, subprocess.Popen[bytes]] = {}


def serve(name: str, state: Path, *arguments: str, port: int = 0, settings: Mapping[str, str]) -> str:
    """A daemon that is ready to answer, on this port where it is free; its address."""
    port = port if is_free(port) else 0
    command = [*OUTPOST, "serve", "--state", str(state), "--port", str(port), *arguments]
    state.mkdir(parents=True, exist_ok=True)
    spawn(name, command, settings)

    def address() -> str | None:
        if found := re.search(r"listens on (http://\S+)", log_of(name)):
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(found[1] + "/readyz", trust_env=False).status_code == 200:
                    return found[1]
        return None

    return wait_until(address, name, "is not ready")


def spawn(name: str, command: list[str], settings: Mapping[str, str]) -> None:
    env = {**os.environ, **settings}
    with (STATE / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True, cwd=ROOT, env=env
        )
    _started[name] = process
    (STATE / f"{name}.pid").write_text(str(process.pid), encoding="ascii")


def wait_until(found: Callable[[], T | None], name: str, otherwise: str) -> T:
    """What ``found`` finds, as soon as it is true. Ends the demo where the process ends or it takes too long."""
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        if value := found():
            return value
        if name in _started and _started[name].poll() is not None:
            fail(f"the {name} ended: {log_of(name).strip()[-1000:]}")
        time.sleep(0.05)
    return fail(f"the {name} {otherwise} within {READY_S:.0f} s; its log is {STATE / name}.log")


def log_of(name: str) -> str:
    return (STATE / f"{name}.log").read_text(encoding="utf-8", errors="replace")


def end(name: str) -> bool:
    """SIGTERM, and SIGKILL where that is not enough in time; whether it ran."""
    process = _started.pop(name, None)
    pid = earlier(name) if process is None else process.pid
    (STATE / f"{name}.pid").unlink(missing_ok=True)
    if pid is None:
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + STOP_S
        while time.monotonic() < deadline:
            if process is not None and process.poll() is not None:
                return True
            os.kill(pid, 0)
            time.sleep(0.05)
        os.kill(pid, signal.SIGKILL)
    return True


def earlier(name: str) -> int | None:
    """The process that an earlier run left under that name, where it is still there."""
    with contextlib.suppress(FileNotFoundError, ValueError):
        pid = int((STATE / f"{name}.pid").read_text(encoding="ascii"))
        return pid if str(STATE) in command_line(pid) else None
    return None


def command_line(pid: int) -> str:
    """What runs as ``pid``: from /proc where there is one (a slim system has no ps), empty where nothing does."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    with contextlib.suppress(OSError):
        return subprocess.run(["ps", "-o", "args=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return ""


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def fail(text: str) -> NoReturn:
    say(f"scripts/demo: {text}")
    sys.exit(1)
