"""The outbox: every question that the device could not answer, until somebody else has.

A question is one row with one state, so that it is answered once, whoever comes first:

    put -> waiting ----- settle (the cloud's own answer, never a broker's receipt) ------> answered
             | expires_at, or the cloud refuses                                              ^
             v                                                                               |
         handed_off ---- settle (a person) -----------------------------------------------+
             | nobody within `keep_hours`, or dismissed
             v
          expired

Sending is at least once: a waiting row is sent again, with the same idempotency key, until it is settled; the second
answer to a row is dropped. ``bytes`` of all rows together stay below the limit. **When it is full** rows that wait for
nobody any more (answered or expired) go first, oldest first; then a new question is refused with StorageFull. Questions
that go to a person at once are refused when those in the queue take half of it, so that they do not shut the way to
the cloud. A question that was accepted is never dropped to make room. Texts are erased ``KEEP_S`` after the last
change.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any

import apsw

from agent.errors import NotFound, StorageFull
from agent.escalation.cases import (
    COLUMNS,
    ROW_BYTES,
    Case,
    New,
    Notices,
    OutboxStatus,
    State,
    Topic,
    Waiting,
    case_of,
    dump,
    load,
    passages_of,
)
from agent.escalation.store import Store
from agent.messages import CLOUD_CUT, AnswerKind, CloudRequest, Inquiry

KEEP_S = 24 * 3600.0
"""How long an answer can be fetched after it came."""


class Outbox:
    """See the module. ``person_s``: how long a question stays in a person's queue. Every method raises StorageFull and
    StorageFailed; what it changed is on the disk when it returns."""

    def __init__(
        self,
        store: Store,
        *,
        limit_bytes: int,
        person_s: float,
        notices: Notices | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._limit_bytes = limit_bytes
        self._person_s = person_s
        self._notices = notices or Notices()
        self._clock = clock
        self._watchers: dict[str, set[asyncio.Future[None]]] = {}
        self._next_change = asyncio.Event()

    # ------------------------------------------------------------ to the cloud

    async def put(
        self,
        inquiry: Inquiry,
        request: CloudRequest,
        restore: bytes,
        *,
        personal: bool,
        priority: int = 0,
        reason: str = "",
    ) -> None:
        """Take a question in; a lower ``priority`` goes first. Taken already: nothing happens. Raises StorageFull."""
        row = New(inquiry, personal, "waiting", reason, request.expires_at, priority, dump(request), restore)
        await self._store.run(lambda db: self._insert(db, row))

    async def due(self, limit: int, busy: Collection[str] = ()) -> tuple[Waiting, ...]:
        """Waiting rows whose time has come and that nobody is sending now (``busy``: event ids)."""

        def select(db: apsw.Connection) -> tuple[Waiting, ...]:
            rows = db.execute(
                "SELECT event_id, request, restore, attempts, session FROM inquiry INDEXED BY inquiry_due"
                " WHERE state = 'waiting' AND next_try <= ? AND expires_at > ? ORDER BY priority, next_try LIMIT ?",
                (self._clock(), self._clock(), limit + len(busy)),
            )
            free = [row for row in rows if row[0] not in busy][:limit]
            return tuple(Waiting(load(sent), *rest) for _, sent, *rest in free)

        return await self._store.submit(select)

    async def defer(self, event_id: str, delay_s: float, reason: str) -> None:
        """Try again in ``delay_s`` seconds at the earliest; ``reason`` is a stable code."""

        await self._store.execute(
            "UPDATE inquiry SET attempts = attempts + 1, next_try = ?, reason = ? WHERE event_id = ?"
            " AND state = 'waiting'",
            self._clock() + delay_s, reason, event_id,
        )  # fmt: skip

    async def hasten(self) -> None:
        """A line is there again: all that waits is due now."""
        now = self._clock()  # not past it: the clock may have been ahead when a question was taken
        await self._store.execute(
            "UPDATE inquiry SET next_try = min(asked_at, ?) WHERE state = 'waiting' AND next_try > min(asked_at, ?)",
            now, now,
        )  # fmt: skip
        self.stir()

    async def settle(
        self,
        event_id: str,
        answer: str,
        kind: AnswerKind,
        by: str,
        *,
        late: bool = True,
        learned: bool = False,
        cut: bool = False,
    ) -> bool:
        """Store the answer and erase what was needed to get it. False where there is an answer already (or no such
        row): this one is dropped. ``late``: the asker is told by the channels. ``cut``: it is not whole, which becomes
        the row's reason."""

        def update(db: apsw.Connection) -> bool:
            now = self._clock()
            db.execute(
                "UPDATE inquiry SET state = 'answered', answer = ?, answer_kind = ?, answered_by = ?, learned = ?,"
                " reason = iif(?, ?, reason), changed_at = ?, expires_at = ?, request = NULL, restore = NULL,"
                " passages = '[]', bytes = ? + length(CAST(question AS BLOB))"
                " WHERE event_id = ? AND state IN ('waiting', 'handed_off')",
                (
                    answer,
                    kind,
                    by,
                    learned,
                    cut,
                    CLOUD_CUT,
                    now,
                    now + KEEP_S,
                    ROW_BYTES + len(answer.encode()),
                    event_id,
                ),
            )
            if db.changes() == 0:
                return False
            db.execute("DELETE FROM notice WHERE event_id = ? AND topic = 'handoff'", (event_id,))
            if late:
                self._notify(db, event_id, "events")
            return True

        settled = await self._store.run(update)
        if settled:
            self._wake(event_id)
        return settled

    async def withdraw(self, event_id: str) -> None:
        """Its asker has gone before it was accepted: forget it."""
        await self._store.execute("DELETE FROM inquiry WHERE event_id = ? AND state = 'waiting'", event_id)
        self._wake(event_id)

    @property
    def next_change(self) -> asyncio.Event:
        """Set at the next change. A loop takes it before it works and waits for it after, so that it misses none."""
        return self._next_change

    def stir(self) -> None:
        """Let the loops that wait for a change look again."""
        self._next_change.set()
        self._next_change = asyncio.Event()

    # ------------------------------------------------------------ to a person

    async def hand_over(self, inquiry: Inquiry, reason: str, *, personal: bool) -> None:
        """Put a question into a person's queue, from the outbox where it waits there. Raises StorageFull."""

        def work(db: apsw.Connection) -> None:
            row = New(inquiry, personal, "handed_off", reason, self._clock() + self._person_s)
            if self._to_person(db, inquiry.event_id, reason) or _known(db, inquiry.event_id):
                return
            queued = next(db.execute("SELECT total(bytes) FROM inquiry WHERE state = 'handed_off'"))[0]
            if queued + row.size > self._limit_bytes / 2:
                raise StorageFull(
                    f"the queue for people holds {queued:.0f} bytes of the outbox's {self._limit_bytes}",
                    remedy="Answer or dismiss some (outpost events list), or raise escalation.outbox_mb.",
                )
            if self._insert(db, row):
                self._notify(db, inquiry.event_id, "handoff")

        await self._store.run(work)
        self._wake(inquiry.event_id)

    async def refuse(self, event_id: str, reason: str) -> None:
        """The cloud will not answer it: to a person."""
        await self._store.run(lambda db: self._to_person(db, event_id, reason))
        self._wake(event_id)

    async def dismiss(self, event_id: str) -> None:
        """A person will not answer it either. Raises NotFound where it is in nobody's queue."""

        def update(db: apsw.Connection) -> None:
            self._close(db, "event_id = ? AND state = 'handed_off'", (event_id,), "dismissed")
            if db.changes() == 0:
                raise NotFound(f"no question {event_id!r} waits for a person")

        await self._store.run(update)
        self._wake(event_id)

    async def queue(self, limit: int = 200) -> tuple[Case, ...]:
        """What waits for a person, oldest first, then what a person answered lately, newest first."""

        def select(db: apsw.Connection) -> tuple[Case, ...]:
            open_cases = f"SELECT {COLUMNS} FROM inquiry WHERE state = 'handed_off' ORDER BY asked_at LIMIT ?"
            answered = (
                f"SELECT {COLUMNS} FROM inquiry WHERE state = 'answered' AND answer_kind = 'person'"
                " ORDER BY changed_at DESC LIMIT ?"
            )
            return tuple(case_of(row) for query in (open_cases, answered) for row in db.execute(query, (limit,)))

        return await self._store.run(select)

    async def learned(self, event_id: str) -> None:
        """Note that an answer is in the knowledge base now."""
        await self._store.execute("UPDATE inquiry SET learned = 1 WHERE event_id = ?", event_id)

    # ------------------------------------------------------------ reading

    async def get(self, event_id: str) -> Case:
        """Raises NotFound."""

        def select(db: apsw.Connection) -> Case:
            row = next(db.execute(f"SELECT {COLUMNS} FROM inquiry WHERE event_id = ?", (event_id,)), None)
            if row is None:
                raise NotFound(f"no question {event_id!r} is waiting", remedy="Answers are kept for a day.")
            return case_of(row)

        return await self._store.submit(select)

    async def ended(self, event_ids: Collection[str]) -> list[str]:
        """Those of these events that wait for the cloud no longer, or are not here."""

        def select(db: apsw.Connection) -> list[str]:
            waiting = "SELECT event_id FROM inquiry WHERE state = 'waiting'"
            given = json.dumps(list(event_ids))
            return [
                id for (id,) in db.execute(f"SELECT value FROM json_each(?) WHERE value NOT IN ({waiting})", (given,))
            ]

        return await self._store.submit(select)

    async def watch(self, event_id: str, timeout_s: float, seen: State | None = None) -> Case:
        """The case once it is final or its state is another than ``seen`` (default: than it is now), or as it is when
        the time is up. Raises NotFound."""
        watcher = asyncio.get_running_loop().create_future()
        self._watchers.setdefault(event_id, set()).add(watcher)
        try:
            case = await self.get(event_id)
            if case.final or (seen is not None and case.state != seen):
                return case
            await asyncio.wait({watcher}, timeout=timeout_s)
        finally:
            watcher.cancel()
            watchers = self._watchers.get(event_id, set())
            watchers.discard(watcher)
            if not watchers:
                self._watchers.pop(event_id, None)
        return await self.get(event_id)

    def release(self) -> None:
        """End every `watch` now, as if its time were up: the daemon stops."""
        for id in tuple(self._watchers):
            self._wake(id)

    async def status(self) -> OutboxStatus:
        def select(db: apsw.Connection) -> OutboxStatus:
            rows: list[Any] = db.execute("SELECT state, count(*) FROM inquiry GROUP BY state").fetchall()
            counts = dict(rows)
            oldest = next(
                db.execute("SELECT min(asked_at) FROM inquiry INDEXED BY inquiry_asked WHERE state = 'waiting'")
            )[0]
            age = max(0.0, self._clock() - oldest) if oldest is not None else 0.0
            return OutboxStatus(
                counts.get("waiting", 0), counts.get("handed_off", 0), _total(db), self._limit_bytes, round(age, 1)
            )

        return await self._store.run(select)

    async def forget(self, session: str) -> int:
        """Delete all that a session asked and was answered, also what is kept of it for others who ask the same,
        without a trace in the file; how many questions that were."""

        def delete(db: apsw.Connection) -> frozenset[str]:
            asked = "SELECT event_id FROM {} WHERE session = ?1"
            both = f"{asked.format('inquiry')} UNION {asked.format('cached')}"
            ids = frozenset(id for (id,) in db.execute(both, (session,)))
            for id in ids:
                db.execute("DELETE FROM notice WHERE event_id = ?", (id,))
            db.execute("DELETE FROM inquiry WHERE session = ?", (session,))
            db.execute("DELETE FROM cached WHERE session = ?", (session,))
            return ids

        if forgotten := await self._store.run(delete):
            await self._store.compact()
        for id in forgotten:
            self._wake(id)
        return len(forgotten)

    # ------------------------------------------------------------ time

    async def expire(self) -> int:
        """Hand over what waited too long, close what nobody answered, erase what was kept long enough; how many
        changed their state."""

        def work(db: apsw.Connection) -> tuple[str, ...]:
            now = self._clock()
            late = "SELECT event_id FROM inquiry WHERE state = ? AND expires_at <= ?"
            for_people = [id for (id,) in db.execute(late, ("waiting", now))]
            for id in for_people:
                self._to_person(db, id, "no_line")
            unanswered = [id for (id,) in db.execute(late, ("handed_off", now))]
            for id in unanswered:
                self._close(db, "event_id = ?", (id,), "nobody_answered")
            done = "SELECT event_id FROM inquiry WHERE state IN ('answered', 'expired') AND expires_at <= ?"
            kept_long_enough: list[Any] = db.execute(done, (now,)).fetchall()
            for (id,) in kept_long_enough:
                _delete(db, id)
            return (*for_people, *unanswered)

        changed = await self._store.run(work)
        for id in changed:
            self._wake(id)
        return len(changed)

    # ------------------------------------------------------------ inside a transaction

    def _insert(self, db: apsw.Connection, row: New) -> bool:
        """False where the event is here already."""
        inquiry = row.inquiry
        if _known(db, inquiry.event_id):
            return False
        self._make_room(db, row.size)
        now = self._clock()
        db.execute(
            "INSERT INTO inquiry (event_id, state, reason, session, language, collection, personal, question, passages,"
            " asked_at, changed_at, next_try, expires_at, priority, request, restore, bytes)"
            " VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
            (inquiry.event_id, row.state, row.reason, inquiry.session, inquiry.language, inquiry.collection,
             row.personal, inquiry.text, passages_of(inquiry.passages), now, now, now, row.expires_at, row.priority,
             row.request, row.restore, row.size),
        )  # fmt: skip
        return True

    def _make_room(self, db: apsw.Connection, size: int) -> None:
        """The full-policy of the module."""
        used = _total(db)
        if used + size <= self._limit_bytes:
            return
        kept = "SELECT event_id, bytes FROM inquiry WHERE state IN ('answered', 'expired') ORDER BY changed_at"
        rows: list[Any] = db.execute(kept).fetchall()
        for id, freed in rows:
            _delete(db, id)
            used -= freed
            if used + size <= self._limit_bytes:
                return
        raise StorageFull(
            f"the outbox holds {used} bytes of questions that wait; its limit is {self._limit_bytes}",
            remedy="Answer what waits for a person, or raise escalation.outbox_mb.",
        )

    def _to_person(self, db: apsw.Connection, event_id: str, reason: str) -> bool:
        now = self._clock()
        db.execute(
            "UPDATE inquiry SET state = 'handed_off', reason = ?, changed_at = ?, expires_at = ?, request = NULL,"
            " restore = NULL WHERE event_id = ? AND state = 'waiting'",
            (reason, now, now + self._person_s, event_id),
        )
        if db.changes() == 0:
            return False
        self._notify(db, event_id, "handoff")
        return True

    def _close(self, db: apsw.Connection, which: str, values: Sequence[object], reason: str) -> None:
        now = self._clock()
        ids = [id for (id,) in db.execute(f"SELECT event_id FROM inquiry WHERE {which}", tuple(values))]
        for id in ids:
            db.execute("DELETE FROM notice WHERE event_id = ?", (id,))
            self._notify(db, id, "events")
        db.execute(
            "UPDATE inquiry SET state = 'expired', reason = ?, changed_at = ?, expires_at = ?, question = '',"
            f" passages = '[]', bytes = {ROW_BYTES} WHERE {which}",
            (reason, now, now + KEEP_S, *values),
        )

    def _notify(self, db: apsw.Connection, event_id: str, topic: Topic) -> None:
        for channel in self._notices.of(topic):
            db.execute(
                "INSERT OR IGNORE INTO notice (event_id, topic, channel) VALUES (?,?,?)", (event_id, topic, channel)
            )

    def _wake(self, event_id: str) -> None:
        for watcher in self._watchers.get(event_id, ()):
            if not watcher.done():
                watcher.set_result(None)
        self.stir()


def _known(db: apsw.Connection, event_id: str) -> bool:
    return next(db.execute("SELECT 1 FROM inquiry WHERE event_id = ?", (event_id,)), None) is not None


def _delete(db: apsw.Connection, event_id: str) -> None:
    db.execute("DELETE FROM notice WHERE event_id = ?", (event_id,))
    db.execute("DELETE FROM inquiry WHERE event_id = ?", (event_id,))


def _total(db: apsw.Connection) -> int:
    return int(next(db.execute("SELECT total(bytes) FROM inquiry"))[0])
