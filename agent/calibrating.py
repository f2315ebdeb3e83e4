"""Calibration of the running device: every labelled example goes through the real pipeline, and the evidence that it
leaves is fitted and certified (L2).

    labelled texts or questions -> evidence (asked one after the other) -> conclude -> certificates in force

`conclude_intents` and `conclude_answers` are pure; they need numpy and run in a thread. Questions that come with
documents are asked in collections made for them, one for each set of documents (a device holds the documents of its own
venue only), which are gone afterwards.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from agent.assistant import Assistant, Examination
from agent.confidence import provisional, signals
from agent.confidence.certificate import Certificate, Certificates, Gate
from agent.confidence.labelled import LabelledQuestion, LabelledText, answer_is_right, plain, quote_is_right
from agent.confidence.outcome import Outcome
from agent.config import Promise, Risk, RouteName
from agent.dependencies import NONE
from agent.errors import Conflict, InvalidRequest, NotFound, Unavailable
from agent.gathering import KEYWORD_ONLY
from agent.library import Library
from agent.messages import Document, Question
from agent.understanding import Understanding

if TYPE_CHECKING:
    from agent.confidence.calibration import Prior, Sample, Tuned

Features = Mapping[str, float]
Dependencies = Callable[[RouteName], Mapping[str, str]]
_MADE = re.compile(r"calibrate-[0-9a-f]{16}")
_TEXTS = 64
_TRIES = 3
_FEWEST_SETS = 8
_MARKS = {"embedding": "similarity", "ranker": "ranker.judged", "text": "generated"}
"""By which feature of a quote a part shows that it has had its say."""
_ANSWER_ROUTES: tuple[RouteName, ...] = ("quote", "generated")


@dataclass(frozen=True, slots=True)
class Progress:
    """``done`` of ``total`` examples are asked; ``stage``: ``storing``, ``asking``, ``fitting``."""

    stage: str
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Given:
    """One route's answer to an example: its features (empty where it had none) and whether it was right."""

    features: Features = field(default_factory=dict)
    right: bool = False
    text: str = ""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the device made of one example. ``taken`` marks questions that an intent takes away from the documents;
    ``tune`` says what the example is for, where the data say it."""

    asked: str
    group: str
    routes: Mapping[RouteName, Given]
    taken: bool = False
    tune: bool | None = None


@dataclass(frozen=True, slots=True)
class Calibrated:
    """The end of a calibration: outcomes in the order of the routes, and the evidence they stand on. ``notes`` counts
    what was missing while the examples were asked."""

    outcomes: tuple[Outcome, ...]
    evidence: tuple[Evidence, ...]
    notes: Mapping[str, int]


class Calibrating:
    """Calibrates the device it runs on, one calibration at a time. ``by_keywords``: the configuration names no
    embedding model, so search by keywords alone is this device as it is and no gap."""

    def __init__(
        self,
        assistant: Assistant,
        library: Library,
        understanding: Understanding,
        certificates: Certificates,
        risk: Risk,
        dependencies: Dependencies,
        *,
        min_confidence: float,
        by_keywords: bool = False,
    ) -> None:
        self._by_keywords = by_keywords
        self._assistant = assistant
        self._library = library
        self._understanding = understanding
        self._certificates = certificates
        self._risk = risk
        self._dependencies = dependencies
        self._min_confidence = min_confidence
        self._busy = asyncio.Lock()

    async def intents(self, rows: Sequence[LabelledText]) -> AsyncGenerator[Progress | Calibrated, None]:
        """Progress, then one Calibrated; its certificate is in force then. Raises Conflict where another calibration
        runs or a part was replaced meanwhile, NotFound without an intent pack, InvalidRequest for examples of the pack
        itself (a classifier is not wrong about what it has learnt)."""
        async with self._alone():
            before = self._dependencies("intent")
            self._refuse_examples(rows)
            groups = [row.group or plain(row.text) for row in rows]
            refuse_mixed([row.tune for row in rows], groups)
            evidence: list[Evidence] = []
            for at in range(0, len(rows), _TEXTS):
                yield Progress("asking", at, len(rows))
                part = rows[at : at + _TEXTS]
                results = await self._understanding.classify_all([row.text for row in part])
                for row, group, result in zip(part, groups[at : at + _TEXTS], results, strict=True):
                    given = Given(signals.intent(result), result.intent == row.intent, result.intent)
                    evidence.append(Evidence(row.text, group, {"intent": given}, tune=row.tune))
            yield Progress("fitting", len(rows), len(rows))
            data = {"sha256": digest([[row.text, row.intent] for row in rows])}
            least = self._min_confidence
            outcomes = await asyncio.to_thread(conclude_intents, evidence, self._risk, before, data, least)
            await self._put_in_force(("intent",), outcomes, {"intent": before})
            yield Calibrated(tuple(outcomes), tuple(evidence), {})

    async def answers(
        self, rows: Sequence[LabelledQuestion], documents: Sequence[Document] = (), collection: str = ""
    ) -> AsyncGenerator[Progress | Calibrated, None]:
        """As `intents`, for quotes and generated answers. With ``documents`` every row names those that it is about;
        without, the questions are asked in ``collection``. Raises Conflict, InvalidRequest for a document that is not
        given, Unavailable where the model that the configuration names did not answer."""
        async with self._alone():
            before = {route: self._dependencies(route) for route in _ANSWER_ROUTES}
            places = _collections(rows, documents) if documents else {row.documents: collection for row in rows}
            groups = _groups(rows, bool(documents))
            refuse_mixed([row.tune for row in rows], groups)
            try:
                if documents:
                    await self.sweep()
                    async for progress in self._store(places, documents):
                        yield progress
                evidence: list[Evidence] = []
                notes: dict[str, int] = {}
                for done, (row, group) in enumerate(zip(rows, groups, strict=True)):
                    yield Progress("asking", done, len(rows))
                    question = Question(row.question, collection=places[row.documents] or None)
                    examined = await self._examined(question, before["quote"])
                    for note in examined.notes:
                        notes[note] = notes.get(note, 0) + 1
                    found = {answer.evidence.route: answer for answer in examined.answers}
                    given: dict[RouteName, Given] = {}
                    if quoted := found.get("quote"):
                        right = quote_is_right(row, quoted.text)
                        given["quote"] = Given(quoted.evidence.features, right, quoted.text)
                    if generated := found.get("generated"):
                        right = answer_is_right(row, generated.text)
                        given["generated"] = Given(generated.evidence.features, right, generated.text)
                    evidence.append(Evidence(row.question, group, given, "intent" in found, row.tune))
            finally:
                if documents:
                    await self.sweep()
            refuse_gaps(evidence, notes, before["quote"])
            yield Progress("fitting", len(rows), len(rows))
            data = {"sha256": digest([[row.question, row.answers, row.documents, row.evidence] for row in rows])}
            outcomes = await asyncio.to_thread(conclude_answers, evidence, self._risk, before, data)
            await self._put_in_force(_ANSWER_ROUTES, outcomes, before)
            yield Calibrated(tuple(outcomes), tuple(evidence), notes)

    async def pairs(
        self, pairs: AsyncGenerator[Progress | Evidence, None], data: Mapping[str, str], *, miss: float = 0.0
    ) -> AsyncGenerator[Progress | Calibrated, None]:
        """As `intents`, for questions that may be the same (agent/sameness.py); ``miss`` as in `conclude_pairs`. Raises
        Conflict, Unavailable."""
        async with self._alone():
            before = self._dependencies("cache")
            evidence: list[Evidence] = []
            async with aclosing(pairs) as steps:
                async for step in steps:
                    if isinstance(step, Progress):
                        yield step
                    else:
                        evidence.append(step)
            yield Progress("fitting", len(evidence), len(evidence))
            outcomes = await asyncio.to_thread(conclude_pairs, evidence, self._risk, before, data, miss)
            await self._put_in_force(("cache",), outcomes, {"cache": before})
            yield Calibrated(tuple(outcomes), tuple(evidence), {})

    async def sweep(self) -> None:
        """Remove the documents of calibrations: of one that ends, or that ended with the process."""
        await self._library.delete_collections(_MADE)

    # ------------------------------------------------------------ steps

    async def _examined(self, question: Question, depends_on: Mapping[str, str]) -> Examination:
        """A part that was loading or late gets another chance: what is to be learnt is the device at its best."""
        for _ in range(_TRIES):
            examined = await self._assistant.examine(question)
            if self._by_keywords:
                expected = tuple(note for note in examined.notes if note != KEYWORD_ONLY)
                examined = replace(examined, notes=expected)
            quoted = [answer.evidence.features for answer in examined.answers if answer.evidence.route == "quote"]
            if not examined.notes and not any(absent(features, depends_on) for features in quoted):
                break
        return examined

    def _alone(self) -> asyncio.Lock:
        if self._busy.locked():
            raise Conflict("another calibration is running", remedy="Wait until it is done.")
        return self._busy

    def _refuse_examples(self, rows: Sequence[LabelledText]) -> None:
        pack = self._understanding.pack
        if pack is None:
            raise NotFound("no intent pack is in use", remedy="Train one with `outpost intents train PACK`.")
        learnt = {plain(text) for intent in pack.intents for text in intent.examples} | set(
            map(plain, pack.out_of_scope)
        )
        known = [row.text for row in rows if plain(row.text) in learnt]
        if known:
            raise InvalidRequest(
                f"{len(known)} of the {len(rows)} texts are examples of the pack, among them {known[0]!r}",
                remedy="Calibrate on utterances that the classifier has not learnt.",
            )
        names = {intent.name for intent in pack.intents}
        if unknown := sorted({row.intent for row in rows if row.intent is not None} - names):
            raise InvalidRequest(
                f"the pack has no intent {unknown[0]!r}", remedy="Label with the pack's intents, null for out of scope."
            )

    async def _store(
        self, places: Mapping[tuple[str, ...], str], documents: Sequence[Document]
    ) -> AsyncGenerator[Progress, None]:
        known = {document.id: document for document in documents}
        for done, (ids, collection) in enumerate(places.items()):
            yield Progress("storing", done, len(places))
            await self._library.add(collection, [known[id] for id in ids])

    async def _put_in_force(
        self,
        routes: Sequence[RouteName],
        outcomes: Sequence[Outcome],
        before: Mapping[RouteName, Mapping[str, str]],
    ) -> None:
        for route in routes:
            now = self._dependencies(route)
            changed = [name for name in now if now[name] != before[route].get(name)]
            if changed:
                raise Conflict(
                    f"{', '.join(changed)} changed while the device was calibrated", remedy="Start it again."
                )
        made = [outcome.certificate for outcome in outcomes if outcome.certificate is not None]
        await asyncio.to_thread(self._certificates.install, routes, made)


def _collections(rows: Sequence[LabelledQuestion], documents: Sequence[Document]) -> dict[tuple[str, ...], str]:
    """The collection of each set of documents that a row names. Raises InvalidRequest."""
    known = {document.id for document in documents}
    places: dict[tuple[str, ...], str] = {}
    for number, row in enumerate(rows, start=1):
        if not row.documents:
            raise InvalidRequest(f"question {number} names no document", remedy="Name those that it is about.")
        for id in row.documents:
            if id not in known:
                raise InvalidRequest(f"question {number} names {id!r}, which is not among the documents given")
        places[row.documents] = f"calibrate-{digest(list(row.documents))[:16]}"  # as in _MADE
    return places


def _groups(rows: Sequence[LabelledQuestion], own_documents: bool) -> list[str]:
    """What a question belongs to: its group, else the documents that came with it (where they are many), else only
    itself in all its spellings."""
    sets = {row.documents for row in rows}
    by_documents = own_documents and len(sets) >= _FEWEST_SETS
    return [row.group or (" ".join(row.documents) if by_documents else plain(row.question)) for row in rows]


def refuse_mixed(tune: Sequence[bool | None], groups: Sequence[str]) -> None:
    """What is certified on must not have been fitted on. Raises InvalidRequest where some examples say what they are
    for and others do not, or where a group is for both."""
    if None in tune and any(one is not None for one in tune):
        raise InvalidRequest("some examples say whether they are to tune on and some do not", remedy="Say it of all.")
    both = {group for group, one in zip(groups, tune, strict=True) if one} & {
        group for group, one in zip(groups, tune, strict=True) if one is False
    }
    if both:
        raise InvalidRequest(
            f"{len(both)} groups are to tune on and to certify on, among them {min(both)!r}",
            remedy="Keep a document's questions, and all spellings of one question, on one side.",
        )


def refuse_gaps(evidence: Sequence[Evidence], notes: Mapping[str, int], depends_on: Mapping[str, str]) -> None:
    """A calibration is of the whole pipeline. Raises Unavailable where a part that is loaded was missing for more than
    one question in a hundred (overloaded, crashed, too slow): the certificate would be of another device."""
    for note, count in notes.items():
        if count * 100 > len(evidence):
            raise _gap(count, len(evidence), note)
    quotes = [one.routes["quote"].features for one in evidence if "quote" in one.routes]
    missing = [part for features in quotes for part in absent(features, depends_on)]
    for part in sorted(set(missing)):
        if missing.count(part) * 100 > len(quotes):
            raise _gap(missing.count(part), len(quotes), f"the {part} model took no part")


def absent(features: Features, depends_on: Mapping[str, str]) -> list[str]:
    """Which loaded parts had no say in a quote with these features."""
    return [part for part, mark in _MARKS.items() if depends_on.get(part, NONE) != NONE and mark not in features]


def _gap(count: int, total: int, what: str) -> Unavailable:
    return Unavailable(
        f"{count} of {total} questions say: {what}",
        remedy="Calibrate again when the device has nothing else to do; `outpost status` shows what fails.",
    )


def digest(value: object) -> str:
    """The SHA-256 of a value's JSON."""
    return hashlib.sha256(json.dumps(value, ensure_ascii=False).encode()).hexdigest()


# ---------------------------------------------------------------- conclusions (pure)


def conclude_intents(
    evidence: Sequence[Evidence],
    risk: Risk,
    depends_on: Mapping[str, str],
    data: Mapping[str, str],
    min_confidence: float = 0.0,
) -> list[Outcome]:
    """The outcome of the intent route. Blocking; see agent/confidence/calibration.py. An intent of which the pipeline
    makes nothing, because its provisional confidence is under ``min_confidence``, is learnt from and never served."""
    import numpy as np

    from agent.confidence import calibration

    def taken(sample: Sample) -> bool:
        return provisional.confidence("intent", sample.features) >= min_confidence

    samples = [_sample(one, "intent") for one in evidence]
    side = _sides(evidence)
    tune = [sample for sample, tuning in zip(samples, side, strict=True) if tuning]
    held = [sample for sample, tuning in zip(samples, side, strict=True) if not tuning]
    prior = calibration.Prior(0.0, {"logit:in_scope": 1.0, "logit:probability": 1.0, "margin": 0.0})
    tuned = calibration.fit(tune, prior)
    if tuned is not None:
        served = np.array([taken(sample) for sample in tune], bool)
        tuned = calibration.Tuned(tuned.score, np.where(served, tuned.confidence, 0.0), tuned.right & served)
    held = [sample if taken(sample) else replace(sample, features={}) for sample in held]
    return [_outcome("intent", tuned, held, risk, depends_on, data)]


def conclude_pairs(
    evidence: Sequence[Evidence],
    risk: Risk,
    depends_on: Mapping[str, str],
    data: Mapping[str, str],
    miss: float = 0.0,
) -> list[Outcome]:
    """The outcome of the cache: from which similarity on two questions are the same. Blocking.

    ``miss``: at most this share of different pairs is labelled the same, so a share r of different pairs among the
    served shows as r * (1 - miss) at least, and that is what is tested. Coverage has no floor: most questions are new.
    """
    from agent.confidence import calibration

    promise = risk.promise("cache")
    shown = Promise(epsilon=promise.epsilon * (1 - miss), delta=promise.delta)
    tested = risk.model_copy(update={"routes": {**risk.routes, "cache": shown}, "coverage_floor": 0.0})
    samples = [_sample(one, "cache") for one in evidence]
    side = calibration.assign([one.group for one in evidence])
    tuned = calibration.fit(
        [sample for sample, tune in zip(samples, side, strict=True) if tune], calibration.Prior(-18.0, {"cosine": 20.0})
    )
    if tuned is not None and tuned.score.weights["cosine"] <= 0:  # the less alike, the more the same: no such promise
        return [Outcome("cache", "no_prospect", promise.epsilon, promise.delta)]
    held = [sample for sample, tune in zip(samples, side, strict=True) if not tune]
    outcome = replace(_outcome("cache", tuned, held, tested, depends_on, data), epsilon=promise.epsilon)
    if outcome.certificate is None:
        return [outcome]
    made = replace(
        outcome.certificate,
        epsilon=promise.epsilon,
        risk_upper=min(1.0, outcome.certificate.risk_upper / (1 - miss)),
        measures={**outcome.certificate.measures, "similarity": outcome.certificate.least("cosine")},
    )
    return [replace(outcome, certificate=made)]


def conclude_answers(
    evidence: Sequence[Evidence],
    risk: Risk,
    depends_on: Mapping[RouteName, Mapping[str, str]],
    data: Mapping[str, str],
) -> list[Outcome]:
    """The outcomes of quotes and, for the questions that these leave, of generated answers. Blocking."""
    import numpy as np

    from agent.confidence import calibration

    reached = [one for one in evidence if not one.taken]
    side = _sides(reached)
    quotes = [_sample(one, "quote") for one in reached]
    tuned = calibration.fit([s for s, tune in zip(quotes, side, strict=True) if tune], _prior("quote", quotes))
    held = [s for s, tune in zip(quotes, side, strict=True) if not tune]
    outcomes = [_outcome("quote", tuned, held, risk, depends_on["quote"], data)]
    if not any("generated" in one.routes for one in reached):
        return outcomes

    answers = [_sample(one, "generated", before="quote") for one in reached]
    tune = [s for s, tuning in zip(answers, side, strict=True) if tuning]
    held = [s for s, tuning in zip(answers, side, strict=True) if not tuning]
    second = calibration.fit(tune, _prior("generated", answers))
    gate = None
    walk = outcomes[0].walk
    if tuned is not None and second is not None and walk is not None and walk.steps:
        gate = Gate("quote", walk.failed_at, tuned.score)
        held = [s for s in held if not s.other or gate.score(s.other) < gate.below]
        left = np.flatnonzero(tuned.confidence < gate.below)
        second = calibration.Tuned(second.score, second.confidence[left], second.right[left])
    outcomes.append(_outcome("generated", second, held, risk, depends_on["generated"], data, gate))
    return outcomes


def _sides(evidence: Sequence[Evidence]) -> list[bool]:
    """Which examples are to tune on: those that say so, or half of the groups."""
    from agent.confidence import calibration

    told = [one.tune for one in evidence]
    return calibration.assign([one.group for one in evidence]) if None in told else [bool(one) for one in told]


def _sample(one: Evidence, route: RouteName, before: RouteName | None = None) -> Sample:
    from agent.confidence.calibration import Sample

    given = one.routes.get(route, Given())
    other = one.routes.get(before) if before else None
    return Sample(given.features, given.right, one.group, other.features if other else None)


def _prior(route: Literal["quote", "generated"], samples: Sequence[Sample]) -> Prior:
    """The provisional model of most of these answers is where the fit starts from."""
    from agent.confidence.calibration import Prior

    models = [provisional.model(route, sample.features) for sample in samples if sample.features]
    if not models:
        return Prior(0.0, {})
    model = max(models, key=models.count)
    return Prior(model.bias, model.weights)


def _outcome(
    route: RouteName,
    tuned: Tuned | None,
    held: Sequence[Sample],
    risk: Risk,
    depends_on: Mapping[str, str],
    data: Mapping[str, str],
    gate: Gate | None = None,
) -> Outcome:
    import numpy as np

    from agent.confidence import calibration, measures

    promise = risk.promise(route)
    if tuned is None or not held:
        return Outcome(route, "too_few_labels", promise.epsilon, promise.delta)
    walk = calibration.certify(tuned, held, promise.epsilon, promise.delta)
    right = np.array([sample.right for sample in held], bool)
    confidence = np.array([tuned.score(s.features) if s.features else 0.0 for s in held], np.float64)
    groups = [sample.group for sample in held]
    curves = measures.curves(confidence, right, groups, promise.epsilon, walk.threshold)
    outcome = Outcome(route, walk.reason, promise.epsilon, promise.delta, None, walk, curves)
    if walk.threshold is None:
        return outcome
    last = walk.last
    if last.served / walk.n < risk.coverage_floor:
        return Outcome(route, "coverage_below_floor", promise.epsilon, promise.delta, None, walk, curves)
    certificate = Certificate(
        route=route,
        epsilon=promise.epsilon,
        delta=promise.delta,
        threshold=walk.threshold,
        n=walk.n,
        served=last.served,
        wrong=last.wrong,
        coverage=last.served / walk.n,
        risk=last.wrong / last.served,
        risk_upper=calibration.upper_bound(last.wrong, last.served, promise.delta),
        bound=curves.bound,
        tuned_on=len(tuned.confidence),
        groups=len(set(groups)),
        score=tuned.score,
        depends_on=dict(depends_on),
        data=dict(data),
        issued_at=round(time.time(), 3),
        gate=gate,
        measures=curves.measures,
        scores=tuple(float(value) for value in np.quantile(confidence, np.linspace(0, 1, 11))),
    )
    return Outcome(route, walk.reason, promise.epsilon, promise.delta, certificate, walk, curves)
