"""`outpost calibrate` against a real daemon: evidence from its own pipeline, certificates in force, voided by what they
depend on. The promises here are loose on purpose: these tests are about the mechanism, not about the models."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from agent.confidence.certificate import parse
from agent.telemetry.labels import Example, Labels
from tests.integration.conftest import install_embedding
from tests.simulators.daemon import DEMO, ROOT, RunningDaemon, running_daemon
from tests.simulators.waiting import until

UTTERANCES = ROOT / "models" / "reference" / "certificates" / "intents.jsonl"
QUESTIONS = ROOT / "models" / "reference" / "natural-dev" / "questions.jsonl"
FIGURES = [
    f"{colour} {animal}"
    for colour in ("amber", "bronze", "crimson", "golden", "ivory", "marble", "purple", "silver", "wooden")
    for animal in ("badger", "camel", "dolphin", "elephant", "falcon", "giraffe", "heron", "lion", "otter", "zebra")
]
SETTINGS = {"OUTPOST_MODELS__TEXT": "", "OUTPOST_RISK__EPSILON": "0.35", "OUTPOST_RISK__COVERAGE_FLOOR": "0.05"}


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    """A device without an SLM: quotes and intents."""
    state = tmp_path_factory.mktemp("calibrated")
    if not install_embedding(state):
        pytest.skip("OUTPOST_EMBEDDING_MODEL names no built embedding model")
    with running_daemon(state, settings=SETTINGS) as running:
        running.cli("intents", "train", str(DEMO / "intents.toml"))
        yield running


def standing(device: RunningDaemon, route: str) -> dict[str, object]:
    with device.client(operator=True) as client:
        routes = client.get("/admin/certificates").raise_for_status().json()["routes"]
    found: dict[str, object] = next(each for each in routes if each["route"] == route)
    return found


@pytest.mark.timeout(400)
def test_intents_are_certified_and_void_with_another_pack(device: RunningDaemon, tmp_path: Path) -> None:
    report = tmp_path / "report.html"
    done = device.cli("calibrate", "intents", "--data", str(UTTERANCES), "--report", str(report), "--json")
    (outcome,) = json.loads(done.stdout)["outcomes"]
    assert outcome["reason"] == "certified"
    certificate = parse((device.state / "certificates" / "intent.json").read_bytes())
    assert certificate.id == outcome["id"] == standing(device, "intent")["certificate"]
    assert certificate.wrong <= 0.35 * certificate.served
    assert certificate.n + certificate.tuned_on == len(UTTERANCES.read_text(encoding="utf-8").splitlines())
    assert report.read_text(encoding="utf-8").count("<svg") == 2

    pack = tmp_path / "pack.toml"
    pack.write_text((DEMO / "intents.toml").read_text(encoding="utf-8") + "\n# another\n", encoding="utf-8")
    device.cli("intents", "train", str(pack))
    assert standing(device, "intent")["reason"] == "certificate_void"
    assert "intents" in str(standing(device, "intent")["detail"])
    device.cli("intents", "train", str(DEMO / "intents.toml"))
    assert standing(device, "intent")["certificate"] == certificate.id


@pytest.mark.timeout(200)
def test_what_to_fit_on_can_be_named(device: RunningDaemon, tmp_path: Path) -> None:
    lines = UTTERANCES.read_text(encoding="utf-8").splitlines()
    tune, held = tmp_path / "tune.jsonl", tmp_path / "held.jsonl"
    tune.write_text("\n".join(lines[::3]), encoding="utf-8")
    held.write_text("\n".join(line for at, line in enumerate(lines) if at % 3), encoding="utf-8")
    done = device.cli("calibrate", "intents", "--data", str(held), "--tune", str(tune), "--json")
    (outcome,) = json.loads(done.stdout)["outcomes"]
    assert outcome["reason"] == "certified"
    assert outcome["certificate"]["n"] == len(lines) - len(lines[::3])
    assert outcome["certificate"]["tuned_on"] == len(lines[::3])

    mixed = tmp_path / "mixed.jsonl"
    mixed.write_text("\n".join(lines[:20]), encoding="utf-8")
    refused = device.cli("calibrate", "intents", "--data", str(held), "--tune", str(mixed), check=False)
    assert refused.returncode == 1
    assert "to tune on and to certify on" in refused.stderr
    assert standing(device, "intent")["certificate"] == outcome["id"]


@pytest.mark.timeout(400)
def test_answers_are_certified_on_documents_that_are_gone_afterwards(device: RunningDaemon, tmp_path: Path) -> None:
    kept = tmp_path / "evidence.jsonl"
    done = device.cli("calibrate", "answers", "--data", str(QUESTIONS), "--evidence", str(kept), "--json")
    (outcome,) = json.loads(done.stdout)["outcomes"]
    evidence = [json.loads(line) for line in kept.read_text(encoding="utf-8").splitlines()]
    asked = [json.loads(line)["question"] for line in QUESTIONS.read_text(encoding="utf-8").splitlines()]
    assert [one["asked"] for one in evidence] == asked
    assert len({one["group"] for one in evidence}) == 8
    assert outcome["route"] == "quote"
    assert outcome["reason"] == "certified"
    assert outcome["certificate"]["depends_on"]["text"] == "none"
    assert standing(device, "quote")["certificate"] == outcome["id"]
    with device.client() as client:
        collections = client.get("/v1/knowledge").json()["collections"]
    assert not [each for each in collections if each["collection"].startswith("calibrate-")]


@pytest.mark.timeout(200)
def test_the_devices_own_collection_can_be_asked(device: RunningDaemon, tmp_path: Path) -> None:
    """With too few labels to certify anything: exit code 1, and the collection stays."""
    (tmp_path / "hours.md").write_text("# Hours\n\nThe museum opens at 9 am.\n", encoding="utf-8")
    data = tmp_path / "own.jsonl"
    rows = [
        {"question": "When does the museum open?", "answers": ["9 am"]},
        {"question": "Is there a pool?", "answers": []},
    ]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    device.cli("knowledge", "add", "-c", "venue", str(tmp_path / "hours.md"))
    done = device.cli("calibrate", "answers", "--data", str(data), "-c", "venue", "--json", check=False)
    assert done.returncode == 1
    assert json.loads(done.stdout)["outcomes"][0]["reason"] == "too_few_labels"
    assert "venue" in device.cli("knowledge", "list", "--json").stdout


@pytest.mark.timeout(200)
async def test_a_device_by_keywords_is_calibrated_on_what_it_was_taught(tmp_path: Path) -> None:
    """Search by keywords is no gap where the configuration names no embedding model."""
    pages = {f"{name}.md": f"# The {name}\n\nThe {name} stands in room {at}.\n" for at, name in enumerate(FIGURES, 500)}
    asked: list[tuple[str, tuple[str, ...]]]
    asked = [(f"Where does the {name} stand?", (f"room {at}",)) for at, name in enumerate(FIGURES, 500)]
    asked += [(f"Which museum in Paris bought a painting of an {name}?", ()) for name in FIGURES[::2]]
    async with Labels(tmp_path / "labels.db", keep=len(asked)) as labels:
        for at, (question, answers) in enumerate(asked):
            await labels.add_example(f"evt-{at}", None, _taught(question, answers))
    (tmp_path / "pages").mkdir()
    for file, text in pages.items():
        (tmp_path / "pages" / file).write_text(text, encoding="utf-8")
    by_keywords = {"OUTPOST_MODELS__EMBEDDING": "", "OUTPOST_MODELS__RANKER": "", "OUTPOST_RISK__KEEP_EXAMPLES": "500"}
    with running_daemon(tmp_path, settings={**SETTINGS, **by_keywords}) as device:
        await asyncio.to_thread(device.cli, "knowledge", "add", "-c", "house", str(tmp_path / "pages"))
        done = await asyncio.to_thread(device.cli, "calibrate", "answers", "--from-events", "--json")
        found = json.loads(done.stdout)
        (outcome,) = found["outcomes"]
        assert (outcome["route"], outcome["reason"], found["notes"]) == ("quote", "certified", {})
        assert outcome["certificate"]["n"] + outcome["certificate"]["tuned_on"] == len(asked)
        assert outcome["certificate"]["depends_on"]["embedding"] == "none"
        assert standing(device, "quote")["certificate"] == outcome["id"]
        told = await asyncio.to_thread(device.ask, asked[0][0], collection="house")
        assert (told["decision"], told["retrieval"], told["certificate"]) == ("local", "keyword", outcome["id"])


def _taught(question: str, answers: tuple[str, ...]) -> Example:
    """What an audit leaves of a question."""
    return Example(
        question=question, answers=answers, collection="house", language="en", route="quote", answer="", right=False,
        source="audit", confidence=0.5, features={}, share=1.0, at=1.0,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([{"text": "hello"}], "has no 'intent'"),
        ([{"text": "raise your voice a notch", "intent": "luoder"}], "no intent 'luoder'"),
        ([], "no examples"),
    ],
)
def test_labels_that_cannot_be_used_are_named(
    device: RunningDaemon, tmp_path: Path, rows: list[dict[str, str]], says: str
) -> None:
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    done = device.cli("calibrate", "intents", "--data", str(data), check=False)
    assert done.returncode == 1
    assert says in done.stderr


def test_what_the_pack_has_learnt_certifies_nothing(device: RunningDaemon, tmp_path: Path) -> None:
    import tomllib

    intent = tomllib.loads((DEMO / "intents.toml").read_text(encoding="utf-8"))["intents"][0]
    data = tmp_path / "rows.jsonl"
    data.write_text(json.dumps({"text": intent["examples"][0].upper(), "intent": intent["name"]}), encoding="utf-8")
    done = device.cli("calibrate", "intents", "--data", str(data), check=False)
    assert done.returncode == 1
    assert "examples of the pack" in done.stderr


def test_a_document_that_is_not_there_is_named(device: RunningDaemon, tmp_path: Path) -> None:
    data = tmp_path / "rows.jsonl"
    data.write_text('{"question": "When?", "answers": [], "documents": ["no.md"]}', encoding="utf-8")
    assert "no folder" in device.cli("calibrate", "answers", "--data", str(data), check=False).stderr
    (tmp_path / "pages").mkdir()
    assert "no.md" in device.cli("calibrate", "answers", "--data", str(data), check=False).stderr


def test_calibration_is_the_operators(device: RunningDaemon) -> None:
    body = {"rows": [{"text": "speak up", "intent": "louder"}]}
    with device.client() as client:
        for path in ("/admin/calibrate/intents", "/admin/calibrate/answers"):
            assert client.post(path, json=body).status_code == 401
        assert client.get("/admin/certificates").status_code == 401


@pytest.mark.timeout(200)
def test_one_calibration_at_a_time_and_a_client_that_leaves_ends_its_own(device: RunningDaemon) -> None:
    body = _every_page_asked()
    with device.client(operator=True, timeout=120) as client:
        with client.stream("POST", "/admin/calibrate/answers", json=body) as running:
            lines = running.iter_lines()
            _until_asking(lines)
            assert len(_made_collections(client)) == 8
            second = client.post("/admin/calibrate/answers", json=body)
            assert second.status_code == 409
            assert second.json()["error"]["code"] == "conflict"
        _until_free(client)
        assert not _made_collections(client)


@pytest.mark.timeout(200)
def test_nothing_is_left_of_a_calibration_that_was_killed(tmp_path: Path) -> None:
    with (
        running_daemon(tmp_path, settings=SETTINGS) as device,
        device.client(operator=True, timeout=120) as client,
        client.stream("POST", "/admin/calibrate/answers", json=_every_page_asked()) as running,
    ):
        _until_asking(running.iter_lines())
        device.process.kill()
    with running_daemon(tmp_path, settings=SETTINGS) as device, device.client() as client:
        assert not _made_collections(client)


def _every_page_asked() -> dict[str, object]:
    rows = [json.loads(line) for line in QUESTIONS.read_text(encoding="utf-8").splitlines()]
    pages = {row["page"]: (QUESTIONS.parent / "pages" / row["page"]).read_text(encoding="utf-8") for row in rows}
    return {
        "rows": [{"question": row["question"], "answers": [], "documents": [row["page"]]} for row in rows],
        "documents": [{"id": name, "text": text} for name, text in pages.items()],
    }


def _until_asking(lines: Iterator[str]) -> None:
    """Its documents are stored then. (A response is closed with its last iterator of lines: keep that.)"""
    for line in lines:
        if '"asking"' in line:
            return
    raise AssertionError("the calibration ended before it asked")


def _made_collections(client: httpx.Client) -> list[str]:
    found = client.get("/v1/knowledge").raise_for_status().json()["collections"]
    return [each["collection"] for each in found if each["collection"].startswith("calibrate-")]


def _until_free(client: httpx.Client) -> None:
    """Asks for another calibration, which is refused for its labels once the one before has ended."""
    rows = [{"question": "When?", "answers": [], "documents": ["no.md"]}]
    wrong = {"rows": rows, "documents": [{"id": "a", "text": "b"}]}
    until(
        lambda: client.post("/admin/calibrate/answers", json=wrong).status_code == 400,
        "the end of the calibration of a client that went away",
    )
