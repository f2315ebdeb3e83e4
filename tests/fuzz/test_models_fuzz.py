"""Random faults in random order, and damaged manifests: a pull ends whole or with a typed error, never in between."""

from __future__ import annotations

import contextlib
import hashlib
import random
from pathlib import Path

import pytest

from agent.errors import BadModel, DownloadFailed, HashMismatch, StorageFull
from agent.updates.catalog import Catalog, ModelStore
from agent.updates.download import Limits
from agent.updates.shelf import Manifest, parse_manifest
from tests.simulators.faulty_http import Fault, FaultyServer

LIMITS = Limits(connect_s=2, read_s=2, attempts=3, backoff_s=0.001, backoff_max_s=0.002, margin=0)


def a_fault(chance: random.Random, data: bytes) -> Fault:
    wrong = bytearray(data)
    wrong[chance.randrange(len(wrong))] ^= 1 << chance.randrange(8)
    return Fault(
        status=chance.choice([None] * 6 + [404, 416, 429, 500, 503, 206, 302, 204]),
        headers=chance.choice([{}, {}, {}, {"ETag": 'W/"weak"'}, {"ETag": "junk"}, {"Retry-After": "soon"},
                               {"Content-Range": "bytes 7-9/*"}, {"Location": "/model.gguf"},
                               {"Content-Encoding": "gzip"}]),
        body=chance.choice([None, None, None, bytes(wrong), data[:-1], data + b"more", b""]),
        length=chance.choice([None, None, None, 0, len(data) - 1, len(data) + 1, 10**15]),
        send=chance.choice([None, None, 0, 1, chance.randrange(len(data))]),
        ignore_range=chance.random() < 0.2,
        chunked=chance.random() < 0.2,
    )  # fmt: skip


@pytest.mark.usefixtures("no_proxies")
@pytest.mark.parametrize("seed", range(60))
def test_any_order_of_faults(seed: int, tmp_path: Path) -> None:
    chance = random.Random(seed)
    data = chance.randbytes(chance.choice([1, 5000, 200_000]))
    size = f"size = {len(data)}" if chance.random() < 0.5 else ""
    with FaultyServer() as server:
        (tmp_path / "toy.toml").write_text(
            f'name = "toy"\nkind = "slm"\nlicense = "mit"\nentry = "model.gguf"\n[[files]]\npath = "model.gguf"\n'
            f'url = "{server.put("model.gguf", data)}"\nsha256 = "{hashlib.sha256(data).hexdigest()}"\n{size}\n'
        )
        store = ModelStore(tmp_path / "models", catalog=Catalog.load(tmp_path))
        for _ in range(3):
            server.fail("model.gguf", *(a_fault(chance, data) for _ in range(chance.randrange(6))))
            try:
                store.pull("toy", limits=LIMITS)
            except (DownloadFailed, HashMismatch):
                assert store.list() == ()
            except StorageFull:
                assert not size  # only where a server's claim is all that is known
            else:
                break
        server.heal()
        store.pull("toy", limits=LIMITS)
    assert store.get("toy").entry_path.read_bytes() == data
    assert store.verify("toy") == ()


@pytest.mark.parametrize("seed", range(300))
def test_damaged_manifests(seed: int) -> None:
    chance = random.Random(seed)
    text = bytearray(
        b'name = "toy"\nkind = "slm"\nentry = "a.bin"\ncontext = 12\n[[files]]\npath = "a.bin"\nsha256 = "'
        + b"0" * 64
        + b'"\nsize = 3\n'
    )
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(text))
        text[at : at + chance.randrange(3)] = chance.randbytes(chance.randrange(3))
    with contextlib.suppress(BadModel):
        manifest = parse_manifest(bytes(text), "manifest.toml")
        assert isinstance(manifest, Manifest)
        assert not any(file.path.startswith(("/", ".")) for file in manifest.files)
