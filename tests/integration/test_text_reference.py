"""The text engine on the reference SLM that the repository ships."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest

from agent.messages import Quote, Sampling
from agent.prompts import grounded
from tests.simulators.text import Driver, load

FOLDER = Path(__file__).resolve().parents[2] / "models" / "reference" / "slm"
QUOTES = (
    Quote("hours", "Opening hours", "Opening hours", "The museum is open from 9:30 to 17:45 on weekdays.", 1.0),
    Quote("tickets", "Tickets", "Prices", "A ticket for adults costs 14 euros.", 0.9),
)


@pytest.mark.parametrize("batch", [64, 256])
def test_answers_are_whole_and_alike_alone_and_together(batch: int) -> None:
    path = next(iter(sorted(FOLDER.glob("*.gguf"))), None)
    if path is None:
        pytest.skip(f"no model in {FOLDER}")
    driver = Driver(load(path, context=1024, kv_tokens=4096, batch=batch))
    questions = ["When is the museum open?", "What does a ticket for adults cost?", "Where is the cloakroom?"]

    def submit(question: str) -> int:
        messages = [asdict(message) for message in grounded(question, QUOTES)]
        return driver.submit("generate", {"messages": messages, "sampling": asdict(Sampling(max_tokens=48))})

    together = [submit(question) for question in questions]
    driver.finish()
    for question, id in zip(questions, together, strict=True):
        driver.call("forget")
        alone = submit(question)
        driver.finish()
        assert driver.results[alone].text == driver.results[id].text
        end = driver.results[id].end
        assert end is not None, driver.results[id].error
        assert end["finish_reason"] == "stop"
        assert driver.results[id].text.strip()
