"""`outpost gateway` before it connects to anything."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from agent.cli import app
from agent.errors import ConfigError


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "gateway.toml"
    file.write_text('[[escalation.endpoints]]\nurl = "http://127.0.0.1:9/v1"\nmodel = "m"\n', encoding="utf-8")
    return file


def test_a_gateway_without_a_broker_says_what_to_set(config: Path) -> None:
    done = CliRunner().invoke(app, ["gateway", "--config", str(config)])
    assert isinstance(done.exception, ConfigError)
    assert "mqtt.host" in str(done.exception)


@pytest.mark.parametrize("broker", ["host:port", ":1883", "host:"])
def test_a_broker_that_is_no_address_is_a_usage_error(config: Path, broker: str) -> None:
    done = CliRunner().invoke(app, ["gateway", "--config", str(config), "--broker", broker])
    assert done.exit_code == 2
    assert "HOST:PORT" in done.output


def test_a_name_that_is_no_topic_level_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text('[gateway]\nname = "north/1"\n', encoding="utf-8")
    done = CliRunner().invoke(app, ["gateway", "--config", str(file)])
    assert isinstance(done.exception, ConfigError)
    assert "gateway.name" in str(done.exception)
    named = CliRunner().invoke(app, ["gateway", "--broker", "localhost", "--name", "north/1"])
    assert named.exit_code == 2
    assert "north/1" in named.output
