"""The web pages as files: what they may load, how they are cached, and that no text is missing in any language."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import get_args

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from agent.api import pages
from agent.errors import NotFound
from agent.messages import DecisionKind, ModelKind

WEB = Path(pages.__file__).parent / "web"
CATALOGUES = sorted((WEB / "texts").glob("*.json"))


@pytest.fixture
def client() -> TestClient:
    app = FastAPI()
    app.include_router(pages.router())
    return TestClient(app)


@pytest.mark.parametrize("path", ["/", "/operator", "/static/kiosk.js", "/static/style.css", "/static/contours.svg"])
def test_files_are_served_under_a_strict_policy(client: TestClient, path: str) -> None:
    reply = client.get(path)
    assert reply.status_code == 200
    policy = dict(part.split(" ", 1) for part in reply.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert {policy[f"{kind}-src"] for kind in ("script", "style", "img", "connect", "font")} == {"'self'"}
    assert {policy[name] for name in ("base-uri", "form-action", "frame-ancestors")} == {"'none'"}
    assert policy["require-trusted-types-for"] == "'script'"
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert reply.headers["referrer-policy"] == "same-origin"
    assert "camera=()" in reply.headers["permissions-policy"]


def test_a_known_file_is_not_sent_again(client: TestClient) -> None:
    first = client.get("/static/style.css")
    again = client.get("/static/style.css", headers={"if-none-match": f'"other", W/{first.headers["etag"]}'})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]
    assert client.get("/static/style.css", headers={"if-none-match": '"other"'}).status_code == 200
    assert client.head("/static/style.css").content == b""


@pytest.mark.parametrize("path", ["nothing.js", "%2e%2e/pages.py", "..%2fwire.py", "/etc/passwd", ""])
def test_nothing_else_is_reachable(client: TestClient, path: str) -> None:
    with pytest.raises(NotFound):
        client.get(f"/static/{path}")


def test_the_catalogues_have_the_same_texts_and_places_to_fill() -> None:
    assert {path.stem for path in CATALOGUES} >= {"en", "de"}
    english = json.loads((WEB / "texts" / "en.json").read_bytes())
    for path in CATALOGUES:
        texts = json.loads(path.read_bytes())
        assert list(texts) == list(english), path.name
        for key, text in texts.items():
            assert text.strip(), f"{path.name}: {key} is empty"
            assert set(re.findall(r"{\w+}", text)) == set(re.findall(r"{\w+}", english[key])), f"{path.name}: {key}"


def test_every_text_is_used_and_every_used_text_is_there() -> None:
    """A text of a family, as `reason_` with a code behind it, is used where the agent or a script says that code."""
    keys = set(json.loads((WEB / "texts" / "en.json").read_bytes()))
    markup = "".join(path.read_text() for path in sorted(WEB.glob("*.html")))
    scripts = "".join(path.read_text() for path in sorted(WEB.glob("*.js")))
    named = set(re.findall(r'data-(?:text|label|hint)="(\w+)"', markup))
    for call in (r'say\(\s*"', r'put\(\$\("[\w-]+"\), "', r'text\("\w+", "', r'figure\("'):
        found = set(re.findall(call + r'(\w+)"', scripts))
        assert found, f"nothing is written as {call} any more"
        named |= found
    assert named <= keys

    literal = set(re.findall(r'["`]([\w-]+)["`]', scripts))
    source = "".join(path.read_text() for path in sorted(WEB.parents[1].rglob("*.py")))
    codes = {code.replace("-", "_") for code in literal | set(re.findall(r'"([\w-]+)"', source))}
    prefixes = re.findall(r"`(\w+_)\$\{", scripts) + [f"{name}_" for name in re.findall(r'word\("(\w+)"', scripts)]
    families = {prefix + code for prefix in prefixes for code in codes}
    assert keys <= named | literal | families


@pytest.mark.parametrize(
    ("prefix", "codes"),
    [
        ("op_decision_", get_args(DecisionKind)),
        ("decision_", get_args(DecisionKind)),
        ("op_kind_", get_args(ModelKind)),
    ],
)
def test_what_the_agent_tells_by_a_code_has_a_text(prefix: str, codes: tuple[str, ...]) -> None:
    keys = set(json.loads((WEB / "texts" / "en.json").read_bytes()))
    assert {prefix + code for code in codes} == {key for key in keys if key.startswith(prefix)}


def test_every_note_with_a_code_has_a_text_with_its_values() -> None:
    texts = json.loads((WEB / "texts" / "en.json").read_bytes())
    source = "".join(path.read_text() for path in sorted(WEB.parents[1].rglob("*.py")))
    notes = re.findall(r'\bNote\(text, "(\w+)"((?:, \w+=[^,)]+)*)', source)
    assert {f"op_note_{code}" for code, _ in notes} == {key for key in texts if key.startswith("op_note_")}
    for code, values in notes:
        named = set(re.findall(r"(\w+)=", values))
        assert set(re.findall(r"{(\w+)}", texts[f"op_note_{code}"])) == named, code


def test_every_documented_reason_has_a_text_for_visitor_and_operator() -> None:
    keys = set(json.loads((WEB / "texts" / "en.json").read_bytes()))
    table = (
        (WEB.parents[2] / "docs" / "routing.md").read_text(encoding="utf-8").split("## Reasons")[1].split("\n## ")[0]
    )
    reasons = {
        code for row in re.findall(r"^\| (`.+?) \|", table, re.MULTILINE) for code in re.findall(r"`(\w+)`", row)
    }
    assert len(reasons) > 15, reasons
    assert {f"reason_{code}" for code in reasons} <= keys
    assert {f"op_reason_{code}" for code in reasons - {"confident"}} <= keys


def test_languages_offered_are_the_catalogues() -> None:
    offered = set(re.findall(r"^  (\w\w): \{ name:", (WEB / "texts.js").read_text(), re.MULTILINE))
    assert offered == {path.stem for path in CATALOGUES}


def test_pages_hold_no_inline_script_style_or_foreign_address() -> None:
    for path in sorted(WEB.glob("*.html")):
        text = path.read_text()
        assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\son\w+=|\sstyle=", text), path.name
    for path in sorted(file for file in WEB.rglob("*") if file.is_file()):
        foreign = re.findall(r"https?://[^\s\"'`)?\\]+", path.read_text())
        assert set(foreign) <= {"http://www.w3.org/2000/svg"}, path.name


def test_scripts_write_no_markup_and_keep_nothing() -> None:
    for path in sorted(WEB.glob("*.js")):
        text = path.read_text()
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(", text), path.name
        assert not re.search(r"localStorage|sessionStorage|indexedDB|document\.cookie", text), path.name
