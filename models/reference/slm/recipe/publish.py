"""Puts a built model where Outpost finds it: the file, manifest.toml, figures.json and the card's table of figures.

python -m recipe.publish --out build
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

from . import NAME

HOME = Path(__file__).parents[1]
WORDING = {"known": "known wording", "question": "unseen question wording", "statement": "unseen statement wording"}
COLUMNS = ("exact", "false_refusal", "refused_unanswerable", "auroc_log_probability")


def manifest(file: Path) -> str:
    data = file.read_bytes()
    return f"""name = "{NAME}"
kind = "slm"
entry = "{file.name}"
license = "Apache-2.0"
context = 2048
memory_mb = 40
reference = true
description = "Trained here for tests and demos: copies answers from its passages, or says that it does not know"

[[files]]
path = "{file.name}"
sha256 = "{hashlib.sha256(data).hexdigest()}"
size = {len(data)}
"""


def table(figures: dict[str, Any]) -> str:
    """The card's figures in Markdown."""
    lines = [
        f"{figures['parameters']:,} parameters, {figures['tokens'] / 1e6:.1f} million training tokens, "
        f"{figures['steps']:,} steps, {figures['cpu_minutes']:.0f} CPU minutes.",
        "",
        "| Q8_0, fresh seed | exact match | false refusals | unanswerable refused | AUROC of log-probability |",
        "|---|---|---|---|---|",
    ]
    examinations = figures["examinations"]
    for split, name in WORDING.items():
        row = examinations["Q8_0"][split]
        lines.append(f"| {name} | " + " | ".join(f"{row[column]:.3f}" for column in COLUMNS) + " |")
    if "f16" in examinations:
        gap = max(abs(examinations["f16"][s]["exact"] - examinations["Q8_0"][s]["exact"]) for s in WORDING)
        lines += ["", f"Exact match of f16 and Q8_0 differs by at most {gap:.4f}."]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("build"))
    options = parser.parse_args()
    figures = json.loads((options.out / "figures.json").read_text("utf-8"))
    file = HOME / figures["file"]
    shutil.copyfile(options.out / figures["file"], file)
    (HOME / "manifest.toml").write_text(manifest(file), "utf-8")
    (HOME / "figures.json").write_text(json.dumps(figures, indent=1) + "\n", "utf-8")
    card = HOME / "README.md"
    marked = r"(<!-- figures -->\n).*?(\n<!-- end of figures -->)"
    text = re.sub(marked, lambda m: m[1] + table(figures) + m[2], card.read_text("utf-8"), flags=re.S)
    card.write_text(text, "utf-8")
    print(f"{file}: {file.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
