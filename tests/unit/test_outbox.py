"""The outbox on a real file: what is accepted, in which order it goes, who answers first, what happens when full."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from agent.config import Escalation
from agent.errors import NotFound, StorageFailed, StorageFull
from agent.escalation.cases import Notices
from agent.escalation.outbox import KEEP_S, Outbox
from agent.escalation.request import build, finder
from agent.escalation.store import Store
from agent.messages import Inquiry, Quote

HOUR = 3600.0


@dataclass
class Clock:
    now: float = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Box:
    """An open outbox with its clock; ``ask`` puts a question into it."""

    outbox: Outbox
    store: Store
    clock: Clock = field(default_factory=Clock)

    async def ask(
        self, event_id: str, text: str = "How deep is the lake?", *, priority: int = 0, **fields: object
    ) -> None:
        inquiry = Inquiry(event_id, text, **fields)  # type: ignore[arg-type]
        settings = Escalation()
        request, restoration = build(inquiry, settings, finder(settings), expires_at=self.clock() + 24 * HOUR)
        await self.outbox.put(inquiry, request, restoration.dump(), personal=False, priority=priority)

    async def due(self, limit: int = 10) -> list[str]:
        return [row.request.event_id for row in await self.outbox.due(limit)]


@asynccontextmanager
async def opened(
    path: Path, clock: Clock | None = None, *, limit: int = 1 << 20, **options: object
) -> AsyncIterator[Box]:
    clock = clock or Clock()
    async with Store(path) as store:
        yield Box(Outbox(store, limit_bytes=limit, person_s=72 * HOUR, clock=clock, **options), store, clock)  # type: ignore[arg-type]


async def test_a_question_is_there_after_a_restart_and_due_at_once(tmp_path: Path) -> None:
    path, clock = tmp_path / "outbox.db", Clock()
    async with opened(path, clock) as box:
        await box.ask("evt-1", session="s", passages=(Quote("d", "t", "h", "It is deep.", 1.0),))
        await box.ask("evt-1", "another text")
        [row] = await box.outbox.due(10)
        assert row.session == "s"
        assert "How deep is the lake?" in row.request.messages[-1].content
    async with opened(path, clock) as box:
        assert await box.due() == ["evt-1"]
        case = await box.outbox.get("evt-1")
        assert (case.state, case.question, case.passages) == ("waiting", "How deep is the lake?", ("It is deep.",))
        assert [r.request for r in await box.outbox.due(10)] == [row.request]


async def test_priority_goes_first_then_who_waits_longest(tmp_path: Path) -> None:
    async with opened(tmp_path / "outbox.db") as box:
        for name, priority in (("an audit", 1), ("first", 0), ("and second", 0), ("third", 0)):
            await box.ask(name, priority=priority)
            box.clock.now += 1
        assert await box.due() == ["first", "and second", "third", "an audit"]
        await box.outbox.defer("first", 60.0, "busy")
        assert await box.due() == ["and second", "third", "an audit"]
        assert [row.request.event_id for row in await box.outbox.due(1, {"and second"})] == ["third"]
        await box.outbox.hasten()
        assert await box.due(2) == ["first", "and second"]
        box.clock.now -= 3650 * 24 * HOUR  # a clock that was ten years ahead is set right
        assert await box.due() == []
        await box.outbox.hasten()
        assert len(await box.due()) == 4


async def test_the_first_answer_counts_and_the_second_is_dropped(tmp_path: Path) -> None:
    async with opened(tmp_path / "outbox.db") as box:
        await box.ask("evt-1")
        assert await box.outbox.settle("evt-1", "9 m", "cloud", "cloud")
        assert not await box.outbox.settle("evt-1", "10 m", "person", "operator")
        case = await box.outbox.get("evt-1")
        assert (case.state, case.answer, case.answer_kind, case.final) == ("answered", "9 m", "cloud", True)
        assert await box.due() == []
        assert not await box.outbox.settle("evt-unknown", "x", "cloud", "cloud")
        [left] = await box.store.run(lambda db: db.execute("SELECT request, restore FROM inquiry").fetchall())
        assert left == (None, None)


async def test_who_watches_is_told_at_once(tmp_path: Path) -> None:
    async with opened(tmp_path / "outbox.db") as box:
        await box.ask("evt-1")
        watching = asyncio.create_task(box.outbox.watch("evt-1", 30.0))
        await asyncio.sleep(0)
        await box.outbox.refuse("evt-1", "cloud_refused")
        assert (await watching).state == "handed_off"
        assert (await box.outbox.watch("evt-1", 30.0, seen="waiting")).state == "handed_off"
        assert (await box.outbox.watch("evt-1", 0.01)).answer is None
        watching = asyncio.create_task(box.outbox.watch("evt-1", 30.0))
        await asyncio.sleep(0)
        await box.outbox.settle("evt-1", "9 m", "person", "operator")
        assert (await watching).answer == "9 m"
        assert (await box.outbox.watch("evt-1", 30.0)).answer == "9 m"
        with pytest.raises(NotFound, match="evt-none"):
            await box.outbox.watch("evt-none", 30.0)


async def test_what_waits_too_long_goes_to_a_person_and_then_ends(tmp_path: Path) -> None:
    async with opened(tmp_path / "outbox.db", notices=Notices(handoff=("webhook",), events=("mqtt",))) as box:
        await box.ask("evt-1")
        box.clock.now += 25 * HOUR
        assert await box.due() == []
        assert await box.outbox.expire() == 1
        case = await box.outbox.get("evt-1")
        assert (case.state, case.reason, case.question) == ("handed_off", "no_line", "How deep is the lake?")
        assert [case.event_id for case in await box.outbox.queue()] == ["evt-1"]
        notices = "SELECT event_id, topic, channel FROM notice"
        assert await box.store.run(lambda db: db.execute(notices).fetchall()) == [("evt-1", "handoff", "webhook")]
        box.clock.now += 73 * HOUR
        assert await box.outbox.expire() == 1
        case = await box.outbox.get("evt-1")
        assert (case.state, case.reason, case.question) == ("expired", "nobody_answered", "")
        assert await box.store.run(lambda db: db.execute(notices).fetchall()) == [("evt-1", "events", "mqtt")]
        box.clock.now += KEEP_S + 1
        await box.outbox.expire()
        with pytest.raises(NotFound):
            await box.outbox.get("evt-1")


async def test_a_person_is_asked_directly_and_can_decline(tmp_path: Path) -> None:
    async with opened(tmp_path / "outbox.db") as box:
        await box.outbox.hand_over(Inquiry("evt-1", "Where is my umbrella?"), "no_evidence", personal=False)
        await box.outbox.hand_over(Inquiry("evt-1", "Where is my umbrella?"), "no_evidence", personal=False)
        [case] = await box.outbox.queue()
        assert (case.question, case.reason) == ("Where is my umbrella?", "no_evidence")
        await box.outbox.dismiss("evt-1")
        assert (await box.outbox.get("evt-1")).reason == "dismissed"
        assert await box.outbox.queue() == ()
        with pytest.raises(NotFound):
            await box.outbox.dismiss("evt-1")
        assert not await box.outbox.settle("evt-1", "late", "cloud", "cloud")


async def test_a_full_outbox_refuses_and_keeps_what_it_took(tmp_path: Path) -> None:
    async with opened(tmp_path / "outbox.db", limit=40_000) as box:
        taken: list[str] = []

        async def fill() -> None:
            for number in range(100):
                await box.ask(f"evt-{number}", "x" * 1000)
                taken.append(f"evt-{number}")

        with pytest.raises(StorageFull, match=r"escalation\.outbox_mb"):
            await fill()
        assert 10 < len(taken) < 40
        assert set(await box.due(100)) == set(taken)
        assert (await box.outbox.status()).bytes <= 40_000
        await box.outbox.settle(taken[0], "y" * 3000, "cloud", "cloud")
        await box.ask("evt-new", "x" * 1000)
        assert set(await box.due(100)) == {*taken[1:], "evt-new"}, "an answer that was kept made room"


async def test_the_queue_for_people_leaves_room_for_the_cloud(tmp_path: Path) -> None:
    async with opened(tmp_path / "outbox.db", limit=40_000) as box:

        async def fill() -> None:
            for number in range(100):
                await box.outbox.hand_over(Inquiry(f"evt-{number}", "x" * 1000), "no_evidence", personal=False)

        with pytest.raises(StorageFull, match="queue for people"):
            await fill()
        status = await box.outbox.status()
        assert 15_000 < status.bytes <= 20_000
        await box.ask("evt-cloud", "x" * 1000)
        box.clock.now += 25 * HOUR
        await box.outbox.expire()
        assert (await box.outbox.get("evt-cloud")).state == "handed_off", (
            "what was accepted is handed over all the same"
        )


async def test_a_persons_data_is_deleted_by_session(tmp_path: Path) -> None:
    async with opened(tmp_path / "outbox.db", notices=Notices(events=("mqtt",))) as box:
        await box.ask("evt-1", "My name is Ada Lovelace", session="a")
        await box.ask("evt-2", session="b")
        await box.outbox.settle("evt-1", "Hello Ada", "cloud", "cloud")
        assert await box.outbox.forget("a") == 1
        assert await box.outbox.forget("a") == 0
        with pytest.raises(NotFound):
            await box.outbox.get("evt-1")
        assert await box.due() == ["evt-2"]
        assert await box.store.run(lambda db: db.execute("SELECT count(*) FROM notice").fetchall()) == [(0,)]
        assert b"Lovelace" not in _bytes(tmp_path)


async def test_a_file_that_is_no_database_is_a_storage_error(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    path.write_bytes(b"not a database, by any means" * 100)
    with pytest.raises(StorageFailed, match=r"outbox\.db"):
        async with Store(path):
            pass


def _bytes(folder: Path) -> bytes:
    """Of the database and its log together."""
    return b"".join(file.read_bytes() for file in folder.iterdir())
