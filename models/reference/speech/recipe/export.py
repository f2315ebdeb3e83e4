"""Writes the averaged weights as a CTranslate2 folder that faster-whisper loads: int8, with tokenizer and settings.

    python -m recipe.export --out build --name digits

Written by CTranslate2's own model description; nothing is suppressed at the beginning of a transcript, so that silence
and foreign speech may end at once.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ctranslate2.specs import WhisperSpec
from tokenizers import Tokenizer

from . import NAME
from .data import WINDOW_S
from .model import MELS


class Weights:
    """Our parameters by name, as CTranslate2 wants them."""

    def __init__(self, values: dict[str, torch.Tensor]) -> None:
        self.values = {name: value.float().numpy() for name, value in values.items()}

    def pair(self, spec: Any, name: str, norm: bool = False) -> None:
        """Weight and bias of a linear layer, a convolution or a norm."""
        setattr(spec, "gamma" if norm else "weight", self.values[f"{name}.weight"])
        setattr(spec, "beta" if norm else "bias", self.values[f"{name}.bias"])

    def joined(self, spec: Any, *names: str) -> None:
        """Several linear layers as one; the key has no bias."""
        spec.weight = np.concatenate([self.values[f"{name}.weight"] for name in names])
        width = len(self.values[f"{names[0]}.weight"])
        nothing = np.zeros(width, np.float32)
        spec.bias = np.concatenate([self.values.get(f"{name}.bias", nothing) for name in names])

    def block(self, spec: Any, name: str) -> None:
        mine = spec.self_attention
        self.pair(mine.layer_norm, f"{name}.attention_norm", norm=True)
        self.joined(mine.linear[0], *(f"{name}.attention.{part}" for part in ("query", "key", "value")))
        self.pair(mine.linear[1], f"{name}.attention.out")
        if hasattr(spec, "attention"):
            self.pair(spec.attention.layer_norm, f"{name}.cross_norm", norm=True)
            self.pair(spec.attention.linear[0], f"{name}.cross.query")
            self.joined(spec.attention.linear[1], f"{name}.cross.key", f"{name}.cross.value")
            self.pair(spec.attention.linear[2], f"{name}.cross.out")
        self.pair(spec.ffn.layer_norm, f"{name}.hidden_norm", norm=True)
        self.pair(spec.ffn.linear_0, f"{name}.up")
        self.pair(spec.ffn.linear_1, f"{name}.down")


def write(checkpoint: Path, tokenizer: Path, folder: Path, quantization: str | None = "int8") -> None:
    saved = torch.load(checkpoint, map_location="cpu")
    shape = saved["shape"]
    weights = Weights(saved["average"])
    spec = WhisperSpec(shape["encoder_layers"], shape["heads"], shape["decoder_layers"], shape["heads"])
    weights.pair(spec.encoder.conv1, "conv1")
    weights.pair(spec.encoder.conv2, "conv2")
    spec.encoder.position_encodings.encodings = weights.values["places"]
    weights.pair(spec.encoder.layer_norm, "encoder_norm", norm=True)
    for number, layer in enumerate(spec.encoder.layer):
        weights.block(layer, f"encoder.{number}")
    spec.decoder.embeddings.weight = weights.values["embedding.weight"]
    spec.decoder.position_encodings.encodings = weights.values["positions"]
    weights.pair(spec.decoder.layer_norm, "decoder_norm", norm=True)
    spec.decoder.projection.weight = weights.values["embedding.weight"]
    for number, layer in enumerate(spec.decoder.layer):
        weights.block(layer, f"decoder.{number}")

    vocabulary = Tokenizer.from_file(str(tokenizer)).get_vocab()
    spec.register_vocabulary(sorted(vocabulary, key=lambda token: vocabulary[token]))
    spec.config.suppress_ids = []
    spec.config.suppress_ids_begin = []
    spec.config.lang_ids = []
    last = shape["decoder_layers"] - 1
    spec.config.alignment_heads = [(last, head) for head in range(shape["heads"])]
    spec.validate()
    spec.optimize(quantization=quantization)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    spec.save(str(folder))
    shutil.copyfile(tokenizer, folder / "tokenizer.json")
    settings = {
        "chunk_length": 30,
        "feature_size": MELS,
        "hop_length": 160,
        "n_fft": 400,
        "sampling_rate": 16000,
        "window_s": WINDOW_S,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(settings, indent=1) + "\n", "utf-8")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("build"))
    parser.add_argument("--name", default="checkpoint", help="of the checkpoint")
    parser.add_argument("--folder", type=Path, help=f"default: OUT/{NAME}")
    options = parser.parse_args(arguments)
    folder = options.folder or options.out / NAME
    write(options.out / f"{options.name}.pt", options.out / "tokenizer.json", folder)
    print(f"{folder}: {sum(path.stat().st_size for path in folder.iterdir()) / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
