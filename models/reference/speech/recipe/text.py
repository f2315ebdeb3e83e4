"""The tokenizer: byte-level BPE over the grammar's words, then Whisper's special tokens in the order engines expect.

There is no language token, so that engines take the model for an English one and ask with [startoftranscript] alone or
with notimestamps after it.
"""

from __future__ import annotations

import random
import string
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from .data import WINDOW_S, others
from .grammar import load

VOCABULARY = 900  # text tokens
SPECIAL = (
    "<|endoftext|>",
    "<|startoftranscript|>",
    "<|translate|>",
    "<|transcribe|>",
    "<|startoflm|>",
    "<|startofprev|>",
    "<|nospeech|>",
    "<|notimestamps|>",
)
STEP_S = 0.02  # between timestamps


def train_tokenizer(path: Path, seed: int = 1) -> None:
    rng = random.Random(seed)
    grammar = load()
    texts = [" " + grammar.phrase(rng) for _ in range(20000)]
    texts += [" " + text for text in rng.sample(others(), 1500)]
    # A space alone is suppressed by engines, so it has to belong to the word after it: these pairs are joined first.
    texts += [f" {letter}" * 40000 for letter in string.ascii_lowercase]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    stamps = [f"<|{count * STEP_S:.2f}|>" for count in range(round(WINDOW_S / STEP_S) + 1)]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in (*SPECIAL, *stamps)])
    tokenizer.save(str(path))


class Text:
    """Ids of text and special tokens."""

    def __init__(self, path: Path) -> None:
        self.tokenizer = Tokenizer.from_file(str(path))
        ids = {name.strip("<|>"): self.tokenizer.token_to_id(name) for name in SPECIAL}
        self.end, self.start = ids["endoftext"], ids["startoftranscript"]
        self.previous, self.silent = ids["startofprev"], ids["nospeech"]
        self.untimed = ids["notimestamps"]

    def __len__(self) -> int:
        return self.tokenizer.get_vocab_size()

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer.encode(" " + text).ids
        return ids

    def stamp(self, seconds: float) -> int:
        """The token of a time within the window."""
        return self.untimed + 1 + round(min(max(seconds, 0.0), WINDOW_S) / STEP_S)
