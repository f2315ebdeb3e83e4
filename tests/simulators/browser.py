"""A visitor's browser: pages of a daemon in a real Chromium, and what is wrong with them.

Screenshots go to $OUTPOST_SCREENSHOTS where it is set, to be looked at.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from tests.simulators import page_audit
from tests.simulators.daemon import RunningDaemon

ARGUMENTS = (
    "--no-sandbox --disable-gpu --disable-sync "
    "--disable-background-networking --no-first-run --disable-component-update"
)
expect.set_options(timeout=30_000)


@contextlib.contextmanager
def running_browser() -> Iterator[Browser]:
    """The distribution's Chromium, or a skip."""
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("Chromium is not installed (apt install chromium)")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path, args=ARGUMENTS.split())
        yield running
        running.close()


@dataclass
class Visit:
    """One visitor's page and everything it asked for and complained about."""

    page: Page
    origin: str
    requests: list[tuple[str, str]] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    errors_expected: bool = False

    def ask(self, question: str) -> None:
        self.page.get_by_label("Your question").fill(question)
        self.page.keyboard.press("Enter")

    def answered(self) -> Any:
        """The last answer, when it is whole."""
        answer = self.page.locator(".turn").last.locator(".answer")
        expect(answer).to_have_attribute("aria-busy", "false")
        return answer

    def check(self) -> None:
        foreign = [url for _, url in self.requests if not url.startswith(self.origin + "/")]
        assert not foreign, foreign
        assert self.errors_expected or not self.complaints, self.complaints


Opener = Callable[..., Visit]


@contextlib.contextmanager
def visits(browser: Browser) -> Iterator[Opener]:
    """Opens pages of a daemon; afterwards each must have asked for nothing foreign and complained about nothing."""
    opened: list[tuple[BrowserContext, Visit]] = []

    def open_page(daemon: RunningDaemon, path: str = "/", *, code_wanted: bool = False, **options: Any) -> Visit:
        settings: dict[str, Any] = {"viewport": {"width": 1280, "height": 800}, "locale": "en-GB"}
        context = browser.new_context(**(settings | options))
        visit = Visit(context.new_page(), daemon.url)
        visit.page.set_default_timeout(30_000)
        visit.page.on("request", lambda request: visit.requests.append((request.method, request.url)))
        visit.page.on("pageerror", lambda error: visit.complaints.append(str(error)))
        visit.page.on(
            "console", lambda message: visit.complaints.append(message.text) if message.type == "error" else None
        )
        opened.append((context, visit))
        visit.page.goto(daemon.url + path)
        expect(visit.page.locator("html[lang]")).to_be_visible()
        if path == "/operator" or code_wanted:
            expect(visit.page.locator("#access-title")).not_to_be_empty()
        else:
            expect(visit.page.locator("#place")).not_to_have_text("Outpost")  # the site, from the device's status
        return visit

    yield open_page
    for context, visit in opened:
        context.close()
        visit.check()


def screenshot(page: Page, name: str) -> None:
    if folder := os.environ.get("OUTPOST_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png")


def assert_accessible(page: Page) -> None:
    worst = page_audit.worst_contrast(page)
    assert worst["ratio"] >= 4.5, worst
    assert page_audit.small_targets(page) == []
    assert page_audit.unnamed_controls(page) == []
    assert page_audit.overflow(page) == []


def unlock(operator: Visit, daemon: RunningDaemon) -> None:
    operator.page.get_by_label("Token").fill(daemon.operator_token)
    operator.page.keyboard.press("Enter")
    expect(operator.page.locator("#board")).to_be_visible()
