"""Figures of a score by hand-made cases, and the report that shows them."""

from __future__ import annotations

import json
import struct
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

from agent.confidence import calibration, measures, report
from agent.confidence.calibration import Prior, Sample
from agent.confidence.labelled import LabelledQuestion, answer_is_right, quote_is_right
from agent.confidence.outcome import Outcome, from_json, to_json

RIGHT = np.array([True, True, False, True, False])
SURE = np.array([0.9, 0.8, 0.7, 0.6, 0.1])


def test_auroc_counts_pairs() -> None:
    assert measures.auroc(SURE, RIGHT) == pytest.approx(5 / 6)
    assert measures.auroc(np.full(5, 0.5), RIGHT) == 0.5
    assert measures.auroc(SURE, np.ones(5, bool)) == 0.5


def test_aurc_is_the_mean_risk_over_coverages() -> None:
    risks = measures.risk_by_coverage(SURE, RIGHT)
    assert risks == pytest.approx([0, 0, 1 / 3, 1 / 4, 2 / 5])
    figures = measures.measures(SURE, RIGHT)
    assert figures["aurc"] == pytest.approx(np.mean(risks))
    assert figures["e_aurc"] == pytest.approx(np.mean(risks) - np.mean([0, 0, 0, 1 / 4, 2 / 5]))
    assert figures["error"] == pytest.approx(0.4)


def test_ties_share_their_errors_whatever_the_order() -> None:
    tied = np.array([0.9, 0.5, 0.5, 0.5])
    one = measures.risk_by_coverage(tied, np.array([True, False, True, True]))
    other = measures.risk_by_coverage(tied, np.array([True, True, True, False]))
    assert one == pytest.approx([0, 1 / 6, 2 / 9, 1 / 4])
    assert other == pytest.approx(one)


def test_ece_is_the_gap_weighted_by_the_bins() -> None:
    confidence = np.array([0.95, 0.95, 0.95, 0.95, 0.05])
    right = np.array([True, True, False, False, False])
    assert measures.calibration_error(confidence, right) == pytest.approx(0.8 * 0.45 + 0.2 * 0.05)


def test_no_order_beats_the_bound() -> None:
    right = np.arange(100) >= 30
    ideal = measures.risk_by_coverage(right.astype(float), right)
    reachable = (np.flatnonzero(ideal <= 0.05)[-1] + 1) / 100
    assert reachable <= measures.bound(0.30, 0.05) < reachable + 0.01
    assert measures.bound(0.01, 0.05) == 1.0


def test_the_design_effect_sees_questions_that_fail_together() -> None:
    wrong = np.repeat(np.arange(20) < 2, 10)
    together = [str(number // 10) for number in range(200)]
    apart = [str(number) for number in range(200)]
    assert measures.design_effect(wrong, together) == pytest.approx(10, rel=0.1)
    assert measures.design_effect(wrong, apart) == pytest.approx(1, abs=0.01)
    assert measures.design_effect(np.zeros(5, bool), list("abcde")) == 1.0


# ---------------------------------------------------------------- the report


@pytest.fixture(scope="module")
def outcome() -> Outcome:
    random = np.random.default_rng(3)
    x = random.normal(1.0, 1.5, 1200)
    right = random.random(1200) < 1 / (1 + np.exp(-2 * x))
    samples = [Sample({"x": float(a)}, bool(b), str(n)) for n, (a, b) in enumerate(zip(x, right, strict=True))]
    tune, held = calibration.split(samples)
    tuned = calibration.fit(tune, Prior(0.0, {"x": 1.0}))
    assert tuned is not None
    walk = calibration.certify(tuned, held, 0.1, 0.05)
    confidence = np.array([tuned.score(sample.features) for sample in held])
    groups = [sample.group for sample in held]
    curves = measures.curves(confidence, np.array([s.right for s in held]), groups, 0.1, walk.threshold)
    return Outcome("quote", walk.reason, 0.1, 0.05, None, walk, curves)


def test_an_outcome_survives_its_json(outcome: Outcome) -> None:
    assert from_json(json.loads(json.dumps(to_json(outcome)))) == outcome


def test_the_page_shows_every_chart_and_figure(outcome: Outcome) -> None:
    page = report.page([outcome, Outcome("generated", "too_few_labels", 0.1, 0.05)], "<1 May 2027>")
    assert "&lt;1 May 2027&gt;" in page
    assert page.count("<svg") == 2
    for name, value in report.facts(outcome):
        assert name in page
        assert value in page
    assert "too few right or too few wrong" in page
    assert "http" not in page.replace("http://www.w3.org/2000/svg", ""), "the page loads nothing"


def test_charts_stay_inside_their_frame(outcome: Outcome) -> None:
    for chart in report.charts(outcome):
        drawing = ET.fromstring(report.svg(chart))
        width, height = float(drawing.attrib["width"]), float(drawing.attrib["height"])
        for line in drawing.iter("{http://www.w3.org/2000/svg}polyline"):
            points = [tuple(map(float, pair.split(","))) for pair in line.attrib["points"].split()]
            assert all(0 <= x <= width and 0 <= y <= height for x, y in points)
        assert list(drawing.iter("{http://www.w3.org/2000/svg}circle"))


def test_charts_become_png_files(outcome: Outcome, tmp_path: Path) -> None:
    for chart in report.charts(outcome):
        data = report.write_png(chart, tmp_path).read_bytes()
        assert data[:8] == b"\x89PNG\r\n\x1a\n"
        assert min(struct.unpack(">II", data[16:24])) > 300


# ---------------------------------------------------------------- labels

ASKED = LabelledQuestion(
    "When does the café open?", ("9.30 am", "half past nine", "yes"), (), "The café opens at 9.30 am."
)


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("The café opens at 9.30 am.", True),
        ("Good to know. The café opens at 9.30 am.", True),
        ("## Café\nThe café opens at 9.30 am.", True),
        ("The shop opens at 9.30 am.", False),
        ("The café closes at 5 pm.", False),
        ("yes", False),
        ("", False),
    ],
)
def test_a_quote_is_right_with_answer_and_evidence(text: str, right: bool) -> None:
    assert quote_is_right(ASKED, text) is right


@pytest.mark.parametrize(
    ("text", "right"),
    [("9.30 am", True), ("At 9.30 AM!", True), ("9.30", True), ("9", False), ("yes", False), ("", False)],
)
def test_a_generated_answer_is_right_by_its_words(text: str, right: bool) -> None:
    assert answer_is_right(ASKED, text) is right


def test_nothing_answers_an_unanswerable_question() -> None:
    asked = LabelledQuestion("Is there a pool?", ())
    assert not quote_is_right(asked, "There is a pool.")
    assert not answer_is_right(asked, "no")
