"""Train the ranking model on candidates that `prepare.py` wrote (workstation side, needs torch; a device never does).

    python models/reference/ranker/recipe/train.py --base FOLDER --train train.jsonl [--dev dev.jsonl] --out FOLDER

FOLDER of the base holds all-MiniLM-L6-v2 (model.safetensors, tokenizer.json). Question and candidate go through the
encoder together, each as the base reads it alone; attention across the two starts nearly closed (CLOSED, one gate a
head), so training starts from the base's cosine. The pair's logit is added to the linear ranker's score of the
candidate, so the encoder learns what that gets wrong. Loss: one softmax over the question's candidates and "none of
them" (logit 0), which is the target where the page does not answer and where the evidence has been left out on purpose.
Word embeddings stay frozen; no early stopping. The same seed, torch and thread count give the same weights.

The committed weights: three epochs at 5e-5. The gates stayed where they began and the product's weights uniform, so
`export.py` keeps the encoder alone (README.md).
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional

QUESTION_TOKENS, TEXT_TOKENS = 40, 96
LAYERS, HEADS, HIDDEN = 6, 12, 384
DROPOUT = 0.1
NEGATIVES = 4
CLOSED = -4.0
COSINE = 4.0
HARDEST = 12
LEFT_OUT = 0.2
"""Share of answerable questions that are shown without their evidence: what remains are near misses."""
FRESH = ("head", "linear", "product", "alone")
DTYPES = {"F32": np.float32, "F16": np.float16}


@dataclass(frozen=True)
class Case:
    """A question and its candidates: text, score of the linear ranker, whether it is the evidence."""

    question: str
    texts: list[str]
    scores: list[float]
    held: list[bool]


def read(path: Path) -> list[Case]:
    cases = []
    for line in path.read_text("utf-8").splitlines():
        record = json.loads(line)
        texts, scores, held = zip(*record["candidates"], strict=True)
        cases.append(Case(record["question"], list(texts), list(scores), [bool(one) for one in held]))
    return cases


def tensors(path: Path) -> dict[str, Tensor]:
    """A safetensors file, read without its library, which is not part of this environment."""
    raw = path.read_bytes()
    size = int.from_bytes(raw[:8], "little")
    found = {}
    for name, entry in json.loads(raw[8 : 8 + size]).items():
        if name != "__metadata__" and entry["dtype"] in DTYPES:
            start, end = (8 + size + at for at in entry["data_offsets"])
            array = np.frombuffer(raw[start:end], dtype=DTYPES[entry["dtype"]]).reshape(entry["shape"])
            found[name.removeprefix("bert.")] = torch.from_numpy(array.astype(np.float32))
    return found


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(HIDDEN, HIDDEN) for _ in range(3))
        self.attended = nn.Linear(HIDDEN, HIDDEN)
        self.attended_norm = nn.LayerNorm(HIDDEN, eps=1e-12)
        self.inner = nn.Linear(HIDDEN, 4 * HIDDEN)
        self.outer = nn.Linear(4 * HIDDEN, HIDDEN)
        self.outer_norm = nn.LayerNorm(HIDDEN, eps=1e-12)
        self.gate = nn.Parameter(torch.full((HEADS,), CLOSED))

    NAMES = {  # noqa: RUF012  (names of the published weights)
        "query": "attention.self.query", "key": "attention.self.key", "value": "attention.self.value",
        "attended": "attention.output.dense", "attended_norm": "attention.output.LayerNorm",
        "inner": "intermediate.dense", "outer": "output.dense", "outer_norm": "output.LayerNorm",
    }  # fmt: skip

    def forward(self, x: Tensor, packed: Packed, dropout: float) -> Tensor:
        count, longest = packed.mask.shape

        def spread(y: Tensor) -> Tensor:
            padded = y.new_zeros(count * longest, HIDDEN).index_copy(0, packed.places, y)
            return padded.view(count, longest, HEADS, HIDDEN // HEADS).transpose(1, 2)

        q, k, v = spread(self.query(x)), spread(self.key(x)), spread(self.value(x))
        across = self.gate[None, :, None, None] * packed.across[:, None]
        bias = across.masked_fill(~packed.mask[:, None, None, :], -1e4).to(q.dtype)
        mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        mixed = mixed.transpose(1, 2).reshape(count * longest, HIDDEN)[packed.places]
        x = self.attended_norm(x + functional.dropout(self.attended(mixed), dropout, self.training))
        inner = functional.gelu(self.inner(x))
        return self.outer_norm(x + functional.dropout(self.outer(inner), dropout, self.training))


@dataclass(frozen=True)
class Packed:
    """Pairs without padding: tokens, types and positions one after another; ``places`` says where each stands in the
    padded table whose real cells ``mask`` marks; ``rows`` to which pair it belongs."""

    tokens: Tensor
    types: Tensor
    positions: Tensor
    rows: Tensor
    places: Tensor
    mask: Tensor
    across: Tensor


class CrossEncoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(30522, HIDDEN)
        self.positions = nn.Embedding(512, HIDDEN)
        self.first_type = nn.Parameter(torch.zeros(HIDDEN))
        self.norm = nn.LayerNorm(HIDDEN, eps=1e-12)
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))
        self.product = nn.Parameter(torch.full((HIDDEN,), COSINE))
        self.head = nn.Linear(2 * HIDDEN, 1)
        self.alone = nn.Parameter(torch.tensor(2.0))
        self.linear_weight = nn.Parameter(torch.tensor(0.7))
        self.linear_bias = nn.Parameter(torch.tensor(0.0))
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.words.weight.requires_grad = False

    def start_from(self, base: dict[str, Tensor]) -> None:
        state = {
            "words.weight": base["embeddings.word_embeddings.weight"],
            "positions.weight": base["embeddings.position_embeddings.weight"],
            "first_type": base["embeddings.token_type_embeddings.weight"][0],
        }
        for part in ("weight", "bias"):
            state[f"norm.{part}"] = base[f"embeddings.LayerNorm.{part}"]
            for number in range(LAYERS):
                for ours, theirs in Layer.NAMES.items():
                    state[f"layers.{number}.{ours}.{part}"] = base[f"encoder.layer.{number}.{theirs}.{part}"]
        missing, unknown = self.load_state_dict(state, strict=False)
        assert not unknown, unknown
        assert all(name.startswith(FRESH) or "gate" in name for name in missing), missing

    def forward(self, packed: Packed) -> Tensor:
        x = self.words(packed.tokens) + self.positions(packed.positions) + self.first_type
        x = functional.dropout(self.norm(x), DROPOUT, self.training)
        for layer in self.layers:
            x = layer(x, packed, DROPOUT)
        x = x.float()
        pairs = packed.mask.shape[0]
        part = packed.rows * 2 + packed.types
        sums = x.new_zeros(pairs * 2, HIDDEN).index_add(0, part, x).view(pairs, 2, HIDDEN)
        unit = functional.normalize(sums, dim=2)
        logits: Tensor = (unit[:, 0] * unit[:, 1]) @ self.product
        both = functional.dropout(unit.reshape(pairs, 2 * HIDDEN), DROPOUT, self.training)
        return logits + self.head(both).squeeze(1)


def published(model: CrossEncoder) -> dict[str, np.ndarray]:
    """The encoder's weights under the names of the base model: what `export.py` converts."""
    state = {name: value.numpy() for name, value in model.state_dict().items()}
    found = {
        "embeddings.word_embeddings.weight": state["words.weight"],
        "embeddings.position_embeddings.weight": state["positions.weight"],
        "embeddings.token_type_embeddings.weight": np.stack([state["first_type"]] * 2),
    }
    for part in ("weight", "bias"):
        found[f"embeddings.LayerNorm.{part}"] = state[f"norm.{part}"]
        for number in range(LAYERS):
            for ours, theirs in Layer.NAMES.items():
                found[f"encoder.layer.{number}.{theirs}.{part}"] = state[f"layers.{number}.{ours}.{part}"]
    return found


def pack(tokenizer: Tokenizer, pairs: Sequence[tuple[str, str]]) -> Packed:
    """Each text of a pair as the base model reads it alone, with its own [CLS] and [SEP] and positions from 0."""
    questions = tokenizer.encode_batch([question for question, _ in pairs])
    texts = tokenizer.encode_batch([text for _, text in pairs])
    halves = [(q.ids[:QUESTION_TOKENS], t.ids[:TEXT_TOKENS]) for q, t in zip(questions, texts, strict=True)]
    lengths = [len(q) + len(t) for q, t in halves]
    longest = max(lengths)
    mask = torch.arange(longest)[None, :] < torch.tensor(lengths)[:, None]
    second = torch.arange(longest)[None, :] >= torch.tensor([len(q) for q, _ in halves])[:, None]
    return Packed(
        torch.tensor([id for q, t in halves for id in (*q, *t)]),
        torch.tensor([type for q, t in halves for type in (*[0] * len(q), *[1] * len(t))]),
        torch.tensor([at for q, t in halves for at in (*range(len(q)), *range(len(t)))]),
        torch.tensor([row for row, length in enumerate(lengths) for _ in range(length)]),
        torch.nonzero(mask.view(-1)).squeeze(1),
        mask,
        (second[:, :, None] != second[:, None, :]).float(),
    )


def disturbed(question: str, chance: random.Random) -> str:
    """Lightly misspelt or badly typed, as at a kiosk."""
    if chance.random() < 0.3:
        question = question.lower()
    if chance.random() < 0.3:
        question = question.rstrip("?!. ")
    if chance.random() < 0.15 and len(question) > 8:
        at = chance.randrange(1, len(question) - 2)
        question = (
            question[:at]
            + chance.choice(["", question[at + 1] + question[at]])
            + question[at + 1 + chance.randrange(2) :]
        )
    return question


def drawn(case: Case, chance: random.Random) -> tuple[list[int], list[bool]]:
    """Candidates for one step: the evidence and some of the hardest others, the very hardest always."""
    right = [at for at, held in enumerate(case.held) if held]
    others = sorted((at for at, held in enumerate(case.held) if not held), key=lambda at: -case.scores[at])[:HARDEST]
    picked = others[:1] + chance.sample(others[1:], min(len(others) - 1, NEGATIVES - 1))
    if right and chance.random() >= LEFT_OUT:
        kept = right[:2]
        return kept + picked, [True] * len(kept) + [False] * len(picked)
    return picked, [False] * len(picked)


def loss_of(logits: Tensor, alone: Tensor, sizes: Sequence[int], held: Sequence[bool]) -> Tensor:
    """Candidates and "none of them" by the whole score; the candidates also by the encoder's own logit (``alone``)."""
    total = logits.new_zeros(())
    at = 0
    for size in sizes:
        ours = logits[at : at + size]
        marked = torch.tensor(held[at : at + size])
        everything = torch.logsumexp(torch.cat([ours.new_zeros(1), ours]), 0)
        target = torch.logsumexp(ours[marked], 0) if marked.any() else ours.new_zeros(())
        total = total + everything - target
        if marked.any():
            own = alone[at : at + size]
            total = total + 0.5 * (torch.logsumexp(own, 0) - torch.logsumexp(own[marked], 0))
        at += size
    return total / len(sizes)


@torch.no_grad()
def logits_of(model: CrossEncoder, tokenizer: Tokenizer, cases: Sequence[Case], top: int = 10) -> list[list[float]]:
    model.eval()
    found = []
    for case in cases:
        packed = pack(tokenizer, [(case.question, text) for text in case.texts[:top]])
        found.append([round(float(value), 4) for value in model(packed)])
    model.train()
    return found


def quality(cases: Sequence[Case], scores: Sequence[Sequence[float]]) -> str:
    """Evidence first, of the answerable; AUROC of the best score: evidence first against everything else."""
    best = [max(range(len(one)), key=one.__getitem__) for one in scores]
    right = np.array([case.held[at] for case, at in zip(cases, best, strict=True)])
    top = np.array([max(one) for one in scores])
    answerable = np.array([any(case.held) for case in cases])
    ranks = np.argsort(np.argsort(top))
    positive = right.sum()
    area = (ranks[right].sum() - positive * (positive - 1) / 2) / max(1, positive * (len(right) - positive))
    return f"first {right[answerable].mean():.3f} AUROC {area:.3f}"


def combined(model: CrossEncoder, cases: Sequence[Case], logits: Sequence[Sequence[float]]) -> list[list[float]]:
    weight, bias = model.linear_weight.item(), model.linear_bias.item()
    return [
        [value + weight * score + bias for value, score in zip(one, case.scores, strict=False)]
        for case, one in zip(cases, logits, strict=True)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--dev", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch", type=int, default=8, help="questions a step")
    parser.add_argument("--rate", type=float, default=5e-5)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=0, help="stop early: to measure the speed")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    chance = random.Random(options.seed)
    tokenizer = Tokenizer.from_file(str(options.base / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    model = CrossEncoder()
    model.start_from(tensors(options.base / "model.safetensors"))
    training = read(options.train)
    dev = read(options.dev) if options.dev else []
    model.linear_bias.data -= 0.7 * float(np.median([max(case.scores) for case in training])) + COSINE / 2
    print("linear, dev:", quality(dev, [case.scores[:10] for case in dev]) if dev else "", flush=True)
    fresh = [p for name, p in model.named_parameters() if name.startswith(FRESH)]
    gates = [p for name, p in model.named_parameters() if "gate" in name]
    known = [
        p
        for name, p in model.named_parameters()
        if p.requires_grad and not name.startswith(FRESH) and "gate" not in name
    ]
    optimizer = torch.optim.AdamW(
        [
            {"params": known, "lr": options.rate},
            {"params": fresh, "lr": options.rate * 10},
            {"params": gates, "lr": 0.01, "weight_decay": 0.0},
        ],
        weight_decay=0.01,
    )
    per_epoch = math.ceil(len(training) / options.batch)
    steps = per_epoch * options.epochs
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda at: min((at + 1) / (0.1 * steps), max(0.02, (steps - at) / (0.9 * steps)))
    )
    if dev:
        print("before training: alone", quality(dev, logits_of(model, tokenizer, dev)), flush=True)
    step, begun, shown = 0, time.perf_counter(), []
    for epoch in range(options.epochs):
        order = list(range(len(training)))
        chance.shuffle(order)
        for start in range(0, len(order), options.batch):
            pairs, sizes, held, linear = [], [], [], []
            for at in order[start : start + options.batch]:
                case = training[at]
                picked, marked = drawn(case, chance)
                question = disturbed(case.question, chance)
                pairs += [(question, case.texts[one]) for one in picked]
                linear += [case.scores[one] for one in picked]
                held += marked
                sizes.append(len(picked))
            with torch.autocast("cpu", dtype=torch.bfloat16):
                logits = model(pack(tokenizer, pairs))
            total = logits.float() + model.linear_weight * torch.tensor(linear) + model.linear_bias
            loss = loss_of(total, model.alone * logits.float(), sizes, held)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(known + fresh + gates, 1.0)
            optimizer.step()
            schedule.step()
            step += 1
            shown.append(loss.item())
            if step % 20 == 0 or step == options.steps:
                print(
                    f"step {step}/{steps} loss {np.mean(shown[-40:]):.3f} {time.perf_counter() - begun:.0f} s",
                    flush=True,
                )
            if step == options.steps:
                return
        if dev:
            found = logits_of(model, tokenizer, dev)
            alone, whole = quality(dev, found), quality(dev, combined(model, dev, found))
            print(f"epoch {epoch + 1}: alone {alone}; with linear {whole}", flush=True)
        options.out.mkdir(parents=True, exist_ok=True)
        torch.save(model.state_dict(), options.out / f"epoch{epoch + 1}.pt")
    np.savez(options.out / "weights.npz", **published(model))


if __name__ == "__main__":
    main()
