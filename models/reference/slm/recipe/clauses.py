# ruff: noqa: E501
"""Facts about arbitrary things: clauses made of a random verb and its arguments, with the questions that grammar allows.

The hand-written frames teach what venues say; these teach how English says anything: who did what, when, where, why,
how and how many, active and passive, in any order. Each call returns a fresh `Frame`, as if somebody had written it.
"""

from __future__ import annotations

import random
import re

from . import words as w
from .activities import activity
from .frames import Frame

SUBJECTS = ("person", "person", "person", "org", "role", "prof")
TIMES = {
    "past": ("in {year}", "on {date}", "last {month}", "in {month} {year}", "{duration} ago", "after {period}"),
    "present": ("{freq}", "{freq}", "{days}", "at {time}", "every {month}", "at {time} {days}"),
    "future": (
        "on {date}",
        "on {date}",
        "at {time}",
        "next {month}",
        "on {day} at {time}",
        "in {month} {year}",
        "on {day}, {date}",
    ),
}


def _tidy(templates: list[str]) -> list[str]:
    return [
        re.sub(r" +", " ", template).replace(" .", ".").replace(" ?", "?").replace(" ,", ",") for template in templates
    ]


def _wh(kind: str, rest: str, time: str, held: bool) -> list[str]:
    """Wh-questions for an adjunct, before `rest` (an inverted clause)."""
    options = {
        "time": [f"When {rest}?", f"When {rest}?", f"When exactly {rest}?"]
        + ([f"At what time {rest}?", f"What time {rest}?"] if "{time}" in time else [])
        + ([f"How often {rest}?"] if "{freq}" in time else [])
        + ([f"In which year {rest}?", f"In what year {rest}?"] if "{year}" in time else [])
        + ([f"On which day {rest}?"] if "{days}" in time else []),
        "place": [f"Where {rest}?", f"Where {rest}?", f"In which place {rest}?", f"Where exactly {rest}?"],
        "reason": [f"Why {rest}?", f"Why {rest}?", f"For what reason {rest}?"],
        "adverb": [f"How {rest}?", f"In what way {rest}?"],
    }
    if held:
        return {
            "time": [f"Do you know when {rest}?"],
            "place": [f"At which spot {rest}?"],
            "reason": [f"What is the reason, why {rest}?"],
            "adverb": [f"By what means {rest}?"],
        }[kind]
    return options[kind]


def transitive(rng: random.Random) -> Frame:
    """Somebody does something to a thing."""
    base = rng.choice(list(w.VERBS))
    third, past, participle = w.VERBS[base][1:]
    tense = rng.choice(("past", "past", "present", "present", "future", "modal"))
    subject = rng.choice(SUBJECTS)
    subj = {"person": "{subj}", "org": "{subj}", "role": "our {subj}", "prof": "the {subj}"}[subject]
    many = rng.random() < 0.2
    obj = "{n} [{adj} |]{noun}s" if many else "the {obj}"
    obj_q = "[{adj} |]{noun}s" if many else "the {obj}"
    be = {
        "past": "were" if many else "was",
        "present": "are" if many else "is",
        "future": "will be",
        "modal": rng.choice(("can be", "must be", "may be")),
    }[tense]
    verb = {"past": past, "present": third, "future": f"will {base}", "modal": f"{be.split()[0]} {base}"}[tense]
    time = rng.choice(TIMES["present" if tense in ("present", "modal") else tense])
    time = f"<time:{time}>"
    adjuncts = {"time": time, "place": "<place:{near}>", "reason": "<reason:{why}>", "adverb": "<adverb:{how}>"}
    chosen = rng.sample(list(adjuncts), rng.choice((0, 1, 1, 1, 2, 2)))
    by = f"by <who:{subj}>"
    who = f"<who:{subj}>"
    what = f"<what:{obj}>"
    statements = []
    for _ in range(4):
        mods = [adjuncts[c] for c in rng.sample(chosen, len(chosen))]
        tail = " ".join(mods)
        front = f"{mods[0]}, " if mods else ""
        rest = " ".join(mods[1:])
        statements += [
            f"{who} {verb} {what} {tail}.",
            f"{what} {be} {participle} {by} {tail}.",
            f"{what} {be} {participle} {tail}.",
            f"{front}{who} {verb} {what} {rest}.",
            f"{front}{what} {be} {participle} {by} {rest}.",
            f"{what} {be} {participle} {tail} {by}.",
        ]
        if not many:
            statements += [
                f"{what}, {participle} {by} {tail}, is worth a look.",
                f"We know that {who} {verb} {what} {tail}.",
                f"{participle.capitalize()} {tail} {by}, {what} is a favourite of many.",
            ]
    held = [
        f"It {'was' if tense == 'past' else 'is'} {who} who {verb} {what} {' '.join(adjuncts[c] for c in chosen)}.",
        f"As for {what}, {who} {verb} it {' '.join(adjuncts[c] for c in chosen)}."
        if not many
        else f"There are {what} that {who} {verb} {' '.join(adjuncts[c] for c in chosen)}.",
    ]
    ask_base = rng.choice((base, base, *w.VERB_SYNONYMS.get(base, ())))
    do = {"past": "did", "present": "does", "future": "will", "modal": be.split()[0]}[tense]
    aux, participle_rest = (be.split()[0], " ".join([*be.split()[1:], participle]))
    passive = f"{aux} {obj_q} {participle_rest}"
    active = f"{do} {subj} {ask_base} {obj_q}"
    questions = {
        "who": [
            f"Who {verb} {obj_q}?",
            f"Who {verb} {obj_q}?",
            f"By whom {passive}?",
            f"Who {passive} by?",
            f"Which person or body {verb} {obj_q}?",
        ],
        "what": [
            f"What {do} {subj} {ask_base}?",
            f"What {aux} {participle_rest} by {subj}?",
            f"Which thing {do} {subj} {ask_base}?",
        ],
    }
    held_q = {
        "who": [
            f"Do you know who {verb} {obj_q}?",
            f"Whose job {'was' if tense == 'past' else 'is'} it to {base} {obj_q}?",
        ],
        "what": [f"Tell me what {subj} {verb}."],
    }
    for kind in adjuncts:
        questions[kind] = _wh(kind, passive, time, False) + _wh(kind, active, time, False)[:2]
        held_q[kind] = _wh(kind, passive, time, True)
    if many:
        questions["n"] = [f"How many {obj_q} {aux} {participle_rest}?", f"How many {obj_q} {do} {subj} {base}?"]
        held_q["n"] = [f"What number of {obj_q} {aux} {participle_rest}?"]
        del questions["what"], held_q["what"]
    kinds = {
        "subj": subject,
        "obj": "thing",
        "n": "few" if rng.random() < 0.5 else "count",
        "adj": "adj",
        "noun": "noun",
        "near": "near",
        "why": "reason",
        "how": "adverb",
        **{k: k for k in ("year", "date", "month", "duration", "period", "freq", "day", "days", "time")},
    }
    return Frame(
        f"clause.{base}",
        kinds,
        ("obj", "subj", "noun"),
        {},
        ["History", "News", "Good to know", "Our work", "Behind the scenes", "The collection", "About us", "Notes"],
        _tidy(statements),
        _tidy(held),
        questions,
        held_q,
        [],
        [],
    )


def intransitive(rng: random.Random) -> Frame:
    """Somebody or something does something somewhere at some time."""
    base = rng.choice(list(w.INTRANSITIVES))
    third, past = w.INTRANSITIVES[base][1:]
    tense = rng.choice(("past", "present", "present", "future"))
    subject = rng.choice(("person", "thing", "thing", "event", "animal", "role"))
    subj = "{subj}" if subject == "person" else "the {subj}"
    verb = {"past": past, "present": third, "future": f"will {base}"}[tense]
    do = {"past": "did", "present": "does", "future": "will"}[tense]
    time = f"<time:{rng.choice(TIMES[tense])}>"
    adjuncts = {"time": time, "place": "<place:{near}>", "reason": "<reason:{why}>", "adverb": "<adverb:{how}>"}
    chosen = rng.sample(list(adjuncts), rng.choice((1, 1, 2, 2)))
    statements = []
    for _ in range(3):
        mods = [adjuncts[c] for c in rng.sample(chosen, len(chosen))]
        statements += [
            f"<who:{subj}> {verb} {' '.join(mods)}.",
            f"{mods[0]}, <who:{subj}> {verb} {' '.join(mods[1:])}.",
            f"Did you know that <who:{subj}> {verb} {' '.join(mods)}?",
            f"{' '.join(mods)} <who:{subj}> {verb}.",
        ]
    questions = {kind: _wh(kind, f"{do} {subj} {base}", time, False) for kind in adjuncts}
    questions["who"] = [f"Who or what {verb} {a}?" for a in (adjuncts[c].split(":", 1)[1][:-1] for c in chosen)]
    held_q = {kind: _wh(kind, f"{do} {subj} {base}", time, True) for kind in adjuncts}
    kinds = {
        "subj": subject,
        "near": "near",
        "why": "reason",
        "how": "adverb",
        **{k: k for k in ("year", "date", "month", "duration", "period", "freq", "day", "days", "time")},
    }
    return Frame(
        f"clause.{base}",
        kinds,
        ("subj",),
        {},
        ["News", "Good to know", "Behind the scenes", "About us", "Notes", "Programme"],
        _tidy(statements),
        [f"What we can say is that <who:{subj}> {verb} {' '.join(adjuncts[c] for c in chosen)}."],
        questions,
        held_q,
        [],
        [],
    )


def attribute(rng: random.Random) -> Frame:
    """A thing has an attribute with a value, or a number of parts."""
    subject = rng.choice(("thing", "thing", "thing", "fac", "event", "animal", "guide", "shuttle", "route"))
    heads = ["Facts and figures", "About", "Details", "{subj}", "Good to know", "Data sheet", "In short"]
    if rng.random() < 0.25:
        part = rng.choice(w.PARTS)
        statements = [
            f"The {{subj}} has <v:{{v}}> {part}.",
            f"There are <v:{{v}}> {part} on the {{subj}}.",
            f"With its <v:{{v}}> {part}, the {{subj}} is remarkable.",
            f"<v:{{v}}> {part} belong to the {{subj}}.",
            f"The {{subj}} with its <v:{{v}}> {part} draws many visitors.",
            f"You can count <v:{{v}}> {part} on the {{subj}}.",
        ]
        questions = {
            "v": [
                f"How many {part} does the {{subj}} have?",
                f"How many {part} are there on the {{subj}}?",
                f"What is the number of {part} of the {{subj}}?",
                f"number of {part} {{subj}}",
            ]
        }
        return Frame(
            "clause.parts",
            {"subj": subject, "v": "count"},
            ("subj",),
            {},
            heads,
            statements,
            [f"Nobody would guess that the {{subj}} comes with <v:{{v}}> {part}."],
            questions,
            {"v": [f"Can you say how many {part} the {{subj}} has?"]},
            [f"{part} ({{subj}}) :: {{v}}"],
            [],
        )
    name, kind = rng.choice(list(w.ATTRIBUTES.items()))
    other, other_kind = rng.choice(list(w.ATTRIBUTES.items()))
    statements = [
        f"The {name} of the {{subj}} is <v:{{v}}>.",
        f"The {{subj}} has <v:{{v}}> as its {name}.",
        f"<v:{{v}}> is the {name} of the {{subj}}.",
        f"The {{subj}}'s {name} is <v:{{v}}>.",
        f"{name.capitalize()} of the {{subj}}: <v:{{v}}>.",
        f"The {{subj}} ({name}: <v:{{v}}>) is next.",
        f"Its {name} is <v:{{v}}>: the {{subj}}.",
        f"Many ask about the {{subj}}: the {name} is <v:{{v}}>.",
        f"The {{subj}}: {name} <v:{{v}}>, {other} <v2:{{v2}}>.",
        f"For the {{subj}}, the {name} is <v:{{v}}> and the {other} is <v2:{{v2}}>.",
    ]
    questions = {
        "v": [
            f"What is the {name} of the {{subj}}?",
            f"What's the {{subj}}'s {name}?",
            f"What {name} does the {{subj}} have?",
            f"{name} {{subj}}",
            f"Which {name} does the {{subj}} have?",
        ],
        "v2": [f"What is the {other} of the {{subj}}?", f"What {other} does the {{subj}} have?"],
    }
    return Frame(
        f"clause.{name}",
        {"subj": subject, "v": kind, "v2": other_kind},
        ("subj",),
        {},
        heads,
        statements,
        [
            f"When it comes to the {name}, the {{subj}} is known for <v:{{v}}>.",
            f"As {name}, the register gives <v:{{v}}> for the {{subj}}.",
        ],
        questions,
        {"v": [f"Do you know the {name} of the {{subj}}?", f"I need the {name} of the {{subj}}."]},
        [f"{{subj}}, {name} :: {{v}}", f"{name} of the {{subj}} :: {{v}}"],
        [f"Name = {{subj}} | {name.capitalize()} = {{v}} | {other.capitalize()} = {{v2}}"],
    )


def clause(rng: random.Random) -> Frame:
    return rng.choice((transitive, transitive, intransitive, attribute, activity, activity, activity))(rng)
