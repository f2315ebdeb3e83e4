"""Puts a built model where Outpost finds it: its files, manifest.toml, figures.json and the card's table of figures.

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
FILES = ("model.bin", "config.json", "vocabulary.json", "tokenizer.json", "preprocessor_config.json")
SETS = {
    "seen": "held-out voice variants, seen phrases",
    "unseen": "held-out voice variants, unseen phrases",
    "accents": "held-out accents and variants, seen phrases",
    "clean": "held-out voice variants, seen phrases, undisturbed",
}


def manifest(folder: Path) -> str:
    lines = [
        f'name = "{NAME}"',
        'kind = "speech"',
        'entry = "model.bin"',
        'license = "Apache-2.0"',
        "memory_mb = 60",
        "reference = true",
        "window_s = 8.0  # the encoder has positions for so much; features are cropped to it",
        'description = "Trained here for tests and demos: hears kiosk phrases in English, and spoken digits"',
    ]
    for name in FILES:
        data = (folder / name).read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        lines += ["", "[[files]]", f'path = "{name}"', f'sha256 = "{digest}"', f"size = {len(data)}"]
    return "\n".join(lines) + "\n"


def table(figures: dict[str, Any]) -> str:
    """The card's figures in Markdown."""
    lines = [
        f"{figures['parameters']:,} parameters, {figures['clips'] / 1000:,.0f} thousand clips heard in training, "
        f"{figures['cpu_minutes']:.0f} CPU minutes, {figures['bytes'] / 1e6:.1f} MB.",
        "",
        "| set | clips | word error rate | exact | nothing heard | AUROC, right against wrong |",
        "|---|---|---|---|---|---|",
    ]
    for key, name in SETS.items():
        row = figures["phrases"][key]
        lines.append(
            f"| {name} | {row['clips']} | {row['wer']:.3f} | {row['exact']:.3f} | {row['empty']:.3f} "
            f"| {row['auroc_right_wrong'] or 0:.3f} |"
        )
    lines += ["", "| what is not for it | clips | came back as words | AUROC of log-probability, phrases against it |"]
    lines.append("|---|---|---|---|")
    titles = {
        "english": "other English sentences, held-out variants",
        "abroad": "read by Italian and Dutch voices",
    }
    for key, row in figures.get("outside", {}).items():
        auroc = row["auroc_log_probability"]
        lines.append(f"| {titles[key]} | {row['clips']} | {row['came_back_as_words']:.3f} | {auroc:.3f} |")
    quiet = figures["nothing"]
    lines.append(f"| silence and noise | {quiet['clips']} | {quiet['came_back_as_words'] / quiet['clips']:.3f} | |")
    if "digits" in figures:
        lines += ["", "| real spoken digits | clips | right |", "|---|---|---|"]
        row = figures["digits"]
        lines.append(f"| recordings held out, speakers known | {row['clips']} | {row['right']:.3f} |")
        for speaker, row in figures.get("left_out", {}).items():
            lines.append(f"| trained without {speaker}: all of {speaker} | {row['clips']} | {row['right']:.3f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("build"))
    options = parser.parse_args()
    figures = json.loads((options.out / "figures.json").read_text("utf-8"))
    for name in FILES:
        shutil.copyfile(options.out / NAME / name, HOME / name)
    (HOME / "manifest.toml").write_text(manifest(HOME), "utf-8")
    (HOME / "figures.json").write_text(json.dumps(figures, indent=1) + "\n", "utf-8")
    card = HOME / "README.md"
    marked = r"(<!-- figures -->\n).*?(\n<!-- end of figures -->)"
    text = re.sub(marked, lambda m: m[1] + table(figures) + m[2], card.read_text("utf-8"), flags=re.S)
    card.write_text(text, "utf-8")
    print(f"{HOME}: {sum((HOME / name).stat().st_size for name in FILES) / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
