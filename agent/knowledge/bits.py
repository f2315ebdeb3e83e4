"""The bit index: sqlite-vec's vec0 table of the vectors' signs, which picks candidates in a large collection.

It is made from the ordinary table ``vectors`` and can be made anew from it at any time. A row's id packs chunk, kind
and position. Rows are spread over shards, so that a search can learn from one shard how near the wanted share lies.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import apsw

from agent.knowledge.schema import rows
from agent.knowledge.vectors import Kind

CANDIDATES = 1200
"""How many vectors of a kind `nearest` picks, about: signs alone order the nearest ones badly."""
TIDY_EVERY = 256
"""Removed documents between two looks at how full the index is."""
MAX_POSITIONS = 1 << 12

_KIND_SHIFT = 12
_CHUNK_SHIFT = 13
_SHARDS = 8
_SPARE_SLOTS = 64 * 1024
_BLOCK = 1024

KEY = f"(chunk << {_CHUNK_SHIFT}) | (kind << {_KIND_SHIFT}) | position"
SEARCHED = f"kind IN ({Kind.PARAGRAPH:d}, {Kind.PAIR:d})"
"""The kinds that search looks for; the others are only read for what it found."""


def make(db: apsw.Connection, dim: int) -> None:
    """The empty index for vectors of ``dim`` numbers."""
    db.execute(
        "CREATE VIRTUAL TABLE bits USING vec0 (collection INTEGER PARTITION KEY, kind INTEGER PARTITION KEY,"
        f" shard INTEGER PARTITION KEY, code bit[{dim:d}])"
    )


def add(db: apsw.Connection, where: str, values: Sequence[Any]) -> None:
    """Index the rows of ``vectors`` that a condition names."""
    db.execute(
        "INSERT INTO bits (rowid, collection, kind, shard, code)"
        f" SELECT {KEY}, collection, kind, (chunk + position) % {_SHARDS}, vec_quantize_binary(vec_int8(vector))"
        f" FROM vectors WHERE {SEARCHED} AND {where}",
        values,
    )


def remove(db: apsw.Connection, collection: int, chunk: int) -> None:
    """Take a chunk out, while its rows are still in ``vectors``."""
    keys = db.execute(
        f"SELECT {KEY} FROM vectors WHERE collection = ? AND {SEARCHED} AND chunk = ?", (collection, chunk)
    ).fetchall()
    db.executemany("DELETE FROM bits WHERE rowid = ?", keys)


def nearest(
    db: apsw.Connection, collection: int, kind: Kind, code: bytes, within: str, values: Sequence[Any]
) -> list[int]:
    """The row ids of about CANDIDATES vectors whose signs differ least from those of the int8 vector ``code``.

    ``within`` is empty or ``AND ...`` with a condition on ``vectors``. vec0 takes time in proportion to k times the
    rows that pass, so one shard tells first how far the wanted share lies, and the search over all shards passes only
    what is nearer.
    """
    near = "SELECT rowid, distance FROM bits WHERE code MATCH vec_quantize_binary(vec_int8(?)) AND k = ?"
    near += f" AND collection = {collection:d} AND kind = {kind:d}"
    if within:
        near += (
            f" AND rowid IN (SELECT {KEY} FROM vectors WHERE collection = {collection:d} AND kind = {kind:d}{within})"
        )
    share = CANDIDATES // _SHARDS
    sample = rows(db, f"{near} AND shard = 0", (code, share, *values))
    farthest = sample[-1][1] if len(sample) == share else 8 * len(code)
    found = rows(db, f"{near} AND distance <= ?", (code, 2 * CANDIDATES, *values, farthest))
    return [key for key, _ in found]


def vectors(db: apsw.Connection, collection: int, kind: Kind, keys: Iterable[int]) -> list[tuple[Any, ...]]:
    """Chunk and int8 vector of the rows that `nearest` gave."""
    return rows(
        db,
        "SELECT v.chunk, v.vector FROM json_each(?) key CROSS JOIN vectors v ON v.collection = ? AND v.kind = ?"
        f" AND v.chunk = key.value >> {_CHUNK_SHIFT} AND v.position = key.value & {MAX_POSITIONS - 1}",
        (json.dumps(sorted(keys)), collection, int(kind)),
    )


def tidy(db: apsw.Connection, dim: int) -> None:
    """Make the index anew where it is mostly holes: vec0 gives a block back only when all of it is deleted, and a
    search reads every block."""
    slots = _BLOCK * int(db.execute("SELECT count(*) FROM bits_chunks").get)
    used = int(db.execute("SELECT count(*) FROM bits_rowids").get)
    if slots > 3 * used + _SPARE_SLOTS:
        db.execute("DROP TABLE bits")
        make(db, dim)
        add(db, "true", ())
