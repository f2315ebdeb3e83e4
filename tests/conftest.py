"""What all tests share: where third-party data and the models lie, and a text model that is made in a second."""

from __future__ import annotations

import importlib
import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent
SLM = ROOT / "models" / "reference" / "slm"


def recipe(name: str) -> ModuleType:
    """A module of the SLM's recipe, loaded under a name of its own: other reference models have a `recipe` too."""
    if "slm_recipe" not in sys.modules:
        spec = importlib.util.spec_from_file_location(
            "slm_recipe", SLM / "recipe" / "__init__.py", submodule_search_locations=[str(SLM / "recipe")]
        )
        assert spec
        assert spec.loader
        module = importlib.util.module_from_spec(spec)
        sys.modules["slm_recipe"] = module
        spec.loader.exec_module(module)
    return importlib.import_module(f"slm_recipe.{name}")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of third-party test data, or a skip; a skip where CI promises the data is a failure."""
    folder = Path(os.environ.get("OUTPOST_SHARED_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        if os.environ.get("CI") == "true" and os.environ.get("OUTPOST_SHARED_DATA"):
            pytest.fail(f"OUTPOST_SHARED_DATA names {folder}, which is not there")
        pytest.skip(f"third-party test data is not at {folder}; set OUTPOST_SHARED_DATA")
    return folder


@pytest.fixture
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is asked on this machine does not go by the proxy of whoever runs the tests."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def _random_model(tmp_path_factory: pytest.TempPathFactory, *options: str) -> Path:
    """Made in another process: importing the native library here would slow every test that does not need it."""
    path = tmp_path_factory.mktemp("models") / "tiny.gguf"
    maker = ROOT / "tests" / "benchmarks" / "make_random_model.py"
    made = subprocess.run([sys.executable, str(maker), str(path), "--tiny", *options], capture_output=True, timeout=100)
    assert made.returncode == 0, made.stderr.decode()[-2000:]
    return path


@pytest.fixture(scope="session")
def tiny_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A quantized llama-architecture GGUF of 1.6 MB with random weights, ChatML and a byte-level tokenizer."""
    return _random_model(tmp_path_factory)


@pytest.fixture(scope="session")
def tiny_hybrid_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with LFM2's architecture: convolutions, whose state cannot be cut, in every other layer."""
    return _random_model(tmp_path_factory, "--hybrid")


@pytest.fixture(scope="session")
def embedding_model() -> Path:
    """A folder made by `quantize.embedding` from all-MiniLM-L6-v2, or a skip: OUTPOST_EMBEDDING_MODEL, else the one
    that this checkout's demo made."""
    named = os.environ.get("OUTPOST_EMBEDDING_MODEL")
    if named and not (Path(named) / "model.onnx").is_file():
        pytest.fail(f"OUTPOST_EMBEDDING_MODEL names {named}, which holds no model.onnx")
    places = [Path(named)] if named else [ROOT / ".venv" / "demo" / "models" / "all-minilm-l6-v2"]
    for folder in places:
        if (folder / "model.onnx").is_file() and (folder / "tokenizer.json").is_file():
            return folder
    pytest.skip("all-MiniLM-L6-v2 is not built; run scripts/demo, or set OUTPOST_EMBEDDING_MODEL to its folder")
