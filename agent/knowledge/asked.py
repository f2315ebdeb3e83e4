"""What kind of answer a question asks for, and what kinds a sentence holds (pure).

"How much is parking?" asks for a price; a sentence about parking without an amount does not answer it, however similar
it is. Days and months are conditions: where the question names one ("on Sunday", "in June") and the sentence covers
only others, it is likely a near miss.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_NUMBER_WORD = (
    "one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen|fifteen|sixteen|seventeen|"
    "eighteen|nineteen|twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety|hundred|half|quarter|once|twice|dozen"
)
_NUMBER = rf"(?:\d[\d.,:]*|\b(?:{_NUMBER_WORD})\b)"
_MINUTES = r"(?:seconds?|minutes?|mins?|hours?|hrs?|days?|nights?|weeks?|months?|years?)"
_DOTTED_TIME = (
    r"(?:\b(?:at|from|until|till|to|by|before|after|between|and|times?:|starts?:?|begins?|opens?:?|closes?:?"
    r"|open)|[-–])\s*"
    r"(?:[01]?\d|2[0-4])\.[0-5]\d\b|\b(?:[01]?\d|2[0-4])\.[0-5]\d\s*(?:am|pm|hrs|h\b|[-–]|to|until)"
    r"|\b(?:clos|open|time|start|beg[ia]n|depart|arriv|session|sailing)\w*\b[^.]*[^\d.](?:[01]?\d"
    r"|2[0-4])\.[0-5]\d\b"
)
_DOTTED_PRICE = (
    r"(?<!\bat )(?<!\buntil )(?<!\btill )(?<!\bto )(?<!\bby )(?<!\bbetween )(?<!\bopen )(?<!\bopens )(?<!\btime: )"
    r"(?<![-–] )(?<![-–])(?<!\d)\d{1,3}(?:,\d{3})*\.\d{2}\b(?!\s*(?:am|pm|hrs|h\b|[-–]|until))"
)
"""Numbers such as 10.30 are a time after a word of time, else a price."""

_ASKS: tuple[tuple[str, str], ...] = (
    ("price", r"how much(?! (?:time|luggage|space|water))|\bcosts?\b|\bprices?\b|\bfees?\b|\bcharges?\b"
              r"|\bfares?\b|\bpay\b"
              r"|\bcheap|\bexpensive|\bdiscount|\brates?\b|\btariff|\bgratis\b|for free|\bis .* free\b"
              r"|\bfree of charge"),
    ("time", r"\bwhen\b|what time|\btimes?\b|what hour|till when|until when|how (?:late|early)|\bhours\b"
             r"|opening|closing"
             r"|\bopen\b|\bclosed?\b|\bshut|\blast\b.*\b(?:bus|tram|train|boat|entry|admission|show|chance)"
             r"|\bfirst\b|schedule"
             r"|timetable|check-?(?:in|out)|\blatest\b|\bearliest\b"),
    ("day", r"\bwhen\b|(?:what|which|best) (?:days?|dates?|months?|weekdays?|year)|\bdays?\b.*\?|\bseason\b"
            r"|year was"),
    ("duration", r"how (?:long|quick|fast|soon|old is|often|many (?:minutes|hours|days|weeks))|how much time"
                 r"|\bduration\b"),
    ("count", r"how many|\bnumber of\b|\bcapacity\b|\bmax(?:imum)?\b|\blimit\b"),
    ("length", r"how (?:tall|high|deep|wide|thick|big|large|steep)|\b(?:height|width|depth|length|size)\b"),
    ("weight", r"how heavy|\bweigh"),
    ("temperature", r"how (?:cold|warm|hot)\b|\btemperature\b"),
    ("distance", r"how (?:far|close|near)|\bdistance\b"),
    ("age", r"how old|\bage\b|\bages\b|old enough|year[- ]olds?|\d ?yo\b|minimum age|years old|months? old"
            r"|\b(?:is|i'm|am|are|aged|son|daughter|kid|child|girl|boy)\W{1,2}\d{1,2}\b(?!\W?\d)(?! (?:of"
            r"|people|adults))"),
    ("place", r"\bwhere\b|which (?:room|floor|counter|gate|platform|door|desk|stop|entrance|level|building|side"
              r"|hut|street)"
              r"|what (?:room|floor|counter|gate|platform|address)|\bnearest\b|\baddress\b|how do (?:i|we"
              r"|you) get (?:to|across)"),
    ("contact", r"\bphone\b|\btelephone\b|\bnumber (?:to|for|of the)\b|\bcall\b|\be-?mail\b|\bcontact\b"
                r"|\bring\b|get in touch"
                r"|phone number"),
    ("who", r"^\W*who\b|\bwho (?:is|are|was|won|plays?|can|do|does|may)\b|\bwhose\b"),
    ("why", r"\bwhy\b|what for\b|reason"),
    ("yesno", r"^\W*(?:(?:hi|hello|hey|excuse me|sorry|please|good \w+|so|and|but)\W+)*(?:is|are|am|was|can"
              r"|could|do|does|"
              r"did|may|must|will|would|should|shall|have|has|need|any)\b|allowed|\bok\b|okay|possible"
              r"|permitted|\?\s*(?:yes|no)"
              r"|, (?:is|are|can|do|does|may|must|will|should) \w+"),
)  # fmt: skip
_HOLDS: tuple[tuple[str, str], ...] = (
    ("price", r"[£$€]\s?\d|" + _DOTTED_PRICE + r"|\b\d+ (?:pounds|euros?|dollars|pence|cents|per cent|%)"
              r"|\bfree\b|\bincluded\b|no (?:extra )?charge|without charge|half price|\bcosts? (?:extra|\d)"
              r"|\bpays?\b.*\d"
              r"|\bpays? nothing|at no (?:extra )?cost|part of the price|\b(?:price|charge|fee|cost|pay"
              r"|fare)s?\b.*\b\d+\b"),
    ("time", r"\b\d{1,2}:\d{2}\b|" + _DOTTED_TIME + r"|\b\d{1,2} ?(?:a\.?m|p\.?m)\b|\bnoon\b|\bmidnight\b"
                                                    r"|o'clock|\bdusk\b|\bdawn\b|\bsunset\b"
             rf"|\b(?:at|from|until|till|by|after|before|between|past|to) (?:{_NUMBER_WORD}|\d{{1,2}})\b"
             rf"|\baround the clock\b"
             rf"|{_NUMBER} {_MINUTES} (?:before|after|ahead|earlier|later)|\d{{1,2}} (?:to|-|–) \d{{1,2}}|24 hours"
             r"|day and night|all day"),
    ("day", r"\b(?:mon|tues|wednes|thurs|fri|satur|sun)days?\b|\b(?:january|february|march|april|may|june|july"
            r"|august|"
            r"september|october|november|december)\b|\b(?:daily|weekdays?|weekends?|every day|easter|christmas"
            r"|holidays?"
            r"|summer|winter|spring|autumn)\b|\b1\d{3}\b|\b20\d\d\b"),
    ("duration", rf"{_NUMBER}[ -](?:\w+ )?{_MINUTES}|\b(?:an?|half an|the whole) (?:hour|day|week|month|year)\b"),
    ("count", rf"{_NUMBER}"),
    ("length", rf"{_NUMBER}[ -]?(?:m|cm|mm|km|metres?|meters?|feet|foot|inch(?:es)?|storeys?|hectares?)\b"
               rf"|\bsizes?\b.*\d"
               r"|\bup to \d"),
    ("weight", rf"{_NUMBER}[ -]?(?:kg|g|kilos?|kilograms?|tonnes?|pounds|lbs?|stone)\b"),
    ("temperature", rf"{_NUMBER}[ -]?(?:degrees?|°)"),
    ("distance", rf"{_NUMBER}[ -]?(?:m|km|metres?|meters?|miles?|minutes?|mins?|yards?|stops?)\b"),
    ("age", r"\b(?:under|over|aged?|from|older|younger|below|above|between)\b.{0,20}\b\d{1,2}\b|years?\b"
            r"|year-old|\bunder-\d"
            r"|\bchildren\b|\badults?\b"),
    ("place", r"\b(?:next to|beside|behind|opposite|in front|at the|in the|on the|by the|near|above|below"
              r"|between|inside|"
              r"outside|floor|level|room|counter|desk|gate|street|lane|road|entrance|hall|building|wing|corner"
              r"|upstairs|"
              r"downstairs|platform|stop|annexe|basement|left|right|side|metres|minutes)\b"),
    ("contact", r"\+?\d[\d \-()]{6,}\d|\S+@\S+|\bwww\.|https?://"),
    ("who", r"(?<=[a-z,] )[A-Z][a-z]+ [A-Z][a-z]+|\b(?:anyone|everyone|people|visitors?|members?|staff|guests?"
            r"|passengers?|those|holders?|children"
            r"|adults?)\b"),
    ("why", r"\bbecause\b|\bas\b|\bsince\b|so that|\bfor\b|due to|\bto (?:protect|avoid|keep)\b"),
    ("yesno", r"\b(?:may|can|cannot|can't|must|not|no|never|nobody|none|only|allowed|welcome|forbidden"
              r"|permitted|admitted|"
              r"available|free|required|need|compulsory|possible|please|have to|has to|without|included"
              r"|provided|sorry|"
              r"prohibited|accepted?|unless|except|there (?:is|are)|closed|open)\b"),
)  # fmt: skip
_ASK = tuple((kind, re.compile(pattern, re.IGNORECASE)) for kind, pattern in _ASKS)
_HOLD = tuple((kind, re.compile(pattern, re.IGNORECASE)) for kind, pattern in _HOLDS)
KINDS = tuple(kind for kind, _ in _ASKS)

_WHEN = frozenset(("time", "day", "duration"))
_NUMBER_WORDS = "one two three four five six seven eight nine ten eleven twelve".split()
_CLOCK = re.compile(
    r"\b(?P<hour>\d{1,2})(?:[:.](?P<minute>[0-5]\d)\b|(?=\s?(?:a\.?m|p\.?m|o'clock|in the (?:morning|evening"
    r"|afternoon))\b))"
)
_SPOKEN = re.compile(
    rf"\b(?:(?P<part>half past|quarter past|quarter to)|at|from|until|till|by|after|before|between|past|around"
    rf"|and|to)\s+"
    rf"(?P<hour>{'|'.join(_NUMBER_WORDS)}|\d{{1,2}})\b(?![.:]\d)"
)
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAY = (
    r"mon(?:days?)?|tue(?:s|sdays?)?|wed(?:nesdays?|s)?|thu(?:rsdays?|rs?)?|fri(?:days?)?|sat(?:urdays?)?"
    r"|sun(?:days?)?"
)
_DAY_RANGE = re.compile(rf"\b({_DAY})\.?\s*(?:-|–|to|until|through|till)\s*({_DAY})\b", re.IGNORECASE)
_DAY_NAME = re.compile(rf"\b({_DAY})\b", re.IGNORECASE)
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTH = (
    r"january|february|march|april|may|june|july|august|september|october|november|december|jan|feb|mar|apr|jun"
    r"|jul|aug|"
    r"sept?|oct|nov|dec"
)
_MONTH_RANGE = re.compile(
    rf"\b({_MONTH})\b\.?\s*(?:\d{{1,2}}\s*)?(?:-|–|to|until|through"
    rf"|till)\s*(?:the )?(?:\w+ )?(?:\w+ of )?(?:\d{{1,2}}\.? )?"
    rf"\b({_MONTH})\b",
    re.IGNORECASE,
)
_MONTH_NAME = re.compile(rf"\b({_MONTH})\b", re.IGNORECASE)
_SEASONS = {"spring": (2, 3, 4), "summer": (5, 6, 7), "autumn": (8, 9, 10), "winter": (11, 0, 1)}
_LOWER_MAY = re.compile(r"\bmay\b")


@dataclass(frozen=True, slots=True)
class Conditions:
    """Weekdays (0 = Monday) and months (0 = January) that a text names, ranges spelt out; ``every_day`` where it says
    daily."""

    days: frozenset[int] = frozenset()
    months: frozenset[int] = frozenset()
    every_day: bool = False
    moments: frozenset[int] = frozenset()


_NOW = re.compile(
    r"\b(?:right now|at the moment|currently|at present|tonight|this (?:morning|afternoon|evening|week)|today"
    r"|tomorrow|"
    r"yesterday|last year|next (?:\w+ )?(?:meeting|show|train|bus|boat|match|game|one))\b|\bon time\b",
    re.IGNORECASE,
)
_EXISTS = re.compile(
    r"\b(?:(?:do|does|did|can|could|will|would) (?:you|they|u|it|i|we|one) (?:\w+ )?(?:have|sell|offer|rent"
    r"|hire|carry|accept|serve|"
    r"provide|give|get|buy|see|join|do|take|book)|(?:is|are|was|were) there|have you got|got any|any\b)",
    re.IGNORECASE,
)
_IDENTITY = re.compile(
    r"\bwho(?:'s| is| was| are| won| plays?| owns?| runs?)\b|\bwhich (?:family|person|people)\b", re.IGNORECASE
)


def asks_about_now(question: str) -> bool:
    """Whether it asks how things stand at this moment, which documents seldom know."""
    return _NOW.search(question) is not None


def asks_whether_there_is(question: str) -> bool:
    """Whether it asks if something exists or is offered: then the thing itself has to be mentioned."""
    return _EXISTS.search(question) is not None


def asks_who_it_is(question: str) -> bool:
    """Whether it asks for a person's name."""
    return _IDENTITY.search(question) is not None


def kinds_asked(question: str) -> frozenset[str]:
    return frozenset(kind for kind, pattern in _ASK if pattern.search(question))


def kinds_held(text: str) -> frozenset[str]:
    return frozenset(kind for kind, pattern in _HOLD if pattern.search(text))


def conditions(text: str, *, question: bool = False) -> Conditions:
    """``question``: a lower-case "may" is the month only where no verb can stand (people type "in may")."""
    lowered = text.lower()
    days: set[int] = set()
    for match in _DAY_RANGE.finditer(lowered):
        days.update(_cycle(_day(match[1]), _day(match[2]), 7))
    days.update(_day(match[1]) for match in _DAY_NAME.finditer(lowered) if match[1] not in ("sat", "sun", "wed"))
    if re.search(r"\bweekdays?\b", lowered):
        days.update(range(5))
    if re.search(r"\bweekends?\b", lowered):
        days.update((5, 6))
    months: set[int] = set()
    spelt = lowered if question else _LOWER_MAY.sub(" ", text).lower()
    for match in _MONTH_RANGE.finditer(spelt):
        months.update(_cycle(_month(match[1]), _month(match[2]), 12))
    for match in _MONTH_NAME.finditer(spelt):
        verb = question and match[1] == "may" and not re.search(r"\b(?:in|of|during|early|late|mid|from|until"
                                                                r"|to)\W*$",
                                                               spelt[: match.start()])  # fmt: skip
        if not verb:
            months.add(_month(match[1]))
    for season, covered in _SEASONS.items():
        if re.search(rf"\b{season}\b", lowered):
            months.update(covered)
    every = bool(re.search(r"\bdaily\b|\bevery day\b|seven days|all week|around the clock|day and night", lowered))
    return Conditions(frozenset(days), frozenset(months), every, _moments(lowered))


def share(asked: frozenset[str], held: frozenset[str]) -> float:
    """Share of the kinds asked for that are held; "when" asks for a time or a day, either will do."""
    groups = {("when" if kind in _WHEN else kind): False for kind in asked}
    for kind in asked & held:
        groups["when" if kind in _WHEN else kind] = True
    return sum(groups.values()) / len(groups) if groups else 0.0


def _moments(lowered: str) -> frozenset[int]:
    """Times of day as minutes after midnight or noon (people leave out which): 19:30, "7.30 pm" and "half past seven"
    are all 450."""
    found: set[int] = set()
    for match in _CLOCK.finditer(lowered):
        hour, minute = int(match["hour"]), int(match["minute"] or 0)
        if hour <= 24 and minute < 60:
            found.add((hour % 12) * 60 + minute)
    for match in _SPOKEN.finditer(lowered):
        hour = int(match["hour"]) if match["hour"].isdigit() else _NUMBER_WORDS.index(match["hour"]) + 1
        past = {"half past": 30, "quarter past": 15, "quarter to": -15}.get(match["part"] or "", 0)
        if hour <= 24:
            found.add(((hour % 12) * 60 + past) % 720)
    if re.search(r"\b(?:noon|midday|midnight)\b", lowered):
        found.add(0)
    return frozenset(found)


def _day(name: str) -> int:
    return _DAYS.index(name[:3].lower())


def _month(name: str) -> int:
    return _MONTHS.index(name[:3].lower())


def _cycle(first: int, last: int, size: int) -> list[int]:
    return [(first + step) % size for step in range((last - first) % size + 1)]
