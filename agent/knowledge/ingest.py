"""Documents of any supported format to a title and Markdown text, inside a worker.

Files come from anybody: a PDF or DOCX parser may crash, loop or eat memory on a hostile one, so `DocumentEngine` runs
in a worker process of its own (the pool's deadline ends a loop) and every limit below is checked before the work that
it bounds. `extract` is the whole of it and can be called without a worker.

    .md .markdown   as it is; YAML front matter gives the title and goes
    .txt            as it is
    .html .htm      headings, paragraphs, lists, tables of the main content (BeautifulSoup, html.parser)
    .pdf            text by page (pypdf); a scan without a text layer is refused
    .docx           headings, paragraphs, lists, tables (python-docx)
    .jsonl          one ``{"id", "title", "text", "metadata"}`` a line: many documents, see `documents_of_jsonl`

Whatever cannot be read raises InvalidDocument (InputTooLarge over the size limit), naming the file and why.
"""

from __future__ import annotations

import codecs
import io
import json
import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from agent.engines.protocol import LoadSpec, Payload, SequentialEngine
from agent.errors import InputTooLarge, InvalidDocument, InvalidRequest
from agent.messages import Document

if TYPE_CHECKING:
    from bs4.element import Tag

MAX_BYTES = 20 * 1024 * 1024
MAX_PAGES = 2_000
MAX_CHARACTERS = 5_000_000
MAX_UNPACKED_BYTES = 200 * 1024 * 1024
"""What the members of a DOCX may unpack to; with MAX_RATIO the guard against zip bombs."""
MAX_RATIO = 200
FORMATS = (".md", ".markdown", ".txt", ".html", ".htm", ".pdf", ".docx", ".jsonl")

_TITLE_LENGTH = 200
_FRONT_MATTER = re.compile(r"\A---[ \t]*\n(.*?)\n---[ \t]*(?:\n|\Z)", re.DOTALL)
_FRONT_TITLE = re.compile(r"^title:[ \t]*(.+?)[ \t]*$", re.MULTILINE)
_FIRST_HEADING = re.compile(r"\A\s*#\s+(.+?)\s*#*\s*$", re.MULTILINE)
_BLANK_LINES = re.compile(r"\n{3,}")
_SPACES = re.compile(r"[ \t\xa0]+")
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f]")
_HTML_CHARSET = re.compile(rb"""<meta[^>]{0,200}charset\s*=\s*["']?\s*([\w.:-]{1,40})""", re.IGNORECASE)


class DocumentEngine(SequentialEngine):
    """The documents worker: op ``extract`` {"name", "data"} -> {"title", "text"}."""

    def load(self, spec: LoadSpec) -> Payload:
        """Nothing to load; the parsers are imported by the first document that needs them."""
        return {"formats": list(FORMATS)}

    def handle(self, op: str, payload: Payload) -> Payload:
        name, data = payload.get("name"), payload.get("data")
        if op != "extract" or not isinstance(name, str) or not isinstance(data, bytes):
            raise InvalidRequest(f"the documents worker does not understand {op!r} with {sorted(payload)}")
        title, text = extract(name, data)
        return {"title": title, "text": text}


def extract(name: str, data: bytes) -> tuple[str, str]:
    """Title and Markdown of one file; a ``.jsonl`` comes back as a document of its records' texts.

    Raises InvalidDocument, InputTooLarge.
    """
    suffix = PurePath(name).suffix.lower()
    read = _READERS.get(suffix)
    if read is None:
        raise InvalidDocument(
            f"{name}: files of type {suffix or 'without a suffix'} cannot be read",
            remedy=f"Give one of {', '.join(FORMATS)}.",
        )
    if len(data) > MAX_BYTES:
        raise InputTooLarge(
            f"{name} has {len(data) / 2**20:.1f} MiB, over the limit of {MAX_BYTES // 2**20} MiB for a document",
            remedy="Split it or take its pictures out.",
        )
    if not data.strip(b"\0 \t\r\n"):
        raise InvalidDocument(f"{name} is empty", remedy="Give a file with text in it.")
    title, text = read(name, data)
    text = _BLANK_LINES.sub("\n\n", _CONTROLS.sub("", text)).strip()
    if not any(character.isalnum() for character in text):
        raise InvalidDocument(f"{name} holds no text", remedy="Scanned pages need OCR before they can be searched.")
    if len(text) > MAX_CHARACTERS:
        raise _too_long(name)
    return title[:_TITLE_LENGTH].strip() or PurePath(name).stem, text


def documents_of_jsonl(name: str, data: bytes) -> tuple[Document, ...]:
    """The documents of a JSONL file. A record without an id gets ``<name>#<line>``.

    Raises InvalidDocument naming the line.
    """
    found = []
    for number, line in enumerate(_decode(name, data).splitlines(), start=1):
        if line.strip():
            found.append(_record(f"{name}, line {number}", f"{PurePath(name).stem}#{number}", line))
    if not found:
        raise InvalidDocument(f"{name} holds no record", remedy='Give one {"id", "title", "text"} object a line.')
    return tuple(found)


def _record(where: str, default_id: str, line: str) -> Document:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InvalidDocument(f"{where} is not valid JSON: {error}", remedy="Mend or remove that line.") from error
    if not isinstance(record, dict):
        raise InvalidDocument(f"{where} is not an object", remedy='Give {"id", "title", "text", "metadata"}.')
    text, title = record.get("text"), record.get("title", "")
    ident, metadata = record.get("id", default_id), record.get("metadata") or {}
    if not isinstance(text, str) or not text.strip() or not isinstance(title, str) or not isinstance(ident, str | int):
        raise InvalidDocument(f"{where} needs a non-empty text and a title that are strings, and an id")
    if not isinstance(metadata, dict) or not all(isinstance(value, str | int | float) for value in metadata.values()):
        raise InvalidDocument(f"{where}: metadata must be an object of strings, numbers and booleans")
    return Document(str(ident), title, text, metadata)


def _too_long(name: str) -> InvalidDocument:
    return InvalidDocument(f"{name} holds more than {MAX_CHARACTERS} characters of text", remedy="Split it.")


# ---------------------------------------------------------------- plain text, Markdown, JSONL


def _decode(name: str, data: bytes) -> str:
    """The text by its byte order mark, else as UTF-8. Nothing else is guessed: a wrong guess is served as an answer."""
    for mark, encoding in (
        (codecs.BOM_UTF8, "utf-8-sig"),
        (codecs.BOM_UTF32_LE, "utf-32"),
        (codecs.BOM_UTF32_BE, "utf-32"),
        (codecs.BOM_UTF16_LE, "utf-16"),
        (codecs.BOM_UTF16_BE, "utf-16"),
    ):
        if data.startswith(mark):
            return _decoded(name, data, encoding)
    if b"\0" in data:
        raise InvalidDocument(f"{name} is binary, not text", remedy=f"Give one of {', '.join(FORMATS)}.")
    return _decoded(name, data, "utf-8")


def _decoded(name: str, data: bytes, encoding: str) -> str:
    try:
        text = data.decode(encoding)
    except (UnicodeDecodeError, LookupError) as error:
        raise InvalidDocument(f"{name} is not {encoding} text: {error}", remedy="Save it as UTF-8.") from error
    controls = len(_CONTROLS.findall(text[:100_000]))
    if controls > 2 and controls > len(text[:100_000]) / 100:
        raise InvalidDocument(f"{name} is binary, not text", remedy=f"Give one of {', '.join(FORMATS)}.")
    return text


def _markdown(name: str, data: bytes) -> tuple[str, str]:
    text = _decode(name, data).replace("\r\n", "\n").replace("\r", "\n")
    title = ""
    if match := _FRONT_MATTER.match(text):
        text = text[match.end() :]
        found = _FRONT_TITLE.search(match[1])
        title = found[1].strip("\"'") if found else ""
    if not title and (heading := _FIRST_HEADING.search(text)):
        title = heading[1]
    return title, text


def _text(name: str, data: bytes) -> tuple[str, str]:
    return "", _decode(name, data)


def _jsonl(name: str, data: bytes) -> tuple[str, str]:
    parts = [f"# {record.title}\n\n{record.text}" for record in documents_of_jsonl(name, data)]
    return "", "\n\n".join(parts)


# ---------------------------------------------------------------- HTML


def _html(name: str, data: bytes) -> tuple[str, str]:
    from bs4 import BeautifulSoup, Tag
    from bs4.exceptions import ParserRejectedMarkup

    head = _HTML_CHARSET.search(data[:4096])
    if head and not data.startswith((codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        source = _decoded(name, data, head[1].decode("ascii", "replace"))
    else:
        source = _decode(name, data)
    try:
        soup = BeautifulSoup(source, "html.parser")
        title = soup.title.get_text(" ", strip=True) if soup.title else ""
        for dropped in soup(["script", "style", "noscript", "template", "svg", "nav", "iframe", "head"]):
            dropped.decompose()
        root = soup.find("main") or soup.find("article") or soup.body or soup
        first = root.find("h1") if isinstance(root, Tag) else None
        title = first.get_text(" ", strip=True) if first else title
        lines: list[str] = []
        if isinstance(root, Tag):
            _html_blocks(root, lines)
    except (ParserRejectedMarkup, RecursionError, AssertionError, ValueError) as error:
        raise InvalidDocument(f"{name} is not HTML that can be read: {error}") from error
    return _squeezed(title), "\n".join(lines)


_BLOCKS = frozenset(
    "p div section article main header footer aside address blockquote figure figcaption dl dd dt".split()
)


def _html_blocks(parent: Tag, lines: list[str]) -> None:
    """The children of ``parent`` as Markdown lines; runs of inline content become paragraphs."""
    from bs4.element import Comment, NavigableString, Tag

    inline: list[str] = []

    def flush() -> None:
        text = "  \n".join(_squeezed(line) for line in "".join(inline).split("\n"))
        if text.strip():
            lines.extend(["", text.strip(), ""])
        inline.clear()

    for child in parent.children:
        if isinstance(child, Comment):
            continue
        if isinstance(child, NavigableString):
            inline.append(re.sub(r"\s+", " ", str(child)))
        elif isinstance(child, Tag):
            if child.name == "br":
                inline.append("\n")
            elif _is_html_block(child):
                flush()
                _html_block(child, lines)
            else:
                inline.append(re.sub(r"\s+", " ", child.get_text(" ")))
    flush()


def _is_html_block(tag: Tag) -> bool:
    names = {"h1", "h2", "h3", "h4", "h5", "h6", "ul", "ol", "table", "pre", "hr", *_BLOCKS}
    return tag.name in names or tag.find(list(names)) is not None


def _html_block(tag: Tag, lines: list[str]) -> None:
    if re.fullmatch(r"h[1-6]", tag.name):
        lines.extend(["", f"{'#' * int(tag.name[1])} {_squeezed(tag.get_text(' '))}", ""])
    elif tag.name in ("ul", "ol"):
        lines.append("")
        _html_list(tag, lines, 0)
        lines.append("")
    elif tag.name == "table":
        rows = [[_squeezed(cell.get_text(" ")) for cell in row.find_all(["td", "th"])] for row in tag.find_all("tr")]
        lines.extend(["", *_markdown_table(rows), ""])
    elif tag.name == "pre":
        lines.extend(["", "```", tag.get_text().strip("\n"), "```", ""])
    elif tag.name != "hr":
        _html_blocks(tag, lines)


def _html_list(tag: Tag, lines: list[str], depth: int) -> None:
    for item in tag.find_all("li", recursive=False):
        nested = [child for child in item.find_all(["ul", "ol"]) if child.find_parent("li") is item]
        inner = [child.extract() for child in nested]
        lines.append(f"{'  ' * depth}- {_squeezed(item.get_text(' '))}")
        for child in inner:
            _html_list(child, lines, depth + 1)


def _markdown_table(rows: list[list[str]]) -> list[str]:
    """Markdown of a table whose first row names its columns; a single row or column is written as lines of text."""
    rows = [row for row in rows if any(row)]
    width = max((len(row) for row in rows), default=0)
    if len(rows) < 2 or width < 2:
        return [cell for row in rows for cell in row if cell]
    escaped = [[cell.replace("|", "\\|") for cell in row] + [""] * (width - len(row)) for row in rows]
    return [
        f"| {' | '.join(escaped[0])} |",
        f"|{'---|' * width}",
        *(f"| {' | '.join(row)} |" for row in escaped[1:]),
    ]


def _squeezed(text: str) -> str:
    return _SPACES.sub(" ", text.replace("\n", " ")).strip()


# ---------------------------------------------------------------- PDF


def _pdf(name: str, data: bytes) -> tuple[str, str]:
    import pypdf
    from pypdf.errors import PyPdfError

    if b"%PDF-" not in data[:1024]:
        raise InvalidDocument(f"{name} is not a PDF: it does not start with %PDF-")
    try:
        reader = pypdf.PdfReader(io.BytesIO(data), strict=False)
        if reader.is_encrypted and not reader.decrypt(""):
            raise InvalidDocument(f"{name} is protected by a password", remedy="Save it without one.")
        pages = len(reader.pages)
        if pages > MAX_PAGES:
            raise InvalidDocument(f"{name} has {pages} pages, over the limit of {MAX_PAGES}", remedy="Split it.")
        title = str((reader.metadata and reader.metadata.title) or "")
        parts: list[str] = []
        for page in reader.pages:
            parts.append(page.extract_text() or "")
            if sum(map(len, parts)) > MAX_CHARACTERS:
                raise _too_long(name)
    except InvalidDocument:
        raise
    except PyPdfError as error:
        raise InvalidDocument(f"{name} is a broken PDF: {error}", remedy="Save it again.") from error
    except Exception as error:  # the parser's boundary: pypdf lets any exception through on malformed objects
        raise InvalidDocument(f"{name} is a broken PDF: {type(error).__name__}: {error}") from error
    return title, "\n\n".join(_unwrapped(part) for part in parts)


def _unwrapped(page: str) -> str:
    """A page's lines as paragraphs: a line goes on where it is long and does not end a sentence."""
    lines = [_SPACES.sub(" ", line).strip() for line in page.splitlines()]
    usual = sorted(len(line) for line in lines if line)
    full = usual[int(len(usual) * 0.8)] * 0.75 if usual else 0
    out: list[str] = []
    joins = False
    for line in lines:
        bullet = re.match(r"[-•–▪◦*]\s*|\d{1,2}[.)]\s", line)
        if line and bullet and not line[0].isdigit():
            line = f"- {line[bullet.end() :]}"
        if joins and line and not bullet:
            previous = out.pop()
            line = (
                previous[:-1] + line if re.search(r"[a-z]-$", previous) and line[0].islower() else f"{previous} {line}"
            )
        elif out and out[-1] and not (bullet and out[-1].startswith("- ")):
            out.append("")
        out.append(line)
        joins = len(line.rsplit("\n", 1)[-1]) >= full and not line.endswith((".", "!", "?", ":")) and bool(line)
    return "\n".join(out)


# ---------------------------------------------------------------- DOCX


def _docx(name: str, data: bytes) -> tuple[str, str]:
    _check_archive(name, data)
    try:
        import docx

        document = docx.Document(io.BytesIO(data))
        lines: list[str] = []
        size = 0
        for line in _docx_lines(document):
            lines.append(line)
            size += len(line)
            if size > MAX_CHARACTERS:
                raise _too_long(name)
        title = str(document.core_properties.title or "")
    except InvalidDocument:
        raise
    except Exception as error:  # the parser's boundary: python-docx and lxml raise whatever a malformed part meets
        raise InvalidDocument(f"{name} is a broken DOCX: {type(error).__name__}: {error}") from error
    first = next((line[2:] for line in lines if line.startswith("# ")), "")
    return title or first, "\n".join(lines)


def _check_archive(name: str, data: bytes) -> None:
    """Refuse an archive by its declared sizes, before anything is unpacked; zipfile never gives more than declared."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError) as error:
        raise InvalidDocument(f"{name} is not a DOCX: {error}") from error
    unpacked = sum(member.file_size for member in members)
    packed = max(1, sum(member.compress_size for member in members))
    if unpacked > MAX_UNPACKED_BYTES or (unpacked > 2**22 and unpacked / packed > MAX_RATIO) or len(members) > 10_000:
        raise InvalidDocument(
            f"{name} would unpack from {len(data)} to {unpacked} bytes in {len(members)} parts",
            remedy="It looks like a zip bomb; save the document again without its pictures.",
        )
    if "word/document.xml" not in {member.filename for member in members}:
        raise InvalidDocument(f"{name} is an archive, but not a DOCX: it has no word/document.xml")


def _docx_lines(document: Any) -> Iterator[str]:
    from docx.table import Table

    for block in document.iter_inner_content():
        if isinstance(block, Table):
            rows = [[_squeezed(cell.text) for cell in row.cells] for row in block.rows]
            yield ""
            yield from _markdown_table(rows)
            yield ""
            continue
        text = block.text.strip()
        if not text:
            continue
        style = (block.style.name if block.style is not None else "") or ""
        if style == "Title":
            yield from ("", f"# {_squeezed(text)}", "")
        elif match := re.fullmatch(r"Heading (\d)", style):
            yield from ("", f"{'#' * min(6, int(match[1]))} {_squeezed(text)}", "")
        elif style.startswith("List") or (block._p.pPr is not None and block._p.pPr.numPr is not None):
            level = re.search(r"(\d)$", style)
            yield f"{'  ' * (int(level[1]) - 1 if level else 0)}- {_squeezed(text)}"
        else:
            yield from ("", text.replace("\n", "  \n"), "")


_READERS: dict[str, Callable[[str, bytes], tuple[str, str]]] = {
    ".md": _markdown,
    ".markdown": _markdown,
    ".txt": _text,
    ".html": _html,
    ".htm": _html,
    ".pdf": _pdf,
    ".docx": _docx,
    ".jsonl": _jsonl,
}
