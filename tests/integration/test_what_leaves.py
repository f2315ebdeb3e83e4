"""What a whole daemon reaches for: nothing under local-only, whatever else is configured, and by intent what its
override says. tests/simulators/watched.py sees every connection that the daemon's own process begins."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from agent.escalation.link import MqttLink, Received
from tests.simulators.broker import Authority, Broker, running_broker
from tests.simulators.daemon import DEMO, ROOT, RunningDaemon, running_daemon
from tests.simulators.people import Webhook
from tests.simulators.waiting import soon

KNOWN = "What is the height limit in the car park?"
UNKNOWN = "Who won the football World Cup in 1998?"
BARE = {"OUTPOST_MODELS__TEXT": "", "OUTPOST_MODELS__EMBEDDING": "", "OUTPOST_MODELS__RANKER": ""}
WATCHED = ("-m", "tests.simulators.watched")


@contextmanager
def watched(folder: Path, webhook: Webhook, policy: str) -> Iterator[tuple[RunningDaemon, Path]]:
    """A daemon with every way out configured, and the file with what it reached for. The webhook's server is the cloud,
    too: it understands no question, but would hear it."""
    reached = folder / "reached"
    settings = BARE | {
        "OUTPOST_TEST_REACHED": str(reached),
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        "OPENAI_BASE_URL": webhook.url,
        "OPENAI_API_KEY": "key",
        "OPENAI_MODEL": "any",
        "OUTPOST_ASSISTANT__POLICY": policy,
        "OUTPOST_ESCALATION__ENABLED": "true",
        "OUTPOST_ESCALATION__ATTEMPTS": "1",
        "OUTPOST_HANDOFF__WEBHOOK": webhook.url,
        "OUTPOST_RISK__AUDIT_SHARE": "1.0",
        "OUTPOST_RISK__FEEDBACK_LABELS": "true",
        "OUTPOST_OVERRIDES__COLLECTIONS": '{abroad = {policy = "cloud-first"}}',
    }
    with running_daemon(folder / "state", settings=settings, arguments=("--cloud",), program=WATCHED) as daemon:
        daemon.cli("knowledge", "add", str(DEMO / "documents"))
        yield daemon, reached


@pytest.mark.parametrize("policy", ["local-only", "best-effort"])
def test_under_local_only_no_connection_is_begun_and_no_name_looked_up(tmp_path: Path, policy: str) -> None:
    """The same under best-effort shows that the watch sees it."""
    with Webhook() as webhook:
        with watched(tmp_path, webhook, policy) as (daemon, reached):
            known, unknown = daemon.ask(KNOWN), daemon.ask(UNKNOWN, session="s")
            assert known["decision"] == "local"
            assert (unknown["decision"] == "handoff") == (policy == "local-only")
            daemon.ask("And who lost it?", session="s", collection="abroad")
            with daemon.client(operator=True) as client:
                client.post("/v1/feedback", json={"event_id": known["event_id"], "rating": "wrong"}).raise_for_status()
                client.post("/v1/explain", json={"question": UNKNOWN}).raise_for_status()
                if policy == "local-only":  # held open for longer than the daemon takes to count as idle and to audit
                    url = f"/v1/events/{unknown['event_id']}?wait=6&seen=handed_off"
                    client.get(url).raise_for_status()
                    assert client.get("/admin/status").json()["live_risk"]["audits"]["waiting"] == 0
                else:
                    assert len(_would_leave(client, "s")) == 4, "system, the pair before, the question"
                    client.delete("/admin/sessions/s/events").raise_for_status()
                    assert len(_would_leave(client, "s")) == 2, "a session that is deleted is no history either"
            begun = reached.read_text().splitlines()
        port = webhook.url.rpartition(":")[2].partition("/")[0]
        if policy == "local-only":
            assert begun == []
            assert webhook.heard == []
        else:
            assert [line for line in begun if line.startswith("socket.connect") and port in line]


def _would_leave(client: httpx.Client, session: str) -> list[str]:
    """The messages of a request in this session, as a dry run shows them to the operator."""
    body = {"question": UNKNOWN, "session": session}
    found = client.post("/v1/explain", json=body).raise_for_status().json()
    return [message["content"] for message in json.loads(found["request"]["payload"])["messages"]]


def test_an_intents_override_holds_in_place_of_the_devices_policy(tmp_path: Path) -> None:
    """Nothing is certified on this device: under its own policy every intent would be the cloud's."""
    settings = BARE | {
        "OPENAI_BASE_URL": "http://127.0.0.1:9/v1",
        "OPENAI_MODEL": "any",
        "OUTPOST_ASSISTANT__POLICY": "certified",
        "OUTPOST_ESCALATION__ENABLED": "true",
        "OUTPOST_OVERRIDES__INTENTS": '{louder = {policy = "best-effort"}, quieter = {policy = "local-only"}}',
        "OUTPOST_OVERRIDES__COLLECTIONS": '{attic = {policy = "certified"}}',
    }
    with running_daemon(tmp_path, settings=settings) as daemon, daemon.client() as client:
        daemon.cli("intents", "train", str(DEMO / "intents.toml"))

        def explain(question: str, **more: Any) -> dict[str, Any]:
            body = {"question": question, **more}
            found: dict[str, Any] = client.post("/v1/explain", json=body).raise_for_status().json()
            return found

        own = explain("thank you very much")
        assert (own["intent"], own["decision"], own["leaves"]) == ("thanks", "escalated", True)
        louder = explain("louder please")
        assert (louder["intent"], louder["decision"]) == ("louder", "action")
        assert louder["policy"]["overrides"] == {"overrides.intents.louder": "best-effort"}
        quieter = explain("quieter please")
        assert (quieter["intent"], quieter["leaves"]) == ("quieter", False)
        assert json.dumps(quieter["policy"]["overrides"]) == '{"overrides.intents.quieter": "local-only"}'
        both = explain("louder please", collection="attic")
        assert (both["intent"], both["decision"]) == ("louder", "escalated"), "of both the stricter holds"


# ---------------------------------------------------------------- by MQTT


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    folder = tmp_path_factory.mktemp("broker")
    with running_broker(folder / "broker", Authority.make(folder / "authority")) as running:
        yield running


@pytest.mark.parametrize("policy", ["best-effort", "local-only"])
async def test_a_question_for_a_person_is_told_with_its_answer_and_nothing_under_local_only(
    broker: Broker, tmp_path: Path, policy: str
) -> None:
    """Under local-only who listens to everything hears that the device is there and what it replies to who asked."""
    config = tmp_path / "agent.toml"
    config.write_text(
        f'[device]\nsite = "hall"\nname = "desk"\n[assistant]\npolicy = "{policy}"\n'
        '[models]\ntext = ""\nembedding = ""\nranker = ""\n' + broker.toml("hall/desk"),
        encoding="utf-8",
    )
    heard: list[Received] = []
    link = MqttLink(broker.settings("operator"), client_id=f"all-{policy}", prefix="hall/operator")
    link.handle("outpost/hall/desk/#", heard.append)

    def on(topic: str) -> list[dict[str, Any]]:
        return [json.loads(m.payload) for m in heard if m.topic == f"outpost/hall/desk/{topic}" and not m.retained]

    async with link:
        assert await link.wait_online(20)
        with running_daemon(tmp_path / "state", arguments=("--config", str(config))) as desk:
            await soon(lambda: bool(on("status")), "the daemon is there")
            await link.send(
                "outpost/hall/desk/ask",
                b"Who won the cup?",
                response_topic="outpost/hall/desk/ask/response/1",
                correlation=b"1",
            )
            await soon(lambda: bool(on("ask/response/1")), "an answer")
            told = on("ask/response/1")[0]["outpost"]
            assert told["decision"] == "handoff"
            if policy != "local-only":
                await soon(lambda: bool(on("handoff")), "people are told")
                (asked,) = on("handoff")
                assert (asked["event_id"], asked["question"]) == (told["event_id"], "Who won the cup?")
            await asyncio.to_thread(desk.cli, "events", "answer", told["event_id"], "Norway did.")
            if policy != "local-only":
                await soon(lambda: bool(on("events")), "the answer is told")
                (answered,) = on("events")
                assert (answered["event_id"], answered["answer"]) == (told["event_id"], "Norway did.")

                private = b'{"question": "Who took my bag?", "private": true, "deadline_s": 20}'
                await link.send("outpost/hall/desk/ask", private, response_topic="outpost/hall/desk/ask/response/1")
                await soon(lambda: len(on("handoff")) == 2, "people are told that there is a question")
                assert on("ask/response/1")[1]["outpost"]["reason"] == "private"
                assert (on("handoff")[1]["question"], on("handoff")[1]["personal"]) == (None, True)
        await soon(lambda: on("status")[-1] == {"state": "offline"}, "all was sent before")
    topics = {message.topic.removeprefix("outpost/hall/desk/") for message in heard}
    silent = {"status", "ask", "ask/response/1"}
    assert topics == (silent if policy == "local-only" else silent | {"handoff", "events"})
