"""Builds an embedding model for the device: BERT weights (safetensors) to int8 ONNX, without torch.

``python -m quantize.embedding SRC OUT`` reads ``model.safetensors``, ``tokenizer.json`` and (where it is there)
``config.json`` from SRC and writes the folder OUT with ``model.onnx``, ``tokenizer.json`` and ``manifest.json``. The
same input gives the same bytes. OUT appears whole or not at all.

The graph is a plain BERT encoder written node by node. It takes one sequence without padding (int8 results depend on
the batch, so the engine embeds one text at a time) and gives the last hidden state; pooling is the engine's. Every
matrix is int8 per output channel, the word embeddings int8 per row; activations are quantized at run time.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from agent.errors import BadModel, HashMismatch, OutpostError, StorageFailed, StorageFull

if TYPE_CHECKING:
    import onnx

Weights = dict[str, NDArray[np.float32]]

OPSET = 20
MANIFEST_VERSION = 1
QUANTIZED = "int8, dynamic, per channel, 7-bit codes"


@dataclass(frozen=True, slots=True)
class Shape:
    """The sizes of a BERT encoder; the defaults are MiniLM-L6."""

    hidden: int = 384
    layers: int = 6
    heads: int = 12
    positions: int = 512
    epsilon: float = 1e-12


@dataclass(frozen=True, slots=True)
class BuiltFile:
    path: str
    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """What ``manifest.json`` says: the model as the device installs it, and what it was built from."""

    name: str
    kind: str
    license: str
    entry: str
    dim: int
    max_tokens: int
    quantization: str
    files: tuple[BuiltFile, ...]
    sources: tuple[BuiltFile, ...]
    version: int = MANIFEST_VERSION


def build(
    source: Path,
    out: Path,
    *,
    name: str = "all-minilm-l6-v2",
    license: str = "apache-2.0",
    max_tokens: int = 256,
    expect: dict[str, str] | None = None,
) -> Manifest:
    """Convert the model in ``source`` into the folder ``out``, which must not hold anything yet.

    ``expect`` maps source files to the SHA-256 that they must have. Raises HashMismatch, BadModel (missing, truncated
    or not a BERT encoder), StorageFull, StorageFailed.
    """
    _require_empty(out)
    used = [name for name in ("model.safetensors", "tokenizer.json", "config.json") if (source / name).is_file()]
    sources = tuple(_describe(source, name) for name in used)
    for file in sources:
        wanted = (expect or {}).get(file.path, file.sha256)
        if file.sha256 != wanted:
            raise HashMismatch(
                f"{source / file.path} has SHA-256 {file.sha256}, not {wanted}", remedy="Download the file again."
            )
    weights = _weights(source / "model.safetensors")
    shape = _shape(source / "config.json", weights)
    tokenizer = _tokenizer(source / "tokenizer.json")
    model = quantized(encoder(weights, shape))
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as scratch:
            folder = Path(scratch) / "model"
            folder.mkdir()
            _write(folder / "model.onnx", model)
            _write(folder / "tokenizer.json", tokenizer)
            manifest = Manifest(
                name=name,
                kind="embedding",
                license=license,
                entry="model.onnx",
                dim=shape.hidden,
                max_tokens=max_tokens,
                quantization=QUANTIZED,
                files=(_describe(folder, "model.onnx"), _describe(folder, "tokenizer.json")),
                sources=sources,
            )
            _write(folder / "manifest.json", (json.dumps(asdict(manifest), indent=2) + "\n").encode())
            _sync(folder)
            folder.rename(out)
        _sync(out.parent)
    except OSError as error:
        if error.errno in (28, 122):  # ENOSPC, EDQUOT
            raise StorageFull(f"no space to write {out}", remedy="Free some disk space.") from error
        raise StorageFailed(f"cannot write {out}: {error}", remedy="Check the folder and its permissions.") from error
    return manifest


def encoder(weights: Weights, shape: Shape, *, quantize_words: bool = True) -> onnx.ModelProto:
    """The BERT encoder as an ONNX graph: ``input_ids`` (1, n) to ``last_hidden_state`` (1, n, hidden), float32.

    Query, key and value are one matrix, with the attention's scale in the query's part; the token type, always 0 for a
    single text, is part of the position table.
    """
    from onnx import TensorProto, helper

    graph = _Graph()
    words = weights["embeddings.word_embeddings.weight"]
    positions = weights["embeddings.position_embeddings.weight"] + weights["embeddings.token_type_embeddings.weight"][0]
    if quantize_words:
        codes, scales = _rows_to_int8(words)
        table = graph.constant("words", codes)
        scale = graph.constant("words.scale", scales)
        picked = graph.add("Cast", graph.add("Gather", table, "input_ids"), to=TensorProto.FLOAT)
        embedded = graph.add("Mul", picked, graph.add("Gather", scale, "input_ids"))
    else:
        embedded = graph.add("Gather", graph.constant("words", words), "input_ids")
    length = graph.add("Shape", "input_ids", start=1, end=2)
    zero = graph.constant("zero", np.zeros(1, np.int64))
    x = graph.add("Add", embedded, graph.add("Slice", graph.constant("positions", positions), zero, length, zero))
    x = graph.layer_norm(x, weights, "embeddings.LayerNorm", shape.epsilon)

    size = shape.hidden // shape.heads
    by_head = graph.constant("by_head", np.array([0, 0, shape.heads, size], np.int64))
    flat = graph.constant("flat", np.array([0, 0, shape.hidden], np.int64))
    for number in range(shape.layers):
        at = f"encoder.layer.{number}"
        parts = [f"{at}.attention.self.{part}" for part in ("query", "key", "value")]
        factors = (1 / math.sqrt(size), 1.0, 1.0)
        matrix = np.concatenate([weights[f"{p}.weight"].T * f for p, f in zip(parts, factors, strict=True)], axis=1)
        bias = np.concatenate([weights[f"{p}.bias"] * f for p, f in zip(parts, factors, strict=True)])
        projected = graph.linear(x, f"{at}.qkv", matrix, bias)
        query, key, value = graph.split(projected, 3)
        q, k, v = (graph.add("Reshape", part, by_head) for part in (query, key, value))
        scores = graph.add(
            "MatMul", graph.add("Transpose", q, perm=[0, 2, 1, 3]), graph.add("Transpose", k, perm=[0, 2, 3, 1])
        )
        mixed = graph.add("MatMul", graph.add("Softmax", scores, axis=-1), graph.add("Transpose", v, perm=[0, 2, 1, 3]))
        mixed = graph.add("Reshape", graph.add("Transpose", mixed, perm=[0, 2, 1, 3]), flat)
        attended = graph.dense(mixed, weights, f"{at}.attention.output.dense")
        x = graph.layer_norm(graph.add("Add", x, attended), weights, f"{at}.attention.output.LayerNorm", shape.epsilon)
        inner = graph.add("Gelu", graph.dense(x, weights, f"{at}.intermediate.dense"))
        outer = graph.dense(inner, weights, f"{at}.output.dense")
        x = graph.layer_norm(graph.add("Add", x, outer), weights, f"{at}.output.LayerNorm", shape.epsilon)
    graph.nodes.append(helper.make_node("Identity", [x], ["last_hidden_state"], name="last_hidden_state"))

    made = helper.make_graph(
        graph.nodes,
        "bert",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, [1, "tokens"])],
        [helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, [1, "tokens", shape.hidden])],
        graph.constants,
    )
    model = helper.make_model(
        made, producer_name="outpost", opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9
    )
    # Tells the quantizer that the graph is in its final form, or it logs advice to run a pre-processing step.
    helper.set_model_props(model, {"onnx.quant.pre_process": "onnxruntime.quant"})
    return model


def quantized(model: onnx.ModelProto) -> bytes:
    """The model with every weight matrix in int8 per output channel, serialized (the same bytes every time).

    The codes use 7 bits: x86 CPUs without VNNI add pairs of products in 16 bits and would saturate with 8. It costs
    .0008 of cosine and makes the vectors of a device not depend on its CPU's age.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "int8.onnx"
        quantize_dynamic(
            model,
            path,
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            reduce_range=True,
            weight_type=QuantType.QInt8,
            extra_options={"MatMulConstBOnly": True},
        )
        return path.read_bytes()


class _Graph:
    """Nodes and constants in the order they are made; node outputs get numbered names."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, name: str, value: NDArray[Any]) -> str:
        from onnx import numpy_helper

        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def add(self, op: str, *inputs: str, **attributes: Any) -> str:
        from onnx import helper

        name = f"{op.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [name], name=name, **attributes))
        return name

    def split(self, x: str, parts: int) -> list[str]:
        from onnx import helper

        names = [f"split_{len(self.nodes)}_{part}" for part in range(parts)]
        node = helper.make_node("Split", [x], names, name=f"split_{len(self.nodes)}", axis=-1, num_outputs=parts)
        self.nodes.append(node)
        return names

    def linear(self, x: str, name: str, matrix: NDArray[np.float32], bias: NDArray[np.float32]) -> str:
        product = self.add("MatMul", x, self.constant(f"{name}.weight", matrix.astype(np.float32)))
        return self.add("Add", product, self.constant(f"{name}.bias", bias.astype(np.float32)))

    def dense(self, x: str, weights: Weights, name: str) -> str:
        return self.linear(x, name, weights[f"{name}.weight"].T, weights[f"{name}.bias"])

    def layer_norm(self, x: str, weights: Weights, name: str, epsilon: float) -> str:
        scale = self.constant(f"{name}.weight", weights[f"{name}.weight"])
        bias = self.constant(f"{name}.bias", weights[f"{name}.bias"])
        return self.add("LayerNormalization", x, scale, bias, axis=-1, epsilon=epsilon)


def _rows_to_int8(table: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Symmetric int8 codes and the scale of each row, shaped (rows, 1)."""
    scales = np.abs(table).max(axis=1, keepdims=True) / 127
    scales[scales == 0] = 1
    return np.rint(table / scales).astype(np.int8), scales.astype(np.float32)


def _weights(path: Path) -> Weights:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        loaded = load_file(path)
    except (OSError, SafetensorError) as error:
        raise BadModel(f"cannot read {path}: {error}", remedy="Download the model again.") from error
    except (TypeError, KeyError) as error:  # safetensors for numpy does not know every element type
        raise BadModel(f"{path} holds an element type that is not supported: {error}") from error
    weights = {name.removeprefix("bert."): value for name, value in loaded.items() if value.dtype.kind == "f"}
    bad = next((name for name, value in weights.items() if not np.isfinite(value).all()), None)
    if bad:
        raise BadModel(f"{path}: the tensor {bad!r} is not finite", remedy="Download the model again.")
    return {name: value.astype(np.float32) for name, value in weights.items()}


def _shape(config: Path, weights: Weights) -> Shape:
    """The encoder's sizes, from its config where there is one, checked against the tensors that are really there."""
    try:
        data = json.loads(config.read_text("utf-8")) if config.is_file() else {}
        shape = Shape(
            hidden=data.get("hidden_size", Shape().hidden),
            layers=data.get("num_hidden_layers", Shape().layers),
            heads=data.get("num_attention_heads", Shape().heads),
            positions=data.get("max_position_embeddings", Shape().positions),
            epsilon=data.get("layer_norm_eps", Shape().epsilon),
        )
    except (OSError, ValueError, AttributeError) as error:
        raise BadModel(f"cannot read {config}: {error}", remedy="Download the model again.") from error
    if data.get("hidden_act", "gelu") != "gelu" or data.get("model_type", "bert") != "bert":
        raise BadModel(f"{config}: only BERT encoders with GELU can be converted")
    wanted = {
        "embeddings.word_embeddings.weight": None,
        "embeddings.position_embeddings.weight": (shape.positions, shape.hidden),
        f"encoder.layer.{shape.layers - 1}.output.dense.bias": (shape.hidden,),
    }
    for name, size in wanted.items():
        if name not in weights or (size and weights[name].shape != size):
            found = weights[name].shape if name in weights else "nothing"
            raise BadModel(f"the weights are not a BERT encoder of {shape}: {name} is {found}")
    return shape


def _tokenizer(path: Path) -> bytes:
    from tokenizers import Tokenizer

    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadModel(f"cannot read {path}: {error}", remedy="Download the model again.") from error
    try:
        Tokenizer.from_buffer(data)
    except Exception as error:  # the tokenizers library raises nothing narrower
        raise BadModel(f"{path} is not a tokenizer: {error}", remedy="Download the model again.") from error
    return data


def _describe(folder: Path, name: str) -> BuiltFile:
    data = (folder / name).read_bytes()
    return BuiltFile(name, hashlib.sha256(data).hexdigest(), len(data))


def _require_empty(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise StorageFailed(f"{out} is already there", remedy="Name a folder that does not exist yet.")


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m quantize.embedding", description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, metavar="SRC", help="folder with model.safetensors and tokenizer.json")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to make")
    parser.add_argument("--name", default="all-minilm-l6-v2", help="name of the model (default: %(default)s)")
    given = parser.parse_args(arguments)
    try:
        manifest = build(given.source, given.out, name=given.name)
    except OutpostError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for file in manifest.files:
        print(f"{file.sha256}  {given.out / file.path}  {file.size:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
