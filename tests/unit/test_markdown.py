"""From Markdown to chunks, on the demo's and other real documents and on small texts with one construct each."""

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.knowledge.chunks import with_heading
from agent.knowledge.markdown import LONGEST, SPLIT_OVER, chunks_of, plain
from agent.paths import shipped

PAGES = [
    *sorted(shipped("models", "reference", "demo", "documents").glob("*.md")),
    *sorted(shipped("models", "reference", "natural-dev", "pages").glob("*.md")),
]
NOT_TEXT = re.compile(r"\s*(#{1,6} .*|\|?[\s:|-]*|[-*_ ]*)$")


def sentences_of(text, title="Title"):
    return [sentence for chunk in chunks_of(title, text) for sentence in chunk.sentences]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_real_pages_lose_nothing_and_quote_verbatim(page):
    text = page.read_text(encoding="utf-8")
    chunks = chunks_of("Title", text)
    held = re.sub(r"\s+", " ", " ".join([*(chunk.heading + " " + chunk.text for chunk in chunks)]))
    for line in text.splitlines():
        if not NOT_TEXT.match(line):
            words = plain(re.sub(r"^\s*([-*+]|\d+\.)\s+", "", line))
            assert words in plain(held) or re.sub(r"\s+", " ", line.strip()) in held, line
    for chunk in chunks:
        assert chunk.heading.startswith("Title")
        assert chunk.sentences
        for sentence in chunk.sentences:
            assert sentence.text in text
            assert all(line in text for line in sentence.lead.split("\n"))
            assert sentence.text in chunk.text
            assert sentence.search.strip()


def test_wikipedia_paragraphs_stay_one_chunk_each(shared_data):
    articles = json.loads((shared_data / "xquad" / "xquad.en.dev.json").read_text())["data"]
    paragraphs = [paragraph for article in articles for paragraph in article["paragraphs"]]
    split_up = cut_answers = answers = 0
    for paragraph in paragraphs:
        chunks = chunks_of("Article", paragraph["context"])
        split_up += len(chunks) > 1
        assert len(chunks) == 1 or len(paragraph["context"]) > SPLIT_OVER
        found = [sentence.text for chunk in chunks for sentence in chunk.sentences]
        assert all(sentence in paragraph["context"] for sentence in found)
        for question in paragraph["qas"]:
            answers += 1
            cut_answers += not any(question["answers"][0]["text"] in sentence for sentence in found)
    assert split_up <= 5
    assert cut_answers <= answers / 100, "sentence borders inside answers"


def test_headings_make_a_path():
    chunks = chunks_of("Museum", "Intro.\n\n# Museum\n\n## Hours\n\nNine.\n\n### Easter\n\nTen.\n\n## Shop\n\nEleven.")
    assert [chunk.heading for chunk in chunks] == [
        "Museum", "Museum > Hours", "Museum > Hours > Easter", "Museum > Shop",
    ]  # fmt: skip
    assert with_heading("Museum > Hours > Easter", "Ten.") == "Hours: Easter: Ten."


@pytest.mark.parametrize(
    ("title", "text", "heading"),
    [
        ("", "\n# Guide\n\n## Lifts\n\nIn the hall.", "Guide > Lifts"),
        ("", "Guide\n=====\n\nIn the hall.", "Guide"),
        ("", "## Lifts\n\nIn the hall.", "Untitled > Lifts"),
        ("", "In the hall.", "Untitled"),
        ("House", "# Guide\n\nIn the hall.", "House > Guide"),
    ],
)
def test_a_text_without_a_title_is_called_what_it_calls_itself(title, text, heading):
    assert [chunk.heading for chunk in chunks_of(title, text)] == [heading]


def test_underlined_bold_and_run_in_headings():
    text = "Hours\n-----\n\nNine.\n\n**Tickets**\n\nFive.\n\n**Food.** Soup is served. It is hot."
    chunks = chunks_of("T", text)
    assert [chunk.heading for chunk in chunks] == ["T > Hours", "T > Hours > Tickets", "T > Hours > Tickets > Food"]
    assert [sentence.text for sentence in chunks[2].sentences] == ["**Food.** Soup is served.", "It is hot."]
    assert chunks[2].sentences[0].search == "Food. Soup is served."


def test_list_items_carry_their_lead_in():
    first, second, third, fourth = sentences_of("Allowed inside:\n\n- guide dogs\n- small bags\n  - no *wet* ones\n")
    assert first.search == "Allowed inside:"
    assert second.quoted == "Allowed inside:\n- guide dogs"
    assert second.search == "Allowed inside: guide dogs"
    assert third.kind == "item"
    assert fourth.search == "Allowed inside: small bags no wet ones"
    assert fourth.quoted == "Allowed inside:\n- small bags\n- no *wet* ones"


def test_a_list_without_lead_in_drops_its_bullets():
    assert [s.quoted for s in sentences_of("Some prose.\n\n* **Dogs:** no\n* Cats: yes")] == [
        "Some prose.", "**Dogs:** no", "Cats: yes",
    ]  # fmt: skip


def test_a_long_item_is_quoted_by_the_sentence():
    found = sentences_of("- " + "This is a sentence of an item that goes on. " * 10)
    assert len(found) == 10
    assert found[0].text == "This is a sentence of an item that goes on."


def test_table_rows_name_their_columns():
    table = "| Ticket | Price |\n|---|---:|\n| Adult | £9.00 |\n| Child | |\n| Family \\| group | £20 |\n"
    adult, child, family = sentences_of("Before.\n\n" + table)[1:]
    assert adult.search == "Ticket: Adult; Price: £9.00"
    assert adult.quoted == "| Ticket | Price |\n|---|---:|\n| Adult | £9.00 |"
    assert child.search == "Ticket: Child"
    assert family.search == "Ticket: Family | group; Price: £20"


def test_a_long_table_is_split_with_its_header():
    rows = "\n".join(f"| Animal number {n} | house {n} and some more words to fill the row |" for n in range(80))
    chunks = chunks_of("Zoo", f"| Animal | Place |\n|---|---|\n{rows}")
    assert len(chunks) > 2
    assert all(chunk.text.startswith("| Animal | Place |\n|---|---|\n") for chunk in chunks)
    assert sum(len(chunk.sentences) for chunk in chunks) == 80


def test_code_stays_whole():
    code = "```sh\n# not a heading\n- not a list\n\nls | wc\n```"
    (chunk,) = chunks_of("T", code)
    assert chunk.text == code
    assert [sentence.kind for sentence in chunk.sentences] == ["code"]


def test_a_question_stays_with_its_answer():
    assert [s.text for s in sentences_of("Changing planes? Then the limit is five hours. Enjoy it.")] == [
        "Changing planes? Then the limit is five hours.", "Enjoy it.",
    ]  # fmt: skip


def test_hard_line_breaks_and_labelled_lines_are_borders():
    assert [s.text for s in sentences_of("Address: Mill Street 2\nPhone: 01632 960 100")] == [
        "Address: Mill Street 2", "Phone: 01632 960 100",
    ]  # fmt: skip
    assert len(sentences_of("first line  \nsecond line")) == 2
    assert len(sentences_of("a line that is merely\nwrapped here")) == 1


def test_short_paragraphs_join_and_long_ones_split():
    assert len(chunks_of("T", "Short.\n\nShort too.")) == 1
    long = "This sentence is here to make the paragraph long. " * 80
    chunks = chunks_of("T", long)
    assert len(chunks) > 1
    assert all(len(chunk.text) <= SPLIT_OVER + 200 for chunk in chunks)
    assert sum(len(chunk.sentences) for chunk in chunks) == 80


def test_a_sentence_over_a_rule_is_no_heading():
    assert [s.text for s in sentences_of("We open at 9.\n----\n\nLifts\n----\nIn the hall.")] == [
        "We open at 9.", "In the hall.",
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["", "   \n\n", "#\n##\n", "---\n***\n"])
def test_nothing_gives_no_chunk(text):
    assert chunks_of("T", text) == ()


LINES = st.lists(
    st.sampled_from(
        ["# A", "## B", "text here.", "More: yes", "- item", "  - nested", "1. first", "| a | b |", "|---|---|",
         "```", "", "   ", "> quoted. Twice.", "**Bold**", "**Run.** in", "----", "====", "* star", "|", "a|b", "\ttab",
         "Q? A."]
    ),
    max_size=25,
)  # fmt: skip


@settings(deadline=None)
@given(LINES)
def test_any_mix_of_lines_is_chunked_without_loss(lines):
    text = "\n".join(lines)
    chunks = chunks_of("T", text)
    for chunk in chunks:
        for sentence in chunk.sentences:
            assert sentence.text in text
            assert sentence.search
    held = "\n".join(sentence.text + sentence.lead for chunk in chunks for sentence in chunk.sentences)
    for word in ("item", "nested", "first", "text here.", "tab"):
        assert held.count(word) >= (1 if word in text else 0)


@pytest.mark.parametrize(
    "text",
    [
        "word " * 200_000,
        "x" * 500_000,
        "字" * 500_000,
        "- " + "a b " * 200_000,
        "```\n" + "a b\n" * 200_000 + "```",
        "|a|b|\n|-|-|\n|c|" + "d " * 200_000 + "|",
        "# " + "h " * 200_000 + "\n\nText.",
        "\n".join("  " * depth + "- item" for depth in range(1000)),
    ],
    ids=["one line", "one word", "no spaces", "one item", "code", "one cell", "heading", "nested items"],
)
def test_nothing_that_is_found_or_quoted_is_longer_than_anybody_reads(text):
    chunks = chunks_of("T", text)
    assert chunks
    assert max(len(chunk.text) for chunk in chunks) <= LONGEST
    assert max(len(s) for chunk in chunks for one in chunk.sentences for s in (one.quoted, one.search)) <= LONGEST
    assert max(len(chunk.heading) for chunk in chunks) <= SPLIT_OVER
    assert "".join("".join(chunk.text for chunk in chunks).split()) in "".join(text.split())
