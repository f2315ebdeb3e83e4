"""Kept answers for questions that are alike: certified on labelled pairs by a real daemon with its embedding model and
given again by it, with a second daemon as the cloud that answers. The promise is loose: this is about the mechanism."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import install_embedding
from tests.simulators.daemon import ROOT, RunningDaemon, running_daemon

QUESTIONS = ROOT / "models" / "reference" / "natural-dev" / "questions.jsonl"
ALONE = {"OUTPOST_MODELS__TEXT": "", "OUTPOST_MODELS__RANKER": "", "OUTPOST_MODELS__INTENTS": ""}
TWINS = 100


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    settings = ALONE | {"OUTPOST_MODELS__EMBEDDING": ""}
    with running_daemon(tmp_path_factory.mktemp("cloud"), settings=settings) as running:
        yield running


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory, cloud: RunningDaemon) -> Iterator[RunningDaemon]:
    """A device without documents: whatever it is asked goes to the cloud."""
    state = tmp_path_factory.mktemp("device")
    if not install_embedding(state):
        pytest.skip("OUTPOST_EMBEDDING_MODEL names no built embedding model")
    settings = ALONE | {
        "OPENAI_BASE_URL": cloud.url + "/v1",
        "OPENAI_API_KEY": "none",
        "OPENAI_MODEL": "outpost",
        "OUTPOST_ESCALATION__ENABLED": "true",
        "OUTPOST_RISK__EPSILON": "0.2",
        "OUTPOST_RISK__KEEP_EXAMPLES": "100",
    }
    with running_daemon(state, settings=settings) as running:
        yield running


def questions() -> list[str]:
    rows = [json.loads(line) for line in QUESTIONS.read_text(encoding="utf-8").splitlines()]
    return list(dict.fromkeys(row["question"] for row in rows))


def others(known: list[str]) -> list[tuple[str, str]]:
    """Pairs of different questions, each question once."""
    rest = known[TWINS:]
    return list(zip(rest[::2], rest[1::2], strict=False))


def standing(device: RunningDaemon) -> dict[str, Any]:
    found: dict[str, Any] = next(r for r in device.status()["promise"]["routes"] if r["route"] == "cache")
    return found


def kept(device: RunningDaemon, question: str) -> None:
    """Ask until the answer is kept: that happens a moment after it is given."""
    for _ in range(50):
        if device.ask(question)["cloud"]["cached"]:
            return
    raise AssertionError("its answer was never kept")


@pytest.mark.timeout(300)
def test_a_certified_similarity_gives_kept_answers_to_questions_that_are_alike(
    device: RunningDaemon, cloud: RunningDaemon, tmp_path: Path
) -> None:
    known = questions()
    original = "Which harbour does the ferry from Farnholm leave from?"
    twin = "And which harbour does the ferry from Farnholm leave from"
    kept(device, original)
    assert standing(device)["reason"] == "no_certificate"
    assert "no_certificate" in device.cli("status").stdout
    assert device.ask(twin)["cloud"]["cached"] is False, "likeness counts for nothing without a certificate"

    pairs = [{"a": q, "b": f"And {q[0].lower()}{q[1:]}", "same": True} for q in known[:TWINS]]
    pairs += [{"a": a, "b": b, "same": False} for a, b in others(known)]
    data = tmp_path / "pairs.jsonl"
    data.write_text("".join(json.dumps(pair) + "\n" for pair in pairs), encoding="utf-8")
    done = device.cli("calibrate", "cache", "--data", str(data), "--json")
    (outcome,) = json.loads(done.stdout)["outcomes"]
    assert (outcome["route"], outcome["reason"]) == ("cache", "certified")
    similarity = outcome["certificate"]["measures"]["similarity"]
    assert 0.3 < similarity < 1.0
    assert standing(device)["certificate"] == outcome["id"]

    another = "Where can I leave my umbrella over the winter?"
    kept(device, another)
    told = device.ask(f"And {another[0].lower()}{another[1:]}")
    assert (told["decision"], told["cloud"]["cached"]) == ("escalated", True)
    assert told["cloud"]["similarity"] >= similarity
    assert device.ask("How old is the organ in the church?")["cloud"]["cached"] is False
    explained = device.cli("ask", "--dry-run", "--json", f"And {another[0].lower()}{another[1:]}").stdout
    assert json.loads(explained)["leaves"] is False

    certificate = device.state / "certificates" / "cache.json"
    assert set(json.loads(certificate.read_text())["depends_on"]) == {"similarity", "embedding", "ranker", "retrieval"}


@pytest.mark.timeout(200)
def test_labels_that_say_nothing_certify_nothing(device: RunningDaemon, tmp_path: Path) -> None:
    """Whether the pairs are the same has nothing to do with how alike they are."""
    known = questions()
    pairs = [{"a": a, "b": b, "same": place % 2 == 0} for place, (a, b) in enumerate(others(known))]
    data = tmp_path / "pairs.jsonl"
    data.write_text("".join(json.dumps(pair) + "\n" for pair in pairs), encoding="utf-8")
    done = device.cli("calibrate", "cache", "--data", str(data), "--json", check=False)
    assert done.returncode == 1
    assert standing(device)["reason"] == "no_certificate", "and takes away what was there"
    wrong = tmp_path / "wrong.jsonl"
    wrong.write_text('{"a": "x", "same": true}\n', encoding="utf-8")
    assert "has no 'b'" in device.cli("calibrate", "cache", "--data", str(wrong), check=False).stderr


@pytest.mark.timeout(200)
def test_the_devices_own_questions_are_paired(device: RunningDaemon) -> None:
    done = device.cli("calibrate", "cache", "--from-events", "--json", check=False)
    (outcome,) = json.loads(done.stdout)["outcomes"]
    assert outcome["reason"] == "too_few_labels"
    with device.client(operator=True) as client:
        rows = [json.loads(line) for line in client.get("/admin/examples").text.splitlines()]
    assert rows
    assert all(row["cloud"] for row in rows)
    assert not [row for row in rows if row["question"].startswith("And where can I leave")], "a kept answer is no label"
