"""Questions that go to a person: the queue by API, command line and web pages, and the way of the answer back."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.simulators.browser import Opener, assert_accessible, screenshot, unlock
from tests.simulators.daemon import DEMO, RunningDaemon, escalating, running_cloud, running_daemon
from tests.simulators.line import Line
from tests.simulators.people import Webhook

UNKNOWN = "Who won the football World Cup in 1998, and by how many goals?"
ANSWER = "France beat Brazil by 3 to 0."


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    """A daemon with the demo venue's documents and no SLM."""
    settings = {"OUTPOST_MODELS__TEXT": "", "OUTPOST_ASSISTANT__LANGUAGES": '["en", "de"]'}
    with running_daemon(tmp_path_factory.mktemp("place"), settings=settings) as daemon:
        daemon.cli("knowledge", "add", str(DEMO / "documents"))
        yield daemon


def test_a_persons_answer_comes_back_by_long_poll_and_stream(place: RunningDaemon) -> None:
    told = place.ask(UNKNOWN)
    assert told["decision"] == "handoff"
    id = told["event_id"]
    with place.client() as client:
        event = client.get(f"/v1/events/{id}").json()
        assert (event["decision"], event["state"], event["answer"]) == ("handoff", "handed_off", None)
        polled: list[Any] = []
        streamed: list[Any] = []

        def poll() -> None:
            with place.client() as own:
                polled.append(own.get(f"/v1/events/{id}", params={"wait": 30, "seen": "handed_off"}).json())

        def stream() -> None:
            with (
                place.client() as own,
                own.stream("GET", f"/v1/events/{id}", headers={"accept": "text/event-stream"}) as reply,
            ):
                streamed.extend(json.loads(line[6:]) for line in reply.iter_lines() if line.startswith("data: "))

        waiting = [threading.Thread(target=poll), threading.Thread(target=stream)]
        for thread in waiting:
            thread.start()
        listed = [json.loads(line) for line in place.cli("events", "list", "--json").stdout.splitlines()]
        assert UNKNOWN in [case["question"] for case in listed if case["event_id"] == id]
        place.cli("events", "answer", id, ANSWER, "--by", "Front desk")
        for thread in waiting:
            thread.join(30)
        answers = [polled[0]["answer"], streamed[-1]["answer"]]
        assert [(a["text"], a["answer_kind"], a["by"]) for a in answers] == [(ANSWER, "person", "Front desk")] * 2
        assert [event["state"] for event in streamed][-1] == "answered"
        again = client.post(f"/admin/handoffs/{id}/answer", json={"text": "No"})
        assert again.status_code == 401
    second = place.cli("events", "answer", id, "Another answer", check=False)
    assert (second.returncode, "answered" in second.stderr) == (1, True)
    assert ANSWER in place.cli("events", "show", id).stdout


def test_an_answer_can_be_learnt_and_then_the_device_gives_it(place: RunningDaemon) -> None:
    question = "What colour is the cloakroom umbrella with the silver duck handle?"
    id = place.ask(question)["event_id"]
    place.cli("events", "answer", id, "The umbrella with the silver duck handle is dark green.", "--learn")
    with place.client() as client:
        body = {"query": question, "k": 1}
        [found] = client.post("/v1/knowledge/default/search", json=body).json()["results"]
        assert found["document"] == f"answers/{id}.md"
        assert "dark green" in found["text"]


def test_nobody_has_to_answer_and_the_asker_is_told(place: RunningDaemon) -> None:
    id = place.ask(UNKNOWN)["event_id"]
    place.cli("events", "dismiss", id)
    shown = json.loads(place.cli("events", "show", id, "--wait", "5", "--json").stdout)
    assert (shown["state"], shown["outcome"], shown["answer"]) == ("expired", "dismissed", None)
    missing = place.cli("events", "show", "evt-none", check=False)
    assert (missing.returncode, "evt-none" in missing.stderr) == (1, True)


def test_a_sessions_questions_are_deleted(place: RunningDaemon) -> None:
    """The operator finds the session of a question; nobody else is told."""
    id = place.ask(UNKNOWN, session="visitor-7")["event_id"]
    listed = [json.loads(line) for line in place.cli("events", "list", "--json").stdout.splitlines()]
    assert [case["session"] for case in listed if case["event_id"] == id] == ["visitor-7"]
    assert "visitor-7" in place.cli("events", "list").stdout
    with place.client() as client:
        assert "visitor-7" not in client.get(f"/v1/events/{id}").text
    gone = json.loads(place.cli("events", "forget", "visitor-7", "--json").stdout)
    assert gone["questions"] == 1
    with place.client() as client:
        assert client.get(f"/v1/events/{id}").json()["state"] is None


def test_the_queue_is_the_operators(place: RunningDaemon) -> None:
    with place.client() as client:
        assert client.get("/admin/handoffs").status_code == 401
        assert client.delete("/admin/sessions/x/events").status_code == 401


def test_a_webhook_hears_of_every_question_and_answers_survive_a_restart(tmp_path: Path) -> None:
    with Webhook(failures=2) as webhook:
        settings = {
            "OUTPOST_MODELS__TEXT": "",
            "OUTPOST_HANDOFF__WEBHOOK": webhook.url,
            "OUTPOST_OVERRIDES__COLLECTIONS": '{staff-room = {policy = "local-only"}}',
        }
        with running_daemon(tmp_path, settings=settings) as daemon:
            plain, personal = daemon.ask(UNKNOWN), daemon.ask("Please write to ada.lovelace@example.org about my bag")
            private = daemon.ask("Where do I collect what I left behind?", private=True)
            staff = daemon.ask("Which code opens the back door?", collection="staff-room")
            heard = {message["event_id"]: message for message in webhook.wait_for(4)}
            assert heard[plain["event_id"]]["question"] == UNKNOWN
            for kept in (personal, private, staff):
                assert heard[kept["event_id"]] | {"question": None, "personal": True} == heard[kept["event_id"]]
            assert webhook.refused == 2
            daemon.cli("events", "answer", plain["event_id"], ANSWER)
            daemon.process.kill()
            daemon.process.wait()
        with running_daemon(tmp_path, settings=settings) as daemon:
            shown = json.loads(daemon.cli("events", "show", plain["event_id"], "--json").stdout)
            assert shown["answer"]["text"] == ANSWER
            assert [c["state"] for c in _queue(daemon)] == ["handed_off", "handed_off", "handed_off", "answered"]
        assert len(webhook.heard) == 4, "nothing is announced again after a restart"


def test_nothing_is_announced_under_local_only(tmp_path: Path) -> None:
    with Webhook() as webhook:
        settings = {
            "OUTPOST_MODELS__TEXT": "",
            "OUTPOST_HANDOFF__WEBHOOK": webhook.url,
            "OUTPOST_ASSISTANT__POLICY": "local-only",
        }
        with running_daemon(tmp_path, settings=settings) as daemon:
            id = daemon.ask(UNKNOWN)["event_id"]
            assert [c["event_id"] for c in _queue(daemon)] == [id], "the operator's own page has it"
            daemon.cli("events", "answer", id, ANSWER)
        assert webhook.heard == []


def _queue(daemon: RunningDaemon) -> list[dict[str, Any]]:
    with daemon.client(operator=True) as client:
        found: list[dict[str, Any]] = client.get("/admin/handoffs").raise_for_status().json()["handoffs"]
    return found


# ---------------------------------------------------------------- the web pages


@pytest.mark.browser
def test_the_kiosk_shows_a_persons_answer_when_it_comes(place: RunningDaemon, visit: Opener) -> None:
    question = "Which painting hung in the hall in 1998?"
    here = visit(place)
    expect(here.page.locator("#may-leave")).to_be_hidden()
    here.ask(question)
    turn = here.answered()
    expect(turn.locator(".later")).to_contain_text("If they answer it, the answer appears here.")
    assert_accessible(here.page)
    screenshot(here.page, "people-waiting")

    desk = visit(place, "/operator", color_scheme="dark")
    unlock(desk, place)
    case = desk.page.locator("#cases li").filter(has_text=question)
    expect(case).to_contain_text("session ")
    case.get_by_label("Your answer").fill("A view of the\nlake at night.")
    assert_accessible(desk.page)
    screenshot(desk.page, "people-desk")
    with desk.page.expect_response("**/admin/handoffs"):
        pass  # another poll: what was typed stays
    expect(case.get_by_label("Your answer")).to_have_value("A view of the\nlake at night.")
    case.get_by_role("button", name="Send the answer").click()
    expect(desk.page.locator("#cases-said")).to_have_text("The asker has the answer now.")

    expect(turn.locator(".verdict")).to_contain_text("The answer is here · Answered by a person")
    expect(turn.locator(".words")).to_contain_text("lake at night")
    expect(turn.locator(".later")).to_have_count(0)
    assert_accessible(here.page)
    screenshot(here.page, "people-answered")

    learn = case.get_by_role("button", name="Add to the knowledge base")
    learn.click()
    expect(case).to_contain_text("In the knowledge base")
    expect(learn).to_be_hidden()
    screenshot(desk.page, "people-learnt")
    desk.page.get_by_role("button", name="Deutsch").click()
    expect(desk.page.get_by_role("heading", name="Fragen an einen Menschen")).to_be_visible()
    expect(desk.page.locator("#notes")).to_contain_text("Nur Stichwortsuche: Es gibt kein Einbettungsmodell.")
    assert_accessible(desk.page)
    screenshot(desk.page, "people-deutsch")


@pytest.mark.browser
def test_the_kiosk_shows_the_clouds_answer_when_the_line_is_back(
    tmp_path: Path, tiny_gguf: Path, visit: Opener
) -> None:
    with running_cloud(tmp_path / "cloud", tiny_gguf) as far, Line(f"{far.url}/v1") as line:
        line.cut()
        with running_daemon(tmp_path / "device", settings=escalating(line.url)) as device:
            here = visit(device)
            expect(here.page.locator("#may-leave")).to_have_text("What it does not know, it may ask an online service.")
            expect(here.page.locator("#may-leave")).to_be_visible()
            assert_accessible(here.page)
            screenshot(here.page, "welcome-online")
            here.ask(UNKNOWN)
            turn = here.answered()
            expect(turn.locator(".words")).to_contain_text("The answer comes to this screen")
            expect(turn.locator(".later")).to_contain_text("waits for an answer")
            assert_accessible(here.page)
            screenshot(here.page, "deferred")
            assert device.status()["escalation"]["trouble"]
            assert "the last try failed: cloud: " in device.cli("status").stdout
            line.mend()
            expect(turn.locator(".verdict")).to_contain_text("The answer is here · From an online service")
            assert device.status()["escalation"]["trouble"] is None
            assert_accessible(here.page)
            screenshot(here.page, "deferred-answered")
            here.page.get_by_role("button", name="Deutsch").click()
            expect(turn.locator(".verdict")).to_contain_text("Die Antwort ist da")


@pytest.mark.browser
def test_who_waits_is_told_that_nobody_will_answer_and_who_leaves_waits_no_more(
    place: RunningDaemon, visit: Opener
) -> None:
    here = visit(place)
    here.ask(UNKNOWN)
    turn = here.answered()
    expect(turn.locator(".later")).to_contain_text("staff's list")
    with place.client(operator=True) as client:
        newest = max(_queue(place), key=lambda case: float(case["asked_at"]))
        client.post(f"/admin/handoffs/{newest['event_id']}/dismiss").raise_for_status()
    expect(turn.locator(".later")).to_contain_text("Nobody could answer this.")
    here.ask(UNKNOWN)
    expect(here.answered().locator(".later")).to_contain_text("staff's list")
    with here.page.expect_event("requestfailed", lambda request: "/v1/events/" in request.url):
        here.page.get_by_role("button", name="Start over").click()
    expect(here.page.locator(".turn")).to_have_count(0)
