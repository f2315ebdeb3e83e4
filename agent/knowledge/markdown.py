"""From Markdown (or plain text) to chunks (pure): `chunks_of` is the door.

The text is cut into blocks (headings, paragraphs, lists, tables, code), every block into sentences with what they need
to be understood alone, and the blocks of one section are joined or split into chunks:

- a chunk never crosses a heading, so each has one heading path; a bold label that opens a paragraph ("**Food.** The
  tearoom ...") counts as a heading of that paragraph;
- blocks are joined while the chunk is short (JOIN_BELOW), so that a one-line paragraph is not lost among the vectors;
  two paragraphs that are long enough by themselves stay two chunks;
- a block over SPLIT_OVER is split between its sentences; the parts of a table repeat its header;
- a code block stays whole;
- what is longer than any writer means it (a log on one line, a cell of a megabyte) is cut at white space (LONGEST).

Only what shapes search is understood; inline markup stays in the verbatim text and is taken out of the search text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from agent.knowledge import sentences
from agent.knowledge.chunks import HEADING_SEPARATOR, Chunk, Sentence

JOIN_BELOW = 350
"""Characters under which a chunk takes in the next block of its section."""
SPLIT_OVER = 1600
"""Characters over which a block is split; an embedding model reads about 256 word pieces."""
LONGEST = 4 * SPLIT_OVER
"""Characters of a chunk, and of what is quoted of it, that are not passed; its headings end at SPLIT_OVER."""
DEEPEST = 8
"""Levels of a list above an item that are told with it."""
LONG_ITEM = 320
"""Characters over which a list item is quoted by the sentence instead of whole."""

_HEADING = re.compile(r"\s{0,3}(#{1,6})\s+(.*?)\s*#*\s*$")
_EMPTY_HEADING = re.compile(r"\s{0,3}#{1,6}\s*$")
_UNDERLINE = re.compile(r"\s{0,3}(=+|-+)\s*$")
_FENCE = re.compile(r"\s*(```+|~~~+)")
_RULE = re.compile(r"\s{0,3}([-*_])(\s*\1){2,}\s*$")
_ITEM = re.compile(r"(?P<indent>\s*)(?P<mark>[-*+•–◦▪]|\d{1,3}[.)]|[a-zA-Z]\))\s+(?=\S)")
_DELIMITER = re.compile(r"\s*\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)*\|?\s*$")
_BOLD_LINE = re.compile(r"\s*(\*\*|__)(?P<text>[^*_]{2,80})\1:?\s*$")
_RUN_IN = re.compile(r"\s*(\*\*|__)(?P<text>[^*_\n]{2,60})(?:[.:?]\1|\1[.:])(?=\s+\S)")
_LABELLED = re.compile(r"\s*(\*\*|__)?[^\W\d_][^:.!?\n]{0,40}:(\*\*|__)?\s+\S")
_CELL_BORDER = re.compile(r"(?<!\\)\|")
_LINK = re.compile(r"!?\[([^\]\n]*)\]\([^)\s]*(?:\s+\"[^\"]*\")?\)")
_EMPHASIS = re.compile(r"(\*{1,3}|_{1,3}|~~|`+)(?=\S)(.+?)(?<=\S)\1", re.DOTALL)
_QUOTE_MARK = re.compile(r"^[ \t]*(>[ \t]?)+", re.MULTILINE)
_SPACES = re.compile(r"\s+")


def chunks_of(title: str, text: str) -> tuple[Chunk, ...]:
    """The chunks of a document in order; a text without a word gives none. Line ends are made ``\\n`` first."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    title = title.strip() or _own_title(text) or "Untitled"
    return tuple(piece for section in _sections(title, text) for chunk in _pack(section) for piece in _bounded(chunk))


def _own_title(text: str) -> str:
    """What a text that begins with a heading of the first level calls itself."""
    lines = text.lstrip("\n").split("\n", 2)
    heading = _heading(lines, 0)
    return heading[1] if heading is not None and heading[0] == 1 else ""


def plain(text: str) -> str:
    """``text`` on one line without inline Markdown."""
    text = _QUOTE_MARK.sub("", text)
    text = _LINK.sub(r"\1", text)
    for _ in range(2):
        text = _EMPHASIS.sub(r"\2", text)
    return _SPACES.sub(" ", text.replace("\\|", "|")).strip()


@dataclass(slots=True)
class _Block:
    """Pieces are (verbatim lines, sentences in them) that must not be torn apart; ``head`` is repeated before each
    part of a split table."""

    pieces: list[tuple[str, list[Sentence]]]
    head: str = ""

    @property
    def size(self) -> int:
        return sum(len(text) for text, _ in self.pieces)


@dataclass(slots=True)
class _Section:
    heading: str
    blocks: list[_Block] = field(default_factory=list)


# ---------------------------------------------------------------- blocks


def _sections(title: str, text: str) -> list[_Section]:
    path: list[tuple[int, str]] = []
    section = _Section(title)
    found = [section]
    lead = ""
    lines = text.split("\n")
    at = 0
    while at < len(lines):
        heading = _heading(lines, at)
        if heading is not None:
            level, name, taken = heading
            path = [part for part in path if part[0] < level]
            if level > 1 or name.casefold() != title.casefold():
                path.append((level, name))
            section = _Section(HEADING_SEPARATOR.join([title, *(part[1] for part in path)]))
            found.append(section)
            at += taken
            lead = ""
            continue
        if not lines[at].strip() or _RULE.match(lines[at]) or _EMPTY_HEADING.match(lines[at]):
            at += 1
            continue
        label = _RUN_IN.match(lines[at])
        heading_path = section.heading
        block, at, lead = _block(lines, at, lead)
        if label:
            found.append(_Section(f"{heading_path}{HEADING_SEPARATOR}{plain(label['text'])}", [block]))
            section = _Section(heading_path)
            found.append(section)
        else:
            section.blocks.append(block)
    return [section for section in found if section.blocks]


def _heading(lines: list[str], at: int) -> tuple[int, str, int] | None:
    """Level, name and number of lines of the heading that starts at this line, if one does."""
    line = lines[at]
    if (match := _HEADING.match(line)) and match[2]:
        return len(match[1]), plain(match[2]), 1
    alone = at == 0 or not lines[at - 1].strip()
    if alone and line.strip() and not line.startswith(("    ", "\t")) and not _ITEM.match(line) and "|" not in line:
        below = lines[at + 1] if at + 1 < len(lines) else ""
        sentence = line.rstrip()[-1] in ".!?"  # with a rule right below it, which is no heading
        if _UNDERLINE.match(below) and len(below.strip()) >= 3 and not sentence:
            return (1 if "=" in below else 2), plain(line), 2
        if (match := _BOLD_LINE.match(line)) and not below.strip() and match["text"].strip()[-1] not in ".!?":
            return 7, plain(match["text"]).rstrip(":"), 1
    return None


def _block(lines: list[str], at: int, lead: str) -> tuple[_Block, int, str]:
    """The block that starts at this line, the line after it, and the lead-in that it gives to a list after it."""
    line = lines[at]
    if _FENCE.match(line):
        block, at = _code(lines, at)
        return block, at, ""
    if _is_table(lines, at):
        block, at = _table(lines, at)
        return block, at, ""
    if _ITEM.match(line):
        block, at = _list(lines, at, lead)
        return block, at, ""
    return _paragraph(lines, at)


def _starts_block(lines: list[str], at: int) -> bool:
    """Whether this line ends a paragraph by starting something else."""
    line = lines[at]
    return bool(
        not line.strip()
        or _HEADING.match(line)
        or _FENCE.match(line)
        or _RULE.match(line)
        or _EMPTY_HEADING.match(line)
        or _opens_list(line)
        or _is_table(lines, at)
    )


def _opens_list(line: str) -> bool:
    """Whether a line starts a list in the middle of a paragraph: a number only if it is the first ("CO\\n2. This")."""
    match = _ITEM.match(line)
    return match is not None and (not match["mark"][0].isalnum() or match["mark"].rstrip(".)") in ("1", "a", "A"))


def _paragraph(lines: list[str], at: int) -> tuple[_Block, int, str]:
    end = at + 1
    while end < len(lines) and not _starts_block(lines, end):
        end += 1
    taken = lines[at:end]
    pieces = [(text, [_sentence(text)]) for part in _hard_lines(taken) for text in _spoken(part)]
    last = pieces[-1][0] if pieces else ""
    return _Block(pieces), end, last if last.endswith((":", ":**", ":*", ":__")) else ""


def _hard_lines(lines: list[str]) -> list[str]:
    """The lines of a paragraph, joined unless the writer broke them on purpose: by Markdown's two spaces or backslash,
    or because every line is a ``Label: value``."""
    if len(lines) > 1 and all(_LABELLED.match(line) for line in lines):
        return lines
    parts: list[list[str]] = [[]]
    for line in lines:
        parts[-1].append(line)
        if line.endswith(("  ", "\\")):
            parts.append([])
    return ["\n".join(part) for part in parts if part]


def _spoken(part: str) -> list[str]:
    """The sentences of a piece of prose; a label and a question stay with the sentence that they introduce ("Changing
    planes? Then the limit is five hours.")."""
    found: list[str] = []
    start: int | None = None
    spans = sentences.spans(part)
    for index, (left, right) in enumerate(spans):
        start = left if start is None else start
        opens = part[left:right].rstrip("*_\"'”’)").endswith("?") or _is_label(part[left:right])
        if opens and index + 1 < len(spans) and right - start < LONG_ITEM:
            continue
        found.append(part[start:right])
        start = None
    return found


def _is_label(text: str) -> bool:
    match = _RUN_IN.match(f"{text} .")
    return match is not None and match.end() == len(text)


def _sentence(text: str) -> Sentence:
    return Sentence(text, plain(text) or text)


def _code(lines: list[str], at: int) -> tuple[_Block, int]:
    match = _FENCE.match(lines[at])
    fence = match[1] if match else "```"
    end = at + 1
    while end < len(lines) and not lines[end].strip().startswith(fence):
        end += 1
    end = min(end + 1, len(lines))
    text = "\n".join(lines[at:end]).strip()
    inside = "\n".join(line for line in lines[at + 1 : end] if not _FENCE.match(line)).strip()
    return _Block([(text, [Sentence(text, inside, "code")] if inside else [])]), end


# ---------------------------------------------------------------- lists


def _list(lines: list[str], at: int, lead: str) -> tuple[_Block, int]:
    """A list with its nested items; an item's parents and the list's lead-in are its lead."""
    pieces: list[tuple[str, list[Sentence]]] = []
    parents: list[tuple[int, str]] = []
    while at < len(lines):
        match = _ITEM.match(lines[at])
        if match is None or _RULE.match(lines[at]):
            break
        end = _item_end(lines, at, len(match.group()))
        text = "\n".join(lines[at:end]).rstrip()
        indent = len(match["indent"].expandtabs(4))
        parents = [parent for parent in parents if parent[0] < indent]
        near = [parent[1] for parent in parents[-DEEPEST:]]
        above = [lead, *near] if lead else near
        pieces.append((text, _item(text, above)))
        parents.append((indent, text.strip()))
        at = end
        while at < len(lines) - 1 and not lines[at].strip() and _ITEM.match(lines[at + 1]):
            at += 1
    return _Block(pieces), at


def _item_end(lines: list[str], at: int, indent: int) -> int:
    """The line after an item: its lazy continuation lines belong to it, and indented ones after an empty line."""
    end = at + 1
    while end < len(lines):
        if not lines[end].strip():
            below = lines[end + 1] if end + 1 < len(lines) else ""
            if not below.strip() or len(below) - len(below.lstrip()) < min(indent, 2) or _ITEM.match(below):
                break
        elif _ITEM.match(lines[end]) or (_starts_block(lines, end) and not lines[end].startswith("    ")):
            break
        end += 1
    return end


def _item(text: str, above: list[str]) -> list[Sentence]:
    text = text.strip()
    bare = _ITEM.sub("", text, count=1)
    before = " ".join(plain(_ITEM.sub("", line, count=1)) for line in above)
    lead = "\n".join(above)
    parts = [text] if lead else [bare]
    if len(bare) > LONG_ITEM:
        parts = sentences.split(bare)
        lead = ""
    found = []
    for part in parts:
        words = plain(_ITEM.sub("", part, count=1) if part is text else part)
        found.append(Sentence(part, f"{before} {words}".strip(), "item", lead))
    return found


# ---------------------------------------------------------------- tables


def _is_table(lines: list[str], at: int) -> bool:
    return (
        "|" in lines[at]
        and at + 1 < len(lines)
        and "|" in lines[at + 1]
        and "-" in lines[at + 1]
        and bool(_DELIMITER.match(lines[at + 1]))
    )


def _table(lines: list[str], at: int) -> tuple[_Block, int]:
    names = _cells(lines[at])
    head = f"{lines[at].strip()}\n{lines[at + 1].strip()}"
    end = at + 2
    pieces: list[tuple[str, list[Sentence]]] = []
    while end < len(lines) and "|" in lines[end] and not _HEADING.match(lines[end]):
        row = lines[end].strip()
        cells = _cells(row)
        named = [
            f"{names[column]}: {cell}" if column < len(names) and names[column] else cell
            for column, cell in enumerate(cells)
            if cell
        ]
        pieces.append((row, [Sentence(row, "; ".join(named), "row", head)] if named else []))
        end += 1
    if not pieces:
        words = "; ".join(name for name in names if name)
        return _Block([(head, [Sentence(head, words, "row")] if words else [])]), end
    return _Block(pieces, head), end


def _cells(line: str) -> list[str]:
    line = line.strip()
    inner = line[1:] if line.startswith("|") else line
    inner = inner[:-1] if inner.endswith("|") and not inner.endswith("\\|") else inner
    return [plain(cell) for cell in _CELL_BORDER.split(inner)]


# ---------------------------------------------------------------- packing


def _pack(section: _Section) -> Iterator[Chunk]:
    """Join short blocks and split long ones; the blocks of a list with its lead-in join because a lead-in is short."""
    texts: list[str] = []
    held: list[Sentence] = []
    for block in section.blocks:
        for part, found in _split(block):
            size = sum(len(text) for text in texts)
            if (texts and size >= JOIN_BELOW) or size + len(part) > SPLIT_OVER:
                if texts:
                    yield Chunk(section.heading, "\n\n".join(texts), tuple(held))
                texts, held = [], []
            texts.append(part)
            held.extend(found)
    if texts and held:
        yield Chunk(section.heading, "\n\n".join(texts), tuple(held))


def _bounded(chunk: Chunk) -> Iterator[Chunk]:
    """The chunk as it is, or what is too long of it as prose in pieces of SPLIT_OVER."""
    heading = chunk.heading[:SPLIT_OVER]
    longest = max(len(text) for sentence in chunk.sentences for text in (sentence.quoted, sentence.search))
    if len(chunk.text) <= LONGEST and longest <= LONGEST:
        yield Chunk(heading, chunk.text, chunk.sentences)
        return
    text, at = chunk.text, 0
    while at < len(text):
        end = at + SPLIT_OVER
        if end < len(text) and (space := text.rfind(" ", at + 1, end + 1)) > 0:
            end = space
        part = text[at:end].strip()
        at = end
        if found := tuple(_sentence(piece) for piece in sentences.split(part)):
            yield Chunk(heading, part, found)


def _split(block: _Block) -> Iterator[tuple[str, list[Sentence]]]:
    """The block as one part, or as several under SPLIT_OVER where it is longer."""
    lines: list[str] = []
    held: list[Sentence] = []
    size = 0
    for text, found in block.pieces:
        if lines and size + len(text) > SPLIT_OVER:
            yield _joined(block, lines, held), held
            lines, held, size = [], [], 0
        lines.append(text)
        held.extend(found)
        size += len(text)
    if lines:
        yield _joined(block, lines, held), held


def _joined(block: _Block, lines: list[str], held: list[Sentence]) -> str:
    prose = all(sentence.kind == "sentence" for sentence in held)
    text = (" " if prose else "\n").join(lines)
    return f"{block.head}\n{text}" if block.head else text
