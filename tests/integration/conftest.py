"""What integration tests share: above all one daemon with the demo venue's documents for all that only ask it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agent import config
from agent.engines.pool import Pool
from tests.simulators.daemon import DEMO, ROOT, RunningDaemon, clean_environment, install_tiny, running_daemon
from tests.simulators.faulty_http import FaultyServer
from tests.simulators.models import Site

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from tests.simulators.browser import Opener

EMBEDDING = "all-minilm-l6-v2"


def install_embedding(state: Path) -> bool:
    """Install the built embedding model that OUTPOST_EMBEDDING_MODEL names; whether there was one."""
    folder = os.environ.get("OUTPOST_EMBEDDING_MODEL", "")
    if not folder or not Path(folder).is_dir():
        return False
    command = [sys.executable, "-m", "agent", "models", "pull", EMBEDDING, "--from", folder, "--state", str(state)]
    done = subprocess.run(command, env=clean_environment(), cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return True


@pytest.fixture
async def pool(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Pool]:
    """Workers find the engines of the tests too."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    async with Pool(config.Pool()) as pool:
        yield pool


@pytest.fixture
def server() -> Iterator[FaultyServer]:
    """Offers models, as badly as a test says."""
    with FaultyServer() as running:
        yield running


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A device with a catalogue of its own."""
    return Site(tmp_path)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    from tests.simulators.browser import running_browser

    with running_browser() as running:
        yield running


@pytest.fixture
def visit(browser: Browser) -> Iterator[Opener]:
    """Opens pages of a daemon; afterwards each must have asked for nothing foreign and complained about nothing."""
    from tests.simulators.browser import visits

    with visits(browser) as opener:
        yield opener


@pytest.fixture(scope="session")
def daemon(tmp_path_factory: pytest.TempPathFactory, tiny_gguf: Path) -> Iterator[RunningDaemon]:
    """A daemon that knows the demo venue, with the random-weight model beside the reference SLM; with embeddings where
    that model is at hand."""
    state = tmp_path_factory.mktemp("daemon")
    install_tiny(state, tiny_gguf)
    install_embedding(state)
    with running_daemon(state, settings={"OUTPOST_POOL__KEEP_ALIVE_S": "3600"}) as running:
        running.cli("knowledge", "add", str(DEMO / "documents"))
        running.cli("intents", "train", str(DEMO / "intents.toml"))
        yield running
