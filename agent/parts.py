"""The daemon's parts, built from the configuration, started, and ended in reverse order (L4): `parts`.

    journal, pool with every installed model, knowledge -> certificates -> what is beyond the device -> audits
    -> assistant -> `Services`, which the API serves -> questions by MQTT

Only this module knows all their constructors; they know each other through Protocols of their own.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from agent import __version__
from agent.api.admission import Admission
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
from agent.errors import StorageFailed
from agent.escalation.cache import Likeness
from agent.escalation.reach import reach
from agent.escalation.request import bare, finder
from agent.installation import Installation
from agent.knowledge.intents import training_texts
from agent.library import Library
from agent.messages import InstalledModel
from agent.paths import shipped
from agent.sameness import Sameness
from agent.telemetry.journal import Journal
from agent.telemetry.labels import Labels
from agent.telemetry.metrics import Metrics, State
from agent.understanding import WORKER, Understanding


@dataclass(slots=True)
class Condition:
    """What changes while the daemon runs, besides what the parts know themselves."""

    ready: bool = False
    notes: dict[str, str] = field(default_factory=dict)


@asynccontextmanager
async def parts(config: Config, state: Path) -> AsyncIterator[tuple[Services, Condition, Installation]]:
    """See the module. Raises ConfigError, StorageFailed."""
    installation = await asyncio.to_thread(Installation.open, state)
    condition = Condition()
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
        finding = finder(config.escalation)
        sameness = Sameness(library, lambda text: bare(text, finding))

        def certified_similarity() -> float | None:
            try:
                certificate = certificates.current("cache").certificate
            except StorageFailed:  # what it depends on cannot be read, so nobody knows that it holds
                return None
            return certificate.least("cosine") if certificate is not None else None

        likeness = Likeness(sameness.embed, library.embedding_id, certified_similarity)
        beyond = await stack.enter_async_context(reach(config, state, likeness))
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

        calibrating = Calibrating(
            assistant,
            library,
            understanding,
            certificates,
            config.risk,
            dependencies,
            min_confidence=config.assistant.min_confidence,
            by_keywords=not config.models.embedding,
        )
        await calibrating.sweep()
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
            calibrating=calibrating,
            sameness=sameness,
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
            from agent.api import by_mqtt  # late, as in agent/escalation/reach.py
            from agent.escalation.mqtt import MqttAsk

            asked = MqttAsk(
                beyond.link, lambda question: by_mqtt.respond(question, services), limit=config.server.queue
            )
            await stack.enter_async_context(asked)
            await stack.enter_async_context(beyond.link)
        yield services, condition, installation


async def _own_memory() -> int:
    own = os.getpid()
    return (await asyncio.to_thread(measure_pss, [own])).get(own, 0)


def _unit(name: str) -> str:
    """A field's name as metrics spell it: units in full."""
    return f"{name[:-2]}_seconds" if name.endswith("_s") else name


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
            **({} if outbox is None else {f"outbox_{_unit(name)}": value for name, value in asdict(outbox).items()}),
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
