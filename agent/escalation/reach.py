"""Everything between the assistant and those who may know better, built and opened in order: `reach` is what the daemon
uses, the other modules do not know each other's constructors.

    outbox.db, budget.db, audit.db -> paths (https, mqtt) -> Escalator, Announcer; then `Reach.run` as a task

Nothing is connected without consent: no path is built unless ``escalation.enabled``, no announcement leaves a device
whose policy is local-only.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import TYPE_CHECKING

from agent.config import Config
from agent.escalation.audit import AuditLog
from agent.escalation.budget import Budget
from agent.escalation.cache import Cache, Likeness
from agent.escalation.endpoints import is_configured
from agent.escalation.escalator import Escalator, Path, Recorder
from agent.escalation.handoff import Announcer, notices
from agent.escalation.https import Https
from agent.escalation.outbox import Outbox
from agent.escalation.store import Store
from agent.messages import Note

if TYPE_CHECKING:
    from agent.escalation.link import MqttLink

NEARLY_FULL = 0.9


@dataclass(frozen=True, slots=True)
class Reach:
    """The open parts. ``link`` None: no broker is configured; else the daemon enters it when all that listens on it is
    there."""

    escalator: Escalator
    outbox: Outbox
    announcer: Announcer
    audit: AuditLog
    budget: Budget
    link: MqttLink | None

    def notes(self) -> list[str]:
        """What people should know: nothing in it is secret."""
        found = [f"questions are not announced by {name}: {why}" for name, why in self.announcer.problems.items()]
        outbox = self.escalator.outbox_seen
        if outbox is not None and outbox.bytes > NEARLY_FULL * outbox.limit_bytes:
            share, waiting = f"{100 * outbox.bytes / outbox.limit_bytes:.0f}", str(outbox.waiting)
            text = f"the outbox is {share} % full: {waiting} questions wait for a line"
            found.append(Note(text, "outbox", share=share, waiting=waiting))
        return found

    async def run(self) -> None:
        """Deliver what waits and announce what people should know; runs until it is cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.escalator.deliver(), name="escalation:deliver")
            tasks.create_task(self.announcer.announce(), name="escalation:announce")


@asynccontextmanager
async def reach(config: Config, state: FilePath, likeness: Likeness | None = None) -> AsyncIterator[Reach]:
    """The parts over the files in ``state``; ``likeness`` None: only the same words find a kept answer. Raises
    ConfigError (endpoints, certificates), StorageFailed."""
    consent = config.assistant.policy != "local-only"
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(Store(state / "outbox.db"))
        budget = await stack.enter_async_context(Budget(state / "budget.db", config.escalation))
        audit = await stack.enter_async_context(AuditLog(state / "audit.db"))
        recorder = Recorder(audit)
        link = None
        if config.mqtt.host:
            # Late, for aiomqtt and paho come with it; while the daemon starts nobody waits on the loop.
            from agent.escalation import broker

            link = broker.device_link(config)
        paths: list[Path] = []
        if consent and config.escalation.enabled:
            for name in config.escalation.paths:
                if name == "https" and is_configured(config.escalation):
                    paths.append(await stack.enter_async_context(Https(config.escalation, recorder=recorder)))
                elif name == "mqtt" and link is not None:
                    paths.append(await stack.enter_async_context(broker.recorded_path(link, recorder)))
        outbox = Outbox(
            store,
            limit_bytes=config.escalation.outbox_mb << 20,
            person_s=3600 * config.handoff.keep_hours,
            notices=notices(config.handoff, mqtt=link is not None, outward=consent),
        )
        escalator = Escalator(
            config.escalation,
            paths=paths,
            outbox=outbox,
            budget=budget,
            recorder=recorder,
            cache=Cache(store, keep_s=3600 * config.escalation.cache_hours, likeness=likeness),
            consent=consent,
        )
        announcer = Announcer(config.handoff, config.device, store, outbox, link, outward=consent)
        await stack.enter_async_context(announcer)
        yield Reach(escalator, outbox, announcer, audit, budget, link)
