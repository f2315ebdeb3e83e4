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
from .frames import Frame, apart

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


def _wh(kind: str, rest: str, time: str, held: bool, plain: str = "") -> list[str]:
    """Wh-questions for an adjunct, before `rest` (an inverted clause), or `plain` (the same clause, not inverted)."""
    options = {
        "time": [f"When {rest}?", f"When {rest}?", f"When exactly {rest}?"]
        + ([f"At what time {rest}?", f"What time {rest}?"] if "{time}" in time else [])
        + ([f"How often {rest}?"] if "{freq}" in time else [])
        + ([f"In which year {rest}?", f"In what year {rest}?"] if "{year}" in time else [])
        + ([f"On which day {rest}?"] if "{days}" in time else [])
        + [
            f"And when {rest}?",
            f"So when {rest}?",
            f"Just when {rest}?",
            f"When precisely {rest}?",
            f"When, exactly, {rest}?",
            f"At what point {rest}?",
            f"At which point in time {rest}?",
            f"On what occasion {rest}?",
            f"By the way, when {rest}?",
            f"Excuse me, when {rest}?",
            f"One question: when {rest}?",
            f"Remind me, when {rest}?",
            f"when {rest}",
        ]
        + (
            [f"At which hour {rest}?", f"At what hour {rest}?", f"At what time of day {rest}?", f"what time {rest}"]
            if "{time}" in time
            else []
        )
        + (
            [
                f"How frequently {rest}?",
                f"How regularly {rest}?",
                f"With what frequency {rest}?",
                f"At what intervals {rest}?",
                f"And how often {rest}?",
                f"Just how often {rest}?",
                f"how often {rest}",
            ]
            if "{freq}" in time
            else []
        )
        + ([f"What year {rest}?", f"In exactly which year {rest}?", f"which year {rest}"] if "{year}" in time else [])
        + (
            [f"In which month {rest}?", f"In what month {rest}?", f"During which month {rest}?"]
            if "{month}" in time
            else []
        )
        + (
            [f"On what date {rest}?", f"On which date {rest}?", f"What date {rest}?", f"On which exact date {rest}?"]
            if "{date}" in time
            else []
        )
        + (
            [f"On what days {rest}?", f"On which days {rest}?", f"On which days of the week {rest}?"]
            if "{days}" in time
            else []
        )
        + ([f"On what day {rest}?", f"On which day {rest}?", f"What day {rest}?"] if "{day}" in time else [])
        + ([f"How long ago {rest}?", f"Just how long ago {rest}?"] if "{duration}" in time else [])
        + ([f"After how long {rest}?", f"After what period {rest}?"] if "{period}" in time else []),
        "place": [
            f"Where {rest}?",
            f"Where {rest}?",
            f"In which place {rest}?",
            f"Where exactly {rest}?",
            f"And where {rest}?",
            f"So where {rest}?",
            f"Just where {rest}?",
            f"Whereabouts {rest}?",
            f"Where precisely {rest}?",
            f"At which place {rest}?",
            f"At what place {rest}?",
            f"At which spot {rest}?",
            f"In what spot {rest}?",
            f"At what location {rest}?",
            f"In which location {rest}?",
            f"Near what {rest}?",
            f"By the way, where {rest}?",
            f"Excuse me, where {rest}?",
            f"One question: where {rest}?",
            f"where {rest}",
        ],
        "reason": [
            f"Why {rest}?",
            f"Why {rest}?",
            f"For what reason {rest}?",
            f"And why {rest}?",
            f"But why {rest}?",
            f"So why {rest}?",
            f"Just why {rest}?",
            f"Why exactly {rest}?",
            f"Why precisely {rest}?",
            f"For which reason {rest}?",
            f"For what reasons {rest}?",
            f"On what grounds {rest}?",
            f"Because of what {rest}?",
            f"Owing to what {rest}?",
            f"By the way, why {rest}?",
            f"Excuse me, why {rest}?",
            f"One question: why {rest}?",
            f"why {rest}",
        ],
        "adverb": [
            f"How {rest}?",
            f"In what way {rest}?",
            f"And how {rest}?",
            f"So how {rest}?",
            f"Just how {rest}?",
            f"How exactly {rest}?",
            f"How, exactly, {rest}?",
            f"In which way {rest}?",
            f"In what manner {rest}?",
            f"In which manner {rest}?",
            f"In what fashion {rest}?",
            f"By the way, how {rest}?",
            f"Excuse me, how {rest}?",
            f"One question: how {rest}?",
            f"how {rest}",
        ],
    }
    if plain:
        cop = "was" if rest.split(" ")[0] in ("did", "was", "were") else "is"
        options["time"] += [
            f"I wonder when {plain}.",
            f"Could you tell me when {plain}?",
            f"I'd like to find out when {plain}.",
            f"Do you know when {plain}?",
            f"Can you say exactly when {plain}?",
            f"When {cop} it that {plain}?",
            f"Please tell me when {plain}.",
            f"Any idea when {plain}?",
            f"I want to know at what point {plain}.",
            f"Does anyone know when {plain}?",
            f"We were asking ourselves when {plain}.",
            f"Does it say when {plain}?",
            f"When {cop} it, exactly, that {plain}?",
            f"I have heard that {plain}, but when?",
            f"So {plain}. When {cop} that?",
        ]
        if "{time}" in time:
            options["time"] += [
                f"I wonder at what time {plain}.",
                f"Could you tell me what time {plain}?",
                f"What {cop} the time at which {plain}?",
            ]
        if "{freq}" in time:
            options["time"] += [
                f"I wonder how often {plain}.",
                f"Could you tell me how often {plain}?",
                f"I'd like to find out how frequently {plain}.",
                f"How often is it that {plain}?",
            ]
        if "{year}" in time:
            options["time"] += [
                f"I wonder in which year {plain}.",
                f"Could you tell me the year in which {plain}?",
                f"What {cop} the year in which {plain}?",
            ]
        if "{date}" in time:
            options["time"] += [
                f"I wonder on what date {plain}.",
                f"Could you tell me the date on which {plain}?",
                f"What {cop} the date on which {plain}?",
            ]
        if "{month}" in time:
            options["time"] += [f"I wonder in which month {plain}.", f"What {cop} the month in which {plain}?"]
        if "{day}" in time or "{days}" in time:
            options["time"] += [f"I wonder on which day {plain}.", f"Could you tell me what day {plain}?"]
        if "{duration}" in time:
            options["time"] += [f"I wonder how long ago {plain}.", f"How long ago {cop} it that {plain}?"]
        if "{period}" in time:
            options["time"] += [f"I wonder after how long {plain}.", f"Could you tell me after what time {plain}?"]
        options["place"] += [
            f"I wonder where {plain}.",
            f"Could you tell me where {plain}?",
            f"I'd like to find out where {plain}.",
            f"Do you know where {plain}?",
            f"Can you say exactly where {plain}?",
            f"Where {cop} it that {plain}?",
            f"What {cop} the place where {plain}?",
            f"Which {cop} the spot where {plain}?",
            f"Please tell me where {plain}.",
            f"Any idea where {plain}?",
            f"I want to know in which place {plain}.",
            f"Does anyone know whereabouts {plain}?",
            f"Can you show me the place where {plain}?",
            f"I have heard that {plain}, but where?",
            f"place where {plain}",
        ]
        options["reason"] += [
            f"I wonder why {plain}.",
            f"Could you tell me why {plain}?",
            f"I'd like to find out why {plain}.",
            f"Do you know why {plain}?",
            f"Can you explain why {plain}?",
            f"Why {cop} it that {plain}?",
            f"How come {plain}?",
            f"What {cop} the reason why {plain}?",
            f"What {cop} the reason that {plain}?",
            f"Please tell me why {plain}.",
            f"Any idea why {plain}?",
            f"I want to know for what reason {plain}.",
            f"I don't understand why {plain}.",
            f"I have heard that {plain}, but why?",
            f"reason why {plain}",
        ]
        options["adverb"] += [
            f"I wonder how {plain}.",
            f"Could you tell me how {plain}?",
            f"I'd like to find out how {plain}.",
            f"Do you know how {plain}?",
            f"Can you describe how {plain}?",
            f"What {cop} the way in which {plain}?",
            f"What {cop} the manner in which {plain}?",
            f"Please tell me how {plain}.",
            f"Any idea how {plain}?",
            f"I want to know in what way {plain}.",
            f"Does anyone know in what manner {plain}?",
            f"I have heard that {plain}, but how?",
            f"way in which {plain}",
        ]
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
    do = {"past": "did", "present": "does", "future": "will", "modal": be.split()[0]}[tense]
    modal = be.split()[0]
    cop = "was" if tense == "past" else "is"  # of a cleft: "it was ... that"
    stay = "are" if many else "is"
    pron = "them" if many else "it"
    fall = {"past": "fell", "present": "falls", "future": "will fall", "modal": f"{modal} fall"}[tense]
    happen = {"past": "happened", "present": "happens", "future": "will happen", "modal": f"{modal} happen"}[tense]
    sign = {"past": participle, "present": participle, "future": f"to be {participle}", "modal": be + " " + participle}[
        tense
    ]
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
            # clefts
            f"It {cop} {who} that {verb} {what} {tail}.",
            f"What {who} {verb} {tail} {cop} {what}.",
            f"The one that {verb} {what} {tail} {cop} {who}.",
            f"{who} {cop} the one that {verb} {what} {tail}.",
            # emphasis, and other verbs around the deed
            f"{who} {do} indeed {base} {what} {tail}.",
            f"It {fall} to {who} to {base} {what} {tail}.",
            f"The task to {base} {what} {tail} {fall} to {who}.",
            f"Nobody but {who} {verb} {what} {tail}.",
            f"{who} alone {verb} {what} {tail}.",
            f"We owe it to {who} that {what} {be} {participle} {tail}.",
            # framed
            f"According to our records, {who} {verb} {what} {tail}.",
            f"According to our records, {what} {be} {participle} {by} {tail}.",
            f"As far as we know, {what} {be} {participle} {tail}.",
            f"It is well known that {who} {verb} {what} {tail}.",
            f"It says here that {what} {be} {participle} {by} {tail}.",
            f"Please note that {what} {be} {participle} {tail}.",
            f"Good news: {who} {verb} {what} {tail}.",
            f"By the way, {who} {verb} {what} {tail}.",
            f"Did you know that {what} {be} {participle} {by} {tail}?",
            f"Believe it or not, {who} {verb} {what} {tail}.",
            f"Visitors often hear that {who} {verb} {what} {tail}.",
            # relative and subordinate clauses
            f"{what}, which {who} {verb} {tail}, {stay} known to everyone here.",
            f"{what}, which {be} {participle} {by} {tail}, {stay} much talked about.",
            f"{who}, as many people know, {verb} {what} {tail}.",
            f"{who}, who nobody expected to do so, {verb} {what} {tail}."
            if subject != "org"
            else f"{who}, of all people, {verb} {what} {tail}.",
            f"Everyone was glad to hear that {who} {verb} {what} {tail}.",
            f"Although it is hard work, {who} {verb} {what} {tail}.",
            # question and answer, fragments, two sentences
            f"{what}? {who} {verb} {pron} {tail}.",
            f"{what}: {sign} {by} {tail}.",
            f"{what}, {sign} {tail} {by}.",
            f"{who} {verb} {what}, and we are grateful.",
        ]
        if mods:
            statements += [
                f"It {cop} {mods[0]} that {who} {verb} {what} {rest}.",
                f"It {cop} {mods[0]} that {what} {be} {participle} {by} {rest}.",
                f"{who}, {mods[0]}, {verb} {what} {rest}.",
                f"{what} {be}, {mods[0]}, {participle} {by} {rest}.",
                f"{who} {verb} {what}. This {happen} {tail}.",
                f"{what} {be} {participle} {by}. That {happen} {tail}.",
                f"{what} {be} {participle}, and that {happen} {tail}.",
                f"{mods[0]}, as our guide explains, {who} {verb} {what} {rest}.",
                f"{who} {verb} {what}, namely {tail}.",
            ]
            if mods[0].startswith(("<time", "<place")):
                statements += [
                    f"{mods[0]}: {who} {verb} {what} {rest}.",
                    f"{mods[0]}: {what} {be} {participle} {by} {rest}.",
                    f"{mods[0]}: {what}, {sign} {by} {rest}.",
                ]
        if not many:
            statements += [
                f"{what}, {participle} {by} {tail}, is worth a look.",
                f"We know that {who} {verb} {what} {tail}.",
                f"{participle.capitalize()} {tail} {by}, {what} is a favourite of many.",
                f"As for {what}, {who} {verb} it {tail}.",
                f"As for {what}, it {be} {participle} {by} {tail}.",
                f"Here you see {what}, which {be} {participle} {by} {tail}.",
                f"Take a look at {what}: {who} {verb} it {tail}.",
                f"There is also {what}, which {who} {verb} {tail}.",
                f"You may ask about {what}. It {be} {participle} {by} {tail}.",
                f"Many come to see {what}, {sign} {by} {tail}."
                if tense != "modal"
                else f"Many come to see {what}, which {who} {verb} {tail}.",
            ]
    held = [
        f"It {'was' if tense == 'past' else 'is'} {who} who {verb} {what} {' '.join(adjuncts[c] for c in chosen)}.",
        f"As for {what}, {who} {verb} it {' '.join(adjuncts[c] for c in chosen)}."
        if not many
        else f"There are {what} that {who} {verb} {' '.join(adjuncts[c] for c in chosen)}.",
    ]
    ask_base = rng.choice((base, base, *w.VERB_SYNONYMS.get(base, ())))
    aux, participle_rest = (be.split()[0], " ".join([*be.split()[1:], participle]))
    passive = f"{aux} {obj_q} {participle_rest}"
    active = f"{do} {subj} {ask_base} {obj_q}"
    plain_passive = f"{obj_q} {be} {participle}"
    plain_active = f"{subj} {verb} {obj_q}"
    be_one = {"past": "was", "present": "is"}.get(tense, be)  # after "what", which is singular
    aux_one = be_one.split()[0]
    questions = {
        "who": [
            f"Who {verb} {obj_q}?",
            f"Who {verb} {obj_q}?",
            f"By whom {passive}?",
            f"Who {passive} by?",
            f"Which person or body {verb} {obj_q}?",
            f"Who {cop} it that {verb} {obj_q}?",
            f"Who {cop} the one that {verb} {obj_q}?",
            f"I wonder who {verb} {obj_q}.",
            f"I wonder by whom {plain_passive}.",
            f"Could you tell me who {verb} {obj_q}?",
            f"Could you tell me who {plain_passive} by?",
            f"I'd like to find out who {verb} {obj_q}.",
            f"Do you know who {verb} {obj_q}?",
            f"Does anyone know by whom {plain_passive}?",
            f"By which person or organisation {passive}?",
            f"And who {verb} {obj_q}?",
            f"{plain_passive} by whom?",
            f"Whose task {cop} it to {base} {obj_q}?",
            f"Whose job {cop} it to {base} {obj_q}?",
            f"What is the name of the one that {verb} {obj_q}?",
            f"Please tell me who {verb} {obj_q}.",
            f"As for {obj_q}, who {verb} {pron}?",
            f"Any idea who {verb} {obj_q}?",
            f"who {verb} {obj_q}",
            f"{obj_q} {participle} by",
            f"Which of them {verb} {obj_q}?",
            f"I know that {plain_passive}, but by whom?",
        ],
        "what": [
            f"What {do} {subj} {ask_base}?",
            f"What {aux} {participle_rest} by {subj}?",
            f"Which thing {do} {subj} {ask_base}?",
            f"What {cop} it that {subj} {verb}?",
            f"What {cop} the thing that {subj} {verb}?",
            f"What exactly {do} {subj} {ask_base}?",
            f"And what {do} {subj} {ask_base}?",
            f"What sort of thing {do} {subj} {ask_base}?",
            f"Which object {do} {subj} {ask_base}?",
            f"I wonder what {subj} {verb}.",
            f"I wonder what {be_one} {participle} by {subj}.",
            f"Could you tell me what {subj} {verb}?",
            f"Could you tell me what {be_one} {participle} by {subj}?",
            f"I'd like to find out what {subj} {verb}.",
            f"Do you know what {subj} {verb}?",
            f"Which thing {aux_one} {participle_rest} by {subj}?",
            f"By {subj}, what {be_one} {participle}?",
            f"{subj} {verb} what?",
            f"Please tell me what {subj} {verb}.",
            f"Any idea what {subj} {verb}?",
            f"Name the thing that {subj} {verb}.",
            f"what {do} {subj} {ask_base}",
            f"{participle} by {subj}",
            f"Speaking of {subj}, what {be_one} {participle} by them?",
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
        # the active ones were cut to [:2]; now all, so that the active indirect questions are there too
        questions[kind] = _wh(kind, passive, time, False, plain_passive) + _wh(kind, active, time, False, plain_active)
        held_q[kind] = _wh(kind, passive, time, True)
    if many:
        questions["n"] = [
            f"How many {obj_q} {aux} {participle_rest}?",
            f"How many {obj_q} {do} {subj} {base}?",
            f"How many {obj_q} {aux} {participle_rest} by {subj}?",
            f"By {subj}, how many {obj_q} {be} {participle}?",
            f"What number of {obj_q} {do} {subj} {base}?",
            f"What {cop} the number of {obj_q} that {subj} {verb}?",
            f"I wonder how many {obj_q} {be} {participle}.",
            f"I wonder how many {obj_q} {subj} {verb}.",
            f"Could you tell me how many {obj_q} {subj} {verb}?",
            f"I'd like to find out how many {obj_q} {be} {participle}.",
            f"Do you know how many {obj_q} {be} {participle} by {subj}?",
            f"{subj} {verb} how many {obj_q}?",
            f"Exactly how many {obj_q} {do} {subj} {base}?",
            f"And how many {obj_q} {be} {participle}?",
            f"Of {obj_q}, how many {do} {subj} {base}?",
            f"how many {obj_q} {participle}",
            f"number of {obj_q} {participle}",
        ]
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
    cop = "was" if tense == "past" else "is"
    happen = {"past": "happened", "present": "happens", "future": "will happen"}[tense]
    could = {"past": "could", "present": "can", "future": "will"}[tense]
    person = subject in ("person", "role")
    pron = "they" if person else "it"
    sort = {"person": "person", "role": "person", "thing": "thing", "event": "event", "animal": "animal"}[subject]
    statements = []
    for _ in range(3):
        mods = [adjuncts[c] for c in rng.sample(chosen, len(chosen))]
        tail, rest = " ".join(mods), " ".join(mods[1:])
        statements += [
            f"<who:{subj}> {verb} {' '.join(mods)}.",
            f"{mods[0]}, <who:{subj}> {verb} {' '.join(mods[1:])}.",
            f"Did you know that <who:{subj}> {verb} {' '.join(mods)}?",
            f"{' '.join(mods)} <who:{subj}> {verb}.",
            f"It {cop} <who:{subj}> that {verb} {tail}.",
            f"It {cop} {mods[0]} that <who:{subj}> {verb} {rest}.",
            f"<who:{subj}> {do} indeed {base} {tail}.",
            f"<who:{subj}>, {mods[0]}, {verb} {rest}."
            if len(mods) > 1
            else f"<who:{subj}>, as people say, {verb} {tail}.",
            f"{mods[0]}: <who:{subj}> {verb} {rest}."
            if mods[0].startswith(("<time", "<place"))
            else f"Our guide says that <who:{subj}> {verb} {tail}.",
            f"<who:{subj}> {verb}. This {happen} {tail}.",
            f"<who:{subj}> {verb}, namely {tail}.",
            f"<who:{subj}> {verb}, and does so {tail}."
            if tense == "present"
            else f"<who:{subj}> {verb}, and {do} so {tail}."
            if tense == "past"
            else f"<who:{subj}> {verb}, and will do so {tail}.",
            f"Visitors {could} see how <who:{subj}> {verb} {tail}.",
            f"What {verb} {tail} {cop} <who:{subj}>."
            if not person
            else f"The one that {verb} {tail} {cop} <who:{subj}>.",
            f"As far as we know, <who:{subj}> {verb} {tail}.",
            f"It is said that <who:{subj}> {verb} {tail}.",
            f"According to our records, <who:{subj}> {verb} {tail}.",
            f"By the way, <who:{subj}> {verb} {tail}.",
            f"Please note that <who:{subj}> {verb} {tail}.",
            f"{mods[0]}, as everybody knows, <who:{subj}> {verb} {rest}.",
            f"Nobody is surprised that <who:{subj}> {verb} {tail}.",
            f"Look out for <who:{subj}>, which {verb} {tail}."
            if not person
            else f"We would like to mention <who:{subj}>, who {verb} {tail}.",
            f"<who:{subj}>? Well, {pron} {past if tense == 'past' else (base if person else third) if tense == 'present' else verb} {tail}.",
            f"Listen to this: <who:{subj}> {verb} {tail}!",
        ]
    inverted, plain = f"{do} {subj} {base}", f"{subj} {verb}"
    questions = {kind: _wh(kind, inverted, time, False, plain) for kind in adjuncts}
    held_q = {kind: _wh(kind, inverted, time, True) for kind in adjuncts}
    said_at = [adjuncts[c].split(":", 1)[1][:-1] for c in chosen]
    questions["who"] = [f"Who or what {verb} {a}?" for a in (adjuncts[c].split(":", 1)[1][:-1] for c in chosen)]
    for a in said_at:
        questions["who"] += [
            f"{'Who' if person else 'What'} {verb} {a}?",
            f"{'Who' if person else 'What'} {cop} it that {verb} {a}?",
            f"Which {sort} {verb} {a}?",
            f"I wonder {'who' if person else 'what'} {verb} {a}.",
            f"Could you tell me {'who' if person else 'what'} {verb} {a}?",
            f"I'd like to find out {'who' if person else 'what'} {verb} {a}.",
            f"Do you know {'who' if person else 'what'} {verb} {a}?",
            f"Do you know which {sort} {verb} {a}?",
            f"And {'who' if person else 'what'} {verb} {a}?",
            f"{'Who' if person else 'What'} {cop} the {sort} that {verb} {a}?",
            f"Any idea {'who' if person else 'what'} {verb} {a}?",
            f"Something or somebody {verb} {a}: who or what?",
            f"Name the {sort} that {verb} {a}.",
            f"{'who' if person else 'what'} {verb} {a}",
        ]
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
            f"The {{subj}} comes with <v:{{v}}> {part}.",
            f"The {{subj}} is fitted with <v:{{v}}> {part}.",
            f"The {{subj}} boasts <v:{{v}}> {part}.",
            f"The {{subj}} possesses <v:{{v}}> {part}[ in all|].",
            f"Altogether the {{subj}} has <v:{{v}}> {part}.",
            f"{part.capitalize()} of the {{subj}}: <v:{{v}}>.",
            f"The {{subj}} ({part}: <v:{{v}}>) is [our pride|well known|next].",
            f"The number of {part} of the {{subj}} is <v:{{v}}>.",
            f"It is <v:{{v}}> {part} that the {{subj}} has.",
            f"The {{subj}} needs all of its <v:{{v}}> {part}.",
            f"Did you know that the {{subj}} has <v:{{v}}> {part}?",
            f"Count them: the {{subj}} has <v:{{v}}> {part}!",
            f"On the {{subj}}, <v:{{v}}> {part} can be seen.",
            f"Of all its <v:{{v}}> {part}, the {{subj}} has lost none.",
            f"All <v:{{v}}> {part} of the {{subj}} have been renewed.",
            f"The {{subj}}: <v:{{v}}> {part}.",
            f"Having <v:{{v}}> {part}, the {{subj}} stands out.",
        ]
        questions = {
            "v": [
                f"How many {part} does the {{subj}} have?",
                f"How many {part} are there on the {{subj}}?",
                f"What is the number of {part} of the {{subj}}?",
                f"number of {part} {{subj}}",
                f"How many {part} belong to the {{subj}}?",
                f"How many {part} has the {{subj}} got?",
                f"How many {part} can I count on the {{subj}}?",
                f"With how many {part} does the {{subj}} come?",
                f"With how many {part} is the {{subj}} fitted?",
                f"On the {{subj}}, how many {part} are there?",
                f"I wonder how many {part} the {{subj}} has.",
                f"Could you tell me how many {part} there are on the {{subj}}?",
                f"I'd like to find out how many {part} the {{subj}} has.",
                f"Do you know how many {part} belong to the {{subj}}?",
                f"What is the {{subj}}'s number of {part}?",
                f"The {{subj}} has how many {part}?",
                f"How many is it: how many {part} does the {{subj}} have?",
                f"Of {part}, how many does the {{subj}} possess?",
                f"how many {part} {{subj}}",
                f"{{subj}} {part} how many",
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
        f"As for the {{subj}}, its {name} is <v:{{v}}>.",
        f"The {{subj}}, whose {name} is <v:{{v}}>, is [well known|our pride|worth seeing].",
        f"It is <v:{{v}}> that we give as the {name} of the {{subj}}.",
        f"We list <v:{{v}}> as the {name} of the {{subj}}.",
        f"Our files give the {name} of the {{subj}} as <v:{{v}}>.",
        f"In the case of the {{subj}}, the {name} is <v:{{v}}>.",
        f"When people ask for the {name} of the {{subj}}, we say <v:{{v}}>.",
        f"The {name} of the {{subj}}? It's <v:{{v}}>.",
        f"{{subj}}, {name}: <v:{{v}}>.",
        f"Did you know that the {name} of the {{subj}} is <v:{{v}}>?",
        f"Take the {{subj}}: here the {name} is <v:{{v}}>.",
        f"A sign by the {{subj}} says: {name} <v:{{v}}>.",
        f"With <v:{{v}}> as its {name}, the {{subj}} stands out.",
        f"<v:{{v}}>: that is the {name} of the {{subj}}.",
        f"What the {{subj}} has as its {name} is <v:{{v}}>.",
        f"The {{subj}} has <v:{{v}}> as its {name} and <v2:{{v2}}> as its {other}.",
        f"While the {name} of the {{subj}} is <v:{{v}}>, its {other} is <v2:{{v2}}>.",
        f"{other.capitalize()}: <v2:{{v2}}>. {name.capitalize()}: <v:{{v}}>. That is the {{subj}}.",
        f"The {other} of the {{subj}} is <v2:{{v2}}>, the {name} <v:{{v}}>.",
        f"About the {{subj}} we know two things: its {name} is <v:{{v}}>, its {other} <v2:{{v2}}>.",
        f"The {{subj}} ({other}: <v2:{{v2}}>, {name}: <v:{{v}}>) is [on show|well looked after|easy to spot].",
        f"The {{subj}}'s {name} is <v:{{v}}>; as for its {other}, it is <v2:{{v2}}>.",
    ]
    questions = {
        "v": [
            f"What is the {name} of the {{subj}}?",
            f"What's the {{subj}}'s {name}?",
            f"What {name} does the {{subj}} have?",
            f"{name} {{subj}}",
            f"Which {name} does the {{subj}} have?",
            f"I wonder what the {name} of the {{subj}} is.",
            f"Could you tell me the {name} of the {{subj}}?",
            f"Could you tell me what the {{subj}}'s {name} is?",
            f"I'd like to find out the {name} of the {{subj}}.",
            f"Do you know the {{subj}}'s {name}?",
            f"As for the {{subj}}, what is its {name}?",
            f"What about the {name} of the {{subj}}?",
            f"What is given as the {name} of the {{subj}}?",
            f"What is listed as the {{subj}}'s {name}?",
            f"The {{subj}} has what {name}?",
            f"With what {name} is the {{subj}} listed?",
            f"What is it that the {{subj}} has as its {name}?",
            f"What do you have down as the {name} of the {{subj}}?",
            f"I need to know the {{subj}}'s {name}.",
            f"Any idea what the {name} of the {{subj}} is?",
            f"Please tell me the {name} of the {{subj}}.",
            f"And the {name} of the {{subj}}?",
            f"{{subj}} {name}",
            f"{name} of the {{subj}}",
        ],
        "v2": [
            f"What is the {other} of the {{subj}}?",
            f"What {other} does the {{subj}} have?",
            f"What's the {{subj}}'s {other}?",
            f"Which {other} does the {{subj}} have?",
            f"I wonder what the {other} of the {{subj}} is.",
            f"Could you tell me the {other} of the {{subj}}?",
            f"I'd like to find out what the {{subj}}'s {other} is.",
            f"Do you know the {{subj}}'s {other}?",
            f"As for the {{subj}}, what is its {other}?",
            f"What about the {other} of the {{subj}}?",
            f"What is given as the {other} of the {{subj}}?",
            f"The {{subj}} has what {other}?",
            f"With what {other} is the {{subj}} listed?",
            f"What do you have down as the {{subj}}'s {other}?",
            f"Please tell me the {other} of the {{subj}}.",
            f"{other} {{subj}}",
            f"{{subj}} {other}",
        ],
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
    return apart(rng.choice((transitive, transitive, intransitive, attribute, activity, activity, activity))(rng))
