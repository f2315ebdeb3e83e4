"""Numbers that identify a person or a machine, told from other numbers by their check digits (pure).

Accounts (IBAN), cards (Luhn with the issuers' prefixes and lengths), IP addresses, and identity, tax and insurance
numbers of a few countries. Schemes whose check digit lets every tenth number pass also want a word before them that
says what they are; after such a word a number is taken though its check digit is wrong: people mistype.

What a number looks like in a sentence is said here; whether it is valid says python-stdnum, but for four schemes that
it does not have, or not like this. Its modules are loaded with the first text that has something of their form, which
most questions have not.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from typing import Final, Literal

Kind = Literal["EMAIL", "PHONE", "IBAN", "CARD", "IP", "ID", "NAME", "PLACE", "BIRTH", "TEXT"]
"""What a placeholder says about the value; TEXT is what only looks like a placeholder."""


@dataclass(frozen=True, slots=True)
class Span:
    start: int
    end: int
    kind: Kind


def ibans(text: str) -> Iterator[Span]:
    """Account numbers of every country that has them, in any case, with blanks, dots or hyphens between."""
    for start in _IBAN_START.finditer(text):
        length = _iban_length(start[1].upper())
        end = _reach(text, start.start(), length) if length else None
        if end is None:
            continue
        digits = _bare(text[start.start() : end]).upper()
        named = re.search(r"(?i)\biban\b", text[max(0, start.start() - 20) : start.start()])
        if named or _by_library("iso7064.mod_97_10")(digits[4:] + digits[:4]):
            yield Span(start.start(), end, "IBAN")


def cards(text: str) -> Iterator[Span]:
    """Payment cards: issuer's prefix, its length, Luhn; any 13 to 19 digits right after a word for card."""
    for run in _DIGIT_RUN.finditer(text):
        groups = [(m.start() + run.start(), m.end() + run.start()) for m in re.finditer(r"\d+", run[0])]
        named = bool(_CARD_WORD.search(text[max(0, run.start() - 30) : run.start()]))
        first = 0
        while first < len(groups):
            for last in range(min(len(groups), first + 19), first, -1):
                start, end = groups[first][0], groups[last - 1][1]
                digits = _bare(text[start:end])
                if 13 <= len(digits) <= 19 and (named or (_issued(digits) and _by_library("luhn")(digits))):
                    yield Span(start, end, "CARD")
                    first = last - 1
                    break
            first += 1


def addresses(text: str) -> Iterator[Span]:
    """IPv4 and IPv6 addresses, with a prefix length or zone where there is one; no loopback, no version numbers."""
    for match in _IPV4.finditer(text):
        if _VERSION.search(text[max(0, match.start() - 24) : match.start()]):
            continue
        if _is_foreign(match[1]):
            yield Span(match.start(), match.end(), "IP")
    for match in _IPV6.finditer(text):
        bare = match[1].rstrip(".") if not match[1].endswith("::") else match[1]
        bare = bare[:-1] if bare.endswith(":") and not bare.endswith("::") else bare
        groups = [group for group in bare.split(":") if group]
        if bare.count(":") < 2 or (len(groups) < 3 and not re.search("[A-Fa-f]", bare)) or not _is_foreign(bare):
            continue
        end = match.end() if bare == match[1] else match.start() + len(bare)
        yield Span(match.start(), end, "IP")


def identities(text: str) -> Iterator[Span]:
    """Identity, tax and insurance numbers."""
    for pattern, valid in _SCHEMES:
        for match in pattern.finditer(text):
            if valid(match[0].upper()):
                yield Span(match.start(), match.end(), "ID")
    for match in _NAMED_ID.finditer(text):
        digits = sum(char.isdigit() for char in match[1])
        if digits >= 5 or (digits >= 2 and len(match[1]) >= 8 and match[1].isupper()):
            yield Span(match.start(1), match.end(1), "ID")


@lru_cache(maxsize=64)
def _by_library(scheme: str) -> Callable[[str], bool]:
    """python-stdnum's check of a scheme, by its module's name."""
    valid: Callable[[str], bool] = import_module(f"stdnum.{scheme}").is_valid
    return valid


# ---------------------------------------------------------------- accounts, cards, addresses

_SEPARATORS: Final = " .-\u00a0\u202f"
_IBAN_START: Final = re.compile(r"(?<![^\W_])([A-Za-z]{2})[ .\u00a0\u202f-]?[0-9]{2}")
_DIGIT_RUN: Final = re.compile(r"(?<![0-9A-Za-z])[0-9]+(?:[ .\u00a0\u202f/-]{1,2}[0-9]+)*(?![0-9])")
_CARD_WORD: Final = re.compile(
    r"(?i)\b(?:(?:credit|debit|bank|kredit|giro|ec|maestro|visa|amex|master|discover)[ -]?)?"
    r"(?:cards?|karten?|kartennummer|visa|amex|mastercard|maestro|discover)"
    r"(?:[ -]?(?:number|no\.?|nr\.?|nummer))?[\s:#]*(?:is\b|ist\b|lautet\b|my\b|:)?\s*$"
)
_IPV4: Final = re.compile(r"(?<![0-9A-Za-z.])((?:[0-9]{1,3}\.){3}[0-9]{1,3})(?:/[0-9]{1,2})?(?![0-9A-Za-z]|\.[0-9])")
_IPV6: Final = re.compile(r"(?<![0-9A-Za-z:.])([0-9A-Fa-f:]{2,39}(?:[0-9]{1,3}(?:\.[0-9]{1,3}){3})?)"
                          r"(?:%[\w.-]{1,15})?(?:/[0-9]{1,3})?(?![0-9A-Za-z])")  # fmt: skip
_VERSION: Final = re.compile(r"(?i)\b(?:version|firmware|release|build|v|ver|update)[\s.:]*$")


def _reach(text: str, start: int, length: int) -> int | None:
    """The end of ``length`` letters and digits with at most two separators between, None where a word ends before or
    goes on behind."""
    position, left, gap = start, length, 0
    while left and position < len(text):
        char = text[position]
        if char.isascii() and char.isalnum():
            left, gap = left - 1, 0
        elif char in _SEPARATORS and gap < 2:
            gap += 1
        else:
            return None
        position += 1
    goes_on = position < len(text) and text[position].isalnum()
    return None if left or goes_on else position


def _bare(text: str) -> str:
    return "".join(char for char in text if char.isascii() and char.isalnum())


@lru_cache(maxsize=1024)
def _iban_length(country: str) -> int | None:
    """Letters and digits of an account number of this country; None where it has none."""
    from stdnum import numdb

    about = numdb.get("iban").info(country)[0][1]
    return 4 + sum(map(int, re.findall(r"[0-9]+", about["bban"]))) if about else None


def _issued(digits: str) -> bool:
    """Whether a card issuer gives out numbers that begin like this and have this length."""
    size, two, three, four = len(digits), int(digits[:2]), int(digits[:3]), int(digits[:4])
    if digits[0] == "4":
        return size in (16, 19)
    if 51 <= two <= 55 or 2221 <= four <= 2720:
        return size == 16
    if two in (34, 37):
        return size == 15
    if two in (36, 38, 39) or 300 <= three <= 305:
        return 14 <= size <= 19
    if 3528 <= four <= 3589:
        return 16 <= size <= 19
    return size >= 16 and (two in (50, 56, 57, 58) or digits[0] == "6")


def _is_foreign(address: str) -> bool:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    return not (found.is_loopback or found.is_unspecified or address.startswith("255.255."))


# ---------------------------------------------------------------- identity numbers


def _british_insurance(id: str) -> bool:
    return id[:2] not in ("BG", "GB", "KN", "NK", "NT", "TN", "ZZ")


def _american(id: str) -> bool:
    """Without the library's list of specimens: somebody may have one of them typed."""
    return id[:3] not in ("000", "666") and id[0] != "9" and id[3:5] != "00" and id[5:] != "0000"


def _german_pension(id: str) -> bool:
    digits = f"{id[:8]}{ord(id[8]) - 64:02d}{id[9:11]}"
    products = [int(digit) * weight for digit, weight in zip(digits, (2, 1, 2, 5, 7, 1, 2, 1, 2, 1, 2, 1), strict=True)]
    return sum(product // 10 + product % 10 for product in products) % 10 == int(id[11])


def _german_card(id: str) -> bool:
    return (
        sum(char.isdigit() for char in id) >= 2
        and sum(int(char, 36) * (7, 3, 1)[place % 3] for place, char in enumerate(id[:9])) % 10 == int(id[9])
    )  # fmt: skip


def _scheme(pattern: str, valid: str | Callable[[str], bool]) -> tuple[re.Pattern[str], Callable[[str], bool]]:
    """``valid``: a check of letters and digits in upper case, or the module of python-stdnum that has one."""
    form = re.compile(rf"(?<![0-9A-Za-z])(?:{pattern})(?![0-9A-Za-z])", re.ASCII)
    if isinstance(valid, str):
        return form, lambda number: _by_library(valid)(number)
    return form, lambda number: valid(re.sub(r"[^0-9A-Z]", "", number))


_SCHEMES: Final = (
    _scheme(r"(?i:[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] ?[0-9]{2} ?[0-9]{2} ?[0-9]{2} ?[A-D])", _british_insurance),
    _scheme(r"[0-9]{3}-[0-9]{2}-[0-9]{4}", _american),
    _scheme(r"[0-9]{2} ?[0-9]{3} ?[0-9]{3} ?[0-9]{3}", "de.idnr"),
    _scheme(r"[0-9]{2} ?[0-9]{6} ?[A-Za-z] ?[0-9]{3}", _german_pension),
    _scheme(r"[CFGHJKLMNPRTVWXYZ][0-9CFGHJKLMNPRTVWXYZ]{8}[0-9]", _german_card),
    _scheme(r"[0-9]{8}[ -]?[A-Z]", "es.dni"),
    _scheme(r"[XYZ][ -]?[0-9]{7}[ -]?[A-Z]", "es.nie"),
    _scheme(r"[12] ?[0-9]{2} ?[0-9]{2} ?[0-9][0-9AB] ?[0-9]{3} ?[0-9]{3} ?[0-9]{2}", "fr.nir"),
    _scheme(r"(?i:[A-Z]{6}[0-9]{2}[A-EHLMPRST][0-9]{2}[A-Z][0-9]{3}[A-Z])", "it.codicefiscale"),
    _scheme(r"[0-9]{2}\.?[0-9]{2}\.?[0-9]{2}[ -]?[0-9]{3}\.?[0-9]{2}", "be.nn"),
    _scheme(r"[0-9]{11}", "pl.pesel"),
    _scheme(r"(?:[0-9]{2})?[0-9]{6}[-+][0-9]{4}", "se.personnummer"),
    _scheme(r"756\.?[0-9]{4}\.?[0-9]{4}\.?[0-9]{2}", "ch.ssn"),
    _scheme(r"[0-9]{4} [0-9]{6}", "at.vnr"),
    _scheme(r"[0-9]{6}[-+A][0-9]{3}[0-9A-FHJ-NPR-Y]", "fi.hetu"),
    _scheme(r"[0-9]{3}\.[0-9]{3}\.[0-9]{3}-[0-9]{2}", "br.cpf"),
)
_NAMED_ID: Final = re.compile(
    r"\b(?:nhs|national insurance|ni (?:number|no)|nino|ssn|social security|passport|reisepass|personalausweis\w*|perso"
    r"|ausweis(?:nummer|-?nr)?|steuer-?id\w*|steuer-?id-?nr|id-?nr|steueridentifikationsnummer|steuernummer"
    r"|sozialversicherung\w*|sv-?(?:nummer|nr)|rentenversicherung\w*|versicherungsnummer|krankenversicher\w*|ahv(?:-?nr)?"
    r"|identity card|dni|nie|codice fiscale|pesel|bsn|burgerservicenummer|rijksregister\w*|personnummer|pnr|hetu|cpf"
    r"|nir|insee"
    r"|num[eé]ro de s[eé]cu\w*|driving licence|driver'?s licen[sc]e|f[üu]hrerschein\w*|id (?:card|number|no))\b"
    r"[\s.:#=()-]{0,3}(?:(?:number|no|nummer|nr|card|id|is|ist|lautet|my|meine|idnr|idno|it's)\b[\s.:#=()-]{0,3}){0,4}"
    r"((?:[A-Za-z]{0,6}[0-9][0-9A-Za-z]*|[A-Za-z](?=[ ./-]?[0-9]))"
    r"(?:[ ./-]?(?:[0-9][0-9A-Za-z]*|[A-Z](?![A-Za-z]))){0,9})",
    re.IGNORECASE,
)
