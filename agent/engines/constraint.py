"""One answer held to a JSON schema: the native grammar, and valid UTF-8, which the native grammar does not watch.

A vocabulary with byte tokens can spell half a character and go on with a quote; the native grammar would take the quote
for the character's second half. So a token is allowed only if the bytes so far stay valid UTF-8.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from agent.engines.grammar import compile_schema
from agent.engines.llama import Grammar, Model

Tokens = npt.NDArray[np.int32]

WHOLE, CUT, REST, BROKEN = 0, 1, 2, 3
"""A token's bytes: whole characters; a last one unfinished; begins with the rest of one; never valid."""


def utf8_kind(data: bytes) -> int:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.reason == "unexpected end of data":
            return CUT
        return REST if error.start == 0 and 0x80 <= data[0] < 0xC0 else BROKEN
    return WHOLE


class Vocabulary:
    """What the bytes of every token are, computed once a model."""

    def __init__(self, model: Model) -> None:
        pieces = [model.spell(token) for token in range(model.n_vocab)]
        self.kinds = np.array([utf8_kind(piece) for piece in pieces], np.int8)
        # A control token adds no bytes, so a constrained answer could repeat it for ever; only an end may come.
        silent = [not piece and not model.is_end(token) for token, piece in enumerate(pieces)]
        self.starts = (self.kinds <= CUT) & ~np.array(silent)


class Constraint:
    """`allowed` and `accept` for one answer. Raises InvalidRequest for a schema that cannot be enforced."""

    def __init__(self, model: Model, vocabulary: Vocabulary, schema: str) -> None:
        self._grammar = Grammar(model, compile_schema(schema))
        self._model = model
        self._vocabulary = vocabulary
        self._pending = b""

    def allowed(self, ids: Tokens) -> npt.NDArray[np.bool_]:
        """Which of the tokens may come next."""
        fits = self._grammar.allowed(ids)
        if not self._pending:
            starts: npt.NDArray[np.bool_] = self._vocabulary.starts[ids]
            return fits & starts
        fits &= self._vocabulary.kinds[ids] == REST
        for place in np.flatnonzero(fits):
            fits[place] = utf8_kind(self._pending + self._model.piece(int(ids[place]))) <= CUT
        return fits

    def accept(self, token: int) -> None:
        self._grammar.accept(token)
        data = self._pending + self._model.piece(token)
        self._pending = data[-_unfinished(data) :] if utf8_kind(data) == CUT else b""

    def close(self) -> None:
        self._grammar.close()


def _unfinished(data: bytes) -> int:
    """Length of the unfinished character at the end."""
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        return len(data) - error.start
    return 0
