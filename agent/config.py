"""The configuration: one frozen tree, loaded once, validated once.

Read from TOML (``--config``, else ``/etc/outpost/agent.toml`` where it exists, else the shipped laptop.toml);
``OUTPOST_SECTION__FIELD`` variables override single fields. Unknown keys, and unknown variables that begin with
``OUTPOST_``, are errors that name the nearest known one.
Every field says its unit. Nothing is validated again after `load`.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from agent.errors import ConfigError
from agent.paths import shipped

Policy = Literal["certified", "best-effort", "local-only", "cloud-first"]
RouteName = Literal["intent", "quote", "generated", "cache"]
"""What may be certified: the device's own answers, and from which likeness on two questions are one."""
SYSTEM_CONFIG = Path("/etc/outpost/agent.toml")
_PLAIN = frozenset({"OUTPOST_STATE", "OUTPOST_TOKEN", "OUTPOST_URL"})
"""Variables of the command line."""
_OF_TESTS = frozenset({"OUTPOST_EMBEDDING_MODEL", "OUTPOST_SCREENSHOTS", "OUTPOST_SHARED_DATA"})
_OF_A_SERVICE = re.compile(r"OUTPOST_(SERVICE_(HOST|PORT)\w*|PORT_\d+_(TCP|UDP)\w*)=.*|OUTPOST_PORT=\w+://.*")
"""What Kubernetes sets in every container of a namespace that has a service called outpost."""


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
        "", description="said when a person must answer; empty says it by reason, in English or German"
    )
    deferred_text: str = Field(
        "I can't answer that right now. I have passed your question on; its answer will be kept under {event_id}.",
        description="said when the cloud will answer later; {event_id} becomes the id of the question",
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


class Promise(_Section):
    """What the operator promises of one route; see Risk."""

    epsilon: float = Field(0.05, gt=0, lt=0.5, description="largest share of wrong answers among those served locally")
    delta: float = Field(0.05, gt=0, lt=0.5, description="chance that the certificate promises too much")


class Risk(_Section):
    """The promise, and how it is kept while the device runs."""

    epsilon: float = Field(0.05, gt=0, lt=0.5, description="largest share of wrong answers among those served locally")
    delta: float = Field(0.05, gt=0, lt=0.5, description="chance that a certificate promises too much")
    routes: dict[RouteName, Promise] = Field(default_factory=dict, description="other promises for single routes")
    coverage_floor: float = Field(0.1, ge=0, le=1, description="least share of questions that a certificate must serve")
    audit_share: float = Field(0.02, ge=0, le=1, description="share of local answers that the cloud is asked too")
    audits_per_day: int = Field(50, ge=0, le=100_000, description="most audits a day")
    cloud_error: float = Field(0.1, ge=0, lt=0.5, description="share of audits in which the cloud is the one that errs")
    feedback_labels: bool = Field(False, description="visitors' judgements count as labels of the live risk")
    feedback_error: float = Field(0.2, ge=0, lt=0.5, description="share of judgements in which the visitor errs")
    keep_examples: int = Field(0, ge=0, le=1_000_000, description="most judged questions kept to calibrate on; 0 none")

    def promise(self, route: str) -> Promise:
        """The promise that holds for a route."""
        for name, promise in self.routes.items():
            if name == route:
                return promise
        return Promise(epsilon=self.epsilon, delta=self.delta)


class Endpoint(_Section):
    """An OpenAI-compatible server; several are tried in order."""

    name: str = Field("cloud", pattern=r"^[a-z0-9][a-z0-9-]{0,62}$", description="name in status and audit log")
    url: str = Field("", description="base URL up to /v1; empty takes OPENAI_BASE_URL, else OpenAI's own")
    model: str = Field("", description="model to ask for; empty takes OPENAI_MODEL")
    key_file: Path | None = Field(None, description="file with the API key; without it OPENAI_API_KEY")
    ca_file: Path | None = Field(None, description="certificate authority to trust instead of the system's")
    client_cert: Path | None = Field(None, description="client certificate (PEM)")
    client_key: Path | None = Field(None, description="its key (PEM)")
    proxy: str = Field("", description="HTTP proxy for this endpoint; empty takes the environment's")
    price_in: float = Field(0.0, ge=0, description="money a million prompt tokens")
    price_out: float = Field(0.0, ge=0, description="money a million completion tokens")


class Escalation(_Section):
    """What may leave the device, where to, and how much of it. Nothing leaves unless ``enabled``."""

    enabled: bool = Field(False, description="the operator's consent; an API key alone is none")
    paths: tuple[Literal["https", "mqtt"], ...] = Field(("https", "mqtt"), description="ways to the cloud, in order")
    endpoints: tuple[Endpoint, ...] = Field((), description="servers of the path https, in order")
    connect_s: float = Field(5.0, gt=0, le=120, description="deadline of a connection, seconds")
    read_s: float = Field(30.0, gt=0, le=600, description="longest silence of a server, seconds")
    total_s: float = Field(60.0, gt=0, le=3600, description="a visitor waits so long for the cloud, seconds")
    attempts: int = Field(3, ge=1, le=10, description="tries of one request while the visitor waits")
    max_tokens: int = Field(300, ge=1, le=8192, description="answer length asked of the cloud, tokens")
    passages: int = Field(3, ge=0, le=3, description="passages that may leave with a question, of the three best")
    history: int = Field(2, ge=0, le=20, description="earlier turns that may leave with a question")
    names: tuple[str, ...] = Field((), description="names of persons that never leave as they are")
    places: tuple[str, ...] = Field((), description="names of places that never leave as they are")
    phone_region: str = Field("GB", pattern=r"^[A-Z]{2}$", description="country of telephone numbers without a prefix")
    daily_requests: int = Field(500, ge=0, description="most requests a day")
    daily_tokens: int = Field(500_000, ge=0, description="most tokens a day, both ways")
    daily_money: float = Field(5.0, ge=0, description="most money a day, by the endpoints' prices")
    outbox_mb: int = Field(64, ge=1, le=4096, description="most space for questions that wait for a line, MiB")
    outbox_hours: float = Field(24.0, gt=0, le=720, description="how long a question waits before it goes to a person")
    cache_hours: float = Field(168.0, ge=0, le=8760, description="how long a cloud's answer is given again; 0 never")


class Mqtt(_Section):
    """The MQTT 5 broker; no host, no MQTT."""

    host: str = Field("", description="broker; empty switches MQTT off")
    port: int = Field(8883, ge=1, le=65535, description="TCP port")
    tls: bool = Field(True, description="encrypt and check the broker's certificate; false only in the own network")
    ca_file: Path | None = Field(None, description="certificate authority to trust instead of the system's")
    client_cert: Path | None = Field(None, description="client certificate (PEM)")
    client_key: Path | None = Field(None, description="its key (PEM)")
    username: str = Field("", description="user, where the broker wants one")
    password_file: Path | None = Field(None, description="file with the password")
    keepalive_s: int = Field(30, ge=5, le=3600, description="keep-alive, seconds")
    max_message_kb: int = Field(128, ge=4, le=262_144, description="largest message; longer requests go in parts")


class Handoff(_Section):
    """Where questions for a person go, besides the operator page."""

    webhook: str = Field("", description="URL that gets a POST for every question; empty for none")
    mqtt: bool = Field(True, description="publish them by MQTT where there is a broker")
    keep_hours: float = Field(72.0, gt=0, le=8760, description="how long an unanswered question stays in the queue")


class Gateway(_Section):
    """`outpost gateway`, the cloud side of the path mqtt: broker, upstream and deadlines come from the sections mqtt
    and escalation of its own file."""

    name: str = Field("", pattern=r"^([a-z0-9][a-z0-9-]{0,62})?$", description="unique among gateways; empty draws one")
    concurrency: int = Field(8, ge=1, le=1000, description="requests that the upstream works on at a time")
    queue: int = Field(64, ge=0, le=100_000, description="requests that wait beyond those; then devices are put off")
    requests_per_minute: int = Field(60, ge=1, description="most requests a minute and device")
    tokens_per_day: int = Field(500_000, ge=1, description="most tokens a day and device, both ways")
    remember_s: float = Field(600.0, ge=0, le=86_400, description="how long an answer is kept for repeated requests")
    metrics_host: str = Field("127.0.0.1", description="address of /metrics")
    metrics_port: int = Field(0, ge=0, le=65535, description="TCP port of /metrics; 0 serves none")


class Override(_Section):
    """Another policy for one intent or collection."""

    policy: Policy


class Overrides(_Section):
    """Policies for single intents and collections; the stricter of both holds."""

    intents: dict[str, Override] = Field(default_factory=dict, description="by intent name")
    collections: dict[str, Override] = Field(default_factory=dict, description="by collection")


class Config(_Section):
    """The whole tree."""

    device: Device = Device()
    server: Server = Server()
    assistant: Assistant = Assistant()
    models: Models = Models()
    text: Text = Text()
    pool: Pool = Pool()
    risk: Risk = Risk()
    escalation: Escalation = Escalation()
    mqtt: Mqtt = Mqtt()
    handoff: Handoff = Handoff()
    gateway: Gateway = Gateway()
    overrides: Overrides = Overrides()


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


def with_consent(config: Config) -> Config:
    """The configuration with the operator's consent to escalation, given on the command line."""
    return config.model_copy(update={"escalation": config.escalation.model_copy(update={"enabled": True})})


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
    """Put the variables' values into ``data``; which variable set which field. Raises ConfigError for
    one that is not known."""
    overridden = {}
    for name, value in env.items():
        if not name.startswith("OUTPOST_") or name in _PLAIN | _OF_TESTS or _OF_A_SERVICE.fullmatch(f"{name}={value}"):
            continue
        if "__" not in name:
            raise ConfigError(
                f"the variable {name} is not known{_nearest_variable(name)}", remedy="Mend it, or unset it."
            )
        section, _, key = name.removeprefix("OUTPOST_").lower().partition("__")
        table = data.setdefault(section, {})
        if isinstance(table, dict):
            table[key] = _parse(value, text=_is_text(section, key))
            overridden[section, key] = name
    return overridden


def _nearest_variable(name: str) -> str:
    """`` (did you mean ...?)`` for a variable that is neither plain nor a field's."""
    fields = [
        f"{section}__{key}".upper()
        for section, about in Config.model_fields.items()
        if isinstance(about.annotation, type) and issubclass(about.annotation, BaseModel)
        for key in about.annotation.model_fields
    ]
    plain = [known.removeprefix("OUTPOST_") for known in sorted(_PLAIN)]
    matches = difflib.get_close_matches(name.removeprefix("OUTPOST_"), [*plain, *fields], n=1, cutoff=0.5)
    return f"; did you mean OUTPOST_{matches[0]}?" if matches else "; a field is set by OUTPOST_SECTION__FIELD"


def _parse(value: str, *, text: bool) -> Any:
    """A variable's value as TOML where it is TOML (numbers, booleans, lists), else the text itself; for a field that
    holds ``text``, whose name may be 12 or true, as a quoted text or as it stands."""
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except (ValueError, RecursionError):  # a number of thousands of digits is a plain ValueError
        return value
    return value if text and not isinstance(parsed, str) else parsed


def _is_text(section: str, key: str) -> bool:
    about = Config.model_fields.get(section)
    if about is None or not isinstance(about.annotation, type) or not issubclass(about.annotation, BaseModel):
        return False
    field = about.annotation.model_fields.get(key)
    return field is not None and field.annotation in (str, str | None)


def _explain(source: Path, error: ValidationError, overridden: Mapping[tuple[str, str], str]) -> str:
    lines = []
    for problem in error.errors():
        key = [str(part) for part in problem["loc"]]
        variable = overridden.get((key[0], key[1])) if len(key) > 1 else _of_section(key[0], overridden)
        where = f"the variable {variable}" if variable else str(source)
        if problem["type"] == "extra_forbidden":
            lines.append(f"{where}: unknown key {'.'.join(key)!r}{_nearest(problem['loc'])}")
        else:
            lines.append(f"{where}: {'.'.join(key)} = {problem['input']!r}: {problem['msg']}")
    return "\n".join(lines)


def _of_section(section: str, overridden: Mapping[tuple[str, str], str]) -> str | None:
    return next((variable for (of, _), variable in overridden.items() if of == section), None)


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
