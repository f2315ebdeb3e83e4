"""Examines an exported folder through faster-whisper: voices, phrases, people and sources that training never heard.

    python -m recipe.evaluate build/outpost-reference-speech --digits FOLDER --clinc FILE --count 500

Word error rate is over all words of a set: substitutions, insertions and deletions by the words that were said.
"""

from __future__ import annotations

import argparse
import json
import random
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ctranslate2
import numpy as np
from faster_whisper import WhisperModel
from faster_whisper.audio import pad_or_trim

from . import augment
from .data import WINDOW_S, plain, recordings
from .grammar import ONES, load, spoken
from .voices import ABROAD_HELD, ACCENTS, HELD_ACCENTS, Espeak, Voice

SEED = 900_001  # never used in training
FRAMES = int(WINDOW_S * 100)
MOST_TOKENS = 120  # CTranslate2 stops at about half of what it is told
NO_TEXT = -10.0  # stands for the log-probability of a transcript without words


class Windowed(WhisperModel):
    """faster-whisper pads to 30 s; this model has positions for its own window."""

    def encode(self, features: np.ndarray) -> ctranslate2.StorageView:
        return super().encode(np.ascontiguousarray(pad_or_trim(features, FRAMES)))


@dataclass(frozen=True)
class Heard:
    text: str
    confidence: float  # mean log-probability of the tokens
    silent: float  # chance that nothing was said


class Examinee:
    def __init__(self, folder: Path, threads: int = 1, compute_type: str = "int8") -> None:
        self.model = Windowed(
            str(folder), device="cpu", compute_type=compute_type, cpu_threads=threads, local_files_only=True
        )

    def hear(self, samples: np.ndarray, beam: int = 5) -> Heard:
        """What faster-whisper makes of it with a prompt without timestamps."""
        segments, _ = self.model.transcribe(
            samples,
            beam_size=beam,
            without_timestamps=True,
            chunk_length=int(WINDOW_S),
            temperature=0.0,
            max_new_tokens=MOST_TOKENS,
        )
        found = list(segments)
        if not found:
            return Heard("", NO_TEXT, 1.0)
        weights = [max(1, len(segment.tokens)) for segment in found]
        mean = sum(s.avg_logprob * w for s, w in zip(found, weights, strict=True)) / sum(weights)
        return Heard(plain(" ".join(s.text for s in found)), mean, max(s.no_speech_prob for s in found))


def distance(said: list[str], heard: list[str]) -> int:
    """Substitutions, insertions and deletions of words."""
    row = list(range(len(heard) + 1))
    for at, word in enumerate(said, 1):
        last, row[0] = row[0], at
        for other, found in enumerate(heard, 1):
            last, row[other] = row[other], min(row[other] + 1, row[other - 1] + 1, last + (word != found))
    return row[-1]


def auroc(positive: list[float], negative: list[float]) -> float | None:
    """Chance that one of the first scores above one of the second; None where there are none."""
    if not positive or not negative:
        return None
    values = np.array(negative)
    return round(float(np.mean([(p > values).mean() + 0.5 * (p == values).mean() for p in positive])), 4)


class Tally:
    """One set: words right and wrong, and the confidences of clips heard exactly and not."""

    def __init__(self) -> None:
        self.clips = self.exact = self.words = self.wrong = self.empty = 0
        self.right_scores: list[float] = []
        self.wrong_scores: list[float] = []

    def add(self, said: str, heard: Heard) -> None:
        self.clips += 1
        self.words += len(said.split())
        self.wrong += distance(said.split(), heard.text.split())
        self.empty += not heard.text
        good = said == heard.text
        self.exact += good
        (self.right_scores if good else self.wrong_scores).append(heard.confidence)

    def figures(self) -> dict[str, Any]:
        return {
            "clips": self.clips,
            "wer": round(self.wrong / max(1, self.words), 4),
            "exact": round(self.exact / max(1, self.clips), 4),
            "empty": round(self.empty / max(1, self.clips), 4),
            "auroc_right_wrong": auroc(self.right_scores, self.wrong_scores),
        }


class Studio:
    """Test clips: voices as told, rooms and lines as in training, of another seed."""

    def __init__(self, seed: int = SEED) -> None:
        self.rng, self.numpy = random.Random(seed), np.random.default_rng(seed)
        self.espeak, self.grammar = Espeak(), load()

    def record(self, text: str, voice: Voice, clean: bool = False) -> np.ndarray:
        samples, rate = self.espeak.say(spoken(text), voice)
        samples = augment.resample(samples, rate)[: int((WINDOW_S - 0.1) * augment.RATE)]
        placed, _ = augment.place(self.numpy, samples, longest=WINDOW_S - 0.05)
        return placed if clean else augment.disturb(self.numpy, placed)

    def held(self, accents: tuple[str, ...] = ACCENTS) -> Voice:
        return self.espeak.voice(self.rng, held=True, accents=accents)


def phrases(examinee: Examinee, count: int, show: int = 0) -> tuple[dict[str, Any], list[float]]:
    """Held-out variants with seen and unseen phrases, held-out accents, undisturbed speech; confidences of two."""
    sets = {
        "seen": (False, ACCENTS, False),
        "unseen": (True, ACCENTS, False),
        "accents": (False, HELD_ACCENTS, False),
        "clean": (False, ACCENTS, True),
    }
    figures: dict[str, Any] = {}
    scores: list[float] = []
    for name, (held, accents, clean) in sets.items():
        studio, tally = Studio(), Tally()
        for _ in range(count):
            said = studio.grammar.phrase(studio.rng, held)
            heard = examinee.hear(studio.record(said, studio.held(accents), clean))
            tally.add(said, heard)
            if name in ("seen", "unseen"):
                scores.append(heard.confidence)
            if show and heard.text != said and tally.clips < show:
                print(f"{name:8} {said!r} -> {heard.text!r} {heard.confidence:.2f} {heard.silent:.2f}")
        figures[name] = tally.figures()
    return figures, scores


def elsewhere(file: Path) -> list[str]:
    """Sentences of CLINC150 with two words or more that no kiosk phrase has: banking, cooking, cars and the like."""
    data = json.loads(file.read_text("utf-8"))
    known = load().words()
    found = {plain(text) for part in data.values() for text, _ in part}
    return sorted(
        text for text in found if 3 <= len(text.split()) <= 12 and sum(w not in known for w in text.split()) >= 2
    )


def outside(examinee: Examinee, inside: list[float], texts: list[str], count: int, show: int = 0) -> dict[str, Any]:
    """Speech that is no phrase: how much comes back as words, and does log-probability tell it from phrases?"""
    figures: dict[str, Any] = {}
    for name, accents in (("english", ACCENTS), ("abroad", ABROAD_HELD)):
        studio = Studio(SEED + 1)
        scores, wordy = [], 0
        for _ in range(count if name == "english" else count // 4):
            said = studio.rng.choice(texts)
            heard = examinee.hear(studio.record(said, studio.held(accents)))
            scores.append(heard.confidence)
            wordy += bool(heard.text)
            if show and heard.text and wordy < show:
                print(f"{name:8} {said!r} -> {heard.text!r} {heard.confidence:.2f} {heard.silent:.2f}")
        figures[name] = {
            "clips": len(scores),
            "came_back_as_words": round(wordy / len(scores), 4),
            "auroc_log_probability": auroc(inside, scores),
        }
    return figures


def nothing(examinee: Examinee, count: int) -> dict[str, Any]:
    """Silence and noise of all colours: how many came back as words."""
    numpy, wordy = np.random.default_rng(SEED), 0
    for _ in range(count):
        samples = augment.noise(numpy, int(numpy.uniform(0.5, WINDOW_S) * augment.RATE))
        samples = np.clip(samples * 10 ** numpy.uniform(-4.5, -0.8), -1, 1).astype(np.float32)
        wordy += bool(examinee.hear(samples).text)
    wordy += bool(examinee.hear(np.zeros(2 * augment.RATE, np.float32)).text)
    return {"clips": count + 1, "came_back_as_words": wordy}


def digits(examinee: Examinee, folder: Path, speaker: str | None = None) -> dict[str, Any]:
    """Real digits: recordings that training never heard, or all of one speaker's."""
    right: dict[str, list[bool]] = defaultdict(list)
    for recording in recordings(folder):
        if recording.speaker == speaker or (speaker is None and recording.tested):
            heard = examinee.hear(recording.samples())
            right[recording.speaker].append(heard.text == ONES[recording.digit])
    every = [good for part in right.values() for good in part]
    return {
        "clips": len(every),
        "right": round(float(np.mean(every)), 4),
        "by_speaker": {name: round(float(np.mean(part)), 3) for name, part in right.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=400)
    parser.add_argument("--digits", type=Path, help="folder of the Free Spoken Digit Dataset")
    parser.add_argument("--speaker", help="examine all recordings of this speaker, who was left out of training")
    parser.add_argument(
        "--clinc", type=Path, help="data_full.json of CLINC150: sentences for speech outside the grammar"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--show", type=int, default=0, help="print this many mistakes of each set")
    options = parser.parse_args()
    examinee = Examinee(options.folder, options.threads)
    figures: dict[str, Any] = {}
    if options.speaker:
        figures["left_out"] = {options.speaker: digits(examinee, options.digits, options.speaker)}
    else:
        figures["phrases"], inside = phrases(examinee, options.count, options.show)
        if options.clinc:
            figures["outside"] = outside(examinee, inside, elsewhere(options.clinc), options.count, options.show)
        figures["nothing"] = nothing(examinee, max(4, options.count // 4))
        if options.digits:
            figures["digits"] = digits(examinee, options.digits)
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
