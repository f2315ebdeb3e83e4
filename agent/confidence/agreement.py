"""Whether two answers to one question say the same: the device's, often a sentence out of a document, and the cloud's,
in its own words (pure).

Values decide first: times ("half past nine in the evening" is 21:30), amounts, durations, dates, weekdays, codes,
numbers of telephones, addresses of mail. All values of the shorter account must stand in the other; a cloud that names
a value where the device's words hold none, or others, says something else. Then polarity: what one forbids and the
other permits is no agreement, however alike the words. Then words: the share of each answer's content words, roughly
stemmed, that stand in the other, and names. A cloud that says it does not know agrees with nothing.

A small logistic model weighs these (`WEIGHTS`, fitted on tests/data/agreement/tune.jsonl). It errs, and how much is
measured on other pairs (tests/data/agreement/measure.jsonl): `FALSE_ALARM` and `MISS` are what the live risk must be
told (agent/confidence/live.py, Judge). English only; in other languages values still count, words hardly.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Final

from agent.confidence.values import Value, extract

WEIGHTS: Final[Mapping[str, float]] = {
    "bias": -2.31, "values_all": 3.2, "values_more": -0.26, "values_some": 0.89, "values_other": -3.02,
    "values_missing": -1.69, "values_none": 0.1, "against": -3.19, "free": 0.39, "paid": -0.49, "words_cloud": 3.08,
    "words_device": 1.62, "names": -1.21,
}  # fmt: skip
FALSE_ALARM: Final = 0.152
"""Upper 95 % Clopper-Pearson bound of the share of like answers that are called different."""
MISS: Final = 0.123
"""The same of different answers that are called like."""

_LONGEST: Final = 4000
"""Characters of an answer that are looked at."""
_UNKNOWING = re.compile(
    r"\b(i (do not|don't) (know|have (that|this|the|any))|"
    r"(passages?|documents?|texts?|sources?) (do not|does not|don't|doesn't) (say|state|mention|tell|contain|give)|"
    r"(is|are)(n't| not) (stated|mentioned|given|specified)|"
    r"(i )?(cannot|can't|could not|couldn't) (say|tell|find|answer|determine)|no information|not (sure|certain))\b"
)
_FREE = re.compile(
    r"\b(free of charge|free|included|nothing extra|no (extra )?(charge|cost|fee)|at no cost|complimentary|"
    r"(do not|don't|does not|doesn't) (have to |need to )?pay)\b"
)
_NOT = re.compile(
    r"\b(no|not|never|none|nobody|nowhere|cannot|neither|nor|prohibited|forbidden|banned|closed|cancelled|canceled|"
    r"impossible|refused|out of order|un(heated|available|able|suitable|guarded|safe))\b|n't\b"
)
_LIMITED = re.compile(r"\b(only|except|unless|apart from|other than)\b")
_LEAD = re.compile(r"^\W*(yes|no|unfortunately|sorry|nothing|not)\b[,.:;!]?\s*")
_CLAUSE = re.compile(r"[.!?;:](?=\s|$)|,? (?:but|however|although)\b|,(?= not\b)|\n")
_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?")
_NAME = re.compile(r"(?<=[\w,] )[A-Z][a-z]{2,}")
_STOP = frozenset(
    "a an the and or of to in on at by for with from as into than then that this these those there here it its it's "
    "is are was were be been being am do does did has have had can could will would shall should may might must "
    "need i me my we us our you your he she they them their his her which who whom what when where how why so very "
    "just also please if while until till up out about all any some each every other such own per via yes no not "
    "only one ones isn't aren't don't doesn't can't cannot won't we're you'll you'd it'll there's that's they're "
    "he's she's who's let's want take takes taking get gets getting go goes find ask use used using during between "
    "within every always".split()
)
_SAME = {
    word: group.split()[0]
    for group in (
        "allow permit permitted allowed welcome admit", "prohibit forbid forbidden prohibited ban banned",
        "begin start starts begins", "end close closes closed finish", "price cost charge fee",
        "child kid children kids",
        "book reserve reservation booking", "lift elevator", "car vehicle", "bike bicycle cycle", "photo photograph "
        "photography picture", "stair staircase", "collect pick fetch", "require essential necessary compulsory",
        "beside next near", "opposite across", "senior pensioner", "reduction discount", "phone telephone call",
        "tall high height", "yearly annual year", "rent hire borrow", "depart leave leaves", "last final", "dog dogs",
        "desk reception counter", "see visit",
    )
    for word in group.split()
}  # fmt: skip


def alike(device: str, cloud: str) -> bool:
    """Whether the device's answer says what the cloud's says.

    >>> alike("The last boat leaves the island at 17:30.", "The last boat back is at 5:30 pm.")
    True
    >>> alike("Dogs are not allowed.", "Yes, dogs are allowed.")
    False
    """
    return agreement(device, cloud) >= 0.5


def agreement(device: str, cloud: str) -> float:
    """How much the answers say the same, 0..1; 0 where the cloud says that it does not know, or nothing."""
    device, cloud = _plain(device[:_LONGEST]), _plain(cloud[:_LONGEST])
    if not device.strip() or not cloud.strip() or _UNKNOWING.search(cloud.lower()):
        return 0.0
    logit = sum(WEIGHTS.get(name, 0.0) * value for name, value in features(device, cloud).items())
    return 1.0 / (1.0 + math.exp(-logit))


def features(device: str, cloud: str) -> dict[str, float]:
    """What is compared, each 0..1 and ``bias`` 1.

    Of the cloud's values, one is 1: ``values_all`` stand in the device's answer, ``values_more`` (the cloud names
    all of the device's and others), ``values_some``, ``values_other`` (none), ``values_missing`` (the device names
    none at all), ``values_none`` (the cloud names none). ``against``: one says yes and the other no. ``free``: both
    say that it costs nothing; ``paid``: only one does, and the other names values. ``words_cloud`` and
    ``words_device``: share of that answer's content words in the other; ``names``: share of the cloud's capitalised
    names that the device's answer lacks.
    """
    device, cloud = _plain(device), _plain(cloud)
    held, said = extract(device), extract(cloud)
    device_free, cloud_free = bool(_FREE.search(device.lower())), bool(_FREE.search(cloud.lower()))
    mine, theirs = _words(device), _words(cloud)
    names = {name.lower() for name in _NAME.findall(cloud)}
    spelled = device.lower()
    return {
        "bias": 1.0,
        _values(held, said): 1.0,
        "against": float(_against(device, cloud)),
        "free": float(device_free and cloud_free),
        "paid": float(device_free != cloud_free and bool(held if cloud_free else said)),
        "words_cloud": len(theirs & mine) / len(theirs) if theirs else 0.5,
        "words_device": len(theirs & mine) / len(mine) if mine else 0.5,
        "names": sum(name not in spelled for name in names) / len(names) if names else 0.0,
    }


def _values(held: frozenset[Value], said: frozenset[Value]) -> str:
    if not said:
        return "values_none"
    if not held:
        return "values_missing"
    found = sum(any(value.meets(other) for other in held) for value in said)
    if found == len(said):
        return "values_all"
    if not found:
        return "values_other"
    if all(any(value.meets(other) for other in said) for value in held):
        return "values_more"
    return "values_some"


def _against(device: str, cloud: str) -> bool:
    """Whether the cloud's first statement denies what the device's nearest statement affirms, or the other way."""
    lead = _LEAD.match(cloud.lower())
    claims = _clauses(cloud)
    if not claims:
        return False
    claim = claims[0] if _words(claims[0]) or len(claims) == 1 else claims[1]
    nearest = max(_clauses(device) or [device], key=lambda clause: len(_words(clause) & _words(claim)))
    ours, theirs = _denies(nearest), _denies(claim)
    if lead and lead[1] != "yes":
        theirs = True
    if _FREE.search(claim.lower()) or _FREE.search(nearest.lower()):
        return False
    if ours == theirs:
        return False
    unclear = (nearest if theirs else claim).lower()
    return not _LIMITED.search(unclear)


def _denies(clause: str) -> bool:
    return bool(_NOT.search(_FREE.sub(" ", clause.lower())))


def _clauses(text: str) -> list[str]:
    return [clause for clause in _CLAUSE.split(text) if clause and clause.strip()]


def _plain(text: str) -> str:
    return text.replace("’", "'").replace("–", "-").replace("\u00a0", " ")


def _words(text: str) -> frozenset[str]:
    words = (word for word in _WORD.findall(text.lower()) if word not in _STOP and len(word) > 1)
    return frozenset(_SAME.get(word) or _SAME.get(_stem(word)) or _stem(word) for word in words)


def _stem(word: str) -> str:
    for ending, left in (("'s", ""), ("ies", "y"), ("ing", ""), ("ed", ""), ("es", ""), ("s", "")):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return (word[: -len(ending)] + left).rstrip("e")
    return word.rstrip("e") if len(word) > 3 else word
