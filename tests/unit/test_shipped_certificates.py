"""Certificates that ship belong to the models that ship: whoever changes one makes the other again
(models/reference/certificates/README.md)."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.calibrating import Evidence, Given, conclude_intents
from agent.confidence.certificate import parse
from agent.config import Config, Risk
from agent.dependencies import Dependencies
from agent.installation import Installation
from agent.knowledge.intents import parse_pack
from agent.paths import shipped

FOLDER = shipped("models", "reference", "certificates")
FILES = sorted(FOLDER.glob("*-e*.json"))


def test_there_are_some() -> None:
    assert FILES, "models/reference/certificates/fit.py earned none: no promise is kept by what ships"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_shipped_certificate_belongs_to_what_ships(path: Path, tmp_path: Path) -> None:
    certificate = parse(path.read_bytes(), str(path))
    assert path.stem == f"{certificate.route}-e{certificate.epsilon * 100:.0f}"
    assert certificate.risk_upper <= certificate.epsilon
    assert certificate.coverage >= Risk().coverage_floor
    installation, config = Installation.open(tmp_path), Config()
    pack = parse_pack(shipped("models", "reference", "demo", "intents.toml").read_text(encoding="utf-8"))
    now = Dependencies(
        pack=lambda: pack,
        min_confidence=config.assistant.min_confidence,
        embedding=lambda: None,  # not in the checkout: every device makes it from the public weights
        ranker=lambda: installation.ranker(config.models.ranker),
        text=lambda: installation.slm(config.models.text),
    )(certificate.route)
    assert set(certificate.differences(now)) <= {"embedding"}, "run models/reference/certificates/fit.py again"


def test_other_bytes_of_the_pack_are_noticed(tmp_path: Path) -> None:
    """The test above can fail: the same comparison names what differs."""
    evidence = [
        Evidence(str(n), str(n), {"intent": Given({"in_scope": n / 1000, "probability": 0.9, "margin": 1.0}, n > 200)})
        for n in range(1000)
    ]
    (outcome,) = conclude_intents(evidence, Risk(), {"intents": "another"}, {})
    assert outcome.certificate is not None
    assert outcome.certificate.differences({"intents": "this"}) == ("intents",)
