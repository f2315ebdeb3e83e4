"""What the way by MQTT costs where no answer comes, and what a dry run shows of it: a real mosquitto, a real gateway,
and behind it a server that takes the question and says no word."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest

from agent.config import Config, Device, Endpoint, Escalation
from agent.config import Gateway as GatewayConfig
from agent.escalation import envelope
from agent.escalation.gateway import Gateway, GatewayMetrics
from agent.escalation.https import Https
from agent.escalation.link import MqttLink
from agent.escalation.reach import Reach, reach
from agent.messages import CloudDelta, CloudReply, Deferred, Inquiry
from tests.simulators.broker import Authority, Broker, running_broker
from tests.simulators.faulty_cloud import ANSWER, FaultyCloud, closes_at_once, hangs_before_headers

DEVICE = "hall/kiosk"
ASKED = Inquiry("evt-1", "My name is Ada Lovelace. When does the last boat leave?")


@asynccontextmanager
async def device(broker: Broker, state: Path, total_s: float) -> AsyncIterator[Reach]:
    config = Config(
        device=Device(site="hall", name="kiosk"),
        mqtt=broker.settings(DEVICE),
        escalation=Escalation(enabled=True, paths=("mqtt",), total_s=total_s, max_tokens=50),
    )
    async with reach(config, state) as parts:
        assert parts.link is not None
        async with parts.link:
            assert await parts.link.wait_online(20)
            yield parts


@asynccontextmanager
async def gateway(broker: Broker, cloud: FaultyCloud) -> AsyncIterator[None]:
    escalation = Escalation(endpoints=(Endpoint(url=cloud.url, model="m"),), attempts=2, read_s=1.0)
    link = MqttLink(broker.settings("gateway"), client_id="outpost-gateway-here", prefix="outpost-gateway/here")
    async with Https(escalation, environ={}) as https:
        serving = Gateway(
            GatewayConfig(), link, https, name="here", deadline_s=30, max_tokens=300, metrics=GatewayMetrics()
        )
        async with serving, link:
            assert await link.wait_online(20), link.problem
            yield


async def answers(parts: Reach, inquiry: Inquiry) -> list[CloudDelta | CloudReply | Deferred]:
    async with aclosing(parts.escalator.ask(inquiry)) as events:
        return [event async for event in events]


@pytest.mark.timeout(120)
async def test_what_a_gateway_worked_on_counts_and_what_nobody_took_does_not(tmp_path: Path) -> None:
    with running_broker(tmp_path / "broker", Authority.make(tmp_path)) as broker:
        async with device(broker, tmp_path / "state", total_s=4.0) as parts:
            [nobody] = await answers(parts, ASKED)
            assert isinstance(nobody, Deferred)
            assert parts.budget.spent().requests == 0, "no gateway said a word"
        async with FaultyCloud() as cloud, gateway(broker, cloud):
            async with device(broker, tmp_path / "again", total_s=20.0) as parts:
                cloud.faults.append(closes_at_once)
                *_, reply = await answers(parts, Inquiry("evt-2", "And the first?"))
                assert isinstance(reply, CloudReply)
                assert (reply.text, reply.lost, len(cloud.asked)) == (ANSWER, 1, 2)
                assert parts.budget.spent().requests == 2
            async with device(broker, tmp_path / "hangs", total_s=10.0) as parts:
                cloud.faults.extend([hangs_before_headers] * 2)
                [late] = await answers(parts, ASKED)
                assert isinstance(late, Deferred)
                assert (parts.budget.spent().requests, parts.budget.spent().tokens > 100) == (2, True), "both tries"
            async with device(broker, tmp_path / "late", total_s=1.5) as parts:
                cloud.faults.append(hangs_before_headers)
                [late] = await answers(parts, Inquiry("evt-3", "And the second?"))
                assert isinstance(late, Deferred)
                assert parts.budget.spent().requests == 1, "the gateway is still at work on it"


async def test_a_dry_run_shows_the_message_that_would_be_published(tmp_path: Path) -> None:
    with running_broker(tmp_path / "broker", Authority.make(tmp_path)) as broker:
        async with device(broker, tmp_path / "state", total_s=4.0) as parts:
            shown = await parts.escalator.preview(ASKED)
            assert shown is not None
            assert (shown.path, shown.endpoint) == ("mqtt", "gateway")
            assert "Lovelace" not in shown.payload
            assert envelope.decode_request(shown.payload.encode()).max_tokens == 50
            assert await parts.audit.head() == f"0:{'0' * 64}"
            assert (await parts.outbox.status()).waiting == parts.budget.spent().requests == 0
