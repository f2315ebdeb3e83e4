# ruff: noqa: E501
"""Makes the values that fill slots: prices, places, people, things... one function a kind, all from one seed.

A document has a `Style` (how it writes times, prices, dates and ranges), as a real page has; its values follow it.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from . import words as w
from .grammar import Value
from .times import (
    MONTHS,
    WEEK,
    Style,
    age,
    clock,
    date,
    days,
    duration,
    frequency,
    moment,
    number,
    period,
    span_of_dates,
    year,
)

ORDINALS = ("ground", "first", "second", "third", "fourth", "fifth", "sixth")


def money(amount: float, style: Style, rng: random.Random) -> str:
    text = f"{amount:.2f}" if amount % 1 or rng.random() < 0.3 else f"{amount:.0f}"
    return f"{text}{style.currency}" if style.currency.startswith(" ") else f"{style.currency}{text}"


def syllables(rng: random.Random) -> str:
    n = rng.choice((2, 2, 3))
    return "".join(
        rng.choice("b br c ch d dr f g gr h j k kl l m n p pr r s sch st t tr v w z".split())
        + rng.choice("a e i o u ai ei ou".split())
        for _ in range(n)
    ) + rng.choice(("", "n", "r", "l", "s", "m", "ck"))


def surname(rng: random.Random) -> str:
    return rng.choice(w.LAST_NAMES) if rng.random() < 0.6 else syllables(rng).capitalize()


def person(rng: random.Random) -> Value:
    first, last = rng.choice(w.FIRST_NAMES), surname(rng)
    title = rng.choice(("", "", "", "", "Dr ", "Ms ", "Mr ", "Prof. ", "Mrs "))
    name = f"{title}{last}" if title in ("Ms ", "Mr ", "Mrs ") and rng.random() < 0.6 else f"{title}{first} {last}"
    return Value(name, (name, last))


def street(rng: random.Random) -> str:
    name = rng.choice(w.STREETS) if rng.random() < 0.7 else syllables(rng).capitalize()
    return f"{name} {rng.choice(w.STREET_KINDS)}"


def venue(rng: random.Random) -> str:
    kind, city = rng.choice(w.VENUE_KINDS), rng.choice(w.CITIES) if rng.random() < 0.6 else syllables(rng).capitalize()
    return rng.choice(
        (
            f"{city} {kind}",
            f"{city} {kind}",
            f"{kind} {city}",
            f"{surname(rng)} {kind}",
            f"{kind} of {city}" if " of " not in kind else f"{city} {kind}",
        )
    )


def pick(groups: list[tuple[str, ...]]) -> Callable[[Style, random.Random], Value]:
    def make(_: Style, rng: random.Random) -> Value:
        group = rng.choice(groups)
        text = rng.choice(group)
        return Value(text, (text, text, *group), {"all": " ".join(group)})

    return make


def plain(make: Callable[[Style, random.Random], str]) -> Callable[[Style, random.Random], Value]:
    return lambda style, rng: Value(make(style, rng))


def chosen(options: list[str]) -> Callable[[Style, random.Random], Value]:
    return lambda _, rng: Value(rng.choice(options))


def thing(_: Style, rng: random.Random) -> Value:
    noun = rng.choice(w.THINGS) if rng.random() < 0.93 else syllables(rng)
    if rng.random() < 0.45:
        full = f"{rng.choice(w.ADJECTIVES)} {noun}"
        return Value(full, (full, full, noun), {"all": full})
    return Value(noun, (), {"all": noun})


def near(_: Style, rng: random.Random) -> str:
    spot = rng.choice(w.FACILITIES)[0]
    return rng.choice(
        (
            f"on the {rng.choice(ORDINALS)} floor",
            f"on the {rng.choice(ORDINALS)} floor",
            f"on level {rng.randint(1, 5)}",
            "in the basement",
            f"in room {rng.randint(1, 320)}",
            f"in Room {rng.choice('ABCDEFG')}{rng.randint(1, 9)}",
            f"next to the {spot}",
            f"opposite the {spot}",
            f"behind the {spot}",
            f"in the {spot}",
            f"near the {spot}",
            f"beside the {spot}",
            f"between the {spot} and the {rng.choice(w.FACILITIES)[0]}",
            "at the end of the corridor",
            f"to the left of the {spot}",
            f"at gate {rng.randint(1, 40)}",
            f"on platform {rng.randint(1, 16)}",
            f"in building {rng.choice('ABCDEFGH')}",
            f"at counter {rng.randint(1, 30)}",
            f"in the {rng.choice(('north', 'south', 'east', 'west'))} wing",
            f"in the {rng.choice(('inner courtyard', 'entrance hall', 'main hall', 'foyer', 'old stables', 'attic', 'cellar', 'gatehouse', 'garden', 'lower ward'))}",
            f"on the {rng.choice(ORDINALS)} floor, {rng.choice(('next to', 'opposite', 'behind', 'beside'))} the {spot}",
            f"two minutes' walk from the {spot}",
            f"at {street(rng)} {rng.randint(1, 120)}",
            f"on {street(rng)}",
            f"just inside the {spot}",
            f"under the {spot}",
            f"by the {rng.choice(('river', 'lake', 'pond', 'old oak', 'stairs', 'tills', 'turnstiles', 'fountain', 'bridge', 'lifts'))}",
        )
    )


def place_name(_: Style, rng: random.Random) -> str:
    spot = rng.choice(w.FACILITIES)[0]
    return rng.choice(
        (
            f"the {spot}",
            f"the {spot}",
            f"the {spot}",
            f"Room {rng.randint(1, 99)}",
            f"Hall {rng.randint(1, 9)}",
            f"gate {rng.choice('ABCDE')}",
            f"counter {rng.randint(1, 20)}",
            f"the {rng.choice(('north', 'south', 'east', 'west', 'main', 'side', 'rear'))} {rng.choice(('gate', 'entrance', 'door', 'courtyard', 'stairs'))}",
            f"the {surname(rng)} Room",
            f"{street(rng)}",
        )
    )


def address(_: Style, rng: random.Random) -> str:
    s, n, city = street(rng), rng.randint(1, 180), rng.choice(w.CITIES)
    return rng.choice(
        (
            f"{n} {s}",
            f"{s} {n}",
            f"{n} {s}, {city}",
            f"{s} {n}, {rng.randint(10000, 98000)} {city}",
            f"{n} {s}, {city} {rng.choice('ABNPS')}{rng.randint(1, 9)} {rng.randint(1, 9)}{rng.choice('ABDEFGH')}{rng.choice('JLNPQR')}",
        )
    )


def phone(_: Style, rng: random.Random) -> str:
    d = lambda n: "".join(rng.choice("0123456789") for _ in range(n))  # noqa: E731
    return rng.choice(
        (
            f"0{d(3)} {d(6)}",
            f"0{d(2)} {d(4)} {d(4)}",
            f"+{rng.randint(30, 49)} {d(2)} {d(3)} {d(2)} {d(2)}",
            f"0{d(4)}-{d(5)}",
            f"({d(3)}) {d(3)}-{d(4)}",
            f"555-{d(4)}",
            f"extension {d(3)}",
        )
    )


def domain(rng: random.Random) -> str:
    return f"{rng.choice((syllables(rng), rng.choice(w.CITIES).lower().replace(' ', '')))}{rng.choice(('-museum', '-zoo', '-library', 'pools', '-castle', '-theatre', '-clinic', '', ''))}.{rng.choice(('example', 'org', 'example.org', 'net', 'info'))}"


def email(_: Style, rng: random.Random) -> str:
    return f"{rng.choice(('info', 'tickets', 'booking', 'groups', 'schools', 'office', 'contact', 'events', 'press', 'hello', 'service', 'library', 'parties', 'access'))}@{domain(rng)}"


def web(_: Style, rng: random.Random) -> str:
    return f"{rng.choice(('www.', '', ''))}{domain(rng)}{rng.choice(('', '', '/tickets', '/visit', '/booking', '/groups'))}"


def transport(_: Style, rng: random.Random) -> str:
    a, b = sorted(rng.sample(range(1, 300), 2))
    return rng.choice(
        (
            f"bus {a}",
            f"bus line {a}",
            f"buses {a} and {b}",
            f"tram {a % 30 + 1}",
            f"tram lines {a % 20 + 1} and {b % 20 + 21}",
            f"the number {a} bus",
            f"line U{a % 9 + 1}",
            f"S-Bahn line S{a % 9 + 1}",
            f"the {a} and {b}",
            f"lines {a} and {b}",
            f"the {rng.choice(w.COLOURS)} line",
            f"the ferry from {rng.choice(w.CITIES)}",
            "the shuttle bus",
            f"train RE{a % 90 + 1}",
        )
    )


def stop(_: Style, rng: random.Random) -> str:
    return rng.choice(
        (
            street(rng),
            f"{rng.choice(w.CITIES)} {rng.choice(('Station', 'Central', 'Harbour', 'Market'))}",
            rng.choice(
                (
                    "Town Hall",
                    "Museum",
                    "Zoo",
                    "Old Bridge",
                    "University",
                    "Castle Hill",
                    "Stadium",
                    "Market Square",
                    "Theatre",
                    "Hospital",
                )
            ),
            f"{surname(rng)} {rng.choice(('Square', 'Park', 'Bridge'))}",
        )
    )


def measure(_: Style, rng: random.Random) -> str:
    n = rng.choice(
        (
            str(rng.randint(2, 90)),
            f"{rng.randint(1, 40)}.{rng.randint(1, 9)}",
            str(rng.randint(100, 990)),
            number(2, 12, rng),
        )
    )
    return f"{n} {rng.choice(('metres', 'metres', 'centimetres', 'cm', 'm', 'km', 'kilometres', 'feet', 'kilograms', 'kg', 'tonnes', 'tons', 'litres', 'degrees', 'square metres', 'hectares', 'grams', '°C', 'inches', 'miles', 'percent', 'kilowatts'))}"


def length(_: Style, rng: random.Random) -> str:
    return rng.choice(
        (
            f"{rng.randint(90, 160)} cm",
            f"1.{rng.randint(0, 9)}0 m",
            f"1.{rng.randint(0, 9)} metres",
            f"{rng.randint(2, 50)} metres",
            f"{number(2, 12, rng)} metres",
            f"{rng.randint(20, 60)} x {rng.randint(20, 60)} cm",
            f"{rng.randint(3, 60)} m",
        )
    )


def temperature(_: Style, rng: random.Random) -> str:
    n = rng.randint(4, 95)
    return rng.choice((f"{n} °C", f"{n}°C", f"{n} degrees", f"{n} degrees Celsius", f"between {n} and {n + 4} degrees"))


def listed(
    options: list[str], low: int = 2, high: int = 3, word: str = "and"
) -> Callable[[Style, random.Random], Value]:
    def make(_: Style, rng: random.Random) -> Value:
        some = [
            wordish(rng) if rng.random() < 0.12 else option for option in rng.sample(options, rng.randint(low, high))
        ]
        return Value(some[0] if len(some) == 1 else f"{', '.join(some[:-1])} {word} {some[-1]}")

    return make


PAYMENTS = [
    "cash",
    "credit cards",
    "debit cards",
    "Visa",
    "Mastercard",
    "girocard",
    "contactless cards",
    "Apple Pay",
    "bank transfer",
    "vouchers",
    "coins",
    "PayPal",
    "American Express",
    "mobile payment",
]


REASONS = [
    "for safety reasons",
    "because the roof is being repaired",
    "because the floor is uneven",
    "to protect the paintings from light",
    "because of nesting birds",
    "due to building work",
    "to keep the animals calm",
    "because seats are limited",
    "as the stairs are narrow",
    "because of the fire regulations",
    "to save water",
    "so that everyone can hear",
    "to keep out the damp",
    "because staff are being trained",
    "owing to a burst pipe",
    "because the paint is fragile",
    "to prevent overcrowding",
    "because the ice is resurfaced",
    "due to strong winds",
    "to avoid noise at night",
]


CONDITIONS = [
    "if the weather is dry",
    "in heavy rain",
    "when the flag is up",
    "if you show your ticket",
    "in case of strong wind",
    "when the lights are green",
    "if you book in advance",
    "when a lifeguard is present",
    "after a short introduction",
    "if a parent comes along",
    "with a valid ticket",
    "in the presence of an adult",
    "on request",
    "at your own risk",
    "by appointment",
    "without notice",
]


ADVERBS = [
    "quickly",
    "carefully",
    "with a brass key",
    "by hand",
    "with a soft brush",
    "in small groups",
    "by ship",
    "by lottery",
    "with a stamp",
    "free of charge",
    "by telephone",
    "in writing",
    "with a wristband",
    "through the app",
    "with a white cloth",
    "by vote",
    "in three steps",
]


def _t(low: int, high: int, step: int = 30) -> Callable[[Style, random.Random], Value]:
    return plain(lambda s, r: clock(r.randrange(low, high, step), s, r))


def _m(low: float, high: float) -> Callable[[Style, random.Random], Value]:
    return plain(
        lambda s, r: money(
            r.choice(
                (
                    float(r.randint(int(low) + 1, int(high))),
                    r.randint(int(low * 10), int(high * 10)) / 10,
                    r.randint(int(low * 2) + 1, int(high * 2)) / 2,
                )
            ),
            s,
            r,
        )
    )


KINDS: dict[str, Callable[[Style, random.Random], Value]] = {
    "distance": plain(
        lambda _, r: (
            f"{r.choice((str(r.randint(2, 90)), f'{r.randint(1, 20)}.{r.randint(1, 9)}', number(2, 12, r)))} {r.choice(('km', 'kilometres', 'miles', 'minutes by car', 'stops'))}"
        )
    ),
    "unit": chosen(w.UNITS),
    "media": pick(w.MEDIA),
    "gear": pick(w.GEAR),
    "guide": chosen(w.GUIDES),
    "route": chosen(w.ROUTES),
    "shuttle": chosen(w.SHUTTLES),
    "offer": chosen(w.OFFERS),
    "do": pick(w.DOINGS),
    "everyday": chosen(w.EVERYDAY),
    "saying": chosen(w.SAYINGS),
    "made_name": plain(
        lambda _, r: r.choice(
            (
                syllables(r).capitalize(),
                f"{syllables(r).capitalize()} {syllables(r).capitalize()}",
                f"Café {surname(r)}",
                f"the {r.choice(w.COLOURS).capitalize()} {r.choice(w.ANIMALS).title()}",
                f"{r.choice(w.THINGS).title()}",
            )
        )
    ),
    "adj": chosen(w.ADJECTIVES),
    "noun": chosen(w.THINGS),
    "early": _t(360, 720),
    "late": _t(780, 1440),
    "time": _t(540, 1320, 15),
    "days": lambda _, r: days(r),
    "day": chosen(list(WEEK)),
    "month": chosen(list(MONTHS)),
    "price": _m(0.5, 60),
    "small": _m(0.1, 9),
    "big": _m(50, 1500),
    "percent": plain(lambda _, r: f"{r.randrange(5, 80, 5)}{r.choice(('%', ' %', ' percent', ' per cent'))}"),
    "fac": pick(w.FACILITIES),
    "ticket": pick(w.TICKETS),
    "group": pick(w.GROUPS),
    "items": pick(w.ITEMS),
    "service": pick(w.SERVICES),
    "toilet": pick(w.TOILETS),
    "event": pick(w.EVENTS),
    "role": pick(w.ROLES),
    "thing": thing,
    "animal": chosen(w.ANIMALS),
    "food": chosen(w.FOODS),
    "foods": listed(w.FOODS),
    "material": chosen(w.MATERIALS),
    "clothes": listed(w.CLOTHES, 1, 3),
    "topic": chosen(w.TOPICS),
    "prof": chosen(w.PROFESSIONS),
    "person": lambda _, r: person(r),
    "venue": plain(lambda _, r: venue(r)),
    "city": chosen(w.CITIES),
    "country": chosen(w.COUNTRIES),
    "org": chosen(w.ORGS),
    "street": plain(lambda _, r: street(r)),
    "colour": chosen(w.COLOURS),
    "near": plain(near),
    "placename": plain(place_name),
    "address": plain(address),
    "phone": plain(phone),
    "email": plain(email),
    "web": plain(web),
    "duration": plain(duration),
    "period": plain(period),
    "transport": plain(transport),
    "stop": plain(stop),
    "measure": plain(measure),
    "length": plain(length),
    "temp": plain(temperature),
    "freq": plain(frequency),
    "moment": plain(moment),
    "dates": plain(span_of_dates),
    "date": plain(lambda s, r: date(s, r)),
    "year": plain(year),
    "age": plain(age),
    "few": plain(lambda _, r: number(2, 12, r)),
    "count": plain(lambda _, r: number(2, 90, r)),
    "many": plain(lambda _, r: number(40, r.choice((900, 9000, 900000)), r)),
    "num": plain(lambda _, r: str(r.randint(1, 60))),
    "languages": listed(w.LANGUAGES, 2, 4),
    "language": chosen(w.LANGUAGES),
    "pay": listed(PAYMENTS, 1, 3),
    "reason": chosen(REASONS),
    "condition": chosen(CONDITIONS),
    "adverb": chosen(ADVERBS),
    "first": chosen(w.FIRST_NAMES),
    "code": plain(
        lambda _, r: r.choice(
            (
                f"{syllables(r)}{r.randint(1, 99)}",
                f"{syllables(r).capitalize()}-{r.choice(('Guest', 'WiFi', 'Free', 'Public'))}",
                f"{r.randint(1000, 999999)}",
                f"{syllables(r).upper()}{r.randint(10, 99)}",
            )
        )
    ),
    "title": plain(
        lambda _, r: r.choice(
            (
                f"“{r.choice(w.ADJECTIVES).capitalize()} {r.choice(w.THINGS).title()}”",
                f"“The {r.choice(w.THINGS).title()} and the {r.choice(w.ANIMALS).title()}”",
                f"{r.choice(w.TOPICS)[0].upper()}{r.choice(w.TOPICS)[1:]}",
            )
        )
    ),
}


NOVEL = frozenset(
    "fac event thing everyday ticket food animal unit service role group items media gear guide route shuttle offer noun".split()
)
PLURAL = frozenset("unit group items media gear offer".split())


def wordish(rng: random.Random) -> str:
    """A word that nobody has seen but everybody can read."""
    start = (
        ""
        if rng.random() < 0.5
        else rng.choice(
            "un re pre over under out sub inter trans co dis fore mid super wind rain wood hill east gold".split()
        )
    )
    end = rng.choice(
        "ing er ment tion ness ery ling ist age el ow ock um ard ette ius ich ler chen haus tide stone field mark ward berry".split()
    )
    return start + syllables(rng) + (end if rng.random() < 0.6 else "")


def make(kind: str, style: Style, rng: random.Random) -> Value:
    """A value of a kind; now and then a thing that no list here knows, so that names are read and not learned by heart."""
    value = KINDS[kind](style, rng)
    if kind not in NOVEL or rng.random() > 0.13:
        return value
    roll, word = rng.random(), wordish(rng)
    text = (
        f"{word} {value.text}"
        if roll < 0.5
        else f"{word.capitalize()} {value.text}"
        if roll < 0.65
        else word + ("s" if kind in PLURAL else "")
    )
    return Value(text, (), {"all": text})
