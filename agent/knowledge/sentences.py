"""Cutting prose into sentences (pure).

Written for visitor information, where a full stop is as often part of a time ("9 a.m."), a number ("No. 5"), a street
("Mill St.") or a name ("J. Smith") as the end of a sentence. Rules in the order in which they are asked, at every full
stop, question or exclamation mark that is followed by white space:

1. the next word starts in lower case: no border;
2. the word before is an abbreviation that always needs a follower (Mr., No. before a digit, e.g.): no border;
3. it is one that may end a sentence (a.m., St., Ltd., an initial): a border only before a word that commonly starts
   a sentence;
4. it is the number of an enumeration ("1. Buy a ticket"): no border;
5. else a border.
"""

from __future__ import annotations

import re

_ENDS = re.compile(r"[.!?…]+[\"'”’»)\]*_]*(?=\s)|[。！？]+[」』”）]*|\n[ \t]*\n")
_WORD_BEFORE = re.compile(r"[^\s(\[\"'“‘*_/]*$")
_NEXT = re.compile(r"[\s\"'“‘«(\[*_¡¿]*")
_NEXT_WORD = re.compile(r"[^\W\d_]+")
_INITIAL = re.compile(r"[A-Z]")

_NEEDS_FOLLOWER = frozenset(
    "mr mrs ms mx dr prof rev hon gen col capt sgt lt e.g i.e eg ie cf vs viz approx incl excl esp tel fig figs vol "
    "pp ca bzw z.b d.h u.a nr str dipl ing hr fr mme mlle sra nos pl.no ext.no".split()
)
_NUMBERED = frozenset("no nos nr art ch fig p pp para sec vol ext tel rm bus bldg".split())
_MAY_END = frozenset(
    "a.m p.m am pm noon st ave rd blvd ln sq ter dr jr sr ltd inc co corp dept est etc max min hrs hr mins u.s u.k "
    "u.s.a e.u b.c a.d ph.d m.a b.a p.o n.s n.y d.c jan feb mar apr jun jul aug sep sept oct nov dec mon tue tues "
    "wed thu thur thurs fri sat sun ft in mt jct ext usw".split()
)
_STARTERS = frozenset(
    "the a an it its he she they we you i this that these those there here please if when where while for from in "
    "on at by to with without during after before all any each every some no not our your their his her my as "
    "because although however children adults visitors tickets last first entry admission access dogs parking "
    "guided groups outside inside closed open free both most many once only since so then also but and or closing "
    "opening see call book allow bring use take ask check note what who how is are can do does will".split()
)


def spans(text: str) -> list[tuple[int, int]]:
    """Borders of the sentences of ``text``: slices in order, without the white space between them, that together hold
    every other character."""
    found: list[tuple[int, int]] = []
    start = 0
    for match in _ENDS.finditer(text):
        if _is_border(text, start, match):
            _append(found, text, start, match.end())
            start = match.end()
    _append(found, text, start, len(text))
    return found


def split(text: str) -> list[str]:
    """The sentences themselves, each a verbatim substring."""
    return [text[start:end] for start, end in spans(text)]


def _append(found: list[tuple[int, int]], text: str, start: int, end: int) -> None:
    piece = text[start:end]
    left = len(piece) - len(piece.lstrip())
    stripped = piece.strip()
    if stripped:
        found.append((start + left, start + left + len(stripped)))


def _is_border(text: str, start: int, match: re.Match[str]) -> bool:
    mark = match.group()
    if not mark.strip() or mark[0] in "。！？":
        return True
    ahead = _NEXT.match(text, match.end())
    at = ahead.end() if ahead else match.end()
    if at >= len(text):
        return True
    if text[at].islower():
        return False
    if mark[0] != "." or mark.startswith(".."):
        return True
    return _full_stop_ends(text[start : match.start()], text, at)


def _full_stop_ends(sentence: str, text: str, at: int) -> bool:
    """Whether a full stop after ``sentence`` ends it, the next word starting at ``at``."""
    found = _WORD_BEFORE.search(sentence)
    before = found.group() if found else ""
    word = before.lower()
    next_word = _NEXT_WORD.match(text, at)
    starter = next_word is not None and next_word.group().lower() in _STARTERS
    if text[at].isdigit() and word in _NUMBERED:
        return False
    if word in _NEEDS_FOLLOWER and not (word in _MAY_END and starter):
        return False
    if word in _MAY_END or (len(before) == 1 and _INITIAL.match(before)):
        return starter
    return not (before.isdigit() and len(before) <= 2 and before == sentence.strip())
