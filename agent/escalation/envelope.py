"""What a device and a gateway say to each other by MQTT: the payloads (JSON), and messages cut into parts. Pure.

A request is the CloudRequest but for its event id, with which answers can be read. The replies to one request, any
number of each but the last two:

    working   taken, being worked on: the device need not send it again
    ready     a request that comes in parts may be sent to the gateway that says so
    delta     a piece of the answer, numbered from 0; may get lost, the answer holds everything
    answer    the whole answer
    failed    why there is none, with the error's code
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError

from agent.errors import InvalidRequest
from agent.messages import ChatMessage, CloudRequest, Usage

LARGEST_BYTES = 4 << 20
"""The largest request and the largest answer, parts put together."""
MAX_PARTS = 1024


@dataclass(frozen=True, slots=True)
class _Request:
    key: str
    messages: tuple[ChatMessage, ...]
    max_tokens: int
    expires_at: float
    language: str = "en"


@dataclass(frozen=True, slots=True)
class Working:
    kind: Literal["working"] = "working"


@dataclass(frozen=True, slots=True)
class Ready:
    kind: Literal["ready"] = "ready"


@dataclass(frozen=True, slots=True)
class Delta:
    number: int
    text: str
    kind: Literal["delta"] = "delta"


@dataclass(frozen=True, slots=True)
class Final:
    """``endpoint`` is the gateway's name for the server that answered, ``cost`` by the gateway's price table, ``lost``
    and ``cut`` as in CloudReply."""

    text: str
    endpoint: str
    model: str
    usage: Usage = field(default_factory=Usage)
    cost: float = 0.0
    lost: int = 0
    cut: bool = False
    kind: Literal["answer"] = "answer"


@dataclass(frozen=True, slots=True)
class Failed:
    code: str
    message: str
    retry_after_s: float | None = None
    lost: int = 0
    kind: Literal["failed"] = "failed"


Reply = Working | Ready | Delta | Final | Failed
_REQUEST = TypeAdapter(_Request)
_REPLY: TypeAdapter[Reply] = TypeAdapter(Annotated[Reply, Field(discriminator="kind")])


def encode_request(request: CloudRequest) -> bytes:
    sent = _Request(request.key, request.messages, request.max_tokens, request.expires_at, request.language)
    return _REQUEST.dump_json(sent)


def decode_request(payload: bytes) -> CloudRequest:
    """With the key as its event id. Raises InvalidRequest."""
    try:
        found = _REQUEST.validate_json(payload)
        return CloudRequest(
            found.key, found.key, found.messages, found.max_tokens, found.expires_at, language=found.language
        )
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise InvalidRequest(f"not a request: {where}: {problem['msg']}") from error


def encode_reply(reply: Reply) -> bytes:
    return _REPLY.dump_json(reply)


def decode_reply(payload: bytes) -> Reply:
    """Raises InvalidRequest."""
    try:
        return _REPLY.validate_json(payload)
    except ValidationError as error:
        raise InvalidRequest(f"not a gateway's reply: {len(payload)} bytes") from error


# ---------------------------------------------------------------- parts


@dataclass(frozen=True, slots=True)
class Cut:
    """A payload in parts. ``digest`` (SHA-256, hex) tells one payload's parts from another's."""

    parts: tuple[bytes, ...]
    digest: str

    def labels(self, number: int | None = None) -> dict[str, str]:
        """The user properties of part ``number`` (from 0), or of the announcement."""
        labels = {"parts": str(len(self.parts)), "digest": self.digest}
        return labels if number is None else labels | {"part": str(number)}


def cut(payload: bytes, part_bytes: int) -> Cut:
    parts = tuple(payload[at : at + part_bytes] for at in range(0, len(payload), part_bytes))
    return Cut(parts, hashlib.sha256(payload).hexdigest())


@dataclass(slots=True)
class Assembly:
    """Puts the parts of one payload together, in whatever order and how often they come."""

    total: int
    digest: str
    parts: dict[int, bytes] = field(default_factory=dict)
    size: int = 0

    @staticmethod
    def of(properties: dict[str, str]) -> Assembly:
        """From the user properties of any part. Raises InvalidRequest."""
        total = _number(properties, "parts")
        if not 1 <= total <= MAX_PARTS:
            raise InvalidRequest(f"{total} parts; the limit is {MAX_PARTS}")
        return Assembly(total, properties.get("digest", ""))

    def add(self, properties: dict[str, str], payload: bytes) -> bytes | None:
        """The whole payload once it is there. Raises InvalidRequest (too large, not what was announced)."""
        number = _number(properties, "part")
        if not 0 <= number < self.total or properties.get("digest", "") != self.digest:
            raise InvalidRequest(f"part {number} does not belong to the {self.total} announced")
        self.size += len(payload) - len(self.parts.get(number, b""))
        if self.size > LARGEST_BYTES:
            raise InvalidRequest(f"more than {LARGEST_BYTES} bytes in parts")
        self.parts[number] = payload
        if len(self.parts) < self.total:
            return None
        whole = b"".join(self.parts[number] for number in range(self.total))
        if hashlib.sha256(whole).hexdigest() != self.digest:
            raise InvalidRequest("the parts are not what was announced")
        return whole


def _number(properties: dict[str, str], name: str) -> int:
    try:
        return int(properties.get(name, ""))
    except ValueError as error:
        raise InvalidRequest(f"the user property {name!r} is no number: {properties.get(name)!r}") from error
