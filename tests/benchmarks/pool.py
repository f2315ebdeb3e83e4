"""What the pool costs: round trip of an empty call, streamed events, start and end of a worker, hashing, memory.

    PYTHONPATH=. python tests/benchmarks/pool.py

Best of five runs each. The engine answers at once, so that all time is the pool's, the worker loop's and the socket's.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from agent import config
from agent.engines.pool import ModelSpec, Pool
from agent.engines.process import measure_pss
from agent.engines.protocol import LoadSpec

ROUNDS = 5
ENGINE = "tests.simulators.engines:ScriptedEngine"


def spec(model: str = "m", files: dict[str, str] | None = None) -> ModelSpec:
    return ModelSpec(LoadSpec(model, ENGINE, "", files or {}), "slm", 20 << 20)


async def best(work: Callable[[], Awaitable[float]]) -> float:
    return min([await work() for _ in range(ROUNDS)])


def settled_file(folder: Path, mib: int) -> tuple[str, str]:
    """A file old enough that its verified hash may be kept, with that hash."""
    path, digest = folder / "weights", hashlib.sha256()
    with path.open("wb") as file:
        for _ in range(mib):
            block = os.urandom(1 << 20)
            digest.update(block)
            file.write(block)
    time.sleep(2.5)
    return str(path), digest.hexdigest()


async def main() -> None:
    own = os.getpid()
    before = measure_pss([own])[own]
    async with Pool(config.Pool()) as pool:
        pool.register(spec())
        await pool.load("m")

        async def call() -> float:
            start = time.perf_counter()
            for _ in range(2000):
                await pool.call("m", "echo", {}, deadline_s=10)
            return (time.perf_counter() - start) / 2000

        async def concurrent() -> float:
            start = time.perf_counter()
            for _ in range(100):
                await asyncio.gather(*(pool.call("m", "echo", {}, deadline_s=10) for _ in range(8)))
            return (time.perf_counter() - start) / 800

        async def stream() -> float:
            start = time.perf_counter()
            async for _ in pool.stream("m", "count", {"n": 10_000, "size": 40}, deadline_s=60):
                pass
            return (time.perf_counter() - start) / 10_000

        async def reload() -> float:
            await pool.unload("m")
            start = time.perf_counter()
            await pool.load("m")
            return time.perf_counter() - start

        async def unload() -> float:
            await pool.load("m")
            start = time.perf_counter()
            await pool.unload("m")
            return time.perf_counter() - start

        print(f"empty call, one client      {await best(call) * 1e6:8.0f} us")
        print(f"empty call, eight clients   {await best(concurrent) * 1e6:8.0f} us each")
        print(f"streamed event              {await best(stream) * 1e6:8.0f} us")
        print(f"load of an empty engine     {await best(reload) * 1e3:8.0f} ms")
        print(f"unload                      {await best(unload) * 1e3:8.0f} ms")

        with tempfile.TemporaryDirectory() as folder:
            path, digest = await asyncio.to_thread(settled_file, Path(folder), 512)
            await pool.replace(spec(files={path: digest}))
            start = time.perf_counter()
            await pool.load("m")
            first = time.perf_counter() - start
            again = await reload()
            print(f"load with 512 MiB to hash   {first * 1e3:8.0f} ms, again {again * 1e3:.0f} ms")
        worker = pool.status().model("m").pss_bytes or 0
        after = (await asyncio.to_thread(measure_pss, [own]))[own]
        print(f"PSS of the control process  {before >> 20:8d} MiB after import, {after >> 20} MiB now")
        print(f"PSS of an empty worker      {worker >> 20:8d} MiB")


asyncio.run(main())
