"""What a question asks for, which words mean the same, and which sentences are quoted."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.knowledge import asked, quotes, words
from agent.knowledge.chunks import StoredSentence
from agent.knowledge.markdown import chunks_of
from agent.paths import shipped

PAGES = {page.name: page.read_text(encoding="utf-8") for page in sorted(
    [*shipped("models", "reference", "demo", "documents").glob("*.md"),
     *shipped("models", "reference", "natural-dev", "pages").glob("*.md")]
)}  # fmt: skip


def stored(text: str, document: str = "doc", dim: int = 0) -> list[StoredSentence]:
    """The sentences of a page; with ``dim`` they get random unit vectors."""
    rng = np.random.default_rng(1)
    found = []
    for number, chunk in enumerate(chunks_of("Title", text)):
        for position, sentence in enumerate(chunk.sentences):
            vectors = [None] * 3
            if dim:
                drawn = rng.normal(size=(3, dim)).astype(np.float32)
                vectors = list(drawn / np.linalg.norm(drawn, axis=1, keepdims=True))
            found.append(StoredSentence(document, "Title", chunk.heading, number, position, sentence, *vectors))
    return found


# ---------------------------------------------------------------- what is asked


@pytest.mark.parametrize(
    ("question", "kinds"),
    [
        ("How much is a ticket?", {"price"}),
        ("parking fee", {"price"}),
        ("what time do you close", {"time"}),
        ("When does the season begin?", {"time", "day"}),
        ("How long does it take?", {"duration"}),
        ("how many seats are there", {"count"}),
        ("how heavy may a suitcase be", {"weight"}),
        ("Where can I leave my coat?", {"place"}),
        ("which number do I ring", {"contact"}),
        ("Can I bring my dog?", {"yesno"}),
        ("is there anything for a 9 year old", {"yesno", "age"}),
        ("why is the gallery shut", {"why", "time"}),
        ("soup", set()),
    ],
)
def test_kinds_asked(question, kinds):
    assert asked.kinds_asked(question) == kinds


@pytest.mark.parametrize(
    ("text", "kind", "held"),
    [
        ("Adults pay 21.00.", "price", True),
        ("Adults pay 21.00.", "time", False),
        ("Open from 10.30 until 15.00.", "time", True),
        ("Open from 10.30 until 15.00.", "price", False),
        ("Entry is free.", "price", True),
        ("We lock it at five.", "time", True),
        ("Ring 01632 960 311.", "contact", True),
        ("Write to us.", "contact", False),
        ("It takes about four weeks.", "duration", True),
        ("The toilets are beside the lift.", "place", True),
        ("Dogs are welcome.", "yesno", True),
    ],
)
def test_kinds_held(text, kind, held):
    assert (kind in asked.kinds_held(text)) is held


def test_days_months_and_times():
    assert asked.conditions("Tuesday to Sunday, except Mondays in May").days == frozenset(range(7))
    assert asked.conditions("Fri-Mon").days == {4, 5, 6, 0}
    assert asked.conditions("on weekdays").days == {0, 1, 2, 3, 4}
    assert asked.conditions("November to February").months == {10, 11, 0, 1}
    assert asked.conditions("mid May to end of September").months == {8} | asked.conditions("May to August").months
    assert not asked.conditions("Dogs may come in").months
    assert not asked.conditions("may we march in?", question=True).months - {2}
    assert asked.conditions("flying my drone in may", question=True).months == {4}
    assert asked.conditions("the half past seven boat").moments == asked.conditions("leaves at 19:30").moments
    assert asked.conditions("daily from nine").every_day


@pytest.mark.parametrize(
    ("question", "sentence"),
    [
        ("kids", "Admission for children"),
        ("prams", "Leave your pushchair here"),
        ("closing", "We are closed"),
        ("pasport", "Bring a passport"),
        ("girafe", "The giraffes eat at noon"),
        ("loo", "The toilets are downstairs"),
        ("bicycles", "Cyclists pay nothing"),
        ("licence", "Driving licenses"),
    ],
)
def test_visitors_words_meet_the_venues_words(question, sentence):
    (word,) = words.content_words(question)
    assert words.match(words.stem(word), words.stems(sentence)) >= 0.7


@pytest.mark.parametrize(
    ("question", "sentence"), [("tiger", "The tired keeper"), ("boats", "boots"), ("coat", "cost")]
)
def test_other_words_do_not_meet(question, sentence):
    assert words.match(words.stem(question), words.stems(sentence)) == 0


def test_typing_errors_are_mended_and_nothing_else():
    assert words.correct("Do I need my pasport for the Tower?") == "Do I need my passport for the Tower?"
    assert words.correct("towers, carriers and stables") == "towers, carriers and stables"


# ---------------------------------------------------------------- quoting

VENUE = """
## Opening hours

We open at 9 a.m. and close at 5 p.m. from Tuesday to Sunday. We are closed on Mondays.

In July the garden stays open until dusk.

## Prices

| Ticket | Price |
|---|---|
| Adult | £9.00 |
| Child | £4.50 |

## Dogs

Not allowed inside:

- dogs, except guide dogs
- balloons
"""


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("How much does a child pay?", "| Child | £4.50 |"),
        ("Can I bring my dog?", "- dogs, except guide dogs"),
        ("open on monday?", "We are closed on Mondays."),
        ("when do you close", "close at 5 p.m."),
        ("garden in july", "until dusk"),
    ],
)
def test_keywords_alone_find_plain_answers(question, expected):
    found = quotes.candidates(question, stored(VENUE))
    assert expected in found[0].text
    assert found[0].similarity is None
    assert found[0].keyword > 0


def test_rows_come_with_their_header_and_items_with_their_lead_in():
    assert quotes.candidates("price for a child", stored(VENUE))[0].text.startswith("| Ticket | Price |\n|---|---|\n| ")
    assert quotes.candidates("can I bring my dog", stored(VENUE))[0].text.startswith("Not allowed inside:\n- dogs")
    assert quotes.candidates("price for a child", stored(VENUE))[0].heading == "Title > Prices"


def test_kind_and_condition_are_reported():
    best = quotes.candidates("how much is it for adults", stored(VENUE))[0]
    assert best.kind_match is True
    assert quotes.candidates("dusk garden", stored(VENUE))[0].kind_match is None
    missed = quotes.candidates("is the garden open in december", stored(VENUE))[0]
    assert missed.signals["condition_missed"] == 1.0
    assert quotes.candidates("garden open in july", stored(VENUE))[0].signals["condition_met"] == 1.0


def test_no_sentences_no_quotes():
    assert quotes.candidates("anything", ()) == ()


QUESTIONS = [
    "how much for kids",
    "when do you open on sunday",
    "can I bring my dog",
    "where are the toilets",
    "???",
    "",
]


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("dim", [0, 32])
def test_quotes_are_verbatim_short_and_do_not_overlap(name, dim):
    text = PAGES[name]
    vector = np.ones(32, dtype=np.float32) / np.sqrt(np.float32(32)) if dim else None
    sentences = stored(text, dim=dim)
    flat = " ".join(text.split())
    for question in QUESTIONS:
        found = quotes.candidates(question, sentences, vector)
        assert 1 <= len(found) <= quotes.MAX_QUOTES
        lines = [" ".join(line.split()) for quote in found for line in quote.text.split("\n")]
        assert all(line in flat for line in lines)
        bodies = [line for line in lines if not line.startswith("|") and not line.endswith(":")]
        assert len(bodies) == len(set(bodies)), "two quotes share a sentence"
        scores = [quote.score for quote in found]
        assert all(0 <= score <= 1.0001 for score in scores)
        assert all(np.isfinite(value) for quote in found for value in quote.signals.values())


@settings(deadline=None)
@given(st.text(max_size=60))
def test_any_question_can_be_asked(question):
    assert quotes.candidates(question, stored(VENUE))
    quotes.probe_words(question)
    words.correct(question)


def test_a_sentence_without_vectors_among_others_does_no_harm():
    mixed = [*stored(VENUE, "a", dim=32), *stored(VENUE, "b")]
    assert quotes.candidates("price for a child", mixed, np.ones(32, dtype=np.float32) / np.sqrt(np.float32(32)))


def test_speed():
    """At most 5 ms for 50 sentences on a quiet machine; a busy one may take several times that."""
    sentences = [one for text in PAGES.values() for one in stored(text, dim=384)][:50]
    vector = np.ones(384, dtype=np.float32) / np.sqrt(np.float32(384))
    questions = [f"how much is a ticket for {n} children on sunday at noon" for n in range(30)]
    times = []
    for question in questions:
        probes = dict.fromkeys(quotes.probe_words(question), vector)
        started = time.perf_counter()
        quotes.candidates(question, sentences, vector, probes)
        times.append(time.perf_counter() - started)
    assert min(times) < 0.005
