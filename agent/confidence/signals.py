"""From evidence to features (pure): what each route's confidence is computed from.

Every function returns named numbers; `agent.confidence.provisional` (and later a calibrated model) weighs them. A
feature that cannot be known is left out and counts as 0.

quote (`quote`, from the best candidate of a `Retrieval`)
    score            the ranker's own score of the quote
    lead             how far its score is above the next candidate's
    similarity       mean cosine of question and sentence, alone and with its heading; only with embeddings
    gap              its distance to the best sentence elsewhere; only with embeddings
    keyword          share of the question's content words in sentence or heading, weighted by rarity, 0..1
    heading_match    the same for the heading alone
    agreement        1 where embeddings and keywords rank the same sentence first
    kind_match       1 where the sentence holds the kind of value asked for, -1 where not, 0 where none is asked
    embedded         1 where embeddings took part
    question_words   content words of the question, at most 8, in eighths
    ranker.*         what the ranker adds in `Quote.signals`; ranker.judged is there only where a ranking model judged

agreement of the two answerers (`agreement`, joined to the quote's features once an SLM has answered)
    generated        1: an SLM has answered or refused
    generated_refused  1: it said that the passages do not hold the answer
    generated_within   1: its answer stands word for word in the quote
    generated_overlap  share of its words that stand in the quote

generated (`generated`)
    first_margin     log-probability of the first token over the runner-up, at most 10
    first_logprob    log-probability of the first token
    min_logprob, low_logprob, median_logprob   lowest, 10 % and median token log-probability
    tokens           length, at most 64, in sixty-fourths
    span             1 where the answer stands word for word in one of the quotes
    span_rank        0 for the best quote, 0.5 for the second, ... of the quotes that hold it; 1 where none does
    numbers          share of the answer's numbers that stand in the quotes; 1 where it has none
    refused          1 for a refusal
    retrieval_score, retrieval_lead, retrieval_similarity, ranking_agreement   of the best quote

intent (`intent`)
    probability      of the intent, if the text is in scope at all
    in_scope         probability that it is
    margin           distance to the second intent's logit, at most 10
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

from agent.messages import IntentResult, Retrieval, TokenLogprob

Features = dict[str, float]

Range = tuple[float, float]
AGREEMENT_RANGES: Mapping[str, Range] = {
    "generated": (1.0, 1.0),
    "generated_refused": (0.0, 1.0),
    "generated_within": (0.0, 1.0),
    "generated_overlap": (0.0, 1.0),
}
GENERATED_RANGES: Mapping[str, Range] = {
    "tokens": (0.0, 1.0),
    "span": (0.0, 1.0),
    "span_rank": (0.0, 1.0),
    "numbers": (0.0, 1.0),
    "refused": (0.0, 0.0),
    "first_margin": (-20.0, 10.0),
    "first_logprob": (-20.0, 0.0),
    "min_logprob": (-20.0, 0.0),
    "low_logprob": (-20.0, 0.0),
    "median_logprob": (-20.0, 0.0),
}
"""What an SLM's answer can add to a quote's features, and what its own can be, as long as it has not said anything."""

_WORD = re.compile(r"[^\W_]+(?:[.,:]\d+)*")
_NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")
_SPAN_RANKS = 2


def quote(question: str, retrieval: Retrieval) -> Features:
    """Features of ``retrieval.quotes[0]``, which must exist."""
    best = retrieval.quotes[0]
    second = retrieval.quotes[1].score if len(retrieval.quotes) > 1 else best.score - 1.0
    features = {
        "score": best.score,
        "lead": best.score - second,
        "keyword": best.keyword,
        "heading_match": best.heading_match,
        "agreement": float(best.agreement),
        "kind_match": 0.0 if best.kind_match is None else 1.0 if best.kind_match else -1.0,
        "embedded": float(best.similarity is not None),
        "question_words": min(8, len(_WORD.findall(question))) / 8,
    }
    if best.similarity is not None:
        features |= {"similarity": best.similarity, "gap": best.gap}
    return features | {f"ranker.{name}": value for name, value in best.signals.items()}


def agreement(quoted: str, generated_text: str, *, refused: bool) -> Features:
    """Whether the SLM's answer supports the quote."""
    if refused:
        return {"generated": 1.0, "generated_refused": 1.0}
    answer, held = _words(generated_text), _words(quoted)
    shared = sum(word in set(held) for word in answer) / len(answer) if answer else 0.0
    return {
        "generated": 1.0,
        "generated_refused": 0.0,
        "generated_within": float(_contains(held, answer)),
        "generated_overlap": shared,
    }


def generated(
    question: str, text: str, tokens: Sequence[TokenLogprob], retrieval: Retrieval, *, refused: bool
) -> Features:
    """Features of an SLM's answer; ``tokens`` with at least two alternatives each, empty where the engine gave none."""
    quotes = [_words(candidate.text) for candidate in retrieval.quotes]
    answer = _words(text)
    rank = next((place for place, words in enumerate(quotes) if _contains(words, answer)), None)
    numbers = _NUMBER.findall(text)
    held = {number for candidate in retrieval.quotes for number in _NUMBER.findall(candidate.text)}
    features = {
        "tokens": min(64, len(tokens)) / 64,
        "span": float(rank is not None),
        "span_rank": 1.0 if rank is None else min(rank, _SPAN_RANKS) / _SPAN_RANKS,
        "numbers": sum(number in held for number in numbers) / len(numbers) if numbers else 1.0,
        "refused": float(refused),
        "question_words": min(8, len(_WORD.findall(question))) / 8,
    }
    if retrieval.quotes:
        features |= retrieved(quote(question, retrieval))
    return features | _logprobs(tokens)


def retrieved(best: Mapping[str, float]) -> Features:
    """What a generated answer takes over from the features of the best quote."""
    return {
        "retrieval_score": best["score"],
        "retrieval_lead": best["lead"],
        "retrieval_similarity": best.get("similarity", 0.0),
        "ranking_agreement": best["agreement"],
        "question_words": best["question_words"],
    }


def intent(result: IntentResult) -> Features:
    return {
        "probability": result.probability,
        "in_scope": result.in_scope_score,
        "margin": min(10.0, result.margin),
    }


def _logprobs(tokens: Sequence[TokenLogprob]) -> Features:
    if not tokens:
        return {}
    values = sorted(max(-20.0, token.logprob) if math.isfinite(token.logprob) else -20.0 for token in tokens)
    others = [alternative.logprob for alternative in tokens[0].top if alternative.token != tokens[0].token]
    first = max(-20.0, tokens[0].logprob)
    return {
        "first_logprob": first,
        "first_margin": min(10.0, first - max(others)) if others else 10.0,
        "min_logprob": values[0],
        "low_logprob": values[int(len(values) * 0.1)],
        "median_logprob": values[len(values) // 2],
    }


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _contains(words: Sequence[str], part: Sequence[str]) -> bool:
    return bool(part) and any(
        list(words[at : at + len(part)]) == list(part) for at in range(len(words) - len(part) + 1)
    )
