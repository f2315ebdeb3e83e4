"""The daemon: `serve` puts the parts together, runs them under one TaskGroup and takes them down in order (L4).

    state folder, lock, operator's token -> journal, knowledge -> pool with every installed model -> assistant
    -> HTTP on a socket that is bound before anything else is started -> READY=1 once the pinned models are loaded

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
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import uvicorn

from agent import __version__
from agent.api import by_mqtt
from agent.api.admission import Admission
from agent.api.app import create_app
from agent.api.guard import Access, allowed_hosts
from agent.api.services import Services
from agent.assistant import Assistant
from agent.audits import Audits
from agent.calibrating import Calibrating
from agent.confidence.agreement import FALSE_ALARM, MISS, alike
from agent.confidence.certificate import Certificates
from agent.confidence.live import Judge
from agent.config import Config
from agent.dependencies import Dependencies
from agent.engines.clients import TextClient, TrainingReport
from agent.engines.pool import Pool
from agent.engines.process import measure_pss
from agent.errors import ConfigError, OutpostError, StorageFailed
from agent.escalation.mqtt import MqttAsk
from agent.escalation.reach import reach
from agent.installation import Installation
from agent.knowledge.intents import training_texts
from agent.library import Library
from agent.messages import InstalledModel
from agent.paths import shipped
from agent.telemetry.journal import Journal
from agent.telemetry.labels import Labels
from agent.telemetry.metrics import Metrics, State
from agent.understanding import WORKER, Understanding

DRAIN_S = 10.0
_HOUSEKEEPING_S = 1.0
_PING_S = 5.0
_SPARE_CONNECTIONS = 64
"""Connections beyond four times the queue: status polls, long conversations of idle pages."""
_log = logging.getLogger("outpost")


@dataclass(slots=True)
class _Condition:
    """What changes while the daemon runs, besides what the parts know themselves."""

    ready: bool = False
    notes: dict[str, str] = field(default_factory=dict)


async def serve(config: Config, state: Path) -> None:
    """Run until a signal stops it. Raises ConfigError (address, token, state folder), StorageFailed."""
    with _state_lock(state), contextlib.closing(_listen(config)) as listener:
        operator_token = _operator_token(state)
        async with _parts(config, state) as (services, condition, background):
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
    condition: _Condition
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


@asynccontextmanager
async def _parts(config: Config, state: Path) -> AsyncIterator[tuple[Services, _Condition, _Background]]:
    """Every part, started; ended in reverse order."""
    installation = await asyncio.to_thread(Installation.open, state)
    condition = _Condition()
    metrics = Metrics()
    metrics.info.labels(__version__).set(1)
    async with AsyncExitStack() as stack:
        journal = await stack.enter_async_context(Journal(state / "journal.db"))
        pool = await stack.enter_async_context(Pool(config.pool))
        specs = installation.specs(config)
        for spec in specs.values():
            pool.register(spec)
        library = await stack.enter_async_context(
            Library(
                state / "knowledge.db",
                pool,
                installation.embedding(config.models.embedding),
                installation.ranker(config.models.ranker),
            )
        )
        understanding = Understanding(
            pool, library.embed, state / "intents", library.embedding_id, pinned=WORKER in config.models.pinned
        )
        text = TextClient(pool, config.models.text) if config.models.text else None
        beyond = await stack.enter_async_context(reach(config, state))
        dependencies = Dependencies(
            pack=lambda: understanding.pack,
            min_confidence=config.assistant.min_confidence,
            embedding=lambda: installation.embedding(config.models.embedding),
            ranker=lambda: installation.ranker(config.models.ranker),
            text=lambda: installation.slm(config.models.text),
        )
        certificates = Certificates(
            state / "certificates", shipped("models", "reference", "certificates"), config.risk, dependencies
        )
        await asyncio.to_thread(certificates.refresh)
        admission = Admission(config.server.queue)
        labels = await stack.enter_async_context(Labels(state / "labels.db", keep=config.risk.keep_examples))
        audits = Audits(
            config.risk,
            labels=labels,
            certificates=certificates,
            cloud=beyond.escalator if config.escalation.enabled else None,
            agree=alike,
            judges={
                "cloud": Judge(config.risk.cloud_error, FALSE_ALARM, MISS),
                "visitor": Judge(config.risk.feedback_error),
            },
            journal=journal,
            metrics=metrics,
            busy=lambda: admission.active > 0,
            later=beyond.outbox,
        )
        await audits.open()
        assistant = Assistant(
            config.assistant,
            retriever=library,
            text=text,
            understanding=understanding,
            journal=journal,
            metrics=metrics,
            deadline_s=config.server.request_timeout_s,
            overrides=config.overrides,
            certificates=certificates,
            escalator=beyond.escalator,
            people=beyond.escalator,
            witness=audits,
        )

        async def train_intents(pack: str) -> TrainingReport:
            report = await understanding.use(pack)
            learnt = understanding.pack
            assert learnt is not None
            return report or TrainingReport(len(learnt.intents), len(training_texts(learnt)), 0.0)

        rescanning = asyncio.Lock()

        async def rescan() -> Sequence[InstalledModel]:
            async with rescanning:
                await asyncio.to_thread(installation.refresh)
                now = installation.specs(config)
                for name in specs.keys() - now.keys():
                    await pool.unregister(name)
                for name, spec in now.items():
                    if specs.get(name) != spec:
                        await pool.replace(spec)
                specs.clear()
                specs.update(now)
                await library.use_embedding(installation.embedding(config.models.embedding))
                library.use_ranker(installation.ranker(config.models.ranker))
                return installation.models()

        def notes() -> Sequence[str]:
            missing = installation.missing(config)
            fallbacks = [f"{m.model}: {note}" for m in pool.status().models for note in m.notes]
            line = [f"MQTT: {beyond.link.problem}"] if beyond.link is not None and beyond.link.problem else []
            watched = [*library.notes(), *installation.notes(), *audits.notes()]
            return [*missing, *condition.notes.values(), *watched, *fallbacks, *line, *beyond.notes()]

        services = Services(
            config=config,
            version=__version__,
            started_at=int(time.time()),
            assistant=assistant,
            library=library,
            understanding=understanding,
            pool=pool,
            journal=journal,
            metrics=metrics,
            certificates=certificates,
            calibrating=Calibrating(
                assistant,
                library,
                understanding,
                certificates,
                config.risk,
                dependencies,
                min_confidence=config.assistant.min_confidence,
            ),
            reach=beyond,
            audits=audits,
            labels=labels,
            admission=admission,
            models=installation.models,
            ready=lambda: condition.ready,
            notes=notes,
            memory_bytes=_own_memory,
            train_intents=train_intents,
            rescan=rescan,
        )
        metrics.observe_state(lambda: _gauges(services))
        if beyond.link is not None:
            asked = MqttAsk(
                beyond.link, lambda question: by_mqtt.respond(question, services), limit=config.server.queue
            )
            await stack.enter_async_context(asked)
            await stack.enter_async_context(beyond.link)
        yield services, condition, _Background(services, condition, installation, config)


# ---------------------------------------------------------------- while it runs


async def _announce(services: Services, condition: _Condition, listener: socket.socket) -> None:
    host, port = listener.getsockname()[:2]
    address = f"[{host}]" if ":" in host else host
    print(f"Outpost {__version__} listens on http://{address}:{port}", file=sys.stderr, flush=True)


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


async def _own_memory() -> int:
    own = os.getpid()
    return (await asyncio.to_thread(measure_pss, [own])).get(own, 0)


def _gauges(services: Services) -> State:
    pool = services.pool.status()
    spent = services.reach.budget.spent()
    outbox = services.reach.escalator.outbox_seen
    return State(
        gauges={
            "queue_active": services.admission.active,
            "queue_limit": services.admission.limit,
            "memory_budget_bytes": pool.budget_bytes,
            "memory_used_bytes": pool.used_bytes,
            "sessions": len(services.assistant.sessions),
            "ready": float(services.ready()),
            "cloud_requests_today": spent.requests,
            "cloud_tokens_today": spent.tokens,
            "cloud_money_today": spent.money,
            "audit_entries": services.reach.audit.length,
            "cloud_online": float(services.reach.escalator.online()),
            **({} if outbox is None else {f"outbox_{name}": value for name, value in asdict(outbox).items()}),
            **({} if services.reach.link is None else {"mqtt_connected": float(services.reach.link.online())}),
        },
        workers={
            model.model: {
                "pss_bytes": float(model.pss_bytes or 0),
                "requests": float(model.requests),
                "ready": float(model.state == "ready"),
            }
            for model in pool.models
        },
        worker_counts={
            model.model: {"loads": float(model.loads), "crashes": float(model.crashes)} for model in pool.models
        },
    )


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
