"""Write a GGUF of realistic shape with random weights: for speed measurements and engine tests, never for answers.

    python tests/benchmarks/make_random_model.py OUT.gguf            about 0.5 B parameters, Q4_K_M
    python tests/benchmarks/make_random_model.py OUT.gguf --tiny     about 1 MB, Q8_0, in a second or two

The tokenizer is byte-level BPE with a few real merges, so any text can be tokenized; the chat template is ChatML. The
same seed gives the same file.
"""

from __future__ import annotations

import argparse
import ctypes
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WORDS = (
    "the of and to in is open museum ticket hall guide water tour light when where what price from until day".split()
)
CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


@dataclass(frozen=True)
class Shape:
    width: int
    layers: int
    heads: int
    kv_heads: int
    hidden: int
    vocabulary: int
    context: int
    spread: float
    tied: bool
    quantisation: str
    hybrid: bool = False
    """LFM2: short convolutions, whose state cannot be cut, in every other layer."""


FULL = Shape(1024, 24, 16, 4, 3840, 151_936, 32_768, 3.0, True, "Q4_K_M")
TINY = Shape(256, 2, 4, 2, 512, 640, 2048, 3.0, False, "Q8_0")
TINY_HYBRID = Shape(256, 4, 4, 2, 512, 640, 2048, 3.0, False, "Q8_0", hybrid=True)
QUANTISATIONS = {"F16": 1, "Q8_0": 7, "Q4_K_M": 15}


def byte_alphabet() -> list[str]:
    """GPT-2's printable stand-in for each byte."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [chr(b) if b in plain else chr(256 + sum(c not in plain for c in range(b))) for b in range(256)]


def vocabulary(size: int) -> tuple[list[str], list[str]]:
    """Tokens (bytes, merged words, fillers, control tokens at the end) and merges."""
    alphabet = byte_alphabet()
    tokens, merges = list(alphabet), []
    known = set(tokens)
    space = alphabet[32]
    for word in WORDS:
        built = space
        for letter in word:
            if built + letter not in known:
                merges.append(f"{built} {letter}")
                tokens.append(built + letter)
                known.add(built + letter)
            built += letter
    fillers = size - len(tokens) - len(CONTROL)
    tokens += [f"{space}w{number}" for number in range(fillers)]
    return [*tokens, *CONTROL], merges


def write(path: Path, shape: Shape, seed: int, *, template: str = CHAT_TEMPLATE, damage: bool = False) -> None:
    """The model in f16; ``damage`` puts NaN into a layer."""
    random = np.random.default_rng(seed)
    tokens, merges = vocabulary(shape.vocabulary)
    head = shape.width // shape.heads
    writer = gguf.GGUFWriter(str(path), "lfm2" if shape.hybrid else "llama")
    writer.add_name(f"random-{shape.width}x{shape.layers}")
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.hidden)
    writer.add_head_count(shape.heads)
    convolutional = [shape.hybrid and layer % 2 == 0 for layer in range(shape.layers)]
    if shape.hybrid:
        writer.add_head_count_kv([0 if convolves else shape.kv_heads for convolves in convolutional])
        writer.add_shortconv_l_cache(3)
    else:
        writer.add_head_count_kv(shape.kv_heads)
    writer.add_rope_dimension_count(head)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_file_type(QUANTISATIONS["F16"])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    normal, control = int(gguf.TokenType.NORMAL), int(gguf.TokenType.CONTROL)
    writer.add_token_types([control if token in CONTROL else normal for token in tokens])
    writer.add_token_merges(merges)
    writer.add_bos_token_id(len(tokens) - 3)
    writer.add_eos_token_id(len(tokens) - 1)
    writer.add_add_bos_token(False)
    writer.add_chat_template(template)

    def matrix(name: str, rows: int, columns: int, scale: float = 1.0) -> None:
        values = random.standard_normal((rows, columns), np.float32) * np.float32(scale / np.sqrt(columns))
        if damage and name.endswith("0.ffn_down"):
            values[:] = np.nan
        writer.add_tensor(f"{name}.weight", values.astype(np.float16))

    matrix("token_embd", len(tokens), shape.width, shape.spread)
    if not shape.tied:  # tied random weights mostly repeat the last token
        matrix("output", len(tokens), shape.width, shape.spread)
    for layer in range(shape.layers):
        block = f"blk.{layer}"
        writer.add_tensor(f"{block}.attn_norm.weight", np.ones(shape.width, np.float32))
        if convolutional[layer]:
            matrix(f"{block}.shortconv.in_proj", 3 * shape.width, shape.width)
            matrix(f"{block}.shortconv.out_proj", shape.width, shape.width)
            kernel = random.standard_normal((shape.width, 3), np.float32)
            writer.add_tensor(f"{block}.shortconv.conv.weight", kernel)
        else:
            matrix(f"{block}.attn_q", shape.width, shape.width)
            matrix(f"{block}.attn_k", shape.kv_heads * head, shape.width)
            matrix(f"{block}.attn_v", shape.kv_heads * head, shape.width)
            matrix(f"{block}.attn_output", shape.width, shape.width)
            if shape.hybrid:
                writer.add_tensor(f"{block}.attn_q_norm.weight", np.ones(head, np.float32))
                writer.add_tensor(f"{block}.attn_k_norm.weight", np.ones(head, np.float32))
        writer.add_tensor(f"{block}.ffn_norm.weight", np.ones(shape.width, np.float32))
        matrix(f"{block}.ffn_gate", shape.hidden, shape.width)
        matrix(f"{block}.ffn_up", shape.hidden, shape.width)
        matrix(f"{block}.ffn_down", shape.width, shape.hidden)
    writer.add_tensor(
        "token_embd_norm.weight" if shape.hybrid else "output_norm.weight", np.ones(shape.width, np.float32)
    )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def quantise(source: Path, target: Path, kind: str, threads: int) -> None:
    import llama_cpp.llama_cpp as lib

    params = lib.llama_model_quantize_default_params()
    params.ftype = QUANTISATIONS[kind]
    params.nthread = threads
    code = lib.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(params))
    if code != 0:
        raise SystemExit(f"quantising to {kind} ended with code {code}")


def make(path: Path, shape: Shape, *, seed: int = 1, threads: int = 1) -> Path:
    """Write the quantized model to ``path``."""
    raw = path.with_suffix(".f16.gguf")
    write(raw, shape, seed)
    quantise(raw, path, shape.quantisation, threads)
    raw.unlink()
    return path


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--hybrid", action="store_true", help="with --tiny: LFM2 instead of llama")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    shape = (TINY_HYBRID if arguments.hybrid else TINY) if arguments.tiny else FULL
    made = make(arguments.out, shape, seed=arguments.seed, threads=arguments.threads)
    print(f"{made}: {made.stat().st_size / 1e6:.1f} MB")
