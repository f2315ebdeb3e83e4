"""What words mean before training begins: vectors of the tokenizer's entries by all-MiniLM-L6-v2.

A model of this size cannot learn from templates which words mean alike. Each token's embedding is therefore the sum of
its meaning (fixed, through a learned projection that all tokens share) and a learned part of its own, which tells
`5` from `6` and `Price` from `price`. The two are added up at export; nothing of MiniLM is left in the model's layers.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

DIMENSIONS = 192


def english(folder: Path) -> list[str]:
    """Whole words of the WordPiece vocabulary, which is ordered by their frequency in English."""
    vocabulary = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab()
    ordered = sorted(vocabulary, key=lambda word: vocabulary[word])
    return [word for word in ordered if len(word) > 1 and word.isascii() and word.isalpha()]


class Encoder:
    """all-MiniLM-L6-v2 as ONNX; unit vectors, one text at a time, as the device computes them."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.no_padding()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(
            str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"]
        )
        self.names = {entry.name for entry in self.session.get_inputs()}
        self.known: dict[str, np.ndarray] = {}

    def __call__(self, text: str) -> np.ndarray:
        if text not in self.known:
            ids = np.array([self.tokenizer.encode(text).ids[:256]], np.int64)
            given = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
            out = self.session.run(None, {name: given[name] for name in self.names})[0][0]
            vector = out.mean(0) if out.ndim == 2 else out
            self.known[text] = vector / np.linalg.norm(vector)
        return self.known[text]


def meanings(folder: Path, tokenizer: Tokenizer) -> np.ndarray:
    """float32 (vocabulary, DIMENSIONS): principal components of each token's text, unit length; zero: broken UTF-8."""
    encoder = Encoder(folder)
    table = np.zeros((tokenizer.get_vocab_size(), 384), np.float32)
    for token in range(len(table)):
        text = tokenizer.decode([token]).strip().lower()
        if text and "\ufffd" not in text:
            table[token] = encoder(text)
    filled = np.linalg.norm(table, axis=1) > 0
    table[filled] -= table[filled].mean(0)
    _, _, axes = np.linalg.svd(table[filled], full_matrices=False)
    table = table @ axes[:DIMENSIONS].T
    norms = np.linalg.norm(table, axis=1, keepdims=True)
    unit: np.ndarray = np.divide(table, norms, out=np.zeros_like(table), where=norms > 1e-6)
    return unit


OPPOSITES = set(  # are near each other too, and must not change places
    "open opens opened opening reopen close closes closed closing start starts begin begins began end ends first last "
    "early earlier late later before after from until long longer longest short many few several some more less most "
    "least large larger small smaller big bigger old older young younger adult adults child children parents baby "
    "babies toddlers teenagers kids with without where when allowed forbidden needed permitted able free paid "
    "monday tuesday wednesday thursday friday saturday sunday summer winter spring autumn morning evening night noon "
    "left right north south east west above below upstairs downstairs inside outside above under over male female "
    "ladies gents arrive arrives depart departs arrival departure enter entry exit leave leaves".split()
)


def neighbours(tokenizer: Tokenizer, table: np.ndarray, most: int = 6, least: float = 0.5) -> dict[str, list[str]]:
    """Words of the vocabulary that mean nearly the same, nearest first: what else a question might have said."""
    words = {
        text[1:]: token
        for token in range(len(table))
        if (text := tokenizer.decode([token])).startswith(" ")
        and text[1:].isalpha()
        and text[1:].islower()
        and text[1:] not in OPPOSITES
    }
    names, vectors = list(words), table[list(words.values())]
    found = {}
    for name, near in zip(names, vectors @ vectors.T, strict=True):
        order = [names[n] for n in np.argsort(-near)[: 3 * most] if near[n] > least]
        found[name] = [other for other in order if other[:4] != name[:4]][:most]
    return {name: others for name, others in found.items() if others}
