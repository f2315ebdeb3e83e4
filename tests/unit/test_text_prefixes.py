"""The book-keeping of cells and prefixes against a plain model of it."""

from __future__ import annotations

import random

import numpy as np
import pytest

from agent.engines.prefixes import Cells, Sequence, common_prefix


def tokens(*values: int) -> np.ndarray:
    return np.array(values, np.int32)


def opened(cells: Cells, *values: int, source: Sequence | None = None, length: int = 0) -> Sequence:
    sequence = cells.open(source, length)
    cells.extend(sequence, values)
    return sequence


def test_a_shared_prefix_takes_cells_once() -> None:
    cells = Cells(100, 4, 50)
    first = opened(cells, 1, 2, 3, 4)
    source, length = cells.best_source(tokens(1, 2, 3, 9, 9), whole_only=False)
    assert (source, length) == (first, 3)
    second = opened(cells, 9, 9, source=source, length=length)
    assert cells.used == 6
    cells.release(first)
    assert cells.used == 5
    cells.release(second)
    assert cells.used == 0


def test_the_last_prompt_token_is_never_shared() -> None:
    cells = Cells(100, 4, 50)
    opened(cells, 1, 2, 3)
    assert cells.best_source(tokens(1, 2, 3), whole_only=False)[1] == 2
    assert cells.best_source(tokens(1), whole_only=False) == (None, 0)


def test_models_that_cannot_cut_share_whole_sequences_only() -> None:
    cells = Cells(100, 4, 50)
    opened(cells, 1, 2, 3)
    assert cells.best_source(tokens(1, 2, 9, 9), whole_only=True) == (None, 0)
    assert cells.best_source(tokens(1, 2, 3, 9), whole_only=True)[1] == 3


def test_least_recently_used_comes_first() -> None:
    cells = Cells(100, 4, 50)
    first, second = opened(cells, 1), opened(cells, 2)
    first.active = second.active = False
    assert cells.cached == [first, second]
    cells.touch(first)
    assert cells.cached == [second, first]


def test_a_cached_sequence_inside_another_is_redundant() -> None:
    cells = Cells(100, 4, 50)
    short, other = opened(cells, 1, 2), opened(cells, 1, 3)
    short.active = other.active = False
    long = opened(cells, 1, 2, 3)
    assert cells.redundant(long) == [short]


def test_common_prefix_of_nothing_is_nothing() -> None:
    assert common_prefix(tokens(), tokens(1)) == 0
    assert common_prefix(tokens(1, 2), tokens(1, 2, 3)) == 2


@pytest.mark.parametrize("seed", range(20))
def test_counts_agree_with_sets(seed: int) -> None:
    """Random opens, growth and releases; the model is one set of holders a cell."""
    pick = random.Random(seed)
    cells = Cells(200, 12, 60)
    model: dict[int, list[object]] = {}
    for _ in range(300):
        action = pick.random()
        if action < 0.4 and cells.has_id():
            prompt = tokens(*(pick.randrange(2) for _ in range(pick.randint(2, 12))))
            source, length = cells.best_source(prompt, whole_only=False)
            if cells.free < len(prompt) - length:
                continue
            shared = model[source.id][:length] if source else []
            sequence = opened(cells, *prompt[length:].tolist(), source=source, length=length)
            assert sequence.tokens[: sequence.length].tolist() == prompt.tolist()
            model[sequence.id] = [*shared, *(object() for _ in prompt[length:])]
            sequence.active = pick.random() < 0.5
        elif action < 0.7 and model:
            sequence = cells.sequences[pick.choice(list(model))]
            if cells.free and sequence.length < 60:
                cells.append(sequence, pick.randrange(2))
                model[sequence.id].append(object())
        elif model:
            sequence = cells.sequences[pick.choice(list(model))]
            cells.release(sequence)
            del model[sequence.id]
        assert cells.used == len({cell for held in model.values() for cell in held})
        active = [model[s.id] for s in cells.sequences.values() if s.active]
        assert cells.reserved() == len({cell for held in active for cell in held})
    for sequence in list(cells.sequences.values()):
        cells.release(sequence)
    assert cells.free == 200
