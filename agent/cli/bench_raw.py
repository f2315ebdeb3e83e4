"""The yardstick of `outpost bench`: a bare llama.cpp loop in a process of its own, and the handle on it.

``python -m agent.cli.bench_raw MODEL.gguf THREADS CONTEXT`` answers each line of JSON on standard input with one on
standard output:

    (start)                                        {"parameters", "quantisation", "context"}
    {"op": "text", "tokens": N, "seed": S}         {"text"}: words that the model reads as N tokens or a few less
    {"op": "decode", "prompt": TEXT, "tokens": N}  {"tokens", "seconds", "cpu_seconds", "clean"}

``decode`` is the bare loop of llama.cpp's low-level API, greedy: decode a token, read its row of logits, take the
largest, stop where the model ends. ``seconds`` are those from the first token to the last; ``clean`` says that the
first one is text on its own, so that a stream shows it at once. Only the opened model is agent/engines/llama.py's.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.engines import sandbox
from agent.errors import BadModel, OutpostError, Unavailable

_ANSWER_S = 600.0
_PROMPT_TOKENS = 16
_CANDIDATES = 24
_BATCH = 256
_WORDS = (
    "the of and to in is open museum ticket hall guide water tour light when where what price from until day old new "
    "river garden tower clock morning train station letter paper stone"
).split()


@dataclass(frozen=True, slots=True)
class Facts:
    """What the file says of itself; ``context`` in tokens, 0 where it does not say."""

    parameters: int
    quantisation: str
    context: int


@dataclass(frozen=True, slots=True)
class Decoded:
    """One answer of the bare loop: its tokens, and what the ``tokens - 1`` steps behind the first one took."""

    tokens: int
    seconds: float
    cpu_seconds: float
    clean: bool

    @property
    def rate(self) -> float:
        """Tokens per second."""
        return (self.tokens - 1) / self.seconds


class Yardstick:
    """The process with the bare loop; made by `yardstick`."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        facts = self._read()
        self.facts = Facts(facts["parameters"], facts["quantisation"], facts["context"])

    def text(self, tokens: int, seed: int) -> str:
        return str(self._ask(op="text", tokens=tokens, seed=seed)["text"])

    def decode(self, prompt: str, tokens: int) -> Decoded:
        return Decoded(**self._ask(op="decode", prompt=prompt, tokens=tokens))

    def prompts(self, count: int, tokens: int) -> list[str]:
        """Different prompts whose answers are long: a model may end after a word, which would measure nothing.

        Raises BadModel where every answer is shorter than two tokens.
        """
        found: list[tuple[int, str]] = []
        for seed in range(_CANDIDATES):
            prompt = self.text(_PROMPT_TOKENS, seed)
            done = self.decode(prompt, tokens)
            if done.clean and done.tokens > 2:
                found.append((done.tokens, prompt))
            if sum(length == tokens for length, _ in found) == count:
                break
        if not found:
            raise BadModel("the model ends every answer at once, so that there is nothing to measure")
        found.sort(key=lambda entry: -entry[0])
        return [found[n % len(found)][1] for n in range(count)]

    def _ask(self, **order: object) -> dict[str, Any]:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # reading tells why
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            self._process.stdin.flush()
        return self._read()

    def _read(self) -> dict[str, Any]:
        out = self._process.stdout
        assert out is not None
        if not select.select([out], [], [], _ANSWER_S)[0]:
            raise Unavailable(f"the bare loop did not answer within {_ANSWER_S:g} s", remedy="Use fewer tokens.")
        line = out.readline()
        if not line:
            raise BadModel(
                f"the bare loop ended with {self._process.wait(10)}", remedy="`outpost models verify` checks the file."
            )
        reply: dict[str, Any] = json.loads(line)
        if "error" in reply:
            raise BadModel(reply["error"])
        return reply


@contextlib.contextmanager
def yardstick(model: Path, threads: int, tokens: int) -> Iterator[Yardstick]:
    """Start the process; answers have up to ``tokens`` tokens. Raises BadModel, Unavailable."""
    context = tokens + _PROMPT_TOKENS + 64
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "agent.cli.bench_raw", str(model), str(threads), str(context)],
        env=sandbox.environment(os.environ),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        bufsize=0,
    )
    try:
        yield Yardstick(process)
    finally:
        process.kill()
        process.wait()


# ---------------------------------------------------------------- in the process


class _Loop:
    """One model with one bare context. Raises BadModel."""

    def __init__(self, path: Path, threads: int, context: int) -> None:
        import llama_cpp.llama_cpp as lib

        from agent.engines.llama import Model, native_complaint

        self._lib = lib
        self._model = Model(path)
        params = lib.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch = context, _BATCH, _BATCH
        params.n_threads = params.n_threads_batch = threads
        params.no_perf = True
        self._context = lib.llama_init_from_model(self._model.handle, params)
        if not self._context:
            raise BadModel(f"no context of {context} tokens for {path.name}: {native_complaint()}")
        self._memory = lib.llama_get_memory(self._context)

    def facts(self) -> dict[str, Any]:
        model = self._model
        return {
            "parameters": model.parameters,
            "quantisation": model.quantisation,
            "context": model.n_ctx_train,
        }

    def text(self, tokens: int, seed: int) -> str:
        """At most ``tokens`` tokens of text, as near as whole words allow; different from the start for each seed."""
        words = random.Random(seed).choices(_WORDS, k=tokens)
        low, high = 1, tokens
        while low < high:
            middle = (low + high + 1) // 2
            fits = len(self._model.tokenize(" ".join(words[:middle]), special=False)) <= tokens
            low, high = (middle, high) if fits else (low, middle - 1)
        return " ".join(words[:low])

    def decode(self, prompt: str, tokens: int) -> dict[str, Any]:
        lib, model = self._lib, self._model
        lib.llama_memory_clear(self._memory, False)
        ids = model.tokenize(prompt, special=True).tolist()
        if model.adds_bos and ids[:1] != [model.bos]:
            ids.insert(0, model.bos)
        for start in range(0, len(ids), _BATCH):
            self._compute(ids[start : start + _BATCH])
        token = self._largest()
        clean = _is_text(model.piece(token))
        produced = 0
        started, cpu_started = time.perf_counter(), time.process_time()
        while not model.is_end(token):
            produced += 1
            if produced == tokens:
                break
            self._compute([token])
            token = self._largest()
        seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
        return {"tokens": produced, "seconds": seconds, "cpu_seconds": cpu_seconds, "clean": clean}

    def _compute(self, ids: Sequence[int]) -> None:
        array = (self._lib.llama_token * len(ids))(*ids)
        code = self._lib.llama_decode(self._context, self._lib.llama_batch_get_one(array, len(ids)))
        if code != 0:
            raise RuntimeError(f"decode ended with native code {code}")

    def _largest(self) -> int:
        import numpy

        pointer = self._lib.llama_get_logits_ith(self._context, -1)
        return int(numpy.ctypeslib.as_array(pointer, (self._model.n_vocab,)).argmax())


def _is_text(piece: bytes) -> bool:
    try:
        return bool(piece.decode("utf-8"))
    except UnicodeDecodeError:
        return False


def main(arguments: Sequence[str]) -> int:
    path, threads, context = Path(arguments[0]), int(arguments[1]), int(arguments[2])
    try:
        loop = _Loop(path, threads, context)
    except OutpostError as error:
        _say({"error": str(error)})
        return 1
    _say(loop.facts())
    for line in sys.stdin:
        order = json.loads(line)
        if order["op"] == "text":
            _say({"text": loop.text(order["tokens"], order["seed"])})
        else:
            _say(loop.decode(order["prompt"], order["tokens"]))
    return 0


def _say(reply: dict[str, Any]) -> None:
    print(json.dumps(reply), flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
