"""Speed of the daemon over HTTP beyond what `outpost bench` shows: another server beside it, CPU, the assistant's path.

    python tests/benchmarks/make_random_model.py /tmp/random.gguf
    python tests/benchmarks/daemon.py servers /tmp/random.gguf --server-python /tmp/other/bin/python
    python tests/benchmarks/daemon.py cpu /tmp/random.gguf
    python tests/benchmarks/daemon.py assistant

``servers`` compares with llama-cpp-python's own server on the same model, build and threads, round by round; its
interpreter needs that package with the extra ``server``. ``cpu`` counts processor time a token, which a busy machine
hardly changes: of the control process, of the worker, of the bare loop. ``assistant`` asks the demo's questions
(OUTPOST_EMBEDDING_MODEL gives it embeddings) and shows what a question costs the control process.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import http.client
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from agent.cli.bench_daemon import BenchDaemon, running  # noqa: E402
from agent.cli.bench_raw import Yardstick, yardstick  # noqa: E402
from agent.engines.process import measure_pss  # noqa: E402
from agent.updates.shelf import Manifest, ManifestFile  # noqa: E402
from tests.simulators.daemon import DEMO, RunningDaemon, running_daemon  # noqa: E402

MODEL = "measured"
STAGES = ("understand", "search", "generate")


def install(state: Path, gguf: Path) -> None:
    """The file as the installed model `MODEL`."""
    folder = state / "models" / MODEL
    folder.mkdir(parents=True)
    (folder / "model.gguf").symlink_to(gguf.resolve())
    with gguf.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    file = ManifestFile(path="model.gguf", sha256=digest, size=gguf.stat().st_size)
    Manifest(name=MODEL, kind="slm", entry=file.path, files=(file,)).write(folder)


@contextlib.contextmanager
def daemon_with(gguf: Path, threads: int) -> Iterator[BenchDaemon]:
    with tempfile.TemporaryDirectory() as folder:
        state, config = Path(folder) / "state", Path(folder) / "agent.toml"
        install(state, gguf)
        config.write_text(f'[text]\nthreads = {threads}\n[models]\ntext = ""\nembedding = ""\n', "utf-8")
        with running(state, config) as daemon:
            yield daemon


# ---------------------------------------------------------------- beside another server


@contextlib.contextmanager
def other_server(python: str, gguf: Path, threads: int) -> Iterator[int]:
    """llama-cpp-python's server; gives its port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    options = {
        "model": gguf, "host": "127.0.0.1", "port": port, "n_ctx": 2048, "n_batch": 256,
        "n_threads": threads, "n_threads_batch": threads, "interrupt_requests": False, "verbose": False,
    }  # fmt: skip
    command = [python, "-m", "llama_cpp.server"]
    for name, value in options.items():
        command += [f"--{name}", str(value)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while True:
            assert process.poll() is None, f"{' '.join(command)} ended with {process.returncode}"
            assert time.monotonic() < deadline, "the other server does not answer"
            with contextlib.suppress(OSError):
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
                connection.request("GET", "/v1/models")
                if connection.getresponse().status == 200:
                    break
            time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait(20)


def completion(port: int, model: str, prompt: str, tokens: int) -> int:
    """Tokens of a greedy completion in one piece."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    body = {"model": model, "prompt": prompt, "max_tokens": tokens, "temperature": 0}
    connection.request("POST", "/v1/completions", json.dumps(body), {"content-type": "application/json"})
    response = connection.getresponse()
    reply: dict[str, Any] = json.loads(response.read())
    assert response.status == 200, reply
    connection.close()
    return int(reply["usage"]["completion_tokens"])


def together(port: int, model: str, prompts: list[str], tokens: int) -> float:
    """Tokens per second of all clients together."""
    with ThreadPoolExecutor(len(prompts)) as clients:
        started = time.perf_counter()
        counts = list(clients.map(lambda prompt: completion(port, model, prompt, tokens), prompts))
        return sum(counts) / (time.perf_counter() - started)


def servers(options: argparse.Namespace) -> None:
    with (
        yardstick(options.model, options.threads, options.tokens) as raw,
        daemon_with(options.model, options.threads) as daemon,
        other_server(options.server_python, options.model, options.threads) as other,
    ):
        prompts = raw.prompts(8, options.tokens)
        names = {daemon.port: MODEL, other: str(options.model)}
        for clients in (1, 4, 8):
            rates: dict[int, list[float]] = {daemon.port: [], other: []}
            for turn in range(options.rounds + 1):
                asked = [f"{turn} {prompt}" for prompt in prompts[:clients]]  # new to every cache of prefixes
                for port in sorted(rates, reverse=bool(turn % 2)):
                    rate = together(port, names[port], asked, options.tokens)
                    if turn:  # the first round loads and warms
                        rates[port].append(rate)
            ratios = [ours / theirs for ours, theirs in zip(rates[daemon.port], rates[other], strict=True)]
            print(
                f"{clients} clients: daemon {statistics.median(rates[daemon.port]):.1f} tokens/s, "
                f"llama-cpp-python's server {statistics.median(rates[other]):.1f}, "
                f"ratio {statistics.median(ratios):.3f} of {[round(ratio, 2) for ratio in ratios]}"
            )


# ---------------------------------------------------------------- processor time


def cpu_seconds(pid: int) -> float:
    """Processor time of all threads."""
    tasks = Path(f"/proc/{pid}/task")
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks.iterdir()) / 1e9


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def cpu(options: argparse.Namespace) -> None:
    with (
        yardstick(options.model, options.threads, options.tokens) as raw,
        daemon_with(options.model, options.threads) as daemon,
    ):
        prompt = raw.prompts(1, options.tokens)[0]
        daemon.complete(MODEL, prompt, options.tokens)
        (worker,) = children(daemon.pid)
        rows = [cpu_round(daemon, worker, raw, prompt, options.tokens) for _ in range(options.rounds)]
        control, engine, bare = (statistics.median(column) * 1e6 for column in zip(*rows, strict=True))
        ratio = statistics.median(row[2] / row[1] for row in rows)
        print(
            f"processor time a token: control process {control:.0f} us, worker {engine:.0f} us, "
            f"bare loop {bare:.0f} us; bare loop / worker {ratio:.3f}"
        )


def cpu_round(daemon: BenchDaemon, worker: int, raw: Yardstick, prompt: str, tokens: int) -> tuple[float, float, float]:
    """Seconds a token of control process, worker and bare loop, for one answer to a prompt that was read before."""
    before = cpu_seconds(daemon.pid), cpu_seconds(worker)
    answered = daemon.complete(MODEL, prompt, tokens).tokens
    control, engine = cpu_seconds(daemon.pid) - before[0], cpu_seconds(worker) - before[1]
    bare = raw.decode(prompt, tokens)
    return control / answered, engine / answered, bare.cpu_seconds / (bare.tokens - 1)


# ---------------------------------------------------------------- the assistant


def assistant(options: argparse.Namespace) -> None:
    from tests.integration.conftest import install_embedding

    asked = tomllib.loads((DEMO / "questions.toml").read_text("utf-8"))
    questions = [str(question["text"]) for question in asked["questions"]]
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder)
        embedded = install_embedding(state)
        with running_daemon(state) as daemon:
            daemon.cli("knowledge", "add", str(DEMO / "documents"))
            daemon.cli("intents", "train", str(DEMO / "intents.toml"))
            print(f"embeddings: {embedded}")
            ask_all(daemon, questions)  # loads the workers
            ask_all(daemon, questions * options.rounds, report=True)
            memory("after answering, workers running", daemon.process.pid)
        with running_daemon(state) as daemon:
            time.sleep(2)
            memory("started on the same state, no worker running", daemon.process.pid)


def ask_all(daemon: RunningDaemon, questions: list[str], *, report: bool = False) -> None:
    """One after the other, each a session of its own."""
    walls: list[float] = []
    stages: dict[str, list[float]] = {}
    pid = daemon.process.pid
    before = cpu_seconds(pid), sum(cpu_seconds(child) for child in children(pid))
    address = urlsplit(daemon.url)
    with contextlib.closing(http.client.HTTPConnection(str(address.hostname), address.port, timeout=600)) as client:
        for question in questions:
            body = json.dumps({"model": "outpost", "messages": [{"role": "user", "content": question}]})
            started = time.perf_counter()
            client.request("POST", "/v1/chat/completions", body, {"content-type": "application/json"})
            reply = json.loads(client.getresponse().read())
            walls.append((time.perf_counter() - started) * 1000)
            timings = reply["outpost"]["timings_ms"]
            timings["outside these stages"] = walls[-1] - sum(timings.get(stage, 0.0) for stage in STAGES)
            for stage, milliseconds in timings.items():
                stages.setdefault(stage, []).append(milliseconds)
    if not report:
        return
    control = (cpu_seconds(pid) - before[0]) * 1000 / len(questions)
    workers = (sum(cpu_seconds(child) for child in children(pid)) - before[1]) * 1000 / len(questions)
    print(f"{len(questions)} questions: wall {statistics.median(walls):.1f} ms (median), of it")
    for stage, values in stages.items():
        print(f"  {stage}: {statistics.median(values):.1f} ms in {len(values)} answers")
    print(f"processor time a question: control process {control:.2f} ms, workers {workers:.2f} ms")


def memory(when: str, pid: int) -> None:
    resident = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    print(f"control process, {when}: PSS {measure_pss([pid])[pid] / 1e6:.1f} MB, resident {resident / 1e6:.1f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("servers", "cpu", "assistant"))
    parser.add_argument("model", type=Path, nargs="?", help="GGUF file, for servers and cpu")
    parser.add_argument("--server-python", default=sys.executable)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    if options.what != "assistant" and options.model is None:
        parser.error(f"{options.what} needs a model file")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that what was started is ended too
    {"servers": servers, "cpu": cpu, "assistant": assistant}[options.what](options)


if __name__ == "__main__":
    main()
