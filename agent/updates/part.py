"""The unfinished file of a download, its progress, and what can go wrong with a disk.

The expected hash is part of the unfinished file's name, so a part is never continued with another file's bytes.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from agent.errors import Cancelled, OutpostError, StorageFailed, StorageFull

CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Progress:
    """``total`` is None until a size is known; ``rate`` in bytes a second, smoothed."""

    path: str
    done: int
    total: int | None
    rate: float


@dataclass(frozen=True, slots=True)
class Wanted:
    target: Path
    sha256: str
    size: int | None = None

    @property
    def part(self) -> Path:
        return self.target.with_name(f"{self.target.name}.{self.sha256[:16]}.part")

    @property
    def origin(self) -> Path:
        """Remembers which state of which server the part belongs to."""
        return self.part.with_name(f"{self.part.name}.origin")


class Part:
    """The bytes so far with their running hash."""

    def __init__(self, want: Wanted) -> None:
        self._want = want
        self.path = want.part
        self.length = 0
        self._hash = hashlib.sha256()
        self._origin = want.origin

    def __enter__(self) -> Part:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("a+b", buffering=0)
        self._file.seek(0)
        while data := self._file.read(CHUNK):
            self._hash.update(data)
            self.length += len(data)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        if not self.length:
            self.path.unlink(missing_ok=True)
            self._origin.unlink(missing_ok=True)

    def append(self, data: bytes) -> None:
        view = memoryview(data)
        while view:  # unbuffered: a full disk may take a part of it
            written = self._file.write(view)
            self._hash.update(view[:written])
            self.length += written
            view = view[written:]

    def restart(self) -> None:
        self._file.truncate(0)
        self._hash = hashlib.sha256()
        self.length = 0
        self._origin.unlink(missing_ok=True)

    def digest(self) -> str:
        return self._hash.hexdigest()

    def finish(self) -> None:
        """Durable under the target's name."""
        os.fsync(self._file.fileno())
        os.replace(self.path, self._want.target)
        self._origin.unlink(missing_ok=True)
        sync(self.path.parent)

    def validator(self, url: str) -> str | None:
        with suppress(FileNotFoundError, ValueError):
            origin, etag = self._origin.read_text("utf-8").splitlines()
            return etag if origin == url else None
        return None

    def remember(self, url: str, etag: str) -> None:
        if etag.startswith('"'):  # a weak one (W/...) must not be used with ranges
            self._origin.write_text(f"{url}\n{etag}", "utf-8")
        else:
            self._origin.unlink(missing_ok=True)


class Meter:
    """Tells the progress at most ten times a second."""

    def __init__(self, want: Wanted, tell: Callable[[Progress], None] | None) -> None:
        self._path = want.target.name
        self._tell = tell
        self._total = want.size
        self._rate = 0.0
        self._at, self._done = time.monotonic(), 0

    def begin(self, done: int, total: int | None) -> None:
        self._total = total
        self._at, self._done = time.monotonic(), done

    def show(self, done: int, *, force: bool = False) -> None:
        elapsed = (now := time.monotonic()) - self._at
        if self._tell is None or (elapsed < 0.1 and not force):
            return
        current = (done - self._done) / elapsed if elapsed > 0 else 0.0
        self._rate = 0.7 * self._rate + 0.3 * current if self._rate else current
        self._at, self._done = now, done
        self._tell(Progress(self._path, done, self._total, self._rate))


def require_space(folder: Path, needed: int, margin: int) -> None:
    """Raises StorageFull where ``needed`` more bytes would leave less than the margin free."""
    free = shutil.disk_usage(folder).free
    if free < needed + margin:
        raise StorageFull(
            f"{folder} has {free:,} bytes free, but {needed:,} and a margin of {margin:,} are needed",
            remedy=f"Free at least {needed + margin - free:,} bytes.",
        )


def file_sha256(path: Path, cancel: threading.Event | None = None) -> str:
    """Raises OSError, Cancelled."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while data := file.read(CHUNK):
            if cancel is not None and cancel.is_set():
                raise Cancelled(f"checking {path.name} was cancelled")
            digest.update(data)
    return digest.hexdigest()


def sync(path: Path) -> None:
    """Make a file, or the names inside a folder, durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def storage_errors(target: Path) -> Iterator[None]:
    """The operating system's errors about files as StorageFull and StorageFailed."""
    try:
        yield
    except OutpostError:
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull(
                f"the disk under {target.parent} is full; what came is kept", remedy="Free some space, run it again."
            ) from error
        raise StorageFailed(f"cannot use {target}: {error}", remedy="Check the place and its permissions.") from error
