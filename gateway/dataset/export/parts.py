"""The files of one part of an export, written one after the other as its rows come."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from gateway.canonical import canonical_json
from gateway.dataset.export.forms import Form
from gateway.dataset.export.manifest import Asked, DataFile, Part
from gateway.dataset.export.parquet import Shard
from gateway.dataset.export.receipts import RECEIPT_COLUMN, ReceiptLine, joined_to
from gateway.ident import Sha256

_BUFFER_BYTES: Final = 1 << 18


class PartWriter:
    """Writes the rows of one part into as many files as they take."""

    def __init__(
        self, workshop: Path, part: Part, form: Form, asked: Asked, *, source: Sha256
    ) -> None:
        self._workshop = workshop
        self._part = part
        self._form = form
        self._asked = asked
        self._source = source
        self._rows: list[int] = []
        self._file: _Lines | _Columns | None = None

    def add(self, written: dict[str, Any], said: ReceiptLine, size: int) -> None:
        """Add a row in its new form, which took *size* bytes as a line of the dataset."""
        most = self._asked.shard_rows
        if self._file is None or (most is not None and self._rows[-1] >= most):
            self._close()
            path = self._path(len(self._rows))
            self._file = (
                _Columns(path, self._asked, self._source)
                if self._form.is_parquet
                else _Lines(path, receipt_column=self._asked.receipt_column)
            )
            self._rows.append(0)
        self._file.add(written, said, size)
        self._rows[-1] += 1

    def finish(self) -> Iterator[tuple[DataFile, Sha256]]:
        """Make all files durable, give them their names, and yield each with its digest."""
        self._close()
        ending = "parquet" if self._form.is_parquet else "jsonl"
        for number, rows in enumerate(self._rows):
            name = f"{self._part}.{ending}"
            if self._asked.shard_rows is not None:
                name = f"{self._part}-{number:05}-of-{len(self._rows):05}.{ending}"
            self._path(number).rename(self._workshop / name)
            with (self._workshop / name).open("rb") as file:
                os.fsync(file.fileno())
                sha256 = Sha256(hashlib.file_digest(file, "sha256").hexdigest())
            yield DataFile(name=name, split=self._part, rows=rows), sha256

    def abandon(self) -> None:
        """Let go of what is open."""
        with contextlib.suppress(OSError):
            self._close()

    def _path(self, number: int) -> Path:
        return self._workshop / f"{self._part}.{number}.writing"

    def _close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()


class _Lines:
    """A file of lines of JSON."""

    def __init__(self, path: Path, *, receipt_column: bool) -> None:
        self._file = path.open("xb", buffering=_BUFFER_BYTES)
        self._receipt_column = receipt_column

    def add(self, written: dict[str, Any], said: ReceiptLine, size: int) -> None:
        """Add a line."""
        if self._receipt_column:
            written = written | {RECEIPT_COLUMN: said.receipt}
        self._file.write(canonical_json(written) + b"\n")

    def close(self) -> None:
        """Write what waits."""
        self._file.close()


class _Columns:
    """A file of columns."""

    def __init__(self, path: Path, asked: Asked, source: Sha256) -> None:
        self._shard = Shard(path, asked.kind, source)

    def add(self, written: dict[str, Any], said: ReceiptLine, size: int) -> None:
        """Add a row, joined to what vouches for it."""
        self._shard.add(written | joined_to(said), size)

    def close(self) -> None:
        """Write what waits, and the end of the file."""
        self._shard.close()
