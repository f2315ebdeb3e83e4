"""What the outbox costs: taking a question, an answer, and looking for what is due, with many others waiting.

    python tests/benchmarks/outbox.py [--waiting 3000] [--times 200] [--folder .]

The folder's disk decides: every change is synced to it (synchronous=FULL).
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from agent.escalation.outbox import Outbox
from agent.escalation.request import key_of
from agent.escalation.store import Store
from agent.messages import ChatMessage, CloudRequest, Inquiry

TEXT = "Where can I leave a wet umbrella, and until when is the cloakroom open on Sundays? " * 8


async def measure(folder: Path, waiting: int, times: int) -> None:
    async with Store(folder / "outbox.db") as store:
        outbox = Outbox(store, limit_bytes=1 << 30, person_s=3600)

        async def put(number: int) -> None:
            id = f"evt-{number}"
            request = CloudRequest(key_of(id), id, (ChatMessage("user", TEXT),), 300, time.time() + 3600)
            await outbox.put(Inquiry(id, TEXT), request, b"{}", personal=False)

        for number in range(waiting):
            await put(number)
        status = await outbox.status()
        print(f"{status.waiting} waiting, {status.bytes / 2**20:.1f} MiB of texts")
        fresh, done = iter(range(waiting, 10 * waiting)), iter(range(waiting))
        works: dict[str, Callable[[], Awaitable[object]]] = {
            "put": lambda: put(next(fresh)),
            "due": lambda: outbox.due(4),
            "settle": lambda: outbox.settle(f"evt-{next(done)}", TEXT, "cloud", "cloud"),
            "get": lambda: outbox.get("evt-7"),
            "expire": outbox.expire,
            "status": outbox.status,
        }
        for name, work in works.items():
            took = []
            for _ in range(times):
                started = time.perf_counter()
                await work()
                took.append(1000 * (time.perf_counter() - started))
            print(f"{name:8} best {min(took):7.2f} ms   median {statistics.median(took):7.2f} ms")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--waiting", type=int, default=3000)
    parser.add_argument("--times", type=int, default=200)
    parser.add_argument("--folder", type=Path, default=Path())
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        asyncio.run(measure(Path(folder), given.waiting, given.times))


if __name__ == "__main__":
    main()
