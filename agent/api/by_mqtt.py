"""Questions by MQTT (``outpost/<site>/<device>/ask``): the assistant as over HTTP, with the same queue and counts."""

from __future__ import annotations

from agent.api.chat import outpost_object
from agent.api.services import Services
from agent.api.wire import JsonObject
from agent.escalation.mqtt import Asked
from agent.messages import Question


async def respond(asked: Asked, daemon: Services) -> JsonObject:
    """``text`` and the ``outpost`` object; a deferred question's answer comes later on the topic ``events``. Raises
    what the assistant raises, Overloaded, ShuttingDown."""
    with daemon.admission.enter():
        answer = await daemon.assistant.answer(
            Question(
                text=asked.text,
                session=asked.session,
                collection=asked.collection,
                privacy="private" if asked.private else "shareable",
                deadline_s=asked.deadline_s,
            )
        )
    daemon.remember_latency(answer)
    return {"text": answer.text, "outpost": outpost_object(answer)}
