"""Conversations on this device: a bounded window of turns a session, in memory only, gone when idle or on request (L2).

The window lets a visitor ask "and on Sundays?". Nothing is written to disk, and `Sessions.end` leaves nothing behind.
What had to stay on the device when it was asked stays out of the history that leaves with a later question.
"""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from agent.messages import ChatMessage

MAX_SESSIONS = 1000
_FOLLOW_UP = re.compile(
    r"^(and|but|or|so|then|also|what about|how about|what if|is that|are they|is it|does it|do they|why|why not)\b"
    r"|\b(it|that|there|they|them|those|this one|that one|the same)\b",
    re.IGNORECASE,
)
_WORD = re.compile(r"\w+")
_FEW_WORDS = 3


@dataclass(frozen=True, slots=True)
class _Pair:
    question: ChatMessage
    answer: ChatMessage
    confined: bool


@dataclass(slots=True)
class _Session:
    pairs: deque[_Pair]
    last_used: float = field(default=0.0)


class Sessions:
    """Windows of at most ``turns`` question-answer pairs; ``idle_s`` ends a session. For one event loop."""

    def __init__(self, turns: int, idle_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._turns = turns
        self._idle_s = idle_s
        self._clock = clock
        self._sessions: dict[str, _Session] = {}

    def window(self, id: str | None, *, leaving: bool = False) -> tuple[ChatMessage, ...]:
        """The earlier turns of a session, oldest first; none for an unknown, ended or absent one. ``leaving``: only
        those that may leave the device."""
        session = self._sessions.get(id) if id else None
        if session is None or session.last_used < self._clock() - self._idle_s:
            return ()
        kept = (pair for pair in session.pairs if not (leaving and pair.confined))
        return tuple(turn for pair in kept for turn in (pair.question, pair.answer))

    def remember(self, id: str | None, question: str, answer: str, *, confined: bool = False) -> None:
        """Add a pair, ``confined`` where it must never leave the device; the session that was silent longest goes when
        there are more than MAX_SESSIONS."""
        if not id or self._turns == 0:
            return
        session = self._sessions.pop(id, None)
        if session is None or session.last_used < self._clock() - self._idle_s:
            session = _Session(deque(maxlen=self._turns))
        session.pairs.append(_Pair(ChatMessage("user", question), ChatMessage("assistant", answer), confined))
        session.last_used = self._clock()
        self._sessions[id] = session
        while len(self._sessions) > MAX_SESSIONS:
            del self._sessions[next(iter(self._sessions))]

    def end(self, id: str) -> bool:
        """Forget a session; whether there was one."""
        return self._sessions.pop(id, None) is not None

    def expire(self) -> tuple[str, ...]:
        """Forget the idle sessions; their ids."""
        deadline = self._clock() - self._idle_s
        idle = tuple(id for id, session in self._sessions.items() if session.last_used < deadline)
        for id in idle:
            del self._sessions[id]
        return idle

    def __len__(self) -> int:
        return len(self._sessions)


def in_context(question: str, window: Sequence[ChatMessage]) -> str:
    """The text to search with: a follow-up (it begins like one, points back, or has hardly a word of its own) is read
    after the question before it.

    >>> in_context("and on Sundays?", [ChatMessage("user", "When do you open?"), ChatMessage("assistant", "At 9.")])
    'When do you open? and on Sundays?'
    """
    earlier = [turn.content for turn in window if turn.role == "user"]
    if not earlier:
        return question
    elliptic = len(_WORD.findall(question)) <= _FEW_WORDS or _FOLLOW_UP.search(question)
    return f"{earlier[-1]} {question}" if elliptic else question
