"""What a daemon that nobody asks costs: nothing is loaded that only a question, an endpoint or a broker needs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from agent.engines.process import measure_pss
from tests.simulators.daemon import running_daemon

LATE = {"numpy", "httpx", "phonenumbers", "aiomqtt", "paho", "rich", "jsonschema", "py3langid"}


def test_importing_the_daemon_loads_nothing_that_comes_late() -> None:
    code = "import json, sys, agent.cli, agent.daemon; print(json.dumps(sorted(sys.modules)))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    loaded = set(json.loads(said.stdout))
    assert "agent.escalation.escalator" in loaded
    assert not loaded & LATE


def test_a_daemon_at_rest_is_small(tmp_path: Path) -> None:
    with running_daemon(tmp_path) as daemon:
        pid = daemon.process.pid
        daemon.status()
        assert "numpy" not in Path(f"/proc/{pid}/maps").read_text("utf-8")
        assert 10e6 < measure_pss([pid])[pid] < 80e6
