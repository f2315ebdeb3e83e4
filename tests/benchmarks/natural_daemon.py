"""The 120 natural questions, asked of the whole daemon over HTTP: quotes, the SLM, intents, the decision.

    python tests/benchmarks/natural_daemon.py --embedding FOLDER [--data tests/data/natural] [--show] [--without-slm]

Every page is a collection of its own, as a device holds the documents of its own venue. An answer that was served
counts as right where it holds one of the acceptable answers (tests/benchmarks/natural.py judges the same way).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.benchmarks.natural import Item, _items, _page, is_right, is_right_answer
from tests.simulators.daemon import DEMO, ROOT, RunningDaemon, ask, clean_environment, running_daemon


@contextmanager
def knowing(items: Sequence[Item], data: Path, embedding: Path, settings: Mapping[str, str]) -> Iterator[RunningDaemon]:
    """A daemon with the embedding model that holds every page of the questions as a collection."""
    with tempfile.TemporaryDirectory() as folder:
        pull = [sys.executable, "-m", "agent", "models", "pull", "all-minilm-l6-v2", "--from", str(embedding)]
        subprocess.run([*pull, "--state", folder], check=True, env=clean_environment(), cwd=ROOT)
        patient = {"OUTPOST_SERVER__REQUEST_TIMEOUT_S": "300", **settings}
        with running_daemon(Path(folder), settings=patient) as daemon:
            with daemon.client(operator=True, timeout=300) as client:
                for page in sorted({item.page for item in items}):
                    document = _page(data, page)
                    body = {"documents": [{"id": document.id, "title": document.title, "text": document.text}]}
                    client.post(f"/v1/knowledge/{Path(page).stem}/documents", json=body).raise_for_status()
            yield daemon


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--embedding", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=ROOT / "tests" / "data" / "natural")
    parser.add_argument("--show", action="store_true", help="print every question that was not answered right")
    parser.add_argument("--without-slm", action="store_true")
    given = parser.parse_args()
    items = _items(given.data, "questions*.jsonl")
    counts: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    settings = {"OUTPOST_MODELS__TEXT": ""} if given.without_slm else {}
    with (
        knowing(items, given.data, given.embedding, settings) as daemon,
        daemon.client(operator=True, timeout=300) as client,
    ):
        daemon.cli("intents", "train", str(DEMO / "intents.toml"))
        for item in items:
            about = ask(client, item.question, collection=Path(item.page).stem)
            text = about["text"]
            served = about["decision"] in ("local", "action")
            judge = is_right if about["answer_kind"] == "quote" else is_right_answer
            right = served and bool(item.answers) and judge(item, text)
            outcome = ("answerable" if item.answers else "unanswerable") + (
                " right" if right else " wrong" if served else " handed over"
            )
            counts[outcome] += 1
            kinds[f"{about['answer_kind']} {'right' if right else 'wrong'}"] += served
            if given.show and not right and (served or item.answers):
                print(f"{outcome:26} {about['confidence']:.2f} {item.question!r} -> {text[:100]!r}")
    answerable = sum(count for name, count in counts.items() if name.startswith("answerable"))
    unanswerable = sum(counts.values()) - answerable
    wrong = counts["answerable wrong"] + counts["unanswerable wrong"]
    served_in_all = wrong + counts["answerable right"]
    report = {
        "right_of_answerable": round(counts["answerable right"] / max(1, answerable), 3),
        "wrong_of_served": round(wrong / max(1, served_in_all), 3),
        "unanswerable_not_answered": round(counts["unanswerable handed over"] / max(1, unanswerable), 3),
        "served": served_in_all,
        "by_kind": dict(kinds),
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
