"""Which sequence holds which KV cells: sharing, counting and evicting. Pure book-keeping, no native calls.

Every sequence is a run of tokens from position 0. A new one takes over the longest common prefix of any other by
holding the same cells; a cell is free again when its last holder is released. Finished sequences stay as cached
prefixes until the least recently used of them has to give its cells back. llama.cpp counts alike for a unified cache,
so the numbers here are its numbers.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

Tokens = npt.NDArray[np.int32]


class Sequence:
    """Tokens that lie (or are about to lie) in the cache under one native sequence id."""

    __slots__ = ("active", "cells", "id", "keep", "length", "tokens", "used")

    def __init__(self, id: int, capacity: int) -> None:
        self.id = id
        self.tokens: Tokens = np.empty(capacity, np.int32)
        self.cells: Tokens = np.empty(capacity, np.int32)
        self.length = 0
        self.active = True
        self.keep = True
        """Whether it may stay as a cached prefix when its request ends."""
        self.used = 0

    def common(self, prompt: Tokens) -> int:
        """Length of the longest common prefix with ``prompt``."""
        return common_prefix(self.tokens[: self.length], prompt)


def common_prefix(left: Tokens, right: Tokens) -> int:
    count = min(len(left), len(right))
    differs = left[:count] != right[:count]
    return int(differs.argmax()) if differs.any() else count


class Cells:
    """The budget of ``capacity`` cells and ``ids`` sequence ids; a sequence holds ``context`` tokens at most."""

    def __init__(self, capacity: int, ids: int, context: int) -> None:
        self.capacity = capacity
        self._context = context
        self._holders = np.zeros(capacity, np.int32)
        self._free = list(range(capacity - 1, -1, -1))
        self._ids = list(range(ids - 1, -1, -1))
        self._clock = 0
        self.sequences: dict[int, Sequence] = {}

    @property
    def used(self) -> int:
        return self.capacity - len(self._free)

    @property
    def cached(self) -> list[Sequence]:
        """Sequences that no request uses, least recently used first."""
        return sorted((s for s in self.sequences.values() if not s.active), key=lambda s: s.used)

    def reserved(self, extra: Tokens | None = None) -> int:
        """Cells that active sequences hold, ``extra`` cells included."""
        held = np.zeros(self.capacity, np.bool_)
        for sequence in self.sequences.values():
            if sequence.active:
                held[sequence.cells[: sequence.length]] = True
        if extra is not None:
            held[extra] = True
        return int(np.count_nonzero(held))

    def best_source(self, prompt: Tokens, *, whole_only: bool) -> tuple[Sequence | None, int]:
        """The sequence with the longest prefix in common, and how many of its cells may be shared.

        The last prompt token is never shared: its logits are wanted. ``whole_only`` is for models whose state cannot
        be cut, so that only a sequence which is a prefix as a whole will do.
        """
        best: Sequence | None = None
        length = 0
        for sequence in self.sequences.values():
            common = min(sequence.common(prompt), len(prompt) - 1)
            if whole_only and common < sequence.length:
                continue
            if common > length:
                best, length = sequence, common
        return best, length

    def has_id(self) -> bool:
        return bool(self._ids)

    def open(self, source: Sequence | None = None, length: int = 0) -> Sequence:
        """A new active sequence that holds the first ``length`` cells of ``source`` too."""
        sequence = Sequence(self._ids.pop(), self._context)
        if source is not None:
            sequence.tokens[:length] = source.tokens[:length]
            sequence.cells[:length] = source.cells[:length]
            self._holders[source.cells[:length]] += 1
            sequence.length = length
            self.touch(source)
        self.sequences[sequence.id] = sequence
        self.touch(sequence)
        return sequence

    def touch(self, sequence: Sequence) -> None:
        self._clock += 1
        sequence.used = self._clock

    @property
    def free(self) -> int:
        return len(self._free)

    def append(self, sequence: Sequence, token: int) -> None:
        cell = self._free.pop()
        sequence.tokens[sequence.length] = token
        sequence.cells[sequence.length] = cell
        self._holders[cell] = 1
        sequence.length += 1

    def extend(self, sequence: Sequence, tokens: Iterable[int]) -> None:
        for token in tokens:
            self.append(sequence, token)

    def release(self, sequence: Sequence) -> None:
        """Forget the sequence; cells without another holder are free again."""
        cells = sequence.cells[: sequence.length]
        self._holders[cells] -= 1
        self._free.extend(cells[self._holders[cells] == 0].tolist())
        del self.sequences[sequence.id]
        self._ids.append(sequence.id)

    def redundant(self, sequence: Sequence) -> list[Sequence]:
        """Cached sequences that ``sequence`` holds whole: they take an id and save nothing."""
        return [
            other
            for other in self.sequences.values()
            if not other.active
            and other is not sequence
            and other.length <= sequence.length
            and other.common(sequence.tokens[: sequence.length]) == other.length
        ]
