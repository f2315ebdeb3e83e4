# ruff: noqa: E501
"""Times, days, dates, spans and numbers as visitor pages write them, in the `Style` of one document."""

from __future__ import annotations

import random
from dataclasses import dataclass

from .grammar import Value

WEEK = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


MONTHS = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)


SMALL = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


@dataclass(frozen=True)
class Style:
    """How one document writes things."""

    clock: str
    currency: str
    dash: str
    date: str

    @staticmethod
    def make(rng: random.Random) -> Style:
        return Style(
            rng.choice(("12", "12", "12s", "12d", "24", "24", "24.", "24h")),
            rng.choice(("€", "€", "£", "£", "$", " euros", " €", "EUR ", "CHF ", " pounds")),
            rng.choice(("–", "–", " – ", "-", " - ", " to ")),
            rng.choice(("d M", "M d", "dth M", "M dth", "d. M", "the dth of M")),
        )


def clock(minutes: int, style: Style, rng: random.Random) -> str:
    hour, minute = divmod(minutes % 1440, 60)
    if style.clock.startswith("24"):
        if style.clock == "24h":
            return f"{hour} h" if not minute else f"{hour}:{minute:02d} h"
        return f"{hour:02d}{'.' if style.clock.endswith('.') else ':'}{minute:02d}"
    if minutes == 720 and rng.random() < 0.5:
        return "noon"
    half = "am" if hour < 12 else "pm"
    shown = (hour - 1) % 12 + 1
    mark = {"12": f" {half}", "12s": half, "12d": f" {half[0]}.m."}[style.clock]
    return f"{shown}{f':{minute:02d}' if minute else ''}{mark}"


def number(low: int, high: int, rng: random.Random) -> str:
    n = rng.randint(low, high)
    if n <= 12 and rng.random() < 0.6:
        return SMALL[n]
    return f"{n:,}" if n >= 1000 and rng.random() < 0.6 else str(n)


def ordinal(n: int) -> str:
    return f"{n}{'th' if 10 <= n % 100 <= 20 else {1: 'st', 2: 'nd', 3: 'rd'}.get(n % 10, 'th')}"


def date(style: Style, rng: random.Random, year: bool | None = None) -> str:
    day, month = rng.randint(1, 28), rng.choice(MONTHS)
    text = (
        style.date.replace("dth", ordinal(day)).replace("d", str(day), 1)
        if "dth" not in style.date
        else style.date.replace("dth", ordinal(day))
    )
    text = text.replace("M", month)
    if year if year is not None else rng.random() < 0.3:
        text += f"{',' if style.date.startswith('M') else ''} {rng.randint(2022, 2031)}"
    return text


DAYS: dict[str, tuple[str, ...]] = {  # adverbial phrase -> the days that it covers
    **{
        form.format(d): (d,)
        for d in WEEK
        for form in ("on {}s", "on {}", "every {}", "on {} evenings", "on {} afternoons")
    },
    **dict.fromkeys(
        ("Monday to Friday", "from Monday to Friday", "on weekdays", "Mon–Fri", "Monday through Friday"), WEEK[:5]
    ),
    **dict.fromkeys(
        ("at weekends", "on Saturdays and Sundays", "on Saturday and Sunday", "at the weekend", "Sat and Sun"), WEEK[5:]
    ),
    **{
        f"{a}{j}{b}": WEEK[i : k + 1]
        for i, a in enumerate(WEEK)
        for k, b in enumerate(WEEK)
        if 1 < k - i < 6
        for j in (" to ", "–")
    },
    **{f"on {a}s and {b}s": (a, b) for a in WEEK for b in WEEK if WEEK.index(a) < WEEK.index(b)},
    "on public holidays": ("public holidays",),
    "on bank holidays": ("public holidays",),
    "on Christmas Eve": ("Christmas Eve",),
    "on New Year's Day": ("New Year's Day",),
    "in summer": ("summer",),
    "from April to October": ("summer",),
    "during the summer holidays": ("summer holidays",),
    "in winter": ("winter",),
    "from November to March": ("winter",),
    "in the school holidays": ("school holidays",),
}


DAY_GROUPS = [
    list(g)
    for g in (
        [k for k, v in DAYS.items() if len(v) == 1 and v[0] in WEEK],
        [k for k, v in DAYS.items() if len(v) == 5],
        [k for k, v in DAYS.items() if v == WEEK[5:]],
        [k for k, v in DAYS.items() if 1 < len(v) < 6],
        [k for k, v in DAYS.items() if v[0] not in WEEK],
    )
]


def days(rng: random.Random) -> Value:
    phrase = rng.choice(rng.choice(DAY_GROUPS))
    covered = DAYS[phrase]
    asks = [phrase]
    for day in covered:
        asks += (
            [f"on {day}", f"on {day}", f"on {day}s"]
            if day in WEEK
            else [
                f"in {day}"
                if day in ("summer", "winter")
                else f"on {day}"
                if day[0].isupper() or day == "public holidays"
                else f"in the {day}"
            ]
            * 2
        )
    if set(covered) <= set(WEEK[5:]):
        asks += ["at the weekend", "on weekends"] if len(covered) == 2 else []
    if covered == WEEK[:5]:
        asks += ["on weekdays", "during the week"]
    label = phrase
    for lead in ("on ", "every ", "from ", "at the ", "at ", "in the ", "in ", "during the "):
        label = label.removeprefix(lead)
    return Value(phrase, tuple(asks), {"n": label[0].upper() + label[1:], "days": " ".join(covered)})


def duration(_: Style, rng: random.Random) -> str:
    n = rng.choice((10, 15, 20, 30, 40, 45, 50, 60, 75, 90, 120))
    return rng.choice(
        (
            f"{n} minutes",
            f"{n} minutes",
            f"{n} min",
            f"about {n} minutes",
            f"around {n} minutes",
            f"{number(2, 6, rng)} hours",
            f"{rng.choice(('half an hour', 'an hour', 'one hour', 'an hour and a half', 'two and a half hours', 'a full day', 'half a day', 'about an hour', 'a quarter of an hour', 'one and a half hours'))}",
        )
    )


def period(_: Style, rng: random.Random) -> str:
    n = number(2, 30, rng)
    return rng.choice(
        (
            f"{n} days",
            f"{n} weeks",
            f"{n} months",
            f"{n} years",
            f"{n} working days",
            f"{n} nights",
            f"{n} hours",
            "a week",
            "one month",
            "a year",
            "24 hours",
            "48 hours",
            "14 days",
            "four weeks",
            "six months",
            "two weeks",
            "12 months",
        )
    )


def frequency(_: Style, rng: random.Random) -> str:
    n = number(2, 12, rng)
    return rng.choice(
        (
            f"every {n} minutes",
            f"every {rng.choice((10, 12, 15, 20, 30))} minutes",
            "twice a day",
            "once a week",
            "every hour",
            "hourly",
            "every half hour",
            "three times a day",
            f"every {n} years",
            "once a month",
            "every second week",
            "every other day",
            "twice a year",
            f"{n} times a year",
            "on the hour",
            "daily",
            "every morning",
            "every evening",
            f"on the {rng.choice(('first', 'second', 'third', 'last'))} {rng.choice(WEEK)} of the month",
            f"every {rng.choice(WEEK)}",
        )
    )


def moment(style: Style, rng: random.Random) -> str:
    """Any phrase that answers `when`, without its preposition where that is usual."""
    day = rng.choice(WEEK)
    return rng.choice(
        (
            f"{day} at {clock(rng.randrange(540, 1260, 15), style, rng)}",
            date(style, rng),
            date(style, rng, True),
            f"{day}, {date(style, rng)}",
            f"{rng.choice(MONTHS)} {rng.randint(2023, 2032)}",
            f"the end of {rng.choice(MONTHS)}",
            f"early {rng.choice(MONTHS)}",
            f"the {rng.choice(('first', 'second', 'last'))} {day} in {rng.choice(MONTHS)}",
            f"{rng.choice(('spring', 'summer', 'autumn', 'winter'))} {rng.randint(2024, 2032)}",
        )
    )


def span_of_dates(style: Style, rng: random.Random) -> str:
    a, b = sorted(rng.sample(range(12), 2))
    return rng.choice(
        (
            f"from {date(style, rng, False)} to {date(style, rng, True)}",
            f"{date(style, rng, False)}{style.dash}{date(style, rng, True)}",
            f"from {MONTHS[a]} to {MONTHS[b]}",
            f"{MONTHS[a]} to {MONTHS[b]}",
            f"until {date(style, rng)}",
            f"between {MONTHS[a]} and {MONTHS[b]}",
            f"from mid-{MONTHS[a]} until the end of {MONTHS[b]}",
        )
    )


def year(_: Style, rng: random.Random) -> str:
    return str(rng.randint(1150, 2024) if rng.random() < 0.4 else rng.randint(1780, 2024))


def age(_: Style, rng: random.Random) -> str:
    n = rng.randint(3, 18)
    return rng.choice((str(n), str(n), f"{n} years", SMALL[n] if n <= 12 else str(n)))
