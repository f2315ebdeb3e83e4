"""The pool against real worker processes that behave as the requests dictate (tests/simulators/engines.py)."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import hashlib
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from agent import config
from agent.engines.pool import ModelSpec, Pool
from agent.engines.protocol import EngineEvent, LoadSpec
from agent.errors import (
    BadModel,
    DeadlineExceeded,
    HashMismatch,
    InputTooLarge,
    InvalidRequest,
    ModelDoesNotFit,
    ModelQuarantined,
    OutpostError,
    Overloaded,
    ShuttingDown,
    UnknownModel,
    WorkerCrashed,
)
from tests.simulators.waiting import soon

ROOT = Path(__file__).resolve().parents[2]
ENGINE = "tests.simulators.engines:ScriptedEngine"
MIB = 1 << 20

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def spec(
    model: str = "m",
    *,
    entry: str = "",
    files: dict[str, str] | None = None,
    expected_mb: int = 20,
    pinned: bool = False,
    **options: Any,
) -> ModelSpec:
    return ModelSpec(LoadSpec(model, ENGINE, entry, files or {}, options), "slm", expected_mb * MIB, pinned)


def settings(**changes: Any) -> config.Pool:
    return config.Pool(**{"memory_mb": 1024, "load_timeout_s": 30, **changes})


@pytest.fixture(autouse=True)
def _engine_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


@pytest.fixture
async def pool() -> AsyncIterator[Pool]:
    async with Pool(settings(), grace_s=0.3, backoff_s=0.02) as pool:
        yield pool


async def until(condition: Callable[[], Any]) -> None:
    await soon(condition, "what the pool should come to", 15.0)


async def facts(pool: Pool, model: str = "m") -> dict[str, Any]:
    return dict(await pool.call(model, "facts", {}, deadline_s=10))


async def read_into(sizes: list[int], stream: AsyncGenerator[EngineEvent, None]) -> None:
    async for event in stream:
        sizes.append(len(event.payload.get("pad", b"")))


def gone(pid: int) -> bool:
    """Whether a process has ended; one that only waits to be collected by its parent has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


def loads(marker: Path) -> list[str]:
    return marker.read_text().splitlines() if marker.exists() else []


# ---------------------------------------------------------------- requests


async def test_a_request_loads_the_model_and_is_answered(pool: Pool) -> None:
    pool.register(spec())
    assert pool.status().model("m").state == "unloaded"
    answer = await pool.call("m", "echo", {"text": "grüß dich", "data": b"\0\xff", "n": [1, 2.5, None]}, deadline_s=10)
    assert answer == {"text": "grüß dich", "data": b"\0\xff", "n": [1, 2.5, None]}
    status = pool.status().model("m")
    assert status.state == "ready"
    assert status.pid is not None
    assert not gone(status.pid)
    assert status.pss_bytes is not None
    assert MIB < status.pss_bytes < 200 * MIB
    assert (status.loads, status.crashes, status.requests) == (1, 0, 0)
    assert status.facts["version"] == 1


async def test_concurrent_streams_share_the_worker_and_keep_their_order(pool: Pool) -> None:
    pool.register(spec())
    order: list[int] = []

    async def read(name: int) -> list[int]:
        seen = []
        async for event in pool.stream("m", "count", {"n": 20, "pause_s": 0.001}, deadline_s=20):
            order.append(name)
            seen.append(event.payload.get("i", event.payload.get("n")))
            last = event.kind
        assert last == "end"
        return seen

    results = await asyncio.gather(*(read(name) for name in range(6)))
    assert results == [[*range(20), 20]] * 6
    # Interleaved: the first to finish finished after the last one had started.
    assert set(order[:60]) == set(range(6))
    assert pool.status().model("m").loads == 1


async def test_closing_the_generator_cancels_in_the_worker(pool: Pool) -> None:
    pool.register(spec())
    stream = pool.stream("m", "count", {"n": 10**9, "pause_s": 0.001}, deadline_s=60)
    await anext(stream)
    assert (await facts(pool))["active"] == 1
    await stream.aclose()
    after = await facts(pool)
    assert (after["active"], after["cancelled"]) == (0, 1)
    assert pool.status().model("m").requests == 0


async def test_a_cancelled_task_cancels_in_the_worker(pool: Pool) -> None:
    pool.register(spec())
    await pool.load("m")
    task = asyncio.create_task(pool.call("m", "count", {"n": 10**9, "pause_s": 0.001}, deadline_s=60))
    await until(lambda: pool.status().model("m").requests == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await facts(pool))["active"] == 0


async def test_errors_of_the_engine_keep_their_type(pool: Pool) -> None:
    pool.register(spec())
    with pytest.raises(InvalidRequest, match="not this one") as refused:
        await pool.call("m", "refuse", {}, deadline_s=10)
    assert (refused.value.remedy, refused.value.param) == ("Ask another.", "op")
    with pytest.raises(OutpostError, match="submit failed") as failed:
        await pool.call("m", "unhandled", {}, deadline_s=10)
    assert failed.value.code == "internal_error"
    assert pool.status().model("m").crashes == 0


async def test_bad_input_is_refused_before_it_is_sent(pool: Pool) -> None:
    pool.register(spec())
    with pytest.raises(UnknownModel, match="'nobody'"):
        await pool.call("nobody", "echo", {}, deadline_s=1)
    with pytest.raises(InvalidRequest):
        await pool.call("m", "echo", {"text": "\ud800"}, deadline_s=10)
    with pytest.raises(InvalidRequest):
        await pool.call("m", "echo", {"n": 1 << 70}, deadline_s=10)
    with pytest.raises(InputTooLarge):
        await pool.call("m", "echo", {"data": bytes(65 * MIB)}, deadline_s=10)
    assert await pool.call("m", "echo", {"still": "here"}, deadline_s=10) == {"still": "here"}
    assert pool.status().model("m").requests == 0


async def test_big_frames_go_both_ways(pool: Pool) -> None:
    pool.register(spec())
    data = os.urandom(MIB) * 40
    assert (await pool.call("m", "echo", {"data": data}, deadline_s=30))["data"] == data


async def test_an_answer_over_the_frame_limit_is_that_requests_error(pool: Pool) -> None:
    pool.register(spec())
    with pytest.raises(InputTooLarge):
        await pool.call("m", "big", {"size": 65 * MIB}, deadline_s=20)
    assert await pool.call("m", "echo", {}, deadline_s=10) == {}
    assert pool.status().model("m").crashes == 0


async def test_a_consumer_that_stops_reading_loses_only_its_own_stream(pool: Pool) -> None:
    pool.register(spec())
    stalled = pool.stream("m", "count", {"n": 10**9, "size": 100_000}, deadline_s=60)
    await anext(stalled)

    async def read_on() -> int:
        count = 0
        async with contextlib.aclosing(pool.stream("m", "count", {"n": 300}, deadline_s=30)) as events:
            async for _ in events:
                count += 1
        return count

    assert await read_on() == 301
    await until(lambda: pool.status().model("m").requests == 0)
    received: list[int] = []
    with pytest.raises(Overloaded, match="behind"):
        await read_into(received, stalled)
    assert received
    assert sum(received) <= 9 * MIB
    assert (await facts(pool))["active"] == 0


# ---------------------------------------------------------------- deadlines and hangs


async def test_a_request_past_its_deadline_is_cancelled_and_the_worker_lives(pool: Pool) -> None:
    pool.register(spec())
    await pool.load("m")
    started = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        await pool.call("m", "count", {"n": 10**9, "pause_s": 0.001}, deadline_s=0.2)
    assert 0.15 < time.monotonic() - started < 2
    after = await facts(pool)
    assert (after["active"], after["cancelled"]) == (0, 1)
    assert pool.status().model("m").crashes == 0


async def test_a_worker_stuck_past_a_deadline_is_killed_and_started_again(pool: Pool) -> None:
    pool.register(spec())
    await pool.load("m")
    pid = pool.status().model("m").pid
    assert pid is not None
    stuck = asyncio.create_task(pool.call("m", "sleep", {"seconds": 60}, deadline_s=0.2))
    behind = asyncio.create_task(pool.call("m", "echo", {}, deadline_s=30))
    with pytest.raises(DeadlineExceeded):
        await stuck
    with pytest.raises(WorkerCrashed, match="did not answer"):
        await behind
    assert gone(pid)
    assert await pool.call("m", "echo", {}, deadline_s=10) == {}
    assert pool.status().model("m").crashes == 1


async def test_a_long_step_of_an_earlier_request_is_not_taken_for_a_hang(pool: Pool) -> None:
    pool.register(spec())
    await pool.load("m")
    honest = asyncio.create_task(pool.call("m", "sleep", {"seconds": 1.2}, deadline_s=30))
    await until(lambda: pool.status().model("m").requests == 1)
    with pytest.raises(DeadlineExceeded):
        await pool.call("m", "echo", {}, deadline_s=0.1)
    assert await honest == {}
    assert pool.status().model("m").crashes == 0


async def test_a_long_step_for_a_caller_that_has_gone_may_end_by_its_deadline(pool: Pool) -> None:
    pool.register(spec())
    await pool.load("m")
    gone_soon = asyncio.create_task(pool.call("m", "sleep", {"seconds": 0.8}, deadline_s=30))
    await until(lambda: pool.status().model("m").requests == 1)
    gone_soon.cancel()
    await asyncio.wait({gone_soon})
    assert await pool.answers("m", timeout_s=0.05)  # at work, not stuck
    assert await pool.call("m", "echo", {}, deadline_s=10) == {}
    assert pool.status().model("m").crashes == 0

    gone_soon = asyncio.create_task(pool.call("m", "sleep", {"seconds": 60}, deadline_s=0.5))
    await until(lambda: pool.status().model("m").requests == 1)
    gone_soon.cancel()
    await until(lambda: pool.status().model("m").crashes == 1)
    assert "did not answer" in pool.status().model("m").last_error


async def test_an_idle_worker_that_does_not_answer_is_told_apart(pool: Pool) -> None:
    pool.register(spec())
    assert await pool.answers("m", timeout_s=0.05)  # not loaded
    await pool.load("m")
    assert await pool.answers("m", timeout_s=5)
    pid = pool.status().model("m").pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    assert not await pool.answers("m", timeout_s=0.05)
    os.kill(pid, signal.SIGCONT)
    assert await pool.answers("m", timeout_s=5)


async def test_writes_to_a_stuck_worker_do_not_block_the_loop(pool: Pool) -> None:
    pool.register(spec())
    await pool.load("m")
    pid = pool.status().model("m").pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    data = bytes(20 * MIB)
    started = time.monotonic()
    results = await asyncio.gather(
        *(pool.call("m", "echo", {"data": data}, deadline_s=0.4) for _ in range(6)), return_exceptions=True
    )
    assert time.monotonic() - started < 5
    assert all(isinstance(result, DeadlineExceeded | WorkerCrashed) for result in results)
    await until(lambda: gone(pid))
    assert await pool.call("m", "echo", {}, deadline_s=10) == {}


async def test_a_load_that_takes_too_long_is_ended() -> None:
    async with Pool(settings(load_timeout_s=0.5), backoff_s=0.01) as pool:
        pool.register(spec(load_s=60))
        with pytest.raises(WorkerCrashed, match=r"did not load within 0\.5 s"):
            await pool.call("m", "echo", {}, deadline_s=10)


async def test_the_deadline_covers_the_load(pool: Pool, tmp_path: Path) -> None:
    pool.register(spec(go=str(tmp_path / "go")))
    with pytest.raises(DeadlineExceeded, match="not ready in time"):
        await pool.call("m", "echo", {}, deadline_s=0.2)
    (tmp_path / "go").touch()
    assert await pool.call("m", "echo", {}, deadline_s=10) == {}
    assert pool.status().model("m").loads == 1  # the load went on without its first requester


# ---------------------------------------------------------------- crashes


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGABRT", "SIGILL"])
async def test_a_native_crash_names_its_signal_and_ends_only_that_workers_requests(pool: Pool, name: str) -> None:
    pool.register(spec())
    pool.register(spec("other"))
    await pool.load("m")
    await pool.load("other")
    other = asyncio.create_task(pool.call("other", "count", {"n": 50, "pause_s": 0.002}, deadline_s=20))
    beside = asyncio.create_task(pool.call("m", "count", {"n": 10**9, "pause_s": 0.001}, deadline_s=20))
    await until(lambda: pool.status().model("m").requests == 1)
    with pytest.raises(WorkerCrashed, match=f"killed by {name}"):
        await pool.call("m", "crash", {"name": name}, deadline_s=10)
    with pytest.raises(WorkerCrashed, match=f"killed by {name}"):
        await beside
    assert await other == {"n": 50}
    assert name in pool.status().model("m").last_error
    assert await pool.call("m", "echo", {"again": 1}, deadline_s=10) == {"again": 1}
    assert (pool.status().model("m").loads, pool.status().model("m").crashes) == (2, 1)


async def test_sigkill_mid_stream_gives_what_came_then_the_error(pool: Pool) -> None:
    pool.register(spec())
    stream = pool.stream("m", "count", {"n": 10**9, "pause_s": 0.001}, deadline_s=30)
    first = await anext(stream)
    assert first.payload["i"] == 0
    pid = pool.status().model("m").pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(WorkerCrashed, match=r"killed by SIGKILL .* memory"):
        await read_into([], stream)
    assert await pool.call("m", "echo", {}, deadline_s=10) == {}


async def test_a_worker_leaves_its_end_to_the_parent(pool: Pool) -> None:
    pool.register(spec())
    stream = pool.stream("m", "count", {"n": 50, "pause_s": 0.002}, deadline_s=30)
    await anext(stream)
    pid = pool.status().model("m").pid
    assert pid is not None
    os.kill(pid, signal.SIGTERM)  # as a service manager does with the whole group while the daemon still drains
    sizes: list[int] = []
    await read_into(sizes, stream)
    assert len(sizes) == 50
    assert pool.status().model("m").pid == pid


async def test_an_engine_that_raises_or_exits_tells_why(pool: Pool) -> None:
    pool.register(spec())
    with pytest.raises(WorkerCrashed, match="exited with code 1"):
        await pool.call("m", "fail", {}, deadline_s=10)
    await until(lambda: "RuntimeError: the engine broke" in pool.status().model("m").last_error)
    with pytest.raises(WorkerCrashed, match="exited with code 7"):
        await pool.call("m", "leave", {"code": 7}, deadline_s=10)
    await until(lambda: "leaving for a reason" in pool.status().model("m").last_error)


async def test_a_worker_that_breaks_the_protocol_is_ended(pool: Pool) -> None:
    pool.register(spec())
    with pytest.raises(WorkerCrashed, match="broke the protocol"):
        await pool.call("m", "garbage", {}, deadline_s=10)
    assert await pool.call("m", "echo", {}, deadline_s=10) == {}


async def test_restarts_back_off_and_a_success_resets_them() -> None:
    async with Pool(settings(), backoff_s=30) as pool:
        pool.register(spec())
        await pool.load("m")
        with pytest.raises(WorkerCrashed):
            await pool.call("m", "crash", {"name": "SIGSEGV"}, deadline_s=10)
        await until(lambda: pool.status().model("m").state == "backing-off")
        with pytest.raises(WorkerCrashed, match="is restarted in") as early:
            await pool.call("m", "echo", {}, deadline_s=2)
        assert early.value.retry_after_s is not None
        assert 10 < early.value.retry_after_s <= 30
        await pool.load("m")  # a person need not wait
        assert pool.status().model("m").state == "ready"


async def test_a_crash_that_extra_buffers_cause_is_survived_and_recorded(pool: Pool, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    pool.register(spec(marker=str(marker), crash="SIGSEGV", crash_with_extra_buffers=True))
    assert await pool.call("m", "echo", {}, deadline_s=10) == {}
    status = pool.status().model("m")
    assert any("extra buffer types off" in note for note in status.notes)
    assert status.facts["extra_buffers"] is False
    assert [line.split()[1] for line in loads(marker)] == ["extra_buffers=True", "extra_buffers=False"]
    await pool.unload("m")
    await pool.load("m")
    assert loads(marker)[2].endswith("extra_buffers=False")  # it does not crash anew each time


async def test_repeated_crashes_on_load_end_in_quarantine_until_it_is_cleared(pool: Pool, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    pool.register(spec(marker=str(marker), crash="SIGABRT"))
    for _ in range(3):
        with pytest.raises(WorkerCrashed, match="killed by SIGABRT while loading"):
            await pool.call("m", "echo", {}, deadline_s=10)
    assert len(loads(marker)) == 6  # each once more without extra buffers
    assert pool.status().model("m").state == "quarantined"
    for attempt in (pool.call("m", "echo", {}, deadline_s=10), pool.load("m")):
        with pytest.raises(ModelQuarantined, match="3 times in a row") as refused:
            await attempt
        assert refused.value.remedy
    assert len(loads(marker)) == 6

    pool.clear_quarantine("m")
    assert pool.status().model("m").state == "unloaded"
    with pytest.raises(WorkerCrashed):
        await pool.call("m", "echo", {}, deadline_s=10)
    assert len(loads(marker)) == 8

    await pool.replace(spec(marker=str(marker)))
    assert await pool.call("m", "echo", {}, deadline_s=10) == {}
    assert pool.status().model("m").notes == ()


# ---------------------------------------------------------------- files


def write(path: Path, data: bytes) -> dict[str, str]:
    path.write_bytes(data)
    return {str(path): hashlib.sha256(data).hexdigest()}


async def test_a_wrong_hash_is_refused_before_the_engine_may_open_the_file(pool: Pool, tmp_path: Path) -> None:
    marker, good, bad = tmp_path / "marker", tmp_path / "good.gguf", tmp_path / "bad.bin"
    files = {**write(good, b"GGUF"), **write(bad, b"one")}
    bad.write_bytes(b"two")
    pool.register(spec(entry=str(good), files=files, marker=str(marker)))
    with pytest.raises(HashMismatch, match=r"bad\.bin has SHA-256"):
        await pool.call("m", "echo", {}, deadline_s=10)
    assert not marker.exists()
    bad.write_bytes(b"one")
    await pool.load("m")
    assert len(loads(marker)) == 1


async def test_a_file_that_changes_after_a_good_load_is_found_out(pool: Pool, tmp_path: Path) -> None:
    marker, file = tmp_path / "marker", tmp_path / "model.gguf"
    files = write(file, b"a" * 1000)
    long_ago = time.time() - 3600
    os.utime(file, (long_ago, long_ago))
    pool.register(spec(entry=str(file), files=files, marker=str(marker)))
    await pool.load("m")
    await pool.unload("m")
    file.write_bytes(b"b" * 1000)
    os.utime(file, (long_ago, long_ago))  # same size, same name, same modification time
    with pytest.raises(HashMismatch):
        await pool.load("m")
    assert len(loads(marker)) == 1


async def test_replace_with_another_hash_of_the_same_file_is_checked_anew(pool: Pool, tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    files = write(file, b"a")
    pool.register(spec(entry=str(file), files=files))
    await pool.load("m")
    await pool.replace(spec(entry=str(file), files={str(file): "0" * 64}))
    with pytest.raises(HashMismatch):
        await pool.load("m")


async def test_missing_and_unlisted_files_are_refused(pool: Pool, tmp_path: Path) -> None:
    pool.register(spec("missing", entry="/nowhere/x", files={"/nowhere/x": "0" * 64}))
    with pytest.raises(BadModel, match="cannot read /nowhere/x"):
        await pool.call("missing", "echo", {}, deadline_s=10)
    pool.register(spec("unlisted", entry=str(tmp_path / "x")))
    with pytest.raises(BadModel, match="has no SHA-256"):
        await pool.call("unlisted", "echo", {}, deadline_s=10)


async def test_a_refused_model_is_not_loaded_again_for_every_request(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    async with Pool(settings(), backoff_s=30) as pool:
        pool.register(spec(marker=str(marker), bad_model="not a GGUF file"))
        for _ in range(5):
            with pytest.raises(BadModel, match="not a GGUF file"):
                await pool.call("m", "echo", {}, deadline_s=5)
        assert len(loads(marker)) == 1
        assert pool.status().model("m").state == "backing-off"
        await pool.replace(spec(marker=str(marker)))
        assert await pool.call("m", "echo", {}, deadline_s=10) == {}


# ---------------------------------------------------------------- memory


async def test_idle_models_are_evicted_cheapest_to_reload_first() -> None:
    async with Pool(settings(memory_mb=180)) as pool:
        pool.register(spec("slow", load_s=0.6, allocate_mb=50, expected_mb=65))
        pool.register(spec("fast", allocate_mb=50, expected_mb=65))
        pool.register(spec("new", allocate_mb=50, expected_mb=65))
        await pool.load("slow")
        await pool.load("fast")
        evicted = pool.status().model("fast").pid
        assert evicted is not None
        await pool.load("new")
        states = {status.model: status.state for status in pool.status().models}
        assert states == {"slow": "ready", "fast": "unloaded", "new": "ready"}
        assert gone(evicted)
        assert pool.status().used_bytes <= pool.status().budget_bytes
        assert pool.status().model("fast").crashes == 0


async def test_pinned_and_busy_models_stay_and_the_new_one_is_refused() -> None:
    async with Pool(settings(memory_mb=200)) as pool:
        pool.register(spec("pinned", allocate_mb=60, expected_mb=75, pinned=True))
        pool.register(spec("busy", allocate_mb=60, expected_mb=75))
        pool.register(spec("new", expected_mb=100))
        await pool.load("pinned")
        stream = pool.stream("busy", "count", {"n": 10**9, "pause_s": 0.001}, deadline_s=60)
        await anext(stream)
        with pytest.raises(ModelDoesNotFit, match=r"needs 100 MiB, the budget is 200 MiB") as refused:
            await pool.call("new", "echo", {}, deadline_s=10)
        assert refused.value.retry_after_s
        assert (await anext(stream)).kind == "event"
        await stream.aclose()
        assert await pool.call("new", "echo", {}, deadline_s=10) == {}  # now "busy" could go
        states = {status.model: status.state for status in pool.status().models}
        assert states == {"pinned": "ready", "busy": "unloaded", "new": "ready"}


async def test_a_model_that_can_never_fit_is_refused_at_once() -> None:
    async with Pool(settings(memory_mb=100)) as pool:
        pool.register(spec("idle", expected_mb=30))
        pool.register(spec("huge", expected_mb=5000))
        await pool.load("idle")
        with pytest.raises(ModelDoesNotFit, match=r"'huge' needs 5000 MiB, the budget is 100 MiB"):
            await pool.call("huge", "echo", {}, deadline_s=60)
        assert pool.status().model("idle").state == "ready"  # nothing was evicted in vain
        assert pool.status().model("huge").loads == 0


async def test_measured_memory_counts_on_the_next_load() -> None:
    async with Pool(settings(memory_mb=120)) as pool:
        pool.register(spec("liar", allocate_mb=80, expected_mb=10))
        pool.register(spec("busy", allocate_mb=50, expected_mb=65))
        await pool.load("liar")
        assert (pool.status().model("liar").pss_bytes or 0) > 80 * MIB
        await pool.unload("liar")
        stream = pool.stream("busy", "count", {"n": 10**9, "pause_s": 0.001}, deadline_s=60)
        await anext(stream)
        with pytest.raises(ModelDoesNotFit, match=r"'liar' needs [89]\d MiB"):
            await pool.call("liar", "echo", {}, deadline_s=10)
        await stream.aclose()


async def test_growth_over_the_budget_ends_idle_models() -> None:
    async with Pool(settings(memory_mb=150), sample_s=0.05) as pool:
        pool.register(spec("idle", allocate_mb=50, expected_mb=60))
        pool.register(spec("growing", expected_mb=20))
        await pool.load("idle")
        await pool.call("growing", "allocate", {"mb": 100}, deadline_s=10)
        stream = pool.stream("growing", "count", {"n": 10**9, "pause_s": 0.001}, deadline_s=60)
        await anext(stream)
        async with contextlib.aclosing(stream):
            await until(lambda: pool.status().model("idle").state == "unloaded")
            assert (await anext(stream)).kind == "event"


async def test_requests_for_an_unloaded_model_share_one_load(pool: Pool, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    pool.register(spec(marker=str(marker), go=str(tmp_path / "go")))
    calls = [asyncio.create_task(pool.call("m", "echo", {"i": i}, deadline_s=20)) for i in range(10)]
    await until(lambda: pool.status().model("m").waiting == 10)
    assert pool.status().model("m").state == "loading"
    (tmp_path / "go").touch()
    assert await asyncio.gather(*calls) == [{"i": i} for i in range(10)]
    assert len(loads(marker)) == 1


async def test_an_idle_model_is_unloaded_after_its_time_and_a_pinned_one_stays() -> None:
    async with Pool(settings(keep_alive_s=0.2), sample_s=0.05) as pool:
        pool.register(spec())
        pool.register(spec("pinned", pinned=True))
        await pool.load("pinned")
        pids = set()
        async for _ in pool.stream("m", "count", {"n": 60, "pause_s": 0.01}, deadline_s=20):
            pids.add(pool.status().model("m").pid)
        (pid,) = pids  # work is not idleness
        assert pid is not None
        await until(lambda: gone(pid))
        assert pool.status().model("m").state == "unloaded"
        assert pool.status().model("pinned").state == "ready"
        assert pool.status().model("m").crashes == 0


# ---------------------------------------------------------------- changes and the end


async def test_unload_and_replace_let_open_requests_finish(pool: Pool) -> None:
    pool.register(spec(version=1))
    await pool.load("m")
    old = asyncio.create_task(pool.call("m", "count", {"n": 100, "pause_s": 0.002}, deadline_s=20))
    await until(lambda: pool.status().model("m").requests == 1)
    swap = asyncio.create_task(pool.replace(spec(version=2)))
    await until(lambda: pool.status().model("m").pid is None)
    assert await pool.call("m", "echo", {}, deadline_s=10) == {}
    assert old.done()  # one in memory at a time
    assert await old == {"n": 100}
    await swap
    assert pool.status().model("m").facts["version"] == 2
    assert pool.status().model("m").crashes == 0


async def test_unregister_forgets_the_model(pool: Pool) -> None:
    pool.register(spec())
    await pool.load("m")
    pid = pool.status().model("m").pid
    assert pid is not None
    await pool.unregister("m")
    assert gone(pid)
    with pytest.raises(UnknownModel):
        await pool.call("m", "echo", {}, deadline_s=5)
    pool.register(spec())
    assert await pool.call("m", "echo", {}, deadline_s=10) == {}


async def test_leaving_drains_then_ends_everything(tmp_path: Path) -> None:
    before = set(asyncio.all_tasks())
    async with Pool(settings(), drain_s=20) as pool:
        pool.register(spec())
        pool.register(spec("loading", go=str(tmp_path / "never")))
        await pool.load("m")
        pid = pool.status().model("m").pid
        assert pid is not None
        finishing = asyncio.create_task(pool.call("m", "count", {"n": 100, "pause_s": 0.003}, deadline_s=20))
        loading = asyncio.create_task(pool.call("loading", "echo", {}, deadline_s=20))
        await until(lambda: pool.status().model("m").requests == 1 and pool.status().model("loading").loads == 1)
    assert await finishing == {"n": 100}
    with pytest.raises(ShuttingDown):
        await loading
    with pytest.raises(ShuttingDown):
        await pool.call("m", "echo", {}, deadline_s=5)
    assert gone(pid)
    await until(lambda: set(asyncio.all_tasks()) == before)


async def test_leaving_cuts_what_does_not_finish() -> None:
    started = time.monotonic()
    async with Pool(settings(), drain_s=0.2) as pool:
        pool.register(spec())
        pool.register(spec("stuck"))
        await pool.load("m")
        await pool.load("stuck")
        endless = asyncio.create_task(pool.call("m", "count", {"n": 10**9, "pause_s": 0.001}, deadline_s=60))
        stuck = asyncio.create_task(pool.call("stuck", "sleep", {"seconds": 60}, deadline_s=60))
        await until(lambda: all(status.requests == 1 for status in pool.status().models))
    for task in (endless, stuck):
        with pytest.raises(ShuttingDown):
            await task
    assert time.monotonic() - started < 15


async def test_an_exception_in_the_block_ends_the_workers_at_once() -> None:
    pids = []

    async def fail() -> None:
        async with Pool(settings()) as pool:
            pool.register(spec())
            await pool.load("m")
            pids.append(pool.status().model("m").pid)
            raise KeyError("boom")

    with pytest.raises(KeyError, match="boom"):  # itself, not inside a group
        await fail()
    assert gone(pids[0])


def open_descriptors() -> set[tuple[str, str]]:
    """Every open descriptor with what it is open on: a leak shows even where another one was closed meanwhile."""
    found = set()
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the listing's own
            found.add((number, os.readlink(f"/proc/self/fd/{number}")))
    return found


async def test_nothing_leaks_over_many_requests(pool: Pool) -> None:
    pool.register(spec())
    await pool.load("m")

    async def mixed(number: int) -> None:
        if number % 4 == 0:
            await pool.call("m", "echo", {"n": number}, deadline_s=20)
        elif number % 4 == 1:
            stream = pool.stream("m", "count", {"n": 1000}, deadline_s=20)
            await anext(stream)
            await stream.aclose()
        elif number % 4 == 2:
            with pytest.raises(InvalidRequest):
                await pool.call("m", "refuse", {}, deadline_s=20)
        else:
            with pytest.raises(DeadlineExceeded):
                await pool.call("m", "count", {"n": 10**9, "pause_s": 0.0005}, deadline_s=0.02)

    await mixed(0)
    gc.collect()  # what earlier tests left to the collector must not be counted
    tasks, descriptors, worker = len(asyncio.all_tasks()), open_descriptors(), await facts(pool)
    for start in range(0, 200, 10):
        await asyncio.gather(*(mixed(start + offset) for offset in range(10)))
    await until(lambda: len(asyncio.all_tasks()) == tasks)
    assert open_descriptors() - descriptors == set()
    after = await facts(pool)
    assert (after["fds"], after["active"]) == (worker["fds"], 0)
    status = pool.status().model("m")
    assert (status.requests, status.waiting, status.crashes, status.loads) == (0, 0, 0, 1)


async def test_nothing_leaks_over_many_loads(pool: Pool) -> None:
    pool.register(spec())
    await pool.load("m")
    await pool.unload("m")
    tasks, descriptors = len(asyncio.all_tasks()), len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        await pool.load("m")
        await pool.unload("m")
    # The first unload may not have been quite over when it was counted, so there may be fewer now.
    await until(lambda: len(asyncio.all_tasks()) <= tasks and len(os.listdir("/proc/self/fd")) <= descriptors)


# ---------------------------------------------------------------- isolation


async def test_a_worker_has_no_secrets_no_cores_and_its_own_session(
    pool: Pool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    monkeypatch.setenv("OUTPOST_TOKEN", "secret")
    monkeypatch.chdir(tmp_path)
    pool.register(spec())
    told = await facts(pool)
    assert not [name for name, value in told["environ"].items() if "secret" in value or "KEY" in name]
    assert told["environ"]["PATH"] == os.environ["PATH"]
    assert told["sid"] == pool.status().model("m").pid
    assert told["uid"] == os.getuid()
    assert told["core"] == [0, 0]
    assert told["oom_score_adj"] >= 500
    assert told["fds"] <= 6


async def test_a_worker_cannot_reach_the_network(pool: Pool) -> None:
    pool.register(spec())
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        await pool.load("m")
        notes = pool.status().model("m").notes
        if notes:
            pytest.skip(f"this platform cannot isolate: {notes[0]}")
        answer = await pool.call("m", "connect", {"port": port}, deadline_s=10)
        assert not answer["connected"]
    async with Pool(settings(isolate=False)) as open_pool:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            open_pool.register(spec())
            port = listener.getsockname()[1]
            assert (await open_pool.call("m", "connect", {"port": port}, deadline_s=10))["connected"]
            assert "no network isolation" in open_pool.status().model("m").notes[0]


PARENT = """
import asyncio, sys
from agent import config
from agent.engines.pool import ModelSpec, Pool
from agent.engines.protocol import LoadSpec

async def main():
    async with Pool(config.Pool()) as pool:
        for name in ("stuck", "free"):
            pool.register(ModelSpec(LoadSpec(name, "tests.simulators.engines:ScriptedEngine", "", {}), "slm", 1 << 24))
            await pool.load(name)
        task = asyncio.create_task(pool.call("stuck", "sleep", {"seconds": 300}, deadline_s=300))
        while not pool.status().model("stuck").requests:
            await asyncio.sleep(0)
        print(*[status.pid for status in pool.status().models], flush=True)
        await task

asyncio.run(main())
"""


async def test_workers_die_with_a_killed_parent() -> None:
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PARENT, stdout=asyncio.subprocess.PIPE, cwd=ROOT
    )
    assert parent.stdout is not None
    pids = [int(pid) for pid in (await parent.stdout.readline()).split()]
    assert len(pids) == 2
    parent.kill()
    await parent.wait()
    await until(lambda: all(gone(pid) for pid in pids))
