"""What is installed on this device, and how each model is run: the bridge from model files to worker specs (L2)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from agent.config import Config
from agent.engines.pool import ModelSpec
from agent.engines.protocol import LoadSpec, Payload
from agent.messages import InstalledModel, Note
from agent.paths import shipped
from agent.updates.catalog import Catalog, ModelStore

_ENGINES = {
    "slm": "agent.engines.text:TextEngine",
    "embedding": "agent.engines.embedding:EmbeddingEngine",
    "ranker": "agent.engines.ranking:RankingEngine",
}
_WORKER_BYTES = 80 << 20
"""A worker's own memory beside its files, where a model does not say what it needs: Python, numpy, an engine."""


class Installation:
    """The models of a state folder and those that ship with Outpost."""

    def __init__(self, store: ModelStore) -> None:
        self._store = store
        self._models: dict[str, InstalledModel] = {}
        self._notes: list[str] = []
        self.refresh()

    @classmethod
    def open(cls, state: Path) -> Installation:
        """Reads the catalogue and every manifest; blocking. Raises ConfigError for a damaged catalogue."""
        catalog = Catalog.load(shipped("models", "catalog"))
        return cls(ModelStore(state / "models", catalog=catalog, reference_dir=shipped("models", "reference")))

    def refresh(self) -> None:
        """Look again at what is on disk; blocking."""
        self._models = {model.name: model for model in self._store.list()}
        self._notes = [f"model {name} cannot be used: {error}" for name, error in self._store.broken()]

    def models(self) -> Sequence[InstalledModel]:
        """Those that an engine of this version can run."""
        return [model for model in self._models.values() if model.kind in _ENGINES]

    def embedding(self, name: str) -> InstalledModel | None:
        """The embedding model of that name, None where it is not installed."""
        model = self._models.get(name)
        return model if model is not None and model.kind == "embedding" else None

    def ranker(self, name: str) -> InstalledModel | None:
        """The ranking model of that name, None where it is not installed."""
        model = self._models.get(name)
        return model if model is not None and model.kind == "ranker" else None

    def slm(self, name: str) -> InstalledModel | None:
        """The SLM of that name, None where it is not installed."""
        model = self._models.get(name)
        return model if model is not None and model.kind == "slm" else None

    def missing(self, config: Config) -> Sequence[str]:
        """The assistant's SLM, where the configuration names one that is not here: it quotes only then."""
        name = config.models.text
        if not name or name in self._models:
            return []
        text = f"no SLM: {name} is not installed (`outpost models pull {name}`); answers are quotes only"
        return [Note(text, "no_slm", model=name)]

    def notes(self) -> Sequence[str]:
        """Models that are there and cannot be used, as of the last `refresh`."""
        return self._notes

    def specs(self, config: Config) -> dict[str, ModelSpec]:
        """How the pool loads each of `models`, by name."""
        return {model.name: self._spec(model, config) for model in self.models()}

    @staticmethod
    def _spec(model: InstalledModel, config: Config) -> ModelSpec:
        load = LoadSpec(
            model=model.name,
            engine=_ENGINES[model.kind],
            entry=str(model.entry_path),
            files={str(model.folder / file.path): file.sha256 for file in model.files},
            options=_options(model, config),
        )
        expected = model.memory_bytes or sum(file.size or 0 for file in model.files) + _WORKER_BYTES
        return ModelSpec(load, model.kind, expected, pinned=model.name in config.models.pinned)


def _options(model: InstalledModel, config: Config) -> Payload:
    if model.kind != "slm":
        return {"threads": 1}
    options = config.text.model_dump()
    if model.context is not None:
        options["context"] = min(config.text.context, model.context)
    return options
