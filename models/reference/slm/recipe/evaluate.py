"""Examines a GGUF through llama.cpp: greedy answers on held-out seeds and wording, and on pages written by others.

    python -m recipe.evaluate model.gguf --count 400
    python -m recipe.evaluate model.gguf --natural FOLDER       FOLDER holds pages/*.md and questions.jsonl

An answer is exact when it equals the expected text, letter case aside. On natural pages, where the expected wording is
not ours, it is right when one of the expected answers is in it.
"""

from __future__ import annotations

import argparse
import json
import math
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
from jinja2.sandbox import ImmutableSandboxedEnvironment

from .generate import REFUSAL, Generator, prompt
from .meaning import Encoder
from .natural import sentences

SEED = 900_001  # never used in training
MAX_TOKENS = 64
Choose = Callable[[str, list[tuple[str, str]]], list[tuple[str, str]]]


@dataclass
class Reply:
    text: str
    confidence: float  # mean log-probability of its tokens

    @property
    def refused(self) -> bool:
        return self.text == REFUSAL


class Examinee:
    """A model file with its own chat template, answering greedily."""

    def __init__(self, path: Path, threads: int = 1) -> None:
        self.model = llama_cpp.Llama(str(path), n_ctx=2048, n_threads=threads, n_threads_batch=threads, verbose=False)
        self.template = self.model.metadata["tokenizer.chat_template"]
        self.render = ImmutableSandboxedEnvironment().from_string(self.template).render

    def answer(self, passage: str, question: str) -> Reply:
        messages = [
            {"role": "system", "content": "Answer from the passages."},
            {"role": "user", "content": prompt(passage, question)},
        ]
        text = self.render(messages=messages, add_generation_prompt=True)
        tokens = self.model.tokenize(text.encode(), add_bos=True, special=True)
        self.model.reset()
        self.model.eval(tokens)
        out: list[int] = []
        logs: list[float] = []
        while len(out) < MAX_TOKENS:
            pointer = llama_cpp.llama_get_logits_ith(self.model.ctx, -1)
            logits = np.ctypeslib.as_array(pointer, shape=(self.model.n_vocab(),)).astype(np.float64)
            token = int(logits.argmax())
            top = float(logits[token])
            logs.append(top - (top + math.log(np.exp(logits - top).sum())))
            if token == self.model.token_eos():
                break
            out.append(token)
            self.model.eval([token])
        return Reply(self.model.detokenize(out).decode("utf-8", "replace").strip(), sum(logs) / len(logs))


def auroc(positive: list[float], negative: list[float]) -> float:
    """Chance that a right answer scores above a wrong one."""
    if not positive or not negative:
        return math.nan
    wins = sum((p > n) + 0.5 * (p == n) for p in positive for n in negative)
    return wins / (len(positive) * len(negative))


def held_out(examinee: Examinee, split: str, count: int, seed: int = SEED, show: int = 0) -> dict[str, Any]:
    """Exact match on fresh values, in wording known (`known`) or held out (`question`, `statement`)."""
    generator = Generator(seed, split)
    tally: Counter[str] = Counter()
    right: list[float] = []
    wrong: list[float] = []
    while tally["answerable"] + tally["unanswerable"] < count:
        example = generator.example(2)
        for question in example.questions[:2]:
            reply = examinee.answer(example.passage, question.text)
            kind = "answerable" if question.span else "unanswerable"
            tally[kind] += 1
            if question.span is None:
                tally["refused"] += reply.refused
            else:
                tally["exact"] += reply.text.casefold() == question.answer.casefold()
                tally["false_refusals"] += reply.refused
            good = reply.text.casefold() == question.answer.casefold()
            if not reply.refused:
                (right if good else wrong).append(reply.confidence)
            if not good and show > 0:
                show -= 1
                print(
                    f"{example.passage}\nQuestion: {question.text}\n"
                    f"  expected {question.answer!r}, got {reply.text!r}\n",
                    "-" * 80,
                )
    return {
        "questions": count,
        "exact": round(tally["exact"] / max(1, tally["answerable"]), 4),
        "false_refusal": round(tally["false_refusals"] / max(1, tally["answerable"]), 4),
        "refused_unanswerable": round(tally["refused"] / max(1, tally["unanswerable"]), 4),
        "auroc_log_probability": round(auroc(right, wrong), 3),
    }


# -- natural pages -----------------------------------------------------------------------------------------------------

STOP = set(
    "a an and are as at be by can do does for from have how i if in is it me my of on or our the there this to was we "
    "what when where which who will with you your".split()
)


def stems(text: str) -> list[str]:
    found = [word for word in re.findall(r"[a-z0-9]+", text.lower()) if word not in STOP]
    return [re.sub(r"(ing|ed|es|s)$", "", word) if len(word) > 4 else word for word in found]


def best(question: str, parts: list[tuple[str, str]], count: int = 3) -> list[tuple[str, str]]:
    """The sentences nearest to the question by BM25 over sentence and heading."""
    bags = [Counter(stems(heading) + 2 * stems(text)) for heading, text in parts]
    lengths = [sum(bag.values()) for bag in bags]
    mean = sum(lengths) / len(lengths)
    frequency = Counter(word for bag in bags for word in bag)

    def score(n: int) -> float:
        total = 0.0
        for word in set(stems(question)):
            tf = bags[n][word]
            if tf:
                idf = math.log(1 + (len(bags) - frequency[word] + 0.5) / (frequency[word] + 0.5))
                total += idf * tf * 2.2 / (tf + 1.2 * (0.25 + 0.75 * lengths[n] / mean))
        return total

    ranked = sorted(range(len(parts)), key=lambda n: -score(n))
    return [parts[n] for n in ranked[:count]]


def nearest(encoder: Encoder, question: str, parts: list[tuple[str, str]], count: int = 3) -> list[tuple[str, str]]:
    """The sentences nearest to the question by the mean of two cosines, with heading and without."""
    asked = encoder(question)
    scores = [float(asked @ encoder(text) + asked @ encoder(f"{heading}: {text}")) for heading, text in parts]
    return [parts[n] for n in sorted(range(len(parts)), key=lambda n: -scores[n])[:count]]


def plain(text: str) -> str:
    return " ".join(text.casefold().split())


def matches(reply: str, answers: list[str]) -> bool:
    """One of the answers is in the reply."""
    return any(plain(answer) in plain(reply) for answer in answers)


def natural(
    examinee: Examinee, folder: Path, choose: Choose = best, whole: bool = False, show: int = 0
) -> dict[str, Any]:
    """Questions on pages that others wrote, answered from the best three sentences of the page, or of all pages."""
    pages = {path.stem: sentences(path.read_text("utf-8")) for path in sorted((folder / "pages").glob("*.md"))}
    everything = [part for parts in pages.values() for part in parts]
    tally: Counter[str] = Counter()
    right: list[float] = []
    wrong: list[float] = []
    for line in (folder / "questions.jsonl").read_text("utf-8").splitlines():
        entry = json.loads(line)
        parts = everything if whole else pages[Path(entry["page"]).stem]
        chosen = choose(entry["question"], parts)
        passage = "\n\n".join(f"## {heading}\n{text}" for heading, text in chosen)
        reply = examinee.answer(passage, entry["question"])
        answers = entry["answers"]
        tally["answerable" if answers else "unanswerable"] += 1
        good = matches(reply.text, answers) if answers else reply.refused
        if answers:
            tally["retrieved"] += matches(passage, answers)
            tally["right"] += good and not reply.refused
            tally["refused"] += reply.refused
            tally["wrong"] += not good and not reply.refused
        else:
            tally["refused_unanswerable"] += reply.refused
        if not reply.refused:
            (right if good else wrong).append(reply.confidence)
        if not good and show > 0:
            show -= 1
            print(f"{passage}\nQuestion: {entry['question']}\n  expected {answers}, got {reply.text!r}\n", "-" * 80)
    return {**dict(tally), "auroc_log_probability": round(auroc(right, wrong), 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--count", type=int, default=400)
    parser.add_argument("--natural", type=Path)
    parser.add_argument(
        "--embedding", type=Path, help="folder of MiniLM (ONNX) to choose sentences by; without it BM25"
    )
    parser.add_argument("--all-pages", action="store_true", help="choose among the sentences of all pages")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--show", type=int, default=0, help="print this many mistakes of each kind")
    options = parser.parse_args()
    examinee = Examinee(options.model, options.threads)
    if options.natural:
        choose = partial(nearest, Encoder(options.embedding)) if options.embedding else best
        print(json.dumps({"natural": natural(examinee, options.natural, choose, options.all_pages, options.show)}))
        return
    print(
        json.dumps(
            {
                split: held_out(examinee, split, options.count, show=options.show)
                for split in ("known", "question", "statement")
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
