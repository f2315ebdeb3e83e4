"""Make the device's model from trained weights: int8 ONNX, tokenizer and manifest, without torch.

    python models/reference/ranker/recipe/export.py --trained FOLDER --base FOLDER --out FOLDER

FOLDER of ``--trained`` holds weights.npz (the encoder) and judge.npz (the comparison), as `train.py` writes them.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[4]
sys.path.insert(0, str(ROOT))

from safetensors.numpy import save_file  # noqa: E402

from quantize import embedding  # noqa: E402

NAME = "outpost-reference-ranker"
MANIFEST = """name = "{name}"
kind = "ranker"
entry = "model.onnx"
license = "Apache-2.0"
memory_mb = 100
reference = true
description = "Judges whether a sentence answers a question: all-MiniLM-L6-v2, trained on natural-train"
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trained", type=Path, required=True)
    parser.add_argument("--base", type=Path, required=True, help="folder with tokenizer.json of all-MiniLM-L6-v2")
    parser.add_argument("--out", type=Path, required=True, help="folder that gets the model's files")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        source, built = Path(scratch) / "source", Path(scratch) / "built"
        source.mkdir()
        with np.load(options.trained / "weights.npz", allow_pickle=False) as weights:
            save_file(
                {name: np.ascontiguousarray(weights[name]) for name in weights.files}, source / "model.safetensors"
            )
        shutil.copy(options.base / "tokenizer.json", source / "tokenizer.json")
        embedding.build(source, built, name=NAME)
        options.out.mkdir(parents=True, exist_ok=True)
        lines = [MANIFEST.format(name=NAME)]
        shutil.copy(options.trained / "judge.npz", built / "judge.npz")
        for name in ("model.onnx", "tokenizer.json", "judge.npz"):
            data = (built / name).read_bytes()
            (options.out / name).write_bytes(data)
            lines.append(
                f'[[files]]\npath = "{name}"\nsha256 = "{hashlib.sha256(data).hexdigest()}"\nsize = {len(data)}\n'
            )
        (options.out / "manifest.toml").write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
