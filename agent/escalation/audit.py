"""The audit log: every request that left the device, exactly as it was sent.

Two tables. ``entry`` is a hash chain that is never changed: each entry holds a salted digest of what was sent and the
hash of the entry before it. ``payload`` holds the bytes with their salt and session, so that a person's data can be
deleted: with the salt gone the digest says nothing about the words, and the chain still verifies. That payloads were
deleted is an entry of the chain itself; one that is missing without it is a fault.

`AuditLog` is the daemon's (one thread owns the database); `verify`, `entries`, `show` and `forget` read the same file
without a daemon, or beside one.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import TracebackType


@dataclass(frozen=True, slots=True)
class Entry:
    """One link of the chain. ``kind``: ``sent``, or ``deleted`` for payloads taken out since. ``at`` in Unix seconds,
    ``size`` of the payload in bytes; hashes in hex."""

    seq: int
    at: float
    kind: str
    key: str
    path: str
    endpoint: str
    size: int
    digest: str
    previous: str
    hash: str


class AuditLog:
    """Async context manager over one SQLite file (``state / "audit.db"``); methods raise StorageFull, StorageFailed."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def __aenter__(self) -> AuditLog:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    async def record(self, payload: bytes, *, key: str, session: str | None, path: str, endpoint: str) -> int:
        """Keep what is about to leave; its number in the chain. Call it before every send, with the very bytes that are
        sent (`request.body`, or the MQTT payload), and send nothing where it raises. Durable when it returns.

        ``key`` is the CloudRequest's. ``session`` None: that of an earlier send of the same key, if there was one.
        """
        raise NotImplementedError

    async def forget(self, session: str) -> int:
        """Delete what was sent for a session; how many payloads there were. What is sent later under the keys of these
        is recorded without its payload."""
        raise NotImplementedError
