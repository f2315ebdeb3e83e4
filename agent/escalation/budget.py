"""The day's budget for the cloud: requests, tokens and money, counted before they are spent and kept across restarts.

    hold = await budget.reserve(*estimate(request.messages, request.max_tokens, endpoints))   # raises BudgetExhausted
    ... the request leaves ...
    await budget.settle(hold, reply.usage, reply.cost)      # what it really took
    await budget.release(hold)                              # or: it never left, or was refused

Tries that were sent and brought neither an answer nor a refusal (``lost``) count each with the reservation's estimate.

A reservation counts with its estimate until it is settled, so that requests under way together cannot go over a limit,
and one whose end is never known (a crash, a deadline) stays counted: the cloud may have billed it. A day is the
device's calendar day. Prices are the endpoints' (``price_in`` and ``price_out``, money a million tokens).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import apsw

from agent.config import Endpoint, Escalation
from agent.database import Database, transaction
from agent.errors import BudgetExhausted
from agent.messages import ChatMessage, Usage

Limit = Literal["requests", "tokens", "money"]
KEEP_DAYS = 90
_CHARS_A_TOKEN = 3
"""Fewer than English text has, so that an estimate is rather too high."""
_MESSAGE_TOKENS = 8

_MIGRATIONS = (
    """
    CREATE TABLE day (
        day TEXT PRIMARY KEY, requests INTEGER NOT NULL DEFAULT 0, tokens INTEGER NOT NULL DEFAULT 0,
        money REAL NOT NULL DEFAULT 0
    );
    CREATE TABLE hold (
        id INTEGER PRIMARY KEY AUTOINCREMENT, day TEXT NOT NULL, tokens INTEGER NOT NULL, money REAL NOT NULL
    );
    """,
)


def cost(endpoint: Endpoint, usage: Usage) -> float:
    """What an answer of this endpoint cost, in the money of the price table."""
    return (usage.prompt_tokens * endpoint.price_in + usage.completion_tokens * endpoint.price_out) / 1e6


def estimate(messages: Sequence[ChatMessage], max_tokens: int, endpoints: Sequence[Endpoint] = ()) -> tuple[int, float]:
    """The most tokens, both ways, and money that a request should take, at the dearest of ``endpoints``."""
    prompt = sum(len(message.content) // _CHARS_A_TOKEN + _MESSAGE_TOKENS for message in messages)
    usage = Usage(prompt, max_tokens)
    return prompt + max_tokens, max((cost(endpoint, usage) for endpoint in endpoints), default=0.0)


@dataclass(frozen=True, slots=True)
class Spent:
    """What a day has taken so far, reservations included."""

    day: str
    requests: int = 0
    tokens: int = 0
    money: float = 0.0


class Budget(Database):
    """One SQLite file; the async methods raise as those of `Database`."""

    def __init__(self, path: Path, limits: Escalation, *, clock: Callable[[], float] = time.time) -> None:
        super().__init__(path, _MIGRATIONS, "budget")
        self._limits = limits
        self._clock = clock
        self._spent = Spent("")

    @property
    def limits(self) -> Escalation:
        return self._limits

    def spent(self) -> Spent:
        """Today's; from memory."""
        today = self._today()
        return self._spent if self._spent.day == today else Spent(today)

    def exhausted(self) -> Limit | None:
        """The limit that leaves no room for one more request however small; from memory."""
        return _over(self.spent(), self._limits, tokens=1, money=0.0)

    async def reserve(self, tokens: int, money: float = 0.0) -> int:
        """Count one more request with what it may take; the hold to settle or release. Durable when it returns.
        Raises BudgetExhausted, which names the limit."""
        return await self.submit(lambda db: self._reserve(db, tokens, money))

    async def settle(self, hold: int, usage: Usage, cost: float = 0.0, *, lost: int = 0) -> None:
        """Replace a reservation by what was used; a hold that is settled already stays as it is."""
        tokens = usage.prompt_tokens + usage.completion_tokens
        await self.submit(lambda db: self._replace(db, hold, 1, tokens, cost, lost))

    async def release(self, hold: int, *, lost: int = 0) -> None:
        """Give a reservation back, but for what ``lost`` tries may have cost."""
        await self.submit(lambda db: self._replace(db, hold, 0, 0, 0.0, lost))

    # ------------------------------------------------------------ on the database's thread

    def _ready(self, db: apsw.Connection) -> None:
        db.execute("DELETE FROM hold")  # of a process that has ended: they stay counted
        db.execute("DELETE FROM day WHERE day NOT IN (SELECT day FROM day ORDER BY day DESC LIMIT ?)", (KEEP_DAYS,))
        self._spent = _read(db, self._today())

    def _reserve(self, db: apsw.Connection, tokens: int, money: float) -> int:
        today = self._today()
        with transaction(db):
            spent = _read(db, today)
            if limit := _over(spent, self._limits, tokens=tokens, money=money):
                raise BudgetExhausted(
                    f"the day's {limit} for the cloud are used up: {getattr(spent, limit):g} of "
                    f"{getattr(self._limits, f'daily_{limit}'):g}",
                    remedy=f"Raise escalation.daily_{limit}, or wait for tomorrow.",
                )
            _add(db, today, 1, tokens, money)
            db.execute("INSERT INTO hold (day, tokens, money) VALUES (?,?,?)", (today, tokens, money))
            hold = db.last_insert_rowid()
        self._spent = _read(db, today)
        return hold

    def _replace(self, db: apsw.Connection, hold: int, requests: int, tokens: int, money: float, lost: int) -> None:
        with transaction(db):
            row = next(db.execute("DELETE FROM hold WHERE id = ? RETURNING day, tokens, money", (hold,)), None)
            if row is not None:
                day, held_tokens, held_money = row
                kept = lost - 1  # of the estimate, which counts once so far
                _add(db, day, requests + kept, tokens + kept * held_tokens, money + kept * held_money)
        self._spent = _read(db, self._today())

    def _today(self) -> str:
        return time.strftime("%Y-%m-%d", time.localtime(self._clock()))


def _add(db: apsw.Connection, day: str, requests: int, tokens: int, money: float) -> None:
    db.execute(
        "INSERT INTO day (day, requests, tokens, money) VALUES (?,?,?,?) ON CONFLICT (day) DO UPDATE SET"
        " requests = requests + excluded.requests, tokens = tokens + excluded.tokens,"
        " money = max(0.0, money + excluded.money)",
        (day, requests, tokens, money),
    )


def _read(db: apsw.Connection, day: str) -> Spent:
    row = next(db.execute("SELECT requests, tokens, money FROM day WHERE day = ?", (day,)), None)
    return Spent(day, *row) if row else Spent(day)


def _over(spent: Spent, limits: Escalation, *, tokens: int, money: float) -> Limit | None:
    """The first limit that a request would go over."""
    if spent.requests + 1 > limits.daily_requests:
        return "requests"
    if spent.tokens + tokens > limits.daily_tokens:
        return "tokens"
    if spent.money + money > limits.daily_money or (limits.daily_money == 0 and money > 0):
        return "money"
    return None
