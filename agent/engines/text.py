"""The text engine: continuous batching of generation requests over one llama.cpp context.

`TextEngine` runs inside a worker (agent/engines/protocol.py says who calls what). A request waits until a sequence and
enough KV cells are free for its whole length, so that nothing that was started can run out of cells. Then every `step`
decodes one batch: one token for each sequence that is answering, first, and behind them a slice of the prompts that are
still being read, so long that the step stays short. A new prompt takes over the longest prefix that any other sequence
has in the cache (agent/engines/prefixes.py); one whose prefix is just being computed by another request waits for it
instead of computing it twice. Recurrent and hybrid models (LFM2) can only go on from where a state was left, so there a
copy of the state is kept at the place where two prompts part.

Operations: ``generate``, ``tokenize``, ``stats``, ``forget``.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from agent.engines.cpu import check_cpu
from agent.engines.prefixes import Cells, Sequence, common_prefix
from agent.engines.protocol import EngineEvent, LoadSpec, Payload, error_event
from agent.engines.sampling import PENALTY_WINDOW, Sampler, check, greedy, score
from agent.engines.stops import Release
from agent.engines.templates import ChatTemplate
from agent.errors import BadModel, ContextOverflow, InputTooLarge, InvalidRequest, OutpostError, Unavailable
from agent.messages import ChatMessage, Sampling, ToolCall

if TYPE_CHECKING:
    from agent.engines.constraint import Constraint, Vocabulary
    from agent.engines.llama import Context, Model

Tokens = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]

SMOKE_TOKENS = 64
SHARED_STEP = (0.1, 16)
"""Seconds that a step with prompt tokens takes, roughly, and tokens it computes at least, while others are answered."""
LONE_STEP = (0.25, 32)
"""The same while nobody waits for a token: larger chunks compute faster, but a cancel waits for the step's end."""
CACHED_PER_SEQUENCE = 4
"""Finished sequences kept as prefixes, for each sequence that may run."""
MAX_BYTES_PER_TOKEN = 64
"""A text over this many bytes per token of context is refused before it is tokenized."""
WORTH_WAITING = 32
"""Tokens that another request must be about to compute for a new one to wait for them."""


@dataclass(slots=True)
class _Request:
    """One generation, from `submit` to its last event."""

    id: int
    sampling: Sampling
    prompt: Tokens
    limit: int
    submitted: float
    sampler: Sampler
    release: Release
    constraint: Constraint | None = None
    sequence: Sequence | None = None
    cached: int = 0
    next_token: int = -1
    generated: int = 0
    fed_bytes: int = 0
    mark: int = 0
    """Prompt length at which the state is worth a copy for others; only for models whose state cannot be cut."""
    first_token_ms: float = 0.0
    unsent: list[tuple[int, list[Any]]] = field(default_factory=list)
    """Log-probabilities that wait for their text, each with the byte at which its token starts."""

    @property
    def reading(self) -> bool:
        """Whether prompt tokens are still to be computed."""
        return self.sequence is not None and self.sequence.length < len(self.prompt)

    @property
    def growth(self) -> int:
        """Cells that it may still take."""
        held = self.sequence.length if self.sequence else 0
        return len(self.prompt) + self.limit - held


class TextEngine:
    """See the module. Options: threads, context, sequences, batch, kv_tokens, extra_buffers."""

    def __init__(self) -> None:
        self._ready: list[EngineEvent] = []
        self._waiting: list[_Request] = []
        self._running: list[_Request] = []
        self._seconds_per_token = 0.0
        self._vocabulary: Vocabulary | None = None

    # ---------------------------------------------------------------- loading

    def load(self, spec: LoadSpec) -> Payload:
        check_cpu()
        from agent.engines import llama  # maps the native library

        options = spec.options
        batch = max(int(options.get("batch", 256)), SMOKE_TOKENS)
        self._model: Model = llama.Model(Path(spec.entry), extra_buffers=options.get("extra_buffers") is not False)
        trained = self._model.n_ctx_train or int(options.get("context", 2048))
        kv_tokens = int(options.get("kv_tokens", 8192))
        self._length = min(int(options.get("context", 2048)), trained, kv_tokens)
        self._sequences = int(options.get("sequences", 4))
        per_sequence = CACHED_PER_SEQUENCE if self._model.splits else 1
        ids = min(self._sequences * (1 + per_sequence), 256)
        threads = int(options.get("threads", 0)) or physical_cores()
        self._context: Context = llama.Context(
            self._model, cells=kv_tokens, sequences=ids, batch=batch, threads=threads
        )
        self._batch = batch
        self._cells = Cells(kv_tokens, ids, self._length)
        source = self._model.chat_template
        control = self._model.control
        self._template: ChatTemplate | None = None
        self._template_error: BadModel | None = None
        try:
            self._template = ChatTemplate(
                source,
                control=control.always,
                tags=control.tags,
                bos=self._model.special_piece(self._model.bos),
                eos=self._model.special_piece(self._model.eos),
            )
        except BadModel as error:  # raw prompts still work; `generate` with messages says why it cannot
            self._template_error = error
        return {
            "name": self._model.name,
            "architecture": self._model.architecture,
            "parameters": self._model.parameters,
            "context": self._length,
            "n_ctx_train": self._model.n_ctx_train,
            "vocabulary": self._model.n_vocab,
            "quantisation": self._model.quantisation,
            "file_bytes": Path(spec.entry).stat().st_size,
            "threads": threads,
            "sequences": self._sequences,
            "has_chat_template": source is not None,
            "chat_template_error": self._template_error.message if self._template_error else "",
            "kv_bytes": self._model.kv_bytes_per_token * self._context.cells,
            "extra_buffers": options.get("extra_buffers") is not False,
        }

    def smoke_test(self) -> None:
        """Decode many tokens at once, which is what a miscompiled kernel dies of. Raises BadModel on NaN."""
        tokens = (np.arange(SMOKE_TOKENS, dtype=np.int64) * 7919 % self._model.n_vocab).astype(np.int32)
        places = [self._context.add_run(tokens[:-1], 0, 0, want_last=True)]
        places.append(self._context.add(int(tokens[-1]), SMOKE_TOKENS - 1, 0))
        started = time.monotonic()
        code = self._context.decode()
        self._learn_pace(SMOKE_TOKENS, time.monotonic() - started)
        if code != 0:
            raise BadModel(f"{self._model.path.name}: the first decode ended with native code {code}")
        finite = all(np.isfinite(self._context.logits(place)).all() for place in places)
        self._context.clear()
        if not finite:
            raise BadModel(
                f"{self._model.path.name} computes values that are not numbers",
                remedy="Its weights are damaged; download it again.",
            )

    # ---------------------------------------------------------------- requests

    def submit(self, id: int, op: str, payload: Payload) -> None:
        if op == "generate":
            self._waiting.append(self._request(id, payload))
        elif op == "tokenize":
            tokens = self._tokenize([str(payload["text"])], special=False)
            self._ready.append(EngineEvent("end", id, {"tokens": tokens.tolist()}))
        elif op == "stats":
            self._ready.append(EngineEvent("end", id, self._stats()))
        elif op == "forget":
            self._forget()
            self._ready.append(EngineEvent("end", id, {}))
        else:
            raise InvalidRequest(f"the text engine has no operation {op!r}")

    def cancel(self, id: int) -> None:
        self._ready = [event for event in self._ready if event.id != id]
        for request in [r for r in (*self._waiting, *self._running) if r.id == id]:
            self._drop(request, keep=False)

    @property
    def busy(self) -> bool:
        return bool(self._ready or self._waiting or self._running)

    def _request(self, id: int, payload: Payload) -> _Request:
        started = time.monotonic()
        sampling = Sampling(**{**payload["sampling"], "stop": tuple(payload["sampling"].get("stop", ()))})
        check(sampling)
        prompt = self._prompt(payload)
        if len(prompt) == 0:
            raise InvalidRequest("the prompt is empty", remedy="Send at least one token.")
        if len(prompt) + 1 > self._length:
            raise ContextOverflow(
                f"the prompt has {len(prompt)} tokens, with room for an answer the context holds {self._length - 1}",
                remedy="Shorten the messages, or raise text.context.",
            )
        constraint = None
        if sampling.json_schema is not None:
            if sampling.stop:
                raise InvalidRequest("stop strings could cut an answer that must satisfy a schema", param="stop")
            constraint = self._constrain(sampling.json_schema)
        return _Request(
            id=id,
            constraint=constraint,
            sampling=sampling,
            prompt=prompt,
            limit=min(sampling.max_tokens, self._length - len(prompt)),
            submitted=started,
            sampler=Sampler(sampling),
            release=Release(sampling.stop),
        )

    def _constrain(self, schema: str) -> Constraint:
        from agent.engines.constraint import Constraint, Vocabulary

        if self._vocabulary is None:
            self._vocabulary = Vocabulary(self._model)
        return Constraint(self._model, self._vocabulary, schema)

    def _prompt(self, payload: Payload) -> Tokens:
        raw = payload.get("prompt")
        if raw is not None:
            return self._with_bos(self._tokenize([str(raw)], special=True))
        if self._template is None:
            raise self._template_error or BadModel("the model has no chat template")
        messages = [_message(m) for m in payload["messages"]]
        self._check_size(sum(len(m.content) for m in messages))
        fragments = self._template.render(messages, payload.get("tools"), payload.get("template_variables"))
        return self._with_bos(self._tokenize(fragments, special=True))

    def _tokenize(self, fragments: Iterable[str], *, special: bool) -> Tokens:
        parts = []
        for fragment in fragments:
            self._check_size(len(fragment))
            parts.append(self._model.tokenize(fragment, special=special))
        return np.concatenate(parts)

    def _check_size(self, size: int) -> None:
        limit = self._length * MAX_BYTES_PER_TOKEN
        if size > limit:
            raise InputTooLarge(
                f"a text of {size} characters is over {limit}, more than any context of {self._length} tokens"
            )

    def _with_bos(self, tokens: Tokens) -> Tokens:
        bos = self._model.bos
        if not self._model.adds_bos or bos < 0 or (len(tokens) and tokens[0] == bos):
            return tokens
        return np.concatenate([np.array([bos], np.int32), tokens])

    # ---------------------------------------------------------------- one step

    def step(self) -> Iterable[EngineEvent]:
        events, self._ready = self._ready, []
        self._admit()
        if not self._running:
            return events
        answering = [r for r in self._running if not r.reading]
        places = [
            (r, self._context.add(r.next_token, r.sequence.length, r.sequence.id)) for r in answering if r.sequence
        ]
        for request in answering:
            self._grow(request, [request.next_token])
        read = self._read_prompts(places)
        started = time.monotonic()
        code = self._context.decode()
        if code != 0:
            return [*events, *self._fail_all(code)]
        if read:
            self._learn_pace(read, time.monotonic() - started)
            self._leave_copies()
        for request, place in places:
            try:
                events.extend(self._advance(request, place))
            except OutpostError as error:
                self._drop(request, keep=False)
                events.append(error_event(request.id, error))
        return events

    def _admit(self) -> None:
        """Start waiting requests, oldest first, while a sequence and cells for their whole length are free."""
        for request in list(self._waiting):
            if len(self._running) >= self._sequences:
                return
            source, shared = self._cells.best_source(request.prompt, whole_only=not self._model.splits)
            if self._about_to_share(request, shared):
                continue
            pinned = self._cells.reserved(source.cells[:shared] if source else None)
            promised = sum(r.growth for r in self._running) + request.growth - shared
            if pinned + promised > self._cells.capacity:
                return
            if source is not None:
                self._cells.touch(source)
            while not self._cells.has_id():
                self._evict(sparing=source)
            request.sequence = self._cells.open(source, shared)
            request.cached = shared
            if not self._model.splits:
                common = self._cells.best_source(request.prompt, whole_only=False)[1]
                request.mark = common if common >= shared + WORTH_WAITING else 0
            if source is not None:
                self._context.share(source.id, request.sequence.id, shared)
            self._waiting.remove(request)
            self._running.append(request)

    def _about_to_share(self, request: _Request, shared: int) -> bool:
        """Whether a running request is still computing a prefix that this one could use."""
        for other in self._running:
            if other.reading and other.sequence is not None:
                coming = min(common_prefix(other.prompt, request.prompt), len(request.prompt) - 1)
                if coming > other.sequence.length and coming >= shared + WORTH_WAITING:
                    if not self._model.splits and other.sequence.length >= other.mark:
                        other.mark = coming
                    return True
        return False

    def _leave_copies(self) -> None:
        """Where a prompt has been read up to its mark, keep the state there as a cached prefix."""
        for request in self._running:
            if request.sequence is None or not request.mark or request.sequence.length != request.mark:
                continue
            if not self._cells.has_id():
                self._evict()
            copy = self._cells.open(request.sequence, request.mark)
            copy.active, copy.keep = False, request.sequence.keep
            self._context.share(request.sequence.id, copy.id, request.mark)
            request.mark = 0

    def _read_prompts(self, places: list[tuple[_Request, int]]) -> int:
        """Fill the batch with prompt tokens, oldest request first; returns how many there are."""
        seconds, least = SHARED_STEP if places else LONE_STEP
        fitting = int(seconds / self._seconds_per_token) if self._seconds_per_token else self._batch
        room = min(self._batch - len(places), max(least, fitting))
        read = 0
        for request in self._running:
            sequence = request.sequence
            if sequence is None or not request.reading or read >= room or any(r is request for r, _ in places):
                continue
            start = sequence.length
            end = start + room - read
            chunk = request.prompt[start : min(end, request.mark) if request.mark > start else end]
            last = start + len(chunk) == len(request.prompt)
            place = self._context.add_run(chunk, start, sequence.id, want_last=last)
            self._grow(request, chunk.tolist())
            read += len(chunk)
            if last:
                places.append((request, place))
        return read

    def _grow(self, request: _Request, tokens: list[int]) -> None:
        while self._cells.free < len(tokens):
            self._evict()
        if request.sequence is not None:
            self._cells.extend(request.sequence, tokens)

    def _evict(self, sparing: Sequence | None = None) -> None:
        """Give back the least recently used cached prefix."""
        victim = next(s for s in self._cells.cached if s is not sparing)
        self._context.drop(victim.id)
        self._cells.release(victim)

    def _learn_pace(self, tokens: int, seconds: float) -> None:
        """Follow what a prompt token costs: slow steps may have been interrupted, a fast one shows what is possible."""
        pace, known = seconds / tokens, self._seconds_per_token
        self._seconds_per_token = pace if known == 0 or pace < known else 0.7 * known + 0.3 * pace

    # ---------------------------------------------------------------- one token

    def _advance(self, request: _Request, place: int) -> list[EngineEvent]:
        """Choose the next token of a request and say what may be said of it."""
        logits = self._context.logits(place)
        token = self._choose(request, logits)
        if request.first_token_ms == 0.0:
            request.first_token_ms = (time.monotonic() - request.submitted) * 1000
        if token is None or self._model.is_end(token):
            return self._finish(request, "stop", request.release.flush())
        request.generated += 1
        piece = self._model.piece(token)
        if request.sampling.logprobs is not None:
            scored = score(logits, token, request.sampling.logprobs)
            top = [self._entry(i, value) for i, value in scored.top]
            request.unsent.append((request.fed_bytes, [*self._entry(token, scored.logprob), top]))
        request.fed_bytes += len(piece)
        text = request.release.feed(piece)
        if request.release.stopped:
            return self._finish(request, "stop", text)
        if request.generated >= request.limit:
            return self._finish(request, "length", text + request.release.flush())
        request.next_token = token
        return self._event(request, text, request.release.released)

    def _choose(self, request: _Request, logits: Floats) -> int | None:
        constraint = request.constraint
        if request.sampler.plain and constraint is None:
            return greedy(logits)
        recent = None
        if request.sampler.needs_history and request.sequence is not None:
            recent = request.sequence.tokens[: request.sequence.length][-PENALTY_WINDOW:]
        token = request.sampler.choose(logits, recent, constraint.allowed if constraint else None)
        if constraint is not None and token is not None and not self._model.is_end(token):
            constraint.accept(token)
        return token

    def _entry(self, token: int, logprob: float) -> list[Any]:
        raw = self._model.piece(token)
        name = raw.decode("utf-8", "replace") if raw else self._model.special_piece(token)
        return [name, logprob, raw]

    def _event(self, request: _Request, text: str, released: int) -> list[EngineEvent]:
        entries: list[list[Any]] = []
        if request.unsent:
            entries = [entry for start, entry in request.unsent if start < released]
            request.unsent = [(start, entry) for start, entry in request.unsent if start >= released]
        if not text and not entries:
            return []
        return [EngineEvent("event", request.id, {"text": text, "logprobs": entries})]

    def _finish(self, request: _Request, reason: str, text: str) -> list[EngineEvent]:
        released = request.release.released if request.release.stopped else request.fed_bytes + 1
        events = self._event(request, text, released)
        self._drop(request, keep=True)
        end = {
            "finish_reason": reason,
            "prompt_tokens": len(request.prompt),
            "completion_tokens": request.generated,
            "cached_tokens": request.cached,
            "first_token_ms": request.first_token_ms,
            "total_ms": (time.monotonic() - request.submitted) * 1000,
        }
        return [*events, EngineEvent("end", request.id, end)]

    # ---------------------------------------------------------------- leaving

    def _drop(self, request: _Request, *, keep: bool) -> None:
        """Take a request out; with ``keep`` its sequence stays as a cached prefix."""
        if request in self._waiting:
            self._waiting.remove(request)
        if request in self._running:
            self._running.remove(request)
        if request.constraint is not None:
            request.constraint.close()
            request.constraint = None
        sequence, request.sequence = request.sequence, None
        if sequence is None:
            return
        sequence.active = False
        self._cells.touch(sequence)
        leaving = [sequence]
        if keep and sequence.keep:
            # Where states cannot be cut, a shorter prefix is of use that a longer one is not.
            leaving = self._cells.redundant(sequence) if self._model.splits else []
        for gone in leaving:
            self._context.drop(gone.id)
            self._cells.release(gone)

    def _fail_all(self, code: int) -> list[EngineEvent]:
        """A native failure leaves the cache in doubt: everything in it goes."""
        error = Unavailable(f"the text engine's decode ended with native code {code}", remedy="Ask again.")
        events = [error_event(request.id, error) for request in self._running]
        for request in list(self._running):
            self._drop(request, keep=False)
        self._forget()
        self._context.clear()
        return events

    def _forget(self) -> None:
        """Drop cached prefixes; what is running now is not kept either when it ends."""
        for sequence in self._cells.cached:
            self._context.drop(sequence.id)
            self._cells.release(sequence)
        for sequence in self._cells.sequences.values():
            sequence.keep = False

    def _stats(self) -> dict[str, int]:
        return {
            "sequences_active": len(self._running),
            "waiting": len(self._waiting),
            "kv_used": self._cells.used,
            "kv_total": self._cells.capacity,
            "prefixes_cached": len(self._cells.cached),
        }


def _message(plain: Mapping[str, Any]) -> ChatMessage:
    calls = tuple(ToolCall(c["id"], c["name"], c["arguments"]) for c in plain.get("tool_calls") or ())
    return ChatMessage(plain["role"], plain["content"], plain.get("name"), calls, plain.get("tool_call_id"))


def physical_cores() -> int:
    """Cores that this process may use: two threads of one core count once, a container's CPU quota counts."""
    usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    cores = set()
    for cpu in usable:
        siblings = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        cores.add(siblings.read_text("ascii") if siblings.is_file() else str(cpu))
    quota = Path("/sys/fs/cgroup/cpu.max")
    allowed, _, period = (quota.read_text("ascii") if quota.is_file() else "max 1").partition(" ")
    limit = len(cores) if allowed == "max" else int(allowed) // int(period)
    return max(1, min(len(cores), limit))
