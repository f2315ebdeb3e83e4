"""The engine behind the worker ``understanding``: languages and intents, the first things to know of an utterance."""

from __future__ import annotations

from agent.engines.protocol import Payload
from agent.errors import InvalidRequest
from agent.knowledge.intents import IntentEngine
from agent.knowledge.language import identify


class UnderstandingEngine(IntentEngine):
    """`IntentEngine` with one more operation: ``identify`` {"text"} -> {"language", "probability"}."""

    def smoke_test(self) -> None:
        """Loads the language tables, so that no visitor waits for them."""
        super().smoke_test()
        identify("smoke test")

    def handle(self, op: str, payload: Payload) -> Payload:
        if op != "identify":
            return super().handle(op, payload)
        text = payload.get("text")
        if not isinstance(text, str):
            raise InvalidRequest("'text' must be a string", param="text")
        guess = identify(text)
        return {"language": guess.code, "probability": guess.probability}
