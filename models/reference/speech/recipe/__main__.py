"""The whole recipe with one command, from nothing to an examined model. Run it in models/reference/speech:

    python -m recipe --out build --digits FSDD --clinc FILE      three to four hours on one core
    python -m recipe --out build --smoke                         everything, tiny, in a minute: shows only that it works

It needs libespeak-ng (apt-get install espeak-ng libespeak-ng1) and torch, tokenizers and faster-whisper (extra
`train`). FSDD is the folder `recordings` of the Free Spoken Digit Dataset; without it the model learns no real digits.
FILE is data_full.json of CLINC150, asked for the examination only. Run again after an interruption it goes on from the
last checkpoint.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

CLIPS, STEPS, DIGIT_STEPS = 80000, 12000, 600
TINY = ("--size", "8", "--width", "64", "--layers", "2")


def examine(options: argparse.Namespace, folder: Path, count: int) -> dict[str, Any]:
    from . import evaluate

    examinee = evaluate.Examinee(folder, options.threads)
    figures: dict[str, Any] = {}
    figures["phrases"], inside = evaluate.phrases(examinee, count)
    if options.clinc:
        figures["outside"] = evaluate.outside(examinee, inside, evaluate.elsewhere(options.clinc), count)
    figures["nothing"] = evaluate.nothing(examinee, max(4, count // 4))
    if options.digits:
        figures["digits"] = evaluate.digits(examinee, options.digits)
    return figures


def left_out(options: argparse.Namespace, learn: list[str]) -> dict[str, Any]:
    """For each speaker: learns from the others' digits, hears this one's."""
    from . import data, evaluate, export, train

    figures = {}
    for speaker in sorted({recording.speaker for recording in data.recordings(options.digits)}):
        name, folder = f"without-{speaker}", options.out / f"without-{speaker}"
        train.main([*learn, "--name", name, "--digits", speaker])
        export.main(["--out", str(options.out), "--name", name, "--folder", str(folder)])
        figures[speaker] = evaluate.digits(evaluate.Examinee(folder, options.threads), options.digits, speaker)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("build"))
    parser.add_argument("--digits", type=Path, help="folder of the Free Spoken Digit Dataset")
    parser.add_argument("--clinc", type=Path, help="data_full.json of CLINC150")
    parser.add_argument("--clips", type=int, default=CLIPS)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--count", type=int, default=1000, help="clips of an examination")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--smoke", action="store_true")
    options = parser.parse_args()
    try:
        import torch

        from . import NAME, data, export, train
    except ModuleNotFoundError as missing:
        raise SystemExit(
            f"{missing.name} is not installed; pip install 'outpost-agent[train]' brings what the recipe needs"
        ) from missing

    out = ["--out", str(options.out)]
    tiny = TINY if options.smoke else ()
    clips = 60 if options.smoke else options.clips
    data.main([*out, "--clips", str(clips), *(("--digits", str(options.digits)) if options.digits else ())])
    common = [*out, "--threads", str(options.threads), *tiny]
    train.main([*common, "--steps", "6" if options.smoke else str(options.steps)])
    name, others = "checkpoint", {}
    if options.digits:
        steps = "2" if options.smoke else str(DIGIT_STEPS)
        learn = [*common, "--from", str(options.out / "checkpoint.pt"), "--steps", steps, "--rate", "0.3"]
        others = left_out(options, learn)
        name = "digits"
        train.main([*learn, "--name", name, "--digits", "ALL"])
    folder = options.out / NAME
    export.main([*out, "--name", name])

    saved = torch.load(options.out / f"{name}.pt", map_location="cpu")
    figures: dict[str, Any] = {
        "bytes": sum(path.stat().st_size for path in folder.iterdir()),
        "parameters": sum(v.numel() for n, v in saved["model"].items() if not n.startswith(("ctc", "places"))),
        "steps": saved["step"],
        "clips": saved["heard"],
        "cpu_minutes": round(saved["seconds"] / 60, 1),
    }
    figures |= examine(options, folder, 4 if options.smoke else options.count)
    if others:
        figures["left_out"] = others
    (options.out / "figures.json").write_text(json.dumps(figures, indent=1) + "\n", "utf-8")
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
