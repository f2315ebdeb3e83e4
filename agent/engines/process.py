"""One worker process as the control process sees it: start, requests, cancel, deadlines, the end.

`Worker.start` spawns ``agent.engines.worker``, hands it a `LoadSpec` and waits for ``ready``. From then on `open` sends
a request and `Request.next` gives its events. Whatever happens to the process, every open request gets exactly one last
event or one typed error: from the worker, from its deadline timer, or from the end of the process.

A request past its deadline is cancelled. A worker that then leaves a ping unanswered is stuck in a step and is killed,
unless a request that it got earlier is still within its own deadline (one long step may be that one's honest work). The
same holds for a request whose caller has gone: the step it may be in has until its deadline.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from signal import SIGILL, SIGKILL

from agent.engines import sandbox
from agent.engines.protocol import Decoder, EngineEvent, Frame, LoadSpec, Payload
from agent.errors import (
    DeadlineExceeded,
    InvalidRequest,
    OutpostError,
    Overloaded,
    ShuttingDown,
    Unavailable,
    WorkerCrashed,
    from_code,
)

MAX_QUEUED_EVENTS = 4096
MAX_QUEUED_BYTES = 8 << 20
_HIGH_WATER = 4 << 20
_READ_BYTES = 1 << 18
_STDERR_TAIL = 4096
_EXIT_WAIT_S = 2.0


@dataclass(frozen=True, slots=True)
class Ready:
    """What a worker said when its model was loaded. ``network`` is "" where it has none, else why it still has;
    ``verified`` maps files to the identities under which their hashes were checked."""

    facts: Payload
    verified: Mapping[str, Sequence[int]]
    network: str


class LoadCrashed(WorkerCrashed):
    """The process ended, or hung, before it was ready."""

    def __init__(self, message: str, *, signal: int | None = None) -> None:
        """``signal`` that ended it by itself."""
        remedy = "Check the model's files and free memory."
        if signal == SIGILL:
            remedy = "A native library was built for another CPU: install or build it for this one."
        super().__init__(message, remedy=remedy)
        self.native = signal is not None and signal != SIGKILL
        """Native code failed, so that another path through it may be worth a try."""


class Request:
    """Events of one request, in order. Bounded: a consumer that falls too far behind loses the request."""

    def __init__(self, id: int, deadline: float) -> None:
        self.id = id
        self.deadline = deadline
        self.timer: asyncio.TimerHandle | None = None
        self._events: deque[tuple[EngineEvent, int]] = deque()
        self._bytes = 0
        self._error: OutpostError | None = None
        self._waiter: asyncio.Future[None] | None = None

    def full(self, size: int) -> bool:
        return bool(self._events) and (len(self._events) >= MAX_QUEUED_EVENTS or self._bytes + size > MAX_QUEUED_BYTES)

    def push(self, event: EngineEvent, size: int) -> None:
        self._events.append((event, size))
        self._bytes += size
        self._wake()

    def fail(self, error: OutpostError) -> None:
        """End the request; events that arrived before are still given first."""
        self._error = error
        self._wake()

    async def next(self) -> EngineEvent:
        """The next event. Raises the error that ended the request; bounded in time by the request's deadline."""
        while not self._events:
            if self._error is not None:
                raise self._error
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        event, size = self._events.popleft()
        self._bytes -= size
        if event.kind == "error":
            raise _as_error(event.payload)
        return event

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Worker:
    """A started worker. Made by `start`; `stop` or `kill` end it; `ended` is done when the process is gone."""

    def __init__(
        self,
        model: str,
        process: asyncio.subprocess.Process,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        tasks: asyncio.TaskGroup,
        grace_s: float,
    ) -> None:
        loop = asyncio.get_running_loop()
        self.model = model
        self.pid = process.pid
        self.ready: Ready | None = None
        self.completed = 0
        self.ended: asyncio.Future[None] = loop.create_future()
        self.end_reason = ""
        self._end_signal: int | None = None
        self._process = process
        self._reader = reader
        self._writer = writer
        self._tasks = tasks
        self._grace_s = grace_s
        self._requests: dict[int, Request] = {}
        self._idle = asyncio.Event()
        self._idle.set()
        self._last_id = 0
        self._alive = True
        self._killed_because = ""
        self._stopped = False
        self._stderr = b""
        self._loaded: asyncio.Future[Ready] = loop.create_future()
        self._pong: asyncio.Future[None] | None = None
        self._probing = False
        self._abandoned: asyncio.TimerHandle | None = None
        """Runs from the cancel of a request until the worker answers again, at the latest at the request's deadline."""
        name = f"worker:{model}:{self.pid}"
        self._reading = tasks.create_task(self._read(), name=f"{name}:read")
        self._listening = tasks.create_task(self._read_stderr(), name=f"{name}:stderr")
        tasks.create_task(self._watch(), name=f"{name}:watch")

    @classmethod
    async def start(
        cls,
        spec: LoadSpec,
        *,
        known: Mapping[str, Sequence[int]],
        isolate: bool,
        timeout_s: float,
        grace_s: float,
        tasks: asyncio.TaskGroup,
    ) -> Worker:
        """Spawn, load, wait for ready. Raises LoadCrashed, or the error that the worker refused the load with."""
        worker = await cls._spawn(spec.model, isolate=isolate, grace_s=grace_s, tasks=tasks)
        try:
            worker._write(
                Frame(
                    "load",
                    payload={
                        "model": spec.model,
                        "engine": spec.engine,
                        "entry": spec.entry,
                        "files": dict(spec.files),
                        "options": dict(spec.options),
                        "known": {path: list(identity) for path, identity in known.items()},
                    },
                ).encode()
            )
            async with asyncio.timeout(timeout_s):
                worker.ready = await asyncio.shield(worker._loaded)
        except TimeoutError:
            await worker.kill(f"did not load within {timeout_s:g} s")
            raise LoadCrashed(f"model {spec.model!r} {worker.end_reason}") from None
        except BaseException:
            await worker.kill("load given up")
            raise
        return worker

    @classmethod
    async def _spawn(cls, model: str, *, isolate: bool, grace_s: float, tasks: asyncio.TaskGroup) -> Worker:
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-P",
                    "-m",
                    "agent.engines.worker",
                    str(theirs.fileno()),
                    str(os.getpid()),
                    str(int(isolate)),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=asyncio.subprocess.DEVNULL,
                    stderr=asyncio.subprocess.PIPE,
                    env=sandbox.environment(os.environ),
                    pass_fds=(theirs.fileno(),),
                    start_new_session=True,
                )
            ours.setblocking(False)
            reader, writer = await asyncio.open_unix_connection(sock=ours, limit=1 << 20)
        except asyncio.CancelledError:
            ours.close()
            raise
        except OSError as error:
            ours.close()
            raise Unavailable(
                f"cannot start a worker for model {model!r}: {error}", remedy="Check free memory and open files."
            ) from error
        writer.transport.set_write_buffer_limits(high=_HIGH_WATER)
        return cls(model, process, reader, writer, tasks, grace_s)

    @property
    def alive(self) -> bool:
        return self._alive

    @property
    def active(self) -> int:
        """Requests that have not had their last event."""
        return len(self._requests)

    @property
    def at_work(self) -> bool:
        """Whether it may honestly be in a long step: for an open request, or for one that was cancelled in it."""
        return bool(self._requests) or self._abandoned is not None

    @property
    def congested(self) -> bool:
        """The worker reads slower than requests come; wait for `writable` before the next one."""
        return self._alive and self._writer.transport.get_write_buffer_size() > _HIGH_WATER

    @property
    def last_words(self) -> str:
        """The last line that the process wrote to standard error, ready to stand behind a message; may be empty."""
        lines = self._stderr.decode("utf-8", "replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        return f"; last words: {last}" if last else ""

    async def writable(self) -> None:
        """Return when the worker has taken what was sent, or is gone."""
        with contextlib.suppress(ConnectionError):
            await self._writer.drain()

    def open(self, op: str, payload: Payload, deadline: float) -> Request:
        """Send a request that must have ended by ``deadline`` (the loop's clock).

        Raises WorkerCrashed, InputTooLarge, InvalidRequest for a payload that has no encoding.
        """
        if not self._alive:
            raise self._gone()
        self._last_id += 1
        request = Request(self._last_id, deadline)
        try:
            data = Frame("request", request.id, op, payload).encode()
        except (UnicodeEncodeError, OverflowError) as error:
            raise InvalidRequest(
                f"the request cannot be sent to the model: {error}",
                remedy="Send valid Unicode text and numbers of at most 64 bits.",
            ) from error
        self._requests[request.id] = request
        self._idle.clear()
        request.timer = asyncio.get_running_loop().call_at(deadline, self._expire, request)
        self._write(data)
        return request

    def cancel(self, request: Request) -> None:
        """Withdraw a request that has not ended; nothing happens to one that has."""
        if self._forget(request) and self._alive:
            self._write(Frame("cancel", request.id).encode() + Frame("ping").encode())
            if self._abandoned is None:
                self._abandoned = asyncio.get_running_loop().call_at(request.deadline, self._suspect, request)

    async def stop(self, grace_s: float) -> None:
        """Let open requests finish for ``grace_s``, then close the socket; a process that stays is killed."""
        if self._requests and grace_s > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace_s):
                    await self._idle.wait()
        if not self.ended.done():
            self._alive = False
            self._stopped = True
            self._killed_because = self._killed_because or "was stopped"
            self._writer.close()  # the end of the stream makes the worker exit
            try:
                async with asyncio.timeout(_EXIT_WAIT_S):
                    await asyncio.shield(self.ended)
            except (TimeoutError, asyncio.CancelledError) as error:
                self.kill_now("was stopped")
                if isinstance(error, asyncio.CancelledError):
                    raise
        await asyncio.shield(self.ended)

    async def kill(self, because: str) -> None:
        """End the process now; open requests get WorkerCrashed that says why."""
        self.kill_now(because)
        await asyncio.shield(self.ended)

    def kill_now(self, because: str) -> None:
        """`kill` without waiting for the end."""
        self._alive = False
        if not self.ended.done():
            self._killed_because = self._killed_because or because
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, SIGKILL)

    def _write(self, data: bytes) -> None:
        if not self._writer.is_closing():
            self._writer.write(data)

    def _clear_abandoned(self) -> None:
        if self._abandoned is not None:
            self._abandoned.cancel()
            self._abandoned = None

    def _forget(self, request: Request) -> bool:
        if request.timer is not None:
            request.timer.cancel()
        known = self._requests.pop(request.id, None) is not None
        if not self._requests:
            self._idle.set()
        return known

    def _gone(self) -> OutpostError:
        if self._stopped:
            return ShuttingDown(f"model {self.model!r} was stopped", remedy="Send the request again.")
        return WorkerCrashed(
            f"the worker of model {self.model!r} {self.end_reason or self._killed_because or 'is ending'}",
            remedy="Send the request again.",
            retry_after_s=1.0,
        )

    # ---- deadlines

    def _expire(self, request: Request) -> None:
        if not self._forget(request):
            return
        request.fail(DeadlineExceeded(f"model {self.model!r} did not finish in time", remedy="Ask for less, or wait."))
        if self._alive:
            self._write(Frame("cancel", request.id).encode())
            self._suspect(request)

    def _suspect(self, request: Request) -> None:
        """The request is past its deadline: look whether the worker is stuck in it."""
        self._abandoned = None
        earlier = next(iter(self._requests), request.id) < request.id
        if self._alive and not earlier and not self._probing:
            self._probing = True
            self._tasks.create_task(self._probe(), name=f"worker:{self.model}:{self.pid}:probe")

    async def _probe(self) -> None:
        try:
            if not await self.ping(self._grace_s):
                self.kill_now(f"was stuck and did not answer for {self._grace_s:g} s, so it was killed")
        finally:
            self._probing = False

    async def ping(self, timeout_s: float) -> bool:
        """Whether the worker answers between two steps."""
        if not self._alive:
            return False
        if self._pong is None or self._pong.done():
            self._pong = asyncio.get_running_loop().create_future()
            self._write(Frame("ping").encode())
        try:
            async with asyncio.timeout(timeout_s):
                await asyncio.shield(self._pong)
        except TimeoutError:
            return False
        return self._alive

    # ---- what comes back

    async def _read(self) -> None:
        decoder = Decoder()
        try:
            while data := await self._reader.read(_READ_BYTES):
                for frame in decoder.feed(data):
                    self._take(frame)
        except ConnectionError:
            pass
        except (OutpostError, ValueError, TypeError, KeyError, AttributeError) as error:
            # Whatever a worker sends is input from hostile files at second hand.
            self.kill_now(f"broke the protocol ({type(error).__name__}: {error})")

    def _take(self, frame: Frame) -> None:
        if not isinstance(frame.payload, dict):
            raise TypeError(f"a {frame.kind!r} frame without a map")
        if frame.kind in ("event", "end", "error") and frame.id:
            request = self._requests.get(frame.id)
            if request is None:
                return  # cancelled or expired meanwhile
            event = EngineEvent(frame.kind, frame.id, frame.payload)
            if frame.kind != "event":
                self._forget(request)
                self.completed += 1
                request.push(event, frame.size)
            elif request.full(frame.size):
                self.cancel(request)
                request.fail(
                    Overloaded(
                        f"the reader of model {self.model!r} fell {MAX_QUEUED_EVENTS} events or "
                        f"{MAX_QUEUED_BYTES >> 20} MiB behind",
                        remedy="Read the stream faster or ask for less.",
                    )
                )
            else:
                request.push(event, frame.size)
        elif frame.kind == "pong":
            self._clear_abandoned()
            if self._pong is not None and not self._pong.done():
                self._pong.set_result(None)
        elif frame.kind == "ready" and not self._loaded.done():
            payload = frame.payload
            self._loaded.set_result(Ready(payload["facts"], payload["verified"], payload["network"]))
        elif frame.kind == "error" and not self._loaded.done():
            self._loaded.set_exception(_as_error(frame.payload))
        else:
            raise ValueError(f"unexpected frame {frame.kind!r}")

    async def _read_stderr(self) -> None:
        assert self._process.stderr is not None
        while data := await self._process.stderr.read(_STDERR_TAIL):
            self._stderr = (self._stderr + data)[-_STDERR_TAIL:]

    async def _watch(self) -> None:
        """Wait for the end of the process, then give every open request its error."""
        try:
            exiting = self._tasks.create_task(self._process.wait(), name=f"worker:{self.model}:{self.pid}:exit")
            await asyncio.wait({self._reading, exiting}, return_when=asyncio.FIRST_COMPLETED)
            self._alive = False
            if not (await asyncio.wait({exiting}, timeout=_EXIT_WAIT_S))[0]:
                self.kill_now("closed its socket but did not exit")
            code = await exiting
            # Answers and last words may still be on their way. A grandchild may hold the pipes: no waiting for that.
            await asyncio.wait({self._reading, self._listening}, timeout=0.5)
            self._describe(code)
        finally:
            self._end()

    def _describe(self, code: int) -> None:
        if self._killed_because:
            self.end_reason = self._killed_because
        elif code < 0:
            name = signal.Signals(-code).name if -code in {int(known) for known in signal.Signals} else str(-code)
            self.end_reason = f"was killed by {name}"
            if -code == SIGKILL:
                self.end_reason += " (not by Outpost; out of memory, perhaps)"
        else:
            self.end_reason = f"exited with code {code}"
        self._end_signal = -code if code < 0 and not self._killed_because else None

    def _end(self) -> None:
        self._alive = False
        self._clear_abandoned()
        self._reading.cancel()
        self._listening.cancel()
        self._writer.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, SIGKILL)
        if not self._loaded.done():
            message = f"the worker of model {self.model!r} {self.end_reason} while loading{self.last_words}"
            self._loaded.set_exception(LoadCrashed(message, signal=self._end_signal))
        with contextlib.suppress(OutpostError, asyncio.CancelledError):
            self._loaded.exception()  # nobody may be waiting any more
        for request in list(self._requests.values()):
            self._forget(request)
            request.fail(self._gone())
        if self._pong is not None and not self._pong.done():
            self._pong.set_result(None)
        if not self.ended.done():
            self.ended.set_result(None)


def measure_pss(pids: Sequence[int]) -> dict[int, int]:
    """Proportional set size of each process in bytes; those that are gone, or where the system does not tell, are left
    out. Blocks for milliseconds on a big process: call it in a thread."""
    sizes = {}
    for pid in pids:
        with contextlib.suppress(OSError, ValueError, IndexError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    sizes[pid] = int(line.split()[1]) * 1024
    return sizes


def _as_error(payload: Payload) -> OutpostError:
    return from_code(
        str(payload.get("code")), str(payload.get("message")), str(payload.get("remedy") or ""), payload.get("param")
    )
