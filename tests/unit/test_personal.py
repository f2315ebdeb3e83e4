"""Personal data: what is found on the labelled set, and that replacing and restoring are exact."""

from __future__ import annotations

import json
import re
from functools import reduce
from operator import add

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.errors import PrivacyFailed
from agent.escalation.personal import Finder, Pseudonyms, Restoration
from tests.benchmarks.personal import examples, finders, score

ADVERSARIAL = ("tuning", "held_out")


def pseudonyms(*texts: str, names: tuple[str, ...] = (), region: str = "GB") -> Pseudonyms:
    return Pseudonyms(Finder(names, (), region), texts)


# ---------------------------------------------------------------- finding


def test_the_labelled_set_is_found_and_little_else() -> None:
    result = reduce(add, map(score, ADVERSARIAL))
    assert result.labelled.total() >= 500
    assert result.recall >= 0.99, "\n".join(result.errors)
    assert result.precision >= 0.95, "\n".join(result.errors)


@pytest.mark.parametrize("name", ADVERSARIAL)
def test_every_labelled_text_comes_back_and_leaves_without_what_was_found(name: str) -> None:
    by_language = finders()
    for example in examples(name):
        given_out = Pseudonyms(by_language[example.language], [example.text])
        found = [example.text[span.start : span.end] for span in given_out.spans(example.text)]
        sent = given_out.replace(example.text)
        assert given_out.restoration.restore(sent) == example.text
        for value in found:
            assert not re.search(rf"(?<!\w){re.escape(value)}(?!\w)", sent), (value, sent)


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        ("Mail anna@example.org, or anna@example.org", "Mail [EMAIL_1], or [EMAIL_1]"),
        ("a@example.org or b@example.org", "[EMAIL_1] or [EMAIL_2]"),
        ("My name is Anna Kowalska. Anna with two n.", "My name is [NAME_1]. [NAME_2] with two n."),
        ("IBAN DE89 3704 0044 0532 0130 00, please", "IBAN [IBAN_1], please"),
        ("When do you open on 3 May?", "When do you open on 3 May?"),
        ("What is [NAME_1] for?", "What is [TEXT_1] for?"),
    ],
)
def test_what_leaves(text: str, sent: str) -> None:
    assert pseudonyms(text).replace(text) == sent


def test_a_wrong_check_digit_is_no_card_and_no_account() -> None:
    for text in ("code 4111 1111 1111 1112 there", "DE88 3704 0044 0532 0130 00", "tax 86095742718 for it"):
        assert pseudonyms(text).replace(text) == text


def test_a_name_said_once_is_replaced_everywhere() -> None:
    texts = ["hi, I'm Ludovica", "Is there a table for two? Ludovica's friend comes later.", "I told you: Ludovica!"]
    given_out = pseudonyms(*texts)
    sent = [given_out.replace(text) for text in texts]
    assert not any("Ludovica" in text for text in sent)
    assert len(given_out.restoration) == 1
    assert [given_out.restoration.restore(text) for text in sent] == texts


def test_names_on_the_list_are_found_in_any_case_and_without_accents() -> None:
    given_out = pseudonyms("SIOBHAN and Siobhán and siobhan", names=("Siobhán",))
    assert given_out.replace("SIOBHAN and Siobhán and siobhan") == "[NAME_1] and [NAME_2] and [NAME_3]"


def test_the_escapes_of_json_hide_nothing() -> None:
    arguments = '{"to": "j\\u00f6rg\\u0040example.org", "card": 4111111111111111, "count": 2, "ok": true, "x": [null]}'
    given_out = pseudonyms(arguments)
    sent = json.loads(given_out.replace_json(arguments))
    assert sent == {"to": "[EMAIL_1]", "card": "[CARD_1]", "count": 2, "ok": True, "x": [None]}
    assert given_out.restoration.restore(sent["to"]) == "jörg@example.org"
    assert given_out.replace_json("no json, anna@example.org") == "no json, [EMAIL_2]"


def test_json_that_is_too_deep_stays_at_home() -> None:
    deep = "[" * 100_000 + "]" * 100_000
    with pytest.raises(PrivacyFailed):
        pseudonyms("x").replace_json(deep)


def test_more_personal_data_than_placeholders_stays_at_home() -> None:
    text = " ".join(f"a{number}@example.org" for number in range(10_001))
    given_out = pseudonyms("")
    with pytest.raises(PrivacyFailed, match="placeholders"):
        given_out.replace(text)


# ---------------------------------------------------------------- restoring


VALUES = {"[NAME_1]": "Anna Kowalska", "[NAME_12]": "Ben", "[EMAIL_1]": "a_b@example.org", "[TEXT_1]": "[NAME_3]"}
BENT = (
    "[NAME_1]", "[name_1]", "[Name_1]", "[NAME\\_1]", "\\[NAME\\_1\\]", "\\[NAME_1\\]", "[NAME 1]", "%5BNAME_1%5D",
    "NAME_1",
    "NAME\\_1",
)  # fmt: skip


@pytest.mark.parametrize("form", BENT)
def test_bent_placeholders_are_restored(form: str) -> None:
    assert Restoration(VALUES).restore(f"Dear {form}, **{form}**!") == "Dear Anna Kowalska, **Anna Kowalska**!"


@pytest.mark.parametrize("text", ["[NAME_2]", "NAME_", "[NAME_1", "SURNAME_1", "NAME_1x", "[PHONE_1]", "[NAME_123456]"])
def test_what_was_never_given_stays(text: str) -> None:
    assert Restoration({"[EMAIL_1]": "x"} if text == "[NAME_1" else VALUES).restore(text) == text


def test_what_is_restored_is_not_restored_again() -> None:
    assert Restoration(VALUES).restore("[TEXT_1]") == "[NAME_3]"


def test_a_stream_lets_go_of_what_is_certain() -> None:
    stream = Restoration(VALUES).stream()
    assert stream.feed("Dear ") == "Dear "
    assert stream.feed("[NA") == ""
    assert stream.feed("ME_1") == ""
    assert stream.feed("2], hello") == "Ben, hello"
    assert stream.feed(" [a] [") == " [a] "
    assert stream.end() == "["


def test_restorations_travel_through_the_outbox() -> None:
    restoration = Restoration.load(Restoration(VALUES).dump())
    assert restoration.restore("[NAME_12]") == "Ben"
    for damaged in (b"", b"{", b"[]", b'{"a": 1}', b"\xff", b"[" * 100_000):
        with pytest.raises(PrivacyFailed):
            Restoration.load(damaged)


pieces = st.sampled_from(
    [
        "[",
        "]",
        "\\",
        "_",
        "NAME",
        "name",
        "EMAIL",
        "1",
        "12",
        "2",
        " ",
        "x",
        "%5B",
        "%5D",
        "[NAME_1]",
        "NAME_12",
        "Dear",
        "\n",
    ]
)


@settings(max_examples=400, deadline=None)
@given(st.lists(pieces, max_size=25), st.randoms(use_true_random=False))
def test_any_cutting_of_a_reply_restores_the_same(parts: list[str], cuts: object) -> None:
    text, restoration = "".join(parts), Restoration(VALUES)
    stream, out, position = restoration.stream(), [], 0
    while position < len(text):
        size = cuts.randint(1, 9)  # type: ignore[attr-defined]
        out.append(stream.feed(text[position : position + size]))
        position += size
    assert "".join([*out, stream.end()]) == restoration.restore(text)


given_away = st.sampled_from(
    ["anna@example.org", "07700 900123", "+49 30 23125 456", "DE89370400440532013000", "4111 1111 1111 1111",
     "192.0.2.7", "2001:db8::42", "my name is Anna Kowalska", "ich heiße Jörg", "Mr O'Neill", "geboren am 3.4.1950",
     "I live in Leeds", "943 476 5919", "NHS 943 476 5919", "AB123456C", "[NAME_1]", "EMAIL_2", "\\[NAME\\_1\\]",
     "Anna", "Leeds", "[", "]", "\\"]
)  # fmt: skip
texts = st.lists(
    st.one_of(given_away, st.text(max_size=12), st.sampled_from([" ", ", ", ". ", "\n", ""])), max_size=12
).map("".join)


@settings(max_examples=250, deadline=None)
@given(st.lists(texts, min_size=1, max_size=3))
def test_restoring_undoes_replacing(written: list[str]) -> None:
    given_out = pseudonyms(*written)
    sent = [given_out.replace(text) for text in written]
    restoration = given_out.restoration
    assert [restoration.restore(text) for text in sent] == written
    again = Restoration.load(restoration.dump())
    assert [again.restore(text) for text in sent] == written


@settings(max_examples=250, deadline=None)
@given(st.lists(texts, min_size=1, max_size=3))
def test_nothing_that_was_found_is_left(written: list[str]) -> None:
    given_out = pseudonyms(*written)
    found = {text[span.start : span.end] for text in written for span in given_out.spans(text)}
    for text in written:
        sent = re.sub(r"\[[A-Z]+_\d+\]", "\0", given_out.replace(text))
        for value in found:
            assert not re.search(rf"(?<!\w){re.escape(value)}(?!\w)", sent), (value, sent)
        assert given_out.spans(sent) == ()
