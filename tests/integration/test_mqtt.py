"""The path to the cloud by MQTT on a real mosquitto, real gateways in processes of their own, and a server that
generates: answers, parts, streams, and what happens when a broker, a gateway or a message gets lost."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.config import Config, Device, Endpoint, Escalation, Mqtt
from agent.config import Gateway as GatewayConfig
from agent.errors import CloudRefused, CloudUnavailable, ConfigError
from agent.escalation import envelope
from agent.escalation.gateway import Gateway, GatewayMetrics
from agent.escalation.https import Https
from agent.escalation.link import MqttLink, Received
from agent.escalation.mqtt import MqttPath
from agent.escalation.reach import reach
from agent.messages import ChatMessage, CloudDelta, CloudReply, CloudRequest, Deferred, Inquiry
from tests.benchmarks.kill_mqtt import campaign
from tests.simulators import waiting
from tests.simulators.broker import ACL, Authority, Broker, running_broker
from tests.simulators.daemon import TINY, RunningDaemon, install_tiny, running_daemon
from tests.simulators.gateway import RunningGateway, running_gateway

DEVICE = "hall/kiosk"
SILENCE_S = 2.5


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.make(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[Broker]:
    with running_broker(tmp_path_factory.mktemp("broker"), authority) as running:
        yield running


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory, tiny_gguf: Path) -> Iterator[RunningDaemon]:
    state = tmp_path_factory.mktemp("upstream")
    install_tiny(state, tiny_gguf)
    with running_daemon(state, settings={"OUTPOST_POOL__KEEP_ALIVE_S": "3600"}) as running:
        yield running


@pytest.fixture(scope="module")
def gateways(
    tmp_path_factory: pytest.TempPathFactory, broker: Broker, upstream: RunningDaemon
) -> Iterator[tuple[RunningGateway, RunningGateway]]:
    folder, url = tmp_path_factory.mktemp("gateways"), upstream.url + "/v1"
    limits = "requests_per_minute = 1000000\ntokens_per_day = 1000000000\n"
    with (
        running_gateway(folder, broker, url, TINY, name="north", further=limits, wait=False) as north,
        running_gateway(folder, broker, url, TINY, name="south", further=limits, wait=False) as south,
    ):
        yield north, south


@pytest.fixture
def both(gateways: tuple[RunningGateway, RunningGateway], broker: Broker) -> tuple[RunningGateway, RunningGateway]:
    """Two gateways at work, whatever a test before did to them."""
    for gateway in gateways:
        if gateway.process.poll() is not None:
            gateway.start_again()
    for gateway in gateways:
        gateway.wait_connected()
    return gateways


@dataclass(frozen=True)
class GatewayHere:
    """A gateway in this process, where a test needs no other one to be killed."""

    metrics: GatewayMetrics

    def metric(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(f"outpost_gateway_{name}", labels) or 0.0


@asynccontextmanager
async def gateway_here(broker: Broker, upstream: RunningDaemon, **limits: int) -> AsyncIterator[GatewayHere]:
    endpoint = Endpoint(url=upstream.url + "/v1", model=TINY)
    escalation = Escalation(endpoints=(endpoint,))
    link = MqttLink(broker.settings("gateway"), client_id="outpost-gateway-here", prefix="outpost-gateway/here")
    metrics = GatewayMetrics()
    async with Https(escalation, environ={}) as https:
        serving = Gateway(
            GatewayConfig.model_validate(limits), link, https,
            name="here", deadline_s=60, max_tokens=300, metrics=metrics,
        )  # fmt: skip
        async with serving, link:
            assert await link.wait_online(20), link.problem
            yield GatewayHere(metrics)


@asynccontextmanager
async def device(settings: Mqtt, name: str = DEVICE, silence_s: float = SILENCE_S) -> AsyncIterator[MqttPath]:
    link = MqttLink(settings, client_id=f"outpost-{name.replace('/', '-')}", prefix=f"outpost/{name}")
    async with MqttPath(link, silence_s=silence_s) as path, link:
        assert await link.wait_online(20), link.problem
        yield path


def request(text: str = "Where is the lift?", *, max_tokens: int = 8) -> CloudRequest:
    return CloudRequest(
        uuid.uuid4().hex, "evt-1", (ChatMessage("user", text),), max_tokens, expires_at=time.time() + 600
    )


async def ask(path: MqttPath, asked: CloudRequest, deadline_s: float = 40) -> list[CloudDelta | CloudReply]:
    return [event async for event in path.ask(asked, deadline_s=deadline_s)]


async def answer(path: MqttPath, asked: CloudRequest, deadline_s: float = 40) -> CloudReply:
    """The one reply; anything but exactly one is a failure."""
    replies = [event for event in await ask(path, asked, deadline_s) if isinstance(event, CloudReply)]
    assert len(replies) == 1
    assert replies[0].key == asked.key
    return replies[0]


async def answer_at_last(path: MqttPath, asked: CloudRequest) -> CloudReply:
    """As the outbox does: send again when the path gives up."""
    deadline = time.monotonic() + 90
    while True:
        try:
            return await answer(path, asked)
        except CloudUnavailable:
            assert time.monotonic() < deadline, "not answered at last"
            await asyncio.sleep(0.1)


async def until(condition: Callable[[], bool], what: str, within_s: float = 20) -> None:
    """In a thread, for most conditions ask another process."""
    await asyncio.to_thread(waiting.until, condition, what, within_s)


async def taker(gateways: tuple[RunningGateway, RunningGateway]) -> RunningGateway:
    """Which gateway has the one request that is asked, once one has."""
    await until(lambda: any(gateway.metric("running") for gateway in gateways), "a gateway took the request")
    return next(gateway for gateway in gateways if gateway.metric("running"))


# ---------------------------------------------------------------- answers


async def test_a_request_is_answered_by_the_server_behind_the_gateway(
    broker: Broker, both: tuple[RunningGateway, RunningGateway]
) -> None:
    async with device(broker.settings(DEVICE)) as path:
        assert path.online()
        reply = await answer(path, request(max_tokens=8))
    assert reply.path == "mqtt"
    assert reply.endpoint == "cloud"
    assert reply.model == TINY
    assert 0 < reply.usage.completion_tokens <= 8
    assert reply.usage.prompt_tokens > 0
    assert reply.text
    assert reply.cut == (reply.usage.completion_tokens == 8), "the gateway says that the answer is not whole"


async def test_an_answer_streams(broker: Broker, both: tuple[RunningGateway, RunningGateway]) -> None:
    """A piece may get lost, and those after it are not shown then; not so three times in a row."""
    pieces: list[str] = []
    async with device(broker.settings(DEVICE)) as path:
        for _ in range(3):
            *streamed, reply = await ask(path, request(max_tokens=300))
            assert isinstance(reply, CloudReply)
            pieces = [event.text for event in streamed if isinstance(event, CloudDelta)]
            assert reply.text.startswith("".join(pieces))
            if pieces:
                break
    assert pieces, "no partial answer came"


async def test_a_request_over_the_largest_message_goes_in_parts(
    broker: Broker, both: tuple[RunningGateway, RunningGateway]
) -> None:
    """The device's largest message is 1 KiB; the server counts the prompt's tokens, so all parts came. The silence
    after which a device sends again is longer than it waits: what is lost stays lost here."""
    small = broker.settings(DEVICE).model_copy(update={"max_message_kb": 1})
    async with device(small, silence_s=60) as path:
        short = await answer(path, request("lift"))
        reply = await answer(path, request("lift " * 300))
        long = await answer(path, request("lift " * 300, max_tokens=300))
    assert reply.usage.prompt_tokens >= short.usage.prompt_tokens + 600
    assert len(long.text.encode()) > 1024, "this answer had to come in parts"
    assert path.traffic.resent == 0


async def test_the_servers_refusal_of_a_megabyte_reaches_the_device(
    broker: Broker, both: tuple[RunningGateway, RunningGateway]
) -> None:
    async with device(broker.settings(DEVICE)) as path:
        with pytest.raises(CloudRefused, match="token"):
            await ask(path, request("lift " * 200_000))


async def test_a_request_over_the_stated_limit_is_refused_and_never_sent(broker: Broker) -> None:
    async with device(broker.settings(DEVICE)) as path:
        with pytest.raises(CloudRefused, match="4194304"):
            await ask(path, request("x" * (5 << 20)))
        assert path.traffic.requests == 0


async def test_a_gateway_says_that_it_serves_when_it_has_a_broker(
    tmp_path: Path, authority: Authority, upstream: RunningDaemon
) -> None:
    with running_broker(tmp_path / "broker", authority) as own:
        own.kill()
        with running_gateway(tmp_path, own, upstream.url + "/v1", TINY, name="early", wait=False) as gateway:
            told = gateway.log.read_text
            await until(lambda: "no connection to localhost" in told(), "the gateway looks for its broker", 60)
            assert "early connects to localhost" in told()
            assert "serves" not in told()
            own.start()
            await until(lambda: "early serves the devices" in told(), "the gateway serves", 60)


# ---------------------------------------------------------------- losses


async def test_a_gateway_killed_at_work_is_replaced_by_the_next(
    broker: Broker, both: tuple[RunningGateway, RunningGateway], upstream: RunningDaemon
) -> None:
    async with device(broker.settings(DEVICE)) as path:
        with upstream.frozen():
            asking = asyncio.create_task(answer(path, request()))
            (await taker(both)).kill()
        assert (await asking).text
        assert path.traffic.resent > 0


async def test_the_second_answer_of_a_gateway_that_was_cut_off_is_dropped(
    broker: Broker, both: tuple[RunningGateway, RunningGateway], upstream: RunningDaemon
) -> None:
    async with device(broker.settings(DEVICE)) as path:
        with upstream.frozen():
            asking = asyncio.create_task(answer(path, request()))
            frozen = await taker(both)
            frozen.process.send_signal(signal.SIGSTOP)
        first = await asking
        assert path.traffic.dropped == 0
        frozen.process.send_signal(signal.SIGCONT)
        await until(lambda: path.traffic.dropped > 0, "the frozen gateway's answer came as well")
        assert first.text


async def test_requests_survive_a_broker_that_is_killed(
    broker: Broker, both: tuple[RunningGateway, RunningGateway], upstream: RunningDaemon
) -> None:
    async with device(broker.settings(DEVICE)) as path:
        with upstream.frozen():
            asking = [asyncio.create_task(answer(path, request())) for _ in range(8)]
            # more than eight where one was sent again meanwhile, and the other gateway took it
            await until(lambda: sum(gateway.metric("running") for gateway in both) >= 8, "all are at work")
            assert all(gateway.metric("running") for gateway in both), "they share the load"
            broker.kill()
            await until(lambda: not path.online(), "the device notices")
        with pytest.raises(CloudUnavailable):
            await ask(path, request())
        broker.start()
        assert all(reply.text for reply in await asyncio.gather(*asking))


async def test_brokers_and_gateways_killed_under_load_lose_nothing(
    broker: Broker, both: tuple[RunningGateway, RunningGateway], upstream: RunningDaemon
) -> None:
    """A small share of tests/benchmarks/kill_mqtt.py."""
    outcome = await campaign(broker, list(both), upstream.url, broker_kills=2, gateway_kills=2, askers=4, seed=7)
    assert outcome.broker_kills == outcome.gateway_kills == 2
    assert outcome.answered == outcome.asked > 0
    assert (outcome.lost, outcome.twice) == (0, 0)


async def test_messages_that_the_brokers_full_queue_drops_are_sent_again(
    tmp_path: Path, authority: Authority, upstream: RunningDaemon
) -> None:
    """The gateway stands still while 20 requests come to a queue of one: PUBACK says success for every one of them."""
    tiny_queue = "max_queued_messages 1\nmax_inflight_messages 1\n"
    with (
        running_broker(tmp_path / "broker", authority, further=tiny_queue) as small,
        running_gateway(tmp_path, small, upstream.url + "/v1", TINY, name="only") as gateway,
    ):
        async with device(small.settings(DEVICE)) as path:
            gateway.process.send_signal(signal.SIGSTOP)
            asking = [asyncio.create_task(answer_at_last(path, request(max_tokens=2))) for _ in range(20)]
            await until(lambda: path.traffic.resent > 0, "there was silence")
            gateway.process.send_signal(signal.SIGCONT)
            assert all(reply.text is not None for reply in await asyncio.gather(*asking))
            assert gateway.metric("requests_total", outcome="answered") == 20


async def test_an_acl_that_filters_silently_is_named_and_waited_out(
    tmp_path: Path, authority: Authority, upstream: RunningDaemon
) -> None:
    """SUBSCRIBE is granted, nothing is delivered. The path says what to look at, and works when the ACL is mended."""
    mute = ACL.replace("pattern read outpost/%u/escalate/response\n", "")
    with running_broker(tmp_path / "broker", authority, acl=mute) as filtering:
        async with gateway_here(filtering, upstream), device(filtering.settings(DEVICE), silence_s=1.2) as path:
            with pytest.raises(CloudUnavailable, match="ACL") as caught:
                await ask(path, request(), deadline_s=60)
            assert "outpost/hall/kiosk/escalate/response" in str(caught.value)
            assert not path.online()
            (tmp_path / "broker" / "acl").write_text(ACL, encoding="ascii")
            assert filtering.process is not None
            filtering.process.send_signal(signal.SIGHUP)
            assert (await answer(path, request())).text
            assert path.online()


async def test_without_a_broker_the_path_is_offline_and_says_why(authority: Authority, tmp_path: Path) -> None:
    with running_broker(tmp_path, authority) as gone:
        settings = gone.settings(DEVICE)
    link = MqttLink(settings, client_id="outpost-hall-kiosk", prefix=f"outpost/{DEVICE}")
    async with MqttPath(link) as path, link:
        await until(lambda: bool(link.problem), "the first connection fails")
        with pytest.raises(CloudUnavailable, match="refused"):
            await ask(path, request())


async def test_a_deferred_question_is_answered_when_a_gateway_comes_and_told_on_events(
    tmp_path: Path, authority: Authority, upstream: RunningDaemon
) -> None:
    """The whole escalation by MQTT: asked in vain, kept in the outbox, sent again, answered once, announced."""
    told: list[Received] = []
    with running_broker(tmp_path / "broker", authority) as alone:
        config = Config(
            device=Device(site="hall", name="kiosk"),
            mqtt=alone.settings(DEVICE),
            escalation=Escalation(enabled=True, paths=("mqtt",), total_s=3.0, max_tokens=8),
        )
        watching = MqttLink(alone.settings("operator"), client_id="operator", prefix="hall/operator")
        watching.handle(f"outpost/{DEVICE}/events", told.append)
        async with reach(config, tmp_path) as parts, watching:
            assert parts.link is not None
            async with parts.link:
                assert await parts.link.wait_online(20)
                assert await watching.wait_online(20)
                running = asyncio.create_task(parts.run(), name="reach")
                asked = Inquiry("evt-1", "When does the last boat leave?", session="s")
                events = [event async for event in parts.escalator.ask(asked)]
                assert [type(event) for event in events] == [Deferred]
                async with gateway_here(alone, upstream) as gateway:
                    await until(lambda: bool(told), "the late answer", 60)
                    case = await parts.outbox.get("evt-1")
                    assert case.state == "answered"
                    (message,) = [json.loads(message.payload) for message in told]
                    assert (message["event_id"], message["answer"]) == ("evt-1", case.answer)
                    assert gateway.metric("requests_total", outcome="answered") == 1
                running.cancel()
                await asyncio.wait({running})


# ---------------------------------------------------------------- what a gateway allows


async def test_a_repeated_request_is_asked_upstream_once(
    broker: Broker, tmp_path: Path, authority: Authority, upstream: RunningDaemon
) -> None:
    """Also while the first is still running; afterwards the same answer comes again."""
    replies: list[Received] = []
    with running_broker(tmp_path / "broker", authority) as alone:
        link = MqttLink(alone.settings(DEVICE), client_id="raw", prefix=f"outpost/{DEVICE}")
        link.handle(f"outpost/{DEVICE}/escalate/response", replies.append)
        asked = request()

        async def send() -> None:
            await link.send(
                f"outpost/{DEVICE}/escalate/request",
                envelope.encode_request(asked),
                response_topic=f"outpost/{DEVICE}/escalate/response",
                correlation=asked.key.encode(),
            )

        async with gateway_here(alone, upstream) as gateway, link:
            assert await link.wait_online(20)
            with upstream.frozen():
                for _ in range(3):
                    await send()
                await until(lambda: gateway.metric("duplicates_total") == 2, "two were known")
            await until(lambda: len(answers(replies)) == 1, "the answer")
            await send()
            await until(lambda: len(answers(replies)) == 2, "the answer again")
            assert answers(replies)[0] == answers(replies)[1]
            assert gateway.metric("requests_total", outcome="answered") == 1


def answers(replies: list[Received]) -> list[bytes]:
    return [reply.payload for reply in replies if b'"answer"' in reply.payload]


async def test_quota_and_queue_put_a_device_off(tmp_path: Path, authority: Authority, upstream: RunningDaemon) -> None:
    """Two requests a minute for each device, one at a time at the upstream and none waiting."""
    with running_broker(tmp_path / "broker", authority) as alone:
        async with (
            gateway_here(alone, upstream, requests_per_minute=2, concurrency=1, queue=0) as gateway,
            device(alone.settings(DEVICE)) as path,
            device(alone.settings("hall/other"), "hall/other") as other,
        ):
            with upstream.frozen():
                asking = asyncio.create_task(answer(path, request()))
                await until(lambda: gateway.metric("running") == 1, "the first is at work")
                with pytest.raises(CloudUnavailable, match="queue") as busy:
                    await ask(other, request(), deadline_s=1.5)
                assert busy.value.retry_after_s
            assert (await asking).text
            assert (await answer(path, request())).text
            with pytest.raises(CloudUnavailable, match="quota") as spent:
                await ask(path, request(), deadline_s=5)
            assert spent.value.retry_after_s is not None
            assert 5 < spent.value.retry_after_s <= 30
            assert (await answer(other, request())).text, "another device's quota is its own"


async def test_no_answer_goes_to_a_topic_that_is_not_the_devices_own(
    tmp_path: Path, authority: Authority, upstream: RunningDaemon
) -> None:
    with running_broker(tmp_path / "broker", authority) as alone:
        async with gateway_here(alone, upstream) as gateway, device(alone.settings(DEVICE)) as path:
            link = MqttLink(alone.settings("hall/evil"), client_id="evil", prefix="outpost/hall/evil")
            async with link:
                assert await link.wait_online(20)
                for topic in (f"outpost/{DEVICE}/escalate/response", "outpost/hall/evil/shadow/desired", None):
                    await link.send(
                        "outpost/hall/evil/escalate/request",
                        envelope.encode_request(request()),
                        response_topic=topic,
                        correlation=b"key",
                    )
                await until(lambda: gateway.metric("requests_total", outcome="malformed") == 3, "all were dropped")
            assert (await answer(path, request())).text
            assert gateway.metric("requests_total", outcome="answered") == 1


async def test_a_gateway_that_is_stopped_finishes_its_work(
    tmp_path: Path, authority: Authority, upstream: RunningDaemon
) -> None:
    with (
        running_broker(tmp_path / "broker", authority) as alone,
        running_gateway(tmp_path, alone, upstream.url + "/v1", TINY, name="only") as gateway,
    ):
        async with device(alone.settings(DEVICE)) as path:
            with upstream.frozen():
                asking = asyncio.create_task(answer(path, request()))
                await until(lambda: gateway.metric("running") == 1, "it is at work")
                gateway.process.terminate()
            assert (await asking).text
            assert path.traffic.resent == 0
            assert await asyncio.to_thread(gateway.process.wait, 30) == 0


# ---------------------------------------------------------------- the link


async def test_status_is_retained_and_the_last_will_turns_it_to_offline(broker: Broker, authority: Authority) -> None:
    seen: list[str] = []
    watching = MqttLink(broker.settings("operator"), client_id="operator", prefix="outpost/hall/operator")
    watching.handle("outpost/hall/lamp/status", lambda message: seen.append(message.payload.decode()))
    async with device(broker.settings("hall/lamp"), "hall/lamp"), watching:
        await until(lambda: len(seen) == 1, "the retained status")
        assert '"online"' in seen[0]
        # the same client id again: the broker throws the first connection out and publishes its will
        async with device(broker.settings("hall/lamp"), "hall/lamp"):
            await until(lambda: any('"offline"' in status for status in seen), "the last will")


async def test_a_client_without_a_certificate_stays_out(broker: Broker, authority: Authority) -> None:
    settings = broker.settings(DEVICE).model_copy(update={"client_cert": None, "client_key": None})
    link = MqttLink(settings, client_id="nobody", prefix="outpost/hall/nobody")
    async with link:
        await until(lambda: bool(link.problem), "the broker refuses")
        assert not link.online()


async def test_a_user_with_the_right_password_is_let_in_and_one_with_a_wrong_one_is_not(
    authority: Authority, tmp_path: Path
) -> None:
    password, wrong = tmp_path / "password", tmp_path / "wrong"
    password.write_text("a long secret\n", encoding="utf-8")
    wrong.write_text("another one\n", encoding="utf-8")
    with running_broker(tmp_path / "broker", authority, passwords={DEVICE: "a long secret"}) as broker:
        settings = Mqtt(
            host="localhost", port=broker.port, ca_file=authority.ca, username=DEVICE, password_file=password
        )
        heard: list[Received] = []
        link = MqttLink(settings, client_id="outpost-hall-kiosk", prefix=f"outpost/{DEVICE}")
        link.handle(f"outpost/{DEVICE}/ask", heard.append)
        async with link:
            assert await link.wait_online(20), link.problem
            await link.publish("events", b"{}")
        for other in ({"password_file": wrong}, {"username": "nobody"}, {"username": "", "password_file": None}):
            assert "uthori" in await refused(settings.model_copy(update=other))


async def refused(settings: Mqtt) -> str:
    """Why the broker lets nobody in who comes with these settings."""
    stranger = MqttLink(settings, client_id="stranger", prefix=f"outpost/{DEVICE}")
    async with stranger:
        await until(lambda: bool(stranger.problem), "the broker refuses")
        assert not stranger.online()
        return stranger.problem


async def test_a_broker_of_another_authority_hears_nothing(broker: Broker, tmp_path: Path) -> None:
    """Whoever answers on the broker's address is not spoken to without the right certificate."""
    other = Authority.make(tmp_path)
    settings = broker.settings("hall/lamp").model_copy(update={"ca_file": other.ca})
    async with MqttLink(settings, client_id="outpost-hall-lamp-2", prefix="outpost/hall/lamp") as link:
        await until(lambda: bool(link.problem), "the device refuses")
        assert "certificate verify failed" in link.problem.lower()
        assert not link.online()


@pytest.mark.parametrize("host", ["broker.example", "8.8.8.8"])
async def test_nothing_crosses_the_internet_in_the_clear(host: str) -> None:
    with pytest.raises(ConfigError, match=r"mqtt\.tls = false.*in the clear"):
        async with MqttLink(Mqtt(host=host, tls=False), client_id="nobody", prefix="outpost/hall/nobody"):
            pass


async def test_a_request_carries_what_mqtt_5_has_for_it(broker: Broker) -> None:
    """Response topic, correlation data, and an expiry that is the deadline's, so that no broker keeps it for longer."""
    seen: list[Received] = []
    watching = MqttLink(broker.settings("operator"), client_id="operator", prefix="outpost/hall/operator")
    watching.handle("outpost/hall/lamp/escalate/request", seen.append)
    asked = request()
    async with watching, device(broker.settings("hall/lamp"), "hall/lamp") as path:
        assert await watching.wait_online(20)
        with contextlib.suppress(CloudUnavailable, CloudRefused):  # a gateway may be there, and may answer
            await ask(path, asked, deadline_s=9)
        await until(lambda: bool(seen), "the request")
    assert seen[0].response_topic == "outpost/hall/lamp/escalate/response"
    assert seen[0].correlation == asked.key.encode()
    assert 1 <= (seen[0].expires_in_s or 0) <= 9
    assert asked.event_id.encode() not in seen[0].payload, "whoever has it may read the answer"


async def test_a_certificate_that_cannot_be_read_is_a_configuration_error(broker: Broker, tmp_path: Path) -> None:
    settings = broker.settings(DEVICE).model_copy(update={"client_cert": tmp_path / "none.pem"})
    with pytest.raises(ConfigError, match=r"client_cert.*none\.pem"):
        async with MqttLink(settings, client_id="nobody", prefix="outpost/hall/nobody"):
            pass
