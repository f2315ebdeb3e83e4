"""Make the shipped certificates again, after a reference model, the prompt or the demo's intent pack has changed:

    python models/reference/certificates/fit.py --embedding FOLDER [--evidence FILE]

FOLDER is what quantize.embedding makes of all-MiniLM-L6-v2. A daemon with the reference models and the demo's pack
answers every question of ../natural-calibration (some ten minutes) and classifies every utterance of intents*.jsonl;
for each promise below a certificate is written here where one is earned, and report-*.html says why or why not.
``--evidence`` keeps what the questions gave in FILE, and takes it from there where the file exists and the same parts
are loaded.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
sys.path.insert(0, str(ROOT))

from agent.calibrating import Evidence, Given, conclude_answers, conclude_intents  # noqa: E402
from agent.confidence import report  # noqa: E402
from agent.confidence.certificate import ROUTES, dump  # noqa: E402
from agent.confidence.outcome import Outcome  # noqa: E402
from agent.config import Config, Risk, RouteName  # noqa: E402
from agent.dependencies import Dependencies  # noqa: E402
from agent.installation import Installation  # noqa: E402
from agent.knowledge.intents import parse_pack  # noqa: E402
from tests.simulators.daemon import DEMO, clean_environment, running_daemon  # noqa: E402

QUESTIONS = HERE.parent / "natural-calibration"
TUNE = {"intents": [HERE / "intents.jsonl"], "answers": [QUESTIONS / f"questions-{pen}.jsonl" for pen in "ab"]}
"""What the scores are fitted on."""
FILES = {"intents": [HERE / "intents-b.jsonl"], "answers": [QUESTIONS / f"questions-{pen}.jsonl" for pen in "cdef"]}
"""What certifies, and has been used for nothing else."""
NAMES = {
    "intents": "models/reference/certificates/intents-b.jsonl",
    "answers": "models/reference/natural-calibration, questions-c to -f",
}
PROMISES = (0.05, 0.10)
DELTA = 0.05


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--embedding", type=Path, required=True)
    parser.add_argument("--evidence", type=Path, help="file that keeps the evidence")
    parser.add_argument("--only", choices=tuple(FILES), help="leave the other certificates as they are")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder)
        pull = [sys.executable, "-m", "agent", "models", "pull", "all-minilm-l6-v2", "--from", str(given.embedding)]
        subprocess.run([*pull, "--state", str(state)], check=True, env=clean_environment(), cwd=ROOT)
        depends_on = loaded(state)
        kept = recall(given.evidence, depends_on)
        wanted = [given.only] if given.only else list(FILES)
        if missing := [what for what in wanted if what not in kept]:
            kept |= collect(state, missing, depends_on)
    if given.evidence:
        given.evidence.write_text(json.dumps(kept), encoding="utf-8")
    outcomes = [out for epsilon in PROMISES for what in wanted for out in conclude(what, kept, depends_on, epsilon)]
    for route in {outcome.route for outcome in outcomes}:
        for path in HERE.glob(f"{route}-e*.json"):
            path.unlink()
    for outcome in outcomes:
        if outcome.certificate is not None:
            (HERE / f"{outcome.route}-e{outcome.epsilon * 100:.0f}.json").write_bytes(dump(outcome.certificate))
        facts = "; ".join(f"{name}: {value}" for name, value in report.facts(outcome))
        print(f"{outcome.route}, epsilon {outcome.epsilon:g}: {outcome.reason}; {facts}")
    for epsilon in PROMISES:
        page = report.page([o for o in outcomes if o.epsilon == epsilon], time.strftime("%d %B %Y"))
        (HERE / f"report-{given.only or 'all'}-e{epsilon * 100:.0f}.html").write_text(page, encoding="utf-8")


def loaded(state: Path) -> dict[RouteName, Mapping[str, str]]:
    """What the certificates depend on, as a device with these models sees it."""
    installation, config = Installation.open(state), Config()
    pack = parse_pack((DEMO / "intents.toml").read_text(encoding="utf-8"))
    now = Dependencies(
        pack=lambda: pack,
        min_confidence=config.assistant.min_confidence,
        embedding=lambda: installation.embedding(config.models.embedding),
        ranker=lambda: installation.ranker(config.models.ranker),
        text=lambda: installation.slm(config.models.text),
    )
    return {route: dict(now(route)) for route in ROUTES}


def recall(file: Path | None, depends_on: Mapping[RouteName, Mapping[str, str]]) -> dict[str, Any]:
    """What the file holds that is still of these parts and data."""
    if file is None or not file.is_file():
        return {}
    kept: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return {what: one for what, one in kept.items() if one["of"] == [digest(what), _parts(what, depends_on)]}


def collect(state: Path, missing: Sequence[str], depends_on: Mapping[RouteName, Mapping[str, str]]) -> dict[str, Any]:
    """Ask a real daemon."""
    found: dict[str, Any] = {}
    with running_daemon(state, settings={"OUTPOST_SERVER__REQUEST_TIMEOUT_S": "300"}) as daemon:
        daemon.cli("intents", "train", str(DEMO / "intents.toml"))
        env = clean_environment() | {"OUTPOST_URL": daemon.url, "OUTPOST_STATE": str(state)}
        for what in missing:
            out = state / f"{what}.jsonl"
            options = [part for file in FILES[what] for part in ("--data", str(file))]
            options += [part for file in TUNE[what] for part in ("--tune", str(file))]
            command = [sys.executable, "-m", "agent", "calibrate", what, *options, "--evidence", str(out)]
            subprocess.run(command, env=env, cwd=ROOT, check=False)  # 1 where nothing is certified
            evidence = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
            found[what] = {"of": [digest(what), _parts(what, depends_on)], "evidence": evidence}
    return found


def _parts(what: str, depends_on: Mapping[RouteName, Mapping[str, str]]) -> Mapping[str, str]:
    return depends_on["intent" if what == "intents" else "quote"]


def digest(what: str) -> str:
    """Of the labelled data, with the pages that they are about."""
    pages = sorted(FILES[what][0].parent.glob("pages/*.md")) if what == "answers" else []
    return hashlib.sha256(
        b"".join(hashlib.sha256(f.read_bytes()).digest() for f in [*FILES[what], *TUNE[what], *pages])
    ).hexdigest()


def conclude(
    what: str, kept: Mapping[str, Any], depends_on: Mapping[RouteName, Mapping[str, str]], epsilon: float
) -> list[Outcome]:
    risk = Risk(epsilon=epsilon, delta=DELTA)
    evidence = [_evidence(one) for one in kept[what]["evidence"]]
    data = {"name": NAMES[what], "sha256": digest(what)}
    if what == "answers":
        return conclude_answers(evidence, risk, depends_on, data)
    return conclude_intents(evidence, risk, depends_on["intent"], data, Config().assistant.min_confidence)


def _evidence(data: Mapping[str, Any]) -> Evidence:
    routes = {route: Given(**given) for route, given in data["routes"].items()}
    return Evidence(data["asked"], data["group"], routes, data["taken"], data["tune"])


if __name__ == "__main__":
    main()
