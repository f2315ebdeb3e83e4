"""The configuration: every shipped board loads, overrides apply, and a typo names its nearest key."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.config import Config, load, with_server
from agent.errors import ConfigError
from agent.paths import shipped

BOARDS = sorted(shipped("device_configs").glob("*.toml"))


def write(folder: Path, text: str) -> Path:
    path = folder / "agent.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_there_are_five_boards() -> None:
    assert {path.stem for path in BOARDS} == {
        "laptop", "raspberry-pi-4", "raspberry-pi-5", "jetson-orin-nano", "x86-kiosk",
    }  # fmt: skip


@pytest.mark.parametrize("path", BOARDS, ids=lambda path: path.stem)
def test_every_board_loads(path: Path) -> None:
    config = load(path, env={})
    assert config.device.name == path.stem
    assert config.assistant.policy == ("best-effort" if path.stem == "laptop" else "certified")
    assert config.text.kv_tokens >= config.text.context, "one full sequence must fit into the KV cells"


def test_laptop_is_the_default_without_a_system_configuration() -> None:
    if Path("/etc/outpost/agent.toml").exists():
        pytest.skip("this machine has a configuration of its own")
    assert load(env={}).device.name == "laptop"


def test_variables_override_single_fields(tmp_path: Path) -> None:
    path = write(tmp_path, '[server]\nport = 1\n[assistant]\nlanguages = ["en"]\n')
    env = {
        "OUTPOST_SERVER__PORT": "8123",
        "OUTPOST_ASSISTANT__LANGUAGES": '["en", "de"]',
        "OUTPOST_DEVICE__NAME": "lobby-2",
        "OUTPOST_URL": "http://elsewhere",
    }
    config = load(path, env)
    assert config.server.port == 8123
    assert config.assistant.languages == ("en", "de")
    assert config.device.name == "lobby-2"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[server]\nprot = 1\n", ["server.prot", "port"]),
        ("[sever]\nport = 1\n", ["sever", "server"]),
        ("[server]\nport = 99999\n", ["server.port", "99999", "65535"]),
        ('[assistant]\npolicy = "yolo"\n', ["assistant.policy", "yolo", "best-effort"]),
        ("[server\n", ["not valid TOML"]),
        ("[device]\nname = 'UPPER'\n", ["device.name", "UPPER"]),
    ],
)
def test_errors_name_file_key_value_and_remedy(tmp_path: Path, text: str, told: list[str]) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load(path, env={})
    assert str(path) in str(caught.value)
    for part in told:
        assert part in str(caught.value)


def test_a_missing_and_a_binary_file_are_errors(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no configuration"):
        load(tmp_path / "none.toml", env={})
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="UTF-8"):
        load(binary, env={})


def test_the_command_line_overrides_the_server() -> None:
    config = with_server(Config(), host=None, port=9)
    assert (config.server.host, config.server.port) == ("127.0.0.1", 9)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("kiosk", False)],
)
def test_loopback_is_told_apart(host: str, loopback: bool) -> None:
    assert with_server(Config(), host=host, port=None).server.loopback is loopback


@pytest.mark.parametrize(("value", "name"), [("12", "12"), ("true", "true"), ('"a"', "a")])
def test_a_name_may_look_like_a_number(tmp_path: Path, value: str, name: str) -> None:
    assert load(write(tmp_path, ""), env={"OUTPOST_DEVICE__NAME": value}).device.name == name


def test_a_variable_of_thousands_of_digits_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"variable OUTPOST_SERVER__PORT"):
        load(write(tmp_path, ""), env={"OUTPOST_SERVER__PORT": "9" * 5000})


@pytest.mark.parametrize(("name", "told"), [("SERVER__PROT", "did you mean 'port'"), ("SERVR__PORT", "mean 'server'")])
def test_a_mistyped_variable_is_named_itself(tmp_path: Path, name: str, told: str) -> None:
    with pytest.raises(ConfigError, match=rf"variable OUTPOST_{name}.*{told}"):
        load(write(tmp_path, ""), env={f"OUTPOST_{name}": "1"})


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("OUTPOST_RISK_EPSILON", "did you mean OUTPOST_RISK__EPSILON?"),
        ("OUTPOST_SERVER_PROT", "did you mean OUTPOST_SERVER__PORT?"),
        ("OUTPOST_TOKN", "did you mean OUTPOST_TOKEN?"),
        ("OUTPOST_XYZZY", "OUTPOST_SECTION__FIELD"),
    ],
)
def test_a_variable_that_sets_nothing_is_an_error(tmp_path: Path, name: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(write(tmp_path, ""), env={name: "0.1"})
    assert name in str(caught.value)
    assert told in str(caught.value)


def test_variables_for_others_are_left_alone(tmp_path: Path) -> None:
    names = ("OUTPOST_URL", "OUTPOST_TOKEN", "OUTPOST_STATE", "OUTPOST_EMBEDDING_MODEL", "OUTPOST_SHARED_DATA", "HOME")
    assert load(write(tmp_path, ""), env=dict.fromkeys(names, "x")) == Config()
    service = {
        "OUTPOST_SERVICE_HOST": "10.0.0.7",
        "OUTPOST_SERVICE_PORT_HTTP": "8080",
        "OUTPOST_PORT": "tcp://10.0.0.7:8080",
        "OUTPOST_PORT_8080_TCP_ADDR": "10.0.0.7",
    }
    assert load(write(tmp_path, ""), env=service) == Config()
    with pytest.raises(ConfigError, match="OUTPOST_PORT is not known; did you mean OUTPOST_"):
        load(write(tmp_path, ""), env={"OUTPOST_PORT": "8090"})
