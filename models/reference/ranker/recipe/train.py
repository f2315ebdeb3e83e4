"""Train the ranking model on candidates that `prepare.py` wrote (workstation side, needs torch; a device never does).

    python models/reference/ranker/recipe/train.py --base FOLDER --train train.jsonl [--dev dev.jsonl] --out FOLDER

FOLDER of the base holds all-MiniLM-L6-v2 (model.safetensors, tokenizer.json). Question and candidate are read apart by
one encoder; what they say to each other is judged afterwards, token by token (late interaction, after ColBERT, Khattab
and Zaharia 2020):

    cosine      of the two means, as the base model was made for
    matched     how near the question's tokens come to a token of the candidate (maximum, then a mean weighted by a
                learned importance): words that nothing answers to are what gives a near miss away
    missed      the same for the tokens that come nowhere near, so that one of them weighs
    pointer     how strongly the question as a whole points at one token of the candidate; trained to be the answer's

A small perceptron makes one logit of the four. Loss: one softmax over the question's candidates and "none of them"
(logit 0), which is the target where the page does not answer and where the evidence has been left out on purpose; the
linear ranker's score is added, so the model learns what that gets wrong. Word embeddings stay frozen.
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
NEGATIVES = 5
HARDEST = 10
LEFT_OUT = 0.25
"""Share of answerable questions that are shown without their evidence: what remains are near misses."""
POINTER = 0.15
"""Weight of the pointer's own loss."""
FROZEN = ("words", "positions", "first_type")
DTYPES = {"F32": np.float32, "F16": np.float16}


@dataclass(frozen=True)
class Case:
    """A question and its candidates: text, score of the linear ranker, whether it is the evidence."""

    page: str
    question: str
    answer: str
    texts: list[str]
    scores: list[float]
    held: list[bool]


def read(path: Path) -> list[Case]:
    cases = []
    for line in path.read_text("utf-8").splitlines():
        record = json.loads(line)
        texts, scores, held = zip(*record["candidates"], strict=True)
        found = [list(texts), list(scores), [bool(one) for one in held]]
        cases.append(Case(record["page"], record["question"], record["answer"], *found))
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


@dataclass(frozen=True)
class Texts:
    """Tokenised texts, padded: ids and mask (texts, longest); ``spans``: character range of each token."""

    ids: Tensor
    mask: Tensor
    spans: list[list[tuple[int, int]]]


def published(encoder: Encoder) -> dict[str, np.ndarray]:
    """The encoder's weights under the names of the base model: what `export.py` converts."""
    state = {name: value.numpy() for name, value in encoder.state_dict().items()}
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


def tokenized(tokenizer: Tokenizer, texts: Sequence[str], limit: int) -> Texts:
    encoded = tokenizer.encode_batch(list(texts))
    kept = [one.ids if len(one.ids) <= limit else [*one.ids[: limit - 1], one.ids[-1]] for one in encoded]
    longest = max(map(len, kept))
    ids = torch.zeros(len(kept), longest, dtype=torch.long)
    for row, one in enumerate(kept):
        ids[row, : len(one)] = torch.tensor(one)
    mask = torch.arange(longest)[None] < torch.tensor([len(one) for one in kept])[:, None]
    return Texts(ids, mask, [one.offsets[:limit] for one in encoded])


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(HIDDEN, HIDDEN) for _ in range(3))
        self.attended = nn.Linear(HIDDEN, HIDDEN)
        self.attended_norm = nn.LayerNorm(HIDDEN, eps=1e-12)
        self.inner = nn.Linear(HIDDEN, 4 * HIDDEN)
        self.outer = nn.Linear(4 * HIDDEN, HIDDEN)
        self.outer_norm = nn.LayerNorm(HIDDEN, eps=1e-12)

    NAMES = {  # noqa: RUF012  (names of the published weights)
        "query": "attention.self.query", "key": "attention.self.key", "value": "attention.self.value",
        "attended": "attention.output.dense", "attended_norm": "attention.output.LayerNorm",
        "inner": "intermediate.dense", "outer": "output.dense", "outer_norm": "output.LayerNorm",
    }  # fmt: skip

    def forward(self, x: Tensor, places: Tensor, mask: Tensor, dropout: float) -> Tensor:
        """``x``: the real tokens alone, one after another; ``places``: where each stands in the padded table."""
        count, longest = mask.shape

        def spread(y: Tensor) -> Tensor:
            padded = y.new_zeros(count * longest, HIDDEN).index_copy(0, places, y)
            return padded.view(count, longest, HEADS, HIDDEN // HEADS).transpose(1, 2)

        q, k, v = spread(self.query(x)), spread(self.key(x)), spread(self.value(x))
        mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None, :])
        mixed = mixed.transpose(1, 2).reshape(count * longest, HIDDEN)[places]
        x = self.attended_norm(x + functional.dropout(self.attended(mixed), dropout, self.training))
        inner = functional.gelu(self.inner(x))
        return self.outer_norm(x + functional.dropout(self.outer(inner), dropout, self.training))


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(30522, HIDDEN)
        self.positions = nn.Embedding(512, HIDDEN)
        self.first_type = nn.Parameter(torch.zeros(HIDDEN))
        self.norm = nn.LayerNorm(HIDDEN, eps=1e-12)
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))
        for name, parameter in self.named_parameters():
            parameter.requires_grad = not name.startswith(FROZEN)

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
        self.load_state_dict(state)

    def forward(self, texts: Texts) -> Tensor:
        """Token states, (texts, longest, HIDDEN), zero where there is padding."""
        count, longest = texts.ids.shape
        places = torch.nonzero(texts.mask.view(-1)).squeeze(1)
        at = torch.arange(longest).repeat(count)[places]
        x = self.words(texts.ids.view(-1)[places]) + self.positions(at) + self.first_type
        x = functional.dropout(self.norm(x), DROPOUT, self.training)
        for layer in self.layers:
            x = layer(x, places, texts.mask, DROPOUT)
        x = x.float()
        return x.new_zeros(count * longest, HIDDEN).index_copy(0, places, x).view(count, longest, HIDDEN)


class Judge(nn.Module):
    """The four signals of late interaction and the logit that they make."""

    HIDDEN_UNITS = 16

    def __init__(self) -> None:
        super().__init__()
        self.importance = nn.Parameter(torch.zeros(HIDDEN))
        self.pointer = nn.Parameter(torch.eye(HIDDEN) * 0.5)
        self.first = nn.Linear(4, self.HIDDEN_UNITS)
        self.second = nn.Linear(self.HIDDEN_UNITS, 1)
        self.plain = nn.Linear(4, 1)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)
        with torch.no_grad():
            self.plain.weight.copy_(torch.tensor([[3.0, 3.0, -2.0, 0.5]]))
            self.plain.bias.fill_(-3.0)

    def forward(self, q: Tensor, qm: Tensor, s: Tensor, sm: Tensor) -> tuple[Tensor, Tensor]:
        """States and masks of question and candidate, a pair a row -> (pairs,) logits, (pairs, tokens) pointer."""
        inner = qm.clone()
        inner[:, 0] = False  # [CLS]
        inner.scatter_(1, (qm.sum(1, keepdim=True) - 1), False)  # [SEP]
        mean_q = (q * qm[..., None]).sum(1) / qm.sum(1, keepdim=True)
        mean_s = (s * sm[..., None]).sum(1) / sm.sum(1, keepdim=True)
        cosine = functional.cosine_similarity(mean_q, mean_s, dim=1)
        near = functional.normalize(q, dim=2) @ functional.normalize(s, dim=2).transpose(1, 2)
        best = near.masked_fill(~sm[:, None, :], -1.0).amax(2)
        weight = torch.softmax((q @ self.importance).masked_fill(~inner, -1e4), 1)
        matched = (weight * best).sum(1)
        missed = (weight * torch.sigmoid((0.45 - best) * 12)).sum(1)
        points = torch.einsum("pd,de,pte->pt", functional.normalize(mean_q, dim=1), self.pointer, s)
        points = points.masked_fill(~sm, -1e4)
        found = torch.stack([cosine, matched, missed, torch.logsumexp(points, 1) - math.log(8)], 1)
        logit = self.plain(found) + self.second(torch.tanh(self.first(found)))
        return logit.squeeze(1), points


def disturbed(question: str, chance: random.Random) -> str:
    """Lightly misspelt or badly typed, as at a kiosk."""
    if chance.random() < 0.3:
        question = question.lower()
    if chance.random() < 0.3:
        question = question.rstrip("?!. ")
    if chance.random() < 0.1 and len(question) > 8:
        at = chance.randrange(1, len(question) - 2)
        slip = chance.choice(["", question[at + 1] + question[at]])
        question = question[:at] + slip + question[at + 1 + chance.randrange(2) :]
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


def quality(cases: Sequence[Case], scores: Sequence[Sequence[float]]) -> str:
    """Evidence first, of the answerable; AUROC of the best score: evidence first against everything else."""
    best = [max(range(len(one)), key=one.__getitem__) for one in scores]
    right = np.array([case.held[at] for case, at in zip(cases, best, strict=True)])
    top = np.array([max(one) for one in scores])
    answerable = np.array([any(case.held) for case in cases])
    ranks = np.argsort(np.argsort(top))
    positive = right.sum()
    area = (ranks[right].sum() - positive * (positive - 1) / 2) / max(1, positive * (len(right) - positive))
    # right and served where four of five of the unanswerable are refused
    bar = np.quantile(top[~answerable], 0.84) if (~answerable).any() else -9e9
    served = top > bar
    share, wrong = (right & served)[answerable].mean(), (served & ~right).sum() / max(1, served.sum())
    return f"first {right[answerable].mean():.3f} AUROC {area:.3f} at .84 refused: right {share:.3f} wrong {wrong:.3f}"


def loss_of(logits: Tensor, alone: Tensor, sizes: Sequence[int], held: Sequence[bool]) -> Tensor:
    """Candidates and "none of them" by the whole score; the candidates also by the model's own logit (``alone``)."""
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
def logits_of(
    encoder: Encoder, judge: Judge, tokenizer: Tokenizer, cases: Sequence[Case], top: int = 8
) -> list[list[float]]:
    encoder.eval()
    found = []
    for case in cases:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            asked = tokenized(tokenizer, [case.question], QUESTION_TOKENS)
            texts = tokenized(tokenizer, case.texts[:top], TEXT_TOKENS)
            q, s = encoder(asked), encoder(texts)
        count = len(s)
        logit, _ = judge(q.expand(count, -1, -1), asked.mask.expand(count, -1), s, texts.mask)
        found.append([round(float(value), 4) for value in logit])
    encoder.train()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--dev", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch", type=int, default=8, help="questions a step")
    parser.add_argument("--rate", type=float, default=6e-5)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--limit", type=int, default=0, help="use so many questions only: to measure the speed")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    chance = random.Random(options.seed)
    tokenizer = Tokenizer.from_file(str(options.base / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    encoder, judge = Encoder(), Judge()
    encoder.start_from(tensors(options.base / "model.safetensors"))
    training = read(options.train)
    if options.limit:
        training = training[: options.limit]
    dev = read(options.dev) if options.dev else []
    linear_weight = nn.Parameter(torch.tensor(0.7))
    linear_bias = nn.Parameter(-0.7 * torch.tensor(float(np.median([max(case.scores) for case in training]))))
    alone = nn.Parameter(torch.tensor(1.0))
    known = [p for p in encoder.parameters() if p.requires_grad]
    fresh = [*judge.parameters(), linear_weight, linear_bias, alone]
    optimizer = torch.optim.AdamW(
        [{"params": known, "lr": options.rate}, {"params": fresh, "lr": options.rate * 20}], weight_decay=0.01
    )
    per_epoch = math.ceil(len(training) / options.batch)
    steps = per_epoch * options.epochs
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda at: min((at + 1) / (0.1 * steps), max(0.02, (steps - at) / (0.9 * steps)))
    )

    def told(label: str) -> None:
        if dev:
            found = logits_of(encoder, judge, tokenizer, dev)
            both = [
                [v + float(linear_weight) * s for v, s in zip(one, case.scores, strict=False)]
                for case, one in zip(dev, found, strict=True)
            ]
            print(f"{label}: alone {quality(dev, found)}; with linear {quality(dev, both)}", flush=True)

    if dev:
        print("linear, dev:", quality(dev, [case.scores[:8] for case in dev]), flush=True)
    told("before training")
    step, begun, shown = 0, time.perf_counter(), []
    for epoch in range(options.epochs):
        order = list(range(len(training)))
        chance.shuffle(order)
        for start in range(0, len(order), options.batch):
            questions, texts, sizes, held, linear, answers = [], [], [], [], [], []
            for at in order[start : start + options.batch]:
                case = training[at]
                picked, marked = drawn(case, chance)
                questions.append(disturbed(case.question, chance))
                texts += [case.texts[one] for one in picked]
                linear += [case.scores[one] for one in picked]
                answers += [case.answer if one else "" for one in marked]
                held += marked
                sizes.append(len(picked))
            asked = tokenized(tokenizer, questions, QUESTION_TOKENS)
            read_ = tokenized(tokenizer, texts, TEXT_TOKENS)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                q, s = encoder(asked), encoder(read_)
            rows = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
            logits, points = judge(q[rows], asked.mask[rows], s, read_.mask)
            total = logits + linear_weight * torch.tensor(linear) + linear_bias
            loss = loss_of(total, alone * logits, sizes, held)
            marked_tokens, kept = [], []
            for row, answer in enumerate(answers):
                place = texts[row].find(answer) if answer else -1
                if place >= 0:
                    inside = [a < place + len(answer) and b > place for a, b in read_.spans[row]]
                    if any(inside):
                        kept.append(row)
                        marked_tokens.append(inside + [False] * (points.shape[1] - len(inside)))
            if kept:
                chosen = points[kept]
                target = torch.tensor(marked_tokens)[:, : points.shape[1]]
                loss = (
                    loss
                    + POINTER
                    * (torch.logsumexp(chosen, 1) - torch.logsumexp(chosen.masked_fill(~target, -1e4), 1)).mean()
                )
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_([*known, *fresh], 1.0)
            optimizer.step()
            schedule.step()
            step += 1
            shown.append(loss.item())
            if step % 20 == 0:
                spent = time.perf_counter() - begun
                print(f"step {step}/{steps} loss {np.mean(shown[-60:]):.3f} {spent:.0f} s", flush=True)
        told(f"epoch {epoch + 1}")
        options.out.mkdir(parents=True, exist_ok=True)
        torch.save({"encoder": encoder.state_dict(), "judge": judge.state_dict()}, options.out / f"epoch{epoch + 1}.pt")
    np.savez(options.out / "weights.npz", **published(encoder))
    np.savez(options.out / "judge.npz", **{name: value.numpy() for name, value in judge.state_dict().items()})
    print(f"weight of the linear score beside the logit: {float(linear_weight):.3f}")


if __name__ == "__main__":
    main()
