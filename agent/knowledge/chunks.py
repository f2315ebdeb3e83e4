"""What a document becomes: chunks (what search finds) made of sentences (what a quote serves).

A sentence is the smallest piece that can answer a question: a sentence of prose, one list item, one table row or one
whole code block. Two texts belong to it. ``text`` is verbatim from the document and is what a person gets to see;
``search`` is the same content worded for embedding and keyword search, because a bare list item ("Dogs: no") or a table
row ("| Adult | £9 |") means nothing without the words above it:

    kind       text                              lead                                   search
    sentence   The café opens at 9 a.m.          ""                                     The café opens at 9 a.m.
    item       - guide dogs                      Allowed inside:                        Allowed inside: guide dogs
    row        | Adult | £9.00 |                 | Ticket | Price |\\n|---|---|          Ticket: Adult; Price: £9.00
    code       ```\\n...\\n```                     ""                                     the lines inside

``lead`` is verbatim too: the paragraph that introduces the list, or the table's header lines. ``quoted`` puts both
together, which for a row is a small Markdown table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SentenceKind = Literal["sentence", "item", "row", "code"]

HEADING_SEPARATOR = " > "


@dataclass(frozen=True, slots=True)
class Sentence:
    """See the table above; ``text`` and ``lead`` are substrings of the chunk's document."""

    text: str
    search: str
    kind: SentenceKind = "sentence"
    lead: str = ""

    @property
    def quoted(self) -> str:
        """What a person gets to see: every line of it stands in the document."""
        return f"{self.lead}\n{self.text}" if self.lead else self.text


@dataclass(frozen=True, slots=True)
class Chunk:
    """A paragraph-sized piece of one section. ``heading`` is the path ``Title > H2 > H3`` (the title alone where the
    text has no headings); ``text`` is verbatim Markdown; ``sentences`` in document order."""

    heading: str
    text: str
    sentences: tuple[Sentence, ...]

    @property
    def search(self) -> str:
        """The words to embed and index for the chunk as a whole, without its heading."""
        return "\n".join(sentence.search for sentence in self.sentences)


@dataclass(frozen=True, slots=True, eq=False)
class StoredSentence:
    """A sentence as the index gives it back: where it stands (``chunk`` and ``position`` count from 0 within the
    document and within the chunk) and its unit vectors: of ``search`` alone, of `with_heading`, and of it together with
    the next sentence of its chunk; None where nothing embeds, the last also where no sentence follows."""

    document: str
    title: str
    heading: str
    chunk: int
    position: int
    sentence: Sentence
    vector: NDArray[np.float32] | None = None
    heading_vector: NDArray[np.float32] | None = None
    pair_vector: NDArray[np.float32] | None = None


def with_heading(heading: str, search: str) -> str:
    """A text with the two innermost headings before it: the second text that is embedded for a sentence, and the one
    that is embedded for a chunk."""
    return f"{': '.join(heading.split(HEADING_SEPARATOR)[-2:])}: {search}"
