"""Do two answers say the same: the values in them, yes and no, and the stated errors on labelled pairs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.confidence.agreement import FALSE_ALARM, MISS, agreement, alike, features
from agent.confidence.calibration import upper_bound
from agent.confidence.values import Value, extract

DATA = Path(__file__).resolve().parents[1] / "data" / "agreement"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("half past nine in the evening", "21:30"),
        ("quarter to eight in the evening", "19:45"),
        ("10 am", "10:00"),
        ("7 a.m.", "7:00"),
        ("two o'clock", "14:00"),
        ("9.30 p.m.", "21:30"),
        ("noon", "12:00"),
        ("midnight", "0:00"),
        ("three quarters of an hour", "45 minutes"),
        ("an hour and a half", "90 min"),
        ("a quarter of an hour", "15 minutes"),
        ("four weeks", "28 days"),
        ("£12.50", "12.50 pounds"),
        ("1,200 kr", "1200 kr"),
        ("a one-euro coin", "1 euro"),
        ("fourteen years", "14 years"),
        ("twenty-five metres", "25 metres"),
        ("four and a half", "4.5"),
        ("third floor", "3rd floor"),
        ("half price", "50 %"),
        ("12 July", "July 12th"),
        ("on Thursdays", "Thursday"),
        ("01632 960 123", "01632 960123"),
        ("office@a.example", "OFFICE@a.example"),
    ],
)
def test_the_same_value_in_other_words(one: str, other: str) -> None:
    values = extract(one)
    assert values
    assert len(values) == len(extract(other))
    assert all(any(value.meets(twin) for twin in extract(other)) for value in values)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("9:30", "9:45"), ("5 pm", "5 am"), ("5:30 pm", "16:30"), ("£12.50", "£12"), ("Monday", "Tuesday"),
        ("3 weeks", "3 days"), ("12 July", "12 June"), ("room B12", "room B21"), ("01632 960123", "01632 960132"),
        ("17:30", "17.5"),
    ],
)  # fmt: skip
def test_other_values(one: str, other: str) -> None:
    assert not all(any(value.meets(twin) for twin in extract(other)) for value in extract(one))


def test_words_that_are_no_values() -> None:
    assert extract("You may march to the one and only lake, if you are second to none") <= {Value("number", 2)}


@pytest.mark.parametrize(
    ("device", "cloud", "same"),
    [
        ("Dogs are not allowed.", "Yes, dogs are allowed.", False),
        ("No dogs except assistance dogs.", "No, only assistance dogs may come in.", True),
        ("Admission is free of charge.", "Yes, entry is free.", True),
        ("Admission: £4.", "Yes, entry is free.", False),
        ("The cafe serves cake.", "I don't know.", False),
        ("The cafe serves cake.", "The documents do not mention that.", False),
        ("", "At nine.", False),
        ("At nine.", " ", False),
    ],
)
def test_yes_and_no_and_not_knowing(device: str, cloud: str, same: bool) -> None:
    assert alike(device, cloud) is same


@given(st.text(max_size=300), st.text(alphabet="0123456789 .,:-()/hm past to half one at½٣", max_size=200))
def test_any_text_can_be_compared(device: str, cloud: str) -> None:
    assert 0.0 <= agreement(device, cloud) <= 1.0
    assert sum(value for name, value in features(device, cloud).items() if name.startswith("values_")) == 1.0


def test_the_stated_errors_are_those_of_the_labelled_pairs() -> None:
    rows = [json.loads(line) for line in (DATA / "measure.jsonl").read_text("utf-8").splitlines()]
    assert len(rows) >= 200
    for same, stated in ((True, FALSE_ALARM), (False, MISS)):
        mine = [row for row in rows if row["alike"] is same]
        wrong = sum(alike(row["device"], row["cloud"]) is not same for row in mine)
        assert stated - 0.002 < upper_bound(wrong, len(mine), 0.05) <= stated + 0.0005


def test_what_was_fitted_on_is_not_what_is_measured_on() -> None:
    tuned, measured = (
        {tuple(json.loads(line)[name] for name in ("device", "cloud")) for line in path.read_text("utf-8").splitlines()}
        for path in (DATA / "tune.jsonl", DATA / "measure.jsonl")
    )
    assert not tuned & measured
