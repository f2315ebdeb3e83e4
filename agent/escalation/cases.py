"""The outbox's rows as the rest sees them: what a question's case holds, how requests are stored, when to try again."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from agent.messages import AnswerKind, ChatMessage, CloudRequest, Inquiry, Quote, ToolCall

State = Literal["waiting", "handed_off", "answered", "expired"]
Topic = Literal["handoff", "events"]
Channel = Literal["webhook", "mqtt"]
LONGEST_WAIT_S = 300.0
ROW_BYTES = 512
"""What a row takes beside its texts."""
_PASSAGES = 3
COLUMNS = (
    "event_id, state, reason, language, collection, personal, question, passages, asked_at, changed_at, expires_at,"
    " attempts, answer, answer_kind, answered_by, learned, session"
)


@dataclass(frozen=True, slots=True)
class Case:
    """One question as it stands. Times in Unix seconds; ``personal``: it held personal data; ``passages``: what the
    device found, best first; ``learned``: its answer is in the knowledge base; ``session``: for the operator only."""

    event_id: str
    state: State
    reason: str
    language: str
    collection: str
    personal: bool
    question: str
    passages: tuple[str, ...]
    asked_at: float
    changed_at: float
    expires_at: float
    attempts: int = 0
    answer: str | None = None
    answer_kind: AnswerKind | None = None
    answered_by: str | None = None
    learned: bool = False
    session: str | None = None

    @property
    def final(self) -> bool:
        return self.state in ("answered", "expired")


@dataclass(frozen=True, slots=True)
class Waiting:
    """A row to send (again); ``restore`` brings the personal data back into its answer."""

    request: CloudRequest
    restore: bytes
    attempts: int
    session: str | None


@dataclass(frozen=True, slots=True)
class OutboxStatus:
    """``oldest_s``: age of the question that waits longest, 0 where none does."""

    waiting: int
    handed_off: int
    bytes: int
    limit_bytes: int
    oldest_s: float


@dataclass(frozen=True, slots=True)
class Notices:
    """Who is told what, besides those who ask: the channels of a topic."""

    handoff: tuple[Channel, ...] = ()
    events: tuple[Channel, ...] = ()

    def of(self, topic: Topic) -> tuple[Channel, ...]:
        return self.handoff if topic == "handoff" else self.events


@dataclass(frozen=True, slots=True)
class New:
    """A row to insert; ``size`` is what it counts in the outbox."""

    inquiry: Inquiry
    personal: bool
    state: State
    reason: str
    expires_at: float
    priority: int = 0
    request: str | None = None
    restore: bytes | None = None

    @property
    def size(self) -> int:
        texts = self.inquiry.text + passages_of(self.inquiry.passages) + (self.request or "")
        return ROW_BYTES + len(texts.encode()) + len(self.restore or b"")


def backoff(attempts: int, longest_s: float = LONGEST_WAIT_S) -> float:
    """Seconds until the next try: doubling, with jitter, so that devices do not come back together."""
    return random.uniform(0.5, 1.0) * min(longest_s, 2.0 ** min(attempts, 10))


async def set_within(event: asyncio.Event, timeout_s: float) -> bool:
    """Whether the event was set before the time was up."""
    try:
        async with asyncio.timeout(timeout_s):
            await event.wait()
    except TimeoutError:
        return False
    return True


def passages_of(quotes: Sequence[Quote]) -> str:
    """The best passages\' texts, as JSON."""
    return json.dumps([quote.text for quote in quotes[:_PASSAGES]], ensure_ascii=False)


def case_of(row: Sequence[Any]) -> Case:
    """From a row of COLUMNS."""
    values = list(row)
    values[5], values[7], values[15] = bool(values[5]), tuple(json.loads(values[7])), bool(values[15])
    return Case(*values)


def dump(request: CloudRequest) -> str:
    """For the database; `load` reads it."""
    return json.dumps(asdict(request), ensure_ascii=False)


def load(text: str) -> CloudRequest:
    """What `dump` wrote."""
    fields = json.loads(text)
    messages = tuple(
        ChatMessage(**{**message, "tool_calls": tuple(ToolCall(**call) for call in message["tool_calls"])})
        for message in fields["messages"]
    )
    return CloudRequest(**{**fields, "messages": messages})
