"""Cutting prose into sentences: the rules by example, and what must hold for any text."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.knowledge import sentences

PROSE = st.text(alphabet="aBc .!?\n9”\")(*:,-Éß。…'", max_size=80)
WORDS = st.lists(
    st.sampled_from(
        "We open at 9 a.m. p.m. No. 5 St. Mary's e.g. i.e. Dr. Smith J. £3.50 1. 2. the The Open Dogs? Yes! etc. 10.30 "
        "Mon. Fri. (see below). “Really?” 24.12. ... — \n".split(" ")
    ),
    max_size=25,
).map(" ".join)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("We open at 9. Last entry is at 5.", ["We open at 9.", "Last entry is at 5."]),
        ("Open 9 a.m. to 5 p.m. daily. Closed at Easter.", ["Open 9 a.m. to 5 p.m. daily.", "Closed at Easter."]),
        ("We close at 5 p.m. The shop closes earlier.", ["We close at 5 p.m.", "The shop closes earlier."]),
        ("Open from 9 a.m. Monday to Friday.", ["Open from 9 a.m. Monday to Friday."]),
        ("Take bus No. 5 from Mill St. It costs £3.50.", ["Take bus No. 5 from Mill St.", "It costs £3.50."]),
        ("Are dogs allowed? No. Guide dogs are.", ["Are dogs allowed?", "No.", "Guide dogs are."]),
        ("We meet in St. Mary's church.", ["We meet in St. Mary's church."]),
        ("Ask Dr. J. Smith. He knows.", ["Ask Dr. J. Smith.", "He knows."]),
        ("Some items, e.g. Umbrellas, stay outside.", ["Some items, e.g. Umbrellas, stay outside."]),
        ("1. Buy a ticket. 2. Go in.", ["1. Buy a ticket.", "2. Go in."]),
        ("It was built in 1998. Then it burned.", ["It was built in 1998.", "Then it burned."]),
        ("Tickets cost 3.50 or 4.20 online.", ["Tickets cost 3.50 or 4.20 online."]),
        ('"Is it far?" "Ten minutes." Good.', ['"Is it far?"', '"Ten minutes."', "Good."]),
        ("Open Mon. to Fri. from 9.30.", ["Open Mon. to Fri. from 9.30."]),
        ("See example.org or ring 01632 960 100. Thanks!", ["See example.org or ring 01632 960 100.", "Thanks!"]),
        ("First paragraph\n\nsecond one", ["First paragraph", "second one"]),
        ("今日は休み。明日は開く。", ["今日は休み。", "明日は開く。"]),
        ("", []),
        (" \n ", []),
    ],
)
def test_rules(text, expected):
    assert sentences.split(text) == expected


@settings(deadline=None)
@given(PROSE | WORDS)
def test_nothing_is_lost_and_order_is_kept(text):
    at = 0
    for start, end in sentences.spans(text):
        assert start < end
        assert not text[at:start].strip(), "characters between two sentences"
        assert text[start:end] == text[start:end].strip()
        at = end
    assert not text[at:].strip(), "characters after the last sentence"


@settings(deadline=None)
@given(WORDS)
def test_decimal_numbers_and_times_stay_whole(text):
    for found in sentences.split(text):
        assert not found.startswith(("50", "30"))
