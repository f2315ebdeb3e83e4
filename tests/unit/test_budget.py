"""The day's budget on a real file: limits, reservations, restarts, midnight, threads of requests."""

from __future__ import annotations

import asyncio
import calendar
import time
from pathlib import Path

import pytest

from agent.config import Endpoint, Escalation
from agent.errors import BudgetExhausted, StorageFailed
from agent.escalation.budget import Budget, cost, estimate
from agent.messages import ChatMessage, Usage

NOON = float(calendar.timegm((2026, 3, 14, 12, 0, 0)))
PRICED = Endpoint(name="dear", price_in=2.0, price_out=10.0)


class Clock:
    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def greenwich(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()


def limits(**changes: float) -> Escalation:
    return Escalation.model_validate({"daily_requests": 5, "daily_tokens": 1000, "daily_money": 1.0, **changes})


@pytest.mark.parametrize(
    ("changes", "tokens", "money", "fits", "limit"),
    [
        ({"daily_requests": 2}, 10, 0.0, 2, "requests"),
        ({"daily_tokens": 300}, 100, 0.0, 3, "tokens"),
        ({"daily_tokens": 299}, 100, 0.0, 2, "tokens"),
        ({"daily_money": 0.5}, 10, 0.25, 2, "money"),
        ({"daily_requests": 0}, 0, 0.0, 0, "requests"),
        ({"daily_tokens": 0}, 1, 0.0, 0, "tokens"),
        ({"daily_money": 0.0}, 1, 0.001, 0, "money"),
        ({"daily_money": 0.0}, 1, 0.0, 5, "requests"),
    ],
)
async def test_a_limit_holds_to_the_last_request(
    tmp_path: Path, changes: dict[str, float], tokens: int, money: float, fits: int, limit: str
) -> None:
    async with Budget(tmp_path / "budget.db", limits(**changes)) as budget:
        for _ in range(fits):
            await budget.reserve(tokens, money)
        with pytest.raises(BudgetExhausted, match=rf"the day's {limit} .*escalation\.daily_{limit}"):
            await budget.reserve(tokens, money)
        assert budget.spent().requests == fits, "what was refused is not counted"


async def test_a_settled_reservation_costs_what_it_took_and_a_released_one_nothing(tmp_path: Path) -> None:
    async with Budget(tmp_path / "budget.db", limits()) as budget:
        first, second = await budget.reserve(600, 0.6), await budget.reserve(300, 0.3)
        with pytest.raises(BudgetExhausted):
            await budget.reserve(200, 0.05)
        await budget.settle(first, Usage(50, 20), 0.01)
        await budget.settle(first, Usage(50, 20), 0.01)
        await budget.release(second)
        spent = budget.spent()
        assert (spent.requests, spent.tokens, round(spent.money, 9)) == (1, 70, 0.01)
        assert budget.exhausted() is None


async def test_it_is_counted_across_a_restart_and_a_crash_leaves_the_estimate(tmp_path: Path) -> None:
    path = tmp_path / "budget.db"
    async with Budget(path, limits(daily_requests=2)) as budget:
        await budget.settle(await budget.reserve(100, 0.1), Usage(10, 5), 0.02)
        abandoned = await budget.reserve(100, 0.1)
    async with Budget(path, limits(daily_requests=2)) as budget:
        assert (budget.spent().requests, budget.spent().tokens) == (2, 115)
        assert budget.exhausted() == "requests"
        await budget.release(abandoned)
        assert budget.spent().tokens == 115, "nobody knows any more what became of it"


async def test_a_new_day_begins_at_midnight_and_an_old_answer_is_booked_to_its_own_day(tmp_path: Path) -> None:
    clock = Clock()
    async with Budget(tmp_path / "budget.db", limits(daily_requests=1), clock=clock) as budget:
        hold = await budget.reserve(100)
        assert budget.exhausted() == "requests"
        clock.now = NOON + 12 * 3600
        assert budget.exhausted() is None
        assert budget.spent().day == "2026-03-15"
        await budget.settle(hold, Usage(30, 30), 0.5)
        assert budget.spent().tokens == 0
        clock.now = NOON
    async with Budget(tmp_path / "budget.db", limits(), clock=clock) as budget:
        assert (budget.spent().tokens, budget.spent().money) == (60, 0.5)


async def test_requests_under_way_together_cannot_go_over(tmp_path: Path) -> None:
    async with Budget(tmp_path / "budget.db", limits(daily_requests=100)) as budget:
        results = await asyncio.gather(*(budget.reserve(90, 0.0) for _ in range(40)), return_exceptions=True)
    assert sum(isinstance(result, int) for result in results) == 11
    assert sum(isinstance(result, BudgetExhausted) for result in results) == 29


async def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "budget.db").write_bytes(b"not a database" * 1000)
    with pytest.raises(StorageFailed, match=r"budget\.db"):
        async with Budget(tmp_path / "budget.db", limits()):
            pass


def test_prices_are_of_a_million_tokens_and_an_estimate_takes_the_dearest() -> None:
    assert cost(PRICED, Usage(1_000_000, 100_000)) == 3.0
    tokens, money = estimate([ChatMessage("user", "x" * 300)], 100, [Endpoint(), PRICED])
    assert tokens == 208
    assert money == pytest.approx((108 * 2 + 100 * 10) / 1e6)
    assert estimate([], 10) == (10, 0.0)
