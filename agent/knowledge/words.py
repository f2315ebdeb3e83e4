"""The words of a question and of a sentence, made comparable (pure).

Visitors and venues use different words for the same thing ("How much is it for kids?", "Admission for children").
Three plain means bring them together: a light stemmer, groups of words that mean the same to a visitor, and tolerance
of one typing error in longer words. All of it is English and about visits in general, nothing about one venue.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

_WORD = re.compile(r"[^\W_]+(?:['’][^\W\d_]+)?|[£$€]")
_POSSESSIVE = re.compile(r"['’](s|re|ve|ll|d|m|t)?$")

STOPWORDS = frozenset(
    "a an the and or but if of to in on at by for with from as into onto over about than then that this these those "
    "there here it its it's is are was were be been being am do does did doing done have has had having can could "
    "will would shall should may might must need i me my mine we us our ours you your yours u ur he him his she her "
    "hers they them their theirs who whom whose which what when where why how not no nor yes so too very just only "
    "also please thanks thank hello hi hey excuse sorry good morning afternoon evening tell know want wanted like "
    "would'd wish get got getting go going gone come coming came take taking make made give given let some any "
    "anything something someone anyone somebody anybody one ones much many more most lot lots bit while during "
    "until till after before again still ever never always really actually exactly possible possibly possibility ok "
    "okay alright fine allowed allow permitted mind bother wonder wondering question ask help because since up down "
    "out off own other another there's what's where's when's how's who's i'm i'd i've i'll we're we'd we've we'll "
    "you're don't doesn't didn't can't cannot won't isn't aren't wasn't today now right moment currently whether "
    "each every all both such same thing things way find see look long far old big pls plz whats wheres hows dont "
    "cant im ive id".split()
)
"""Words that say how something is asked, not what; among them those that agent/knowledge/asked.py reads."""

_IRREGULAR = dict(
    pair.split(":")
    for pair in (
        "children:child men:man women:woman people:person feet:foot teeth:tooth mice:mouse geese:goose wives:wife "
        "knives:knife halves:half leaves:leave paid:pay bought:buy sold:sell lost:lose kept:keep held:hold "
        "built:build lent:lend sent:send met:meet won:win began:begin begun:begin swam:swim swum:swim drove:drive "
        "driven:drive ate:eat eaten:eat broke:break broken:break stole:steal stolen:steal forgot:forget "
        "forgotten:forget rode:ride ridden:ride flew:fly flown:fly slept:sleep fed:feed led:lead ran:run "
        "shown:show worn:wear wore:wear written:write wrote:write spoken:speak spoke:speak taught:teach "
        "caught:catch brought:bring found:find told:tell made:make entrance:enter entry:enter admitted:admission "
        "admit:admission programme:program theatre:theater centre:center metre:meter licence:license grey:gray "
        "tyre:tire storey:story cheque:check"
    ).split()
)
_GROUPS = """
price cost fee charge pay paid fare rate tariff cheap expensive payment money amount
free complimentary gratis included nothing charge
open opening hour unlock access
close closing shut closed shuts lock
child kid son daughter boy girl toddler youngster under-fives yo young pupil
baby infant newborn toddler babies months
adult grown-up grownup grown-ups grown
senior pensioner retired elderly oap old-age grandma grandmother grandfather grandpa grandparent
student apprentice university
pupil school class
discount reduction reduced concession concessionary less off reductions cheaper saving save
bike bicycle cycle cyclist cycling e-bike
car vehicle drive driving motorist auto van
motorbike motorcycle scooter
park parking carpark permit
dog puppy pet hound
cat pet animal
animal pet wildlife
wheelchair step-free accessible disabled disability mobility accessibility ramp level handicapped rollator walker
lift elevator stairlift
stair step staircase stairs steps
pram buggy pushchair stroller
toilet loo restroom wc bathroom lavatory washroom
nappy diaper changing
eat food meal cafe café restaurant lunch dinner snack breakfast dining tearoom canteen bistro
food eat meal hungry cook kitchen bite supper kiosk
drink beverage coffee tea beer wine alcohol thirsty bar bottle
breakfast egg porridge morning
bread roll bakery
photo photograph picture camera photography film filming video snap selfie shoot
wifi wi-fi internet wlan online network
password code pin
locker bag luggage suitcase backpack rucksack baggage case
cloakroom coat wardrobe jacket umbrella
lost forgot forgotten mislaid found property missing behind
left forgot forgotten overnight behind lost
ticket admission entry entrance pass admit admitted
book reserve reservation booking booked prebook advance
cancel refund refunded refunds cancellation money-back back
exchange swap change switch move rebook
phone telephone call ring mobile number hotline
email e-mail mail
address postcode satnav located location
bus coach shuttle
train rail railway station
tram metro subway underground
taxi cab
boat ferry ship sailing vessel crossing voyage trip
plane flight fly airport aircraft
rent hire borrow loan lend lent rental hired rented
begin start beginning
last final latest end
first earliest begin
finish end over
vegetarian vegan veggie meat-free
halal kosher
allergy allergic allergen gluten nut
smoke smoking vape vaping cigarette
pool swimming-pool
swim swimming swimmer bathing bathe
lifeguard watching supervised supervision
doctor physician gp
medical first-aid defibrillator emergency nurse ambulance injured hurt accident unwell
cash coin note notes
card contactless credit debit
atm cashpoint withdraw
tour guide guided
group party class
member membership
annual yearly season year
accompany companion carer escort accompanied
guide-dog assistance service-dog blind
deaf hearing loop sign-language headset audio
rain wet weather storm wind snow pouring bucketing umbrella
picnic sandwich
gift souvenir shop present store buy sell sold
voucher gift-card token
feed fed feeding food eat
allow permit permitted forbidden ban banned prohibited
job vacancy volunteer work career hiring
quiet silent calm peaceful noise noisy
busy crowded queue queueing wait waiting full line
leave depart departure checkout check-out go
arrive arrival checkin check-in ready come
stolen nicked steal theft thief pickpocket police
marriage wedding marry married hitched bride groom
birth born newborn baby register
id identification passport identity
map plan leaflet brochure
heat warm temperature cold degrees heated dress
interval intermission break pause
shoe boot footwear skate skates size
tent pitch camping camp
hut cabin pod lodge chalet
hookup hook-up electricity power electric amp socket plug
campfire fire bonfire barbecue bbq grill
duvet bedding sheet linen pillow blanket
towel bathrobe
shower wash bathing
dry dryer drier tumble
laundry washing launderette
stay remain overnight
collect pick fetch pickup pick-up
bring carry take transport
gate barrier
clothes clothing dress wear outfit shorts beachwear trousers attire
sofa furniture couch bulky
rubbish trash garbage waste litter bin
learn lesson course class beginner
sharpen blade
wake woken sleep nap
sit seat seated sitting
watch spectator see view
walk foot footpath pedestrian hiker walking
mother father parent mum dad guardian
husband wife partner somebody
limit maximum max most capacity biggest largest
minimum least smallest
drone fly flying
licence license permit
renew renewal replace replacement
fine penalty
tall height high
heavy weight load kilo
far distance away
fast quick express hurry urgent
weekend saturday sunday
holiday bank christmas easter
noon lunchtime midday
evening night late
morning early
charge charging charger
print printer copy photocopy
computer pc laptop
meet meeting conference
hospital clinic ward
appointment book
medicine prescription pharmacy
visit visitor visiting
patient
newspaper magazine
fish angling fishing
boat canoe kayak rowing
climb hill slope steep
language interpreter translation translated
cashier till desk counter
reception desk
floor storey level
exit out
platform track
"""


def tokens(text: str) -> list[str]:
    """The words of ``text`` in lower case, possessives cut."""
    return [_POSSESSIVE.sub("", match.group().lower()) for match in _WORD.finditer(text)]


@lru_cache(maxsize=8192)
def stem(word: str) -> str:
    """A crude common form: plural, -ing, -ed, -er, -ly endings and British spelling go."""
    word = _IRREGULAR.get(word, word)
    if len(word) <= 3 or not word.isalpha():
        return word
    for ending, put in (("ies", "y"), ("sses", "ss"), ("xes", "x"), ("ches", "ch"), ("shes", "sh"), ("zes", "z")):
        if word.endswith(ending):
            word = word[: -len(ending)] + put
            break
    else:
        if word.endswith("s") and not word.endswith(("ss", "us", "is")):
            word = word[:-1]
    word = _IRREGULAR.get(word, word)
    for ending in ("ingly", "edly", "ing", "ed", "ly", "ment", "er", "or", "ance"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            word = word[: -len(ending)]
            if len(word) > 3 and word[-1] == word[-2] and word[-1] not in "lsz":
                word = word[:-1]
            break
    if word.endswith("e") and len(word) > 3:
        word = word[:-1]
    if word.endswith("y"):
        word = word[:-1] + "i"
    return word.replace("ise", "ize").replace("our", "or")


def stems(text: str) -> frozenset[str]:
    """Stems of every word of ``text``, stop words included."""
    return frozenset(stem(word) for word in tokens(text))


def content_words(question: str) -> tuple[str, ...]:
    """The words that say what a question is about, in order, each once; numbers are left to `agent.knowledge.asked`."""
    words = [corrected(word) for word in tokens(question) if word not in STOPWORDS and (len(word) > 1 or word in "£$€")]
    return tuple(dict.fromkeys(word for word in words if not word.isdigit()))


@lru_cache(maxsize=1)
def _synonyms() -> dict[str, frozenset[str]]:
    table: dict[str, set[str]] = {}
    for line in _GROUPS.strip().splitlines():
        group = {stem(word) for entry in line.split() for word in (entry, *entry.split("-")) if len(word) > 2}
        for word in group:
            table.setdefault(word, set()).update(group)
    return {word: frozenset(group - {word}) for word, group in table.items()}


@lru_cache(maxsize=4096)
def corrected(word: str) -> str:
    """A longer word that is no visitor word itself but one missing, doubled or swapped letter away from one becomes
    that one ("pasport"); any other comes back as it is."""
    if len(word) < 6 or word in STOPWORDS or stem(word) in _synonyms():
        return word
    for known in _known_words():
        if len(known) >= 6 and known[0] == word[0] and _slipped(word, known):
            return known
    return word


def correct(text: str) -> str:
    """``text`` with such slips mended; everything else stays as it was typed."""
    return _WORD.sub(lambda match: _kept_case(match.group()), text)


def _kept_case(word: str) -> str:
    mended = corrected(word.lower())
    return word if mended == word.lower() else mended


@lru_cache(maxsize=1)
def _known_words() -> tuple[str, ...]:
    return tuple(dict.fromkeys(word for word in _GROUPS.split() if word.isalpha()))


def _slipped(left: str, right: str) -> bool:
    """Whether a letter was left out, put in, or swapped with its neighbour; a different letter is another word."""
    if abs(len(left) - len(right)) == 1:
        return _one_edit(*sorted((left, right), key=len))
    return len(left) == len(right) and sorted(left) == sorted(right) and _one_edit(left, right)


def synonyms(stemmed: str) -> frozenset[str]:
    """Stems that mean about the same to a visitor."""
    return _synonyms().get(stemmed, frozenset())


def expanded(question: str) -> str:
    """The question's content words and every spelling of their synonyms, for a search that knows no meaning."""
    found = content_words(question)
    more = [known for word in found for known in _spellings().get(stem(word), ())]
    return " ".join(dict.fromkeys([*found, *more])) or question


@lru_cache(maxsize=1)
def _spellings() -> dict[str, tuple[str, ...]]:
    table: dict[str, list[str]] = {}
    for line in _GROUPS.strip().splitlines():
        group = line.split()
        for word in group:
            table.setdefault(stem(word), []).extend(group)
    return {word: tuple(dict.fromkeys(group)) for word, group in table.items()}


def match(stemmed: str, among: Iterable[str]) -> float:
    """How well a question's stem is found among a sentence's: 1 itself, .8 a synonym or a compound that begins with it,
    .7 a spelling one edit away, 0 not."""
    return max((likeness(stemmed, other) for other in among), default=0.0)


@lru_cache(maxsize=65536)
def likeness(stemmed: str, other: str) -> float:
    """`match` for one word."""
    if stemmed == other:
        return 1.0
    if other in synonyms(stemmed):
        return 0.8
    return _near(stemmed, other) if len(stemmed) >= 4 and len(other) >= 4 else 0.0


def _near(left: str, right: str) -> float:
    if left[0] != right[0]:
        return 0.0
    shorter, longer = sorted((left, right), key=len)
    if len(shorter) >= 4 and longer.startswith(shorter) and len(longer) - len(shorter) <= 5:
        return 0.8
    if len(shorter) >= 5 and len(longer) - len(shorter) <= 1 and _one_edit(shorter, longer):
        return 0.7
    return 0.0


def _one_edit(shorter: str, longer: str) -> bool:
    """Whether one insertion, substitution or swap of neighbours makes one of the other."""
    at = next((i for i, (a, b) in enumerate(zip(shorter, longer, strict=False)) if a != b), len(shorter))
    if len(shorter) < len(longer):
        return shorter[at:] == longer[at + 1 :]
    if shorter[at + 1 :] == longer[at + 1 :]:
        return True
    return shorter[at : at + 2] == longer[at : at + 2][::-1] and shorter[at + 2 :] == longer[at + 2 :]


def vocabulary(texts: Iterable[str]) -> dict[str, int]:
    """In how many of the texts each stem occurs."""
    counts: dict[str, int] = {}
    for text in texts:
        for word in stems(text):
            counts[word] = counts.get(word, 0) + 1
    return counts
