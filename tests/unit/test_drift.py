"""Drift of confidences, by seeded simulation."""

import math
import random

import pytest

from agent.telemetry.drift import WINDOW, Window, divergences

DECILES = tuple(place / 10 for place in range(11))


def watched(draw, count, deciles=DECILES, n=800):
    window = Window(deciles, n)
    for _ in range(count):
        window.add(draw())
    return window


def test_the_same_distribution_warns_of_nothing():
    chance = random.Random(1)
    drifts = [watched(chance.random, count).drift() for count in (20, 60, 150, 500) for _ in range(50)]
    assert not any(drift.warning for drift in drifts)
    assert sum(drift.psi for drift in drifts[-50:]) / 50 < 0.05


def test_a_shift_warns_and_only_with_enough_to_go_by():
    chance = random.Random(2)
    shifted = watched(lambda: chance.random() ** 3, 300).drift()
    assert shifted.warning
    assert shifted.psi > 0.5
    assert shifted.kl > 0.2
    assert not watched(lambda: chance.random() ** 3, 5).drift().warning


def test_a_score_with_steps_has_fewer_bins_and_no_false_alarm():
    """Isotonic scores take few values: many deciles are equal."""
    values, weights = (0.0, 0.4, 0.9), (4, 3, 3)
    deciles = (0.0, 0.0, 0.0, 0.0, 0.0, 0.4, 0.4, 0.4, 0.9, 0.9, 0.9)
    chance = random.Random(3)
    same = watched(lambda: chance.choices(values, weights)[0], 400, deciles).drift()
    assert same.psi < 0.05
    assert not same.warning
    assert watched(lambda: chance.choices(values, (1, 1, 8))[0], 400, deciles).drift().warning


def test_only_the_last_count_and_they_can_be_kept():
    window = watched(lambda: 0.95, WINDOW)
    assert window.drift().warning
    chance = random.Random(4)
    for _ in range(WINDOW):
        window.add(chance.random())
    assert not window.drift().warning
    assert Window(DECILES, 800, window.kept()).drift() == window.drift()
    assert window.drift().n == WINDOW


def test_nothing_is_claimed_of_nothing():
    assert Window(DECILES, 800).drift().psi is None
    assert watched(lambda: 0.5, 50, (0.7,) * 11).drift().psi is None


def test_divergences_by_hand():
    psi, kl = divergences([0.5, 0.5], [74, 24])
    assert kl == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5), abs=0.01)
    assert psi == pytest.approx(0.25 * math.log(3), abs=0.02)
