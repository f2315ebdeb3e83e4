"""The web pages in a real browser (the distribution's Chromium) against a real daemon."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.simulators import page_audit
from tests.simulators.browser import Opener, Visit, assert_accessible, screenshot, unlock
from tests.simulators.daemon import DEMO, RunningDaemon, running_daemon
from tests.simulators.waiting import until

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

QUESTION = "What is the height limit in the car park?"
SIZES = {"phone": (360, 740), "kiosk": (1920, 1080)}
MARKDOWN = """## Prices

| Ticket | Price |
|---|---:|
| **Adult** | £9 \\| online £8 |

- one
  - two

3. three

`a*b*` *c* [shop](https://shop.example) <b>bold</b>
"""


# ---------------------------------------------------------------- asking and reading


def test_an_answer_is_read_with_its_source_decision_and_confidence(daemon: RunningDaemon, visit: Opener) -> None:
    here = visit(daemon)
    here.ask(QUESTION)
    answer = here.answered()
    expect(answer).to_contain_text("2.0 metres")
    expect(answer.locator(".verdict")).to_contain_text(re.compile("ocuments · (fairly )?confident"))
    expect(answer.locator(".verdict")).to_contain_text("uncertified")
    expect(answer.locator(".cite").first).to_contain_text("Getting here")
    answer.get_by_text("How this was decided").click()
    expect(answer.locator("dl")).to_contain_text("confident")
    expect(here.page.locator(".asked").last).to_contain_text(QUESTION)
    expect(here.page.get_by_label("Your question")).to_have_value("")
    answer.get_by_role("button", name="Yes").click()
    expect(answer.locator(".feedback")).to_have_text("Thank you for telling us.")
    assert metric(daemon, 'outpost_feedback_total{rating="right"}') >= 1


def test_what_nobody_wrote_down_is_handed_to_a_person(daemon: RunningDaemon, visit: Opener) -> None:
    here = visit(daemon)
    here.ask("Which country won the football World Cup in 1998?")
    answer = here.answered()
    expect(answer.locator(".verdict")).to_contain_text("A person can help you better")
    expect(answer).to_contain_text("ask a member of staff")


def test_the_keyboard_is_enough(daemon: RunningDaemon, visit: Opener) -> None:
    here = visit(daemon)
    page = here.page
    expect(page.get_by_label("Your question")).to_be_focused()
    page.keyboard.type(QUESTION)
    page.keyboard.press("Shift+Enter")
    page.keyboard.press("Backspace")
    page.keyboard.press("Enter")
    answer = here.answered()
    seen = []
    for _ in range(40):
        page.keyboard.press("Tab")
        name, outline = page.evaluate(
            "() => { const e = document.activeElement; const s = getComputedStyle(e);"
            " return [e.getAttribute('aria-label') || e.textContent.trim() || e.id, s.outlineStyle + s.outlineWidth] }"
        )
        if name in seen:
            break
        seen.append(name)
        if page.evaluate("document.activeElement !== document.body"):
            assert re.fullmatch(r"solid[1-9.]+px", outline), f"{name}: no visible focus ({outline})"
    assert {"Ask", "Start over", "Larger text", "English", "Deutsch", "Yes", "No", "How this was decided"} <= set(seen)
    answer.get_by_role("button", name="No").focus()
    page.keyboard.press("Space")
    expect(answer.locator(".feedback")).to_contain_text("Thank you")
    page.get_by_role("button", name="Start over").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="What would you like to know?")).to_be_visible()
    expect(page.get_by_label("Your question")).to_be_focused()


def test_a_finger_is_enough(daemon: RunningDaemon, visit: Opener) -> None:
    width, height = SIZES["phone"]
    here = visit(daemon, viewport={"width": width, "height": height}, has_touch=True, is_mobile=True)
    here.page.get_by_label("Your question").tap()
    here.page.keyboard.insert_text(QUESTION)
    here.page.get_by_role("button", name="Ask").tap()
    answer = here.answered()
    expect(answer).to_contain_text("2.0 metres")
    here.page.get_by_role("button", name="Start over").tap()
    expect(here.page.locator(".turn")).to_have_count(0)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_each_screen_is_readable(daemon: RunningDaemon, visit: Opener, size: str, scheme: str) -> None:
    width, height = SIZES[size]
    here = visit(daemon, viewport={"width": width, "height": height}, color_scheme=scheme, has_touch=size == "phone")
    page = here.page
    for name, question in (
        ("welcome", None),
        ("quote", QUESTION),
        ("table", "When is the show Moon, Earth and Tides and how long is it?"),
        ("handoff", "Which country won the football World Cup in 1998?"),
        ("action", "Please print me a map of floor 2"),
    ):
        if question:
            here.ask(question)
            here.answered()
        assert_accessible(page)
        screenshot(page, f"{name}-{size}-{scheme}")
    page.get_by_role("button", name="Larger text").click()
    page.get_by_role("button", name="Larger text").click()
    assert_accessible(page)
    screenshot(page, f"larger-{size}-{scheme}")
    if size == "kiosk":
        page.get_by_role("button", name="Start over").click()
        assert page.evaluate("parseFloat(getComputedStyle(document.body).fontSize)") >= 20


def test_every_row_of_a_quoted_table_is_a_table(daemon: RunningDaemon, visit: Opener) -> None:
    here = visit(daemon)
    here.page.evaluate(
        """async (text) => {
          const { render } = await import("/static/markdown.js");
          document.querySelector("#log").append(render(text));
        }""",
        MARKDOWN,
    )
    log = here.page.locator("#log")
    expect(log.locator("th")).to_have_text(["Ticket", "Price"])
    expect(log.locator("td")).to_have_text(["Adult", "£9 | online £8"])
    expect(log.locator("ul > li > ul > li")).to_have_text("two")
    expect(log.locator("ol")).to_have_attribute("start", "3")
    expect(log.locator("p").last).to_have_text("a*b* c shop <b>bold</b>")
    assert log.locator("a, b, script, img").count() == 0


# ---------------------------------------------------------------- nothing foreign, nothing injected


def test_text_of_a_document_stays_text(daemon: RunningDaemon, visit: Opener) -> None:
    image, script = "<img src=x onerror=document.title='owned'>", "<script>document.title='owned'</script>"
    hostile = f"The quagga password is {image}{script}."
    with daemon.client(operator=True) as client:
        document = {"id": "hostile.md", "title": "<b>Quagga</b>", "text": hostile}
        client.post("/v1/knowledge/default/documents", json={"documents": [document]}).raise_for_status()
        try:
            here = visit(daemon)
            here.ask("What is the quagga password?")
            here.answered()
            assert here.page.locator("#log :is(img, script, b b)").count() == 0
            assert "owned" not in here.page.title()
        finally:
            client.delete("/v1/knowledge/default/documents/hostile.md").raise_for_status()


def test_the_policy_blocks_inline_script_markup_and_foreign_calls(daemon: RunningDaemon, visit: Opener) -> None:
    here = visit(daemon)
    here.errors_expected = True
    outcome = here.page.evaluate(
        """async () => {
          const blocked = {};
          const note = (name, act) => { try { act(); blocked[name] = false; } catch { blocked[name] = true; } };
          note("markup", () => { document.querySelector("#log").innerHTML = "<b>x</b>"; });
          note("script", () => {
            const script = document.createElement("script");
            script.append("window.owned = true");
            document.body.append(script);
          });
          note("handler", () => {
            const button = document.createElement("button");
            button.setAttribute("onclick", "window.owned = true");
            button.click();
          });
          blocked.fetch = await fetch("http://127.0.0.1:9/").then(() => false, () => true);
          return { ...blocked, owned: window.owned === true };
        }"""
    )
    assert (outcome["markup"], outcome["fetch"], outcome["owned"]) == (True, True, False)
    assert any("Content Security Policy" in complaint for complaint in here.complaints)
    here.requests.clear()


# ---------------------------------------------------------------- the end of a visit


def metric(daemon: RunningDaemon, name: str) -> float:
    with daemon.client() as client:
        text = client.get("/metrics").raise_for_status().text
    return float(re.findall(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)[0])


def traces(page: Page) -> dict[str, Any]:
    found: dict[str, Any] = page.evaluate(
        """async () => ({
          markup: document.documentElement.outerHTML,
          values: [...document.querySelectorAll("input, textarea")].map((e) => e.value).join(""),
          stored: localStorage.length + sessionStorage.length + (await indexedDB.databases()).length
            + (await caches.keys()).length + document.cookie.length,
          address: location.href, entries: history.length,
        })"""
    )
    return found


def assert_forgotten(visit: Visit, question: str) -> None:
    page = visit.page
    expect(page.locator(".turn")).to_have_count(0)
    page.get_by_label("Your question").focus()
    page.keyboard.press("Control+Z")
    left = traces(page)
    assert question not in left["markup"]
    assert "2.0 metres" not in left["markup"]
    assert (left["values"], left["stored"], left["address"]) == ("", 0, visit.origin + "/")


def test_a_button_ends_the_visit_and_nothing_stays(daemon: RunningDaemon, visit: Opener) -> None:
    here = visit(daemon)
    with here.page.expect_request("**/v1/chat/completions") as asked:
        here.ask(QUESTION)
    here.answered()
    session = asked.value.post_data_json["outpost"]["session"]
    kept = metric(daemon, "outpost_sessions")
    here.page.get_by_label("Your question").fill("half a question")
    with here.page.expect_response(lambda reply: reply.request.method == "DELETE") as ended:
        here.page.get_by_role("button", name="Start over").click()
    assert (ended.value.status, ended.value.url) == (204, f"{daemon.url}/v1/sessions/{session}")
    assert metric(daemon, "outpost_sessions") < kept
    assert_forgotten(here, QUESTION)
    with here.page.expect_request("**/v1/chat/completions") as asked:
        here.ask(QUESTION)
    assert asked.value.post_data_json["outpost"]["session"] != session
    here.answered()


def test_saying_start_over_ends_the_visit(daemon: RunningDaemon, visit: Opener) -> None:
    here = visit(daemon)
    here.ask(QUESTION)
    here.answered()
    here.ask("start over")
    expect(here.page.get_by_text("All cleared.")).to_be_visible()
    assert_forgotten(here, QUESTION)


def test_leaving_the_page_ends_the_visit(daemon: RunningDaemon, visit: Opener) -> None:
    here = visit(daemon)
    here.ask(QUESTION)
    here.answered()
    kept = metric(daemon, "outpost_sessions")
    here.page.goto(daemon.url + "/operator")
    until(lambda: metric(daemon, "outpost_sessions") < kept, "the device forgets the conversation", 10)
    here.page.go_back()
    expect(here.page.locator("#hint")).not_to_be_empty()
    expect(here.page.locator(".turn")).to_have_count(0)


def test_a_long_visit_keeps_only_the_last_turns(daemon: RunningDaemon, visit: Opener) -> None:
    here = visit(daemon)
    for number in range(9):
        here.ask(f"Thank you {number}")
        expect(here.page.locator(".asked").last).to_contain_text(f"Thank you {number}")
        here.answered()
    expect(here.page.locator(".turn")).to_have_count(8)
    assert "Thank you 0" not in traces(here.page)["markup"]


# ---------------------------------------------------------------- language and actions


def test_the_interface_speaks_german(daemon: RunningDaemon, visit: Opener) -> None:
    here = visit(daemon)
    page = here.page
    page.get_by_role("button", name="Deutsch").click()
    expect(page.locator("html")).to_have_attribute("lang", "de")
    expect(page.locator("html")).to_have_attribute("dir", "ltr")
    expect(page.get_by_role("heading", name="Was möchten Sie wissen?")).to_be_visible()
    expect(page.locator("#hint")).to_have_text("Bitte fragen Sie auf Englisch.")
    page.get_by_label("Ihre Frage").fill(QUESTION)
    page.get_by_role("button", name="Fragen").click()
    answer = here.answered()
    expect(answer.locator(".verdict")).to_contain_text("nterlagen")
    expect(answer.locator(".words").first).to_have_attribute("lang", "en")
    page.get_by_role("button", name="English").click()
    expect(answer.locator(".verdict")).to_contain_text("ocuments")


def test_a_german_browser_meets_german(daemon: RunningDaemon, visit: Opener) -> None:
    here = visit(daemon, locale="de-AT")
    expect(here.page.get_by_role("heading", name="Was möchten Sie wissen?")).to_be_visible()


def test_actions_change_the_page(daemon: RunningDaemon, visit: Opener) -> None:
    here = visit(daemon)
    size = "parseFloat(getComputedStyle(document.body).fontSize)"
    before = here.page.evaluate(size)
    here.ask("make the text bigger")
    expect(here.answered()).to_contain_text("The text is larger now.")
    assert here.page.evaluate(size) > before
    here.ask("print the map of floor 2")
    expect(here.answered()).to_contain_text("map of floor 2")
    here.ask("Deutsch please")
    expect(here.answered()).to_contain_text("Dieser Bildschirm ist jetzt auf Deutsch.")


# ---------------------------------------------------------------- waiting, idle time, faults


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    """A daemon that takes one question at a time and ends an idle visit after four seconds."""
    settings = {"OUTPOST_SERVER__QUEUE": "1", "OUTPOST_ASSISTANT__SESSION_IDLE_S": "4"}
    with running_daemon(tmp_path_factory.mktemp("hasty"), settings=settings) as running:
        running.cli("knowledge", "add", str(DEMO / "documents" / "getting-here.md"))
        yield running


def test_idle_time_warns_and_ends_the_visit(hasty: RunningDaemon, visit: Opener) -> None:
    here = visit(hasty)
    here.ask(QUESTION)
    here.answered()
    dialog = here.page.get_by_role("dialog", name="Are you still there?")
    expect(dialog).to_be_visible()
    assert page_audit.worst_contrast(here.page)["ratio"] >= 4.5
    screenshot(here.page, "idle")
    dialog.get_by_role("button", name="I'm still here").click()
    expect(dialog).to_be_hidden()
    expect(here.page.locator(".turn")).to_have_count(1)
    with here.page.expect_request(lambda request: request.method == "DELETE"):
        expect(here.page.get_by_text("All cleared.")).to_be_visible()
    expect(dialog).to_be_hidden()
    assert_forgotten(here, QUESTION)


def test_idle_time_clears_a_question_that_was_never_sent(hasty: RunningDaemon, visit: Opener) -> None:
    here = visit(hasty)
    here.page.get_by_role("button", name="Deutsch").click()
    here.page.get_by_label("Ihre Frage").fill("my secret")
    expect(here.page.get_by_text("All cleared.")).to_be_visible()
    assert_forgotten(here, "my secret")


def test_waiting_shows_the_stage_and_a_full_queue_says_when_to_come_back(hasty: RunningDaemon, visit: Opener) -> None:
    first, second = visit(hasty), visit(hasty)
    second.errors_expected = True
    first.ask(QUESTION)
    first.answered()
    worker = hasty.worker_pid("understanding")
    os.kill(worker, signal.SIGSTOP)
    try:
        first.ask("Where can I park a camper van?")
        verdict = first.page.locator(".turn").last.locator(".verdict")
        expect(verdict).to_contain_text("Reading your question")
        screenshot(first.page, "waiting")
        second.ask(QUESTION)
        refused = second.answered()
        expect(refused).to_contain_text(re.compile(r"Please try again in \d+ seconds"))
        expect(refused.locator("code")).to_have_text("overloaded · 429")
    finally:
        os.kill(worker, signal.SIGCONT)
    first.answered()
    refused.get_by_role("button", name="Try again").click()
    expect(second.answered()).to_contain_text("2.0 metres")


def test_a_daemon_that_goes_away_and_comes_back(
    tmp_path: Path, visit: Opener, browser: Browser, request: pytest.FixtureRequest
) -> None:
    state = tmp_path / "state"
    with running_daemon(state) as first:
        here, operator = visit(first), visit(first, "/operator")
        here.errors_expected = operator.errors_expected = True
        unlock(operator, first)
        port = first.url.rpartition(":")[2]
        first.process.kill()
        first.process.wait()
        here.ask(QUESTION)
        failed = here.answered()
        expect(failed).to_contain_text("The device could not be reached.")
        expect(failed.locator("code")).to_have_text("network")
        expect(here.page.locator("#banner")).to_contain_text("The device is not answering at the moment.")
        expect(operator.page.locator("#banner")).to_contain_text("The device is not answering. These figures are from")
        assert page_audit.worst_contrast(here.page)["ratio"] >= 4.5
        screenshot(here.page, "away")
        screenshot(operator.page, "operator-away")
        with running_daemon(state, arguments=("--port", port)):
            expect(here.page.locator("#banner")).to_be_hidden()
            expect(operator.page.locator("#banner")).to_be_hidden()
            failed.get_by_role("button", name="Try again").click()
            expect(here.answered().locator(".verdict")).to_contain_text("A person can help you better")


def test_a_device_that_wants_a_code_is_asked_with_it(tmp_path: Path, visit: Opener) -> None:
    code = tmp_path / "code"
    code.write_text("open-sesame-and-come-in\n")
    with running_daemon(tmp_path / "state", settings={"OUTPOST_SERVER__TOKEN_FILE": str(code)}) as daemon:
        here = visit(daemon, code_wanted=True)
        here.errors_expected = True
        dialog = here.page.get_by_role("dialog", name="Access code")
        dialog.get_by_label("Code").fill("guessed")
        here.page.keyboard.press("Enter")
        expect(dialog.get_by_role("alert")).to_have_text("This code was not accepted.")
        assert_accessible(here.page)
        dialog.get_by_label("Code").fill("open-sesame-and-come-in")
        here.page.keyboard.press("Enter")
        expect(dialog).to_be_hidden()
        here.ask(QUESTION)
        expect(here.answered().locator(".verdict")).to_contain_text("A person can help you better")
        left = traces(here.page)
        assert "sesame" not in left["markup"] + left["values"]
        linked = visit(daemon, "/#token=open-sesame-and-come-in")
        linked.errors_expected = True  # the device stops while the page waits for a person's answer
        linked.ask(QUESTION)
        expect(linked.answered().locator(".verdict")).to_contain_text("A person can help you better")
        assert traces(linked.page)["address"] == daemon.url + "/"


# ---------------------------------------------------------------- the operator's page


def test_the_operator_needs_the_token(daemon: RunningDaemon, visit: Opener) -> None:
    operator = visit(daemon, "/operator")
    operator.errors_expected = True
    operator.page.get_by_label("Token").fill("guessed")
    operator.page.keyboard.press("Enter")
    expect(operator.page.get_by_role("alert")).to_have_text("This token was not accepted.")
    expect(operator.page.locator("#board")).to_be_hidden()
    unlock(operator, daemon)
    operator.page.get_by_role("button", name="Lock").click()
    expect(operator.page.locator("#board")).to_be_hidden()
    left = traces(operator.page)
    assert daemon.operator_token not in left["markup"] + left["values"]
    assert left["stored"] == 0


def test_the_operator_sees_the_device_live(daemon: RunningDaemon, visit: Opener) -> None:
    operator = visit(daemon, "/operator")
    unlock(operator, daemon)
    page = operator.page
    expect(page.locator("#knowledge tr").filter(has_text="default").locator("td").first).to_have_text("12")
    asked = page.locator("#figures > div").filter(has_text="Questions").locator("dd").first
    before = int(asked.inner_text())
    with daemon.client() as client:
        message = {"role": "user", "content": QUESTION}
        client.post("/v1/chat/completions", json={"model": "outpost", "messages": [message]}).raise_for_status()
    expect(asked).not_to_have_text(str(before))
    expect(page.locator("#decisions")).to_contain_text("answered here")
    model = page.locator("#models li").filter(has=page.get_by_role("heading", name="understanding", exact=True))
    expect(model.locator(".state")).to_have_text("ready")
    model.get_by_role("button", name="Unload").click()
    expect(model.locator(".state")).to_have_text("not loaded")
    expect(page.locator("#said")).to_have_text("understanding: done")
    model.get_by_role("button", name="Load").click()
    expect(model.locator(".state")).to_have_text("ready")
    expect(page.locator("#memory-words")).to_contain_text("MiB of")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_the_operators_screen_is_readable(daemon: RunningDaemon, visit: Opener, size: str, scheme: str) -> None:
    width, height = SIZES[size]
    operator = visit(daemon, "/operator", viewport={"width": width, "height": height}, color_scheme=scheme)
    assert_accessible(operator.page)
    unlock(operator, daemon)
    assert_accessible(operator.page)
    beyond = "[...document.querySelectorAll('.scroll')].filter((box) => box.scrollWidth > box.clientWidth).length"
    assert operator.page.evaluate(beyond) == 0  # no column is cut
    screenshot(operator.page, f"operator-{size}-{scheme}")
    operator.page.get_by_role("button", name="Deutsch").click()
    expect(operator.page.get_by_role("heading", name="Modelle", exact=True)).to_be_visible()
    assert_accessible(operator.page)
