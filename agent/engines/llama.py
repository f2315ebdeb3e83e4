"""llama.cpp behind a thin typed layer: the only module that imports llama_cpp.

A `Model` is an opened GGUF file (facts, vocabulary, tokenizing); a `Context` is one KV cache with a reusable batch:
fill it with `add` and `add_run`, `decode` it, read `logits` rows. `Grammar` wraps the native grammar sampler, for
grammars that agent/engines/grammar.py wrote (a malformed one crashes the process).

Importing this module maps the native library, so engines import it in ``load``, after the CPU was checked. Nothing here
is safe to call from two threads. Native log lines go to a buffer; errors quote its end.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections import deque
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from agent.errors import BadModel, InvalidRequest

# Threads of a decode meet at hundreds of barriers. OpenMP spins there for milliseconds by default, which costs a
# factor of ten as soon as another process wants one of the cores; this short a spin costs nothing on a quiet machine
# (tests/benchmarks/figures/text_engine.md). OpenMP reads it when it is loaded, so it has to stand before the import.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

import llama_cpp.llama_cpp as lib

Tokens = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]

OK, NO_SLOT, ABORTED = 0, 1, 2
"""What `Context.decode` returns; negative numbers are native failures."""

_WARNING, _ERROR, _CONTINUED = 3, 4, 5  # ggml_log_level
_log: deque[str] = deque(maxlen=40)
_GGUF_HEADER = struct.Struct("<4sIQQ")
_GGUF_VERSIONS = (2, 3)


@lib.llama_log_callback  # type: ignore[untyped-decorator]
def _keep_log(level: int, text: bytes, _data: Any) -> None:
    if level in (_WARNING, _ERROR, _CONTINUED):
        _log.append(text.decode("utf-8", "replace").strip())


lib.llama_log_set(_keep_log, ctypes.c_void_p(0))
lib.llama_backend_init()


def native_complaint() -> str:
    """The last native warnings and errors, for quoting in an error message."""
    lines = [line for line in _log if len(line) > 1]
    return "; ".join(lines[-3:])


def check_header(path: Path) -> None:
    """Refuse what is plainly no GGUF file before native code sees it. Raises BadModel."""
    remedy = "Download the model again, or name a GGUF file."
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(_GGUF_HEADER.size)
    except OSError as error:
        raise BadModel(f"cannot read {path}: {error.strerror}", remedy="Check the path and its permissions.") from error
    if size == 0:
        raise BadModel(f"{path.name} is empty (0 bytes)", remedy=remedy)
    if head[:4] != b"GGUF":
        raise BadModel(f"{path.name} is not a GGUF file: it starts with {head[:4]!r}", remedy=remedy)
    if len(head) < _GGUF_HEADER.size:
        raise BadModel(f"{path.name} is truncated: {size} bytes", remedy=remedy)
    _, version, tensors, keys = _GGUF_HEADER.unpack(head)
    if version not in _GGUF_VERSIONS:
        raise BadModel(f"{path.name} has GGUF version {version}, known are {_GGUF_VERSIONS}", remedy=remedy)
    # A tensor's entry takes over 24 bytes and a key's over 13, so larger counts cannot be true of this file.
    if tensors * 24 + keys * 13 > size or tensors == 0:
        raise BadModel(
            f"{path.name} is corrupt: it claims {tensors} tensors and {keys} keys in {size} bytes", remedy=remedy
        )


@dataclass(frozen=True, slots=True)
class Control:
    """The tokens that steer a model: ``always`` are parsed as such only from template text, ``tags`` (user-defined
    tokens in the shape of markup) from any text, so that both have to be kept out of what users write."""

    always: tuple[str, ...]
    tags: tuple[str, ...]


class Model:
    """An opened GGUF file. Raises BadModel when llama.cpp refuses it or it generates no text."""

    def __init__(self, path: Path, *, extra_buffers: bool = True) -> None:
        check_header(path)
        _log.clear()
        params = lib.llama_model_default_params()
        params.n_gpu_layers = -1
        params.use_extra_bufts = extra_buffers
        handle = lib.llama_model_load_from_file(str(path).encode(), params)
        if not handle:
            raise BadModel(
                f"{path.name} cannot be loaded: {native_complaint() or 'llama.cpp gave no reason'}",
                remedy="Download the model again, or choose one that this llama.cpp knows.",
            )
        self.path = path
        self.handle = handle
        self.vocab = lib.llama_model_get_vocab(handle)
        self.n_vocab: int = lib.llama_vocab_n_tokens(self.vocab)
        self.bos: int = lib.llama_vocab_bos(self.vocab)
        self.eos: int = lib.llama_vocab_eos(self.vocab)
        self.adds_bos: bool = lib.llama_vocab_get_add_bos(self.vocab)
        self.splits: bool = not (lib.llama_model_is_recurrent(handle) or lib.llama_model_is_hybrid(handle))
        """Whether a sequence's tail may be cut off (recurrent state only knows whole sequences)."""
        self._pieces: dict[int, bytes] = {}
        self._eog: dict[int, bool] = {}
        if self.n_vocab <= 0 or not lib.llama_model_has_decoder(handle) or lib.llama_model_has_encoder(handle):
            self.close()
            raise BadModel(f"{path.name} is not a text generation model", remedy="Choose a decoder-only model.")

    def close(self) -> None:
        if self.handle:
            lib.llama_model_free(self.handle)
            self.handle = None

    # ---- facts

    def meta(self, key: str) -> str | None:
        """A metadata value as text (GGUF arrays come out abridged)."""
        size = 1024
        while True:
            buffer = ctypes.create_string_buffer(size)
            length = lib.llama_model_meta_val_str(self.handle, key.encode(), buffer, size)
            if length < 0:
                return None
            if length < size:
                return buffer.raw[:length].decode("utf-8", "replace")
            size = length + 1

    @property
    def architecture(self) -> str:
        return self.meta("general.architecture") or ""

    @property
    def name(self) -> str:
        return self.meta("general.name") or self.path.stem

    @property
    def parameters(self) -> int:
        return int(lib.llama_model_n_params(self.handle))

    @property
    def n_ctx_train(self) -> int:
        return int(lib.llama_model_n_ctx_train(self.handle))

    @property
    def quantisation(self) -> str:
        return (lib.llama_ftype_name(lib.llama_model_ftype(self.handle)) or b"").decode("utf-8", "replace")

    @property
    def chat_template(self) -> str | None:
        template = lib.llama_model_chat_template(self.handle, None)
        return template.decode("utf-8", "replace") if template else None

    @property
    def kv_bytes_per_token(self) -> int:
        """f16 keys and values of all layers (an upper bound for hybrid models)."""
        heads = lib.llama_model_n_head(self.handle) or 1
        head_dim = lib.llama_model_n_embd(self.handle) // heads
        key = int(self.meta(f"{self.architecture}.attention.key_length") or head_dim)
        value = int(self.meta(f"{self.architecture}.attention.value_length") or head_dim)
        layers, kv_heads = lib.llama_model_n_layer(self.handle), lib.llama_model_n_head_kv(self.handle)
        return int(layers * kv_heads * (key + value) * 2)

    # ---- vocabulary

    def tokenize(self, text: str, *, special: bool) -> Tokens:
        """Tokens of ``text``, without the model's own BOS; with ``special``, names of control tokens become them."""
        data = text.encode("utf-8")
        size = len(data) + 16
        buffer = np.empty(size, np.int32)
        pointer = buffer.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
        count = lib.llama_tokenize(self.vocab, data, len(data), pointer, size, False, special)
        if count < 0:
            raise InvalidRequest(f"the model's tokenizer refuses a text of {len(data)} bytes")
        return buffer[:count].copy()

    def piece(self, token: int) -> bytes:
        """The bytes that a token adds to the text; control tokens add none."""
        piece = self._pieces.get(token)
        if piece is None:
            piece = self._pieces[token] = self.spell(token)
        return piece

    def special_piece(self, token: int) -> str:
        """A token's name, control tokens included (``<|im_end|>``)."""
        return self.spell(token, special=True).decode("utf-8", "replace") if 0 <= token < self.n_vocab else ""

    def spell(self, token: int, *, special: bool = False) -> bytes:
        """`piece` without remembering it, for walks over the whole vocabulary."""
        size = 64
        while True:
            buffer = ctypes.create_string_buffer(size)
            length = lib.llama_token_to_piece(self.vocab, token, buffer, size, 0, special)
            if length >= 0:
                return buffer.raw[:length]
            size = -length

    def is_end(self, token: int) -> bool:
        known = self._eog.get(token)
        if known is None:
            known = self._eog[token] = lib.llama_vocab_is_eog(self.vocab, token)
        return known

    @cached_property
    def control(self) -> Control:
        """Every control token by name. Walks the vocabulary once."""
        always: list[str] = []
        tags: list[str] = []
        get_attr = lib.llama_vocab_get_attr
        steering = lib.LLAMA_TOKEN_ATTR_CONTROL | lib.LLAMA_TOKEN_ATTR_UNKNOWN
        for token in range(self.n_vocab):
            attr = get_attr(self.vocab, token)
            if attr & (steering | lib.LLAMA_TOKEN_ATTR_USER_DEFINED):
                name = self.special_piece(token)
                if len(name) > 1:
                    (always if attr & steering else tags).append(name)
        return Control(tuple(always), tuple(tags))


class Context:
    """One KV cache of ``cells`` shared by up to ``sequences`` sequence ids, and one batch of up to ``batch`` tokens."""

    def __init__(self, model: Model, *, cells: int, sequences: int, batch: int, threads: int) -> None:
        params = lib.llama_context_default_params()
        params.n_ctx = cells
        params.n_batch = batch
        params.n_ubatch = batch
        params.n_seq_max = sequences
        params.n_threads = threads
        params.n_threads_batch = threads
        params.kv_unified = True
        params.swa_full = True  # a sliding window would forget the prefixes that sequences share
        params.no_perf = True
        handle = lib.llama_init_from_model(model.handle, params)
        if not handle:
            raise BadModel(f"no context of {cells} tokens for {model.path.name}: {native_complaint()}")
        memory = lib.llama_get_memory(handle)
        if not memory:
            lib.llama_free(handle)
            raise BadModel(f"{model.path.name} is not a text generation model", remedy="Choose a decoder-only model.")
        self.handle = handle
        self.cells = int(lib.llama_n_ctx(handle))
        self.size = 0
        self._memory = memory
        self._n_vocab = model.n_vocab
        self._rows: dict[int, Floats] = {}
        self._tokens = np.zeros(batch, np.int32)
        self._pos = np.zeros(batch, np.int32)
        self._seq = np.zeros(batch, np.int32)
        self._wanted = np.zeros(batch, np.int8)
        self._ones = np.ones(batch, np.int32)
        # The batch wants one pointer a token to its list of sequence ids; they all stay where they are.
        self._seq_pointers = self._seq.ctypes.data + 4 * np.arange(batch, dtype=np.uint64)
        self._batch = lib.llama_batch(
            0,
            self._tokens.ctypes.data_as(ctypes.POINTER(ctypes.c_int32)),
            None,
            self._pos.ctypes.data_as(ctypes.POINTER(ctypes.c_int32)),
            self._ones.ctypes.data_as(ctypes.POINTER(ctypes.c_int32)),
            self._seq_pointers.ctypes.data_as(ctypes.POINTER(ctypes.POINTER(ctypes.c_int32))),
            self._wanted.ctypes.data_as(ctypes.POINTER(ctypes.c_int8)),
        )

    def close(self) -> None:
        if self.handle:
            lib.llama_free(self.handle)
            self.handle = None

    # ---- batch

    def add(self, token: int, position: int, sequence: int) -> int:
        """One token whose logits are wanted; returns its place, for `logits`."""
        place = self.size
        self._tokens[place] = token
        self._pos[place] = position
        self._seq[place] = sequence
        self._wanted[place] = 1
        self.size = place + 1
        return place

    def add_run(self, tokens: Tokens, position: int, sequence: int, *, want_last: bool) -> int:
        """A run of prompt tokens; returns the place of the last."""
        start, end = self.size, self.size + len(tokens)
        self._tokens[start:end] = tokens
        self._pos[start:end] = np.arange(position, position + len(tokens), dtype=np.int32)
        self._seq[start:end] = sequence
        self._wanted[start:end] = 0
        self._wanted[end - 1] = want_last
        self.size = end
        return end - 1

    def decode(self) -> int:
        """Compute the batch and empty it. On NO_SLOT the cache is as it was before."""
        self._batch.n_tokens = self.size
        self.size = 0
        return int(lib.llama_decode(self.handle, self._batch))

    def logits(self, place: int) -> Floats:
        """The row of the token at ``place`` of the last batch: a view that the next `decode` overwrites."""
        pointer = lib.llama_get_logits_ith(self.handle, place)
        address = ctypes.cast(pointer, ctypes.c_void_p).value
        if not address:
            raise BadModel(f"llama.cpp has no logits for token {place} of the batch")
        row = self._rows.get(address)
        if row is None:
            if len(self._rows) > 1024:  # the native buffer moved often
                self._rows.clear()
            row = self._rows[address] = np.ctypeslib.as_array(pointer, (self._n_vocab,))
        return row

    # ---- memory

    def share(self, source: int, target: int, length: int) -> None:
        """Let ``target`` hold the first ``length`` cells of ``source`` too; nothing is copied."""
        lib.llama_memory_seq_cp(self._memory, source, target, 0, length)

    def drop(self, sequence: int) -> None:
        """Free the cells that only ``sequence`` holds."""
        lib.llama_memory_seq_rm(self._memory, sequence, -1, -1)

    def clear(self) -> None:
        lib.llama_memory_clear(self._memory, False)


_CANDIDATE = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])


class Grammar:
    """The state of one constrained output. ``text`` must come from agent/engines/grammar.py."""

    def __init__(self, model: Model, text: str) -> None:
        _log.clear()
        self._sampler = lib.llama_sampler_init_grammar(model.vocab, text.encode("utf-8"), b"root")
        if not self._sampler:
            raise InvalidRequest(f"the schema is too complex: {native_complaint()}", param="json_schema")

    def allowed(self, ids: Tokens) -> npt.NDArray[np.bool_]:
        """Which of the tokens may come next."""
        candidates = np.zeros(len(ids), _CANDIDATE)
        candidates["id"] = ids
        array = lib.llama_token_data_array(
            candidates.ctypes.data_as(ctypes.POINTER(lib.llama_token_data)), len(ids), -1, False
        )
        lib.llama_sampler_apply(self._sampler, ctypes.byref(array))
        fits: npt.NDArray[np.bool_] = np.isfinite(candidates["logit"])
        return fits

    def accept(self, token: int) -> None:
        """Advance over a token that `allowed` allowed; any other ends the process."""
        lib.llama_sampler_accept(self._sampler, token)

    def close(self) -> None:
        if self._sampler:
            lib.llama_sampler_free(self._sampler)
            self._sampler = None
