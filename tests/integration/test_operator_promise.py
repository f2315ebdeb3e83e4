"""The operator's page over a promise that is made, kept, broken by what visitors say, and trusted again."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import expect

from agent.confidence.certificate import dump
from tests.integration.test_audits import ALONE, QUESTIONS, certificate
from tests.simulators.browser import Opener, assert_accessible, screenshot, unlock
from tests.simulators.daemon import DEMO, running_daemon
from tests.simulators.waiting import until


@pytest.mark.browser
@pytest.mark.timeout(300)
def test_the_operator_sees_promise_certificate_coverage_and_measured_risk(tmp_path: Path, visit: Opener) -> None:
    promised = certificate(tmp_path)
    (tmp_path / "certificates").mkdir()
    (tmp_path / "certificates" / "quote.json").write_bytes(dump(promised))
    settings = ALONE | {
        "OUTPOST_ASSISTANT__POLICY": "certified",
        "OUTPOST_RISK__FEEDBACK_LABELS": "true",
        "OUTPOST_RISK__FEEDBACK_ERROR": "0.0",
    }
    with running_daemon(tmp_path, settings=settings) as daemon:
        daemon.cli("knowledge", "add", str(DEMO / "documents"))
        assert daemon.ask(QUESTIONS[0])["certificate"] == promised.id
        assert daemon.ask("Xylophones zigzagging?")["decision"] == "handoff"
        desk = visit(daemon, "/operator")
        unlock(desk, daemon)
        expect(desk.page.locator("#promise-words")).to_contain_text("At most 5 % of the answers")
        expect(desk.page.locator("#promise-words")).to_contain_text("95 % certainty")
        quotes = desk.page.locator("#promise tr").filter(has_text=promised.id)
        for figure in ("5 %", "97.5 %", "3 %"):
            expect(quotes).to_contain_text(figure)
        expect(desk.page.locator("#promise .lacking").first).to_be_visible()
        expect(desk.page.locator("#serving-words")).to_contain_text("2 questions, 50 % answered here, 0 % passed")

        with daemon.client() as visitors:
            for _ in range(40):
                told = daemon.ask(QUESTIONS[0])
                if told["certificate"] is None:
                    break
                rating = {"event_id": told["event_id"], "rating": "wrong"}
                visitors.post("/v1/feedback", json=rating).raise_for_status()
            assert told["reason"] == "certificate_revoked"
        expect(desk.page.locator("#promise")).to_contain_text("revoked by what was measured")
        live = desk.page.locator("#live tr").filter(has_text="certificate revoked")
        expect(live).to_contain_text("called wrong")
        assert_accessible(desk.page)
        screenshot(desk.page, "operator-revoked")
        with daemon.client(operator=True) as client:
            metrics = client.get("/metrics").text
        assert 'outpost_certificate_revoked_total{route="quote"} 1.0' in metrics

        live.get_by_role("button", name="Trust it again").click()
        expect(desk.page.locator("#live-said")).to_contain_text("is in force again")
        until(lambda: daemon.ask(QUESTIONS[0])["certificate"] == promised.id, "the device answers again")
