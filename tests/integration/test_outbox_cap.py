"""A line that is cut for long: the outbox of a real daemon fills to its cap, says so, refuses, and loses nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.integration.test_who_answers import KNOWN, add_document, ask, configuration, unknown, wait_for_answer
from tests.simulators.daemon import RunningDaemon, running_daemon
from tests.simulators.faulty_cloud import ANSWER, FaultyCloud
from tests.simulators.line import Line
from tests.simulators.waiting import until

LONG = " and then" * 6000
"""What makes a question so long that a few of them fill the smallest outbox."""


async def test_a_full_outbox_refuses_visibly_and_answers_what_it_took(tmp_path: Path) -> None:
    async with FaultyCloud() as cloud:
        with Line(cloud.url) as line:
            line.cut()
            url = line.url.removesuffix("/v1")
            config = configuration(
                tmp_path, url, enabled=True, attempts=1, outbox_mb=1, daily_tokens=10**9, daily_money=1e9
            )
            settings = {"OUTPOST_ASSISTANT__MAX_QUESTION_CHARS": "100000"}
            arguments = ("--config", str(config))
            with running_daemon(tmp_path / "state", settings=settings, arguments=arguments) as device:
                await asyncio.to_thread(add_document, device)
                taken = await asyncio.to_thread(_fill, device)
                assert line.connections == 0
                line.mend()
                for event_id in taken:
                    assert (await asyncio.to_thread(wait_for_answer, device, event_id))["answer"]["text"] == ANSWER
                assert (await asyncio.to_thread(ask, device))["decision"] == "escalated", "there is room again"
    assert len({asked.headers["idempotency-key"] for asked in cloud.asked}) == len(taken) + 1


def _fill(device: RunningDaemon) -> list[str]:
    """The questions that were taken before one was refused."""
    taken: list[str] = []
    while (told := ask(device, unknown() + LONG))["decision"] == "deferred":
        taken.append(told["event_id"])
        assert len(taken) < 30, "it has an end"
    assert (told["decision"], told["reason"]) == ("handoff", "storage_full")
    assert "member of staff" in told["text"]
    assert any("the outbox" in note for note in told["notes"]), told["notes"]
    assert len(taken) >= 3
    outbox = device.status()["escalation"]["outbox"]
    assert outbox["waiting"] == len(taken)
    assert outbox["bytes"] <= outbox["limit_bytes"] == 1 << 20
    until(lambda: any("the outbox is" in note for note in device.status()["notes"]), "status says that it is full")
    assert "questions wait for a line" in device.cli("status").stdout
    assert ask(device, KNOWN)["decision"] == "local", "what it knows it still answers"
    return taken
