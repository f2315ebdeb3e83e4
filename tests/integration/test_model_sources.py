"""Where models come from: the shipped catalogue, mirrors, wheels, air-gapped folders, builds of their own."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import zipfile
from pathlib import Path

import pytest

from agent.errors import (
    BadModel,
    ConfigError,
    Conflict,
    DownloadFailed,
    HashMismatch,
    InvalidRequest,
    UnknownModel,
)
from agent.paths import shipped
from agent.updates.catalog import Catalog, CatalogModel, ModelStore
from tests.simulators.faulty_http import FaultyServer
from tests.simulators.models import DATA, FAST, Site, built, offered, sha

pytestmark = pytest.mark.usefixtures("no_proxies")

# ---------------------------------------------------------------- the shipped catalogue


def test_the_catalogue_loads_and_holds_every_kind() -> None:
    models = Catalog.load(shipped("models", "catalog")).models
    kinds = [model.kind for model in models]
    assert kinds.count("slm") == 12
    assert {"vlm", "embedding", "speech", "classifier", "detector"} <= set(kinds)
    for model in models:
        assert model.license
        assert model.memory_mb
        assert model.chat_template or model.kind != "slm"
        assert all(len(file.sha256) == 64 and file.url.startswith("https://") for file in model.files)
        assert model.checked is (not any(file.path.endswith(".gguf") for file in model.files))


def test_the_catalogue_says_what_the_public_list_says(shared_data: Path) -> None:
    public = json.loads((shared_data / "public_models.json").read_text())
    catalog = Catalog.load(shipped("models", "catalog"))
    assert {model.name for model in catalog.models} == {model["name"] for model in public}
    for theirs in public:
        ours = catalog.get(theirs["name"])
        assert (ours.kind, ours.license) == (theirs["kind"], theirs["license"])
        assert [(f.url, f.sha256) for f in ours.files] == [(f["url"], f["sha256"]) for f in theirs["files"]]
        for mine, given in zip(ours.files, theirs["files"], strict=True):
            assert mine.size == given.get("size", mine.size)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (("model.gguf", "../model.gguf"), "../model.gguf"),
        (("model.gguf", "/etc/passwd"), "/etc/passwd"),
        (("model.gguf", ".hidden"), ".hidden"),
        (("model.gguf", "manifest.toml"), "manifest.toml"),
        (("http://", "file://"), "file://"),
        (("http://", "http://user:secret@"), "user name"),
        (('license = "mit"', 'licence = "mit"'), "licence"),
        ((sha(DATA), "00ff"), "00ff"),
        (('kind = "slm"', 'kind = "chatbot"'), "chatbot"),
        (('name = "toy"', 'name = "other"'), "other"),
        (("size = ", "size = -"), "size"),
        (("context = 512", "context = = 1"), "toy.toml"),
    ],
)
def test_a_bad_catalogue_file_is_refused(site: Site, change: tuple[str, str], named: str) -> None:
    site.offer([("model.gguf", "http://127.0.0.1/model.gguf", DATA)])
    path = site.catalog / "toy.toml"
    path.write_text(path.read_text().replace(*change))
    with pytest.raises(ConfigError) as caught:
        Catalog.load(site.catalog)
    assert named in str(caught.value)
    assert "toy.toml" in str(caught.value)


def test_an_entry_or_a_path_that_does_not_fit_is_refused(site: Site) -> None:
    site.offer([("a.bin", "http://127.0.0.1/a", b"1"), ("A.bin", "http://127.0.0.1/b", b"2")])
    with pytest.raises(ConfigError, match="same path"):
        Catalog.load(site.catalog)
    site.offer([("a.bin", "http://127.0.0.1/a", b"1")])
    path = site.catalog / "toy.toml"
    path.write_text(path.read_text().replace('entry = "a.bin"', 'entry = "b.bin"'))
    with pytest.raises(ConfigError, match=r"b\.bin"):
        Catalog.load(site.catalog)


# ---------------------------------------------------------------- other sources


def test_air_gapped_vision_models(site: Site, shared_data: Path) -> None:
    store = ModelStore(site.models, catalog=Catalog.load(shipped("models", "catalog")))
    names = ["mobilenet-v2-quant", "mobilenet-v2-ptq", "face-rfb-320", "face-slim-320", "person-detect"]
    for name in names:
        assert store.pull(name, str(shared_data / "vision")).changed
    assert [model.name for model in store.list()] == sorted(names)
    assert all(store.verify(name) == () for name in names)
    with pytest.raises(DownloadFailed, match="no such file"):
        store.pull("whisper-tiny", str(shared_data / "vision"))


@pytest.mark.parametrize(
    "place", ["toy/model.gguf", "model.gguf", "public-name.gguf", "renamed-by-someone.gguf", sha(DATA)]
)
@pytest.mark.parametrize("sizes", [True, False])
def test_a_folder_has_it_under_many_names(site: Site, tmp_path: Path, place: str, sizes: bool) -> None:
    site.offer([("model.gguf", "https://unreachable.invalid/public-name.gguf", DATA)], sizes=sizes)
    if place == sha(DATA) and not sizes:
        place += ".gguf"
    (tmp_path / "usb" / place).parent.mkdir(parents=True)
    (tmp_path / "usb" / place).write_bytes(DATA)
    (tmp_path / "usb" / "other.gguf").write_bytes(DATA[::-1])
    site.store.pull("toy", str(tmp_path / "usb"), limits=FAST)
    site.assert_whole()


def test_a_folder_with_wrong_bytes(site: Site, tmp_path: Path) -> None:
    site.offer([("model.gguf", "https://unreachable.invalid/m.gguf", DATA)])
    (tmp_path / "usb").mkdir()
    (tmp_path / "usb" / "model.gguf").write_bytes(DATA[:-5] + b"wrong")
    with pytest.raises(HashMismatch):
        site.store.pull("toy", str(tmp_path / "usb"), limits=FAST)
    (tmp_path / "usb" / "model.gguf").write_bytes(DATA + b"and more")
    with pytest.raises(HashMismatch):
        site.store.pull("toy", str(tmp_path / "usb"), limits=FAST)
    assert site.store.list() == ()


@pytest.mark.parametrize("place", ["toy/model.gguf", "model.gguf", "public%20name.gguf"])
def test_a_mirror(site: Site, server: FaultyServer, place: str) -> None:
    site.offer([("model.gguf", "https://unreachable.invalid/public%20name.gguf", DATA)])
    server.put(f"mirror/{place}", DATA)
    site.store.pull("toy", f"{server.url}/mirror/", limits=FAST)
    site.assert_whole()
    site.store.remove("toy")
    server.files.clear()
    with pytest.raises(DownloadFailed, match="HTTP 404"):
        site.store.pull("toy", f"{server.url}/mirror/", limits=FAST)


@pytest.mark.parametrize("source", ["ftp://mirror/x", "file:///etc", "https://", "/not/there"])
def test_a_source_that_cannot_be_one(site: Site, server: FaultyServer, source: str) -> None:
    offered(site, server)
    with pytest.raises(InvalidRequest, match="--from"):
        site.store.pull("toy", source, limits=FAST)


def wheel(folder: Path, data: bytes) -> None:
    folder.mkdir()
    info = "toy_model-1.0.dist-info"
    files = {
        "toy_model/weights.bin": data,
        "toy_model/__init__.py": b"raise SystemExit('a wheel must never be imported')",
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: toy-model\nVersion: 1.0\nRequires-Dist: not-there\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(
        f"{name},sha256={base64.urlsafe_b64encode(hashlib.sha256(body).digest()).decode().rstrip('=')},{len(body)}\n"
        for name, body in files.items()
    )
    with zipfile.ZipFile(folder / "toy_model-1.0-py3-none-any.whl", "w") as archive:
        for name, body in {**files, f"{info}/RECORD": record.encode()}.items():
            archive.writestr(name, body)


@pytest.mark.parametrize("right", [True, False])
def test_a_wheel_has_it_where_the_address_cannot_be_reached(
    site: Site, server: FaultyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, right: bool
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "links"))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    wheel(tmp_path / "links", DATA if right else DATA[::-1])
    site.offer([("model.gguf", f"{server.url}/gone", DATA)])
    path = site.catalog / "toy.toml"
    path.write_text(
        path.read_text() + '\nalternatives = [{ wheel = "toy-model==1.0", member = "toy_model/weights.bin" }]'
    )
    if right:
        site.store.pull("toy", limits=FAST)
        site.assert_whole()
        assert not list(site.models.rglob("*.whl"))
    else:
        with pytest.raises(HashMismatch, match=r"in the wheel toy-model==1\.0"):
            site.store.pull("toy", limits=FAST)


# ---------------------------------------------------------------- sources that are converted, built models, shelves


def test_a_source_is_pulled_then_its_build_is_installed(site: Site, server: FaultyServer, tmp_path: Path) -> None:
    offered(site, server, extra='convert = "embedding-int8"')
    pulled = site.store.pull("toy", limits=FAST)
    assert pulled.convert == "embedding-int8"
    assert (pulled.folder / "model.gguf").read_bytes() == DATA
    assert site.store.list() == ()
    with pytest.raises(UnknownModel, match="not converted"):
        site.store.get("toy")
    out = built(site.store.scratch("toy"), DATA[:1000])
    model = site.store.install_built("toy", out)
    assert (model.context, model.license) == (512, "mit")  # what the build does not say comes from the catalogue
    assert model.entry_path.read_bytes() == DATA[:1000]
    assert not out.exists()
    assert site.store.pull("toy", limits=FAST).convert is None
    with pytest.raises(BadModel, match="slm"):
        site.store.install_built("toy", built(tmp_path / "b", DATA[:1000], kind="embedding"))
    site.store.remove("toy")
    assert site.store.source("toy") is None
    assert not list(site.models.rglob("*.gguf"))


@pytest.mark.parametrize("below", ["", "toy"])
def test_a_mirror_folder_serves_the_build_itself(site: Site, tmp_path: Path, below: str) -> None:
    site.offer([("model.gguf", "https://unreachable.invalid/m", DATA)], extra='convert = "embedding-int8"')
    folder = built(tmp_path / "usb" / below, DATA[:1000])
    pulled = site.store.pull("toy", str(tmp_path / "usb"), limits=FAST)
    assert pulled.convert is None
    assert site.store.verify("toy") == ()
    (folder / "model.gguf").write_bytes(b"changed")
    site.store.remove("toy")
    with pytest.raises(HashMismatch):
        site.store.pull("toy", str(tmp_path / "usb"), limits=FAST)


def test_reference_models_are_listed_and_stay(site: Site, tmp_path: Path) -> None:
    folder = tmp_path / "reference" / "slm"
    folder.mkdir(parents=True)
    (folder / "weights.gguf").write_bytes(b"tiny")
    (folder / "manifest.toml").write_text(
        'name = "reference-toy"\nkind = "slm"\nlicense = "Apache-2.0"\ncontext = 256\nmemory_mb = 20\n'
        f'entry = "weights.gguf"\nreference = true\ndescription = "small"\n'
        f'[[files]]\npath = "weights.gguf"\nsha256 = "{sha(b"tiny")}"\nsize = 4\n'
    )
    (tmp_path / "reference" / "demo").mkdir()
    store = ModelStore(site.models, catalog=Catalog(()), reference_dir=tmp_path / "reference")
    model = store.get("reference-toy")
    assert (model.reference, model.memory_bytes, model.entry_path.name) == (True, 20 << 20, "weights.gguf")
    assert not store.pull("reference-toy").changed
    with pytest.raises(UnknownModel, match="in the catalogue"):
        store.pull("reference-toy", str(tmp_path))
    with pytest.raises(Conflict, match="ships with"):
        store.remove("reference-toy")
    with pytest.raises(UnknownModel, match="'reference-toy'"):
        store.get("referense-toy")


def test_a_broken_manifest_hides_no_other_model_and_can_be_mended(site: Site, server: FaultyServer) -> None:
    offered(site, server)
    folder = site.store.pull("toy", limits=FAST).folder
    built(site.models / "by-hand", DATA[:10], name="by-hand")
    for text in ("name = ", 'name = "toy"\nkind = "slm"\nentry = "../x"\nfiles = []', "\x00"):
        (folder / "manifest.toml").write_text(text)
        with pytest.raises(BadModel, match=r"manifest\.toml"):
            site.store.get("toy")
        assert [model.name for model in site.store.list()] == ["by-hand"]
        assert [name for name, _ in site.store.broken()] == ["toy"]
    site.store.pull("toy", limits=FAST)
    site.assert_whole()
    site.store.remove("by-hand")
    assert [model.name for model in site.store.list()] == ["toy"]


def test_a_folder_put_there_by_hand_is_replaced(site: Site, server: FaultyServer) -> None:
    offered(site, server)
    built(site.models / "toy", DATA[:10])
    assert site.store.get("toy").entry_path.read_bytes() == DATA[:10]
    site.store.pull("toy", limits=FAST)
    site.assert_whole()


def test_a_model_knows_its_size() -> None:
    catalog = Catalog.load(shipped("models", "catalog"))
    assert isinstance(catalog.get("whisper-tiny"), CatalogModel)
    assert catalog.get("whisper-tiny").size == 2249 + 75538270 + 2203239 + 459861
    assert catalog.get("qwen3-0.6b").size is None
