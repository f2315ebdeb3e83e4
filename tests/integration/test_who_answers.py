"""A device that asks a cloud: a daemon with escalation, and a second daemon as the cloud that really generates."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest

from agent.confidence.certificate import Certificate, Score, dump
from agent.dependencies import Dependencies
from tests.simulators.daemon import TINY, RunningDaemon, install_tiny, running_daemon, uncertified
from tests.simulators.faulty_cloud import ANSWER, FaultyCloud, declines, event, says

UNKNOWN = "How deep is the harbour basin at low tide?"
_numbers = count(1)
KNOWN = "Where are the umbrellas?"
DOCUMENT = {"id": "a", "title": "Umbrellas", "text": "Umbrellas are behind the counter."}
PRICE_IN, PRICE_OUT = 1000.0, 2000.0
DEFERRED = "The answer comes later, see {event_id}."


@pytest.fixture(scope="module")
def cloud_state(tmp_path_factory: pytest.TempPathFactory, tiny_gguf: Path) -> Path:
    state = tmp_path_factory.mktemp("cloud")
    install_tiny(state, tiny_gguf)
    return state


@pytest.fixture(scope="module")
def cloud(cloud_state: Path) -> Iterator[RunningDaemon]:
    """The cloud: another Outpost, asked for its random-weight model."""
    with running_daemon(cloud_state, settings={"OUTPOST_MODELS__EMBEDDING": "", "OUTPOST_MODELS__TEXT": ""}) as running:
        yield running


def configuration(folder: Path, cloud_url: str, more: str = "", model: str = TINY, **escalation: Any) -> Path:
    """A device's file: no models of its own, so that it starts fast and knows what the document says only."""
    fields = {"max_tokens": 12, "total_s": 30, "daily_money": 10.0} | escalation
    lines = "\n".join(f"{name} = {json.dumps(value)}" for name, value in fields.items())
    path = folder / "agent.toml"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f"""[assistant]
policy = "best-effort"
deferred_text = "{DEFERRED}"
[models]
text = ""
embedding = ""
ranker = ""
[escalation]
{lines}
[[escalation.endpoints]]
name = "second"
url = "{cloud_url}/v1"
model = "{model}"
price_in = {PRICE_IN}
price_out = {PRICE_OUT}
{more}
"""
    )
    return path


def add_document(device: RunningDaemon) -> None:
    with device.client(operator=True) as client:
        for collection in ("default", "staff-room"):
            client.post(f"/v1/knowledge/{collection}/documents", json={"documents": [DOCUMENT]}).raise_for_status()


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory, cloud: RunningDaemon) -> Iterator[RunningDaemon]:
    """Best effort, with consent by `--cloud`; what is asked of the collection staff-room never leaves."""
    folder = tmp_path_factory.mktemp("device")
    overrides = '[overrides.collections.staff-room]\npolicy = "local-only"'
    config = configuration(folder, cloud.url, overrides)
    with running_daemon(folder / "state", arguments=("--config", str(config), "--cloud")) as running:
        add_document(running)
        yield running


def unknown() -> str:
    """A question that nobody has asked yet, so that no answer is kept for it."""
    return f"How deep is harbour basin {next(_numbers)} at low tide?"


def ask(daemon: RunningDaemon, question: str = "", **options: Any) -> dict[str, Any]:
    return daemon.ask(question or unknown(), **options)


def explain(daemon: RunningDaemon, question: str = UNKNOWN, **more: Any) -> dict[str, Any]:
    with daemon.client() as client:
        found: dict[str, Any] = (
            client.post("/v1/explain", json={"question": question, **more}).raise_for_status().json()
        )
        return found


def asked_of(cloud: RunningDaemon) -> float:
    """How many completions the cloud has been asked for, by its own count."""
    with cloud.client() as client:
        lines = client.get("/metrics").text.splitlines()
    counts = [line for line in lines if line.startswith('outpost_http_requests_total{route="/v1/chat/completions"')]
    return sum(float(line.rsplit(" ", 1)[1]) for line in counts)


def test_what_the_device_knows_it_answers_and_the_rest_the_cloud(device: RunningDaemon, cloud: RunningDaemon) -> None:
    before, spent = asked_of(cloud), device.status()["budget"]
    known = ask(device, KNOWN)
    assert (known["decision"], known["text"], known["cloud"]) == ("local", DOCUMENT["text"], None)
    assert asked_of(cloud) == before

    unknown = ask(device)
    assert (unknown["decision"], unknown["answer_kind"], unknown["certificate"]) == ("escalated", "cloud", None)
    assert unknown["text"], "the cloud's model really generates"
    assert (unknown["reason"], unknown["cloud"]["cut"]) == ("cloud_cut", True), "and has twelve tokens for it"
    assert [note for note in unknown["notes"] if "escalation.max_tokens" in note and "asked for: " in note]
    assert asked_of(cloud) == before + 1
    told, usage = unknown["cloud"], unknown["cloud"]["usage"]
    assert (told["path"], told["endpoint"], told["model"]) == ("https", "second", TINY)
    assert usage["completion_tokens"] > 0
    cost = (usage["prompt_tokens"] * PRICE_IN + usage["completion_tokens"] * PRICE_OUT) / 1e6
    assert told["cost"] == pytest.approx(cost)

    status = device.status()
    now = status["budget"]
    assert now["requests"]["spent"] == spent["requests"]["spent"] + 1
    assert now["tokens"]["spent"] == spent["tokens"]["spent"] + usage["total_tokens"]
    assert now["money"]["spent"] == pytest.approx(spent["money"]["spent"] + cost, abs=1e-5)
    with device.client() as client:
        assert f"outpost_cloud_requests_today {now['requests']['spent']:.1f}\n" in client.get("/metrics").text
    serving = status["serving"]
    assert serving["questions"] == serving["local"] + serving["escalated"] + serving["deferred"] + serving["handoff"]
    assert serving["local_coverage"] == pytest.approx(serving["local"] / serving["questions"], abs=1e-4)
    assert serving["escalation_rate"] > 0


def test_the_clouds_words_stream_once_the_decision_is_made_and_stay(device: RunningDaemon) -> None:
    body = {"model": "outpost", "stream": True, "messages": [{"role": "user", "content": unknown()}]}
    stages: list[str] = []
    pieces: list[str] = []
    about: dict[str, Any] = {}
    with device.client() as client, client.stream("POST", "/v1/chat/completions", json=body) as response:
        for line in response.iter_lines():
            if not line.startswith("data: {"):
                continue
            chunk = json.loads(line.removeprefix("data: "))
            told = chunk.get("outpost", {})
            if "stage" in told:
                assert not pieces, "no words before the last stage"
                stages.append(told["stage"])
            elif told:
                about = told
            for choice in chunk["choices"]:
                if words := choice["delta"].get("content"):
                    assert stages[-1] == "asking"
                    pieces.append(words)
    assert about["decision"] == "escalated"
    with device.client() as client:
        kept = client.get(f"/v1/events/{about['event_id']}").json()
    assert kept["answer"]["text"] == "".join(pieces), "what was shown is what is kept"


def test_the_same_question_is_not_sent_twice(tmp_path: Path, cloud: RunningDaemon) -> None:
    config = configuration(tmp_path, cloud.url, model="outpost")  # an assistant's answers end by themselves
    with running_daemon(tmp_path / "state", arguments=("--config", str(config), "--cloud")) as device:
        add_document(device)
        question = unknown()
        first, before = ask(device, question), asked_of(cloud)
        kept = explain(device, question)
        assert (kept["decision"], kept["leaves"]) == ("escalated", False)
        again = ask(device, question)
        assert (again["decision"], again["reason"], again["text"]) == ("escalated", first["reason"], first["text"])
        assert (first["cloud"]["cached"], again["cloud"]["cached"]) == (False, True)
        late = ask(device, question, deadline_s=0.5)
        assert (late["decision"], late["reason"]) == ("escalated", first["reason"]), "what is kept needs no waiting"
        assert asked_of(cloud) == before


def test_an_answer_that_was_cut_off_says_so_and_is_not_given_again(device: RunningDaemon, cloud: RunningDaemon) -> None:
    question, before = unknown(), asked_of(cloud)
    body = {"model": "outpost", "messages": [{"role": "user", "content": question}]}
    with device.client() as client:
        for _ in range(2):
            reply = client.post("/v1/chat/completions", json=body).raise_for_status().json()
            assert reply["choices"][0]["finish_reason"] == "length"
            assert (reply["outpost"]["cloud"]["cut"], reply["outpost"]["cloud"]["cached"]) == (True, False)
    assert asked_of(cloud) == before + 2
    deferred = ask(device, question, deadline_s=0.5)
    late = wait_for_answer(device, deferred["event_id"])
    assert (late["answer"]["cut"], late["outcome"]) == (True, "cloud_cut")


def test_who_cannot_wait_for_a_cloud_gets_the_answer_later(device: RunningDaemon) -> None:
    deferred = ask(device, deadline_s=0.5)
    assert (deferred["decision"], deferred["reason"]) == ("deferred", "deadline")
    assert wait_for_answer(device, deferred["event_id"])["answer"]["answer_kind"] == "cloud"


def test_a_dry_run_tells_the_route_and_takes_it_not(device: RunningDaemon, cloud: RunningDaemon) -> None:
    before, status = asked_of(cloud), device.status()
    found = explain(device)
    assert (found["decision"], found["leaves"], found["answer"]) == ("escalated", True, None)
    assert found["cloud"] == {"barrier": None, "online": True, "delay": None}
    assert found["policy"]["device"] == "best-effort"
    local = explain(device, KNOWN)
    assert (local["decision"], local["leaves"], local["answer"]) == ("local", False, DOCUMENT["text"])
    served = [candidate for candidate in local["candidates"] if candidate["served"]]
    assert [candidate["route"] for candidate in served] == ["quote"]
    assert served[0]["confidence"] >= served[0]["least_confidence"] == 0.5
    assert served[0]["why_uncertified"] == uncertified("quote")

    printed = device.cli("ask", "--dry-run", UNKNOWN).stdout
    assert "decision: escalated" in printed
    assert "would leave the device" in printed
    assert json.loads(device.cli("ask", "--dry-run", "--json", KNOWN).stdout)["decision"] == "local"
    with device.client() as client:
        assert client.post("/v1/explain", json={"question": UNKNOWN, "policy": "local-only"}).status_code == 400
    now = device.status()
    for part in ("budget", "serving", "escalation"):
        assert now[part] == status[part], "nothing was counted, recorded or stored"
    assert asked_of(cloud) == before


def test_a_dry_run_shows_the_operator_what_would_leave_and_records_nothing(
    device: RunningDaemon, cloud: RunningDaemon
) -> None:
    question = f"My name is Ada Lovelace. {unknown()}"
    recorded, before = device.status()["audit"], asked_of(cloud)
    with device.client(operator=True) as client:
        found = client.post("/v1/explain", json={"question": question}).raise_for_status().json()
        private = client.post("/v1/explain", json={"question": question, "private": True}).raise_for_status().json()
    assert explain(device, question)["request"] is None, "a visitor sees the route only"
    assert (private["leaves"], private["request"]) == (False, None)
    assert (found["leaves"], found["request"]["path"], found["request"]["endpoint"]) == (True, "https", "second")
    printed = device.cli("ask", "--dry-run", question).stdout
    assert "by https to second would go" in printed
    assert "Ada" not in json.dumps(found["request"])
    assert device.status()["audit"] == recorded
    assert asked_of(cloud) == before

    ask(device, question)
    entry = device.status()["audit"]["entries"]
    sent = json.loads(device.cli("audit", "show", str(entry)).stdout)
    shown = json.loads(found["request"]["payload"])
    for body in (sent, shown):  # what marks the passages is made of the key, and that of the event
        body["messages"] = re.sub(r"passages-[0-9a-f]{8}", "passages-", json.dumps(body["messages"]))
    assert shown == sent


def test_private_questions_and_local_only_collections_stay_on_the_device(
    device: RunningDaemon, cloud: RunningDaemon
) -> None:
    before = asked_of(cloud)
    private = ask(device, private=True)
    assert (private["decision"], private["reason"]) == ("handoff", "private")
    assert any("not answered by the device" in note for note in private["notes"])
    staff = ask(device, collection="staff-room")
    assert staff["decision"] == "handoff"
    assert explain(device, collection="staff-room")["policy"]["overrides"] == {
        "overrides.collections.staff-room": "local-only"
    }
    assert ask(device, KNOWN, collection="staff-room")["decision"] == "local"
    assert json.loads(device.cli("ask", "--json", "--private", UNKNOWN).stdout)["reason"] == "private"
    assert asked_of(cloud) == before


def test_what_stayed_on_the_device_does_not_leave_as_history(device: RunningDaemon) -> None:
    """Neither a private question nor one of a local-only collection, with what was answered to it."""
    ask(device, "Where are the umbrellas for guests?", session="talk")
    ask(device, "Does the blue parrot live here?", session="talk", private=True)
    staff = ask(device, "Where are the umbrellas of the night watch?", session="talk", collection="staff-room")
    assert staff["decision"] in ("local", "handoff")
    with device.client(operator=True) as client:
        body = {"question": unknown(), "session": "talk"}
        found = client.post("/v1/explain", json=body).raise_for_status().json()
    sent = [message["content"] for message in json.loads(found["request"]["payload"])["messages"]]
    assert len(sent) == 4, "system, one earlier pair and the question"
    assert sent[1] == "Where are the umbrellas for guests?"
    assert not [text for text in sent if "parrot" in text or "night watch" in text]


def test_what_was_found_with_a_private_questions_words_stays_too(device: RunningDaemon) -> None:
    """A follow-up is searched with the question before it: what it finds says what that was about."""

    def sent(session: str) -> str:
        body = {"question": "And is it dear on Sundays?", "session": session}
        with device.client(operator=True) as client:
            return str(client.post("/v1/explain", json=body).raise_for_status().json()["request"]["payload"])

    ask(device, KNOWN, session="open")
    ask(device, KNOWN, session="closed", private=True)
    assert DOCUMENT["text"] in sent("open")
    assert "mbrella" not in sent("closed")


def test_status_prints_promise_coverage_and_budget(device: RunningDaemon) -> None:
    ask(device)
    printed = device.cli("status").stdout
    for told in (
        "promise: at most 5.0%",
        "none: no_certificate",
        "answered locally",
        "cloud: online",
        "today's budget",
    ):
        assert told in printed, printed
    assert "collections.staff-room: policy local-only" in printed
    published = device.status()["audit"]
    assert published["entries"] > 0
    assert published["head"] in printed
    with device.client() as client:
        assert f"outpost_audit_entries {published['entries']:.1f}\n" in client.get("/metrics").text
    assert "no faults" in device.cli("audit", "verify", "--head", published["head"]).stdout


def test_without_consent_nothing_leaves_and_the_reason_stays(tmp_path: Path, cloud: RunningDaemon) -> None:
    """Endpoints and a key in the environment are no consent."""
    before = asked_of(cloud)
    config = configuration(tmp_path, cloud.url)
    settings = {"OPENAI_BASE_URL": f"{cloud.url}/v1", "OPENAI_API_KEY": "key", "OPENAI_MODEL": TINY}
    with running_daemon(tmp_path / "state", settings=settings, arguments=("--config", str(config))) as daemon:
        answer = ask(daemon)
        assert (answer["decision"], answer["reason"]) == ("handoff", "no_evidence")
        assert explain(daemon)["cloud"]["barrier"] == "escalation_disabled"
        assert daemon.status()["escalation"]["reason"] == "escalation_disabled"
    assert asked_of(cloud) == before


def test_under_cloud_first_the_device_answers_what_the_budget_does_not_reach_for(
    tmp_path: Path, cloud: RunningDaemon
) -> None:
    before = asked_of(cloud)
    config = configuration(tmp_path, cloud.url, enabled=True, daily_tokens=20)
    config.write_text(config.read_text().replace("best-effort", "cloud-first"))
    with running_daemon(tmp_path / "state", arguments=("--config", str(config))) as daemon:
        add_document(daemon)
        assert explain(daemon, KNOWN)["reason"] == "cloud_first"
        known = ask(daemon, KNOWN)
        assert (known["decision"], known["text"]) == ("local", DOCUMENT["text"])
        assert any("tokens" in note for note in known["notes"])
        assert ask(daemon)["reason"] == "budget_exhausted"
    assert asked_of(cloud) == before


def test_a_question_asked_while_the_cloud_is_away_is_answered_when_it_is_back_within_the_budget_across_a_restart(
    tmp_path: Path, tiny_gguf: Path
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = configuration(tmp_path, f"http://127.0.0.1:{port}", enabled=True, attempts=1, daily_requests=2)
    install_tiny(tmp_path / "cloud", tiny_gguf)
    models = {"OUTPOST_MODELS__EMBEDDING": "", "OUTPOST_MODELS__TEXT": ""}
    arguments = ("--config", str(config))
    with running_daemon(tmp_path / "state", arguments=arguments) as device:
        deferred = ask(device)
        assert deferred["decision"] == "deferred"
        assert deferred["reason"] in ("offline", "busy")
        assert deferred["text"] == DEFERRED.replace("{event_id}", deferred["event_id"])
        with running_daemon(tmp_path / "cloud", settings=models, arguments=("--port", str(port))):
            event = wait_for_answer(device, deferred["event_id"])
            assert event["answer"]["answer_kind"] == "cloud"
            assert device.status()["budget"]["requests"]["spent"] == 1
            assert ask(device)["decision"] == "escalated"
            over = ask(device)
            assert (over["decision"], over["reason"]) == ("handoff", "budget_exhausted")
    with running_daemon(tmp_path / "state", arguments=arguments) as device:
        again = ask(device)
        assert (again["decision"], again["reason"]) == ("handoff", "budget_exhausted")
        assert device.status()["budget"]["exhausted"] == "requests"


async def test_words_that_were_shown_stay_when_the_cloud_breaks_off_and_a_refusal_goes_to_a_person(
    tmp_path: Path,
) -> None:
    async with FaultyCloud() as faulty:
        faulty.faults.append(says(event("The basin is "), event("four")))
        config = configuration(tmp_path, faulty.url.removesuffix("/v1"), enabled=True, attempts=1)
        with running_daemon(tmp_path / "state", arguments=("--config", str(config))) as device:
            shown, about = await stream(device)
            deferred = DEFERRED.replace("{event_id}", about["event_id"])
            assert (about["decision"], about["reason"]) == ("deferred", "busy")
            assert shown == f"The basin is four\n\n{deferred}"
            later = await asyncio.to_thread(wait_for_answer, device, about["event_id"])
            assert later["answer"]["text"] == ANSWER

            faulty.faults.append(declines(403))
            refused = await asyncio.to_thread(ask, device, "Who won the cup?")
            assert (refused["decision"], refused["reason"]) == ("handoff", "cloud_refused")
            async with httpx.AsyncClient(base_url=device.url, timeout=60, trust_env=False) as client:
                headers = {"authorization": f"Bearer {device.operator_token}"}
                queue = (await client.get("/admin/handoffs", headers=headers)).raise_for_status().json()["handoffs"]
            waiting = [case["event_id"] for case in queue if case["state"] == "handed_off"]
            assert waiting == [refused["event_id"]], "a person has it, once"


async def stream(device: RunningDaemon) -> tuple[str, dict[str, Any]]:
    """What a visitor is shown, and the `outpost` object at the end."""
    body = {"model": "outpost", "stream": True, "messages": [{"role": "user", "content": unknown()}]}
    shown = ""
    about: dict[str, Any] = {}
    async with (
        httpx.AsyncClient(base_url=device.url, timeout=60, trust_env=False) as client,
        client.stream("POST", "/v1/chat/completions", json=body) as response,
    ):
        async for line in response.aiter_lines():
            if line.startswith("data: {"):
                chunk = json.loads(line.removeprefix("data: "))
                about = chunk.get("outpost", about)
                shown += "".join(choice["delta"].get("content") or "" for choice in chunk["choices"])
    return shown, about


def wait_for_answer(device: RunningDaemon, event_id: str) -> dict[str, Any]:
    with device.client(timeout=90) as client:
        event: dict[str, Any] = client.get(f"/v1/events/{event_id}", params={"wait": 60}).raise_for_status().json()
    assert event["state"] == "answered", event
    assert event["answer"]["text"]
    return event


# ---------------------------------------------------------------- certificates


def write_certificate(state: Path, changes: Mapping[str, str]) -> Certificate:
    """A certificate for quotes found by keywords, bound to what such a device has loaded, but for ``changes``."""
    loaded = Dependencies(pack=lambda: None, embedding=lambda: None, ranker=lambda: None, text=lambda: None)("quote")
    certificate = Certificate(
        route="quote", epsilon=0.05, delta=0.05, threshold=0.6, n=400, served=200, wrong=2, coverage=0.5, risk=0.01,
        risk_upper=0.03, bound=0.9, tuned_on=400, groups=20,
        score=Score(-5.0, {"keyword": 10.0}, ("keyword",), ((-5.0, 0.0), (5.0, 0.9))),
        depends_on={**loaded, **changes}, data={"sha256": "0" * 64}, issued_at=1_790_000_000.0,
    )  # fmt: skip
    folder = state / "certificates"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "quote.json").write_bytes(dump(certificate))
    return certificate


@pytest.mark.parametrize("void", [False, True], ids=["valid", "void"])
def test_a_valid_certificate_serves_with_its_own_confidence_and_a_void_one_escalates_and_says_why(
    tmp_path: Path, cloud: RunningDaemon, void: bool
) -> None:
    config = configuration(tmp_path, cloud.url, model="outpost")
    config.write_text(config.read_text().replace("best-effort", "certified"))
    certificate = write_certificate(tmp_path / "state", {"prompt": "f" * 64} if void else {})
    with running_daemon(tmp_path / "state", arguments=("--config", str(config), "--cloud")) as daemon:
        add_document(daemon)
        known = ask(daemon, KNOWN)
        route = next(route for route in daemon.status()["promise"]["routes"] if route["route"] == "quote")
        if void:
            assert (known["decision"], known["reason"]) == ("escalated", "certificate_void")
            assert (route["certificate"], route["reason"]) == (None, "certificate_void")
            assert "prompt" in route["detail"]
        else:
            assert (known["decision"], known["certificate"]) == ("local", certificate.id)
            features = explain(daemon, KNOWN)["candidates"][0]["features"]
            assert known["confidence"] == pytest.approx(certificate.confidence(features), abs=1e-3)
            assert route["certificate"] == certificate.id
            assert ask(daemon)["decision"] == "escalated"
