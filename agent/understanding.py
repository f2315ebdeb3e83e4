"""Language and intents of an utterance, over one worker (L2).

The worker ``understanding`` identifies languages and classifies intents; the intents' features need the embedding model
where there is one. Both may be away: then there is no intent, and the caller is told by the error.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from agent.engines.clients import IntentClient, TrainingReport
from agent.engines.pool import ModelSpec, Pool
from agent.engines.protocol import LoadSpec
from agent.errors import NotFound, StorageFailed
from agent.knowledge.intents import Intent, IntentPack, parse_pack, training_texts
from agent.knowledge.language import Language
from agent.messages import IntentResult

if TYPE_CHECKING:
    from numpy import float32
    from numpy.typing import NDArray

WORKER = "understanding"
_ENGINE = "agent.knowledge.understanding:UnderstandingEngine"
_EXPECTED_BYTES = 220 << 20
_CLASSIFY_S = 10.0

Embed = Callable[[Sequence[str]], Awaitable["NDArray[float32] | None"]]
"""Embeddings of texts, or None where no embedding model is at hand."""


class Understanding:
    """What `agent.assistant` asks about an utterance. ``folder`` keeps the trained classifiers, one a pack and
    embedding model."""

    def __init__(
        self, pool: Pool, embed: Embed, folder: Path, embedding_id: Callable[[], str], *, pinned: bool = False
    ) -> None:
        self._pool = pool
        self._client = IntentClient(pool, WORKER)
        self._embed = embed
        self._folder = folder
        self._embedding_id = embedding_id
        self._pinned = pinned
        self.pack: IntentPack | None = None
        pool.register(_spec(None, pinned))

    async def identify(self, text: str) -> Language:
        code, probability = await self._client.identify(text)
        return Language(code, probability)

    async def classify(self, text: str) -> tuple[IntentResult, Intent] | None:
        """The best intent as the pack in use words it; None where there is no pack."""
        if self.pack is None:
            return None
        result = (await self.classify_all([text]))[0]
        try:
            return result, self.pack.intent(result.intent)
        except NotFound:  # another pack was taken into use while this one was asked
            return None

    async def classify_all(self, texts: Sequence[str]) -> list[IntentResult]:
        """Raises NotFound where no intent pack is in use."""
        if self.pack is None:
            raise NotFound("no intent pack is in use", remedy="Train one with `outpost intents train PACK`.")
        vectors = await self._embed(texts)
        return await self._client.classify(texts, vectors, deadline_s=_CLASSIFY_S)

    async def use(self, text: str) -> TrainingReport | None:
        """Use the intent pack with this TOML text, trained where its classifier is not there yet; the report of the
        training, None where none was needed. Raises InvalidDocument; the pack in use stays then."""
        pack = parse_pack(text)
        vectors_id = self._embedding_id()
        stem = hashlib.sha256(f"{vectors_id}\0{text}".encode()).hexdigest()[:32]
        model = self._folder / f"{stem}.npz"
        report = None
        if not await asyncio.to_thread(_trained, model):
            vectors = await self._embed(training_texts(pack))
            report = await self._client.train(text, vectors, str(model))
        await self._pool.replace(await asyncio.to_thread(_spec, model, self._pinned))
        self.pack = pack
        await asyncio.to_thread(self._keep, text)
        return report

    async def use_kept(self) -> None:
        """Use the pack that was in use when the daemon last ran, where there was one."""
        text = await asyncio.to_thread(self._kept)
        if text is not None:
            await self.use(text)

    def _keep(self, text: str) -> None:
        fresh = self._folder / "pack.toml.new"
        try:
            with fresh.open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            fresh.rename(self._folder / "pack.toml")
        except OSError as error:
            raise StorageFailed(
                f"the intent pack cannot be kept in {self._folder}: {error.strerror}", remedy="Free some disk space."
            ) from error

    def _kept(self) -> str | None:
        try:
            return (self._folder / "pack.toml").read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise StorageFailed(
                f"the kept intent pack in {self._folder} cannot be read: {error}", remedy="Train the pack again."
            ) from error


def _trained(model: Path) -> bool:
    model.parent.mkdir(parents=True, exist_ok=True)
    return model.is_file()


def _spec(model: Path | None, pinned: bool) -> ModelSpec:
    files = {} if model is None else {str(model): hashlib.sha256(model.read_bytes()).hexdigest()}
    load = LoadSpec(model=WORKER, engine=_ENGINE, entry="" if model is None else str(model), files=files)
    return ModelSpec(load=load, kind="intents", expected_bytes=_EXPECTED_BYTES, pinned=pinned)
