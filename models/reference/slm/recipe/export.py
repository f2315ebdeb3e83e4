"""Writes the trained weights as GGUF: f16 and Q8_0, with the tokenizer and the chat template inside.

The markers of the chat format are control tokens, so llama.cpp finds them in the template but never in passage text.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import gguf
import numpy as np
import torch
from tokenizers import Tokenizer

from . import NAME
from .data import END, PAD, SPECIAL, TEMPLATE, USER, load_tokenizer

FOLDED = ("meaning", "projection")  # added up into the embedding of each token
LAYER_NAMES = {
    "attention_norm": "attn_norm",
    "query": "attn_q",
    "key": "attn_k",
    "value": "attn_v",
    "out": "attn_output",
    "hidden_norm": "ffn_norm",
    "gate": "ffn_gate",
    "up": "ffn_up",
    "down": "ffn_down",
}


def tensor_name(name: str) -> str:
    """Our parameter's name in llama.cpp's naming."""
    if name.startswith("blocks."):
        _, number, part, _ = name.split(".")
        return f"blk.{number}.{LAYER_NAMES[part]}.weight"
    return {"embedding.weight": "token_embd.weight", "norm.weight": "output_norm.weight"}[name]


def add_tokenizer(writer: gguf.GGUFWriter, tokenizer: Tokenizer) -> None:
    vocabulary = tokenizer.get_vocab()
    ordered = sorted(vocabulary, key=lambda token: vocabulary[token])
    merges = [" ".join(pair) if isinstance(pair, list) else pair for pair in _merges(tokenizer)]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(ordered)
    writer.add_token_types([gguf.TokenType.CONTROL if token in SPECIAL else gguf.TokenType.NORMAL for token in ordered])
    writer.add_token_merges(merges)
    writer.add_bos_token_id(USER)
    writer.add_eos_token_id(END)
    writer.add_pad_token_id(PAD)
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)
    writer.add_chat_template(TEMPLATE)


def _merges(tokenizer: Tokenizer) -> list[list[str] | str]:
    merges: list[list[str] | str] = json.loads(tokenizer.to_str())["model"]["merges"]
    return merges


def write(checkpoint: Path, tokenizer: Tokenizer, path: Path, quantized: bool) -> None:
    saved = torch.load(checkpoint, map_location="cpu")
    shape = saved["shape"]
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_name(NAME)
    writer.add_description(
        "Answers visitor questions from the passages in its context by copying the value; refuses otherwise. "
        "For tests and demos."
    )
    writer.add_license("Apache-2.0")
    writer.add_languages(["en"])
    writer.add_context_length(shape["context"])
    writer.add_embedding_length(shape["width"])
    writer.add_block_count(shape["layers"])
    writer.add_feed_forward_length(shape["hidden"])
    writer.add_head_count(shape["heads"])
    writer.add_head_count_kv(shape["kv_heads"])
    writer.add_rope_dimension_count(shape["width"] // shape["heads"])
    writer.add_rope_freq_base(shape["rope_base"])
    writer.add_layer_norm_rms_eps(shape["epsilon"])
    writer.add_vocab_size(shape["vocabulary"])
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0 if quantized else gguf.LlamaFileType.MOSTLY_F16)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    add_tokenizer(writer, tokenizer)
    average = saved["average"]
    meaning, projection = (average.pop(name) for name in FOLDED)
    average["embedding.weight"] += meaning @ projection
    for name, value in average.items():
        array = value.float().numpy()
        if array.ndim == 1:
            writer.add_tensor(tensor_name(name), array.astype(np.float32))
        elif quantized:
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(tensor_name(name), gguf.quants.quantize(array, kind), raw_dtype=kind)
        else:
            writer.add_tensor(tensor_name(name), array.astype(np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("build"))
    options = parser.parse_args(arguments)
    tokenizer = load_tokenizer(options.out / "tokenizer.json")
    for quantized, suffix in ((False, "f16"), (True, "Q8_0")):
        path = options.out / f"{NAME}.{suffix}.gguf"
        write(options.out / "checkpoint.pt", tokenizer, path, quantized)
        print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
