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
        if tool is None or not _fits(arguments, tool.function.parameters):
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
        try:
            compile_schema(json.dumps(tool.function.parameters))
        except InvalidRequest as error:
            raise InvalidRequest(
                f"the parameters of {tool.function.name!r} cannot be enforced: {error.message}",
                remedy=error.remedy,
                param=f"tools.{number}.function.parameters",
            ) from error
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


def _fits(arguments: Any, schema: JsonObject) -> bool:
    """Whether arguments satisfy a schema that `plan` let pass: it holds no pattern that could run for ever, and the
    empty registry fetches no reference from anywhere."""
    import jsonschema  # late: most devices never see a tool
    import referencing

    return bool(jsonschema.Draft202012Validator(schema, registry=referencing.Registry()).is_valid(arguments))


def _schema(tools: Sequence[Tool]) -> str:
    calls = [
        {
            "type": "object",
            "properties": {"name": {"const": tool.function.name}, "arguments": tool.function.parameters},
            "required": ["name", "arguments"],
            "additionalProperties": False,
        }
        for tool in tools
    ]
    return json.dumps(calls[0] if len(calls) == 1 else {"anyOf": calls})
