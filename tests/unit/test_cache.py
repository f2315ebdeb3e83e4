"""Kept answers on a real file: who is given one, and who must not be."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from agent.errors import NotFound, Unavailable
from agent.escalation.cache import Cache, Likeness
from agent.escalation.outbox import KEEP_S, Outbox
from agent.escalation.store import Store
from agent.messages import ChatMessage, CloudReply, Inquiry, Quote

HOUR = 3600.0
OPEN = Inquiry("evt-1", "When do you open?", passages=(Quote("d", "t", "h", "Open from 9.", 1.0),))
NINE = CloudReply("key-1", "At nine.", "https", "near", "big-model", cost=0.5)


@dataclass
class World:
    """A clock and an embedding model that a test turns: texts by their first letter, at ``angle`` to each other."""

    now: float = 1_800_000_000.0
    angle: float = 0.1
    threshold: float | None = None
    fails: bool = False
    model: str = "model-a"
    seen: list[str] = field(default_factory=list)

    async def embed(self, texts: Sequence[str]) -> NDArray[np.float32] | None:
        if self.fails:
            raise Unavailable("the worker is gone")
        self.seen.append(texts[0])
        turn = self.angle * (ord(texts[0][0]) - ord("A"))
        return np.array([[np.cos(turn), np.sin(turn)]], np.float32)

    @property
    def likeness(self) -> Likeness:
        return Likeness(self.embed, lambda: self.model, lambda: self.threshold)


def everything_in(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in folder.iterdir())


@asynccontextmanager
async def opened(path: Path, world: World, *, keep_s: float = HOUR) -> AsyncIterator[Cache]:
    async with Store(path) as store:
        yield Cache(store, keep_s=keep_s, likeness=world.likeness, clock=lambda: world.now)


async def test_the_same_words_find_their_answer_also_after_a_restart(tmp_path: Path) -> None:
    world = World()
    async with opened(tmp_path / "a.db", world) as cache:
        await cache.keep(OPEN, NINE)
    async with opened(tmp_path / "a.db", world) as cache:
        found = await cache.find(replace(OPEN, event_id="evt-2", text=" when do you OPEN "), "key-2")
        assert found == CloudReply("key-2", "At nine.", "https", "near", "big-model", cached=True)
        world.now += HOUR + 1
        assert await cache.find(OPEN, "key-3") is None


@pytest.mark.parametrize(
    "other",
    [
        replace(OPEN, language="de"),
        replace(OPEN, collection="annex"),
        replace(OPEN, passages=(Quote("d", "t", "h", "Open from 10.", 1.0),)),
        replace(OPEN, passages=()),
        replace(OPEN, history=(ChatMessage("user", "And the museum?"),)),
        replace(OPEN, text="When do you close?"),
    ],
    ids=["language", "collection", "document", "nothing found", "history", "words"],
)
async def test_another_question_finds_nothing(tmp_path: Path, other: Inquiry) -> None:
    async with opened(tmp_path / "a.db", World()) as cache:
        await cache.keep(OPEN, NINE)
        assert await cache.find(OPEN, "k") is not None
        assert await cache.find(other, "k") is None


async def test_likeness_counts_only_above_a_certified_similarity_of_the_same_model(tmp_path: Path) -> None:
    world = World(angle=0.1)
    async with opened(tmp_path / "a.db", world) as cache:
        await cache.keep(replace(OPEN, text="At what time do you open?"), NINE)
        asked = replace(OPEN, event_id="evt-2", text="By when do you open?")
        assert await cache.find(asked, "k") is None, "nothing is certified"
        world.threshold = float(np.cos(0.1)) + 1e-4
        assert await cache.find(asked, "k") is None
        world.threshold = float(np.cos(0.1)) - 1e-4
        assert (found := await cache.find(asked, "k")) is not None
        assert found.text == "At nine."
        world.model = "model-b"
        assert await cache.find(asked, "k") is None
        world.model, world.fails = "model-a", True
        assert await cache.find(asked, "k") is None


async def test_a_persons_question_is_deleted_with_their_session(tmp_path: Path) -> None:
    """Also when the outbox has long forgotten it: an answer is kept for longer than a day."""
    asked = replace(OPEN, session="visitor-1", text="Where are the spare umbrellas?")
    world = World(now=time.time())
    async with Store(tmp_path / "a.db") as store:
        cache = Cache(store, keep_s=7 * 24 * HOUR, clock=lambda: world.now)
        outbox = Outbox(store, limit_bytes=1 << 20, person_s=HOUR, clock=lambda: world.now)
        await outbox.hand_over(asked, "low_confidence", personal=False)
        await outbox.settle(asked.event_id, NINE.text, "cloud", "near")
        await cache.keep(asked, NINE)
        world.now += KEEP_S + 1
        await outbox.expire()
        with pytest.raises(NotFound):
            await outbox.get(asked.event_id)
        assert await cache.find(asked, "key-1") is not None
        await cache.keep(OPEN, NINE)
        assert await outbox.forget("visitor-1") == 1
        assert await outbox.forget("visitor-1") == 0
        assert await cache.find(asked, "key-2") is None
        assert await cache.find(OPEN, "key-3") is not None
        assert b"spare umbrellas" not in await asyncio.to_thread(everything_in, tmp_path)
        await cache.keep(asked, NINE)
        assert await cache.find(asked, "key-4") is None, "an answer that was on its way meanwhile"


async def test_a_wrong_answer_is_given_to_nobody_again(tmp_path: Path) -> None:
    async with opened(tmp_path / "a.db", World()) as cache:
        for judged in ("evt-1", "evt-2"):
            await cache.keep(OPEN, NINE)
            assert await cache.find(replace(OPEN, event_id="evt-2"), "k") is not None
            assert await cache.distrust(judged)
            assert await cache.find(OPEN, "k") is None
        assert not await cache.distrust("evt-2")


async def test_zero_hours_keep_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path / "a.db", World(), keep_s=0.0) as cache:
        await cache.keep(OPEN, NINE)
        assert await cache.find(OPEN, "k") is None
