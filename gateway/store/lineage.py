"""What was made of what: manifests, the edges between them, and the leaves they were made from.

A part of the query index, filled from the leaves in their order and made again with it. It is
kept by what it leads from: whoever asks what came of a provider, a clause, a declaration or an
exchange finds it without reading a leaf.

* a *stage* is a manifest: of a dataset, a student or an export;
* an *edge* leads from a stage to one that it was made from;
* a *mention* is something that a dataset's manifest names, and how many of its rows it reached;
* a *member* is a leaf that a dataset was made from, as bits of 65,536 leaves in a row;
* *derived* leads from a derivation's leaf to those that its rows were made from.

What a manifest says is taken at its word here, for searching; whoever decides by it reads the
manifest itself.
"""

from __future__ import annotations

import base64
import binascii
import sqlite3
import struct
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final, Literal, cast

import msgspec

from gateway.ident import DeclarationId, Sha256
from gateway.receipt.model import (
    DATASET_BUILD,
    EXPORT_BUILD,
    TRAINING_BUILD,
    Derivation,
    Manifest,
    Members,
)
from gateway.store.places import STRETCH

StageKind = Literal["dataset", "student", "export"]

CHUNK: Final = 65_536
"""Leaves in a row whose members are kept together."""

STRETCHES: Final = CHUNK // STRETCH
_CHUNK_BYTES: Final = CHUNK // 8
_SPARSE_MAX: Final = _CHUNK_BYTES // 2 - 1
"""Up to so many places are kept one by one, two bytes each; more as bits."""

KIND_OF: Final[dict[str, StageKind]] = {
    DATASET_BUILD: "dataset",
    TRAINING_BUILD: "student",
    EXPORT_BUILD: "export",
}
PARENTS: Final = frozenset({"dataset-manifest", "training-manifest"})
"""The kinds of dependency that a stage was made from; a feed's previous snapshot is none."""

What = Literal[
    "provider",
    "model",
    "policy",
    "pin",
    "clause",
    "declaration",
    "agreement",
    "verdict",
    "student",
    "transform",
    "author",
    "base",
]
"""What can be mentioned: `pin` is a policy's version, as `policy:version`; `student` the
training manifest of a teacher that is a student of ours; `author` who wrote rows themselves;
`base` a model from outside."""

_FEW: Final = 2_048
"""So few places are looked at without numpy."""

_PAGE: Final = 1_000

Bits = Callable[[str, str, int, int], Mapping[int, int]]
"""Where a word of a role stands: its bits by stretch, from one stretch to another."""


class StageFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a manifest says of itself, as far as it can be read."""

    manifest: Sha256
    kind: StageKind
    name: str
    project: str | None = None
    declaration: DeclarationId | None = None
    purpose: str | None = None
    rows: int | None = None
    members: int | None = None
    """Of a dataset: how many leaves it says that it was made from."""
    parents: tuple[Sha256, ...] = ()
    mentions: tuple[tuple[What, str, int], ...] = ()


class Chunk(msgspec.Struct, frozen=True, kw_only=True):
    """Members of a dataset among the leaves of one chunk."""

    manifest: Sha256
    number: int
    bits: bytes
    """Of each byte the lowest first."""


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


TABLES: Final = ("stage", "edge", "mention", "member", "derived", "answered")

SCHEMA: Final = (
    (
        "CREATE TABLE stage (id INTEGER PRIMARY KEY, manifest TEXT NOT NULL UNIQUE,"
        " leaf INTEGER, kind TEXT, name TEXT, project TEXT, declaration TEXT, purpose TEXT,"
        " rows INTEGER) STRICT"
    ),
    "CREATE INDEX stage_by_name ON stage (name)",
    "CREATE INDEX stage_by_leaf ON stage (leaf)",
    (
        "CREATE TABLE edge (child INTEGER, parent INTEGER, PRIMARY KEY (child, parent))"
        " STRICT, WITHOUT ROWID"
    ),
    "CREATE INDEX edge_down ON edge (parent, child)",
    (
        "CREATE TABLE mention (what TEXT, value TEXT, stage INTEGER, rows INTEGER,"
        " PRIMARY KEY (what, value, stage)) STRICT, WITHOUT ROWID"
    ),
    "CREATE INDEX mention_of ON mention (stage)",
    # Bits are long: they stand beside the keys, not in them.
    "CREATE TABLE member (chunk INTEGER, stage INTEGER, count INTEGER, bits BLOB) STRICT",
    "CREATE UNIQUE INDEX member_place ON member (chunk, stage)",
    "CREATE INDEX member_of ON member (stage, chunk)",
    (
        "CREATE TABLE derived (parent INTEGER, child INTEGER, PRIMARY KEY (parent, child))"
        " STRICT, WITHOUT ROWID"
    ),
    "CREATE TABLE answered (manifest TEXT PRIMARY KEY, count INTEGER) STRICT, WITHOUT ROWID",
)

# -- what leaves say ----------------------------------------------------------------------


def stage_of(manifest: Manifest) -> StageFacts | None:
    """Return what *manifest* says of itself; `None` if it is none that stands for a stage."""
    kind = KIND_OF.get(manifest.build_type)
    if kind is None:
        return None
    build = _dict(_dict(manifest.statement.get("predicate")).get("buildDefinition"))
    asked, found = (
        _dict(build.get("externalParameters")),
        _dict(build.get("internalParameters")),
    )
    parents: dict[Sha256, None] = {}
    mentions: Counter[tuple[What, str]] = Counter()
    for entry in _dicts(build.get("resolvedDependencies")):
        named = _dict(entry.get("annotations")).get("kind")
        digest = _text(_dict(entry.get("digest")).get("sha256"))
        if named in PARENTS and digest:
            parents[Sha256(digest)] = None
        elif named == "base-model":
            mentions["base", _text(entry.get("name")).removeprefix("base:")] += 1
    rows = _count(found.get("rows", _dict(found.get("snapshot")).get("rows")))
    declared = [_text(asked.get("declaration")), *_texts(asked.get("declarations"))]
    for one in filter(None, declared):
        mentions["declaration", one] = rows or 0
    if kind == "dataset":
        for teacher in _dicts(found.get("teachers")):
            if student := _text(teacher.get("manifest")):
                parents[Sha256(student)] = None
            for mention in _mentions_of(teacher):
                mentions[mention] += _count(teacher.get("rows")) or 0
        for made in _dicts(found.get("madeBy")):
            mentions["transform", _text(made.get("name"))] += _count(made.get("rows")) or 0
        for written in _dicts(found.get("writtenBy")):
            mentions["author", _text(written.get("by"))] += _count(written.get("rows")) or 0
    name = (
        _text(asked.get("student")) or _text(asked.get("dataset")) or _text(asked.get("name"))
    )
    return StageFacts(
        manifest=manifest.payload_sha256,
        kind=kind,
        name=name,
        project=_text(asked.get("project")) or None,
        declaration=DeclarationId(next(filter(None, declared), "")) or None,
        purpose=_text(_dict(found.get("use")).get("purpose")) or None,
        rows=rows,
        members=_count(_dict(found.get("members")).get("count")),
        parents=tuple(parents),
        mentions=tuple(
            (what, value, count if rows is None else min(count, rows))
            for (what, value), count in mentions.items()
            if value
        ),
    )


def _mentions_of(teacher: dict[str, Any]) -> set[tuple[What, str]]:
    """Return what a dataset's manifest names of one kind of call, each once."""
    found: set[tuple[What, str]] = {
        ("provider", _text(teacher.get("provider"))),
        ("provider", _text(teacher.get("answeredBy"))),
        ("model", _text(teacher.get("model"))),
        ("student", _text(teacher.get("manifest"))),
    }
    found |= {("model", name) for name in _texts(teacher.get("reported"))}
    found |= {("clause", name) for name in _texts(teacher.get("clauses"))}
    found |= {("declaration", name) for name in _texts(teacher.get("declarations"))}
    found |= {("agreement", name) for name in _texts(teacher.get("agreements"))}
    for verdict in _list(teacher.get("verdicts")):
        found.add(("verdict", str(verdict)))
    for pin in _dicts(teacher.get("policies")):
        policy = _text(pin.get("policy"))
        found |= {("policy", policy), ("pin", f"{policy}:{pin.get('version')}")}
    return found


def chunk_of(members: Members) -> Chunk | None:
    """Return the members that a leaf lists; `None` where its bits can't be read."""
    if members.first < 0 or members.first % CHUNK:
        return None
    unpacking = zlib.decompressobj()
    try:
        packed = base64.b64decode(members.bits, validate=True)
        bits = unpacking.decompress(packed, _CHUNK_BYTES)
    except (binascii.Error, ValueError, zlib.error):
        return None
    if unpacking.unconsumed_tail or not unpacking.eof:
        return None
    return Chunk(manifest=members.manifest, number=members.first // CHUNK, bits=bits)


def parents_of(derivation: Derivation) -> tuple[int, ...]:
    """Return the leaves that the rows of *derivation* were made from, rising."""
    return tuple(sorted({parent.index for parent in derivation.parents}))


def _dict(value: object) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _dicts(value: object) -> list[dict[str, Any]]:
    return [one for one in _list(value) if isinstance(one, dict)]


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _texts(value: object) -> list[str]:
    return [one for one in _list(value) if isinstance(one, str)]


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and 0 <= value < 1 << 62 else None


# -- sets of leaves -----------------------------------------------------------------------


def pack_chunk(bits: bytes) -> tuple[int, bytes]:
    """Return how many bits are set, and the bits as they are kept."""
    count = int.from_bytes(bits, "little").bit_count()
    if count > _SPARSE_MAX:
        return count, bits.ljust(_CHUNK_BYTES, b"\0")
    return count, b"".join(place.to_bytes(2, "little") for place in places_in(bits))


def unpack_chunk(kept: bytes) -> bytes:
    """Return the bits of a chunk, all 8,192 bytes of them."""
    if len(kept) == _CHUNK_BYTES:
        return kept
    bits = bytearray(_CHUNK_BYTES)
    for at in range(0, len(kept), 2):
        place = int.from_bytes(kept[at : at + 2], "little")
        bits[place >> 3] |= 1 << (place & 7)
    return bytes(bits)


def has_place(kept: bytes, place: int) -> bool:
    """Tell whether a kept chunk holds *place*."""
    if len(kept) == _CHUNK_BYTES:
        return bool(kept[place >> 3] >> (place & 7) & 1)
    low, high = 0, len(kept) // 2
    while low < high:
        middle = (low + high) // 2
        found = int.from_bytes(kept[2 * middle : 2 * middle + 2], "little")
        if found == place:
            return True
        low, high = (middle + 1, high) if found < place else (low, middle)
    return False


def places_in(bits: bytes) -> Iterator[int]:
    """Yield the places that are set, rising."""
    for at, byte in enumerate(bits):
        if byte:
            yield from ((at << 3) + bit for bit in range(8) if byte >> bit & 1)


def common(kept: Sequence[bytes], bits: bytes) -> list[int]:
    """Return how many places of each kept chunk are set in *bits*, a chunk's 8,192 bytes."""
    counts = [0] * len(kept)
    wanted = int.from_bytes(bits, "little")
    sparse = []
    for number, one in enumerate(kept):
        if len(one) == _CHUNK_BYTES:
            counts[number] = (int.from_bytes(one, "little") & wanted).bit_count()
        elif one:
            sparse.append(number)
    places = b"".join(kept[number] for number in sparse)
    if len(places) <= 2 * _FEW:
        for number in sparse:
            for place in struct.unpack(f"<{len(kept[number]) // 2}H", kept[number]):
                counts[number] += bits[place >> 3] >> (place & 7) & 1
        return counts
    import numpy as np  # noqa: PLC0415  # it takes a tenth of a second to load

    # All of them at once: each alone would cost more in calls than in counting.
    is_set = np.unpackbits(np.frombuffer(bits, dtype=np.uint8), bitorder="little")
    found = is_set[np.frombuffer(places, dtype="<u2")].astype(np.int64)
    starts = np.cumsum([0, *(len(kept[number]) // 2 for number in sparse[:-1])])
    for number, count in zip(sparse, np.add.reduceat(found, starts).tolist(), strict=True):
        counts[number] = count
    return counts


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
        bits = both.to_bytes(_CHUNK_BYTES, "little")
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

    def children(self, stage: Stage) -> list[Stage]:
        """Return what was made from *stage*, one step down."""
        return self._step([stage], "child", "parent")

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

    def leaves_of(self, stage: Stage) -> Iterator[int]:
        """Yield the leaves that *stage* was made from, rising, chunk by chunk."""
        with self._reading():
            chunks = self._connection.execute(
                "SELECT chunk FROM member WHERE stage = ? ORDER BY chunk", (stage.id,)
            ).fetchall()
        for (chunk,) in chunks:
            with self._reading():
                (kept,) = self._connection.execute(
                    "SELECT bits FROM member WHERE stage = ? AND chunk = ?", (stage.id, chunk)
                ).fetchone()
            yield from (chunk * CHUNK + place for place in places_in(unpack_chunk(kept)))

    def without_members(self) -> list[Stage]:
        """Return the datasets of which no list, or not all of it, says their leaves."""
        return self._stages(
            "WHERE s.kind = 'dataset' AND s.leaf IS NOT NULL"
            " AND (SELECT coalesce(sum(m.count), 0) FROM member m WHERE m.stage = s.id)"
            " <> coalesce(s.members, -1) ORDER BY s.leaf"
        )

    def made_from(
        self, words: Iterable[tuple[str, str]], among: Iterable[Stage] | None = None
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

    def chunks_with(
        self, words: Iterable[tuple[str, str]], size: int
    ) -> list[tuple[int, bytes]]:
        """Return the chunks of the first *size* leaves where all *words* stand, as bits.

        The last chunk may hold leaves beyond those.
        """
        with self._reading():
            return list(self._chunks_before(list(words), -(-size // CHUNK) * STRETCHES))

    def _chunks_of(self, words: Sequence[tuple[str, str]]) -> Iterator[tuple[int, bytes]]:
        """Yield each chunk of which a dataset has members and where all *words* stand."""
        (last,) = self._connection.execute("SELECT max(chunk) FROM member").fetchone()
        if last is not None:
            yield from self._chunks_before(words, (int(last) + 1) * STRETCHES)

    def _chunks_before(
        self, words: Sequence[tuple[str, str]], stop: int
    ) -> Iterator[tuple[int, bytes]]:
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
            chunk, at = divmod(one, STRETCHES)
            room = chunks.setdefault(chunk, bytearray(_CHUNK_BYTES))
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
