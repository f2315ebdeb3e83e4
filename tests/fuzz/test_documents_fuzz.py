"""Documents with flipped, cut, doubled and random bytes: text or InvalidDocument, nothing else, in bounded time."""

import io
import random
import sys
import time
import zipfile
from pathlib import Path

import pytest

from agent.errors import InvalidDocument
from agent.knowledge.ingest import MAX_CHARACTERS, extract
from agent.knowledge.markdown import chunks_of

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "unit"))

from test_ingest import HTML, make_docx, make_pdf

SEEDS = {
    "a.pdf": make_pdf([["Old Mill", "Open daily."], ["Dogs stay outside."]]),
    "a.docx": make_docx(),
    "a.html": HTML.encode(),
    "a.md": b"# A\n\n- item\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n```\ncode\n```\n",
    "a.jsonl": b'{"id": "a", "title": "A", "text": "One. Two."}\n{"text": "Three."}\n',
}


def mutated(data: bytes, rng: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 3, 10, 40))):
        at = rng.randrange(len(out) + 1)
        size = rng.choice((1, 2, 8, 64))
        kind = rng.randrange(5)
        if kind == 0:
            out[at : at + size] = rng.randbytes(size)
        elif kind == 1:
            del out[at : at + size]
        elif kind == 2:
            out[at:at] = out[at : at + size] * rng.choice((1, 2, 50))
        elif kind == 3 and at < len(out):
            out[at] ^= 1 << rng.randrange(8)
        else:
            out[at:at] = rng.choice(
                (b"<table>" * 200, b"((((", b"\n- " * 50, b"|" * 99, b"<<", b"\xff\xfe", b"99999999")
            )
    return bytes(out[: rng.randrange(1, len(out) + 1)] if rng.random() < 0.15 else out)


def damaged(name: str, rng: random.Random) -> bytes:
    """A mutated file; of a DOCX mostly one part inside an archive that is whole, as checksums catch the rest."""
    if name != "a.docx" or rng.random() < 0.3:
        return mutated(SEEDS[name], rng)
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(SEEDS[name])) as whole, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as copy:
        parts = whole.namelist()
        victim = rng.choice(["word/document.xml", *parts])
        for part in parts:
            data = whole.read(part)
            copy.writestr(part, mutated(data, rng) if part == victim and data else data)
    return out.getvalue()


@pytest.mark.parametrize("name", SEEDS)
def test_mutated_documents(name):
    rng = random.Random(f"documents {name}")
    read = refused = 0
    slowest = 0.0
    for _ in range(150):
        data = damaged(name, rng)
        started = time.monotonic()
        try:
            title, text = extract(name, data)
        except InvalidDocument:
            refused += 1
        else:
            read += 1
            assert title
            assert 0 < len(text) <= MAX_CHARACTERS
            for chunk in chunks_of(title, text):
                assert all(sentence.text in text for sentence in chunk.sentences)
        slowest = max(slowest, time.monotonic() - started)
    assert read > 0
    assert refused > 0
    assert slowest < 10
