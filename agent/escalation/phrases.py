"""Names, places and dates of birth, found by what people say around them in English and German (pure).

"my name is", "ich heisse", "Mr", "mein Sohn", "I live in", "geboren am" and their like begin one; what belongs to it is
read word by word: capitalised words with their particles, and where speech recognition or haste wrote everything small,
words that are no everyday ones. Nothing here knows all names: what is said without any of these words around it is
found only when it is on the device's lists (agent/escalation/personal.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final

from agent.escalation.identifiers import Span
from agent.escalation.words import COMMON, GIVEN, NOUNS


def names(text: str) -> Iterator[Span]:
    """Names of persons, with their titles."""
    small = text == text.lower()
    for trigger in _SURE.finditer(text):
        yield from _name(text, trigger.end(), lower=True)
    for trigger in _CAPITAL.finditer(text):
        yield from _name(text, trigger.end())
    for trigger in _ROLE.finditer(text):
        for span in _name(text, trigger.end(), doubtful=True):
            words = text[span.start : span.end].split()
            if _folded(words[0]) in GIVEN or (len(words) > 1 and not any(_folded(word) in NOUNS for word in words)):
                yield span
    for trigger in _PERHAPS.finditer(text):
        noun = trigger[0].lower().startswith(("hier", "das", "here"))
        for span in _name(text, trigger.end(), lower=small, doubtful=True):
            words = text[span.start : span.end].split()
            if not noun or len(words) > 1 or _is_given(words[0]):
                yield span
    for found in _SMALL.finditer(text) if small else ():
        if found[1] not in COMMON | NOUNS and not _NO_NAME.search(found[1]):
            yield Span(found.start(1), found.end(1), "NAME")
    for trigger in _TITLE.finditer(text):
        yield from _name(text, trigger.start())
    for trigger in _TITLE_LOWER.finditer(text):
        yield from _name(text, trigger.start(), lower=True)
    for found in _BEFORE.finditer(text):
        words = found[1].split()
        if _is_name(words[0], doubtful=True) and (len(words) > 1 or _is_given(words[0]) or found[2]):
            yield Span(found.start(1), found.end(1), "NAME")
    for trigger in _CLOSING.finditer(text):
        end = text.find("\n", trigger.end())
        for span in _name(text, trigger.end(), doubtful=True):
            rest = text[span.end : end if end >= 0 else len(text)]
            if not rest.strip(" .,!-") or _folded(text[span.start : span.end]) in GIVEN:
                yield span


def cards(text: str, reachable: Iterable[int]) -> Iterator[Span]:
    """Two or three capitalised words at the beginning of a line or sentence, right before one of these places."""
    for place in reachable:
        begin = max(0, place - _CARD_CHARS)
        match = _CARD.search(text[begin:place])
        if match is None or (begin and match.start() == 0):
            continue
        words = match[1].split()
        if _is_name(words[0], doubtful=True) and not any(_folded(word.strip(".")) in TITLES for word in words):
            yield Span(begin + match.start(1), begin + match.end(1), "NAME")


def births(text: str) -> Iterator[Span]:
    """Dates that a word for birth stands before or after."""
    for match in _BORN.finditer(text):
        yield Span(match.start("date"), match.end("date"), "BIRTH")
    for match in _BORN_AFTER.finditer(text):
        yield Span(match.start("date"), match.end("date"), "BIRTH")


def places(text: str) -> Iterator[Span]:
    """Where somebody lives or comes from."""
    small = text == text.lower()
    for trigger in _HOME.finditer(text):
        yield from _place(text, trigger.end(), lower=small)
    for trigger in _POSTCODE_WORD.finditer(text):
        if match := _POSTCODE.match(text, trigger.end()):
            yield Span(match.start(), match.end(), "PLACE")


# ---------------------------------------------------------------- names

_W: Final = r"[^\W\d_]"
_INITIAL: Final = re.compile(r" [A-Z]\.(?!\w)")
_WORD: Final = re.compile(rf"(?:[DOLdol]['’](?={_W}))?{_W}+(?:['’-]{_W}+)*")

TITLES: Final = frozenset(
    "mr mrs ms miss mx dr prof professor sir dame lady lord rev reverend father sister brother nurse captain herr "
    "herrn frau fr fräulein familie schwester pfarrer doktor med rer nat phil dipl ing mag and und".split()
)
_PARTICLES: Final = frozenset(
    "von van vom zu zum zur de der den del della di da dos do du la le las los el al bin ibn ben ter ten af av ní ó mac"
    " y".split()
)
_NOBODY: Final = frozenset("ringe whippy bean right wrong".split())
_ARTICLES: Final = frozenset("der die das".split())
_MOST_WORDS: Final = 4
_MOST_TOKENS: Final = 12
"""With titles and particles."""
_NO_NAME: Final = re.compile(
    r"(?:ian|ians|ish|ese|ing|tion|ness|ment|able|ful|less|ous|ive|ical|ist|ists|ists|vegan|fahrer|fahrerin|lerin|erin"
    r"|ent|entin|enten|ant|antin|ung|heit|keit|schaft|iker|ikerin|istin|loge|login|ling|arier|arierin|beschädigte"
    r"|behinderte|behinderter|besucher|gast|ierte|ierter|haber|ed)$"
)

_RELATION: Final = (
    r"(?:wife|husband|partner|son|daughter|mother|mum|mom|father|dad|brother|sister|boyfriend|girlfriend|friend|child"
    r"|baby|grandson|granddaughter|grandmother|grandfather|grandma|grandpa|nan|aunt|uncle|cousin|nephew|niece|boss|nurse"
    r"|teacher|colleague|neighbour|neighbor|carer|guide|fianc[eé]e?)"
)
_VERWANDT: Final = (
    r"(?:frau|mann|partner(?:in)?|sohn|tochter|mutter|mama|vater|papa|bruder|schwester|freund(?:in)?|kind|baby"
    r"|enkel(?:in)?|oma|opa|gro(?:ß|ss)(?:mutter|vater)|tante|onkel|cousine?|neffe|nichte|chef(?:in)?|lehrer(?:in)?"
    r"|kolleg(?:e|in)|nachbar(?:in)?|verlobte[rn]?|betreuer(?:in)?)"
)

_SURE: Final = re.compile(
    r"(?i)(?:\b(?:(?:my|his|her|their|our|the|\w+['’]s)\s+(?:(?:full|first|last|family|given|sur|middle)[ -]?)?"
    r"(?:name|surname|names)(?:\s+(?:is|was|are)|['’]s)"
    rf"|my\s+{_RELATION}(?:['’]s\s+name\s+is|\s+is\s+called)"
    r"|i\s*(?:am|['’]?m)\s+called|(?:girl|boy|man|woman|child|lady|gentleman|guy|kid)\s+(?:called|named)"
    r"|first name|last name|surname|vorname|nachname|familienname"
    r"|ich\s+hei(?:ß|ss)e|(?:mein|sein|ihr|unser|der)\s+name\s+(?:ist|war|lautet)"
    rf"|(?:mein|meine|unser|unsere|die|der|das)\s+(?:{_VERWANDT}|kleine|kleiner?|junge|mädchen)\s+hei(?:ß|ss)t"
    r"|hier\s+spricht|am\s+apparat|man\s+nennt\s+mich|(?:alle|sie)\s+nennen\s+mich"
    r"|auf\s+den\s+namen|unter\s+dem\s+namen|(?:under|in)\s+the\s+name(?:\s+of)?)(?:[ \t]*[:,-])?\s+(?:[\"“„'‘])?"
    r"|(?:^|[\n,;{(\"“]|\bmy\b|\bfull\b|\bguest\b)[ \t\"]{0,3}(?:full |guest |customer |visitor |patient )?"
    r"(?:names?|patient(?:in)?|kund(?:e|in)|gast|inhaber(?:in)?|customer|guest|visitor|holder)"
    r"[\"]?[ \t]*[:=–-]+[ \t]*[\"“„'‘]?)"
)
"""After these comes a name, be it written small."""

_CAPITAL: Final = re.compile(
    r"(?:(?i:\b(?:(?:please\s+)?call\s+me|(?:they|people|friends|everyone|everybody)\s+calls?\s+me|know\s+me\s+as"
    r"|(?:booked|reserved|ordered|signed|paid|written|left)\s+by|(?:booking|reservation|ticket|parcel|table|seat|package)"
    r"\s+(?:is\s+)?(?:for|under)|(?:it|that)(?:['’]s|\s+is)\s+under|booked\s+under|ask(?:ed)?\s+for|speak\s+to|spoke\s+to"
    r"|gebucht\s+von|reserviert\s+(?:von|für)|bestellt\s+von|reservierung\s+(?:für|auf|von)|tisch\s+(?:für|auf)"
    r"|termin\s+für|paket\s+(?:für|an)|karten?\s+(?:für|auf)|buchung\s+(?:für|auf)|gehört|grü(?:ß|ss)e\s+von"
    rf"|(?:my|our|his|her|their|the|your)\s+{_RELATION}|(?:mein|unser)(?:e[mnrs]?)?\s+{_VERWANDT}"
    r"|signed|addressed\s+to|(?:mutter|vater|eltern|tochter|sohn|mother|father|parents?)\s+(?:von|of)|gezeichnet|vorname|nachname)"
    r"(?:\s*[,:])?\s+|^under\s+|^name\s+|(?<=[,.] )name\s+))(?=[\"“„'‘]?[^\W\d_a-zäöüß])"
)
"""After these comes a name if the word is capitalised."""

_ROLE: Final = re.compile(
    r"(?i)\b(?:patient(?:in)?|inhaber(?:in)?|kund(?:e|in)|gast|guest|customer|passenger|holder|teilnehmer(?:in)?|bewohner(?:in)?)"
    r"\s+(?=[^\W\d_])"
)
"""After these comes a name if it is a common one, or of two words."""

_PERHAPS: Final = re.compile(
    r"(?i)\b(?:i\s*am|i['’]?m|this\s+is|it['’]?s|it\s+is|ich\s+bin|hier\s+ist|here\s+is|das\s+ist|hier)\s+"
)
"""After these comes a name or anything else; a capitalised word that is neither everyday nor a profession counts."""

_SMALL: Final = re.compile(rf"\b(?:i\s*am|i['’]?m|ich\s+bin)\s+({_W}{{3,}})\s+(?:and\s+(?:i|my)|und\s+(?:ich|mein))\b")
"""What somebody is who goes on about themselves, in a text without capitals."""

_TITLE: Final = re.compile(
    r"(?<!eine )(?<!nsere )\b(?:Mr|Mrs|Ms|Miss|Mx|Dr|Prof|Professor|Sir|Dame|Lady|Lord|Rev|Herrn?|Frau|Fr"
    r"|Fräulein|Familie|MR|MRS|MS|DR|HERR|FRAU)"
    r"\b(?=\.?\s+[^\W\d_])"
)
_TITLE_LOWER: Final = re.compile(
    r"\b(?:mr|mrs|ms|dr|prof|(?<=für )herrn?|(?<=ist )herrn?|(?<=bin )herrn?|(?<=ist )frau"
    r"|(?<=spricht )frau|(?<=bin )frau"
    r"|(?<=für )frau)\b\.?(?=\s+[a-zäöüß])"
)
_BEFORE: Final = re.compile(
    rf"(?:^|[\n.!?,;:][ \t]{{0,3}}|\b(?i:hello|hi|hey|hallo|moin|servus|tag|gott|morning|afternoon|evening|morgen"
    rf"|abend)[,!]?\s+)"
    rf"({_W}+(?:['’-]{_W}+)*(?:\s+{_W}+(?:['’-]{_W}+)*){{0,2}})\s+"
    rf"(?:(?:here|hier)\b(?![ \t]+(?:is|ist|are|sind))|((?:is\s+)?speaking\b|am\s+Apparat\b"
    r"|(?:ist\s+)?mein\s+Name\b))"
)
_CARD_CHARS: Final = 80
_CARD: Final = re.compile(
    rf"(?:^|[\n.,;:!?][ \t]{{0,3}})({_W}+(?:['’-]{_W}+)*"
    rf"(?:\s+[A-ZÀ-ÞŁŞÇĞİ]{_W}*\.?(?:['’-]{_W}+)*){{1,2}})[ \n,;:/(<-]{{1,3}}$"
)
_CLOSING: Final = re.compile(
    r"(?i)(?:\b(?:regards|best\s+wishes|warm\s+wishes|all\s+the\s+best|yours\s+(?:sincerely|faithfully|truly)|sincerely"
    r"|cheers|thanks(?:\s+(?:a\s+lot|so\s+much))?|thank\s+you(?:\s+(?:so|very)\s+much)?|many\s+thanks|love|yours"
    r"|mfg|lg|vg|(?:mit\s+)?(?:freundlichen|besten|lieben|herzlichen)\s+grü(?:ß|ss)en"
    r"|(?:viele|liebe|beste|freundliche|schöne|herzliche|lieber|schöner)?\s*gr[uü](?:ß|ss)e?|danke(?:\s+schön)?|vielen\s+dank)"
    r"\s*[,.!]*\s*[-–—]?\s*)(?=[^\W\d_])"
)


def _name(text: str, at: int, *, lower: bool = False, doubtful: bool = False) -> Iterator[Span]:
    """The name that begins at a place, if one does. ``lower``: small words count too, unless they are everyday words;
    ``doubtful``: a single word must look like a name by itself."""
    start = end = None
    words = 0
    titled = False
    position = at
    for _ in range(_MOST_TOKENS):
        match = _WORD.match(text, position)
        if match is None or words == _MOST_WORDS:
            break
        word, plain = match[0], _folded(match[0])
        beyond = _skip(text, match.end(), initial=len(word) <= 2 or plain in TITLES)
        follows = _WORD.match(text, beyond)
        if (plain in TITLES and words == 0) or (plain in _ARTICLES and words == 0 and not titled and start is None):
            if follows is None:
                break
            titled = titled or (plain in TITLES and plain not in ("and", "und"))
        elif plain in _PARTICLES and word[0].islower():
            if follows is None or not (
                follows[0][0].isupper()
                or (_folded(follows[0]) in _PARTICLES and titled)
                or (lower and _folded(follows[0]) not in COMMON)
            ):
                break
            if words == 0 and not titled and plain in COMMON:
                break
        elif _counts(word, lower) and not (titled and plain in _NOBODY):
            lower = lower and not word[0].isupper()
            words += 1
            end = match.end()
        else:
            break
        start = match.start() if start is None else start
        position = beyond
    if start is None or end is None:
        return
    found = [word for word in text[start:end].split() if _folded(word) not in TITLES | _ARTICLES]
    if doubtful and not titled and not _convincing(found, lower):
        return
    if not titled and found and _folded(found[0]) in NOUNS and _folded(found[0]) not in GIVEN:
        return
    if _INITIAL.match(text, end):
        end += 3
    yield Span(start, end, "NAME")


def _skip(text: str, position: int, *, initial: bool = False) -> int:
    """Behind what may stand between two words of a name: a blank, the dot of an initial or title, a quoted nickname."""
    if initial and text[position : position + 1] == ".":
        position += 1
    while text[position : position + 1] in (" ", "\t", "\u00a0"):
        position += 1
    if text[position : position + 1] in ('"', "“", "„", "‘") and text[position + 1 : position + 2].isupper():
        position += 1
    elif text[position : position + 2] in ('" ', "” ", "’ "):
        position += 2
    return position


def _counts(word: str, lower: bool) -> bool:
    plain = _folded(word)
    if word[0].isupper():
        return plain not in COMMON or plain in GIVEN
    return lower and plain not in COMMON and len(plain) > 1


def _is_name(word: str, *, doubtful: bool) -> bool:
    plain = _folded(word)
    if _is_given(word):
        return True
    if plain in COMMON or plain in NOUNS or not word[0].isupper():
        return False
    return not (doubtful and _NO_NAME.search(plain))


def _is_given(word: str) -> bool:
    """A common given name; one that is an everyday word too only if it is capitalised."""
    plain = _folded(word)
    return plain in GIVEN and (plain not in COMMON or word[0].isupper())


def _convincing(words: list[str], lower: bool) -> bool:
    """Whether words after "I'm" or "ich bin" are a name and not what somebody is."""
    first = words[0].strip(".,\"“”'") or words[0]
    return _is_given(first) or (_is_name(first, doubtful=True) and not (lower and first[0].islower()))


def _folded(word: str) -> str:
    return word.lower().replace("’", "'")


# ---------------------------------------------------------------- births

_MONTH: Final = (
    r"(?:jan(?:uary|uar)?|jänner|feb(?:ruary|ruar)?|mar(?:ch)?|märz|mrz|apr(?:il)?|may|mai|june?|juni|july?|juli|aug(?:ust)?"
    r"|sept?(?:ember)?|o[ck]t(?:ober)?|nov(?:ember)?|de[cz](?:ember)?)\b\.?"
)
_DATE: Final = (
    rf"(?P<date>\d{{4}}[-./]\d{{1,2}}[-./]\d{{1,2}}"
    rf"|\d{{1,2}}\s?[./-]\s?\d{{1,2}}\s?(?:[./-]\s?(?:\d{{4}}|\d{{2}}))?\.?(?<!\d\.\.)(?!\d)"
    rf"|\d{{1,2}}(?:st|nd|rd|th|\.)?\s+(?:of\s+)?{_MONTH}(?:,?\s*(?:\d{{4}}|['’]?\d{{2}})\b)?"
    rf"|{_MONTH}\s+\d{{1,2}}(?:st|nd|rd|th)?(?:,?\s+\d{{4}})?\b"
    rf"|{_MONTH}\s+\d{{4}}\b|(?:19|20)\d{{2}}\b|\d{{8}}\b|\d{{6}}\b)"
)
_BORN: Final = re.compile(
    r"(?i)(?:\b(?:date\s+of\s+birth|birth\s?-?date|birthday|d\.?\s?o\.?\s?b\.?|born|geboren|geb\.?(?:-?datum)?"
    r"|geburtsdatum|geburtstag|jahrgang)|(?<!\w)\*)"
    rf"(?:['’]s)?[ \t]*[:.,=-]?[ \t]*"
    rf"(?:(?:on|in|is|was|it['’]?s|the|am|ist|der|im|den|date|my|wurde|bin|ich|in\s+{_W}+(?:-{_W}+)*)\s+){{0,4}}{_DATE}"
)
_BORN_AFTER: Final = re.compile(rf"(?i)(?<![\w.]){_DATE}\s+(?:in\s+\w+\s+)?(?:geboren|born)\b")

# ---------------------------------------------------------------- places

_HOME: Final = re.compile(
    r"(?i)\b(?:(?:i|we|she|he|they)\s+(?:live|lives|lived|reside|stay)\s+(?:in|at|on|near|by)"
    r"|(?:i|we)(?:['’]?(?:m|re)|\s+am|\s+are)\s+(?:\w+\s+)?from|(?:i|we)(?:['’]ve)?\s+(?:have\s+)?(?:come|came|drove|flew)\s+"
    r"(?:(?:up|down|over|here|in|all\s+the\s+way)\s+)?from|, from"
    r"|(?:i|we)\s+moved\s+to|(?:i|she|he)\s+(?:was|were)\s+born\s+in"
    r"|(?:my|our|home|her|his)\s+(?:home\s+|postal\s+|new\s+)?address(?:\s+is|['’]s|:)"
    r"|(?<!e-mail )(?<!mail )(?<!ip )address:"
    r"|my\s+(?:house|home|flat|place)(?:\s+(?:in|at|is\s+in|is\s+at)|,)|deliver(?:\s+it)?\s+to|send\s+it\s+to\s+me\s+at"
    r"|(?:ich|wir)\s+(?:wohnen?|leben?)\s+(?:(?:in|an)\s+de[rmn]|in|im|am|auf\s+de[rm]|bei)"
    r"|(?:,|und)\s+wohne\s+(?:in\s+de[rm]|in|im|am)"
    r"|wohnhaft(?:\s+(?:in\s+de[rm]|in|im|am))?:?"
    r"|(?:ich\s+komme|wir\s+kommen|ich\s+stamme|wir\s+sind)\s+(?:extra\s+|ursprünglich\s+)?aus|(?<!e-mail-)(?<!ip-)(?:adresse|anschrift)(?:\s+(?:ist|lautet)|:)"
    r"|wohnort:?|(?:bin|wurde)\s+in|geboren\s+in)\s+"
)
_POSTCODE_WORD: Final = re.compile(
    r"(?i)\b(?:my|our|home)\s+(?:post\s?code|zip(?:\s+code)?|postal\s+code)(?:\s+is|:)?\s+"
    r"|\b(?:meine|unsere)\s+(?:plz|postleitzahl)(?:\s+ist|\s+lautet|:)?\s+"
)
_POSTCODE: Final = re.compile(
    r"[A-Z]{1,2}\d[A-Z\d]? ?\d[A-Z]{2}\b|[A-Z]{2} \d{5}(?:-\d{4})?\b|\d{5}(?:-\d{4})?\b|\d{4} ?[A-Z]{2}\b|\d{4}\b",
    re.IGNORECASE,
)
_PART: Final = re.compile(rf"(?:\d+[a-zA-Z]?(?:[-/]\d+[a-z]?)?\b|{_W}+\.?(?:['’/-]{_W}+\.?)*)")
_PLACE_PARTICLES: Final = frozenset(
    "of the upon under am an der im in dem den de la le les du sur on by und bei ob zum zur alten".split()
)
_PLACE_BEGINNINGS: Final = frozenset(
    "new old great little north south east west upper lower bad saint st good high".split()
)
_BRITISH: Final = re.compile(r"[A-Z]{1,2}\d[A-Z\d]? ?\d[A-Z]{2}\b")
_STATE: Final = re.compile(r"[A-Z]{2} \d{5}(?:-\d{4})?\b")
_COMMA: Final = re.compile(r",?\s+(?=\S)|,\s*")
_CAPITAL_NEXT: Final = re.compile(r" [A-ZÄÖÜ]")
_WORD_NEXT: Final = re.compile(r"\s+[^\W\d_]")
_BLANKS: Final = re.compile(r"[ \t]+")
_CONTACT: Final = frozenset("tel telefon handy mobil phone mobile room zimmer raum fax dob geb nhs iban".split())
_HOUSEHOLD: Final = frozenset("flat apartment apt unit suite no nr nummer wohnung".split())
_STREET: Final = re.compile(
    r"(?i)(?:stra(?:ß|ss)e|str|weg|gasse|allee|platz|ring|damm|ufer|markt|hof|steig|pfad|avenue|street|road|lane|drive)\.?$"
)


def _place(text: str, at: int, *, lower: bool) -> Iterator[Span]:
    end = _segment(text, at, lower=lower)
    if end is None:
        return
    while match := _COMMA.match(text, end):
        begins = match.end()
        state = _STATE.match(text, begins)
        following = state.end() if state else _segment(text, begins, lower=False)
        if following is None:
            break
        segment = text[begins:following]
        code = _POSTCODE.search(segment)
        beyond = text.startswith(", ", following)
        number = text[at:end].strip()[:1].isdigit() or re.search(r"\d", text[at:end])
        leads = beyond and number and _POSTCODE.search(text[following : following + 40]) and not code
        leads = leads or (text[at : at + 1].isdigit() and segment.istitle() and not _not_part_of_address(segment))
        household = _folded(text[at:end].split()[0]) in _HOUSEHOLD
        if not (leads or household or (code and not _not_part_of_address(segment))):
            break
        end = following
    yield Span(at, end, "PLACE")


def _is_place(plain: str, words: int) -> bool:
    plain = plain.strip(".")
    return plain in _PLACE_BEGINNINGS or (plain not in COMMON and (words > 0 or plain not in NOUNS))


def _not_part_of_address(segment: str) -> bool:
    words = segment.split()
    return any(_folded(word.strip(".:")) in _CONTACT for word in words)


def _segment(text: str, at: int, *, lower: bool) -> int | None:
    """The end of a run of capitalised words and numbers, with the small words inside it."""
    position, end, words = at, None, 0
    while words < 6 and (match := _PART.match(text, position)):
        part, plain = match[0], _folded(match[0])
        if code := _BRITISH.match(text, position):
            end = code.end()
            break
        if part[0].isdigit():
            if words == 0 and not _WORD_NEXT.match(text, match.end()):
                break
            end = match.end()
        elif plain in _PLACE_PARTICLES and (
            words or part[0].isupper() or (plain == "the" and _CAPITAL_NEXT.match(text, match.end()))
        ):
            pass
        elif (part[0].isupper() and plain not in _CONTACT and _is_place(plain, words)) or (
            lower and plain not in COMMON and words < 2 and len(plain) > 2
        ):
            end = match.end()
        else:
            break
        words += 1
        if part.endswith(".") and not _STREET.search(part) and len(part) > 4:
            end = match.end() - 1
            break
        blank = _BLANKS.match(text, match.end())
        if blank is None:
            break
        position = blank.end()
    return end
