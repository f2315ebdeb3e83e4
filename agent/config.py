"""The configuration: one frozen tree, loaded once, validated once.

Read from TOML (``--config``, else ``/etc/outpost/agent.toml`` where it exists, else the shipped laptop.toml);
``OUTPOST_SECTION__FIELD`` variables override single fields. Unknown keys are errors that name the nearest known key.
Every field says its unit. Nothing is validated again after `load`.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from agent.errors import ConfigError
from agent.paths import shipped

Policy = Literal["certified", "best-effort", "local-only"]
SYSTEM_CONFIG = Path("/etc/outpost/agent.toml")


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Device(_Section):
    """Who this device is."""

    name: str = Field("device", pattern=r"^[a-z0-9][a-z0-9-]{0,62}$", description="name in MQTT topics and status")
    site: str = Field("site", pattern=r"^[a-z0-9][a-z0-9-]{0,62}$", description="place or group of devices")


class Server(_Section):
    """The HTTP server."""

    host: str = Field("127.0.0.1", description="address to listen on; beyond loopback a token is obligatory")
    port: int = Field(8080, ge=0, le=65535, description="TCP port; 0 lets the system choose")
    token_file: Path | None = Field(None, description="file with the users' bearer token (one line)")
    allowed_hosts: tuple[str, ...] = Field((), description="further Host header names to accept")
    max_body_mb: int = Field(64, ge=1, le=1024, description="largest body with documents, MiB; others end at 8")
    queue: int = Field(32, ge=1, le=10_000, description="questions and generations waiting or running; then 429")
    request_timeout_s: float = Field(120.0, gt=0, le=3600, description="deadline of one request, seconds")

    @property
    def loopback(self) -> bool:
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


class Assistant(_Section):
    """How questions are answered."""

    policy: Policy = Field("certified", description="when a local answer may be served")
    languages: tuple[str, ...] = Field(("en",), min_length=1, description="ISO 639-1 codes that are answered locally")
    collection: str = Field("default", pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$", description="collection to search")
    max_question_chars: int = Field(2000, ge=1, le=100_000, description="longest question, characters")
    min_confidence: float = Field(0.5, ge=0, le=1, description="least confidence of a local answer under best-effort")
    session_idle_s: float = Field(90.0, gt=0, le=86_400, description="idle time that ends a session, seconds")
    session_turns: int = Field(6, ge=0, le=100, description="earlier turns kept for context; 0 keeps none")
    handoff_text: str = Field(
        "I can't answer that for certain. Please ask a member of staff.", description="said when a person must answer"
    )


class Models(_Section):
    """Which models serve which task; an empty name switches the task off."""

    text: str = Field("outpost-reference-slm", description="SLM of the assistant")
    embedding: str = Field("all-minilm-l6-v2", description="embedding model of the knowledge index")
    ranker: str = Field("outpost-reference-ranker", description="model that judges whether a sentence answers")
    intents: str = Field("", description="intent pack: a TOML file, or empty for none")
    pinned: tuple[str, ...] = Field(
        (), description="models (and the worker understanding) that are loaded at start and never evicted"
    )


class Text(_Section):
    """The text engine (llama.cpp)."""

    threads: int = Field(0, ge=0, le=256, description="threads of one worker; 0 = physical cores")
    context: int = Field(2048, ge=128, le=1_048_576, description="tokens a sequence may hold")
    sequences: int = Field(4, ge=1, le=64, description="sequences decoded together")
    batch: int = Field(256, ge=32, le=8192, description="tokens computed in one step")
    kv_tokens: int = Field(8192, ge=256, le=4_194_304, description="KV cells of all sequences and cached prefixes")
    max_tokens: int = Field(256, ge=1, le=32_768, description="answer length where the client names none, tokens")


class Pool(_Section):
    """Memory and lifetime of the workers."""

    memory_mb: int = Field(2048, ge=64, description="budget of all workers together, MiB of PSS")
    keep_alive_s: float = Field(600.0, ge=0, description="idle time after which a model that is not pinned is unloaded")
    load_timeout_s: float = Field(120.0, gt=0, description="deadline of a load, seconds")
    isolate: bool = Field(True, description="run workers without network where the platform allows it")


class Config(_Section):
    """The whole tree."""

    device: Device = Device()
    server: Server = Server()
    assistant: Assistant = Assistant()
    models: Models = Models()
    text: Text = Text()
    pool: Pool = Pool()


def load(path: Path | None = None, env: Mapping[str, str] | None = None) -> Config:
    """The configuration from ``path`` and the environment (default: the process's own).

    Raises ConfigError, whose message names the file, the key, the offending value and the remedy.
    """
    source = path or (SYSTEM_CONFIG if SYSTEM_CONFIG.is_file() else shipped("device_configs", "laptop.toml"))
    data = _read(source)
    overridden = _override(data, os.environ if env is None else env)
    try:
        return Config.model_validate(data)
    except ValidationError as error:
        raise ConfigError(_explain(source, error, overridden)) from error


def with_server(config: Config, *, host: str | None, port: int | None) -> Config:
    """The configuration with what the command line says about the server; None leaves a field alone."""
    given = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
    return config.model_copy(update={"server": config.server.model_copy(update=given)})


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_bytes().decode("utf-8")
        return tomllib.loads(text)
    except FileNotFoundError as error:
        raise ConfigError(f"no configuration at {path}", remedy="Name an existing file with --config.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"cannot read the configuration {path}: {error}", remedy="Check its permissions and that it is UTF-8 text."
        ) from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not valid TOML: {error}", remedy="Mend that line.") from error


def _override(data: dict[str, Any], env: Mapping[str, str]) -> dict[tuple[str, str], str]:
    """Put the variables' values into ``data``; which variable set which field."""
    overridden = {}
    for name, value in env.items():
        if not name.startswith("OUTPOST_") or "__" not in name:
            continue
        section, _, key = name.removeprefix("OUTPOST_").lower().partition("__")
        table = data.setdefault(section, {})
        if isinstance(table, dict):
            table[key] = _parse(value)
            overridden[section, key] = name
    return overridden


def _parse(value: str) -> Any:
    """A variable's value as TOML where it is TOML (numbers, booleans, lists), else the text itself."""
    try:
        return tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return value


def _explain(source: Path, error: ValidationError, overridden: Mapping[tuple[str, str], str]) -> str:
    lines = []
    for problem in error.errors():
        key = [str(part) for part in problem["loc"]]
        variable = overridden.get((key[0], key[1])) if len(key) > 1 else None
        where = f"the variable {variable}" if variable else str(source)
        if problem["type"] == "extra_forbidden":
            lines.append(f"{where}: unknown key {'.'.join(key)!r}{_nearest(problem['loc'])}")
        else:
            lines.append(f"{where}: {'.'.join(key)} = {problem['input']!r}: {problem['msg']}")
    return "\n".join(lines)


def _nearest(location: tuple[int | str, ...]) -> str:
    """`` (did you mean ...?)`` for a key that no section has."""
    known: type[BaseModel] = Config
    for part in location[:-1]:
        annotation = known.model_fields[str(part)].annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            known = annotation
    matches = difflib.get_close_matches(str(location[-1]), list(known.model_fields), n=1, cutoff=0.5)
    names = ", ".join(sorted(known.model_fields))
    return f"; did you mean {matches[0]!r}?" if matches else f"; known keys: {names}"
