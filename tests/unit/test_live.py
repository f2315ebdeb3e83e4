"""The confidence sequence of the live risk: by seeded simulation against known risks."""

import json
import random

import pytest

from agent.confidence.live import Judge, Sequence
from agent.config import Promise

PROMISE = Promise(epsilon=0.05, delta=0.05)
CLOUD = Judge(other=0.1, false_alarm=0.03, miss=0.05)


def fed(called_wrong, labels, seed, judge=CLOUD, sequence=None):
    """A sequence after ``labels`` labels, or when it is broken."""
    chance = random.Random(seed)
    sequence = sequence or Sequence(PROMISE, {"cloud": judge})
    for _ in range(labels):
        sequence.add("cloud", chance.random() < called_wrong)
        if sequence.broken:
            break
    return sequence


def observed(risk, judge=CLOUD):
    """How often answers are called wrong where all errors are independent."""
    right = judge.other + (1 - judge.other) * judge.false_alarm
    return risk * (judge.other + (1 - judge.other) * (1 - judge.miss)) + (1 - risk) * right


@pytest.mark.parametrize("judge", [CLOUD, Judge(other=0.0)], ids=["erring", "perfect"])
def test_a_kept_promise_is_revoked_in_no_more_than_delta_of_long_runs(judge):
    """At a true risk of exactly epsilon, and the errors as unkind as they may be: the one-sided 95 % bound."""
    runs = 200
    revoked = sum(fed(judge.most(0.05), 600, seed, judge).broken for seed in range(runs))
    assert revoked <= 15  # P(Binomial(200, .05) > 15) = .03


def test_a_cloud_that_is_right_nine_times_in_ten_revokes_nothing():
    """A device at a tenth of its promise, beside a cloud that errs as stated."""
    served = [fed(observed(0.005), 1500, seed) for seed in range(20)]
    assert not any(sequence.broken for sequence in served)
    estimates = [sequence.risk().estimate for sequence in served]
    assert sum(estimates) / len(estimates) == pytest.approx(0.005, abs=0.01)


@pytest.mark.parametrize(("risk", "labels"), [(0.2, 400), (0.4, 120)])
def test_a_broken_promise_is_noticed(risk, labels):
    noticed = [fed(observed(risk), labels, seed) for seed in range(20)]
    assert sum(sequence.broken for sequence in noticed) >= 18
    assert all(sequence.risk().lower >= 0.05 for sequence in noticed if sequence.broken)


def test_long_good_service_does_not_have_to_be_bet_away_first():
    """A change after 1,500 good labels is noticed in less than the labels that a running mean would need to pass
    the line."""
    before = fed(observed(0.01), 1500, 3)
    assert not before.broken
    after = fed(observed(0.3), 300, 4, sequence=before)
    assert after.broken
    risk = after.risk()
    assert risk.wrong["cloud"] / risk.labels["cloud"] < CLOUD.most(0.05)


def test_the_bounds_hold_the_true_risk_at_all_times():
    chance = random.Random(5)
    missed = 0
    for _ in range(30):
        sequence = Sequence(PROMISE, {"cloud": CLOUD})
        held = True
        for _ in range(600):
            sequence.add("cloud", chance.random() < observed(0.08))
            risk = sequence.risk()
            held = held and risk.lower <= 0.08 <= risk.upper
        missed += not held
        assert risk.upper < 1.0
    assert missed <= 4  # each bound misses with .05 at most


def test_a_verdict_is_final():
    sequence = fed(0.9, 50, 1)
    assert sequence.broken
    fed(0.0, 1000, 2, sequence=sequence)
    for _ in range(500):
        sequence.add("cloud", False)
    assert sequence.broken


def test_state_survives_json_and_goes_on_alike():
    straight = fed(0.15, 200, 7)
    begun = fed(0.15, 120, 7)
    resumed = Sequence.restore(json.loads(json.dumps(begun.state())), PROMISE, {"cloud": CLOUD})
    chance = random.Random(7)
    draws = [chance.random() < 0.15 for _ in range(200)]
    for wrong in draws[120:]:
        resumed.add("cloud", wrong)
    assert resumed.state() == straight.state()
    assert resumed.risk() == straight.risk()


def test_another_promise_or_judge_begins_anew():
    state = fed(0.9, 50, 1).state()
    stricter = Judge(other=0.2, false_alarm=0.03, miss=0.05)
    assert Sequence.restore(state, PROMISE, {"cloud": stricter}).labels == 0
    assert Sequence.restore(state, Promise(epsilon=0.1, delta=0.05), {"cloud": CLOUD}).labels == 0
    assert Sequence.restore(state, PROMISE, {"cloud": CLOUD}).broken


def test_judges_with_other_errors_weigh_differently():
    """The same six of ten called wrong say less when they come from one who is wrong 45 % of the time."""
    judges = {"cloud": Judge(0.0), "visitor": Judge(0.45)}
    by_cloud, by_visitor = Sequence(PROMISE, judges), Sequence(PROMISE, judges)
    for wrong in (True, False) * 4 + (True, True):
        by_cloud.add("cloud", wrong)
        by_visitor.add("visitor", wrong)
    assert by_cloud.broken
    assert not by_visitor.broken
    assert by_cloud.risk().labels == {"cloud": 10, "visitor": 0}


def test_a_judge_bounds_what_it_may_call_wrong():
    assert CLOUD.most(0.05) == pytest.approx(0.15 + 0.85 * 0.03)
    assert CLOUD.least(0.5) == pytest.approx(0.5 * 0.95 - 0.1)
    for risk in (0.0, 0.05, 0.3):
        assert CLOUD.least(risk) <= observed(risk) <= CLOUD.most(risk)
    assert Judge(0.0).guess(0.07) == pytest.approx(0.07)
