"""Where `outpost models pull --from` looks: a folder (a stick, a share, an air-gapped site) or a mirror's address."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import quote, unquote, urlsplit

from agent.errors import InvalidRequest
from agent.updates.download import FileSource, Source, UrlSource
from agent.updates.part import file_sha256
from agent.updates.shelf import Manifest, read_manifest


@dataclass(frozen=True, slots=True)
class Mirror:
    """Exactly one of ``folder`` and ``base`` is given."""

    folder: Path | None = None
    base: str | None = None

    @classmethod
    def of(cls, given: str) -> Mirror:
        """Raises InvalidRequest."""
        if "://" in given:
            parts = urlsplit(given)
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise InvalidRequest(
                    f"--from {given} is neither an http nor an https address",
                    remedy="Name a folder by its plain path, or a mirror by https://...",
                )
            return cls(base=given.rstrip("/"))
        folder = Path(given).expanduser()
        if not folder.is_dir():
            raise InvalidRequest(f"--from {given} is not a folder", remedy="Name an existing folder or an address.")
        return cls(folder=folder)

    def manifest(self, name: str) -> tuple[Manifest, Path] | None:
        """A built model of this name in the folder, and where it lies.

        An address gives none: there, nothing but the catalogue vouches for the bytes. Raises BadModel.
        """
        for place in (self.folder / name, self.folder) if self.folder else ():
            manifest = read_manifest(place)
            if manifest is not None and manifest.name == name:
                return manifest, place
        return None

    def sources(self, name: str, path: str, sha256: str, size: int | None, url: str) -> list[Source]:
        """Where a file of the model may be: below the model's name, at the top, under the basename of its public
        address, and in a folder under any name if the bytes are right."""
        paths = list(dict.fromkeys([f"{name}/{path}", path, PurePosixPath(unquote(urlsplit(url).path)).name]))
        if self.base is not None:
            return [UrlSource(f"{self.base}/{quote(place)}") for place in paths]
        assert self.folder is not None
        named = [self.folder / place for place in paths if (self.folder / place).is_file()]
        if not named:
            named = [found for found in self._alike(name, path, size) if file_sha256(found) == sha256][:1]
        return [FileSource(found) for found in named or [self.folder / paths[0]]]

    def _alike(self, name: str, path: str, size: int | None) -> Iterator[Path]:
        """Files that are worth hashing: of the right size, or of the right kind where the size is not known."""
        assert self.folder is not None
        for folder in (self.folder / name, self.folder):
            for found in sorted(folder.iterdir()) if folder.is_dir() else ():
                if found.is_file() and (
                    found.stat().st_size == size if size is not None else found.suffix == Path(path).suffix
                ):
                    yield found
