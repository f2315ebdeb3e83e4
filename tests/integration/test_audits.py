"""The promise is watched by a real daemon, with a second one as the cloud."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from agent.confidence.certificate import Certificate, Score, dump
from agent.config import Models
from agent.dependencies import Dependencies
from agent.installation import Installation
from tests.simulators.daemon import DEMO, RunningDaemon, running_daemon
from tests.simulators.waiting import until

WAIT_S = 60.0
ALONE = {"OUTPOST_MODELS__TEXT": "", "OUTPOST_MODELS__RANKER": ""}
"""Quotes by keywords: the same everywhere, and loaded in no time."""
QUESTIONS = (
    "What does a ticket for adults cost?",
    "When do you open on Sundays?",
    "Where are the toilets?",
    "Are dogs allowed?",
    "Where can I park my car?",
    "Is there a cloakroom?",
    "Can I take photographs?",
    "Is there a lift?",
    "What is in the Dome?",
    "When does the cafe close?",
    "Do you have guided tours?",
    "Is there a family ticket?",
)


def certificate(state: Path) -> Certificate:
    """One for quotes that covers nearly all of them, about what a daemon of `ALONE` over ``state`` loads."""
    installed = Installation.open(state)
    loaded = Dependencies(
        pack=lambda: None,
        embedding=lambda: installed.embedding(Models().embedding),
        ranker=lambda: None,
        text=lambda: None,
    )
    return Certificate(
        route="quote", epsilon=0.05, delta=0.05, threshold=0.5, n=400, served=390, wrong=5, coverage=0.975,
        risk=0.0128, risk_upper=0.03, bound=0.99, tuned_on=400, groups=12, depends_on=dict(loaded("quote")), data={},
        issued_at=1.0, score=Score(0.0, {"score": 1.0}, (), ((-5.0, 0.6), (5.0, 0.95))),
        scores=tuple(0.7 + place / 50 for place in range(11)),
    )  # fmt: skip


def settings(cloud: RunningDaemon) -> dict[str, str]:
    return ALONE | {
        "OPENAI_BASE_URL": cloud.url + "/v1",
        "OPENAI_API_KEY": "none",
        "OPENAI_MODEL": "outpost",
        "OUTPOST_ASSISTANT__POLICY": "certified",
        "OUTPOST_ESCALATION__ENABLED": "true",
        "OUTPOST_RISK__AUDIT_SHARE": "1.0",
        "OUTPOST_RISK__KEEP_EXAMPLES": "100",
    }


def live(daemon: RunningDaemon) -> dict[str, Any]:
    """The live risk of the quotes under their certificate."""
    found: dict[str, Any] = daemon.status()["live_risk"]["routes"][0]
    return found


@pytest.mark.timeout(400)
def test_a_promise_is_audited_broken_revoked_and_reinstated(tmp_path: Path) -> None:
    state = tmp_path / "device"
    with running_daemon(tmp_path / "cloud", settings=ALONE | {"OUTPOST_ASSISTANT__MIN_CONFIDENCE": "0.01"}) as cloud:
        cloud.cli("knowledge", "add", str(DEMO / "documents"))
        promised = certificate(state)
        (state / "certificates").mkdir(parents=True)
        (state / "certificates" / "quote.json").write_bytes(dump(promised))
        with running_daemon(state, settings=settings(cloud)) as device:
            device.cli("knowledge", "add", str(DEMO / "documents"))
            _audits_agree(device, promised)
            _late_answers_teach(device)
            with cloud.client(operator=True) as client:  # from now on the cloud knows nothing, and says so
                client.delete("/v1/knowledge/default").raise_for_status()
            _audits_revoke(device, promised)
            device.process.kill()
            device.process.wait()
        with running_daemon(state, settings=settings(cloud) | {"OUTPOST_ASSISTANT__POLICY": "local-only"}) as device:
            _still_revoked_and_nothing_leaves(device, cloud, promised)
            device.cli("calibrate", "reinstate", promised.id)
            assert "not revoked" in device.cli("calibrate", "reinstate", promised.id, check=False).stderr
            assert live(device)["labels"]["cloud"] == 0
            assert device.ask(QUESTIONS[0])["certificate"] == promised.id
            _examples_calibrate(device, tmp_path)


def _audits_agree(device: RunningDaemon, promised: Certificate) -> None:
    for question in QUESTIONS[:3]:
        told = device.ask(question)
        assert (told["decision"], told["certificate"]) == ("local", promised.id)
    until(lambda: live(device)["labels"]["cloud"] == 3, "three labels", WAIT_S)
    found = live(device)
    assert found["lower"] == 0.0
    with device.client(operator=True) as client:
        rows = [json.loads(line) for line in client.get("/admin/examples").text.splitlines()]
        metrics = client.get("/metrics").text
    assert sorted(row["question"] for row in rows) == sorted(QUESTIONS[:3])
    right = [row for row in rows if row["right"]]
    assert right
    assert len(rows) - len(right) == found["wrong"]["cloud"]
    assert all(row["source"] == "audit" and row["answers"] == [row["answer"]] for row in right)
    assert f'outpost_live_risk_audits_total{{outcome="alike",route="quote"}} {len(right)}.0' in metrics


def _late_answers_teach(device: RunningDaemon) -> None:
    """The cloud's answer to a question that had to wait is an example like one that came at once."""
    for question, more in (("Xylophones zigzagging?", {"deadline_s": 0.5}), ("Zeppelins yodelling?", {})):
        told = device.ask(question, **more)
        assert told["decision"] == ("deferred" if more else "escalated"), told

    def taught() -> set[str]:
        with device.client(operator=True) as client:
            rows = [json.loads(line) for line in client.get("/admin/examples").text.splitlines()]
        return {row["question"] for row in rows if row["source"] == "escalation" and not row["right"]}

    until(lambda: taught() == {"Xylophones zigzagging?", "Zeppelins yodelling?"}, "both are taught", WAIT_S)


def _audits_revoke(device: RunningDaemon, promised: Certificate) -> None:
    for question in QUESTIONS:
        device.ask(question)
    until(lambda: live(device)["revoked"], "the certificate is revoked", WAIT_S)
    found = live(device)
    assert found["certificate"] == promised.id
    assert found["lower"] >= 0.05
    told = device.ask(QUESTIONS[0])
    assert (told["reason"], told["certificate"]) == ("certificate_revoked", None)
    assert told["decision"] != "local"
    with device.client(operator=True) as client:
        assert 'outpost_certificate_revoked_total{route="quote"} 1.0' in client.get("/metrics").text
    assert any("revoked" in note for note in device.status()["notes"])
    assert re.search(r"quote\W+revoked", device.cli("status").stdout)
    assert {"decision": "revoked", "reason": "live_risk", "count": 1} in device.status()["decisions"]


def _still_revoked_and_nothing_leaves(device: RunningDaemon, cloud: RunningDaemon, promised: Certificate) -> None:
    found = device.status()["live_risk"]
    assert found["routes"][0]["certificate"] == promised.id
    assert found["routes"][0]["revoked"]
    assert (found["audits"]["barrier"], found["audits"]["waiting"]) == ("escalation_disabled", 0)
    asked = cloud.status()["decisions"]
    assert device.ask(QUESTIONS[1])["decision"] in ("local", "handoff")
    assert device.status()["live_risk"]["audits"]["waiting"] == 0
    assert cloud.status()["decisions"] == asked


def _examples_calibrate(device: RunningDaemon, folder: Path) -> None:
    """They go out as lines and in again: every one is asked. What comes of it is no certificate, for a device without
    embeddings is none to calibrate."""
    device.cli("calibrate", "examples", "--out", str(folder / "examples.jsonl"))
    lines = (folder / "examples.jsonl").read_text(encoding="utf-8").splitlines()
    assert {json.loads(line)["question"] for line in lines} >= set(QUESTIONS[:3])
    done = device.cli("calibrate", "answers", "--from-events", "--json", check=False)
    assert done.returncode == 1
    assert f"{len(lines)} of {len(lines)} questions say: keyword search only" in done.stderr
