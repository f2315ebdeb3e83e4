"""From a question to the cloud's answer and back, through the outbox: a real HTTP server that fails as told."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import apsw
import pytest

from agent.config import Assistant as AssistantConfig
from agent.config import Config, Endpoint, Escalation, Handoff
from agent.errors import BudgetExhausted, CloudRefused, ConfigError, NotFound, PrivacyFailed, StorageFull
from agent.escalation.cases import Case, set_within
from agent.escalation.reach import Reach, reach
from agent.messages import CloudDelta, CloudReply, Deferred, Inquiry
from tests.simulators.faulty_cloud import (
    ANSWER,
    DONE,
    Fault,
    FaultyCloud,
    closes_at_once,
    closes_mid_chunk,
    declines,
    event,
    hangs_before_headers,
    hangs_mid_stream,
    says,
)

pytestmark = pytest.mark.usefixtures("no_proxies")
NAME = "My name is Ada Lovelace. When does the last boat leave?"


@pytest.fixture
async def cloud() -> AsyncIterator[FaultyCloud]:
    async with FaultyCloud() as cloud:
        yield cloud


def config(url: str, **escalation: object) -> Config:
    settings = {
        "enabled": True,
        "endpoints": (Endpoint(name="near", url=url, model="m", price_in=1.0, price_out=2.0),),
        "total_s": 5.0,
        "attempts": 1,
    }
    return Config(escalation=Escalation(**(settings | escalation)))  # type: ignore[arg-type]


@asynccontextmanager
async def running(settings: Config, state: Path) -> AsyncIterator[Reach]:
    """The parts with their task, as the daemon runs them."""
    async with reach(settings, state) as parts:
        task = asyncio.create_task(parts.run(), name="reach")
        try:
            yield parts
        finally:
            task.cancel()
            await asyncio.wait({task})
            assert task.cancelled(), task.exception()


async def asked(parts: Reach, inquiry: Inquiry) -> list[CloudDelta | CloudReply | Deferred]:
    async with aclosing(parts.escalator.ask(inquiry)) as events:
        return [event async for event in events]


async def answered(parts: Reach, id: str, within_s: float = 20.0) -> Case:
    async with asyncio.timeout(within_s):
        case = await parts.outbox.get(id)
        while case.state != "answered":
            case = await parts.outbox.watch(id, within_s)
    return case


async def test_an_answer_comes_restored_and_is_kept_and_recorded(cloud: FaultyCloud, tmp_path: Path) -> None:
    async with running(config(cloud.url), tmp_path) as parts:
        cloud.faults.append(says(event("Hello [NAME_1], at "), event("17:30.", finish_reason="stop"), DONE))
        *pieces, reply = await asked(parts, Inquiry("evt-1", NAME, session="s"))
        assert isinstance(reply, CloudReply)
        assert reply.text == "Hello Ada Lovelace, at 17:30."
        assert "".join(piece.text for piece in pieces if isinstance(piece, CloudDelta)) == reply.text
        assert "Lovelace" not in str(cloud.asked[0].body)
        case = await parts.outbox.get("evt-1")
        assert (case.state, case.answer, case.answered_by, case.personal) == ("answered", reply.text, "near", True)
        assert parts.budget.spent().requests == 1
        assert await parts.audit.forget("s") == 1, "what left is recorded for the session"


async def test_an_outage_defers_and_the_answer_comes_when_it_is_over(cloud: FaultyCloud, tmp_path: Path) -> None:
    cloud.faults.extend([closes_at_once] * 2)
    async with running(config(cloud.url), tmp_path) as parts:
        [deferred] = await asked(parts, Inquiry("evt-1", NAME))
        assert deferred == Deferred("evt-1", "busy")
        case = await answered(parts, "evt-1")
        assert case.answer == ANSWER
        assert len({asked.headers["idempotency-key"] for asked in cloud.asked}) == 1
        assert len(cloud.asked) == 3


async def test_what_waits_is_sent_after_a_restart(cloud: FaultyCloud, tmp_path: Path) -> None:
    async with reach(config(cloud.url), tmp_path) as parts:  # nothing delivers here
        cloud.faults.append(declines(503, **{"retry-after": "1"}))
        [deferred] = await asked(parts, Inquiry("evt-1", NAME))
        assert isinstance(deferred, Deferred)
        [late] = await asked(parts, Inquiry("evt-2", "And the first?", wait_s=0.0))
        assert isinstance(late, Deferred)
    async with running(config(cloud.url), tmp_path) as parts:
        assert (await answered(parts, "evt-1")).answer == ANSWER
        assert (await answered(parts, "evt-2")).answer == ANSWER
        assert (await parts.outbox.status()).waiting == 0


async def test_the_same_question_is_answered_again_without_asking(cloud: FaultyCloud, tmp_path: Path) -> None:
    question = "When does the last boat leave?"
    async with running(config(cloud.url), tmp_path) as parts:
        await asked(parts, Inquiry("evt-1", question))
        async with asyncio.timeout(10):
            while True:  # it is kept beside the visitor's way, a moment later
                *_, again = await asked(parts, Inquiry("evt-2", question.upper()))
                assert isinstance(again, CloudReply)
                if again.cached:
                    break
        assert (again.text, again.cost) == (ANSWER, 0.0)
        times = len(cloud.asked)
        await asked(parts, Inquiry("evt-3", question, wait_s=0.0))
        assert len(cloud.asked) == times
        await asked(parts, Inquiry("evt-4", NAME))
        await asked(parts, Inquiry("evt-5", NAME))
        assert len(cloud.asked) == times + 2, "a question with a name in it is never kept"


async def test_an_answer_that_is_not_yet_kept_when_its_session_is_forgotten_never_is(
    cloud: FaultyCloud, tmp_path: Path
) -> None:
    """Those that were kept are deleted with the session, the one that came late like the one that came at once."""
    at_once, late, unkept = (f"When does the {which} boat leave?" for which in ("first", "second", "last"))
    async with reach(config(cloud.url), tmp_path) as parts:  # nothing is kept while nothing delivers
        await asked(parts, Inquiry("evt-1", at_once, session="s"))
        await asked(parts, Inquiry("evt-2", late, session="s", wait_s=0.0))
        delivering = asyncio.create_task(parts.run())
        await answered(parts, "evt-2")
        await _kept(parts, late)
        delivering.cancel()
        await asyncio.wait({delivering})
        await asked(parts, Inquiry("evt-3", unkept, session="s"))
        assert await parts.outbox.forget("s") == 3
        delivering = asyncio.create_task(parts.run())
        await asked(parts, Inquiry("evt-4", "Is there a harbour?"))
        await _kept(parts, "Is there a harbour?")
        times = len(cloud.asked)
        for number, question in enumerate((at_once, late, unkept)):
            *_, again = await asked(parts, Inquiry(f"evt-again-{number}", question))
            assert isinstance(again, CloudReply)
            assert not again.cached, question
        assert len(cloud.asked) == times + 3
        delivering.cancel()
        await asyncio.wait({delivering})


async def _kept(parts: Reach, question: str) -> None:
    """Once the answer to it is given again; those that came before it have been seen to, too."""
    async with asyncio.timeout(10):
        while await parts.escalator.preview(Inquiry("evt-look", question)) is not None:
            await set_within(parts.outbox.next_change, 0.02)


async def test_a_visitor_waits_no_longer_than_they_said(cloud: FaultyCloud, tmp_path: Path) -> None:
    cloud.faults.append(hangs_before_headers)
    async with running(config(cloud.url, read_s=0.5), tmp_path) as parts:
        async with asyncio.timeout(4):
            [deferred] = await asked(parts, Inquiry("evt-1", NAME, wait_s=0.3))
        assert deferred == Deferred("evt-1", "busy")
        assert (await answered(parts, "evt-1")).answer == ANSWER


async def test_a_refusal_goes_to_a_person(cloud: FaultyCloud, tmp_path: Path) -> None:
    cloud.faults.append(declines(401, "no such key"))
    async with running(config(cloud.url), tmp_path) as parts:
        with pytest.raises(CloudRefused, match="no such key"):
            await asked(parts, Inquiry("evt-1", NAME))
        await parts.escalator.hand_over(Inquiry("evt-1", NAME), "cloud_refused")
        [case] = await parts.outbox.queue()
        assert (case.state, case.reason, case.question) == ("handed_off", "cloud_refused", NAME)


async def test_an_asker_who_leaves_takes_the_question_back(cloud: FaultyCloud, tmp_path: Path) -> None:
    cloud.faults.append(hangs_before_headers)
    async with running(config(cloud.url, total_s=60.0), tmp_path) as parts:
        asking = asyncio.create_task(asked(parts, Inquiry("evt-1", NAME)))
        await cloud.has_been_asked(1)
        watching = asyncio.create_task(parts.outbox.watch("evt-1", 30.0))
        await asyncio.sleep(0)
        asking.cancel()
        with pytest.raises(NotFound):
            await watching


async def test_nothing_leaves_without_consent(cloud: FaultyCloud, tmp_path: Path) -> None:
    closed = [
        config(cloud.url, enabled=False),
        config(cloud.url).model_copy(update={"assistant": AssistantConfig(policy="local-only")}),
    ]
    for number, settings in enumerate(closed):
        async with running(settings, tmp_path / str(number)) as parts:
            assert parts.escalator.allowed() == "escalation_disabled"
            with pytest.raises(PrivacyFailed):
                await asked(parts, Inquiry("evt-1", NAME))
            assert (await parts.outbox.status()).waiting == 0
    async with reach(config(cloud.url), tmp_path / "waiting") as parts:
        await asked(parts, Inquiry("evt-1", NAME, wait_s=0.0))
    async with running(config(cloud.url, enabled=False), tmp_path / "waiting") as parts:
        await parts.outbox.watch("evt-1", 1.5)
        assert (await parts.outbox.get("evt-1")).state == "waiting", "consent was withdrawn while it waited"
    assert cloud.asked == []


@pytest.mark.parametrize(
    ("webhook", "message"),
    [
        ("http://hooks.example/token", "hooks.example by http.*in the clear"),
        ("ftp://hooks.example/token", "no URL of a web server"),
        ("hooks.example", "no URL of a web server"),
        ("https://hooks.example:x/", "no URL"),
    ],
)
async def test_a_webhook_that_tells_everybody_is_refused_at_the_start(
    tmp_path: Path, webhook: str, message: str
) -> None:
    settings = Config(handoff=Handoff(webhook=webhook))
    with pytest.raises(ConfigError, match=message) as caught:
        async with reach(settings, tmp_path):
            pass
    assert "token" not in str(caught.value)


async def test_the_days_budget_has_an_end(cloud: FaultyCloud, tmp_path: Path) -> None:
    async with running(config(cloud.url, daily_requests=1), tmp_path) as parts:
        await asked(parts, Inquiry("evt-1", NAME))
        assert parts.escalator.allowed() == "budget_exhausted"
        with pytest.raises(BudgetExhausted):
            await asked(parts, Inquiry("evt-2", NAME))


@pytest.mark.parametrize(
    ("fault", "counted"),
    [
        (hangs_before_headers, 1),
        (hangs_mid_stream, 1),
        (closes_at_once, 1),
        (closes_mid_chunk, 1),
        (says(event(finish_reason="stop"), DONE), 1),
        (says(event(finish_reason="length"), DONE), 1),
        (declines(504), 1),
        (declines(503), 0),
        (declines(429), 0),
        (declines(401), 0),
    ],
    ids=["no word", "half", "closed", "torn", "empty", "spent", "504", "503", "429", "401"],
)
async def test_what_was_sent_and_not_refused_counts(
    cloud: FaultyCloud, tmp_path: Path, fault: Fault, counted: int
) -> None:
    cloud.faults.append(fault)
    settings = config(cloud.url, read_s=0.3, total_s=1.0)
    async with reach(settings, tmp_path) as parts:
        with contextlib.suppress(CloudRefused):
            await asked(parts, Inquiry("evt-1", NAME))
        spent = parts.budget.spent()
        assert spent.requests == counted
        assert (spent.tokens > settings.escalation.max_tokens) == bool(counted), (
            "the estimate, for nobody told the usage"
        )
        assert (spent.money > 0) == bool(counted)


async def test_every_try_that_may_be_billed_counts_beside_the_answer(cloud: FaultyCloud, tmp_path: Path) -> None:
    cloud.faults.extend([closes_at_once, declines(503)])
    async with reach(config(cloud.url, attempts=3), tmp_path) as parts:
        *_, reply = await asked(parts, Inquiry("evt-1", NAME))
        assert isinstance(reply, CloudReply)
        assert (reply.text, reply.lost) == (ANSWER, 1)
        assert parts.budget.spent().requests == 2
        assert parts.budget.spent().tokens > 300 + 49


async def test_what_could_not_be_sent_does_not_count(tmp_path: Path) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}/v1"
        async with reach(config(url), tmp_path) as parts:
            [deferred] = await asked(parts, Inquiry("evt-1", NAME))
            assert isinstance(deferred, Deferred)
            assert (parts.budget.spent().requests, parts.budget.spent().tokens) == (0, 0)


async def test_a_full_disk_refuses_the_question_and_sends_nothing(cloud: FaultyCloud, tmp_path: Path) -> None:
    async with running(config(cloud.url), tmp_path) as parts:
        await asked(parts, Inquiry("evt-1", NAME))

        def fill(db: apsw.Connection) -> None:
            pages = next(db.execute("PRAGMA page_count"))[0]
            db.execute(f"PRAGMA max_page_count = {pages}").fetchall()

        await parts.outbox._store.run(fill)
        with pytest.raises(StorageFull):
            await asked(parts, Inquiry("evt-2", "y" * 50_000))
        assert len(cloud.asked) == 1
