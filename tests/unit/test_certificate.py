"""Certificates as files: what they say survives, what they depend on binds them, what is revoked stays revoked."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from agent.confidence.certificate import Certificate, Certificates, Gate, Score, dump, parse
from agent.config import Promise, Risk
from agent.errors import ConfigError, StorageFailed

SCORE = Score(-1.0, {"similarity": 2.0, "logit:in_scope": 0.5}, ("similarity",), ((-2.0, 0.1), (0.0, 0.4), (3.0, 0.98)))
LOADED = {"score": "a" * 64, "text": "b" * 64}


def certificate(**changes: object) -> Certificate:
    made = Certificate(
        route="quote", epsilon=0.05, delta=0.05, threshold=0.8, n=400, served=150, wrong=2, coverage=0.375,
        risk=2 / 150, risk_upper=0.0413, bound=0.7, tuned_on=380, groups=12, score=SCORE, depends_on=LOADED,
        data={"sha256": "c" * 64}, issued_at=1_800_000_000.0, measures={"auroc": 0.93},
        scores=(0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98),
    )  # fmt: skip
    return replace(made, **changes)  # type: ignore[arg-type]


def device(folder: Path, risk: Risk | None = None, loaded: dict[str, str] | None = None) -> Certificates:
    here = Certificates(folder / "own", folder / "shipped", risk or Risk(), lambda route: loaded or LOADED)
    here.refresh()
    return here


def ship(folder: Path, *certificates: Certificate) -> None:
    (folder / "shipped").mkdir()
    for made in certificates:
        (folder / "shipped" / f"{made.route}-e{made.epsilon * 100:.0f}.json").write_bytes(dump(made))


def test_a_certificate_survives_its_file() -> None:
    gated = certificate(gate=Gate("quote", 0.6, SCORE), route="generated")
    for made in (certificate(), gated):
        assert parse(dump(made)) == made
        assert parse(dump(made)).id == made.id
    assert certificate().id != certificate(wrong=3).id
    assert certificate().id.startswith("quote-")


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        (("schema",), 2, "schema is not 1"),
        (("route",), "phone", "no route"),
        (("threshold",), 0.0, "out of range"),
        (("wrong",), 151, "contradict"),
        (("served",), 0, "contradict"),
        (("depends_on",), {}, "depends on"),
        (("score", "knots"), [[0.0, 0.5], [1.0, 0.4]], "do not rise"),
        (("score", "knots"), [], "no knots"),
        (("score", "bias"), float("nan"), "not finite"),
        (("more",), 1, "more"),
    ],
)
def test_a_damaged_certificate_is_none(path: tuple[str, ...], value: object, says: str) -> None:
    data = json.loads(dump(certificate()))
    place = data
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    with pytest.raises(ConfigError, match=says):
        parse(json.dumps(data).encode())


@pytest.mark.parametrize("text", [b"", b"[]", b"null", b'{"schema": 1}', b"\xff\xfe", b'{"schema": 1, "score": 3}'])
def test_what_is_no_certificate_is_refused(text: bytes) -> None:
    with pytest.raises(ConfigError, match="outpost calibrate"):
        parse(text)


def test_the_score_interpolates_between_its_knots_and_holds_at_the_ends() -> None:
    assert SCORE.at(-9) == 0.1
    assert SCORE.at(-1) == pytest.approx(0.25)
    assert SCORE.at(9) == 0.98
    assert SCORE({"similarity": 1.0, "in_scope": 0.5}) == pytest.approx(0.4 + 0.58 / 3)
    assert SCORE({"in_scope": 0.99}) == 0.0, "a feature that is needed is missing"
    assert SCORE({"similarity": float("nan")}) == 0.0


def test_a_gated_certificate_holds_only_where_the_other_route_leaves_the_question() -> None:
    gated = certificate(route="generated", gate=Gate("quote", 0.6, SCORE))
    sure, unsure = {"similarity": 3.0, "in_scope": 0.9}, {"similarity": 0.1, "in_scope": 0.1}
    assert gated.serves(sure, {"quote": unsure})
    assert not gated.serves(sure, {"quote": sure})
    assert gated.serves(sure, {}), "where there was no quote, it left the question"
    assert gated.confidence(unsure, {"quote": unsure}) < gated.threshold


# ---------------------------------------------------------------- those of a device


def test_a_device_without_any_says_so(tmp_path: Path) -> None:
    standing = device(tmp_path).current("quote")
    assert standing.certificate is None
    assert standing.reason == "no_certificate"


def test_an_installed_certificate_holds_after_a_restart_and_goes_with_its_companions(tmp_path: Path) -> None:
    here = device(tmp_path)
    here.install(
        ("quote", "generated"), [certificate(), certificate(route="generated", gate=Gate("quote", 0.6, SCORE))]
    )
    again = device(tmp_path)
    assert again.current("quote").certificate == certificate()
    assert again.current("generated").certificate is not None
    again.install(("quote", "generated"), [certificate(wrong=1)])
    last = device(tmp_path)
    assert last.current("quote").certificate == certificate(wrong=1)
    assert last.current("generated").reason == "no_certificate", "what was calibrated together goes together"


def test_another_model_voids_and_the_old_one_mends(tmp_path: Path) -> None:
    device(tmp_path).install(("quote",), [certificate()])
    other = device(tmp_path, loaded={**LOADED, "text": "d" * 64})
    assert other.current("quote").reason == "certificate_void"
    assert "text" in other.current("quote").detail
    missing = device(tmp_path, loaded={"score": "a" * 64})
    assert missing.current("quote").reason == "certificate_void"
    more = device(tmp_path, loaded={**LOADED, "ranker": "e" * 64})
    assert "ranker" in more.current("quote").detail
    assert device(tmp_path).current("quote").certificate is not None


@pytest.mark.parametrize(
    ("risk", "reason"),
    [
        (Risk(epsilon=0.05), ""),
        (Risk(epsilon=0.2, delta=0.1), ""),
        (Risk(epsilon=0.04), "certificate_weaker"),
        (Risk(delta=0.01), "certificate_weaker"),
        (Risk(routes={"quote": Promise(epsilon=0.01)}), "certificate_weaker"),
        (Risk(epsilon=0.01, routes={"quote": Promise(epsilon=0.05)}), ""),
        (Risk(coverage_floor=0.5), "coverage_below_floor"),
    ],
)
def test_the_operators_promise_is_what_counts(tmp_path: Path, risk: Risk, reason: str) -> None:
    device(tmp_path).install(("quote",), [certificate()])
    assert device(tmp_path, risk).current("quote").reason == reason


def test_revoked_stays_revoked(tmp_path: Path) -> None:
    here = device(tmp_path)
    here.install(("quote",), [certificate()])
    here.revoke(certificate().id, "live risk over epsilon")
    for each in (here, device(tmp_path)):
        assert each.current("quote").reason == "certificate_revoked"
        assert each.current("quote").detail == "live risk over epsilon"
    here.install(("quote",), [certificate(issued_at=1_800_000_001.0)])
    assert device(tmp_path).current("quote").certificate is not None, "a new calibration is another certificate"


def test_revocation_holds_even_where_it_cannot_be_kept(tmp_path: Path) -> None:
    here = device(tmp_path)
    here.install(("quote",), [certificate()])
    (tmp_path / "own" / "revoked.json.new").mkdir()
    with pytest.raises(StorageFailed):
        here.revoke(certificate().id, "live risk over epsilon")
    assert here.current("quote").reason == "certificate_revoked"


def test_an_unreadable_file_takes_its_own_route_only(tmp_path: Path) -> None:
    device(tmp_path).install(("quote", "generated"), [certificate(), certificate(route="generated")])
    (tmp_path / "own" / "quote.json").write_bytes(b"{")
    here = device(tmp_path)
    assert here.current("quote").reason == "certificate_unreadable"
    assert here.current("generated").certificate is not None
    (tmp_path / "own" / "revoked.json").write_bytes(b"[1")
    assert device(tmp_path).current("generated").reason == "certificate_unreadable", "nobody knows what was revoked"


def test_the_shipped_certificate_with_the_operators_promise_is_taken(tmp_path: Path) -> None:
    strict, loose = certificate(), certificate(epsilon=0.1, threshold=0.6)
    ship(tmp_path, strict, loose, certificate(route="generated", depends_on={"score": "f" * 64}))
    (tmp_path / "shipped" / "older.json").write_bytes(b'{"schema": 0}')
    assert device(tmp_path).current("quote").certificate == strict
    assert device(tmp_path, Risk(epsilon=0.1)).current("quote").certificate == loose
    assert device(tmp_path, Risk(epsilon=0.01)).current("quote").reason == "certificate_weaker"
    assert device(tmp_path).current("generated").reason == "certificate_void"


def test_the_devices_own_certificate_goes_before_a_shipped_one(tmp_path: Path) -> None:
    ship(tmp_path, certificate())
    device(tmp_path).install(("quote",), [certificate(wrong=0, depends_on={"score": "f" * 64})])
    assert device(tmp_path).current("quote").reason == "certificate_void", "its operator has calibrated: nothing older"


def test_a_revoked_shipped_certificate_is_not_replaced_by_a_stronger_promise(tmp_path: Path) -> None:
    ship(tmp_path, certificate(), certificate(epsilon=0.1, threshold=0.6))
    here = device(tmp_path, Risk(epsilon=0.1))
    here.revoke(certificate(epsilon=0.1, threshold=0.6).id, "live risk over epsilon")
    assert here.current("quote").reason == "certificate_revoked"
