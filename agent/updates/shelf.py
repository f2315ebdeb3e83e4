"""A folder of models on disk: manifests, atomic replacement and one writer a model.

    <root>/<name>                  link to the version in use, replaced atomically
    <root>/.versions/<name>@<id>/  the files and manifest.toml; folders without a link are swept at the next change
    <root>/.staging/<name>/        what is being gathered
    <root>/.locks/<name>           held (flock) by the one that changes the model; a killed process lets go of it

A plain folder at ``<root>/<name>`` (copied there by hand, or shipped) is read as well. The manifest is TOML, or JSON
with the same fields as the conversion tools write it:

    name = "outpost-reference-slm"
    kind = "slm"
    license = "Apache-2.0"
    context = 1024             # tokens, optional
    memory_mb = 40             # expected, MiB, optional
    entry = "model.gguf"       # what the engine opens
    reference = true           # trained for tests and demos
    description = "..."
    [[files]]
    path = "model.gguf"
    sha256 = "..."
    size = 3000000             # bytes, optional
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
import shutil
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from agent.errors import BadModel, Conflict
from agent.messages import InstalledModel, ModelFile, ModelKind
from agent.updates.part import storage_errors, sync

MANIFESTS = ("manifest.toml", "manifest.json")
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


def safe_path(value: str) -> str:
    """A path that stays in its folder on every file system; ValueError else."""
    parts = PurePosixPath(value).parts
    plain = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+ -]*(/[A-Za-z0-9][A-Za-z0-9._+ -]*)*", value)
    if not plain or len(value) > 200 or any(part.endswith((".", " ", ".part")) for part in parts):
        raise ValueError("not a plain relative path (letters, digits, '. _ + -', no leading dot)")
    if value in MANIFESTS:
        raise ValueError("is the manifest's own name")
    return value


SafePath = Annotated[str, AfterValidator(safe_path)]
ModelName = Annotated[str, Field(pattern=f"^{NAME.pattern}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class ManifestFile(BaseModel):
    model_config = ConfigDict(frozen=True)

    path: SafePath
    sha256: Sha256
    size: int | None = Field(None, ge=0)


class Manifest(BaseModel):
    """Facts about an installed model; keys that are not listed here belong to the engines and are ignored."""

    model_config = ConfigDict(frozen=True)

    name: ModelName
    kind: ModelKind
    entry: SafePath
    license: str = ""
    context: int | None = Field(None, ge=1)
    memory_mb: int | None = Field(None, ge=1)
    reference: bool = False
    description: str = ""
    files: tuple[ManifestFile, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _consistent(self) -> Manifest:
        require_distinct([file.path for file in self.files])
        if self.entry not in {file.path for file in self.files}:
            raise ValueError(f"entry {self.entry!r} is not among the files")
        return self

    def installed(self, folder: Path) -> InstalledModel:
        return InstalledModel(
            name=self.name,
            kind=self.kind,
            folder=folder,
            files=tuple(ModelFile(file.path, file.sha256, file.size) for file in self.files),
            entry=self.entry,
            license=self.license,
            context=self.context,
            memory_bytes=None if self.memory_mb is None else self.memory_mb * 1024 * 1024,
            reference=self.reference,
            description=self.description,
        )

    def write(self, folder: Path) -> None:
        lines = []
        for key, value in self.model_dump(exclude={"files"}, exclude_none=True).items():
            lines.append(f"{key} = {_toml(value)}")
        for file in self.files:
            lines.append("\n[[files]]")
            lines += [f"{key} = {_toml(value)}" for key, value in file.model_dump(exclude_none=True).items()]
        (folder / MANIFESTS[0]).write_text("\n".join(lines) + "\n", "utf-8")


def require_distinct(paths: Sequence[str]) -> None:
    """ValueError where two paths are one file on a file system that ignores case."""
    if len({path.casefold() for path in paths}) != len(paths):
        raise ValueError("two files have the same path")


def _toml(value: str | int | bool) -> str:
    if isinstance(value, str):  # a JSON string is a TOML string, but for DEL
        return json.dumps(value).replace("\x7f", "\\u007f")
    return str(value).lower() if isinstance(value, bool) else str(value)


def read_manifest(folder: Path) -> Manifest | None:
    """The folder's manifest, None where it has none. Raises BadModel where it cannot be used."""
    for name in MANIFESTS:
        path = folder / name
        try:
            return parse_manifest(path.read_bytes(), path)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise BadModel(f"cannot read {path}: {error}", remedy="Check its permissions.") from error
    return None


def parse_manifest(data: bytes, origin: Path | str) -> Manifest:
    """Raises BadModel; ``origin`` (a path or an address ending in .toml or .json) names it."""
    try:
        text = data.decode("utf-8")
        return Manifest.model_validate(json.loads(text) if str(origin).endswith(".json") else tomllib.loads(text))
    except ValidationError as error:
        what = "; ".join(
            f"{'.'.join(map(str, problem['loc'])) or 'manifest'}: {problem['msg']}" for problem in error.errors()
        )
        raise BadModel(f"{origin}: {what}", remedy="Install the model again.") from error
    except ValueError as error:  # not UTF-8, TOML or JSON
        raise BadModel(f"{origin} cannot be read: {error}", remedy="Install the model again.") from error


class Shelf:
    """Models below one root. Raises StorageFull and StorageFailed."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def names(self) -> list[str]:
        with storage_errors(self.root):
            if not self.root.is_dir():
                return []
            return sorted(path.name for path in self.root.iterdir() if NAME.fullmatch(path.name) and path.is_dir())

    def read(self, folder: str) -> InstalledModel | None:
        """The model in a folder of this shelf; None where there is no manifest. Raises BadModel."""
        place = self.root / folder
        while True:
            version = place.resolve()
            manifest = read_manifest(version)
            if manifest is not None:
                return manifest.installed(version)
            if place.resolve() == version:  # else it was replaced and swept while we looked
                return None

    def find(self, name: str) -> InstalledModel | None:
        """Raises BadModel where it is there and its manifest cannot be used."""
        model = self.read(name) if NAME.fullmatch(name) else None
        if model is not None and model.name != name:
            raise BadModel(f"{model.folder} holds the model {model.name!r}, not {name!r}", remedy="Install it again.")
        return model

    @contextmanager
    def change(self, name: str) -> Iterator[Path]:
        """Be the one writer of ``name``; gives its staging folder, which stays for the next one until `publish`.

        Raises Conflict while another process or thread is at it.
        """
        staging = self.root / ".staging" / name
        with storage_errors(staging):
            (self.root / ".locks").mkdir(parents=True, exist_ok=True)
            handle = os.open(self.root / ".locks" / name, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError as error:
                    raise Conflict(
                        f"the model {name!r} is being changed by another process", remedy="Wait until it is done."
                    ) from error
                staging.mkdir(parents=True, exist_ok=True)
                yield staging
            finally:
                os.close(handle)

    def publish(self, staging: Path, manifest: Manifest) -> InstalledModel:
        """Make the staged folder the version in use: after a crash either the old one is, or this one."""
        name = manifest.name
        manifest.write(staging)
        for path in (*staging.rglob("*"), staging):
            sync(path)
        version = self.root / ".versions" / f"{name}@{manifest.files[0].sha256[:12]}-{secrets.token_hex(4)}"
        version.parent.mkdir(exist_ok=True)
        staging.rename(version)
        sync(version.parent)
        place = self.root / name
        if place.is_dir() and not place.is_symlink():  # put there by hand; a link cannot replace a folder
            place.rename(self.root / ".versions" / f"{name}@by-hand-{secrets.token_hex(4)}")
        link = self.root / ".versions" / f"{name}@link"
        link.unlink(missing_ok=True)
        link.symlink_to(Path(".versions") / version.name)
        os.replace(link, place)
        sync(self.root)
        self._sweep(name)
        return manifest.installed(version.resolve())

    def remove(self, name: str) -> bool:
        """Take ``name`` away, with what was staged of it; call it inside `change`."""
        place = self.root / name
        there = place.is_symlink() or place.is_dir()
        if place.is_symlink():
            place.unlink()
        elif there:
            (self.root / ".versions").mkdir(exist_ok=True)
            place.rename(self.root / ".versions" / f"{name}@by-hand-{secrets.token_hex(4)}")
        if there:
            sync(self.root)
        self._sweep(name)
        staging = self.root / ".staging" / name
        if staging.is_dir():
            shutil.rmtree(staging)
        return there

    def _sweep(self, name: str) -> None:
        used = (self.root / name).resolve()
        for folder in (self.root / ".versions").glob(f"{name}@*"):
            if folder.is_symlink():
                folder.unlink()
            elif folder.resolve() != used:
                shutil.rmtree(folder)
