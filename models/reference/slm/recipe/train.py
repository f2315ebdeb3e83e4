"""Training: packed rows, supervised attention, Muon and AdamW, a curriculum, checkpoints that a later run resumes.

python -m recipe.train --embedding FOLDER --out build --steps 7400 --threads 2
"""

from __future__ import annotations

import argparse
import json
import math
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from . import natural
from .data import Packer, load_tokenizer, train_tokenizer
from .generate import Generator
from .meaning import english, meanings, neighbours
from .model import WATCHED, Model, Muon, Shape
from .natural import Natural

WARM_UP, EMA, CLIP = 60, 0.995, 1.0
MUON_RATE, ADAM_RATE = 0.012, 1.5e-3
OWN_RATE = 5e-4  # of a token's own part: slow, so that words keep their relations while the shared projection moves
LINK, BIND = 0.5, 0.25  # weights of the supervision of attention, beside 1 for the answers'


@dataclass
class Batch:
    tokens: Tensor
    positions: Tensor
    mask: Tensor
    row: Tensor
    at: Tensor
    token: Tensor
    look: Tensor
    firsts: Tensor
    links: Tensor
    binds: Tensor


def block_mask(segment: Tensor, branch: Tensor) -> Tensor:
    """Each question sees its own passage and itself; padding sees itself."""
    length = segment.shape[1]
    same = (segment[:, :, None] == segment[:, None, :]) & (segment[:, None, :] > 0)
    visible = (branch[:, None, :] == 0) | (branch[:, :, None] == branch[:, None, :])
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    return ((same & visible & causal) | torch.eye(length, dtype=torch.bool))[:, None]


def collate(packer: Packer, rows: int) -> Batch:
    arrays = packer.batch(rows)
    t = {name: torch.from_numpy(array) for name, array in arrays.items()}
    row, at, token, look = t["targets"].unbind(1)
    return Batch(
        t["tokens"],
        t["positions"],
        block_mask(t["segment"], t["branch"]),
        row,
        at,
        token,
        look,
        t["firsts"],
        t["links"],
        t["binds"],
    )


def attention_loss(watched: tuple[Tensor, Tensor], mask: Tensor, row: Tensor, at: Tensor, look: Tensor) -> Tensor:
    """Cross-entropy of a head's attention at some positions against where it should look."""
    queries, keys = watched
    scores = torch.einsum("nd,ntd->nt", queries[row, at].float(), keys[row].float()) * queries.shape[-1] ** -0.5
    return F.cross_entropy(scores.masked_fill(~mask[row, 0, at], -1e9), look)


def losses(network: torch.nn.Module, batch: Batch, refusal: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Cross-entropy and attention loss over answer tokens; per answer: is it right, is it a refusal."""
    hidden, table, watched = network(batch.tokens, batch.positions, batch.mask)
    picked = hidden[batch.row, batch.at]
    logits = F.linear(picked, table.to(picked.dtype)).float()
    entropy = F.cross_entropy(logits, batch.token)
    seen = batch.look >= 0
    wanted = {
        "answer": (batch.row[seen], batch.at[seen], batch.look[seen], 0.5),
        "link": (*batch.links.unbind(1), LINK),
        "bind": (*batch.binds.unbind(1), BIND),
    }
    attention = torch.zeros(())
    for name, head in zip(WATCHED, watched, strict=True):
        row, at, look, weight = wanted[name]
        if len(row):
            attention = attention + weight * attention_loss(head, batch.mask, row, at, look)
    right = (logits.argmax(-1) == batch.token).float()
    answer = torch.zeros(len(right), dtype=torch.long)
    answer[batch.firsts[1:]] = 1
    answer = answer.cumsum(0)
    exact = torch.ones(len(batch.firsts)).scatter_reduce(0, answer, right, "amin")
    refused = batch.token[batch.firsts] == refusal
    return entropy, attention, exact, refused


def rate(step: int, steps: int) -> float:
    """Warm-up, plateau, linear decay over the last 45 %."""
    return min(1.0, (step + 1) / WARM_UP) * min(1.0, max(0.02, (steps - step) / (0.45 * steps)))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("build"))
    parser.add_argument("--steps", type=int, default=15500)
    parser.add_argument(
        "--embedding", type=Path, required=True, help="folder of all-MiniLM-L6-v2: model.onnx, tokenizer.json"
    )
    parser.add_argument("--vocabulary", type=int, default=Shape.vocabulary)
    parser.add_argument("--pages", type=int, help="use so many of the natural pages; all without it")
    parser.add_argument("--rows", type=int, default=18)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=20)
    parser.add_argument("--layers", type=int, default=Shape.layers)
    parser.add_argument("--width", type=int, default=Shape.width)
    parser.add_argument("--hidden", type=int, default=Shape.hidden)
    parser.add_argument(
        "--compile", action="store_true", help="torch.compile: one minute of work, then about a third faster"
    )
    parser.add_argument("--level", type=float, default=0.1, help="share of full difficulty to start with")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    options.out.mkdir(parents=True, exist_ok=True)

    path = options.out / "tokenizer.json"
    if not path.exists():
        train_tokenizer(options.vocabulary, options.seed, english(options.embedding)).save(str(path))
    tokenizer = load_tokenizer(path)
    refusal = tokenizer.encode(" I").ids[0]
    shape = Shape(
        vocabulary=tokenizer.get_vocab_size(), width=options.width, layers=options.layers, hidden=options.hidden
    )
    meaning = meanings(options.embedding, tokenizer)
    others = neighbours(tokenizer, meaning)
    model = Model(shape, torch.from_numpy(meaning))
    network: torch.nn.Module = torch.compile(model, dynamic=False) if options.compile else model  # type: ignore[assignment]
    matrices = [p for p in model.blocks.parameters() if p.ndim == 2]
    rest = [p for p in model.parameters() if not any(p is m for m in matrices)]
    own = [model.embedding.weight]
    rest = [p for p in rest if p is not own[0]]
    adam = {"betas": (0.9, 0.98), "weight_decay": 0.0}
    optimisers = [
        Muon(matrices, MUON_RATE),
        torch.optim.AdamW(rest, ADAM_RATE, **adam),
        torch.optim.AdamW(own, OWN_RATE, **adam),
    ]
    average = {name: value.clone() for name, value in model.state_dict().items()}
    step, level, tokens, seconds = 0, options.level, 0, 0.0
    checkpoint = options.out / "checkpoint.pt"
    if checkpoint.exists():
        saved = torch.load(checkpoint)
        model.load_state_dict(saved["model"])
        average, step, level, tokens, seconds = (
            saved["average"],
            saved["step"],
            saved["level"],
            saved["tokens"],
            saved["seconds"],
        )
        for optimiser, state in zip(optimisers, saved["optimisers"], strict=True):
            optimiser.load_state_dict(state)
    begun = step
    seed = options.seed * 1000 + 1 + step
    pages = natural.load(options.embedding, most=options.pages)
    packer = Packer(tokenizer, Generator(seed, "train", level, others), Natural(pages, seed, others))
    print(json.dumps({"parameters": sum(p.numel() for p in model.parameters()), "from_step": step}), flush=True)

    def save() -> None:
        state = {
            "model": model.state_dict(),
            "average": average,
            "shape": shape.as_dict(),
            "step": step,
            "level": level,
            "tokens": tokens,
            "seconds": seconds,
            "optimisers": [o.state_dict() for o in optimisers],
        }
        torch.save(state, checkpoint.with_suffix(".part"))
        checkpoint.with_suffix(".part").rename(checkpoint)

    accuracy, refusals, mean = 0.0, 0.0, 0.0
    clock = time.process_time()
    wall = time.monotonic()
    stopping: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stopping.append(number))  # saves, then ends
    while step < options.steps and not stopping:
        batch = collate(packer, options.rows)
        factor = rate(step, options.steps)
        for optimiser, base in zip(optimisers, (MUON_RATE, ADAM_RATE, OWN_RATE), strict=True):
            for group in optimiser.param_groups:
                group["lr"] = base * factor
        with torch.autocast("cpu", torch.bfloat16):
            entropy, attention, exact, refused = losses(network, batch, refusal)
        weight = 0.1 + 0.9 * max(0.0, 1 - step / (0.6 * options.steps))
        loss = entropy + weight * attention
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
        tokens += int((batch.mask[:, 0].sum(-1) > 1).sum())
        mixing = 1 / min(50, step - begun)
        accuracy += mixing * (float(exact[~refused].mean()) - accuracy)
        refusals += mixing * (float(exact[refused].mean()) - refusals)
        mean += mixing * (float(entropy.detach()) - mean)
        if accuracy > 0.8:
            level += 0.004
        level = min(1.0, max(level, (step / options.steps - 0.08) / 0.35))
        packer.generator.level = level
        if not math.isfinite(float(loss.detach())):
            raise SystemExit(f"loss is {float(loss.detach())} at step {step}; start again with another --seed")
        if step % 20 == 0:
            print(
                json.dumps(
                    {
                        "step": step,
                        "loss": round(mean, 4),
                        "attention": round(float(attention.detach()), 3),
                        "answers": round(accuracy, 3),
                        "refusals": round(refusals, 3),
                        "level": round(level, 2),
                        "tokens": tokens,
                        "wall": round(time.monotonic() - wall),
                        "cpu": round(seconds + time.process_time() - clock),
                    }
                ),
                flush=True,
            )
        if step % 200 == 0 or step == options.steps or stopping:
            now = time.process_time()
            seconds, clock = seconds + now - clock, now
            save()


if __name__ == "__main__":
    main()
