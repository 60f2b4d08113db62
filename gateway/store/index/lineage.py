"""What was made of what: manifests, the edges between them, and the leaves they were made from.

A part of the query index, filled from the leaves in their order and made again with it. It is
kept by what it leads from: whoever asks what came of a provider, a clause, a declaration or an
exchange finds it without reading a leaf.

* a *stage* is a manifest: of a dataset, a student or an export;
* an *edge* leads from a stage to one that it was made from, or whose weights it began as;
* a *mention* is something that a dataset's manifest names, and how many of its rows it reached;
* a *member* is a leaf that a dataset was made from, as bits of 65,536 leaves in a row;
* *derived* leads from a derivation's leaf to those that its rows were made from.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final

import msgspec

from gateway.ident import DeclarationId, Sha256
from gateway.store.index.chunks import (
    CHUNK,
    CHUNK_BYTES,
    Chunk,
    common,
    has_place,
    pack_chunk,
    unpack_chunk,
)
from gateway.store.index.places import STRETCH
from gateway.store.index.stages import StageFacts, StageKind, What

_STRETCHES: Final = CHUNK // STRETCH
_PAGE: Final = 1_000

Word = tuple[str, str | tuple[str, ...]]
"""A column of the index, and its value; or several, any of which will do."""

Bits = Callable[[str, str | tuple[str, ...], int, int], Mapping[int, int]]
"""Where a word of a role stands: its bits by stretch, from one stretch to another."""


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    """One stage as the index has it; without a leaf its manifest is only named by others."""

    id: int
    manifest: Sha256
    leaf: int | None = None
    kind: StageKind | None = None
    name: str = ""
    project: str | None = None
    declaration: DeclarationId | None = None
    purpose: str | None = None
    rows: int | None = None


# -- writing ------------------------------------------------------------------------------


def take_stage(connection: sqlite3.Connection, facts: StageFacts, leaf: int) -> None:
    """Take a manifest in; the first leaf with a payload is the one that counts."""
    stage = _id_of(connection, facts.manifest)
    connection.execute(
        "UPDATE stage SET leaf = ?, kind = ?, name = ?, project = ?, declaration = ?,"
        " purpose = ?, rows = ?, members = ? WHERE id = ? AND leaf IS NULL",
        (
            leaf,
            facts.kind,
            facts.name,
            facts.project,
            facts.declaration,
            facts.purpose,
            facts.rows,
            facts.members,
            stage,
        ),
    )
    connection.executemany(
        "INSERT INTO edge VALUES (?, ?) ON CONFLICT DO NOTHING",
        [(stage, _id_of(connection, parent)) for parent in facts.parents],
    )
    connection.executemany(
        "INSERT INTO mention VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
        [(what, value, stage, rows) for what, value, rows in facts.mentions],
    )
    # Whoever began as what has a student's weights began as that student, in whichever order
    # the two came into the log.
    same = "FROM mention WHERE what = ? AND value = ? AND stage <> ? ON CONFLICT DO NOTHING"
    for weights in facts.began:
        connection.execute(
            f"INSERT INTO edge SELECT ?, stage {same}",
            (stage, "weights", weights, stage),
        )
    if facts.weights is not None:
        connection.execute(
            f"INSERT INTO edge SELECT stage, ? {same}",
            (stage, "began", facts.weights, stage),
        )


def take_members(connection: sqlite3.Connection, chunk: Chunk) -> None:
    """Take members in; those that come after their manifest count for nothing."""
    stage = _id_of(connection, chunk.manifest)
    (leaf,) = connection.execute("SELECT leaf FROM stage WHERE id = ?", (stage,)).fetchone()
    if leaf is not None:
        return
    known = connection.execute(
        "SELECT bits FROM member WHERE chunk = ? AND stage = ?", (chunk.number, stage)
    ).fetchone()
    bits = chunk.bits
    if known is not None:
        both = int.from_bytes(unpack_chunk(known[0]), "little") | int.from_bytes(bits, "little")
        bits = both.to_bytes(CHUNK_BYTES, "little")
    count, kept = pack_chunk(bits)
    connection.execute(
        "INSERT INTO member VALUES (?, ?, ?, ?) ON CONFLICT (chunk, stage)"
        " DO UPDATE SET count = excluded.count, bits = excluded.bits",
        (chunk.number, stage, count, kept),
    )


def take_derived(connection: sqlite3.Connection, leaf: int, parents: Iterable[int]) -> None:
    """Take in what the rows of the derivation at *leaf* were made from."""
    connection.executemany(
        "INSERT INTO derived VALUES (?, ?) ON CONFLICT DO NOTHING",
        [(parent, leaf) for parent in parents],
    )


def take_answers(connection: sqlite3.Connection, answers: Mapping[Sha256, int]) -> None:
    """Count answers of students, by their training manifests."""
    connection.executemany(
        "INSERT INTO answered VALUES (?, ?) ON CONFLICT (manifest)"
        " DO UPDATE SET count = count + excluded.count",
        list(answers.items()),
    )


def _id_of(connection: sqlite3.Connection, manifest: Sha256) -> int:
    known = connection.execute(
        "SELECT id FROM stage WHERE manifest = ?", (manifest,)
    ).fetchone()
    if known is None:
        made = connection.execute("INSERT INTO stage (manifest) VALUES (?)", (manifest,))
        return int(made.lastrowid or 0)
    return int(known[0])


# -- reading ------------------------------------------------------------------------------

_COLUMNS: Final = ", ".join(f"s.{name}" for name in Stage.__struct_fields__)


class Lineage:
    """Reads what the index knows of stages; any thread may ask."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        reading: Callable[[], AbstractContextManager[None]],
        bits: Bits,
    ) -> None:
        self._connection = connection
        self._reading = reading
        self._bits = bits

    def newest(self) -> int:
        """Return the highest leaf of a stage, -1 if there is none: it rises with each."""
        with self._reading():
            (leaf,) = self._connection.execute("SELECT max(leaf) FROM stage").fetchone()
        return -1 if leaf is None else int(leaf)

    def stage(self, manifest: Sha256) -> Stage | None:
        """Return the stage of that payload, though others may only name it; or `None`."""
        found = self._stages("WHERE s.manifest = ?", manifest)
        return found[0] if found else None

    def named(self, name: str) -> list[Stage]:
        """Return the datasets, students and exports of that name, oldest first."""
        return self._stages("WHERE s.name = ? AND s.leaf IS NOT NULL ORDER BY s.leaf", name)

    def stages(self) -> list[Stage]:
        """Return every stage that is a leaf, oldest first."""
        return self._stages("WHERE s.leaf IS NOT NULL ORDER BY s.leaf")

    def parents(self, stage: Stage) -> list[Stage]:
        """Return what *stage* was made from, one step up."""
        return self._step([stage], "parent", "child")

    def above(self, stage: Stage) -> list[Stage]:
        """Return *stage* and everything that it was made from, the nearest first."""
        return self._walk([stage], "parent", "child")

    def below(self, stages: Iterable[Stage]) -> list[Stage]:
        """Return *stages* and everything that was made from them, the nearest first."""
        return self._walk(stages, "child", "parent")

    def edges(self, stages: Iterable[Stage]) -> dict[int, list[int]]:
        """Return for each of *stages* the ids of what it was made from, one step up."""
        found: dict[int, list[int]] = {}
        with self._reading():
            for marks in _pages(stages):
                rows = self._connection.execute(
                    f"SELECT child, parent FROM edge WHERE child IN ({marks})"  # noqa: S608 — ids
                )
                for child, parent in rows:
                    found.setdefault(int(child), []).append(int(parent))
        return found

    def _walk(self, stages: Iterable[Stage], to: str, at: str) -> list[Stage]:
        found: dict[int, Stage] = {}
        waiting = {stage.id: stage for stage in stages}
        with self._reading():
            while waiting:
                found |= waiting
                further = self._step(waiting.values(), to, at)
                waiting = {one.id: one for one in further if one.id not in found}
        return list(found.values())

    def _step(self, stages: Iterable[Stage], to: str, at: str) -> list[Stage]:
        return [
            stage
            for marks in _pages(stages)
            for stage in self._stages(
                f"WHERE s.id IN (SELECT {to} FROM edge WHERE {at} IN ({marks}))"  # noqa: S608 — ids
                " ORDER BY s.leaf, s.id"
            )
        ]

    def mentioning(self, what: What, value: str) -> dict[int, tuple[Stage, int]]:
        """Return the stages that name *value*, and how many rows of each it reached."""
        with self._reading():
            rows = self._connection.execute(
                f"SELECT m.rows, {_COLUMNS} FROM mention m JOIN stage s ON s.id = m.stage"  # noqa: S608 — names of ours
                " WHERE m.what = ? AND m.value = ? AND s.leaf IS NOT NULL ORDER BY s.leaf",
                (what, value),
            ).fetchall()
        return {row[1]: (_stage(row[1:]), int(row[0])) for row in rows}

    def students_with(self, weights: Sha256) -> list[Sha256]:
        """Return the training manifests of the students with these weights, oldest first."""
        return [stage.manifest for stage, _ in self.mentioning("weights", weights).values()]

    def mentions(self, stage: Stage, *what: What) -> list[tuple[What, str, int]]:
        """Return what *stage* names, each with the rows that it reached."""
        return self.mentions_of([stage], *what).get(stage.id, [])

    def mentions_of(
        self, stages: Iterable[Stage], *what: What
    ) -> dict[int, list[tuple[What, str, int]]]:
        """Return for each of *stages* what it names, each with the rows that it reached."""
        found: dict[int, list[tuple[What, str, int]]] = {}
        kinds = ", ".join("?" for _ in what)
        with self._reading():
            for marks in _pages(stages):
                rows = self._connection.execute(
                    "SELECT stage, what, value, rows FROM mention"  # noqa: S608 — ids of ours
                    f" WHERE stage IN ({marks}) AND what IN ({kinds}) ORDER BY what, value",
                    what,
                )
                for stage, named, value, count in rows:
                    found.setdefault(int(stage), []).append((named, str(value), int(count)))
        return found

    def values(self, what: What) -> list[str]:
        """Return everything of a kind that some stage names, sorted."""
        with self._reading():
            rows = self._connection.execute(
                "SELECT DISTINCT value FROM mention WHERE what = ? ORDER BY value", (what,)
            ).fetchall()
        return [str(value) for (value,) in rows]

    def holding(self, leaf: int) -> list[Stage]:
        """Return the datasets that were made from the leaf at that index, oldest first."""
        with self._reading():
            rows = self._connection.execute(
                f"SELECT m.bits, {_COLUMNS} FROM member m JOIN stage s ON s.id = m.stage"  # noqa: S608
                " WHERE m.chunk = ? AND s.leaf IS NOT NULL ORDER BY s.leaf",
                (leaf // CHUNK,),
            ).fetchall()
        return [_stage(row[1:]) for row in rows if has_place(row[0], leaf % CHUNK)]

    def holds(self, stage: Stage, leaf: int) -> bool:
        """Tell whether *stage* is a dataset that was made from the leaf at that index."""
        with self._reading():
            row = self._connection.execute(
                "SELECT bits FROM member WHERE chunk = ? AND stage = ?",
                (leaf // CHUNK, stage.id),
            ).fetchone()
        return row is not None and has_place(row[0], leaf % CHUNK)

    def members(self, stage: Stage) -> int:
        """Return how many leaves *stage* was made from, as far as it says."""
        with self._reading():
            (count,) = self._connection.execute(
                "SELECT coalesce(sum(count), 0) FROM member WHERE stage = ?", (stage.id,)
            ).fetchone()
        return int(count)

    def without_members(self) -> list[Stage]:
        """Return the datasets of which no list, or not all of it, says their leaves."""
        return self._stages(
            "WHERE s.kind = 'dataset' AND s.leaf IS NOT NULL"
            " AND (SELECT coalesce(sum(m.count), 0) FROM member m WHERE m.stage = s.id)"
            " <> coalesce(s.members, -1) ORDER BY s.leaf"
        )

    def made_from(
        self, words: Iterable[Word], among: Iterable[Stage] | None = None
    ) -> dict[int, tuple[Stage, int]]:
        """Return the datasets made from leaves that have all of *words*, and how many each.

        A word is a column of the index and its value. Only chunks in which the words stand
        are looked at, and no leaf is.
        """
        found: Counter[int] = Counter()
        only = None if among is None else {stage.id for stage in among}
        with self._reading():
            for chunk, bits in self._chunks_of(list(words)):
                rows = [
                    (stage, kept)
                    for stage, kept in self._connection.execute(
                        "SELECT stage, bits FROM member WHERE chunk = ?", (chunk,)
                    )
                    if only is None or stage in only
                ]
                counts = common([kept for _, kept in rows], bits)
                for (stage, _), count in zip(rows, counts, strict=True):
                    found[stage] += count
            reached = [stage for stage, count in found.items() if count]
            known = {stage.id: stage for stage in self._by_ids(reached)}
        return {one: (known[one], found[one]) for one in reached if one in known}

    def chunks_with(self, words: Iterable[Word], size: int) -> list[tuple[int, bytes]]:
        """Return the chunks of the first *size* leaves where all *words* stand, as bits.

        The last chunk may hold leaves beyond those.
        """
        with self._reading():
            return list(self._chunks_before(list(words), -(-size // CHUNK) * _STRETCHES))

    def _chunks_of(self, words: Sequence[Word]) -> Iterator[tuple[int, bytes]]:
        """Yield each chunk of which a dataset has members and where all *words* stand."""
        (last,) = self._connection.execute("SELECT max(chunk) FROM member").fetchone()
        if last is not None:
            yield from self._chunks_before(words, (int(last) + 1) * _STRETCHES)

    def _chunks_before(self, words: Sequence[Word], stop: int) -> Iterator[tuple[int, bytes]]:
        """Yield each chunk up to a stretch where all *words* stand, as bits."""
        stretches: Mapping[int, int] | None = None
        for role, value in words:
            have = self._bits(role, value, 0, stop)
            if stretches is None:
                stretches = have
            else:
                both = ((one, bits & have.get(one, 0)) for one, bits in stretches.items())
                stretches = {one: bits for one, bits in both if bits}
        chunks: dict[int, bytearray] = {}
        for one, bits in sorted((stretches or {}).items()):
            chunk, at = divmod(one, _STRETCHES)
            room = chunks.setdefault(chunk, bytearray(CHUNK_BYTES))
            start = at * STRETCH // 8
            room[start : start + STRETCH // 8] = bits.to_bytes(STRETCH // 8, "little")
        for chunk, room in chunks.items():
            yield chunk, bytes(room)

    def derived_from(self, leaf: int) -> list[int]:
        """Return the leaves of every derivation below the leaf at that index, rising."""
        seen: set[int] = set()
        waiting = [leaf]
        with self._reading():
            while waiting:
                rows = self._connection.execute(
                    "SELECT child FROM derived WHERE parent = ?", (waiting.pop(),)
                ).fetchall()
                new = {int(child) for (child,) in rows} - seen
                seen |= new
                waiting += new
        return sorted(seen)

    def answers(self, manifest: Sha256) -> int:
        """Return how many answers of the student with that training manifest are receipted."""
        with self._reading():
            row = self._connection.execute(
                "SELECT count FROM answered WHERE manifest = ?", (manifest,)
            ).fetchone()
        return 0 if row is None else int(row[0])

    def answers_of(self, stages: Iterable[Stage]) -> dict[int, int]:
        """Return for each of *stages* that answered how many answers are receipted."""
        found: dict[int, int] = {}
        with self._reading():
            for marks in _pages(stages):
                rows = self._connection.execute(
                    "SELECT s.id, a.count FROM stage s JOIN answered a"  # noqa: S608 — ids
                    f" ON a.manifest = s.manifest WHERE s.id IN ({marks})"
                )
                found |= {int(stage): int(count) for stage, count in rows}
        return found

    def _by_ids(self, ids: Iterable[int]) -> list[Stage]:
        marks = ", ".join(map(str, ids))
        return self._stages(f"WHERE s.id IN ({marks}) AND s.leaf IS NOT NULL ORDER BY s.leaf")

    def _stages(self, where: str, *values: object) -> list[Stage]:
        with self._reading():
            rows = self._connection.execute(
                f"SELECT {_COLUMNS} FROM stage s {where}",  # noqa: S608 — ours
                values,
            ).fetchall()
        return [_stage(row) for row in rows]


def _pages(stages: Iterable[Stage]) -> Iterator[str]:
    """Yield the ids of *stages* as they stand in a question, some at a time."""
    ids = sorted({stage.id for stage in stages})
    for at in range(0, len(ids), _PAGE):
        yield ", ".join(map(str, ids[at : at + _PAGE]))


def _stage(row: Sequence[Any]) -> Stage:
    known = dict(zip(Stage.__struct_fields__, row, strict=True))
    known["name"] = known["name"] or ""
    return Stage(**known)
