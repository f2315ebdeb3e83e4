"""What a device has with an MQTT broker: its connection, and the path by it that keeps what it sends.

reach.py imports this where a broker is configured, and only then: a device without one does without aiomqtt and paho.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager

from agent.config import Config
from agent.escalation import envelope
from agent.escalation.escalator import Path, Recorder
from agent.escalation.link import MqttLink
from agent.escalation.mqtt import MqttPath
from agent.messages import CloudDelta, CloudReply, CloudRequest, Outgoing

_GATEWAY = "gateway"


def device_link(config: Config) -> MqttLink:
    """The connection under the device's name and topics; its caller enters it."""
    name = f"outpost-{config.device.site}-{config.device.name}"
    prefix = f"outpost/{config.device.site}/{config.device.name}"
    return MqttLink(config.mqtt, client_id=name, prefix=prefix)


@asynccontextmanager
async def recorded_path(link: MqttLink, recorder: Recorder) -> AsyncIterator[Path]:
    """The path MQTT; to be entered before the link is."""
    async with MqttPath(link) as path:
        yield _Recorded(path, recorder)


class _Recorded:
    """A path with its payload kept before it leaves."""

    def __init__(self, path: MqttPath, recorder: Recorder) -> None:
        self._path = path
        self._recorder = recorder

    def online(self) -> bool:
        return self._path.online()

    def preview(self, request: CloudRequest) -> Outgoing:
        return Outgoing("mqtt", _GATEWAY, envelope.encode_request(request).decode())

    async def ask(self, request: CloudRequest, *, deadline_s: float) -> AsyncGenerator[CloudDelta | CloudReply, None]:
        payload = envelope.encode_request(request)
        await self._recorder.record(payload, key=request.key, path="mqtt", endpoint=_GATEWAY)
        async with aclosing(self._path.ask(request, deadline_s=deadline_s)) as events:
            async for event in events:
                yield event
