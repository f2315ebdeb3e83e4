"""Endpoints out of configuration and environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.config import Endpoint, Escalation
from agent.errors import ConfigError
from agent.escalation.endpoints import OPENAI, Target, client, is_configured, targets

ENV = {"OPENAI_BASE_URL": "https://llm.example/v1/", "OPENAI_API_KEY": "sk-env\n", "OPENAI_MODEL": "env-model"}


def only(endpoint: Endpoint | None = None, env: dict[str, str] | None = None) -> Target:
    (target,) = targets(Escalation(endpoints=(endpoint,) if endpoint else ()), ENV if env is None else env)
    return target


def test_openais_variables_are_enough() -> None:
    target = only()
    assert (target.url, target.model, target.key) == ("https://llm.example/v1", "env-model", "sk-env")
    assert only(env={"OPENAI_MODEL": "m"}).url == OPENAI


def test_the_configuration_comes_first(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("sk-file\n")
    target = only(Endpoint(name="a", url="https://a.example/v1", model="m", key_file=tmp_path / "key"))
    assert (target.url, target.model, target.key) == ("https://a.example/v1", "m", "sk-file")
    assert "key_file of 'a'" in target.key_from


def test_an_api_key_in_the_environment_configures_but_nothing_does_not() -> None:
    assert is_configured(Escalation(), {"OPENAI_API_KEY": "x"})
    assert is_configured(Escalation(), {"OPENAI_BASE_URL": "x"})
    assert is_configured(Escalation(endpoints=(Endpoint(),)), {})
    assert not is_configured(Escalation(), {"OPENAI_MODEL": "x"})


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:8/v1", "http://[::1]/v1", "http://192.168.1.5/v1", "http://vllm:8000/v1", "http://a.local/v1"],
)
def test_plain_http_within_the_own_network(url: str) -> None:
    assert only(Endpoint(url=url)).url == url


@pytest.mark.parametrize(
    ("endpoint", "message"),
    [
        (Endpoint(url="http://llm.example/v1"), "in the clear"),
        (Endpoint(url="http://8.8.8.8/v1"), "in the clear"),
        (Endpoint(url="ftp://llm.example"), r"escalation\.endpoints\.url of 'cloud'"),
        (Endpoint(url="llm.example/v1"), "Name a base URL"),
        (Endpoint(url="https://u:p@llm.example/v1"), "key_file"),
        (Endpoint(url="https://llm.example:x/v1"), "Name a base URL"),
        (Endpoint(url="https://llm.example/v1?key=1"), "Name a base URL"),
        (Endpoint(proxy="socks5://localhost:1"), "http:// or https://"),
        (Endpoint(client_cert=Path("c.pem")), "only one of client_cert and client_key"),
        (Endpoint(key_file=Path("missing")), "cannot read"),
    ],
)
def test_what_cannot_be_used_is_named(endpoint: Endpoint, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        only(endpoint)


def test_a_model_and_different_names_are_needed() -> None:
    with pytest.raises(ConfigError, match="OPENAI_MODEL"):
        only(Endpoint(url="https://a.example/v1"), {})
    with pytest.raises(ConfigError, match="called cloud"):
        targets(Escalation(endpoints=(Endpoint(), Endpoint())), ENV)


@pytest.mark.parametrize("key", ["two words", "zwei\nzeilen", "schlüssel"])
def test_a_key_that_no_header_can_carry_is_refused_without_showing_it(key: str) -> None:
    with pytest.raises(ConfigError, match="OPENAI_API_KEY is no API key") as caught:
        only(env=ENV | {"OPENAI_API_KEY": key})
    assert key not in str(caught.value)


def test_certificates_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    empty = tmp_path / "empty.pem"
    empty.write_text("")
    with pytest.raises(ConfigError, match="ca_file"):
        client(only(Endpoint(ca_file=empty)), Escalation())
    with pytest.raises(ConfigError, match="client_cert"):
        client(only(Endpoint(client_cert=empty, client_key=empty)), Escalation())
