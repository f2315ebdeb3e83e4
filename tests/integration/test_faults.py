"""What must not take the daemon down, and what must not be lost: kills, full disks, floods, clients that go away."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.simulators.daemon import ROOT, TINY, RunningDaemon, clean_environment, install_tiny, running_daemon
from tests.simulators.disk import small_disk
from tests.simulators.waiting import until

PROMPT = {"model": TINY, "prompt": "a", "temperature": 0, "max_tokens": 1900, "stream": True}


@pytest.fixture
def tiny_daemon(tmp_path: Path, tiny_gguf: Path) -> Iterator[RunningDaemon]:
    state = tmp_path / "state"
    install_tiny(state, tiny_gguf)
    settings = {"OUTPOST_MODELS__TEXT": TINY, "OUTPOST_SERVER__QUEUE": "4", "OUTPOST_TEXT__SEQUENCES": "2"}
    with running_daemon(state, settings=settings) as running:
        yield running


def first_token(response: httpx.Response) -> Iterator[str]:
    """The stream's lines after the first token has come."""
    lines = response.iter_lines()
    for line in lines:
        if line.startswith("data: {"):
            break
    return lines


def model_status(daemon: RunningDaemon, name: str = TINY) -> dict:
    return next(model for model in daemon.status()["models"] if model["name"] == name)


# ---------------------------------------------------------------- workers


def test_a_worker_killed_in_mid_stream_ends_only_its_requests(tiny_daemon: RunningDaemon) -> None:
    with tiny_daemon.client() as client:
        with client.stream("POST", "/v1/completions", json=PROMPT) as response:
            lines = first_token(response)
            os.kill(tiny_daemon.worker_pid(TINY), signal.SIGKILL)
            rest = list(lines)
        last = json.loads(rest[-2].removeprefix("data: ")) if rest[-1] == "" else json.loads(rest[-1][6:])
        assert last["error"]["code"] == "worker_crashed"
        assert "SIGKILL" in last["error"]["message"]
        again = client.post("/v1/completions", json={**PROMPT, "stream": False, "max_tokens": 3})
        assert again.status_code == 200
        assert model_status(tiny_daemon)["crashes"] == 1


def test_a_client_that_goes_away_frees_its_sequence_at_once(tiny_daemon: RunningDaemon) -> None:
    with tiny_daemon.client() as client, client.stream("POST", "/v1/completions", json=PROMPT) as response:
        lines = first_token(response)
        assert model_status(tiny_daemon)["active"] == 1
        del lines
    until(lambda: model_status(tiny_daemon)["active"] == 0, "its sequence is free", 2.0)
    assert tiny_daemon.status()["queue"]["active"] == 0


def test_a_client_that_goes_away_before_the_answer_frees_it_too(tiny_daemon: RunningDaemon) -> None:
    client = tiny_daemon.client()
    body = json.dumps({**PROMPT, "stream": False}).encode()
    address = httpx.URL(tiny_daemon.url)
    with client, socket.create_connection((address.host, address.port or 80)) as sock:
        head = "POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        sock.sendall(head.encode() + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
        until(lambda: model_status(tiny_daemon)["active"] == 1, "it is at work")
    until(lambda: model_status(tiny_daemon)["active"] == 0, "its sequence is free", 2.0)


async def test_a_full_queue_is_a_429_that_says_when_to_come_back(tiny_daemon: RunningDaemon) -> None:
    async with httpx.AsyncClient(base_url=tiny_daemon.url, timeout=60, trust_env=False) as client:
        replies = await asyncio.gather(
            *(client.post("/v1/completions", json={**PROMPT, "stream": False, "max_tokens": 400}) for _ in range(12))
        )
    statuses = sorted(reply.status_code for reply in replies)
    assert statuses.count(200) == 4
    assert statuses.count(429) == 8
    refused = next(reply for reply in replies if reply.status_code == 429)
    assert int(refused.headers["retry-after"]) >= 1
    assert refused.json()["error"]["type"] == "rate_limit_error"


def test_a_damaged_model_file_is_refused_by_its_hash(tmp_path: Path, tiny_gguf: Path) -> None:
    state = tmp_path / "state"
    install_tiny(state, tiny_gguf)
    path = state / "models" / TINY / "tiny.gguf"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with running_daemon(state) as daemon, daemon.client() as client:
        reply = client.post("/v1/completions", json={**PROMPT, "stream": False})
        assert (reply.status_code, reply.json()["error"]["code"]) == (503, "hash_mismatch")
        assert "tiny.gguf" in reply.json()["error"]["message"]
        assert client.get("/healthz").status_code == 200


@pytest.mark.parametrize("content", [b"", b"GGUF", b"not a model at all" * 100])
def test_a_file_that_is_no_model_is_a_clear_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "any.gguf"
    path.write_bytes(content)
    state = tmp_path / "state"
    install_tiny(state, path)
    with running_daemon(state) as daemon, daemon.client() as client:
        reply = client.post("/v1/completions", json={**PROMPT, "stream": False})
        assert (reply.status_code, reply.json()["error"]["code"]) == (503, "bad_model")
        assert client.get("/healthz").status_code == 200


def test_a_model_that_cannot_fit_is_refused_with_the_numbers(tmp_path: Path, tiny_gguf: Path) -> None:
    state = tmp_path / "state"
    install_tiny(state, tiny_gguf)
    with running_daemon(state, settings={"OUTPOST_POOL__MEMORY_MB": "64"}) as daemon, daemon.client() as client:
        reply = client.post("/v1/completions", json={**PROMPT, "stream": False})
        assert (reply.status_code, reply.json()["error"]["code"]) == (503, "model_does_not_fit")
        assert "64" in reply.json()["error"]["message"]


# ---------------------------------------------------------------- the daemon itself


def test_sigterm_lets_the_running_stream_finish_and_takes_the_workers_along(tiny_daemon: RunningDaemon) -> None:
    body = {**PROMPT, "max_tokens": 300}
    with tiny_daemon.client() as client, client.stream("POST", "/v1/completions", json=body) as response:
        lines = first_token(response)
        pid = tiny_daemon.worker_pid(TINY)
        tiny_daemon.process.send_signal(signal.SIGTERM)
        assert "data: [DONE]" in list(lines)
    assert tiny_daemon.process.wait(20) == 0
    until(lambda: not Path(f"/proc/{pid}").exists(), "the worker is gone")


def test_sigkill_leaves_no_worker_behind_and_the_next_start_works(tiny_daemon: RunningDaemon) -> None:
    with tiny_daemon.client() as client:
        assert client.post("/v1/completions", json={**PROMPT, "stream": False, "max_tokens": 2}).status_code == 200
    pid = tiny_daemon.worker_pid(TINY)
    tiny_daemon.process.kill()
    tiny_daemon.process.wait()
    until(lambda: not Path(f"/proc/{pid}").exists(), "the worker is gone")
    with running_daemon(tiny_daemon.state) as again, again.client() as client:
        assert client.get("/readyz").status_code == 200


def test_a_worker_killed_while_it_reads_a_document_ends_only_that_upload(tmp_path: Path) -> None:
    def upload(client: httpx.Client, name: str) -> httpx.Response:
        files = {"file": (name, b"<p>The tearoom opens at nine.</p>")}
        return client.post("/v1/knowledge/default/files", files=files)

    with (
        running_daemon(tmp_path / "state", settings={"OUTPOST_MODELS__EMBEDDING": ""}) as daemon,
        daemon.client(operator=True) as client,
        ThreadPoolExecutor(1) as beside,
    ):
        assert upload(client, "first.html").status_code == 200
        worker = daemon.worker_pid("documents")
        os.kill(worker, signal.SIGSTOP)
        cut = beside.submit(upload, client, "second.html")
        until(lambda: model_status(daemon, "documents")["active"] == 1, "it is at work")
        os.kill(worker, signal.SIGKILL)
        refused = cut.result(timeout=30)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "worker_crashed")
        assert upload(client, "second.html").json()["stored"] == ["second.html"]
        listed = client.get("/v1/knowledge/default/documents").json()["documents"]
        assert [document["id"] for document in listed] == ["first.html", "second.html"]


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGTERM])
def test_what_was_acknowledged_survives_an_end_in_mid_ingest(tmp_path: Path, ending: signal.Signals) -> None:
    """The daemon is ended at a moment it cannot know; everything that got its 200 is there afterwards."""
    state = tmp_path / "state"
    acknowledged: list[str] = []
    with running_daemon(state, settings={"OUTPOST_MODELS__EMBEDDING": ""}) as daemon:
        threading.Timer(1.0, daemon.process.send_signal, [ending]).start()
        with daemon.client(operator=True) as client:
            for number in range(100_000):
                text = f"Document {number} tells about the number {number}. " * 20
                body = {"documents": [{"id": f"d{number}", "title": "T", "text": text}]}
                try:
                    reply = client.post("/v1/knowledge/default/documents", json=body)
                except httpx.TransportError:
                    break
                if reply.status_code == 503 and ending == signal.SIGTERM:
                    assert reply.json()["error"]["code"] == "shutting_down"
                    break
                assert reply.status_code == 200
                acknowledged.append(f"d{number}")
        daemon.process.wait()
    assert len(acknowledged) > 5
    with running_daemon(state, settings={"OUTPOST_MODELS__EMBEDDING": ""}) as again:
        listed = [
            json.loads(line)["id"]
            for line in again.cli("knowledge", "list", "default", "--json").stdout.split("\n")
            if line
        ]
        assert set(acknowledged) <= set(listed)
        assert len(listed) <= len(acknowledged) + 1
        with again.client() as client:
            number = acknowledged[-1].removeprefix("d")
            found = client.post("/v1/knowledge/default/search", json={"query": f"number {number}", "k": 3}).json()
            assert acknowledged[-1] in {hit["document"] for hit in found["results"]}


def test_a_full_disk_refuses_the_document_and_keeps_what_was_stored(tmp_path: Path) -> None:
    with (
        small_disk(tmp_path / "small", "4m") as state,
        running_daemon(state, settings={"OUTPOST_MODELS__EMBEDDING": ""}) as daemon,
        daemon.client(operator=True) as client,
    ):
        stored = 0
        while True:
            text = f"Document {stored}: " + " ".join(f"word{stored}x{i}" for i in range(8000))
            body = {"documents": [{"id": f"d{stored}", "title": "T", "text": text}]}
            reply = client.post("/v1/knowledge/default/documents", json=body)
            if reply.status_code != 200:
                break
            stored += 1
        assert (reply.status_code, reply.json()["error"]["code"]) == (507, "storage_full")
        assert stored > 0
        listed = client.get("/v1/knowledge/default/documents").json()["documents"]
        assert {document["id"] for document in listed} == {f"d{i}" for i in range(stored)}
        assert client.get("/healthz").status_code == 200


def serve(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """`outpost serve` that is expected to end at once."""
    command = [sys.executable, "-m", "agent", "serve", *arguments]
    environment = clean_environment() | env
    return subprocess.run(command, capture_output=True, text=True, timeout=30, cwd=ROOT, env=environment, check=False)


def test_a_taken_port_is_one_clear_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = serve("--state", str(tmp_path), "--port", str(port))
    assert done.returncode == 1
    assert str(port) in done.stderr
    assert "--port" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_state_folder_has_one_daemon(tiny_daemon: RunningDaemon) -> None:
    done = serve("--state", str(tiny_daemon.state), "--port", "0")
    assert done.returncode == 1
    assert "another Outpost" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unreadable_configuration_is_one_clear_line(tmp_path: Path) -> None:
    config = tmp_path / "agent.toml"
    config.write_text("[server]\nprot = 1\n", encoding="utf-8")
    done = serve("--config", str(config), "--state", str(tmp_path))
    assert done.returncode == 1
    assert "did you mean 'port'" in done.stderr
    missing = serve("--config", str(tmp_path / "none.toml"), "--state", str(tmp_path))
    assert "no configuration" in missing.stderr
    assert len(missing.stderr.strip().splitlines()) == 1


def test_beyond_loopback_a_token_is_obligatory(tmp_path: Path) -> None:
    done = serve("--host", "0.0.0.0", "--port", "0", "--state", str(tmp_path))
    assert done.returncode == 1
    assert "token_file" in done.stderr
    token = tmp_path / "token"
    token.write_text("a-long-enough-random-token\n", encoding="ascii")
    settings = {"OUTPOST_SERVER__HOST": "0.0.0.0", "OUTPOST_SERVER__TOKEN_FILE": str(token)}
    with running_daemon(tmp_path / "state", settings=settings) as daemon:
        port = httpx.URL(daemon.url).port
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
            assert client.get("/v1/models").status_code == 401
            with_token = {"authorization": "Bearer a-long-enough-random-token"}
            assert client.get("/v1/models", headers=with_token).status_code == 200
            assert client.get("/admin/status", headers=with_token).status_code == 401
            operator = {"authorization": f"Bearer {daemon.operator_token}"}
            assert client.get("/v1/models", headers=operator).status_code == 200


def test_a_damaged_knowledge_base_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "knowledge.db").write_bytes(b"this is no database" * 1000)
    done = serve("--state", str(tmp_path), "--port", "0")
    assert done.returncode == 1
    assert "knowledge.db" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_end_of_a_session_leaves_nothing_in_the_engines_cache(tiny_daemon: RunningDaemon) -> None:
    body = {"model": TINY, "prompt": "the last visitor's words " * 8, "temperature": 0, "max_tokens": 2}
    with tiny_daemon.client() as client:

        def cached() -> int:
            usage = client.post("/v1/completions", json=body).json()["usage"]
            return int(usage["prompt_tokens_details"]["cached_tokens"])

        cached()
        assert cached() > 0
        assert client.delete("/v1/sessions/any").status_code == 204
        assert cached() == 0


def test_ending_a_conversation_loads_no_model(tiny_daemon: RunningDaemon) -> None:
    with tiny_daemon.client() as client:
        assert client.delete("/v1/sessions/any").status_code == 204
    assert model_status(tiny_daemon)["loads"] == 0


def test_a_full_disk_takes_no_answer_away(tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", "3m") as state:
        settings = {"OUTPOST_MODELS__EMBEDDING": "", "OUTPOST_MODELS__TEXT": ""}
        with running_daemon(state, settings=settings) as daemon, daemon.client(operator=True) as client:
            documents = [{"id": "a", "title": "Umbrellas", "text": "Umbrellas are behind the counter."}]
            client.post("/v1/knowledge/default/documents", json={"documents": documents}).raise_for_status()
            with contextlib.suppress(OSError), (state / "filler").open("wb") as filler:
                while True:
                    filler.write(b"x" * 4096)
                    filler.flush()
            notes: list[str] = []
            for _ in range(60):  # what is preallocated in the journal is used up first
                notes = daemon.ask("Where are the umbrellas?")["notes"]
                if any("storage_full" in note for note in notes):
                    break
            assert any("storage_full" in note for note in notes)
            assert client.get("/healthz").status_code == 200
