"""The daemon on a real broker: questions asked by MQTT, its status, and questions for a person."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from agent.escalation.link import MqttLink, Received
from tests.simulators.broker import Authority, Broker, running_broker
from tests.simulators.daemon import DEMO, TINY, RunningDaemon, install_tiny, running_daemon
from tests.simulators.gateway import running_gateway
from tests.simulators.waiting import soon

PREFIX = "outpost/hall/kiosk"
WAIT_S = 30.0


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    folder = tmp_path_factory.mktemp("broker")
    with running_broker(folder / "broker", Authority.make(folder / "authority")) as running:
        yield running


@pytest.fixture(scope="module")
def kiosk(tmp_path_factory: pytest.TempPathFactory, broker: Broker, tiny_gguf: Path) -> Iterator[RunningDaemon]:
    """Answers locally, but asks the cloud first where a question is about the collection "abroad"; its raw model is
    the cloud's."""
    folder = tmp_path_factory.mktemp("kiosk")
    install_tiny(folder / "state", tiny_gguf)
    config = folder / "agent.toml"
    config.write_text(
        '[device]\nsite = "hall"\nname = "kiosk"\n[assistant]\npolicy = "best-effort"\n'
        '[escalation]\nenabled = true\npaths = ["mqtt"]\nmax_tokens = 8\n'
        '[overrides.collections.abroad]\npolicy = "cloud-first"\n' + broker.toml("hall/kiosk"),
        encoding="utf-8",
    )
    with running_daemon(folder / "state", arguments=("--config", str(config))) as running:
        running.cli("knowledge", "add", str(DEMO / "documents"))
        yield running


class Operator:
    """Someone on the broker who may read and write everything."""

    def __init__(self, broker: Broker) -> None:
        self.heard: list[Received] = []
        self.link = MqttLink(broker.settings("operator"), client_id=f"op-{uuid.uuid4().hex}", prefix="hall/operator")
        for topic in (f"{PREFIX}/ask/response/#", f"{PREFIX}/status", f"{PREFIX}/events", f"{PREFIX}/handoff"):
            self.link.handle(topic, self.heard.append)

    def on(self, topic: str) -> list[dict[str, Any]]:
        return [json.loads(message.payload) for message in self.heard if message.topic == f"{PREFIX}/{topic}"]

    async def ask(self, payload: str, response: str = "ask/response/1", correlation: bytes = b"1") -> None:
        await self.link.send(
            f"{PREFIX}/ask", payload.encode(), response_topic=f"{PREFIX}/{response}", correlation=correlation
        )


@asynccontextmanager
async def operator(broker: Broker) -> AsyncIterator[Operator]:
    someone = Operator(broker)
    async with someone.link:
        assert await someone.link.wait_online(20), someone.link.problem
        await soon(lambda: any(s["state"] == "online" for s in someone.on("status")), "the daemon is there", WAIT_S)
        yield someone


async def test_a_question_by_mqtt_is_answered_by_the_assistant(broker: Broker, kiosk: RunningDaemon) -> None:
    async with operator(broker) as someone:
        await someone.ask('{"question": "What is the height limit in the car park?"}')
        await soon(lambda: bool(someone.on("ask/response/1")), "an answer", WAIT_S)
        (reply,) = someone.on("ask/response/1")
        assert "2.0 metres" in reply["text"]
        assert reply["outpost"]["decision"] == "local"
        assert someone.heard[-1].correlation == b"1"


async def test_a_question_sent_again_is_answered_once_and_told_twice(broker: Broker, kiosk: RunningDaemon) -> None:
    async with operator(broker) as someone:
        for _ in range(3):
            await someone.ask("When does the museum open?", "ask/response/again", b"again")
        await soon(lambda: bool(someone.on("ask/response/again")), "an answer", WAIT_S)
        await someone.ask("When does the museum open?", "ask/response/again", b"again")
        await soon(lambda: len(someone.on("ask/response/again")) >= 2, "the answer again", WAIT_S)
        assert len({reply["outpost"]["event_id"] for reply in someone.on("ask/response/again")}) == 1


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        ('{"text": "wrong name"}', "invalid_request"),
        ('{"question": 7}', "invalid_request"),
        ('{"question"', "invalid_request"),
        ('{"question": "Where?", "collection": "../etc"}', "invalid_request"),
        ('{"question": "Where?", "private": "yes"}', "invalid_request"),
        ('{"question": "Where?", "deadline_s": true}', "invalid_request"),
        ('{"question": "Where?", "deadline_s": NaN}', "invalid_request"),
        ("", "invalid_request"),
    ],
)
async def test_a_bad_question_gets_an_error_with_its_code(
    broker: Broker, kiosk: RunningDaemon, payload: str, code: str
) -> None:
    name = uuid.uuid4().hex
    async with operator(broker) as someone:
        await someone.ask(payload, f"ask/response/{name}", name.encode())
        await soon(lambda: bool(someone.on(f"ask/response/{name}")), "an answer", WAIT_S)
        (reply,) = someone.on(f"ask/response/{name}")
        assert reply["error"]["code"] == code


async def test_a_question_by_mqtt_goes_to_the_cloud_by_mqtt_and_back(
    broker: Broker, kiosk: RunningDaemon, tmp_path: Path
) -> None:
    with running_gateway(tmp_path, broker, f"{kiosk.url}/v1", TINY, name="only") as gateway:
        async with operator(broker) as someone:
            question = {"question": "When does the last boat leave for the island?", "collection": "abroad"}
            await someone.ask(json.dumps(question), "ask/response/abroad", b"abroad")
            await soon(lambda: bool(someone.on("ask/response/abroad")), "an answer", WAIT_S)
            (reply,) = someone.on("ask/response/abroad")
            assert reply["outpost"]["decision"] == "escalated", reply
            assert reply["outpost"]["answer_kind"] == "cloud"
            assert reply["text"]
        assert gateway.metric("requests_total", outcome="answered") == 1


async def test_an_asker_cannot_have_the_device_speak_in_its_own_name(broker: Broker, kiosk: RunningDaemon) -> None:
    async with operator(broker) as someone:
        for topic in ("events", "status", "escalate/request", "shadow/reported"):
            await someone.ask("When does the museum open?", topic, topic.encode())
        await someone.ask("When does the museum open?", "ask/response/last", b"last")
        await soon(lambda: bool(someone.on("ask/response/last")), "the allowed one", WAIT_S)
        assert not [reply for reply in (*someone.on("events"), *someone.on("status")) if "text" in reply]


def test_status_shows_the_broker(kiosk: RunningDaemon) -> None:
    with kiosk.client() as client:
        assert "outpost_mqtt_connected 1.0" in client.get("/metrics").text


async def test_a_daemon_that_is_killed_turns_offline(broker: Broker, kiosk: RunningDaemon, tmp_path: Path) -> None:
    """The last test of this daemon."""
    async with operator(broker) as someone:
        await asyncio.to_thread(kiosk.process.kill)
        await soon(lambda: someone.on("status")[-1] == {"state": "offline"}, "the last will", WAIT_S)
