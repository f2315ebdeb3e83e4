"""A device's models and what its catalogue offers, for tests of pulling them."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from pathlib import Path

from agent.updates.catalog import Catalog, ModelStore
from agent.updates.download import Limits
from tests.simulators.faulty_http import FaultyServer

FAST = Limits(connect_s=2, read_s=0.4, attempts=3, backoff_s=0.01, backoff_max_s=0.02, retry_after_max_s=2, margin=0,
              window_s=0.3, window_bytes=1000)  # fmt: skip
DATA = random.Random(1).randbytes(1_500_000)


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Site:
    """A device with a catalogue of one model ``toy``."""

    def __init__(self, folder: Path) -> None:
        self.catalog = folder / "catalog"
        self.models = folder / "state" / "models"
        self.catalog.mkdir(exist_ok=True)

    def offer(self, files: Sequence[tuple[str, str, bytes]], *, sizes: bool = True, extra: str = "") -> None:
        """``files``: path, URL and the bytes that are promised."""
        lines = ['name = "toy"', 'kind = "slm"', 'license = "mit"', f'entry = "{files[0][0]}"', "context = 512", extra]
        for path, url, data in files:
            lines += ["[[files]]", f'path = "{path}"', f'url = "{url}"', f'sha256 = "{sha(data)}"']
            lines += [f"size = {len(data)}"] if sizes else []
        (self.catalog / "toy.toml").write_text("\n".join(lines))

    @property
    def store(self) -> ModelStore:
        return ModelStore(self.models, catalog=Catalog.load(self.catalog))

    def part(self, data: bytes = DATA) -> Path:
        return self.models / ".staging" / "toy" / f"model.gguf.{sha(data)[:16]}.part"

    def assert_whole(self, data: bytes = DATA) -> None:
        model = self.store.get("toy")
        assert model.entry_path.read_bytes() == data
        assert self.store.verify("toy") == ()
        assert not list(self.models.rglob("*.part"))


def offered(site: Site, server: FaultyServer, data: bytes = DATA, *, sizes: bool = True, extra: str = "") -> Site:
    site.offer([("model.gguf", server.put("model.gguf", data), data)], sizes=sizes, extra=extra)
    return site


def built(folder: Path, data: bytes, *, name: str = "toy", kind: str = "slm") -> Path:
    folder.mkdir(parents=True)
    (folder / "model.gguf").write_bytes(data)
    (folder / "more.bin").write_bytes(data[::-1])
    manifest = {"name": name, "kind": kind, "entry": "model.gguf", "dim": 384,
                "files": [{"path": path, "sha256": sha((folder / path).read_bytes())}
                          for path in ("model.gguf", "more.bin")]}  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder
