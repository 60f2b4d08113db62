"""Rows as columns: messages as lists of structs, whatever has no fixed shape as JSON text.

The schema is the same for every dataset of a kind, whatever its rows hold. Written shard by
shard and group by group, so that memory does not grow with the rows. Needs `pyarrow`, the extra
`parquet`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import orjson

from gateway.dataset.export.lost import Converted
from gateway.dataset.export.said import text_of
from gateway.errors import MalformedReceiptError, MissingPieceError
from gateway.limits import EXPORT_GROUP_BYTES_MAX, EXPORT_GROUP_ROWS
from gateway.receipt.model import RowKind

RECEIPT_COLUMNS: Final = ("receipt", "receipt_index", "receipt_leaf", "row_sha256")
"""Columns that join each row to what vouches for it; trainers take no notice of them."""

_CONVERSATIONS: Final[dict[RowKind, tuple[str, ...]]] = {
    "messages": ("messages",),
    "preference": ("prompt", "chosen", "rejected"),
    "prompt": ("prompt",),
}
_TEXTS: Final = ("role", "content", "name", "tool_call_id", "reasoning_content")
_CALLED: Final = {"function": ("name", "arguments"), "custom": ("name", "input")}


def to_columns(row: Mapping[str, Any], kind: RowKind) -> Converted:
    """Return a row of *kind* as columns, all of them, those without a value empty."""
    lost: set[str] = set()
    written: dict[str, Any] = {
        column: [_message(message, lost) for message in row[column]]
        for column in _CONVERSATIONS[kind]
    }
    if kind == "prompt":
        written |= {"verifier": row["verifier"], "answer": _answer(row.get("answer"), lost)}
    tools = row.get("tools")
    written["tools"] = None if tools is None else _json(tools)
    return Converted(written, tuple(sorted(lost)))


def from_columns(written: Mapping[str, Any], kind: RowKind) -> dict[str, Any]:
    """Return the row of *kind* that columns without any loss were made of."""
    row: dict[str, Any] = {
        column: [_said(message) for message in written[column]]
        for column in _CONVERSATIONS[kind]
    }
    if kind == "prompt":
        row["verifier"] = written["verifier"]
        if written["answer"] is not None:
            row["answer"] = written["answer"]
    if written["tools"] is not None:
        row["tools"] = orjson.loads(written["tools"])
    return row


class Shard:
    """One file of rows that is being written."""

    def __init__(self, path: Path, kind: RowKind, manifest: str) -> None:
        """Begin the file at *path*, whose rows are of the dataset with that manifest.

        Raises:
            MissingPieceError: pyarrow is not installed.
        """
        self._arrow, parquet = _arrow()
        schema = _schema(self._arrow, kind).with_metadata({"tos-gateway.dataset": manifest})
        self._schema = schema
        self._writer = parquet.ParquetWriter(path, schema, compression="zstd")
        self._waiting: list[dict[str, Any]] = []
        self._bytes = 0

    def add(self, row: dict[str, Any], size: int) -> None:
        """Add a row, which took *size* bytes as a line."""
        self._waiting.append(row)
        self._bytes += size
        if len(self._waiting) >= EXPORT_GROUP_ROWS or self._bytes >= EXPORT_GROUP_BYTES_MAX:
            self._flush()

    def close(self) -> None:
        """Write what waits, and the end of the file."""
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        if self._waiting:
            self._writer.write_table(
                self._arrow.Table.from_pylist(self._waiting, schema=self._schema)
            )
            self._waiting, self._bytes = [], 0


def read_shard(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a file, receipt columns and all.

    Raises:
        MalformedReceiptError: it is no Parquet file.
        MissingPieceError: pyarrow is not installed.
    """
    arrow, parquet = _arrow()
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=EXPORT_GROUP_ROWS):
                yield from batch.to_pylist()
    except (arrow.ArrowException, OSError, ValueError) as exc:
        raise MalformedReceiptError(f"{path.name}: can't be read as Parquet: {exc}") from exc


def _arrow() -> tuple[Any, Any]:
    try:
        # Imported here: most exports, and every other command, do without.
        import pyarrow as pa  # type: ignore[import-untyped]  # noqa: PLC0415
        from pyarrow import parquet  # noqa: PLC0415
    except ImportError as exc:
        raise MissingPieceError(
            "Parquet needs pyarrow, which is not installed",
            hint="install the extra `parquet`: pip install 'tos-gateway[parquet]'",
        ) from exc
    return pa, parquet


def _schema(arrow: Any, kind: RowKind) -> Any:
    text, number = arrow.string(), arrow.int64()
    called = {
        name: arrow.struct([(part, text) for part in parts]) for name, parts in _CALLED.items()
    }
    call = arrow.struct([("id", text), ("type", text), *called.items()])
    message = arrow.struct(
        [*((name, text) for name in _TEXTS), ("tool_calls", arrow.list_(call))]
    )
    columns = [(name, arrow.list_(message)) for name in _CONVERSATIONS[kind]]
    if kind == "prompt":
        columns += [("verifier", text), ("answer", text)]
    columns.append(("tools", text))
    return arrow.schema(
        [
            *columns,
            *((name, number if name == "receipt_index" else text) for name in RECEIPT_COLUMNS),
        ]
    )


def _message(message: Mapping[str, Any], lost: set[str]) -> dict[str, Any]:
    if message.keys() - {*_TEXTS, "tool_calls"}:
        lost.add("message-keys")
    content = message.get("content")
    written: dict[str, Any] = {name: _text(message.get(name), lost) for name in _TEXTS}
    written["content"] = None if content is None else text_of(content, lost)
    calls = message.get("tool_calls")
    written["tool_calls"] = (
        [_call(call, lost) for call in calls] if isinstance(calls, list) else None
    )
    return written


def _call(call: Any, lost: set[str]) -> dict[str, Any]:
    said: dict[str, Any] = call if isinstance(call, dict) else {}
    if said.keys() - {"id", "type", *_CALLED} or said is not call:
        lost.add("call-keys")
    written: dict[str, Any] = {name: _text(said.get(name), lost) for name in ("id", "type")}
    for name, parts in _CALLED.items():
        given = said.get(name)
        if not isinstance(given, dict):
            written[name] = None
            continue
        if given.keys() - set(parts):
            lost.add("call-keys")
        written[name] = {part: _text(given.get(part), lost) for part in parts}
    return written


def _said(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return a message without what is empty; words may be missing, where others called."""
    said = {
        name: value
        for name, value in message.items()
        if value is not None or name in ("role", "content")
    }
    if said.get("tool_calls") is not None:
        said["tool_calls"] = [_without_empty(call) for call in said["tool_calls"]]
    return said


def _without_empty(call: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: _without_empty(value) if isinstance(value, dict) else value
        for name, value in call.items()
        if value is not None
    }


def _text(value: object, lost: set[str]) -> str | None:
    if value is None or isinstance(value, str):
        return value
    lost.add("form")
    return _json(value)


def _answer(answer: object, lost: set[str]) -> str | None:
    return _text(answer, lost)


def _json(value: Any) -> str:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
