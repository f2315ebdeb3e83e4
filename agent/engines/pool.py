"""The pool of workers: which models are loaded, in what memory, and what happens when one dies.

    async with Pool(config.pool) as pool:
        pool.register(ModelSpec(...))
        answer = await pool.call("model", "op", {...}, deadline_s=10)

A request for a model that is not loaded loads it; requests that come meanwhile share that load. Before a load the
ledger (agent/engines/ledger.py) says which idle models must go. A worker that dies ends only its own requests; the next
request starts it again, after a back-off that grows until a request succeeds. A native crash while loading is tried
once more with llama.cpp's extra buffer types off, and if that works the model stays so. Several failed loads in a row
put the model into quarantine until `clear_quarantine` or `replace`.

The pool owns its tasks and lives inside one event loop. Leaving the context lets open requests finish for
``drain_s``, then ends every worker.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Literal

from agent import config
from agent.engines.ledger import Holding, make_room
from agent.engines.process import LoadCrashed, Worker, measure_pss
from agent.engines.protocol import EngineEvent, LoadSpec, Payload
from agent.errors import (
    BadModel,
    DeadlineExceeded,
    ModelDoesNotFit,
    ModelQuarantined,
    OutpostError,
    ShuttingDown,
    UnfitBuild,
    UnknownModel,
    WorkerCrashed,
)
from agent.messages import ModelKind

ModelState = Literal["unloaded", "loading", "ready", "backing-off", "quarantined"]

_HOUSEKEEPING_S = 1.0


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A model that the pool may load. ``expected_bytes`` stands in the ledger until its PSS was measured."""

    load: LoadSpec
    kind: ModelKind
    expected_bytes: int
    pinned: bool = False


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """``requests`` are open in the worker, ``waiting`` wait for a load; ``crashes`` counts every unasked end of a
    worker; ``notes`` says what is not as it should be, such as a fallback in use."""

    model: str
    kind: ModelKind
    state: ModelState
    pinned: bool
    pid: int | None
    pss_bytes: int | None
    expected_bytes: int
    requests: int
    waiting: int
    loads: int
    crashes: int
    load_seconds: float | None
    last_error: str
    facts: Payload
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PoolStatus:
    """``used_bytes``: measured where it could be, else expected."""

    budget_bytes: int
    used_bytes: int
    models: tuple[ModelStatus, ...]

    def model(self, name: str) -> ModelStatus:
        """Raises UnknownModel."""
        for status in self.models:
            if status.model == name:
                return status
        raise _unknown(name)


@dataclass(eq=False)
class _Entry:
    """A registered model and everything that is known of it."""

    spec: ModelSpec
    worker: Worker | None = None
    retiring: Worker | None = None
    loading: asyncio.Future[None] | None = None
    load_task: asyncio.Task[None] | None = None
    reserved: int = 0
    waiting: int = 0
    pss: int | None = None
    measured: int | None = None
    reload_s: float = 0.0
    last_used: float = 0.0
    loads: int = 0
    crashes: int = 0
    strikes: int = 0
    failures: int = 0
    not_before: float = 0.0
    refusal: OutpostError | None = None
    quarantined: bool = False
    extra_buffers_off: bool = False
    removed: bool = False
    last_error: str = ""
    verified: dict[tuple[str, str], Sequence[int]] = field(default_factory=dict)
    """Identities of files under (path, SHA-256), so that a file is not read again while neither has changed."""

    @property
    def idle(self) -> bool:
        return self.worker is not None and self.worker.active == 0 and self.waiting == 0

    def forgive(self) -> None:
        self.strikes = self.failures = 0
        self.not_before = 0.0
        self.refusal = None
        self.quarantined = False
        self.extra_buffers_off = False


class Pool:
    """All workers of this device; see the module's text for how it behaves.

    ``grace_s``: how long a worker may leave a ping unanswered once a request is past its deadline. ``drain_s``: how
    long open requests may go on when a model is unloaded or the pool is left. ``backoff_s`` doubles with every failure
    in a row up to ``backoff_max_s``. ``max_load_crashes`` in a row lead to quarantine.
    ``sample_s``: how often memory is measured.
    """

    def __init__(
        self,
        config: config.Pool,
        *,
        grace_s: float = 5.0,
        drain_s: float = 10.0,
        backoff_s: float = 0.25,
        backoff_max_s: float = 60.0,
        max_load_crashes: int = 3,
        sample_s: float = 5.0,
    ) -> None:
        self._config = config
        self._budget = config.memory_mb << 20
        self._grace_s = grace_s
        self._drain_s = drain_s
        self._backoff_s = backoff_s
        self._backoff_max_s = backoff_max_s
        self._max_load_crashes = max_load_crashes
        self._sample_s = sample_s
        self._entries: dict[str, _Entry] = {}
        self._tasks = asyncio.TaskGroup()
        self._room = asyncio.Lock()
        self._wake = asyncio.Event()
        self._closing = False
        self._housekeeping: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Pool:
        await self._tasks.__aenter__()
        self._housekeeping = self._tasks.create_task(self._keep_house(), name="pool:housekeeping")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._closing = True
        grace_s = self._drain_s if kind is None else 0.0
        try:
            async with asyncio.TaskGroup() as ending:
                for entry in self._entries.values():
                    ending.create_task(self._retire(entry, grace_s), name=f"pool:end:{entry.spec.load.model}")
        finally:
            if self._housekeeping is not None:
                self._housekeeping.cancel()
            for entry in self._entries.values():  # those that a cancelled drain left
                for worker in (entry.worker, entry.retiring):
                    if worker is not None:
                        worker.kill_now("was stopped")
            # The group must see a cancellation (it may be its own, after a task's failure); any other error of the
            # block goes on as it is instead of inside an ExceptionGroup.
            cancelled = kind is not None and issubclass(kind, asyncio.CancelledError)
            await self._tasks.__aexit__(*((kind, error, traceback) if cancelled else (None, None, None)))

    # ---- models

    def register(self, spec: ModelSpec) -> None:
        """Make a model known; nothing is loaded. A model that is known already must be changed with `replace`."""
        if spec.load.model in self._entries:
            raise ValueError(f"model {spec.load.model!r} is registered already")
        self._entries[spec.load.model] = _Entry(spec)

    async def unregister(self, model: str) -> None:
        """Forget a model; its open requests may finish within ``drain_s``. Raises UnknownModel."""
        entry = self._entry(model)
        entry.removed = True
        try:
            await self._retire(entry, self._drain_s)
        finally:
            del self._entries[model]  # not earlier: until now it held memory

    async def replace(self, spec: ModelSpec) -> None:
        """New files or options for a known model, registered where it was not. Open requests finish on the old ones;
        the next request loads the new. Ends a quarantine."""
        entry = self._entries.get(spec.load.model)
        if entry is None:
            self.register(spec)
            return
        entry.spec = spec
        entry.forgive()
        entry.measured = None
        await self._retire(entry, self._drain_s)

    async def load(self, model: str) -> None:
        """Load a model now, whether or not its last load was refused a moment ago. Raises as `call` does."""
        entry = self._entry(model)
        entry.refusal = None
        entry.not_before = 0.0
        await self._ready(entry, asyncio.get_running_loop().time() + self._config.load_timeout_s * 2)

    async def unload(self, model: str) -> None:
        """End a model's worker, pinned or not; open requests may finish within ``drain_s``."""
        await self._retire(self._entry(model), self._drain_s)

    def clear_quarantine(self, model: str) -> None:
        """Let a model be loaded again, with every fallback forgotten."""
        self._entry(model).forgive()

    # ---- requests

    async def call(self, model: str, op: str, payload: Payload, *, deadline_s: float) -> Payload:
        """One request with one answer; loads the model where needed. Raises any OutpostError."""
        async with contextlib.aclosing(self.stream(model, op, payload, deadline_s=deadline_s)) as events:
            async for event in events:
                if event.kind == "end":
                    return event.payload
        raise WorkerCrashed(f"model {model!r} gave no answer", remedy="Send the request again.")

    async def stream(
        self, model: str, op: str, payload: Payload, *, deadline_s: float
    ) -> AsyncGenerator[EngineEvent, None]:
        """One request with any number of events, the last of kind ``end``.

        Closing the generator cancels the request in the worker. The deadline covers loading, waiting and answering.
        Raises any OutpostError: UnknownModel, ModelDoesNotFit, ModelQuarantined, BadModel, WorkerCrashed,
        DeadlineExceeded, Overloaded (the consumer fell far behind), ShuttingDown, and what the engine answers.
        """
        entry = self._entry(model)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + deadline_s
        worker = await self._ready(entry, deadline)
        # No await between here and `open`: an idle worker could be evicted.
        request = worker.open(op, payload, deadline)
        try:
            while True:
                event = await request.next()
                yield event
                if event.kind == "end":
                    return
        finally:
            worker.cancel(request)
            entry.last_used = loop.time()

    def is_loaded(self, model: str) -> bool:
        """Whether a worker runs for it now; False for a model that is not known."""
        entry = self._entries.get(model)
        return entry is not None and entry.worker is not None and entry.worker.alive

    async def answers(self, model: str, *, timeout_s: float) -> bool:
        """False where a loaded model's worker has nothing to do and still does not answer a ping.

        One that is at work may be in a long step; its request's deadline watches over that.
        """
        entry = self._entries.get(model)
        worker = entry.worker if entry else None
        return worker is None or await worker.ping(timeout_s) or worker.at_work or not worker.alive

    def status(self) -> PoolStatus:
        """A picture of now; memory as it was measured last."""
        return PoolStatus(
            self._budget,
            sum(holding.bytes for holding in self._holdings()),
            tuple(self._status(entry) for entry in self._entries.values()),
        )

    def _entry(self, model: str) -> _Entry:
        entry = self._entries.get(model)
        if entry is None or entry.removed:
            raise _unknown(model)
        return entry

    def _status(self, entry: _Entry) -> ModelStatus:
        worker = entry.worker
        ready = worker.ready if worker else None
        notes = []
        if entry.extra_buffers_off:
            notes.append("extra buffer types off: loading crashed with them")
        if ready and ready.network:
            notes.append(f"no network isolation: {ready.network}")
        return ModelStatus(
            model=entry.spec.load.model,
            kind=entry.spec.kind,
            state=self._state(entry),
            pinned=entry.spec.pinned,
            pid=worker.pid if worker else None,
            pss_bytes=entry.pss if worker else None,
            expected_bytes=entry.spec.expected_bytes,
            requests=worker.active if worker else 0,
            waiting=entry.waiting,
            loads=entry.loads,
            crashes=entry.crashes,
            load_seconds=entry.reload_s or None,
            last_error=entry.last_error,
            facts=ready.facts if ready else {},
            notes=tuple(notes),
        )

    def _state(self, entry: _Entry) -> ModelState:
        if entry.worker is not None and entry.worker.alive:
            return "ready"
        if entry.quarantined:
            return "quarantined"
        if entry.loading is not None:
            return "loading"
        if entry.not_before > asyncio.get_running_loop().time():
            return "backing-off"
        return "unloaded"

    # ---- loading

    async def _ready(self, entry: _Entry, deadline: float) -> Worker:
        """The entry's worker, loaded where needed. The caller opens its request before it awaits anything else."""
        loop = asyncio.get_running_loop()
        entry.waiting += 1
        try:
            async with asyncio.timeout_at(deadline):
                while True:
                    self._admit(entry)
                    worker = entry.worker
                    if worker is not None and worker.alive:
                        if not worker.congested:
                            return worker
                        await worker.writable()
                    elif entry.loading is not None:
                        await asyncio.shield(entry.loading)
                    elif (pause := entry.not_before - loop.time()) > 0:
                        if entry.not_before >= deadline:
                            raise WorkerCrashed(
                                f"model {entry.spec.load.model!r} is restarted in {pause:.1f} s: {entry.last_error}",
                                remedy="Come back then.",
                                retry_after_s=pause,
                            )
                        await asyncio.sleep(pause)
                    else:
                        self._start_load(entry)
        except TimeoutError:
            raise DeadlineExceeded(
                f"model {entry.spec.load.model!r} was not ready in time", remedy="Come back when it is loaded."
            ) from None
        finally:
            entry.waiting -= 1

    def _admit(self, entry: _Entry) -> None:
        """Raises what forbids to use or to load the model now."""
        model = entry.spec.load.model
        if self._closing:
            raise ShuttingDown("Outpost is stopping", remedy="Come back when it has started again.")
        if entry.removed:
            raise _unknown(model)
        if entry.quarantined:
            raise ModelQuarantined(
                f"model {model!r} failed to load {self._max_load_crashes} times in a row: {entry.last_error}",
                remedy="Replace its files, or clear the quarantine on the operator page.",
            )
        if entry.refusal is not None and entry.worker is None and entry.loading is None:
            if asyncio.get_running_loop().time() < entry.not_before:
                # Reading gigabytes again for each request would only find the same damage.
                raise entry.refusal.with_traceback(None)
            entry.refusal = None

    def _start_load(self, entry: _Entry) -> None:
        loading: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # Every requester may have gone before the load fails; that is no lost exception.
        loading.add_done_callback(lambda done: done.cancelled() or done.exception())
        entry.loading = loading
        entry.load_task = self._tasks.create_task(self._load(entry, loading), name=f"pool:load:{entry.spec.load.model}")

    async def _load(self, entry: _Entry, loading: asyncio.Future[None]) -> None:
        """Bring up the entry's worker; the outcome goes to ``loading``."""
        failure: OutpostError | None = None
        try:
            if entry.retiring is not None:
                await asyncio.shield(entry.retiring.ended)
            await self._reserve(entry)
            await self._start(entry)
        except LoadCrashed as error:
            entry.strikes += 1
            entry.quarantined = entry.strikes >= self._max_load_crashes
            self._note_failure(entry, error)
            failure = error
        except (BadModel, UnfitBuild) as error:
            self._note_failure(entry, error)
            entry.refusal = error
            failure = error
        except OutpostError as error:
            entry.last_error = str(error)
            failure = error
        finally:
            entry.reserved = 0
            entry.loading = entry.load_task = None
            if failure is None:  # or cancelled by an unload; who still waits looks again
                loading.set_result(None)
            else:
                loading.set_exception(failure)
            self._wake.set()

    async def _reserve(self, entry: _Entry) -> None:
        """Make room for the entry. Raises ModelDoesNotFit."""
        needed = entry.measured or entry.spec.expected_bytes
        async with self._room:
            # One at a time and decided anew: while one ends, another may have got work.
            while leave := make_room(entry.spec.load.model, needed, self._budget, self._holdings(exclude=entry)):
                await self._retire(self._entries[leave[0]], 0.0)
            entry.reserved = needed

    def _holdings(self, exclude: _Entry | None = None) -> list[Holding]:
        return [
            Holding(
                model=entry.spec.load.model,
                bytes=(entry.pss or entry.reserved or entry.spec.expected_bytes),
                evictable=entry.idle and not entry.spec.pinned,
                pinned=entry.spec.pinned,
                reload_s=entry.reload_s,
                last_used=entry.last_used,
            )
            for entry in self._entries.values()
            if entry is not exclude and (entry.worker or entry.retiring or entry.reserved)
        ]

    async def _start(self, entry: _Entry) -> None:
        """Spawn and load, with one more try without extra buffer types after a native crash."""
        loop = asyncio.get_running_loop()
        while True:
            spec = entry.spec.load
            if entry.extra_buffers_off:
                spec = replace(spec, options={**spec.options, "extra_buffers": False})
            started = loop.time()
            entry.loads += 1
            entry.pss = None
            try:
                worker = await Worker.start(
                    spec,
                    known={
                        path: identity
                        for (path, sha256), identity in entry.verified.items()
                        if spec.files.get(path) == sha256
                    },
                    isolate=self._config.isolate,
                    timeout_s=self._config.load_timeout_s,
                    grace_s=self._grace_s,
                    tasks=self._tasks,
                )
            except LoadCrashed as error:
                entry.crashes += 1
                entry.last_error = str(error)
                if not error.native or entry.extra_buffers_off:
                    entry.extra_buffers_off = False  # it did not help
                    raise
                entry.extra_buffers_off = True
                continue
            break
        assert worker.ready is not None
        entry.reload_s = loop.time() - started
        entry.last_used = loop.time()
        entry.strikes = 0
        entry.verified = {(path, spec.files[path]): known for path, known in worker.ready.verified.items()}
        entry.worker = worker
        self._tasks.create_task(self._follow(entry, worker), name=f"pool:follow:{spec.model}:{worker.pid}")
        sizes = await asyncio.to_thread(measure_pss, [worker.pid])
        entry.pss = entry.measured = sizes.get(worker.pid)

    async def _follow(self, entry: _Entry, worker: Worker) -> None:
        """Note the end of a worker that nobody asked to end."""
        await asyncio.shield(worker.ended)
        if entry.retiring is worker:
            entry.retiring = None
        if entry.worker is worker:
            entry.worker = None
            entry.crashes += 1
            if worker.completed:
                entry.failures = 0
            self._note_failure(entry, WorkerCrashed(f"the worker {worker.end_reason}{worker.last_words}"))

    def _note_failure(self, entry: _Entry, error: OutpostError) -> None:
        entry.failures += 1
        entry.last_error = str(error)
        pause = min(self._backoff_max_s, self._backoff_s * 2 ** (entry.failures - 1))
        # Jitter, so that the workers of one accident do not all come back in the same moment.
        entry.not_before = asyncio.get_running_loop().time() + pause * random.uniform(0.5, 1.0)

    # ---- unloading

    async def _retire(self, entry: _Entry, grace_s: float) -> None:
        """End the entry's worker, or the load in progress; returns when its memory is back."""
        if entry.load_task is not None:
            task = entry.load_task
            task.cancel()
            await asyncio.wait({task})
        worker = entry.worker
        if worker is not None:
            entry.worker = None
            entry.retiring = worker
            await worker.stop(grace_s)
            entry.retiring = None
        elif entry.retiring is not None:
            await asyncio.shield(entry.retiring.ended)

    async def _keep_house(self) -> None:
        """Measure, unload what was idle too long, and make room where workers have grown over the budget."""
        loop = asyncio.get_running_loop()
        next_sample = 0.0
        while True:
            busy = any(entry.worker for entry in self._entries.values())
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(_HOUSEKEEPING_S, self._sample_s) if busy else None):
                    await self._wake.wait()
            now = loop.time()
            for entry in list(self._entries.values()):
                if entry.idle and not entry.spec.pinned and now - entry.last_used >= self._config.keep_alive_s:
                    await self._retire(entry, 0.0)
            if now >= next_sample:
                next_sample = now + self._sample_s
                await self._sample()

    async def _sample(self) -> None:
        workers = {entry.worker.pid: entry for entry in self._entries.values() if entry.worker}
        for pid, size in (await asyncio.to_thread(measure_pss, list(workers))).items():
            entry = workers[pid]
            if entry.worker is not None and entry.worker.pid == pid:
                entry.pss = size
                entry.measured = max(size, entry.measured or 0)
        async with self._room:
            with contextlib.suppress(ModelDoesNotFit):  # all at work or pinned: nothing may be taken from them
                while leave := make_room("(growth)", 0, self._budget, self._holdings()):
                    await self._retire(self._entries[leave[0]], 0.0)


def _unknown(model: str) -> UnknownModel:
    return UnknownModel(
        f"no model {model!r} here", remedy="`outpost models list` shows the installed ones.", param="model"
    )
