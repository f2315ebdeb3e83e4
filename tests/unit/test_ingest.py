"""Documents of every format to Markdown, and what is refused."""

import io
import json
import zipfile

import docx
import pytest

from agent.errors import InputTooLarge, InvalidDocument, InvalidRequest
from agent.knowledge import ingest
from agent.knowledge.ingest import DocumentEngine, documents_of_jsonl, extract
from agent.knowledge.markdown import chunks_of


def make_pdf(pages: list[list[str]]) -> bytes:
    """A small PDF with a text layer: one list of lines a page."""
    objects = [b"<< /Type /Catalog /Pages 2 0 R >>", b"", b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"]
    kids = []
    for lines in pages:
        body = "BT /F1 12 Tf 14 TL 72 770 Td " + " ".join(f"({line}) Tj T*" for line in lines) + " ET"
        stream = body.encode("latin-1")
        objects.append(b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream))
        objects.append(
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents %d 0 R"
            b" /Resources << /Font << /F1 3 0 R >> >> >>" % len(objects)
        )
        kids.append(b"%d 0 R" % len(objects))
    objects[1] = b"<< /Type /Pages /Count %d /Kids [%s] >>" % (len(kids), b" ".join(kids))
    out = io.BytesIO(b"%PDF-1.4\n")
    out.seek(0, io.SEEK_END)
    places = []
    for number, content in enumerate(objects, start=1):
        places.append(out.tell())
        out.write(b"%d 0 obj\n%s\nendobj\n" % (number, content))
    start = out.tell()
    out.write(b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1))
    out.write(b"".join(b"%010d 00000 n \n" % place for place in places))
    out.write(b"trailer << /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, start))
    return out.getvalue()


def make_docx() -> bytes:
    document = docx.Document()
    document.add_heading("Old Mill", 0)
    document.add_heading("Prices", 1)
    document.add_paragraph("Children pay half.")
    document.add_paragraph("guide dogs", style="List Bullet")
    document.add_paragraph("small bags", style="List Bullet 2")
    table = document.add_table(2, 2)
    for row, cells in zip(table.rows, [("Ticket", "Price"), ("Adult", "9 | 10")], strict=True):
        for cell, text in zip(row.cells, cells, strict=True):
            cell.text = text
    out = io.BytesIO()
    document.save(out)
    return out.getvalue()


HTML = """<!doctype html><html><head><title>Old Mill | Home</title><style>p{color:red}</style></head><body>
<nav><a href="/">Home</a></nav><main><h1>Old Mill</h1><p>The mill is <b>open</b><br>from 9 a.m.</p>
<!-- secret --><script>alert("no")</script><div>Loose <em>text</em>.<h2>Prices</h2>
<table><tr><th>Ticket</th><th>Price</th></tr><tr><td>Adult</td><td>&pound;9</td></tr></table>
<ul><li>Dogs: no<ul><li>except guide dogs</li></ul></li><li><p>Cats: no</p></li></ul></div></main></body></html>"""


def test_html_keeps_structure_and_drops_scripts():
    title, text = extract("mill.html", HTML.encode())
    assert title == "Old Mill"
    assert "# Old Mill\n\nThe mill is open  \nfrom 9 a.m." in text
    assert "Loose text." in text
    assert "## Prices\n\n| Ticket | Price |\n|---|---|\n| Adult | £9 |" in text
    assert "- Dogs: no\n  - except guide dogs\n- Cats: no" in text
    for gone in ("alert", "color", "secret", "Home"):
        assert gone not in text
    headings = {chunk.heading for chunk in chunks_of(title, text)}
    assert headings == {"Old Mill", "Old Mill > Prices"}


def test_html_by_its_declared_encoding():
    page = '<html><head><meta charset="iso-8859-1"></head><body><p>Café für alle</p></body></html>'
    assert extract("a.htm", page.encode("iso-8859-1"))[1] == "Café für alle"


def test_docx_keeps_structure():
    title, text = extract("mill.docx", make_docx())
    assert title == "Old Mill"
    assert "# Prices\n\nChildren pay half.\n" in text
    assert "- guide dogs\n  - small bags" in text
    assert "| Ticket | Price |\n|---|---|\n| Adult | 9 \\| 10 |" in text


def test_pdf_text_by_page():
    title, text = extract("mill.pdf", make_pdf([["Old Mill", "Open daily from nine."], ["Dogs stay outside."]]))
    assert title == "mill"
    assert "Open daily from nine." in text
    assert text.endswith("Dogs stay outside.")


def test_pdf_lines_that_go_on_are_joined():
    lines = ["The mill is open every day of the year from nine in the mor-", "ning until the light fails, and longer",
             "in summer, when the days are long and many people come.", "Dogs stay outside."]  # fmt: skip
    text = extract("mill.pdf", make_pdf([lines]))[1]
    assert "from nine in the morning until the light fails" in text


def test_markdown_front_matter_and_first_heading_give_the_title():
    assert extract("a.md", b"---\ntitle: 'Old Mill'\n---\n\nText.") == ("Old Mill", "Text.")
    assert extract("a.md", b"\n# Old Mill\n\nText.")[0] == "Old Mill"
    assert extract("folder/notes.txt", b"Just text.") == ("notes", "Just text.")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_marked_encodings(encoding):
    assert extract("a.txt", "Café – 9 €".encode(encoding))[1] == "Café – 9 €"


def test_jsonl():
    lines = [{"id": "a", "title": "A", "text": "Eins.", "metadata": {"lang": "de"}}, {"text": "Zwei."}]
    data = "\n".join(json.dumps(line) for line in lines).encode()
    first, second = documents_of_jsonl("x.jsonl", data)
    assert (first.id, first.title, first.text, first.metadata) == ("a", "A", "Eins.", {"lang": "de"})
    assert (second.id, second.title) == ("x#2", "")
    assert "# A\n\nEins." in extract("x.jsonl", data)[1]


@pytest.mark.parametrize(
    ("name", "data", "why"),
    [
        ("a.md", b"", "is empty"),
        ("a.txt", b"\x00\x00 \n", "is empty"),
        ("a.md", b"\x00\x01\x02" * 50 + bytes(range(256)), "is binary"),
        ("a.txt", b"\x7fELF\x02\x01\x01" + b"\x01\x02\x03\x04" * 30, "is binary"),
        ("a.txt", "Café".encode("latin-1"), "is not utf-8 text"),
        ("a.txt", b"\xff\xfeA", "is not utf-16 text"),
        ("a.txt", b"  ...  \n\n", "holds no text"),
        ("a.exe", b"MZ", "files of type .exe cannot be read"),
        ("README", b"text", "files of type without a suffix"),
        ("a.pdf", b"<html>", "is not a PDF"),
        ("a.pdf", b"%PDF-1.4\n%%EOF", "is a broken PDF"),
        ("a.pdf", make_pdf([[""]]), "holds no text"),
        ("a.docx", b"PK\x03\x04nonsense", "is not a DOCX"),
        ("a.html", b"<html><script>x()</script></html>", "holds no text"),
        ("a.html", b'<meta charset="klingon"><p>x</p>', "is not klingon text"),
        ("a.jsonl", b"{}\n", "line 1 needs a non-empty text"),
        ("a.jsonl", b'{"text": "a"}\n{"text"', "line 2 is not valid JSON"),
        ("a.jsonl", b'{"text": "a", "metadata": {"x": [1]}}', "metadata"),
        ("a.jsonl", b"[1]", "is not an object"),
    ],
)
def test_refused_with_the_reason(name, data, why):
    with pytest.raises(InvalidDocument) as caught:
        extract(name, data)
    assert name in caught.value.message
    assert why in caught.value.message


def test_too_large():
    with pytest.raises(InputTooLarge, match=r"big.md has 50.0 MiB, over the limit of 20 MiB"):
        extract("big.md", b"x" * (50 * 2**20))
    with pytest.raises(InvalidDocument, match="more than 5000000 characters"):
        extract("long.txt", b"word " * 1_100_000)


def test_zip_bomb_is_refused_before_it_is_unpacked():
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("word/document.xml", b"<a/>")
        for number in range(3):
            archive.writestr(f"word/media/{number}", b"\0" * (100 * 2**20))
    assert len(out.getvalue()) < 2**20
    with pytest.raises(InvalidDocument, match="would unpack from"):
        extract("bomb.docx", out.getvalue())


def test_another_archive_is_no_docx():
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("xl/workbook.xml", b"<a/>")
    with pytest.raises(InvalidDocument, match="not a DOCX"):
        extract("a.docx", out.getvalue())


def test_a_pdf_over_the_page_limit(monkeypatch):
    monkeypatch.setattr(ingest, "MAX_PAGES", 2)
    with pytest.raises(InvalidDocument, match="has 3 pages, over the limit of 2"):
        extract("a.pdf", make_pdf([["one"], ["two"], ["three"]]))


def test_the_engine_answers_and_refuses_one_request_each():
    engine = DocumentEngine()
    engine.submit(1, "extract", {"name": "a.md", "data": b"# A\n\nText."})
    engine.submit(2, "extract", {"name": "a.pdf", "data": b"%PDF-1.4 nonsense"})
    engine.submit(3, "translate", {})
    done = [event for _ in range(3) for event in engine.step()]
    assert [(event.id, event.kind) for event in done] == [(1, "end"), (2, "error"), (3, "error")]
    assert done[0].payload == {"title": "A", "text": "# A\n\nText."}
    assert [event.payload["code"] for event in done[1:]] == [InvalidDocument.code, InvalidRequest.code]
    assert not engine.busy
