"""`outpost serve`: run the daemon in the foreground."""

from __future__ import annotations

import asyncio
import logging
import sys
from pathlib import Path
from typing import Annotated

import typer

from agent.paths import default_state


def serve(
    config: Annotated[Path | None, typer.Option(help="Configuration file (TOML).")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="TCP port; 0 lets the system choose.", min=0, max=65535)] = None,
    state: Annotated[Path | None, typer.Option(envvar="OUTPOST_STATE", help="State folder.")] = None,
    cloud: Annotated[
        bool, typer.Option("--cloud", help="Consent to escalation: questions may leave this device.")
    ] = False,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
) -> None:
    """Run the daemon until it is stopped (Ctrl-C or SIGTERM)."""
    from agent import daemon
    from agent.config import load, with_consent, with_server

    level = logging.getLevelName(log_level.upper())
    if not isinstance(level, int):
        raise typer.BadParameter(f"{log_level!r} is no level", param_hint="--log-level")
    logging.basicConfig(level=level, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    settings = with_server(load(config), host=host, port=port)
    if cloud:
        settings = with_consent(settings)
    asyncio.run(daemon.serve(settings, state or default_state()))
