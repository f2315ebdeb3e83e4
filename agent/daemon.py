"""The daemon: `serve` runs the parts (agent/parts.py) under one TaskGroup and takes them down in order (L4).

    state folder, lock, operator's token -> HTTP on a socket that is bound before anything else is started
    -> the parts -> READY=1 once the pinned models are loaded

SIGTERM and SIGINT stop it: no new requests, the running ones finish within `DRAIN_S`, then workers, databases and the
lock go; a second signal does not wait. The state folder belongs to one daemon at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import logging
import os
import secrets
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import uvicorn

from agent import __version__
from agent.api.app import create_app
from agent.api.guard import Access, allowed_hosts
from agent.api.services import Services
from agent.config import Config
from agent.errors import ConfigError, OutpostError, StorageFailed
from agent.installation import Installation
from agent.parts import Condition, parts

DRAIN_S = 10.0
_HOUSEKEEPING_S = 1.0
_PING_S = 5.0
_SPARE_CONNECTIONS = 64
"""Connections beyond four times the queue: status polls, long conversations of idle pages."""
_WITHOUT_USE = {
    "no_path": "none will: neither an endpoint nor OPENAI_BASE_URL nor a broker is configured.",
    "escalation_disabled": "none will: assistant.policy is local-only.",
}
"""What a consent comes to, by why the cloud may not be asked all the same."""
_log = logging.getLogger("outpost")


async def serve(config: Config, state: Path) -> None:
    """Run until a signal stops it. Raises ConfigError (address, token, state folder), StorageFailed."""
    with _state_lock(state), contextlib.closing(_listen(config)) as listener:
        operator_token = _operator_token(state)
        async with parts(config, state) as (services, condition, installation):
            access = Access(
                operator_token=operator_token,
                user_token=_user_token(config),
                hosts=allowed_hosts(config.server.host, config.server.allowed_hosts),
                max_body_bytes=config.server.max_body_mb << 20,
            )
            server = _Server(
                uvicorn.Config(
                    create_app(services, access),
                    limit_concurrency=4 * config.server.queue + _SPARE_CONNECTIONS,
                    log_config=None,
                    access_log=False,
                    lifespan="off",
                    ws="none",  # there are none; uvicorn would load a library for them where one is installed
                    timeout_graceful_shutdown=int(DRAIN_S),
                    server_header=False,
                    h11_max_incomplete_event_size=64 << 10,
                )
            )
            async with asyncio.TaskGroup() as tasks:
                _on_signals(server, services)
                tasks.create_task(_announce(services, condition, listener), name="daemon:announce")
                keeping = tasks.create_task(_keep_house(services), name="daemon:housekeeping")
                feeding = tasks.create_task(_feed_watchdog(services), name="daemon:watchdog")
                background = _Background(services, condition, installation, config)
                background.start(tasks)
                await server.serve(sockets=[listener])
                _notify("STOPPING")
                services.admission.close()
                condition.ready = False
                for task in (keeping, feeding, *background.tasks):
                    task.cancel()


class _Server(uvicorn.Server):
    """uvicorn without its own signal handlers: the daemon's are installed."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@dataclass(slots=True)
class _Background:
    """Work that goes on behind the first requests: pinned models, intents, embeddings of stored documents."""

    services: Services
    condition: Condition
    installation: Installation
    config: Config
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def start(self, tasks: asyncio.TaskGroup) -> None:
        self.tasks.append(tasks.create_task(self._prepare(), name="daemon:prepare"))
        self.tasks.append(tasks.create_task(self.services.library.keep_embedded(), name="daemon:embed"))
        self.tasks.append(tasks.create_task(self.services.reach.run(), name="daemon:reach"))
        self.tasks.append(tasks.create_task(self.services.audits.run(), name="daemon:audits"))

    async def _prepare(self) -> None:
        for model in self.config.models.pinned:
            await self._attempt(f"model {model}", self.services.pool.load(model))
        self.condition.ready = True
        _notify("READY")
        if self.config.models.intents:
            await self._attempt("intents", self._use_configured_intents(Path(self.config.models.intents)))
        else:
            await self._attempt("intents", self.services.understanding.use_kept())

    async def _use_configured_intents(self, path: Path) -> None:
        try:
            text = await asyncio.to_thread(path.read_text, encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"models.intents = {str(path)!r} cannot be read: {error}", remedy="Name a TOML file."
            ) from error
        await self.services.train_intents(text)

    async def _attempt(self, what: str, work: object) -> None:
        """A part that fails is noted in status; the daemon serves without it."""
        assert asyncio.iscoroutine(work)
        try:
            await work
            self.condition.notes.pop(what, None)
        except OutpostError as error:
            self.condition.notes[what] = f"{what}: {error}"
            _log.warning("%s: %s", what, error)


# ---------------------------------------------------------------- while it runs


async def _announce(services: Services, condition: Condition, listener: socket.socket) -> None:
    host, port = listener.getsockname()[:2]
    address = f"[{host}]" if ":" in host else host
    print(f"Outpost {__version__} listens on http://{address}:{port}", file=sys.stderr, flush=True)
    if services.config.escalation.enabled and (idle := _WITHOUT_USE.get(services.reach.escalator.allowed() or "")):
        print(f"Questions may leave this device, but {idle}", file=sys.stderr, flush=True)


async def _keep_house(services: Services) -> None:
    """End idle conversations: what the last visitor said must not reach the next."""
    while True:
        await asyncio.sleep(_HOUSEKEEPING_S)
        try:
            await services.assistant.expire_sessions()
        except OutpostError as error:  # tried again in a moment; the daemon goes on
            _log.warning("a conversation's cache could not be dropped yet: %s", error)


async def _feed_watchdog(services: Services) -> None:
    """Tell systemd that the event loop and every loaded worker answer, three times a watchdog interval."""
    interval = int(os.environ.get("WATCHDOG_USEC", "0")) / 1e6
    if interval <= 0:
        return
    while True:
        models = [model.model for model in services.pool.status().models if model.state == "ready"]
        answering = [await services.pool.answers(model, timeout_s=min(_PING_S, interval / 4)) for model in models]
        if all(answering):
            _notify("WATCHDOG")
        await asyncio.sleep(interval / 3)


def _on_signals(server: uvicorn.Server, services: Services) -> None:
    def stop() -> None:
        services.admission.close()
        services.reach.outbox.release()
        if server.should_exit:
            server.force_exit = True
        server.should_exit = True

    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop)


def _notify(what: str) -> None:
    """Tell systemd, where it started us."""
    if os.environ.get("NOTIFY_SOCKET"):
        from cysystemd.daemon import Notification, notify

        notify(Notification[what])


# ---------------------------------------------------------------- what it stands on


@contextmanager
def _state_lock(state: Path) -> Iterator[None]:
    """Hold the state folder. Raises ConfigError where another daemon does, or it cannot be written."""
    try:
        state.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = os.open(state / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError(
            f"the state folder {state} cannot be used: {error.strerror}", remedy="Name another one with --state."
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(lock)
        raise ConfigError(
            f"another Outpost runs in the state folder {state}",
            remedy="Stop it (systemctl stop outpost), or name another folder with --state.",
        ) from error
    try:
        yield
    finally:
        os.close(lock)


def _listen(config: Config) -> socket.socket:
    """The bound socket, before anything is loaded. Raises ConfigError for a port that is taken."""
    host, port = config.server.host, config.server.port
    if not config.server.loopback and config.server.token_file is None:
        raise ConfigError(
            f"server.host = {host!r} is reachable from outside, but there is no server.token_file",
            remedy="Name a file with a bearer token, or listen on 127.0.0.1.",
        )
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        # With the protocol named, asyncio sets TCP_NODELAY on what it accepts. Else a reply of two writes waits for the
        # client's delayed acknowledgement, 40 ms on a kept connection.
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(128)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(
                f"port {port} on {host} is taken by another program",
                remedy="Choose another with --port, or stop that program.",
            ) from error
        raise ConfigError(f"cannot listen on {host}:{port}: {error}", remedy="Mend server.host or --port.") from error
    return listener


def _operator_token(state: Path) -> str:
    """The operator's token, made at the first start, readable by the daemon's user only."""
    path = state / "operator-token"
    try:
        with contextlib.suppress(FileNotFoundError):
            if token := path.read_text(encoding="ascii").strip():
                return token
        token = secrets.token_urlsafe(32)
        fresh = path.with_suffix(".new")
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="ascii") as file:
            file.write(token + "\n")
            file.flush()
            os.fsync(file.fileno())
        fresh.rename(path)
    except (OSError, UnicodeDecodeError) as error:
        raise StorageFailed(f"the operator's token {path} cannot be read or written: {error}") from error
    return token


def _user_token(config: Config) -> str | None:
    path = config.server.token_file
    if path is None:
        return None
    try:
        token = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"server.token_file = {str(path)!r} cannot be read: {error}") from error
    if len(token) < 16:
        raise ConfigError(f"the token in {path} has {len(token)} characters", remedy="Use at least 16 random ones.")
    return token
