"""The demo behind scripts/demo: a daemon on the project's own documents, ten questions, and what was decided.

Everything lies in .venv/demo. Uses the public doors only: the `outpost` command and the HTTP API.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Any, NoReturn

import httpx

ROOT = Path(__file__).resolve().parent.parent
STATE = ROOT / ".venv" / "demo"
DEMO = ROOT / "models" / "reference" / "demo"
EMBEDDING = "all-minilm-l6-v2"
PORT = 8080
READY_S = 60.0


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/demo", description="Ask the device ten questions.")
    parser.add_argument("--once", action="store_true", help="end the daemon after the questions")
    parser.add_argument("--json", action="store_true", help="print one object a question")
    parser.add_argument("--stop", action="store_true", help="stop the daemon of an earlier run")
    given = parser.parse_args()
    STATE.mkdir(parents=True, exist_ok=True)
    stop_earlier()
    if given.stop:
        return
    get_embedding_model()
    process, url = start()
    keep = False
    try:
        outpost("knowledge", "add", str(DEMO / "documents"), url=url)
        outpost("intents", "train", str(DEMO / "intents.toml"), url=url)
        ask_all(url, as_json=given.json)
        keep = not given.once
    finally:
        if not keep:
            end(process.pid)
    if keep:
        say(f"\nThe daemon goes on: open {url}/ in a browser (operator's page: {url}/operator).")
        say(f"Ask it yourself:  .venv/bin/outpost ask --url {url} 'Do you have lockers?'")
        say("Stop it:          scripts/demo --stop")


def get_embedding_model() -> None:
    """Download and convert the embedding model; without it the demo goes on with keyword search, and says so."""
    if (STATE / "models" / EMBEDDING).exists():
        return
    say(f"Getting the embedding model {EMBEDDING} (90 MB, once)")
    pull = [sys.executable, "-m", "agent", "models", "pull", EMBEDDING, "--state", str(STATE)]
    pulled = subprocess.run(pull, stdout=sys.stderr, check=False)
    if pulled.returncode != 0:
        say("Going on without it: the daemon searches by keywords only, and every answer says so.")


def start() -> tuple[subprocess.Popen[bytes], str]:
    """A daemon in a session of its own, ready to answer, and its address."""
    log_path = STATE / "daemon.log"
    port = PORT if is_free(PORT) else 0
    command = [sys.executable, "-m", "agent", "serve", "--state", str(STATE), "--port", str(port)]
    with log_path.open("wb") as log:
        process = subprocess.Popen(command, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True, cwd=ROOT)
    (STATE / "daemon.pid").write_text(str(process.pid), encoding="ascii")
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            fail(f"the daemon ended at once: {log_path.read_text(errors='replace').strip()}")
        if found := re.search(r"listens on (http://\S+)", log_path.read_text(errors="replace")):
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(found[1] + "/readyz", trust_env=False).status_code == 200:
                    return process, found[1]
        time.sleep(0.05)
    end(process.pid)
    return fail(f"the daemon was not ready within {READY_S:.0f} s; its log is {log_path}")


def ask_all(url: str, *, as_json: bool) -> None:
    questions = tomllib.loads((DEMO / "questions.toml").read_text(encoding="utf-8"))["questions"]
    with httpx.Client(base_url=url, timeout=120, trust_env=False) as client:
        for question in questions:
            body = {"model": "outpost", "messages": [{"role": "user", "content": question["text"]}]}
            response = client.post("/v1/chat/completions", json=body)
            if response.is_error:
                fail(f"{question['text']!r} was answered with {response.status_code}: {response.text}")
            reply = response.json()
            answer = {"question": question["text"], "answer": reply["choices"][0]["message"]["content"]}
            if as_json:
                print(json.dumps({**answer, **reply["outpost"]}, ensure_ascii=False), flush=True)
            else:
                show(answer, reply["outpost"])


def show(answer: dict[str, str], about: dict[str, Any]) -> None:
    print(f"\nQ  {answer['question']}")
    print("A  " + answer["answer"].replace("\n", "\n   "))
    kind = f", {about['answer_kind']}" if about["answer_kind"] else ""
    sure = f"confidence {about['confidence']:.2f}"
    if about["decision"] in ("local", "action") and about["certificate"] is None:
        sure += " (uncertified)"
    print(f"   {about['decision']}{kind} | {about['reason']} | {sure} | {about['timings_ms']['total']:.0f} ms")
    for source in about["sources"][:1]:
        print(f"   from {source['document']}: {source['heading']}")
    if about["action"]:
        print(f"   runs {about['action']['name']} {about['action']['arguments'] or ''}")
    for note in about["notes"]:
        print(f"   note: {note}")


def outpost(*arguments: str, url: str) -> None:
    command = [sys.executable, "-m", "agent", *arguments, "--url", url, "--state", str(STATE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        fail(f"outpost {arguments[0]} {arguments[1]} failed: {(done.stderr or done.stdout).strip()}")
    say(f"{arguments[0]}: {done.stdout.strip()}")


def stop_earlier() -> None:
    with contextlib.suppress(FileNotFoundError, ValueError):
        pid = int((STATE / "daemon.pid").read_text(encoding="ascii"))
        if str(STATE) in command_line(pid):
            end(pid)
            say("Stopped the daemon of an earlier run.")
    (STATE / "daemon.pid").unlink(missing_ok=True)


def command_line(pid: int) -> str:
    """What runs as ``pid``: from /proc where there is one (a slim system has no ps), empty where nothing does."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    with contextlib.suppress(OSError):
        return subprocess.run(["ps", "-o", "args=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return ""


def end(pid: int) -> None:
    """SIGTERM, and SIGKILL where that is not enough in time."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
            os.kill(pid, 0)
            time.sleep(0.05)
        os.kill(pid, signal.SIGKILL)


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def fail(text: str) -> NoReturn:
    say(f"scripts/demo: {text}")
    sys.exit(1)


if __name__ == "__main__":
    main()
