"""Training: batches of like length, log-mel augmented anew each time, cross-entropy and CTC over phonemes.

    python -m recipe.train --out build --steps 12000                       on synthesised speech
    python -m recipe.train --out build --from checkpoint.pt --name digits --digits ALL --steps 800 --rate 0.3

Resumes from its last checkpoint; SIGTERM saves and ends. Clips that are added to build/clips meanwhile are taken up.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .data import WINDOW_S, Clip
from .model import FRAMES_A_POSITION, Model, Shape
from .text import Text, train_tokenizer

WARM_UP, EMA, CLIP = 200, 0.998, 1.0
MUON_RATE, ADAM_RATE = 2e-3, 1.5e-3
CTC = 0.3
FRAMES = int(WINDOW_S * 100)
EDGE = 40  # windows are multiples of so many frames
IGNORED = -100
SYMBOLS = " @0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"  # the CTC head's, after its blank


@dataclass
class Batch:
    mel: Tensor
    tokens: Tensor
    targets: Tensor
    phonemes: Tensor
    lengths: Tensor  # of phonemes; 0 where they are unknown


class Clips:
    """Shards of a folder, mapped into memory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.read: set[str] = set()
        self.clips: list[tuple[Clip, np.ndarray, int]] = []

    def refresh(self) -> None:
        for path in sorted(self.folder.glob("[0-9]*.json")):
            if path.name not in self.read:
                self.read.add(path.name)
                frames = np.load(path.with_suffix(".npy"), mmap_mode="r")
                at = 0
                for entry in json.loads(path.read_text("utf-8")):
                    clip = Clip(**entry)
                    self.clips.append((clip, frames, at))
                    at += clip.frames


class Batches:
    """Endless batches. `real` clips (digits of people) make up `share` of each where there are any."""

    def __init__(self, clips: Clips, text: Text, size: int, seed: int, real: Clips | None = None, share: float = 0.4):
        self.clips, self.text, self.size, self.real, self.share = clips, text, size, real, share
        self.rng = random.Random(seed)
        self.generator = torch.Generator().manual_seed(seed)
        self.queue: list[list[tuple[Clip, np.ndarray, int]]] = []

    def __next__(self) -> Batch:
        if not self.queue:
            self.clips.refresh()
            count = self.size * 8
            genuine = round(count * self.share) if self.real else 0
            drawn = self.rng.choices(self.clips.clips, k=count - genuine)
            if self.real:
                drawn += self.rng.choices(self.real.clips, k=genuine)
            drawn.sort(key=lambda entry: entry[0].frames)
            self.queue = [drawn[at : at + self.size] for at in range(0, count, self.size)]
            self.rng.shuffle(self.queue)
        return self.collate(self.queue.pop())

    def collate(self, drawn: list[tuple[Clip, np.ndarray, int]]) -> Batch:
        mels, tokens, targets, phonemes, lengths = [], [], [], [], []
        for clip, frames, at in drawn:
            mel = torch.from_numpy(frames[at : at + clip.frames].astype(np.float32)).T
            mel, stretch = vary(mel, self.generator, self.rng)
            mels.append(mel)
            ids, wanted = self.sequence(clip, stretch)
            tokens.append(ids)
            targets.append(wanted)
            known = [SYMBOLS.index(s) + 1 for s in clip.phonemes or "" if s in SYMBOLS]
            phonemes.append(known)
            lengths.append(len(known))
        longest = max(mel.shape[1] for mel in mels)
        window = min(FRAMES, -(-longest // EDGE) * EDGE)
        draw = self.rng.random()
        if draw < 0.07:
            window = FRAMES
        elif draw < 0.15:
            window = self.rng.randrange(window, FRAMES + 1, EDGE)
        batch = torch.zeros(len(mels), mels[0].shape[0], window)  # padded as engines pad: with zeros
        for row, mel in enumerate(mels):
            batch[row, :, : mel.shape[1]] = mel[:, :window]
        return Batch(
            batch, rows(tokens, self.text.end), rows(targets, IGNORED), rows(phonemes, 0), torch.tensor(lengths)
        )

    def sequence(self, clip: Clip, stretch: float) -> tuple[list[int], list[int]]:
        """Tokens to read and the ones to say after each; what precedes the transcript is not asked for."""
        text, rng = self.text, self.rng
        before: list[int] = []
        if rng.random() < 0.12:  # a prompt: mostly other phrases, sometimes words to expect
            said = [rng.choice(self.clips.clips)[0].text for _ in range(rng.randint(1, 3))]
            if rng.random() < 0.3:
                said.append(clip.text)
            rng.shuffle(said)
            before = [text.previous, *(token for part in said if part for token in text.encode(part))]
        words = text.encode(clip.text) if clip.text else []
        first = text.stamp(clip.begin * stretch) if clip.text else text.silent
        if rng.random() < 0.3:
            last = [text.stamp(clip.end * stretch)] if clip.text else []
            begin = first if clip.text else text.stamp(0)
            ids, wanted = [text.start, begin, *words, *last], [first, *words, *last, text.end]
        else:
            ids, wanted = [text.start, text.untimed, *words], [first, *words, text.end]
        return before + ids, [IGNORED] * len(before) + wanted


def rows(lists: list[list[int]], fill: int) -> Tensor:
    out = torch.full((len(lists), max(1, *(len(row) for row in lists))), fill)
    for at, row in enumerate(lists):
        out[at, : len(row)] = torch.tensor(row, dtype=torch.long)
    return out


def vary(mel: Tensor, generator: torch.Generator, rng: random.Random) -> tuple[Tensor, float]:
    """Another throat, pace, distance, colour and noise floor; holes in time and pitch. Returns the change of pace."""
    stretch = 1.0
    bins, frames = mel.shape
    if rng.random() < 0.4 and frames < FRAMES * 0.8:
        stretch = rng.uniform(0.85, 1.2)
        mel = F.interpolate(mel[None], scale_factor=stretch, mode="linear", recompute_scale_factor=True)[0]
        stretch, frames = mel.shape[1] / frames, mel.shape[1]
    if rng.random() < 0.5:  # vocal tract length
        at = (torch.arange(bins) * rng.uniform(0.87, 1.14)).clamp(max=bins - 1)
        low = at.long().clamp(max=bins - 2)
        mel = torch.lerp(mel[low], mel[low + 1], (at - low)[:, None])
    if rng.random() < 0.5:
        knots = torch.randn(1, 1, rng.randint(3, 9), generator=generator) * rng.uniform(0, 0.12)
        colour = F.interpolate(knots, size=bins, mode="linear", align_corners=True)[0, 0]
        mel = mel + colour[:, None] + rng.gauss(0, 0.15)
    if rng.random() < 0.25:
        floor = float(mel.max()) - rng.uniform(0.6, 1.9)
        noise = floor + 0.06 * torch.randn(mel.shape, generator=generator)
        mel = torch.logaddexp(mel * 9.21, noise * 9.21) / 9.21  # four decades of power to a unit
    mel = mel.clamp(min=float(mel.max()) - 2.0)
    if rng.random() < 0.5:
        mel = mel.clone()
        mean = float(mel.mean())
        for _ in range(rng.randint(1, 2)):
            at, size = rng.randrange(bins), rng.randint(1, 9)
            mel[at : at + size] = mean
        for _ in range(rng.randint(0, 2)):
            at, size = rng.randrange(frames), rng.randint(1, 10)
            mel[:, at : at + size] = mean
    return mel[:, :FRAMES], stretch


def losses(network: torch.nn.Module, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Cross-entropy, CTC loss a symbol, and which clips are all right."""
    logits, symbols = network(batch.mel, batch.tokens)
    entropy = F.cross_entropy(logits.float().flatten(0, 1), batch.targets.flatten(), ignore_index=IGNORED)
    known = batch.lengths > 0
    ctc = torch.zeros(())
    if known.any():
        scores = symbols[known].float().log_softmax(-1).transpose(0, 1)
        frames = torch.full((int(known.sum()),), batch.mel.shape[2] // FRAMES_A_POSITION)
        ctc = F.ctc_loss(scores, batch.phonemes[known], frames, batch.lengths[known], zero_infinity=True)
    spoken = batch.targets.clone()
    spoken[spoken >= logits.shape[-1] - FRAMES // 2 - 1] = IGNORED  # times count no more than nearly
    right = ((logits.argmax(-1) == spoken) | (spoken == IGNORED)).all(1)
    return entropy, ctc, right


def rate(step: int, steps: int) -> float:
    """Warm-up, plateau, linear decay over the last half."""
    return min(1.0, (step + 1) / min(WARM_UP, 1 + steps // 10)) * min(1.0, max(0.01, (steps - step) / (0.5 * steps)))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("build"))
    parser.add_argument("--name", default="checkpoint")
    parser.add_argument("--from", dest="origin", type=Path, help="start from the weights of this checkpoint")
    parser.add_argument("--digits", help="add real digits: ALL, or all speakers but this one")
    parser.add_argument("--steps", type=int, default=12000)
    parser.add_argument("--size", type=int, default=64, help="clips of a batch")
    parser.add_argument("--rate", type=float, default=1.0, help="share of the full learning rate")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=4)
    parser.add_argument("--width", type=int, default=Shape.width)
    parser.add_argument("--layers", type=int, default=Shape.encoder_layers)
    parser.add_argument("--adam", action="store_true", help="AdamW for everything")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    options.out.mkdir(parents=True, exist_ok=True)
    if not (options.out / "tokenizer.json").exists():
        train_tokenizer(options.out / "tokenizer.json")
    text = Text(options.out / "tokenizer.json")
    shape = Shape(
        len(text),
        width=options.width,
        heads=options.width // 32,
        hidden=4 * options.width,
        encoder_layers=options.layers,
        symbols=len(SYMBOLS) + 1,
    )
    model = Model(shape)
    matrices = [p for b in (*model.encoder, *model.decoder) for p in b.parameters() if p.ndim == 2]
    if options.adam:
        matrices = []
    rest = [p for p in model.parameters() if not any(p is m for m in matrices)]
    optimisers: list[torch.optim.Optimizer] = [torch.optim.AdamW(rest, ADAM_RATE, (0.9, 0.98), weight_decay=0.0)]
    if matrices:
        optimisers.append(torch.optim.Muon(matrices, MUON_RATE, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"))
    bases = [ADAM_RATE, MUON_RATE]
    step, seconds, heard = 0, 0.0, 0
    checkpoint = options.out / f"{options.name}.pt"
    if checkpoint.exists():
        saved = torch.load(checkpoint)
        model.load_state_dict(saved["model"])
        average, step, seconds, heard = saved["average"], saved["step"], saved["seconds"], saved["heard"]
        for optimiser, state in zip(optimisers, saved["optimisers"], strict=True):
            optimiser.load_state_dict(state)
    else:
        if options.origin:
            origin = torch.load(options.origin)
            model.load_state_dict(origin["average"])
            seconds, heard = origin["seconds"], origin["heard"]
        average = {name: value.clone() for name, value in model.state_dict().items()}
    real = None
    if options.digits:
        real = Clips(options.out / "clips" / "digits")
        real.refresh()
        real.clips = [entry for entry in real.clips if entry[0].voice != options.digits]
    batches = Batches(Clips(options.out / "clips"), text, options.size, options.seed * 1000 + step, real)
    print(json.dumps({"parameters": sum(p.numel() for p in model.parameters()), "from_step": step}), flush=True)

    def save() -> None:
        state = {
            "model": model.state_dict(),
            "average": average,
            "shape": shape.as_dict(),
            "step": step,
            "seconds": seconds,
            "heard": heard,
            "optimisers": [o.state_dict() for o in optimisers],
        }
        torch.save(state, checkpoint.with_suffix(".part"))
        checkpoint.with_suffix(".part").rename(checkpoint)

    right, mean, other = 0.0, 0.0, 0.0
    clock, wall, begun = time.process_time(), time.monotonic(), step
    saved_at = wall
    stopping: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stopping.append(number))  # saves, then ends
    while step < options.steps and not stopping:
        batch = next(batches)
        factor = options.rate * rate(step, options.steps)
        for optimiser, base in zip(optimisers, bases, strict=False):
            for group in optimiser.param_groups:
                group["lr"] = base * factor
        with torch.autocast("cpu", torch.bfloat16):
            entropy, ctc, exact = losses(model, batch)
        loss = entropy + CTC * ctc
        if not math.isfinite(float(loss.detach())):
            raise SystemExit(f"loss is {float(loss.detach())} at step {step}; start again with another --seed")
        model.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        for optimiser in optimisers:
            optimiser.step()
        decay = min(EMA, (step + 1) / (step + 10))
        with torch.no_grad():
            for name, value in model.named_parameters():
                average[name].lerp_(value, 1 - decay)
        step += 1
        heard += len(batch.mel)
        mixing = 1 / min(50, step - begun)
        right += mixing * (float(exact.float().mean()) - right)
        mean += mixing * (float(entropy.detach()) - mean)
        other += mixing * (float(ctc.detach()) - other)
        if step % 20 == 0:
            line = {"step": step, "loss": round(mean, 4), "ctc": round(other, 3), "right": round(right, 3)}
            used = round(seconds + time.process_time() - clock)
            print(json.dumps(line | {"wall": round(time.monotonic() - wall), "cpu": used}), flush=True)
        if time.monotonic() - saved_at > 150 or step == options.steps or stopping:
            now = time.process_time()
            seconds, clock, saved_at = seconds + now - clock, now, time.monotonic()
            save()


if __name__ == "__main__":
    main()
