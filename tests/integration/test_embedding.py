"""The embedding engine and its conversion: against BERT written out in numpy, on damaged files, on the real model."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from agent.engines.embedding import EmbeddingEngine
from agent.engines.protocol import EngineEvent, LoadSpec
from agent.errors import BadModel, HashMismatch, InvalidRequest, StorageFailed, StorageFull
from quantize import embedding as conversion
from tests.simulators.disk import small_disk

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *(f"w{number}" for number in range(60))]
SHAPE = conversion.Shape(hidden=32, layers=2, heads=4, positions=64, epsilon=1e-12)
TEXTS = ["w1 w2 w3", "w7", "w9 w8 w7 w6 w5 w4 w3 w2 w1", " ".join(f"w{n}" for n in range(60)), "", "other words"]


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT encoder of 30 kB with random weights and a tokenizer of 64 words that pads, as the published one does."""
    folder = tmp_path_factory.mktemp("bert")
    rng = np.random.default_rng(3)
    sizes = {
        "embeddings.word_embeddings.weight": (len(VOCABULARY), 32),
        "embeddings.position_embeddings.weight": (64, 32),
        "embeddings.token_type_embeddings.weight": (2, 32),
        "embeddings.LayerNorm.weight": (32,),
        "embeddings.LayerNorm.bias": (32,),
    }
    for layer in range(2):
        at = f"encoder.layer.{layer}"
        for part in ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"):
            sizes |= {f"{at}.{part}.weight": (32, 32), f"{at}.{part}.bias": (32,)}
        sizes |= {f"{at}.intermediate.dense.weight": (128, 32), f"{at}.intermediate.dense.bias": (128,)}
        sizes |= {f"{at}.output.dense.weight": (32, 128), f"{at}.output.dense.bias": (32,)}
        for norm in ("attention.output.LayerNorm", "output.LayerNorm"):
            sizes |= {f"{at}.{norm}.weight": (32,), f"{at}.{norm}.bias": (32,)}
    weights = {name: (rng.standard_normal(size) * 0.3).astype(np.float32) for name, size in sizes.items()}
    weights |= {name: 1 + w for name, w in weights.items() if name.endswith("LayerNorm.weight")}
    save_file(weights, folder / "model.safetensors")
    config = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 64}
    (folder / "config.json").write_text(json.dumps({**config, "layer_norm_eps": 1e-12, "hidden_act": "gelu"}))
    tokenizer = Tokenizer(models.WordPiece({word: n for n, word in enumerate(VOCABULARY)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.enable_padding(length=40)
    tokenizer.enable_truncation(40)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture(scope="session")
def built(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("built") / "model"
    conversion.build(source, out, name="tiny-bert", max_tokens=48)
    return out


def engine(folder: Path, **options: int) -> EmbeddingEngine:
    made = EmbeddingEngine()
    made.load(LoadSpec("embedding", "", str(folder / "model.onnx"), {}, options))
    return made


def run(made: EmbeddingEngine, limit: int = 1000) -> list[EngineEvent]:
    events: list[EngineEvent] = []
    while made.busy and limit:
        limit -= 1
        events += made.step()
    assert limit, "the engine never finished"
    return events


def bert(weights: dict[str, np.ndarray], ids: list[int]) -> np.ndarray:
    """The encoder as its paper says it, and the normalised mean of its tokens."""

    def dense(x: np.ndarray, name: str) -> np.ndarray:
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-12)
        return x * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    def heads(x: np.ndarray) -> np.ndarray:
        return x.reshape(len(x), 4, 8).transpose(1, 0, 2)

    x = weights["embeddings.word_embeddings.weight"][ids] + weights["embeddings.position_embeddings.weight"][: len(ids)]
    x = norm(x + weights["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
    for layer in range(2):
        at = f"encoder.layer.{layer}"
        q, k, v = (heads(dense(x, f"{at}.attention.self.{part}")) for part in ("query", "key", "value"))
        scores = np.exp(q @ k.transpose(0, 2, 1) / math.sqrt(8))
        mixed = (scores / scores.sum(-1, keepdims=True)) @ v
        mixed = mixed.transpose(1, 0, 2).reshape(len(ids), 32)
        x = norm(x + dense(mixed, f"{at}.attention.output.dense"), f"{at}.attention.output.LayerNorm")
        inner = dense(x, f"{at}.intermediate.dense")
        gelu = inner * 0.5 * (1 + np.vectorize(math.erf)(inner / math.sqrt(2)))
        x = norm(x + dense(gelu, f"{at}.output.dense"), f"{at}.output.LayerNorm")
    mean = x.mean(0)
    return mean / np.linalg.norm(mean)


def test_the_graph_is_bert(source: Path, built: Path, tmp_path: Path) -> None:
    """In float32 it equals the paper's formulas; the int8 file that is shipped stays close."""
    weights = load_file(source / "model.safetensors")
    plain = tmp_path / "fp32"
    plain.mkdir()
    (plain / "model.onnx").write_bytes(conversion.encoder(weights, SHAPE, quantize_words=False).SerializeToString())
    shutil.copy(source / "tokenizer.json", plain)
    exact, small = engine(plain, max_tokens=48), engine(built, max_tokens=48)
    tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(48)
    for text in TEXTS:
        wanted = bert(weights, tokenizer.encode(text).ids)
        assert np.allclose(exact.embed(text), wanted, atol=1e-5)
        assert float(small.embed(text) @ wanted) > 0.98


def test_a_build_is_the_same_every_time(source: Path, built: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "quantize.embedding", str(source), str(tmp_path / "again"), "--name", "tiny-bert"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    for name in ("model.onnx", "tokenizer.json"):
        assert (tmp_path / "again" / name).read_bytes() == (built / name).read_bytes()
    manifest = json.loads((tmp_path / "again" / "manifest.json").read_text())
    assert (manifest["name"], manifest["entry"], manifest["dim"]) == ("tiny-bert", "model.onnx", 32)
    for file in manifest["files"]:
        data = (tmp_path / "again" / file["path"]).read_bytes()
        assert (hashlib.sha256(data).hexdigest(), len(data)) == (file["sha256"], file["size"])
    assert [file["path"] for file in manifest["sources"]] == ["model.safetensors", "tokenizer.json", "config.json"]
    again = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert again.returncode == 1
    assert "already there" in again.stderr
    assert "Traceback" not in again.stderr


def test_texts_take_turns(built: Path) -> None:
    """A question that arrives during a long ingest is answered after one more text, not after all of them."""
    made = engine(built)
    made.submit(1, "embed", {"texts": ["w1 w2"] * 50})
    assert list(made.step()) == []
    made.submit(2, "embed", {"texts": ["w3"]})
    made.submit(3, "embed", {"texts": []})
    finished = [event.id for event in run(made)]
    assert finished == [2, 3, 1]


def test_an_answer_holds_unit_vectors_in_order(built: Path) -> None:
    made = engine(built)
    made.submit(7, "embed", {"texts": ["w1 w2", "w3", "w1 w2"]})
    (end,) = run(made)
    assert (end.kind, end.id, end.payload["dim"]) == ("end", 7, 32)
    vectors = np.frombuffer(end.payload["vectors"], "<f4").reshape(3, 32)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert np.array_equal(vectors[0], vectors[2])
    assert np.array_equal(vectors[1], made.embed("w3"))


def test_a_cancelled_request_sends_nothing(built: Path) -> None:
    made = engine(built)
    made.submit(1, "embed", {"texts": ["w1"] * 5})
    made.submit(2, "embed", {"texts": ["w2"]})
    made.step()
    made.cancel(1)
    made.cancel(99)
    assert [event.id for event in run(made)] == [2]


@pytest.mark.parametrize("payload", [{}, {"texts": "w1"}, {"texts": None}, {"texts": ["a", 1]}, {"texts": [b"a"]}])
def test_wrong_payloads_are_refused(built: Path, payload: dict[str, object]) -> None:
    made = engine(built)
    with pytest.raises(InvalidRequest, match="texts"):
        made.submit(1, "embed", payload)
    with pytest.raises(InvalidRequest, match="generate"):
        made.submit(1, "generate", {"texts": []})
    assert not made.busy


def test_long_texts_are_cut(built: Path) -> None:
    made = engine(built, max_tokens=8)
    assert np.array_equal(made.embed("w1 w2 w3 w4 w5 w6 " + "w9 " * 100_000), made.embed("w1 w2 w3 w4 w5 w6"))
    assert np.isfinite(made.embed("x" * 1_000_000)).all()


@pytest.mark.parametrize("damage", ["empty", "truncated", "text", "missing", "no tokenizer", "bad tokenizer"])
def test_damaged_files_are_named(built: Path, tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(built, folder)
    data = (folder / "model.onnx").read_bytes()
    match damage:
        case "missing":
            (folder / "model.onnx").unlink()
        case "no tokenizer":
            (folder / "tokenizer.json").unlink()
        case "bad tokenizer":
            (folder / "tokenizer.json").write_text('{"model": 1}')
        case _:
            changed = {"empty": b"", "truncated": data[: len(data) // 2], "text": b"not a model"}[damage]
            (folder / "model.onnx").write_bytes(changed)
    with pytest.raises(BadModel, match=r"tokenizer\.json" if "tokenizer" in damage else r"model\.onnx"):
        engine(folder)


def test_weights_that_give_nan_are_refused(source: Path, tmp_path: Path) -> None:
    """Flipped bytes load without a word; the first text shows it."""
    weights = load_file(source / "model.safetensors")
    weights["encoder.layer.1.output.LayerNorm.weight"][3] = np.nan
    folder = tmp_path / "nan"
    folder.mkdir()
    (folder / "model.onnx").write_bytes(conversion.quantized(conversion.encoder(weights, SHAPE)))
    shutil.copy(source / "tokenizer.json", folder)
    with pytest.raises(BadModel, match="not finite"):
        engine(folder)


def test_sources_that_cannot_be_converted(source: Path, tmp_path: Path) -> None:
    def attempt(change: str) -> None:
        folder = tmp_path / change
        shutil.copytree(source, folder)
        weights = load_file(source / "model.safetensors")
        expect = None
        match change:
            case "truncated":
                (folder / "model.safetensors").write_bytes((source / "model.safetensors").read_bytes()[:-100])
            case "missing":
                (folder / "model.safetensors").unlink()
            case "nan":
                weights["embeddings.LayerNorm.bias"][0] = np.inf
                save_file(weights, folder / "model.safetensors")
            case "another model":
                save_file({"conv.weight": np.zeros(3, np.float32)}, folder / "model.safetensors")
            case "config":
                (folder / "config.json").write_text("{")
            case "activation":
                (folder / "config.json").write_text('{"hidden_act": "relu"}')
            case "tokenizer":
                (folder / "tokenizer.json").write_text("{}")
            case "hash":
                expect = {"tokenizer.json": "0" * 64}
        conversion.build(folder, tmp_path / "out", expect=expect)

    for change in ("truncated", "missing", "nan", "another model", "config", "activation", "tokenizer"):
        with pytest.raises(BadModel):
            attempt(change)
    with pytest.raises(HashMismatch, match="tokenizer"):
        attempt("hash")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith((".out", "out"))]


def test_a_folder_in_use_is_not_touched(source: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("keep")
    with pytest.raises(StorageFailed, match="already there"):
        conversion.build(source, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_full_disk_leaves_nothing_behind(source: Path, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "20k") as disk:
        with pytest.raises(StorageFull, match="out"):
            conversion.build(source, disk / "out")
        assert list(disk.iterdir()) == []


# ---------------------------------------------------------------- the real model


def test_minilm_understands(embedding_model: Path) -> None:
    made = engine(embedding_model)
    cafe, hours, dogs = (
        made.embed(text) for text in ("The café opens at 9 a.m.", "When can I get a coffee?", "Dogs must stay outside.")
    )
    assert float(cafe @ hours) > float(cafe @ dogs) + 0.2
    assert made.embed("x " * 5000).shape == (384,)


def test_minilm_does_not_depend_on_what_else_is_embedded(embedding_model: Path) -> None:
    made = engine(embedding_model)
    texts = ["a short one", "a much longer text " * 40, "a short one"]
    made.submit(1, "embed", {"texts": texts})
    (end,) = run(made)
    vectors = np.frombuffer(end.payload["vectors"], "<f4").reshape(3, 384)
    assert np.array_equal(vectors[0], made.embed(texts[0]))
    assert np.array_equal(vectors[0], vectors[2])
