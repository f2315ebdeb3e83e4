"""`outpost gateway`: the cloud side of the path MQTT, in the foreground."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import secrets
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from agent.config import Config
    from agent.escalation.link import MqttLink

_DRAIN_S = 20.0


def gateway(
    config: Annotated[Path | None, typer.Option(help="Configuration file (TOML): mqtt, escalation, gateway.")] = None,
    broker: Annotated[str | None, typer.Option(help="Broker, HOST or HOST:PORT.")] = None,
    name: Annotated[str | None, typer.Option(help="Name, unique among the gateways of a broker.")] = None,
    concurrency: Annotated[int | None, typer.Option(help="Requests at the upstream at a time.", min=1)] = None,
    metrics_port: Annotated[int | None, typer.Option(help="TCP port of /metrics.", min=0, max=65535)] = None,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
) -> None:
    """Serve the devices of an MQTT broker from an OpenAI-compatible server, until stopped (Ctrl-C or SIGTERM).

    The server is the first of [[escalation.endpoints]] that answers, else what OPENAI_BASE_URL, OPENAI_MODEL and
    OPENAI_API_KEY say. Any number of gateways share the load.
    """
    from agent.config import load
    from agent.errors import ConfigError

    level = logging.getLevelName(log_level.upper())
    if not isinstance(level, int):
        raise typer.BadParameter(f"{log_level!r} is no level", param_hint="--log-level")
    logging.basicConfig(level=level, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    settings = load(config)
    host, port = settings.mqtt.host, settings.mqtt.port
    if broker is not None:
        host, _, given = broker.rpartition(":") if ":" in broker else (broker, "", str(port))
        if not given.isdigit() or not host:
            raise typer.BadParameter(f"{broker!r} is no HOST:PORT", param_hint="--broker")
        port = int(given)
    if not host:
        raise ConfigError("a gateway needs a broker", remedy="Set mqtt.host in the configuration, or give --broker.")
    if name is not None and not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,62}", name):
        raise typer.BadParameter(f"{name!r} is not of a-z, 0-9 and -", param_hint="--name")
    own = {"name": name, "concurrency": concurrency, "metrics_port": metrics_port}
    settings = settings.model_copy(
        update={
            "mqtt": settings.mqtt.model_copy(update={"host": host, "port": port}),
            "gateway": settings.gateway.model_copy(update={k: v for k, v in own.items() if v is not None}),
        }
    )
    asyncio.run(_run(settings))


async def _run(config: Config) -> None:
    from agent.escalation.gateway import Gateway, GatewayMetrics
    from agent.escalation.https import Https
    from agent.escalation.link import MqttLink

    name = config.gateway.name or f"gw-{secrets.token_hex(4)}"
    metrics = GatewayMetrics()
    stopping = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, stopping.set)
    link = MqttLink(config.mqtt, client_id=f"outpost-gateway-{name}", prefix=f"outpost-gateway/{name}")
    async with Https(config.escalation) as upstream:
        serving = Gateway(
            config.gateway,
            link,
            upstream,
            name=name,
            deadline_s=config.escalation.total_s,
            max_tokens=config.escalation.max_tokens,
            metrics=metrics,
        )
        async with serving, link:
            with _metrics_server(config.gateway.metrics_host, config.gateway.metrics_port, metrics.registry):
                where = f"{config.mqtt.host}:{config.mqtt.port}"
                print(f"Outpost gateway {name} connects to {where}", file=sys.stderr, flush=True)
                async with asyncio.TaskGroup() as tasks:
                    telling = tasks.create_task(_tell_serving(link, name, where), name="gateway:announce")
                    await stopping.wait()
                    telling.cancel()
                await serving.drain(_DRAIN_S)


async def _tell_serving(link: MqttLink, name: str, where: str) -> None:
    """Once there is a broker; until then the link logs why there is none, and tries again."""
    while not await link.wait_online(60.0):
        pass
    print(f"Outpost gateway {name} serves the devices at {where}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def _metrics_server(host: str, port: int, registry: CollectorRegistry) -> Iterator[None]:
    """/metrics on a thread of its own; port 0 serves none. Raises ConfigError."""
    from prometheus_client import start_http_server

    from agent.errors import ConfigError

    if not port:
        yield
        return
    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as error:
        raise ConfigError(
            f"cannot serve /metrics on {host}:{port}: {error.strerror}", remedy="Choose another gateway.metrics_port."
        ) from error
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
