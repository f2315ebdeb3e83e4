"""Chat messages to prompt text by the model's own template, which is untrusted code from the model file.

Rendering runs in Jinja's immutable sandbox under limits of CPU time, memory and output size; a template that breaks one
is a BadModel, and the worker goes on. What users write can never become a control token: every occurrence of a control
token's name in a message, tool or variable is cut by a mark that no tokenizer knows, and `render` returns the text
split at the marks, so that each fragment can be tokenized with control tokens enabled and none contains a forged one.
User-defined markup tokens (``<think>``, ``<tool_call>``, ``<|...|>``) are cut in the same way except in assistant
turns, where templates look for them.
"""

from __future__ import annotations

import json
import re
import resource
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from jinja2 import TemplateError, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from agent.errors import BadModel, InvalidRequest
from agent.messages import ChatMessage

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

MAX_SOURCE_CHARS = 256 * 1024
CPU_SECONDS = 1.0
MEMORY_BYTES = 256 * 1024 * 1024
OUTPUT_FACTOR = 16
"""A prompt may be this many times as long as everything that went in (a template repeats, but not without bound)."""

_MARK = "\ufdd0"  # a noncharacter: never in interchanged text, known to no vocabulary
_MARKUP = re.compile(r"<\|.*>|<.*\|>|</?(think|tool_call|tool_response|tools?|function|eos|bos)>", re.DOTALL)


class _OutOfTime(BaseException):
    """Raised by the timer inside a template; no ``except Exception`` in Jinja can swallow it."""


class _Failed(BadModel):
    """The template ended in an error of its own, within its limits."""


class _Refusal(TemplateError):
    """The template called raise_exception."""


class _Generation(Extension):
    """``{% generation %}`` marks assistant text for training; here its body is just rendered."""

    tags = {"generation"}  # noqa: RUF012  (Jinja's own signature)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class ChatTemplate:
    """A model's template, compiled once under the same limits. Raises BadModel when it does not compile."""

    def __init__(
        self,
        source: str | None,
        *,
        control: Sequence[str] = (),
        tags: Sequence[str] = (),
        bos: str = "",
        eos: str = "",
        cpu_seconds: float = CPU_SECONDS,
    ) -> None:
        self.is_fallback = source is None
        text = CHATML if source is None else source
        if len(text) > MAX_SOURCE_CHARS:
            raise BadModel(f"the chat template has {len(text)} characters, the limit is {MAX_SOURCE_CHARS}")
        self._constants = {"bos_token": bos, "eos_token": eos}
        self._shield = _Shield(control)
        self._wide_shield = _Shield([*control, *(tag for tag in tags if _MARKUP.fullmatch(tag))])
        self._fixed = len(text)
        self._cpu_seconds = cpu_seconds
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _Generation]
        )
        environment.filters["tojson"] = _tojson
        for name in ("pprint", "urlize", "random", "xmlattr", "forceescape"):
            environment.filters.pop(name, None)
        environment.globals.pop("lipsum", None)
        environment.globals["raise_exception"] = _refuse
        environment.globals["strftime_now"] = _strftime_now
        with _limits(cpu_seconds):
            self._template = environment.from_string(text)

    def render(
        self,
        messages: Sequence[ChatMessage],
        tools: str | None = None,
        variables: Mapping[str, str | int | float | bool] | None = None,
    ) -> list[str]:
        """The prompt up to the assistant's turn, as fragments to tokenize one by one with control tokens enabled.

        Raises BadModel when the template breaks a limit or fails, InvalidRequest when it refuses the messages or fails
        at them only.
        """
        try:
            return self._render(messages, tools, variables)
        except _Failed as error:
            if self._can_ask():
                raise InvalidRequest(f"these messages do not fit the model's template: {error.message}") from error
            raise
        except RecursionError as error:  # in what was sent: one inside the template is a BadModel already
            raise InvalidRequest("the messages or tools are nested too deeply", remedy="Send flatter ones.") from error

    def _can_ask(self) -> bool:
        """Whether the template is sound: it renders a plain question."""
        try:
            self._render([ChatMessage("user", "x")], None, None)
        except (BadModel, InvalidRequest):
            return False
        return True

    def _render(
        self,
        messages: Sequence[ChatMessage],
        tools: str | None,
        variables: Mapping[str, str | int | float | bool] | None,
    ) -> list[str]:
        try:
            offered = json.loads(tools) if tools else None
        except ValueError as error:
            raise InvalidRequest(f"tools is not JSON: {error}", param="tools") from error
        values: dict[str, Any] = {
            **{name: self._wide_shield.cut(value) for name, value in (variables or {}).items()},
            **self._constants,
            "tools": self._wide_shield.cut(offered),
            "add_generation_prompt": True,
        }
        size = sum(len(m.content) + sum(len(c.arguments) for c in m.tool_calls) + 64 for m in messages)
        limit = self._fixed + OUTPUT_FACTOR * (size + len(tools or "")) + 4096
        try:
            text = self._fill({**values, "messages": [self._plain(m, parsed=True) for m in messages]}, limit)
        except TypeError:
            # Some templates paste the arguments of tool calls as text instead of dumping an object.
            try:
                text = self._fill({**values, "messages": [self._plain(m, parsed=False) for m in messages]}, limit)
            except TypeError as error:
                raise _Failed(f"the chat template failed: {error}") from error
        return text.split(_MARK)

    def _fill(self, values: dict[str, Any], limit: int) -> str:
        with _limits(self._cpu_seconds):
            parts: list[str] = []
            length = 0
            for part in self._template.generate(values):
                parts.append(part)
                length += len(part)
                if length > limit:
                    raise BadModel(f"the chat template wrote over {limit} characters for these messages")
            return "".join(parts)

    def _plain(self, message: ChatMessage, *, parsed: bool) -> dict[str, Any]:
        """The message as templates expect it, with everything that a user may have written cut."""
        shield = self._shield if message.role == "assistant" else self._wide_shield
        plain: dict[str, Any] = {"role": message.role, "content": shield.cut(message.content)}
        if message.name is not None:
            plain["name"] = self._wide_shield.cut(message.name)
        if message.tool_call_id is not None:
            plain["tool_call_id"] = self._wide_shield.cut(message.tool_call_id)
        if message.tool_calls:
            plain["tool_calls"] = [
                {
                    "id": self._wide_shield.cut(call.id),
                    "type": "function",
                    "function": {
                        "name": self._wide_shield.cut(call.name),
                        "arguments": self._wide_shield.cut(_arguments(call.arguments) if parsed else call.arguments),
                    },
                }
                for call in message.tool_calls
            ]
        return plain


class _Shield:
    """Cuts names of tokens wherever they occur in a value, and where text ends in the beginning of one."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = {name for name in names if len(name) > 1}
        self._lengths = sorted({len(name) for name in self._names})
        self._beginnings = {name[:length] for name in self._names for length in range(1, len(name))}
        firsts = "".join(sorted({re.escape(name[0]) for name in self._names}))
        self._first = re.compile(f"[{firsts}]") if firsts else None

    def cut(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._cut_text(value)
        if isinstance(value, list):
            return [self.cut(item) for item in value]
        if isinstance(value, dict):
            return {self._cut_text(str(key)): self.cut(item) for key, item in value.items()}
        return value

    def _cut_text(self, text: str) -> str:
        text = text.replace(_MARK, "")
        if self._first is None:
            return text
        places = [
            found.start() + 1
            for found in self._first.finditer(text)
            if any(text[found.start() : found.start() + length] in self._names for length in self._lengths)
            # At the very end, the template's next words could complete a name.
            or (len(text) - found.start() < self._lengths[-1] and text[found.start() :] in self._beginnings)
        ]
        if not places:
            return text
        edges = [0, *places, len(text)]
        return _MARK.join(text[start:end] for start, end in pairwise(edges))


def _arguments(text: str) -> Any:
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, dict) else text


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Plain JSON: Jinja's own filter escapes for HTML, which no model was trained on."""
    if indent is not None and not 0 <= indent <= 16:
        raise TemplateError(f"tojson(indent={indent})")
    return json.dumps(value, ensure_ascii=False, indent=indent, separators=separators, sort_keys=sort_keys)


def _strftime_now(format: str) -> str:
    return datetime.now().strftime(format[:100])


def _refuse(message: object) -> None:
    raise _Refusal(str(message)[:500])


@contextmanager
def _limits(cpu_seconds: float) -> Iterator[None]:
    """Bound CPU time and memory of the block and translate what comes out of it.

    The timer counts CPU time, so a busy machine fails nobody, and fires again and again in case an exception gets lost
    in a destructor. Signals reach the main thread only, which is where a worker runs its engine.
    """

    def expire(_signal: int, _frame: object) -> None:
        raise _OutOfTime

    previous = signal.signal(signal.SIGPROF, expire)
    memory = _limit_memory()
    try:
        signal.setitimer(signal.ITIMER_PROF, cpu_seconds, 0.1)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
    except _OutOfTime as error:
        raise BadModel(
            f"the chat template ran for over {cpu_seconds:g} s", remedy="Use a model file with a sane template."
        ) from error
    except MemoryError as error:
        raise BadModel(f"the chat template used over {MEMORY_BYTES >> 20} MiB of memory") from error
    except _Refusal as error:
        raise InvalidRequest(f"the model's chat template refuses the messages: {error.message}") from error
    except SecurityError as error:
        raise BadModel(f"the chat template reached for something forbidden: {error.message}") from error
    except TemplateError as error:
        raise _Failed(f"the chat template failed: {type(error).__name__}: {error.message}") from error
    except (ArithmeticError, AttributeError, LookupError, RecursionError, SyntaxError, ValueError) as error:
        raise _Failed(f"the chat template failed: {type(error).__name__}: {error}") from error
    finally:
        if memory is not None:
            resource.setrlimit(resource.RLIMIT_AS, memory)
        signal.signal(signal.SIGPROF, previous)


def _limit_memory() -> tuple[int, int] | None:
    """Lower the soft limit of address space to a little over what is in use; returns the limits to restore.

    Linux only: elsewhere the CPU and output limits have to do.
    """
    if sys.platform != "linux":
        return None
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[0])
    wanted = pages * resource.getpagesize() + MEMORY_BYTES
    if soft != resource.RLIM_INFINITY and soft <= wanted:
        return None
    resource.setrlimit(resource.RLIMIT_AS, (wanted, hard))
    return soft, hard
