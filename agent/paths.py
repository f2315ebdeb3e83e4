"""Where things lie: the data that ships with Outpost, and the state folder of this device."""

from __future__ import annotations

import os
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def shipped(*parts: str) -> Path:
    """A file or folder that ships with Outpost, such as ``shipped("models", "catalog")``.

    In a checkout these are the top-level folders; in a wheel they travel inside the package under ``agent/shipped``.
    """
    inside = _PACKAGE / "shipped"
    return (inside if inside.is_dir() else _PACKAGE.parent).joinpath(*parts)


def default_state() -> Path:
    """``$STATE_DIRECTORY`` (set by systemd), else ``$XDG_STATE_HOME/outpost``, else ``~/.local/state/outpost``."""
    if systemd := os.environ.get("STATE_DIRECTORY"):
        return Path(systemd.split(":")[0])
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "outpost"
