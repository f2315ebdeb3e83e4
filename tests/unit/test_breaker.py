"""The circuit breaker, told the time."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.escalation.breaker import Breaker, Rules

RULES = Rules(failures=3, rest_s=5, rest_max_s=20, probe_s=60)


def opened(now: float = 0.0) -> Breaker:
    breaker = Breaker(RULES)
    for _ in range(RULES.failures):
        breaker = breaker.sent(now).failed(now)
    return breaker


def test_failures_in_a_row_open_it_and_a_success_between_does_not_count() -> None:
    breaker = Breaker(RULES).failed(0).failed(0)
    assert breaker.state(0) == "closed"
    assert breaker.failed(0).state(0) == "open"
    assert breaker.succeeded().failed(0).failed(0).state(0) == "closed"


def test_it_rests_then_lets_one_probe_pass() -> None:
    breaker = opened()
    assert (breaker.state(4.9), breaker.admits(4.9), breaker.wait_s(2)) == ("open", False, 3)
    assert (breaker.state(5), breaker.admits(5)) == ("half_open", True)
    probing = breaker.sent(5)
    assert not probing.admits(6)
    assert probing.succeeded().state(6) == "closed"


def test_a_failed_probe_opens_it_for_twice_as_long_up_to_the_longest_rest() -> None:
    breaker, now, rests = opened(), 0.0, []
    for _ in range(4):
        rests.append(breaker.wait_s(now))
        now += rests[-1]
        breaker = breaker.sent(now).failed(now)
    assert rests == [5, 10, 20, 20]


def test_a_probe_that_is_withdrawn_or_lost_lets_another_pass() -> None:
    probing = opened().sent(5)
    assert probing.abandoned().admits(5)
    assert not probing.admits(64)
    assert probing.admits(65)


def test_what_was_sent_before_it_opened_does_not_lengthen_the_rest() -> None:
    breaker = opened().failed(1).failed(2)
    assert breaker.wait_s(2) == 3
    assert breaker.failed(2, retry_after_s=30).wait_s(2) == 30


def test_the_servers_own_wish_opens_it_at_once_and_its_end_closes_nothing_by_itself() -> None:
    breaker = Breaker(RULES).failed(0, retry_after_s=7)
    assert (breaker.state(6), breaker.state(7)) == ("open", "half_open")
    assert breaker.sent(7).failed(7).state(7) == "closed", "two failures, no wish: it never rested for failures"
    assert opened().sent(5).failed(5, retry_after_s=3).wait_s(5) == 10, "a short wish does not shorten the rest"


@dataclass(frozen=True)
class Step:
    seconds: float
    outcome: str


STEPS = st.lists(
    st.builds(
        Step, st.integers(0, 100).map(float), st.sampled_from(["failed", "wish", "succeeded", "abandoned", "lost"])
    ),
    max_size=60,
)


@given(STEPS)
def test_whatever_happens_it_admits_again_within_the_longest_rest(steps: list[Step]) -> None:
    breaker, now = Breaker(RULES), 0.0
    for step in steps:
        now += step.seconds
        assert breaker.admits(now) == (breaker.wait_s(now) == 0)
        if not breaker.admits(now):
            continue
        breaker = breaker.sent(now)
        if step.outcome == "failed":
            breaker = breaker.failed(now)
        elif step.outcome == "wish":
            breaker = breaker.failed(now, retry_after_s=15)
        elif step.outcome == "succeeded":
            breaker = breaker.succeeded()
            assert breaker.state(now) == "closed"
        elif step.outcome == "abandoned":
            breaker = breaker.abandoned()
    assert breaker.wait_s(now) <= max(RULES.rest_max_s, RULES.probe_s)
    assert breaker.admits(now + max(RULES.rest_max_s, RULES.probe_s))


@pytest.mark.parametrize("failures", [1, 2, 5])
def test_it_takes_as_many_failures_as_the_rules_say(failures: int) -> None:
    breaker = Breaker(Rules(failures=failures))
    for _ in range(failures - 1):
        breaker = breaker.failed(0)
    assert breaker.admits(0)
    assert not breaker.failed(0).admits(0)
