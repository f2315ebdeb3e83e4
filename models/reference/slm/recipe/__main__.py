"""The whole recipe with one command, from nothing to an examined model file. Run it in models/reference/slm:

    python -m recipe --embedding FOLDER --out build              at most two hours on two cores
    python -m recipe --embedding FOLDER --out build --smoke      everything, tiny, in a minute: shows only that it works

FOLDER holds model.onnx and tokenizer.json of all-MiniLM-L6-v2 (`outpost models pull` puts them there). It needs torch,
tokenizers, onnxruntime, gguf and numpy (extra `train`), and llama-cpp-python for the examination. Run again after an
interruption it goes on from the last checkpoint.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
from pathlib import Path
from typing import Any

STEPS = 15500
TINY = ("--vocabulary", "2048", "--layers", "3", "--width", "64", "--hidden", "64")


def examine(out: Path, count: int) -> dict[str, Any]:
    """Figures of both files on the three held-out examinations."""
    from . import NAME, evaluate

    figures: dict[str, Any] = {}
    for suffix in ("f16", "Q8_0"):
        examinee = evaluate.Examinee(out / f"{NAME}.{suffix}.gguf")
        figures[suffix] = {
            split: evaluate.held_out(examinee, split, count) for split in ("known", "question", "statement")
        }
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("build"))
    parser.add_argument("--embedding", type=Path, required=True, help="folder of all-MiniLM-L6-v2")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--smoke", action="store_true")
    options = parser.parse_args()
    try:
        import torch

        from . import NAME, export, train
    except ModuleNotFoundError as missing:
        raise SystemExit(
            f"{missing.name} is not installed; pip install 'outpost-agent[train]' brings what the recipe needs"
        ) from missing

    common = ["--out", str(options.out), "--embedding", str(options.embedding), "--threads", str(options.threads)]
    if options.smoke:
        train.main([*common, "--steps", "12", "--rows", "2", "--pages", "1", *TINY])
    else:
        train.main([*common, "--steps", str(options.steps), "--compile"])
    export.main(["--out", str(options.out)])

    saved = torch.load(options.out / "checkpoint.pt", map_location="cpu")
    file = options.out / f"{NAME}.Q8_0.gguf"
    figures: dict[str, Any] = {
        "file": file.name,
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "bytes": file.stat().st_size,
        "parameters": sum(value.numel() for name, value in saved["model"].items() if name not in export.FOLDED),
        "steps": saved["step"],
        "tokens": saved["tokens"],
        "cpu_minutes": round(saved["seconds"] / 60, 1),
    }
    if importlib.util.find_spec("llama_cpp"):
        figures["examinations"] = examine(options.out, 8 if options.smoke else 1500)
    else:
        print(
            "llama_cpp is not installed: the model is built but not examined; "
            "pip install llama-cpp-python, then run this again"
        )
    (options.out / "figures.json").write_text(json.dumps(figures, indent=1) + "\n", "utf-8")
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
