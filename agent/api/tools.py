"""Tool calls of OpenAI's chat API on any local SLM: what the model is told, and how its reply becomes calls.

``required`` and a named function constrain the output to the tools' JSON schemas, so the call is always valid. ``auto``
leaves the model free: a reply that is a JSON object naming a tool, bare or in <tool_call> tags (the convention of the
Hermes and Qwen templates), is a call when its arguments fit the schema, anything else is text. The tools go to the
chat template, and as a system message for templates that know no tools.
"""

from __future__ import annotations

import asyncio
import json
import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from agent.api.wire import ChatRequest, FunctionCall, JsonObject, Message, Tool, ToolCallWire, ToolChoice
from agent.engines.grammar import compile_schema
from agent.errors import InvalidRequest

_NAMED = frozenset({"properties", "$defs", "definitions"})
"""Keywords that hold schemas by names; a name is no keyword."""
_DATA = frozenset({"const", "enum", "default", "examples", "example"})
"""Keywords that hold values: what looks like a schema there is none."""
_TAGGED = re.compile(r"^\s*<tool_call>(.*?)(</tool_call>)?\s*$", re.DOTALL)


@dataclass(frozen=True, slots=True)
class ReplyMessage:
    """The assistant's message: text, or calls."""

    content: str | None
    calls: tuple[ToolCallWire, ...]
    finish_reason: str

    def wire(self) -> JsonObject:
        message: JsonObject = {"role": "assistant", "content": self.content, "refusal": None}
        if self.calls:
            message["tool_calls"] = [call.model_dump() for call in self.calls]
        return message

    def delta(self) -> JsonObject:
        delta: JsonObject = {"role": "assistant", "content": self.content}
        if self.calls:
            delta["tool_calls"] = [{"index": i, **call.model_dump()} for i, call in enumerate(self.calls)]
        return delta


@dataclass(frozen=True, slots=True)
class Plan:
    """How one request uses tools. ``schema`` is set when a call is forced."""

    tools: tuple[Tool, ...] = ()
    schema: str | None = None

    @property
    def offers_calls(self) -> bool:
        return bool(self.tools)

    @property
    def for_template(self) -> str | None:
        """OpenAI's tools array as JSON text."""
        return json.dumps([tool.model_dump(exclude_none=True) for tool in self.tools]) if self.tools else None

    def messages(self, messages: Sequence[Message]) -> list[Message]:
        """The conversation with the tools explained in front of it."""
        if not self.tools:
            return list(messages)
        functions = "\n".join(json.dumps(tool.function.model_dump(exclude_none=True)) for tool in self.tools)
        told = (
            f"You can call these functions:\n{functions}\n"
            'To call one, reply with nothing but {"name": ..., "arguments": {...}}.'
        )
        if messages[0].role in ("system", "developer"):
            first = messages[0].model_copy(update={"content": f"{messages[0].text}\n\n{told}"})
            return [first, *messages[1:]]
        return [Message(role="system", content=told), *messages]

    async def read(self, text: str, finish_reason: str) -> ReplyMessage:
        """The model's output as a message; a call cut off by the token limit stays text. Works in a thread: the asker's
        schema may take long, and so does loading the library that checks it."""
        call = await asyncio.to_thread(self._call, text) if self.tools else None
        if call is None:
            return ReplyMessage(text, (), finish_reason)
        return ReplyMessage(None, (call,), "tool_calls")

    def _call(self, text: str) -> ToolCallWire | None:
        tagged = _TAGGED.match(text)
        try:
            said = json.loads(tagged.group(1) if tagged else text)
        except (ValueError, RecursionError):
            return None
        if not isinstance(said, dict):
            return None
        tool = next((tool for tool in self.tools if tool.function.name == said.get("name")), None)
        arguments = said.get("arguments", {})
        if tool is None or not _fits(arguments, _parameters(tool)):
            return None
        function = FunctionCall(name=tool.function.name, arguments=json.dumps(arguments, ensure_ascii=False))
        return ToolCallWire(id=f"call_{uuid.uuid4().hex[:24]}", function=function)


def plan(body: ChatRequest) -> Plan:
    """Raises InvalidRequest for a choice without tools, an unknown function, or a schema that cannot be enforced."""
    if not body.tools:
        if body.tool_choice not in (None, "none"):
            raise InvalidRequest("tool_choice needs tools", remedy="Send the tools too.", param="tool_choice")
        return Plan()
    for number, tool in enumerate(body.tools):
        _check(tool, f"tools.{number}.function")
        if any(tool.function.name == other.function.name for other in body.tools[:number]):
            raise InvalidRequest(
                f"two tools are named {tool.function.name!r}", remedy="Name each otherwise.", param="tools"
            )
    if body.tool_choice == "none":
        return Plan()
    tools = tuple(body.tools)
    if isinstance(body.tool_choice, ToolChoice):
        name = body.tool_choice.function.name
        named = tuple(tool for tool in tools if tool.function.name == name)
        if not named:
            raise InvalidRequest(f"tool_choice names {name!r}, which tools do not hold", param="tool_choice")
        return Plan(named, _schema(named))
    return Plan(tools, _schema(tools) if body.tool_choice == "required" else None)


def _check(tool: Tool, where: str) -> None:
    """Raises InvalidRequest for parameters that cannot be enforced, or that are no object's."""
    name, kind = tool.function.name, tool.function.parameters.get("type", "object")
    if kind != "object":
        raise InvalidRequest(
            f"the parameters of {name!r} are of type {kind!r}; arguments are always an object",
            remedy="Describe an object with properties.",
            param=f"{where}.parameters",
        )
    try:
        compile_schema(json.dumps(_parameters(tool)))
    except RecursionError as error:
        raise InvalidRequest(
            f"the parameters of {name!r} are nested too deeply", param=f"{where}.parameters"
        ) from error
    except InvalidRequest as error:
        raise InvalidRequest(
            f"the parameters of {name!r} cannot be enforced: {error.message}",
            remedy=error.remedy,
            param=f"{where}.parameters",
        ) from error


def _parameters(tool: Tool) -> JsonObject:
    """What a tool's arguments must satisfy: an object also where its schema names no type."""
    given = tool.function.parameters
    return given if given.keys() & {"$ref", "anyOf", "oneOf", "allOf"} else {"type": "object", **given}


def _fits(arguments: Any, schema: JsonObject) -> bool:
    """Whether arguments satisfy a schema that `plan` let pass: it holds no pattern that could run for ever, and the
    empty registry fetches no reference from anywhere."""
    import jsonschema  # late: most devices never see a tool
    import referencing

    validator = jsonschema.Draft202012Validator(schema, registry=referencing.Registry())
    return isinstance(arguments, dict) and bool(validator.is_valid(arguments))


def _schema(tools: Sequence[Tool]) -> str:
    """A call of one of the tools; every tool's own schema stands whole below ``$defs``."""
    calls = [
        {
            "type": "object",
            "properties": {"name": {"const": tool.function.name}, "arguments": {"$ref": f"#/$defs/{number}"}},
            "required": ["name", "arguments"],
            "additionalProperties": False,
        }
        for number, tool in enumerate(tools)
    ]
    own = {str(number): _moved(_parameters(tool), f"#/$defs/{number}") for number, tool in enumerate(tools)}
    return json.dumps({**(calls[0] if len(calls) == 1 else {"anyOf": calls}), "$defs": own})


def _moved(schema: Any, to: str) -> Any:
    """A schema, as `plan` let it pass, with its references into itself written for a document where it stands at
    ``to``."""
    if isinstance(schema, list):
        return [_moved(item, to) for item in schema]
    if not isinstance(schema, dict):
        return schema
    moved: JsonObject = {}
    for key, value in schema.items():
        if key == "$ref" and isinstance(value, str):
            moved[key] = to + value.removeprefix("#")
        elif key in _NAMED and isinstance(value, dict):
            moved[key] = {name: _moved(item, to) for name, item in value.items()}
        else:
            moved[key] = value if key in _DATA else _moved(value, to)
    return moved
