"""Our own endpoints and every kind of bad input, over real HTTP against a running daemon."""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from tests.simulators.daemon import DEMO, RunningDaemon, ask, running_daemon, uncertified
from tests.simulators.waiting import until


@pytest.fixture
def client(daemon: RunningDaemon) -> Iterator[httpx.Client]:
    with daemon.client() as made:
        yield made


@pytest.fixture
def operator(daemon: RunningDaemon) -> Iterator[httpx.Client]:
    with daemon.client(operator=True) as made:
        yield made


def error_of(response: httpx.Response) -> dict[str, str]:
    """The error in OpenAI's shape."""
    body = response.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    return body["error"]


# ---------------------------------------------------------------- what it does


def test_health_readiness_and_metrics(client: httpx.Client) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").json()["ready"] is True
    ask(client, "Are there lockers?")
    text = client.get("/metrics").text
    for name in (
        "outpost_answers_total{",
        "outpost_answer_seconds_bucket",
        "outpost_worker_pss_bytes{",
        "outpost_ready 1",
    ):
        assert name in text


def test_metrics_are_outposts_and_spell_their_units(client: httpx.Client) -> None:
    kinds = re.findall(r"^# TYPE (\S+) (\S+)$", client.get("/metrics").text, re.MULTILINE)
    assert len(kinds) > 30
    for name, kind in kinds:
        assert name.startswith("outpost_")
        assert not re.search(r"_(s|ms|mb|kb|min|hours|size|time)$", name), name
        assert name.endswith("_total") == (kind == "counter"), name
        assert kind != "histogram" or name.endswith("_seconds"), name


def test_an_answer_says_when_its_collection_is_not_there(client: httpx.Client) -> None:
    answer = ask(client, "Are there lockers?", collection="no-such")
    assert answer["decision"] == "handoff"
    assert "there is no collection 'no-such'" in answer["notes"]


def test_an_intent_acts_and_fills_its_slot(client: httpx.Client) -> None:
    answer = ask(client, "Please print me a map of floor 2")
    assert (answer["decision"], answer["answer_kind"], answer["intent"]) == ("action", "action", "print_map")
    assert answer["action"] == {"name": "map.print", "arguments": {"floor": "2"}}


def test_an_unsupported_language_goes_to_a_person(client: httpx.Client) -> None:
    answer = ask(client, "Wann haben Sie am Sonntag geöffnet?")
    assert (answer["decision"], answer["reason"], answer["language"]) == ("handoff", "language_unsupported", "de")


def test_general_knowledge_is_not_guessed(client: httpx.Client) -> None:
    answer = ask(client, "Which country won the football World Cup in 1998?")
    assert answer["decision"] == "handoff"
    assert answer["answer_kind"] is None


def test_an_answer_names_its_source_verbatim(client: httpx.Client) -> None:
    answer = ask(client, "What is the height limit in the car park?")
    assert answer["decision"] == "local"
    source = answer["sources"][0]
    document = (DEMO / "documents" / source["document"]).read_text(encoding="utf-8")
    if answer["answer_kind"] == "quote":
        assert answer["text"] == source["text"]
        assert all(line.strip() in document for line in source["text"].splitlines())


def test_a_follow_up_is_read_in_its_conversation_and_ends_with_it(client: httpx.Client, operator: httpx.Client) -> None:
    first = ask(client, "What does an adult ticket cost?", session="s-1")
    if first["retrieval"] == "keyword":
        pytest.skip("the embedding model is not installed; set OUTPOST_EMBEDDING_MODEL")
    assert first["decision"] == "local"
    follow_up = ask(client, "and for children?", session="s-1")
    alone = ask(client, "and for children?", session="s-2")
    assert any("ticket" in s["heading"].lower() or "price" in s["heading"].lower() for s in follow_up["sources"]) or (
        follow_up["confidence"] != alone["confidence"]
    )
    assert client.delete("/v1/sessions/s-1").status_code == 204
    ended = ask(client, "and for children?", session="s-1")
    fresh = ask(client, "and for children?", session="s-3")
    assert (ended["text"], ended["confidence"]) == (fresh["text"], fresh["confidence"])


def test_a_session_ends_whatever_its_name(client: httpx.Client, operator: httpx.Client) -> None:
    def sessions() -> str:
        return next(line for line in client.get("/metrics").text.splitlines() if line.startswith("outpost_sessions "))

    before = sessions()
    ask(client, "Are there lockers?", session="hall/2?north")
    assert sessions() != before
    assert client.delete("/v1/sessions/hall%2F2%3Fnorth").status_code == 204
    assert sessions() == before
    assert operator.delete("/admin/sessions/hall%2F2%3Fnorth/events").status_code == 200


def test_feedback_is_remembered_with_its_event(client: httpx.Client) -> None:
    event = ask(client, "Are there lockers?")["event_id"]
    before = client.get(f"/v1/events/{event}").json()
    assert before["rating"] is None
    assert "lockers" not in json.dumps(before).lower(), "the journal keeps no words of a visitor"
    assert client.post("/v1/feedback", json={"event_id": event, "rating": "right"}).status_code == 204
    assert client.get(f"/v1/events/{event}").json()["rating"] == "right"
    missing = client.post("/v1/feedback", json={"event_id": "evt-none", "rating": "wrong"})
    assert (missing.status_code, error_of(missing)["code"]) == (404, "not_found")


def test_documents_are_stored_searched_replaced_and_removed(operator: httpx.Client) -> None:
    path = "/v1/knowledge/shop"
    documents = [
        {"id": "a", "title": "Umbrellas", "text": "Umbrellas are behind the counter.", "metadata": {"floor": 1}},
        {"id": "b", "title": "Postcards", "text": "Postcards cost 80 cents.", "metadata": {"floor": 2}},
    ]
    stored = operator.post(f"{path}/documents", json={"documents": documents}).json()
    assert stored == {"stored": ["a", "b"], "unchanged": [], "chunks": 2}
    assert operator.post(f"{path}/documents", json={"documents": documents}).json()["unchanged"] == ["a", "b"]
    found = operator.post(f"{path}/search", json={"query": "postcards", "k": 1}).json()["results"]
    assert [(hit["document"], hit["text"]) for hit in found] == [("b", "Postcards cost 80 cents.")]
    filtered = operator.post(f"{path}/search", json={"query": "cost", "k": 5, "filter": {"floor": 1}}).json()["results"]
    assert {hit["document"] for hit in filtered} <= {"a"}
    documents[1]["text"] = "Postcards cost 90 cents."
    assert operator.post(f"{path}/documents", json={"documents": documents}).json()["stored"] == ["b"]
    found = operator.post(f"{path}/search", json={"query": "postcards", "k": 1}).json()["results"]
    assert found[0]["text"] == "Postcards cost 90 cents."
    listing = operator.get(f"{path}/documents").json()["documents"]
    assert [document["id"] for document in listing] == ["a", "b"]
    assert operator.delete(f"{path}/documents/b").status_code == 204
    assert operator.delete(f"{path}/documents/b").status_code == 404
    assert operator.delete(path).status_code == 204
    gone = operator.post(f"{path}/search", json={"query": "postcards"})
    assert (gone.status_code, error_of(gone)["code"]) == (404, "not_found")


def test_intents_are_classified(client: httpx.Client) -> None:
    results = client.post("/v1/intents/classify", json={"texts": ["thank you very much", "what is a quasar"]}).json()
    thanks, other = results["results"]
    assert thanks["intent"] == "thanks"
    assert thanks["in_scope_score"] > other["in_scope_score"]
    assert set(thanks) == {"intent", "probability", "in_scope_score", "slots"}


def test_models_load_and_unload_and_the_memory_comes_back(daemon: RunningDaemon, operator: httpx.Client) -> None:
    model = {"model": "outpost-reference-slm"}
    assert operator.post("/admin/models/load", json=model).status_code == 204
    before = daemon.status()
    assert operator.post("/admin/models/unload", json=model).status_code == 204
    after = daemon.status()
    states = {m["name"]: m["state"] for m in after["models"]}
    assert states["outpost-reference-slm"] == "unloaded"
    assert after["memory"]["used_bytes"] < before["memory"]["used_bytes"]
    assert operator.post("/admin/models/load", json={"model": "none"}).status_code == 404


# ---------------------------------------------------------------- who may do what


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/admin/status"),
        ("POST", "/admin/models/load"),
        ("POST", "/v1/knowledge/default/documents"),
        ("POST", "/v1/knowledge/default/files"),
        ("DELETE", "/v1/knowledge/default"),
        ("POST", "/v1/intents/train"),
    ],
)
def test_the_operators_calls_need_the_operators_token_even_on_loopback(
    client: httpx.Client, method: str, path: str
) -> None:
    for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "Basic eDp5"}):
        response = client.request(method, path, headers=headers)
        assert response.status_code == 401
        assert response.headers["www-authenticate"].startswith("Bearer")
        assert "operator-token" in error_of(response)["message"]


def test_the_token_file_is_for_its_owner_only(daemon: RunningDaemon) -> None:
    assert (daemon.state / "operator-token").stat().st_mode & 0o777 == 0o600


def test_other_hosts_names_and_other_sites_pages_are_refused(client: httpx.Client) -> None:
    rebound = client.get("/v1/models", headers={"host": "evil.example"})
    assert (rebound.status_code, error_of(rebound)["code"]) == (403, "forbidden")
    foreign = client.post("/v1/chat/completions", headers={"origin": "https://evil.example"}, json={})
    assert foreign.status_code == 403
    no_address = client.get("/v1/models", headers={"origin": "http://["})
    assert (no_address.status_code, error_of(no_address)["code"]) == (403, "forbidden")
    own = client.get("/v1/models", headers={"origin": str(client.base_url).rstrip("/")})
    assert own.status_code == 200


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"", "body is missing"),
        (b"{", "not valid JSON"),
        (b'{"model": "outpost", "messages": [}', "not valid JSON"),
        (b'{"model": "\xff"}', "not UTF-8 at byte 11"),
        (b'{"model": "outpost", "messages": []}', "messages"),
        (b'{"model": "outpost", "messages": [{"role": "wizard", "content": "x"}]}', "wizard"),
        (b'{"model": "outpost", "messages": [{"role": "user", "content": 5}]}', "content"),
        (b'{"model": 5, "messages": [{"role": "user", "content": "x"}]}', "model"),
        (b'{"model": "outpost", "massages": []}', "did you mean 'messages'"),
        (b'{"model": "outpost", "messages": [{"role": "user", "content": "x"}], "temperature": NaN}', "temperature"),
        (b'{"model": "outpost", "messages": [{"role": "user", "content": "x"}], "max_tokens": -1}', "max_tokens"),
        (b'{"model": "outpost", "messages": [{"role": "user", "content": "x"}], "max_tokens": 1e400}', "max_tokens"),
        (b'{"model": "outpost", "messages": [{"role": "user", "content": " \\u0000 "}]}', "no readable text"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"model": "outpost", "seed": ' + b"9" * 5000 + b"}", "5000 digits"),
        (
            b'{"model": "outpost-reference-slm", "messages": [{"role": "user", "content": "x"}, {"role": "assistant", '
            b'"tool_calls": [{"id": "a", "function": {"name": "f", "arguments": "' + b"[" * 100_000 + b'"}}]}]}',
            "nested too deeply",
        ),
    ],
)
def test_malformed_bodies_are_400s_that_say_what_is_wrong(client: httpx.Client, body: bytes, told: str) -> None:
    response = client.post("/v1/chat/completions", content=body, headers={"content-type": "application/json"})
    assert response.status_code == 400, response.text
    assert told in error_of(response)["message"]


def test_a_lone_surrogate_is_cleaned_away(client: httpx.Client) -> None:
    body = b'{"model": "outpost", "messages": [{"role": "user", "content": "Are there \\ud800lockers?"}]}'
    response = client.post("/v1/chat/completions", content=body, headers={"content-type": "application/json"})
    assert response.status_code == 200


def test_a_question_over_the_limit_names_both_lengths(client: httpx.Client) -> None:
    body = {"model": "outpost", "messages": [{"role": "user", "content": "x" * 2001}]}
    response = client.post("/v1/chat/completions", json=body)
    assert response.status_code == 413
    assert "2001" in error_of(response)["message"]
    assert "2000" in error_of(response)["message"]


@pytest.mark.parametrize("field", ["tools", "tool_choice", "response_format", "logprobs", "stop", "reasoning_effort"])
def test_what_only_raw_models_can_do_is_refused_for_the_assistant(client: httpx.Client, field: str) -> None:
    values = {
        "tools": [{"type": "function", "function": {"name": "f"}}],
        "response_format": {"type": "json_object"},
        "logprobs": True,
        "tool_choice": "auto",
        "reasoning_effort": "low",
        "stop": "x",
    }
    body = {"model": "outpost", "messages": [{"role": "user", "content": "x"}], field: values[field]}
    response = client.post("/v1/chat/completions", json=body)
    assert (response.status_code, error_of(response)["param"]) == (400, field)


def test_unknown_paths_and_methods_have_the_same_shape(client: httpx.Client) -> None:
    assert error_of(client.get("/v1/nothing"))["code"] == "not_found"
    assert client.get("/v1/chat/completions").status_code == 405
    assert "error" in client.get("/v1/chat/completions").json()


@pytest.mark.parametrize(
    ("name", "data", "told"),
    [
        ("empty.md", b"", "empty.md"),
        ("binary.md", bytes(range(256)) * 40, "binary.md"),
        ("broken.pdf", b"%PDF-1.7 nothing more", "broken.pdf"),
        ("broken.docx", b"PK\x03\x04 nothing more", "broken.docx"),
        ("song.mp3", b"ID3", "song.mp3"),
        ("half.jsonl", b'{"id": "x", "text": ', "half.jsonl"),
    ],
)
def test_unreadable_documents_are_named(operator: httpx.Client, name: str, data: bytes, told: str) -> None:
    response = operator.post("/v1/knowledge/default/files", files={"file": (name, data)})
    assert response.status_code in (400, 413, 422), response.text
    assert told in error_of(response)["message"]


def test_a_50_mb_document_is_refused_and_the_daemon_goes_on(operator: httpx.Client) -> None:
    response = operator.post("/v1/knowledge/default/files", files={"file": ("large.txt", b"word " * (10 << 20))})
    assert response.status_code == 413
    assert operator.get("/healthz").status_code == 200


def test_a_body_over_the_limit_is_refused_by_its_header_and_by_its_bytes(daemon: RunningDaemon) -> None:
    """The second way is a chunked body that declares no length."""
    address = urlsplit(daemon.url)
    with socket.create_connection((address.hostname, address.port), timeout=30) as sock:
        sock.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            b"Content-Length: 999999999999\r\n\r\n"
        )
        assert sock.recv(1000).startswith(b"HTTP/1.1 413")

    def endless() -> Iterator[bytes]:
        for _ in range(70):
            yield b" " * (1 << 20)

    with daemon.client() as client:
        try:
            status = client.post("/v1/chat/completions", content=endless()).status_code
        except httpx.WriteError:  # the daemon answered and closed before we had sent it all
            status = 413
        assert status == 413
        assert client.get("/healthz").status_code == 200


def test_hostile_search_texts_are_only_texts(client: httpx.Client) -> None:
    for query in ('"', "a AND (", "NEAR(x y)", "col:val*", "'; DROP TABLE documents; --", "\u202e\u0000x", "* * *"):
        response = client.post("/v1/knowledge/default/search", json={"query": query})
        assert response.status_code == 200, (query, response.text)


@pytest.mark.parametrize("k", [0, -1, 101, 10**12, "5x"])
def test_k_out_of_range_is_named(client: httpx.Client, k: object) -> None:
    response = client.post("/v1/knowledge/default/search", json={"query": "x", "k": k})
    assert (response.status_code, error_of(response)["param"]) == (400, "k")


def test_a_bad_intent_pack_leaves_the_good_one_in_use(client: httpx.Client, operator: httpx.Client) -> None:
    response = operator.post("/v1/intents/train", json={"pack": '[[intents]]\nnmae = "x"\n'})
    assert response.status_code in (400, 422)
    error_of(response)
    assert client.post("/v1/intents/classify", json={"texts": ["thanks"]}).json()["results"][0]["intent"] == "thanks"


def test_intents_and_documents_are_there_again_after_a_restart(tmp_path: Path) -> None:
    settings = {"OUTPOST_MODELS__EMBEDDING": ""}
    pack = 'out_of_scope = ["where is the shop", "what does it cost", "are dogs allowed", "when do you close"]\n'
    pack += '[[intents]]\nname = "hello"\nexamples = ["hello", "hi there", "good morning"]\nresponse = "Hello!"\n'
    pack += '[[intents]]\nname = "bye"\nexamples = ["bye", "see you", "good night"]\nresponse = "Bye!"\n'
    with running_daemon(tmp_path, settings=settings) as first, first.client(operator=True) as client:
        assert client.post("/v1/intents/train", json={"pack": pack}).status_code == 200
        documents = [{"id": "a", "title": "Umbrellas", "text": "Umbrellas are behind the counter."}]
        assert client.post("/v1/knowledge/default/documents", json={"documents": documents}).status_code == 200
    with running_daemon(tmp_path, settings=settings) as second, second.client() as client:
        assert client.post("/v1/knowledge/default/search", json={"query": "umbrellas"}).json()["results"]

        def classified() -> list[dict[str, Any]] | None:
            reply = client.post("/v1/intents/classify", json={"texts": ["hi there"]})
            return reply.json()["results"] if reply.status_code == 200 else None

        results = until(classified, "the kept pack, which is taken up behind the first requests")
        assert results is not None
        assert results[0]["intent"] == "hello"
        answer = ask(client, "Where are the umbrellas?")
        assert answer["retrieval"] == "keyword"
        assert any("keyword" in note for note in answer["notes"])


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        ({"type": "object", "properties": {"x": {"$ref": "http://127.0.0.1:9/schema.json"}}}, "ref"),
        ({"type": "object", "properties": {"x": {"type": "string", "pattern": "^(a+)+$"}}}, "pattern"),
        ({"type": "object", "properties": {"x": {"$ref": "#/nowhere"}}}, "nowhere"),
        ({"type": "wizard"}, "wizard"),
        ({"type": "integer"}, "an object"),
    ],
)
@pytest.mark.parametrize("choice", ["auto", "required"])
def test_tool_schemas_that_cannot_be_enforced_are_refused_at_once(
    client: httpx.Client, parameters: dict, told: str, choice: str
) -> None:
    """Nothing is fetched, and no pattern gets to run on what the model says."""
    body = {
        "model": "outpost-reference-slm",
        "messages": [{"role": "user", "content": "x"}],
        "tools": [{"type": "function", "function": {"name": "f", "parameters": parameters}}],
        "tool_choice": choice,
    }
    response = client.post("/v1/chat/completions", json=body)
    assert (response.status_code, error_of(response)["param"]) == (400, "tools.0.function.parameters")
    assert told in error_of(response)["message"]


def test_two_tools_of_one_name_are_refused(client: httpx.Client) -> None:
    tool = {"type": "function", "function": {"name": "f"}}
    body = {"model": "outpost-reference-slm", "messages": [{"role": "user", "content": "x"}], "tools": [tool, tool]}
    response = client.post("/v1/chat/completions", json=body)
    assert (response.status_code, error_of(response)["param"]) == (400, "tools")


def test_a_tool_schema_nested_without_end_is_refused(client: httpx.Client) -> None:
    schema: dict = {"type": "object"}
    for _ in range(300):
        schema = {"type": "object", "properties": {"x": schema}}
    tool = {"type": "function", "function": {"name": "f", "parameters": schema}}
    body = {"model": "outpost-reference-slm", "messages": [{"role": "user", "content": "x"}], "tools": [tool]}
    assert client.post("/v1/chat/completions", json=body).status_code == 400


def test_errors_before_the_first_token_are_plain_errors_of_a_stream_too(client: httpx.Client) -> None:
    def status(**body: object) -> int:
        return client.post("/v1/chat/completions", json={"stream": True, **body}).status_code

    long = [{"role": "user", "content": "word " * 20_000}]
    assert status(model="outpost-reference-slm", messages=long) == 400
    assert status(model="outpost", messages=[{"role": "user", "content": "?!"}]) == 400
    assert status(model="outpost", messages=[{"role": "user", "content": "x" * 2001}]) == 413


def test_a_long_history_is_cut_and_not_searched_with(client: httpx.Client) -> None:
    messages = [
        {"role": "user", "content": "x" * 2_000_000},
        {"role": "assistant", "content": "y" * 2_000_000},
        {"role": "user", "content": "and the height limit in the car park?"},
    ]
    response = client.post("/v1/chat/completions", json={"model": "outpost", "messages": messages})
    assert response.status_code == 200
    assert response.json()["outpost"]["timings_ms"]["search"] < 20_000


def test_what_is_not_heeded_is_said(client: httpx.Client) -> None:
    messages = [{"role": "system", "content": "Talk like a pirate."}, {"role": "user", "content": "Are there lockers?"}]
    about = client.post("/v1/chat/completions", json={"model": "outpost", "messages": messages}).json()["outpost"]
    assert any("system" in note for note in about["notes"])


def test_under_the_policy_certified_nothing_is_served_without_a_certificate(tmp_path: Path) -> None:
    settings = {"OUTPOST_ASSISTANT__POLICY": "certified", "OUTPOST_MODELS__EMBEDDING": "", "OUTPOST_MODELS__TEXT": ""}
    with running_daemon(tmp_path, settings=settings) as daemon, daemon.client(operator=True) as client:
        documents = [{"id": "a", "title": "Umbrellas", "text": "Umbrellas are behind the counter."}]
        client.post("/v1/knowledge/default/documents", json={"documents": documents}).raise_for_status()
        answer = ask(client, "Where are the umbrellas?")
        assert (answer["decision"], answer["reason"]) == ("handoff", uncertified("quote"))
        assert answer["sources"] == []


def test_the_configured_limits_and_texts_are_used(tmp_path: Path) -> None:
    settings = {
        "OUTPOST_MODELS__EMBEDDING": "",
        "OUTPOST_ASSISTANT__HANDOFF_TEXT": "Please ring the bell.",
        "OUTPOST_ASSISTANT__MAX_QUESTION_CHARS": "40",
        "OUTPOST_ASSISTANT__MIN_CONFIDENCE": "1.0",
        "OUTPOST_ASSISTANT__COLLECTION": "lobby",
        "OUTPOST_SERVER__MAX_BODY_MB": "1",
    }
    with running_daemon(tmp_path, settings=settings) as daemon, daemon.client(operator=True) as client:
        documents = [{"id": "a", "title": "Umbrellas", "text": "Umbrellas are behind the counter."}]
        client.post("/v1/knowledge/lobby/documents", json={"documents": documents}).raise_for_status()
        answer = ask(client, "Where are the umbrellas?")
        assert (answer["decision"], answer["text"]) == ("handoff", "Please ring the bell.")
        assert answer["reason"] == "low_confidence", "the configured collection was searched"
        long = {"model": "outpost", "messages": [{"role": "user", "content": "x" * 41}]}
        assert client.post("/v1/chat/completions", json=long).status_code == 413
        documents[0]["text"] = "x" * (2 << 20)
        assert client.post("/v1/knowledge/lobby/documents", json={"documents": documents}).status_code == 413


STAFF = """
name = "desk"
language = "en"
[[intents]]
name = "staff"
handoff = true
examples = ["I want to talk to a person", "can I speak to somebody", "get me a human", "I need a member of staff",
  "ich möchte mit einem Menschen sprechen", "kann ich mit jemandem reden", "bitte holen Sie einen Mitarbeiter"]
[[intents]]
name = "greeting"
response = "Hello."
examples = ["hello there", "good morning", "guten Morgen", "hallo zusammen"]
"""


@pytest.mark.parametrize("own", ["", "Please ring the bell."])
def test_who_asks_for_a_person_is_not_told_that_the_device_is_unsure(tmp_path: Path, own: str) -> None:
    settings = {
        "OUTPOST_MODELS__EMBEDDING": "",
        "OUTPOST_MODELS__TEXT": "",
        "OUTPOST_MODELS__RANKER": "",
        "OUTPOST_ASSISTANT__LANGUAGES": '["en", "de"]',
        "OUTPOST_ASSISTANT__HANDOFF_TEXT": own,
    }
    (tmp_path / "pack.toml").write_text(STAFF, encoding="utf-8")
    with running_daemon(tmp_path, settings=settings) as daemon:
        daemon.cli("intents", "train", str(tmp_path / "pack.toml"))
        told = [
            daemon.ask(f"{said}!") for said in ("I want to talk to a person", "Ich möchte mit einem Menschen sprechen")
        ]
        told.append(daemon.ask("Wann wurde der alte Leuchtturm am Hafen gebaut?"))
    assert [answer["reason"] for answer in told] == ["person_requested", "person_requested", "no_evidence"]
    assert [answer["text"] for answer in told] == (
        [own] * 3
        if own
        else [
            "Please speak to a member of staff, who will help you.",
            "Bitte wenden Sie sich an das Personal, dort hilft man Ihnen.",
            "Das kann ich nicht sicher beantworten. Bitte wenden Sie sich an das Personal.",
        ]
    )


def test_an_embedding_model_may_come_and_go_while_the_daemon_runs(tmp_path: Path) -> None:
    if not os.environ.get("OUTPOST_EMBEDDING_MODEL"):
        pytest.skip("OUTPOST_EMBEDDING_MODEL names no built embedding model")
    with running_daemon(tmp_path) as daemon, daemon.client(operator=True) as client:
        documents = [{"id": "a", "title": "Umbrellas", "text": "Umbrellas are behind the counter."}]
        client.post("/v1/knowledge/default/documents", json={"documents": documents}).raise_for_status()

        def mode() -> str:
            return ask(client, "Where do I find something against the rain?")["retrieval"]

        assert mode() == "keyword"
        daemon.cli("models", "pull", "all-minilm-l6-v2", "--from", os.environ["OUTPOST_EMBEDDING_MODEL"])
        until(lambda: mode() == "hybrid", lambda: f"the stored document's vectors: {daemon.status()['notes']}", 60)
        daemon.cli("models", "rm", "all-minilm-l6-v2")
        assert mode() == "keyword"
        assert any("no embedding model" in note for note in daemon.status()["notes"])
