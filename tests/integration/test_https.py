"""The path https against servers on real sockets: a second daemon, TLS with client certificates, faults."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, field
from email.utils import formatdate
from pathlib import Path

import pytest
import trustme

from agent.config import Endpoint, Escalation
from agent.errors import CloudRefused, CloudUnavailable
from agent.escalation.failures import retry_after_s
from agent.escalation.https import Clock, Https
from agent.messages import ChatMessage, CloudDelta, CloudReply, CloudRequest, Usage
from tests.simulators.daemon import TINY, RunningDaemon
from tests.simulators.faulty_cloud import (
    ANSWER,
    DONE,
    USAGE,
    Fault,
    FaultyCloud,
    closes_at_once,
    closes_mid_chunk,
    data,
    declines,
    event,
    floods,
    floods_one_line,
    hangs_before_headers,
    hangs_before_text,
    hangs_mid_stream,
    no_http,
    replies,
    says,
    streams_forever,
)
from tests.simulators.front import Front
from tests.simulators.tunnel import Tunnel

pytestmark = pytest.mark.usefixtures("no_proxies")
READ_S = 0.2
TOTAL_S = 0.5
SLACK_S = 2.0
"""How much later than its deadline an error may come on a machine that others use too."""


@pytest.fixture
async def cloud() -> AsyncIterator[FaultyCloud]:
    async with FaultyCloud() as cloud:
        yield cloud


@dataclass
class Skipping:
    """A clock that skips what is slept; ``jitter`` is the share of the longest jitter that is drawn."""

    jitter: float = 1.0
    skipped: float = 0.0
    slept: list[float] = field(default_factory=list)

    def clock(self) -> Clock:
        return Clock(
            monotonic=lambda: time.monotonic() + self.skipped,
            wall=lambda: 1_800_000_000.0 + self.skipped,
            sleep=self.sleep,
            uniform=lambda low, high: low + self.jitter * (high - low),
        )

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.skipped += seconds
        await asyncio.sleep(0)


def settings(*endpoints: Endpoint, attempts: int = 1, read_s: float = READ_S, connect_s: float = 5) -> Escalation:
    return Escalation(enabled=True, endpoints=endpoints, attempts=attempts, read_s=read_s, connect_s=connect_s)


def at(cloud: FaultyCloud, name: str = "cloud") -> Endpoint:
    return Endpoint(name=name, url=cloud.url, model="large", price_in=10, price_out=100)


def request(max_tokens: int = 50, key: str = "key-1") -> CloudRequest:
    return CloudRequest(
        key, "event", (ChatMessage("user", "When does the last boat leave?"),), max_tokens, time.time() + 60
    )


async def ask(path: Https, *, deadline_s: float = 30, asked: CloudRequest | None = None) -> tuple[str, CloudReply]:
    """The pieces put together, and the reply."""
    pieces, reply = [], None
    async with aclosing(path.ask(asked or request(), deadline_s=deadline_s)) as events:
        async for piece in events:
            assert reply is None, "nothing comes after the reply"
            if isinstance(piece, CloudDelta):
                pieces.append(piece.text)
            else:
                reply = piece
    assert reply is not None
    return "".join(pieces), reply


# ---------------------------------------------------------------- answers


async def test_a_second_daemon_answers(daemon: RunningDaemon) -> None:
    endpoint = Endpoint(url=f"{daemon.url}/v1", model=TINY, price_in=1000, price_out=2000)
    async with Https(settings(endpoint, read_s=60), environ={}) as path:
        text, reply = await ask(path, asked=request(max_tokens=12))
    assert reply.text == text != ""
    assert (reply.key, reply.path, reply.endpoint, reply.model) == ("key-1", "https", "cloud", TINY)
    assert reply.usage.completion_tokens <= 12
    assert reply.usage.prompt_tokens > 5
    assert reply.cost == pytest.approx(reply.usage.prompt_tokens / 1000 + reply.usage.completion_tokens / 500)


async def test_openais_variables_find_the_server(daemon: RunningDaemon) -> None:
    env = {"OPENAI_BASE_URL": f"{daemon.url}/v1", "OPENAI_API_KEY": "sk-any", "OPENAI_MODEL": TINY}
    async with Https(settings(read_s=60), environ=env) as path:
        _, reply = await ask(path, asked=request(max_tokens=4))
    assert reply.model == TINY


async def test_what_is_sent_and_what_comes_back(cloud: FaultyCloud) -> None:
    async with Https(settings(at(cloud)), environ={"OPENAI_API_KEY": "sk-1"}) as path:
        text, reply = await ask(path)
        assert (text, reply.text, reply.model) == (ANSWER, ANSWER, "faulty-1")
        assert (reply.usage, reply.cost) == (Usage(40, 9), pytest.approx((400 + 900) / 1e6))
    (asked,) = cloud.asked
    assert asked.path == "/v1/chat/completions"
    assert asked.headers["authorization"] == "Bearer sk-1"
    assert asked.headers["idempotency-key"] == "key-1"
    assert asked.headers["accept-encoding"] == "identity"
    assert (asked.body["model"], asked.body["max_tokens"], asked.body["stream"]) == ("large", 50, True)


async def test_a_server_without_usage_and_one_that_does_not_stream(cloud: FaultyCloud) -> None:
    whole = b'{"model":"m","choices":[{"message":{"content":"At five."},"finish_reason":"stop"}]}'
    cloud.faults += [says(event("At five."), event(finish_reason="stop")), replies(200, whole)]
    async with Https(settings(at(cloud)), environ={}) as path:
        for _ in range(2):
            text, reply = await ask(path)
            assert text == reply.text == "At five."
            assert reply.usage == Usage(10, 3), "estimated"


async def test_a_server_that_wants_other_fields_is_understood(cloud: FaultyCloud) -> None:
    cloud.faults += [
        declines(400, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."),
        declines(422, "stream_options: extra fields not permitted"),
    ]
    async with Https(settings(at(cloud)), environ={}) as path:
        assert (await ask(path))[0] == ANSWER
        assert (await ask(path))[0] == ANSWER
    last = cloud.asked[-1].body
    assert len(cloud.asked) == 4, "learnt for the next question too"
    assert last["max_completion_tokens"] == 50
    assert not {"max_tokens", "stream_options"} & set(last)


class Ledger:
    """Keeps what is recorded, or refuses to."""

    def __init__(self, *, full: bool = False) -> None:
        self.kept: list[tuple[bytes, str, str, str]] = []
        self._full = full

    async def record(self, payload: bytes, *, key: str, path: str, endpoint: str) -> None:
        if self._full:
            raise CloudRefused("the disk is full")
        self.kept.append((payload, key, path, endpoint))


async def test_every_body_is_recorded_before_it_is_sent(cloud: FaultyCloud) -> None:
    cloud.faults += [declines(503)]
    ledger = Ledger()
    async with Https(settings(at(cloud), attempts=2), environ={}, recorder=ledger, clock=Skipping().clock()) as path:
        await ask(path)
    assert [kept[1:] for kept in ledger.kept] == [("key-1", "https", "cloud")] * 2
    assert all(b'"When does the last boat leave?"' in kept[0] for kept in ledger.kept)
    async with Https(settings(at(cloud)), environ={}, recorder=Ledger(full=True)) as path:
        with pytest.raises(CloudRefused, match="the disk is full"):
            await ask(path)
        assert path.breakers() == {"cloud": "closed"}
    assert len(cloud.asked) == 2, "nothing left without a record"


# ---------------------------------------------------------------- TLS


@dataclass(frozen=True)
class Certificates:
    ca: Path
    server: Path
    client_cert: Path
    client_key: Path


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    folder, authority = tmp_path_factory.mktemp("tls"), trustme.CA()
    made = Certificates(*(folder / name for name in ("ca.pem", "server.pem", "client.pem", "client.key")))
    authority.cert_pem.write_to_path(made.ca)
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(made.server)
    client = authority.issue_cert("device-1.site")
    client.cert_chain_pems[0].write_to_path(made.client_cert)
    client.private_key_pem.write_to_path(made.client_key)
    return made


@pytest.fixture
async def front(daemon: RunningDaemon, certificates: Certificates) -> AsyncIterator[Front]:
    """The second daemon behind TLS that wants a client's certificate."""
    async with Front(daemon.url, certificates.server, certificates.ca) as front:
        yield front


def secure(front: Front, **files: Path) -> Escalation:
    return settings(Endpoint(url=f"{front.url}/v1", model=TINY, **files), read_s=60)  # type: ignore[arg-type]


async def test_http2_with_a_client_certificate(front: Front, certificates: Certificates) -> None:
    escalation = secure(
        front, ca_file=certificates.ca, client_cert=certificates.client_cert, client_key=certificates.client_key
    )
    async with Https(escalation, environ={}) as path:
        text, reply = await ask(path, asked=request(max_tokens=4))
        both = await asyncio.gather(*(ask(path, asked=request(max_tokens=4, key=f"key-{n}")) for n in range(3)))
    assert text == reply.text != ""
    assert [reply.key for _, reply in both] == ["key-0", "key-1", "key-2"]
    assert front.versions == ["2"] * 4


async def test_a_server_of_another_authority_is_never_asked(front: Front, tmp_path: Path) -> None:
    trustme.CA().cert_pem.write_to_path(tmp_path / "other.pem")
    for escalation in (secure(front), secure(front, ca_file=tmp_path / "other.pem")):
        async with Https(escalation, environ={"OPENAI_API_KEY": "sk-1"}) as path:
            with pytest.raises(CloudUnavailable, match="certificate is not trusted") as caught:
                await ask(path)
        assert "ca_file" in caught.value.remedy
    assert front.versions == []


async def test_a_missing_client_certificate_is_hinted_at(front: Front, certificates: Certificates) -> None:
    async with Https(secure(front, ca_file=certificates.ca), environ={}) as path:
        with pytest.raises(CloudUnavailable, match="connection failed") as caught:
            await ask(path)
    assert "client_cert of 'cloud'" in caught.value.remedy
    assert front.versions == []


# ---------------------------------------------------------------- faults

UNAVAILABLE: dict[str, tuple[Fault, str]] = {
    "hangs before headers": (hangs_before_headers, "silent for 0.2 s"),
    "hangs mid-stream": (hangs_mid_stream, "silent for 0.2 s"),
    "alive without a word": (hangs_before_text, "did not answer in time"),
    "streams forever": (streams_forever, "did not answer in time"),
    "10 MB": (floods, "more than the 116736 bytes"),
    "10 MB without a line's end": (floods_one_line, "more than the 116736 bytes"),
    "429": (declines(429, "slow down"), r"HTTP 429 \(slow down\)"),
    "500": (declines(500, "oops", "internal"), r"HTTP 500 \(oops \(internal\)\)"),
    "503 without words": (replies(503, b"", "text/plain"), r"HTTP 503$|HTTP 503"),
    "garbage for HTTP": (no_http, "RemoteProtocolError"),
    "closes at once": (closes_at_once, "RemoteProtocolError"),
    "closes mid-chunk": (closes_mid_chunk, "RemoteProtocolError"),
    "garbage for JSON": (says(b"data: {{{\n\n"), "sent no JSON"),
    "garbage for UTF-8": (says(b"data: \xff\xff\n\n"), "no UTF-8"),
    "deep JSON": (says(b"data: " + b"[" * 50_000 + b"\n\n"), "sent no JSON"),
    "truncated": (says(event("The last boat")), "ended in the middle"),
    "ends without an event": (says(), "ended in the middle"),
    "an error in the stream": (says(event("The"), data({"error": {"message": "GPU lost"}})), "broke off: GPU lost"),
    "wrong content type": (replies(200, b"<html>Welcome to our wifi", "text/html"), "answered with text/html"),
    "a sign-in page": (replies(302, location="http://login.example/"), "HTTP 302"),
    "packed": (replies(200, b"\x1f\x8b", "text/event-stream", content_encoding="gzip"), "packed its answer"),
    "JSON that is none": (replies(200, b"{"), "sent no JSON"),
}

REFUSED: dict[str, tuple[Fault, str, str]] = {
    "400": (declines(400, "bad request"), r"HTTP 400 \(bad request\)", "escalation.endpoints.model of 'cloud'"),
    "401": (declines(401, "wrong key sk-1"), r"HTTP 401 \(wrong key \*\*\*\)", "OPENAI_API_KEY"),
    "402": (declines(402, "pay"), "HTTP 402", "model of 'cloud'"),
    "403": (declines(403), "HTTP 403", "model of 'cloud'"),
    "404": (declines(404, "no such model"), "HTTP 404", "url of 'cloud'"),
    "413": (replies(413), "HTTP 413", "escalation.passages"),
    "moved": (replies(308, location="https://new.example/v1"), "moved to 'https://new.example/v1'", "url of 'cloud'"),
    "no money": (declines(429, "You exceeded your quota", "insufficient_quota"), "quota", "OPENAI_API_KEY"),
    "all tokens spent on thinking": (says(event(finish_reason="length"), DONE), "spent all", "escalation.max_tokens"),
    "filtered": (says(event(finish_reason="content_filter"), DONE), "content filter", "person"),
}


@pytest.mark.parametrize("name", UNAVAILABLE)
async def test_a_fault_is_told_within_its_deadline_and_counts_against_the_endpoint(
    name: str, cloud: FaultyCloud
) -> None:
    fault, message = UNAVAILABLE[name]
    cloud.faults += [fault] * 3
    async with Https(settings(at(cloud)), environ={"OPENAI_API_KEY": "sk-1"}) as path:
        for _ in range(3):
            assert path.online()
            started = time.monotonic()
            with pytest.raises(CloudUnavailable, match=message):
                await ask(path, deadline_s=TOTAL_S)
            assert time.monotonic() - started < TOTAL_S + SLACK_S
        assert path.breakers() == {"cloud": "open"}
        assert not path.online()


async def test_an_empty_answer_is_worth_another_try_and_no_outage(cloud: FaultyCloud) -> None:
    cloud.faults += [says(event(finish_reason="stop"), USAGE, DONE)] * 4
    async with Https(settings(at(cloud)), environ={}) as path:
        for _ in range(4):
            with pytest.raises(CloudUnavailable, match="empty answer"):
                await ask(path)
        assert path.breakers() == {"cloud": "closed"}
        assert (await ask(path))[0] == ANSWER


@pytest.mark.parametrize("name", REFUSED)
async def test_a_refusal_names_what_to_mend_is_not_tried_again_and_is_no_outage(name: str, cloud: FaultyCloud) -> None:
    fault, message, remedy = REFUSED[name]
    cloud.faults += [fault] * 4
    async with Https(settings(at(cloud), attempts=3), environ={"OPENAI_API_KEY": "sk-1"}) as path:
        for n in range(1, 5):
            with pytest.raises(CloudRefused, match=message) as caught:
                await ask(path)
            assert remedy in caught.value.remedy
            assert "sk-1" not in str(caught.value)
            assert len(cloud.asked) == n
        assert path.online()


async def test_nobody_listens() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{held.getsockname()[1]}/v1"
        async with Https(settings(Endpoint(url=url, model="m")), environ={}) as path:
            with pytest.raises(CloudUnavailable, match="ConnectError"):
                await ask(path)


async def test_a_connection_that_is_never_accepted_ends_with_its_deadline() -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        with socket.create_connection(full.getsockname()), socket.socket() as second:
            second.setblocking(False)
            second.connect_ex(full.getsockname())
            url = f"http://127.0.0.1:{full.getsockname()[1]}/v1"
            async with Https(settings(Endpoint(url=url, model="m"), connect_s=0.3), environ={}) as path:
                with pytest.raises(CloudUnavailable, match=r"no connection within 0\.3 s"):
                    await ask(path)


# ---------------------------------------------------------------- retries, order, breaker


async def test_a_failure_is_tried_again_with_jitter_and_the_same_key(cloud: FaultyCloud) -> None:
    cloud.faults += [declines(500), closes_at_once]
    skipping = Skipping(jitter=0.5)
    async with Https(settings(at(cloud), attempts=3), environ={}, clock=skipping.clock()) as path:
        assert (await ask(path))[0] == ANSWER
        assert path.breakers() == {"cloud": "closed"}
    assert skipping.slept == pytest.approx([0.125, 0.25])
    assert {asked.headers["idempotency-key"] for asked in cloud.asked} == {"key-1"}


@pytest.mark.parametrize("wish", ["7", formatdate(1_800_000_007, usegmt=True)])
async def test_retry_after_is_respected_as_seconds_and_as_a_date(cloud: FaultyCloud, wish: str) -> None:
    cloud.faults += [declines(429, retry_after=wish)]
    skipping = Skipping(jitter=0.0)
    async with Https(settings(at(cloud), attempts=2), environ={}, clock=skipping.clock()) as path:
        assert (await ask(path))[0] == ANSWER
    assert skipping.slept == pytest.approx([7], abs=0.5)


async def test_a_wish_beyond_the_deadline_is_handed_on(cloud: FaultyCloud) -> None:
    cloud.faults += [declines(503, retry_after="120")]
    skipping = Skipping()
    async with Https(settings(at(cloud), attempts=3), environ={}, clock=skipping.clock()) as path:
        with pytest.raises(CloudUnavailable) as caught:
            await ask(path, deadline_s=30)
        assert caught.value.retry_after_s == pytest.approx(120, abs=2)
        with pytest.raises(CloudUnavailable, match="rests for"):
            await ask(path)
        assert (len(cloud.asked), skipping.slept) == (1, [])
        skipping.skipped += 121
        assert (await ask(path))[0] == ANSWER


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("0", 0), (" 12 ", 12), ("999999999999999", 3600), (formatdate(1000 + 90, usegmt=True), 90),
     (formatdate(1000 - 90, usegmt=True), 0), ("Sun, 06 Nov 1994 08:49:37", 3600),
     ("soon", None), ("-5", None), ("", None), ("1.5", None), ("٣", None)],
)  # fmt: skip
def test_retry_after_headers(header: str, seconds: float | None) -> None:
    assert retry_after_s(header, 1000.0 if "1994" not in header else 0.0) == seconds


async def test_endpoints_are_asked_in_their_order(cloud: FaultyCloud) -> None:
    async with FaultyCloud() as second:
        cloud.faults += [declines(500), declines(401), hangs_before_headers]
        skipping = Skipping()
        both = settings(at(cloud, "first"), at(second, "second"), attempts=2)
        async with Https(both, environ={}, clock=skipping.clock()) as path:
            for _ in range(3):
                assert (await ask(path))[1].endpoint == "second"
            assert (await ask(path))[1].endpoint == "first"
        assert (len(cloud.asked), len(second.asked), skipping.slept) == (4, 3, [])


async def test_an_endpoint_without_a_word_leaves_the_next_its_share_of_the_deadline(cloud: FaultyCloud) -> None:
    async with FaultyCloud() as second:
        cloud.faults += [hangs_before_text]
        async with Https(settings(at(cloud, "first"), at(second, "second")), environ={}) as path:
            started = time.monotonic()
            assert (await ask(path, deadline_s=2))[1].endpoint == "second"
            assert time.monotonic() - started < 2


async def test_it_is_refused_only_where_every_endpoint_refuses(cloud: FaultyCloud) -> None:
    async with FaultyCloud() as second:
        cloud.faults += [declines(401)] * 2
        second.faults += [declines(404), declines(500)]
        async with Https(settings(at(cloud, "first"), at(second, "second")), environ={}) as path:
            with pytest.raises(CloudRefused, match=r"first: HTTP 401.*second: HTTP 404"):
                await ask(path)
            with pytest.raises(CloudUnavailable, match=r"first: HTTP 401.*second: HTTP 500"):
                await ask(path)


async def test_nothing_is_tried_again_once_a_piece_was_shown(cloud: FaultyCloud) -> None:
    async with FaultyCloud() as second:
        cloud.faults += [closes_mid_chunk]
        async with Https(settings(at(cloud, "first"), at(second, "second"), attempts=3), environ={}) as path:
            events = path.ask(request(), deadline_s=30)
            assert await anext(events) == CloudDelta("The last boat")
            with pytest.raises(CloudUnavailable):
                await anext(events)
        assert second.asked == []


async def test_the_breaker_opens_and_a_probe_closes_it_again(cloud: FaultyCloud) -> None:
    cloud.faults += [declines(500)] * 3
    skipping = Skipping()
    async with Https(settings(at(cloud), attempts=3), environ={}, clock=skipping.clock()) as path:
        with pytest.raises(CloudUnavailable) as caught:
            await ask(path)
        assert path.breakers() == {"cloud": "open"}
        assert 4 < (caught.value.retry_after_s or 0) <= 5
        with pytest.raises(CloudUnavailable, match="rests for"):
            await ask(path)
        assert len(cloud.asked) == 3, "a resting endpoint is left alone"

        skipping.skipped += 5
        assert path.breakers() == {"cloud": "half_open"}
        cloud.faults += [hangs_before_headers]
        probe = asyncio.create_task(ask(path, deadline_s=TOTAL_S), name="probe")
        await cloud.has_been_asked(4)
        assert not path.online(), "one probe at a time"
        with pytest.raises(CloudUnavailable, match="silent"):
            await probe
        assert path.breakers() == {"cloud": "open"}

        skipping.skipped += 9
        assert not path.online(), "twice as long"
        skipping.skipped += 1
        assert (await ask(path))[0] == ANSWER
        assert path.breakers() == {"cloud": "closed"}


async def test_an_asker_that_leaves_costs_the_endpoint_nothing(cloud: FaultyCloud) -> None:
    async with Https(settings(at(cloud)), environ={}) as path:
        for _ in range(4):
            events = path.ask(request(), deadline_s=30)
            assert isinstance(await anext(events), CloudDelta)
            await events.aclose()
        cloud.faults += [hangs_before_headers] * 3
        for n in range(3):
            task = asyncio.create_task(ask(path), name="asker")
            await cloud.has_been_asked(5 + n)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert path.breakers() == {"cloud": "closed"}
        assert (await ask(path))[0] == ANSWER


async def test_a_proxy_carries_the_request(cloud: FaultyCloud) -> None:
    async with FaultyCloud() as proxy:
        endpoint = Endpoint(url="http://cloud.local/v1", model="m", proxy=proxy.url.removesuffix("/v1"))
        async with Https(settings(endpoint), environ={}) as path:
            assert (await ask(path))[0] == ANSWER
        assert proxy.asked[0].path == "http://cloud.local/v1/chat/completions"


@pytest.mark.parametrize("named", ["configuration", "environment"])
async def test_a_tunnel_through_a_proxy_ends_at_the_server(
    front: Front, certificates: Certificates, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    """TLS with the client's certificate goes through it: the proxy learns where to, and not a word."""
    async with Tunnel() as tunnel:
        if named == "environment":
            monkeypatch.setenv("HTTPS_PROXY", tunnel.url)
        endpoint = Endpoint(
            url=f"{front.url}/v1",
            model=TINY,
            proxy=tunnel.url if named == "configuration" else "",
            ca_file=certificates.ca,
            client_cert=certificates.client_cert,
            client_key=certificates.client_key,
        )
        async with Https(settings(endpoint, read_s=60), environ={"OPENAI_API_KEY": "sk-1"}) as path:
            assert (await ask(path, asked=request(max_tokens=4)))[0]
        assert tunnel.targets == [front.url.removeprefix("https://")]
        assert len(tunnel.carried) > 500
        assert b"boat" not in tunnel.carried
        assert b"sk-1" not in tunnel.carried
    assert front.versions == ["2"]


async def test_the_connection_is_kept_for_the_next_question(cloud: FaultyCloud) -> None:
    async with Https(settings(at(cloud)), environ={}) as path:
        for _ in range(3):
            await ask(path)
    assert cloud.connections == 1
