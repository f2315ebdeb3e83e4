"""Stop strings and characters that tokens cut in two."""

from __future__ import annotations

import random

import pytest

from agent.engines.stops import Release


def show(pieces: list[bytes], stop: tuple[str, ...] = ()) -> tuple[list[str], Release]:
    release = Release(stop)
    shown = [release.feed(piece) for piece in pieces]
    return [*shown, release.flush()], release


def test_characters_wait_until_they_are_whole() -> None:
    shown, release = show([b"a\xe2", b"\x82", b"\xacb"])
    assert shown == ["a", "", "€b", ""]
    assert release.released == 5


def test_an_unfinished_character_ends_as_a_replacement() -> None:
    assert show([b"a", b"\xf0\x9f"])[0] == ["a", "", "�"]


def test_bytes_that_are_no_text_become_replacements() -> None:
    assert "".join(show([b"\xff", b"a", b"\xc3", b"("])[0]) == "�a�("


def test_a_stop_string_across_tokens_is_never_shown() -> None:
    shown, release = show([b"one ", b"EN", b"D two"], ("END",))
    assert shown == ["one ", "", "", ""]
    assert release.stopped
    assert release.released == 4


def test_text_that_only_looks_like_a_stop_string_comes_late_but_whole() -> None:
    shown, release = show([b"E", b"N", b"E", b"ND!"], ("END?",))
    assert "".join(shown) == "ENEND!"
    assert not release.stopped


def test_the_earliest_of_several_stop_strings_counts() -> None:
    assert "".join(show([b"abcXYdefZ"], ("Z", "XY"))[0]) == "abc"


def test_a_stop_string_may_cut_nothing_of_a_character() -> None:
    assert "".join(show([b"caf\xc3", b"\xa9 \xe2\x82", b"\xac"], ("€",))[0]) == "café "


def test_what_was_held_back_comes_at_the_end() -> None:
    assert show([b"abcEN"], ("END",))[0] == ["abc", "EN"]


@pytest.mark.parametrize("seed", range(40))
def test_any_cut_shows_what_one_piece_shows(seed: int) -> None:
    pick = random.Random(seed)
    text = "".join(pick.choice("ab€é😀 ") for _ in range(40))
    stops = tuple("".join(pick.choice("ab€é") for _ in range(pick.randint(1, 4))) for _ in range(pick.randint(0, 3)))
    data = text.encode()
    cuts = sorted(pick.sample(range(1, len(data)), 12))
    pieces = [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    places = [place for stop in stops if (place := text.find(stop)) >= 0]
    expected = text[: min(places)] if places else text
    shown, release = show(pieces, stops)
    assert "".join(shown) == expected
    assert release.stopped == bool(places)
    assert release.released == len(expected.encode())
