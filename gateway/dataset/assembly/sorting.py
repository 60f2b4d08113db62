"""Put what was taken aside, compare it, and hand it on: what is alike, best, or held out.

Rows are compared with one another only once all are there. Until then they lie in a file of
their own; in memory stand some forty bytes a row. Where nothing is to be compared they pass
straight through.
"""

from __future__ import annotations

import enum
import hashlib
import math
import shutil
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, Self

import msgspec
import orjson

from gateway.dataset.assembly.taking import Taken, TakenRow
from gateway.dataset.assembly.writing import LeftOutFile, Part
from gateway.dataset.manifest import Split
from gateway.dataset.shape import check_shape
from gateway.errors import GateRefusedError
from gateway.receipt.model import Derivation, Receipt, RowKind
from gateway.receipt.statement import read_leaf

if TYPE_CHECKING:
    from numpy.typing import NDArray

SPOOL: Final = "spool"

Progress = Callable[[int, int], None]
"""Told how much of the comparing is done, and how many rows there are."""


class Fate(enum.IntEnum):
    """What becomes of a row."""

    TRAIN = 0
    HELD_OUT = 1
    ALIKE = 2
    NOT_BEST = 3
    NOT_JUDGED = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Sorting:
    """How rows are compared."""

    kind: RowKind
    near: bool = False
    best: bool = False
    held_out: Fraction | None = None
    seed: int = 0

    @property
    def compares(self) -> bool:
        """Whether any row must wait for the others."""
        return self.near or self.best or self.held_out is not None


class Sorter:
    """Sorts the rows of one dataset."""

    def __init__(
        self,
        sorting: Sorting,
        workshop: Path,
        left_out: LeftOutFile,
        leaf: Callable[[int], bytes],
    ) -> None:
        self.splits: tuple[Split, ...] = ()
        self._sorting = sorting
        self._folder = workshop / SPOOL
        self._left_out = left_out
        self._leaf = leaf
        self._indices = array("Q")
        self._choices = array("Q")
        self._prompts = array("Q")
        self._scores = array("d")

    def sorted(
        self, taken: Iterator[Taken], progress: Progress
    ) -> Iterator[tuple[Taken, tuple[Part, ...]]]:
        """Yield what was taken, in order, with the part that each of its rows stands in.

        Raises:
            GateRefusedError: rows are to be held out, and all their prompts are alike.
        """
        if not self._sorting.compares:
            for one in taken:
                yield one, (_TRAIN,) * len(one.rows)
            return
        self._folder.mkdir()
        try:
            with (self._folder / "taken").open("w+b", 1 << 20) as spool:
                with self._sketches() as sketches:
                    for one in taken:
                        self._put_aside(one, spool, sketches)
                if self._indices:
                    fates, like = self._decide(progress)
                    spool.seek(0)
                    yield from self._handed_on(spool, fates, like)
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _sketches(self) -> _Sketches:
        sorting = self._sorting
        names = ["row"] if sorting.near else []
        return _Sketches(
            self._folder, [*names, "prompt"] if sorting.held_out is not None else names
        )

    def _put_aside(self, taken: Taken, spool: BinaryIO, sketches: _Sketches) -> None:
        packed = _PACK.encode(taken)
        spool.write(len(packed).to_bytes(8, "big") + packed)
        for row in taken.rows:
            self._indices.append(taken.index)
            self._choices.append(row.choice)
            prompt = b"\n".join(check_shape(row.line, self._sorting.kind))
            digest = hashlib.blake2b(prompt, digest_size=8).digest()
            self._prompts.append(int.from_bytes(digest, "big"))
            if self._sorting.best:
                self._scores.append(score_of(row.verdict))
            if sketches.wanted:
                words = words_of(row.line, self._sorting.kind)
                sketches.add("row", words.whole)
                sketches.add("prompt", words.prompt)

    def _decide(self, progress: Progress) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return what becomes of each row, and which row it is like."""
        import numpy as np  # noqa: PLC0415  only where rows are compared

        from gateway.dataset.assembly.alike import clusters  # noqa: PLC0415  as above
        from gateway.dataset.assembly.split import held_out  # noqa: PLC0415  as above

        sorting, count = self._sorting, len(self._indices)
        prompts = np.frombuffer(self._prompts, np.uint64)
        fates = np.zeros(count, np.uint8)
        like = np.arange(count, dtype=np.int64)
        progress(0, count)
        if sorting.best:
            self._decide_best(fates, like)
        if sorting.near:
            stand = np.flatnonzero(fates == Fate.TRAIN)
            labels = clusters(*self._read_sketches("row"), stand)
            doubles = labels != np.arange(len(stand))
            fates[stand[doubles]] = Fate.ALIKE
            like[stand] = stand[labels]
        stand = np.flatnonzero(fates == Fate.TRAIN)
        if sorting.held_out is not None and len(stand):
            labels = clusters(*self._read_sketches("prompt"), stand, same=prompts[stand])
            if not labels.any():
                raise GateRefusedError(
                    "nothing can be held out: the prompts of all rows are alike",
                    hint="take more, or other, outputs; or build without --held-out",
                    code="dataset.not_split",
                )
            apart, train, held = held_out(
                labels, prompts[stand], sorting.held_out, sorting.seed
            )
            fates[stand[apart]] = Fate.HELD_OUT
            rows = int(apart.sum())
            self.splits = (
                Split(name="train", rows=len(stand) - rows, clusters=train),
                Split(name="held-out", rows=rows, clusters=held),
            )
        progress(count, count)
        return fates, like

    def _decide_best(self, fates: NDArray[Any], like: NDArray[Any]) -> None:
        """Of rows that share a prompt keep the one with the highest verdict, or the first."""
        import numpy as np  # noqa: PLC0415  as above

        prompts = np.frombuffer(self._prompts, np.uint64)
        scores = np.frombuffer(self._scores, np.float64)
        judged = ~np.isnan(scores)
        fates[~judged] = Fate.NOT_JUDGED
        places = np.flatnonzero(judged)
        order = places[np.lexsort((places, -scores[places], prompts[places]))]
        if not len(order):
            return
        begins = np.ones(len(order), np.bool_)
        begins[1:] = prompts[order[1:]] != prompts[order[:-1]]
        best = order[np.maximum.accumulate(np.where(begins, np.arange(len(order)), 0))]
        fates[order[~begins]] = Fate.NOT_BEST
        like[order] = best

    def _read_sketches(self, name: str) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return band keys and sketches of all rows, as they lie in their files."""
        import numpy as np  # noqa: PLC0415  as above

        from gateway.dataset.assembly.alike import BANDS, BINS  # noqa: PLC0415  as above

        keys = np.memmap(self._folder / f"{name}.keys", np.uint64, "r").reshape(-1, BANDS)
        low = np.memmap(self._folder / f"{name}.low", np.uint8, "r").reshape(-1, BINS)
        return keys, low

    def _handed_on(
        self, spool: BinaryIO, fates: NDArray[Any], like: NDArray[Any]
    ) -> Iterator[tuple[Taken, tuple[Part, ...]]]:
        number = 0
        while head := spool.read(8):
            taken = _UNPACK.decode(spool.read(int.from_bytes(head, "big")))
            rows: list[TakenRow] = []
            parts: list[Part] = []
            for row in taken.rows:
                fate = Fate(int(fates[number]))
                if fate in {Fate.TRAIN, Fate.HELD_OUT}:
                    rows.append(row)
                    parts.append("train" if fate is Fate.TRAIN else "held-out")
                else:
                    self._tell(taken, row, fate, int(like[number]))
                number += 1
            if rows:
                yield msgspec.structs.replace(taken, rows=tuple(rows)), tuple(parts)

    def _tell(self, taken: Taken, row: TakenRow, fate: Fate, like: int) -> None:
        if fate is Fate.NOT_JUDGED:
            reason, detail = "no-verdict", f"`{row.verdict}` is no number"
        else:
            reason = "near-duplicate" if fate is Fate.ALIKE else "not-best"
            detail = f"see {self._name_of(like)}"
        self._left_out.tell(taken.name, row.choice, reason, detail, derived=taken.derived)

    def _name_of(self, number: int) -> str:
        statement = read_leaf(self._leaf(self._indices[number]))
        choice = self._choices[number]
        match statement:
            case Receipt(exchange=name) | Derivation(derivation=name):
                return f"{name}/{choice}"
            case _:
                return f"leaf {self._indices[number]}"


@dataclass(frozen=True, slots=True)
class Words:
    """The words of a row: all of them, and those of its prompt."""

    whole: str
    prompt: str


def words_of(line: bytes, kind: RowKind) -> Words:
    """Return the words of the row *line*.

    What the operator told the model (`system`, `developer`) is left aside: the same words stand
    before a thousand different questions. A row that has no others is compared by those.
    """
    row = orjson.loads(line)
    if kind == "messages":
        *asked, answered = row["messages"]
        answers = [answered]
    else:
        asked = row["prompt"]
        answers = [*row.get("chosen", ()), *row.get("rejected", ())]
    prompt = _words(one for one in asked if one.get("role") not in _OPERATORS)
    prompt = prompt or _words(iter(asked))
    return Words(whole=f"{prompt}\n{_words(iter(answers))}", prompt=prompt)


def score_of(verdict: str | None) -> float:
    """Return a verdict as a number; what is none is not a number."""
    try:
        score = float(verdict) if verdict is not None else math.nan
    except ValueError:
        return math.nan
    return score if math.isfinite(score) else math.nan


def _words(messages: Iterator[dict[str, Any]]) -> str:
    return "\n".join(_text(one) for one in messages)


def _text(message: dict[str, Any]) -> str:
    """Return what one message says: its text, and what it calls."""
    content = message.get("content")
    if isinstance(content, list):
        content = "\n".join(
            part.get("text") or "" for part in content if isinstance(part, dict)
        )
    calls = message.get("tool_calls")
    called = orjson.dumps(calls).decode() if calls else ""
    return f"{content if isinstance(content, str) else ''}{called}"


class _Sketches:
    """The files that sketches of rows are put aside in."""

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self.wanted = bool(names)
        self._files = {name: _SketchFile(folder, name) for name in names}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files.values():
            file.close()

    def add(self, name: str, text: str) -> None:
        """Add the sketch of *text* to those of that name, where they are wanted."""
        if name in self._files:
            self._files[name].add(text)


class _SketchFile:
    """Band keys and sketches of some texts, in two files; keys are made of many at once."""

    def __init__(self, folder: Path, name: str) -> None:
        self._keys = (folder / f"{name}.keys").open("xb", 1 << 18)
        self._low = (folder / f"{name}.low").open("xb", 1 << 18)
        self._waiting: list[NDArray[Any]] = []

    def add(self, text: str) -> None:
        """Add the sketch of *text*."""
        from gateway.dataset.assembly.alike import normal, sketch  # noqa: PLC0415  only to compare

        self._waiting.append(sketch(normal(text)))
        if len(self._waiting) >= _SKETCHES_AT_ONCE:
            self._write()

    def close(self) -> None:
        """Write what is left, and let go of the files."""
        self._write()
        self._keys.close()
        self._low.close()

    def _write(self) -> None:
        if self._waiting:
            import numpy as np  # noqa: PLC0415  only to compare

            from gateway.dataset.assembly.alike import band_keys, low_bytes  # noqa: PLC0415  as above

            sketches = np.stack(self._waiting)
            self._keys.write(band_keys(sketches).tobytes())
            self._low.write(low_bytes(sketches).tobytes())
            self._waiting.clear()


_SKETCHES_AT_ONCE: Final = 256
_TRAIN: Final[Part] = "train"
_PACK: Final = msgspec.msgpack.Encoder()
_UNPACK: Final = msgspec.msgpack.Decoder(Taken)
_OPERATORS: Final = frozenset({"system", "developer"})
