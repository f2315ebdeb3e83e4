"""What the memory ledger decides."""

from __future__ import annotations

import random

import pytest

from agent.engines.ledger import Holding, make_room
from agent.errors import ModelDoesNotFit


def held(model: str, size: int, *, evictable: bool = True, pinned: bool = False, reload_s: float = 1, used: float = 0):
    return Holding(model, size << 20, evictable and not pinned, pinned, reload_s, used)


def room(needed: int, budget: int, *holdings: Holding) -> tuple[str, ...]:
    return make_room("new", needed << 20, budget << 20, holdings)


def test_nothing_goes_while_there_is_room():
    assert room(50, 100, held("a", 50)) == ()


def test_cheapest_to_reload_goes_first():
    assert room(50, 100, held("slow", 50, reload_s=9), held("fast", 50, reload_s=0.5)) == ("fast",)


def test_a_tie_goes_to_the_least_recently_used():
    assert room(50, 100, held("late", 50, used=7), held("early", 50, used=3)) == ("early",)


def test_a_small_one_stays_when_a_bigger_one_must_go_anyway():
    assert room(80, 100, held("small", 10, reload_s=0.1), held("big", 80, reload_s=5)) == ("big",)


def test_pinned_and_busy_ones_stay():
    with pytest.raises(ModelDoesNotFit, match=r"'new' needs 60 MiB, the budget is 100 MiB .* hold 90 MiB") as refused:
        room(60, 100, held("pinned", 20, pinned=True), held("busy", 70, evictable=False), held("idle", 10))
    assert refused.value.retry_after_s
    assert refused.value.http_status == 503


def test_what_can_never_fit_is_refused_for_good():
    with pytest.raises(ModelDoesNotFit, match=r"needs 101 MiB, the budget is 100 MiB") as refused:
        room(101, 100)
    assert refused.value.retry_after_s is None
    with pytest.raises(ModelDoesNotFit, match="pinned models hold 30 MiB") as refused:
        room(80, 100, held("pinned", 30, pinned=True))
    assert refused.value.retry_after_s is None


def test_any_plan_fits_evicts_only_what_may_go_and_nothing_in_vain():
    draw = random.Random(7)
    planned = 0
    for _ in range(2000):
        holdings = [
            held(
                str(index),
                draw.randint(0, 60),
                evictable=draw.random() < 0.7,
                pinned=draw.random() < 0.2,
                reload_s=draw.choice([0.1, 1, 5]),
                used=draw.random(),
            )
            for index in range(draw.randint(0, 6))
        ]
        needed, budget = draw.randint(0, 120), 100
        stay = sum(holding.bytes for holding in holdings if not holding.evictable) >> 20
        try:
            plan = room(needed, budget, *holdings)
        except ModelDoesNotFit:
            assert stay + needed > budget
            continue
        planned += bool(plan)
        sizes = {holding.model: holding.bytes >> 20 for holding in holdings}
        left = sum(sizes.values()) - sum(sizes[model] for model in plan)
        assert left + needed <= budget
        assert all(holding.evictable for holding in holdings if holding.model in plan)
        assert all(left + sizes[model] + needed > budget for model in plan if sizes[model])
    assert planned > 100
