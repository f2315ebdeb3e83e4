"""Clips for training: synthesised, disturbed, turned into log-mel by faster-whisper's own extractor, kept on disk.

    python -m recipe.data --out build --clips 80000        goes on where it was interrupted

A shard is clips/NNNN.npy, float16 frames of all its clips one after the other, and clips/NNNN.json about each clip.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import wave
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from faster_whisper.feature_extractor import FeatureExtractor

from . import augment
from .grammar import load, spoken
from .voices import ABROAD, Espeak

SHARD = 400  # clips
WINDOW_S = 8.0
NATURAL = Path(__file__).parents[2] / "natural-train"
TESTED = range(5)  # recordings of each digit and speaker that training never hears
KINDS = {"phrase": 0.60, "walk": 0.12, "begun": 0.08, "other": 0.13, "abroad": 0.03, "noise": 0.04}


@dataclass(frozen=True)
class Clip:
    """About one clip; `text` is empty for what is no phrase of ours, `phonemes` is None where nobody knows them."""

    kind: str
    text: str
    phonemes: str | None
    voice: str
    begin: float  # of the speech, seconds
    end: float
    frames: int


def plain(text: str) -> str:
    """Small letters and apostrophes, one space between words."""
    return " ".join(re.sub(r"[^a-z' ]", " ", text.lower().replace("’", "'")).split())


def others() -> list[str]:
    """Sentences outside the grammar: parts of natural pages, at least a third of whose words no phrase has."""
    known = load().words()
    found: set[str] = set()
    for page in sorted((NATURAL / "pages").glob("*.md")):
        for sentence in re.split(r"(?<=[.!?:;])\s|\n|\|", page.read_text("utf-8")):
            words = plain(sentence).split()
            for at in range(0, len(words), 9):
                part = words[at : at + 9]
                if len(part) >= 3 and sum(word not in known for word in part) >= len(part) / 3:
                    found.add(" ".join(part))
    return sorted(found)


class Synthesiser:
    """Endless clips; the same seed makes the same ones."""

    def __init__(self, seed: int, espeak: Espeak | None = None) -> None:
        self.rng = random.Random(seed)
        self.numpy = np.random.default_rng(seed)
        self.espeak = espeak or Espeak()
        self.grammar = load()
        self.others = others()
        self.features = FeatureExtractor()
        self.babble = np.zeros(0, np.float32)

    def clip(self) -> tuple[np.ndarray, Clip]:
        """Frames (n, 80) and what they hold."""
        kind = self.rng.choices(list(KINDS), list(KINDS.values()))[0]
        if kind == "noise":
            count = int(min(self.rng.expovariate(0.5) + 0.3, WINDOW_S - 0.1) * augment.RATE)
            quiet = self.rng.random() < 0.3
            samples = augment.noise(self.numpy, count) * 10 ** self.rng.uniform(-4.5, -0.8)
            samples = np.clip(samples * (0.01 if quiet else 1.0), -1, 1)
            if self.rng.random() < 0.1:
                samples[:] = 0
            return self._finish(samples, kind, "", "", "", 0.0, 0.0)
        text = self._text(kind)
        voice = self.espeak.voice(self.rng, accents=ABROAD) if kind == "abroad" else self.espeak.voice(self.rng)
        samples, rate = self.espeak.say(spoken(text), voice)
        if kind == "begun":
            text, samples = self._cut(text, samples, rate)
        samples = augment.resample(samples, rate * self.rng.choice((1.0, self.rng.uniform(0.88, 1.13))))
        samples = samples[: int(WINDOW_S * augment.RATE) - 800]
        if not samples.any():
            return self.clip()
        duration = len(samples) / augment.RATE
        placed, begin = augment.place(self.numpy, samples, longest=WINDOW_S - 0.05)
        if self.rng.random() < 0.3:
            self.babble = np.resize(samples, 5 * augment.RATE) + 0.5 * np.resize(self.babble[::-1], 5 * augment.RATE)
        placed = augment.disturb(self.numpy, placed, self.babble)
        phonemes = None if kind == "abroad" else symbols(self.espeak.phonemes(spoken(text)))
        ours = kind in ("phrase", "walk", "begun")
        return self._finish(placed, kind, text if ours else "", phonemes, voice.name, begin, begin + duration)

    def _text(self, kind: str) -> str:
        if kind in ("phrase", "begun"):
            return self.grammar.phrase(self.rng)
        if kind == "walk":
            return self.grammar.walk(self.rng)
        if self.rng.random() < 0.2:  # words that do not exist
            return " ".join(
                "".join(
                    self.rng.choice(("b", "k", "st", "f", "l", "m", "tr", "sh", "n", "g", ""))
                    + self.rng.choice("aeiou")
                    for _ in range(self.rng.randint(1, 3))
                )
                + self.rng.choice(("n", "t", "s", "r", "", ""))
                for _ in range(self.rng.randint(2, 6))
            )
        words = self.rng.choice(self.others).split()
        return " ".join(words[: self.rng.randint(3, 9)])

    def _cut(self, text: str, samples: np.ndarray, rate: int) -> tuple[str, np.ndarray]:
        """The phrase as far as a microphone has heard it: ends between two words."""
        if text != spoken(text):
            return text, samples
        starts = [at for at in self.espeak.words if at > 0 and text[at - 1] == " "]
        if not starts:
            return text, samples
        at = self.rng.choice(starts)
        return text[:at].strip(), samples[: int(self.espeak.words[at] * rate)]

    def _finish(
        self, samples: np.ndarray, kind: str, text: str, phonemes: str | None, voice: str, begin: float, end: float
    ) -> tuple[np.ndarray, Clip]:
        frames = self.features(samples.astype(np.float32))[:, :-1].T
        return frames.astype(np.float16), Clip(
            kind, text, phonemes, voice, round(float(begin), 2), round(float(end), 2), len(frames)
        )


def symbols(phonemes: str) -> str:
    """Phonemes without stress, length and linking marks."""
    return re.sub(r"[^\w@ ]|_", "", phonemes)


def write_shard(folder: Path, number: int, clips: list[tuple[np.ndarray, Clip]]) -> None:
    np.save(folder / f"{number:04}.part.npy", np.concatenate([frames for frames, _ in clips]))
    (folder / f"{number:04}.part.npy").rename(folder / f"{number:04}.npy")
    about = json.dumps([asdict(clip) for _, clip in clips])
    (folder / f"{number:04}.part").write_text(about, "utf-8")
    (folder / f"{number:04}.part").rename(folder / f"{number:04}.json")


# -- real digits -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Recording:
    path: Path
    digit: int
    speaker: str
    number: int

    @property
    def tested(self) -> bool:
        return self.number in TESTED

    def samples(self) -> np.ndarray:
        """At 16 kHz, full scale kept."""
        with wave.open(str(self.path)) as file:
            data = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / 32768
            return augment.resample(data, file.getframerate())


def recordings(folder: Path) -> list[Recording]:
    """All of the Free Spoken Digit Dataset that is in `folder`."""
    found = []
    for path in sorted(folder.glob("*.wav")):
        digit, speaker, number = path.stem.split("_")
        found.append(Recording(path, int(digit), speaker, int(number)))
    return found


def real_clips(folder: Path, copies: int, seed: int) -> Iterator[tuple[np.ndarray, Clip]]:
    """Digits for training, each disturbed anew in every copy; now and then two of a speaker one after the other."""
    from .grammar import ONES

    rng, numpy = random.Random(seed), np.random.default_rng(seed)
    features, espeak = FeatureExtractor(), Espeak()
    chosen = [r for r in recordings(folder) if not r.tested]
    for _ in range(copies):
        for first in chosen:
            said = [first]
            while rng.random() < 0.25 and len(said) < 5:
                said.append(rng.choice([r for r in chosen if r.speaker == first.speaker]))
            parts = []
            for recording in said:
                parts += [recording.samples(), np.zeros(int(rng.uniform(0, 0.3) * augment.RATE), np.float32)]
            samples = np.concatenate(parts[:-1])
            speed = rng.choice((1.0, rng.uniform(0.85, 1.18)))
            samples = augment.resample(samples, augment.RATE * speed)[: int((WINDOW_S - 0.1) * augment.RATE)]
            placed, begin = augment.place(numpy, samples, longest=WINDOW_S - 0.05)
            placed = augment.disturb(numpy, placed)
            text = " ".join(ONES[r.digit] for r in said)
            frames = features(placed)[:, :-1].T.astype(np.float16)
            end = begin + len(samples) / augment.RATE
            phonemes = symbols(espeak.phonemes(text))
            yield (
                frames,
                Clip("digit", text, phonemes, first.speaker, round(float(begin), 2), round(float(end), 2), len(frames)),
            )


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("build"))
    parser.add_argument("--clips", type=int, default=80000)
    parser.add_argument("--digits", type=Path, help="folder of the Free Spoken Digit Dataset")
    parser.add_argument("--copies", type=int, default=6, help="of every real recording")
    options = parser.parse_args(arguments)
    folder = options.out / "clips"
    folder.mkdir(parents=True, exist_ok=True)
    espeak = Espeak()
    if options.digits and not (folder / "digits" / "0000.json").exists():
        (folder / "digits").mkdir(exist_ok=True)
        write_shard(folder / "digits", 0, list(real_clips(options.digits, options.copies, seed=11)))
    for number in range(-(-options.clips // SHARD)):
        if not (folder / f"{number:04}.json").exists():
            synthesiser = Synthesiser(1_000 + number, espeak)
            count = min(SHARD, options.clips - number * SHARD)
            write_shard(folder, number, [synthesiser.clip() for _ in range(count)])
            print(json.dumps({"shard": number}), flush=True)


if __name__ == "__main__":
    main()
