"""Fixtures shared by all tests: where third-party data lies."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of third-party test data, or a skip; a skip where CI promises the data is a failure."""
    folder = Path(os.environ.get("OUTPOST_SHARED_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        if os.environ.get("CI") == "true" and os.environ.get("OUTPOST_SHARED_DATA"):
            pytest.fail(f"OUTPOST_SHARED_DATA names {folder}, which is not there")
        pytest.skip(f"third-party test data is not at {folder}; set OUTPOST_SHARED_DATA")
    return folder
