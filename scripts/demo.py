"""The demo behind scripts/demo: a daemon on the project's own documents, ten questions and what was decided; then the
same device under the policy `certified`, which asks a cloud by HTTPS and by MQTT.

Cloud, broker and gateway are processes of this machine, started and ended here: another Outpost, which has one page
more, is asked as any cloud is; mosquitto is the broker. With --cloud the cloud is the one that OPENAI_BASE_URL names.
Everything lies in .venv/demo. Uses the public doors only: the `outpost` command and the HTTP API.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import httpx
from demo_processes import (
    OUTPOST,
    ROOT,
    STATE,
    end,
    fail,
    free_port,
    listens,
    say,
    serve,
    spawn,
    wait_until,
)

DEMO = ROOT / "models" / "reference" / "demo"
CERTIFICATES = ROOT / "models" / "reference" / "certificates"
EMBEDDING = "all-minilm-l6-v2"
STAND_IN = {
    "OUTPOST_ASSISTANT__POLICY": "best-effort",
    "OUTPOST_ASSISTANT__MIN_CONFIDENCE": "0",
    "OUTPOST_MODELS__EMBEDDING": "",
    "OUTPOST_MODELS__RANKER": "",
    "OUTPOST_MODELS__TEXT": "",
}
"""Another Outpost that serves what it finds, whatever that is, and needs no model to be there in a moment."""
PORT = 8080
LATER_S = 60.0
"""How long an answer that comes later may take."""
DEVICE, CLOUD, BROKER, GATEWAY = "daemon", "cloud", "broker", "gateway"
"""Names of what runs, and of its .log and .pid in STATE."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/demo", description="Ask the device ten questions, then a cloud.")
    parser.add_argument("--once", action="store_true", help="end the daemon after the questions")
    parser.add_argument("--json", action="store_true", help="print one object a question")
    parser.add_argument("--stop", action="store_true", help="stop the daemon of an earlier run")
    parser.add_argument("--cloud", action="store_true", help="consent to ask the cloud that OPENAI_BASE_URL names")
    given = parser.parse_args()
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # in step with stderr, into a pipe or file too
    STATE.mkdir(parents=True, exist_ok=True)
    stop_earlier()
    if given.stop:
        return
    if given.cloud:
        check_cloud()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    get_embedding_model()
    questions = tomllib.loads((DEMO / "questions.toml").read_text(encoding="utf-8"))
    keep = False
    try:
        url = serve(DEVICE, STATE, port=PORT, settings=promise())
        outpost("knowledge", "add", str(DEMO / "documents"), url=url)
        outpost("intents", "train", str(DEMO / "intents.toml"), url=url)
        clear_queue(url, questions)
        answers = [ask(url, question["text"], as_json=given.json) for question in questions["questions"]]
        tell_promise(url)
        ask_beyond(questions["escalated"], surest(answers), as_json=given.json, real=given.cloud)
        if not given.once:
            url = serve(DEVICE, STATE, *(["--cloud"] if given.cloud else []), port=PORT, settings=promise())
            keep = True
    finally:
        for name in (GATEWAY, BROKER, CLOUD, *([] if keep else [DEVICE])):
            end(name)
    if keep:
        say(f"\nThe daemon goes on: open {url}/ in a browser (operator's page: {url}/operator).")
        say(f"Ask it yourself:  .venv/bin/outpost ask --url {url} 'Do you have lockers?'")
        say("Stop it:          scripts/demo --stop")


# ---------------------------------------------------------------- questions


def ask(url: str, text: str, *, as_json: bool) -> dict[str, Any]:
    """Ask, print, return what was decided."""
    body = {"model": "outpost", "messages": [{"role": "user", "content": text}]}
    with httpx.Client(base_url=url, timeout=120, trust_env=False) as client:
        response = client.post("/v1/chat/completions", json=body)
        if response.is_error:
            fail(f"{text!r} was answered with {response.status_code}: {response.text}")
        reply = response.json()
        answer = {"question": text, "answer": reply["choices"][0]["message"]["content"], **reply["outpost"]}
        if answer["decision"] == "deferred":
            answer["later"] = wait_for_answer(client, answer["event_id"])
    if as_json:
        print(json.dumps(answer, ensure_ascii=False), flush=True)
    else:
        show(answer)
    return answer


def clear_queue(url: str, questions: Mapping[str, list[dict[str, str]]]) -> None:
    """Take out of the queue for people what earlier runs put there; nobody waits for it."""
    own = {question["text"] for group in questions.values() for question in group}
    with httpx.Client(base_url=url, timeout=30, trust_env=False, headers=operator()) as client:
        for case in client.get("/admin/handoffs").raise_for_status().json()["handoffs"]:
            if case["state"] == "handed_off" and case["question"] in own:
                client.post(f"/admin/handoffs/{case['event_id']}/dismiss").raise_for_status()


def wait_for_answer(client: httpx.Client, event: str) -> str | None:
    """The answer that comes later, or None."""
    deadline = time.monotonic() + LATER_S
    while (left := deadline - time.monotonic()) > 0:
        found = client.get(f"/v1/events/{event}", params={"wait": min(left, 20.0)}).raise_for_status().json()
        if found["answer"]:
            return str(found["answer"]["text"])
        if found["state"] in (None, "expired"):
            break
    return None


def show(answer: Mapping[str, Any]) -> None:
    print(f"\nQ  {answer['question']}")
    print("A  " + answer["answer"].strip().replace("\n", "\n   "))
    kind = f", {answer['answer_kind']}" if answer["answer_kind"] else ""
    sure = f"confidence {answer['confidence']:.2f}"
    if answer["decision"] in ("local", "action"):
        sure += f" (certificate {answer['certificate']})" if answer["certificate"] else " (uncertified)"
    print(f"   {answer['decision']}{kind} | {answer['reason']} | {sure} | {answer['timings_ms']['total']:.0f} ms")
    if cloud := answer["cloud"]:
        print(f"   by {cloud['path']} from {cloud['endpoint']} ({cloud['model']})")
    for source in answer["sources"][:1]:
        print(f"   from {source['document']}: {source['heading']}")
    if answer["action"]:
        print(f"   runs {answer['action']['name']} {answer['action']['arguments'] or ''}")
    for note in answer["notes"]:
        print(f"   note: {note}")
    if answer["decision"] == "deferred":
        print(f"   later: {answer['later'] or f'no answer within {LATER_S:.0f} s'}")


def surest(answers: list[dict[str, Any]]) -> str:
    """The question that was answered best under a certificate, from the documents where theirs holds."""
    return str(
        max(answers, key=lambda a: (bool(a["certificate"]), a["answer_kind"] == "quote", a["confidence"]))["question"]
    )


# ---------------------------------------------------------------- the promise, and the cloud


def promise() -> dict[str, str]:
    """The strictest promise that a shipped certificate keeps, route by route; the operator's own takes its place."""
    kept: dict[str, float] = {}
    for path in CERTIFICATES.glob("*.json"):
        found = json.loads(path.read_text(encoding="utf-8"))
        kept[found["route"]] = min(found["epsilon"], kept.get(found["route"], 1.0))
    if not kept or any(name.startswith("OUTPOST_RISK__") for name in os.environ):
        return {}
    routes = ", ".join(f"{route} = {{epsilon = {epsilon}}}" for route, epsilon in kept.items())
    return {"OUTPOST_RISK__ROUTES": f"{{{routes}}}"}


def tell_promise(url: str) -> None:
    """What is promised of the device's answers; where nothing is, why."""
    routes = status(url)["promise"]["routes"]
    say("")
    for route in routes:
        if route["certificate"]:
            say(
                f"{route['route']}: at most {route['certified_epsilon']:.0%} of the answers served are wrong, with"
                f" {1 - route['delta']:.0%} certainty; serves {route['coverage']:.0%} ({route['certificate']})"
            )
    lacking: dict[str, list[str]] = {}
    for route in routes:
        if not route["certificate"]:
            lacking.setdefault(f"{route['reason']}, {route['detail']}", []).append(route["route"])
    for why, names in lacking.items():
        say(f"{', '.join(names)}: no certificate holds ({why}), so such answers are uncertified.")


def ask_beyond(questions: list[dict[str, str]], known: str, *, as_json: bool, real: bool) -> None:
    """The same device under `certified`: what a certificate covers it answers, the rest the cloud, over each path."""
    end(DEVICE)
    upstream = {} if real else start_cloud()
    where = (
        os.environ.get("OPENAI_BASE_URL", "OpenAI") if real else "a stand-in on this machine, which has one page more"
    )
    for path in ("https", "mqtt"):
        settings = promise() | consent(path, upstream)
        if path == "mqtt":
            broker = start_broker(upstream, real=real)
            if broker is None:
                say("\nSkipped: the cloud by MQTT. mosquitto is not installed: sudo apt-get install mosquitto")
                continue
            settings |= broker
        say(f"\nThe same device under the policy certified; the cloud by {path.upper()} is {where}.")
        url = serve(DEVICE, STATE, port=PORT, settings=settings)
        wait_until(partial(online, url), DEVICE, f"has no line to the cloud by {path}")
        asked = [question["text"] for question in questions if question["path"] == path]
        for text in [known, *asked] if path == "https" else asked:
            ask(url, text, as_json=as_json)
        end(DEVICE)
    tell_what_left()


def consent(path: str, upstream: dict[str, str]) -> dict[str, str]:
    """The device's settings: what no certificate covers is asked of the cloud by this path."""
    settings = {
        "OUTPOST_ASSISTANT__POLICY": "certified",
        "OUTPOST_ESCALATION__ENABLED": "true",
        "OUTPOST_ESCALATION__CACHE_HOURS": "0",  # asked anew in every run
        "OUTPOST_ESCALATION__PATHS": f'["{path}"]',
    }
    return settings | upstream


def check_cloud() -> None:
    if not (os.environ.get("OPENAI_BASE_URL") and os.environ.get("OPENAI_MODEL")):
        fail(
            "--cloud asks the server that OPENAI_BASE_URL names for the model OPENAI_MODEL; set both"
            " (OPENAI_BASE_URL=https://host/v1 OPENAI_MODEL=name OPENAI_API_KEY=key scripts/demo --cloud)"
        )


def start_cloud() -> dict[str, str]:
    """Another Outpost as the cloud; the settings of those who ask it."""
    if os.environ.get("OPENAI_BASE_URL"):
        say("OPENAI_BASE_URL is set, but nothing is sent there without --cloud.")
    url = serve(CLOUD, STATE / CLOUD, settings=STAND_IN)
    outpost("knowledge", "add", str(DEMO / "stand-in"), url=url, state=STATE / CLOUD)
    return {
        "OPENAI_BASE_URL": f"{url}/v1",
        "OPENAI_MODEL": "outpost",
        "OPENAI_API_KEY": "unused",
        "OUTPOST_ESCALATION__ENDPOINTS": f'[{{name = "stand-in", url = "{url}/v1", model = "outpost"}}]',
        "OUTPOST_ESCALATION__PASSAGES": "0",  # it has its own
    }


def start_broker(upstream: dict[str, str], *, real: bool) -> dict[str, str] | None:
    """A broker with a gateway to the cloud; the device's settings, or None without mosquitto. With --cloud and a
    configured broker nothing is started: its gateways are somebody's."""
    if real and os.environ.get("OUTPOST_MQTT__HOST"):
        return {}
    program = os.environ.get("MOSQUITTO") or "mosquitto"
    program = shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin") or ""
    if not program:
        return None
    port = free_port()
    configuration = STATE / "mosquitto.conf"
    configuration.write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\npersistence false\n"
        + ("user root\n" if os.geteuid() == 0 else ""),
        encoding="ascii",
    )
    spawn(BROKER, [program, "-c", str(configuration)], {})
    wait_until(lambda: listens(port), BROKER, f"does not listen on port {port}")
    mqtt = {"OUTPOST_MQTT__HOST": "127.0.0.1", "OUTPOST_MQTT__PORT": str(port), "OUTPOST_MQTT__TLS": "false"}
    metrics = free_port()
    configuration = STATE / "gateway.toml"
    configuration.write_text(f'[gateway]\nname = "demo"\nmetrics_port = {metrics}\n', encoding="ascii")
    spawn(GATEWAY, [*OUTPOST, "gateway", "--config", str(configuration)], {**upstream, **mqtt})
    wait_until(partial(connected, metrics), GATEWAY, "is not connected")
    return mqtt


def online(url: str) -> bool:
    return bool(status(url)["escalation"]["online"])


def connected(metrics: int) -> bool:
    """Whether the gateway has its broker."""
    with contextlib.suppress(httpx.TransportError):
        found = httpx.get(f"http://127.0.0.1:{metrics}/metrics", trust_env=False).text
        return "outpost_gateway_connected 1.0" in found
    return False


def tell_what_left() -> None:
    """The audit log: verified, and the newest question as it was sent."""
    verified = outpost("audit", "verify")
    entries = [json.loads(line) for line in outpost("audit", "list", "--limit", "50", "--json").splitlines()]
    newest = max((entry["seq"] for entry in entries if entry["kind"] == "sent"), default=None)
    if newest is not None:
        sent = json.loads(json.loads(outpost("audit", "show", str(newest), "--json"))["payload"])
        say(f"\nThe last question left the device as: {sent['messages'][-1]['content'].splitlines()[-1]}")
    say(f"audit log: {verified.splitlines()[0]} (outpost audit list --state {STATE.relative_to(ROOT)})")


# ---------------------------------------------------------------- this demo's parts


def get_embedding_model() -> None:
    """Download and convert the embedding model; without it the demo goes on with keyword search, and says so."""
    if (STATE / "models" / EMBEDDING).exists():
        return
    say(f"Getting the embedding model {EMBEDDING} (90 MB, once)")
    pulled = subprocess.run(
        [*OUTPOST, "models", "pull", EMBEDDING, "--state", str(STATE)], stdout=sys.stderr, check=False
    )
    if pulled.returncode != 0:
        say("Going on without it: the daemon searches by keywords only, and every answer says so.")


def outpost(*arguments: str, url: str | None = None, state: Path = STATE) -> str:
    """What the command says; told as it goes where it is for a daemon."""
    command = [*OUTPOST, *arguments, *(["--url", url] if url else []), "--state", str(state)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        fail(f"outpost {arguments[0]} {arguments[1]} failed: {(done.stderr or done.stdout).strip()}")
    if url:
        say(f"{arguments[0]}: {done.stdout.strip()}")
    return done.stdout


def status(url: str) -> dict[str, Any]:
    response = httpx.get(f"{url}/admin/status", headers=operator(), timeout=30, trust_env=False)
    found: dict[str, Any] = response.raise_for_status().json()
    return found


def operator() -> dict[str, str]:
    token = (STATE / "operator-token").read_text(encoding="ascii").strip()
    return {"authorization": f"Bearer {token}"}


def stop_earlier() -> None:
    for name in (GATEWAY, BROKER, CLOUD, DEVICE):
        if end(name):
            say(f"Stopped the {name} of an earlier run.")


if __name__ == "__main__":
    main()
