# ruff: noqa: E501
"""Facts about doing things: what it costs, where, when, who may, what happens then, and what a thing is called or for.

Like clauses.py, each call returns a fresh `Frame` made of a random deed and random things.
"""

from __future__ import annotations

import random

from . import words as w
from .frames import Frame

HEADINGS = ["Good to know", "Questions and answers", "Services", "How it works", "Practical information", "Please note"]


def frame(
    name: str,
    kinds: dict[str, str],
    keys: tuple[str, ...],
    said: list[str],
    held: list[str],
    asked: dict[str, list[str]],
    held_asked: dict[str, list[str]],
    items: list[str] | None = None,
) -> Frame:
    return Frame(f"clause.{name}", kinds, keys, {}, [*HEADINGS], said, held, asked, held_asked, items or [])


def cost(rng: random.Random) -> Frame:
    deed, doing = rng.choice(list(w.DEEDS.items()))
    said = [
        f"{doing.capitalize()} a {{x}} costs {{v}}.",
        f"It costs {{v}} to {deed} a {{x}}.",
        f"To {deed} a {{x}} you pay {{v}}.",
        f"You can {deed} a {{x}} for {{v}}.",
        f"Anyone who wants to {deed} a {{x}} pays {{v}}.",
        f"If you {deed} a {{x}}, we charge {{v}}.",
        f"The fee for {doing} a {{x}} is {{v}}.",
        f"For {doing} a {{x}}, guests are charged {{v}}.",
        f"{doing.capitalize()} a {{x}} will set you back {{v}}.",
        f"{{v}} is charged for {doing} a {{x}}.",
        f"Those who {deed} a {{x}} owe us {{v}}[, to be paid at the desk|].",
    ]
    asked = [
        f"How much does it cost to {deed} a {{x}}?",
        f"What does {doing} a {{x}} cost?",
        f"What do I pay to {deed} a {{x}}?",
        f"How much is it to {deed} a {{x}}?",
        f"What is the fee for {doing} a {{x}}?",
        f"price for {doing} a {{x}}",
        f"How much do you charge if I {deed} a {{x}}?",
    ]
    held = [f"Be ready to spend {{v}} if you {deed} a {{x}}.", f"With {{v}} you may {deed} a {{x}}."]
    return frame(
        "cost",
        {"x": "everyday", "v": "price"},
        ("x",),
        said,
        held,
        {"v": asked},
        {"v": [f"What will {doing} a {{x}} set me back?"]},
    )


def where(rng: random.Random) -> Frame:
    deed, doing = rng.choice(list(w.DEEDS.items()))
    kind, slot = rng.choice((("near", "{v}"), ("placename", "at {v}"), ("placename", "in {v}")))
    said = [
        f"You can {deed} a {{x}} {slot}.",
        f"Visitors {deed} a {{x}} {slot}.",
        f"{slot} you can {deed} a {{x}}.",
        f"If you want to {deed} a {{x}}, you can do so {slot}.",
        f"To {deed} a {{x}}, please come to the place {slot}.",
        f"{doing.capitalize()} a {{x}} is possible {slot}.",
        f"The place for {doing} a {{x}} is {slot}.",
        f"Please {deed} your {{x}} {slot}.",
        f"A {{x}} can be found {slot}.",
        f"There is a {{x}} for everyone {slot}.",
    ]
    asked = [
        f"Where can I {deed} a {{x}}?",
        f"Where do I {deed} a {{x}}?",
        f"Where is it possible to {deed} a {{x}}?",
        f"Where should I go to {deed} a {{x}}?",
        "Where is the {x}?",
        "Where can I find a {x}?",
        "Is there a {x}?",
    ]
    asked = asked[:4] if rng.random() < 0.7 else asked
    return frame(
        "where",
        {"x": "everyday", "v": kind},
        ("x",),
        said,
        [f"People {slot} are glad to help you {deed} a {{x}}."],
        {"v": asked},
        {"v": [f"In which spot do people {deed} a {{x}}?"]},
    )


def when(rng: random.Random) -> Frame:
    deed, doing = rng.choice(list(w.DEEDS.items()))
    kind, slot = rng.choice(
        (
            ("days", "{v}"),
            ("time", "from {v}"),
            ("time", "until {v}"),
            ("moment", "until {v}"),
            ("dates", "{v}"),
            ("duration", "after {v}"),
            ("period", "within {v}"),
            ("freq", "{v}"),
        )
    )
    said = [
        f"You can {deed} a {{x}} {slot}.",
        f"{slot} you may {deed} a {{x}}.",
        f"{doing.capitalize()} a {{x}} is possible {slot}.",
        f"A {{x}} is available {slot}.",
        f"It is allowed to {deed} a {{x}} {slot}.",
        f"Please {deed} the {{x}} {slot}.",
        f"We ask all guests to {deed} their {{x}} {slot}.",
        f"Members can {deed} a {{x}} {slot}, too.",
    ]
    first = {
        "from": ["From when", "From what time", "When"],
        "until": ["Until when", "How late", "How long"],
        "after": ["After how long", "When"],
        "within": ["Within what time", "How quickly", "When"],
    }.get(slot.split(" ")[0], ["When", "At what times", "When"] if kind != "freq" else ["How often", "How frequently"])
    asked = [f"{lead} can I {deed} a {{x}}?" for lead in first] + [
        f"{first[0]} is {doing} a {{x}} possible?",
        f"{first[0]} may people {deed} a {{x}}?",
    ]
    return frame(
        "when",
        {"x": "everyday", "v": kind},
        ("x",),
        said,
        [f"There is a chance to {deed} a {{x}} {slot}."],
        {"v": asked},
        {"v": [f"{first[0]} am I able to {deed} the {{x}}?"]},
    )


def who(rng: random.Random) -> Frame:
    deed, doing = rng.choice(list(w.DEEDS.items()))
    said = [
        f"Only {{v}} may {deed} a {{x}}.",
        f"{{v}} may {deed} a {{x}} [free of charge|first|without asking|].",
        f"{doing.capitalize()} a {{x}} is reserved for {{v}}.",
        "A {x} is meant for {v}.",
        "We offer a {x} to {v}.",
        f"If you want to {deed} a {{x}}, ask <helper:{{p}}>.",
        f"<helper:{{p}}> helps you to {deed} a {{x}}.",
        f"<helper:{{p}}> is in charge of {doing} a {{x}}.",
    ]
    asked = {
        "v": [
            f"Who [may|can] {deed} a {{x}}?",
            f"Who is allowed to {deed} a {{x}}?",
            "Who is the {x} for?",
            f"For whom is {doing} a {{x}} reserved?",
        ],
        "helper": [
            f"Who helps me to {deed} a {{x}}?",
            f"Who do I ask if I want to {deed} a {{x}}?",
            f"Who is in charge of {doing} a {{x}}?",
        ],
    }
    held = [f"Nobody except {{v}} can {deed} a {{x}}.", f"Turn to <helper:{{p}}> to {deed} a {{x}}."]
    return frame(
        "who",
        {"x": "everyday", "v": "group", "p": rng.choice(("person", "role"))},
        ("x",),
        said,
        held,
        asked,
        {"v": [f"Which people may {deed} a {{x}}?"], "helper": [f"Whom can I turn to when I want to {deed} a {{x}}?"]},
    )


def rule(rng: random.Random) -> Frame:
    deed, doing = rng.choice(list(w.DEEDS.items()))
    said = [
        f"<v:{doing.capitalize()} a {{x}} is [not allowed|forbidden|prohibited|permitted|allowed|welcome|free]>[ {{why}}|].",
        f"<v:You may [not |only |]{deed} a {{x}} [{{when}}|in the {{fac}}]>.",
        f"<v:Please do not {deed} the {{x}}>[ {{why}}|].",
        f"<v:Nobody may {deed} the {{x}}>[ {{why}}|].",
        f"{{why}}, <v:you cannot {deed} a {{x}}>.",
        f"<v:It is fine to {deed} a {{x}} {{when}}>.",
        "<v:The {x} may only be used {when}>.",
    ]
    asked = {
        "v": [
            f"Can I {deed} a {{x}}?",
            f"May I {deed} the {{x}}?",
            f"Am I allowed to {deed} a {{x}}?",
            f"Is {doing} a {{x}} allowed?",
            f"Is it OK to {deed} a {{x}}?",
            f"Are we allowed to {deed} a {{x}}?",
        ],
        "why": [f"Why can't I {deed} a {{x}}?", f"Why is {doing} a {{x}} not allowed?"],
    }
    held = [f"<v:We do not want anyone to {deed} the {{x}}>.", f"<v:Feel free to {deed} a {{x}}>."]
    return frame(
        "rule",
        {"x": "everyday", "why": "reason", "when": "condition", "fac": "fac"},
        ("x",),
        said,
        held,
        asked,
        {"v": [f"Is there a problem if I {deed} a {{x}}?"]},
    )


def then(rng: random.Random) -> Frame:
    deed, doing = rng.choice(list(w.DEEDS.items()))
    said = [
        f"If you {deed} a {{x}}, <v:{{s}}>.",
        f"When you {deed} a {{x}}, <v:{{s}}>.",
        f"<v:{{s}}> if you {deed} a {{x}}.",
        f"Should you {deed} a {{x}}, <v:{{s}}>.",
        f"As soon as you {deed} the {{x}}, <v:{{s}}>.",
        f"Before you {deed} a {{x}}, you need <need:{{kit}}>.",
        f"{doing.capitalize()} a {{x}} requires <need:{{kit}}>.",
        f"You need <need:{{kit}}> to {deed} a {{x}}.",
        f"To {deed} a {{x}}, bring <need:{{kit}}>.",
        f"Without <need:{{kit}}> you cannot {deed} a {{x}}.",
        f"It takes <long:{{d}}> to {deed} a {{x}}.",
        f"{doing.capitalize()} a {{x}} takes <long:{{d}}>.",
        f"You have <long:{{d}}> to {deed} a {{x}}.",
        f"You can {deed} up to <n:{{c}}> {{x}}s.",
        f"No more than <n:{{c}}> {{x}}s, please, if you {deed} any.",
    ]
    asked = {
        "v": [
            f"What happens if I {deed} a {{x}}?",
            f"What happens when I {deed} a {{x}}?",
            f"What if I {deed} a {{x}}?",
        ],
        "need": [
            f"What do I need to {deed} a {{x}}?",
            f"What must I bring to {deed} a {{x}}?",
            f"What is required for {doing} a {{x}}?",
        ],
        "long": [
            f"How long does it take to {deed} a {{x}}?",
            f"How much time do I have to {deed} a {{x}}?",
            f"How long does {doing} a {{x}} take?",
        ],
        "n": [f"How many {{x}}s can I {deed}?", f"How many {{x}}s may one {deed}?"],
    }
    held = [
        f"Once you {deed} a {{x}}, <v:{{s}}>.",
        f"Have <need:{{kit}}> with you to {deed} a {{x}}.",
        f"Allow <long:{{d}}> for {doing} a {{x}}.",
    ]
    held_asked = {
        "v": [f"I {deed} a {{x}}, what then?"],
        "need": [f"Which things are needed to {deed} a {{x}}?"],
        "long": [f"After how long is {doing} a {{x}} done?"],
        "n": [f"What is the limit if I {deed} {{x}}s?"],
    }
    return frame(
        "then",
        {"x": "everyday", "s": "saying", "kit": "clothes", "d": "duration", "c": "count"},
        ("x",),
        said,
        held,
        asked,
        held_asked,
    )


def called(rng: random.Random) -> Frame:
    kind = rng.choice(("fac", "fac", "event", "thing", "animal", "guide", "route", "shuttle"))
    name = rng.choice(("made_name", "made_name", "title", "first"))
    said = [
        "The {x} is called {v}.",
        "The {x} {v} [is|was] [much loved|well known|busy at weekends|the heart of the place|open to all].",
        "The {x}, {v}, [is|was] [much loved|well known|busy at weekends|run by volunteers|the first of its kind].",
        "{v} is the name of the {x}.",
        "We call the {x} {v}.",
        "The name of the {x} is {v}.",
        "Our {x} {v} [sells|has|offers] {f}.",
        "{v}, our {x}, is waiting for you.",
        "In our {x} {v} you can get {f}.",
        "People know the {x} as {v}.",
    ]
    asked = [
        "What is the {x} called?",
        "What is the name of the {x}?",
        "What's the {x}'s name?",
        "What do you call the {x}?",
        "Which name does the {x} have?",
        "name of the {x}",
    ]
    return frame(
        "called",
        {"x": kind, "v": name, "f": "foods"},
        ("x",),
        said,
        ["The {x} answers to the name of {v}.", "Everyone says {v} when they mean the {x}."],
        {"v": asked},
        {"v": ["How is the {x} called?"]},
        ["{x} :: {v}"],
    )


def counted(rng: random.Random) -> Frame:
    verb = rng.choice(
        "attract hold own seat welcome contain employ sell need feed train store lend print receive host count show keep".split()
    )
    third = "attracts holds owns seats welcomes contains employs sells needs feeds trains stores lends prints receives hosts counts shows keeps".split()[
        "attract hold own seat welcome contain employ sell need feed train store lend print receive host count show keep".split().index(
            verb
        )
    ]
    per = rng.choice(("", "", " a year", " every day", " per season", " each week", " a month"))
    about = "[around |about |some |over |more than |up to |nearly |]"
    said = [
        f"The {{x}} {third} {about}{{v}} {{u}}{per}.",
        f"{about}{{v}} {{u}} are what the {{x}} {third}{per}.",
        f"Our {{x}} {third} {about}{{v}} {{u}}{per}.",
        f"With the {{x}} we {verb} {about}{{v}} {{u}}{per}.",
        f"The {{x}} and its garden {verb} {about}{{v}} {{u}}{per}.",
        f"Every year the {{x}} {third} {about}{{v}} {{u}}."
        if per == " a year"
        else f"The {{x}} now {third} {about}{{v}} {{u}}{per}.",
        f"Together, the {{y}} and the {{x}} {verb} {about}{{v}} {{u}}{per}.",
    ]
    asked = [
        f"How many {{u}} does the {{x}} {verb}{per}?",
        f"How many {{u}} does the {{x}} {verb}?",
        f"What number of {{u}} does the {{x}} {verb}?",
        "number of {u} {x}",
        "How many {u} are there in the {x}?",
    ]
    return frame(
        "counted",
        {"x": "fac", "y": "fac", "u": "unit", "v": "many"},
        ("x", "u"),
        said,
        [f"As many as {{v}} {{u}} is what the {{x}} can {verb}{per}."],
        {"v": asked},
        {"v": [f"Can you say how many {{u}} the {{x}} {third}?"]},
    )


def purpose(rng: random.Random) -> Frame:
    deed, doing = rng.choice(list(w.DEEDS.items()))
    said = [
        f"The {{x}} is used <v:for {doing} {{y}}s>.",
        f"The {{x}} serves <v:to {deed} {{y}}s>.",
        f"With the {{x}} people used <v:to {deed} {{y}}s>.",
        f"The {{x}} was built <v:to {deed} {{y}}s>.",
        f"We need the {{x}} <v:to {deed} {{y}}s>.",
        "The {x} contains <in:{l}>.",
        "In the {x} there are <in:{l}>.",
        "The {x} consists of <in:{l}>.",
        "The {x} comes with <in:{l}>.",
        "The oldest part of the {x} is <old:the {z}>.",
        "The most valuable piece in the {x} is <old:the {z}>.",
        "The highlight of the {x} is <old:the {z}>.",
    ]
    asked = {
        "v": [
            "What is the {x} used for?",
            "What is the {x} for?",
            "What was the purpose of the {x}?",
            "Why was the {x} built?",
        ],
        "in": [
            "What does the {x} contain?",
            "What is in the {x}?",
            "What does the {x} come with?",
            "What does the {x} consist of?",
        ],
        "old": [
            "What is the [oldest part|most valuable piece|highlight] of the {x}?",
            "What is the most important thing in the {x}?",
        ],
    }
    return frame(
        "purpose",
        {"x": rng.choice(("thing", "fac")), "y": "everyday", "z": "thing", "l": rng.choice(("foods", "clothes"))},
        ("x",),
        said,
        [f"It was <v:for {doing} {{y}}s> that we got the {{x}}.", "You find <in:{l}> inside the {x}."],
        asked,
        {
            "v": ["To what end do you have the {x}?"],
            "in": ["What can be found inside the {x}?"],
            "old": ["What should one not miss in the {x}?"],
        },
    )


def activity(rng: random.Random) -> Frame:
    return rng.choice((cost, where, when, who, rule, then, then, called, counted, purpose))(rng)
