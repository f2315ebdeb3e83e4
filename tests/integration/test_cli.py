"""The command line against a running daemon, and without one: output, JSON, exit codes, error texts."""

from __future__ import annotations

import http.server
import json
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.simulators.daemon import ROOT, RunningDaemon, clean_environment, running_daemon


def outpost(*arguments: str, stdin: str = "", **env: str) -> subprocess.CompletedProcess[str]:
    """The command without a daemon in its environment."""
    command = [sys.executable, "-m", "agent", *arguments]
    environment = clean_environment() | env
    return subprocess.run(
        command, input=stdin, capture_output=True, text=True, env=environment, cwd=ROOT, timeout=60, check=False
    )


def test_ask_shows_the_answer_and_what_stands_behind_it(daemon: RunningDaemon) -> None:
    done = daemon.cli("ask", "What is the height limit in the car park?")
    assert "2.0 metres" in done.stdout
    assert "getting-here.md" in done.stdout
    assert "uncertified" in done.stdout


def test_ask_for_machines_is_one_object(daemon: RunningDaemon) -> None:
    answer = json.loads(daemon.cli("ask", "--json", "Please print me a map of floor 2").stdout)
    assert answer["decision"] == "action"
    assert answer["action"]["arguments"] == {"floor": "2"}


def test_ask_reads_standard_input(daemon: RunningDaemon) -> None:
    done = outpost("ask", "-", "--json", stdin="Do I need a password for the wifi?\n", OUTPOST_URL=daemon.url)
    assert json.loads(done.stdout)["decision"] in ("local", "handoff")


def test_knowledge_goes_in_is_found_and_goes_out(daemon: RunningDaemon, tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("# Boats\n\nThe red boat sleeps four.\n", encoding="utf-8")
    (tmp_path / "b.txt").write_text("Oars are in the shed.", encoding="utf-8")
    (tmp_path / "ignored.bin").write_bytes(b"\0\1")
    collection = ("--collection", "boats")
    report = json.loads(daemon.cli("knowledge", "add", str(tmp_path), *collection, "--json").stdout)
    assert (report["stored"], report["unchanged"], report["failed"]) == (2, 0, [])
    assert "2 unchanged" in daemon.cli("knowledge", "add", str(tmp_path), *collection).stdout
    found = json.loads(daemon.cli("knowledge", "search", "oars", *collection, "--json").stdout)
    assert found["results"][0]["document"] == "b.txt"
    assert "red boat" in daemon.cli("knowledge", "search", "how many sleep in a boat", *collection).stdout
    assert "a.md" in daemon.cli("knowledge", "list", "boats").stdout
    daemon.cli("knowledge", "rm", "a.md", *collection)
    assert "a.md" not in daemon.cli("knowledge", "list", "boats").stdout
    daemon.cli("knowledge", "rm", "--all", *collection)
    gone = daemon.cli("knowledge", "list", "boats", check=False)
    assert gone.returncode == 1
    assert "boats" in gone.stderr


def test_a_bad_file_fails_alone_and_is_named(daemon: RunningDaemon, tmp_path: Path) -> None:
    (tmp_path / "good.md").write_text("# Good\n\nThis is fine.\n", encoding="utf-8")
    (tmp_path / "empty.md").write_bytes(b"")
    done = daemon.cli("knowledge", "add", str(tmp_path), "-c", "mixed", check=False)
    assert done.returncode == 1
    assert "1 stored" in done.stdout
    assert "empty.md" in done.stdout
    assert "mixed" in daemon.cli("knowledge", "list").stdout


def test_status_shows_models_memory_and_decisions(daemon: RunningDaemon) -> None:
    daemon.cli("ask", "Are there lockers?")
    text = daemon.cli("status").stdout
    for part in ("ready", "memory", "understanding", "last hour"):
        assert part in text
    status = json.loads(daemon.cli("status", "--json").stdout)
    assert status["queue"]["limit"] == 32


def test_intents_are_classified(daemon: RunningDaemon) -> None:
    lines = daemon.cli("intents", "classify", "--json", "thank you", "what is a quasar").stdout.splitlines()
    assert [json.loads(line)["text"] for line in lines] == ["thank you", "what is a quasar"]


@pytest.mark.parametrize(
    "arguments", [("ask", "hello"), ("status",), ("knowledge", "list"), ("intents", "classify", "hello")]
)
def test_without_a_daemon_the_remedy_is_named(arguments: tuple[str, ...]) -> None:
    done = outpost(*arguments, OUTPOST_URL="http://127.0.0.1:9")
    assert done.returncode == 1
    assert done.stderr.strip().splitlines() == [
        "outpost: no daemon answers at http://127.0.0.1:9. Start it with `outpost serve`, or name another with --url."
    ]


def test_another_server_at_the_address_is_told_apart(tmp_path: Path) -> None:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        done = outpost("status", OUTPOST_URL=f"http://127.0.0.1:{server.server_port}", OUTPOST_STATE=str(tmp_path))
    finally:
        server.shutdown()
        server.server_close()
    assert done.returncode == 1
    assert "not Outpost's" in done.stderr


def test_a_missing_operators_token_is_explained(daemon: RunningDaemon, tmp_path: Path) -> None:
    done = outpost("status", OUTPOST_URL=daemon.url, OUTPOST_STATE=str(tmp_path))
    assert done.returncode == 1
    assert "operator-token" in done.stderr
    assert "--state" in done.stderr


def test_names_are_whole_on_a_narrow_screen_and_words_are_no_markup(daemon: RunningDaemon, tmp_path: Path) -> None:
    name = "a-document-with-a-name-that-somebody-will-want-to-copy-into-the-next-command.md"
    (tmp_path / name).write_text("# Opening [red] hours of a hall\n\nThe hall opens at 8.\n", encoding="utf-8")
    daemon.cli("knowledge", "add", str(tmp_path), "-c", "narrow")
    found = outpost("knowledge", "list", "narrow", OUTPOST_URL=daemon.url, COLUMNS="40").stdout
    assert name in found
    assert "[red]" in found
    assert "removed" in daemon.cli("knowledge", "rm", "--all", "-c", "narrow").stdout


def test_nothing_there_is_said(tmp_path: Path) -> None:
    with running_daemon(tmp_path / "state", settings={"OUTPOST_MODELS__TEXT": ""}) as fresh:
        assert "no documents yet" in fresh.cli("knowledge", "list").stdout
        assert "nobody waits" in fresh.cli("events", "list").stdout
        assert "nothing has left" in fresh.cli("audit", "list").stdout
        assert "cloud: never asked (escalation_disabled" in fresh.cli("status").stdout
        assert fresh.cli("events", "list", "--json").stdout == ""
        asked = fresh.cli("ask", "Who won?").stdout
        event = re.search(r"outpost events show (evt-\w+)", asked)
        assert event, asked
        assert event[1] in fresh.cli("events", "list").stdout


def test_what_only_the_assistant_understands_is_refused_for_a_model(daemon: RunningDaemon) -> None:
    for option in (("--session", "s"), ("--collection", "c"), ("--private",)):
        done = daemon.cli("ask", "--model", "outpost-reference-slm", *option, "hello", check=False)
        assert done.returncode == 1
        assert option[0] in done.stderr


def test_a_collection_that_cannot_be_one_is_named() -> None:
    done = outpost("knowledge", "list", "no/such place", OUTPOST_URL="http://127.0.0.1:9")
    assert done.returncode == 1
    assert "'no/such place'" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [(), ("nothing",), ("ask",), ("serve", "--port", "99999"), ("knowledge", "rm"), ("serve", "--log-level", "loud")],
)
def test_wrong_usage_ends_with_2(arguments: tuple[str, ...]) -> None:
    assert outpost(*arguments).returncode == 2


def test_paths_that_are_not_there_are_named(tmp_path: Path) -> None:
    done = outpost("knowledge", "add", str(tmp_path / "nowhere"))
    assert done.returncode == 1
    assert "nowhere" in done.stderr
    empty = outpost("knowledge", "add", str(tmp_path))
    assert "no documents" in empty.stderr


def test_models_work_without_a_daemon(tmp_path: Path) -> None:
    state = ("--state", str(tmp_path))
    rows = [json.loads(line) for line in outpost("models", "list", "--json", *state).stdout.splitlines()]
    assert len([row for row in rows if row["state"] == "offered"]) >= 24
    shown = outpost("models", "show", "qwen3-0.6b", *state)
    assert "apache-2.0" in shown.stdout
    typo = outpost("models", "show", "qwen3-0.6", *state)
    assert typo.returncode == 1
    assert "qwen3-0.6b" in typo.stderr


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({}, "none will: neither an endpoint nor OPENAI_BASE_URL nor a broker is configured"),
        ({"OUTPOST_ASSISTANT__POLICY": "local-only"}, "none will: assistant.policy is local-only"),
        ({"OPENAI_BASE_URL": "http://127.0.0.1:9/v1", "OPENAI_MODEL": "m"}, ""),
    ],
)
def test_a_consent_that_comes_to_nothing_is_told_at_start(tmp_path: Path, settings: dict[str, str], told: str) -> None:
    alone = {"OUTPOST_MODELS__TEXT": "", "OUTPOST_MODELS__RANKER": ""}
    with running_daemon(tmp_path, settings={**alone, **settings}, arguments=("--cloud",)) as daemon:
        log = daemon.log.read_text(encoding="utf-8")
        assert told in log
        assert ("Questions may leave" in log) == bool(told)


def test_the_version_is_told() -> None:
    assert outpost("--version").stdout.startswith("outpost 0.")


def test_files_of_one_name_in_two_folders_are_two_documents(daemon: RunningDaemon, tmp_path: Path) -> None:
    for place in ("north", "south"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "hours.md").write_text(f"# Hours\n\nThe {place} gate opens at 8.\n", encoding="utf-8")
    daemon.cli("knowledge", "add", str(tmp_path), "-c", "gates")
    listed = daemon.cli("knowledge", "list", "gates").stdout
    assert "north/hours.md" in listed
    assert "south/hours.md" in listed
    clash = daemon.cli("knowledge", "add", str(tmp_path / "north"), str(tmp_path / "south"), "-c", "gates", check=False)
    assert clash.returncode == 1
    assert "both be stored as 'hours.md'" in clash.stderr
    daemon.cli("knowledge", "rm", "north/hours.md", "-c", "gates")
    assert "north" not in daemon.cli("knowledge", "list", "gates").stdout


def test_labels_without_a_daemon_are_told_what_they_lack(tmp_path: Path) -> None:
    data = tmp_path / "rows.jsonl"
    data.write_text('{"question": "When?"}\n', encoding="utf-8")
    done = outpost("calibrate", "intents", "--data", str(data))
    assert "has no 'text'" in done.stderr
    assert "Every line needs text and intent." in done.stderr
    done = outpost("calibrate", "intents", "--data", str(tmp_path / "none.jsonl"))
    assert done.stderr.strip().endswith("none.jsonl: No such file or directory. Name a file of JSON lines.")


def test_a_calibration_that_certifies_nothing_says_why(daemon: RunningDaemon, tmp_path: Path) -> None:
    data = tmp_path / "rows.jsonl"
    data.write_text('{"text": "what is a quasar made of", "intent": null}\n', encoding="utf-8")
    done = daemon.cli("calibrate", "intents", "--data", str(data), check=False)
    assert done.returncode == 1
    assert "no certificate (too_few_labels): too few right" in done.stdout, done.stderr
    examples = daemon.cli("calibrate", "examples", "--out", str(tmp_path / "examples.jsonl"), "--json").stdout
    assert json.loads(examples)["examples"] == 0
